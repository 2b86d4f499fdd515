//! Faults against faults.

use commonhold_mm::{FaultError, PagerError};
use shuttle::thread;

use crate::world::{PAGE, Store, World, check, fixed};

#[test]
fn two_faults_on_one_page_of_a_space_are_both_resolved() {
    check(|| {
        let world = World::new(2, 1);
        let object = world.object(1, &Store::new(7));
        let space = world.space();
        space.map(&object, fixed(0, 0, 1)).unwrap();
        let (theirs, target) = (world.clone(), space.clone());
        let writer = thread::spawn(move || {
            let cpu = theirs.cpu();
            cpu.read(&theirs.manager, &target, 0, &mut [0]).unwrap();
            cpu.write(&theirs.manager, &target, 1, &[8]).unwrap();
        });
        let cpu = world.cpu();
        cpu.write(&world.manager, &space, 0, &[9]).unwrap();
        writer.join().unwrap();
        let mut both = [0; 2];
        cpu.read(&world.manager, &space, 0, &mut both).unwrap();
        assert_eq!(both, [9, 8]);
        world.check(&[&space], &[&object]);
    });
}

#[test]
fn two_spaces_that_fault_on_one_page_share_its_filling() {
    check(|| {
        let world = World::new(2, 4);
        let object = world.object(1, &Store::new(7));
        let (one, two) = (world.space(), world.space());
        one.map(&object, fixed(0, 0, 1)).unwrap();
        two.map(&object, fixed(4, 0, 1)).unwrap();
        let (theirs, target) = (world.clone(), two.clone());
        let writer = thread::spawn(move || {
            theirs.cpu().write(&theirs.manager, &target, 4 * PAGE + 1, &[8]).unwrap();
        });
        let cpu = world.cpu();
        cpu.write(&world.manager, &one, 0, &[9]).unwrap();
        writer.join().unwrap();
        let mut both = [0; 2];
        cpu.read(&world.manager, &two, 4 * PAGE, &mut both).unwrap();
        assert_eq!(both, [9, 8]);
        assert_eq!(object.totals().filled, 1);
        world.check(&[&one, &two], &[&object]);
    });
}

#[test]
fn two_faults_on_two_pages_with_memory_for_one_take_turns() {
    check(|| {
        let world = World::new(1, 4);
        let object = world.object(2, &Store::new(7));
        let space = world.space();
        space.map(&object, fixed(0, 0, 2)).unwrap();
        let (theirs, target) = (world.clone(), space.clone());
        let writer = thread::spawn(move || {
            theirs.cpu().write(&theirs.manager, &target, PAGE, &[8]).unwrap();
        });
        world.cpu().write(&world.manager, &space, 0, &[9]).unwrap();
        writer.join().unwrap();
        assert_eq!([0, 1].map(|page| world.look(&space, page)), [9, 8]);
        world.check(&[&space], &[&object]);
    });
}

#[test]
fn a_filling_that_fails_fails_all_waiting_faults_and_is_tried_again() {
    check(|| {
        let world = World::new(2, 4);
        let store = Store::new(7);
        let object = world.object(1, &store);
        let (one, two) = (world.space(), world.space());
        one.map(&object, fixed(0, 0, 1)).unwrap();
        two.map(&object, fixed(4, 0, 1)).unwrap();
        store.fail_reads(1);
        let (theirs, target) = (world.clone(), two.clone());
        let reader =
            thread::spawn(move || theirs.cpu().read(&theirs.manager, &target, 4 * PAGE, &mut [0]));
        let mine = world.cpu().write(&world.manager, &one, 0, &[7]);
        let ends = [mine, reader.join().unwrap()];
        let failed = Err(FaultError::Pager(PagerError::Io { code: 5 }));
        assert!(ends.contains(&failed), "the error reaches somebody");
        assert!(ends.iter().all(|end| end.is_ok() || *end == failed), "{ends:?}");
        assert_eq!(world.look(&two, 4), 7);
        world.check(&[&one, &two], &[&object]);
    });
}
