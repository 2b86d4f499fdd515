//! Mappings that replace others under access, and memory that the program moves itself.

use super::{
    races::Ending,
    scripted_process::{ScriptedProcess, say},
    *,
};
use std::os::unix::process::ExitStatusExt;

/// Pages that are replaced, and threads that use them.
const PAGES: u64 = 8;
const THREADS: u64 = 4;
const REPLACEMENTS: u64 = 2_000;

fn over(at: u64, pages: u64) -> MapRequest {
    MapRequest {
        placement: Placement::Replace(VirtualPage::new(at)),
        ..MapRequest::new(Pages(pages))
    }
}

/// Adds to a word of its own in each page until `done`, and looks whose page it is. Returns how often it has added.
fn add(space: &PagedSpace, own: u64, done: &AtomicBool) -> u64 {
    let mut added = 0;
    while !done.load(Ordering::Relaxed) {
        let page = added % PAGES;
        let mark = word(space, page, 1).load(Ordering::Relaxed);
        assert!(mark == 100 + page || mark == 200 + page, "page {page} reads {mark}");
        word(space, page, own).fetch_add(1, Ordering::Relaxed);
        added += 1;
    }
    added
}

/// Replaces one object by another and back, while threads use them.
fn replace_under_access(pages_in_memory: u64, disturb: impl Fn(&Paging, u64)) {
    let Some(paging) = start(budget(pages_in_memory)) else { return };
    let files = [file_in_memory(), file_in_memory()];
    let objects = [0, 1].map(|n| {
        let pager = pager_of(&files[n]);
        paging.manager().object(Kind::Anonymous, Pages(PAGES), pager).unwrap()
    });
    let [space, beside] = [0, 1].map(|_| paging.space(Pages(4 * PAGES)).unwrap());
    for (first, object) in [(0, &objects[0]), (PAGES, &objects[1])] {
        beside.map(object, fixed(first, PAGES)).unwrap();
        let mark = if first == 0 { 100 } else { 200 };
        (0..PAGES).for_each(|page| put(&beside, first + page, mark + page));
    }
    space.map(&objects[0], fixed(0, PAGES)).unwrap();
    let done = AtomicBool::new(false);
    let added: Vec<u64> = std::thread::scope(|scope| {
        let (space, done) = (&space, &done);
        let threads: Vec<_> =
            (0..THREADS).map(|n| scope.spawn(move || add(space, 8 + n, done))).collect();
        // Also if the loop panics, so that the threads end.
        let ending = Ending(|| done.store(true, Ordering::Relaxed));
        for turn in 0..REPLACEMENTS {
            let object = &objects[usize::from(turn % 2 == 0)];
            // Now all of it, and now a part of an object, at its place.
            let first = turn / 2 % 3;
            let offset = ObjectPage::new(first);
            space.map(object, MapRequest { offset, ..over(first, PAGES - first) }).unwrap();
            disturb(&paging, turn);
        }
        drop(ending);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (n, added) in (0..).zip(added) {
        let kept = (0..2 * PAGES).map(|page| word(&beside, page, 8 + n).load(Ordering::Relaxed));
        assert_eq!(kept.sum::<u64>(), added, "writes of thread {n} were lost");
    }
}

/// The bug: a replacement was an unmapping and a mapping, and 180 accesses between them ended in SIGSEGV.
#[test]
fn threads_never_miss_a_mapping_that_is_replaced_and_lose_no_write() {
    replace_under_access(100, |_, _| ());
}

#[test]
fn replacements_lose_no_write_while_pages_are_evicted() {
    replace_under_access(PAGES, |paging, turn| {
        if turn % 4 == 0 {
            paging.manager().page_out(Pages(3));
        }
    });
}

#[test]
fn a_refused_replacement_leaves_what_was_there() {
    let Some(paging) = start(budget(8)) else { return };
    let pager = Arc::new(Moody::default());
    let old = paging.manager().object(Kind::File, Pages(4), Arc::clone(&pager) as _).unwrap();
    let new = paging.manager().object(Kind::File, Pages(4), Arc::clone(&pager) as _).unwrap();
    let space = paging.space(Pages(8)).unwrap();
    space.map(&old, fixed(0, 4)).unwrap();
    put(&space, 1, 5);
    pager.fails.store(true, Ordering::Relaxed);
    let locked = MapRequest { residency: Some(commonhold_mm::Residency::Locked), ..over(0, 4) };
    assert!(matches!(space.map(&new, locked), Err(Error::Fault { .. })));
    assert_eq!((get(&space, 1), new.spaces()), (5, 0));
    pager.fails.store(false, Ordering::Relaxed);
    space.map(&new, locked).unwrap();
    assert_eq!((get(&space, 1), old.spaces()), (0x0707_0707_0707_0707, 0));
    assert_eq!(paging.manager().page_out(Pages(8)), Pages(1));
}

/// The thread that reads events also poisons pages and heals them. If it waited for the table, whose lock a replacement
/// holds until that thread has read its event, both would wait for ever.
#[test]
fn replacements_end_while_pages_fail_and_are_healed() {
    let Some(paging) = start(budget(100)) else { return };
    let manager = paging.manager();
    if manager.mmu().is_user_mode_only() {
        return eprintln!("note: not tested: faults of the kernel itself are not served here");
    }
    let pager = Arc::new(Moody::default());
    pager.fails.store(true, Ordering::Relaxed);
    let objects =
        [0; 2].map(|_| manager.object(Kind::File, Pages(PAGES), Arc::clone(&pager) as _).unwrap());
    let space = paging.space(Pages(2 * PAGES)).unwrap();
    space.map(&objects[0], fixed(0, PAGES)).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ending = Ending(|| done.store(true, Ordering::Relaxed));
        for first in 0..2 {
            let (space, done) = (&space, &done);
            scope.spawn(move || {
                for page in (0..2 * PAGES).cycle().skip(first).step_by(3) {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    super::failures::try_get(space, page).unwrap_err();
                }
            });
        }
        // Long enough for pages to be healed: that begins when the first has been poisoned for a while.
        let begun = std::time::Instant::now();
        for turn in 0.. {
            if turn > REPLACEMENTS && begun.elapsed() > 3 * crate::deferred::FAILURE_LASTS {
                break;
            }
            space.map(&objects[usize::from(turn % 2 == 0)], over(0, PAGES)).unwrap();
        }
        drop(ending);
    });
    pager.fails.store(false, Ordering::Relaxed);
    space.map(&objects[0], over(0, PAGES)).unwrap();
    assert_eq!(get(&space, 3), 0x0707_0707_0707_0707);
}

