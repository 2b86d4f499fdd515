//! The manager: what spaces and objects have in common.
//!
//! It owns the machine, the queue of pulses, the total budget, the list of budgets, and the table that finds
//! objects by number. Spaces and objects keep it alive; it keeps none of them alive.

use alloc::{
    sync::{Arc, Weak},
    vec::Vec,
};
use core::fmt;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::{
    AddressSpace, Error, FaultError, Kind, Lane, Mmu, Object, Pager, Pages, Residency, VirtualSpan,
    budget::{Budget, BudgetCore, Budgets, PinnedCount, ResidentCount},
    buffers::Buffers,
    object::ObjectCore,
    order::{Leaf, Ordered, Token},
    pulse::{Pulses, Ticket},
    refusal::Clock,
    serve::Worker,
    share::share,
    space::SpaceCore,
    write_error::KeptError,
};

/// The default residency of new objects, by their kind; [`Object::set_default_residency`] changes that of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defaults {
    /// For [`Kind::Anonymous`].
    pub anonymous: Residency,
    /// For [`Kind::File`].
    pub file: Residency,
}

/// What a manager is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The most pages that all objects together may have in memory.
    pub budget: Pages,
    /// The most pulses of one space at once; at least one.
    pub pulses: usize,
    /// How many faults of one space at most are served with a pager at once. With fewer than there are workers, a
    /// slow pager of one space leaves workers to the others.
    pub paging: usize,
    /// After how many calls of [`Manager::tick`] a read of a pager has taken too long: those who wait for it get
    /// [`PagerError::TimedOut`](crate::PagerError::TimedOut). `None`: never.
    pub patience: Option<u64>,
    /// The default residency of new objects.
    pub defaults: Defaults,
}

impl Default for Settings {
    fn default() -> Self {
        let defaults = Defaults { anonymous: Residency::Unlocked, file: Residency::Unlocked };
        let patience = Some(30);
        Self { budget: Pages(u64::MAX), pulses: 256, paging: usize::MAX, patience, defaults }
    }
}

/// A memory manager. Clones are the same one.
pub struct Manager<M: Mmu> {
    pub(crate) core: Arc<Core<M>>,
}

/// An object by its number.
type Enrolled<M> = (u64, Weak<ObjectCore<M>>);

pub(crate) struct Core<M: Mmu> {
    pub(crate) mmu: M,
    pub(crate) settings: Settings,
    pub(crate) pulses: Pulses<M>,
    /// The next number for an object or space. No number is used twice.
    next: AtomicU64,
    /// By rising numbers.
    objects: Ordered<M::Mutex, Leaf, Vec<Enrolled<M>>>,
    pub(crate) budgets: Arc<Budgets<M>>,
    /// The budget of objects that were made without one.
    shared: Arc<BudgetCore<M>>,
    pub(crate) places: ResidentCount,
    pub(crate) pinned: PinnedCount,
    pub(crate) refusals: Clock,
    /// How many ticks there were.
    pub(crate) ticks: AtomicU64,
    /// Reads under way, of all pagers.
    pub(crate) reads: AtomicUsize,
    /// Calls of pagers that block a thread and have taken too long.
    pub(crate) stuck: AtomicUsize,
    pub(crate) buffers: Buffers<M::Mutex>,
    /// Why changed pages of a dropped object were lost.
    pub(crate) lost: KeptError<M::Mutex>,
}

impl<M: Mmu> Manager<M> {
    /// A manager of `mmu`'s memory, with no spaces and no objects.
    ///
    /// # Errors
    /// [`Error::NoPulses`] if the settings allow none; [`Error::NoMemory`].
    pub fn new(mmu: M, settings: Settings) -> Result<Self, Error> {
        if settings.pulses == 0 {
            return Err(Error::NoPulses);
        }
        let budgets = share(Budgets::new())?;
        let shared = BudgetCore::new(&budgets, Pages(u64::MAX))?;
        let buffers = Buffers::new(mmu.page_size())?;
        let core = Core {
            mmu,
            settings,
            pulses: Pulses::new(settings.pulses, settings.paging.max(1)),
            next: AtomicU64::new(1),
            objects: Ordered::new(Vec::new()),
            budgets,
            shared,
            places: ResidentCount::new(),
            pinned: PinnedCount::new(),
            refusals: Clock::new(),
            ticks: AtomicU64::new(0),
            reads: AtomicUsize::new(0),
            stuck: AtomicUsize::new(0),
            buffers,
            lost: KeptError::new(),
        };
        Ok(Self { core: share(core)? })
    }

    /// The machine.
    #[must_use]
    pub fn mmu(&self) -> &M {
        &self.core.mmu
    }

    /// A new address space of the pages `span`, with nothing mapped.
    ///
    /// # Errors
    /// [`Error::BadSpan`] if there are no pages; [`Error::NoMemory`]; the machine's error.
    pub fn space(&self, span: VirtualSpan) -> Result<AddressSpace<M>, Error> {
        AddressSpace::new(&self.core, span)
    }

    /// A new object of `pages` pages; `pager` has their contents.
    ///
    /// # Errors
    /// [`Error::BadSpan`] if there are too many pages; [`Error::NoMemory`]; the machine's error.
    pub fn object(
        &self,
        kind: Kind,
        pages: Pages,
        pager: Arc<dyn Pager>,
    ) -> Result<Object<M>, Error> {
        Object::new(&self.core, kind, pages, pager, Arc::clone(&self.core.shared))
    }

