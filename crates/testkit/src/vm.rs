//! Virtual machines for tests: Linux guests and processes of the host around one space.
//!
//! # What it owns
//! A [`RunSpace`] is a space in a file. A [`Guest`] is a QEMU that sees the file as the memory of a PCI device. A
//! [`Side`] is one kernel's way to the space: the host's or a guest's. On each side run [`ScriptedProcess`]es, which
//! execute commands through the facade, and the command line tool. The programs are the same static ones on all sides,
//! unless a test has guests of another architecture, or programs with another C library: `guest_image.rs` lists the
//! [`GuestImage`]s, and `architecture.rs` says how their guests differ.
//!
//! # How it works
//! `cargo xtask vm image` makes a [`GuestImage`]: a stock kernel, and a small file system with busybox, the programs,
//! and an [`agent`] as the first process. A guest has two serial lines. One is the kernel's console; its last lines
//! become part of every failure message. The other belongs to the agent: over it the test starts programs and reads
//! their output, several at once.
//!
//! # Invariants
//! 1. Nothing outlives the test process, however it ends: no QEMU, no process, no file (`bound`).
//! 2. Every wait is for an output, and fails after [`PATIENCE`]. No result depends on speed.
//! 3. A guest has two processors, unless the test is about one. With one processor, QEMU executes locked instructions
//!    as ordinary ones, so another kernel's accesses can come in between.
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

/// A result, or a sentence that says why the test fails.
pub type Outcome<T = ()> = Result<T, String>;

/// The longest time that anything may take; after it, it counts as hanging.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Adds to an error what was being done.
fn failed<E: Display>(doing: &str) -> impl FnOnce(E) -> String {
    move |error| format!("{doing}: {error}")
}

/// Executes `boot FILE...`: becomes a guest with a shell on this terminal, and a device for each file. Returns only if
/// that fails.
fn boot(windows: Vec<PathBuf>) -> io::Error {
    let append = "commonhold.shell".to_owned();
    let machine = Machine { windows, append, ..Machine::default() };
    match GuestImage::find().and_then(|image| machine.linux(&image)) {
        Ok(argv) => Command::new("env").args(argv).args(["-serial", "mon:stdio"]).exec(),
        Err(why) => io::Error::other(why),
    }
}

/// The main function of `guest-actor`.
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
