//! The software machine with code around its calls, for tests that want some of them to fail, or record them.
//!
//! All tests of the memory manager with a machine of their own use this one, so a change of the port changes one file.
#![allow(dead_code, reason = "each test uses a part of it")]

pub(crate) mod locks;

use std::sync::atomic::{AtomicU64, Ordering};

use commonhold_mm::{
    Access, Contents, FaultError, Installed, Lane, Mmu, MmuError, ObjectPage, Pages, Protection,
    Released, Seen, VirtualPage, VirtualSpan, Wait, Writable,
    soft::{SoftFrame, SoftGather, SoftMmu, SoftObject, SoftSpace},
};

type Soft = SoftMmu<parking_lot::RawMutex, parking_lot::RawRwLock>;

/// A call that a machine could forget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Adopt,
    Release,
    Detach,
    WriteProtect,
    Remove,
    Finish,
    Wake,
}

/// What is done around the calls.
pub(crate) trait Around: Send + Sync + 'static {
    /// Makes a call that may fail.
    fn fallible<T>(&self, call: impl FnOnce() -> Result<T, MmuError>) -> Result<T, MmuError> {
        call()
    }

    /// Makes a call, or leaves it out.
    fn certain(&self, _call: Call, act: impl FnOnce()) {
        act();
    }

    /// A translation is about to be made.
    fn installs(&self, _wait: Wait) {}

    /// A gather is about to be finished.
    fn finishes(&self) {}

    /// Threads are about to be woken, in the space with this number.
    fn wakes(
        &self,
        _space: u64,
        _at: VirtualPage,
        _access: Access,
        _cookie: u64,
        _result: Result<(), FaultError>,
    ) {
    }
}

/// The machine. Its manager has locks that panic where they would wait ([`locks`]).
pub(crate) struct Wrapped<A> {
    pub(crate) soft: Soft,
    pub(crate) around: A,
    spaces: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) number: u64,
    pub(crate) soft: SoftSpace<parking_lot::RawMutex>,
}

impl<A: Around> Wrapped<A> {
    pub(crate) fn new(page_size: usize, frames: u32, around: A) -> Self {
        let soft = SoftMmu::new(page_size, frames, |_| panic!("one thread alone would wait"));
        Self { soft, around, spaces: AtomicU64::new(0) }
    }

    fn fallible<T>(&self, call: impl FnOnce() -> Result<T, MmuError>) -> Result<T, MmuError> {
        self.around.fallible(call)
    }

    fn certain(&self, call: Call, act: impl FnOnce()) {
        self.around.certain(call, act);
    }
}

impl<A: Around> Mmu for Wrapped<A> {
    type Mutex = locks::Mutex;
    type Leaf = parking_lot::RawMutex;
    type RwLock = locks::RwLock;
    type Space = Space;
    type Object = SoftObject<parking_lot::RawMutex>;
    type Gather = SoftGather;
    type Frame = SoftFrame<parking_lot::RawMutex>;

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

    fn take_frame(
        &self,
        object: &Self::Object,
        page: ObjectPage,
        contents: Contents,
    ) -> Result<Self::Frame, MmuError> {
        self.fallible(|| self.soft.take_frame(object, page, contents))
    }

    fn ready(
        &self,
        object: &Self::Object,
        page: ObjectPage,
        frame: &mut Self::Frame,
    ) -> Result<(), MmuError> {
        self.fallible(|| self.soft.ready(object, page, frame))
    }

    fn adopt(&self, object: &Self::Object, page: ObjectPage, frame: Self::Frame) {
        let act = || self.soft.adopt(object, page, frame);
        self.certain(Call::Adopt, act);
    }

    fn read(
        &self,
        object: &Self::Object,
        page: ObjectPage,
        offset: usize,
        into: &mut [u8],
    ) -> Result<(), MmuError> {
        self.fallible(|| self.soft.read(object, page, offset, into))
    }

    fn write(
        &self,
        object: &Self::Object,
        page: ObjectPage,
        offset: usize,
        from: &[u8],
    ) -> Result<(), MmuError> {
        self.fallible(|| self.soft.write(object, page, offset, from))
    }

    fn release(&self, object: &Self::Object, page: ObjectPage) -> Released {
        let mut released = Released::Gone;
        self.certain(Call::Release, || released = self.soft.release(object, page));
        released
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
        self.certain(Call::Detach, || self.soft.detach(&space.soft, span));
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
        self.around.installs(wait);
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
        gather: &mut SoftGather,
    ) -> Result<(), MmuError> {
        self.fallible(|| {
            let mut said = Ok(());
            let act = || said = self.soft.write_protect(&space.soft, at, object, page, gather);
            self.certain(Call::WriteProtect, act);
            said
        })
    }

    fn remove(
        &self,
        space: &Space,
        span: VirtualSpan,
        object: &Self::Object,
        first: ObjectPage,
        gather: &mut SoftGather,
    ) -> Result<(), MmuError> {
        self.fallible(|| {
            let mut said = Ok(());
            let act = || said = self.soft.remove(&space.soft, span, object, first, gather);
            self.certain(Call::Remove, act);
            said
        })
    }

    fn finish(
        &self,
        gather: SoftGather,
        seen: &mut dyn FnMut(ObjectPage, Seen),
    ) -> Result<(), MmuError> {
        self.around.finishes();
        self.fallible(|| {
            let mut said = Ok(());
            self.certain(Call::Finish, || said = self.soft.finish(gather, seen));
            said
        })
    }

    fn flush(&self, space: &Space, span: VirtualSpan) {
        self.soft.flush(&space.soft, span);
    }

    fn pulse(&self, lane: Lane) {
        self.soft.pulse(lane);
    }

    fn wake(
        &self,
        space: &Space,
        at: VirtualPage,
        access: Access,
        cookie: u64,
        result: Result<(), FaultError>,
    ) {
        self.certain(Call::Wake, || {
            self.around.wakes(space.number, at, access, cookie, result);
            self.soft.wake(&space.soft, at, access, cookie, result);
        });
    }

    fn idle(&self, attempt: u32) {
        self.soft.idle(attempt);
    }
}
