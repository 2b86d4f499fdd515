//! The directory: looking names up without a lock, and the mutex under which the tables change.
//!
//! [`View::find`] looks a name up without the mutex. It walks the chain of the name's hash, which a holder of the
//! mutex may be changing. An entry that it finds counts if the entry's state has the same generation before and after
//! its name was read. A miss counts if the *chain sequence* in the header was even before the walk and is unchanged
//! after it: the holder makes that number odd before it changes a link, and even afterwards. If links keep changing,
//! `find` looks at all entries instead, and at no link.
//!
//! A [`Directory`] is the mutex, held: its holder finds free entries and extents, and changes names and links. The
//! *actor* of an entry is the thread that is creating, destroying, freeing or resizing its region.
//!
//! # Invariants
//! 1. Every store to a name, an extent or a link, and every change of a state from or to `Free`, is made under the
//!    mutex. A thread becomes the actor of an entry only under the mutex. Without it, an actor may give that up: by a
//!    compare-and-swap of the word that names it. Other changes of state are compare-and-swaps, also without the
//!    mutex: by the entry's actor, or by a thread that makes an active region deferred.
//! 2. Links are derived: the chains by name and the order by address follow from the entries that are
//!    not free. While they change, the intent record says so; a thread that takes the mutex over from a dead holder
//!    builds them anew. There is no other allocator state: free space is what no entry covers.
//! 3. Every walk is bounded by the number of entries.
//! 4. The holder asks for no verdict, and neither commits nor releases memory of a region: that happens before or
//!    after (`settle.rs`). It touches only memory that was committed before. So it makes no system call, and a holder
//!    that is neither stopped nor dead is done within microseconds. There is one exception: if other peers have
//!    begun to use a part of the tables that this process has not yet verified, the holder verifies that part. This
//!    costs a system call or two, once for each part in each process. It commits memory only if there is none, which
//!    happens if a number in the window is wrong (`backed.rs`).
//! 5. The mutex is never taken from a living holder. A thread that cannot get it in time is told which peer has it.

use core::sync::atomic::{AtomicU64, Ordering, fence};

use commonhold_layout::{
    Damage, Extent, Intent, IntentKind, IntentPhase, Name, RegionId, RegionPhase, RegionState,
    header_word, region_word,
};
use commonhold_sync::{Liveness, LockError, Mutex, Release, Taken, Thread, Verdict};
use commonhold_window::Point;

use crate::{DirectoryError, Platform, View, budget::Budget, view::Entry};

/// The directory, while this thread holds its mutex.
#[derive(Debug)]
pub(crate) struct Directory<'a, P: Platform> {
    pub(crate) view: &'a View<P>,
    mutex: Mutex<'a>,
    pub(crate) me: Thread<'a>,
}

impl<P: Platform> Drop for Directory<'_, P> {
    fn drop(&mut self) {
        // If an operation failed in the middle of a change, the next holder repairs it as if this one had died there.
        let intent = self.view.header_word(header_word::INTENT);
        let whole = intent.is_ok_and(|intent| intent.load(Ordering::Relaxed) == 0);
        let how = if whole { Release::Done } else { Release::Inconsistent };
        // Fails only if this peer was declared dead meanwhile; then the mutex is no longer ours.
        let _ = self.mutex.unlock(&self.me, self.view, how);
    }
}

/// Free bytes for a new extent, and where it goes in the order of extents.
pub(crate) struct FreeExtent {
    pub(crate) extent: Extent,
    /// The link of the extent before it; 0 if there is none.
    pub(crate) after: u64,
}

impl<P: Platform> View<P> {
    pub(crate) fn header_word(&self, index: usize) -> Result<&AtomicU64, Damage> {
        self.header()?.get(index).ok_or(Damage::new("a header word", index as u64))
    }

