//! The machine: frames, spaces, translations, and what it gathers before it takes them away.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
    vec::Vec,
};
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use lock_api::{Mutex, RawMutex, RawRwLock};
use smallvec::SmallVec;

use super::{
    frame::{Frame, Frames, SoftFrame},
    table::{Entry, Table},
    tlb::Tlb,
    violation::Violation,
    waits::Waits,
};
use crate::{
    Access, Contents, FaultError, Installed, Lane, Mmu, MmuError, ObjectPage, Page, Pages,
    Protection, Released, Seen, VirtualPage, VirtualSpan, Wait, Writable,
};

/// A machine. `X` and `W` are the locks that it and the manager use.
pub struct SoftMmu<X, W> {
    pub(super) page_size: usize,
    pub(super) frames: Arc<Frames>,
    /// Leaves of tables take memory from the frames.
    pub(super) tables_take_frames: bool,
    pub(super) idle: fn(u32),
    pub(super) tlbs: Mutex<X, Vec<Weak<Tlb<X>>>>,
    pub(super) waits: Waits<X>,
    pub(super) next: AtomicU64,
    pub(super) fail_in: AtomicI64,
    pub(super) late_in: AtomicI64,
    pub(super) harvests: AtomicBool,
    pub(super) remembers_less: AtomicBool,
    /// What processors should have forgotten when a gather failed, by the numbers of the spaces.
    pub(super) unfinished: Mutex<X, Vec<(u64, VirtualSpan)>>,
    pub(super) thefts: AtomicU64,
    pub(super) wakes: AtomicU64,
    pub(super) violations: Mutex<X, Vec<Violation>>,
    pub(super) locks: core::marker::PhantomData<fn() -> W>,
}

/// Changes of translations to pages of one object.
#[derive(Debug, Default)]
pub struct SoftGather {
    /// What processors have to forget, by the numbers of the spaces.
    stale: SmallVec<[(u64, VirtualSpan); 8]>,
    /// Pages of which an accessed translation was taken away.
    accessed: Vec<ObjectPage>,
}

/// Translations of an address space.
pub struct SoftSpace<X> {
    pub(super) number: u64,
    pub(super) table: Mutex<X, Table<X>>,
}

/// Memory of an object.
pub struct SoftObject<X> {
    pub(super) frames: Mutex<X, BTreeMap<u64, Arc<Frame<X>>>>,
    /// Pages whose frames were [stolen](SoftMmu::steal).
    pub(super) stolen: Mutex<X, BTreeSet<u64>>,
}

impl<X: RawMutex> SoftObject<X> {
    fn is_stolen(&self, page: ObjectPage) -> bool {
        self.stolen.lock().contains(&page.number())
    }
}

impl<X: RawMutex, W> SoftMmu<X, W> {
    /// A machine with pages of `page_size` bytes and memory for `frames` of them. Threads that have to
    /// wait call `idle`.
    pub fn new(page_size: usize, frames: u32, idle: fn(u32)) -> Self {
        Self {
            page_size,
            frames: Arc::new(Frames::new(frames)),
            tables_take_frames: false,
            idle,
            tlbs: Mutex::new(Vec::new()),
            waits: Waits::new(),
            next: AtomicU64::new(1),
            fail_in: AtomicI64::new(i64::MAX),
            late_in: AtomicI64::new(i64::MAX),
            harvests: AtomicBool::new(false),
            remembers_less: AtomicBool::new(false),
            unfinished: Mutex::new(Vec::new()),
            thefts: AtomicU64::new(0),
            wakes: AtomicU64::new(0),
            violations: Mutex::new(Vec::new()),
            locks: core::marker::PhantomData,
        }
    }

    /// This machine, whose tables take a frame for each of their leaves, as page tables do. A translation without a leaf
    /// is [`Installed::Unprepared`].
    #[must_use]
    pub fn with_tables_in_frames(self) -> Self {
        Self { tables_take_frames: true, ..self }
    }

    /// Adds a processor, which remembers its translations in `tlb`.
    pub(super) fn connect(&self, tlb: &Arc<Tlb<X>>) {
        self.tlbs.lock().push(Arc::downgrade(tlb));
    }

    /// Makes all processors forget the translations of `span` in the space with this number.
    fn forget_in(&self, space: u64, span: VirtualSpan) {
        for tlb in self.tlbs.lock().iter().filter_map(Weak::upgrade) {
            tlb.forget(space, span);
        }
        let within = |stale: &VirtualSpan| stale.intersection(&span) == *stale;
        self.unfinished.lock().retain(|(of, stale)| *of != space || !within(stale));
    }

    pub(super) fn blame(&self, violation: Violation) {
        self.violations.lock().push(violation);
    }

