//! A fault while its mapping, or its object, changes.

use commonhold_mm::{
    Access, Advice, Context, Error, Fault, FaultError, MapRequest, ObjectPage, ObjectSpan, Pages,
    Placement, Protection, Residency, State, VirtualPage,
};
use shuttle::thread;

use crate::world::{PAGE, Store, World, check, fixed, span};

#[test]
fn a_fault_against_unmap_writes_before_it_or_fails() {
    check(|| {
        let world = World::new(2, 4);
        let object = world.object(1, &Store::new(7));
        let (space, other) = (world.space(), world.space());
        space.map(&object, fixed(0, 0, 1)).unwrap();
        other.map(&object, fixed(4, 0, 1)).unwrap();
        let (theirs, target) = (world.clone(), space.clone());
        let writer = thread::spawn(move || theirs.cpu().write(&theirs.manager, &target, 0, &[9]));
        space.unmap(span(0, 1)).unwrap();
        let wrote = writer.join().unwrap();
        assert!(matches!(wrote, Ok(()) | Err(FaultError::NotMapped)), "{wrote:?}");
        assert_eq!(world.look(&other, 4), if wrote.is_ok() { 9 } else { 7 });
        world.check(&[&space, &other], &[&object]);
    });
}

/// Splitting and joining used to keep the walk of an eviction, which holds the object's lock, restarting without end:
/// 10,606 times in one call.
#[test]
fn a_walk_visits_each_page_once_while_its_space_splits_and_joins() {
    check(|| {
        let world = World::new(2, 4);
        let object = world.object(4, &Store::new(7));
        let space = world.space();
        space.map(&object, fixed(0, 0, 4)).unwrap();
        let target = space.clone();
        let splitter = thread::spawn(move || {
            for page in [1, 2, 1] {
                target.unlock(span(page, 1)).unwrap();
            }
        });
        let all = ObjectSpan::new(ObjectPage::new(0), Pages(4)).unwrap();
        let mut visits = Vec::new();
        object.walk(all, |reach| visits.push(reach.page().number()));
        assert_eq!(visits, [0, 1, 2, 3]);
        splitter.join().unwrap();
        world.check(&[&space], &[&object]);
    });
}

#[test]
fn a_fault_while_another_object_takes_the_place_is_served_once_in_one_of_them() {
    check(|| {
        let world = World::new(2, 4);
        let (old, new) = (world.object(1, &Store::new(7)), world.object(1, &Store::new(8)));
        let space = world.space();
        space.map(&old, fixed(0, 0, 1)).unwrap();
        let (theirs, target) = (world.clone(), space.clone());
        let writer = thread::spawn(move || {
            let cpu = theirs.cpu();
            let wrote = cpu.write(&theirs.manager, &target, 0, &[9]);
            (cpu, wrote)
        });
        space.unmap(span(0, 1)).unwrap();
        space.map(&new, fixed(0, 0, 1)).unwrap();
        let seen = world.look(&space, 0);
        assert!(seen == 8 || seen == 9, "{seen} is the old object's");
        let (cpu, wrote) = writer.join().unwrap();
        assert!(matches!(wrote, Ok(()) | Err(FaultError::NotMapped)), "{wrote:?}");
        let other = world.space();
        let mut after = [0];
        cpu.read(&world.manager, &space, 0, &mut after).unwrap();
        other.map(&old, fixed(0, 0, 1)).unwrap();
        let written = [world.look(&other, 0), after[0]];
        let expected: &[[u8; 2]] = if wrote.is_ok() { &[[9, 8], [7, 9]] } else { &[[7, 8]] };
        assert!(expected.contains(&written), "{written:?} after {wrote:?}");
        world.check(&[&space, &other], &[&old, &new]);
    });
}

#[test]
fn a_pulse_whose_mapping_goes_is_cancelled_or_finds_what_is_there_now() {
    check(|| {
        let world = World::new(2, 4);
        let (old, new) = (world.object(1, &Store::new(7)), world.object(1, &Store::new(8)));
        let space = world.space();
        space.map(&old, fixed(0, 0, 1)).unwrap();
        let at = VirtualPage::new(0);
        assert_eq!(space.fault(at, Access::Write, Context::Normal), Fault::Pulsed);
        let worker = world.clone();
        let worker = thread::spawn(move || worker.manager.serve());
        space.unmap(span(0, 1)).unwrap();
        space.map(&new, fixed(0, 0, 1)).unwrap();
        assert!(!world.manager.serve(), "a pulse waits for a mapping that has gone");
        let taken = worker.join().unwrap();
        let faults = space.totals().faults;
        assert_eq!(faults.cancelled, u64::from(!taken));
        assert_eq!(faults.served + faults.failed, u64::from(taken));
        if !taken {
            assert_eq!(new.state(ObjectPage::new(0)), Some(State::Absent), "nobody wants it");
        }
        world.check(&[&space], &[&old, &new]);
    });
}

