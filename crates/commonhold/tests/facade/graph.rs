//! The wait graph of real processes: deadlocks that exist are found, and no others.

use std::{
    fs,
    os::unix::fs::FileExt,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use commonhold::{Access, Destroy, Mapping, RecordKind, RwLock, Space, WaitGraph, WaitKind};
use commonhold_layout::{
    Geometry, LockWord, Offset, Owner, PeerId, Pending, PendingKind, RegionId, ThreadId,
    ThreadLife, header_word, region_word, thread_word,
};

use crate::support::{Folder, Role, Scratch, ScriptedProcess, listen, say, stay, until};

pub(crate) const ROLES: &[Role] = &[("graph-party", party), ("graph-creator", creator)];

/// Takes the first lock, and takes the second when it is told to.
fn party(args: &[&str]) {
    let space = Space::open(args[0]).unwrap();
    let [first, second] = [args[1], args[2]].map(|what| {
        let region = what.rsplit(' ').next().unwrap().split(['+', '=']).next().unwrap();
        (what, space.map(region, Access::ReadWrite).unwrap())
    });
    with(first.0, &first.1, || {
        say("has");
        listen();
        with(second.0, &second.1, || say("has both"));
        stay();
    });
}

/// `a`, `read a`, or `a+8`, a mutex; `a=8`, a lock with its data, which can be read, written, or upgraded.
fn with(what: &str, mapping: &Mapping, run: impl FnOnce()) {
    if let Some((how, offset)) = what.split_once('=') {
        let lock = mapping.open::<RwLock<u64>>(offset.parse().unwrap()).unwrap();
        if how.starts_with("read ") {
            let _guard = lock.read().unwrap();
            run();
        } else if how.starts_with("upgrade ") {
            let mut guard = lock.upgradable_read().unwrap();
            let _guard = guard.upgrade().unwrap();
            run();
        } else {
            let _guard = lock.write().unwrap();
            run();
        }
    } else if what.starts_with("read ") {
        let _guard = mapping.read_lock().unwrap();
        run();
    } else if let Some((_, offset)) = what.split_once('+') {
        let mutex = mapping.mutex(offset.parse().unwrap()).unwrap();
        let _guard = mutex.lock().unwrap();
        run();
    } else {
        let _guard = mapping.lock().unwrap();
        run();
    }
}

fn creator(args: &[&str]) {
    let space = Space::open(args[0]).unwrap();
    let mapping = space.map("b", Access::ReadWrite).unwrap();
    let _guard = mapping.lock().unwrap();
    say("has");
    listen();
    let _ = space.create("new", 64);
    stay();
}

pub(crate) fn ground(url: &str) -> Space {
    let space = Space::open(url).unwrap();
    for name in ["a", "b", "c"] {
        space.create(name, 4096).unwrap();
    }
    space
}

/// Processes that hold their first locks, and then take their second ones.
fn parties(url: &str, wishes: &[[&str; 2]]) -> Vec<ScriptedProcess> {
    let start = |[first, second]: &[&str; 2]| {
        let actor = ScriptedProcess::start("graph-party", &[url, first, second]);
        actor.says("has");
        actor
    };
    let mut actors: Vec<_> = wishes.iter().map(start).collect();
    for actor in &mut actors {
        actor.tell("go on");
    }
    actors
}

/// Waits for a circle of so many.
#[track_caller]
pub(crate) fn until_circle(space: &Space, of: usize) -> WaitGraph {
    let mut graph = space.wait_graph().unwrap();
    until("a circle", || {
        graph = space.wait_graph().unwrap();
        graph.cycles.iter().any(|cycle| cycle.waits.len() == of)
    });
    graph
}

/// The processes of a circle, from the one with the least number on, and how each waits.
pub(crate) fn circle(graph: &WaitGraph) -> Vec<(u32, WaitKind, String)> {
    let [cycle] = &graph.cycles[..] else { panic!("{:?}", graph.cycles) };
    let mut steps: Vec<_> = cycle
        .waits
        .iter()
        .map(|wait| {
            let wait = &graph.waits[*wait];
            assert!(wait.confirmed);
            let lock = &graph.locks[wait.lock.unwrap()];
            let region = lock.region.clone().unwrap_or("directory".to_owned());
            let offset = lock.offset.map_or(String::new(), |offset| format!("+{offset}"));
            (graph.threads[wait.thread].pid, wait.kind, region + &offset)
        })
        .collect();
    let least = (0..steps.len()).min_by_key(|step| steps[*step].0).unwrap();
    steps.rotate_left(least);
    steps
}

/// The expected waits: each process waits for the next, with this kind and lock.
pub(crate) fn expected(
    steps: &[(&ScriptedProcess, WaitKind, &str)],
) -> Vec<(u32, WaitKind, String)> {
    let mut steps: Vec<_> =
        steps.iter().map(|(actor, kind, lock)| (actor.pid(), *kind, (*lock).to_owned())).collect();
    let least = (0..steps.len()).min_by_key(|step| steps[*step].0).unwrap();
    steps.rotate_left(least);
    steps
}

use WaitKind::{Exclusive, Readers, Shared};

#[test]
fn two_processes_that_want_each_others_locks_are_a_circle_until_one_is_killed() {
    let scratch = Scratch::formatted();
    let space = ground(&scratch.url);
    let mut actors = parties(&scratch.url, &[["a", "b"], ["b", "a"]]);
    let graph = until_circle(&space, 2);
    let [one, two] = &actors[..] else { panic!() };
    assert_eq!(circle(&graph), expected(&[(one, Exclusive, "b"), (two, Exclusive, "a")]));
    let thread = &graph.threads[graph.waits[0].thread];
    assert_eq!(thread.tid != 0, thread.thread.is_some());
    actors.remove(0).kill();
    // Dead threads wait for nothing, and others soon stop waiting for them.
    until("no circle", || space.wait_graph().unwrap().cycles.is_empty());
}

#[test]
fn three_processes_in_a_circle_are_found_across_region_locks_and_mutexes() {
    let scratch = Scratch::formatted();
    let space = ground(&scratch.url);
    let wishes = [["a", "b+16"], ["b+16", "c"], ["c", "a"], ["b", "a"]];
    let actors = parties(&scratch.url, &wishes);
    let graph = until_circle(&space, 3);
    let steps = [
        (&actors[0], Exclusive, "b+16"),
        (&actors[1], Exclusive, "c"),
        (&actors[2], Exclusive, "a"),
    ];
    assert_eq!(circle(&graph), expected(&steps));
    // The fourth waits for a circle and is not part of it.
    until("the fourth", || space.wait_graph().unwrap().waits.len() == 4);
    assert_eq!(space.wait_graph().unwrap().cycles.len(), 1);
}

#[test]
fn a_writer_and_a_reader_that_wait_for_each_other_are_a_circle() {
    let scratch = Scratch::formatted();
    let space = ground(&scratch.url);
    let actors = parties(&scratch.url, &[["read a", "b"], ["b", "a"]]);
    let graph = until_circle(&space, 2);
    let steps = [(&actors[0], Exclusive, "b"), (&actors[1], Readers, "a")];
    assert_eq!(circle(&graph), expected(&steps));
    // A later reader waits for the writer, and is not in the circle.
    let _newcomer = parties(&scratch.url, &[["c", "read a"]]);
    until("the newcomer", || {
        space.wait_graph().unwrap().waits.iter().any(|wait| wait.kind == Shared)
    });
    let graph = until_circle(&space, 2);
    assert_eq!(circle(&graph), expected(&steps));
}

#[test]
fn a_writer_of_a_lock_with_data_waits_for_its_readers_and_not_for_an_event() {
    for wish in ["a=64", "upgrade a=64"] {
        let scratch = Scratch::formatted();
        let space = ground(&scratch.url);
        let actors = parties(&scratch.url, &[["read a=64", "b"], ["b", wish]]);
        let graph = until_circle(&space, 2);
        let steps = [(&actors[0], Exclusive, "b"), (&actors[1], Readers, "a+64")];
        assert_eq!(circle(&graph), expected(&steps));
        let lock = graph.locks.iter().find(|lock| lock.offset == Some(64)).unwrap();
        assert_eq!(lock.record, Some(RecordKind::RwLock));
        let pid = |thread: &usize| graph.threads[*thread].pid;
        assert_eq!(lock.owner.as_ref().map(pid), Some(actors[1].pid()));
        assert_eq!(lock.readers.iter().map(pid).collect::<Vec<_>>(), [actors[0].pid()]);
        // A later reader waits for the writer.
        let newcomer = parties(&scratch.url, &[["c", "read a=64"]]);
        until("the newcomer", || {
            let graph = space.wait_graph().unwrap();
            let waits = |wait: &&commonhold::Wait| wait.kind == Shared;
            graph.waits.iter().find(waits).is_some_and(|wait| {
                let blockers = wait.blockers.iter().map(|thread| graph.threads[*thread].pid);
                blockers.eq([actors[1].pid()])
            })
        });
        let graph = until_circle(&space, 2);
        assert_eq!(circle(&graph), expected(&steps));
        drop(newcomer);
    }
}

#[test]
fn a_writer_does_not_wait_for_readers_of_another_lock_with_data() {
    let scratch = Scratch::formatted();
    let space = ground(&scratch.url);
    let wishes = [["read a=64", "b"], ["read a=128", "c"], ["b", "a=128"]];
    let actors = parties(&scratch.url, &wishes);
    until("the writer", || {
        let graph = space.wait_graph().unwrap();
        assert!(graph.cycles.is_empty());
        graph.waits.iter().any(|wait| {
            let blockers: Vec<_> =
                wait.blockers.iter().map(|thread| graph.threads[*thread].pid).collect();
            wait.kind == Readers && blockers == [actors[1].pid()]
        })
    });
}

#[test]
fn a_writer_and_two_readers_that_wait_for_each_other_are_two_circles() {
    let scratch = Scratch::formatted();
    let space = ground(&scratch.url);
    let _actors = parties(&scratch.url, &[["read a", "b"], ["read a", "b"], ["b", "a"]]);
    until("two circles", || {
        let graph = space.wait_graph().unwrap();
        assert!(graph.cycles.len() <= 2);
        graph.cycles.len() == 2
    });
}

#[test]
fn a_single_waiter_is_no_circle_and_waits_for_events_and_destructions_are_shown() {
    let scratch = Scratch::formatted();
    let space = ground(&scratch.url);
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    let guard = mapping.lock().unwrap();
    let other = scratch.open();
    thread::scope(|scope| {
        scope.spawn(|| drop(other.map("a", Access::ReadWrite).unwrap().lock().unwrap()));
        scope.spawn(|| {
            let mapping = other.map("b", Access::ReadWrite).unwrap();
            mapping.event(8).unwrap().wait(0).unwrap();
            drop(mapping);
            // Only this process maps it.
            other.destroy("c", Destroy::Wait).unwrap();
        });
        let of_kind = |kind| {
            let graph = space.wait_graph().unwrap();
            assert!(graph.cycles.is_empty());
            let wait = graph.waits.iter().find(|wait| wait.kind == kind).cloned();
            wait.map(|wait| (graph, wait))
        };
        let mut seen = None;
        until("the waiter", || {
            seen = of_kind(Exclusive).filter(|(_, wait)| !wait.blockers.is_empty());
            seen.is_some()
        });
        let (graph, wait) = seen.take().unwrap();
        let holder = &graph.threads[wait.blockers[0]];
        assert_eq!((holder.slot, holder.generation), space.peer());
        until("the event", || {
            seen = of_kind(WaitKind::Event);
            seen.is_some()
        });
        let (graph, wait) = seen.take().unwrap();
        assert_eq!(graph.locks[wait.lock.unwrap()].offset, Some(8));
        assert!(wait.blockers.is_empty() && graph.locks[wait.lock.unwrap()].owner.is_none());
        let third = space.map("c", Access::ReadWrite).unwrap();
        space.map("b", Access::ReadWrite).unwrap().event(8).unwrap().signal().unwrap();
        until("the destroyer", || {
            seen = of_kind(WaitKind::Mappings);
            seen.is_some()
        });
        let (graph, wait) = seen.take().unwrap();
        let mapper = &graph.threads[wait.blockers[0]];
        assert_eq!(
            (mapper.slot, mapper.generation, mapper.thread),
            (space.peer().0, space.peer().1, None)
        );
        drop((third, guard));
    });
    assert!(space.wait_graph().unwrap().waits.is_empty());
}

#[test]
fn a_busy_space_whose_locks_are_taken_in_order_never_shows_a_circle() {
    const LOOKS: usize = 4000;
    let scratch = Scratch::formatted();
    let space = ground(&scratch.url);
    let done = AtomicBool::new(false);
    let round = |mappings: &[Mapping; 2], number: usize| {
        let [a, b] = mappings;
        let mutexes = mappings.each_ref().map(|mapping| mapping.mutex(8).unwrap());
        let [first, second] = mutexes.each_ref().map(|mutex| mutex.lock().unwrap());
        drop(second);
        drop(first);
        if number.is_multiple_of(3) {
            let first = a.lock().unwrap();
            let _second = b.read_lock().unwrap();
            drop(first);
        } else {
            let _first = a.read_lock().unwrap();
            let _second = b.lock().unwrap();
        }
    };
    let (mut waits, mut confirmed) = (0, 0);
    thread::scope(|scope| {
        for number in 0..8 {
            let (done, scratch) = (&done, &scratch);
            scope.spawn(move || {
                let space = scratch.open();
                let mappings = ["a", "b"].map(|name| space.map(name, Access::ReadWrite).unwrap());
                while !done.load(Ordering::Relaxed) {
                    round(&mappings, number);
                }
            });
        }
        let looks = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..LOOKS {
                let graph = space.wait_graph().unwrap();
                assert!(graph.cycles.is_empty(), "{graph:?}");
                waits += graph.waits.len();
                confirmed += graph.waits.iter().filter(|wait| wait.confirmed).count();
            }
        }));
        done.store(true, Ordering::Relaxed);
        if let Err(panic) = looks {
            std::panic::resume_unwind(panic);
        }
    });
    // Some waits end between the two looks, and some do not.
    assert!(
        waits > LOOKS && confirmed > 0 && confirmed < waits,
        "{waits} waits, {confirmed} of them confirmed"
    );
}

