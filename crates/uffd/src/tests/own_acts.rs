//! What a program does to the mappings of a space on its own, behind the manager's back.
//!
//! [`ACTS`] is the table: for each act, what reads and writes of the touched pages give then. In every case the pages
//! that the act did not touch are right in all mappings, the object's pages can be evicted, nothing waits for ever, and
//! the budget counts what is in memory. Each act runs in a process of its own, since some would damage this one.

use super::{
    failures::try_get,
    scripted_process::{ScriptedProcess, say},
    *,
};
use rustix::fs::FallocateFlags;
use std::{ffi::c_void, os::fd::AsRawFd};

/// The object is mapped here, and the act touches pages of this mapping only,
const FIRST: u64 = 0;
/// and here.
const SECOND: u64 = 32;
const PAGES: u64 = 16;
/// The touched pages: half of them are clean, half dirty. Before and behind them lie as many of each.
const TOUCHED: std::ops::Range<u64> = 4..12;
const DIRTY: u64 = 8;
/// `MADV_COLLAPSE`, which `libc` does not name for musl.
const COLLAPSE: libc::c_int = 25;
/// After so many seconds a process that waits for ever ends by a signal.
const WATCHDOG: u32 = 60;

/// What an access gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gives {
    /// The page's contents; a write is seen in the other mapping.
    Right,
    /// An error; the program would get SIGSEGV or SIGBUS.
    Error,
    /// An error in both mappings: what the pager has is old.
    Lost,
    /// Other memory, which the program has put there.
    Foreign,
}
use Gives::{Error as Fails, Foreign, Lost, Right};

