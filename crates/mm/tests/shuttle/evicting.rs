//! Page-out, write-back and residency against accesses, and the walk against the changes of a space.

use commonhold_mm::{
    Access, AddressSpace, Context, Error, Object, ObjectPage, Pages, Protection, VirtualPage,
};
use shuttle::thread;

use crate::world::{Machine, PAGE, Store, World, check, fixed, page_out, span, whole};

#[test]
fn a_fault_against_eviction_reads_what_was_written_last() {
    check(|| {
        let world = World::new(2, 4);
        let object = world.object(1, &Store::new(7));
        let space = world.space();
        space.map(&object, fixed(0, 0, 1)).unwrap();
        let evictor = page_out(&world);
        let cpu = world.cpu();
        for byte in 8..10 {
            cpu.write(&world.manager, &space, 0, &[byte]).unwrap();
            let mut read = [0];
            cpu.read(&world.manager, &space, 0, &mut read).unwrap();
            assert_eq!(read[0], byte);
        }
        evictor.join().unwrap();
        assert_eq!(world.look(&space, 0), 9);
        world.check(&[&space], &[&object]);
    });
}

#[test]
fn what_the_pager_could_not_write_stays_in_memory() {
    check(|| {
        let world = World::new(2, 4);
        let store = Store::new(7);
        let object = world.object(1, &store);
        let space = world.space();
        space.map(&object, fixed(0, 0, 1)).unwrap();
        store.fail_writes(1);
        let cpu = world.cpu();
        cpu.write(&world.manager, &space, 0, &[8]).unwrap();
        let evictor = page_out(&world);
        let mut read = [0];
        cpu.read(&world.manager, &space, 0, &mut read).unwrap();
        assert_eq!(read[0], 8);
        cpu.write(&world.manager, &space, 1, &[9]).unwrap();
        evictor.join().unwrap();
        let mut both = [0; 2];
        cpu.read(&world.manager, &space, 0, &mut both).unwrap();
        assert_eq!(both, [8, 9]);
        world.check(&[&space], &[&object]);
    });
}

#[test]
fn a_lock_against_eviction_leaves_the_page_readable_without_a_fault() {
    check(|| {
        let world = World::new(2, 4);
        let object = world.object(1, &Store::new(7));
        let space = world.space();
        space.map(&object, fixed(0, 0, 1)).unwrap();
        let cpu = world.cpu();
        cpu.write(&world.manager, &space, 0, &[9]).unwrap();
        let evictor = page_out(&world);
        space.lock(span(0, 1)).unwrap();
        for _ in 0..2 {
            let mut seen = 0;
            let act = &mut |bytes: &mut [u8]| seen = bytes[0];
            let (mmu, at) = (world.manager.mmu(), VirtualPage::new(0));
            assert!(cpu.try_access(mmu, space.machine(), at, Access::Read, act), "a fault");
            assert_eq!(seen, 9);
        }
        evictor.join().unwrap();
        assert!(object.state(ObjectPage::new(0)).unwrap().is_resident());
        space.unlock(span(0, 1)).unwrap();
        world.check(&[&space], &[&object]);
    });
}

#[test]
fn a_super_lock_against_eviction_and_write_back_never_faults() {
    check(|| {
        let world = World::new(2, 4);
        let store = Store::new(7);
        let object = world.object(1, &store);
        let space = world.space();
        space.map(&object, fixed(0, 0, 1)).unwrap();
        let cpu = world.cpu();
        cpu.write(&world.manager, &space, 0, &[6]).unwrap();
        let evictor = world.clone();
        let synced = object.clone();
        let evictor = thread::spawn(move || {
            evictor.manager.page_out(Pages(1));
            synced.sync(whole(1)).unwrap();
        });
        let privilege = space.io_privilege().unwrap();
        for byte in 8..10 {
            let (at, no_fault) = (VirtualPage::new(0), Context::NoFault);
            let write = |bytes: &mut [u8]| bytes[0] = byte;
            cpu.access(&world.manager, &space, at, Access::Write, no_fault, write).unwrap();
        }
        drop(privilege);
        evictor.join().unwrap();
        while world.manager.page_out(Pages(1)) != Pages(0) {}
        assert_eq!(store.kept(0)[0], 9);
        assert_eq!(world.look(&space, 0), 9);
        world.check(&[&space], &[&object]);
    });
}

