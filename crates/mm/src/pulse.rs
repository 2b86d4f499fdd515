//! Pulses: faults that wait for a worker.
//!
//! # What it owns
//! A bounded queue for each space, and two rings of the spaces that have something to serve, one for each [`Lane`]. A
//! pulse is in one of three stages: *waiting* in a lane; *served* by a worker; or *put off* until another thread has
//! filled its page. It ends in one of three ways, each with one [`Mmu::wake`]: it was served, its mapping was
//! taken away, or the filling that it was put off for has failed.
//!
//! # Who is served next
//! Spaces are served in turns, one pulse each, so a space with many faults delays others by one pulse. A pulse that may
//! call a pager waits in the lane [`Paging`](Lane::Paging), where a space has at most so many pulses served at once as
//! [`Settings::paging`](crate::Settings::paging) says: a slow pager of one space does not take all workers. What needs
//! no pager waits in the lane [`Memory`](Lane::Memory), and a worker that serves only this lane never waits for a
//! pager.
//!
//! # Invariants
//! 1. A space has at most [`Settings::pulses`](crate::Settings::pulses) pulses, and room for them from its beginning:
//!    queueing takes no memory, and no space fills the queue of another.
//! 2. All operations on the queue are short: each looks at the pulses of one space at most, or, when a space comes or
//!    goes, at one word of each space. None allocates. So its lock is a [`Mmu::Leaf`], which a fault handler may take.
//! 3. At most one pulse for the same space, page, access and cookie waits or is put off. Another fault is merged with
//!    it, and one wake is for both.
//! 4. A pulse is put off under the lock of the object, after a look that found its page `Filling`; the object keeps its
//!    ticket. The thread that fills the page takes the ticket at the end, under the same lock. So no pulse is put off
//!    for ever, and an error reaches only those that waited for this filling.
//! 5. A ticket is never used twice: the ticket of a pulse that was cancelled meanwhile finds nothing.

use alloc::{
    collections::VecDeque,
    sync::{Arc, Weak},
    vec::Vec,
};

use crate::{
    Access, Error, Mmu, VirtualPage, VirtualSpan,
    order::{Before, Ordered, Short, Token},
    port::Lane,
    space::SpaceCore,
};

/// A fault that a worker serves.
pub(crate) struct Pulse<M: Mmu> {
    pub(crate) space: Weak<SpaceCore<M>>,
    pub(crate) at: VirtualPage,
    pub(crate) access: Access,
    pub(crate) ticket: Ticket,
    pub(crate) lane: Lane,
}

/// What [`Mmu::wake`] wants to know of a pulse that has ended.
pub(crate) type Ended<M> = (Weak<SpaceCore<M>>, VirtualPage, Access, u64);

/// A pulse by its place and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    client: ClientId,
    number: u64,
}

/// The queue of a space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientId(usize);

/// The result of [`Pulses::post`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Posted {
    /// The pulse waits.
    New,
    /// The same pulse waits already.
    Merged,
    /// The space has as many pulses as it may have.
    Full,
}

/// All pulses of a manager.
pub(crate) struct Pulses<M: Mmu> {
    queue: Ordered<M::Leaf, Short, Queue<M>>,
    capacity: usize,
    paging: usize,
}

struct Queue<M: Mmu> {
    clients: Vec<Option<Client<M>>>,
    /// For each lane, the spaces that have a pulse to serve in it, in the order of their turns. Each is in a ring
    /// once at most.
    turns: [VecDeque<usize>; Lane::COUNT],
    /// The lane from which a worker of both takes next.
    first: Lane,
    next: u64,
    len: usize,
}

struct Client<M: Mmu> {
    /// Dangling until its first pulse.
    space: Weak<SpaceCore<M>>,
    entries: Vec<Entry>,
    /// Pulses of the lane `Paging` that are served now.
    paging: usize,
    has_turn: [bool; Lane::COUNT],
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    number: u64,
    at: VirtualPage,
    access: Access,
    cookie: u64,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting(Lane),
    Served(Lane),
    PutOff,
}

impl<M: Mmu> Pulses<M> {
    pub(crate) const fn new(capacity: usize, paging: usize) -> Self {
        let queue = Queue {
            clients: Vec::new(),
            turns: [const { VecDeque::new() }; Lane::COUNT],
            first: Lane::Memory,
            next: 0,
            len: 0,
        };
        Self { queue: Ordered::new(queue), capacity, paging }
    }

    pub(crate) fn len(&self) -> usize {
        let mut nothing = Token::nothing_held();
        self.queue.lock(&mut nothing).0.len
    }

