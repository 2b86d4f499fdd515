//! Biased mutexes: other threads see them behave like any mutex.

use std::{
    mem::forget,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    thread,
    time::Duration,
};

use commonhold::{
    Access, Condvar, FormatOptions, LockError, Mapping, Mutex, RawMutex, Recovered, Space, Waited,
    records,
};
use commonhold_layout::{BIAS_AFTER, LockWord, Offset, bias_entry};

use crate::{
    fork::{DOORS, in_child},
    support::{
        DEADLINE, Role, SHORT, Scratch, ScriptedProcess, at_once, busy, fails, fence_me,
        inconsistent, listen, owner_died, say, stay, until, until_event_waiters,
    },
};

pub(crate) const ROLES: &[Role] = &[
    ("biased-hold", hold),
    ("biased-want", want),
    ("biased-fork", forks),
    ("biased-condvar", notify_never),
];

/// How many turns it takes until a mutex is biased, and has been held by the bias.
const ALONE: u64 = BIAS_AFTER + 2;
/// Where the mutex of most tests lies.
const AT: u64 = 64;

pub(crate) fn word(mapping: &Mapping, at: u64) -> LockWord {
    LockWord::from_word(mapping.get::<u64>(at).unwrap())
}

fn use_alone(mutex: &RawMutex) {
    for _ in 0..ALONE {
        mutex.lock().unwrap().unlock().unwrap();
    }
}

/// A mutex of `mapping` that is biased to this thread.
#[track_caller]
fn biased(mapping: &Mapping, at: u64) -> RawMutex {
    let mutex = mapping.mutex(at).unwrap();
    use_alone(&mutex);
    assert!(word(mapping, at).is_biased(), "{:?}", word(mapping, at));
    mutex
}

fn mapped(url: &str) -> Mapping {
    Space::open(url).unwrap().map("a", Access::ReadWrite).unwrap()
}

fn ground_with(options: &FormatOptions) -> (Scratch, Space, Mapping) {
    let scratch = Scratch::with(options);
    let space = scratch.open();
    space.create("a", 4096).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    (scratch, space, mapping)
}

fn ground() -> (Scratch, Space, Mapping) {
    ground_with(&Scratch::tiny())
}

/// Offsets of mutexes that have the same entry as that at `AT`, or another.
fn place_of(mapping: &Mapping, same: bool) -> u64 {
    let entry = |at| bias_entry(Offset::new(mapping.offset() + at).unwrap());
    (AT + 8..4096).step_by(8).find(|at| (entry(*at) == entry(AT)) == same).unwrap()
}

/// Stays inside the mutex by a bias, or outside.
fn hold(args: &[&str]) {
    let mapping = mapped(args[0]);
    let mutex = biased(&mapping, AT);
    let guard = (args[1] == "inside").then(|| mutex.lock().unwrap());
    assert!(word(&mapping, AT).is_biased());
    say("there");
    stay();
    drop(guard);
}

fn holder(scratch: &Scratch, place: &str) -> ScriptedProcess {
    let actor = ScriptedProcess::start("biased-hold", &[&scratch.url, place]);
    actor.says("there");
    actor
}

/// Takes the mutex of a thread that died inside it: every attempt reports the death until a thread repairs the
/// data, and none after that.
#[track_caller]
fn told_until_repaired(mutex: &RawMutex) {
    for _ in 0..2 {
        owner_died(mutex.lock());
        owner_died(mutex.try_lock());
    }
    inconsistent(mutex.lock_recover()).mark_consistent().unwrap().unlock().unwrap();
    mutex.lock().unwrap().unlock().unwrap();
}

#[test]
fn a_mutex_is_biased_after_enough_turns_and_never_in_a_space_with_a_lease() {
    let (_scratch, _space, mapping) = ground();
    let mutex = mapping.mutex(AT).unwrap();
    for _ in 0..BIAS_AFTER {
        mutex.lock().unwrap().unlock().unwrap();
        assert_eq!(word(&mapping, AT), LockWord::FREE);
    }
    mutex.lock().unwrap().unlock().unwrap();
    assert!(word(&mapping, AT).is_biased());
    let lease = FormatOptions { lease: Some(Duration::from_secs(60)), ..Scratch::tiny() };
    let (_scratch, _space, mapping) = ground_with(&lease);
    let mutex = mapping.mutex(AT).unwrap();
    for _ in 0..3 * ALONE {
        mutex.lock().unwrap().unlock().unwrap();
        assert_eq!(word(&mapping, AT), LockWord::FREE);
    }
}

