//! Records in the bytes of a region: how one is made, and its reader/writer lock.
//!
//! Kinds differ in how many words come before the tag. A record is made under the directory mutex, so that two threads
//! cannot both make records of different kinds at one place. Making it writes one word, the tag: no record is ever
//! half made.

use core::sync::atomic::{AtomicU64, Ordering};

use commonhold_layout::{
    Offset, Owner, PeerId, ReadKey, RecordKind, RecordTag, ThreadId, thread_word,
};
use commonhold_sync::{RwLock, Shares, Thread};

use crate::{Attached, DirectoryError, Patience, Platform, RegionHandle, RegionShares, View};

/// What was found where a record was to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundRecord {
    /// The record that was wanted. It was made if there was none.
    Wanted,
    /// Another record begins there.
    Other(RecordTag),
    /// Other bytes lie there: this word should be the tag of the record that was wanted.
    NoRecord(u64),
}

impl<P: Platform> Attached<P> {
    /// Opens the record at `at`, a multiple of 8, in bytes of a mapped region that end at `end`. If its words
    /// are all zero, makes the record that is wanted.
    ///
    /// # Errors
    /// [`DirectoryError`] if the directory mutex cannot be had.
    pub fn open_record(
        &self,
        me: &Thread<'_>,
        at: Offset,
        end: u64,
        wanted: RecordTag,
        patience: Patience,
    ) -> Result<FoundRecord, DirectoryError> {
        // Without the mutex, since a tag is never removed. These two looks also commit the memory that is looked at
        // again under the mutex.
        if self.view().find_record(at, end) == Some(wanted) {
            return Ok(FoundRecord::Wanted);
        }
        let _ = self.are_zero(at, wanted);
        let _held = self.view().directory(me, patience.begin(self.view()))?;
        if let Some(tag) = self.view().find_record(at, end) {
            let is_wanted = tag == wanted;
            return Ok(if is_wanted { FoundRecord::Wanted } else { FoundRecord::Other(tag) });
        }
        let Some(word) = self.view().tag_word(at, end, wanted.kind) else {
            return Ok(FoundRecord::NoRecord(0));
        };
        let found = word.load(Ordering::Relaxed);
        if found != 0 || !self.are_zero(at, wanted) {
            return Ok(FoundRecord::NoRecord(found));
        }
        // Relaxed: it publishes no other words, which are all zero.
        word.store(wanted.word(), Ordering::Relaxed);
        Ok(FoundRecord::Wanted)
    }

    /// Whether the words of a record without a tag are all zero, and so unused.
    fn are_zero(&self, at: Offset, wanted: RecordTag) -> bool {
        let places =
            if wanted.kind.has_places() { 1 + u64::from(wanted.size.div_ceil(8)) } else { 0 };
        (0..wanted.kind.words().unwrap_or(0) as u64 + places).all(|index| {
            let word = at.plus(8 * index).map(|at| self.view().window().word(at));
            matches!(word, Some(Ok(word)) if word.load(Ordering::Relaxed) == 0)
        })
    }
}

/// The key that a reader of the lock at `at`, in the bytes of this region, writes into its thread slot. No other lock
/// ever has the same key.
#[must_use]
pub const fn record_key(at: Offset, handle: RegionHandle) -> u64 {
    ReadKey::of_record(at, handle.region, handle.generation).word()
}

impl<P: Platform> View<P> {
    /// The tag of the record that begins at `at`, in bytes of a region that end at `end`, if there is one.
    #[must_use]
    pub fn find_record(&self, at: Offset, end: u64) -> Option<RecordTag> {
        find_tag(at, end, |tag| self.window().word(tag).ok())
    }

    /// As [`find_record`](Self::find_record), for bytes that this peer need not have mapped: it commits no memory.
    #[must_use]
    pub fn look_for_record(&self, at: Offset, end: u64) -> Option<RecordTag> {
        find_tag(at, end, |tag| self.look_at(tag))
    }

    fn tag_word(&self, at: Offset, end: u64, kind: RecordKind) -> Option<&AtomicU64> {
        self.window().word(tag_place(at, end, kind)?).ok()
    }

    /// The reader/writer lock whose words lie at `at`, in the bytes of a region that is mapped.
    pub const fn record_lock<'a>(
        &'a self,
        words: &'a [AtomicU64; 3],
        at: Offset,
        handle: RegionHandle,
    ) -> RwLock<'a, RecordShares<'a, P>> {
        RwLock::new(words, at, record_key(at, handle), RecordShares::new(self, handle))
    }
}

/// Where a record of this kind has its tag, if that lies before `end`.
fn tag_place(at: Offset, end: u64, kind: RecordKind) -> Option<Offset> {
    at.plus(8 * kind.words()? as u64).filter(|tag| tag.get() < end)
}

fn find_tag<'a>(
    at: Offset,
    end: u64,
    word: impl Fn(Offset) -> Option<&'a AtomicU64>,
) -> Option<RecordTag> {
    RecordKind::ALL.into_iter().find_map(|kind| {
        // Relaxed: it publishes no other words.
        let tag = RecordTag::read(word(tag_place(at, end, kind)?)?.load(Ordering::Relaxed));
        tag.ok().flatten().filter(|tag| tag.kind == kind)
    })
}

/// Where the readers of such a lock are recorded: only in words of their thread slots. A thread
/// without a free word is refused, since the share words of a region count the readers of the region's own lock.
#[derive(Debug)]
pub struct RecordShares<'a, P>(RegionShares<'a, P>);

impl<'a, P> RecordShares<'a, P> {
    /// Those of a lock in the bytes of the region of `handle`.
    #[inline]
    #[must_use]
    pub const fn new(view: &'a View<P>, handle: RegionHandle) -> Self {
        Self(RegionShares::new(view, handle.region))
    }
}

impl<P> Clone for RecordShares<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for RecordShares<'_, P> {}

impl<P: Platform> Shares for RecordShares<'_, P> {
    fn peers(&self) -> u16 {
        self.0.peers()
    }

    fn generation(&self, peer: PeerId) -> u32 {
        self.0.generation(peer)
    }

    fn owner(&self, peer: PeerId, thread: ThreadId) -> Option<Owner> {
        self.0.owner(peer, thread)
    }

    fn share(&self, _: PeerId) -> Option<&AtomicU64> {
        None
    }

    fn threads(&self, peer: PeerId) -> u16 {
        self.0.threads(peer)
    }

    fn thread(&self, peer: PeerId, thread: ThreadId) -> Option<&[AtomicU64; thread_word::COUNT]> {
        self.0.thread(peer, thread)
    }
}
