//! A forked child can use nothing that it inherits, and does the parent no harm.
//!
//! The forks happen in scripted processes, where no other thread holds a lock of the standard library while the
//! process is copied.

use std::time::Duration;

use commonhold::{
    Access, Barrier, Condvar, CreateOptions, Destroy, LockError, Mutex, OnceLock, RegionError,
    RwLock, Semaphore, SeqLock, Space, Turn,
};

use crate::support::{
    DEADLINE, Role, Scratch, ScriptedProcess, busy, fails, inconsistent, owner_died, say, stay,
    until,
};

pub(crate) const ROLES: &[Role] = &[
    ("fork-refused", refused),
    ("fork-guards", guards),
    ("fork-exit", exits),
    ("fork-values", values),
    ("fork-places", places),
    ("fork-changes", changes),
    ("fork-anew", anew),
    ("fork-parent", parent),
];

/// How a child is made.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Door {
    /// `fork`, with the handlers of `pthread_atfork`.
    Fork,
    /// The raw system call, without them.
    Clone,
}

pub(crate) const DOORS: [Door; 2] = [Door::Fork, Door::Clone];

/// 0 in the child.
pub(crate) fn split(door: Door) -> i32 {
    let pid = match door {
        // SAFETY: `fork` wants that the child of a program with threads uses nothing that a lost thread may have
        // locked: the other threads of a scripted process are the harness and the watchdog, which only wait.
        Door::Fork => unsafe { libc::fork() },
        // SAFETY: `clone` without flags and with a null stack is `fork`; see there.
        Door::Clone => unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) as i32 },
    };
    assert!(pid >= 0);
    pid
}

/// Runs a block in a child, and waits until it has succeeded. The block may move values of the parent, because the
/// child never returns.
macro_rules! in_child {
    ($door:expr, $block:expr) => {{
        let pid = $crate::fork::split($door);
        if pid == 0 {
            $crate::fork::leave(|| $block);
        }
        $crate::fork::succeeds(pid);
    }};
}
pub(crate) use in_child;

pub(crate) fn leave(run: impl FnOnce()) -> ! {
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_ok();
    // SAFETY: `_exit` has no requirement; it runs no destructor of what was inherited.
    unsafe { libc::_exit(if done { 0 } else { 101 }) }
}

/// Asserts that reading through a guard of the parent panics with the documented message.
#[track_caller]
fn reads_nothing<T>(read: impl FnOnce() -> T) {
    let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(read())));
    let said = read.unwrap_err();
    let said = said.downcast_ref::<&str>().unwrap();
    assert!(said.contains("a guard of the parent process"), "{said}");
}

/// Waits for a child, and asserts that it succeeded.
#[track_caller]
pub(crate) fn succeeds(pid: i32) {
    let mut status = 0;
    until("a forked child to end", || {
        // SAFETY: `waitpid` wants a place for the status.
        unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) == pid }
    });
    assert_eq!(status, 0, "the forked child failed");
}

fn run(role: &str) {
    let scratch = Scratch::formatted();
    ScriptedProcess::start(role, &[&scratch.url]).succeed();
    // After everything the children did, the space is consistent and empty.
    let space = scratch.open();
    space.check().unwrap();
    assert_eq!(space.peers().unwrap().len(), 1);
}

#[test]
fn every_use_of_an_inherited_handle_in_a_forked_child_is_an_error() {
    run("fork-refused");
}

