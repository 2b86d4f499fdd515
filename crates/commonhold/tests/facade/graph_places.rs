//! Waits for semaphores and barriers in the wait graph, and when they are deadlocks.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use commonhold::{
    Access, Barrier, Mapping, Participant, Semaphore, Space, Wait, WaitGraph, WaitKind,
};
use commonhold_layout::{
    LockFlags, LockWord, Offset, Owner, PeerId, Pending, PendingKind, RecordKind, RecordTag,
    ThreadId,
};

use crate::{
    graph::{Opened, circle, expected, ground, until_circle},
    support::{Role, Scratch, ScriptedProcess, listen, say, stay, until},
};

pub(crate) const ROLES: &[Role] = &[("graph-places", steps)];

/// Where the semaphore and the barrier of the tests lie.
const PERMITS: u64 = 64;
const PARTIES: u64 = 1024;

/// Takes the lock or permit of each step when it is told to, and keeps all of them.
fn steps(args: &[&str]) {
    let space = Space::open(args[0]).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    step(&mapping, &args[1..], None);
}

/// Steps: `mutex 8` (at offset 8), `permit 2` (of a semaphore with 2), `spend 2`, `join 3` (a barrier for 3),
/// `arrive`, and `meet` (arrive and wait).
fn step(mapping: &Mapping, steps: &[&str], party: Option<&Participant<'_>>) {
    let Some((what, rest)) = steps.split_first() else { return stay() };
    let next = |party: Option<&Participant<'_>>| {
        say("has");
        listen();
        step(mapping, rest, party);
    };
    let (verb, number) = what.split_once(' ').unwrap_or((what, "0"));
    let number: u16 = number.parse().unwrap();
    let semaphore = || Semaphore::open_with(mapping, PERMITS, number.into()).unwrap();
    match verb {
        "mutex" => {
            let mutex = mapping.mutex(number.into()).unwrap();
            let Ok(_guard) = mutex.lock() else { return stay() };
            next(party);
        }
        "permit" => {
            // When the test is over, its processes die one after the other.
            let semaphore = semaphore();
            let Ok(_permit) = semaphore.acquire() else { return stay() };
            next(party);
        }
        "spend" => {
            semaphore().acquire().unwrap().spend().unwrap();
            next(party);
        }
        "join" => {
            let barrier = Barrier::open_with(mapping, PARTIES, number.into()).unwrap();
            next(Some(&barrier.join().unwrap()));
        }
        "arrive" => {
            party.unwrap().arrive().unwrap();
            next(party);
        }
        "meet" => {
            let Ok(_) = party.unwrap().wait() else { return stay() };
            next(party);
        }
        other => panic!("no step {other}"),
    }
}

/// A process that has taken all of its steps but the last.
fn before_last(url: &str, steps: &[&str]) -> ScriptedProcess {
    let args: Vec<_> = [url].into_iter().chain(steps.iter().copied()).collect();
    let mut actor = ScriptedProcess::start("graph-places", &args);
    for _ in 2..steps.len() {
        actor.says("has");
        actor.tell("go on");
    }
    actor.says("has");
    actor
}

/// Starts all processes, and then lets each take its last step.
fn crowd<const N: usize>(url: &str, of: [&[&str]; N]) -> [ScriptedProcess; N] {
    let mut actors = of.map(|steps| before_last(url, steps));
    for actor in &mut actors {
        actor.tell("go on");
    }
    actors
}

fn pids(graph: &WaitGraph, wait: &Wait) -> Vec<u32> {
    let mut pids: Vec<_> = wait.blockers.iter().map(|thread| graph.threads[*thread].pid).collect();
    pids.sort_unstable();
    pids
}

fn sorted<const N: usize>(actors: [&ScriptedProcess; N]) -> Vec<u32> {
    let mut pids = actors.map(ScriptedProcess::pid).to_vec();
    pids.sort_unstable();
    pids
}