/// A space in a file, whose words the test writes directly.
pub(crate) struct Opened {
    file: fs::File,
    pub(crate) geometry: Geometry,
    pub(crate) url: String,
    _folder: Folder,
}

impl Opened {
    pub(crate) fn new() -> Self {
        let folder = Folder::new();
        let url = folder.url("space");
        Space::format(&url, &Scratch::tiny()).unwrap();
        let path = folder.0.join("space");
        let file = fs::File::options().read(true).write(true).open(path).unwrap();
        let mut bytes = [0; 8 * 32];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let claims: [u64; 32] = std::array::from_fn(|word| {
            u64::from_le_bytes(bytes[8 * word..8 * word + 8].try_into().unwrap())
        });
        let geometry = Geometry::check(&claims, file.metadata().unwrap().len()).unwrap();
        Self { file, geometry, url, _folder: folder }
    }

    pub(crate) fn write(&self, at: u64, word: u64) {
        self.file.write_all_at(&word.to_le_bytes(), at).unwrap();
    }

    fn thread(&self, peer: u16, thread: u16) -> u64 {
        let thread = ThreadId::new(thread).unwrap();
        self.geometry.thread(PeerId::new(peer), thread).unwrap().get()
    }

    fn region(&self, index: u32) -> u64 {
        self.geometry.region(RegionId::new(index)).unwrap().get()
    }

