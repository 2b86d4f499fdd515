//! Mappings of shared memory.
//!
//! # What it owns
//! [`MappedWindow`]: a window together with what keeps it mapped and what lies behind it, and
//! [`ReadOnlyMap`]: a part of one that cannot be written through. The only `mmap` of spaces is here.
//!
//! # Invariants
//! 1. A mapping outlives every [`Window`] made of it: both are fields of one value, and a `Window`
//!    cannot be copied out.
//! 2. No child has a mapping of its parent's (`MADV_DONTFORK`). Its addresses may since hold
//!    something else there, so in a child nothing is unmapped.
//! 3. No core dump holds a window, unless that is asked for: the kernel would touch every page of it, holes
//!    included, so dumping a process that has mapped 64 GiB takes minutes, in which it holds its locks, and fills
//!    the file system.
//! 4. Every length given to the kernel is a multiple of the page size of the memory, as `munmap` of
//!    huge pages wants it.
//!
//! # What it does not do
//! It opens and creates nothing (`place.rs`, `file.rs`, `shm.rs` do), and gives no meaning to a byte.

use std::{
    env,
    ffi::{OsStr, c_void},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    ptr::{self, NonNull},
    sync::OnceLock,
};

use commonhold_layout::{Extent, MAGIC, Offset, align_up};
use commonhold_space::{Medium, MediumError, Touch};
use commonhold_window::Window;
use rustix::{
    fs::{self, FileType, Mode, OFlags},
    io::{Errno, retry_on_intr},
    mm::{self, Advice, MapFlags, ProtFlags},
};

use crate::{
    device::{Device, DevicePlace},
    error::HostError,
    fork::ForkGuard,
    kind::MemoryKind,
    medium::FileMedium,
    name::FileName,
    own_fd::OwnFd,
    peek::Peek,
    probe::{Cache, Memory, probe},
    room::Supply,
    touch::touch,
};

/// Has core dumps hold the windows, too, if it is set to anything but `0`.
const DUMP: &str = "COMMONHOLD_DUMP";

/// Whether a core dump is to hold windows, by the value of [`DUMP`].
fn is_dumped(value: Option<&OsStr>) -> bool {
    value.is_some_and(|value| !value.is_empty() && value != "0")
}

/// Address space that is given back when this is dropped.
#[derive(Debug)]
struct Mapping {
    base: NonNull<c_void>,
    len: usize,
    guard: ForkGuard,
}

// SAFETY: a mapping is an address and a length that belong to the process, not to a thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; through `&Mapping` nothing can be done but read the two.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(
        file: BorrowedFd<'_>,
        access: ProtFlags,
        at: u64,
        len: usize,
        guard: ForkGuard,
    ) -> Result<Self, Errno> {
        // Without NORESERVE a window of huge pages would reserve all of them at once, though most
        // of it is never used. What is used is committed first, by `fallocate`.
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: `mmap` wants no pointer into a range that it replaces: with a null hint and without
        // MAP_FIXED it replaces none.
        let base = unsafe { mm::mmap(ptr::null_mut(), len, access, flags, file, at) }?;
        let mapping = Self { base: NonNull::new(base).ok_or(Errno::NOMEM)?, len, guard };
        // SAFETY: `madvise` wants a range whose change of meaning hurts nobody: this one is ours and
        // new, and that a child lacks it is what invariant 2 says. Memory of devices takes the advice
        // as any other does; only its opposite, MADV_DOFORK, is refused there.
        unsafe { mm::madvise(base, len, Advice::LinuxDontFork) }?;
        if !is_dumped(env::var_os(DUMP).as_deref()) {
            // SAFETY: as above; it changes what a core dump holds, and nothing else.
            let _ = unsafe { mm::madvise(base, len, Advice::LinuxDontDump) };
        }
        Ok(mapping)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.guard.is_forked_child() {
            return;
        }
        // SAFETY: `munmap` wants a range that nobody uses any more: it is ours (invariant 2), and
        // all pointers into it were lent by the value that is being dropped.
        let _ = unsafe { mm::munmap(self.base.as_ptr(), self.len) };
    }
}

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
            return Err(HostError::NotAWindow { path: path.to_owned() });
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
        let window = unsafe { Window::from_raw(mapping.base.cast(), size) };
        let backing = Backing::File(FileMedium::new(file, kind));
        let memory = OnceLock::from(Memory { cache: Cache::PageCache, cost: None });
        let name = Some(FileName::new(path, &stat));
        Ok(Self { window, mapping, backing, kind, path: path.to_owned(), name, memory })
    }

    /// Maps the memory of a device. If it holds a space, it is proved good for locks.
    pub(crate) fn of_device(file: OwnedFd, place: &DevicePlace) -> Result<Self, HostError> {
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
        let window = unsafe { Window::from_raw(mapping.base.cast(), size) };
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
        self.mapping.guard.is_forked_child()
    }

    pub(crate) const fn guard(&self) -> ForkGuard {
        self.mapping.guard
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

    /// Maps an extent once more, for reading only.
    ///
    /// # Errors
    /// [`HostError`] of `mmap`, or `EINVAL` if the extent does not lie in the window.
    pub fn map_read_only(&self, extent: Extent) -> Result<ReadOnlyMap, HostError> {
        let failed = |errno| HostError::call("mmap", &self.path, errno);
        if extent.end() > self.window.len() {
            return Err(failed(Errno::INVAL));
        }
        let file = self.file().ok_or(HostError::Forked)?;
        let len = usize::try_from(extent.len()).map_err(|_| failed(Errno::NOMEM))?;
        if len == 0 {
            return Ok(ReadOnlyMap { mapping: None, first: NonNull::dangling(), len });
        }
        let start = extent.start().get();
        let page_start = start & !(self.page_size() - 1);
        let skipped = usize::try_from(start - page_start).map_err(|_| failed(Errno::NOMEM))?;
        let mapped = len.checked_add(skipped).and_then(|whole| rounded(whole, self.kind));
        let mapped = mapped.ok_or_else(|| failed(Errno::NOMEM))?;
        let at = self.file_offset().checked_add(page_start).ok_or_else(|| failed(Errno::INVAL))?;
        let mapping =
            Mapping::new(file, ProtFlags::READ, at, mapped, self.guard()).map_err(failed)?;
        // SAFETY: `add` wants the result inside the allocation: `skipped` is less than a page, and at
        // least one page was mapped.
        let first = unsafe { mapping.base.cast::<u8>().add(skipped) };
        Ok(ReadOnlyMap { mapping: Some(mapping), first, len })
    }
}

