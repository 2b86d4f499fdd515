//! Threads of one process: slots, guards, and many locks at once.

use std::{
    collections::HashSet,
    sync::{Arc, mpsc},
    thread,
};

use commonhold::{
    Access, Destroy, FormatOptions, LockError, Mutex, Recovered, RegionError, Space, State,
};

use crate::support::{
    DEADLINE, Role, SHORT, Scratch, ScriptedProcess, at_once, fails, inconsistent, owner_died, say,
    stay, until,
};

pub(crate) const ROLES: &[Role] = &[("thread-lock", lock_in_threads)];

#[test]
fn more_threads_than_slots_is_an_error_and_slots_come_back_when_threads_end() {
    let scratch = Scratch::with(&Scratch::tiny());
    let space = scratch.open();
    space.create("a", 64).unwrap();
    let mapping = Arc::new(space.map("a", Access::ReadWrite).unwrap());
    // This thread has one slot of four.
    drop(mapping.lock().unwrap());
    for _ in 0..3 {
        let (in_slot, all_in) = mpsc::channel();
        let (let_go, threads): (Vec<_>, Vec<_>) = (0..3)
            .map(|_| {
                let (let_go, gone) = mpsc::channel::<()>();
                let (mapping, in_slot) = (Arc::clone(&mapping), in_slot.clone());
                let thread = thread::spawn(move || {
                    drop(mapping.read_lock().unwrap());
                    in_slot.send(()).unwrap();
                    // Until the other end is dropped.
                    let _ = gone.recv();
                });
                (let_go, thread)
            })
            .unzip();
        for _ in 0..3 {
            all_in.recv_timeout(DEADLINE).expect("a thread without a slot");
        }
        let one_more = Arc::clone(&mapping);
        let other_space = space.clone();
        let refused = thread::spawn(move || {
            let full =
                |error: &RegionError| matches!(error, RegionError::TooManyThreads { threads: 4 });
            fails!(one_more.lock(), LockError::Region(error) if full(error));
            fails!(one_more.read_lock(), LockError::Region(error) if full(error));
            fails!(one_more.mutex(0).unwrap().lock(), LockError::Region(error) if full(error));
            let count = one_more.open::<Mutex<u64>>(32).unwrap_err();
            assert!(full(&count), "{count}");
            fails!(other_space.map("a", Access::ReadWrite), error if full(error));
            // Operations without a lock still work.
            one_more.set(8, &1_u64).unwrap();
        });
        refused.join().unwrap();
        // Threads with a slot are not affected.
        drop(mapping.lock().unwrap());
        drop(let_go);
        for thread in threads {
            thread.join().unwrap();
        }
    }
}

#[test]
fn a_mapping_dropped_by_a_thread_without_a_slot_is_unmapped() {
    // The bug: unmapping asked for the thread's slot first, and silently gave up if there was none. The mapping was
    // counted for as long as the process was attached.
    let scratch = Scratch::with(&FormatOptions { threads: Some(1), ..Scratch::tiny() });
    let space = scratch.open();
    space.create("a", 64).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    let other = space.map("a", Access::ReadWrite).unwrap();
    thread::spawn(move || {
        drop(mapping);
        other.unmap().unwrap();
    })
    .join()
    .unwrap();
    assert_eq!(space.stat("a").unwrap().maps, 0);
    // A destroyer that waits, and a deferred destruction, also see the unmap.
    let other = scratch.open();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    let destroyer = thread::spawn(move || other.destroy("a", Destroy::Within(DEADLINE)));
    until("the destroyer", || space.stat("a").unwrap().state == State::Destroying);
    thread::spawn(move || drop(mapping)).join().unwrap();
    destroyer.join().unwrap().unwrap();
    space.create("a", 64).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    scratch.open().destroy("a", Destroy::Deferred).unwrap();
    thread::spawn(move || drop(mapping)).join().unwrap();
    space.create("a", 64).unwrap();
    space.check().unwrap();
}

#[test]
fn a_thousand_threads_one_after_the_other_need_one_slot() {
    let scratch = Scratch::with(&FormatOptions { threads: Some(2), ..Scratch::tiny() });
    let space = scratch.open();
    space.create("a", 64).unwrap();
    let mapping = Arc::new(space.map("a", Access::ReadWrite).unwrap());
    for _ in 0..1000 {
        let mapping = Arc::clone(&mapping);
        let thread = thread::spawn(move || {
            let guard = mapping.lock().unwrap();
            mapping.set(0, &(mapping.get::<u64>(0).unwrap() + 1)).unwrap();
            guard.unlock().unwrap();
        });
        thread.join().unwrap();
    }
    assert_eq!(mapping.get::<u64>(0).unwrap(), 1000);
}

#[test]
fn a_thread_that_uses_many_spaces_one_after_the_other_keeps_none_of_them() {
    let scratch = Scratch::with(&Scratch::tiny());
    let first = scratch.open();
    first.create("a", 64).unwrap();
    for _ in 0..50 {
        let space = scratch.open();
        drop(space.map("a", Access::ReadWrite).unwrap().lock().unwrap());
        drop(first.map("a", Access::ReadWrite).unwrap().lock().unwrap());
        assert_eq!(first.peers().unwrap().len(), 2);
    }
    assert_eq!(first.peers().unwrap().len(), 1);
}