    /// The thread that has a slot now, as owner of a lock.
    pub(crate) fn owner(&self, peer: u16, thread: u16) -> Owner {
        let mut life = [0; 8];
        self.file.read_exact_at(&mut life, self.thread(peer, thread)).unwrap();
        let life = ThreadLife::from_word(u64::from_le_bytes(life));
        let thread = ThreadId::new(thread).unwrap();
        Owner::new(PeerId::new(peer), life.incarnation(), thread).unwrap()
    }

    pub(crate) fn announce(&self, peer: u16, thread: u16, word: u64) {
        self.write(self.thread(peer, thread) + 8 * thread_word::PENDING as u64, word);
    }
}

#[test]
fn a_circle_over_the_directory_mutex_is_found() {
    let opened = Opened::new();
    let space = ground(&opened.url);
    // The first has `a` and wants `b`; the second has `b`, and wants the directory.
    let mut creator = ScriptedProcess::start("graph-creator", &[&opened.url]);
    creator.says("has");
    let parties = parties(&opened.url, &[["a", "b"]]);
    let mut owner = None;
    until("the first", || {
        let graph = space.wait_graph().unwrap();
        let first = graph.waits.first().map(|wait| graph.threads[wait.thread].clone());
        owner = first.and_then(|first| Some(opened.owner(first.slot, first.thread?)));
        owner.is_some()
    });
    // No program can be stopped while it holds the directory, so its word is written by hand.
    opened.write(8 * header_word::DIRECTORY_LOCK as u64, owner.unwrap().word().word());
    creator.tell("go on");
    let graph = until_circle(&space, 2);
    let steps = [(&parties[0], Exclusive, "b"), (&creator, Exclusive, "directory")];
    assert_eq!(circle(&graph), expected(&steps));
    // No other thread needs it any more.
    opened.write(8 * header_word::DIRECTORY_LOCK as u64, LockWord::FREE.word());
}