/// An act; the kernel's error number, or 0; and what reads of clean and dirty pages, then writes to both, give.
type Act = (&'static str, i32, [Gives; 2], [Gives; 2]);

/// `MADV_GUARD_INSTALL` is not here: on Linux 6.18 that call itself never returns if a page has a mark of the
/// userfaultfd, until its thread gets a signal.
const ACTS: [Act; 19] = [
    ("munmap", 0, [Fails, Fails], [Fails, Fails]),
    ("mmap-over", 0, [Foreign, Foreign], [Foreign, Foreign]),
    ("mremap-away", 0, [Fails, Fails], [Fails, Fails]),
    ("mprotect-none", 0, [Fails, Fails], [Fails, Fails]),
    ("mprotect-read", 0, [Right, Right], [Fails, Fails]),
    // The manager permits reading only. The first write to a clean page sets the protection right again; before that,
    // writes to dirty pages go through.
    ("mprotect-more", 0, [Right, Right], [Fails, Fails]),
    ("dontneed", 0, [Right, Right], [Right, Right]),
    ("free", libc::EINVAL, [Right, Right], [Right, Right]),
    ("cold", 0, [Right, Right], [Right, Right]),
    ("pageout", 0, [Right, Right], [Right, Right]),
    ("populate-read", 0, [Right, Right], [Right, Right]),
    ("populate-write", 0, [Right, Right], [Right, Right]),
    ("mlock", 0, [Right, Right], [Right, Right]),
    // Contents that the pager has come back, and changes are lost.
    ("remove", 0, [Right, Lost], [Right, Lost]),
    ("punch", 0, [Right, Lost], [Right, Lost]),
    // The kernel makes huge pages only where a range has room for one: see the test below.
    ("collapse", libc::EINVAL, [Right, Right], [Right, Right]),
    ("fork", 0, [Right, Right], [Right, Right]),
    // Pages that are not in memory read as zeros then. It takes the machine's own descriptor.
    ("unregister", 0, [Right, Right], [Right, Right]),
    ("mseal", 0, [Right, Right], [Right, Right]),
];

#[test]
fn what_a_program_does_to_its_own_mappings_hurts_no_other_page() {
    let Some(paging) = start(budget(100)) else { return };
    if paging.manager().mmu().is_user_mode_only() {
        return eprintln!("note: not tested: faults of the kernel itself are not served here");
    }
    for (act, ..) in ACTS {
        let mut child = ScriptedProcess::play(&format!("act-{act}"));
        while let Some(said) = child.hear() {
            eprintln!("note: {act}: {said}");
        }
        let status = child.wait();
        assert!(status.success(), "{act}: {status}");
    }
}

/// An act in the middle of pages that are in memory, and what comes of it.
pub(super) fn act(name: &str) {
    // SAFETY: `alarm` has no requirement.
    unsafe { libc::alarm(WATCHDOG) };
    let (_, code, reads, writes) = ACTS.into_iter().find(|(act, ..)| *act == name).unwrap();
    let paging = start(budget(100)).unwrap();
    let file = file_in_memory();
    let object = paging.manager().object(Kind::File, Pages(PAGES), pager_of(&file)).unwrap();
    let space = paging.space(Pages(64)).unwrap();
    space.map(&object, fixed(FIRST, PAGES)).unwrap();
    space.map(&object, fixed(SECOND, PAGES)).unwrap();
    (0..PAGES).for_each(|page| put(&space, FIRST + page, 100 + page));
    object.sync(whole(&object)).unwrap();
    (DIRTY..PAGES).for_each(|page| put(&space, FIRST + page, 200 + page));
    if name == "mprotect-more" {
        space.protect(touched(), Protection::Read).unwrap();
    }
    // A page that is not in memory.
    let absent = TOUCHED.start;
    assert_eq!(space.advise(span(FIRST + absent, 1), Advice::DontNeed), Ok(Pages(1)));

    let done = perform(name, &space, &object);
    if done == Err(libc::ENOSYS) {
        return say("not tested: this kernel has no such call");
    }
    assert_eq!(done.err().unwrap_or(0), code);

    // Outside of the userfaultfd, a page that was not in memory is one of zeros.
    let is_planted = |page| name == "unregister" && page == absent;
    for page in (0..PAGES).filter(|page| !is_planted(*page)) {
        let (here, there) = match of(page, reads) {
            Right => (Some(contents(page)), Some(contents(page))),
            Fails => (None, Some(contents(page))),
            Lost => (None, None),
            Foreign => (Some(0), Some(contents(page))),
        };
        assert_eq!(try_get(&space, FIRST + page).ok(), here, "page {page}");
        assert_eq!(try_get(&space, SECOND + page).ok(), there, "page {page}");
    }
    for page in TOUCHED {
        let wrote = try_put(&space, FIRST + page, 300 + page);
        assert_eq!(wrote, matches!(of(page, writes), Right | Foreign), "a write to page {page}");
    }
    evict_all(&paging, &object, memory(&object) > 0 && name == "unregister");
    let mut lost = 0;
    for page in (0..PAGES).filter(|page| name != "unregister" || !TOUCHED.contains(page)) {
        let right = match of(page, writes) {
            Lost => None,
            Right if TOUCHED.contains(&page) => Some(300 + page),
            _ => Some(contents(page)),
        };
        lost += u64::from(right.is_none());
        assert_eq!(try_get(&space, SECOND + page).ok(), right, "page {page} afterwards");
    }
    let totals = object.totals();
    assert_eq!((totals.lost, totals.resident), (Pages(lost), paging.manager().resident()));
    object.discard(whole(&object)).unwrap();
    // A page that was lost gives SIGBUS for a moment yet.
    while try_get(&space, SECOND + DIRTY).is_err() {
        std::thread::yield_now();
    }
    assert_eq!((get(&space, SECOND + DIRTY), object.totals().lost), (0, Pages(0)));
}

/// Evicts all pages. Then the memfd has none, but for one that was planted.
fn evict_all(paging: &Paging, object: &Object<UffdMmu>, planted: bool) {
    // A thread that faulted goes on a moment before its fault is finished.
    while paging.manager().resident() > Pages(0) {
        paging.manager().page_out(Pages(PAGES));
    }
    assert_eq!(memory(object), u64::from(planted));
}

/// What an access to a page gives: one of the two, if the act has touched it.
fn of(page: u64, [clean, dirty]: [Gives; 2]) -> Gives {
    match TOUCHED.contains(&page) {
        true if page < DIRTY => clean,
        true => dirty,
        false => Right,
    }
}

fn contents(page: u64) -> u64 {
    if page < DIRTY { 100 + page } else { 200 + page }
}

fn touched() -> VirtualSpan {
    span(FIRST + TOUCHED.start, TOUCHED.end - TOUCHED.start)
}

fn whole(object: &Object<UffdMmu>) -> ObjectSpan {
    Span::new(ObjectPage::new(0), object.pages()).unwrap()
}

/// Lets the kernel write a word, which fails where the process would get a signal.
fn try_put(space: &PagedSpace, page: u64, value: u64) -> bool {
    let (from, mut to) = std::io::pipe().unwrap();
    std::io::Write::write_all(&mut to, &value.to_le_bytes()).unwrap();
    let there = word(space, page, 1).as_ptr();
    // SAFETY: `read` wants room: a word of the window, or it fails.
    (unsafe { libc::read(from.as_raw_fd(), there.cast(), 8) }) == 8
}

/// Does the act to the touched pages.
fn perform(name: &str, space: &PagedSpace, object: &Object<UffdMmu>) -> Result<(), i32> {
    let at: *mut c_void = word(space, FIRST + TOUCHED.start, 0).as_ptr().cast();
    let len = usize::try_from((TOUCHED.end - TOUCHED.start) * page_size()).unwrap();
    if let Some(advice) = advice(name) {
        // SAFETY: this and the calls below want a range whose users expect what they do to it: the test is about that.
        done(unsafe { libc::madvise(at, len, advice) }.into())?;
        if name == "fork" {
            touch_in_a_child(space);
        }
        return Ok(());
    }
    let (read, write) = (libc::PROT_READ, libc::PROT_WRITE);
    // SAFETY: as above.
    let protect = |protection| done(unsafe { libc::mprotect(at, len, protection) }.into());
    match name {
        // SAFETY: as above.
        "munmap" => done(unsafe { libc::munmap(at, len) }.into()),
        "mmap-over" => {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
            // SAFETY: as above.
            let there = unsafe { libc::mmap(at, len, read | write, flags, -1, 0) };
            done(if there == libc::MAP_FAILED { -1 } else { 0 })
        }
        "mremap-away" => {
            // A longer mapping has to move, since others follow it.
            // SAFETY: as above.
            let there = unsafe { libc::mremap(at, len, 2 * len, libc::MREMAP_MAYMOVE) };
            done(if there == libc::MAP_FAILED { -1 } else { 0 })
        }
        "mprotect-none" => protect(libc::PROT_NONE),
        "mprotect-read" => protect(read),
        "mprotect-more" => protect(read | write),
        // SAFETY: as above.
        "mlock" => done(unsafe { libc::mlock(at, len) }.into()),
        "punch" => {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let (file, from) = (object.machine().file().unwrap(), TOUCHED.start * page_size());
            let punched = rustix::fs::fallocate(file, flags, from, len as u64);
            punched.map_err(rustix::io::Errno::raw_os_error)
        }
        "unregister" => unregister(space, at, len),
        // SAFETY: as above.
        "mseal" => done(unsafe { libc::syscall(SYS_MSEAL, at, len, 0) }),
        other => panic!("no act {other}"),
    }
}

/// `mseal`, which the crate `libc` does not name on all targets.
const SYS_MSEAL: libc::c_long = 462;

/// The advice to `madvise` that an act consists of.
fn advice(name: &str) -> Option<i32> {
    Some(match name {
        "dontneed" => libc::MADV_DONTNEED,
        "free" => libc::MADV_FREE,
        "cold" => libc::MADV_COLD,
        "pageout" => libc::MADV_PAGEOUT,
        "populate-read" => libc::MADV_POPULATE_READ,
        "populate-write" => libc::MADV_POPULATE_WRITE,
        "remove" => libc::MADV_REMOVE,
        "collapse" => COLLAPSE,
        "fork" => libc::MADV_DOFORK,
        _ => return None,
    })
}

/// What a call has said, as a result.
fn done(said: libc::c_long) -> Result<(), i32> {
    let error = || std::io::Error::last_os_error().raw_os_error().unwrap();
    if said == 0 { Ok(()) } else { Err(error()) }
}

/// Takes a range from the userfaultfd, by its own descriptor.
fn unregister(space: &PagedSpace, at: *mut c_void, len: usize) -> Result<(), i32> {
    const UFFDIO_UNREGISTER: u64 = 0x8010_AA01;
    let file = space.machine().reservation.userfault().descriptor().unwrap();
    let mut range = [at.addr() as u64, len as u64];
    let (file, range) = (file.as_raw_fd(), &raw mut range);
    // SAFETY: the call wants its structure, a start and a length, which this is.
    done(unsafe { libc::syscall(libc::SYS_ioctl, file, UFFDIO_UNREGISTER, range) })
}

/// Reads pages in a child that has them. Outside of the userfaultfd, so the missing one becomes a page of zeros.
fn touch_in_a_child(space: &PagedSpace) {
    // SAFETY: `fork` in a program with threads wants a child that calls nothing but what is safe after it: it loads
    // words and exits.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let seen: u64 = TOUCHED.map(|page| get(space, FIRST + page)).sum();
        // SAFETY: `_exit` has no requirement.
        unsafe { libc::_exit(i32::from(seen == 0)) };
    }
    let mut status = 0;
    // SAFETY: `waitpid` wants a place for the status.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status:x}");
}

