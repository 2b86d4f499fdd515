//! Wrong uses of locks: each is an error, and changes nothing.
//!
//! Wrong uses that do not compile are in `src/lock/misuse.rs`; those of forked children, in `fork`.

use std::thread;

use commonhold::{
    Access, Destroy, LockError, LockKind, Mapping, ReadGuard, RegionError, RwLock, Space, WaitKind,
};

use crate::support::{DEADLINE, SHORT, Scratch, busy, fails, until, until_waiters};

/// Regions enough for more read locks than a thread has words.
fn ground(scratch: &Scratch) -> (Space, Vec<Mapping>) {
    let space = scratch.open();
    let mappings = (0..8).map(|number| {
        let name = format!("r{number}");
        space.create(&name, 64).unwrap();
        space.map(&name, Access::ReadWrite).unwrap()
    });
    let mappings = mappings.collect();
    (space, mappings)
}

/// One read lock of each.
fn read_all(mappings: &[Mapping]) -> Vec<ReadGuard<'_>> {
    mappings.iter().map(|mapping| mapping.read_lock().unwrap()).collect()
}

#[test]
fn a_reader_that_wants_to_write_gets_deadlock_with_any_number_of_read_locks() {
    // The bug: a thread's fifth read lock is counted with those of its whole process. So the thread did not know
    // that the lock was its own, and waited for itself.
    let scratch = Scratch::formatted();
    let (_space, mappings) = ground(&scratch);
    let mut readers = read_all(&mappings);
    for mapping in &mappings {
        fails!(mapping.try_lock(), LockError::Deadlock(_));
        fails!(mapping.lock(), LockError::Deadlock(_));
        fails!(mapping.lock_for(DEADLINE), LockError::Deadlock(_));
    }
    // Another thread of the process waits for this one, which is no deadlock.
    thread::scope(|scope| {
        scope.spawn(|| {
            for mapping in &mappings {
                fails!(mapping.lock_for(SHORT), LockError::TimedOut(_));
                drop(mapping.read_lock().unwrap());
            }
        });
    });
    // What is held twice is held until it is freed twice.
    let again = mappings[6].read_lock().unwrap();
    for (number, mapping) in mappings.iter().enumerate().rev() {
        readers.remove(number).unlock().unwrap();
        if number != 6 {
            drop(mapping.lock_for(DEADLINE).unwrap());
        }
    }
    fails!(mappings[6].lock(), LockError::Deadlock(_));
    drop(again);
    drop(mappings[6].lock_for(DEADLINE).unwrap());
}

#[test]
fn read_locks_of_different_attachments_and_regions_are_kept_apart() {
    let scratch = Scratch::formatted();
    let (_space, mappings) = ground(&scratch);
    let elsewhere = Scratch::formatted();
    let (_other_space, others) = ground(&elsewhere);
    let _readers = read_all(&mappings[..7]);
    for other in &others {
        drop(other.lock_for(DEADLINE).unwrap());
    }
    drop(mappings[7].lock_for(DEADLINE).unwrap());
    // A second attachment of this process is another peer, which waits.
    let second = scratch.open().map("r6", Access::ReadWrite).unwrap();
    fails!(second.lock_for(SHORT), LockError::TimedOut(_));
}

#[test]
fn a_reader_that_reads_again_while_a_writer_waits_for_it_gets_deadlock() {
    // The bug: the second read lock gave precedence to the writer, which waited for the first.
    let scratch = Scratch::formatted();
    let (space, mappings) = ground(&scratch);
    for number in [0, 5] {
        // The first is held in a word of the thread, the last is counted.
        let mut readers = read_all(&mappings[..6]);
        let (name, mapping) = (format!("r{number}"), &mappings[number]);
        drop(mapping.read_lock().unwrap());
        thread::scope(|scope| {
            let theirs = scratch.open().map(&name, Access::ReadWrite).unwrap();
            let writer = scope.spawn(move || drop(theirs.lock_for(DEADLINE).unwrap()));
            until("the writer", || {
                space.wait_graph().unwrap().waits.iter().any(|wait| wait.kind == WaitKind::Readers)
            });
            fails!(mapping.read_lock(), LockError::Deadlock(_));
            fails!(mapping.read_lock_for(SHORT), LockError::TimedOut(_));
            busy(mapping.try_read_lock());
            // The lock that it has, it still has.
            let locks = space.locks().unwrap();
            assert!(
                locks.iter().any(|lock| lock.region == name && lock.kind == LockKind::Shared),
                "{locks:?}"
            );
            assert!(!writer.is_finished());
            readers.remove(number).unlock().unwrap();
            writer.join().unwrap();
        });
        drop(mapping.read_lock().unwrap());
    }
}