    /// Takes the directory mutex. If its last holder died, completes or undoes first what that holder was changing.
    ///
    /// # Errors
    /// [`DirectoryError::Busy`] or [`DirectoryError::HeldBySuspect`] if it cannot be had within the budget.
    pub(crate) fn directory<'a>(
        &'a self,
        me: &Thread<'a>,
        budget: Budget,
    ) -> Result<Directory<'a, P>, DirectoryError> {
        let at = commonhold_layout::Offset::new(8 * header_word::DIRECTORY_LOCK as u64);
        let at = at.ok_or(Damage::new("the directory mutex", 0))?;
        let mutex = Mutex::new(self.header_word(header_word::DIRECTORY_LOCK)?, at);
        let taken = self.take_directory(me, &mutex, budget)?;
        let directory = Directory { view: self, mutex, me: *me };
        if taken.is_owner_died() {
            if let Err(error) = directory.recover() {
                // The next holder tries again.
                let _ = mutex.unlock(me, self, Release::Inconsistent);
                return Err(error);
            }
            mutex.mark_consistent(me)?;
        }
        Ok(directory)
    }

    /// Waits for the mutex until the budget is spent; the error then says which peer has it.
    fn take_directory(
        &self,
        me: &Thread<'_>,
        mutex: &Mutex<'_>,
        budget: Budget,
    ) -> Result<Taken, DirectoryError> {
        /// More than honest owners can come and go between the timeout and the look at the owner.
        const LOOKS: u32 = 1000;
        let mut reset = false;
        for _ in 0..LOOKS {
            match mutex.lock(me, self, Some(budget.end())) {
                Ok(_) if reset => return Ok(Taken::OwnerDied(None)),
                Ok(taken) => return Ok(taken),
                Err(LockError::TimedOut) => {}
                Err(LockError::Unrecoverable) => {
                    // No program leaves the word so, but damaged bytes may. The directory can always be repaired.
                    reset |= mutex.reset(self).is_ok();
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            // If it is free by now, or its owner is dead, the next turn takes it.
            let Some(owner) = mutex.look().owner() else { continue };
            let slot = owner.peer().get();
            match self.verdict(owner) {
                Verdict::Dead => {}
                Verdict::Suspect => return Err(DirectoryError::HeldBySuspect { slot }),
                Verdict::Alive => {
                    return Err(DirectoryError::Busy { slot, thread: owner.thread().index() });
                }
            }
        }
        Err(Damage::new("the directory mutex", mutex.look().word()).into())
    }

    /// Finds the entry of a name, without the mutex. At one instant during the call, the entry had the name and the
    /// returned state. `None`: at one instant during the call, no entry had the name.
    pub(crate) fn find(
        &self,
        name: &Name,
    ) -> Result<Option<(RegionId, RegionState)>, DirectoryError> {
        const ATTEMPTS: u32 = 16;
        let sequence = self.header_word(header_word::CHAIN_SEQUENCE)?;
        for _ in 0..ATTEMPTS {
            // Acquire: pairs with the Release at the end of a change; the chain is at least as new.
            let before = sequence.load(Ordering::Acquire);
            // The chain is damaged; a scan may still find its entries.
            let Ok(found) = self.walk_chain(name) else { break };
            if found.is_some() {
                return Ok(found);
            }
            // Orders the walk before the second look: a miss counts only if no link changed meanwhile.
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && sequence.load(Ordering::Relaxed) == before {
                return Ok(None);
            }
        }
        // Links keep changing, or the thread that was changing them is stopped or dead.
        Ok(self.scan(name)?)
    }

    /// Finds the entry of a name by looking at every entry, and at no link.
    ///
    /// A miss is true without any lock. An entry gets a name only while no other entry has it, so between two entries
    /// that have it one after the other there is an instant when none has it. If there was no such instant during the
    /// scan, one entry had the name all the time, and the scan found it.
    fn scan(&self, name: &Name) -> Result<Option<(RegionId, RegionState)>, Damage> {
        let hash = name.hash().0;
        let mut damaged = None;
        for region in (0..self.regions_used()?).map(RegionId::new) {
            match self.entry(region).and_then(|entry| has_name(entry, name, hash)) {
                Ok(Some(state)) => return Ok(Some((region, state))),
                Ok(None) => {}
                Err(damage) => damaged = Some(damage),
            }
        }
        // The damaged entry may have had this name.
        damaged.map_or(Ok(None), Err)
    }

    fn walk_chain(&self, name: &Name) -> Result<Option<(RegionId, RegionState)>, Damage> {
        let hash = name.hash().0;
        let mut link = self.bucket(hash)?.load(Ordering::Acquire);
        for _ in 0..=self.geometry().regions() {
            let Some(region) = self.geometry().link(link, "a name chain")? else { return Ok(None) };
            let entry = self.entry(region)?;
            if let Some(state) = has_name(entry, name, hash)? {
                return Ok(Some((region, state)));
            }
            link = entry[region_word::NEXT_IN_CHAIN].load(Ordering::Acquire);
        }
        Err(Damage::new("a name chain", link))
    }

    /// Changes the state of an entry, if it still is as expected.
    pub(crate) fn change_state(
        &self,
        region: RegionId,
        from: RegionState,
        to: RegionState,
    ) -> Result<bool, Damage> {
        // SeqCst: pairs with a mapper, which counts itself and then looks at the state; the thread that changes the
        // state then looks at the counts (Dekker). As Release it publishes the actor, which was written before.
        Ok(self.entry(region)?[region_word::STATE]
            .compare_exchange(from.word(), to.word(), Ordering::SeqCst, Ordering::Relaxed)
            .is_ok())
    }

    /// The word with the link of the extent that follows the one linked by `after`.
    fn next_word(&self, after: u64) -> Result<&AtomicU64, Damage> {
        match self.geometry().link(after, "the order of extents")? {
            None => self.header_word(header_word::EXTENT_HEAD),
            Some(region) => Ok(&self.entry(region)?[region_word::NEXT_EXTENT]),
        }
    }

    /// The free bytes after the extent linked by `after` (0: before the first extent), and the link of the
    /// extent that follows them. Without the mutex the answer may be wrong.
    pub(crate) fn gap_after(&self, after: u64) -> Result<(Extent, u64), Damage> {
        let geometry = self.geometry();
        let field = "the order of extents";
        let data = geometry.data();
        let begin = match geometry.link(after, field)? {
            None => data.start().get(),
            Some(region) => self.extent(self.entry(region)?)?.end(),
        };
        let next = self.next_word(after)?.load(Ordering::Relaxed);
        let end = match geometry.link(next, field)? {
            None => data.end(),
            Some(region) => self.extent(self.entry(region)?)?.start().get(),
        };
        let len = end.checked_sub(begin).ok_or(Damage::new(field, next))?;
        Ok((Extent::new(begin, len).ok_or(Damage::new(field, begin))?, next))
    }

    /// The state of a region entry.
    pub(crate) fn region_state(&self, region: RegionId) -> Result<RegionState, Damage> {
        // SeqCst: a mapper counts itself before its second look at the state, and pairs so with `change_state`; see
        // `map`.
        let claim = self.entry(region)?[region_word::STATE].load(Ordering::SeqCst);
        RegionState::read(claim).ok_or(Damage::new("the state of a region", claim))
    }
}

/// The state of an entry, if it is taken and has this name.
fn has_name(entry: &Entry, name: &Name, hash: u64) -> Result<Option<RegionState>, Damage> {
    // Acquire: pairs with the store that took the entry, after its name was written.
    let claim = entry[region_word::STATE].load(Ordering::Acquire);
    let state = RegionState::read(claim).ok_or(Damage::new("the state of a region", claim))?;
    let same = state.phase != RegionPhase::Free
        && entry[region_word::HASH].load(Ordering::Relaxed) == hash
        && entry[region_word::NAME_LEN].load(Ordering::Relaxed) == name.len()
        && entry
            .iter()
            .skip(region_word::NAME)
            .zip(name.words().iter().take(name.used_words()))
            .all(|(word, expected)| word.load(Ordering::Relaxed) == *expected);
    fence(Ordering::Acquire);
    // If the generation is still the same, the name that was read belongs to it.
    let again = RegionState::read(entry[region_word::STATE].load(Ordering::Relaxed));
    Ok(again.filter(|again| {
        same && again.generation == state.generation && again.phase != RegionPhase::Free
    }))
}

impl<P: Platform> Directory<'_, P> {
    /// The entry of a name. Unlike [`View::find`], a walk of the chain suffices: the holder knows that no link
    /// changes.
    pub(crate) fn find(&self, name: &Name) -> Result<Option<(RegionId, RegionState)>, Damage> {
        self.view.walk_chain(name)
    }

    /// Stores the first state of a free entry, or the last of a used one: only the holder makes these changes.
    pub(crate) fn set_state(&self, region: RegionId, state: RegionState) -> Result<(), Damage> {
        // SeqCst: as in `change_state`. As Release it publishes the entry's other words.
        self.view.entry(region)?[region_word::STATE].store(state.word(), Ordering::SeqCst);
        Ok(())
    }

    pub(crate) fn set_intent(&self, intent: Option<Intent>) -> Result<(), Damage> {
        self.view
            .header_word(header_word::INTENT)?
            .store(intent.map_or(0, Intent::word), Ordering::Release);
        Ok(())
    }

    /// Records that the links around `region` are about to change.
    pub(crate) fn begin_links(&self, region: RegionId) -> Result<(), Damage> {
        self.set_intent(Some(Intent {
            kind: IntentKind::Link,
            phase: IntentPhase::Trial,
            region,
        }))?;
        Point::LinkIntent.reached();
        let sequence = self.view.header_word(header_word::CHAIN_SEQUENCE)?;
        sequence.store(sequence.load(Ordering::Relaxed) | 1, Ordering::Relaxed);
        // Release fence: pairs with the Acquire fence in `find`; a reader that sees a changed link also sees the odd
        // number.
        fence(Ordering::Release);
        Point::LinkOdd.reached();
        Ok(())
    }

    /// Records that the links are whole again.
    pub(crate) fn end_links(&self) -> Result<(), Damage> {
        Point::LinkDone.reached();
        let sequence = self.view.header_word(header_word::CHAIN_SEQUENCE)?;
        let next = (sequence.load(Ordering::Relaxed) | 1).wrapping_add(1);
        // Release: pairs with the Acquire of `find`.
        sequence.store(next, Ordering::Release);
        Point::LinkEven.reached();
        self.set_intent(None)
    }

    /// Puts an entry at the head of its name chain.
    pub(crate) fn chain(&self, region: RegionId) -> Result<(), Damage> {
        let entry = self.view.entry(region)?;
        let bucket = self.view.bucket(entry[region_word::HASH].load(Ordering::Relaxed))?;
        entry[region_word::NEXT_IN_CHAIN].store(bucket.load(Ordering::Relaxed), Ordering::Relaxed);
        // Release: pairs with the Acquire loads of `walk_chain`; the entry is written by then.
        bucket.store(region.link(), Ordering::Release);
        Ok(())
    }

    /// Takes an entry out of its name chain.
    pub(crate) fn unchain(&self, region: RegionId) -> Result<(), Damage> {
        let view = self.view;
        let entry = view.entry(region)?;
        let next = entry[region_word::NEXT_IN_CHAIN].load(Ordering::Relaxed);
        let mut word = view.bucket(entry[region_word::HASH].load(Ordering::Relaxed))?;
        for _ in 0..=view.geometry().regions() {
            let link = word.load(Ordering::Relaxed);
            if link == region.link() {
                // Release: as in `chain`.
                word.store(next, Ordering::Release);
                return Ok(());
            }
            let Some(other) = view.geometry().link(link, "a name chain")? else { return Ok(()) };
            word = &view.entry(other)?[region_word::NEXT_IN_CHAIN];
        }
        Err(Damage::new("a name chain", region.link()))
    }

    /// Inserts an extent into the order of extents, after the one linked by `after`.
    pub(crate) fn link_extent(&self, region: RegionId, after: u64) -> Result<(), Damage> {
        let entry = self.view.entry(region)?;
        let word = self.view.next_word(after)?;
        let next = word.load(Ordering::Relaxed);
        entry[region_word::PREVIOUS_EXTENT].store(after, Ordering::Relaxed);
        entry[region_word::NEXT_EXTENT].store(next, Ordering::Relaxed);
        word.store(region.link(), Ordering::Relaxed);
        if let Some(next) = self.view.geometry().link(next, "the order of extents")? {
            self.view.entry(next)?[region_word::PREVIOUS_EXTENT]
                .store(region.link(), Ordering::Relaxed);
        }
        let cursor = self.view.header_word(header_word::EXTENT_CURSOR)?;
        cursor.store(region.link(), Ordering::Relaxed);
        Ok(())
    }

    /// Removes an extent from the order of extents.
    pub(crate) fn unlink_extent(&self, region: RegionId) -> Result<(), Damage> {
        let entry = self.view.entry(region)?;
        let previous = entry[region_word::PREVIOUS_EXTENT].load(Ordering::Relaxed);
        let next = entry[region_word::NEXT_EXTENT].load(Ordering::Relaxed);
        self.view.next_word(previous)?.store(next, Ordering::Relaxed);
        if let Some(next) = self.view.geometry().link(next, "the order of extents")? {
            self.view.entry(next)?[region_word::PREVIOUS_EXTENT].store(previous, Ordering::Relaxed);
        }
        // The next region gets these addresses, whose page tables are warm.
        let cursor = self.view.header_word(header_word::EXTENT_CURSOR)?;
        cursor.store(previous, Ordering::Relaxed);
        Ok(())
    }

    /// Looks for `len` free bytes at a multiple of `align`: first from the last placed extent on,
    /// then from the start. `Err` is the length of the largest free extent.
    pub(crate) fn find_place(
        &self,
        len: u64,
        align: u64,
    ) -> Result<Result<FreeExtent, u64>, Damage> {
        let cursor = self.view.header_word(header_word::EXTENT_CURSOR)?.load(Ordering::Relaxed);
        let mut largest = 0;
        for start in [cursor, 0] {
            let mut after = start;
            for _ in 0..=self.view.geometry().regions() {
                let (gap, next) = self.view.gap_after(after)?;
                largest = largest.max(gap.len());
                if let Some(extent) = fit(gap, len, align) {
                    return Ok(Ok(FreeExtent { extent, after }));
                }
                if next == 0 {
                    break;
                }
                after = next;
            }
            if start == 0 {
                break;
            }
        }
        Ok(Err(largest))
    }
}

/// The first `len` bytes of `gap` at a multiple of `align`.
fn fit(gap: Extent, len: u64, align: u64) -> Option<Extent> {
    let start = commonhold_layout::align_up(gap.start().get(), align)?;
    let end = start.checked_add(len)?;
    if end <= gap.end() { Extent::new(start, len) } else { None }
}
