//! Lock words, locks, and recovery from the death of their owners.
//!
//! # What it owns
//! The protocol of every lock: which compare-and-swap changes its words, in which order, and who
//! wakes whom. The words themselves lie wherever the caller says.
//!
//! # Invariants
//! 1. A lock is taken by one compare-and-swap of its owner's whole identity: at no instant is a held
//!    lock without an owner. (Readers, and a mutex's owner by a bias, are known by words of their own
//!    instead: `rwlock.rs`, `bias.rs`.)
//! 2. Only a verdict of [`Dead`](Verdict::Dead) lets anybody else take it, and always as inconsistent.
//! 3. Whoever has parked takes a lock with [`WAITERS`](commonhold_layout::LockFlags::WAITERS) set, since
//!    it cannot know whether others sleep; whoever frees a lock with that flag wakes one sleeper.
//! 4. A thread that sleeps, or must wake another, has announced the lock in its pending word: if it
//!    dies, whoever reaps it wakes the sleepers of that lock. A thread that does neither needs none,
//!    so an uncontended mutex costs two compare-and-swaps, and a read lock, or a mutex that is biased to the
//!    thread, one swap and a store.
//! 5. A waiter learns of its owner's death by the owner's [`DeathNotice`], which the kernel rings, or, where there
//!    is none, at the end of a slice ([`SLICE_NS`]), when it looks for evidence (`wait.rs`).
//!
//! # What it does not do
//! It does not know how to sleep ([`Park`]) nor how to tell the dead ([`Liveness`]), and protects no
//! data: guards are the facade's.
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

/// Longest sleep before a waiter looks into the life of whom it waits for, in nanoseconds, where no
/// [`DeathNotice`] will tell it; and of whoever waits for an event, or for readers to leave.
pub const SLICE_NS: u64 = 20_000_000;

/// The first sleep of such a waiter. Most waits end within it, so only those that do not pay for a search
/// for evidence; and who arrives at a dead owner's lock that has no death futex learns of it after this time.
pub const FIRST_SLICE_NS: u64 = 1_000_000;

/// Wake-ups that a waiter may lose to others before newcomers have to stand back for it.
const LOSSES_BEFORE_STARVING: u32 = 4;

/// Orders a store (or compare-and-swap) of ours before a load of ours, against another party that does
/// the same the other way round: Dekker's pattern. All four accesses are `SeqCst`, which is enough by
/// the language's memory model and free on top of a compare-and-swap. Loom treats `SeqCst` accesses as
/// `AcqRel`, so for it, and only for it, the order is spelt out as a fence.
#[inline(always)]
fn store_then_load() {
    #[cfg(loom)]
    commonhold_window::atomic::fence(commonhold_window::atomic::Ordering::SeqCst);
}
