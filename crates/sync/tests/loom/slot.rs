//! The slot of a thread: claimed, made ready, marked by a kernel or by a reaper with other proof, given back, used
//! again.
//!
//! The kernel is a model of Linux's `exit_robust_list`: it knows one word of the thread that ends, and marks
//! the word if its low half names that thread.

use commonhold_layout::{Owner, PeerId, ThreadId, ThreadLife, thread_word};
use commonhold_sync::ThreadSlot;
use commonhold_window::{
    Point,
    atomic::{AtomicU64, Ordering},
};
use loom::{cell::UnsafeCell, sync::Arc, thread};

use super::world::{Life, Mortal, World, check};

/// One slot, a lock word that its threads take, and what that protects.
struct Slot {
    words: [AtomicU64; thread_word::COUNT],
    lock: AtomicU64,
    data: UnsafeCell<u64>,
}

// SAFETY: `data` is all that is not `Sync`; loom checks that the protocol keeps accesses to it apart.
unsafe impl Sync for Slot {}
// SAFETY: as above.
unsafe impl Send for Slot {}

const READ: usize = thread_word::READING;

impl Slot {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            words: std::array::from_fn(|_| AtomicU64::new(0)),
            lock: AtomicU64::new(0),
            data: UnsafeCell::new(0),
        })
    }

    fn slot(&self) -> ThreadSlot<'_> {
        ThreadSlot::new(&self.words)
    }

    fn owner(life: ThreadLife) -> u64 {
        let owner = Owner::new(PeerId::new(0), life.incarnation(), ThreadId::FIRST).unwrap();
        owner.word().word()
    }

    /// A thread with this id claims the slot, if it is vacant, and makes it ready.
    fn claim(&self, tid: u32) -> Option<ThreadLife> {
        let seen = self.slot().life();
        let claimed = self.slot().claim(seen, tid)?;
        self.slot().make_ready(claimed, || true)
    }

    fn take(&self, life: ThreadLife, from: u64) -> bool {
        self.lock
            .compare_exchange(from, Self::owner(life), Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    fn write(&self) {
        // SAFETY: exclusive by the protocol under test, which loom verifies.
        self.data.with_mut(|data| unsafe { *data += 1 });
    }

    /// What the kernel does when the thread `tid` ends, if it knows the word.
    fn end(&self, tid: u32) {
        let word = self.slot().word();
        loop {
            let seen = word.load(Ordering::SeqCst);
            // FUTEX_TID_MASK, and FUTEX_OWNER_DIED beside FUTEX_WAITERS.
            if seen & 0x3fff_ffff != u64::from(tid) {
                return;
            }
            let marked = seen & !0x3fff_ffff | 1 << 30;
            if word.compare_exchange(seen, marked, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                return;
            }
        }
    }

    /// Whether the slot alone proves that this owner of the lock word is dead.
    fn is_dead(&self, owner: u64) -> bool {
        let incarnation = u32::try_from(owner >> 32).unwrap();
        incarnation != 0 && !self.slot().life().is_of(incarnation)
    }
}

#[test]
fn two_threads_that_claim_one_slot_are_never_both_its_owner() {
    check(3, || {
        let slot = Slot::new();
        let other = Arc::clone(&slot);
        let second = thread::spawn(move || other.claim(2));
        let first = slot.claim(1);
        let second = second.join().unwrap();
        if let (Some(first), Some(second)) = (first, second) {
            panic!("{first:?} and {second:?}");
        }
        assert!(first.or(second).is_some(), "neither has claimed it");
    });
}

/// The bug: when a slot was used again while a lock still named its dead thread, the new thread owned the lock.
#[test]
fn a_lock_of_a_dead_thread_does_not_pass_to_the_next_thread_in_its_slot() {
    check(3, || {
        let slot = Slot::new();
        let dead = slot.claim(1).unwrap();
        assert!(slot.take(dead, 0));
        slot.write();
        let heir = Arc::clone(&slot);
        let heir = thread::spawn(move || {
            // If the first thread has not ended yet, the slot cannot be claimed.
            heir.claim(2).map(|life| {
                let owned = heir.lock.load(Ordering::SeqCst);
                assert_ne!(owned, Slot::owner(life), "it owns what it never took");
                if owned == 0 {
                    return;
                }
                assert!(heir.is_dead(owned) && heir.take(life, owned));
                heir.write();
            })
        });
        slot.end(1);
        let owned = slot.lock.load(Ordering::SeqCst);
        if owned == Slot::owner(dead) {
            assert!(slot.is_dead(owned), "the kernel has marked it");
        }
        heir.join().unwrap();
    });
}

#[test]
fn a_thread_that_sees_the_mark_sees_what_the_dead_thread_did() {
    check(3, || {
        let slot = Slot::new();
        let waiter = Arc::clone(&slot);
        let life = slot.claim(1).unwrap();
        let waiter = thread::spawn(move || {
            let owned = waiter.lock.load(Ordering::SeqCst);
            if owned != 0 && waiter.is_dead(owned) {
                waiter.write();
            }
        });
        assert!(slot.take(life, 0));
        slot.write();
        slot.end(1);
        waiter.join().unwrap();
    });
}

#[test]
fn a_slot_that_is_not_ready_says_nothing_of_what_its_last_thread_read() {
    check(3, || {
        let slot = Slot::new();
        let dead = slot.claim(1).unwrap();
        slot.words[READ].store(77, Ordering::SeqCst);
        assert!(slot.slot().mark_dead(dead));
        let heir = Arc::clone(&slot);
        let heir = thread::spawn(move || heir.claim(2).unwrap());
        // As a writer looks for readers: first whether a thread has the slot, then the keys in it.
        let lives = slot.slot().life().is_ready();
        let reads = slot.words[READ].load(Ordering::SeqCst) == 77;
        assert!(!lives || !reads, "a dead reader is taken for a living one");
        heir.join().unwrap();
    });
}

#[test]
fn marking_a_dead_thread_does_not_mark_the_next_one_in_its_slot() {
    check(3, || {
        let slot = Slot::new();
        let dead = slot.claim(1).unwrap();
        let reaper = Arc::clone(&slot);
        // The reaper has proof that the first thread is dead, and is slow to mark the slot.
        let reaper = thread::spawn(move || reaper.slot().mark_dead(dead));
        slot.end(1);
        let heir = slot.claim(2);
        let marked = reaper.join().unwrap();
        let life = slot.slot().life();
        match heir {
            Some(heir) => assert_eq!(life, heir, "marked by the reaper: {marked}"),
            None => assert!(life.is_vacant()),
        }
    });
}

#[test]
fn a_thread_that_is_declared_dead_while_it_gets_ready_does_not_get_ready() {
    check(3, || {
        let slot = Slot::new();
        let reaper = Arc::clone(&slot);
        let reaper = thread::spawn(move || {
            let seen = reaper.slot().life();
            reaper.slot().mark_dead(seen)
        });
        let ready = slot.claim(1);
        let marked = reaper.join().unwrap();
        let life = slot.slot().life();
        match ready {
            Some(ready) => assert!(life == ready || life == ready.dead() && marked),
            None => assert!(marked && life.is_vacant()),
        }
    });
}

/// A thread dies at each point of its claim, and the kernel marks the word if it knows it; then another claims the
/// slot.
#[test]
fn wherever_a_thread_dies_while_it_claims_a_slot_the_next_one_gets_it() {
    let mut died = Vec::new();
    for points in 0.. {
        let ended = std::sync::Arc::new(std::sync::Mutex::new(Life::Finished));
        let told = std::sync::Arc::clone(&ended);
        check(3, move || {
            let (slot, world) = (Slot::new(), World::new());
            let armed = std::cell::Cell::new(false);
            let life = Mortal::live_to_point(&world, points, |_| {
                let claimed = slot.slot().claim(slot.slot().life(), 1).unwrap();
                let ready = slot.slot().make_ready(claimed, || {
                    armed.set(true);
                    true
                });
                assert!(ready.is_some());
            });
            *told.lock().unwrap() = life;
            let heir = Arc::clone(&slot);
            let knows = armed.get();
            let heir = thread::spawn(move || {
                // Without a mark by the kernel, the next thread proves the death and marks the slot itself.
                let seen = heir.slot().life();
                if !knows && !seen.is_vacant() {
                    assert!(heir.slot().mark_dead(seen));
                }
                heir.claim(2)
            });
            if knows {
                slot.end(1);
            }
            let got = heir.join().unwrap();
            let got = got.or_else(|| slot.claim(2)).expect("the slot is lost");
            assert_eq!(slot.slot().life(), got);
            assert!(
                slot.words
                    .iter()
                    .skip(thread_word::READING)
                    .all(|word| { word.load(Ordering::SeqCst) == 0 })
            );
        });
        match *ended.lock().unwrap() {
            Life::Finished => break,
            Life::Ended(point) => died.extend(point),
        }
    }
    assert_eq!(
        died,
        [Point::ThreadClaimed, Point::ThreadCleared, Point::ThreadArmed, Point::ThreadReady]
    );
}

/// A thread gives its slot back, and forgets a lock that it owns: others find that the lock's owner is dead.
#[test]
fn a_slot_that_is_given_back_can_be_claimed_and_a_lock_forgotten_in_it_is_a_dead_threads() {
    check(3, || {
        let slot = Slot::new();
        let life = slot.claim(1).unwrap();
        assert!(slot.take(life, 0));
        let heir = Arc::clone(&slot);
        let heir = thread::spawn(move || heir.claim(2));
        // Before this, the kernel has been told to forget the word.
        assert!(slot.slot().vacate(life));
        let owned = slot.lock.load(Ordering::SeqCst);
        assert!(slot.is_dead(owned));
        // The end of the old thread then marks no slot of another.
        slot.end(1);
        if let Some(heir) = heir.join().unwrap() {
            assert_eq!(slot.slot().life(), heir);
        }
    });
}