#[test]
fn threads_of_one_process_exclude_each_other_by_every_kind_of_lock() {
    const ROUNDS: u64 = 2000;
    let scratch = Scratch::formatted();
    let space = scratch.open();
    space.create("a", 64).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    let add = |offset| {
        let number: u64 = mapping.get(offset).unwrap();
        mapping.set(offset, &(number + 1)).unwrap();
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    let guard = mapping.lock().unwrap();
                    add(0);
                    drop(guard);
                    let mutex = mapping.mutex(8).unwrap();
                    let guard = mutex.lock().unwrap();
                    add(16);
                    drop(guard);
                    let guard = mapping.read_lock().unwrap();
                    assert!(mapping.get::<u64>(0).unwrap() <= 4 * ROUNDS);
                    drop(guard);
                }
            });
        }
    });
    assert_eq!(mapping.get::<u64>(0).unwrap(), 4 * ROUNDS);
    assert_eq!(mapping.get::<u64>(16).unwrap(), 4 * ROUNDS);
}

#[test]
fn read_locks_nest_deeper_than_a_threads_words_and_each_counts() {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    let mine: Vec<_> = (0..12)
        .map(|i| {
            space.create(&format!("r{i}"), 0).unwrap();
            space.map(&format!("r{i}"), Access::ReadOnly).unwrap()
        })
        .collect();
    let other = scratch.open();
    let theirs: Vec<_> =
        (0..12).map(|i| other.map(&format!("r{i}"), Access::ReadOnly).unwrap()).collect();
    // Twelve locks at once, some of them twice, freed in another order.
    let mut guards: Vec<_> =
        (0..18).map(|i| Some((i % 12, mine[i % 12].read_lock().unwrap()))).collect();
    let mut held = [0_usize; 12];
    for (lock, _) in guards.iter().flatten() {
        held[*lock] += 1;
    }
    for step in 0..18 {
        for (lock, count) in held.iter().enumerate() {
            let got = theirs[lock].try_lock().unwrap();
            assert_eq!(got.is_some(), *count == 0, "a writer, and {count} readers");
        }
        let (lock, guard) = guards[step * 7 % 18].take().unwrap();
        guard.unlock().unwrap();
        held[lock] -= 1;
    }
    for mapping in &theirs {
        drop(at_once(mapping.try_lock()));
    }
}

/// Threads that hold one lock each, all of which die at once.
fn lock_in_threads(args: &[&str]) {
    let space = Space::open(args[0]).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    thread::scope(|scope| {
        for i in 0..8 {
            let mapping = &mapping;
            scope.spawn(move || {
                let mutex = mapping.mutex(8 * i).unwrap();
                let _guard = mutex.lock().unwrap();
                say("held");
                loop {
                    thread::park();
                }
            });
        }
        stay();
    });
}

#[test]
fn the_locks_of_all_threads_of_a_killed_process_become_free() {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    space.create("a", 64).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    let actor = ScriptedProcess::start("thread-lock", &[&scratch.url]);
    for _ in 0..8 {
        actor.says("held");
    }
    fails!(mapping.mutex(0).unwrap().lock_for(SHORT), LockError::TimedOut(_));
    let pid = actor.pid();
    actor.kill();
    let mut threads = HashSet::new();
    for i in 0..8 {
        let mutex = mapping.mutex(8 * i).unwrap();
        let owner = owner_died(mutex.lock()).owner.unwrap();
        assert_eq!(owner.pid, Some(pid));
        threads.insert(owner.thread);
        drop(inconsistent(mutex.lock_recover()).mark_consistent().unwrap());
        drop(mutex.lock().unwrap());
    }
    assert_eq!(threads.len(), 8);
}

/// The bug: a thread that ended with a forgotten guard kept its lock as long as its process lived.
#[test]
fn a_thread_that_ends_with_a_forgotten_guard_counts_as_a_dead_owner() {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    let region = space.create("x", 64).unwrap().map(Access::ReadWrite).unwrap();
    let mutex = region.mutex(8).unwrap();
    thread::scope(|scope| {
        let forgetful = scope.spawn(|| {
            std::mem::forget(region.lock().unwrap());
            std::mem::forget(mutex.lock().unwrap());
        });
        forgetful.join().unwrap();
    });
    let locks = space.locks().unwrap();
    let holder = locks.iter().find_map(|lock| lock.holder.clone()).unwrap();
    assert_eq!((holder.alive, holder.state), (false, commonhold::PeerLife::Dead));
    for is_first in [true, false] {
        match region.lock_recover().unwrap() {
            Recovered::Inconsistent(guard) => {
                assert!(is_first);
                drop(guard.mark_consistent().unwrap());
            }
            Recovered::Consistent(guard) => {
                assert!(!is_first);
                drop(guard);
            }
        }
    }
    owner_died(mutex.lock());
    // Other threads of the process, and their mappings, still work.
    assert_eq!(space.stat("x").unwrap().maps, 1);
    assert!(matches!(
        space.destroy("x", Destroy::Deferred),
        Err(RegionError::Mapped { handles: 2, .. })
    ));
}

#[test]
fn a_waiter_is_woken_when_its_owner_ends_with_a_forgotten_guard() {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    let region = space.create("x", 64).unwrap().map(Access::ReadWrite).unwrap();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    thread::scope(|scope| {
        let region = &region;
        let forgetful = scope.spawn(move || {
            std::mem::forget(region.read_lock().unwrap());
            wait.recv().unwrap();
        });
        until("the reader reads", || !space.locks().unwrap().is_empty());
        let writer = scope.spawn(|| drop(region.lock().unwrap()));
        until("the writer waits", || {
            space.locks().unwrap().iter().any(|lock| lock.kind == commonhold::LockKind::Exclusive)
        });
        assert!(!writer.is_finished());
        go.send(()).unwrap();
        forgetful.join().unwrap();
        writer.join().unwrap();
    });
}