#[test]
fn a_process_killed_inside_its_biased_mutex_is_a_dead_owner_and_one_killed_outside_is_not() {
    let (scratch, _space, mapping) = ground();
    let mutex = mapping.mutex(AT).unwrap();
    holder(&scratch, "outside").kill();
    at_once(mutex.try_lock()).unlock().unwrap();
    let actor = holder(&scratch, "inside");
    busy(mutex.try_lock());
    fails!(mutex.reset(), LockError::TimedOut(_));
    actor.kill();
    told_until_repaired(&mutex);
    // The same, if no thread asked for the mutex while the owner lived.
    holder(&scratch, "inside").kill();
    told_until_repaired(&mutex);
    holder(&scratch, "outside").kill();
    mutex.reset().unwrap();
    assert_eq!(word(&mapping, AT), LockWord::FREE);
}

#[test]
fn the_mutex_of_a_dead_peer_is_inconsistent_after_its_slot_is_reused_or_reaped() {
    let (scratch, space, mapping) =
        ground_with(&FormatOptions { peers: Some(2), ..Scratch::tiny() });
    let mutex = mapping.mutex(AT).unwrap();
    for reaped in [true, false] {
        for place in ["outside", "inside"] {
            holder(&scratch, place).kill();
            if reaped {
                space.reap().unwrap();
                assert_eq!(space.peers().unwrap().len(), 1);
            }
            // There is no other slot. Its new peer uses the entry that said that the dead thread was inside.
            let heir = mapped(&scratch.url);
            let other = biased(&heir, place_of(&heir, true));
            assert_eq!(space.peers().unwrap().len(), 2);
            if place == "inside" {
                told_until_repaired(&mutex);
            } else {
                at_once(mutex.try_lock()).unlock().unwrap();
            }
            drop(other.lock().unwrap());
        }
    }
}

#[test]
fn a_thread_that_ends_inside_a_biased_mutex_is_a_dead_owner_of_a_living_process() {
    let (_scratch, _space, mapping) = ground();
    thread::scope(|scope| {
        let ends = scope.spawn(|| forget(biased(&mapping, AT).lock().unwrap()));
        ends.join().unwrap();
    });
    told_until_repaired(&mapping.mutex(AT).unwrap());
}

#[test]
fn threads_that_end_outside_their_biased_mutexes_give_their_slots_back() {
    let (_scratch, _space, mapping) = ground();
    // There are four thread slots.
    for number in 0..20 {
        let mapping = &mapping;
        thread::scope(|scope| {
            // Joined by hand: the scope alone does not wait until the thread has given its slot back.
            let ends = scope.spawn(move || drop(biased(mapping, AT + 8 * number).lock().unwrap()));
            ends.join().unwrap();
        });
    }
    for number in 0..20 {
        let at = AT + 8 * number;
        assert!(word(&mapping, at).is_biased());
        drop(at_once(mapping.mutex(at).unwrap().try_lock()));
    }
}

#[test]
#[cfg_attr(
    target_env = "musl",
    ignore = "the kernel marks no slot there, so it has an heir only when no other is free"
)]
fn the_next_thread_in_a_slot_is_not_inside_mutexes_biased_to_the_one_before() {
    let (scratch, _space, mapping) = ground();
    let theirs = mapped(&scratch.url);
    thread::scope(|scope| {
        let ends = scope.spawn(|| {
            biased(&mapping, AT);
        });
        ends.join().unwrap();
    });
    let before = word(&mapping, AT).bias().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            // At a place that has the same entry, so that only the number tells the two apart.
            let at = place_of(&mapping, true);
            let mutex = biased(&mapping, at);
            let now = word(&mapping, at).bias().unwrap();
            assert!(now.thread == before.thread && now.number != before.number, "{now:?}");
            let guard = mutex.lock().unwrap();
            drop(at_once(theirs.mutex(AT).unwrap().try_lock()));
            busy(theirs.mutex(at).unwrap().try_lock());
            // The mutex that it took over can be biased to it.
            guard.unlock().unwrap();
            biased(&mapping, AT);
        });
    });
}

