//! The manager: what spaces and objects have in common.
//!
//! It owns the machine, the queue of pulses, the total budget, and the tables that find objects and budgets by
//! number. Spaces and objects keep it alive; it keeps none of them alive.

use alloc::{
    sync::{Arc, Weak},
    vec::Vec,
};
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::{
    AddressSpace, Error, Kind, Mmu, Object, Pager, Pages, Residency, VirtualSpan,
    budget::{Budget, BudgetCore, ResidentCount},
    object::ObjectCore,
    order::{Leaf, Ordered, Token},
    pulse::Pulses,
    share::share,
    space::SpaceCore,
    write_error::KeptError,
};

/// The residency of new mappings that do not ask for one, by the kind of their object.
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
    /// The most pulses at once.
    pub pulses: usize,
    /// The residency of new mappings.
    pub defaults: Defaults,
}

impl Default for Settings {
    fn default() -> Self {
        let defaults = Defaults { anonymous: Residency::Unlocked, file: Residency::Unlocked };
        Self { budget: Pages(u64::MAX), pulses: 256, defaults }
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
    /// The next number for an object, space or budget. No number is used twice.
    next: AtomicU64,
    /// By rising numbers.
    objects: Ordered<M::Mutex, Leaf, Vec<Enrolled<M>>>,
    pub(crate) budgets: Ordered<M::Mutex, Leaf, Vec<Weak<BudgetCore<M>>>>,
    /// The budget of objects that were made without one.
    shared: Arc<BudgetCore<M>>,
    pub(crate) places: ResidentCount,
    /// Why changed pages of a dropped object were lost.
    pub(crate) lost: KeptError<M::Mutex>,
}

impl<M: Mmu> Manager<M> {
    /// A manager of `mmu`'s memory, with no spaces and no objects.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn new(mmu: M, settings: Settings) -> Result<Self, Error> {
        let shared = share(BudgetCore::new(1, Pages(u64::MAX)))?;
        let mut budgets = Vec::new();
        budgets.try_reserve(1)?;
        budgets.push(Arc::downgrade(&shared));
        let core = Core {
            mmu,
            settings,
            pulses: Pulses::new(settings.pulses)?,
            next: AtomicU64::new(2),
            objects: Ordered::new(Vec::new()),
            budgets: Ordered::new(budgets),
            shared,
            places: ResidentCount::new(),
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
        let core = share(BudgetCore::new(self.core.number(), pages))?;
        let mut nothing = Token::nothing_held();
        let (mut budgets, _) = self.core.budgets.lock(&mut nothing);
        budgets.retain(|budget| budget.strong_count() > 0);
        budgets.try_reserve(1)?;
        budgets.push(Arc::downgrade(&core));
        Ok(Budget { core })
    }

    /// Pages in memory, of all objects.
    #[must_use]
    pub fn resident(&self) -> Pages {
        Pages(self.core.places.taken())
    }

    /// Evicts up to `pages` pages, in the policy's order, and returns how many have gone. These are fewer if the
    /// others must stay or their pagers fail.
    pub fn page_out(&self, pages: Pages) -> Pages {
        let evicted = (0..pages.0).take_while(|_| self.core.evict_one()).count();
        Pages(evicted as u64)
    }

    /// Serves one pulse: redoes the fault, waits for locks, and calls the pager if needed. Any number of worker
    /// threads may call this. `false` if no pulse waited.
    pub fn serve(&self) -> bool {
        self.core.serve()
    }

    /// Pulses that have not been served to the end.
    #[must_use]
    pub fn pulses(&self) -> usize {
        self.core.pulses.len()
    }
}

impl<M: Mmu> Core<M> {
    /// A number for a new space, object or budget.
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

    /// Redoes the fault of one pulse.
    fn serve(&self) -> bool {
        let Some(pulse) = self.pulses.take() else { return false };
        match pulse.space.upgrade() {
            Some(space) => SpaceCore::serve(&space, pulse),
            // The space is gone, and no thread waits in it.
            None => self.pulses.done(),
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
