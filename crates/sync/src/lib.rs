//! Lock words, locks, and recovery from the death of their owners.
//!
//! # What it owns
//! The protocol of every lock: which compare-and-swap changes its words, in which order, and which thread
//! wakes which sleepers. The caller says where the words lie.
//!
//! # Invariants
//! 1. A lock is taken by one compare-and-swap of its owner's whole identity: at no instant is a held
//!    lock without an owner. (Readers, and a mutex's owner by a bias, are known by words of their own
//!    instead: `rwlock.rs`, `bias.rs`.)
//! 2. Another thread takes a held lock only if its owner is dead: the owner's slots say so, or the verdict is
//!    [`Dead`](Verdict::Dead). It takes the lock as inconsistent, unless the dead owner let readers in
//!    (`upgradable.rs`).
//! 3. A thread that has slept takes a lock with [`WAITERS`](commonhold_layout::LockFlags::WAITERS) set, since
//!    it cannot know whether others sleep. An owner that frees a lock with that flag wakes one sleeper.
//! 4. A thread that sleeps, or must wake another, has announced the lock in its pending word: if it
//!    dies, its reaper wakes the sleepers of that lock. A thread that neither sleeps nor wakes another announces
//!    nothing, and saves these stores: an uncontended mutex costs one compare-and-swap to take it and one to
//!    free it. A read lock, or a mutex that is biased to the thread, costs one swap and a store.
//! 5. A waiter learns of the owner's death in three ways.
//!    - The *life word* of the owner's thread slot: the kernel marks it when that thread ends, and wakes a sleeper.
//!      The mark is proof. This is the usual way.
//!    - The *death futex* of the owner's peer: the kernel marks it when the peer's heartbeat thread ends. That is a
//!      hint: the waiter then looks for evidence at once, and repeatedly. ([`DeathNotice`] says what both words tell.)
//!    - The search for evidence ([`Liveness::verdict`]), since a thread can end without either mark. A waiter that
//!      one of the two words may wake searches after 10 ms, and then every 100 ms (`wait.rs`). Where there is
//!      neither word, it searches after 1 ms ([`FIRST_SLICE_NS`]), and then every 20 ms ([`SLICE_NS`]).
//!
//!    A *slice* is the longest time that a waiter sleeps before it looks again, even if no thread wakes it. For a wait
//!    that no owner ends (an event, a condition, readers that leave) it is [`SLICE_NS`].
//!
//! # What it does not do
//! It does not know how to sleep ([`Park`]) nor which owners are dead ([`Liveness`]). It protects no
//! data: the guards are in the crate `commonhold`.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, loom))]
extern crate std;

mod barrier;
mod bias;
mod condvar;
mod error;
mod event;
mod mutex;
mod once;
mod owner_set;
mod owner_slots;
mod port;
mod release;
mod rwlock;
mod semaphore;
mod seqlock;
mod slot;
mod thread;
mod upgradable;
mod used;
mod wait;

pub use barrier::{Barrier, Participant};
pub use bias::{MutexHold, inside_of, is_inside, settle_bias};
pub use condvar::{Condvar, Waited};
pub use error::{LockError, Taken};
pub use event::Event;
pub use mutex::Mutex;
pub use once::{Once, Start};
pub use port::{DeathNotice, Liveness, Park, Verdict, Wake};
pub use release::Release;
pub use rwlock::{QuickWrite, ReadHold, RwLock, Shares};
pub use semaphore::{Permit, Semaphore};
pub use seqlock::{SeqLock, Writing};
pub use slot::ThreadSlot;
pub use thread::{Thread, reading};
pub use used::{raise_used, used};

/// Longest sleep, in nanoseconds, before a waiter looks for evidence that the owner is dead, where no
/// [`DeathNotice`] will tell it. Also the longest sleep of a thread that waits for an event, or for readers to leave.
pub const SLICE_NS: u64 = 20_000_000;

/// The first sleep of a waiter that no [`DeathNotice`] will tell. Most waits end within it, and cost no search for
/// evidence. A thread that comes to the lock of a dead owner without a death futex learns of the death after this
/// time.
pub const FIRST_SLICE_NS: u64 = 1_000_000;

/// Wake-ups that a waiter may lose to others before newcomers have to stand back for it.
const LOSSES_BEFORE_STARVING: u32 = 4;

/// Orders a store (or compare-and-swap) of this thread before a later load of it, where another thread does
/// the same with the two words exchanged: Dekker's pattern. All four accesses are `SeqCst`, which is enough by
/// the language's memory model and free on top of a compare-and-swap. Loom treats `SeqCst` accesses as
/// `AcqRel`, so for loom alone the order is spelt out as a fence.
#[inline(always)]
fn store_then_load() {
    #[cfg(loom)]
    commonhold_window::atomic::fence(commonhold_window::atomic::Ordering::SeqCst);
}
