//! Finds locks in the bytes of regions by their tags.
//!
//! # Invariants
//! 1. The search reads only bytes that were ever written, and takes no memory.
//! 2. A word counts as a tag only if all of it fits: the record lies in the region, behind the record before it,
//!    and the words of its lock are possible, with slots that exist. Data that look like a tag fail this check.
//! 3. The data of a record are not searched: they may look like a lock.
//! 4. The search reads no more than the limits below, so that one huge region does not delay the caller.

use commonhold_host::{LinuxPlatform, MappedWindow};
use commonhold_layout::{
    Extent, LockWord, Offset, PLACES_MOST, RECORD_MARKER, RecordKind, RecordTag,
};
use commonhold_space::{RegionRecord, View};
use zerocopy::IntoBytes;

/// The most bytes that are read of one region, and of all regions.
const MOST: [u64; 2] = [256 << 20, 1 << 30];
/// The same for memory of a device, where each load may take a microsecond.
const MOST_OF_DEVICE: [u64; 2] = [4 << 20, 16 << 20];
/// Words that are read at once.
const CHUNK: usize = 32 << 10;
/// The bits of a tag from here on are its marker.
const MARKER_SHIFT: u32 = 40;

/// A lock that was found.
#[derive(Debug)]
pub(super) struct Found {
    /// Where its first word lies.
    pub(super) at: Offset,
    pub(super) tag: RecordTag,
    /// Its words that name owners.
    pub(super) words: Vec<LockWord>,
}

/// A search through regions, one after the other.
pub(super) struct Search<'a> {
    view: &'a View<LinuxPlatform>,
    mapped: &'a MappedWindow,
    buffer: Vec<u64>,
    /// How many bytes may be read of one region, and of all further regions.
    most: u64,
    left: u64,
}

impl<'a> Search<'a> {
    pub(super) fn new(view: &'a View<LinuxPlatform>) -> Self {
        let mapped = view.platform().mapped();
        let [most, left] = if mapped.is_device() { MOST_OF_DEVICE } else { MOST };
        Self { view, mapped, buffer: vec![0; CHUNK], most, left }
    }

    /// Calls `found` with each lock in the bytes of a region. If the region has too many bytes, returns where the
    /// search ended.
    pub(super) fn through(
        &mut self,
        record: &RegionRecord,
        mut found: impl FnMut(Found),
    ) -> Option<u64> {
        let start = record.extent.start().get();
        let end = start.saturating_add(record.size.min(record.extent.len()));
        let mut most = self.most.min(self.left);
        // The end of the previous record, and the place up to which the bytes were searched.
        let (mut next, mut at) = (start, start);
        while let Some(run) = between(at, end).and_then(|rest| self.mapped.next_data(rest)) {
            // Tags lie at multiples of 8.
            at = run.start().get().max(next) & !7;
            while at < run.end() {
                if most < 8 {
                    return Some(at - start);
                }
                // Bytes that cannot be read, or are less than a word, hold no lock.
                let words = self.read(at, run.end().min(at.saturating_add(most)))?;
                for (index, word) in self.buffer.iter().take(words).enumerate() {
                    if word >> MARKER_SHIFT == RECORD_MARKER
                        && let Some((lock, after)) =
                            self.record(*word, at + 8 * index as u64, next, end)
                    {
                        next = after;
                        found(lock);
                    }
                }
                let read = 8 * words as u64;
                most = most.saturating_sub(read);
                self.left = self.left.saturating_sub(read);
                at = at.saturating_add(read).max(next);
            }
        }
        None
    }

    /// Reads the words from `at` to `end`, at most as many as fit the buffer. Returns how many.
    fn read(&mut self, at: u64, end: u64) -> Option<usize> {
        let words = usize::try_from(end.checked_sub(at)? / 8).ok()?.min(CHUNK);
        let to = self.buffer.get_mut(..words).filter(|to| !to.is_empty())?;
        self.mapped.read_quietly(Offset::new(at)?, to.as_mut_bytes()).ok()?;
        Some(words)
    }

    /// The record with this tag, and its end, if it is one.
    fn record(&self, word: u64, tag_at: u64, next: u64, end: u64) -> Option<(Found, u64)> {
        let tag = RecordTag::read(word).ok()??;
        let at = tag_at.checked_sub(8 * tag.kind.words()? as u64).filter(|at| *at >= next)?;
        let data = tag_at.checked_add(8)?;
        let after = data.checked_add(u64::from(tag.size).next_multiple_of(8))?;
        if after > end {
            return None;
        }
        let (first, count) = match tag.kind {
            RecordKind::Mutex | RecordKind::RwLock | RecordKind::SeqLock | RecordKind::Once => {
                (at, 1)
            }
            RecordKind::Semaphore | RecordKind::Barrier => (data, places(tag)?),
            RecordKind::Condvar | RecordKind::Event => (at, (tag.size == 0).then_some(0)?),
        };
        let mut words = vec![0; count];
        self.mapped.read_quietly(Offset::new(first)?, words.as_mut_bytes()).ok()?;
        let words: Vec<_> = words.into_iter().map(LockWord::from_word).collect();
        let fits = words.iter().all(|word| self.makes_sense(*word, tag.kind));
        fits.then_some((Found { at: Offset::new(at)?, tag, words }, after))
    }

    /// Whether a lock of this kind can have this word.
    fn makes_sense(&self, word: LockWord, kind: RecordKind) -> bool {
        let geometry = self.view.geometry();
        let (peers, threads) = (geometry.peers(), geometry.threads());
        if let Some(bias) = word.bias() {
            let exists = bias.peer.get() < peers && bias.thread.index() < threads;
            return matches!(kind, RecordKind::Mutex | RecordKind::RwLock) && exists;
        }
        if let Some(owner) = word.owner().or(word.left_by()) {
            return owner.peer().get() < peers && owner.thread().index() < threads;
        }
        let done = kind == RecordKind::Once && word == LockWord::DONE;
        done || word == LockWord::unowned(word.flags())
    }
}

/// How many owner slots there are behind the tag; `None` if the tag makes no sense.
fn places(tag: RecordTag) -> Option<usize> {
    let places = usize::try_from(tag.size / 8).ok()?;
    (tag.size.is_multiple_of(8) && (1..=PLACES_MOST).contains(&places)).then_some(places)
}

/// The bytes from `at` to `end`, if there are any.
fn between(at: u64, end: u64) -> Option<Extent> {
    Extent::new(at, end.checked_sub(at).filter(|len| *len > 0)?)
}
