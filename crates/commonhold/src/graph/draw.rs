//! Builds the graph from what was seen: which threads have to act before each wait ends.

use std::collections::{HashMap, HashSet};

use commonhold_layout::{PeerRef, ThreadId};
use commonhold_space::{Identity, PeerRecord};

use super::{
    Cycle, Wait, WaitGraph, WaitKind, WaitLock, WaitThread,
    cycles::cycles,
    look::{Lock, Sight, Waiting, Which},
    slot_owners::SlotOwners,
    stuck::{Needs, Node, retain_stuck},
    thread_ref::ThreadRef,
};
use crate::{PeerLife, Space, info::domain};

/// How many ancestors of a process are searched for one that a thread waits for.
const ANCESTORS: usize = 32;

pub(super) fn draw(space: &Space, sight: &Sight) -> WaitGraph {
    let mut people = People::new(space);
    let processes = processes(&mut people, sight);
    let readers_to_be = readers_to_be(sight);
    let mut drawn: Vec<(&Waiting, End)> = sight
        .waiting
        .iter()
        .filter_map(|waiting| Some((waiting, end(waiting, sight, &readers_to_be, &processes)?)))
        .collect();
    // A wait for a command is shown only if a thread waits for a lock of its holder, or the command waits itself.
    let blocking: HashSet<ThreadRef> =
        drawn.iter().flat_map(|(_, end)| end.blockers.iter().copied()).collect();
    drawn.retain(|(waiting, end)| {
        let is_awaited = !end.blockers.is_empty() || blocking.contains(&waiting.who);
        waiting.kind != WaitKind::Process || is_awaited
    });
    let mut graph = WaitGraph::default();
    let mut places = HashMap::new();
    for (waiting, end) in drawn {
        let lock = waiting.which.and_then(|which| {
            let seen = sight.locks.get(&which)?;
            let known = places.get(&which).copied();
            Some(known.unwrap_or_else(|| {
                let lock = lock_node(&mut people, seen);
                graph.locks.push(lock);
                places.insert(which, graph.locks.len() - 1);
                graph.locks.len() - 1
            }))
        });
        graph.waits.push(Wait {
            thread: people.node(waiting.who),
            kind: waiting.kind,
            lock,
            process: waiting.process,
            blockers: end.blockers.into_iter().map(|party| people.node(party)).collect(),
            open: end.is_open,
            confirmed: waiting.confirmed,
        });
    }
    graph.threads = people.nodes;
    graph.cycles = circles(&graph.waits, graph.threads.len());
    graph
}

fn lock_node(people: &mut People<'_>, seen: &Lock) -> WaitLock {
    WaitLock {
        region: seen.region.clone(),
        offset: seen.offset,
        record: seen.record,
        owner: seen.owner.map(|owner| people.node(owner)),
        readers: seen.readers.iter().map(|reader| people.node(*reader)).collect(),
    }
}

/// Threads that wait to read. Between two sleeps such a thread enters itself as a reader, looks, and leaves again.
/// So it does not read yet, even if its words say that it does.
fn readers_to_be(sight: &Sight) -> HashSet<(ThreadRef, Which)> {
    let shared = sight.waiting.iter().filter(|waiting| waiting.kind == WaitKind::Shared);
    shared.filter_map(|waiting| Some((waiting.who, waiting.which?))).collect()
}

/// What can end a wait.
struct End {
    /// The threads that have to act.
    blockers: Vec<ThreadRef>,
    /// Whether other threads can end it as well.
    is_open: bool,
}

impl End {
    const fn by(blockers: Vec<ThreadRef>) -> Self {
        Self { blockers, is_open: false }
    }
}