    /// A queue for one more space.
    pub(crate) fn enroll(&self) -> Result<ClientId, Error> {
        let mut entries = Vec::new();
        entries.try_reserve_exact(self.capacity)?;
        let client =
            Client { space: Weak::new(), entries, paging: 0, has_turn: [false; Lane::COUNT] };
        let (mut clients, mut turns) = (Vec::new(), [const { VecDeque::new() }; Lane::COUNT]);
        loop {
            let mut nothing = Token::nothing_held();
            let (mut queue, _) = self.queue.lock(&mut nothing);
            let free = queue.clients.iter().position(Option::is_none);
            let place = free.unwrap_or(queue.clients.len());
            let rings = queue.turns.iter().map(VecDeque::capacity);
            if rings.chain([queue.clients.capacity()]).all(|room| place < room) {
                match queue.clients.get_mut(place) {
                    Some(cell) => *cell = Some(client),
                    None => queue.clients.push(Some(client)),
                }
                return Ok(ClientId(place));
            }
            if clients.capacity() > place {
                // The larger tables were made with the lock given up, since to take memory may take long.
                clients.append(&mut queue.clients);
                core::mem::swap(&mut queue.clients, &mut clients);
                for (ring, larger) in queue.turns.iter_mut().zip(&mut turns) {
                    larger.append(ring);
                    core::mem::swap(ring, larger);
                }
                continue;
            }
            drop(queue);
            let wanted = place.saturating_add(1).saturating_mul(2);
            clients.try_reserve_exact(wanted)?;
            for ring in &mut turns {
                ring.try_reserve_exact(wanted)?;
            }
        }
    }

    /// Ends the queue of a space, which has no pulses any more.
    pub(crate) fn strike(&self, ClientId(client): ClientId) {
        let mut nothing = Token::nothing_held();
        let (mut queue, _) = self.queue.lock(&mut nothing);
        for ring in &mut queue.turns {
            ring.retain(|turn| *turn != client);
        }
        let gone = queue.clients.get_mut(client).and_then(Option::take);
        queue.len -= gone.as_ref().map_or(0, |client| client.entries.len());
        drop(queue);
        drop(gone);
    }

    /// Queues a pulse for a fault.
    pub(crate) fn post<H: Before<Short>>(
        &self,
        space: &Arc<SpaceCore<M>>,
        (at, access, cookie): (VirtualPage, Access, u64),
        lane: Lane,
        held: &mut Token<'_, H>,
    ) -> Posted {
        let ClientId(place) = space.client;
        let (mut queue, _) = self.queue.lock(held);
        let number = queue.next;
        let Some(client) = queue.client(place) else { return Posted::Full };
        let same = |entry: &&Entry| (entry.at, entry.access, entry.cookie) == (at, access, cookie);
        if client.entries.iter().filter(same).any(|e| !matches!(e.stage, Stage::Served(_))) {
            return Posted::Merged;
        }
        if client.entries.len() >= self.capacity {
            return Posted::Full;
        }
        if client.space.as_ptr() != Arc::as_ptr(space) {
            client.space = Arc::downgrade(space);
        }
        let stage = Stage::Waiting(lane);
        client.entries.push(Entry { number, at, access, cookie, stage });
        queue.next += 1;
        queue.len += 1;
        queue.give_turn(place, lane, self.paging);
        Posted::New
    }

    /// Takes the next pulse to serve: of lane `only`, or of both lanes in turns. The caller must end with
    /// [`done`](Self::done), [`defer`](Self::defer) or [`pass_on`](Self::pass_on).
    pub(crate) fn take(&self, only: Option<Lane>) -> Option<Pulse<M>> {
        let mut nothing = Token::nothing_held();
        let (mut queue, _) = self.queue.lock(&mut nothing);
        match only {
            Some(lane) => queue.take(lane, self.paging),
            None => {
                let first = queue.first;
                queue.first = first.other();
                queue.take(first, self.paging).or_else(|| queue.take(first.other(), self.paging))
            }
        }
    }

    /// A pulse of the lane `Memory` that is served needs a pager. `true` if its space may have one more such pulse
    /// served: then it belongs to the lane `Paging` from now on.
    pub(crate) fn promote<H: Before<Short>>(
        &self,
        ticket: Ticket,
        held: &mut Token<'_, H>,
    ) -> bool {
        let (mut queue, _) = self.queue.lock(held);
        let Some(client) = queue.client(ticket.client.0) else { return false };
        if client.paging >= self.paging {
            return false;
        }
        let mut entries = client.entries.iter_mut();
        let Some(entry) = entries.find(|entry| entry.number == ticket.number) else { return false };
        if entry.stage == Stage::Served(Lane::Memory) {
            entry.stage = Stage::Served(Lane::Paging);
            client.paging += 1;
        }
        true
    }

    /// Ends a pulse that was taken or put off. Returns its space, page, access and cookie, unless it has ended
    /// already.
    pub(crate) fn done(&self, ticket: Ticket) -> Option<Ended<M>> {
        let mut nothing = Token::nothing_held();
        let (mut queue, _) = self.queue.lock(&mut nothing);
        let client = queue.client(ticket.client.0)?;
        let place = client.entries.iter().position(|entry| entry.number == ticket.number)?;
        let Entry { at, access, cookie, stage, .. } = client.entries.remove(place);
        let space = Weak::clone(&client.space);
        queue.len -= 1;
        queue.leave(ticket.client.0, stage, self.paging);
        Some((space, at, access, cookie))
    }

