//! The command line as types: the benchmarks, `torture`, and the hidden commands of their worker processes.
//!
//! Only definitions: `main` hands each variant to its module.

use std::{path::PathBuf, time::Duration};

use clap::{
    ArgMatches, Args, CommandFactory, Parser, Subcommand, ValueEnum, error::ErrorKind,
    parser::ValueSource,
};
use commonhold_console::{
    program::GlobalArgs,
    units::{parse_duration, parse_seconds, parse_size},
    workers::WorkerArgs,
};

/// Measures Commonhold and its alternatives in one run, and prints the ratios; or tortures Commonhold.
///
/// `clients`, `locks` and `paging` only run if they are named; `locks` takes about a minute.
#[derive(Debug, Parser)]
#[command(name = "commonhold-bench", version, propagate_version = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(flatten)]
    pub(crate) bench: BenchArgs,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

const EXAMPLES: &str = "\
Examples:
  commonhold bench                        what takes seconds
  commonhold bench locks --seconds 5 --kills 1000 --plot locks.svg
  commonhold torture --peers 8 --seconds 60

`commonhold bench ...` is `commonhold-bench ...`, `commonhold torture ...` is `commonhold-bench torture ...`.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Kills and stops processes at random while they use a space, and checks that nothing is lost.
    #[command(after_help = "Examples:\n  commonhold torture --peers 8 --seconds 60\n  \
        commonhold torture --peers 32 --kill-every 0     no kills, only contention\n  \
        commonhold torture --stop-every 50ms             also stops many processes for a while")]
    Torture(TortureArgs),
    /// One process of `torture`.
    #[command(hide = true)]
    TortureWorker(WorkerArgs),
    /// One process of `locks`.
    #[command(hide = true)]
    Worker(LockWorkerArgs),
    /// The two threads that `waiting` measures.
    #[command(hide = true)]
    Waiter(WorkerArgs),
}

impl Cli {
    /// Refuses benchmarks and their options in front of another command, where they would be ignored.
    pub(crate) fn refuse_mixture(matches: &ArgMatches) -> Result<(), clap::Error> {
        let Some(name) = matches.subcommand_name() else { return Ok(()) };
        let mut cli = Self::command();
        // Only a built command can show its arguments.
        cli.build();
        let given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
        let stray = cli
            .get_arguments()
            .find(|argument| !argument.is_global_set() && given(argument.get_id().as_str()))
            .map(ToString::to_string);
        match stray {
            None => Ok(()),
            Some(stray) => {
                let why =
                    format!("{stray} belongs to the benchmarks: it cannot stand before `{name}`");
                Err(cli.error(ErrorKind::ArgumentConflict, why))
            }
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Benchmarks to run. Default: all except `clients`, `locks` and `paging`.
    #[arg(value_enum)]
    pub(crate) names: Vec<Benchmark>,
    /// In `locks`: how many seconds each lock is measured in each scenario. In `clients`: how many seconds the client is
    /// measured with each of the two others.
    #[arg(long, default_value_t = 2.0, value_name = "N", value_parser = parse_seconds)]
    pub(crate) seconds: f64,
    /// In `locks` and `recovery`: how many holders are killed. Default: 50, and 25 for each --resident.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) kills: Option<u32>,
    /// In `recovery`: how much memory a holder has when it is killed. Each size is measured by itself.
    #[arg(
        long,
        value_name = "SIZE,...",
        value_delimiter = ',',
        value_parser = parse_size,
        default_value = "0,16M,128M,512M"
    )]
    pub(crate) resident: Vec<u64>,
    /// Draws the results into this file, as SVG.
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
}