/// A hole reads as zeros. They were written to the pager as the page's contents.
#[test]
fn a_write_back_or_an_eviction_of_a_page_that_was_removed_writes_no_zeros() {
    let Some(paging) = start(budget(100)) else { return };
    let file = file_in_memory();
    let object = paging.manager().object(Kind::File, Pages(4), pager_of(&file)).unwrap();
    let space = paging.space(Pages(4)).unwrap();
    space.map(&object, fixed(0, 4)).unwrap();
    (0..4).for_each(|page| put(&space, page, 100 + page));
    object.sync(whole(&object)).unwrap();
    (0..4).for_each(|page| put(&space, page, 200 + page));
    // The first and the third page go.
    for page in [0, 2] {
        let at: *mut c_void = word(&space, page, 0).as_ptr().cast();
        let len = usize::try_from(page_size()).unwrap();
        // SAFETY: `madvise` wants a range whose users expect what the advice does: the test is about that.
        assert_eq!(done(unsafe { libc::madvise(at, len, libc::MADV_REMOVE) }.into()), Ok(()));
    }
    let lost = |page| Err(Error::Lost { page: ObjectPage::new(page) });
    assert_eq!(object.sync(Span::new(ObjectPage::new(0), Pages(2)).unwrap()), lost(0));
    while paging.manager().resident() > Pages(0) {
        paging.manager().page_out(Pages(4));
    }
    let kept: Vec<u64> = (0..4).map(|page| word_in(&file, page)).collect();
    assert_eq!((kept, object.totals().lost), (vec![100, 201, 102, 203], Pages(2)));
    assert_eq!(object.sync(whole(&object)), lost(0));
}

