//! Virtual machines for tests: Linux guests and processes of the host around one space.
//!
//! # What it owns
//! A [`RunSpace`] is a space in a file. A [`Guest`] is a QEMU that sees the file as the memory of a PCI
//! device. A [`Side`] is one kernel's way to it: the host's or a guest's. On each side run
//! [`ScriptedProcess`]s, which do what they are told through the facade, and the command line tool. They are the
//! same static programs everywhere, unless a test has guests of another architecture, or programs with another
//! C library: what [`GuestImage`]s there are, and how their guests differ, `guest_image.rs` and `architecture.rs` say.
//!
//! # How it works
//! `cargo xtask vm image` makes a [`GuestImage`]: a stock kernel, and a small file system with busybox, the
//! programs, and an [`agent`] as the first process. A guest has two serial lines: the kernel's console,
//! whose end becomes part of every failure message, and the agent's, on which the test starts programs
//! and hears what they say, several at once.
//!
//! # Invariants
//! 1. Nothing outlives the test process, however it ends: no QEMU, no process, no file (`bound`).
//! 2. Whoever waits, waits for something to be said, and fails after [`PATIENCE`]. No outcome depends
//!    on how fast anything is.
//! 3. A guest has two processors, unless the test is about one: with one, QEMU emulates locked
//!    instructions by ordinary ones, and another kernel comes in between.
//!
//! # What it does not do
//! It builds nothing and installs nothing: `xtask` does.

mod actor;
pub mod agent;
mod architecture;
mod bound;
mod console;
mod guest;
mod guest_image;
mod job;
mod link;
mod machine;
mod metal;
mod monitor;
mod process;
mod qemu;
mod run_space;
mod side;
mod terminal;
mod verbs;
mod wire;

use std::{
    env,
    fmt::Display,
    io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

pub use actor::{ScriptedProcess, first_of};
pub use guest::Guest;
pub use guest_image::{GUEST_IMAGE, GUEST_IMAGE_ARM64, GUEST_IMAGE_MUSL, GuestImage};
pub use job::{Ended, Job};
pub use machine::Machine;
pub use metal::Metal;
pub use run_space::RunSpace;
pub use side::Side;
pub use terminal::Terminal;

/// Why a test fails, in words.
pub type Outcome<T = ()> = Result<T, String>;

/// Nothing takes longer, unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What was being done when something failed.
fn failed<E: Display>(doing: &str) -> impl FnOnce(E) -> String {
    move |error| format!("{doing}: {error}")
}

/// `boot FILE...`: becomes a guest with a shell on this terminal, and a device for each file. Returns
/// only if that fails.
fn boot(windows: Vec<PathBuf>) -> io::Error {
    let append = "commonhold.shell".to_owned();
    let machine = Machine { windows, append, ..Machine::default() };
    match GuestImage::find().and_then(|image| machine.linux(&image)) {
        Ok(argv) => Command::new("env").args(argv).args(["-serial", "mon:stdio"]).exec(),
        Err(why) => io::Error::other(why),
    }
}

/// The whole life of a `guest-actor`.
#[must_use]
pub fn act() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let error = match arguments.next().as_deref().and_then(|word| word.to_str()) {
        Some("act") => return verbs::act(),
        Some("boot") => boot(arguments.map(Into::into).collect()),
        Some("bound") => bound::become_bound(arguments),
        Some("broom") => {
            let directory = arguments.next().unwrap_or_default();
            match bound::sweep(Path::new(&directory)) {
                Ok(()) => return ExitCode::SUCCESS,
                Err(error) => error,
            }
        }
        _ => {
            io::Error::other("usage: guest-actor act | boot FILE... | bound ... | broom DIRECTORY")
        }
    };
    eprintln!("guest-actor: {error}");
    ExitCode::FAILURE
}