#[test]
fn a_fault_against_super_lock_and_super_unlock_is_resolved() {
    check(|| {
        let world = World::new(2, 4);
        let object = world.object(1, &Store::new(7));
        let space = world.space();
        space.map(&object, fixed(0, 0, 1)).unwrap();
        let (theirs, target) = (world.clone(), space.clone());
        let writer = thread::spawn(move || {
            theirs.cpu().write(&theirs.manager, &target, 0, &[9]).unwrap();
        });
        let privilege = space.io_privilege().unwrap();
        let (at, no_fault) = (VirtualPage::new(0), Context::NoFault);
        let write = |bytes: &mut [u8]| bytes[1] = 8;
        world.cpu().access(&world.manager, &space, at, Access::Write, no_fault, write).unwrap();
        drop(privilege);
        writer.join().unwrap();
        let mut both = [0; 2];
        world.cpu().read(&world.manager, &space, 0, &mut both).unwrap();
        assert_eq!(both, [9, 8]);
        world.check(&[&space], &[&object]);
    });
}

/// The bug: the second call returned before the first had brought all pages in.
#[test]
fn a_privilege_is_granted_with_all_pages_in_memory_even_if_another_grant_has_begun() {
    check(|| {
        let world = World::new(2, 4);
        let object = world.object(1, &Store::new(7));
        let space = world.space();
        space.map(&object, fixed(0, 0, 1)).unwrap();
        let grant = |world: &World, space: &AddressSpace<Machine>| {
            let privilege = space.io_privilege().unwrap();
            let (at, no_fault) = (VirtualPage::new(0), Context::NoFault);
            let access = Access::Write;
            let done = world.cpu().access(&world.manager, space, at, access, no_fault, |_| ());
            drop(privilege);
            done
        };
        let (theirs, target) = (world.clone(), space.clone());
        let other = thread::spawn(move || grant(&theirs, &target));
        assert_eq!(grant(&world, &space), Ok(()));
        assert_eq!(other.join().unwrap(), Ok(()));
        assert!(!space.is_super_locked());
        world.check(&[&space], &[&object]);
    });
}

#[test]
fn pages_that_grow_while_a_space_is_super_locked_are_in_memory() {
    check(|| {
        let world = World::new(2, 4);
        let object = world.object(2, &Store::new(7));
        let space = world.space();
        space.map(&object, fixed(0, 0, 2)).unwrap();
        object.resize(Pages(1)).unwrap();
        let target = space.clone();
        let locker = thread::spawn(move || target.io_privilege().unwrap());
        object.resize(Pages(2)).unwrap();
        let _privilege = locker.join().unwrap();
        let cpu = world.cpu();
        for at in [0, 1].map(VirtualPage::new) {
            let write = |bytes: &mut [u8]| bytes[0] = 9;
            cpu.access(&world.manager, &space, at, Access::Write, Context::NoFault, write).unwrap();
        }
        world.check(&[&space], &[&object]);
    });
}

#[test]
fn a_sync_against_writes_and_eviction_takes_what_was_written_before() {
    check(|| {
        let world = World::new(2, 4);
        let store = Store::new(7);
        let object = world.object(1, &store);
        let space = world.space();
        space.map(&object, fixed(0, 0, 1)).unwrap();
        let (theirs, target) = (world.clone(), space.clone());
        let other = thread::spawn(move || {
            theirs.cpu().write(&theirs.manager, &target, 1, &[9]).unwrap();
            theirs.manager.page_out(Pages(1));
        });
        world.cpu().write(&world.manager, &space, 0, &[8]).unwrap();
        object.sync(whole(1)).unwrap();
        assert_eq!(store.kept(0)[0], 8);
        other.join().unwrap();
        object.sync(whole(1)).unwrap();
        assert_eq!(store.kept(0)[..2], [8, 9]);
        world.check(&[&space], &[&object]);
    });
}

#[test]
fn an_eviction_finds_a_page_whose_mapping_is_split_and_joined() {
    check(|| {
        let world = World::new(3, 4);
        let object = world.object(2, &Store::new(7));
        let space = world.space();
        space.map(&object, fixed(0, 0, 2)).unwrap();
        let cpu = world.cpu();
        cpu.write(&world.manager, &space, PAGE, &[9]).unwrap();
        let evictor = page_out(&world);
        space.protect(span(1, 1), Protection::ReadWriteExecute).unwrap();
        space.protect(span(1, 1), Protection::ReadWrite).unwrap();
        assert_eq!(space.totals().mappings, 1);
        cpu.write(&world.manager, &space, PAGE + 1, &[8]).unwrap();
        evictor.join().unwrap();
        let mut both = [0; 2];
        cpu.read(&world.manager, &space, PAGE, &mut both).unwrap();
        assert_eq!(both, [9, 8]);
        world.check(&[&space], &[&object]);
    });
}

