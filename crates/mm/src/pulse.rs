//! Pulses: faults that wait for a worker.
//!
//! # What it owns
//! A bounded queue. A pulse is in one of three states: *waiting*; *served* by a worker; or *put off* until another
//! thread has filled its page. It ends in one of three ways, each with one [`Mmu::wake`]: it was served, its
//! mapping was taken away, or the filling that it was put off for has failed.
//!
//! # Invariants
//! 1. Waiting, served and put-off pulses together never exceed the capacity, and each list has room for that
//!    many: moving a pulse takes no memory and cannot fail.
//! 2. At most one pulse for the same space, page and access waits or is put off. Another fault is merged with
//!    it, and one wake is for all of them. Pulses for different accesses are kept apart, since the mapping may
//!    permit one access and not the other.
//! 3. A pulse is put off under the lock of the object, after a look that found its page `Filling`. The thread
//!    that fills the page takes it back at the end, with no lock held. So no pulse is put off for ever.

use alloc::{
    collections::VecDeque,
    sync::{Arc, Weak},
    vec::Vec,
};

use crate::{
    Access, Error, FaultError, Mmu, VirtualPage, VirtualSpan,
    budget::PageName,
    order::{Before, Leaf, Ordered, Token},
    space::SpaceCore,
};

/// A fault that waits for a worker.
pub(crate) struct Pulse<M: Mmu> {
    pub(crate) space: Weak<SpaceCore<M>>,
    number: u64,
    pub(crate) at: VirtualPage,
    pub(crate) access: Access,
}

/// The result of [`Pulses::post`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Posted {
    /// The pulse waits.
    New,
    /// The same pulse waits already.
    Merged,
    /// The queue is full.
    Full,
}

/// All pulses of a manager.
pub(crate) struct Pulses<M: Mmu> {
    queue: Ordered<M::Mutex, Leaf, Queue<M>>,
}

struct Queue<M: Mmu> {
    waiting: VecDeque<Pulse<M>>,
    put_off: Vec<(PageName, Pulse<M>)>,
    served: usize,
    capacity: usize,
}

impl<M: Mmu> Queue<M> {
    fn len(&self) -> usize {
        self.waiting.len() + self.put_off.len() + self.served
    }
}

impl<M: Mmu> Pulses<M> {
    pub(crate) fn new(capacity: usize) -> Result<Self, Error> {
        let (mut waiting, mut put_off) = (VecDeque::new(), Vec::new());
        waiting.try_reserve_exact(capacity)?;
        put_off.try_reserve_exact(capacity)?;
        Ok(Self { queue: Ordered::new(Queue { waiting, put_off, served: 0, capacity }) })
    }

    pub(crate) fn len(&self) -> usize {
        let mut nothing = Token::nothing_held();
        self.queue.lock(&mut nothing).0.len()
    }

    /// Queues a pulse for a fault.
    pub(crate) fn post(
        &self,
        space: &Arc<SpaceCore<M>>,
        at: VirtualPage,
        access: Access,
    ) -> Posted {
        let mut nothing = Token::nothing_held();
        let (mut queue, _) = self.queue.lock(&mut nothing);
        let same =
            |pulse: &Pulse<M>| (pulse.number, pulse.at, pulse.access) == (space.number, at, access);
        if queue.waiting.iter().any(same) || queue.put_off.iter().any(|(_, pulse)| same(pulse)) {
            return Posted::Merged;
        }
        if queue.len() >= queue.capacity {
            return Posted::Full;
        }
        let (number, space) = (space.number, Arc::downgrade(space));
        queue.waiting.push_back(Pulse { space, number, at, access });
        Posted::New
    }

    /// Takes the next pulse to serve. The caller must end with [`done`](Self::done) or [`defer`](Self::defer).
    pub(crate) fn take(&self) -> Option<Pulse<M>> {
        let mut nothing = Token::nothing_held();
        let (mut queue, _) = self.queue.lock(&mut nothing);
        let pulse = queue.waiting.pop_front()?;
        queue.served += 1;
        Some(pulse)
    }

    /// Ends a pulse that was taken.
    pub(crate) fn done(&self) {
        let mut nothing = Token::nothing_held();
        self.queue.lock(&mut nothing).0.served -= 1;
    }

    /// Puts off a pulse that was taken, until [`complete`](Self::complete).
    pub(crate) fn defer<H: Before<Leaf>>(
        &self,
        pulse: Pulse<M>,
        page: PageName,
        held: &mut Token<'_, H>,
    ) {
        let (mut queue, _) = self.queue.lock(held);
        queue.served -= 1;
        queue.put_off.push((page, pulse));
    }

    /// The filling of `page` has ended. The pulses that were put off for it wait again, or fail with its error.
    pub(crate) fn complete(&self, mmu: &M, page: PageName, result: Result<(), FaultError>) {
        while let Some(pulse) = self.take_put_off(page, result.is_ok()) {
            match result {
                Ok(()) => mmu.pulse(),
                Err(_) => {
                    if let Some(space) =
                        pulse.and_then(|(space, at, access)| Some((space.upgrade()?, at, access)))
                    {
                        let (space, at, access) = space;
                        space.counts.serve(result);
                        mmu.wake(&space.machine, at, access, result);
                    }
                }
            }
        }
    }

    /// Takes one pulse that was put off for `page`, and queues it `again` or returns it. `None` if there is none.
    #[expect(clippy::type_complexity, reason = "a pulse in its parts, used once")]
    fn take_put_off(
        &self,
        page: PageName,
        again: bool,
    ) -> Option<Option<(Weak<SpaceCore<M>>, VirtualPage, Access)>> {
        let mut nothing = Token::nothing_held();
        let (mut queue, _) = self.queue.lock(&mut nothing);
        let place = queue.put_off.iter().position(|(name, _)| *name == page)?;
        let (_, pulse) = queue.put_off.swap_remove(place);
        if again {
            queue.waiting.push_back(pulse);
            return Some(None);
        }
        Some(Some((pulse.space, pulse.at, pulse.access)))
    }

    /// Cancels the pulses in `span`, whose mappings are being taken away. Their threads are woken with `Ok`, fault
    /// again, and get the result of that.
    pub(crate) fn cancel<H: Before<Leaf>>(
        &self,
        space: &SpaceCore<M>,
        span: VirtualSpan,
        held: &mut Token<'_, H>,
    ) {
        while let Some(pulse) = self.take_within(space.number, span, held) {
            space.counts.cancel();
            space.manager.mmu.wake(&space.machine, pulse.at, pulse.access, Ok(()));
        }
    }

    fn take_within<H: Before<Leaf>>(
        &self,
        number: u64,
        span: VirtualSpan,
        held: &mut Token<'_, H>,
    ) -> Option<Pulse<M>> {
        let (mut queue, _) = self.queue.lock(held);
        let within = |pulse: &Pulse<M>| pulse.number == number && span.contains(pulse.at);
        if let Some(place) = queue.waiting.iter().position(within) {
            return queue.waiting.remove(place);
        }
        let place = queue.put_off.iter().position(|(_, pulse)| within(pulse))?;
        Some(queue.put_off.swap_remove(place).1)
    }
}
