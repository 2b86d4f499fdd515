//! Memory by name: the windows that URLs name, and the memory behind them.
//!
//! # What it owns
//! | what | files |
//! |---|---|
//! | names of spaces | `url` |
//! | from a URL to a window: open, create, replace, remove | `by_url`, `new_window`; `file_location`, `file` |
//! | one file for each scheme | `shm`, `file`, `pci`, `physical` |
//! | who may open a name, and when a name may be removed | `gate`, `name`, `rights` |
//! | mappings | `mapped_window`, `mapping`, `read_only_map`, `reopen`; reading without a mapping: `peek`, `glance` |
//! | memory of files, and how much there is | `fallocate`, `resident`, `room`, `cgroup` |
//! | kinds of memory; whether locks work there | `kind`; of devices `device`, `trial_access`, `probe`, `emulation` |
//!
//! # Invariants
//! Each file states its own. Three of them carry all others: a name means a finished space or nothing (`file`); a
//! mapping outlives the windows made of it (`mapped_window`); memory is committed before it is touched (`fallocate`).
//!
//! # What it does not do
//! It does not wait for words, judge whether a peer lives, or take locks in a window.

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