fn refused(args: &[&str]) {
    let space = Space::open(args[0]).unwrap();
    let region = space.create("a", 4096).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    let read_only = space.map("a", Access::ReadOnly).unwrap();
    let lock = mapping.region_lock().unwrap();
    let mutex = mapping.mutex(0).unwrap();
    let event = mapping.event(8).unwrap();
    let value = mapping.value::<u64>(16).unwrap();
    let typed = mapping.open::<Mutex<u64>>(64).unwrap();
    let table = mapping.open::<RwLock<u64>>(128).unwrap();
    for door in DOORS {
        let child = || {
            space_is_refused(&space);
            fails!(region.map(Access::ReadWrite), RegionError::Forked);
            for mapping in [&mapping, &read_only] {
                mapping_is_refused(mapping);
            }
            fails!(mapping.write_at(0, &[1]), RegionError::Forked);
            fails!(mapping.mutex(0), RegionError::Forked);
            fails!(mapping.event(8), RegionError::Forked);
            fails!(lock.lock(), LockError::Forked);
            fails!(lock.try_read_lock(), LockError::Forked);
            fails!(lock.reset(), LockError::Forked);
            fails!(mutex.lock(), LockError::Forked);
            fails!(mutex.try_lock(), LockError::Forked);
            fails!(mutex.lock_for(DEADLINE), LockError::Forked);
            fails!(mutex.lock_recover(), LockError::Forked);
            fails!(mutex.lock_repairing(|_| Ok(())), LockError::Forked);
            fails!(mutex.reset(), LockError::Forked);
            fails!(value.store(1), RegionError::Forked);
            reads_nothing(|| value.load());
            fails!(mapping.open::<Mutex<u64>>(64), RegionError::Forked);
            fails!(space.record::<Mutex<u64>>("a"), RegionError::Forked);
            fails!(typed.lock(), LockError::Forked);
            fails!(typed.lock_recover(), LockError::Forked);
            fails!(typed.lock_repairing(|_| Ok(())), LockError::Forked);
            fails!(typed.reset(), LockError::Forked);
            fails!(table.read(), LockError::Forked);
            fails!(table.read_repairing(|_| Ok(())), LockError::Forked);
            fails!(table.try_write(), LockError::Forked);
            fails!(table.write_recover(), LockError::Forked);
            fails!(table.reset(), LockError::Forked);
            let _ = event.sequence();
            fails!(event.signal(), LockError::Forked);
            fails!(event.broadcast(), LockError::Forked);
            fails!(event.wait(0), LockError::Forked);
            // Also in a new thread of the child, which has no slot.
            let other = space.clone();
            std::thread::spawn(move || fails!(other.regions(), RegionError::Forked))
                .join()
                .unwrap();
        };
        in_child!(door, child());
    }
    // In the parent nothing has changed.
    assert_eq!(mapping.get::<u8>(0).unwrap(), 0);
    assert_eq!(value.load(), 0);
    drop(mapping.lock().unwrap());
    drop((mapping, read_only, lock, mutex, event, value, typed, table));
    space.destroy("a", Destroy::Within(DEADLINE)).unwrap();
}

fn space_is_refused(space: &Space) {
    let wait = Destroy::Within(Duration::ZERO);
    fails!(space.create("b", 1), RegionError::Forked);
    fails!(space.create_with("b", &CreateOptions::default()), RegionError::Forked);
    fails!(space.region("a"), RegionError::Forked);
    fails!(space.map("a", Access::ReadWrite), RegionError::Forked);
    fails!(space.map("a", Access::ReadOnly), RegionError::Forked);
    fails!(space.destroy("a", wait), RegionError::Forked);
    fails!(space.destroy("a", Destroy::Deferred), RegionError::Forked);
    fails!(space.resize("a", 1), RegionError::Forked);
    fails!(space.reap(), RegionError::Forked);
    fails!(space.duplicate_fd(), RegionError::Forked);
    fails!(space.check(), RegionError::Forked);
    fails!(space.info(), RegionError::Forked);
    fails!(space.stat("a"), RegionError::Forked);
    fails!(space.regions(), RegionError::Forked);
    fails!(space.peers(), RegionError::Forked);
    fails!(space.locks(), RegionError::Forked);
    fails!(space.wait_graph(), RegionError::Forked);
    fails!(space.await_process(1), RegionError::Forked);
    fails!(space.set_name("child"), RegionError::Forked);
}

