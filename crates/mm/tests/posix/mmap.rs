//! `mmap`, `shm_unlink` and `ftruncate`: what a mapping shows.

use commonhold_mm::{MapRequest, ObjectPage, Pages, Placement, Protection, VirtualPage};

use crate::world::{Case, World, fixed, protected, span, told};

pub(crate) const CASES: &[Case] = &[
    ("mmap-length-zero", || {
        let (world, object) = World::with_zeros();
        told(world.map(&object, 20, 0))
    }),
    ("mmap-fixed-occupied", || {
        let (world, object) = World::with_zeros();
        world.write(3, 7);
        format!("{}, the page reads {}", told(world.map(&object, 3, 2)), world.read(3))
    }),
    ("mmap-fixed-replaces", || {
        let (world, _object) = World::with_zeros();
        world.write(3, 7);
        let placement = Placement::Replace(VirtualPage::new(3));
        let request = MapRequest { placement, ..MapRequest::new(Pages(1)) };
        let replaced = told(world.space.map(&world.zeros(1), request));
        format!("{replaced}, the page reads {}", world.read(3))
    }),
    ("mmap-beyond-the-space", || {
        let (world, object) = World::with_zeros();
        told(world.map(&object, 60, 8))
    }),
    ("mmap-no-room", || {
        let world = World::new();
        let object = world.zeros(65);
        told(world.space.map(&object, MapRequest::new(Pages(65))))
    }),
    ("mmap-finds-room", || {
        let (world, object) = World::with_zeros();
        let one = world.space.map(&object, MapRequest::new(Pages(4))).unwrap();
        let two = world.space.map(&object, MapRequest::new(Pages(4))).unwrap();
        let apart = [span(0, 8), two].iter().all(|other| one.intersection(other).is_empty());
        format!("ok, apart: {apart}")
    }),
    ("mmap-shared-in-one-space", || {
        let (world, object) = World::with_zeros();
        world.map(&object, 20, 8).unwrap();
        world.write(2, 7);
        format!("the other mapping reads {}", world.read(22))
    }),
    ("mmap-shared-by-two", || {
        let (world, object) = World::with_zeros();
        world.other.map(&object, fixed(0, 8)).unwrap();
        world.write(2, 7);
        format!("the other space reads {}", world.read_in(&world.other, 2, 0))
    }),
    ("mmap-anonymous-is-zero", || {
        let (world, _object) = World::with_zeros();
        format!("reads {}", world.read(5))
    }),
    ("mmap-file-contents", || {
        let (world, ..) = World::with_file();
        format!("reads {}", world.read(5))
    }),
    ("mmap-rest-of-the-last-page", || {
        let world = World::new();
        let (object, _medium) = world.file(&[9; 20], 2);
        world.map(&object, 0, 2).unwrap();
        let at = |byte| world.read_in(&world.space, 1, byte);
        format!("reads {} before the end and {} behind it", at(3), at(4))
    }),
    ("mmap-offset", || {
        let (world, object, _medium) = World::with_file();
        let offset = ObjectPage::new(3);
        world.space.map(&object, MapRequest { offset, ..fixed(20, 2) }).unwrap();
        format!("reads {}", world.read(20))
    }),
    ("mmap-offset-overflow", || {
        let (world, object) = World::with_zeros();
        let offset = ObjectPage::new(commonhold_mm::LIMIT - 1);
        told(world.space.map(&object, MapRequest { offset, ..fixed(20, 4) }))
    }),
    ("mmap-neighbours-join", || {
        let (world, object) = World::with_zeros();
        let offset = ObjectPage::new(4);
        world.map(&object, 20, 4).unwrap();
        world.space.map(&object, MapRequest { offset, ..fixed(24, 4) }).unwrap();
        format!("mappings after three calls: {}", world.mappings())
    }),
    ("mmap-takes-no-memory-yet", || {
        let (world, _object) = World::with_zeros();
        format!("{} pages in memory", world.resident())
    }),
    ("mmap-none-read", || {
        let world = World::new();
        world.space.map(&world.zeros(1), protected(0, 1, Protection::None)).unwrap();
        format!("read: {}", world.read(0))
    }),
    ("mmap-read-write", || {
        let world = World::new();
        world.space.map(&world.zeros(1), protected(0, 1, Protection::Read)).unwrap();
        format!("write: {}, read: {}", world.write(0, 7), world.read(0))
    }),
    ("mmap-read-fetch", || {
        let world = World::new();
        world.space.map(&world.zeros(1), protected(0, 1, Protection::Read)).unwrap();
        format!("fetch: {}", world.fetch(0))
    }),
    ("mmap-execute-fetch", || {
        let world = World::new();
        world.space.map(&world.zeros(1), protected(0, 1, Protection::ReadExecute)).unwrap();
        format!("fetch: {}", world.fetch(0))
    }),
    ("close-keeps-the-mapping", || {
        let (world, object) = World::with_zeros();
        world.write(2, 7);
        drop(object);
        format!("reads {}", world.read(2))
    }),
    ("unlink-keeps-the-mapping", || {
        let (world, object) = World::with_zeros();
        world.write(2, 7);
        object.destroy();
        format!("reads {}", world.read(2))
    }),
    ("unlink-refuses-new", || {
        let (world, object) = World::with_zeros();
        object.destroy();
        told(world.map(&object, 20, 8))
    }),
    ("truncate-access-behind", || {
        let (world, object) = World::with_zeros();
        world.write(5, 7);
        object.resize(Pages(4)).unwrap();
        format!("read: {}, before the end: {}", world.read(5), world.read(3))
    }),
    ("truncate-and-extend", || {
        let (world, object) = World::with_zeros();
        world.write(5, 7);
        object.resize(Pages(4)).unwrap();
        object.resize(Pages(8)).unwrap();
        format!("reads {}", world.read(5))
    }),
    ("truncate-keeps-the-rest", || {
        let (world, object) = World::with_zeros();
        world.write(3, 7);
        object.resize(Pages(4)).unwrap();
        format!("reads {}", world.read(3))
    }),
    ("truncate-frees-memory", || {
        let (world, object) = World::with_zeros();
        (0..8).for_each(|page| drop(world.write(page, 7)));
        object.resize(Pages(2)).unwrap();
        format!("{} pages in memory", world.resident())
    }),
    ("truncate-locked", || {
        let (world, object) = World::with_zeros();
        world.space.lock(span(0, 8)).unwrap();
        format!("{}, {} pages in memory", told(object.resize(Pages(2))), world.resident())
    }),
    ("access-without-memory", || {
        let world = World::new();
        let locked = world.zeros(32);
        world.map(&locked, 0, 32).unwrap();
        world.space.lock(span(0, 32)).unwrap();
        world.map(&world.zeros(1), 40, 1).unwrap();
        format!("read: {}", world.read(40))
    }),
];
