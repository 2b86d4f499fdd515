//! Forked children, in which the machine's memory and its files are not theirs.

use super::{
    scripted_process::{ScriptedProcess, say},
    *,
};
use commonhold_mm::Access;
use rustix::mm::{MapFlags, ProtFlags};

const PAGES: u64 = 16;
/// Pages of the child's own mapping, at the addresses of the parent's space.
const PATTERN: u64 = 0x5A5A_5A5A_5A5A_5A5A;

/// A child that unmapped, protected, paged out or dropped something changed its own later mappings at the addresses
/// of its parent's space; a child that cut an object changed its parent's file.
#[test]
fn a_forked_child_that_calls_every_operation_hurts_neither_itself_nor_its_parent() {
    let Some(_) = start(budget(100)) else { return };
    let mut child = ScriptedProcess::play("forked");
    while let Some(said) = child.hear() {
        assert_eq!(said, "unhurt");
    }
    assert!(child.wait().success());
}

/// Maps memory of the caller's own at the addresses of the space, which a child does not have.
fn map_there(space: &PagedSpace) {
    let reservation = &space.machine().reservation;
    let flags = MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE;
    let access = ProtFlags::READ | ProtFlags::WRITE;
    let (base, len) = (reservation.base().as_ptr(), reservation.len());
    // SAFETY: `mmap_anonymous` wants no pointer into what it replaces: it replaces nothing.
    let there = unsafe { rustix::mm::mmap_anonymous(base, len, access, flags) };
    assert_eq!(there, Ok(base), "the child has the parent's range");
    for page in 0..PAGES {
        put(space, page, PATTERN);
    }
}

/// Whether every page still is the child's, with its contents, and can be written to.
fn check(space: &PagedSpace, after: &str) {
    for page in 0..PAGES {
        assert_eq!(try_word(space, page), Some(PATTERN), "page {page} after {after}");
        assert!(is_writable(space, page), "page {page} after {after}");
    }
}

/// A word of a page, read by the kernel: `None` where the process would get a signal.
fn try_word(space: &PagedSpace, page: u64) -> Option<u64> {
    super::failures::try_get(space, page).ok()
}

/// Lets the kernel write the pattern once more, which fails where the process would get a signal.
fn is_writable(space: &PagedSpace, page: u64) -> bool {
    let (from, mut to) = std::io::pipe().unwrap();
    std::io::Write::write_all(&mut to, &PATTERN.to_le_bytes()).unwrap();
    let there = word(space, page, 1).as_ptr();
    // SAFETY: `read` wants room: a word of the window, or it fails.
    (unsafe { libc::read(std::os::fd::AsRawFd::as_raw_fd(&from), there.cast(), 8) }) == 8
}

/// Uses everything in a child, and looks at the parent's memory and file afterwards.
pub(super) fn use_everything_in_a_child() {
    let paging = start(budget(100)).unwrap();
    let file = file_in_memory();
    let object = paging.manager().object(Kind::File, Pages(PAGES), pager_of(&file)).unwrap();
    let space = paging.space(Pages(PAGES)).unwrap();
    space.map(&object, fixed(0, PAGES)).unwrap();
    (0..PAGES).for_each(|page| put(&space, page, page + 1));
    object.sync(whole(&object)).unwrap();
    (0..PAGES / 2).for_each(|page| put(&space, page, page + 100));
    // No thread of the machine has a lock when nothing waits for them.
    faults(&paging, &space, PAGES + PAGES / 2);
    // SAFETY: `fork` in a program with threads wants a child that takes no lock that another thread may have: all
    // others are idle.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            use_everything(paging, space, object);
        }));
        // SAFETY: `_exit` has no requirement.
        unsafe { libc::_exit(i32::from(done.is_err())) };
    }
    let mut status = 0;
    // SAFETY: `waitpid` wants a place for the status.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child has hurt itself");
    for page in 0..PAGES {
        let written = if page < PAGES / 2 { page + 100 } else { page + 1 };
        assert_eq!((get(&space, page), word_in(&file, page)), (written, page + 1));
    }
    object.sync(whole(&object)).unwrap();
    assert_eq!(word_in(&file, 3), 103);
    assert_eq!(paging.manager().page_out(Pages(PAGES)), Pages(PAGES));
    assert_eq!((get(&space, 3), get(&space, 12)), (103, 13));
    say("unhurt");
}

fn whole(object: &Object<UffdMmu>) -> ObjectSpan {
    Span::new(ObjectPage::new(0), object.pages()).unwrap()
}

fn use_everything(paging: Paging, space: PagedSpace, object: Object<UffdMmu>) {
    map_there(&space);
    let (manager, all) = (paging.manager(), span(0, PAGES));
    let file = file_in_memory();
    assert!(paging.space(Pages(4)).is_err());
    assert!(manager.object(Kind::Anonymous, Pages(4), pager_of(&file)).is_err());
    check(&space, "making a space and an object");
    for page in [1, 12] {
        let access = if page == 1 { Access::Read } else { Access::Write };
        let _ = space.fault(VirtualPage::new(page), access, commonhold_mm::Context::Normal);
    }
    check(&space, "a fault");
    assert!(object.sync(whole(&object)).is_err());
    assert!(space.sync(all).is_err());
    check(&space, "sync");
    let _ = space.lock(span(0, 4));
    let _ = space.unlock(span(0, 4));
    let _ = space.advise(span(8, 4), Advice::DontNeed);
    let _ = space.advise(all, Advice::WillNeed);
    check(&space, "locks and advice");
    manager.page_out(Pages(PAGES));
    check(&space, "page-out");
    assert!(space.protect(span(2, 3), Protection::Read).is_err());
    check(&space, "protect");
    drop(space.io_privilege());
    check(&space, "a super-lock");
    let _ = space.map(&object, fixed(0, 2));
    assert!(object.resize(Pages(PAGES - 2)).is_err());
    let _ = object.resize(Pages(PAGES));
    check(&space, "resize");
    let _ = space.unmap(span(6, 2));
    check(&space, "unmap");
    object.destroy();
    drop(object);
    // The window lives as long as the handle that the parent's copy of the stack has.
    let space = std::mem::ManuallyDrop::new(space);
    // SAFETY: `read` wants a value that is not used again but as plain memory: the copy is dropped, and of the
    // original only the window is read, which is an address and a length.
    drop(unsafe { std::ptr::read(&raw const *space) });
    check(&space, "the drop of the space and its object");
    drop(paging);
    check(&space, "the drop of everything");
}
