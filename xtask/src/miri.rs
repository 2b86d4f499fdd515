//! Miri over those tests of the core that it can go through in two minutes: what is undefined in them, it reports.
//!
//! It comes with a nightly compiler only. Where that cannot be had, the step says so, and fails nothing.

use std::{path::Path, process::Command};

use anyhow::{Result, ensure};

use crate::{
    cargo, machine,
    report::{Counts, Report},
};

const NAME: &str = "cargo miri test";
const TOOLCHAIN: &str = "+nightly";

/// A package, which of its tests, and those left out since they take Miri minutes.
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
        // Whether it worked is asked again.
        let _ = machine::works(Command::new("rustup").args(component));
    }
    ensure!(has(), "there is no Miri: rustup toolchain install nightly --component miri,rust-src");
    // Its standard library, which it builds once, from sources that may be missing.
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
    // Property tests ask for the current directory; a few cases of each are what there is time for. Old values are not
    // tried, which is loom's part: Miri keeps none of a byte that lies in a word, and gives up on both in one test.
    // Tests give windows memory that they never give back.
    let flags = ["-Zmiri-disable-isolation", "-Zmiri-disable-weak-memory-emulation"];
    let flags = [&flags[..], &["-Zmiri-ignore-leaks"]].concat().join(" ");
    command.env("MIRIFLAGS", flags).env("PROPTEST_CASES", "4");
    // What cargo has set for the toolchain that runs this.
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("RUSTC");
    cargo::test(&mut command, counts)
}