/// The threads that have to act before this wait ends; `None` if it has ended.
fn end(
    waiting: &Waiting,
    sight: &Sight,
    readers_to_be: &HashSet<(ThreadRef, Which)>,
    processes: &HashMap<ThreadRef, Vec<ThreadRef>>,
) -> Option<End> {
    let lock = waiting.which.and_then(|which| sight.locks.get(&which));
    let owner = lock.and_then(|lock| lock.owner);
    let places = lock.and_then(|lock| lock.places.as_ref());
    match waiting.kind {
        // It has just got the lock, and has not withdrawn its announcement yet.
        WaitKind::Exclusive | WaitKind::Shared if owner == Some(waiting.who) => None,
        WaitKind::Shared if lock.is_some_and(|lock| lock.lets_readers_in) => None,
        WaitKind::Exclusive | WaitKind::Shared => Some(End::by(owner.into_iter().collect())),
        // Only an owner waits for readers, so this wait has ended.
        WaitKind::Readers if owner != Some(waiting.who) => None,
        WaitKind::Readers => {
            let (lock, which) = (lock?, waiting.which?);
            let reads = |reader: &ThreadRef| !readers_to_be.contains(&(*reader, which));
            Some(End::by(lock.readers.iter().copied().filter(reads).collect()))
        }
        WaitKind::Mappings => {
            let of_others = |mapper: &ThreadRef| {
                (mapper.peer, mapper.generation) != (waiting.who.peer, waiting.who.generation)
            };
            Some(End::by(lock?.mappers.iter().copied().filter(of_others).collect()))
        }
        // The phase has passed, and the thread has not withdrawn its announcement yet.
        WaitKind::Participants if places.is_some_and(|places| !places.has_arrived(waiting.who)) => {
            None
        }
        WaitKind::Event | WaitKind::Permit | WaitKind::Participants => Some(End {
            blockers: places.map_or(Vec::new(), SlotOwners::awaited),
            is_open: places.is_none_or(|places| places.is_open),
        }),
        WaitKind::Process => {
            Some(End::by(processes.get(&waiting.who).cloned().unwrap_or_default()))
        }
    }
}

/// For each thread that waits for a process: the threads that wait in that process or its descendants.
fn processes(people: &mut People<'_>, sight: &Sight) -> HashMap<ThreadRef, Vec<ThreadRef>> {
    let mut awaited: HashMap<u32, Vec<(ThreadRef, Identity)>> = HashMap::new();
    for waiting in &sight.waiting {
        if let (Some(process), Some(identity)) = (waiting.process, people.identity(waiting.who)) {
            awaited.entry(process).or_default().push((waiting.who, identity));
        }
    }
    let mut inside: HashMap<ThreadRef, Vec<ThreadRef>> = HashMap::new();
    if awaited.is_empty() {
        return inside;
    }
    for waiting in &sight.waiting {
        let Some(identity) = people.identity(waiting.who) else { continue };
        for pid in people.lineage(&identity) {
            for (waiter, theirs) in awaited.get(&pid).into_iter().flatten() {
                if share_processes(theirs, &identity) && *waiter != waiting.who {
                    inside.entry(*waiter).or_default().push(waiting.who);
                }
            }
        }
    }
    inside
}

/// Whether a process id means the same process to both.
fn share_processes(one: &Identity, other: &Identity) -> bool {
    one.boot.0 != 0
        && one.boot == other.boot
        && one.pid_namespace != 0
        && one.pid_namespace == other.pid_namespace
}

fn circles(waits: &[Wait], threads: usize) -> Vec<Cycle> {
    let mut nodes: Vec<Node> = vec![None; threads];
    let mut wait_of = vec![0; threads];
    let closed = |wait: &Wait| wait.confirmed && !wait.open;
    for (index, wait) in waits.iter().enumerate().filter(|(_, wait)| closed(wait)) {
        if let (Some(node), Some(of)) = (nodes.get_mut(wait.thread), wait_of.get_mut(wait.thread)) {
            *node = Some((needs(wait.kind), wait.blockers.clone()));
            *of = index;
        }
    }
    retain_stuck(&mut nodes);
    let edges: Vec<_> = nodes.into_iter().enumerate().map(edges).collect();
    let waits_of = |cycle: Vec<usize>| {
        let waits = cycle.into_iter().filter_map(|thread| wait_of.get(thread).copied());
        Cycle { waits: waits.collect() }
    };
    cycles(&edges).into_iter().map(waits_of).collect()
}

const fn needs(kind: WaitKind) -> Needs {
    match kind {
        WaitKind::Permit => Needs::Any,
        _ => Needs::All,
    }
}

/// The threads that a stuck thread waits for. A thread that holds a permit and waits for another one is stuck
/// because of the other holders, so the edge to itself is left out.
fn edges((thread, node): (usize, Node)) -> Vec<usize> {
    match node {
        Some((Needs::Any, mut holders)) if holders.len() > 1 => {
            holders.retain(|holder| *holder != thread);
            holders
        }
        Some((_, blockers)) => blockers,
        None => Vec::new(),
    }
}

