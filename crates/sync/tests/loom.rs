//! The lock algorithms under loom: the interleavings of up to three threads with a bounded number of
//! preemptions (the first argument of `check`; `LOOM_MAX_PREEMPTIONS` overrides it). Sleeps end only by a
//! wake-up, so that a lost one is a deadlock that loom reports.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p commonhold-sync --test loom --release`.
#![cfg(loom)]

#[path = "loom/barrier.rs"]
mod barrier;
#[path = "loom/bias.rs"]
mod bias;
#[path = "loom/bias_deaths.rs"]
mod bias_deaths;
#[path = "loom/bias_writer.rs"]
mod bias_writer;
#[path = "loom/condvar.rs"]
mod condvar;
#[path = "loom/left.rs"]
mod left;
#[path = "loom/once.rs"]
mod once;
#[path = "loom/semaphore.rs"]
mod semaphore;
#[path = "loom/seqlock.rs"]
mod seqlock;
#[path = "loom/slot.rs"]
mod slot;
#[path = "loom/upgradable.rs"]
mod upgradable;
#[path = "loom/used.rs"]
mod used;
#[path = "loom/world.rs"]
mod world;

use std::cell::Cell;

use commonhold_layout::{Offset, Owner, PeerId, ThreadId, ThreadLife, thread_word};
use commonhold_sync::{
    Event, Liveness, LockError, Mutex, Park, Release, RwLock, Shares, Taken, Thread, Verdict, Wake,
};
use commonhold_window::atomic::{AtomicU64, Ordering};
use loom::{
    cell::UnsafeCell,
    sync::{Arc, Condvar, Mutex as LoomMutex},
    thread,
};

use world::check;

/// Three peers with their state words, the words of one lock, and what a thread sleeps on.
struct World {
    /// The words of one lock: the writer's, the mask of readers, the event.
    lock: [AtomicU64; 3],
    shares: [AtomicU64; 3],
    slots: [[AtomicU64; thread_word::COUNT]; 3],
    states: [AtomicU64; 3],
    beds: [(LoomMutex<()>, Condvar); 2],
    data: UnsafeCell<u64>,
}

const LIVE: u64 = 1;
const LIFE: ThreadLife = ThreadLife::from_word(1 << 32).armed();
const KEY: u64 = 77;

// SAFETY: `data` is all that is not `Sync`; loom checks that the locks under test keep accesses to it apart.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

impl World {
    fn new() -> Arc<Self> {
        let words = || [AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0)];
        Arc::new(Self {
            lock: words(),
            shares: words(),
            slots: std::array::from_fn(|_| {
                std::array::from_fn(|word| {
                    AtomicU64::new(if word == thread_word::LIFE { LIFE.word() } else { 0 })
                })
            }),
            states: [AtomicU64::new(LIVE), AtomicU64::new(LIVE), AtomicU64::new(LIVE)],
            beds: [(LoomMutex::new(()), Condvar::new()), (LoomMutex::new(()), Condvar::new())],
            data: UnsafeCell::new(0),
        })
    }

    fn owner(peer: u16) -> Owner {
        Owner::new(PeerId::new(peer), 1, ThreadId::FIRST).unwrap()
    }

    fn told_of(peer: u16) -> Taken {
        Taken::OwnerDied(Some(Self::owner(peer)))
    }

    fn me(&self, peer: u16) -> Thread<'_> {
        let index = usize::from(peer);
        Thread::new(Self::owner(peer), &self.slots[index], &self.states[index], LIVE, LIFE)
    }

    fn mutex(&self) -> Mutex<'_> {
        Mutex::new(&self.lock[0], Offset::ZERO)
    }

    fn rwlock(&self) -> RwLock<'_, &Self> {
        RwLock::new(&self.lock, Offset::ZERO, KEY, self)
    }

    fn event(&self) -> Event<'_> {
        Event::new(&self.lock[2], Offset::new(16).unwrap())
    }

    fn bed(&self, word: &AtomicU64) -> &(LoomMutex<()>, Condvar) {
        &self.beds[usize::from(std::ptr::eq(word, &self.lock[0]))]
    }

    /// What a reaper does about a peer that has stopped.
    fn bury(&self, peer: u16) {
        self.states[usize::from(peer)].store(0, Ordering::SeqCst);
        if self.slots[usize::from(peer)][thread_word::PENDING].load(Ordering::SeqCst) != 0 {
            self.wake(&self.lock[0], Wake::All);
        }
    }

    fn write_data(&self) {
        // SAFETY: exclusive by the lock under test, which loom verifies.
        self.data.with_mut(|data| unsafe { *data += 1 });
    }

    fn read_data(&self) -> u64 {
        // SAFETY: shared by the lock under test, which loom verifies.
        self.data.with(|data| unsafe { *data })
    }
}

