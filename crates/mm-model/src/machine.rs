//! What the checker asks of a machine: an [`Mmu`], and a way to look at it.
//!
//! The checker never calls the port itself: only the memory manager does. So a change of the port changes no line here.

use alloc::{string::String, sync::Arc, vec::Vec};

use commonhold_mm::{
    Access, AddressSpace, Error, FaultError, Manager, Mmu, ObjectPage, Protection, Settings,
    VirtualPage, VirtualSpan, Writable,
};

use crate::shortage::Shortage;

/// Memory for so many pages is enough for all programs: only budgets are short.
pub const PAGES: u32 = 100;
/// How many processors a machine has.
pub const CPUS: usize = 3;

/// An access of a program to bytes of one page. All bytes lie in the page's first [`BYTES`](crate::BYTES).
#[derive(Debug)]
pub enum Touch<'a> {
    /// Loads.
    Read {
        /// Where in the page.
        offset: usize,
        /// What was read goes here.
        into: &'a mut [u8],
    },
    /// Stores.
    Write {
        /// Where in the page.
        offset: usize,
        /// What is written.
        from: &'a [u8],
    },
    /// Fetches an instruction. A machine that cannot do that answers [`Touched::Unable`].
    Execute,
}

impl Touch<'_> {
    /// The kind of access.
    #[must_use]
    pub const fn access(&self) -> Access {
        match self {
            Self::Read { .. } => Access::Read,
            Self::Write { .. } => Access::Write,
            Self::Execute => Access::Execute,
        }
    }

    /// An access to no bytes, which shows whether it would fault.
    pub(crate) const fn of_nothing(access: Access) -> Self {
        match access {
            Access::Read => Self::Read { offset: 0, into: &mut [] },
            Access::Write => Self::Write { offset: 0, from: &[] },
            Access::Execute => Self::Execute,
        }
    }

    /// The same access, to be made again.
    pub(crate) const fn again(&mut self) -> Touch<'_> {
        match self {
            Self::Read { offset, into } => Touch::Read { offset: *offset, into },
            Self::Write { offset, from } => Touch::Write { offset: *offset, from },
            Self::Execute => Touch::Execute,
        }
    }

    /// Does the access on the bytes of the page. A store to a page without these bytes does nothing, and the checker
    /// finds out.
    pub fn apply(&mut self, page: &mut [u8]) {
        match self {
            Self::Read { offset, into } => {
                let end = offset.saturating_add(into.len());
                if let Some(bytes) = page.get(*offset..end) {
                    into.copy_from_slice(bytes);
                }
            }
            Self::Write { offset, from } => {
                let end = offset.saturating_add(from.len());
                if let Some(bytes) = page.get_mut(*offset..end) {
                    bytes.copy_from_slice(from);
                }
            }
            Self::Execute => {}
        }
    }
}

/// What the checker knows of an access before it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlook {
    /// It must succeed. A machine on which a failed access ends the program may use a plain load or store.
    Succeeds,
    /// It may fail: the machine must survive that.
    Unknown,
}

/// The result of an access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touched {
    /// Done.
    Done,
    /// It faulted, and nothing else happened. The checker reports the fault to the memory manager, serves pulses, and
    /// tries again.
    Faulted,
    /// It faulted, the machine reported that and waited, and the access failed; with the error, if the machine knows it.
    Failed(Option<FaultError>),
    /// This machine has no such access.
    Unable,
}

/// What a page of a space translates to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Translated {
    /// The machine cannot tell, or not now. Processors may also remember something else, after a call that failed.
    Unknown,
    /// Nothing: any access faults.
    Nothing,
    /// Memory.
    Memory {
        /// What the translation permits, if the machine can tell.
        protection: Option<Protection>,
        /// Whether it lets writes through, within its protection.
        writable: Writable,
    },
}

