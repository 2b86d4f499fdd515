//! A window of shared memory, mapped whole.
//!
//! # What it owns
//! [`MappedWindow`]: a window together with what keeps it mapped, what lies behind it, and where it was found.
//!
//! # Invariants
//! 1. A mapping outlives every [`Window`] made of it: both are fields of one value, and a `Window`
//!    cannot be copied out.
//!
//! # What it does not do
//! It opens and creates nothing (`new_window.rs`, `file.rs`, `shm.rs` do), and gives no meaning to a byte.

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

/// A window, and everything that keeps it usable.
#[derive(Debug)]
pub struct MappedWindow {
    window: Window,
    // After the window, so that it is dropped after it.
    mapping: Mapping,
    backing: Backing,
    kind: MemoryKind,
    path: PathBuf,
    /// `None` if it is no file.
    name: Option<FileName>,
    /// What its memory is, once that is known.
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
        // in the same value, and nobody else has its address.
        let window = unsafe { Window::from_raw(mapping.base().cast(), size) };
        let backing = Backing::File(FileMedium::new(file, kind));
        let memory = OnceLock::from(Memory { cache: Cache::PageCache, cost: None });
        let name = Some(FileName::new(path, &stat));
        Ok(Self { window, mapping, backing, kind, path: path.to_owned(), name, memory })
    }

    /// Maps the memory of a device. If it holds a space, it is proved good for locks.
    pub(crate) fn of_device(file: OwnedFd, place: &DeviceRange) -> Result<Self, HostError> {
        let failed = |call| move |errno| place.failed(call, errno);
        let guard = ForkGuard::made_here().map_err(failed("pthread_atfork"))?;
        let size = usize::try_from(place.size).map_err(|_| failed("mmap")(Errno::NOMEM))?;
        // Before anything of it is mapped here: no child is to inherit it.
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

    /// Makes sure that locks can live in this memory, and finds out what it is: once. A window that is
    /// no file must hold a space, or be claimed by whoever formats it, since its probe word is
    /// written.
    ///
    /// # Errors
    /// [`HostError::Device`] says why no lock can live there, [`HostError::Forked`].
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

    /// What its memory was found to be; `None` before that was found out.
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

    /// What it is made of.
    #[must_use]
    pub const fn kind(&self) -> MemoryKind {
        self.kind
    }

    /// Bytes to which extents should be aligned: what `FormatOptions::page` wants.
    #[must_use]
    pub const fn page_size(&self) -> u64 {
        self.kind.page_size()
    }

    /// Bytes to which the kernel wants the file offset of a mapping aligned. More than [`page_size`](Self::page_size)
    /// where the kernel's own pages are larger, as on some arm64 machines.
    pub(crate) fn mapped_page(&self) -> u64 {
        self.page_size().max(rustix::param::page_size() as u64)
    }

    /// Where it was found.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file behind it, to be handed to somebody else; `None` if there is none, or in a forked
    /// child, where it is closed.
    #[must_use]
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        match &self.backing {
            Backing::File(medium) => medium.file(),
            Backing::Device(device) => device.file(),
        }
    }

    /// Who has a byte of the file behind it locked, as far as `/proc` shows it to this process.
    #[must_use]
    pub fn holder_of(&self, byte: u64) -> Option<LockHolder> {
        let stat = fs::fstat(self.file()?).ok()?;
        LockHolder::new(identity(&stat), byte)
    }

    /// Says where the file behind it can be opened again, should the program close its descriptor.
    pub(crate) fn can_be_opened_at(&self, path: PathBuf) {
        if let Backing::File(medium) = &self.backing {
            medium.own_file().can_be_opened_at(path);
        }
    }

    /// Where in the file behind it the window begins, in bytes.
    #[must_use]
    pub const fn file_offset(&self) -> u64 {
        match &self.backing {
            Backing::File(_) => 0,
            Backing::Device(device) => device.start(),
        }
    }

    /// Whether this was mapped by a process of which the present one is a forked child.
    #[inline]
    #[must_use]
    pub fn is_forked_child(&self) -> bool {
        self.mapping.guard().is_forked_child()
    }

    pub(crate) const fn guard(&self) -> ForkGuard {
        self.mapping.guard()
    }

    /// Reads the first words: of a file, without touching the mapping.
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

    /// What limits how much of the window can have memory. `None` of a device, whose memory is all there, and where
    /// it cannot be told.
    #[must_use]
    pub fn supply(&self) -> Option<Supply> {
        match &self.backing {
            Backing::File(medium) => medium.supply(),
            Backing::Device(_) => None,
        }
    }

    /// Bytes of an extent that have memory, or blocks of a disk. `None` where that cannot be told.
    #[must_use]
    pub fn resident(&self, extent: Extent) -> Option<u64> {
        match &self.backing {
            Backing::File(medium) => medium.resident(extent),
            Backing::Device(_) => None,
        }
    }

    /// Copies the bytes at `from` out of the window, and takes no memory where there is a hole: that reads as zeros.
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

    /// Whether the file behind it is at its path no more, as this process sees it now: whoever opens the
    /// path finds another space, or none. Never so for what is no file.
    #[must_use]
    pub fn has_lost_its_name(&self) -> bool {
        self.name.as_ref().is_some_and(FileName::is_lost)
    }

    /// As [`has_lost_its_name`](Self::has_lost_its_name), but remembers the answer, and looks only now and
    /// then, however often this is called; and never where looking may take long.
    pub fn watch_name(&self) {
        if let Some(name) = self.name.as_ref().filter(|_| self.kind.locks_are_proof()) {
            name.watch();
        }
    }

    /// What [`watch_name`](Self::watch_name) saw last. One load.
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
