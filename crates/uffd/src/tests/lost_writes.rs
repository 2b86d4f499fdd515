//! Writers race with everything that takes translations, write access or memory away from pages: no write may be lost.
//!
//! Each writer has a word of its own in every page. It counts there, and beside it in memory that nothing evicts. The
//! writers use two spaces that map the same object. With [`WRITES`] set, there are so many writes:
//!
//! `COMMONHOLD_TEST_WRITES=50000000 cargo test --release -p commonhold-uffd lost_writes -- --nocapture`
//!
//! Today a machine has one userfaultfd, so both spaces have the same.
#![allow(clippy::cast_possible_truncation, reason = "all numbers here are small")]

use super::*;
use rustix::mm::{self, MapFlags, ProtFlags};
use std::{env, thread};

const WRITES: &str = "COMMONHOLD_TEST_WRITES";
/// Pages that all threads write to.
const PAGES: u64 = 64;
/// Pages that may be in memory: fewer, so that faults evict as well.
const RESIDENT: u64 = 40;
/// Writers in each of the two spaces.
const WRITERS: u64 = 2;
/// How many writes to one page follow each other, at most.
const BURST: u64 = 200;
/// How often each thing that disturbs the writers happens, at least.
const ROUNDS: u64 = 10;
/// Where the spaces show the object, and where they show parts of it now and then.
const SHOWN: [u64; 2] = [0, 100];
const FLEETING: u64 = 200;
/// The words of the writers begin here, in each page.
const FIRST_WORD: u64 = 1;

/// A linear congruential generator: its seed repeats a choice of pages.
struct Choice(u64);

impl Choice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// A writer's own account of what it wrote.
struct Account {
    written: [u64; PAGES as usize],
    writes: u64,
    lost: u64,
}

impl Account {
    fn new() -> Self {
        Self { written: [0; PAGES as usize], writes: 0, lost: 0 }
    }

    /// Counts in a word of this page, `times` times.
    fn count(&mut self, page: u64, word: &AtomicU64, times: u64) {
        self.check(page, word);
        let written = &mut self.written[page as usize];
        for _ in 0..times {
            // No read-modify-write: it would be one access, and this is a fault to read and one to write.
            let found = word.load(Ordering::Relaxed);
            self.lost += written.saturating_sub(found);
            *written = found + 1;
            word.store(*written, Ordering::Relaxed);
        }
        self.writes += times;
    }

    fn check(&mut self, page: u64, word: &AtomicU64) {
        let (found, written) = (word.load(Ordering::Relaxed), &mut self.written[page as usize]);
        self.lost += written.saturating_sub(found);
        *written = found;
    }
}

/// What disturbs the writers. Each runs in a thread.
const DISTURBANCES: [fn(&World, &mut Choice, &mut Account); 5] =
    [evict, write_back, drop_pages, fork, map_late];

struct World {
    paging: Paging,
    spaces: [PagedSpace; 2],
    object: Object<UffdMmu>,
    file: File,
    /// Threads that write.
    left: AtomicU64,
    /// How often each disturbance has happened.
    rounds: [AtomicU64; DISTURBANCES.len()],
}

impl World {
    fn new() -> Option<Self> {
        let paging = start(budget(RESIDENT))?;
        let file = file_in_memory();
        let pager = pager_of(&file);
        let object = paging.manager().object(Kind::Anonymous, Pages(PAGES), pager).unwrap();
        let spaces = SHOWN.map(|at| {
            let space = paging.space(Pages(300)).unwrap();
            space.map(&object, fixed(at, PAGES)).unwrap();
            space
        });
        let (left, rounds) = (AtomicU64::new(0), Default::default());
        Some(Self { paging, spaces, object, file, left, rounds })
    }

    fn word(&self, space: u64, page: u64, number: u64) -> &AtomicU64 {
        let space = space as usize;
        word(&self.spaces[space], SHOWN[space] + page, FIRST_WORD + number)
    }

    fn was_disturbed(&self) -> bool {
        self.rounds.iter().all(|rounds| rounds.load(Ordering::Relaxed) >= ROUNDS)
    }

