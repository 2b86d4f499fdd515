//! How much memory can be taken before the kernel kills a process.
//!
//! A tmpfs is often as large as all memory, or larger. A process that takes memory from it gets no error when the
//! machine has no more: the kernel kills some process, or, in a container with a limit, the one that takes.
//! `fallocate` does not help: it too takes one page after the other.
//!
//! # What it owns
//! The check of the file system, the machine and the memory cgroups of this process before memory is taken.
//!
//! # Invariants
//! 1. A check takes no memory.
//! 2. A limit that is not known does not count: for example, if `/proc` or the cgroups cannot be read.
//! 3. Small amounts are added up: a process takes at most [`BETWEEN`] bytes between two checks, and checks before its
//!    first.
//! 4. A part of each limit is left over for others, who may take memory between the check and the taking.
//!
//! # What it does not do
//! It reserves nothing: two processes that check at the same time may both find that there is room. Swap does not
//! count as room.

use std::{
    fs, io,
    os::fd::BorrowedFd,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use commonhold_space::{BackingMemoryError, Room};
use rustix::fs::{StatVfs, fstatvfs, statvfs};

use super::{
    cgroup::{self, Cgroup},
    kind::MemoryKind,
};

/// The most bytes that are taken in small amounts between two checks.
const BETWEEN: u64 = 16 << 20;
/// An amount of this size or more is always checked.
const LARGE: u64 = 1 << 20;
/// One part in so many of a limit is left over for others.
const SPARED: u64 = 64;

/// The limits of a space's memory, in bytes: each a total and what is left of it. `None` if a limit is not known, or
/// does not apply.
///
/// # Examples
/// ```
/// # use commonhold_host::{Supply, shm_directory, supply_in};
/// let Supply { file_system, machine, cgroup, .. } = supply_in(&shm_directory())?;
/// for (size, left) in [file_system, machine, cgroup].into_iter().flatten() {
///     println!("{left} bytes of {size} are left");
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Supply {
    /// The size of the file system, and what is free on it for this user.
    pub file_system: Option<(u64, u64)>,
    /// The memory of the machine, and what can be taken of it before a process is killed: `MemTotal` and
    /// `MemAvailable`. For huge pages, the pool and its free pages.
    pub machine: Option<(u64, u64)>,
    /// The limit of the memory cgroup that is closest to its limit, and what is left until then.
    pub cgroup: Option<(u64, u64)>,
    /// Whether a part is left over for others. Not of a pool of huge pages: it may be used up, and no process is
    /// killed for it.
    spares: bool,
}

/// The limits of spaces whose files lie in a directory.
///
/// # Errors
/// That of `statfs`, if there is no such directory.
pub fn supply_in(directory: &Path) -> io::Result<Supply> {
    let kind = MemoryKind::of_file(&rustix::fs::statfs(directory)?);
    Ok(supply(Some(&statvfs(directory)?), kind))
}

pub(crate) fn supply_of(file: BorrowedFd<'_>, kind: MemoryKind) -> Supply {
    supply(fstatvfs(file).ok().as_ref(), kind)
}

fn supply(file_system: Option<&StatVfs>, kind: MemoryKind) -> Supply {
    let file_system = file_system.filter(|found| found.f_blocks > 0).map(|found| {
        let root = rustix::process::geteuid().is_root();
        let free = if root { found.f_bfree } else { found.f_bavail };
        (found.f_blocks.saturating_mul(found.f_frsize), free.saturating_mul(found.f_frsize))
    });
    let (machine, cgroup) = match kind {
        MemoryKind::Tmpfs => (meminfo(), cgroup::tightest()),
        MemoryKind::Hugetlbfs { page_size } => (huge_pages(page_size), None),
        // Cached pages of a disk can be dropped at any time.
        _ => (None, None),
    };
    let cgroup = cgroup.map(|Cgroup { limit, left }| (limit, left));
    Supply { file_system, machine, cgroup, spares: kind == MemoryKind::Tmpfs }
}

impl Supply {
    /// Whether `asked` bytes can be taken.
    fn decide(&self, asked: u64) -> Result<(), Room> {
        let least = |part: Option<(u64, u64)>| part.map(|(_, left)| left);
        let spared = |all: u64| if self.spares { all / SPARED } else { 0 };
        let lacks = |part: Option<(u64, u64)>| {
            part.filter(|(all, left)| asked > left.saturating_sub(spared(*all)))
                .map(|(all, _)| spared(all))
        };
        let full = least(self.file_system).is_some_and(|free| asked > free);
        let spared = lacks(self.machine).into_iter().chain(lacks(self.cgroup)).min();
        if !full && spared.is_none() {
            return Ok(());
        }
        Err(Room {
            asked,
            file_system: least(self.file_system),
            machine: least(self.machine),
            cgroup: least(self.cgroup),
            spared: spared.unwrap_or(0),
        })
    }
}

/// How many bytes this process has taken of one space since its last check.
#[derive(Debug)]
pub(crate) struct Taken(AtomicU64);

impl Taken {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(BETWEEN))
    }

    /// Refuses an amount that cannot be taken.
    pub(crate) fn room_for(
        &self,
        bytes: u64,
        file: BorrowedFd<'_>,
        kind: MemoryKind,
    ) -> Result<(), BackingMemoryError> {
        // Relaxed: it only counts.
        let before = self.0.fetch_add(bytes.min(BETWEEN), Ordering::Relaxed);
        if bytes == 0 || (bytes < LARGE && before.saturating_add(bytes) <= BETWEEN) {
            return Ok(());
        }
        supply_of(file, kind).decide(bytes).map_err(|room| {
            // The next small amount is checked as well.
            self.0.store(BETWEEN, Ordering::Relaxed);
            BackingMemoryError::NoRoom(room)
        })?;
        self.0.store(0, Ordering::Relaxed);
        Ok(())
    }
}