fn mapping_is_refused(mapping: &commonhold::Mapping) {
    let mut byte = [0];
    fails!(mapping.read_at(0, &mut byte), RegionError::Forked);
    fails!(mapping.get::<u64>(0), RegionError::Forked);
    fails!(mapping.region_lock(), RegionError::Forked);
    fails!(mapping.value::<u64>(0), RegionError::Forked);
    fails!(mapping.lock(), LockError::Forked);
    fails!(mapping.try_lock(), LockError::Forked);
    fails!(mapping.lock_for(DEADLINE), LockError::Forked);
    fails!(mapping.lock_repairing(|_| Ok(())), LockError::Forked);
    fails!(mapping.lock_recover(), LockError::Forked);
    fails!(mapping.read_lock(), LockError::Forked);
    fails!(mapping.try_read_lock(), LockError::Forked);
    fails!(mapping.read_lock_for(DEADLINE), LockError::Forked);
    fails!(mapping.reset_lock(), LockError::Forked);
}

#[test]
fn a_forked_child_that_drops_guards_and_handles_frees_nothing_of_the_parents() {
    run("fork-guards");
}

fn guards(args: &[&str]) {
    let space = Space::open(args[0]).unwrap();
    space.create("write", 64).unwrap();
    space.create("read", 64).unwrap();
    let write = space.map("write", Access::ReadWrite).unwrap();
    let extra = space.map("write", Access::ReadOnly).unwrap();
    let read = space.map("read", Access::ReadWrite).unwrap();
    let (word, other_word) = (write.mutex(0).unwrap(), write.mutex(8).unwrap());
    for door in DOORS {
        let lock = write.lock().unwrap();
        lock.stamp();
        let mutex = word.lock().unwrap();
        other_word.lock().unwrap().leave_inconsistent().unwrap();
        let left = inconsistent(other_word.lock_recover());
        let readers: Vec<_> = (0..6).map(|_| read.read_lock().unwrap()).collect();
        in_child!(door, {
            fails!(left.mark_consistent(), LockError::Forked);
            fails!(extra.refresh(), RegionError::Forked);
        });
        in_child!(door, fails!(left.repair(|_| Ok(())), LockError::Forked));
        in_child!(door, {
            fails!(left.give_up(), LockError::Forked);
            fails!(lock.unlock(), LockError::Forked);
            fails!(mutex.leave_inconsistent(), LockError::Forked);
            for reader in readers {
                fails!(reader.unlock(), LockError::Forked);
            }
            fails!(extra.unmap(), RegionError::Forked);
        });
        still_held(args[0]);
        in_child!(door, drop((lock, mutex, left, readers, extra)));
        still_held(args[0]);
        // A panic of the child in the middle of a change makes nothing inconsistent either.
        in_child!(door, {
            let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
                let _held = (lock, mutex, left, readers);
                std::panic::resume_unwind(Box::new(()));
            }));
            assert!(unwound.is_err());
        });
        still_held(args[0]);
        left.mark_consistent().unwrap().unlock().unwrap();
        mutex.unlock().unwrap();
        lock.unlock().unwrap();
        for reader in readers {
            reader.unlock().unwrap();
        }
    }
    in_child!(Door::Fork, drop((word, other_word, extra, write, read, space)));
    drop((word, other_word));
    assert_eq!(space.stat("write").unwrap().maps, 2);
    drop(space.map("write", Access::ReadWrite).unwrap().lock().unwrap());
    extra.unmap().unwrap();
    write.unmap().unwrap();
    read.unmap().unwrap();
    for name in ["write", "read"] {
        space.destroy(name, Destroy::Within(DEADLINE)).unwrap();
    }
}

#[test]
fn a_forked_child_reaches_no_data_through_inherited_guards() {
    run("fork-values");
}