    /// Counts in words that `word` finds, until there were `writes` writes and all disturbances.
    fn write<'a>(&self, seed: u64, writes: u64, word: impl Fn(u64) -> &'a AtomicU64) -> Account {
        let (mut choice, mut account) = (Choice(seed), Account::new());
        while account.writes < writes || !self.was_disturbed() {
            let (page, times) = (choice.below(PAGES), 1 + choice.below(BURST));
            account.count(page, word(page), times);
        }
        (0..PAGES).for_each(|page| account.check(page, word(page)));
        account
    }

    /// Disturbs the writers until none is left. What `map_late` wrote is in the account.
    fn disturb(&self, kind: usize) -> Account {
        let (mut choice, mut account) = (Choice(1_000 + kind as u64), Account::new());
        while self.left.load(Ordering::Relaxed) > 0 {
            DISTURBANCES[kind](self, &mut choice, &mut account);
            self.rounds[kind].fetch_add(1, Ordering::Relaxed);
            thread::yield_now();
        }
        account
    }

    /// Runs a writer. The disturbances end when no writer is left, also after a panic.
    fn as_writer(&self, write: impl FnOnce() -> Account) -> Account {
        struct Leaving<'a>(&'a AtomicU64);
        impl Drop for Leaving<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let _leaving = Leaving(&self.left);
        write()
    }

    fn whole(&self) -> ObjectSpan {
        Span::new(ObjectPage::new(0), Pages(PAGES)).unwrap()
    }
}

fn evict(world: &World, choice: &mut Choice, _: &mut Account) {
    world.paging.manager().page_out(Pages(1 + choice.below(PAGES)));
}

fn write_back(world: &World, _: &mut Choice, _: &mut Account) {
    world.object.sync(world.whole()).unwrap();
}

/// `DontNeed` of the manager, and of the kernel, which takes translations away behind the manager's back.
fn drop_pages(world: &World, choice: &mut Choice, _: &mut Account) {
    let (space, first) = (choice.below(2), choice.below(PAGES - 8));
    let at = SHOWN[space as usize] + first;
    world.spaces[space as usize].advise(span(at, 8), Advice::DontNeed).unwrap();
    let (at, len) = (world.word(space, first, 0).as_ptr(), 8 * page_size() as usize);
    let at = at.wrapping_sub(FIRST_WORD as usize);
    // SAFETY: `madvise` wants a range whose contents no reference relies on: the memory is shared, so the next access
    // finds it again in the memfd.
    unsafe { mm::madvise(at.cast(), len, mm::Advice::LinuxDontNeed) }.unwrap();
}

fn fork(_: &World, _: &mut Choice, _: &mut Account) {
    // SAFETY: `fork` in a program with threads wants a child that calls nothing but what is safe after it.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: `_exit` has no requirement.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: `waitpid` wants a place for the status.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0);
}

/// Maps a part of the object a second time, writes to it, and takes it away.
fn map_late(world: &World, choice: &mut Choice, account: &mut Account) {
    let (space, first) = (choice.below(2), choice.below(PAGES - 8));
    let space = &world.spaces[space as usize];
    let request = MapRequest { offset: ObjectPage::new(first), ..fixed(FLEETING, 8) };
    space.map(&world.object, request).unwrap();
    for page in 0..8 {
        let word = word(space, FLEETING + page, FIRST_WORD + LATE);
        account.count(first + page, word, 1 + choice.below(20));
    }
    space.unmap(span(FLEETING, 8)).unwrap();
}

/// The numbers of `map_late` and of the writer through a mapping that the manager does not know.
const LATE: u64 = 2 * WRITERS;
const UNMARKED: u64 = LATE + 1;

