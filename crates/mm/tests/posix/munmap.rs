//! `munmap` and `mprotect`.

use commonhold_mm::{Pages, Protection};

use crate::world::{Case, World, nothing, protected, span, told};

pub(crate) const CASES: &[Case] = &[
    ("munmap-access", || {
        let (world, _object) = World::with_zeros();
        world.write(2, 7);
        let unmapped = told(world.space.unmap(span(2, 1)));
        format!("{unmapped}, read: {}", world.read(2))
    }),
    ("munmap-length-zero", || {
        let (world, _object) = World::with_zeros();
        told(world.space.unmap(nothing()))
    }),
    ("munmap-nothing-mapped", || {
        let (world, _object) = World::with_zeros();
        told(world.space.unmap(span(20, 4)))
    }),
    ("munmap-with-gaps", || {
        let (world, object) = World::with_zeros();
        world.map(&object, 20, 8).unwrap();
        let unmapped = told(world.space.unmap(span(4, 20)));
        format!("{unmapped}, {} pages are mapped", world.space.totals().mapped.0)
    }),
    ("munmap-middle", || {
        let (world, _object) = World::with_zeros();
        let _ = [1, 6].map(|page| world.write(page, 7));
        world.space.unmap(span(2, 4)).unwrap();
        let [before, behind] = [1, 6].map(|page| world.read(page));
        format!("the rest reads {before} and {behind}, mappings: {}", world.mappings())
    }),
    ("munmap-beyond-the-space", || {
        let (world, _object) = World::with_zeros();
        told(world.space.unmap(span(4, 100)))
    }),
    ("munmap-keeps-shared-contents", || {
        let (world, object) = World::with_zeros();
        world.write(2, 7);
        world.space.unmap(span(0, 8)).unwrap();
        world.map(&object, 0, 8).unwrap();
        format!("mapped again it reads {}", world.read(2))
    }),
    ("munmap-reaches-the-file", || {
        let (world, object, medium) = World::with_file();
        world.write(2, 7);
        world.space.unmap(span(0, 8)).unwrap();
        drop(object);
        medium.inner().with(|bytes| format!("the file has {}", bytes[32]))
    }),
    ("munmap-other-mapping", || {
        let (world, object) = World::with_zeros();
        world.map(&object, 20, 8).unwrap();
        world.write(2, 7);
        world.space.unmap(span(0, 8)).unwrap();
        format!("the other mapping reads {}", world.read(22))
    }),
    ("munmap-unlocks", || {
        let (world, object) = World::with_zeros();
        world.space.lock(span(0, 8)).unwrap();
        world.space.unmap(span(0, 8)).unwrap();
        world.map(&object, 0, 8).unwrap();
        format!("{} pages locked, {} can go", world.locked(), world.evict_all())
    }),
    ("mprotect-narrows", || {
        let (world, _object) = World::with_zeros();
        world.write(2, 7);
        let narrowed = told(world.space.protect(span(0, 8), Protection::Read));
        format!("{narrowed}, write: {}, reads {}", world.write(2, 8), world.read(2))
    }),
    ("mprotect-widens", || {
        let world = World::new();
        world.space.map(&world.zeros(1), protected(0, 1, Protection::Read)).unwrap();
        world.read(0);
        world.space.protect(span(0, 1), Protection::ReadWrite).unwrap();
        format!("write: {}, reads {}", world.write(0, 7), world.read(0))
    }),
    ("mprotect-none", || {
        let (world, _object) = World::with_zeros();
        world.write(2, 7);
        world.space.protect(span(0, 8), Protection::None).unwrap();
        let refused = world.read(2);
        world.space.protect(span(0, 8), Protection::Read).unwrap();
        format!("read: {refused}, permitted again it reads {}", world.read(2))
    }),
    ("mprotect-gap", || {
        let (world, object) = World::with_zeros();
        world.map(&object, 10, 4).unwrap();
        let refused = told(world.space.protect(span(4, 8), Protection::Read));
        format!("{refused}, write before the gap: {}", world.write(5, 7))
    }),
    ("mprotect-part", || {
        let (world, _object) = World::with_zeros();
        world.space.protect(span(2, 2), Protection::Read).unwrap();
        let [inside, outside] = [3, 4].map(|page| world.write(page, 7));
        format!("write inside: {inside}, outside: {outside}")
    }),
    ("mprotect-back-joins", || {
        let (world, _object) = World::with_zeros();
        world.space.protect(span(2, 2), Protection::Read).unwrap();
        world.space.protect(span(2, 2), Protection::ReadWrite).unwrap();
        format!("mappings: {}", world.mappings())
    }),
    ("mprotect-length-zero", || {
        let (world, _object) = World::with_zeros();
        told(world.space.protect(nothing(), Protection::Read))
    }),
    ("mprotect-beyond-the-space", || {
        let (world, _object) = World::with_zeros();
        told(world.space.protect(span(4, 100), Protection::Read))
    }),
    ("mprotect-other-mapping", || {
        let (world, object) = World::with_zeros();
        world.map(&object, 20, 8).unwrap();
        world.space.protect(span(0, 8), Protection::Read).unwrap();
        format!("write through the other mapping: {}", world.write(22, 7))
    }),
    ("mprotect-locked", || {
        let (world, _object) = World::with_zeros();
        world.space.protect(span(0, 8), Protection::None).unwrap();
        world.space.lock_all(commonhold_mm::Scope::Present).unwrap();
        let before = world.resident();
        world.space.protect(span(0, 8), Protection::Read).unwrap();
        format!("{before} pages in memory before, {} after", world.resident())
    }),
    ("mprotect-keeps-the-lock", || {
        let (world, _object) = World::with_zeros();
        world.space.lock(span(0, 8)).unwrap();
        world.space.protect(span(0, 8), Protection::Read).unwrap();
        assert_eq!(world.manager.resident(), Pages(8));
        format!("{} pages locked, {} can go", world.locked(), world.evict_all())
    }),
];
