//! The page-out policy: which resident page goes next.
//!
//! It owns the order of the resident pages, and has no lock and no clock. It touches no page, no translation and
//! no pager: it proposes, and its caller acts and answers.
//!
//! # What can be known
//! A pager that works by faults never sees an access to a page that is mapped. There are only two signs of use:
//! the *major* fault that fills a page (`insert`), and the *minor* fault on a page that is in memory but has lost
//! its translations. A minor fault must stay short: it does not come here, and only sets a flag in the page's own
//! state. The caller reads and clears that flag when this policy asks about the page.
//!
//! # How it decides
//! There are three queues. A page enters the *fresh* queue. Pages at its head go on *trial*: they lose their
//! translations and keep their memory (the second-chance list of VMS: Turner and Levy, "Segmented FIFO page
//! replacement", 1981). A page that is referenced on trial is used again and becomes *known*; any other is
//! evicted. Known pages go on trial too, but only while there are few fresh pages. So pages that are used once
//! leave soon, and push no known pages out (2Q: Johnson and Shasha, 1994; S3-FIFO: Yang et al., 2023).
//!
//! A page that comes back soon after its eviction becomes known at once, if the known queue has room. If it has
//! none, one page in a few does. So in a loop that does not fit into memory, most known pages stay and are hit;
//! and when a program turns to other pages, the old ones still give way. The [`Trace`] that the caller kept tells
//! how soon the page is back (the refault distance of Linux). `docs/adr/0017` has the figures.
//!
//! # Invariants
//! 1. Every page that was inserted, and neither evicted nor removed, is in exactly one queue.
//! 2. Every operation takes constant time. Only `insert` and `reserve` take memory, and may fail.
//! 3. A [`Slot`] of a page that has gone changes nothing.
//! 4. A [`Round`] ends after at most two looks at each page, whatever the answers. By then it has proposed for
//!    eviction each page that was there at its beginning and could have been evicted.

mod chains;

use core::{fmt, num::NonZeroU32};

use chains::Chains;

/// The share of fresh pages, in sixteenths. Known pages go on trial only while fresh ones do not exceed it.
const FRESH: usize = 3;

/// The share of pages on trial, in sixteenths. Pages above it are proposed for eviction before others go on trial.
const TRIAL: usize = 5;

/// The share of known pages, in sixteenths. While it is reached, only one in [`ADMITTED`] returning pages becomes
/// known at once.
const KNOWN: usize = 16 - FRESH - TRIAL;

/// When the known queue is full, one in so many returning pages still becomes known at once.
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

/// The place of a page in [`Residents`]. The caller keeps it beside the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    index: u32,
    /// Not 0, so that an `Option<Slot>` is as small as a slot: each page has one.
    generation: NonZeroU32,
}

/// When a page was evicted. The caller keeps it in the page's entry, if it has room for it, and passes it to
/// [`Residents::insert`] when the page is filled again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace(NonZeroU32);

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

/// The result of a proposal, for a page that is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Its translations are gone and its flag is clear.
    Unmapped,
    /// Its flag was set: it has been used since its translations were taken away.
    Referenced,
    /// It has to stay: it is pinned or busy, or it could not be written back.
    Kept,
}

/// A page, and what should be done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate<K> {
    /// The page.
    pub key: K,
    /// Its place, for the answer.
    pub slot: Slot,
    /// What should be done.
    pub step: Step,
}

/// How many pages of each queue are left to look at. A caller that needs a page makes a new round, and asks for
/// candidates until it has evicted one or the round is over: then all pages are pinned or in use.
#[derive(Debug)]
pub struct Round {
    fresh: usize,
    known: usize,
    trial: usize,
}

/// The queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Pages that were filled, and not yet looked at.
    Fresh,
    /// Pages that have been used again.
    Known,
    /// Pages without translations; they are the next to go.
    Trial,
}

impl At {
    const COUNT: usize = 3;
}

/// The resident pages, and which of them goes next. `K` names a page.
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
    /// The number of evictions, plus 1: the clock of traces. 0 is left out.
    evictions: NonZeroU32,
    /// The number of pages that came back soon.
    returns: u32,
}

