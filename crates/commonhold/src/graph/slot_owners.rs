//! The owners of the slots of a semaphore or a barrier that a thread waits for.

use std::sync::atomic::Ordering;

use commonhold_host::LinuxPlatform;
use commonhold_layout::{
    EVENT_STEP, Extent, LockFlags, LockWord, Offset, Owner, PLACES_MOST, RecordKind, RecordTag,
};
use commonhold_space::View;

use super::{WaitKind, thread_ref::ThreadRef};

/// The slots of a record, as they were between the two looks.
#[derive(Debug, Clone, Default)]
pub(super) struct SlotOwners {
    /// The threads that hold permits, or have not arrived at the barrier; each once.
    pub(super) awaited: Vec<(Owner, ThreadRef)>,
    /// The threads that have arrived at the barrier.
    arrived: Vec<(Owner, ThreadRef)>,
    /// Whether a waiter may go on although no thread of `awaited` acts: a permit is free or spent, or a participant
    /// has given up, and the others are told so.
    pub(super) is_open: bool,
}

/// The word of a slot, and its owner.
type Seen = (LockWord, Option<(Owner, ThreadRef)>);

/// The kind of a wait for the event of such a record.
pub(super) const fn wait_for(record: RecordKind) -> Option<WaitKind> {
    match record {
        RecordKind::Semaphore => Some(WaitKind::Permit),
        RecordKind::Barrier => Some(WaitKind::Participants),
        _ => None,
    }
}

impl SlotOwners {
    /// The owners of the record at `at`, in the bytes of a region that end at `end`.
    pub(super) fn look(
        view: &View<LinuxPlatform>,
        at: Offset,
        end: u64,
        tag: RecordTag,
    ) -> Option<Self> {
        let words = tag.kind.words()? as u64 + 1;
        let count = usize::try_from(tag.size / 8).ok();
        let count = count.filter(|count| (1..=PLACES_MOST).contains(count))?;
        let first = at.plus(8 * words)?;
        let after = first.plus(u64::from(tag.size)).filter(|after| after.get() <= end)?;
        let record = Extent::new(at.get(), after.get().checked_sub(at.get())?)?;
        if !view.may_look(record) {
            return None;
        }
        // SeqCst here and below: a participant arrives in a phase that it has seen, so an arrival that is read
        // after the phase is in no earlier phase. And a holder that has just taken its permit has announced before
        // that it is awake.
        let event = view.window().word(at).ok()?.load(Ordering::SeqCst);
        let run = view.window().run(first, count).ok()?;
        let seen = run.words().iter().map(|word| {
            let word = LockWord::from_word(word.load(Ordering::SeqCst));
            (word, word.owner().map(|owner| (owner, ThreadRef::new(view, owner))))
        });
        match tag.kind {
            RecordKind::Semaphore => Some(Self::of_permits(seen)),
            RecordKind::Barrier => Some(Self::of_parties(seen, event / EVENT_STEP)),
            _ => None,
        }
    }

    pub(super) fn awaited(&self) -> Vec<ThreadRef> {
        self.awaited.iter().map(|(_, party)| *party).collect()
    }

    pub(super) fn has_arrived(&self, who: ThreadRef) -> bool {
        self.arrived.iter().any(|(_, party)| *party == who)
    }

    fn of_permits(words: impl Iterator<Item = Seen>) -> Self {
        let mut places = Self::default();
        for (_, holder) in words {
            match holder {
                Some(holder) => add(&mut places.awaited, holder),
                // The permit is free; or it is spent, and any thread may give it.
                None => places.is_open = true,
            }
        }
        places
    }

    fn of_parties(words: impl Iterator<Item = Seen>, phase: u64) -> Self {
        let mut places = Self::default();
        for (seen, party) in words {
            match party {
                Some(party) if seen.has_arrived(phase) => add(&mut places.arrived, party),
                Some(party) => add(&mut places.awaited, party),
                None if seen.has_arrived(phase) => {}
                None => places.is_open |= seen.flags().contains(LockFlags::INCONSISTENT),
            }
        }
        places
    }
}

fn add(owners: &mut Vec<(Owner, ThreadRef)>, owner: (Owner, ThreadRef)) {
    if !owners.contains(&owner) {
        owners.push(owner);
    }
}
