//! Discards, pins, and memory that goes without the manager, against faults, evictions and locks.

use commonhold_mm::{Access, AddressSpace, Error, FaultError, Object, ObjectPage, Pages, State};
use shuttle::thread;

use crate::world::{Machine, PAGE, Store, World, check, fixed, page_out, span, whole};

/// Discards two pages, in a thread.
fn discard(object: &Object<Machine>) -> thread::JoinHandle<Result<Pages, Error>> {
    let object = object.clone();
    thread::spawn(move || object.discard(whole(2)))
}

fn read(world: &World, space: &AddressSpace<Machine>, page: u64) -> Result<u8, FaultError> {
    let mut byte = [0];
    world.cpu().read(&world.manager, space, page * PAGE, &mut byte)?;
    Ok(byte[0])
}

#[test]
fn a_discard_against_faults_and_evictions_leaves_zeros() {
    check(|| {
        let world = World::new(1, 4);
        let object = world.object(2, &Store::new(7));
        let space = world.space();
        space.map(&object, fixed(0, 0, 2)).unwrap();
        let discarding = discard(&object);
        let evictor = page_out(&world);
        for page in [1, 0] {
            let seen = read(&world, &space, page);
            assert!(matches!(seen, Ok(0 | 7)), "{seen:?}");
        }
        discarding.join().unwrap().unwrap();
        evictor.join().unwrap();
        assert_eq!([0, 1].map(|page| world.look(&space, page)), [0, 0]);
        world.check(&[&space], &[&object]);
    });
}

#[test]
fn a_discard_against_a_writer_and_a_write_back_keeps_later_writes() {
    check(|| {
        let world = World::new(2, 4);
        let object = world.object(2, &Store::new(7));
        let space = world.space();
        space.map(&object, fixed(0, 0, 2)).unwrap();
        let discarding = discard(&object);
        let syncing = {
            let object = object.clone();
            thread::spawn(move || object.sync(whole(2)).unwrap())
        };
        world.cpu().write(&world.manager, &space, PAGE, &[9]).unwrap();
        discarding.join().unwrap().unwrap();
        syncing.join().unwrap();
        assert!(matches!(read(&world, &space, 1), Ok(0 | 9)));
        world.cpu().write(&world.manager, &space, PAGE, &[8]).unwrap();
        world.manager.page_out(Pages(2));
        assert_eq!((world.look(&space, 1), world.look(&space, 0)), (8, 0));
        world.check(&[&space], &[&object]);
    });
}

#[test]
fn a_discard_against_a_lock_leaves_locked_pages_in_memory() {
    check(|| {
        let world = World::new(2, 4);
        let object = world.object(2, &Store::new(7));
        let space = world.space();
        space.map(&object, fixed(0, 0, 2)).unwrap();
        world.cpu().write(&world.manager, &space, PAGE, &[9]).unwrap();
        let discarding = discard(&object);
        space.lock(span(1, 1)).unwrap();
        assert!(object.state(ObjectPage::new(1)).is_some_and(State::is_resident));
        let expected = match discarding.join().unwrap() {
            Ok(_) => 0,
            Err(error) => {
                assert_eq!(error, Error::Locked { page: ObjectPage::new(1) });
                9
            }
        };
        assert_eq!(world.look(&space, 1), expected);
        assert!(object.state(ObjectPage::new(1)).is_some_and(State::is_resident));
        world.check(&[&space], &[&object]);
    });
}

#[test]
fn a_pin_against_evictions_and_write_backs_keeps_a_dirty_page() {
    check(|| {
        let world = World::new(2, 4);
        let object = world.object(1, &Store::new(7));
        let space = world.space();
        space.map(&object, fixed(0, 0, 1)).unwrap();
        let evictor = page_out(&world);
        let syncing = {
            let object = object.clone();
            thread::spawn(move || object.sync(whole(1)).unwrap())
        };
        let pinned = space.pin(span(0, 1), Access::Write).unwrap();
        assert_eq!(object.state(ObjectPage::new(0)), Some(State::Dirty));
        evictor.join().unwrap();
        syncing.join().unwrap();
        assert_eq!(object.state(ObjectPage::new(0)), Some(State::Dirty));
        drop(pinned);
        assert_eq!(world.manager.page_out(Pages(1)), Pages(1));
        world.check(&[&space], &[&object]);
    });
}

#[test]
fn memory_that_goes_during_faults_evictions_and_write_backs_is_never_taken_for_contents() {
    check(|| {
        let world = World::new(2, 4);
        let object = world.object(1, &Store::new(7));
        let space = world.space();
        space.map(&object, fixed(0, 0, 1)).unwrap();
        let thief = {
            let (world, object) = (world.clone(), object.clone());
            thread::spawn(move || {
                object.walk(whole(1), |_| {
                    world.manager.mmu().steal(object.machine(), ObjectPage::new(0));
                });
            })
        };
        let evictor = page_out(&world);
        let syncing = {
            let object = object.clone();
            thread::spawn(move || object.sync(whole(1)))
        };
        let wrote = world.cpu().write(&world.manager, &space, 0, &[9]);
        let seen = wrote.and_then(|()| read(&world, &space, 0));
        assert!(matches!(seen, Ok(9) | Err(FaultError::Lost)), "{seen:?}");
        thief.join().unwrap();
        evictor.join().unwrap();
        let synced = syncing.join().unwrap();
        let seen = read(&world, &space, 0);
        match seen {
            Ok(byte) => assert_eq!((byte, synced.is_ok()), (9, true)),
            Err(error) => assert_eq!((error, object.totals().lost), (FaultError::Lost, Pages(1))),
        }
        object.discard(whole(1)).unwrap();
        assert_eq!(world.look(&space, 0), 0);
        world.check(&[&space], &[&object]);
    });
}

/// An eviction took its page off the budget's list, and gave the place back a moment later. A search in between found
/// neither, and a fault failed for want of memory.
#[test]
fn a_fault_that_needs_the_place_of_a_page_on_its_way_out_waits_for_it() {
    check(|| {
        let world = World::new(1, 4);
        let object = world.object(2, &Store::new(7));
        let space = world.space();
        space.map(&object, fixed(0, 0, 2)).unwrap();
        assert_eq!(read(&world, &space, 0), Ok(7));
        let evictor = page_out(&world);
        assert_eq!([1, 0].map(|page| read(&world, &space, page)), [Ok(7), Ok(7)]);
        evictor.join().unwrap();
        world.check(&[&space], &[&object]);
    });
}

/// The end of an object took its pages off the budget's list one after the other, and gave their places back at last.
#[test]
fn a_fault_that_needs_the_place_of_an_object_that_ends_waits_for_it() {
    check(|| {
        let world = World::new(1, 4);
        let (ending, object) = (world.object(1, &Store::new(7)), world.object(1, &Store::new(8)));
        let space = world.space();
        space.map(&ending, fixed(0, 0, 1)).unwrap();
        space.map(&object, fixed(4, 0, 1)).unwrap();
        world.cpu().write(&world.manager, &space, 0, &[9]).unwrap();
        space.unmap(span(0, 1)).unwrap();
        let end = thread::spawn(move || drop(ending));
        assert_eq!(read(&world, &space, 4), Ok(8));
        end.join().unwrap();
        world.check(&[&space], &[&object]);
    });
}