    /// As [`object`](Self::object); its pages count against `budget` and against the manager's.
    ///
    /// # Errors
    /// As for [`object`](Self::object).
    pub fn object_within(
        &self,
        budget: &Budget<M>,
        kind: Kind,
        pages: Pages,
        pager: Arc<dyn Pager>,
    ) -> Result<Object<M>, Error> {
        Object::new(&self.core, kind, pages, pager, Arc::clone(&budget.core))
    }

    /// A budget of `pages` pages, for one object or several.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn budget(&self, pages: Pages) -> Result<Budget<M>, Error> {
        Ok(Budget { core: BudgetCore::new(&self.core.budgets, pages)? })
    }

    /// Pages in memory, of all objects.
    #[must_use]
    pub fn resident(&self) -> Pages {
        Pages(self.core.places.taken())
    }

    /// Pages of all objects that must stay in memory, once they are in. See [`Budget::locked`].
    #[must_use]
    pub fn locked(&self) -> Pages {
        Pages(self.core.pinned.pages())
    }

    /// Evicts up to `pages` pages, in the policy's order, and returns how many have gone. These are fewer if the
    /// others must stay or their pagers fail.
    pub fn page_out(&self, pages: Pages) -> Pages {
        let since = self.core.refusals.now();
        let evicted = (0..pages.0).take_while(|_| self.core.evict_one(since)).count();
        Pages(evicted as u64)
    }

    /// Serves one pulse: redoes the fault, waits for locks, and calls the pager if needed. Any number of worker
    /// threads may call this. `false` if no pulse waited.
    pub fn serve(&self) -> bool {
        self.core.serve(None, Worker::Any)
    }

    /// As [`serve`](Self::serve), and never waits for a pager: a pulse that turns out to need one is left to other
    /// workers. One thread that calls only this keeps the faults that need memory alone from waiting behind pagers.
    pub fn serve_memory(&self) -> bool {
        self.core.serve(Some(Lane::Memory), Worker::Memory)
    }

    /// As [`serve`](Self::serve), and only pulses that may need a pager.
    pub fn serve_paging(&self) -> bool {
        self.core.serve(Some(Lane::Paging), Worker::Any)
    }

    /// One unit of time has passed, as [`Settings::patience`] counts it. The manager knows no clock, so its user calls
    /// this, from one thread. It waits for no pager, unless it happens to drop the last handle of an object.
    pub fn tick(&self) {
        self.core.tick();
    }

    /// Reads that block a thread of their caller, have taken too long, and have not returned. Their pages fail at once
    /// meanwhile.
    #[must_use]
    pub fn stuck(&self) -> usize {
        self.core.stuck.load(Ordering::Relaxed)
    }

    /// Pulses that have not been served to the end.
    #[must_use]
    pub fn pulses(&self) -> usize {
        self.core.pulses.len()
    }
}

impl<M: Mmu> Core<M> {
    /// A number for a new space or object.
    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn enroll(&self, object: &Arc<ObjectCore<M>>) -> Result<(), Error> {
        let mut nothing = Token::nothing_held();
        let (mut objects, _) = self.objects.lock(&mut nothing);
        objects.try_reserve(1)?;
        let place = objects.partition_point(|(number, _)| *number < object.number);
        objects.insert(place, (object.number, Arc::downgrade(object)));
        Ok(())
    }

    pub(crate) fn strike(&self, object: u64) {
        let mut nothing = Token::nothing_held();
        let (mut objects, _) = self.objects.lock(&mut nothing);
        if let Ok(place) = objects.binary_search_by_key(&object, |(number, _)| *number) {
            objects.remove(place);
        }
    }

    pub(crate) fn object(&self, object: u64) -> Option<Arc<ObjectCore<M>>> {
        let mut nothing = Token::nothing_held();
        let (objects, _) = self.objects.lock(&mut nothing);
        let place = objects.binary_search_by_key(&object, |(number, _)| *number).ok()?;
        objects.get(place)?.1.upgrade()
    }

    /// The object with the lowest number above `last`.
    pub(crate) fn next_object(&self, last: u64) -> Option<Arc<ObjectCore<M>>> {
        let mut nothing = Token::nothing_held();
        let (objects, _) = self.objects.lock(&mut nothing);
        let place = objects.partition_point(|(number, _)| *number <= last);
        objects.get(place..)?.iter().find_map(|(_, object)| object.upgrade())
    }

    /// Ends a pulse and wakes its threads, unless it has ended already. Nothing is locked.
    pub(crate) fn end_pulse(&self, ticket: Ticket, result: Result<(), FaultError>) {
        let Some((space, at, access, cookie)) = self.pulses.done(ticket) else { return };
        if let Some(space) = space.upgrade() {
            space.counts.serve(result);
            self.mmu.wake(&space.machine, at, access, cookie, result);
        }
    }

    /// Redoes the fault of one pulse.
    fn serve(&self, only: Option<Lane>, by: Worker) -> bool {
        let Some(pulse) = self.pulses.take(only) else { return false };
        match pulse.space.upgrade() {
            Some(space) => SpaceCore::serve(&space, pulse, by),
            // The space is gone, and no thread waits in it.
            None => _ = self.pulses.done(pulse.ticket),
        }
        true
    }
}

impl<M: Mmu> Clone for Manager<M> {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core) }
    }
}

impl<M: Mmu> fmt::Debug for Manager<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager").field("settings", &self.core.settings).finish_non_exhaustive()
    }
}