#[test]
fn a_pulse_that_waits_for_a_filling_goes_with_its_mapping() {
    check(|| {
        let world = World::new(2, 4);
        let object = world.object(1, &Store::new(7));
        let (space, other) = (world.space(), world.space());
        space.map(&object, fixed(0, 0, 1)).unwrap();
        other.map(&object, fixed(4, 0, 1)).unwrap();
        let target = other.clone();
        let filler = thread::spawn(move || target.advise(span(4, 1), Advice::WillNeed).unwrap());
        let fault = space.fault(VirtualPage::new(0), Access::Read, Context::Normal);
        // Only this thread serves: it resolves the fault, or puts it off until the page is filled.
        world.manager.serve();
        space.unmap(span(0, 1)).unwrap();
        assert_eq!(world.manager.pulses(), 0, "a pulse waits for a mapping that has gone");
        let expected = match fault {
            Fault::Pulsed => 1,
            Fault::Resolved => 0,
            other => panic!("{other:?}"),
        };
        assert_eq!(world.manager.mmu().wakes(), expected);
        filler.join().unwrap();
        world.check(&[&space, &other], &[&object]);
    });
}

/// The bug: a replacement was an unmapping and a mapping, so a fault between them found nothing.
#[test]
fn a_fault_against_a_replacement_finds_the_old_or_the_new_page() {
    check(|| {
        let world = World::new(2, 4);
        let (old, new) = (world.object(1, &Store::new(7)), world.object(1, &Store::new(8)));
        let space = world.space();
        space.map(&old, fixed(0, 0, 1)).unwrap();
        let (theirs, target) = (world.clone(), space.clone());
        let writer = thread::spawn(move || {
            let cpu = theirs.cpu();
            let mut seen = [0];
            cpu.read(&theirs.manager, &target, 0, &mut seen).unwrap();
            cpu.write(&theirs.manager, &target, 0, &[9]).unwrap();
            seen[0]
        });
        let evictor = world.clone();
        let evictor = thread::spawn(move || evictor.manager.page_out(Pages(1)));
        let placement = Placement::Replace(VirtualPage::new(0));
        space.map(&new, MapRequest { placement, ..fixed(0, 0, 1) }).unwrap();
        let seen = writer.join().unwrap();
        assert!(matches!(seen, 7 | 8), "{seen}");
        evictor.join().unwrap();
        assert_eq!((old.spaces(), new.spaces()), (0, 1));
        // The write went to one of them.
        let shown = world.look(&space, 0);
        let other = world.space();
        other.map(&old, fixed(0, 0, 1)).unwrap();
        let before = world.look(&other, 0);
        assert!(matches!((before, shown), (9, 8) | (7, 9)), "{before} and {shown}");
        assert!(shown == 9 || seen == 7, "the new page was seen before the old one was written to");
        world.check(&[&space, &other], &[&old, &new]);
    });
}

#[test]
fn a_locked_replacement_against_an_eviction_ends_in_memory() {
    check(|| {
        let world = World::new(3, 4);
        let (old, new) = (world.object(1, &Store::new(7)), world.object(1, &Store::new(8)));
        let space = world.space();
        space.map(&old, fixed(0, 0, 1)).unwrap();
        assert_eq!(world.look(&space, 0), 7);
        let (theirs, evictor) = (world.clone(), world.clone());
        let target = space.clone();
        let reader = thread::spawn(move || theirs.look(&target, 0));
        let evictor = thread::spawn(move || evictor.manager.page_out(Pages(2)));
        let placement = Placement::Replace(VirtualPage::new(0));
        let residency = Some(Residency::Locked);
        space.map(&new, MapRequest { placement, residency, ..fixed(0, 0, 1) }).unwrap();
        assert_eq!(new.state(ObjectPage::new(0)), Some(State::Clean));
        assert!(world.manager.mmu().translation(space.machine(), VirtualPage::new(0)).is_some());
        assert!(matches!(reader.join().unwrap(), 7 | 8));
        evictor.join().unwrap();
        world.check(&[&space], &[&old, &new]);
    });
}

