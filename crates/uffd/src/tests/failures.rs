//! Faults that cannot be served: pagers that fail, objects that are cut, and a kernel without memory.

use super::{
    scripted_process::{ScriptedProcess, say},
    *,
};
use commonhold_mm::{Access, Context, Fault};
use std::{
    io::Read,
    os::{fd::AsRawFd, unix::process::ExitStatusExt},
};

#[test]
fn a_fault_on_a_page_that_is_being_cut_off_ends_when_it_is_cut() {
    let Some(paging) = start(budget(100)) else { return };
    let manager = paging.manager();
    if manager.mmu().is_user_mode_only() {
        return eprintln!("note: not tested: faults of the kernel itself are not served here");
    }
    let pager = Arc::new(Moody::default());
    let object = &manager.object(Kind::File, Pages(4), Arc::clone(&pager) as _).unwrap();
    let space = &paging.space(Pages(8)).unwrap();
    space.map(object, fixed(0, 4)).unwrap();
    std::thread::scope(|scope| {
        let closed = pager.gate.write().unwrap();
        let filling = scope.spawn(|| try_get(space, 2));
        // Not only *Filling*: a cut before the pager is called ends the filling at once.
        while pager.begun.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
        // It waits for the pager, and the manager knows of the new end already.
        let resizing = scope.spawn(|| object.resize(Pages(1)));
        while object.pages() != Pages(1) {
            std::thread::yield_now();
        }
        let behind = scope.spawn(|| try_get(space, 3));
        while space.totals().faults.refused == 0 {
            std::thread::yield_now();
        }
        drop(closed);
        resizing.join().unwrap().unwrap();
        filling.join().unwrap().unwrap_err();
        behind.join().unwrap().unwrap_err();
    });
    object.resize(Pages(4)).unwrap();
    while try_get(space, 2).is_err() {
        std::thread::yield_now();
    }
    assert_eq!((get(space, 2), get(space, 3)), (0, 0));
}

/// The kernel refuses accesses past the end of a memfd by itself, and the mapping stays registered there.
#[test]
fn pages_past_the_end_become_usable_when_the_object_grows_and_none_is_unknown() {
    let Some(paging) = start(budget(100)) else { return };
    let manager = paging.manager();
    if manager.mmu().is_user_mode_only() {
        return eprintln!("note: not tested: faults of the kernel itself are not served here");
    }
    let file = file_in_memory();
    let object = manager.object(Kind::Anonymous, Pages(2), pager_of(&file)).unwrap();
    let space = paging.space(Pages(16)).unwrap();
    space.map(&object, fixed(0, 6)).unwrap();
    put(&space, 1, 11);
    for size in [4, 6, 3, 6] {
        let before = object.pages().0;
        for page in before..6 {
            try_get(&space, page).unwrap_err();
        }
        object.resize(Pages(size)).unwrap();
        for page in before..size {
            assert_eq!(object.state(ObjectPage::new(page)), Some(State::Absent));
            // It may have been looked at a moment before the end moved; that ends as well.
            assert_eq!(get(&space, page), 0, "page {page}");
            assert_eq!(object.state(ObjectPage::new(page)), Some(State::Clean));
            put(&space, page, 10 + page);
            assert_eq!(object.state(ObjectPage::new(page)), Some(State::Dirty));
        }
        // All but page 0, which nobody has touched.
        assert_eq!((manager.resident(), memory(&object)), (Pages(size - 1), size - 1));
    }
    assert_eq!(manager.page_out(Pages(9)), Pages(5));
    let kept = (1..6).map(|page| get(&space, page));
    assert!(kept.eq(11..16));
    object.resize(Pages(2)).unwrap();
    space.unmap(span(0, 6)).unwrap();
    let residency = Some(commonhold_mm::Residency::Locked);
    space.map(&object, MapRequest { residency, ..fixed(8, 4) }).unwrap();
    assert_eq!((manager.resident(), manager.locked()), (Pages(2), Pages(2)));
    object.resize(Pages(4)).unwrap();
    assert_eq!((manager.resident(), manager.page_out(Pages(9))), (Pages(4), Pages(0)));
    assert_eq!((get(&space, 9), get(&space, 11)), (11, 0));
}

