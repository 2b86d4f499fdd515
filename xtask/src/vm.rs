//! `cargo xtask vm`: builds what the virtual machine tests need.
//!
//! # What it owns
//! `target/vm`, the guest image: a kernel, a first file system for guests, and the programs in it. `testkit::vm` uses
//! them.
//!
//! # Invariants
//! 1. Files from the network are fetched once, and are complete or absent.
//! 2. Programs from this source are built again whenever the source has changed.

mod archive;
pub(crate) mod image;
pub(crate) mod parts;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Subcommand;

use crate::{
    bare_metal,
    cargo::{self, cargo},
    machine,
    report::{Counts, Report, say},
    target::X86,
    vm::parts::Parts,
};

/// Variable by which the tests find what is built here; `testkit::vm` has the same name.
pub(crate) const GUEST_IMAGE: &str = "COMMONHOLD_VM";
const WHAT: &str = "virtual machines";

/// The commands of `cargo xtask vm`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Builds everything that guests need, and prints where it is.
    Image,
    /// Runs the tests with virtual machines.
    Test {
        /// Arguments for the test program: names of tests.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Starts a guest with a shell on this terminal. `poweroff -f` ends it.
    Boot {
        /// Files that the guest sees as memory devices.
        windows: Vec<PathBuf>,
    },
}

/// Runs a command.
pub(crate) fn run(command: Command) -> Result<()> {
    let guest_image = guest_image()?;
    match command {
        Command::Image => {
            for part in ["kernel", "initramfs", "bin/commonhold", "bin/bare-metal"] {
                say(format_args!("{}", guest_image.join(part).display()));
            }
            say(format_args!("{GUEST_IMAGE}={}", guest_image.display()));
            Ok(())
        }
        Command::Test { arguments } => {
            let mut counts = Counts::default();
            cargo::test(tests(&guest_image).args(arguments), &mut counts)
        }
        Command::Boot { windows } => {
            let features = ["run", "--quiet", "-p", "commonhold-testkit", "--features", "vm"];
            let program = ["--bin", "guest-actor", "--", "boot"];
            cargo::must_succeed(
                cargo(&features).args(program).args(windows).env(GUEST_IMAGE, &guest_image),
            )
        }
    }
}

/// Builds the guest image. Returns its folder.
pub(crate) fn guest_image() -> Result<PathBuf> {
    let guest_image = directory()?;
    make(&guest_image, &parts::fetch(&guest_image.join("debian"), X86)?)?;
    Ok(guest_image)
}

fn make(guest_image: &Path, parts: &Parts) -> Result<()> {
    image::make(guest_image, parts, X86)?;
    image::copy(&bare_metal::build()?.0, &guest_image.join("bin/bare-metal"))
}

pub(crate) fn directory() -> Result<PathBuf> {
    Ok(cargo::metadata(&["--no-deps"])?.target_directory.join("vm"))
}

/// The command that runs the tests, one after the other: two guests with two processors each are enough for a machine.
fn tests(guest_image: &Path) -> std::process::Command {
    let mut command = cargo(&["test", "-p", "commonhold-testkit", "--features", "vm"]);
    command.args(["--test", "vm", "--", "--test-threads=1"]).env(GUEST_IMAGE, guest_image);
    command
}

/// The steps of `cargo xtask test`.
pub(crate) fn steps(report: &mut Report) {
    if !machine::has_qemu() {
        // `machine::prepare` has already reported it.
        return;
    }
    let parts = match directory()
        .and_then(|guest_image| Ok((parts::fetch(&guest_image.join("debian"), X86)?, guest_image)))
    {
        Ok(parts) => parts,
        Err(why) => return report.not_run(WHAT, &format!("{why:#}")),
    };
    let (parts, guest_image) = parts;
    let made = report.step("the image of the guests", |_| make(&guest_image, &parts));
    if made {
        report.step("cargo test (virtual machines)", |counts| {
            cargo::test(&mut tests(&guest_image), counts)
        });
    } else {
        report.not_run(WHAT, "there is no image of a guest");
    }
}