#[test]
fn a_peer_that_detaches_with_a_forgotten_guard_is_a_dead_owner_even_after_its_slot_is_reused() {
    let (scratch, space, mapping) = ground();
    let mutex = mapping.mutex(AT).unwrap();
    for (forgotten, inherited) in [(false, false), (false, true), (true, false), (true, true)] {
        let theirs = mapped(&scratch.url);
        let its = biased(&theirs, AT);
        let guard = its.lock().unwrap();
        if forgotten {
            forget(guard);
        } else {
            drop(guard);
        }
        drop((its, theirs));
        assert_eq!(space.peers().unwrap().len(), 1);
        // The next peer has the slot, and uses the entry.
        let heir = inherited.then(|| mapped(&scratch.url));
        if let Some(heir) = &heir {
            biased(heir, place_of(heir, true));
        }
        if forgotten {
            told_until_repaired(&mutex);
        } else {
            at_once(mutex.try_lock()).unlock().unwrap();
        }
    }
}

#[test]
fn a_forked_child_frees_nothing_that_its_parent_holds_by_a_bias() {
    let scratch = Scratch::formatted();
    ScriptedProcess::start("biased-fork", &[&scratch.url]).succeed();
}

fn forks(args: &[&str]) {
    let space = Space::open(args[0]).unwrap();
    space.create("a", 4096).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    let theirs = mapped(args[0]);
    let other = mapping.mutex(place_of(&mapping, false)).unwrap();
    for door in DOORS {
        let mutex = biased(&mapping, AT);
        let guard = mutex.lock().unwrap();
        assert!(word(&mapping, AT).is_biased());
        other.lock().unwrap().leave_inconsistent().unwrap();
        let left = inconsistent(other.lock_recover());
        in_child!(door, {
            fails!(mutex.lock(), LockError::Forked);
            fails!(mutex.try_lock(), LockError::Forked);
            fails!(mutex.lock_recover(), LockError::Forked);
            fails!(left.mark_consistent(), LockError::Forked);
            fails!(guard.unlock(), LockError::Forked);
        });
        left.mark_consistent().unwrap().unlock().unwrap();
        in_child!(door, drop(guard));
        in_child!(door, {
            let unwound = catch_unwind(AssertUnwindSafe(move || {
                let _held = guard;
                resume_unwind(Box::new(()));
            }));
            assert!(unwound.is_err());
        });
        busy(theirs.mutex(AT).unwrap().try_lock());
        // After it, the bias is revoked; and the child cannot enter a mutex that the parent is outside of.
        in_child!(door, drop(guard));
        busy(theirs.mutex(AT).unwrap().try_lock());
        guard.unlock().unwrap();
        drop(at_once(theirs.mutex(AT).unwrap().try_lock()));
        biased(&mapping, AT);
        in_child!(door, fails!(mutex.lock(), LockError::Forked));
        drop(at_once(theirs.mutex(AT).unwrap().try_lock()));
    }
}

#[test]
fn a_panic_or_a_change_given_up_inside_a_biased_mutex_leaves_it_inconsistent() {
    let (scratch, _space, mapping) = ground();
    let theirs = mapped(&scratch.url);
    for next in [&theirs, &mapping] {
        let mutex = biased(&mapping, AT);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _guard = mutex.lock().unwrap();
            assert!(word(&mapping, AT).is_biased());
            resume_unwind(Box::new(()));
        }));
        assert!(panicked.is_err());
        told_until_repaired(&next.mutex(AT).unwrap());
        let mutex = biased(&mapping, AT);
        mutex.lock().unwrap().leave_inconsistent().unwrap();
        told_until_repaired(&next.mutex(AT).unwrap());
    }
}

#[test]
fn a_biased_mutex_excludes_all_threads_while_it_is_held_and_none_afterwards() {
    let (scratch, _space, mapping) = ground();
    let theirs = mapped(&scratch.url);
    let other = theirs.mutex(AT).unwrap();
    for attempts in 0..3 {
        let mutex = biased(&mapping, AT);
        let guard = mutex.lock().unwrap();
        for _ in 0..2 {
            for handle in [mutex.clone(), mapping.mutex(AT).unwrap()] {
                fails!(handle.lock(), LockError::Deadlock(_));
                fails!(handle.try_lock(), LockError::Deadlock(_));
                fails!(handle.lock_for(DEADLINE), LockError::Deadlock(_));
                fails!(handle.lock_recover(), LockError::Deadlock(_));
            }
            // Before and after the bias was revoked.
            if attempts > 0 {
                busy(other.try_lock());
                // The thread would wait for itself.
                fails!(other.lock_for(SHORT), LockError::Deadlock(_));
            }
        }
        guard.unlock().unwrap();
        if attempts == 2 {
            drop(at_once(other.try_lock()));
        }
        biased(&mapping, AT);
        drop(other.lock_for(DEADLINE).unwrap());
        biased(&mapping, AT);
        drop(other.lock().unwrap());
    }
}