/// The bug: where the region's lock said `Deadlock`, a lock with its data hung for ever.
#[test]
fn a_reader_of_a_lock_with_data_gets_the_same_deadlock() {
    let scratch = Scratch::formatted();
    let (space, mappings) = ground(&scratch);
    let mapping = &mappings[0];
    let lock = mapping.open::<RwLock<u64>>(0).unwrap();
    let reader = lock.read().unwrap();
    drop(lock.read().unwrap());
    thread::scope(|scope| {
        let theirs = scratch.open().map("r0", Access::ReadWrite).unwrap();
        let writer = scope.spawn(move || {
            let lock = theirs.open::<RwLock<u64>>(0).unwrap();
            drop(lock.write_for(DEADLINE).unwrap());
        });
        until("the writer", || {
            space.wait_graph().unwrap().waits.iter().any(|wait| wait.kind == WaitKind::Readers)
        });
        fails!(lock.read(), LockError::Deadlock(_));
        fails!(lock.read_for(SHORT), LockError::TimedOut(_));
        busy(lock.try_read());
        // Under another lock it waits as usual, and gets it.
        drop(mapping.read_lock().unwrap());
        assert!(!writer.is_finished());
        drop(reader);
        writer.join().unwrap();
    });
    drop(lock.read().unwrap());
}

#[test]
fn a_destroyed_region_keeps_its_bytes_and_locks_for_its_mappers() {
    let scratch = Scratch::formatted();
    let (space, mappings) = ground(&scratch);
    let other = scratch.open();
    let theirs = other.map("r0", Access::ReadWrite).unwrap();
    let guard = mappings[0].lock().unwrap();
    fails!(space.destroy("r0", Destroy::Deferred), RegionError::Mapped { .. });
    let third = scratch.open();
    third.destroy("r0", Destroy::Deferred).unwrap();
    busy(theirs.try_lock());
    fails!(mappings[0].lock(), LockError::Deadlock(_));
    guard.unlock().unwrap();
    let mutex = theirs.mutex(0).unwrap();
    let guard = mutex.lock().unwrap();
    busy(mappings[0].mutex(0).unwrap().try_lock());
    drop(guard);
    drop(mutex);
    let event = mappings[0].event(8).unwrap();
    let seen = event.sequence();
    theirs.event(8).unwrap().signal().unwrap();
    assert_eq!(event.wait_for(seen, DEADLINE).unwrap(), seen + 1);
    // The name is taken as long as a peer maps the region.
    fails!(third.create("r0", 64), RegionError::Exists { .. });
    drop((mappings, theirs));
    fails!(third.create("r0", 64), RegionError::Exists { .. });
    drop(event);
    third.create("r0", 64).unwrap();
}

#[test]
fn the_handle_of_a_destroyed_region_maps_no_later_region_with_its_name_or_entry() {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    let old = space.create("a", 64).unwrap();
    space.destroy("a", Destroy::Wait).unwrap();
    fails!(old.map(Access::ReadWrite), RegionError::NotFound { .. });
    let new = space.create("a", 64).unwrap();
    assert_ne!(old.key(), new.key());
    fails!(old.map(Access::ReadWrite), RegionError::NotFound { .. });
    fails!(old.map(Access::ReadOnly), RegionError::NotFound { .. });
    assert_eq!(space.stat("a").unwrap().maps, 0);
    drop(new.map(Access::ReadWrite).unwrap().lock().unwrap());
}

#[test]
fn a_lock_of_another_thread_is_waited_for_without_a_deadlock_error() {
    let scratch = Scratch::formatted();
    let (space, mappings) = ground(&scratch);
    let guard = mappings[0].lock().unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| drop(mappings[0].lock().unwrap()));
        until_waiters(&space, "r0", 1);
        drop(guard);
        waiter.join().unwrap();
    });
}
