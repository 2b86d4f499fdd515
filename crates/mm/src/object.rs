//! Memory objects: pages with contents. Any number of spaces can map one.
//!
//! # What it owns
//! The states of its pages, its size, its list of [`Reference`]s, its mappings and pins by page, all under one mutex. The
//! machine owns its memory; the pager has the contents that are not in memory.
//!
//! # Lifetime
//! An object lives while it has a handle or a mapping. [`destroy`](Object::destroy) only refuses new mappings.
//! When the last handle and the last mapping are gone, the dirty pages of a file are written, and the memory is
//! released.

use alloc::{sync::Arc, vec::Vec};
use core::fmt;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::{
    Access, Error, FaultError, Mmu, MmuError, ObjectPage, ObjectSpan, Pager, PagerError, Pages,
    Reach, Residency, Residents, Slot, Span, State,
    budget::{BudgetCore, PageName},
    manager::Core,
    order::{self, Ordered, Token},
    page::{PageEntry, PageTable, Search},
    pins::Pins,
    pulse::Ticket,
    reads::Read,
    reference::{Reference, Showing},
    refusal::Refusals,
    reverse::ReverseMap,
    share::share,
    write_error::KeptError,
    writes::Writes,
};

/// What an object holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Memory of programs: zeros at first, and discarded at the end. The pager is its swap space.
    Anonymous,
    /// A file: the pager has the contents at first, and gets the changes at the end.
    File,
}

/// A memory object. Clones are the same one.
pub struct Object<M: Mmu> {
    pub(crate) core: Arc<ObjectCore<M>>,
}

pub(crate) struct ObjectCore<M: Mmu> {
    pub(crate) number: u64,
    pub(crate) manager: Arc<Core<M>>,
    pub(crate) machine: M::Object,
    pub(crate) pager: Arc<dyn Pager>,
    pub(crate) kind: Kind,
    /// The residency of new mappings that do not ask for one, as a number.
    default_residency: AtomicU8,
    pub(crate) budget: Arc<BudgetCore<M>>,
    pub(crate) state: Ordered<M::Mutex, order::Object, ObjectState<M>>,
    pub(crate) counts: ObjectCounts,
    /// Its pager's failures to write, for `reclaim.rs`.
    pub(crate) refusals: Refusals,
    /// Its pager's writes under way, for `reclaim.rs`.
    pub(crate) writes: Writes,
    pub(crate) write_error: KeptError<M::Mutex>,
}

/// What the mutex of an object guards.
pub(crate) struct ObjectState<M: Mmu> {
    pub(crate) pages: PageTable,
    pub(crate) size: u64,
    pub(crate) references: Vec<Arc<Reference<M>>>,
    /// All mappings of the object.
    pub(crate) mappings: ReverseMap<Showing<M>>,
    /// Which pages must stay in memory.
    pub(crate) pins: Pins,
    /// Pinned pages below this one take room in the budgets: the size, or the one that a growing object is about to
    /// have.
    pub(crate) counted: u64,
    /// Pages that I/O uses without translations, and what it does to them. Each is pinned.
    pub(crate) io: ReverseMap<Access>,
    pub(crate) destroyed: bool,
    /// A thread changes the size or discards pages, and has given up the lock meanwhile.
    pub(crate) resizing: bool,
    /// Pages that are being discarded. Those without memory are not filled meanwhile.
    pub(crate) discarding: Option<ObjectSpan>,
    /// Pulses that wait for the end of a filling.
    pub(crate) put_off: Vec<PutOff>,
    /// Calls of the pager that read a page.
    pub(crate) reads: Vec<Read>,
    pub(crate) next_read: u64,
}

/// A pulse that waits until a page is filled.
#[derive(Debug)]
pub(crate) struct PutOff {
    pub(crate) page: ObjectPage,
    pub(crate) ticket: Ticket,
    /// The filling has failed, and the pulse is about to end with its error.
    pub(crate) failed: Option<FaultError>,
}

/// Statistics.
#[derive(Debug, Default)]
pub(crate) struct ObjectCounts {
    pub(crate) resident: AtomicU64,
    pub(crate) filled: AtomicU64,
    pub(crate) evicted: AtomicU64,
    pub(crate) written: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) held: AtomicU64,
}