#[test]
fn any_pending_word_makes_one_entry_at_most() {
    let opened = Opened::new();
    let space = ground(&opened.url);
    let (slot, _) = space.peer();
    // This thread has slot 0; the next is in use, though by nobody, and so are all slots of the peer.
    let entry = opened.region(0);
    let data = opened.geometry.data().start().get();
    let offsets = [0, 8, 16, data, data + 8, entry, entry + 8 * region_word::LOCK as u64]
        .into_iter()
        .chain([entry + 8 * region_word::DRAINED as u64, entry + 8 * region_word::UNMAPPED as u64])
        .chain([
            opened.geometry.capacity() - 8,
            opened.geometry.capacity(),
            (1 << 48) - 8,
            1 << 50,
        ]);
    let words = offsets.flat_map(|at| (0..8).map(move |kind| at | kind)).chain([u64::MAX]);
    for word in words {
        opened.announce(slot, 0, word);
        let graph = space.wait_graph().unwrap();
        assert!(graph.waits.len() <= 1 && graph.cycles.is_empty(), "{word:#x}: {graph:?}");
        for wait in &graph.waits {
            assert!(wait.lock.is_none_or(|lock| lock < graph.locks.len()));
        }
        let _ = (space.locks(), space.peers());
    }
    // A lock whose owner does not exist, and one that is its own reader and its own writer.
    let lock = entry + 8 * region_word::LOCK as u64;
    let nobody = Owner::new(PeerId::new(5000), 7, ThreadId::new(4000).unwrap()).unwrap();
    opened.write(lock, nobody.word().word());
    let at = Offset::new(lock).unwrap();
    opened.announce(slot, 0, Pending { kind: PendingKind::Exclusive, lock: at }.word());
    let graph = space.wait_graph().unwrap();
    let blocker = &graph.threads[graph.waits[0].blockers[0]];
    assert_eq!((blocker.slot, blocker.pid, blocker.state), (5000, 0, commonhold::PeerLife::Dead));
    let me = opened.owner(slot, 0);
    opened.write(lock, me.word().word());
    let drained = Offset::new(entry + 8 * region_word::DRAINED as u64).unwrap();
    opened.announce(slot, 0, Pending { kind: PendingKind::Event, lock: drained }.word());
    opened.write(opened.thread(slot, 0) + 8 * thread_word::READING as u64, 1 | 1 << 32);
    let graph = space.wait_graph().unwrap();
    assert_eq!(graph.cycles.len(), 1, "{graph:?}");
    assert_eq!(graph.cycles[0].waits.len(), 1);
    // A thread that has just got its lock, and has not withdrawn its announcement yet.
    opened.announce(slot, 0, Pending { kind: PendingKind::Exclusive, lock: at }.word());
    assert!(space.wait_graph().unwrap().waits.is_empty());
    // A process that waits for itself, by its own word and its own id.
    opened.announce(slot, 0, Pending::of_process(std::process::id()).word());
    assert!(space.wait_graph().unwrap().cycles.is_empty());
    opened.write(lock, LockWord::FREE.word());
    opened.announce(slot, 0, 0);
}

#[test]
fn a_wait_for_a_process_is_shown_only_while_it_lasts() {
    let scratch = Scratch::formatted();
    let space = ground(&scratch.url);
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    let _guard = mapping.lock().unwrap();
    // The other process wants the lock of this thread, and this thread waits for that process.
    let actors = parties(&scratch.url, &[["b", "a"]]);
    until("the actor", || space.wait_graph().unwrap().waits.len() == 1);
    assert!(space.wait_graph().unwrap().cycles.is_empty());
    let awaited = space.await_process(actors[0].pid()).unwrap();
    let graph = until_circle(&space, 2);
    assert!(graph.waits.iter().any(|wait| wait.process == Some(actors[0].pid())));
    drop(awaited);
    assert!(space.wait_graph().unwrap().cycles.is_empty());
}