/// Looks until one look shows all of these waits. Returns whether other threads could end them.
#[track_caller]
fn until_waiting(
    space: &Space,
    wishes: &[(&ScriptedProcess, WaitKind, &[&ScriptedProcess])],
) -> (WaitGraph, Vec<bool>) {
    let mut graph = WaitGraph::default();
    let mut open = Vec::new();
    until("them to wait", || {
        graph = space.wait_graph().unwrap();
        open = wishes
            .iter()
            .filter_map(|(actor, kind, blockers)| {
                let mut blockers: Vec<_> = blockers.iter().map(|actor| actor.pid()).collect();
                blockers.sort_unstable();
                let wait = graph.waits.iter().find(|wait| {
                    wait.confirmed
                        && wait.kind == *kind
                        && graph.threads[wait.thread].pid == actor.pid()
                });
                wait.filter(|wait| pids(&graph, wait) == blockers).map(|wait| wait.open)
            })
            .collect();
        open.len() == wishes.len()
    });
    (graph, open)
}

#[test]
fn a_waiter_for_a_permit_waits_for_its_holders_and_a_circle_of_two_is_found() {
    let scratch = Scratch::formatted();
    let space = ground(&scratch.url);
    let [one, two] = crowd(&scratch.url, [&["permit 1", "mutex 8"], &["mutex 8", "permit 1"]]);
    let graph = until_circle(&space, 2);
    assert_eq!(
        circle(&graph),
        expected(&[(&one, WaitKind::Exclusive, "a+8"), (&two, WaitKind::Permit, "a+64")])
    );
    let lock = graph.locks.iter().find(|lock| lock.offset == Some(PERMITS)).unwrap();
    assert_eq!((lock.record, &lock.owner), (Some(RecordKind::Semaphore), &None));
    one.kill();
    until("no circle", || space.wait_graph().unwrap().cycles.is_empty());
}

#[test]
fn a_circle_over_a_permit_is_a_deadlock_only_if_no_other_holder_can_go_on() {
    let scratch = Scratch::formatted();
    let space = ground(&scratch.url);
    let waiter = before_last(&scratch.url, &["mutex 8", "mutex 16", "permit 2"]);
    let (mut waiter, [one]) = (waiter, crowd(&scratch.url, [&["permit 2", "mutex 8"]]));
    let mut other = before_last(&scratch.url, &["permit 2", "mutex 16"]);
    waiter.tell("go on");
    let waits: [(_, _, &[_]); 2] =
        [(&waiter, WaitKind::Permit, &[&one, &other]), (&one, WaitKind::Exclusive, &[&waiter])];
    let (graph, open) = until_waiting(&space, &waits);
    assert!(graph.cycles.is_empty(), "{graph:?}");
    assert_eq!(open, [false, false]);
    other.tell("go on");
    let mut graph = WaitGraph::default();
    until("two circles", || {
        graph = space.wait_graph().unwrap();
        graph.cycles.len() == 2
    });
    // Each holder is in one circle, and the waiter in both.
    for cycle in &graph.cycles {
        let kinds: Vec<_> = cycle.waits.iter().map(|wait| graph.waits[*wait].kind).collect();
        assert!(
            kinds.len() == 2
                && kinds.contains(&WaitKind::Permit)
                && kinds.contains(&WaitKind::Exclusive)
        );
    }
}

#[test]
fn a_holder_that_waits_for_a_running_thread_makes_no_deadlock() {
    let scratch = Scratch::formatted();
    let space = ground(&scratch.url);
    let mut free = before_last(&scratch.url, &["mutex 16", "mutex 24"]);
    let [waiter, one, other] = crowd(
        &scratch.url,
        [&["mutex 8", "permit 3"], &["permit 3", "mutex 8"], &["permit 3", "permit 3", "mutex 16"]],
    );
    let waits: [(_, _, &[_]); 3] = [
        (&waiter, WaitKind::Permit, &[&one, &other]),
        (&one, WaitKind::Exclusive, &[&waiter]),
        (&other, WaitKind::Exclusive, &[&free]),
    ];
    let (graph, _) = until_waiting(&space, &waits);
    assert!(graph.cycles.is_empty(), "{graph:?}");
    free.tell("go on");
    free.says("has");
    assert!(space.wait_graph().unwrap().cycles.is_empty());
}

