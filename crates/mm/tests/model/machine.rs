//! The software machine, which also records its wakes.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use commonhold_mm::{
    Access, FaultError, Installed, Lane, Mmu, MmuError, ObjectPage, Pages, Protection, Released,
    VirtualPage, VirtualSpan, Wait, Writable,
    soft::{SoftMmu, SoftObject, SoftSpace},
};

use crate::trouble::aside;

type Soft = SoftMmu<parking_lot::RawMutex, parking_lot::RawRwLock>;

/// A wake: the space, the page, the access, and the result.
pub(crate) type Wake = (usize, VirtualPage, Access, Result<(), FaultError>);

pub(crate) struct Machine {
    pub(crate) soft: Soft,
    spaces: AtomicUsize,
    wakes: Mutex<Vec<Wake>>,
    failed: AtomicUsize,
}

#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) number: usize,
    pub(crate) soft: SoftSpace<parking_lot::RawMutex>,
}

impl Machine {
    pub(crate) fn new(page_size: usize, frames: u32) -> Self {
        let soft = SoftMmu::new(page_size, frames, |_| panic!("one thread alone would wait"));
        Self {
            soft,
            spaces: AtomicUsize::new(0),
            wakes: Mutex::new(Vec::new()),
            failed: AtomicUsize::new(0),
        }
    }

    /// All wakes since the last call.
    pub(crate) fn wakes(&self) -> Vec<Wake> {
        std::mem::take(&mut *self.wakes.lock().unwrap())
    }

    /// How many calls have failed so far.
    pub(crate) fn failed(&self) -> usize {
        self.failed.load(Ordering::Relaxed)
    }

    /// A call that may fail.
    fn fallible<T>(&self, call: impl FnOnce() -> Result<T, MmuError>) -> Result<T, MmuError> {
        aside(call).inspect_err(|_| {
            self.failed.fetch_add(1, Ordering::Relaxed);
        })
    }
}

impl Mmu for Machine {
    type Mutex = parking_lot::RawMutex;
    type Leaf = parking_lot::RawMutex;
    type RwLock = parking_lot::RawRwLock;
    type Space = Space;
    type Object = SoftObject<parking_lot::RawMutex>;

    fn page_size(&self) -> usize {
        self.soft.page_size()
    }

    fn new_space(&self, span: VirtualSpan) -> Result<Space, MmuError> {
        let soft = self.fallible(|| self.soft.new_space(span))?;
        Ok(Space { number: self.spaces.fetch_add(1, Ordering::Relaxed), soft })
    }

    fn new_object(&self, pages: Pages) -> Result<Self::Object, MmuError> {
        self.fallible(|| self.soft.new_object(pages))
    }

    fn resize_object(&self, object: &Self::Object, pages: Pages) -> Result<(), MmuError> {
        self.fallible(|| self.soft.resize_object(object, pages))
    }

    fn fill(&self, object: &Self::Object, page: ObjectPage, from: &[u8]) -> Result<(), MmuError> {
        self.fallible(|| self.soft.fill(object, page, from))
    }

    fn copy_out(
        &self,
        object: &Self::Object,
        page: ObjectPage,
        into: &mut [u8],
    ) -> Result<(), MmuError> {
        self.fallible(|| self.soft.copy_out(object, page, into))
    }

    fn release(&self, object: &Self::Object, page: ObjectPage) -> Released {
        aside(|| self.soft.release(object, page))
    }

    fn attach(
        &self,
        space: &Space,
        span: VirtualSpan,
        object: &Self::Object,
        first: ObjectPage,
        protection: Protection,
    ) -> Result<(), MmuError> {
        self.fallible(|| self.soft.attach(&space.soft, span, object, first, protection))
    }

    fn detach(&self, space: &Space, span: VirtualSpan) {
        aside(|| self.soft.detach(&space.soft, span));
    }

    fn protect(
        &self,
        space: &Space,
        span: VirtualSpan,
        protection: Protection,
    ) -> Result<(), MmuError> {
        self.fallible(|| self.soft.protect(&space.soft, span, protection))
    }

    fn install(
        &self,
        space: &Space,
        at: VirtualPage,
        object: &Self::Object,
        page: ObjectPage,
        protection: Protection,
        writable: Writable,
        wait: Wait,
    ) -> Result<Installed, MmuError> {
        let install =
            || self.soft.install(&space.soft, at, object, page, protection, writable, wait);
        self.fallible(install)
    }

    fn write_protect(
        &self,
        space: &Space,
        at: VirtualPage,
        object: &Self::Object,
        page: ObjectPage,
    ) {
        aside(|| self.soft.write_protect(&space.soft, at, object, page));
    }

    fn remove(&self, space: &Space, span: VirtualSpan, object: &Self::Object, first: ObjectPage) {
        aside(|| self.soft.remove(&space.soft, span, object, first));
    }

    fn flush(&self, space: &Space, span: VirtualSpan) {
        aside(|| self.soft.flush(&space.soft, span));
    }

    fn pulse(&self, _lane: Lane) {}

    fn wake(
        &self,
        space: &Space,
        at: VirtualPage,
        access: Access,
        _cookie: u64,
        result: Result<(), FaultError>,
    ) {
        aside(|| self.wakes.lock().unwrap().push((space.number, at, access, result)));
    }

    fn idle(&self, attempt: u32) {
        self.soft.idle(attempt);
    }
}
