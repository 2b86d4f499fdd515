//! The memory manager on this process's own memory, through a userfaultfd.
//!
//! Without one (no permission, an old kernel), each test prints that and tests nothing.

mod by_kernel;
mod descriptors;
mod failures;
mod forks;
mod lost_writes;
mod model;
mod own_acts;
mod pagers;
mod pinned_io;
mod races;
mod replacing;
mod scripted_process;
mod signals;
mod storm;

use crate::{FilePager, PagedSpace, Paging, UffdGather, UffdMmu};
use commonhold_layout::Offset;
use commonhold_mm::{
    AddressSpace, Advice, Error, Kind, MapRequest, Mmu, Object, ObjectPage, ObjectSpan, Pager,
    PagerError, Pages, Placement, Protection, Settings, Span, State, VirtualPage, VirtualSpan,
};
use rustix::fs::{MemfdFlags, memfd_create};
use std::{
    fs::File,
    os::unix::fs::FileExt,
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

fn page_size() -> u64 {
    rustix::param::page_size() as u64
}

fn start(settings: Settings) -> Option<Paging> {
    match Paging::start(settings, 3) {
        Ok(paging) => Some(paging),
        Err(error) => {
            eprintln!("note: not tested: {error}");
            None
        }
    }
}

fn budget(pages: u64) -> Settings {
    Settings { budget: Pages(pages), ..Settings::default() }
}

fn span(first: u64, pages: u64) -> VirtualSpan {
    Span::new(VirtualPage::new(first), Pages(pages)).unwrap()
}

fn fixed(at: u64, pages: u64) -> MapRequest {
    MapRequest {
        placement: Placement::Fixed(VirtualPage::new(at)),
        ..MapRequest::new(Pages(pages))
    }
}

fn word(space: &PagedSpace, page: u64, word: u64) -> &AtomicU64 {
    space.window().word(Offset::new(page * page_size() + word * 8).unwrap()).unwrap()
}

fn get(space: &PagedSpace, page: u64) -> u64 {
    word(space, page, 1).load(Ordering::Relaxed)
}

fn put(space: &PagedSpace, page: u64, value: u64) {
    word(space, page, 1).store(value, Ordering::Relaxed);
}

fn states(object: &Object<UffdMmu>) -> Vec<State> {
    (0..object.pages().0).map(|page| object.state(ObjectPage::new(page)).unwrap()).collect()
}

/// The pages of memory that the object's memfd has.
fn memory(object: &Object<UffdMmu>) -> u64 {
    let stat = rustix::fs::fstat(object.machine().file().unwrap()).unwrap();
    u64::try_from(stat.st_blocks).unwrap() * 512 / page_size()
}

/// An empty file without a name, for a pager.
pub(crate) fn file_in_memory() -> File {
    memfd_create("commonhold-test-pages", MemfdFlags::CLOEXEC).unwrap().into()
}

fn pager_of(file: &File) -> Arc<FilePager> {
    let page_size = rustix::param::page_size();
    Arc::new(FilePager::new(file.try_clone().unwrap(), page_size).unwrap())
}

/// A word of the file, which may end before it, or in it, if it is followed by zeros only.
fn word_in(file: &File, page: u64) -> u64 {
    let mut bytes = [0; 8];
    file.read_at(&mut bytes, page * page_size() + 8).unwrap();
    u64::from_le_bytes(bytes)
}

/// Fails on command, and waits while a test holds `gate` to write.
#[derive(Default)]
struct Moody {
    fails: AtomicBool,
    gate: RwLock<()>,
    /// How many reads have begun.
    begun: AtomicU64,
}

const FAILURE: PagerError = PagerError::Io { code: libc::EIO };

impl Pager for Moody {
    fn read(&self, _: ObjectPage, into: &mut [u8]) -> Result<(), PagerError> {
        into.fill(7);
        self.begun.fetch_add(1, Ordering::Relaxed);
        let _open = self.gate.read().unwrap();
        if self.fails.load(Ordering::Relaxed) { Err(FAILURE) } else { Ok(()) }
    }

    fn write(&self, _: ObjectPage, _: &[u8]) -> Result<(), PagerError> {
        Ok(())
    }

    fn discard(&self, _: ObjectSpan) -> Result<(), PagerError> {
        Ok(())
    }
}

#[test]
fn data_stay_right_through_faults_locks_evictions_and_resizes() {
    let Some(paging) = start(budget(100)) else { return };
    let file = file_in_memory();
    let manager = paging.manager();
    let object = manager.object(Kind::File, Pages(8), pager_of(&file)).unwrap();
    file.write_all_at(&77_u64.to_le_bytes(), 3 * page_size() + 8).unwrap();
    let space = paging.space(Pages(64)).unwrap();
    space.map(&object, fixed(10, 8)).unwrap();
    space.map(&object, fixed(30, 8)).unwrap();

    // A pulse serves the first fault; the second, in the other mapping, is resolved at once.
    assert_eq!(get(&space, 13), 77);
    assert_eq!(faults(&paging, &space, 1), (0, 1));
    assert_eq!(get(&space, 33), 77);
    assert_eq!(faults(&paging, &space, 2), (1, 1));
    assert_eq!(states(&object)[3], State::Clean);
    put(&space, 33, 78);
    assert_eq!((get(&space, 13), states(&object)[3]), (78, State::Dirty));
    assert_eq!(faults(&paging, &space, 3), (2, 1));

    // Locked pages are read without a fault; the first write to each faults.
    space.lock(span(10, 2)).unwrap();
    assert_eq!((get(&space, 10), get(&space, 11)), (0, 0));
    put(&space, 10, 5);
    assert_eq!(faults(&paging, &space, 4), (3, 1));
    put(&space, 17, 6);
    assert_eq!(manager.page_out(Pages(100)), Pages(2));
    assert_eq!(memory(&object), 2);
    assert_eq!((word_in(&file, 3), word_in(&file, 7), word_in(&file, 0)), (78, 6, 0));
    assert_eq!((get(&space, 13), get(&space, 37), get(&space, 30)), (78, 6, 5));

    object.resize(Pages(4)).unwrap();
    object.resize(Pages(8)).unwrap();
    assert_eq!((get(&space, 13), get(&space, 17), get(&space, 37)), (78, 0, 0));
    put(&space, 17, 9);
    assert_eq!(get(&space, 37), 9);
    space.unmap(span(32, 4)).unwrap();
    space.unlock_all();
    assert_eq!(object.sync(Span::new(ObjectPage::new(0), Pages(8)).unwrap()), Ok(Pages(2)));
    assert_eq!((word_in(&file, 0), word_in(&file, 3), word_in(&file, 7)), (5, 78, 9));
    drop(space);
    put_last(&paging, &object, &file);
}

/// The fast faults and the pulses of the space so far. Waits until there are `count`: a thread that faulted goes on a
/// moment before its fault is counted and its pulse is off the list.
fn faults(paging: &Paging, space: &PagedSpace, count: u64) -> (u64, u64) {
    loop {
        let faults = space.totals().faults;
        if faults.fast + faults.pulsed >= count && paging.manager().pulses() == 0 {
            return (faults.fast, faults.pulsed);
        }
        std::thread::yield_now();
    }
}

/// Drops an object, whose dirty pages are written to its file then.
fn put_last(paging: &Paging, object: &Object<UffdMmu>, file: &File) {
    let object = object.clone();
    let space = paging.space(Pages(8)).unwrap();
    space.map(&object, fixed(0, 8)).unwrap();
    put(&space, 2, 1234);
    drop(space);
    object.sync(Span::new(ObjectPage::new(0), Pages(8)).unwrap()).unwrap();
    assert_eq!(word_in(file, 2), 1234);
}

#[test]
fn exactly_the_pages_that_were_written_are_dirty() {
    let Some(paging) = start(budget(100)) else { return };
    let file = file_in_memory();
    let object = paging.manager().object(Kind::Anonymous, Pages(16), pager_of(&file)).unwrap();
    let space = paging.space(Pages(64)).unwrap();
    space.map(&object, fixed(0, 16)).unwrap();
    space.map(&object, fixed(32, 16)).unwrap();
    let dirty = || -> Vec<u64> {
        let states = states(&object);
        let dirty = (0..).zip(states).filter(|(_, state)| *state == State::Dirty);
        dirty.map(|(page, _)| page).collect()
    };
    for round in 1..4 {
        for page in 0..16 {
            assert_eq!(get(&space, page), get(&space, 32 + page));
        }
        assert_eq!(dirty(), []);
        let written: Vec<u64> = (0..16).filter(|page| page % (round + 1) == 1).collect();
        for page in &written {
            put(&space, page + 32 * (round % 2), round * 100 + page);
        }
        assert_eq!(dirty(), written);
        let all = Span::new(ObjectPage::new(0), Pages(16)).unwrap();
        assert_eq!(object.sync(all), Ok(Pages(written.len() as u64)));
        assert_eq!(dirty(), []);
        for page in written {
            assert_eq!(word_in(&file, page), round * 100 + page);
        }
    }
}

#[test]
fn a_super_locked_space_never_faults_and_its_pages_stay() {
    let Some(paging) = start(budget(100)) else { return };
    let pager = Arc::new(Moody::default());
    let object = paging.manager().object(Kind::Anonymous, Pages(8), pager).unwrap();
    let space = paging.space(Pages(64)).unwrap();
    space.map(&object, fixed(0, 8)).unwrap();
    let privilege = space.io_privilege().unwrap();
    let before = space.totals().faults;
    for round in 0..100 {
        for page in 0..8 {
            put(&space, page, round);
        }
        assert_eq!(paging.manager().page_out(Pages(8)), Pages(0));
        object.sync(Span::new(ObjectPage::new(0), Pages(8)).unwrap()).unwrap();
    }
    assert_eq!(space.totals().faults, before);
    drop(privilege);
    assert_eq!(paging.manager().page_out(Pages(8)), Pages(8));
    assert_eq!(memory(&object), 0);
    assert_eq!(get(&space, 3), 0x0707_0707_0707_0707);
}

#[test]
fn an_access_after_a_translation_was_taken_away_is_seen() {
    let Some(paging) = start(budget(100)) else { return };
    let object =
        paging.manager().object(Kind::Anonymous, Pages(4), Arc::new(Moody::default())).unwrap();
    let space = paging.space(Pages(8)).unwrap();
    space.map(&object, fixed(0, 4)).unwrap();
    put(&space, 1, 1);
    faults(&paging, &space, 1);
    for round in 2..5 {
        let (mmu, mut gather) = (paging.manager().mmu(), UffdGather::default());
        let first = ObjectPage::new(0);
        mmu.remove(space.machine(), span(0, 4), object.machine(), first, &mut gather).unwrap();
        mmu.finish(gather, &mut |_, _| ()).unwrap();
        assert_eq!(get(&space, 1), round - 1);
        assert_eq!(faults(&paging, &space, round), (round - 1, 1));
        put(&space, 1, round);
    }
}

#[test]
fn faults_are_reported_again_when_the_queue_of_pulses_was_full() {
    let Some(paging) = start(Settings { pulses: 1, ..Settings::default() }) else { return };
    let pager = Arc::new(Moody::default());
    let object = paging.manager().object(Kind::File, Pages(400), pager).unwrap();
    let space = paging.space(Pages(400)).unwrap();
    space.map(&object, fixed(0, 400)).unwrap();
    std::thread::scope(|scope| {
        for first in 0..4 {
            let space = &space;
            scope.spawn(move || {
                for page in (first..400).step_by(4) {
                    assert_eq!(get(space, page), 0x0707_0707_0707_0707);
                }
            });
        }
    });
    assert_eq!(object.totals().filled, 400);
}

#[test]
fn a_forked_child_has_no_mapping_and_cannot_add_pages_of_zeros() {
    let Some(paging) = start(budget(100)) else { return };
    let object =
        paging.manager().object(Kind::Anonymous, Pages(4), Arc::new(Moody::default())).unwrap();
    let space = paging.space(Pages(8)).unwrap();
    space.map(&object, fixed(0, 4)).unwrap();
    put(&space, 0, 1);
    let (there, missing) = (word(&space, 0, 1), word(&space, 1, 1));
    for word in [there, missing] {
        // SAFETY: `fork` in a program with threads wants a child that calls nothing but what is safe after it:
        // it loads a word and exits.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let value = word.load(Ordering::Relaxed);
            // SAFETY: `_exit` has no requirement.
            unsafe { libc::_exit(i32::from(value != 0)) };
        }
        let mut status = 0;
        // SAFETY: `waitpid` wants a place for the status.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert!(libc::WIFSIGNALED(status), "the child has read {}", libc::WEXITSTATUS(status));
        assert_eq!(libc::WTERMSIG(status), libc::SIGSEGV);
    }
    assert_eq!(memory(&object), 1);
    assert_eq!((get(&space, 0), get(&space, 1)), (1, 0));
}