#[test]
fn unmapping_wakes_waiters_and_they_never_see_the_page() {
    let Some(paging) = start(budget(100)) else { return };
    let manager = paging.manager();
    if manager.mmu().is_user_mode_only() {
        return eprintln!("note: not tested: faults of the kernel itself are not served here");
    }
    let pager = Arc::new(Moody::default());
    let slow = manager.object(Kind::File, Pages(3), Arc::clone(&pager) as _).unwrap();
    let other = manager.object(Kind::Anonymous, Pages(1), Arc::new(Moody::default())).unwrap();
    let space = &paging.space(Pages(8)).unwrap();
    space.map(&slow, fixed(0, 3)).unwrap();
    space.map(&other, fixed(4, 1)).unwrap();
    put(space, 4, 44);
    std::thread::scope(|scope| {
        let closed = pager.gate.write().unwrap();
        // The workers serve two pulses; the third waits.
        let first: Vec<_> = [0, 1].map(|page| scope.spawn(move || get(space, page))).into();
        while manager.pulses() < 2 || slow.state(ObjectPage::new(1)) != Some(State::Filling) {
            std::thread::yield_now();
        }
        while slow.state(ObjectPage::new(0)) != Some(State::Filling) {
            std::thread::yield_now();
        }
        let third = scope.spawn(|| try_get(space, 2));
        while manager.pulses() < 3 {
            std::thread::yield_now();
        }
        space.unmap(span(2, 1)).unwrap();
        space.map(&other, fixed(2, 1)).unwrap();
        drop(closed);
        // The access may have come when nothing was mapped there.
        assert!(matches!(third.join().unwrap(), Err(_) | Ok(44)));
        for thread in first {
            assert_eq!(thread.join().unwrap(), 0x0707_0707_0707_0707);
        }
    });
}

/// Lets the kernel read a page in a system call, which returns an error where the program would get a signal.
pub(super) fn try_get(space: &PagedSpace, page: u64) -> std::io::Result<u64> {
    let (mut from, to) = std::io::pipe().unwrap();
    let word = word(space, page, 1).as_ptr();
    // SAFETY: `write` wants bytes that can be read: these are a word of the window, or an error.
    let written = unsafe { libc::write(to.as_raw_fd(), word.cast_const().cast(), 8) };
    if written != 8 {
        return Err(std::io::Error::last_os_error());
    }
    let mut bytes = [0; 8];
    from.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

#[test]
fn a_page_that_cannot_be_brought_in_is_an_error_and_is_tried_again() {
    let Some(paging) = start(budget(100)) else { return };
    if paging.manager().mmu().is_user_mode_only() {
        return eprintln!("note: not tested: faults of the kernel itself are not served here");
    }
    let pager = Arc::new(Moody::default());
    let object = paging.manager().object(Kind::File, Pages(4), Arc::clone(&pager) as _).unwrap();
    let space = paging.space(Pages(8)).unwrap();
    space.map(&object, fixed(0, 4)).unwrap();
    // A page that was never in memory, and one that was write-protected when it was evicted.
    put(&space, 1, 1);
    object.sync(Span::new(ObjectPage::new(0), Pages(4)).unwrap()).unwrap();
    assert_eq!(paging.manager().page_out(Pages(4)), Pages(1));
    pager.fails.store(true, Ordering::Relaxed);
    for page in [0, 1] {
        try_get(&space, page).unwrap_err();
        try_get(&space, page).unwrap_err();
        assert_eq!(object.state(ObjectPage::new(page)), Some(State::Bad));
    }
    let error = space.advise(span(0, 1), Advice::WillNeed).unwrap_err();
    assert!(matches!(error, Error::Fault { .. }), "{error}");
    pager.fails.store(false, Ordering::Relaxed);
    // The page comes at once if the program asks for it, and otherwise after a while.
    assert_eq!(space.advise(span(0, 1), Advice::WillNeed), Ok(Pages(1)));
    assert_eq!(get(&space, 0), 0x0707_0707_0707_0707);
    while try_get(&space, 1).is_err() {
        std::thread::yield_now();
    }
    assert_eq!((get(&space, 1), memory(&object)), (0x0707_0707_0707_0707, 2));
}

/// Panics in every read.
struct Panicking;

impl Pager for Panicking {
    fn read(&self, _: ObjectPage, _: &mut [u8]) -> Result<(), PagerError> {
        panic!("this pager panics for a test")
    }

    fn write(&self, _: ObjectPage, _: &[u8]) -> Result<(), PagerError> {
        Ok(())
    }

    fn discard(&self, _: ObjectSpan) -> Result<(), PagerError> {
        Ok(())
    }
}

/// Each panic ended a worker. With two workers, the third fault, and every later one of any object, waited for ever.
#[test]
fn a_pager_that_panics_ends_no_worker() {
    let Some(paging) = start(budget(100)) else { return };
    let manager = paging.manager();
    let bad = manager.object(Kind::File, Pages(3), Arc::new(Panicking)).unwrap();
    let good = manager.object(Kind::File, Pages(1), Arc::new(Moody::default())).unwrap();
    let space = paging.space(Pages(8)).unwrap();
    space.map(&bad, fixed(0, 3)).unwrap();
    space.map(&good, fixed(4, 1)).unwrap();
    for page in 0..3 {
        // No thread waits for these faults.
        let fault = space.fault(VirtualPage::new(page), Access::Read, Context::Normal);
        assert_eq!(fault, Fault::Pulsed);
    }
    while paging.panics() < 3 {
        std::thread::yield_now();
    }
    assert_eq!(get(&space, 4), 0x0707_0707_0707_0707);
}

#[test]
fn an_access_that_is_not_permitted_ends_in_a_signal() {
    let Some(_) = start(budget(100)) else { return };
    for (role, signal) in [
        ("touch-bad", libc::SIGBUS),
        ("touch-cut", libc::SIGBUS),
        ("touch-nothing", libc::SIGSEGV),
        ("touch-unmapped", libc::SIGSEGV),
        ("touch-read-only", libc::SIGSEGV),
    ] {
        let mut child = ScriptedProcess::play(role);
        while let Some(said) = child.hear() {
            assert_eq!(said, "ready", "{role}");
        }
        assert_eq!(child.wait().signal(), Some(signal), "{role}");
    }
}

/// Touches memory that it must not, and dies by a signal.
pub(super) fn touch(role: &str) {
    let paging = start(budget(100)).unwrap();
    let pager = Arc::new(Moody::default());
    pager.fails.store(role == "touch-bad", Ordering::Relaxed);
    let object = paging.manager().object(Kind::File, Pages(4), pager).unwrap();
    let space = paging.space(Pages(8)).unwrap();
    space.map(&object, fixed(0, 4)).unwrap();
    if role != "touch-bad" {
        put(&space, 2, 1);
    }
    match role {
        "touch-cut" => object.resize(Pages(2)).unwrap(),
        "touch-unmapped" => space.unmap(span(2, 1)).unwrap(),
        "touch-read-only" => space.protect(span(2, 1), Protection::Read).unwrap(),
        _ => {}
    }
    say("ready");
    let page = if role == "touch-nothing" { 5 } else { 2 };
    put(&space, page, 2);
    say(&format!("{role} went through: {}", get(&space, page)));
}

#[test]
#[cfg_attr(
    target_env = "musl",
    ignore = "its malloc maps memory too, so the test itself has none left when the mappings are used up"
)]
fn a_kernel_without_memory_is_an_error_that_changes_nothing() {
    let Some(_) = start(budget(100)) else { return };
    let mut child = ScriptedProcess::play("many-parts");
    if let Some(said) = child.hear() {
        eprintln!("note: {said}");
    }
    child.succeed();
}

