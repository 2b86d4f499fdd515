//! Which thread slot the calling thread has in each attachment that it has used.
//!
//! A thread keeps its slot until it ends, and the kernel tells others of that. So this file gives nothing back, and
//! does not depend on the order in which a thread's destructors run: any destructor, and any `atexit` handler, can
//! take locks.
//!
//! # What it owns
//! A few words of each thread, without a destructor: the slot used last, the slots of the attachments used lately,
//! and a number that no other thread of this process has. And for each attachment, which thread has which slot.
//!
//! # Invariants
//! 1. The words of a thread belong to that thread alone: a later thread with the same id finds its own words empty.
//! 2. A thread claims a slot of an attachment only if neither its words nor the attachment know one.
//!
//! # What it does not do
//! It does not check whether a slot still belongs to the thread; the caller does.

use std::{
    cell::Cell,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use commonhold_space::OwnThread;

/// How many attachments a thread remembers its slots of. For others it asks the attachment.
const REMEMBERED: usize = 8;

/// The id of an attachment, and a slot in it. No attachment has the id 0.
type Known = (u64, OwnThread);

const NOTHING: Known = (0, OwnThread::NONE);

thread_local! {
    static LAST: Cell<Known> = const { Cell::new(NOTHING) };
    static LATELY: [Cell<Known>; REMEMBERED] = const { [const { Cell::new(NOTHING) }; REMEMBERED] };
    /// 0 until it is first asked for.
    static NUMBER: Cell<u64> = const { Cell::new(0) };
}

static NEXT_ATTACHMENT: AtomicU64 = AtomicU64::new(1);
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(1);

/// A new id for an attachment.
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
    /// The slot of the calling thread in the attachment `id`, to which these threads belong.
    pub(crate) fn known(&self, id: u64) -> Option<OwnThread> {
        remembered(id).or_else(|| {
            let number = number();
            let slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let mut known = slots.iter().flatten();
            known.find(|(of, _)| *of == number).map(|(_, own)| *own)
        })
    }

    /// As [`known`](Self::known), or else the slot that `claim` claims. Remembers it as the slot used last.
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

    /// Enters the calling thread as the owner of a slot. The thread that had the slot before has ended.
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
            // The attachment whose slot is overwritten here still knows it.
            .or_else(|| lately.get(usize::try_from(id).unwrap_or(0) % REMEMBERED));
        if let Some(place) = place {
            place.set((id, own));
        }
    });
    LAST.set((id, own));
}