fn values(args: &[&str]) {
    let space = Space::open(args[0]).unwrap();
    space.create("a", 256).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    let mutex = mapping.open::<Mutex<u64>>(0).unwrap();
    let table = mapping.open::<RwLock<[u64; 2]>>(64).unwrap();
    let other = mapping.open::<RwLock<u64>>(128).unwrap();
    let places = [192, 224];
    for (door, at) in DOORS.into_iter().zip(places) {
        let once = mapping.open::<OnceLock<u64>>(at).unwrap();
        let (guard, writer, reader) =
            (mutex.lock().unwrap(), table.write().unwrap(), other.read().unwrap());
        let Turn::Mine(turn) = once.begin().unwrap() else { panic!("made by nobody") };
        guard.set(1);
        in_child!(door, {
            reads_nothing(|| once.get());
            fails!(once.begin(), LockError::Forked);
            fails!(once.get_or_init(|| 5), LockError::Forked);
            fails!(turn.complete(&5), LockError::Forked);
            reads_nothing(|| guard.get());
            reads_nothing(|| guard.get_boxed());
            reads_nothing(|| guard.with_mut(|number| *number = 2));
            reads_nothing(|| guard.replace(2));
            guard.set(2);
            reads_nothing(|| writer.at(1).unwrap().get());
            reads_nothing(|| writer.slice(..).unwrap().to_vec());
            reads_nothing(|| writer.slice(..).unwrap().copy_to(&mut [0; 2]));
            writer.slice(1..).unwrap().copy_from(&[2]).unwrap();
            writer.slice(..).unwrap().fill(&2);
            reads_nothing(|| reader.with(|number| *number));
            fails!(guard.leave_inconsistent(), LockError::Forked);
            fails!(writer.unlock(), LockError::Forked);
            fails!(reader.unlock(), LockError::Forked);
        });
        in_child!(door, drop((guard, writer, reader, turn)));
        // The parent still holds them.
        let theirs = Space::open(args[0]).unwrap();
        let theirs = theirs.map("a", Access::ReadWrite).unwrap();
        busy(theirs.open::<Mutex<u64>>(0).unwrap().try_lock());
        busy(theirs.open::<RwLock<[u64; 2]>>(64).unwrap().try_read());
        busy(theirs.open::<RwLock<u64>>(128).unwrap().try_write());
        busy(theirs.open::<OnceLock<u64>>(at).unwrap().try_begin());
        assert_eq!((guard.get(), writer.get()), (1, [0; 2]));
        drop(turn);
        guard.unlock().unwrap();
        writer.unlock().unwrap();
        reader.unlock().unwrap();
    }
    drop((mapping, mutex, table, other));
    space.destroy("a", Destroy::Within(DEADLINE)).unwrap();
}

#[test]
fn a_forked_child_owns_no_permit_no_barrier_slot_and_no_mutex() {
    run("fork-places");
}

fn places(args: &[&str]) {
    let space = Space::open(args[0]).unwrap();
    space.create("a", 256).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    let pool = mapping.open::<Semaphore<2>>(0).unwrap();
    let barrier = mapping.open::<Barrier<2>>(64).unwrap();
    let changed = mapping.open::<Condvar>(128).unwrap();
    let mutex = mapping.open::<Mutex<u64>>(192).unwrap();
    for door in DOORS {
        let (permit, other) = (pool.acquire().unwrap(), pool.acquire().unwrap());
        let party = barrier.join().unwrap();
        let guard = mutex.lock().unwrap();
        in_child!(door, {
            assert_eq!((pool.available(), barrier.phase()), (0, 0));
            fails!(pool.acquire(), LockError::Forked);
            fails!(pool.acquire_recover(), LockError::Forked);
            fails!(pool.give(), LockError::Forked);
            fails!(permit.release(), LockError::Forked);
            fails!(other.spend(), LockError::Forked);
            fails!(barrier.join(), LockError::Forked);
            fails!(party.arrive(), LockError::Forked);
            fails!(party.wait(), LockError::Forked);
            fails!(party.leave(), LockError::Forked);
            fails!(changed.notify_one(), LockError::Forked);
            fails!(changed.notify_all(), LockError::Forked);
            fails!(changed.wait(guard), LockError::Forked);
        });
        in_child!(door, drop((permit, other, party, guard)));
        // The parent still holds them.
        let theirs = Space::open(args[0]).unwrap();
        let theirs = theirs.map("a", Access::ReadWrite).unwrap();
        busy(theirs.open::<Semaphore<2>>(0).unwrap().try_acquire());
        busy(theirs.open::<Mutex<u64>>(192).unwrap().try_lock());
        drop(theirs.open::<Barrier<2>>(64).unwrap().join().unwrap());
        permit.release().unwrap();
        other.release().unwrap();
        party.leave().unwrap();
        guard.unlock().unwrap();
    }
    drop((mapping, pool, barrier, changed, mutex));
    space.destroy("a", Destroy::Within(DEADLINE)).unwrap();
}