impl Shares for &World {
    fn peers(&self) -> u16 {
        3
    }

    fn generation(&self, peer: PeerId) -> u32 {
        u32::from(self.is_current(World::owner(peer.get())))
    }

    fn owner(&self, peer: PeerId, _thread: ThreadId) -> Option<Owner> {
        let owner = World::owner(peer.get());
        self.is_current(owner).then_some(owner)
    }

    fn share(&self, peer: PeerId) -> Option<&AtomicU64> {
        self.shares.get(usize::from(peer.get()))
    }

    fn threads(&self, _peer: PeerId) -> u16 {
        1
    }

    fn thread(&self, peer: PeerId, _thread: ThreadId) -> Option<&[AtomicU64; thread_word::COUNT]> {
        self.slots.get(usize::from(peer.get()))
    }
}

impl Park for World {
    fn now(&self) -> u64 {
        1
    }

    fn wait(&self, word: &AtomicU64, expected: u64, _until: u64) {
        let (bed, woken) = self.bed(word);
        let guard = bed.lock().unwrap();
        if word.load(Ordering::SeqCst) as u32 == expected as u32 {
            drop(woken.wait(guard).unwrap());
        }
    }

    fn wake(&self, word: &AtomicU64, who: Wake) {
        let (bed, woken) = self.bed(word);
        let _guard = bed.lock().unwrap();
        match who {
            Wake::One => woken.notify_one(),
            Wake::All => woken.notify_all(),
        }
    }

    fn spin(&self, _word: &AtomicU64, _turn: u32) -> bool {
        false
    }
}

impl Liveness for World {
    fn is_current(&self, owner: Owner) -> bool {
        self.states[usize::from(owner.peer().get())].load(Ordering::SeqCst) == LIVE
    }

    fn verdict(&self, owner: Owner) -> Verdict {
        if self.is_current(owner) { Verdict::Alive } else { Verdict::Dead }
    }
}

#[test]
fn a_mutex_excludes_and_loses_no_wake_up() {
    check(3, || {
        let world = World::new();
        let other = Arc::clone(&world);
        let thread = thread::spawn(move || {
            let me = other.me(1);
            assert_eq!(other.mutex().lock(&me, &*other, None), Ok(Taken::Clean));
            other.write_data();
            other.mutex().unlock(&me, &*other, Release::Done).unwrap();
        });
        let me = world.me(0);
        assert_eq!(world.mutex().lock(&me, &*world, None), Ok(Taken::Clean));
        world.write_data();
        world.mutex().unlock(&me, &*world, Release::Done).unwrap();
        thread.join().unwrap();
        assert_eq!(world.read_data(), 2);
        assert_eq!(world.lock[0].load(Ordering::SeqCst), 0);
    });
}

#[test]
fn three_threads_all_get_the_mutex() {
    check(2, || {
        let world = World::new();
        let threads: Vec<_> = (1..3)
            .map(|peer| {
                let world = Arc::clone(&world);
                thread::spawn(move || {
                    let me = world.me(peer);
                    world.mutex().lock(&me, &*world, None).map(drop).unwrap();
                    world.write_data();
                    world.mutex().unlock(&me, &*world, Release::Done).unwrap();
                })
            })
            .collect();
        let me = world.me(0);
        world.mutex().lock(&me, &*world, None).map(drop).unwrap();
        world.write_data();
        world.mutex().unlock(&me, &*world, Release::Done).unwrap();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(world.read_data(), 3);
    });
}

#[test]
fn a_dead_owners_mutex_is_taken_over_exactly_once_as_inconsistent() {
    check(3, || {
        let world = World::new();
        let dead = world.me(2);
        world.mutex().lock(&dead, &*world, None).map(drop).unwrap();
        world.states[2].store(0, Ordering::SeqCst);
        let other = Arc::clone(&world);
        let contend = |world: &World, peer: u16| {
            let me = world.me(peer);
            let taken = world.mutex().lock(&me, world, None).unwrap();
            if taken.is_owner_died() {
                world.mutex().mark_consistent(&me).unwrap();
            }
            world.write_data();
            world.mutex().unlock(&me, world, Release::Done).unwrap();
            taken
        };
        let thread = thread::spawn(move || contend(&other, 1));
        let mine = contend(&world, 0);
        let theirs = thread.join().unwrap();
        assert_eq!([mine, theirs].iter().filter(|taken| **taken == World::told_of(2)).count(), 1);
        assert_eq!(world.mutex().unlock(&dead, &*world, Release::Done), Err(LockError::Fenced));
    });
}

