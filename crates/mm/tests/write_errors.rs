//! Errors of write-back reach somebody: the caller of `sync`, or who asks for them later.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::sync::Arc;

use commonhold_mm::{
    Error, FailingPager, Kind, Manager, MapRequest, Object, ObjectPage, ObjectSpan, Pager,
    PagerCall, PagerError, Pages, Placement, Settings, Span, State, VirtualPage, VirtualSpan,
    Which, soft::SoftMmu,
};
use parking_lot::{Mutex, RawMutex};

const PAGE: usize = 16;
const FULL: PagerError = PagerError::Full;

type Machine = SoftMmu<parking_lot::RawMutex, parking_lot::RawRwLock>;

/// Keeps pages, as a disk with a cache does: `medium` has what was flushed.
#[derive(Default)]
struct Disk {
    cache: Mutex<Vec<(u64, u8)>>,
    medium: Mutex<Vec<(u64, u8)>>,
}

impl Pager for Disk {
    fn read(&self, _: ObjectPage, into: &mut [u8]) -> Result<(), PagerError> {
        into.fill(0);
        Ok(())
    }

    fn write(&self, page: ObjectPage, from: &[u8]) -> Result<(), PagerError> {
        self.cache.lock().extend(from.first().map(|byte| (page.number(), *byte)));
        Ok(())
    }

    fn discard(&self, _: ObjectSpan) -> Result<(), PagerError> {
        Ok(())
    }

    fn flush(&self) -> Result<(), PagerError> {
        self.medium.lock().append(&mut self.cache.lock());
        Ok(())
    }
}

type Pagers = FailingPager<Disk, RawMutex>;

struct World {
    manager: Manager<Machine>,
    pager: Arc<Pagers>,
    object: Object<Machine>,
    space: commonhold_mm::AddressSpace<Machine>,
}

impl World {
    /// A file of 4 pages, mapped twice in parts.
    fn new() -> Self {
        let mmu = SoftMmu::new(PAGE, 1000, |_| std::thread::yield_now());
        let settings = Settings { budget: Pages(100), ..Settings::default() };
        let manager = Manager::new(mmu, settings).unwrap();
        let pager = Arc::new(Pagers::new(Disk::default()));
        let object = manager.object(Kind::File, Pages(4), Arc::clone(&pager) as _).unwrap();
        let space = manager.space(span(0, 64)).unwrap();
        for at in [0, 10, 20] {
            let placement = Placement::Fixed(VirtualPage::new(at));
            space.map(&object, MapRequest { placement, ..MapRequest::new(Pages(4)) }).unwrap();
        }
        Self { manager, pager, object, space }
    }

    fn write(&self, page: u64, value: u8) {
        let cpu = self.manager.mmu().cpu();
        cpu.write(&self.manager, &self.space, page * PAGE as u64, &[value]).unwrap();
    }

    fn all(&self) -> ObjectSpan {
        Span::new(ObjectPage::new(0), self.object.pages()).unwrap()
    }
}

fn span(first: u64, pages: u64) -> VirtualSpan {
    VirtualSpan::new(VirtualPage::new(first), Pages(pages)).unwrap()
}

#[test]
fn sync_flushes_the_pager_once() {
    let it = World::new();
    it.write(1, 11);
    it.write(2, 12);
    assert_eq!(it.object.sync(it.all()), Ok(Pages(2)));
    assert_eq!(*it.pager.inner().medium.lock(), [(1, 11), (2, 12)]);
    assert_eq!(it.pager.calls(PagerCall::Flush), 1);
    it.write(3, 13);
    // The space has the object three times, and gaps where nothing is mapped lie between.
    assert_eq!(it.space.sync(span(0, 4)), Ok(Pages(1)));
    assert_eq!(it.pager.calls(PagerCall::Flush), 2);
    assert_eq!(it.pager.inner().medium.lock().last(), Some(&(3, 13)));
}

/// A device that filled up said so only at the flush, which nobody asked for: `sync` said success.
#[test]
fn a_flush_that_fails_is_an_error_and_its_pages_are_written_again() {
    let it = World::new();
    it.write(1, 11);
    it.pager.fail(PagerCall::Flush, Which::Nth(1), FULL).unwrap();
    assert_eq!(it.object.sync(it.all()), Err(Error::Flush { error: FULL }));
    assert_eq!(it.object.state(ObjectPage::new(1)), Some(State::Dirty));
    assert_eq!(it.object.sync(it.all()), Ok(Pages(1)));
    assert_eq!(it.object.state(ObjectPage::new(1)), Some(State::Clean));
    // Through a space as well; and later writes are noticed as always.
    it.write(1, 12);
    it.pager.fail(PagerCall::Flush, Which::Nth(1), FULL).unwrap();
    assert_eq!(it.space.sync(span(0, 4)), Err(Error::Flush { error: FULL }));
    it.write(1, 13);
    assert_eq!(it.space.sync(span(0, 4)), Ok(Pages(1)));
    assert_eq!(it.pager.inner().medium.lock().last(), Some(&(1, 13)));
    assert_eq!(it.manager.mmu().violations(), []);
}

#[test]
fn an_error_of_an_eviction_is_kept_until_it_is_taken() {
    let it = World::new();
    it.write(1, 11);
    assert_eq!(it.object.take_error(), None);
    it.pager.fail(PagerCall::Write, Which::All, FULL).unwrap();
    assert_eq!(it.manager.page_out(Pages(1)), Pages(0));
    let page = ObjectPage::new(1);
    assert_eq!(it.object.take_error(), Some(Error::Pager { page, error: FULL }));
    assert_eq!(it.object.take_error(), None, "it is told once");
    it.pager.heal();
    assert_eq!(it.object.sync(it.all()), Ok(Pages(1)));
}

#[test]
fn an_error_at_the_drop_of_an_object_is_kept_by_the_manager() {
    let World { manager, pager, object, space } = {
        let it = World::new();
        it.write(2, 12);
        it
    };
    pager.fail(PagerCall::Write, Which::All, FULL).unwrap();
    drop((object, space));
    let page = ObjectPage::new(2);
    assert_eq!(manager.take_error(), Some(Error::Pager { page, error: FULL }));
    assert_eq!(manager.take_error(), None);
}