impl<M: Mmu> Object<M> {
    pub(crate) fn new(
        manager: &Arc<Core<M>>,
        kind: Kind,
        pages: Pages,
        pager: Arc<dyn Pager>,
        budget: Arc<BudgetCore<M>>,
    ) -> Result<Self, Error> {
        if ObjectSpan::new(ObjectPage::new(0), pages).is_none() {
            return Err(Error::BadSpan);
        }
        let initial = match kind {
            Kind::Anonymous => 0,
            Kind::File => pages.0,
        };
        let default = match kind {
            Kind::Anonymous => manager.settings.defaults.anonymous,
            Kind::File => manager.settings.defaults.file,
        };
        let state = ObjectState {
            pages: PageTable::new(initial),
            size: pages.0,
            references: Vec::new(),
            mappings: ReverseMap::new(),
            pins: Pins::new(),
            counted: pages.0,
            io: ReverseMap::new(),
            destroyed: false,
            resizing: false,
            discarding: None,
            put_off: Vec::new(),
            reads: Vec::new(),
            next_read: 0,
        };
        let core = share(ObjectCore {
            number: manager.number(),
            manager: Arc::clone(manager),
            machine: manager.mmu.new_object(pages)?,
            pager,
            kind,
            default_residency: AtomicU8::new(default.number()),
            budget,
            state: Ordered::new(state),
            counts: ObjectCounts::default(),
            refusals: Refusals::new(),
            writes: Writes::default(),
            write_error: KeptError::new(),
        })?;
        manager.enroll(&core)?;
        Ok(Self { core })
    }

    /// How many pages it has.
    #[must_use]
    pub fn pages(&self) -> Pages {
        let mut nothing = Token::nothing_held();
        let (state, _) = self.core.state.lock(&mut nothing);
        Pages(state.size)
    }

    /// Its number, which no other object of the manager has or had.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.core.number
    }

    /// The residency of new mappings that do not ask for one. The manager's [`Defaults`](crate::Defaults) say what a
    /// new object has.
    #[must_use]
    pub fn default_residency(&self) -> Residency {
        self.core.default_residency()
    }

    /// Sets the residency of new mappings that do not ask for one. Present mappings stay as they are.
    pub fn set_default_residency(&self, residency: Residency) {
        self.core.default_residency.store(residency.number(), Ordering::Relaxed);
    }

    /// The machine's part of it.
    #[must_use]
    pub fn machine(&self) -> &M::Object {
        &self.core.machine
    }

    /// Refuses new mappings from now on. Present mappings stay. The memory is released with the last mapping and
    /// the last handle.
    pub fn destroy(&self) {
        let mut nothing = Token::nothing_held();
        let (mut state, _) = self.core.state.lock(&mut nothing);
        state.destroyed = true;
    }

    /// How many spaces map it.
    #[must_use]
    pub fn spaces(&self) -> usize {
        let mut nothing = Token::nothing_held();
        let (state, _) = self.core.state.lock(&mut nothing);
        state.references.len()
    }

    /// Calls `visit` once for every page of every space that shows a page of `span`. The object is locked
    /// meanwhile, and no space is: `visit` must not call the object, nor a space that maps it. A visited page may
    /// have been unmapped a moment ago.
    pub fn walk(&self, span: ObjectSpan, mut visit: impl FnMut(&Reach<'_, M>)) {
        let mut nothing = Token::nothing_held();
        let (state, _) = self.core.state.lock(&mut nothing);
        self.core.visit(&state, span, &mut visit);
    }
}

impl<M: Mmu> ObjectCore<M> {
    pub(crate) fn name(&self, page: ObjectPage) -> PageName {
        PageName { object: self.number, page }
    }

    pub(crate) fn default_residency(&self) -> Residency {
        // Relaxed: the value publishes nothing else.
        Residency::from_number(self.default_residency.load(Ordering::Relaxed))
    }

    pub(crate) fn visit(
        &self,
        state: &ObjectState<M>,
        span: ObjectSpan,
        visit: &mut impl FnMut(&Reach<'_, M>),
    ) {
        let mmu = &self.manager.mmu;
        state.mappings.each(span, |covered, showing| showing.visit(mmu, covered, span, visit));
    }

    /// Whether some mapping wants the page in memory.
    pub(crate) fn is_pinned(&self, state: &ObjectState<M>, page: ObjectPage) -> bool {
        state.pins.covers(page)
    }

    /// The first page of `span` for which `wanted` holds. It skips leaves of the table that were never touched, and
    /// pages past the end. It locks the object for a bounded number of pages at a time.
    pub(crate) fn next_page<H: order::Before<order::Object>>(
        &self,
        held: &mut Token<'_, H>,
        span: ObjectSpan,
        mut wanted: impl FnMut(&PageEntry) -> bool,
    ) -> Option<ObjectPage> {
        let mut from = span.first();
        loop {
            let (state, _) = self.state.lock(held);
            let rest = state.within(Span::between(from, span.end()));
            match state.pages.search(rest.first(), rest.end(), &mut wanted) {
                Search::Found(page) => return Some(page),
                Search::From(page) => from = page,
                Search::Nothing => return None,
            }
        }
    }

    /// Calls `visit` with each page of `span`, with the exceptions and the locks of [`next_page`](Self::next_page).
    pub(crate) fn each_touched<H: order::Before<order::Object>>(
        &self,
        held: &mut Token<'_, H>,
        span: ObjectSpan,
        mut visit: impl FnMut(&PageEntry),
    ) {
        self.next_page(held, span, |page| {
            visit(page);
            false
        });
    }

    /// A page has lost its memory: `take_out` takes it off its budget's list, and its places are free.
    pub(crate) fn count_out<H: order::Before<order::Leaf>, R>(
        &self,
        held: &mut Token<'_, H>,
        place: Option<Slot>,
        take_out: fn(&mut Residents<PageName>, Slot) -> R,
    ) -> Option<R> {
        self.counts.resident.fetch_sub(1, Ordering::Relaxed);
        self.budget.vacate(&self.manager.places, held, place, take_out)
    }
}

impl<M: Mmu> ObjectState<M> {
    /// The page, if the object has it.
    pub(crate) fn page(&self, page: ObjectPage) -> Option<PageEntry> {
        (page.number() < self.size).then(|| self.pages.get(page))
    }

