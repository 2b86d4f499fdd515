//! `msync`, `madvise`, `mincore`, and errors of the medium.

use commonhold_mm::{Advice, PagerCall, PagerError, Pages, State, VirtualPage, Which};

use crate::world::{Case, World, fixed, nothing, pages, span, state, told};

const BROKEN: PagerError = PagerError::Io { code: 5 };

pub(crate) const CASES: &[Case] = &[
    ("msync-writes", || {
        let (world, _object, medium) = World::with_file();
        world.write(2, 7);
        let before = medium.inner().with(|bytes| bytes[32]);
        let synced = told(world.space.sync(span(0, 8)));
        let after = medium.inner().with(|bytes| bytes[32]);
        format!("{synced}, the file has {before} before and {after} after")
    }),
    ("msync-only-what-changed", || {
        let (world, _object, medium) = World::with_file();
        (0..8).for_each(|page| drop(world.read(page)));
        world.write(2, 7);
        world.space.sync(span(0, 8)).unwrap();
        format!("pages written: {}", medium.calls(PagerCall::Write))
    }),
    ("msync-part", || {
        let (world, _object, medium) = World::with_file();
        (0..8).for_each(|page| drop(world.write(page, 7)));
        world.space.sync(span(0, 2)).unwrap();
        format!("pages written: {}", medium.calls(PagerCall::Write))
    }),
    ("msync-stays-in-memory", || {
        let (world, object, _medium) = World::with_file();
        world.write(2, 7);
        world.space.sync(span(0, 8)).unwrap();
        format!("{:?}", state(&object, 2).unwrap())
    }),
    ("msync-then-write", || {
        let (world, object, _medium) = World::with_file();
        world.write(2, 7);
        world.space.sync(span(0, 8)).unwrap();
        world.write(2, 8);
        format!("{:?}", state(&object, 2).unwrap())
    }),
    ("msync-locked", || {
        let (world, _object, medium) = World::with_file();
        world.space.lock(span(0, 8)).unwrap();
        world.write(2, 7);
        let synced = told(world.space.sync(span(0, 8)));
        format!("{synced}, pages written: {}", medium.calls(PagerCall::Write))
    }),
    ("msync-other-mapping", || {
        let (world, object, medium) = World::with_file();
        world.map(&object, 20, 8).unwrap();
        world.write(2, 7);
        world.space.sync(span(20, 8)).unwrap();
        format!("pages written: {}", medium.calls(PagerCall::Write))
    }),
    ("msync-gap", || {
        let (world, object, medium) = World::with_file();
        world.map(&object, 10, 4).unwrap();
        world.write(5, 7);
        let refused = told(world.space.sync(span(4, 8)));
        format!("{refused}, pages written: {}", medium.calls(PagerCall::Write))
    }),
    ("msync-length-zero", || {
        let (world, ..) = World::with_file();
        told(world.space.sync(nothing()))
    }),
    ("msync-anonymous", || {
        let (world, _object) = World::with_zeros();
        world.write(2, 7);
        told(world.space.sync(span(0, 8)))
    }),
    ("msync-write-fails", || {
        let (world, object, medium) = World::with_file();
        world.write(2, 7);
        medium.fail(PagerCall::Write, Which::Nth(1), BROKEN).unwrap();
        let failed = told(world.space.sync(span(0, 8)));
        let still = state(&object, 2).unwrap();
        format!("{failed}, the page is {still:?}, again: {}", told(world.space.sync(span(0, 8))))
    }),
    ("msync-flush-fails", || {
        let (world, object, medium) = World::with_file();
        world.write(2, 7);
        medium.fail(PagerCall::Flush, Which::Nth(1), BROKEN).unwrap();
        let failed = told(world.space.sync(span(0, 8)));
        let still = state(&object, 2).unwrap();
        format!("{failed}, the page is {still:?}, again: {}", told(world.space.sync(span(0, 8))))
    }),
    ("read-fails", || {
        let (world, _object, medium) = World::with_file();
        medium.fail(PagerCall::Read, Which::Nth(1), BROKEN).unwrap();
        let [failed, again] = [0, 1].map(|_| world.read(2));
        format!("read: {failed}, again: {again}")
    }),
    ("write-back-fails", || {
        let (world, object, medium) = World::with_file();
        world.write(2, 7);
        medium.fail(PagerCall::Write, Which::All, BROKEN).unwrap();
        let gone = world.evict_all();
        let told = object.take_error().map(|_| "told").unwrap_or("not told");
        format!("{gone} pages go, the page reads {}, the error is {told}", world.read(2))
    }),
    ("willneed", || {
        let (world, ..) = World::with_file();
        let advised = told(world.space.advise(span(0, 4), Advice::WillNeed));
        format!("{advised}, {} pages in memory", world.resident())
    }),
    ("willneed-more-than-memory", || {
        let world = World::new();
        world.map(&world.zeros(40), 0, 40).unwrap();
        let advised = told(world.space.advise(span(0, 40), Advice::WillNeed));
        format!("{advised}, {} of 40 pages in memory", world.resident())
    }),
    ("willneed-gap", || {
        let (world, object, _medium) = World::with_file();
        world.map(&object, 10, 4).unwrap();
        let refused = told(world.space.advise(span(4, 8), Advice::WillNeed));
        format!("{refused}, {} pages in memory", world.resident())
    }),
    ("willneed-without-access", || {
        let (world, ..) = World::with_file();
        world.space.protect(span(0, 8), commonhold_mm::Protection::None).unwrap();
        let advised = told(world.space.advise(span(0, 4), Advice::WillNeed));
        format!("{advised}, {} pages in memory", world.resident())
    }),
    ("dontneed-frees", || {
        let (world, _object) = World::with_zeros();
        (0..8).for_each(|page| drop(world.read(page)));
        let advised = told(world.space.advise(span(0, 4), Advice::DontNeed));
        format!("{advised}, {} pages in memory", world.resident())
    }),
    ("dontneed-keeps-contents", || {
        let (world, _object) = World::with_zeros();
        world.write(2, 7);
        world.space.advise(span(0, 8), Advice::DontNeed).unwrap();
        format!("reads {}", world.read(2))
    }),
    ("dontneed-other-space", || {
        let (world, object) = World::with_zeros();
        world.other.map(&object, fixed(0, 8)).unwrap();
        world.write(2, 7);
        world.space.advise(span(0, 8), Advice::DontNeed).unwrap();
        format!("the other space reads {}", world.read_in(&world.other, 2, 0))
    }),
    ("dontneed-locked", || {
        let (world, _object) = World::with_zeros();
        world.space.lock(span(0, 8)).unwrap();
        let advised = told(world.space.advise(span(0, 8), Advice::DontNeed));
        format!("{advised}, {} pages in memory", world.resident())
    }),
    ("dontneed-gap", || {
        let (world, object) = World::with_zeros();
        world.map(&object, 10, 4).unwrap();
        world.read(5);
        let refused = told(world.space.advise(span(4, 8), Advice::DontNeed));
        format!("{refused}, {} pages in memory", world.resident())
    }),
    ("dontneed-length-zero", || {
        let (world, _object) = World::with_zeros();
        told(world.space.advise(nothing(), Advice::DontNeed))
    }),
    ("mincore", || {
        let (world, _object) = World::with_zeros();
        world.read(2);
        let there = |page| {
            let info = world.space.query(VirtualPage::new(page)).unwrap();
            info.state.is_some_and(State::is_resident)
        };
        format!("touched: {}, untouched: {}", there(2), there(3))
    }),
    ("mincore-nothing-mapped", || {
        let (world, _object) = World::with_zeros();
        let info = world.space.query(VirtualPage::new(20));
        format!("there: {}", info.is_some())
    }),
    ("fsync-of-the-object", || {
        let (world, object, medium) = World::with_file();
        world.write(2, 7);
        let synced = told(object.sync(pages(0, 8)));
        format!("{synced}, flushes: {}", medium.calls(PagerCall::Flush))
    }),
    ("write-behind-the-end-of-the-file", || {
        let world = World::new();
        let (object, medium) = world.file(&[9; 20], 2);
        world.map(&object, 0, 2).unwrap();
        world.space.lock(span(0, 2)).unwrap();
        world.write(1, 7);
        assert_eq!(world.space.sync(span(0, 2)), Ok(Pages(1)));
        medium.inner().with(|bytes| format!("the file has {} bytes", bytes.len()))
    }),
];
