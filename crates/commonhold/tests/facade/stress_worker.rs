//! One process of the stress test: two threads that take all kinds of locks, again and again, and check at each
//! turn that no other thread is inside.
//!
//! Under each lock lies a book, and each thread has a page, all in plain shared words:
//! 1. `inside` of a book is the key of the thread that holds the lock alone. A thread that takes the lock
//!    consistent must find 0 there; one that takes it inconsistent must find 0 or the key of a killed thread.
//! 2. `reading` of a page is the thread's key while it reads under a lock. A writer must find 0, or the key of a
//!    killed thread; a reader must find no living writer.
//! 3. A turn adds one to the book's count and one to a cell of the thread's page, the journal, as a transaction that a
//!    repair completes. So a count is the sum of its cells, or an update was lost.
//! 4. `since` of a page says since when the thread waits, and for what. If the thread is killed, the coordinator
//!    reports that wait.
//! 5. `phase` of a page says which lock the thread wants or holds. The coordinator reads it when the thread cannot
//!    run.
//!
//! A violation is reported in a line that begins with `violation`.

use std::{fmt, hint, thread, time::Duration};

use commonhold::{
    Access, Inconsistent, LockError, LockResult, Mutex, MutexGuard, Recovered, Repairable, RwLock,
    RwLockWriteGuard, Semaphore, SeqLock, SeqLockGuard, Space,
};

use crate::{
    stress_waits::{Span, Wait},
    stress_words::{
        ACTIVE, CELLS, COUNT, DEATHS, INSIDE, KEY, NEW_CELL, NEW_COUNT, PHASE, READING, SINCE,
        TIMEOUT, WANTED, Words,
    },
    support::{Random, Role, say},
};

pub(crate) const ROLES: &[Role] = &[("stress-work", work)];

pub(crate) const THREADS: u64 = 2;
type Pair = [u64; 2];
type Table = [u64; 16];
pub(crate) const PERMITS: u64 = 3;

/// The locks by their numbers: the region's own, two mutexes of either kind, a reader/writer lock, a
/// sequence lock, and the permits of a semaphore.
pub(crate) const REGION: u64 = 0;
const RAW: [u64; 2] = [1, 2];
const MUTEX: [u64; 2] = [3, 4];
pub(crate) const RWLOCK: u64 = 5;
const SEQLOCK: u64 = 6;
const PERMIT: u64 = 7;
pub(crate) const LOCKS: u64 = PERMIT + PERMITS;
pub(crate) const NAMES: [&str; LOCKS as usize] = [
    "region lock",
    "mutex 1",
    "mutex 2",
    "Mutex<T> 1",
    "Mutex<T> 2",
    "RwLock<T>",
    "SeqLock<T>",
    "permit 1",
    "permit 2",
    "permit 3",
];
const ALL_PERMITS: u64 = 0b111 << PERMIT;

/// The layout of the region: a word that says stop, and the locks. `stress_words` has the rest.
pub(crate) const STOP: u64 = 0;
const RAW_AT: [u64; 2] = [64, 128];
const MUTEX_AT: [u64; 2] = [192, 256];
const RWLOCK_AT: u64 = 320;
const SEQLOCK_AT: u64 = 448;
const SEMAPHORE_AT: u64 = 704;

/// A longer wait counts as a hang.
const HANG: Duration = Duration::from_secs(20);
/// How long a thread keeps a lock at times, so that many are killed and stopped with one.
const KEEP_NS: u64 = 300_000;

pub(crate) fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// A thread of a worker.
struct Turns<'a> {
    words: Words<'a>,
    worker: u64,
    place: u64,
    key: u64,
    random: Random,
}

/// Arguments: the space, how many processes there are, which of them this is, and which of its incarnations.
fn work(args: &[&str]) {
    let [processes, worker, incarnation] =
        [args[1], args[2], args[3]].map(|number| number.parse::<u64>().unwrap());
    let space = Space::open(args[0]).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let words = Words { mapping: &mapping, processes };
            let place = worker * THREADS + thread;
            let key = incarnation << 16 | (place + 1);
            scope.spawn(move || {
                words.set_page(place, PHASE, 0);
                words.set_page(place, SINCE, 0);
                words.set_page(place, READING, 0);
                words.set_page(place, READING + 8, 0);
                words.set_page(place, KEY, key);
                let mut turns = Turns { words, worker, place, key, random: Random(key) };
                while words.get(STOP) == 0 {
                    turns.any();
                }
            });
        }
    });
}

