//! The command line as types: arguments, help, completions and manual pages all come from here.
//!
//! Only definitions: `main` hands each variant to its module.

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
/// A space is a file, or memory of a device, that all its users map. A region is a named piece of a space.
/// Any program can create, map, lock and destroy a region by its name. A process that crashes leaves no
/// region locked and no memory leaked; if it held a lock, the next owner is told.
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
  commonhold create frames 16M               makes a region that any program can map by its name
  commonhold lock deploy -- ./deploy.sh      runs one at a time, like flock(1), but notices a crash
  commonhold map frames -- ./consumer        passes the memory to any program as a descriptor
  commonhold demo                            shows a crash and its recovery, in 15 seconds

Exit status: 0 done; 1 other failure; 2 usage; 3 not found; 4 exists; 5 in use; 6 timed out;
7 no memory or space; 8 the lock's owner died; 9 not a space, damaged, or another version.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Formats, describes or removes a space.
    #[command(subcommand)]
    Space(SpaceCommand),
    /// Creates a region.
    ///
    /// Takes the memory at once, so that a full file system is an error here and not a crash later;
    /// with --lazy, each page is taken when it is first touched. If the file system, the machine or the
    /// memory cgroup does not have enough memory, the command takes none and fails (exit status 7).
    /// A region of size 0 is a named lock.
    #[command(after_help = "Examples:\n  commonhold create frames 16M\n  \
        commonhold create log 64K --reserve 1G     can grow to 1 GiB without being moved")]
    Create(CreateArgs),
    /// Destroys a region, once no process maps it any more.
    ///
    /// Refuses new mappings at once, and waits until the existing ones are gone: for ever, unless
    /// --timeout is given. If the time runs out, the region is usable again (exit status 6).
    #[command(after_help = "Examples:\n  commonhold destroy frames --timeout 5s\n  \
        commonhold destroy frames --defer          returns at once; the last unmap frees it")]
    Destroy(DestroyArgs),
    /// Changes the size of a region, up to the reserve given at its creation.
    ///
    /// A region can only shrink while no process maps it.
    Resize {
        /// Name of the region.
        #[arg(value_parser = parse_name)]
        name: String,
        /// The new size.
        #[arg(value_parser = parse_size)]
        size: u64,
        /// Takes the memory even if the file system, the machine or the memory cgroup seems not to have
        /// enough; the kernel may then kill a process.
        #[arg(long)]
        force: bool,
    },
    /// Lists the regions of the space.
    Ls,
    /// Describes one region.
    Stat {
        /// Name of the region.
        #[arg(value_parser = parse_name)]
        name: String,
    },
    /// Writes a file or standard input into a region.
    ///
    /// If the input does not fit, nothing is written. Takes no lock: run it under `commonhold lock`.
    #[command(after_help = "Example:\n  date | commonhold write frames --offset 4096")]
    Write(WriteArgs),
    /// Writes the bytes of a region to standard output.
    ///
    /// Takes no lock: run it under `commonhold lock`.
    #[command(after_help = "Example:\n  commonhold read frames --len 64 | xxd")]
    Read(ReadArgs),
    /// Keeps a region mapped while a command runs, and passes it the memory as a file descriptor.
    ///
    /// The command inherits the descriptor. Its environment says which one it is, and where in it the region
    /// lies: COMMONHOLD_FD, COMMONHOLD_OFFSET and COMMONHOLD_SIZE. Any language that can mmap a descriptor
    /// can use it.
    #[command(after_help = "Example:\n  commonhold map frames -- python3 -c 'import mmap,os; \
        e=os.environ; m=mmap.mmap(int(e[\"COMMONHOLD_FD\"]), int(e[\"COMMONHOLD_SIZE\"]), \
        offset=int(e[\"COMMONHOLD_OFFSET\"])); print(m[:16])'")]
    Map(MapArgs),
    /// Runs a command under the lock of a region: flock(1) across containers and virtual machines.
    ///
    /// A region that does not exist is created with size 0. If this process is killed, the command is
    /// killed too, and the next owner of the lock is told that the last one died.
    #[command(after_help = "Examples:\n  commonhold lock deploy -- ./deploy.sh\n  \
        commonhold lock deploy --timeout 0 -- ./deploy.sh || echo busy\n  \
        commonhold lock deploy --on-death repair -- sh -c \\\n    \
        '[ -z \"$COMMONHOLD_OWNER_DIED\" ] || ./repair.sh && ./deploy.sh'\n\n\
        Exit status: that of COMMAND (126, 127 and 128+n as a shell); 6 the lock was not free in \
        time; 8 its last owner died.")]
    Lock(LockArgs),
    /// Makes a lock that is inconsistent or unrecoverable usable again.
    ///
    /// Use it when the data that the lock protects have been made anew, or will be: the next owner of the lock
    /// is not told that an owner died. A lock that a living process holds is not touched.
    #[command(
        after_help = "Examples:\n  commonhold reset deploy                    the region's own lock\n  \
        commonhold reset accounts --offset 4096    a lock in its bytes; `commonhold locks` shows the offsets"
    )]
    Reset(ResetArgs),
    /// Lists the locks that are held, waited for, or not consistent.
    ///
    /// Lists the regions' own locks, and the locks in the bytes of regions, which it recognizes by their tags.
    #[command(after_help = "Examples:\n  commonhold locks --graph                   \
        which thread waits for which, and deadlocks\n  \
        commonhold locks --graph=dot | dot -Tsvg > locks.svg")]
    Locks(LocksArgs),
    /// Lists the processes attached to the space.
    Peers,
    /// Frees what dead peers left, and prints what was freed.
    ///
    /// Also gives back memory that belongs to no region, which a core dump of a user of the space may leave.
    /// Of a peer in another kernel only the heartbeat is visible: a peer whose heartbeat has stopped is suspect.
    /// It counts as dead when the lease of the space has run out, or by --assume-dead.
    Reap(ReapArgs),
    /// Shows in 15 seconds what happens when a process that holds a lock is killed.
    ///
    /// Several workers move money between accounts. Now and then one is killed in the middle of a transfer;
    /// another takes the lock over, repairs the accounts and goes on.
    Demo(DemoArgs),
    /// Kills and stops processes at random while they use a space, and checks that nothing is lost. Runs the
    /// program commonhold-bench.
    #[command(
        disable_help_flag = true,
        disable_version_flag = true,
        after_help = "Its options:\n  commonhold torture --help"
    )]
    Torture(ExternalArgs),
    /// Measures Commonhold and its alternatives in one run, and prints the ratios. Runs the program
    /// commonhold-bench.
    #[command(
        disable_help_flag = true,
        disable_version_flag = true,
        after_help = "Its benchmarks and options:\n  commonhold bench --help"
    )]
    Bench(ExternalArgs),
    /// Checks what this machine supports, and says how to get what is missing.
    ///
    /// Exits with status 1 if memory cannot be shared here at all.
    Doctor,
    /// Prints the completion script for a shell.
    #[command(after_help = "Example:\n  commonhold completions bash > \
        /etc/bash_completion.d/commonhold")]
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Prints the manual page, or writes the pages of all commands into a folder.
    Man {
        /// Folder to write commonhold.1 and one page for each command into.
        dir: Option<PathBuf>,
    },
    /// Asks the kernel to be killed when its parent dies, then becomes COMMAND.
    #[command(hide = true)]
    ExecChild(ExecChildArgs),
    /// One process of `demo`.
    #[command(hide = true)]
    DemoWorker(WorkerArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum SpaceCommand {
    /// Makes a space; replaces what is there only with --force.
    #[command(after_help = "Example:\n  commonhold space format file:/dev/shm/cam --capacity 1G")]
    Format(FormatArgs),
    /// Describes the space: format version, capacity, bytes used and free, peers, regions, kind of memory, and
    /// how much memory the file system, the machine and the memory cgroup have left.
    Info,
    /// Removes a shm: or file: space, unless live peers are attached.
    Remove {
        /// URL of the space.
        url: String,
        /// Removes the space even if live peers are attached.
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct FormatArgs {
    /// URL of the space.
    pub(crate) url: String,
    /// Size of the whole space. Default: 64 GiB for shm:, the file's size for file:, all the memory of pci: and
    /// mem:.
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    pub(crate) capacity: Option<u64>,
    /// How many processes can attach at once.
    #[arg(long, value_name = "N")]
    pub(crate) peers: Option<u64>,
    /// How many regions there can be at once.
    #[arg(long, value_name = "N")]
    pub(crate) regions: Option<u64>,
    /// How long the heartbeat of a peer in another kernel may be silent before the peer counts as dead and loses its
    /// locks, though nothing proves its death. Default: for ever. Note that a paused virtual machine may go on
    /// later, and finish a write that it had begun.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) lease: Option<Duration>,
    /// Permission bits of the file, in octal.
    #[arg(long, value_parser = parse_mode, value_name = "OCTAL")]
    pub(crate) mode: Option<u32>,
    /// Replaces the space or data that are there.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Name of the region: 1 to 127 bytes, without control characters and `/`.
    #[arg(value_parser = parse_name)]
    pub(crate) name: String,
    /// Size of the region in bytes, such as 4096, 64K, 16M or 2G.
    #[arg(value_parser = parse_size)]
    pub(crate) size: u64,
    /// Takes memory only when it is first touched.
    #[arg(long)]
    pub(crate) lazy: bool,
    /// Size up to which the region can grow later; default: its size.
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    pub(crate) reserve: Option<u64>,
    /// Takes the memory even if there does not seem to be enough; the kernel may then kill a process.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DestroyArgs {
    /// Name of the region.
    #[arg(value_parser = parse_name)]
    pub(crate) name: String,
    /// How long to wait until no process maps the region; 0 tries once. Default: for ever.
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
    /// File to read from; standard input if it is `-` or not given.
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
    /// How many bytes to read. Default: up to the end of the region.
    #[arg(long, value_parser = parse_size, value_name = "N")]
    pub(crate) len: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct MapArgs {
    /// Name of the region.
    #[arg(value_parser = parse_name)]
    pub(crate) name: String,
    /// Maps the region read-only, and opens the descriptor for reading only.
    #[arg(long)]
    pub(crate) read_only: bool,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct LockArgs {
    /// Name of the region whose lock is taken.
    #[arg(value_parser = parse_name)]
    pub(crate) name: String,
    /// Takes the lock shared: several commands may have it at once, but none exclusively.
    #[arg(long)]
    pub(crate) shared: bool,
    /// How long to wait for the lock; 0 tries once. Default: for ever.
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
    /// Where in the region the lock begins, in bytes. Default: the region's own lock.
    #[arg(long, value_parser = parse_size, value_name = "N")]
    pub(crate) offset: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct LocksArgs {
    /// Prints instead which thread waits for which, across processes and kernels, and all deadlocks. With
    /// --json the form makes no difference.
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
    /// Lines of text.
    Text,
    /// Input for Graphviz.
    Dot,
}

#[derive(Debug, Args)]
pub(crate) struct ReapArgs {
    /// Declares the silent peer in this slot dead. Use it only if its machine is known to be gone: a peer that
    /// was merely paused may go on and finish a write that it had begun. May be given several times.
    #[arg(long, value_name = "SLOT")]
    pub(crate) assume_dead: Vec<u16>,
}

/// What `lock` does with a lock whose owner died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnDeath {
    /// Exits with status 8 without running the command; the lock stays inconsistent, so the next owner is told too.
    Fail,
    /// Runs the command with COMMONHOLD_OWNER_DIED=1. If the command exits with 0, the lock is consistent again.
    /// With --shared the command then runs under the exclusive lock.
    Repair,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// How many worker processes run.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u64).range(2..=64))]
    pub(crate) peers: u64,
    /// How many seconds the demo runs.
    #[arg(long, default_value_t = 15, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: u64,
}

/// The arguments of a command of another program, which knows what they mean.
#[derive(Debug, Args)]
pub(crate) struct ExternalArgs {
    /// Arguments for that program.
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
    fn arguments_after_the_name_of_an_external_command_are_passed_on() {
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