#[test]
fn a_waiter_is_woken_by_the_thread_that_leaves_its_biased_mutex() {
    let (scratch, space, mapping) = ground();
    let theirs = mapped(&scratch.url);
    for how in ["unlock", "leave", "drop"] {
        let mutex = biased(&mapping, AT);
        let guard = mutex.lock().unwrap();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let mutex = theirs.mutex(AT).unwrap();
                match mutex.lock_recover_for(DEADLINE).unwrap() {
                    Recovered::Consistent(guard) => guard.unlock().map(|()| "clean").unwrap(),
                    Recovered::Inconsistent(guard) => {
                        guard.mark_consistent().unwrap().unlock().unwrap();
                        "owner died"
                    }
                }
            });
            crate::support::until_waiters(&space, "a", 1);
            match how {
                "unlock" => guard.unlock().unwrap(),
                "leave" => guard.leave_inconsistent().unwrap(),
                _ => drop(guard),
            }
            let told = if how == "leave" { "owner died" } else { "clean" };
            assert_eq!(waiter.join().unwrap(), told);
        });
    }
}

#[test]
fn a_thread_with_a_biased_mutex_in_each_of_two_spaces_enters_each_separately() {
    let (scratch, _space, mapping) = ground();
    let (elsewhere, _other_space, elsewhere_mapping) = ground();
    let mappings = [&mapping, &elsewhere_mapping];
    let theirs = [mapped(&scratch.url), mapped(&elsewhere.url)];
    let [one, two] = mappings.map(|mapping| mapping.mutex(AT).unwrap());
    let [others_one, others_two] = [&theirs[0], &theirs[1]].map(|it| it.mutex(AT).unwrap());
    for round in 0..4 * ALONE {
        if round % 3 == 0 {
            drop(one.lock().unwrap());
            drop(two.lock().unwrap());
            continue;
        }
        let outer = one.lock().unwrap();
        let inner = two.lock().unwrap();
        // Each is freed while the other space was the last that the thread has used.
        if round % 3 == 1 {
            drop((outer, inner));
        } else {
            drop((inner, outer));
        }
    }
    assert!(mappings.iter().all(|mapping| word(mapping, AT).is_biased()));
    let outer = one.lock().unwrap();
    let inner = two.lock().unwrap();
    fails!(one.lock(), LockError::Deadlock(_));
    busy(others_one.try_lock());
    busy(others_two.try_lock());
    drop(outer);
    drop(at_once(others_one.try_lock()));
    fails!(two.lock(), LockError::Deadlock(_));
    busy(others_two.try_lock());
    inner.unlock().unwrap();
    drop(at_once(others_two.try_lock()));
}

records! {
    struct Shelf {
        content: Mutex<u64>,
        changed: Condvar,
    }
}

fn habit(shared: &Shelf) {
    for _ in 0..ALONE {
        drop(shared.content.lock().unwrap());
    }
}

/// Enters the mutex by a bias when it is told to, and changes nothing.
fn notify_never(args: &[&str]) {
    let mapping = mapped(args[0]);
    let shared = mapping.open::<Shelf>(0).unwrap();
    say("ready");
    listen();
    habit(&shared);
    let _guard = shared.content.lock().unwrap();
    say("inside");
    stay();
}

#[test]
fn a_waiter_for_a_condition_gives_up_its_biased_mutex_and_gets_it_back() {
    let (scratch, space, mapping) = ground();
    let shared = mapping.open::<Shelf>(0).unwrap();
    let theirs = mapped(&scratch.url);
    let other = theirs.open::<Shelf>(0).unwrap();
    habit(&shared);
    let guard = shared.content.lock().unwrap();
    let (guard, waited) = shared.changed.wait_for(guard, SHORT).unwrap();
    assert_eq!(waited, Waited::TimedOut);
    busy(other.content.try_lock());
    fails!(shared.content.lock(), LockError::Deadlock(_));
    guard.unlock().unwrap();
    drop(at_once(other.content.try_lock()));
    habit(&shared);
    let guard = shared.content.lock().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            until_event_waiters(&space, 1);
            // By a bias of its own, which is not the owner that the waiter saw.
            habit(&other);
            other.content.lock().unwrap().set(5);
            other.changed.notify_one().unwrap();
        });
        let guard = shared.changed.wait_while(guard, |number| number.get() == 0).unwrap();
        busy(other.content.try_lock());
        drop(guard);
    });
    drop(at_once(other.content.try_lock()));
}