    fn with_bytes(
        &self,
        object: &SoftObject<X>,
        page: ObjectPage,
        offset: usize,
        length: usize,
        act: impl FnOnce(&mut [u8]),
    ) -> Result<(), MmuError> {
        match object.frames.lock().get(&page.number()) {
            Some(frame) => {
                let end = offset.checked_add(length).ok_or(MmuError::PastPage)?;
                act(frame.bytes.lock().get_mut(offset..end).ok_or(MmuError::PastPage)?);
            }
            None if object.is_stolen(page) => return Err(MmuError::Gone),
            None => self.blame(Violation::WrongMemory { page }),
        }
        Ok(())
    }
}

impl<X, W> Mmu for SoftMmu<X, W>
where
    X: RawMutex + Send + Sync + 'static,
    W: RawRwLock + Send + Sync + 'static,
{
    type Mutex = X;
    type Leaf = X;
    type RwLock = W;
    type Space = SoftSpace<X>;
    type Object = SoftObject<X>;
    type Gather = SoftGather;
    type Frame = SoftFrame<X>;

    fn page_size(&self) -> usize {
        self.page_size
    }

    fn new_space(&self, _span: VirtualSpan) -> Result<SoftSpace<X>, MmuError> {
        self.fails()?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Ok(SoftSpace { number, table: Mutex::new(Table::new(self.tables_take_frames)) })
    }

    fn new_object(&self, _pages: Pages) -> Result<SoftObject<X>, MmuError> {
        self.fails()?;
        Ok(SoftObject { frames: Mutex::new(BTreeMap::new()), stolen: Mutex::new(BTreeSet::new()) })
    }

    fn resize_object(&self, object: &SoftObject<X>, pages: Pages) -> Result<(), MmuError> {
        self.fails()?;
        if let Some((&page, _)) = object.frames.lock().range(pages.0..).next() {
            self.blame(Violation::WrongMemory { page: ObjectPage::new(page) });
        }
        Ok(())
    }

    fn take_frame(
        &self,
        _object: &SoftObject<X>,
        _page: ObjectPage,
        _contents: Contents,
    ) -> Result<SoftFrame<X>, MmuError> {
        self.fails()?;
        SoftFrame::take(&self.frames, self.page_size)
    }

    fn ready(
        &self,
        _object: &SoftObject<X>,
        _page: ObjectPage,
        _frame: &mut SoftFrame<X>,
    ) -> Result<(), MmuError> {
        self.fails()
    }

    fn adopt(&self, object: &SoftObject<X>, page: ObjectPage, frame: SoftFrame<X>) {
        let frame = Arc::new(frame.frame);
        object.stolen.lock().remove(&page.number());
        if object.frames.lock().insert(page.number(), frame).is_some() {
            self.blame(Violation::WrongMemory { page });
        }
        let less = |thefts: u64| thefts.checked_sub(1);
        if self.thefts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok() {
            self.steal(object, page);
        }
    }

    fn read(
        &self,
        object: &SoftObject<X>,
        page: ObjectPage,
        offset: usize,
        into: &mut [u8],
    ) -> Result<(), MmuError> {
        self.fails()?;
        let length = into.len();
        self.with_bytes(object, page, offset, length, |bytes| into.copy_from_slice(bytes))
    }

    fn write(
        &self,
        object: &SoftObject<X>,
        page: ObjectPage,
        offset: usize,
        from: &[u8],
    ) -> Result<(), MmuError> {
        self.fails()?;
        self.with_bytes(object, page, offset, from.len(), |bytes| bytes.copy_from_slice(from))
    }

    fn release(&self, object: &SoftObject<X>, page: ObjectPage) -> Released {
        match object.frames.lock().remove(&page.number()) {
            Some(frame) => {
                if Arc::strong_count(&frame) > 1 {
                    self.blame(Violation::ReleasedTooEarly { page });
                }
                frame.release();
            }
            None if object.stolen.lock().remove(&page.number()) => {}
            None => self.blame(Violation::WrongMemory { page }),
        }
        Released::Gone
    }

    fn attach(
        &self,
        space: &SoftSpace<X>,
        span: VirtualSpan,
        _object: &SoftObject<X>,
        _first: ObjectPage,
        _protection: Protection,
    ) -> Result<(), MmuError> {
        self.fails()?;
        self.detach(space, span);
        Ok(())
    }

    fn detach(&self, space: &SoftSpace<X>, span: VirtualSpan) {
        space.table.lock().retain(span, |_, _| false);
        self.flush(space, span);
    }

    fn protect(
        &self,
        space: &SoftSpace<X>,
        span: VirtualSpan,
        protection: Protection,
    ) -> Result<(), MmuError> {
        self.fails()?;
        space.table.lock().retain(span, |_, entry| {
            entry.protection = protection;
            protection != Protection::None
        });
        self.flush(space, span);
        Ok(())
    }

    fn install(
        &self,
        space: &SoftSpace<X>,
        at: VirtualPage,
        object: &SoftObject<X>,
        page: ObjectPage,
        protection: Protection,
        writable: Writable,
        wait: Wait,
    ) -> Result<Installed, MmuError> {
        self.fails()?;
        if wait == Wait::Never && self.is_late() {
            return Ok(Installed::Later);
        }
        let frame = object.frames.lock().get(&page.number()).cloned();
        let Some(frame) = frame else {
            if object.is_stolen(page) {
                return Err(MmuError::Gone);
            }
            self.blame(Violation::WrongMemory { page });
            return Ok(Installed::Done);
        };
        let mut table = space.table.lock();
        if !table.is_prepared(at) {
            return Ok(Installed::Unprepared);
        }
        match table.get_mut(at) {
            Some(entry) if Arc::ptr_eq(&entry.frame, &frame) => {
                entry.protection = protection;
                if writable == Writable::Yes {
                    entry.writable = Writable::Yes;
                }
            }
            Some(_) => self.blame(Violation::Overwritten { at }),
            None => table.set(at, Entry { frame, protection, writable, accessed: false }),
        }
        Ok(Installed::Done)
    }

    fn prepare(&self, space: &SoftSpace<X>, span: VirtualSpan) -> Result<(), MmuError> {
        self.fails()?;
        space.table.lock().prepare(span, &self.frames)
    }

    fn write_protect(
        &self,
        space: &SoftSpace<X>,
        at: VirtualPage,
        object: &SoftObject<X>,
        page: ObjectPage,
        gather: &mut SoftGather,
    ) -> Result<(), MmuError> {
        self.fails()?;
        gather.stale.push((space.number, VirtualSpan::one(at)));
        let Some(frame) = object.frames.lock().get(&page.number()).cloned() else { return Ok(()) };
        if let Some(entry) = space.table.lock().get_mut(at)
            && Arc::ptr_eq(&entry.frame, &frame)
        {
            entry.writable = Writable::No;
        }
        Ok(())
    }

    fn remove(
        &self,
        space: &SoftSpace<X>,
        span: VirtualSpan,
        object: &SoftObject<X>,
        first: ObjectPage,
        gather: &mut SoftGather,
    ) -> Result<(), MmuError> {
        self.fails()?;
        gather.stale.push((space.number, span));
        let harvests = self.harvests.load(Ordering::Relaxed);
        let frames = object.frames.lock();
        space.table.lock().retain(span, |at, entry| {
            let page = first.plus(at.number() - span.first().number());
            let frame = frames.get(&page.number());
            let ours = frame.is_some_and(|frame| Arc::ptr_eq(&entry.frame, frame));
            if ours && entry.accessed && harvests {
                gather.accessed.push(page);
            }
            !ours
        });
        Ok(())
    }

    fn age(
        &self,
        space: &SoftSpace<X>,
        at: VirtualPage,
        object: &SoftObject<X>,
        page: ObjectPage,
        gather: &mut SoftGather,
    ) -> Result<(), MmuError> {
        let span = VirtualSpan::one(at);
        if !self.harvests.load(Ordering::Relaxed) {
            return self.remove(space, span, object, page, gather);
        }
        self.fails()?;
        // A processor marks the entry when it remembers it, so it has to forget it.
        gather.stale.push((space.number, span));
        if let Some(entry) = space.table.lock().get_mut(at) {
            entry.accessed = false;
        }
        Ok(())
    }

    fn finish(
        &self,
        gather: SoftGather,
        seen: &mut dyn FnMut(ObjectPage, Seen),
    ) -> Result<(), MmuError> {
        if let Err(error) = self.fails() {
            self.unfinished.lock().extend(gather.stale);
            return Err(error);
        }
        gather.stale.iter().for_each(|(space, span)| self.forget_in(*space, *span));
        for page in gather.accessed {
            seen(page, Seen { accessed: true, written: false });
        }
        Ok(())
    }

    fn flush(&self, space: &SoftSpace<X>, span: VirtualSpan) {
        self.forget_in(space.number, span);
    }

    fn pulse(&self, _lane: Lane) {}

    fn wake(
        &self,
        space: &SoftSpace<X>,
        at: VirtualPage,
        access: Access,
        cookie: u64,
        result: Result<(), FaultError>,
    ) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
        self.waits.wake(space.number, at, access, cookie, result);
    }

    fn idle(&self, attempt: u32) {
        (self.idle)(attempt);
    }
}

impl<X, W> fmt::Debug for SoftMmu<X, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SoftMmu").field("page_size", &self.page_size).finish_non_exhaustive()
    }
}

impl<X> fmt::Debug for SoftSpace<X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SoftSpace").field("number", &self.number).finish_non_exhaustive()
    }
}

impl<X> fmt::Debug for SoftObject<X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SoftObject").finish_non_exhaustive()
    }
}
