//! References, and what a walk does at the mappings of a page.
//!
//! # What it owns
//! A [`Reference`] stands for one space that maps an object, and lies in the object's list of references. A
//! [`Showing`] stands for one mapping of the object, and lies in the object's [`ReverseMap`](crate::reverse).
//!
//! # The walk
//! Eviction, write-back and resize begin with an object locked, and the lock order forbids to lock a space after
//! an object. So what a walk needs of a mapping lies under the object's lock: a thread that changes a mapping has
//! the space locked to write, and takes the object's lock for that change. A walk holds the object's lock,
//! visits each mapping of its pages once, and waits for no space.
//!
//! # Why no translation is missed
//! - Translations are made with the object locked, so none is made while a walk runs.
//! - A space takes all translations of a mapping away before it takes the mapping out of the reverse map. So a
//!   walk may visit a mapping that has no translation any more; it hands out only [`Reach`], which can take rights
//!   away and cannot give any.
//! - The machine takes them away after the walk, when the object is not locked. Until then the page is barred
//!   (`withdraw.rs`): no translation with these rights is made.
//! - When a mapping is cut in two or joined with its neighbour, both change under one hold of the object's lock.

use alloc::sync::{Arc, Weak};

use crate::{
    Error, Mmu, MmuError, ObjectPage, ObjectSpan, Page, Span, VirtualPage,
    atomic::{AtomicBool, AtomicU64, Ordering},
    extent::Extent,
    object::{ObjectCore, ObjectState},
    reverse::NodeId,
    space::SpaceCore,
};

/// One space that maps one object.
pub(crate) struct Reference<M: Mmu> {
    pub(crate) object: Arc<ObjectCore<M>>,
    pub(crate) space: Weak<SpaceCore<M>>,
    /// The number of that space.
    pub(crate) number: u64,
    pub(crate) machine: Arc<M::Space>,
    /// How many mappings of the object the space has. Changed with both locked, so each lock is enough to read it.
    mappings: AtomicU64,
    /// No access in this space may fault: write access must not be taken away.
    super_locked: AtomicBool,
}

/// A mapping as its object knows it. The pages of the object that it shows are in the reverse map.
pub(crate) struct Showing<M: Mmu> {
    pub(crate) reference: Arc<Reference<M>>,
    /// The first page of the space.
    pub(crate) at: VirtualPage,
    /// Its pages must stay in memory once they are in.
    pub(crate) locked: bool,
}

/// A page of an object where a space shows it, as a walk visits it. It can be looked at, and the manager can take
/// rights away through it; nothing can install a page:
///
/// ```
/// use commonhold_mm::{Mmu, Reach, VirtualPage};
///
/// fn place<M: Mmu>(reach: &Reach<'_, M>) -> VirtualPage {
///     reach.at()
/// }
/// ```
///
/// ```compile_fail,E0599
/// use commonhold_mm::{Mmu, Reach, Writable};
///
/// fn give_back<M: Mmu>(reach: &Reach<'_, M>) {
///     reach.install(Writable::Yes);
/// }
/// ```
#[derive(Debug)]
pub struct Reach<'a, M: Mmu> {
    pub(crate) mmu: &'a M,
    pub(crate) space: &'a M::Space,
    pub(crate) object: &'a M::Object,
    pub(crate) at: VirtualPage,
    pub(crate) page: ObjectPage,
    pub(crate) locked: bool,
    pub(crate) super_locked: bool,
}

impl<M: Mmu> Reach<'_, M> {
    /// The page of the space.
    #[must_use]
    pub const fn at(&self) -> VirtualPage {
        self.at
    }

    /// The page of the object.
    #[must_use]
    pub const fn page(&self) -> ObjectPage {
        self.page
    }

    /// Whether the page must stay in memory for this mapping.
    #[must_use]
    pub const fn is_pinned(&self) -> bool {
        self.locked || self.super_locked
    }

    /// Whether no access here may fault: then no right may be taken away.
    #[must_use]
    pub const fn is_super_locked(&self) -> bool {
        self.super_locked
    }

    /// Makes writes here fault, once the gather is finished. Does nothing in a super-locked space.
    pub(crate) fn write_protect(&self, gather: &mut M::Gather) -> Result<(), MmuError> {
        if self.super_locked {
            return Ok(());
        }
        self.mmu.write_protect(self.space, self.at, self.object, self.page, gather)
    }

    /// Lets the next look tell whether the page was accessed here, once the gather is finished.
    pub(crate) fn age(&self, gather: &mut M::Gather) -> Result<(), MmuError> {
        self.mmu.age(self.space, self.at, self.object, self.page, gather)
    }
}

