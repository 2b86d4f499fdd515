//! The command line as types: arguments, help, completions and manual pages all come from here.
//!
//! Does not do anything: `main` hands each variant to its module.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use commonhold_console::{
    program::GlobalArgs,
    units::{parse_duration, parse_mode, parse_name, parse_size},
    workers::WorkerArgs,
};

/// Named shared memory for processes and virtual machines, with locks that survive crashes.
///
/// A space is a file or device memory that everybody maps; a region is a named piece of it. Any
/// program can create, map, lock and destroy a region by name, and no crash leaves it locked,
/// leaked or silently torn.
#[derive(Debug, Parser)]
#[command(name = "commonhold", version, propagate_version = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  commonhold create frames 16M               a region that anybody can map by its name
  commonhold lock deploy -- ./deploy.sh      one at a time, as flock(1), but a crash is noticed
  commonhold map frames -- ./consumer        hands the memory to any program as a descriptor
  commonhold demo                            what it does, in 15 seconds

Exit status: 0 done; 1 other failure; 2 usage; 3 not found; 4 exists; 5 in use; 6 timed out;
7 no memory or space; 8 the lock's owner died; 9 not a space, damaged, or another version.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Formats, describes or removes a space.
    #[command(subcommand)]
    Space(SpaceCommand),
    /// Creates a region.
    ///
    /// Its memory is taken at once, so a full file system is an error here and never a crash
    /// later; with --lazy it is taken at first touch. What the file system, the machine or the memory
    /// cgroup does not have is refused before any of it is taken (exit status 7). A region of size 0
    /// is a named lock.
    #[command(after_help = "Examples:\n  commonhold create frames 16M\n  \
        commonhold create log 64K --reserve 1G     can grow to 1 GiB where it stands")]
    Create(CreateArgs),
    /// Destroys a region, once nobody maps it any more.
    ///
    /// New mappings are refused from now on. Waits without limit for those that there are, unless
    /// told otherwise; when the time is up the region is active again (exit status 6).
    #[command(after_help = "Examples:\n  commonhold destroy frames --timeout 5s\n  \
        commonhold destroy frames --defer          returns at once; the last unmap frees it")]
    Destroy(DestroyArgs),
    /// Changes the size of a region, within the reserve given at its creation.
    ///
    /// Shrinks only while nobody maps the region.
    Resize {
        /// Name of the region.
        #[arg(value_parser = parse_name)]
        name: String,
        /// The new size.
        #[arg(value_parser = parse_size)]
        size: u64,
        /// Takes memory even if the file system, the machine or the memory cgroup seems not to have it.
        #[arg(long)]
        force: bool,
    },
    /// Lists the regions of the space.
    Ls,
    /// Tells all about one region.
    Stat {
        /// Name of the region.
        #[arg(value_parser = parse_name)]
        name: String,
    },
    /// Writes a file or standard input into a region.
    ///
    /// Nothing is written if it does not fit. Takes no lock: use `commonhold lock` around it.
    #[command(after_help = "Example:\n  date | commonhold write frames --offset 4096")]
    Write(WriteArgs),
    /// Reads a region to standard output.
    #[command(after_help = "Example:\n  commonhold read frames --len 64 | xxd")]
    Read(ReadArgs),
    /// Keeps a region mapped while a command runs, and hands it the memory.
    ///
    /// The command inherits a descriptor and its place in the environment: COMMONHOLD_FD,
    /// COMMONHOLD_OFFSET and COMMONHOLD_SIZE. Any language that can mmap a descriptor can use it.
    #[command(after_help = "Example:\n  commonhold map frames -- python3 -c 'import mmap,os; \
        e=os.environ; m=mmap.mmap(int(e[\"COMMONHOLD_FD\"]), int(e[\"COMMONHOLD_SIZE\"]), \
        offset=int(e[\"COMMONHOLD_OFFSET\"])); print(m[:16])'")]
    Map(MapArgs),
    /// Runs a command under the lock of a region, as flock(1), across containers and VMs.
    ///
    /// A region that does not exist is created with size 0. If this process is killed, so is the
    /// command, and the next to take the lock is told that its owner died.
    #[command(after_help = "Examples:\n  commonhold lock deploy -- ./deploy.sh\n  \
        commonhold lock deploy --timeout 0 -- ./deploy.sh || echo busy\n  \
        commonhold lock deploy --on-death repair -- sh -c \\\n    \
        '[ -z \"$COMMONHOLD_OWNER_DIED\" ] || ./repair.sh && ./deploy.sh'\n\n\
        Exit status: that of COMMAND (126, 127 and 128+n as a shell); 6 the lock was not free in \
        time; 8 its last owner died.")]
    Lock(LockArgs),
    /// Makes a lock as good as new that is inconsistent or was given up.
    ///
    /// For when what it protects has been made anew, or is to be: whoever has the lock next is told nothing of what
    /// was. A lock that somebody living has is left alone.
    #[command(
        after_help = "Examples:\n  commonhold reset deploy                    the lock of the region itself\n  \
        commonhold reset accounts --offset 4096    one in its bytes: `commonhold locks` says where they are"
    )]
    Reset(ResetArgs),
    /// Lists the locks that are held, waited for, or not consistent.
    ///
    /// Those in the bytes of regions too, by the tags that they have.
    #[command(after_help = "Examples:\n  commonhold locks --graph                   \
        who waits for whom, and who waits in a circle\n  \
        commonhold locks --graph=dot | dot -Tsvg > locks.svg")]
    Locks(LocksArgs),
    /// Lists the processes attached to the space.
    Peers,
    /// Looks for dead peers now, and prints what was freed.
    ///
    /// Also gives back memory where no region is, as a core dump of a user of the space may leave it.
    /// Of a peer of another kernel only the heartbeat is seen: if it is silent, the peer is suspect,
    /// and dead only when the lease of the space has run out, or by --assume-dead.
    Reap(ReapArgs),
    /// Shows the product in 15 seconds: workers are killed holding a lock, others recover it.
    Demo(DemoArgs),
    /// Kills and stops processes at random while they use a space, and checks that nothing is lost: by the program
    /// commonhold-bench.
    #[command(
        disable_help_flag = true,
        disable_version_flag = true,
        after_help = "Its options:\n  commonhold torture --help"
    )]
    Torture(ExternalArgs),
    /// Measures against what else there is, both in one run, and prints the ratios: by the program commonhold-bench.
    #[command(
        disable_help_flag = true,
        disable_version_flag = true,
        after_help = "Its benchmarks and options:\n  commonhold bench --help"
    )]
    Bench(ExternalArgs),
    /// Tells what this machine can do, and what to do about what is missing.
    ///
    /// Ends with status 1 if memory cannot be shared here at all.
    Doctor,
    /// Prints the completions for a shell.
    #[command(after_help = "Example:\n  commonhold completions bash > \
        /etc/bash_completion.d/commonhold")]
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Prints the manual page, or writes all of them into a folder.
    Man {
        /// Folder for commonhold.1 and one page for each command.
        dir: Option<PathBuf>,
    },
    /// Dies with its parent, then becomes COMMAND.
    #[command(hide = true)]
    ExecChild(ExecChildArgs),
    /// One process of `demo`.
    #[command(hide = true)]
    DemoWorker(WorkerArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum SpaceCommand {
    /// Makes a space; refuses to replace one unless told to.
    #[command(after_help = "Example:\n  commonhold space format file:/dev/shm/cam --capacity 1G")]
    Format(FormatArgs),
    /// Tells what the space is: format version, capacity, used, free, peers, regions, memory, and what
    /// memory there is.
    Info,
    /// Removes a shm: or file: space; refused while live peers are attached.
    Remove {
        /// Which space.
        url: String,
        /// Removes it under its users' feet.
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct FormatArgs {
    /// Which space.
    pub(crate) url: String,
    /// Bytes of the window; default 64 GiB for shm:, the file's size for file:, all of pci: and mem:.
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    pub(crate) capacity: Option<u64>,
    /// How many processes can attach at once.
    #[arg(long, value_name = "N")]
    pub(crate) peers: Option<u64>,
    /// How many regions there can be at once.
    #[arg(long, value_name = "N")]
    pub(crate) regions: Option<u64>,
    /// After how long a silent peer of another kernel loses its locks, though nothing proves its
    /// death. Without it, never. A paused VM may come back and write.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) lease: Option<Duration>,
    /// Permission bits of the file.
    #[arg(long, value_parser = parse_mode, value_name = "OCTAL")]
    pub(crate) mode: Option<u32>,
    /// Replaces what is there.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Name of the region: 1 to 127 bytes without control characters or `/`.
    #[arg(value_parser = parse_name)]
    pub(crate) name: String,
    /// Its size: 4096, 64K, 16M, 2G.
    #[arg(value_parser = parse_size)]
    pub(crate) size: u64,
    /// Takes memory at first touch.
    #[arg(long)]
    pub(crate) lazy: bool,
    /// What it can grow to.
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    pub(crate) reserve: Option<u64>,
    /// Takes memory even if there does not seem to be so much; the kernel may kill a process for it.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DestroyArgs {
    /// Name of the region.
    #[arg(value_parser = parse_name)]
    pub(crate) name: String,
    /// How long to wait for mappings to go; 0 tries once.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) timeout: Option<Duration>,
    /// Returns at once; the last unmap frees the region.
    #[arg(long, conflicts_with = "timeout")]
    pub(crate) defer: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WriteArgs {
    /// Name of the region.
    #[arg(value_parser = parse_name)]
    pub(crate) name: String,
    /// Where in the region to begin, in bytes.
    #[arg(long, value_parser = parse_size, default_value = "0", value_name = "N")]
    pub(crate) offset: u64,
    /// What to write; `-` or nothing: standard input.
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ReadArgs {
    /// Name of the region.
    #[arg(value_parser = parse_name)]
    pub(crate) name: String,
    /// Where in the region to begin, in bytes.
    #[arg(long, value_parser = parse_size, default_value = "0", value_name = "N")]
    pub(crate) offset: u64,
    /// How many bytes; default: to the end.
    #[arg(long, value_parser = parse_size, value_name = "N")]
    pub(crate) len: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct MapArgs {
    /// Name of the region.
    #[arg(value_parser = parse_name)]
    pub(crate) name: String,
    /// Maps read-only: the descriptor can only be read.
    #[arg(long)]
    pub(crate) read_only: bool,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct LockArgs {
    /// Name of the region whose lock to take.
    #[arg(value_parser = parse_name)]
    pub(crate) name: String,
    /// Shares the lock with others that share it.
    #[arg(long)]
    pub(crate) shared: bool,
    /// How long to wait; 0 tries once.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) timeout: Option<Duration>,
    /// What to do if the last owner died holding the lock.
    #[arg(long, value_enum, default_value_t = OnDeath::Fail)]
    pub(crate) on_death: OnDeath,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct ResetArgs {
    /// Name of the region.
    #[arg(value_parser = parse_name)]
    pub(crate) name: String,
    /// Where in the region the lock begins, in bytes; without it, the region's own lock is meant.
    #[arg(long, value_parser = parse_size, value_name = "N")]
    pub(crate) offset: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct LocksArgs {
    /// Prints who waits for whom instead, across processes and kernels, and the deadlocks among them:
    /// as lines to read, or for Graphviz. With --json the form makes no difference.
    #[arg(
        long,
        value_enum,
        value_name = "FORM",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "text"
    )]
    pub(crate) graph: Option<GraphForm>,
}

/// How `locks --graph` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphForm {
    /// Lines to read.
    Text,
    /// The language of Graphviz.
    Dot,
}

#[derive(Debug, Args)]
pub(crate) struct ReapArgs {
    /// Declares the silent peer in this slot dead: to be used when its machine is known to be gone. If
    /// it was only paused, it may yet finish a write that it had begun. May be given several times.
    #[arg(long, value_name = "SLOT")]
    pub(crate) assume_dead: Vec<u16>,
}

/// What `lock` does with a lock whose owner died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnDeath {
    /// Exits with 8 without running the command; the next is told the same.
    Fail,
    /// Runs the command with COMMONHOLD_OWNER_DIED=1; the lock is consistent if it ends with 0.
    /// With --shared the command then runs under the exclusive lock.
    Repair,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// How many workers.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u64).range(2..=64))]
    pub(crate) peers: u64,
    /// For how long.
    #[arg(long, default_value_t = 15, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: u64,
}

/// The arguments of a command of another program, which knows what they mean.
#[derive(Debug, Args)]
pub(crate) struct ExternalArgs {
    /// Whatever that program takes.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    pub(crate) arguments: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct ExecChildArgs {
    /// The process whose death ends this one.
    #[arg(long)]
    pub(crate) parent: i32,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<OsString>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definitions_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_command_may_have_options_of_its_own() {
        let cli = Cli::try_parse_from([
            "commonhold",
            "lock",
            "x",
            "--shared",
            "--",
            "ls",
            "-l",
            "--json",
        ])
        .unwrap();
        let Command::Lock(args) = cli.command else { panic!("not lock") };
        assert!(args.shared && !cli.global.json);
        assert_eq!(args.command, ["ls", "-l", "--json"]);
    }

    #[test]
    fn whatever_another_program_takes_is_handed_on_but_for_what_stands_before_it() {
        let args = ["commonhold", "-v", "bench", "--json", "--seconds", "0.2", "locks", "--json"];
        let cli = Cli::try_parse_from(args).unwrap();
        let Command::Bench(args) = cli.command else { panic!("not bench") };
        assert_eq!(args.arguments, ["--seconds", "0.2", "locks", "--json"]);
        assert!(cli.global.json && cli.global.verbose == 1);
        let cli = Cli::try_parse_from(["commonhold", "torture", "--help"]).unwrap();
        let Command::Torture(args) = cli.command else { panic!("not torture") };
        assert_eq!(args.arguments, ["--help"]);
    }

    #[test]
    fn names_sizes_and_conflicts_are_usage_errors() {
        for bad in [
            &["create", "a/b", "4K"][..],
            &["create", "", "4K"],
            &["create", "x", "-4"],
            &["create", "x"],
            &["destroy", "x", "--defer", "--timeout", "1s"],
            &["lock", "x"],
            &["map", "x", "--"],
            &["lock", "x", "--on-death", "shrug", "--", "true"],
            &["demo", "--peers", "0"],
            &["locks", "--graph=picture"],
            &["locks", "--graph", "dot"],
            &["nonsense"],
        ] {
            let args = std::iter::once("commonhold").chain(bad.iter().copied());
            let error = Cli::try_parse_from(args).expect_err(&bad.join(" "));
            assert_eq!(error.exit_code(), 2, "{bad:?}");
        }
    }
}