/// A replacement waits for the thread that reads events; the last handle may have ended that thread.
#[test]
fn a_replacement_without_threads_ends() {
    let Some(paging) = start(budget(100)) else { return };
    let object =
        paging.manager().object(Kind::Anonymous, Pages(4), Arc::new(Moody::default())).unwrap();
    let space = paging.space(Pages(8)).unwrap();
    space.map(&object, fixed(0, 4)).unwrap();
    put(&space, 1, 5);
    let handle = commonhold_mm::AddressSpace::clone(&space);
    drop(space);
    drop(paging);
    handle.map(&object, over(1, 2)).unwrap();
    assert_eq!(handle.totals().mappings, 3);
}

/// The bug: memory that the program moved by `mremap` was no longer registered, and missing pages read as zeros there.
#[test]
fn memory_that_the_program_moves_gives_an_error_and_no_zeros() {
    let Some(_) = start(budget(100)) else { return };
    let mut child = ScriptedProcess::play("moved");
    while let Some(said) = child.hear() {
        assert_eq!(said, "moved");
    }
    assert_eq!(child.wait().signal(), Some(libc::SIGBUS));
}

/// While an event of `mremap` waits to be read, all calls of the userfaultfd but waking answer EAGAIN. A program that
/// moves managed memory in a loop delays its own faults, and no more than that.
#[test]
fn faults_and_evictions_go_on_while_the_program_moves_managed_memory() {
    let Some(paging) = start(budget(PAGES)) else { return };
    let manager = paging.manager();
    let file = file_in_memory();
    let object = manager.object(Kind::Anonymous, Pages(PAGES), pager_of(&file)).unwrap();
    let moved = manager.object(Kind::Anonymous, Pages(4), Arc::new(Moody::default())).unwrap();
    let space = paging.space(Pages(PAGES)).unwrap();
    space.map(&object, fixed(0, PAGES)).unwrap();
    (0..PAGES).for_each(|page| put(&space, page, 100 + page));
    let other = paging.space(Pages(4)).unwrap();
    other.map(&moved, fixed(0, 4)).unwrap();
    let base = word(&other, 0, 0).as_ptr().expose_provenance();
    let done = AtomicBool::new(false);
    let added: Vec<u64> = std::thread::scope(|scope| {
        let (space, done) = (&space, &done);
        let ending = Ending(|| done.store(true, Ordering::Relaxed));
        let mover = scope.spawn(move || move_again_and_again(base, done));
        let threads: Vec<_> =
            (0..2).map(|n| scope.spawn(move || add(space, 8 + n, done))).collect();
        let mut evicted = 0;
        while evicted < 50 {
            evicted += manager.page_out(Pages(2)).0;
        }
        drop(ending);
        assert!(mover.join().unwrap() > 0);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (n, added) in (0..).zip(added) {
        let kept = (0..PAGES).map(|page| word(&space, page, 8 + n).load(Ordering::Relaxed));
        assert_eq!(kept.sum::<u64>(), added, "writes of thread {n} were lost");
    }
}

/// Moves four pages at an address to another one until `done`, and leaves the mapping in place, so that no other memory
/// gets the address. Returns how often.
fn move_again_and_again(base: usize, done: &AtomicBool) -> u64 {
    let len = usize::try_from(4 * page_size()).unwrap();
    let (flags, none) = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, libc::PROT_NONE);
    // SAFETY: `mmap` wants no pointer into what it replaces: without MAP_FIXED it replaces nothing.
    let target = unsafe { libc::mmap(std::ptr::null_mut(), len, none, flags, -1, 0) };
    assert_ne!(target, libc::MAP_FAILED);
    let how = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
    let base = std::ptr::with_exposed_provenance_mut(base);
    let mut moves = 0;
    while !done.load(Ordering::Relaxed) {
        // SAFETY: `mremap` wants no pointer into what it moves and what it replaces: no code uses either.
        let moved = unsafe { libc::mremap(base, len, len, how, target) };
        assert_eq!(moved, target);
        moves += 1;
    }
    // SAFETY: `munmap` wants a range without users: only this function has the address.
    assert_eq!(unsafe { libc::munmap(target, len) }, 0);
    moves
}

/// Moves managed memory, and reads a page that is not in memory at its new address.
pub(super) fn move_memory() {
    let paging = start(budget(100)).unwrap();
    let object = paging.manager().object(Kind::File, Pages(4), Arc::new(Moody::default())).unwrap();
    let space = paging.space(Pages(8)).unwrap();
    space.map(&object, fixed(0, 4)).unwrap();
    put(&space, 0, 5);
    let base = word(&space, 0, 0).as_ptr().cast::<libc::c_void>();
    let len = usize::try_from(4 * page_size()).unwrap();
    // SAFETY: `mremap` wants no pointer into what it moves: this test uses only the new address from here on.
    let moved =
        unsafe { libc::mremap(base, len, len, libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP) };
    assert_ne!(moved, libc::MAP_FAILED);
    say("moved");
    let missing = moved.cast::<u8>().wrapping_add(usize::try_from(2 * page_size()).unwrap());
    // SAFETY: `read_volatile` wants mapped memory: the kernel has just moved it there.
    let byte = unsafe { missing.read_volatile() };
    say(&format!("the moved page reads {byte}"));
}