/// A program makes a huge page of the object's pages, and a pipe holds one of them. Then the kernel cannot split the huge
/// page, so punching holes frees nothing: pages that had left memory were there, as zeros.
#[test]
fn memory_that_something_holds_is_counted_and_overwritten_by_the_next_filling() {
    const HUGE: usize = 2 << 20;
    let Some(paging) = start(budget(10_000)) else { return };
    let pages = HUGE as u64 / page_size();
    let object = paging.manager().object(Kind::File, Pages(pages), pager_of(&file_in_memory()));
    let object = object.unwrap();
    let space = paging.space(Pages(2 * pages)).unwrap();
    let base = space.machine().reservation.base().as_ptr().addr();
    let first = (base.next_multiple_of(HUGE) - base) as u64 / page_size();
    space.map(&object, fixed(first, pages)).unwrap();
    (0..pages).for_each(|page| put(&space, first + page, page + 1));
    object.sync(whole(&object)).unwrap();
    let at: *mut c_void = word(&space, first, 0).as_ptr().cast();
    // The kernel makes the huge page, but does not map it where there are marks, and so says `EINVAL`.
    // SAFETY: `madvise` wants a range whose contents may change as the advice says: it changes none.
    let _ = unsafe { libc::madvise(at, HUGE, COLLAPSE) };
    let (mut from, to) = std::io::pipe().unwrap();
    let held = word(&space, first + 5, 1).as_ptr();
    let bytes = libc::iovec { iov_base: held.cast(), iov_len: 8 };
    // SAFETY: `vmsplice` wants buffers: a word of the window.
    assert_eq!(unsafe { libc::vmsplice(to.as_raw_fd(), &raw const bytes, 1, 0) }, 8);

    assert_eq!(paging.manager().page_out(Pages(pages)), Pages(pages));
    let (held, left) = (object.totals().held, memory(&object));
    if held == 0 {
        eprintln!("note: not tested: this kernel makes no huge page here, or can split it");
    }
    assert_eq!(held, left);
    assert_eq!(paging.manager().resident(), Pages(0));
    for page in 0..pages {
        assert_eq!(get(&space, first + page), page + 1);
    }
    let mut word = [0; 8];
    std::io::Read::read_exact(&mut from, &mut word).unwrap();
    assert_eq!(u64::from_le_bytes(word), 6);
    // The next eviction frees it.
    assert_eq!(paging.manager().page_out(Pages(pages)), Pages(pages));
    assert_eq!((object.totals().held, memory(&object)), (held, 0));
}