#[test]
fn two_holders_that_each_want_a_second_permit_are_a_deadlock() {
    let scratch = Scratch::formatted();
    let space = ground(&scratch.url);
    let [one, two] = crowd(&scratch.url, [&["permit 2", "permit 2"], &["permit 2", "permit 2"]]);
    let both = sorted([&one, &two]);
    let graph = until_circle(&space, 2);
    assert_eq!(
        circle(&graph),
        expected(&[(&one, WaitKind::Permit, "a+64"), (&two, WaitKind::Permit, "a+64")])
    );
    assert!(graph.waits.iter().all(|wait| pids(&graph, wait) == both), "{graph:?}");
}

#[test]
fn a_semaphore_with_a_spent_permit_is_in_no_circle() {
    let scratch = Scratch::formatted();
    let space = ground(&scratch.url);
    let [waiter, one] =
        crowd(&scratch.url, [&["spend 2", "mutex 8", "permit 2"], &["permit 2", "mutex 8"]]);
    let waits: [(_, _, &[_]); 2] =
        [(&waiter, WaitKind::Permit, &[&one]), (&one, WaitKind::Exclusive, &[&waiter])];
    let (graph, open) = until_waiting(&space, &waits);
    assert!(graph.cycles.is_empty(), "{graph:?}");
    assert_eq!(open, [true, false]);
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    Semaphore::open_with(&mapping, PERMITS, 2).unwrap().give().unwrap();
    waiter.says("has");
}

#[test]
fn a_waiter_at_a_barrier_waits_for_participants_that_have_not_arrived_in_its_phase() {
    let scratch = Scratch::formatted();
    let space = ground(&scratch.url);
    let mut one = before_last(&scratch.url, &["join 3", "meet"]);
    let mut two = before_last(&scratch.url, &["join 3", "arrive"]);
    one.tell("go on");
    // The participant of the third slot is not known yet.
    let (_, open) = until_waiting(&space, &[(&one, WaitKind::Participants, &[&two])]);
    assert_eq!(open, [false]);
    two.tell("go on");
    two.says("has");
    until_waiting(&space, &[(&one, WaitKind::Participants, &[])]);
    let mut three = before_last(&scratch.url, &["join 3", "meet"]);
    until_waiting(&space, &[(&one, WaitKind::Participants, &[&three])]);
    three.tell("go on");
    for passed in [&one, &three] {
        passed.says("has");
    }
    assert!(space.wait_graph().unwrap().waits.is_empty());
}

