//! Why a lock was not taken, and the place of the lock, for errors.

use commonhold_layout::{Damage, LockWord, Offset, Owner, thread_word};
use commonhold_sync::LockError as SyncError;

use crate::{LockError, LockPlace, LockResult, OwnerInfo, RegionError, region::MappedRegion};

/// The place of a lock, for errors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Site<'a> {
    pub(crate) region: &'a MappedRegion,
    /// Where its word lies; `None`: it is the region's own lock.
    pub(crate) at: Option<Offset>,
}

/// Why a lock was not taken, before the place and the owner are added.
#[derive(Debug)]
pub(crate) enum Denied {
    Sync(SyncError),
    Region(Box<RegionError>),
}

/// An error, boxed so that the result of a cold path fits two registers.
pub(crate) type BoxedLockError = Box<LockError>;

impl From<SyncError> for Denied {
    fn from(error: SyncError) -> Self {
        Self::Sync(error)
    }
}

impl From<RegionError> for Denied {
    fn from(error: RegionError) -> Self {
        Self::Region(Box::new(error))
    }
}

impl Site<'_> {
    /// The place of the lock, with what is known about `owner`.
    #[cold]
    pub(crate) fn place(self, owner: Option<Owner>) -> Box<LockPlace> {
        Box::new(LockPlace {
            region: self.region.name().to_owned(),
            offset: self.at.map(|at| self.region.offset_of(at)),
            owner: owner.map(|owner| self.who(owner)),
        })
    }

    fn who(self, owner: Owner) -> OwnerInfo {
        let mut info = OwnerInfo {
            slot: owner.peer().get(),
            thread: owner.thread().index(),
            pid: None,
            is_foreign: false,
            name: String::new(),
        };
        let Ok(core) = self.region.attachment().core() else { return info };
        let view = core.view();
        if let Some(record) = view.last_record_of(owner) {
            let (theirs, ours) = (record.identity, view.platform().identity());
            info.pid = Some(theirs.pid).filter(|pid| *pid != 0);
            info.is_foreign =
                (theirs.boot, theirs.pid_namespace) != (ours.boot, ours.pid_namespace);
            info.name = theirs.name.to_string();
        }
        info
    }

    /// The owner or last owner of the lock with this word. `None` in a forked child, where the word is not mapped.
    pub(crate) fn owner(self, look: impl FnOnce() -> LockWord) -> Option<Owner> {
        let view = self.region.attachment().view().ok()?;
        let word = look();
        let at = self.at.unwrap_or(self.region.mapped().lock_at);
        view.holder(word, at).or(word.left_by())
    }

    /// The error of a lock that was not taken. `owner` holds it, or was its last owner.
    #[cold]
    pub(crate) fn error(self, denied: Denied, owner: Option<Owner>) -> LockError {
        let error = match denied {
            Denied::Sync(error) => error,
            Denied::Region(error) => return (*error).into(),
        };
        match error {
            SyncError::TimedOut => LockError::TimedOut(self.place(owner)),
            SyncError::Deadlock => LockError::Deadlock(self.place(owner)),
            SyncError::Unrecoverable => LockError::Unrecoverable(self.place(owner)),
            SyncError::WriterDied => LockError::OwnerDied(self.place(owner)),
            SyncError::ParticipantDied => LockError::ParticipantDied(self.place(owner)),
            SyncError::TooManyReaders => {
                let most = thread_word::READING_COUNT;
                match self.at {
                    Some(_) => RegionError::TooManyReadLocks { most }.into(),
                    None => RegionError::TooManyReaders.into(),
                }
            }
            SyncError::NothingSpent => RegionError::NothingSpent.into(),
            SyncError::BarrierFull => RegionError::BarrierFull { parties: 0 }.into(),
            SyncError::Fenced => self.not_ours(),
        }
    }

    /// Whether this process took the lock, and no peer has declared it dead. If not, its last writes may have been
    /// dropped.
    #[inline]
    pub(crate) fn is_live(self) -> bool {
        self.region.attachment().is_live_here()
    }

    /// Checks that the last writes were not dropped, so that the lock may be freed. A process that was declared
    /// dead leaves the lock as it is: its word tells the next owner that the last one died.
    pub(crate) fn ask_live(self) -> LockResult<()> {
        if self.is_live() { Ok(()) } else { Err(self.not_ours()) }
    }

    /// Why this thread does not own the lock of its guard any more.
    #[cold]
    pub(crate) fn not_ours(self) -> LockError {
        let attachment = self.region.attachment();
        if attachment.is_forked() {
            LockError::Forked
        } else if self.is_live() {
            // No peer takes a lock from the living, so a neighbour has overwritten its word.
            RegionError::Damaged(Damage::new("the word of a lock", self.at.map_or(0, Offset::get)))
                .into()
        } else {
            LockError::Fenced
        }
    }
}
