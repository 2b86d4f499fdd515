//! `mlock`, `munlock`, `mlockall`, `munlockall`.

use commonhold_mm::{MapRequest, Pages, Protection, Scope};

use crate::world::{Case, World, fixed, nothing, protected, span, told};

/// What is seen after a lock: its result, the locked pages, and the pages in memory.
fn after(world: &World, result: String) -> String {
    format!("{result}, {} pages locked, {} in memory", world.locked(), world.resident())
}

pub(crate) const CASES: &[Case] = &[
    ("mlock-brings-in", || {
        let (world, _object) = World::with_zeros();
        let locked = told(world.space.lock(span(0, 4)));
        after(&world, locked)
    }),
    ("mlock-stays", || {
        let (world, _object) = World::with_zeros();
        world.space.lock(span(0, 4)).unwrap();
        (4..8).for_each(|page| drop(world.read(page)));
        format!("{} of 8 pages can go", world.evict_all())
    }),
    ("mlock-length-zero", || {
        let (world, _object) = World::with_zeros();
        told(world.space.lock(nothing()))
    }),
    ("mlock-nothing-mapped", || {
        let (world, _object) = World::with_zeros();
        told(world.space.lock(span(20, 4)))
    }),
    ("mlock-gap", || {
        let (world, object) = World::with_zeros();
        world.map(&object, 10, 4).unwrap();
        let refused = told(world.space.lock(span(4, 8)));
        after(&world, refused)
    }),
    ("mlock-beyond-the-space", || {
        let (world, _object) = World::with_zeros();
        told(world.space.lock(span(4, 100)))
    }),
    ("mlock-does-not-nest", || {
        let (world, _object) = World::with_zeros();
        world.space.lock(span(0, 4)).unwrap();
        world.space.lock(span(0, 4)).unwrap();
        world.space.unlock(span(0, 4)).unwrap();
        format!("{} pages locked", world.locked())
    }),
    ("mlock-limit", || {
        let (world, _object) = World::with_zeros();
        world.space.set_locked_limit(Pages(3));
        let refused = told(world.space.lock(span(0, 4)));
        after(&world, refused)
    }),
    ("mlock-limit-lowered", || {
        let (world, _object) = World::with_zeros();
        world.space.lock(span(0, 4)).unwrap();
        world.space.set_locked_limit(Pages(3));
        let more = told(world.space.lock(span(4, 1)));
        after(&world, more)
    }),
    ("mlock-again-within-the-limit", || {
        let (world, _object) = World::with_zeros();
        world.space.set_locked_limit(Pages(4));
        world.space.lock(span(0, 4)).unwrap();
        let again = told(world.space.lock(span(2, 2)));
        after(&world, again)
    }),
    ("mlock-more-than-memory", || {
        let world = World::new();
        world.map(&world.zeros(40), 0, 40).unwrap();
        (0..10).for_each(|page| drop(world.read(page)));
        let refused = told(world.space.lock(span(0, 40)));
        after(&world, refused)
    }),
    ("mlock-without-access", || {
        let world = World::new();
        world.space.map(&world.zeros(4), protected(0, 4, Protection::None)).unwrap();
        let refused = told(world.space.lock(span(0, 4)));
        after(&world, refused)
    }),
    ("mlock-behind-the-end", || {
        let (world, object) = World::with_zeros();
        object.resize(Pages(4)).unwrap();
        let refused = told(world.space.lock(span(0, 8)));
        after(&world, refused)
    }),
    ("mlock-part", || {
        let (world, _object) = World::with_zeros();
        (0..8).for_each(|page| drop(world.read(page)));
        world.space.lock(span(2, 2)).unwrap();
        format!("{} of 8 pages can go, mappings: {}", world.evict_all(), world.mappings())
    }),
    ("mlock-through-another-mapping", || {
        let (world, object) = World::with_zeros();
        world.other.map(&object, fixed(0, 8)).unwrap();
        world.other.lock(span(0, 8)).unwrap();
        (0..8).for_each(|page| drop(world.read(page)));
        format!("{} of 8 pages can go", world.evict_all())
    }),
    ("mlock-by-two-unlock-by-one", || {
        let (world, object) = World::with_zeros();
        world.other.map(&object, fixed(0, 8)).unwrap();
        world.other.lock(span(0, 8)).unwrap();
        world.space.lock(span(0, 8)).unwrap();
        world.space.unlock(span(0, 8)).unwrap();
        format!("{} of 8 pages can go", world.evict_all())
    }),
    ("mlock-read-fails", || {
        use commonhold_mm::{PagerCall, PagerError, Which};
        let (world, _object, medium) = World::with_file();
        medium.fail(PagerCall::Read, Which::Nth(3), PagerError::Io { code: 5 }).unwrap();
        let refused = told(world.space.lock(span(0, 8)));
        after(&world, refused)
    }),
    ("mlock-on-fault", || {
        let world = World::new();
        let lazy = MapRequest { lazy: true, ..fixed(0, 8) };
        world.space.map(&world.zeros(8), lazy).unwrap();
        world.space.lock(span(0, 8)).unwrap();
        let before = world.resident();
        world.write(3, 7);
        format!(
            "{before} pages in memory, after a touch {}, {} can go",
            world.resident(),
            world.evict_all()
        )
    }),
    ("munlock-lets-go", || {
        let (world, _object) = World::with_zeros();
        world.space.lock(span(0, 8)).unwrap();
        let unlocked = told(world.space.unlock(span(0, 8)));
        format!("{unlocked}, {} of 8 pages can go", world.evict_all())
    }),
    ("munlock-keeps-memory", || {
        let (world, _object) = World::with_zeros();
        world.space.lock(span(0, 8)).unwrap();
        world.space.unlock(span(0, 8)).unwrap();
        format!("{} pages in memory", world.resident())
    }),
    ("munlock-not-locked", || {
        let (world, _object) = World::with_zeros();
        told(world.space.unlock(span(0, 8)))
    }),
    ("munlock-length-zero", || {
        let (world, _object) = World::with_zeros();
        told(world.space.unlock(nothing()))
    }),
    ("munlock-nothing-mapped", || {
        let (world, _object) = World::with_zeros();
        told(world.space.unlock(span(20, 4)))
    }),
    ("munlock-gap", || {
        let (world, object) = World::with_zeros();
        world.map(&object, 10, 4).unwrap();
        world.space.lock(span(0, 8)).unwrap();
        let refused = told(world.space.unlock(span(4, 8)));
        after(&world, refused)
    }),
    ("munlock-part", || {
        let (world, _object) = World::with_zeros();
        world.space.lock(span(0, 8)).unwrap();
        world.space.unlock(span(0, 6)).unwrap();
        format!("{} pages locked, {} can go", world.locked(), world.evict_all())
    }),
    ("mlockall-current", || {
        let (world, object) = World::with_zeros();
        world.map(&object, 20, 8).unwrap();
        let locked = told(world.space.lock_all(Scope::Present));
        after(&world, locked)
    }),
    ("mlockall-current-only", || {
        let (world, object) = World::with_zeros();
        world.space.lock_all(Scope::Present).unwrap();
        world.map(&object, 20, 8).unwrap();
        format!("{} of 16 mapped pages locked", world.locked())
    }),
    ("mlockall-future", || {
        let (world, object) = World::with_zeros();
        world.space.lock_all(Scope::Future).unwrap();
        let before = world.locked();
        world.map(&object, 20, 8).unwrap();
        format!(
            "{before} locked before the next mapping, then {} of 16, {} in memory",
            world.locked(),
            world.resident()
        )
    }),
    ("mlockall-current-and-future", || {
        let (world, object) = World::with_zeros();
        world.space.lock_all(Scope::PresentAndFuture).unwrap();
        world.map(&object, 20, 8).unwrap();
        format!("{} of 16 mapped pages locked", world.locked())
    }),
    ("mlockall-current-ends-future", || {
        let (world, object) = World::with_zeros();
        world.space.lock_all(Scope::PresentAndFuture).unwrap();
        world.space.lock_all(Scope::Present).unwrap();
        world.map(&object, 20, 8).unwrap();
        format!("{} of 16 mapped pages locked", world.locked())
    }),
    ("mlockall-nothing-mapped", || {
        let world = World::new();
        told(world.space.lock_all(Scope::PresentAndFuture))
    }),
    ("mlockall-limit", || {
        let (world, _object) = World::with_zeros();
        world.space.set_locked_limit(Pages(3));
        let refused = told(world.space.lock_all(Scope::Present));
        after(&world, refused)
    }),
    ("mlockall-future-limit", || {
        let (world, object) = World::with_zeros();
        world.space.set_locked_limit(Pages(10));
        world.space.lock_all(Scope::PresentAndFuture).unwrap();
        let refused = told(world.map(&object, 20, 8));
        format!("{refused}, {} pages mapped", world.space.totals().mapped.0)
    }),
    ("mlockall-without-access", || {
        let (world, object) = World::with_zeros();
        world.space.map(&object, protected(20, 8, Protection::None)).unwrap();
        let locked = told(world.space.lock_all(Scope::Present));
        after(&world, locked)
    }),
    ("munlockall", || {
        let (world, object) = World::with_zeros();
        world.space.lock_all(Scope::PresentAndFuture).unwrap();
        world.space.unlock_all();
        world.map(&object, 20, 8).unwrap();
        format!("{} of 16 mapped pages locked, {} can go", world.locked(), world.evict_all())
    }),
];
