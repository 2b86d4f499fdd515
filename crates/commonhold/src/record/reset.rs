//! Resetting a lock in the bytes of a region, of any kind.

use commonhold_layout::{Offset, RecordKind, RecordTag};
use commonhold_sync as sync;
use commonhold_sync::{LockError as SyncError, Release, Taken, Thread};

use crate::{
    LockError, LockResult, Mapping, RegionError, attachment::Attachment, lock::Site,
    region::MappedRegion,
};

impl Mapping {
    /// Makes the lock that begins at `offset` as good as new, after the caller has made the data anew. This is for
    /// tools that do not know the type of the data; programs that do use [`Mutex::reset`](crate::Mutex::reset) and
    /// the like. After it the lock is consistent, even if its owner died, left it inconsistent, or gave it up.
    /// Returns the tag of the lock.
    ///
    /// # Errors
    /// [`RegionError::NoRecord`] if no lock with a tag begins there, [`RegionError::NoReset`] if it is neither a
    /// mutex nor a reader/writer lock nor a sequence lock; [`LockError::TimedOut`] if an owner has it;
    /// [`RegionError::Misaligned`], [`RegionError::OutOfBounds`], [`RegionError::ReadOnly`].
    pub fn reset_record(&self, offset: u64) -> LockResult<RecordTag> {
        let region = &**self.region();
        let at = region.writable_words(offset, 8)?;
        let attachment = region.attachment();
        let view = attachment.view()?;
        let none = || RegionError::NoRecord { offset };
        let tag = view.find_record(at, region.end()).ok_or_else(none)?;
        let me = attachment.me()?;
        let reset = match tag.kind {
            RecordKind::Mutex => reset_mutex(region, at, attachment),
            RecordKind::RwLock => reset_rwlock(region, at, &me, attachment),
            RecordKind::SeqLock => reset_seqlock(region, at, &me, attachment),
            RecordKind::Once
            | RecordKind::Event
            | RecordKind::Condvar
            | RecordKind::Semaphore
            | RecordKind::Barrier => {
                return Err(RegionError::NoReset { offset, found: tag }.into());
            }
        };
        reset.map(|()| tag)
    }
}

fn words<const N: usize>(
    region: &MappedRegion,
    at: Offset,
) -> Result<&[std::sync::atomic::AtomicU64; N], RegionError> {
    let words = region.attachment().view()?.window().words::<N>(at);
    words.map_err(|_| region.outside(region.offset_of(at), 8 * N as u64))
}

/// The error of a lock whose writers take the mutex `writer`.
fn denied(region: &MappedRegion, writer: sync::Mutex<'_>, error: SyncError) -> LockError {
    let site = Site { region, at: Some(writer.at()) };
    site.error(error.into(), site.owner(|| writer.look()))
}

/// Resets a lock by taking it first: that finds out whether its owner or a reader lives.
fn reset(
    taken: Result<Taken, SyncError>,
    repair: impl FnOnce() -> Result<(), SyncError>,
    free: impl FnOnce() -> Result<(), SyncError>,
    reset: impl FnOnce() -> Result<(), SyncError>,
) -> Result<(), SyncError> {
    match taken {
        Ok(Taken::Clean) => free(),
        Ok(Taken::OwnerDied(_)) => repair().and_then(|()| free()),
        // No thread can take it.
        Err(SyncError::Unrecoverable) => reset(),
        Err(error) => Err(error),
    }
}

fn reset_mutex(region: &MappedRegion, at: Offset, attachment: &Attachment) -> LockResult<()> {
    let [word] = words::<1>(region, at)?;
    let mutex = sync::Mutex::new(word, at);
    mutex.reset(attachment.my_view()).map_err(|error| denied(region, mutex, error))
}

fn reset_rwlock(
    region: &MappedRegion,
    at: Offset,
    me: &Thread<'_>,
    attachment: &Attachment,
) -> LockResult<()> {
    let view = attachment.my_view();
    let lock = view.record_lock(words(region, at)?, at, region.handle());
    let writer = lock.writer();
    let done = reset(
        lock.write(me, view, Some(0)),
        || writer.mark_consistent(me),
        || writer.unlock(me, view, Release::Done),
        || writer.reset(view),
    );
    done.map_err(|error| denied(region, writer, error))
}

fn reset_seqlock(
    region: &MappedRegion,
    at: Offset,
    me: &Thread<'_>,
    attachment: &Attachment,
) -> LockResult<()> {
    let view = attachment.my_view();
    let lock = sync::SeqLock::new(words(region, at)?, at);
    let writer = lock.writer();
    let (taken, writing) = match lock.write(me, view, Some(0)) {
        Ok((taken, writing)) => (Ok(taken), writing),
        Err(error) => (Err(error), sync::Writing::default()),
    };
    let done = reset(
        taken,
        || writer.mark_consistent(me),
        || lock.unlock_write(me, view, writing, Release::Done),
        || lock.reset(me, view),
    );
    done.map_err(|error| denied(region, writer, error))
}