/// A call of [`Mmu::wake`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wake {
    /// The number of the space, as [`Machine::space_number`] gives it.
    pub space: u64,
    /// Which page.
    pub at: VirtualPage,
    /// Which access.
    pub access: Access,
    /// The cookie of the fault.
    pub cookie: u64,
    /// The result of the fault.
    pub result: Result<(), FaultError>,
}

/// A machine that the checker can drive.
///
/// The first three methods are enough. Each of the others shows the checker more, or makes more fail.
///
/// There are two kinds of machine. On one, the checker does everything in one thread: [`touch`](Self::touch) answers
/// [`Touched::Faulted`], and the checker reports faults and serves pulses. The other has threads of its own for that
/// ([`serves_itself`](Self::serves_itself)); the checker waits for them by [`settle`](Self::settle).
pub trait Machine {
    /// The machine of the memory manager. Its page size is a multiple of [`BYTES`](crate::BYTES).
    type Mmu: Mmu;

    /// A new machine with memory for [`PAGES`] pages, [`CPUS`] processors, and a manager of these settings. The checker has dropped everything of the manager before.
    ///
    /// # Errors
    /// That of [`Manager::new`].
    fn start(&mut self, settings: Settings) -> Result<Manager<Self::Mmu>, Error>;

    /// One access of a program, on the processor `cpu`, below [`CPUS`].
    fn touch(
        &self,
        cpu: usize,
        space: &AddressSpace<Self::Mmu>,
        at: VirtualPage,
        touch: Touch<'_>,
        outlook: Outlook,
    ) -> Touched;

    /// A new space.
    ///
    /// # Errors
    /// That of [`Manager::space`].
    fn open(
        &self,
        manager: &Manager<Self::Mmu>,
        span: VirtualSpan,
    ) -> Result<AddressSpace<Self::Mmu>, Error> {
        manager.space(span)
    }

    /// Ends a space; this is its last handle that the checker has.
    fn close(&self, space: AddressSpace<Self::Mmu>) {
        drop(space);
    }

    /// Whether threads of the machine report faults and serve pulses.
    fn serves_itself(&self) -> bool {
        false
    }

    /// Waits until no thread of the machine is at work, no pulse waits, and an access that failed would be tried anew.
    fn settle(&self) {}

    /// What a page translates to.
    fn translation(&self, _space: &AddressSpace<Self::Mmu>, _at: VirtualPage) -> Translated {
        Translated::Unknown
    }

    /// Copies the memory of a page that has some to `into`, not through a mapping. `false` if the machine cannot.
    fn memory(
        &self,
        _object: &<Self::Mmu as Mmu>::Object,
        _page: ObjectPage,
        _into: &mut [u8],
    ) -> bool {
        false
    }

    /// How many pages of memory objects have, if the machine can tell.
    fn frames(&self) -> Option<u64> {
        None
    }

    /// The mistakes of the memory manager that the machine has seen, each as a sentence.
    fn violations(&self) -> Vec<String> {
        Vec::new()
    }

    /// The calls of [`Mmu::wake`] since the last time, if the machine records them.
    fn wakes(&self) -> Option<Vec<Wake>> {
        None
    }

    /// The number by which [`wakes`](Self::wakes) name a space; unique while the manager lives.
    fn space_number(&self, _space: &AddressSpace<Self::Mmu>) -> u64 {
        0
    }

    /// Makes the port's calls fail once for lack of memory: the `calls`-th from now on that can fail, 0 for the next.
    /// `None` ends that.
    fn fail_in(&self, _calls: Option<u32>) {}

    /// How many calls of the port have failed.
    fn failed(&self) -> u64 {
        0
    }

    /// How allocations of the manager can be made to fail.
    fn shortage(&self) -> Arc<Shortage> {
        Arc::default()
    }

    /// Does a part of a program. A machine with an operating system can catch a panic here, so that it becomes a
    /// failure with a seed.
    ///
    /// # Errors
    /// The message of the panic.
    fn guard(part: &mut dyn FnMut()) -> Result<(), String> {
        part();
        Ok(())
    }
}
