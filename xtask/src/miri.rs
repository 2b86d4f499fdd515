//! Runs those tests of the core under Miri that take it about two minutes. Miri reports undefined behaviour.
//!
//! It needs a nightly compiler. If that cannot be installed, the step reports it as not run, which is not a failure.

use std::{path::Path, process::Command};

use anyhow::{Result, ensure};

use crate::{
    cargo, machine,
    report::{Counts, Report},
};

const NAME: &str = "cargo miri test";
const TOOLCHAIN: &str = "+nightly";

/// A package, its tests that run, and the tests that are left out because they take Miri minutes.
const SELECTIONS: [(&str, &[&str], &[&str]); 3] = [
    ("commonhold-window", &["--lib"], &[]),
    (
        "commonhold-layout",
        &["--lib"],
        &["read_key::", "record::", "shown::tests::of_all", "spec::"],
    ),
    ("commonhold-sync", &["--test", "alone"], &[]),
];

/// The step of `cargo xtask test`.
pub(crate) fn step(report: &mut Report) {
    if let Err(why) = prepare() {
        return report.not_run(NAME, &format!("{why:#}"));
    }
    report.step(NAME, |counts| SELECTIONS.iter().try_for_each(|selection| test(selection, counts)));
}

fn prepare() -> Result<()> {
    let has = || machine::works(Command::new("cargo").args([TOOLCHAIN, "miri", "--version"]));
    if !has() {
        let component = ["component", "add", "miri", "rust-src", "--toolchain", "nightly"];
        // `has` checks again whether it worked.
        let _ = machine::works(Command::new("rustup").args(component));
    }
    ensure!(has(), "there is no Miri: rustup toolchain install nightly --component miri,rust-src");
    // Miri builds its standard library once, from sources that may be missing.
    let setup = machine::works(Command::new("cargo").args([TOOLCHAIN, "miri", "setup"]));
    ensure!(setup, "Miri cannot be set up: rustup component add rust-src --toolchain nightly");
    Ok(())
}

fn test(selection: &(&str, &[&str], &[&str]), counts: &mut Counts) -> Result<()> {
    let (package, tests, left_out) = selection;
    let target: &Path = &cargo::metadata(&["--no-deps"])?.target_directory.join("miri");
    let mut command = Command::new("cargo");
    command.args([TOOLCHAIN, "miri", "test", "-p", package]).args(*tests);
    command.arg("--target-dir").arg(target).arg("--").current_dir(cargo::root());
    for name in *left_out {
        command.args(["--skip", name]);
    }
    // Property tests need the current directory, and there is time for a few cases of each only. Weak memory is not
    // emulated, which is loom's part: Miri keeps no old values of a byte that lies in a word, and gives up on a test
    // that uses both. Tests leak the memory of windows.
    let flags = ["-Zmiri-disable-isolation", "-Zmiri-disable-weak-memory-emulation"];
    let flags = [&flags[..], &["-Zmiri-ignore-leaks"]].concat().join(" ");
    command.env("MIRIFLAGS", flags).env("PROPTEST_CASES", "4");
    // Variables that cargo has set for the toolchain that runs this program.
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("RUSTC");
    cargo::test(&mut command, counts)
}