impl<K: Copy> Residents<K> {
    /// No pages. Takes no memory.
    #[must_use]
    pub const fn new() -> Self {
        Self { pages: Chains::new(), evictions: NonZeroU32::MIN, returns: 0 }
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

    /// Takes memory for `pages` pages. While there are no more than that, `insert` does not fail.
    ///
    /// # Errors
    /// [`NoMemory`].
    pub fn reserve(&mut self, pages: usize) -> Result<(), NoMemory> {
        self.pages.reserve(pages)
    }

    /// Adds a page that was filled (a major fault). `trace` is the result of its last eviction, if the caller has it.
    ///
    /// # Errors
    /// [`NoMemory`]; nothing has changed.
    pub fn insert(&mut self, key: K, trace: Option<Trace>) -> Result<Slot, NoMemory> {
        let soon = trace.is_some_and(|trace| self.is_recent(trace));
        let at = if soon && self.admits() { At::Known } else { At::Fresh };
        self.pages.add(key, at)
    }

    /// Removes a page that was discarded or locked: it is not proposed any more.
    pub fn remove(&mut self, slot: Slot) {
        self.pages.remove(slot);
    }

    /// Removes a page that was evicted as proposed. The trace is for its next [`insert`](Self::insert).
    pub fn evicted(&mut self, slot: Slot) -> Trace {
        if self.pages.remove(slot) {
            self.evictions = next(self.evictions);
        }
        Trace(self.evictions)
    }

    /// Makes a page that will not be needed soon the next to be proposed for eviction.
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

    /// The next page, and what should be done with it; `None` if the round is over. A page is not proposed again
    /// before the others of its queue, so several callers get different pages. The caller answers with
    /// [`answer`](Self::answer), [`evicted`](Self::evicted) or [`remove`](Self::remove); a page without an
    /// answer is proposed again later.
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

    /// Takes the result of a proposal.
    pub fn answer(&mut self, slot: Slot, answer: Answer) {
        match (answer, self.pages.at(slot)) {
            (Answer::Unmapped, Some(At::Fresh | At::Known)) => {
                self.pages.move_last(slot, At::Trial)
            }
            // A page that cannot go now is not proposed for eviction again before the others.
            (Answer::Referenced, Some(_)) | (Answer::Kept, Some(At::Trial)) => {
                self.pages.move_last(slot, At::Known);
            }
            (Answer::Unmapped | Answer::Kept, _) | (Answer::Referenced, None) => {}
        }
    }

    /// The queue whose head is proposed next, among those with pages that this round has not seen.
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

    /// Whether a page that comes back soon becomes known at once.
    fn admits(&mut self) -> bool {
        self.returns = self.returns.wrapping_add(1);
        self.pages.len(At::Known) < self.part(KNOWN) || self.returns.is_multiple_of(ADMITTED)
    }

    /// Whether so few pages were evicted since that a memory of three times the size would have kept the page.
    fn is_recent(&self, trace: Trace) -> bool {
        let gone = self.evictions.get().wrapping_sub(trace.0.get());
        usize::try_from(gone).is_ok_and(|gone| gone <= self.len().saturating_mul(2))
    }

    /// `sixteenths` sixteenths of the number of pages.
    fn part(&self, sixteenths: usize) -> usize {
        self.len().saturating_mul(sixteenths) / 16
    }
}

impl<K: Copy> Default for Residents<K> {
    fn default() -> Self {
        Self::new()
    }
}

/// The next number; after the greatest one, 1.
const fn next(number: NonZeroU32) -> NonZeroU32 {
    match number.checked_add(1) {
        Some(next) => next,
        None => NonZeroU32::MIN,
    }
}

impl Round {
    /// How many pages on trial it has not proposed yet, of those that were there at its beginning.
    pub(crate) const fn trials(&self) -> usize {
        self.trial
    }

    /// How many other pages it has not proposed yet. At its end, those have gone, or went on trial in another round.
    pub(crate) const fn others(&self) -> usize {
        self.fresh.saturating_add(self.known)
    }

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