/// Lets writers and disturbances race. Returns the account of each writer, with its number, and that of `map_late`.
fn race(world: &World, writes: u64) -> Vec<(u64, Account)> {
    world.left.store(2 * WRITERS, Ordering::Relaxed);
    thread::scope(|scope| {
        let disturbers: Vec<_> =
            (0..DISTURBANCES.len()).map(|kind| scope.spawn(move || world.disturb(kind))).collect();
        let writers: Vec<_> = (0..2 * WRITERS)
            .map(|number| {
                scope.spawn(move || {
                    world.as_writer(|| {
                        let word = |page| world.word(number % 2, page, number);
                        world.write(number, writes / (2 * WRITERS), word)
                    })
                })
            })
            .collect();
        let writers = (0..).zip(writers.into_iter().map(|writer| writer.join().unwrap()));
        let mut accounts: Vec<_> = writers.collect();
        for disturber in disturbers {
            let account = disturber.join().unwrap();
            if account.writes > 0 {
                accounts.push((LATE, account));
            }
        }
        accounts
    })
}

#[test]
fn no_write_is_lost_while_pages_are_evicted_written_dropped_and_mapped() {
    let Some(world) = World::new() else { return };
    let writes = env::var(WRITES).map_or(400_000, |writes| writes.parse().unwrap());
    let accounts = race(&world, writes);
    let written: u64 = accounts.iter().map(|(_, account)| account.writes).sum();
    let (totals, [a, b]) = (world.object.totals(), [0, 1].map(|s| world.spaces[s].totals().faults));
    eprintln!(
        "{written} writes; {} evictions, {} written to the pager; {a:?}, {b:?}; disturbed {:?}",
        totals.evicted, totals.written, world.rounds
    );
    for (number, account) in &accounts {
        assert_eq!(account.lost, 0, "writer {number} of {} writes", account.writes);
        for page in 0..PAGES {
            let found = world.word(0, page, *number).load(Ordering::Relaxed);
            assert_eq!(found, account.written[page as usize], "writer {number}, page {page}");
        }
    }
    // And the pager has all of it.
    world.object.sync(world.whole()).unwrap();
    for (number, account) in &accounts {
        for page in 0..PAGES {
            let mut bytes = [0; 8];
            let at = page * page_size() + (FIRST_WORD + number) * 8;
            // The file may end before, if only zeros follow.
            world.file.read_at(&mut bytes, at).unwrap();
            assert_eq!(u64::from_le_bytes(bytes), account.written[page as usize]);
        }
    }
    assert_eq!(accounts.len() as u64, 2 * WRITERS + 1);
    assert!(written >= writes && totals.evicted > PAGES && totals.written > 0);
}

/// What the test above would show if one mapping were left out when write access is taken away.
#[test]
fn a_mapping_that_the_manager_does_not_mark_loses_writes() {
    let Some(world) = World::new() else { return };
    let len = (PAGES * page_size()) as usize;
    let (rights, file) =
        (ProtFlags::READ | ProtFlags::WRITE, world.object.machine().file().unwrap());
    // SAFETY: `mmap` wants no pointer into a range that it replaces: with a null hint it replaces none.
    let mapped = unsafe { mm::mmap(std::ptr::null_mut(), len, rights, MapFlags::SHARED, file, 0) };
    let base = mapped.unwrap().cast::<AtomicU64>();
    let unmarked = Words(base);
    let account = thread::scope(|scope| {
        let writer = scope
            .spawn(|| world.write(7, 50_000, |page| unmarked.word(page, FIRST_WORD + UNMARKED)));
        race(&world, 50_000);
        writer.join().unwrap()
    });
    // SAFETY: `munmap` wants a range without users: the writer has ended, and `unmarked` is not used any more.
    unsafe { mm::munmap(base.cast(), len) }.unwrap();
    assert!(account.lost > 0, "{} writes, and none lost", account.writes);
}

/// A mapping of the object's memory that is not in any space.
struct Words(*mut AtomicU64);

// SAFETY: it is an address of memory that is mapped until all threads have ended.
unsafe impl Sync for Words {}

impl Words {
    fn word(&self, page: u64, word: u64) -> &AtomicU64 {
        assert!(page < PAGES && word < page_size() / 8);
        let at = self.0.wrapping_add((page * page_size() / 8 + word) as usize);
        // SAFETY: the word lies in the mapping, which outlives this, and everyone uses it as an atomic.
        unsafe { &*at }
    }
}