#[test]
fn a_forked_child_cannot_end_a_change_of_its_parent() {
    run("fork-changes");
}

fn changes(args: &[&str]) {
    let space = Space::open(args[0]).unwrap();
    space.create("a", 256).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    let onlooker = space.map("a", Access::ReadOnly).unwrap();
    let table = mapping.open::<SeqLock<u64>>(0).unwrap();
    let pair = mapping.open::<RwLock<u64>>(64).unwrap();
    for door in DOORS {
        let guard = table.write().unwrap();
        guard.set(1);
        let mut upgradable = pair.upgradable_read().unwrap();
        let writer = upgradable.upgrade().unwrap();
        in_child!(door, {
            fails!(table.read(), LockError::Forked);
            fails!(table.write(), LockError::Forked);
            fails!(table.reset(), LockError::Forked);
            fails!(onlooker.open::<SeqLock<u64>>(0), RegionError::Forked);
            reads_nothing(|| guard.get());
            guard.set(2);
            fails!(guard.unlock(), LockError::Forked);
            reads_nothing(|| writer.get());
            writer.set(2);
            fails!(writer.downgrade(), LockError::Forked);
        });
        in_child!(door, drop((guard, writer)));
        // The parent still holds them.
        let theirs = Space::open(args[0]).unwrap();
        let theirs = theirs.map("a", Access::ReadWrite).unwrap();
        busy(theirs.open::<SeqLock<u64>>(0).unwrap().try_read());
        busy(theirs.open::<RwLock<u64>>(64).unwrap().try_read());
        guard.unlock().unwrap();
        writer.downgrade().unwrap();
        in_child!(door, {
            reads_nothing(|| upgradable.get());
            fails!(upgradable.upgrade(), LockError::Forked);
            fails!(upgradable.unlock(), LockError::Forked);
        });
        in_child!(door, drop(upgradable));
        busy(theirs.open::<RwLock<u64>>(64).unwrap().try_write());
        upgradable.unlock().unwrap();
        assert_eq!(table.read().unwrap(), 1);
    }
}

/// As another peer sees it.
fn still_held(url: &str) {
    let other = Space::open(url).unwrap();
    let write = other.map("write", Access::ReadWrite).unwrap();
    let read = other.map("read", Access::ReadWrite).unwrap();
    busy(write.try_lock());
    busy(write.mutex(0).unwrap().try_lock());
    busy(read.try_lock());
    assert_eq!(other.stat("write").unwrap().maps, 3);
    assert!(other.stat("write").unwrap().lock.unwrap().since.is_some());
}

#[test]
fn a_forked_child_that_exits_normally_leaves_the_parents_locks_and_slot_alone() {
    run("fork-exit");
}

/// The child ends by `exit`, which runs the handlers of the program's end and the destructors of the thread.
fn exits(args: &[&str]) {
    let space = Space::open(args[0]).unwrap();
    for name in ["write", "read"] {
        space.create(name, 64).unwrap();
    }
    let write = space.map("write", Access::ReadWrite).unwrap();
    let read = space.map("read", Access::ReadWrite).unwrap();
    for door in DOORS {
        let lock = write.lock().unwrap();
        lock.stamp();
        let word = write.mutex(0).unwrap();
        let mutex = word.lock().unwrap();
        let readers: Vec<_> = (0..6).map(|_| read.read_lock().unwrap()).collect();
        let event = write.event(8).unwrap();
        let seen = event.sequence();
        let awaited = space.await_process(1).unwrap();
        let extra = space.map("write", Access::ReadOnly).unwrap();
        let pid = split(door);
        if pid == 0 {
            fails!(event.signal(), LockError::Forked);
            drop((awaited, extra));
            std::process::exit(0);
        }
        succeeds(pid);
        still_held(args[0]);
        assert_eq!(event.sequence(), seen);
        // Its thread slot still belongs to this thread.
        fails!(write.lock(), LockError::Deadlock(_));
        fails!(read.lock(), LockError::Deadlock(_));
        drop((awaited, extra, event));
        mutex.unlock().unwrap();
        lock.unlock().unwrap();
        for reader in readers {
            reader.unlock().unwrap();
        }
    }
    drop((write, read));
    for name in ["write", "read"] {
        space.destroy(name, Destroy::Within(DEADLINE)).unwrap();
    }
}