/// Gives every other page a protection of its own, until the kernel refuses.
pub(super) fn make_many_parts() {
    let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
    let limit: u64 = limit.trim().parse().unwrap();
    if limit > 200_000 {
        return say(&format!("not tested: a process may have {limit} mappings here"));
    }
    let paging = start(budget(100)).unwrap();
    let object =
        paging.manager().object(Kind::Anonymous, Pages(limit), Arc::new(Moody::default())).unwrap();
    let space = paging.space(Pages(limit)).unwrap();
    space.map(&object, fixed(0, limit)).unwrap();
    let mut at = 1;
    let error = loop {
        match space.protect(span(at, 1), Protection::Read) {
            Ok(()) => at += 2,
            Err(error) => break error,
        }
    };
    assert_eq!(error, Error::NoMemory);
    assert!(at < limit);
    let refused = space.query(VirtualPage::new(at)).unwrap();
    assert_eq!(refused.protection, Protection::ReadWrite);
    put(&space, at, 5);
    // A gap needs as much memory of the kernel, and `unmap` must succeed nevertheless.
    put(&space, at + 1, 7);
    space.unmap(span(at + 1, 1)).unwrap();
    try_get(&space, at + 1).unwrap_err();
    // The mark of a page that was only read stays there, and its memory with the object: an access hung for ever.
    assert_eq!(get(&space, at + 3), 0);
    space.unmap(span(at + 3, 1)).unwrap();
    try_get(&space, at + 3).unwrap_err();
    space.unmap(span(1, 2)).unwrap();
    assert_eq!((get(&space, at), get(&space, 3)), (5, 0));
    space.map(&object, fixed(1, 1)).unwrap();
    put(&space, 1, 6);
    say("got there");
}