#[test]
fn a_waiter_that_dies_after_its_wake_up_leaves_nobody_asleep() {
    check(2, || {
        let world = World::new();
        let holder = world.me(0);
        world.mutex().lock(&holder, &*world, None).map(drop).unwrap();
        // Peer 1 is in the state of a sleeper that was woken and died: it has announced its wait, and
        // will never take the lock.
        world.slots[1][thread_word::PENDING].store(1, Ordering::SeqCst);
        let other = Arc::clone(&world);
        let waiter = thread::spawn(move || {
            let me = other.me(2);
            other.mutex().lock(&me, &*other, None).map(drop).unwrap();
            other.mutex().unlock(&me, &*other, Release::Done).unwrap();
        });
        world.mutex().unlock(&holder, &*world, Release::Done).unwrap();
        world.bury(1);
        waiter.join().unwrap();
    });
}

#[test]
fn readers_and_a_writer_exclude_each_other_and_lose_no_wake_up() {
    check(3, || {
        let world = World::new();
        let other = Arc::clone(&world);
        let reader = thread::spawn(move || {
            let me = other.me(1);
            let (_, hold) = other.rwlock().read(&me, &*other, None).unwrap();
            let first = other.read_data();
            assert_eq!(first, other.read_data());
            other.rwlock().unlock_read(&me, &*other, hold).unwrap();
        });
        let me = world.me(0);
        world.rwlock().write(&me, &*world, None).map(drop).unwrap();
        world.write_data();
        world.rwlock().unlock_write(&me, &*world, Release::Done).unwrap();
        reader.join().unwrap();
    });
}

/// The bit of the reader's peer is set already: the common case, which has a path of its own.
#[test]
fn a_reader_whose_peer_has_read_before_and_a_writer_exclude_each_other() {
    check(3, || {
        let world = World::new();
        world.lock[1].store(0b111, Ordering::SeqCst);
        let other = Arc::clone(&world);
        let reader = thread::spawn(move || {
            let me = other.me(1);
            let (_, hold) = other.rwlock().read(&me, &*other, None).unwrap();
            let first = other.read_data();
            assert_eq!(first, other.read_data());
            other.rwlock().unlock_read(&me, &*other, hold).unwrap();
        });
        let me = world.me(0);
        world.rwlock().write(&me, &*world, None).map(drop).unwrap();
        world.write_data();
        world.rwlock().unlock_write(&me, &*world, Release::Done).unwrap();
        reader.join().unwrap();
    });
}