    /// Puts off a pulse that was taken.
    pub(crate) fn defer<H: Before<Short>>(&self, ticket: Ticket, held: &mut Token<'_, H>) {
        self.set_stage(ticket, Stage::PutOff, held);
    }

    /// Lets a pulse that was taken or put off wait again, in `lane`. `false` if it has ended.
    pub(crate) fn pass_on<H: Before<Short>>(
        &self,
        ticket: Ticket,
        lane: Lane,
        held: &mut Token<'_, H>,
    ) -> bool {
        self.set_stage(ticket, Stage::Waiting(lane), held)
    }

    /// Whether a pulse has not ended.
    pub(crate) fn is_open<H: Before<Short>>(
        &self,
        ticket: Ticket,
        held: &mut Token<'_, H>,
    ) -> bool {
        let (mut queue, _) = self.queue.lock(held);
        queue.entry(ticket).is_some()
    }

    fn set_stage<H: Before<Short>>(
        &self,
        ticket: Ticket,
        stage: Stage,
        held: &mut Token<'_, H>,
    ) -> bool {
        let (mut queue, _) = self.queue.lock(held);
        let Some(entry) = queue.entry(ticket) else { return false };
        let before = core::mem::replace(&mut entry.stage, stage);
        queue.leave(ticket.client.0, before, self.paging);
        if let Stage::Waiting(lane) = stage {
            queue.give_turn(ticket.client.0, lane, self.paging);
        }
        true
    }

    /// Cancels the pulses in `span`, whose mappings are being taken away. Their threads are woken with `Ok`, fault
    /// again, and get the result of that.
    pub(crate) fn cancel<H: Before<Short>>(
        &self,
        space: &SpaceCore<M>,
        span: VirtualSpan,
        held: &mut Token<'_, H>,
    ) {
        while let Some(Entry { at, access, cookie, .. }) = self.take_within(space, span, held) {
            space.counts.cancel();
            space.manager.mmu.wake(&space.machine, at, access, cookie, Ok(()));
        }
    }

    fn take_within<H: Before<Short>>(
        &self,
        space: &SpaceCore<M>,
        span: VirtualSpan,
        held: &mut Token<'_, H>,
    ) -> Option<Entry> {
        let (mut queue, _) = self.queue.lock(held);
        let client = queue.client(space.client.0)?;
        let within = |e: &Entry| span.contains(e.at) && !matches!(e.stage, Stage::Served(_));
        let place = client.entries.iter().position(within)?;
        let entry = client.entries.remove(place);
        queue.len -= 1;
        Some(entry)
    }
}

impl<M: Mmu> Queue<M> {
    fn client(&mut self, place: usize) -> Option<&mut Client<M>> {
        self.clients.get_mut(place)?.as_mut()
    }

    fn entry(&mut self, ticket: Ticket) -> Option<&mut Entry> {
        let client = self.client(ticket.client.0)?;
        client.entries.iter_mut().find(|entry| entry.number == ticket.number)
    }

    fn take(&mut self, lane: Lane, most: usize) -> Option<Pulse<M>> {
        loop {
            let place = self.turns.get_mut(lane.index())?.pop_front()?;
            let Some(client) = self.client(place) else { continue };
            if let Some(turn) = client.has_turn.get_mut(lane.index()) {
                *turn = false;
            }
            // The oldest: entries are in the order of their posting.
            let mut entries = client.entries.iter_mut();
            let Some(entry) = entries.find(|entry| entry.stage == Stage::Waiting(lane)) else {
                continue;
            };
            entry.stage = Stage::Served(lane);
            let Entry { number, at, access, .. } = *entry;
            client.paging += usize::from(lane == Lane::Paging);
            let space = Weak::clone(&client.space);
            self.give_turn(place, lane, most);
            let ticket = Ticket { client: ClientId(place), number };
            return Some(Pulse { space, at, access, ticket, lane });
        }
    }

    /// A pulse leaves a stage: if it was served with a pager, its space may have another one served.
    fn leave(&mut self, place: usize, stage: Stage, most: usize) {
        if stage == Stage::Served(Lane::Paging) {
            if let Some(client) = self.client(place) {
                client.paging -= 1;
            }
            self.give_turn(place, Lane::Paging, most);
        }
    }

    /// Puts a space at the end of a ring, if it has a pulse to serve there and is not in it.
    fn give_turn(&mut self, place: usize, lane: Lane, most: usize) {
        let Some(client) = self.clients.get_mut(place).and_then(Option::as_mut) else { return };
        let waits = client.entries.iter().any(|entry| entry.stage == Stage::Waiting(lane));
        let may = lane == Lane::Memory || client.paging < most;
        let (Some(has_turn), Some(ring)) =
            (client.has_turn.get_mut(lane.index()), self.turns.get_mut(lane.index()))
        else {
            return;
        };
        if waits && may && !*has_turn {
            *has_turn = true;
            ring.push_back(place);
        }
    }
}
