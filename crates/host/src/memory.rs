//! Memory by name: what a URL names, mapped, and the memory behind it.
//!
//! # What it owns
//! | what | files |
//! |---|---|
//! | names of spaces | `url` |
//! | from a URL to a window: open, create, replace, remove | `by_url`; by scheme `shm`, `file`, `pci`, `physical` |
//! | who may come by a name, and when it may be taken away | `gate`, `name`, `rights` |
//! | addresses | `mapped_window`, `mapping`, `read_only_map`; looking without them: `peek`, `glance`; `reopen` |
//! | memory of files, and how much there is | `fallocate`, `resident`, `room`, `cgroup` |
//! | what kind of memory it is, and whether locks can live there | `kind`; of devices `device`, `trial_access`, `probe`, `emulation` |
//!
//! # Invariants
//! Each file states its own. Those that all others build on: a name means a finished space or nothing (`file`), a
//! mapping outlives the windows made of it (`mapped_window`), memory is committed before it is touched (`fallocate`).
//!
//! # What it does not do
//! It waits for no word, judges nobody's life, and takes no lock in a window.

mod by_url;
mod cgroup;
mod device;
mod emulation;
mod fallocate;
mod file;
mod file_location;
mod gate;
mod glance;
mod kind;
mod mapped_window;
mod mapping;
mod name;
mod new_window;
mod pci;
mod peek;
mod physical;
mod probe;
mod read_only_map;
mod reopen;
mod resident;
mod rights;
mod room;
mod shm;
mod trial_access;
mod url;

pub use by_url::{create, enter, is_blank, open, path_of, peek, replace, seize};
#[cfg(test)]
pub(crate) use file_location::FileLocation;
pub use gate::{ExclusiveGate, FileLock, SharedGate};
pub use kind::{FileSystem, MemoryKind};
pub use mapped_window::MappedWindow;
pub use new_window::NewWindow;
pub use pci::{PciDevice, pci_devices};
pub use peek::Peek;
pub use physical::physical_memory;
pub use probe::{Cache, Cost, Memory};
pub use read_only_map::ReadOnlyMap;
pub use rights::{Denied, Owners, Rights};
pub use room::{Supply, supply_in};
pub use shm::shm_directory;
pub use url::{PciAddress, Url, UrlError};