#[test]
fn a_forked_child_that_opens_the_space_anew_is_another_peer() {
    run("fork-anew");
}

fn anew(args: &[&str]) {
    let url = args[0];
    let space = Space::open(url).unwrap();
    space.create("a", 64).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    let guard = mapping.lock().unwrap();
    let before = space.peer();
    in_child!(Door::Fork, {
        let mine = Space::open(url).unwrap();
        assert_ne!(mine.peer(), before);
        assert_eq!(mine.peers().unwrap().len(), 2);
        let again = mine.map("a", Access::ReadWrite).unwrap();
        busy(again.try_lock());
        again.set(8, &7_u64).unwrap();
        mine.create("b", 64).unwrap();
        // The inherited handle is still refused.
        fails!(mapping.get::<u64>(8), RegionError::Forked);
        fails!(space.map("a", Access::ReadWrite), RegionError::Forked);
        // In a grandchild both are refused.
        in_child!(Door::Fork, {
            fails!(again.get::<u64>(8), RegionError::Forked);
            fails!(mapping.get::<u64>(8), RegionError::Forked);
            assert_eq!(Space::open(url).unwrap().peers().unwrap().len(), 3);
        });
        drop(again);
        drop(mine);
    });
    assert_eq!(mapping.get::<u64>(8).unwrap(), 7);
    assert_eq!(space.peer(), before);
    assert_eq!(space.peers().unwrap().len(), 1);
    guard.unlock().unwrap();
    drop(mapping);
    for name in ["a", "b"] {
        space.destroy(name, Destroy::Within(DEADLINE)).unwrap();
    }
}

/// A parent that holds a lock, and a child of it that outlives it.
fn parent(args: &[&str]) {
    let space = Space::open(args[0]).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    let guard = mapping.lock().unwrap();
    let door = if args[1] == "fork" { Door::Fork } else { Door::Clone };
    if split(door) == 0 {
        leave(|| {
            say(format!("child {}", std::process::id()));
            stay();
        });
    }
    stay();
    drop(guard);
}

#[test]
fn a_dead_parent_is_known_to_be_dead_while_its_forked_child_lives() {
    for how in ["fork", "clone"] {
        let scratch = Scratch::formatted();
        let space = scratch.open();
        space.create("a", 64).unwrap();
        let mapping = space.map("a", Access::ReadWrite).unwrap();
        let mut actor = ScriptedProcess::start("fork-parent", &[&scratch.url, how]);
        let said = actor.hear();
        let child: i32 = said.strip_prefix("child ").unwrap().parse().unwrap();
        busy(mapping.try_lock());
        let parent = actor.pid();
        actor.kill_unseen();
        let place = owner_died(mapping.lock_for(DEADLINE));
        assert_eq!(place.owner.unwrap().pid, Some(parent));
        let guard = inconsistent(mapping.lock_recover());
        // SAFETY: `kill` with signal 0 only asks whether there is such a process.
        assert_eq!(unsafe { libc::kill(child, 0) }, 0, "the child of {how} did not survive");
        guard.mark_consistent().unwrap().unlock().unwrap();
        // The lock is free as soon as its thread is dead, which is before all of its process is gone.
        until("the parent is reaped", || space.reap().unwrap().peers.len() == 1);
        assert_eq!(space.peers().unwrap().len(), 1);
    }
}