    /// Whether the page is pinned for I/O with this access.
    pub(crate) fn is_pinned_for(&self, page: ObjectPage, access: Access) -> bool {
        self.io.any(Span::one(page), |_, pinned| *pinned == access)
    }

    /// The space with the lowest number above `last` that wants some page of `span` in memory.
    pub(crate) fn next_pinning(&self, last: u64, span: ObjectSpan) -> Option<&Reference<M>> {
        let mut next: Option<&Reference<M>> = None;
        self.mappings.each(span, |_, showing| {
            let number = showing.reference.number;
            let nearer = next.is_none_or(|next| number < next.number);
            if number > last && nearer && showing.is_pinned() {
                next = Some(&showing.reference);
            }
        });
        next
    }

    /// The part of `span` that the object has.
    pub(crate) fn within(&self, span: ObjectSpan) -> ObjectSpan {
        span.intersection(&Span::between(ObjectPage::new(0), ObjectPage::new(self.size)))
    }
}

impl<M: Mmu> Drop for ObjectCore<M> {
    fn drop(&mut self) {
        self.manager.strike(self.number);
        self.drop_reads();
        Ending { object: self, writing: None }.write_changes();
    }
}

/// The end of an object. Dropping it releases all memory, also while the pager that was to write changes panics.
struct Ending<'a, M: Mmu> {
    object: &'a mut ObjectCore<M>,
    /// The page that the pager is writing.
    writing: Option<ObjectPage>,
}

impl<M: Mmu> Ending<'_, M> {
    /// Lets the pager of a file write the dirty pages.
    fn write_changes(mut self) {
        let Self { object, writing } = &mut self;
        let ObjectCore { state, manager, machine, pager, kind, counts, .. } = &mut **object;
        if *kind != Kind::File {
            return;
        }
        let (mmu, lost) = (&manager.mmu, &manager.lost);
        let mut buffer = manager.buffer();
        state.get_mut().pages.each_from(ObjectPage::new(0), |page, entry| {
            if entry.state == State::Lost {
                lost.keep(Error::Lost { page });
            }
            if entry.state != State::Dirty {
                return;
            }
            let copied = mmu.read(machine, page, 0, buffer.bytes()).map_err(|error| match error {
                MmuError::Gone => Error::Lost { page },
                other => other.into(),
            });
            *writing = Some(page);
            let written = copied.and_then(|()| {
                let written = pager.write(page, buffer.bytes());
                written.map_err(|error| Error::Pager { page, error })
            });
            *writing = None;
            if let Err(error) = written {
                counts.failed.fetch_add(1, Ordering::Relaxed);
                lost.keep(error);
            }
        });
    }
}

impl<M: Mmu> Drop for Ending<'_, M> {
    fn drop(&mut self) {
        let ObjectCore { state, manager, machine, budget, counts, .. } = &mut *self.object;
        if let Some(page) = self.writing {
            manager.lost.keep(Error::Pager { page, error: PagerError::Panicked });
        }
        let mut nothing = Token::nothing_held();
        state.get_mut().pages.each_from(ObjectPage::new(0), |page, entry| {
            if entry.state.is_resident() {
                // Nothing reads the memory any more, even if something else holds it.
                let _ = manager.mmu.release(machine, page);
                counts.resident.fetch_sub(1, Ordering::Relaxed);
                let place = entry.place.take();
                budget.vacate(&manager.places, &mut nothing, place, Residents::remove);
            }
        });
    }
}

impl<M: Mmu> Clone for Object<M> {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core) }
    }
}

impl<M: Mmu> fmt::Debug for Object<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object").field("number", &self.core.number).finish_non_exhaustive()
    }
}
