//! Which slot the calling thread has, of the attachments that it has used.
//!
//! A thread has its slot until it ends, which the kernel tells others. So nothing is given back here, and nothing
//! depends on the order in which a thread's destructors run: locks can be taken in any of them, and in `atexit`
//! handlers.
//!
//! # What it owns
//! A few words of each thread, without a destructor: the slot used last, the slots of the attachments used lately,
//! and a number that no other thread of this process has. And for each attachment, which thread has which slot.
//!
//! # Invariants
//! 1. What stands in a thread's words is that thread's own: another thread of the same id, later, finds its own
//!    words empty.
//! 2. A thread claims a slot of an attachment only if neither its words nor the attachment know one.
//!
//! # What it does not do
//! It does not look whether a slot still is the thread's; whoever uses it does.

use std::{
    cell::Cell,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use commonhold_space::OwnThread;

/// Attachments whose slots a thread remembers by itself. Of others it asks the attachment.
const REMEMBERED: usize = 8;

/// A slot of the attachment with this id; none has 0.
type Known = (u64, OwnThread);

const NOTHING: Known = (0, OwnThread::NONE);

thread_local! {
    static LAST: Cell<Known> = const { Cell::new(NOTHING) };
    static LATELY: [Cell<Known>; REMEMBERED] = const { [const { Cell::new(NOTHING) }; REMEMBERED] };
    /// 0 until it is asked for.
    static NUMBER: Cell<u64> = const { Cell::new(0) };
}

static NEXT_ATTACHMENT: AtomicU64 = AtomicU64::new(1);
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(1);

/// An id for an attachment.
pub(crate) fn next_attachment() -> u64 {
    NEXT_ATTACHMENT.fetch_add(1, Ordering::Relaxed)
}

/// The attachment that the calling thread used last, and its slot there.
#[inline]
pub(crate) fn last() -> Known {
    LAST.get()
}

/// The number of the calling thread.
pub(crate) fn number() -> u64 {
    if NUMBER.get() == 0 {
        NUMBER.set(NEXT_NUMBER.fetch_add(1, Ordering::Relaxed));
    }
    NUMBER.get()
}

/// Which thread has which slot of one attachment.
#[derive(Debug, Default)]
pub(crate) struct Threads(Mutex<Vec<Option<(u64, OwnThread)>>>);

impl Threads {
    /// The slot of the calling thread in the attachment `id`, which has these threads.
    pub(crate) fn known(&self, id: u64) -> Option<OwnThread> {
        remembered(id).or_else(|| {
            let number = number();
            let slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let mut known = slots.iter().flatten();
            known.find(|(of, _)| *of == number).map(|(_, own)| *own)
        })
    }

    /// The same; or the slot that `claim` claims. It is the one used last from now on.
    pub(crate) fn known_or<E>(
        &self,
        id: u64,
        claim: impl FnOnce() -> Result<OwnThread, E>,
    ) -> Result<OwnThread, E> {
        let own = match self.known(id) {
            Some(own) => own,
            None => {
                let own = claim()?;
                self.enter(own);
                own
            }
        };
        remember(id, own);
        Ok(own)
    }

    /// Whoever had the slot before has ended.
    fn enter(&self, own: OwnThread) {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let index = usize::from(own.thread.index());
        if slots.len() <= index {
            slots.resize(index + 1, None);
        }
        if let Some(slot) = slots.get_mut(index) {
            *slot = Some((number(), own));
        }
    }
}

fn remembered(id: u64) -> Option<OwnThread> {
    LATELY.with(|lately| {
        lately.iter().map(Cell::get).find(|(known, _)| *known == id).map(|(_, own)| own)
    })
}

fn remember(id: u64, own: OwnThread) {
    LATELY.with(|lately| {
        let place = lately
            .iter()
            .find(|known| known.get().0 == id)
            .or_else(|| lately.iter().find(|known| known.get().0 == 0))
            // The one to be forgotten is asked for again of its attachment.
            .or_else(|| lately.get(usize::try_from(id).unwrap_or(0) % REMEMBERED));
        if let Some(place) = place {
            place.set((id, own));
        }
    });
    LAST.set((id, own));
}
