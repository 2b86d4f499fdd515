//! The arguments of `bench`, and of the processes that it starts.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use commonhold_console::units::{parse_seconds, parse_size};

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Which benchmarks; default: all but `locks` and `paging`.
    #[arg(value_enum)]
    pub(crate) names: Vec<Benchmark>,
    /// In `locks`: for how long each lock is measured in each scenario.
    #[arg(long, default_value_t = 2.0, value_name = "N", value_parser = parse_seconds)]
    pub(crate) seconds: f64,
    /// In `locks` and `recovery`: how many holders are killed; default: 50, and 25 for each --resident.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) kills: Option<u32>,
    /// In `recovery`: what the holders that are killed have in memory, one size after another.
    #[arg(
        long,
        value_name = "SIZE,...",
        value_delimiter = ',',
        value_parser = parse_size,
        default_value = "0,16M,128M,512M"
    )]
    pub(crate) resident: Vec<u64>,
    /// Draws the results into this file, in SVG.
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
}

/// A benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Benchmark {
    /// Create, map, touch, unmap and destroy 4 KiB, against shm_open and mmap.
    Create,
    /// One word read and written, and many bytes copied, against an atomic of this process and memcpy.
    Data,
    /// Map and unmap by name among 65,536 regions, against among 16.
    Lookup,
    /// Uncontended lock and unlock, against a robust pthread mutex.
    Mutex,
    /// Uncontended read lock and unlock, against a pthread rwlock.
    Rwlock,
    /// From the death of a holder to the waiter having the lock, by the holder's memory too, and from the end of a
    /// thread, against a robust pthread mutex.
    Recovery,
    /// Waiting in memory of a device, where no kernel can wake the waiter, against a futex.
    Waiting,
    /// Faults, lookups and evictions of the memory manager, on a machine in software.
    Mm,
    /// Locks alone, among two and eight processes, mostly read, handed over and recovered, against
    /// pthread, std, parking_lot and (if g++ finds its headers) Boost.Interprocess.
    Locks,
    /// Which page goes when memory is full: simulated on six traces, against FIFO, LRU, SIEVE, the second-chance
    /// list of VMS, and Belady's optimum. To be named alone.
    Paging,
}

#[derive(Debug, Args)]
pub(crate) struct PartyArgs {
    /// The process whose death ends this one.
    #[arg(long)]
    pub(crate) parent: i32,
    /// Which lock.
    #[arg(long, value_enum)]
    pub(crate) lock: BenchLock,
    /// The file or the region that it is in.
    #[arg(long)]
    pub(crate) place: PathBuf,
    /// Makes it there.
    #[arg(long)]
    pub(crate) make: bool,
    /// Bytes of memory that the process has to itself.
    #[arg(long, default_value_t = 0)]
    pub(crate) resident: u64,
}

/// A lock that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchLock {
    OurMutex,
    OurRegion,
    PthreadPlain,
    PthreadRobust,
    PthreadRwlock,
    Futex,
    StdMutex,
    StdRwlock,
    ParkingLotMutex,
    ParkingLotRwlock,
    BoostMutex,
    BoostSharable,
}

impl BenchLock {
    /// What people call it.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::OurMutex => "commonhold mutex",
            Self::OurRegion => "commonhold region lock",
            Self::PthreadPlain => "pthread mutex",
            Self::PthreadRobust => "pthread robust mutex",
            Self::PthreadRwlock => "pthread rwlock",
            Self::Futex => "bare futex",
            Self::StdMutex => "std Mutex",
            Self::StdRwlock => "std RwLock",
            Self::ParkingLotMutex => "parking_lot Mutex",
            Self::ParkingLotRwlock => "parking_lot RwLock",
            Self::BoostMutex => "Boost mutex",
            Self::BoostSharable => "Boost sharable mutex",
        }
    }

    /// What `--lock` calls it.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    pub(crate) const fn is_ours(self) -> bool {
        matches!(self, Self::OurMutex | Self::OurRegion)
    }

    pub(crate) const fn is_boost(self) -> bool {
        matches!(self, Self::BoostMutex | Self::BoostSharable)
    }
}