/// The threads of the graph, each of them one node, and what is known about their peers.
struct People<'a> {
    space: &'a Space,
    nodes: Vec<WaitThread>,
    known: HashMap<ThreadRef, usize>,
    peers: HashMap<(u16, u32), Option<(PeerRecord, PeerLife)>>,
    lineages: HashMap<u32, Vec<u32>>,
    me: Option<Identity>,
}

impl<'a> People<'a> {
    fn new(space: &'a Space) -> Self {
        let (slot, generation) = space.peer();
        let mut people = Self {
            space,
            nodes: Vec::new(),
            known: HashMap::new(),
            peers: HashMap::new(),
            lineages: HashMap::new(),
            me: None,
        };
        people.me = people.peer(slot, generation).map(|(record, _)| record.identity);
        people
    }

    fn peer(&mut self, slot: u16, generation: u32) -> Option<(PeerRecord, PeerLife)> {
        let view = self.space.attachment().my_view();
        *self.peers.entry((slot, generation)).or_insert_with(|| {
            let peer = commonhold_layout::PeerId::new(slot);
            let (record, _) = view.peer_record(peer)?;
            let life = PeerLife::new(view.verdict_of(PeerRef::new(peer, generation)));
            (record.generation == generation).then_some((record, life))
        })
    }

    fn identity(&mut self, who: ThreadRef) -> Option<Identity> {
        self.peer(who.peer.get(), who.generation).map(|(record, _)| record.identity)
    }

    /// The process and its ancestors, as far as this process can see them.
    fn lineage(&mut self, identity: &Identity) -> Vec<u32> {
        if !self.me.is_some_and(|me| share_processes(&me, identity)) {
            return vec![identity.pid];
        }
        let of = |pid: &u32| commonhold_host::parent_of(*pid);
        let line = || std::iter::successors(Some(identity.pid), of).take(ANCESTORS).collect();
        self.lineages.entry(identity.pid).or_insert_with(line).clone()
    }

    fn node(&mut self, party: ThreadRef) -> usize {
        if let Some(known) = self.known.get(&party) {
            return *known;
        }
        let (slot, generation) = (party.peer.get(), party.generation);
        let peer = self.peer(slot, generation);
        let view = self.space.attachment().my_view();
        let record = party.thread.filter(|_| peer.is_some());
        let record = record.and_then(|thread| view.thread_record(party.peer, thread));
        let identity = peer.map(|(record, _)| record.identity);
        self.nodes.push(WaitThread {
            slot,
            generation,
            thread: party.thread.map(ThreadId::index),
            tid: record.map_or(0, |record| record.tid),
            pid: identity.map_or(0, |identity| identity.pid),
            domain: identity.map_or(String::new(), |identity| domain(identity.boot)),
            name: identity.map_or(String::new(), |identity| identity.name.to_string()),
            state: peer.map_or(PeerLife::Dead, |(_, life)| life),
        });
        self.known.insert(party, self.nodes.len() - 1);
        self.nodes.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two threads that wait for each other.
    fn two(kind: WaitKind) -> [Wait; 2] {
        [0, 1].map(|thread| Wait {
            thread,
            kind,
            lock: None,
            process: None,
            blockers: vec![1 - thread],
            open: false,
            confirmed: true,
        })
    }

    #[test]
    fn only_waits_that_two_looks_have_seen_and_that_nobody_else_can_end_make_circles() {
        for kind in [WaitKind::Exclusive, WaitKind::Permit, WaitKind::Participants] {
            assert_eq!(circles(&two(kind), 2), [Cycle { waits: vec![0, 1] }]);
            for wait in [0, 1] {
                let mut waits = two(kind);
                waits[wait].confirmed = false;
                assert!(circles(&waits, 2).is_empty(), "{kind} {wait}");
                let mut waits = two(kind);
                waits[wait].open = true;
                assert!(circles(&waits, 2).is_empty(), "{kind} {wait}");
            }
        }
    }

    #[test]
    fn a_wait_for_a_permit_is_in_no_circle_if_one_holder_was_seen_to_wait_only_once() {
        let waits = |confirmed: bool| {
            let mut waits = two(WaitKind::Exclusive).to_vec();
            waits[0].kind = WaitKind::Permit;
            waits[0].blockers = vec![1, 2];
            let third = Wait { thread: 2, blockers: vec![0], confirmed, ..waits[1].clone() };
            waits.push(third);
            circles(&waits, 3).len()
        };
        assert_eq!([waits(false), waits(true)], [0, 2]);
    }
}
