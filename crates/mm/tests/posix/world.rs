//! A machine in software with two spaces, and results as short text.

use std::{fmt::Debug, sync::Arc};

use commonhold_mm::{
    Access, AddressSpace, BytesPager, Context, Error, FailingPager, FaultError, Kind, Manager,
    MapRequest, Object, ObjectPage, ObjectSpan, Pages, Placement, Protection, Settings, State,
    VirtualPage, VirtualSpan, soft::Cpu, soft::SoftMmu,
};

pub(crate) type Machine = SoftMmu<parking_lot::RawMutex, parking_lot::RawRwLock>;
pub(crate) type FaultyFile = FailingPager<BytesPager<parking_lot::RawMutex>, parking_lot::RawMutex>;

/// A case: its name in docs/POSIX.md, and what is observed.
pub(crate) type Case = (&'static str, fn() -> String);

const PAGE: usize = 16;
/// The pages that may be in memory.
pub(crate) const MEMORY: u64 = 32;
/// The pages of a space.
pub(crate) const SPACE: u64 = 64;

pub(crate) struct World {
    pub(crate) manager: Manager<Machine>,
    pub(crate) space: AddressSpace<Machine>,
    /// What another process would be.
    pub(crate) other: AddressSpace<Machine>,
    cpu: Cpu<parking_lot::RawMutex>,
}

impl World {
    pub(crate) fn new() -> Self {
        let settings = Settings { budget: Pages(MEMORY), ..Settings::default() };
        let machine = Machine::new(PAGE, 1000, |_| std::thread::yield_now());
        let manager = Manager::new(machine, settings).unwrap();
        let [space, other] = [0, 1].map(|_| manager.space(span(0, SPACE)).unwrap());
        let cpu = manager.mmu().cpu();
        Self { manager, space, other, cpu }
    }

    /// With an object of 8 pages of zeros at page 0.
    pub(crate) fn with_zeros() -> (Self, Object<Machine>) {
        let world = Self::new();
        let object = world.zeros(8);
        world.map(&object, 0, 8).unwrap();
        (world, object)
    }

    /// With a file of 8 pages at page 0; its page `n` begins with the byte `10 + n`.
    pub(crate) fn with_file() -> (Self, Object<Machine>, Arc<FaultyFile>) {
        let world = Self::new();
        let mut contents = vec![0; 8 * PAGE];
        for (page, byte) in (10..).enumerate().take(8) {
            contents[page * PAGE] = byte;
        }
        let (object, medium) = world.file(&contents, 8);
        world.map(&object, 0, 8).unwrap();
        (world, object, medium)
    }

    pub(crate) fn zeros(&self, pages: u64) -> Object<Machine> {
        let swap = BytesPager::<parking_lot::RawMutex>::new(&[0; 64 * PAGE], PAGE).unwrap();
        self.manager.object(Kind::Anonymous, Pages(pages), Arc::new(swap)).unwrap()
    }

    pub(crate) fn file(&self, contents: &[u8], pages: u64) -> (Object<Machine>, Arc<FaultyFile>) {
        let medium = Arc::new(FaultyFile::new(BytesPager::new(contents, PAGE).unwrap()));
        let pager = Arc::clone(&medium) as Arc<dyn commonhold_mm::Pager>;
        (self.manager.object(Kind::File, Pages(pages), pager).unwrap(), medium)
    }

    pub(crate) fn map(
        &self,
        object: &Object<Machine>,
        at: u64,
        pages: u64,
    ) -> Result<VirtualSpan, Error> {
        self.space.map(object, fixed(at, pages))
    }

    /// The first byte of a page of the first space, or the error.
    pub(crate) fn read(&self, page: u64) -> String {
        self.read_in(&self.space, page, 0)
    }

    pub(crate) fn read_in(&self, space: &AddressSpace<Machine>, page: u64, byte: u64) -> String {
        let mut bytes = [0];
        let address = page * PAGE as u64 + byte;
        match self.cpu.read(&self.manager, space, address, &mut bytes) {
            Ok(()) => bytes[0].to_string(),
            Err(error) => head(&error),
        }
    }

    /// Writes the first byte of a page of the first space.
    pub(crate) fn write(&self, page: u64, byte: u8) -> String {
        told(self.cpu.write(&self.manager, &self.space, page * PAGE as u64, &[byte]))
    }

    pub(crate) fn fetch(&self, page: u64) -> String {
        let at = VirtualPage::new(page);
        let normal = Context::Normal;
        told(self.cpu.access(&self.manager, &self.space, at, Access::Execute, normal, |_| ()))
    }

    /// How many pages are in memory.
    pub(crate) fn resident(&self) -> u64 {
        self.manager.resident().0
    }

    /// How many pages go if all that may go are told to.
    pub(crate) fn evict_all(&self) -> u64 {
        self.manager.page_out(Pages(MEMORY)).0
    }

    /// How many pages are locked.
    pub(crate) fn locked(&self) -> u64 {
        self.space.totals().locked.0
    }

    pub(crate) fn mappings(&self) -> usize {
        self.space.totals().mappings
    }
}

pub(crate) fn span(first: u64, pages: u64) -> VirtualSpan {
    VirtualSpan::new(VirtualPage::new(first), Pages(pages)).unwrap()
}

/// A span of no pages.
pub(crate) fn nothing() -> VirtualSpan {
    VirtualSpan::between(VirtualPage::new(1), VirtualPage::new(1))
}

pub(crate) fn pages(first: u64, count: u64) -> ObjectSpan {
    ObjectSpan::new(ObjectPage::new(first), Pages(count)).unwrap()
}

pub(crate) fn fixed(at: u64, pages: u64) -> MapRequest {
    MapRequest {
        placement: Placement::Fixed(VirtualPage::new(at)),
        ..MapRequest::new(Pages(pages))
    }
}

pub(crate) fn protected(at: u64, pages: u64, protection: Protection) -> MapRequest {
    MapRequest { protection, ..fixed(at, pages) }
}

pub(crate) fn state(object: &Object<Machine>, page: u64) -> Option<State> {
    object.state(ObjectPage::new(page))
}

/// `ok`, or the name of the error.
pub(crate) fn told<T, E: Name>(result: Result<T, E>) -> String {
    result.map_or_else(|error| error.name(), |_| "ok".to_owned())
}

/// An error by its name, without its numbers.
pub(crate) trait Name {
    fn name(&self) -> String;
}

impl Name for FaultError {
    fn name(&self) -> String {
        head(self)
    }
}

impl Name for Error {
    fn name(&self) -> String {
        match self {
            Self::Fault { error, .. } => format!("Fault of {}", head(error)),
            other => head(other),
        }
    }
}

/// The first word of the debugging form.
fn head(value: &impl Debug) -> String {
    let text = format!("{value:?}");
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
}