fn meminfo() -> Option<(u64, u64)> {
    parse_meminfo(&fs::read_to_string("/proc/meminfo").ok()?)
}

fn parse_meminfo(text: &str) -> Option<(u64, u64)> {
    let field = |name: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
        rest.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
    };
    Some((field("MemTotal:")?, field("MemAvailable:")?))
}

fn huge_pages(page_size: u64) -> Option<(u64, u64)> {
    let pool = format!("/sys/kernel/mm/hugepages/hugepages-{}kB", page_size >> 10);
    let number = |name: &str| {
        let text = fs::read_to_string(Path::new(&pool).join(name)).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let more = number("nr_overcommit_hugepages")?.saturating_sub(number("surplus_hugepages")?);
    let free = number("free_hugepages")?.saturating_sub(number("resv_hugepages")?);
    let all = number("nr_hugepages")?.saturating_add(more);
    let pages = |count: u64| count.saturating_mul(page_size);
    Some((pages(all), pages(free.saturating_add(more))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUPPLY: Supply = Supply {
        file_system: Some((60 << 30, 60 << 30)),
        machine: Some((16 << 30, 8 << 30)),
        cgroup: Some((64 << 20, 40 << 20)),
        spares: true,
    };

    #[test]
    fn each_limit_refuses_by_itself_and_the_error_has_the_numbers_of_all() {
        assert_eq!(SUPPLY.decide(39 << 20), Ok(()));
        let room = SUPPLY.decide(40 << 20).unwrap_err();
        assert_eq!((room.asked, room.cgroup), (40 << 20, Some(40 << 20)));
        assert_eq!((room.file_system, room.machine), (Some(60 << 30), Some(8 << 30)));
        assert_eq!(room.spared, 1 << 20, "of the cgroup's 64 MiB one is spared");

        let outside = Supply { cgroup: None, ..SUPPLY };
        assert_eq!(outside.decide(7 << 30), Ok(()));
        assert_eq!(outside.decide(8 << 30).unwrap_err().spared, 256 << 20);

        let pool = Supply { spares: false, cgroup: None, ..SUPPLY };
        assert_eq!(pool.decide(8 << 30), Ok(()), "of huge pages nothing is spared");
        assert_eq!(pool.decide((8 << 30) + 1).unwrap_err().spared, 0);

        let small = Supply {
            file_system: Some((1 << 20, 4096)),
            machine: None,
            cgroup: None,
            spares: true,
        };
        assert_eq!(small.decide(4096), Ok(()), "of the file system nothing is spared");
        assert_eq!(small.decide(4097).unwrap_err().spared, 0);
    }

    #[test]
    fn a_limit_that_is_not_known_does_not_count() {
        let nothing = Supply { file_system: None, machine: None, cgroup: None, spares: true };
        assert_eq!(nothing.decide(u64::MAX), Ok(()));
        assert_eq!(parse_meminfo("MemTotal: 5 kB\n"), None, "kernels before 3.14");
        assert_eq!(parse_meminfo("MemTotal: x kB\nMemAvailable: 1 kB\n"), None);
        let text = "MemTotal:       100 kB\nMemFree: 1 kB\nMemAvailable:     50 kB\n";
        assert_eq!(parse_meminfo(text), Some((100 << 10, 50 << 10)));
    }

    #[test]
    fn small_amounts_are_added_up() {
        let scratch = crate::scratch::Scratch::new();
        let mapped = scratch.window("a", 4096);
        let file = mapped.file().unwrap();
        // A pool of huge pages that is empty on most machines: every check refuses.
        let kind = MemoryKind::Hugetlbfs { page_size: 2 << 20 };
        let refuses = |taken: &Taken, bytes| taken.room_for(bytes, file, kind).is_err();
        let (_, free) = huge_pages(2 << 20).unwrap_or((0, 0));
        if free != 0 {
            eprintln!("note: not tested: this machine has free huge pages");
            return;
        }
        let taken = Taken::new();
        assert!(refuses(&taken, 4096), "the first amount is checked, however small");
        taken.0.store(0, Ordering::Relaxed);
        let mut sum = 0;
        while !refuses(&taken, 4096) {
            sum += 4096;
            assert!(sum <= BETWEEN);
        }
        assert_eq!(sum, BETWEEN);
        taken.0.store(0, Ordering::Relaxed);
        assert!(refuses(&taken, LARGE));
    }
}