/// Opens an open file again: another description of the same file.
pub(crate) fn open_again(file: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, HostError> {
    let failed = |call| move |errno| HostError::call(call, path, errno);
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY;
    let link = proc_link(file);
    match retry_on_intr(|| fs::open(&link, flags, Mode::empty())) {
        Ok(again) => return Ok(again),
        // No /proc: by name, if the name still means the same file.
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(failed("open")(errno)),
    }
    let again = retry_on_intr(|| fs::open(path, flags, Mode::empty())).map_err(failed("open"))?;
    let ours = fs::fstat(file).map_err(failed("fstat"))?;
    let found = fs::fstat(&again).map_err(failed("fstat"))?;
    if (ours.st_dev, ours.st_ino) != (found.st_dev, found.st_ino) {
        return Err(failed("open")(Errno::STALE));
    }
    Ok(again)
}

/// The path by which the kernel gives out an open file again.
pub(crate) fn proc_link(file: BorrowedFd<'_>) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn rounded(len: usize, kind: MemoryKind) -> Option<usize> {
    usize::try_from(align_up(len as u64, kind.page_size())?).ok()
}

impl Medium for MappedWindow {
    fn commit(&self, extent: Extent) -> Result<(), MediumError> {
        match &self.backing {
            Backing::File(medium) => medium.commit(&self.window, extent),
            Backing::Device(device) => device.commit(&self.window, extent),
        }
    }

    fn release(&self, extent: Extent) -> Result<(), MediumError> {
        match &self.backing {
            Backing::File(medium) => medium.release(&self.window, extent),
            Backing::Device(device) => device.release(&self.window, extent),
        }
    }

    fn back(&self, extent: Extent, touch: Touch) -> Result<(), MediumError> {
        match &self.backing {
            Backing::File(medium) => medium.back(&self.window, extent, touch),
            Backing::Device(device) => device.commit(&self.window, extent),
        }
    }

    fn room_for(&self, bytes: u64) -> Result<(), MediumError> {
        match &self.backing {
            Backing::File(medium) => medium.room_for(bytes),
            Backing::Device(_) => Ok(()),
        }
    }

    fn resident(&self, extent: Extent) -> u64 {
        Self::resident(self, extent).unwrap_or(0)
    }
}

/// An extent mapped for reading; unmapped when dropped.
#[derive(Debug)]
pub struct ReadOnlyMap {
    /// `None` if the extent is empty.
    mapping: Option<Mapping>,
    first: NonNull<u8>,
    len: usize,
}

// SAFETY: as for `Mapping`; the address is only lent as a raw pointer.
unsafe impl Send for ReadOnlyMap {}
// SAFETY: as above.
unsafe impl Sync for ReadOnlyMap {}

impl ReadOnlyMap {
    /// The address of its first byte, good until the value is dropped. Others may write the bytes at
    /// any time; in a forked child they are not mapped.
    #[must_use]
    pub const fn as_ptr(&self) -> NonNull<u8> {
        self.first
    }

    /// Bytes in it.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether this was mapped by a process of which the present one is a forked child.
    #[inline]
    #[must_use]
    pub fn is_forked_child(&self) -> bool {
        self.mapping.as_ref().is_some_and(|mapping| mapping.guard.is_forked_child())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_dumped_only_if_somebody_says_so() {
        for (value, dumped) in
            [(None, false), (Some(""), false), (Some("0"), false), (Some("1"), true)]
        {
            assert_eq!(is_dumped(value.map(OsStr::new)), dumped, "{value:?}");
        }
    }
}
