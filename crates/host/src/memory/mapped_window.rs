//! A window of shared memory, mapped whole.
//!
//! # What it owns
//! [`MappedWindow`]: a window with its mapping, the file or device behind it, and its path.
//!
//! # Invariants
//! 1. A mapping outlives every [`Window`] made of it: both are fields of one value, and a `Window`
//!    cannot be copied out.
//!
//! # What it does not do
//! It is given an open file (`file_location.rs`, `file.rs` and `device.rs` open one), and gives no meaning to a byte.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use commonhold_layout::{Extent, MAGIC, Offset};
use commonhold_space::{BackingMemory, BackingMemoryError, Touch};
use commonhold_window::Window;
use rustix::{
    fs::{self, FileType},
    io::Errno,
    mm::ProtFlags,
};

use super::{
    device::{Device, DeviceRange},
    fallocate::FileMedium,
    kind::MemoryKind,
    mapping::{Mapping, rounded},
    name::{FileName, identity},
    peek::Peek,
    probe::{Cache, Memory, probe},
    reopen::open_again,
    room::Supply,
    trial_access::touch,
};
use crate::{error::HostError, fork::ForkGuard, liveness::LockHolder, own_fd::OwnFd};

/// What lies behind a window.
#[derive(Debug)]
enum Backing {
    File(FileMedium),
    Device(Device),
}

/// A window, with everything that keeps it usable.
#[derive(Debug)]
pub struct MappedWindow {
    window: Window,
    // Behind the window, so that it is dropped after it.
    mapping: Mapping,
    backing: Backing,
    kind: MemoryKind,
    path: PathBuf,
    /// `None` for a device.
    name: Option<FileName>,
    /// What kind of memory the probe found; always known for a file.
    memory: OnceLock<Memory>,
}