impl Turns<'_> {
    fn any(&mut self) {
        let mapping = self.words.mapping;
        let which = usize::from(self.random.below(2) == 1);
        match self.random.below(10) {
            0 | 1 => {
                let lock = mapping.region_lock().unwrap();
                let take = |time: Option<_>| match time {
                    Some(time) => lock.lock_for(time),
                    None => lock.lock(),
                };
                let recover = |time: Option<_>| match time {
                    Some(time) => lock.lock_recover_for(time),
                    None => lock.lock_recover(),
                };
                self.alone(REGION, take, recover, |_| {}, |guard| guard.unlock());
            }
            2 => {
                let lock = mapping.region_lock().unwrap();
                let take = |_: &Self, time: Option<_>| match time {
                    Some(time) => lock.read_lock_for(time),
                    None => lock.read_lock(),
                };
                self.together(REGION, 0, take, |_| true, |guard| guard.unlock());
            }
            3 | 4 => {
                let mutex = mapping.mutex(RAW_AT[which]).unwrap();
                let take = |time: Option<_>| match time {
                    Some(time) => mutex.lock_for(time),
                    None => mutex.lock(),
                };
                let recover = |time: Option<_>| match time {
                    Some(time) => mutex.lock_recover_for(time),
                    None => mutex.lock_recover(),
                };
                self.alone(RAW[which], take, recover, |_| {}, |guard| guard.unlock());
            }
            5 => self.typed_mutex(which),
            6 => self.write(),
            7 => self.read(),
            8 => self.permit(),
            _ => self.sequence(),
        }
    }

    fn typed_mutex(&mut self, which: usize) {
        let mutex = self.words.mapping.open::<Mutex<Pair>>(MUTEX_AT[which]).unwrap();
        let take = |time: Option<_>| match time {
            Some(time) => mutex.lock_for(time),
            None => mutex.lock(),
        };
        let recover = |time: Option<_>| match time {
            Some(time) => mutex.lock_recover_for(time),
            None => mutex.lock_recover(),
        };
        let repair = |guard: &MutexGuard<'_, Pair>| guard.with_mut(|pair| pair[1] = pair[0]);
        self.alone(MUTEX[which], take, recover, repair, |guard| {
            let pair = guard.get();
            complain_if(pair[0] != pair[1], || format!("half of a change: {pair:?}"));
            guard.at(0)?.set(pair[0] + 1);
            guard.at(1)?.set(pair[1] + 1);
            guard.unlock()
        });
    }

    fn write(&mut self) {
        let lock = self.words.mapping.open::<RwLock<Pair>>(RWLOCK_AT).unwrap();
        let take = |time: Option<_>| match time {
            Some(time) => lock.write_for(time),
            None => lock.write(),
        };
        let recover = |time: Option<_>| match time {
            Some(time) => lock.write_recover_for(time),
            None => lock.write_recover(),
        };
        self.alone(RWLOCK, take, recover, make_whole, |guard| {
            guard.at(0)?.with_mut(|number| *number += 1);
            guard.at(1)?.with_mut(|number| *number += 1);
            guard.unlock()
        });
    }

    /// A reader that waits without a limit repairs what a dead writer left.
    fn read(&mut self) {
        let lock = self.words.mapping.open::<RwLock<Pair>>(RWLOCK_AT).unwrap();
        let take = |turns: &Self, time: Option<_>| match time {
            Some(time) => lock.read_for(time),
            None => lock.read_repairing(|guard| {
                turns.words.set_page(turns.place, PHASE, 1 << RWLOCK);
                turns.enter_inconsistent(RWLOCK);
                make_whole(guard);
                turns.words.set_book(RWLOCK, INSIDE, 0);
                Ok(())
            }),
        };
        let whole = |guard: &commonhold::RwLockReadGuard<'_, Pair>| {
            let pair = guard.get();
            pair[0] == pair[1]
        };
        self.together(RWLOCK, 8, take, whole, |guard| guard.unlock());
    }

    fn sequence(&mut self) {
        let lock = self.words.mapping.open::<SeqLock<Table>>(SEQLOCK_AT).unwrap();
        if self.random.below(4) == 0 {
            match lock.read_for(HANG) {
                Ok(table) => complain_if(table.iter().any(|number| *number != table[0]), || {
                    format!("a torn snapshot: {table:?}")
                }),
                Err(LockError::OwnerDied(_)) => {}
                Err(error) => say(format!("violation: to read a sequence lock: {error}")),
            }
            return;
        }
        let take = |time: Option<_>| match time {
            Some(time) => lock.write_for(time),
            None => lock.write(),
        };
        let recover = |time: Option<_>| match time {
            Some(time) => lock.write_recover_for(time),
            None => lock.write_recover(),
        };
        let repair =
            |guard: &SeqLockGuard<'_, Table>| guard.with_mut(|table| *table = [table[0]; 16]);
        self.alone(SEQLOCK, take, recover, repair, |guard| {
            guard.with_mut(|table| table.iter_mut().for_each(|number| *number += 1));
            guard.unlock()
        });
    }

    /// Each permit is a lock of its own.
    fn permit(&mut self) {
        const COUNT: usize = PERMITS as usize;
        let pool = self.words.mapping.open::<Semaphore<COUNT>>(SEMAPHORE_AT).unwrap();
        let take = |time: Option<_>| match time {
            Some(time) => pool.acquire_for(time),
            None => pool.acquire(),
        };
        let recover = |time: Option<_>| match time {
            Some(time) => pool.acquire_recover_for(time),
            None => pool.acquire_recover(),
        };
        let Some(got) = self.take_or_recover(ALL_PERMITS, take, recover) else { return };
        let index = match &got {
            Recovered::Consistent(permit) => permit.index(),
            Recovered::Inconsistent(permit) => permit.index(),
        };
        self.inside(PERMIT + index as u64, got, |_| {}, |permit| permit.release());
    }

    /// Takes a lock, and reports a long wait. Some waits have a short timeout, and some none. `None`: the lock
    /// could not be taken in time.
    fn take<R>(
        &mut self,
        locks: u64,
        take: impl FnOnce(&Self, Option<Duration>) -> LockResult<R>,
    ) -> Option<Result<R, Dead>> {
        let (time, short) = match self.random.below(16) {
            0 => (Some(Duration::ZERO), true),
            1 => (Some(Duration::from_micros(self.random.below(20_000))), true),
            2..9 => (Some(HANG), false),
            _ => (None, false),
        };
        let timeout = time.filter(|_| short).map(|time| u64::try_from(time.as_nanos()).unwrap());
        let from = now_ns();
        self.words.set_page(self.place, WANTED, locks);
        self.words.set_page(self.place, TIMEOUT, Wait::timeout_word(timeout));
        self.words.set_page(self.place, SINCE, from);
        let result = take(self, time);
        let until = now_ns();
        self.words.set_page(self.place, SINCE, 0);
        let got = match result {
            Ok(taken) => Some(Ok(taken)),
            Err(LockError::OwnerDied(_)) => Some(Err(Dead)),
            Err(LockError::TimedOut(_)) => None,
            Err(error) => {
                say(format!("violation: {} of {locks:b}: {error}", self.key));
                None
            }
        };
        if matches!(got, Some(Ok(_))) {
            self.words.set_page(self.place, PHASE, locks);
        }
        let wait = Wait { worker: self.worker, locks, when: Span { from, until }, timeout };
        if wait.is_worth_telling() {
            say(format!("wait {wait}"));
        }
        got
    }

    /// Takes a lock alone in any state, after a dead owner has left it inconsistent. Another thread may have
    /// repaired it meanwhile.
    fn take_or_recover<G>(
        &mut self,
        locks: u64,
        take: impl FnOnce(Option<Duration>) -> LockResult<G>,
        recover: impl FnOnce(Option<Duration>) -> LockResult<Recovered<G>>,
    ) -> Option<Recovered<G>> {
        match self.take(locks, |_, time| take(time))? {
            Ok(guard) => Some(Recovered::Consistent(guard)),
            Err(Dead) => match self.take(locks, |_, time| recover(time))? {
                Ok(guard) => Some(guard),
                Err(Dead) => {
                    say(format!("violation: {} of {locks:b}: not to be had as it is", self.key));
                    None
                }
            },
        }
    }

    /// A turn alone under the lock.
    fn alone<G: Repairable>(
        &mut self,
        lock: u64,
        take: impl FnOnce(Option<Duration>) -> LockResult<G>,
        recover: impl FnOnce(Option<Duration>) -> LockResult<Recovered<G>>,
        repair: impl FnOnce(&G),
        give: impl FnOnce(G) -> LockResult<()>,
    ) {
        if let Some(got) = self.take_or_recover(1 << lock, take, recover) {
            self.inside(lock, got, repair, give);
        }
    }

    fn enter_clean(&self, lock: u64) {
        let (words, key, name) = (self.words, self.key, NAMES[lock as usize]);
        let other = words.book(lock, INSIDE);
        words.set_book(lock, INSIDE, key);
        complain_if(other != 0, || format!("{name}: {other:#x} and {key:#x} are inside"));
        let active = words.book(lock, ACTIVE);
        complain_if(active != 0, || format!("{name}: {active} died, and nobody was told"));
    }

    fn enter_inconsistent(&self, lock: u64) {
        let (words, key, name) = (self.words, self.key, NAMES[lock as usize]);
        let other = words.book(lock, INSIDE);
        words.set_book(lock, INSIDE, key);
        complain_if(other != 0 && !words.is_dead(other), || {
            format!("{name}: {other:#x} lives, and {key:#x} was told that it died")
        });
        words.repair(lock);
        words.set_book(lock, DEATHS, words.book(lock, DEATHS) + 1);
    }

    fn inside<G: Repairable>(
        &mut self,
        lock: u64,
        got: Recovered<G>,
        repair: impl FnOnce(&G),
        give: impl FnOnce(G) -> LockResult<()>,
    ) {
        let (words, key, name) = (self.words, self.key, NAMES[lock as usize]);
        words.set_page(self.place, PHASE, 1 << lock);
        let guard = match got {
            Recovered::Consistent(guard) => {
                self.enter_clean(lock);
                Some(guard)
            }
            Recovered::Inconsistent(guard) => {
                self.enter_inconsistent(lock);
                repair(&guard);
                self.done(Inconsistent::mark_consistent(guard))
            }
        };
        self.no_reader(lock);
        let cell = CELLS + 8 * lock;
        let count = words.book(lock, COUNT) + 1;
        words.set_book(lock, NEW_COUNT, count);
        words.set_book(lock, NEW_CELL, words.page(self.place, cell) + 1);
        words.set_book(lock, ACTIVE, self.place + 1);
        self.keep();
        words.repair(lock);
        let (now, inside) = (words.book(lock, COUNT), words.book(lock, INSIDE));
        complain_if(now != count || inside != key, || {
            format!("{name}: {key:#x} made it {count}, and then it was {now}, by {inside:#x}")
        });
        words.set_book(lock, INSIDE, 0);
        if let Some(guard) = guard {
            self.done(give(guard));
        }
        words.set_page(self.place, PHASE, 0);
    }

    /// A turn with other readers.
    fn together<G>(
        &mut self,
        lock: u64,
        word: u64,
        take: impl FnOnce(&Self, Option<Duration>) -> LockResult<G>,
        whole: impl Fn(&G) -> bool,
        give: impl FnOnce(G) -> LockResult<()>,
    ) {
        let Some(Ok(guard)) = self.take(1 << lock, take) else { return };
        let (words, name) = (self.words, NAMES[lock as usize]);
        words.set_page(self.place, READING + word, self.key);
        let before = words.book(lock, COUNT);
        let was_whole = whole(&guard);
        self.keep();
        let (writer, after) = (words.book(lock, INSIDE), words.book(lock, COUNT));
        complain_if(writer != 0 || before != after || !was_whole || !whole(&guard), || {
            format!("{name}: {writer:#x} wrote beside a reader, {before} to {after}")
        });
        words.set_page(self.place, READING + word, 0);
        self.done(give(guard));
        words.set_page(self.place, PHASE, 0);
    }

    /// Of those that a writer shuts out.
    fn no_reader(&self, lock: u64) {
        let word = match lock {
            REGION => READING,
            RWLOCK => READING + 8,
            _ => return,
        };
        for place in 0..THREADS * self.words.processes {
            let reader = self.words.page(place, word);
            complain_if(reader != 0 && !self.words.is_dead(reader), || {
                format!("{}: {reader:#x} reads beside a writer", NAMES[lock as usize])
            });
        }
    }

    /// Now and then it stays inside for a while, so that a fault finds it there.
    fn keep(&mut self) {
        if self.random.below(4) == 0 {
            let until = now_ns() + self.random.below(KEEP_NS);
            while now_ns() < until {
                hint::spin_loop();
            }
        }
    }

    fn done<R>(&self, result: LockResult<R>) -> Option<R> {
        result.map_err(|error| say(format!("violation: {:#x}: {error}", self.key))).ok()
    }
}

/// An owner died, and its data have not been repaired.
struct Dead;

fn make_whole(guard: &RwLockWriteGuard<'_, Pair>) {
    guard.with_mut(|pair| pair[1] = pair[0]);
}

fn complain_if<T: fmt::Display>(wrong: bool, what: impl FnOnce() -> T) {
    if wrong {
        say(format!("violation: {}", what()));
    }
}
