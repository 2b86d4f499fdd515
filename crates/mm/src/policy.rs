//! The page-out policy: which resident page goes next.
//!
//! Owns: the order of the resident pages. It has no lock, no clock and no memory of pages but its own notes of
//! them. It touches no page, no translation and no pager: it proposes, its caller acts and answers.
//!
//! # What can be known
//! Whoever pages by faults never sees a hit on a page that is mapped. There are two signs of use only: the
//! *major* fault that fills a page (`insert`), and the *minor* fault on a page that is in memory while its
//! translations have been taken away. A minor fault sets a flag in the page's own state, and does not come
//! here: it must stay short. The caller reads and clears that flag when this policy asks about the page.
//!
//! # How it decides
//! Three queues. A page enters *fresh*; from its head pages go on *trial*: their translations are taken away
//! and their memory stays (the second-chance list of VMS: Turner and Levy, "Segmented FIFO page replacement",
//! 1981). What is referenced there has shown that it is used again and becomes *known*; what is not is
//! evicted. Known pages go on trial as well, but only while fresh ones are few, so pages that are used once
//! leave soon and push no known ones out (2Q: Johnson and Shasha, 1994; S3-FIFO: Yang et al., 2023).
//!
//! A page that comes back soon after its eviction becomes known at once, if there is room among these. If
//! there is none, one in a few does: in a loop that does not fit, most of the known ones stay and are hit,
//! and after a change of what is used, those that are not used any more still give way. How soon it is back
//! says the [`Trace`] that the caller kept (the refault distance of Linux). `docs/adr/0017` has the figures.
//!
//! # Invariants
//! 1. Every page that was inserted, and neither evicted nor removed, is in exactly one queue.
//! 2. Every operation takes constant time; only `insert` and `reserve` take memory, and may fail.
//! 3. A [`Slot`] of a page that has gone finds nothing: it changes nothing.
//! 4. A [`Round`] ends, whatever the answers, after two looks at each page at most; and each page that was
//!    there at its beginning, and could have been evicted, has then been proposed.

mod chains;

use core::fmt;

use chains::Chains;

/// Of 16 pages, so many are fresh before those that are known must go on trial too.
const FRESH: usize = 3;

/// Of 16 pages, so many are on trial.
const TRIAL: usize = 5;

/// Of 16 pages, so many are known before pages that come back have to wait for their turn.
const KNOWN: usize = 16 - FRESH - TRIAL;

/// One in so many pages that come back becomes known although there is no room.
const ADMITTED: u32 = 4;

/// There is no memory left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoMemory;

impl fmt::Display for NoMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no memory left")
    }
}

impl core::error::Error for NoMemory {}

/// Where a page stands in [`Residents`]. The caller keeps it beside the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    index: u32,
    generation: u32,
}

/// When a page was evicted. The caller keeps it where the page was, if it has room for it, and gives it back
/// when the page is filled again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace(u32);

/// What should be done with a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Take its translations away (or clear the hardware's accessed bits) and clear its flag, so that its next
    /// use sets the flag. Its memory stays. Then answer [`Answer::Unmapped`].
    Probation,
    /// If its flag is set, clear it and answer [`Answer::Referenced`]. Otherwise write it back, drop it, and
    /// call [`Residents::evicted`].
    Evict,
}

/// What came of a proposal, if the page is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Its translations are gone and its flag is clear.
    Unmapped,
    /// Its flag was set: it has been used since its translations were taken away.
    Referenced,
    /// It has to stay: it is pinned, or busy, or writing it back has failed.
    Kept,
}

/// A page, and what should be done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate<K> {
    /// The page.
    pub key: K,
    /// Where it stands.
    pub slot: Slot,
    /// What should be done.
    pub step: Step,
}

/// How much is left to be looked at. Whoever needs a page takes a new one, and asks with it until it has a page
/// or there is nothing left: then all of them are pinned or in use.
#[derive(Debug)]
pub struct Round {
    fresh: usize,
    known: usize,
    trial: usize,
}

/// The queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Filled, and not yet looked at.
    Fresh,
    /// Has been used again.
    Known,
    /// Without translations; the next to go.
    Trial,
}

impl At {
    const COUNT: usize = 3;
}

/// Which resident page goes next. `K` names a page.
///
/// # Examples
/// ```
/// use commonhold_mm::{Answer, Residents, Step};
///
/// let mut residents = Residents::new();
/// residents.insert("a", None)?;
/// residents.insert("b", None)?;
/// let mut round = residents.round();
/// let mut gone = None;
/// while let Some(page) = residents.candidate(&mut round) {
///     match page.step {
///         // Here the caller would unmap the page.
///         Step::Probation => residents.answer(page.slot, Answer::Unmapped),
///         // Here it would look whether the page was used, and if not, write it back and drop it.
///         Step::Evict => {
///             residents.evicted(page.slot);
///             gone = Some(page.key);
///             break;
///         }
///     }
/// }
/// assert_eq!(gone, Some("a"));
/// # Ok::<(), commonhold_mm::NoMemory>(())
/// ```
#[derive(Debug)]
pub struct Residents<K> {
    pages: Chains<K>,
    /// Counts evictions: the clock of traces.
    evictions: u32,
    /// Counts pages that came back soon.
    returns: u32,
}