impl<M: Mmu> Reference<M> {
    /// A reference without mappings, of the space that `core` is.
    pub(crate) fn new(
        object: &Arc<ObjectCore<M>>,
        core: &Arc<SpaceCore<M>>,
        super_locked: bool,
    ) -> Self {
        Self {
            object: Arc::clone(object),
            space: Arc::downgrade(core),
            number: core.number,
            machine: Arc::clone(&core.machine),
            mappings: AtomicU64::new(0),
            super_locked: AtomicBool::new(super_locked),
        }
    }

    pub(crate) fn is_super_locked(&self) -> bool {
        // Acquire: pairs with the Release in `set_super_locked`. A super-lock sets the flag first, and then brings
        // pages in under the object's lock; so a walk that takes that lock later sees the flag.
        self.super_locked.load(Ordering::Acquire)
    }

    pub(crate) fn set_super_locked(&self, super_locked: bool) {
        self.super_locked.store(super_locked, Ordering::Release);
    }

    /// Whether the space has no mapping of the object left. Space locked.
    pub(crate) fn is_empty(&self) -> bool {
        // Relaxed, as all accesses to this word: the locks order them.
        self.mappings.load(Ordering::Relaxed) == 0
    }

    /// Makes a mapping known to walks. Space locked to write, object locked.
    ///
    /// # Errors
    /// [`Error::NoMemory`]; then nothing has changed.
    pub(crate) fn link(
        self: &Arc<Self>,
        of_object: &mut ObjectState<M>,
        extent: Extent,
        locked: bool,
    ) -> Result<NodeId, Error> {
        let showing = Showing { reference: Arc::clone(self), at: extent.at.first(), locked };
        let node = of_object.mappings.insert(extent.of_object(), showing)?;
        self.mappings.fetch_add(1, Ordering::Relaxed);
        Ok(node)
    }

    /// Ends [`link`](Self::link). Space locked to write, object locked; the mapping has no translation left, or
    /// another one shows its pages.
    pub(crate) fn unlink(&self, of_object: &mut ObjectState<M>, node: NodeId) {
        if of_object.mappings.remove(node).is_some() {
            self.mappings.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl<M: Mmu> Showing<M> {
    /// Whether its pages must stay in memory.
    pub(crate) fn is_pinned(&self) -> bool {
        self.locked || self.reference.is_super_locked()
    }

    /// The mapping's pages; it shows `covered`.
    fn extent(&self, covered: ObjectSpan) -> Extent {
        let at = Span::between(self.at, self.at.plus(covered.pages().0));
        Extent { at, first: covered.first() }
    }

    /// Calls `visit` for each page of `span` that this mapping, which shows `covered`, shows. The object is locked.
    pub(crate) fn visit(
        &self,
        mmu: &M,
        covered: ObjectSpan,
        span: ObjectSpan,
        visit: &mut impl FnMut(&Reach<'_, M>),
    ) {
        let (extent, pages) = (self.extent(covered), covered.intersection(&span));
        let (locked, super_locked) = (self.locked, self.reference.is_super_locked());
        for page in pages.iter() {
            let (at, space) = (extent.place(page), &*self.reference.machine);
            let object = &self.reference.object.machine;
            visit(&Reach { mmu, space, object, at, page, locked, super_locked });
        }
    }

    /// Takes away all translations of this mapping, which shows `covered`, to pages of `span`, even if the space is
    /// super-locked: the pages are about to lose their memory. The object is locked.
    pub(crate) fn take_away(
        &self,
        mmu: &M,
        covered: ObjectSpan,
        span: ObjectSpan,
        gather: &mut M::Gather,
    ) -> Result<(), MmuError> {
        let pages = covered.intersection(&span);
        let at = self.extent(covered).places(&pages);
        let object = &self.reference.object.machine;
        mmu.remove(&self.reference.machine, at, object, pages.first(), gather)
    }
}

impl<M: Mmu> core::fmt::Debug for Reference<M> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Reference").field("space", &self.number).finish_non_exhaustive()
    }
}