/// Also in an odd phase, which uses another mark.
#[test]
fn a_circle_of_a_mutex_and_a_barrier_is_found_in_any_phase() {
    for phase in 0..3 {
        let scratch = Scratch::formatted();
        let space = ground(&scratch.url);
        let phases = vec!["meet"; phase];
        let [one, two] = [&["mutex 8", "join 2"][..], &["join 2"]];
        let [one, two] =
            [[one, &phases, &["meet"]].concat(), [two, &phases, &["mutex 8"]].concat()];
        let args = |steps: &[&'static str]| [&[scratch.url.as_str()], steps].concat();
        let mut one = ScriptedProcess::start("graph-places", &args(&one));
        one.says("has");
        one.tell("go on");
        let mut two = ScriptedProcess::start("graph-places", &args(&two));
        for _ in 0..=phase {
            one.says("has");
            two.says("has");
            one.tell("go on");
            two.tell("go on");
        }
        let graph = until_circle(&space, 2);
        assert_eq!(
            circle(&graph),
            expected(&[
                (&one, WaitKind::Participants, "a+1024"),
                (&two, WaitKind::Exclusive, "a+8")
            ])
        );
    }
}

#[test]
fn a_thread_that_waits_for_its_own_second_slot_of_a_barrier_is_a_deadlock() {
    let scratch = Scratch::formatted();
    let space = ground(&scratch.url);
    let [one] = crowd(&scratch.url, [&["join 2", "join 2", "meet"]]);
    let graph = until_circle(&space, 1);
    assert_eq!(circle(&graph), expected(&[(&one, WaitKind::Participants, "a+1024")]));
}

/// The work that a thread repeats until it is told to stop.
type Busy = fn(&Mapping, &Stop);

#[derive(Default)]
struct Stop {
    asked: AtomicBool,
    /// Participants must stop after the same round.
    agreed: AtomicBool,
}

/// Looks again and again while threads are busy; no look may show a circle.
fn look_while_busy(threads: &[Busy]) {
    const LOOKS: usize = 4000;
    let scratch = Scratch::formatted();
    let space = ground(&scratch.url);
    let stop = Stop::default();
    let mut confirmed = 0;
    let mut circle = None;
    thread::scope(|scope| {
        for busy in threads {
            let (scratch, stop) = (&scratch, &stop);
            scope.spawn(move || busy(&scratch.open().map("a", Access::ReadWrite).unwrap(), stop));
        }
        for _ in 0..LOOKS {
            let graph = space.wait_graph().unwrap();
            let of_places = |kind| matches!(kind, WaitKind::Permit | WaitKind::Participants);
            let found = |wait: &&Wait| wait.confirmed && of_places(wait.kind);
            confirmed += graph.waits.iter().filter(found).count();
            if !graph.cycles.is_empty() {
                circle = Some(graph);
                break;
            }
        }
        stop.asked.store(true, Ordering::SeqCst);
    });
    assert!(circle.is_none(), "{circle:?}");
    assert!(confirmed > 0);
}

#[test]
fn a_busy_semaphore_whose_permits_suffice_never_shows_a_circle() {
    fn permits(mapping: &Mapping) -> Semaphore {
        Semaphore::open_with(mapping, PERMITS, 2).unwrap()
    }
    let permit_first: Busy = |mapping, stop| {
        let (permits, mutex) = (permits(mapping), mapping.mutex(8).unwrap());
        while !stop.asked.load(Ordering::SeqCst) {
            let _permit = permits.acquire().unwrap();
            let _guard = mutex.lock().unwrap();
        }
    };
    let mutex_first: Busy = |mapping, stop| {
        let (permits, mutex) = (permits(mapping), mapping.mutex(8).unwrap());
        while !stop.asked.load(Ordering::SeqCst) {
            let _guard = mutex.lock().unwrap();
            let _permit = permits.acquire().unwrap();
        }
    };
    // The threads always give their permits back.
    let permit_only: Busy = |mapping, stop| {
        let permits = permits(mapping);
        while !stop.asked.load(Ordering::SeqCst) {
            drop(permits.acquire().unwrap());
        }
    };
    look_while_busy(&[permit_first, mutex_first, permit_only, permit_only, permit_only]);
}

/// One thread holds the mutex while it waits for the others, which want the mutex as soon as they have met.
#[test]
fn a_busy_barrier_whose_participants_meet_before_they_lock_never_shows_a_circle() {
    fn barrier(mapping: &Mapping) -> Barrier {
        Barrier::open_with(mapping, PARTIES, 3).unwrap()
    }
    let holder: Busy = |mapping, stop| {
        let (barrier, mutex) = (barrier(mapping), mapping.mutex(8).unwrap());
        let party = barrier.join().unwrap();
        while !stop.agreed.load(Ordering::SeqCst) {
            let guard = mutex.lock().unwrap();
            party.wait().unwrap();
            drop(guard);
            stop.agreed.store(stop.asked.load(Ordering::SeqCst), Ordering::SeqCst);
            party.wait().unwrap();
        }
    };
    let other: Busy = |mapping, stop| {
        let (barrier, mutex) = (barrier(mapping), mapping.mutex(8).unwrap());
        let party = barrier.join().unwrap();
        while !stop.agreed.load(Ordering::SeqCst) {
            party.wait().unwrap();
            drop(mutex.lock().unwrap());
            party.wait().unwrap();
        }
    };
    look_while_busy(&[holder, other, other]);
}

/// A record whose words the test writes directly. This thread announces that it waits for it.
struct Forged {
    opened: Opened,
    space: Space,
    at: u64,
}

impl Forged {
    fn new() -> Self {
        let opened = Opened::new();
        let space = ground(&opened.url);
        let at = opened.geometry.data().start().get();
        let lock = Offset::new(at).unwrap();
        let pending = Pending { kind: PendingKind::Event, lock };
        opened.announce(space.peer().0, 0, pending.word());
        Self { opened, space, at }
    }

    fn me(&self) -> LockWord {
        self.opened.owner(self.space.peer().0, 0).word()
    }

    /// The wait that is seen for a record with this event and these slots.
    fn look(&self, kind: RecordKind, event: u64, places: &[LockWord]) -> WaitGraph {
        let size = 8 * places.len() as u32;
        self.opened.write(self.at, event);
        self.opened.write(self.at + 8, RecordTag { kind, size }.word());
        for (place, word) in places.iter().enumerate() {
            self.opened.write(self.at + 16 + 8 * place as u64, word.word());
        }
        self.space.wait_graph().unwrap()
    }
}

impl Drop for Forged {
    fn drop(&mut self) {
        self.opened.announce(self.space.peer().0, 0, 0);
    }
}

/// The second slot of a thread, which never arrives, makes a deadlock of one thread, if no other thread can end it.
#[test]
fn a_barrier_that_lost_a_participant_is_in_no_circle() {
    let forged = Forged::new();
    let [even, odd] = LockWord::ARRIVED;
    let mine = [forged.me().with_flags(even), forged.me()];
    let gave_up = LockWord::unowned(LockFlags::INCONSISTENT);
    let dead = Owner::new(PeerId::new(60_000), 7, ThreadId::FIRST).unwrap().word();
    let third = |third: LockWord| {
        let graph = forged.look(RecordKind::Barrier, 0, &[mine[0], mine[1], third]);
        let [wait] = &graph.waits[..] else { panic!("{graph:?}") };
        assert_eq!((wait.kind, wait.open), (WaitKind::Participants, graph.cycles.is_empty()));
        graph.cycles.len()
    };
    assert_eq!(third(LockWord::FREE), 1);
    assert_eq!([third(gave_up), third(dead)], [0, 0]);
    // They have arrived.
    let arrived = LockFlags::INCONSISTENT.with(even);
    assert_eq!([third(LockWord::unowned(arrived)), third(dead.with_flags(even))], [1, 1]);
    // They arrived in the phase before.
    assert_eq!([third(gave_up.with_flags(odd)), third(dead.with_flags(odd))], [1, 0]);
}

#[test]
fn a_waiter_whose_phase_has_passed_waits_for_no_thread() {
    let forged = Forged::new();
    let [even, odd] = LockWord::ARRIVED;
    let places = [forged.me().with_flags(even), forged.me().with_flags(odd)];
    for (event, waits) in [(0, 1), (1, 1), (2, 1), (4, 1)] {
        let graph = forged.look(RecordKind::Barrier, event, &places);
        assert_eq!((graph.waits.len(), graph.cycles.len()), (waits, 1), "{event}: {graph:?}");
    }
    for (event, places) in [(2, [places[0]; 2]), (4, [places[1]; 2])] {
        let graph = forged.look(RecordKind::Barrier, event, &places);
        assert!(graph.waits.is_empty(), "{event}: {graph:?}");
    }
}

#[test]
fn impossible_slots_are_ignored() {
    let forged = Forged::new();
    for kind in [RecordKind::Semaphore, RecordKind::Barrier] {
        let mine = vec![forged.me(); 66];
        for count in [0, 65, 66] {
            let graph = forged.look(kind, 0, &mine[..count]);
            let [wait] = &graph.waits[..] else { panic!("{graph:?}") };
            assert!(graph.cycles.is_empty() && wait.blockers.is_empty(), "{count}: {graph:?}");
        }
        for size in [1, 7, 4096, u32::MAX] {
            forged.opened.write(forged.at + 8, RecordTag { kind, size }.word());
            let graph = forged.space.wait_graph().unwrap();
            assert!(graph.cycles.is_empty(), "{size}: {graph:?}");
        }
        for word in [u64::MAX, 1, 7 << 32, 1 << 63, u64::MAX >> 1] {
            let words = [LockWord::from_word(word); 64];
            let graph = forged.look(kind, word, &words);
            assert!(graph.cycles.is_empty(), "{word:#x}: {graph:?}");
        }
    }
}