#[test]
fn two_readers_and_a_writer_all_get_the_lock() {
    check(2, || {
        let world = World::new();
        let readers: Vec<_> = (1..3)
            .map(|peer| {
                let world = Arc::clone(&world);
                thread::spawn(move || {
                    let me = world.me(peer);
                    let (_, hold) = world.rwlock().read(&me, &*world, None).unwrap();
                    world.read_data();
                    world.rwlock().unlock_read(&me, &*world, hold).unwrap();
                })
            })
            .collect();
        let me = world.me(0);
        world.rwlock().write(&me, &*world, None).map(drop).unwrap();
        world.write_data();
        world.rwlock().unlock_write(&me, &*world, Release::Done).unwrap();
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}

#[test]
fn a_thread_with_more_read_locks_than_words_still_keeps_writers_out() {
    check(2, || {
        let world = World::new();
        let other = Arc::clone(&world);
        let reader = thread::spawn(move || {
            let me = other.me(1);
            let holds: Vec<_> = (0..=thread_word::READING_COUNT)
                .map(|_| other.rwlock().read(&me, &*other, None).unwrap().1)
                .collect();
            let mut holds = holds.into_iter();
            // All but the last read lock, which is counted in the share word.
            for hold in holds.by_ref().take(thread_word::READING_COUNT) {
                other.rwlock().unlock_read(&me, &*other, hold).unwrap();
            }
            other.read_data();
            holds.for_each(|hold| other.rwlock().unlock_read(&me, &*other, hold).unwrap());
        });
        let me = world.me(0);
        // A thread that reads twice could wait for a writer that waits for it. So the writer only tries.
        if world.rwlock().write(&me, &*world, Some(0)).is_ok() {
            world.write_data();
            world.rwlock().unlock_write(&me, &*world, Release::Done).unwrap();
        }
        reader.join().unwrap();
    });
}

#[test]
fn a_dead_reader_does_not_block_a_writer() {
    check(3, || {
        let world = World::new();
        let dead = world.me(2);
        let (_, hold) = world.rwlock().read(&dead, &*world, None).unwrap();
        let other = Arc::clone(&world);
        let death = thread::spawn(move || {
            other.states[2].store(0, Ordering::SeqCst);
            // The reaper moves the event of the writer that waits for the dead reader.
            other.event().broadcast(&other.me(1), &*other);
        });
        let me = world.me(0);
        assert_eq!(world.rwlock().write(&me, &*world, None), Ok(Taken::Clean));
        world.rwlock().unlock_write(&me, &*world, Release::Done).unwrap();
        death.join().unwrap();
        assert_eq!(world.rwlock().unlock_read(&dead, &*world, hold), Err(LockError::Fenced));
    });
}

#[test]
fn a_reader_learns_that_a_writer_died() {
    check(3, || {
        let world = World::new();
        world.rwlock().write(&world.me(2), &*world, None).map(drop).unwrap();
        world.states[2].store(0, Ordering::SeqCst);
        let other = Arc::clone(&world);
        let reader = thread::spawn(move || {
            let me = other.me(1);
            let (taken, hold) = other.rwlock().read(&me, &*other, None).unwrap();
            other.read_data();
            other.rwlock().unlock_read(&me, &*other, hold).unwrap();
            taken
        });
        let me = world.me(0);
        let taken = world.rwlock().write(&me, &*world, None).unwrap();
        assert_eq!(taken, World::told_of(2), "also if the reader has found it first");
        world.write_data();
        world.mutex().mark_consistent(&me).unwrap();
        world.rwlock().unlock_write(&me, &*world, Release::Done).unwrap();
        let told = reader.join().unwrap();
        assert!([Taken::Clean, World::told_of(2)].contains(&told));
        assert_eq!(world.lock[0].load(Ordering::SeqCst), 0);
    });
}

#[test]
fn an_event_wakes_a_waiter_that_read_the_number_before() {
    check(3, || {
        let world = World::new();
        let other = Arc::clone(&world);
        let ready = Arc::new(AtomicU64::new(0));
        let flag = Arc::clone(&ready);
        let waiter = thread::spawn(move || {
            let me = other.me(1);
            let event = other.event();
            loop {
                let number = event.sequence();
                if flag.load(Ordering::SeqCst) == 1 {
                    return;
                }
                event.wait(&me, &*other, number, None).unwrap();
            }
        });
        let event = world.event();
        ready.store(1, Ordering::SeqCst);
        event.signal(&world.me(0), &*world);
        waiter.join().unwrap();
    });
}

#[test]
fn two_signals_wake_two_sleepers_in_any_order() {
    check(2, || {
        let world = World::new();
        let thread = |work: fn(&World)| {
            let world = Arc::clone(&world);
            thread::spawn(move || work(&world))
        };
        let threads = [
            thread(|world| {
                let _ = world.event().wait(&world.me(1), world, 0, None).unwrap();
            }),
            thread(|world| world.event().signal(&world.me(2), world)),
            thread(|world| world.event().signal(&world.me(2), world)),
        ];
        world.event().wait(&world.me(0), &*world, 0, None).map(drop).unwrap();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn a_thread_that_holds_the_lock_is_told_so() {
    check(1, || {
        let world = World::new();
        let me = world.me(0);
        let count = Cell::new(0);
        world.mutex().lock(&me, &*world, None).map(drop).unwrap();
        for attempt in
            [world.mutex().lock(&me, &*world, None), world.mutex().try_lock(&me, &*world)]
        {
            assert_eq!(attempt, Err(LockError::Deadlock));
            count.set(count.get() + 1);
        }
        let read = world.rwlock().read(&me, &*world, None);
        assert_eq!(read.map(drop), Err(LockError::Deadlock));
        assert_eq!(count.get(), 2);
    });
}