#[test]
fn a_waiter_learns_of_a_notifier_killed_inside_a_biased_mutex() {
    let (scratch, space, mapping) = ground();
    let shared = mapping.open::<Shelf>(0).unwrap();
    let mut notifier = ScriptedProcess::start("biased-condvar", &[&scratch.url]);
    notifier.says("ready");
    let pid = notifier.pid();
    habit(&shared);
    let guard = shared.content.lock().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            until_event_waiters(&space, 1);
            notifier.tell("go on");
            notifier.says("inside");
            notifier.kill();
        });
        let place = owner_died(shared.changed.wait_while(guard, |number| number.get() == 0));
        assert_eq!(place.owner.unwrap().pid, Some(pid));
    });
    // No thread holds it, and it can be repaired.
    owner_died(shared.content.try_lock());
    inconsistent(shared.content.lock_recover()).mark_consistent().unwrap().unlock().unwrap();
    drop(at_once(shared.content.try_lock()));
}

/// Enters one mutex by a bias, and takes another when it is told to.
fn want(args: &[&str]) {
    let mapping = mapped(args[0]);
    let [first, second] = [args[1], args[2]].map(|at| at.parse::<u64>().unwrap());
    let first = biased(&mapping, first);
    let _guard = first.lock().unwrap();
    say("has");
    listen();
    let second = mapping.mutex(second).unwrap();
    let _second = match second.lock() {
        Ok(guard) => {
            say("clean");
            Some(guard)
        }
        Err(LockError::OwnerDied(_)) => {
            say("owner died");
            None
        }
        Err(error) => panic!("{error}"),
    };
    stay();
}

#[test]
fn a_thread_inside_by_a_bias_is_shown_as_the_holder_that_others_wait_for() {
    let (scratch, space, mapping) = ground();
    let mut first = ScriptedProcess::start("biased-want", &[&scratch.url, "64", "128"]);
    let mut second = ScriptedProcess::start("biased-want", &[&scratch.url, "128", "64"]);
    first.says("has");
    second.says("has");
    first.tell("go on");
    until("a waiter and its owner", || {
        let graph = space.wait_graph().unwrap();
        assert!(graph.cycles.is_empty());
        let pid = |thread: &usize| graph.threads[*thread].pid;
        graph.waits.iter().any(|wait| {
            let lock = &graph.locks[wait.lock.unwrap()];
            wait.blockers.iter().map(pid).eq([second.pid()])
                && (pid(&wait.thread), lock.offset) == (first.pid(), Some(128))
                && lock.owner.as_ref().map(pid) == Some(second.pid())
        })
    });
    let locks = space.locks().unwrap();
    let lock = locks.iter().find(|lock| lock.offset == Some(128)).unwrap();
    assert_eq!(lock.kind, commonhold::LockKind::Exclusive);
    assert_eq!(lock.holder.as_ref().map(|holder| holder.pid), Some(second.pid()));
    second.tell("go on");
    until("a circle", || {
        let cycles = space.wait_graph().unwrap().cycles;
        cycles.len() == 1 && cycles[0].waits.len() == 2
    });
    second.kill();
    first.says("owner died");
    busy(mapping.mutex(64).unwrap().try_lock());
    first.succeed();
}

#[test]
fn a_fenced_thread_inside_a_biased_mutex_loses_it_and_frees_it_for_no_one_else() {
    let (scratch, space, mapping) = ground();
    let [theirs, third] = [mapped(&scratch.url), mapped(&scratch.url)];
    let mutex = biased(&mapping, AT);
    let at = place_of(&mapping, false);
    let outside = biased(&mapping, at);
    let guard = mutex.lock().unwrap();
    let third_mutex = mapping.mutex(place_of(&mapping, true)).unwrap();
    third_mutex.lock().unwrap().leave_inconsistent().unwrap();
    let left = inconsistent(third_mutex.lock_recover());
    fence_me(&scratch, &space);
    fails!(outside.lock(), LockError::Fenced);
    drop(at_once(theirs.mutex(at).unwrap().try_lock()));
    told_until_repaired(&theirs.mutex(AT).unwrap());
    fails!(left.mark_consistent(), LockError::Fenced);
    fails!(mutex.lock(), LockError::Fenced);
    let its = biased(&theirs, AT);
    let held = its.lock().unwrap();
    assert!(word(&theirs, AT).is_biased());
    fails!(guard.unlock(), LockError::Fenced);
    fails!(mutex.lock(), LockError::Fenced);
    fails!(mutex.try_lock(), LockError::Fenced);
    busy(third.mutex(AT).unwrap().try_lock());
    held.unlock().unwrap();
    drop(at_once(third.mutex(AT).unwrap().try_lock()));
}