/// A fault on a page that the program took away again and again was tried without end.
#[test]
fn a_program_that_removes_pages_without_end_stops_nobody() {
    let Some(paging) = start(budget(100)) else { return };
    if paging.manager().mmu().is_user_mode_only() {
        return eprintln!("note: not tested: faults of the kernel itself are not served here");
    }
    let object = paging.manager().object(Kind::File, Pages(2), Arc::new(Moody::default())).unwrap();
    let space = paging.space(Pages(2)).unwrap();
    space.map(&object, fixed(0, 2)).unwrap();
    let at = word(&space, 0, 0).as_ptr().addr();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let remover = scope.spawn(|| {
            let mut removed = 0;
            while !stop.load(Ordering::Relaxed) {
                let len = usize::try_from(page_size()).unwrap();
                // SAFETY: `madvise` wants a range whose users expect what the advice does: the test is about that.
                let said = unsafe { libc::madvise(at as *mut c_void, len, libc::MADV_REMOVE) };
                assert_eq!(said, 0);
                removed += 1;
            }
            removed
        });
        for _ in 0..2000 {
            // Reads only, so nothing is lost.
            assert!(matches!(try_get(&space, 0), Ok(0x0707_0707_0707_0707) | Err(_)));
            assert_eq!(get(&space, 1), 0x0707_0707_0707_0707);
        }
        stop.store(true, Ordering::Relaxed);
        assert!(remover.join().unwrap() > 0);
    });
    while try_get(&space, 0).is_err() {
        std::thread::yield_now();
    }
    assert_eq!((object.totals().lost, paging.manager().resident()), (Pages(0), Pages(2)));
}