#[test]
fn an_eviction_against_unmap_takes_no_memory_that_is_still_translated() {
    check(|| {
        let world = World::new(3, 4);
        let object = world.object(1, &Store::new(7));
        let space = world.space();
        space.map(&object, fixed(0, 0, 1)).unwrap();
        let cpu = world.cpu();
        cpu.read(&world.manager, &space, 0, &mut [0]).unwrap();
        let evictor = page_out(&world);
        space.unmap(span(0, 1)).unwrap();
        evictor.join().unwrap();
        world.check(&[&space], &[&object]);
    });
}

#[test]
fn a_walk_meets_only_places_where_the_object_was_shown() {
    check(|| {
        let world = World::new(3, 4);
        let (object, other) = (world.object(2, &Store::new(7)), world.object(2, &Store::new(8)));
        let space = world.space();
        space.map(&object, fixed(0, 0, 2)).unwrap();
        space.map(&object, fixed(4, 0, 1)).unwrap();
        let walked = object.clone();
        let walker = thread::spawn(move || assert_places(&walked));
        space.unmap(span(4, 1)).unwrap();
        space.map(&other, fixed(5, 1, 1)).unwrap();
        space.unmap(span(0, 1)).unwrap();
        space.map(&other, fixed(6, 0, 2)).unwrap();
        walker.join().unwrap();
        assert_places(&object);
        world.check(&[&space], &[&object, &other]);
    });
}

/// Page 1 is always shown at 1; page 0 is sometimes shown at 0, and sometimes at 4.
fn assert_places(object: &Object<Machine>) {
    let mut found = false;
    object.walk(whole(2), |reach| {
        let place = (reach.page().number(), reach.at().number());
        assert!([(0, 0), (1, 1), (0, 4)].contains(&place), "{place:?} is another object's");
        found |= place == (1, 1);
    });
    assert!(found, "the page that is shown all the time is missing");
}

/// The bug: each lock was compared with the budget alone, so both began, and one failed in the middle.
#[test]
fn of_two_locks_at_once_one_is_refused_before_it_brings_anything_in() {
    check(|| {
        let world = World::new(3, 4);
        let store = Store::new(7);
        let objects = [world.object(2, &store), world.object(2, &Store::new(8))];
        let spaces = [world.space(), world.space()];
        for (space, object) in spaces.iter().zip(&objects) {
            space.map(object, fixed(0, 0, 2)).unwrap();
        }
        let target = spaces[0].clone();
        let other = thread::spawn(move || target.lock(span(0, 2)));
        let said = [spaces[1].lock(span(0, 2)), other.join().unwrap()];
        let [one, two] = said;
        assert!(one.is_ok() != two.is_ok(), "{one:?} and {two:?}");
        assert!([one, two].contains(&Err(Error::NoMemory)), "{one:?} and {two:?}");
        let filled = objects.each_ref().map(|object| object.totals().filled);
        assert_eq!(filled.iter().sum::<u64>(), 2);
        assert_eq!(world.manager.locked(), Pages(2));
        world.check(&[&spaces[0], &spaces[1]], &[&objects[0], &objects[1]]);
    });
}

#[test]
fn a_page_that_is_locked_on_fault_stays_from_its_fault_on() {
    check(|| {
        let world = World::new(2, 4);
        let object = world.object(1, &Store::new(7));
        let space = world.space();
        space.map(&object, fixed(0, 0, 1)).unwrap();
        space.lock_on_fault(span(0, 1)).unwrap();
        let (theirs, target) = (world.clone(), space.clone());
        let writer =
            thread::spawn(move || theirs.cpu().write(&theirs.manager, &target, 0, &[9]).unwrap());
        let evictor = world.clone();
        let evictor = thread::spawn(move || evictor.manager.page_out(Pages(1)));
        writer.join().unwrap();
        assert!(object.state(ObjectPage::new(0)).unwrap().is_resident());
        assert_eq!(evictor.join().unwrap(), Pages(0));
        assert_eq!((world.look(&space, 0), object.totals().evicted), (9, 0));
        space.unlock(span(0, 1)).unwrap();
        assert_eq!(world.manager.page_out(Pages(1)), Pages(1));
        world.check(&[&space], &[&object]);
    });
}