#[test]
fn a_fault_against_protect_writes_before_it_or_never() {
    check(|| {
        let world = World::new(2, 4);
        let object = world.object(1, &Store::new(7));
        let space = world.space();
        space.map(&object, fixed(0, 0, 1)).unwrap();
        let (theirs, target) = (world.clone(), space.clone());
        let writer = thread::spawn(move || {
            let cpu = theirs.cpu();
            (8..10).try_for_each(|byte| cpu.write(&theirs.manager, &target, 0, &[byte]))
        });
        space.protect(span(0, 1), Protection::Read).unwrap();
        let seen = world.look(&space, 0);
        let wrote = writer.join().unwrap();
        assert!(matches!(wrote, Ok(()) | Err(FaultError::Protection)), "{wrote:?}");
        assert_eq!(world.look(&space, 0), seen, "written to while it was protected");
        assert!(wrote.is_err() || seen == 9);
        world.check(&[&space], &[&object]);
    });
}

#[test]
fn a_fault_against_shrinking_and_growing_leaves_zeros_or_a_later_write() {
    check(|| {
        let world = World::new(2, 4);
        let object = world.object(2, &Store::new(7));
        let space = world.space();
        space.map(&object, fixed(0, 0, 2)).unwrap();
        let (theirs, target) = (world.clone(), space.clone());
        let writer =
            thread::spawn(move || theirs.cpu().write(&theirs.manager, &target, PAGE, &[9]));
        object.resize(Pages(1)).unwrap();
        object.resize(Pages(2)).unwrap();
        let wrote = writer.join().unwrap();
        assert!(matches!(wrote, Ok(()) | Err(FaultError::PastEnd)), "{wrote:?}");
        let seen = world.look(&space, 1);
        assert!(seen == 0 || (seen == 9 && wrote.is_ok()), "{seen} after {wrote:?}");
        world.check(&[&space], &[&object]);
    });
}

#[test]
fn a_page_cut_off_during_its_write_back_stays_gone() {
    check(|| {
        let world = World::new(2, 4);
        let object = world.object(2, &Store::new(7));
        let space = world.space();
        space.map(&object, fixed(0, 0, 2)).unwrap();
        let cpu = world.cpu();
        cpu.write(&world.manager, &space, PAGE, &[9]).unwrap();
        let evictor = world.clone();
        let evictor = thread::spawn(move || evictor.manager.page_out(Pages(1)));
        object.resize(Pages(1)).unwrap();
        let gone = cpu.read(&world.manager, &space, PAGE, &mut [0]);
        assert_eq!(gone, Err(FaultError::PastEnd));
        object.resize(Pages(2)).unwrap();
        evictor.join().unwrap();
        assert_eq!(world.look(&space, 1), 0);
        world.check(&[&space], &[&object]);
    });
}

#[test]
fn a_fault_keeps_a_destroyed_object_without_handles_until_it_is_done() {
    check(|| {
        let world = World::new(2, 4);
        let store = Store::new(7);
        let (object, space) = (world.object(1, &store), world.space());
        space.map(&object, fixed(0, 0, 1)).unwrap();
        let (theirs, target) = (world.clone(), space.clone());
        let writer = thread::spawn(move || {
            theirs.cpu().write(&theirs.manager, &target, 0, &[9]).unwrap();
            // A second fault, without a waiting thread: the space may be gone when it is served.
            let _ = target.fault(VirtualPage::new(0), Access::Write, Context::Normal);
        });
        object.destroy();
        assert_eq!(space.map(&object, fixed(1, 0, 1)), Err(Error::Destroyed));
        drop(object);
        drop(space);
        world.manager.serve();
        writer.join().unwrap();
        world.check_empty();
        assert_eq!(store.kept(0)[0], 9, "the dirty page of a file is written at its end");
    });
}

#[test]
fn a_pulse_whose_space_is_dropped_ends() {
    check(|| {
        let world = World::new(2, 4);
        let object = world.object(1, &Store::new(7));
        let space = world.space();
        space.map(&object, fixed(0, 0, 1)).unwrap();
        let at = VirtualPage::new(0);
        assert_eq!(space.fault(at, Access::Read, Context::Normal), Fault::Pulsed);
        let (worker, evictor) = (world.clone(), world.clone());
        let worker = thread::spawn(move || worker.manager.serve());
        let evictor = thread::spawn(move || evictor.manager.page_out(Pages(1)));
        drop(space);
        drop(object);
        worker.join().unwrap();
        evictor.join().unwrap();
        world.check_empty();
    });
}