/// A benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Benchmark {
    /// Create, map, touch, unmap and destroy 4 KiB, against shm_open and mmap.
    Create,
    /// Read and write one word, and copy many bytes, against an atomic of this process and memcpy.
    Data,
    /// Map and unmap by name among 65,536 regions, against the same among 16.
    Lookup,
    /// Uncontended lock and unlock, against a robust pthread mutex.
    Mutex,
    /// Uncontended read lock and unlock, against a pthread rwlock.
    Rwlock,
    /// Time from the death of a holder, or from the end of its thread, until the waiter has the lock; also for holders
    /// with much memory. Against a robust pthread mutex.
    Recovery,
    /// Wait for a lock in memory of a device, where no kernel can wake the waiter, against a futex.
    Waiting,
    /// Faults, lookups and evictions of the memory manager, on a machine in software.
    Mm,
    /// Page faults of one client while another has a slow pager, on a userfaultfd, against the same client alone.
    Clients,
    /// All locks: uncontended, among two and eight processes, mostly read, handed over, and recovered. Against
    /// pthread, std, parking_lot and (if g++ finds its headers) Boost.Interprocess.
    Locks,
    /// Which page is evicted when memory is full: simulated on six traces, against FIFO, LRU, SIEVE, the
    /// second-chance list of VMS, and Belady's optimum. Must be named alone.
    Paging,
}

#[derive(Debug, Args)]
pub(crate) struct TortureArgs {
    /// How many processes use the space.
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub(crate) peers: u64,
    /// How many seconds the torture runs.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: u64,
    /// How often a process is killed; 0: never.
    #[arg(long, value_parser = parse_duration, default_value = "100ms", value_name = "DURATION")]
    pub(crate) kill_every: Duration,
    /// How often a process is stopped with SIGSTOP, for up to a second; 0: never. It then goes on, or is killed while
    /// it is stopped. Several may be stopped at a time. Default: with one kill in four, for up to 60 ms.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) stop_every: Option<Duration>,
    /// Seed of the random choices. Default: a new one for each run; it is printed.
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct LockWorkerArgs {
    /// The process whose death ends this one.
    #[arg(long)]
    pub(crate) parent: i32,
    /// Which lock it uses.
    #[arg(long, value_enum)]
    pub(crate) lock: BenchLock,
    /// The file or the region that the lock is in.
    #[arg(long)]
    pub(crate) place: PathBuf,
    /// Makes the lock there.
    #[arg(long)]
    pub(crate) make: bool,
    /// How many bytes of private memory the process touches.
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
    /// Its name in tables and plots.
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

    /// Its name as a value of `--lock`.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<Cli, clap::Error> {
        let args = std::iter::once("commonhold-bench").chain(args.iter().copied());
        let matches = Cli::command().try_get_matches_from(args)?;
        Cli::refuse_mixture(&matches)?;
        <Cli as clap::FromArgMatches>::from_arg_matches(&matches)
    }

    #[test]
    fn the_definitions_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_behind_a_command() {
        for args in [
            &["--json", "--space", "shm:x", "torture", "--seconds", "3"][..],
            &["torture", "--seconds", "3", "--json", "--space", "shm:x"],
        ] {
            let cli = parsed(args).unwrap();
            let Some(Command::Torture(torture)) = cli.command else { panic!("not torture") };
            assert_eq!((torture.seconds, cli.global.space.as_str()), (3, "shm:x"));
            assert!(cli.global.json);
        }
        let cli = parsed(&["--json", "mutex", "rwlock", "--kills", "2", "--json"]).unwrap();
        assert_eq!(cli.bench.names, [Benchmark::Mutex, Benchmark::Rwlock]);
        assert!(cli.command.is_none() && cli.global.json);
    }

    #[test]
    fn benchmarks_and_torture_are_not_mixed() {
        for bad in [
            &["mutex", "torture"][..],
            &["--seconds", "1", "torture"],
            &["--kills", "2", "torture", "--peers", "2"],
            &["nonsense"],
            &["torture", "--peers", "0"],
            &["locks", "--seconds", "0"],
        ] {
            let error = parsed(bad).expect_err(&bad.join(" "));
            assert_eq!(error.exit_code(), 2, "{bad:?}");
        }
    }
}