impl<K: Copy> Residents<K> {
    /// No pages. Takes no memory.
    #[must_use]
    pub const fn new() -> Self {
        Self { pages: Chains::new(), evictions: 0, returns: 0 }
    }

    /// How many pages there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pages.len(At::Fresh) + self.pages.len(At::Known) + self.pages.len(At::Trial)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the memory for so many pages at once. Until there are more, `insert` does not fail.
    ///
    /// # Errors
    /// [`NoMemory`].
    pub fn reserve(&mut self, pages: usize) -> Result<(), NoMemory> {
        self.pages.reserve(pages)
    }

    /// A page was filled (a major fault); `trace` is what its last eviction left, if that is known.
    ///
    /// # Errors
    /// [`NoMemory`]; nothing has changed.
    pub fn insert(&mut self, key: K, trace: Option<Trace>) -> Result<Slot, NoMemory> {
        let soon = trace.is_some_and(|trace| self.is_recent(trace));
        let at = if soon && self.admits() { At::Known } else { At::Fresh };
        self.pages.add(key, at)
    }

    /// The page is not to be considered any more: it was discarded, or locked.
    pub fn remove(&mut self, slot: Slot) {
        self.pages.remove(slot);
    }

    /// The page was evicted, as proposed.
    pub fn evicted(&mut self, slot: Slot) -> Trace {
        if self.pages.remove(slot) {
            self.evictions = self.evictions.wrapping_add(1);
        }
        Trace(self.evictions)
    }

    /// The page will not be needed soon: it is the next to be proposed for eviction.
    pub fn unwanted(&mut self, slot: Slot) {
        self.pages.move_first(slot, At::Trial);
    }

    /// A new round over all pages.
    #[must_use]
    pub fn round(&self) -> Round {
        Round {
            fresh: self.pages.len(At::Fresh),
            known: self.pages.len(At::Known),
            trial: self.pages.len(At::Trial),
        }
    }

    /// The next page, and what should be done with it; `None` if the round is over. It is not proposed again
    /// before the others of its queue, so several callers get several pages. Whoever gets one answers, by
    /// [`answer`](Self::answer), [`evicted`](Self::evicted) or [`remove`](Self::remove); a page without an
    /// answer comes up again later.
    pub fn candidate(&mut self, round: &mut Round) -> Option<Candidate<K>> {
        let at = self.choose(round)?;
        let (slot, key) = self.pages.rotate(at)?;
        *round.left(at) -= 1;
        let step = match at {
            At::Fresh | At::Known => {
                round.trial += 1;
                Step::Probation
            }
            At::Trial => Step::Evict,
        };
        Some(Candidate { key, slot, step })
    }

    /// What came of a proposal.
    pub fn answer(&mut self, slot: Slot, answer: Answer) {
        match (answer, self.pages.at(slot)) {
            (Answer::Unmapped, Some(At::Fresh | At::Known)) => {
                self.pages.move_last(slot, At::Trial)
            }
            // What cannot be written now is not tried again before the others.
            (Answer::Referenced, Some(_)) | (Answer::Kept, Some(At::Trial)) => {
                self.pages.move_last(slot, At::Known);
            }
            (Answer::Unmapped | Answer::Kept, _) | (Answer::Referenced, None) => {}
        }
    }

    /// The queue whose head is next: one that has pages which this round has not seen.
    fn choose(&self, round: &mut Round) -> Option<At> {
        let mut unseen = |at| self.pages.len(at) > 0 && *round.left(at) > 0;
        let (fresh, known, trial) = (unseen(At::Fresh), unseen(At::Known), unseen(At::Trial));
        let full = |at, share| self.pages.len(at) > self.part(share);
        match (trial, fresh, known) {
            (true, true, _) | (true, _, true) if full(At::Trial, TRIAL) => Some(At::Trial),
            (_, true, true) if full(At::Fresh, FRESH) => Some(At::Fresh),
            (_, _, true) => Some(At::Known),
            (_, true, false) => Some(At::Fresh),
            (true, false, false) => Some(At::Trial),
            (false, false, false) => None,
        }
    }

    /// Whether a page that comes back becomes known at once.
    fn admits(&mut self) -> bool {
        self.returns = self.returns.wrapping_add(1);
        self.pages.len(At::Known) < self.part(KNOWN) || self.returns.is_multiple_of(ADMITTED)
    }

    /// Whether so few pages have gone since that a memory of up to three times the size would have kept it.
    fn is_recent(&self, trace: Trace) -> bool {
        let gone = self.evictions.wrapping_sub(trace.0);
        usize::try_from(gone).is_ok_and(|gone| gone <= self.len().saturating_mul(2))
    }

    /// So many sixteenths of all pages.
    fn part(&self, sixteenths: usize) -> usize {
        self.len().saturating_mul(sixteenths) / 16
    }
}

impl<K: Copy> Default for Residents<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl Round {
    const fn left(&mut self, at: At) -> &mut usize {
        match at {
            At::Fresh => &mut self.fresh,
            At::Known => &mut self.known,
            At::Trial => &mut self.trial,
        }
    }
}

#[cfg(test)]
mod tests;