impl MappedWindow {
    /// Maps a whole file.
    pub(crate) fn of_file(file: OwnedFd, path: &Path) -> Result<Self, HostError> {
        let failed = |call| move |errno| HostError::call(call, path, errno);
        let guard = ForkGuard::made_here().map_err(failed("pthread_atfork"))?;
        let stat = fs::fstat(&file).map_err(failed("fstat"))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(HostError::NotAWindow { path: path.to_owned(), found: "no regular file" });
        }
        let kind = MemoryKind::of_file(&fs::fstatfs(&file).map_err(failed("fstatfs"))?);
        let size = usize::try_from(stat.st_size).map_err(|_| failed("fstat")(Errno::FBIG))?;
        if size == 0 {
            return Err(HostError::Empty { path: path.to_owned() });
        }
        let mapped = rounded(size, kind).ok_or_else(|| failed("mmap")(Errno::NOMEM))?;
        let file = OwnFd::new(file, guard).map_err(failed("open"))?;
        let descriptor = file.get().ok_or(HostError::Forked)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let mapping = Mapping::new(descriptor, access, 0, mapped, guard).map_err(failed("mmap"))?;
        // SAFETY: `from_raw` wants an address aligned to 8 bytes, which a page is, and `size` bytes
        // that stay mapped, readable and writable while the window lives: the mapping lives as long,
        // in the same value, and no other code has its address.
        let window = unsafe { Window::from_raw(mapping.base().cast(), size) };
        let backing = Backing::File(FileMedium::new(file, kind));
        let memory = OnceLock::from(Memory { cache: Cache::PageCache, cost: None });
        let name = Some(FileName::new(path, &stat));
        Ok(Self { window, mapping, backing, kind, path: path.to_owned(), name, memory })
    }

    /// Maps the memory of a device. If it holds a space, [`prove`](Self::prove) makes sure that locks work there.
    pub(crate) fn of_device(file: OwnedFd, place: &DeviceRange) -> Result<Self, HostError> {
        let failed = |call| move |errno| place.failed(call, errno);
        let guard = ForkGuard::made_here().map_err(failed("pthread_atfork"))?;
        let size = usize::try_from(place.size).map_err(|_| failed("mmap")(Errno::NOMEM))?;
        // Before anything is mapped here: the child that `touch` makes must not inherit a mapping.
        touch(file.as_fd(), place.start, |call, errno| place.failed(call, errno))?;
        let device = Device::new(file, place.start, guard).map_err(failed("open"))?;
        let descriptor = device.file().ok_or(HostError::Forked)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let mapped = rounded(size, place.kind).ok_or_else(|| failed("mmap")(Errno::NOMEM))?;
        let mapping =
            Mapping::new(descriptor, access, place.start, mapped, guard).map_err(failed("mmap"))?;
        // SAFETY: as in `of_file`.
        let window = unsafe { Window::from_raw(mapping.base().cast(), size) }.by_words();
        let (backing, path) = (Backing::Device(device), place.path.clone());
        let kind = place.kind;
        let memory = OnceLock::new();
        let mapped = Self { window, mapping, backing, kind, path, name: None, memory };
        if mapped.peek()?.words[0] == MAGIC {
            mapped.prove()?;
        }
        Ok(mapped)
    }

    /// Makes sure that locks work in this memory, and returns what kind of memory it is. The first call probes it,
    /// and writes to its probe word: a window on a device must hold a space, or be about to be formatted by the
    /// caller.
    ///
    /// # Errors
    /// [`HostError::Device`] says why locks do not work there; [`HostError::Forked`].
    pub fn prove(&self) -> Result<Memory, HostError> {
        if self.is_forked_child() {
            return Err(HostError::Forked);
        }
        match self.memory.get() {
            Some(memory) => Ok(*memory),
            None => {
                let found = probe(&self.window)?;
                Ok(*self.memory.get_or_init(|| found))
            }
        }
    }

    /// What kind of memory the probe found; `None` before [`prove`](Self::prove).
    #[must_use]
    pub fn memory(&self) -> Option<Memory> {
        self.memory.get().copied()
    }

    /// The window. In a forked child (see [`is_forked_child`](Self::is_forked_child)) its memory is
    /// not mapped, and touching it ends the process.
    #[inline]
    #[must_use]
    pub const fn window(&self) -> &Window {
        &self.window
    }

    /// What kind of file or device it is.
    #[must_use]
    pub const fn kind(&self) -> MemoryKind {
        self.kind
    }

    /// The alignment of extents in bytes, for `FormatOptions::page`.
    #[must_use]
    pub const fn page_size(&self) -> u64 {
        self.kind.page_size()
    }

    /// The alignment that the kernel wants for the file offset of a mapping. It exceeds [`page_size`](Self::page_size)
    /// where the kernel's own pages are larger, as on some arm64 machines.
    pub(crate) fn mapped_page(&self) -> u64 {
        self.page_size().max(rustix::param::page_size() as u64)
    }

    /// The path by which it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file behind it, to pass to other code. `None` if the program has closed it, and in a forked child, where
    /// it is closed.
    #[must_use]
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        match &self.backing {
            Backing::File(medium) => medium.file(),
            Backing::Device(device) => device.file(),
        }
    }

    /// The process that has locked a byte of the file behind it, if `/proc` shows it to this process.
    #[must_use]
    pub fn holder_of(&self, byte: u64) -> Option<LockHolder> {
        let stat = fs::fstat(self.file()?).ok()?;
        LockHolder::new(identity(&stat), byte)
    }

    /// Notes the path by which the file behind it can be opened again, if the program closes its descriptor.
    pub(crate) fn can_be_opened_at(&self, path: PathBuf) {
        if let Backing::File(medium) = &self.backing {
            medium.own_file().can_be_opened_at(path);
        }
    }

    /// The offset in the file at which the window begins, in bytes.
    #[must_use]
    pub const fn file_offset(&self) -> u64 {
        match &self.backing {
            Backing::File(_) => 0,
            Backing::Device(device) => device.start(),
        }
    }

    /// Whether the window was mapped by another process, of which this one is a forked child.
    #[inline]
    #[must_use]
    pub fn is_forked_child(&self) -> bool {
        self.mapping.guard().is_forked_child()
    }

    pub(crate) const fn guard(&self) -> ForkGuard {
        self.mapping.guard()
    }

    /// Reads the first words. For a file it does not touch the mapping.
    ///
    /// # Errors
    /// [`HostError`] of reading the file, or [`HostError::Forked`].
    pub fn peek(&self) -> Result<Peek, HostError> {
        let file = self.file().ok_or(HostError::Forked)?;
        match self.backing {
            Backing::File(_) => Peek::of_file(file, &self.path),
            Backing::Device(_) => Ok(Peek::of_window(&self.window)),
        }
    }

    /// How much memory the window can still get, and what limits it. `None` for a device, whose memory is always
    /// there, and where that is not known.
    #[must_use]
    pub fn supply(&self) -> Option<Supply> {
        match &self.backing {
            Backing::File(medium) => medium.supply(),
            Backing::Device(_) => None,
        }
    }

    /// Bytes of an extent that have memory, or blocks of a disk. `None` where that is not known.
    #[must_use]
    pub fn resident(&self, extent: Extent) -> Option<u64> {
        match &self.backing {
            Backing::File(medium) => medium.resident(extent),
            Backing::Device(_) => None,
        }
    }

    /// Copies the bytes at `from` out of the window. Holes read as zeros, and get no memory.
    ///
    /// # Errors
    /// [`HostError`] of reading the file, [`HostError::Forked`].
    pub fn read_past_holes(&self, from: Offset, to: &mut [u8]) -> Result<(), HostError> {
        let failed = |errno| HostError::call("pread", &self.path, errno);
        match &self.backing {
            _ if self.is_forked_child() => Err(HostError::Forked),
            Backing::File(medium) => medium.read(from.get(), to).map_err(failed),
            Backing::Device(_) => self.window.read(from, to).map_err(|_| failed(Errno::INVAL)),
        }
    }

    /// Opens the file behind the window again: another description of the same file.
    pub(crate) fn reopen(&self) -> Result<OwnedFd, HostError> {
        open_again(self.file().ok_or(HostError::Forked)?, &self.path)
    }

    /// Whether the path of the file behind it now means another file or none. A process that opens the path then finds
    /// another space, or none. Always `false` for a device.
    #[must_use]
    pub fn has_lost_its_name(&self) -> bool {
        self.name.as_ref().is_some_and(FileName::is_lost)
    }

    /// Looks as [`has_lost_its_name`](Self::has_lost_its_name) does, and remembers the answer. It looks only now and
    /// then, however often it is called, and never on file systems where a look may take long.
    pub fn watch_name(&self) {
        if let Some(name) = self.name.as_ref().filter(|_| self.kind.locks_are_proof()) {
            name.watch();
        }
    }

    /// The last answer of [`watch_name`](Self::watch_name). One load.
    #[must_use]
    pub fn was_seen_nameless(&self) -> bool {
        self.name.as_ref().is_some_and(FileName::was_lost)
    }
}

impl BackingMemory for MappedWindow {
    fn commit(&self, extent: Extent) -> Result<(), BackingMemoryError> {
        match &self.backing {
            Backing::File(medium) => medium.commit(&self.window, extent),
            Backing::Device(device) => device.commit(&self.window, extent),
        }
    }

    fn release(&self, extent: Extent) -> Result<(), BackingMemoryError> {
        match &self.backing {
            Backing::File(medium) => medium.release(&self.window, extent),
            Backing::Device(device) => device.release(&self.window, extent),
        }
    }

    fn back(&self, extent: Extent, touch: Touch) -> Result<(), BackingMemoryError> {
        match &self.backing {
            Backing::File(medium) => medium.back(&self.window, extent, touch),
            Backing::Device(device) => device.commit(&self.window, extent),
        }
    }

    fn room_for(&self, bytes: u64) -> Result<(), BackingMemoryError> {
        match &self.backing {
            Backing::File(medium) => medium.room_for(bytes),
            Backing::Device(_) => Ok(()),
        }
    }

    fn resident(&self, extent: Extent) -> u64 {
        Self::resident(self, extent).unwrap_or(0)
    }
}
