//! `cargo xtask ports`: other targets than this machine's own, built and tested as far as that goes here.
//!
//! # What it owns
//! Kits as those of `vm.rs`: `target/musl`, programs with the C library musl, and `target/vm-arm64`, all that
//! guests with arm64 processors need.
//!
//! # Invariants
//! 1. A target that cannot be built here is named, with the reason; that fails nothing.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::{
    cargo::{self, cargo},
    length::Length,
    machine,
    report::{Counts, Report},
    target::{ARM64, MUSL, Target, X86_32},
    vm::{self, image, parts},
};

/// How the tests find what is made here; `testkit::vm` knows the same names.
const KIT_MUSL: &str = "COMMONHOLD_MUSL";
const KIT_ARM64: &str = "COMMONHOLD_VM_ARM64";

/// What runs the programs of musl; the agents of guests are not needed.
const PROGRAMS: [&str; 2] = ["commonhold", "guest-actor"];
/// The packages whose tests depend on the C library.
const PACKAGES: [&str; 10] = [
    "-p",
    "commonhold-host",
    "-p",
    "commonhold-uffd",
    "-p",
    "commonhold",
    "-p",
    "commonhold-cli",
    "-p",
    "commonhold-bench",
];

/// What can be tested of other targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// That 32 bits are refused, and how.
    Bits32,
    /// The C library musl, by itself and beside glibc.
    Musl,
    /// Guests with arm64 processors.
    Arm64,
}

/// The steps of `cargo xtask test`.
pub(crate) fn steps(report: &mut Report, length: Length) {
    for part in Part::value_variants() {
        part.steps(report, length);
    }
}

impl Part {
    /// Its steps.
    pub(crate) fn steps(self, report: &mut Report, length: Length) {
        match self {
            Self::Bits32 => with(report, "32 bits", X86_32, |report| {
                report.step("32 bits are refused", |_| refuses_32_bits());
            }),
            Self::Musl => with(report, "tests with musl", MUSL, |report| musl(report, length)),
            Self::Arm64 if length == Length::Quick => {
                report.not_run("arm64 guests", "of --quick");
            }
            Self::Arm64 => with(report, "arm64 guests", ARM64, |report| {
                report.step("cargo test (arm64 guests)", |counts| {
                    machine::get("qemu-system-aarch64", "qemu-system-arm")?;
                    let kits = [(vm::KIT, vm::directory()?), (KIT_ARM64, arm64_kit()?)];
                    test("arm64::", &kits, counts)
                });
            }),
        }
    }
}

fn musl(report: &mut Report, length: Length) {
    report.step("cargo test (musl)", |counts| {
        let mut command = MUSL.cargo(&["test", "--no-fail-fast"]);
        cargo::test(command.args(PACKAGES), counts)
    });
    if length == Length::Quick {
        return report.not_run("musl beside glibc", "of --quick");
    }
    report.step("cargo test (musl beside glibc)", |counts| {
        let kits = [(vm::KIT, vm::directory()?), (KIT_MUSL, musl_kit()?)];
        test("musl::", &kits, counts)
    });
}

/// Runs `steps` if the target can be built for here, and says why not otherwise.
fn with(report: &mut Report, what: &str, target: Target, steps: impl FnOnce(&mut Report)) {
    match target.prepare() {
        Ok(()) => steps(report),
        Err(why) => report.not_run(what, &format!("of {}: {why:#}", target.triple)),
    }
}

fn kit(name: &str) -> Result<PathBuf> {
    Ok(cargo::metadata(&["--no-deps"])?.target_directory.join(name))
}

fn musl_kit() -> Result<PathBuf> {
    let kit = kit("musl")?;
    let mut command = MUSL.cargo(&["build"]);
    command.args(["-p", "commonhold-cli", "-p", "commonhold-testkit"]);
    command.args(["--features", "commonhold-testkit/vm"]);
    for program in PROGRAMS {
        command.args(["--bin", program]);
    }
    cargo::must_succeed(&mut command)?;
    let built = cargo::metadata(&["--no-deps"])?.target_directory.join(MUSL.triple).join("debug");
    fs::create_dir_all(kit.join("bin"))?;
    for program in PROGRAMS {
        image::copy(&built.join(program), &kit.join("bin").join(program))?;
    }
    Ok(kit)
}

fn arm64_kit() -> Result<PathBuf> {
    let kit = kit("vm-arm64")?;
    let parts = parts::fetch(&kit.join("debian"), ARM64)?;
    image::make(&kit, &parts, ARM64)?;
    Ok(kit)
}

/// Runs the tests of `testkit/tests/ports` whose names begin so, one after the other.
fn test(names: &str, kits: &[(&str, PathBuf)], counts: &mut Counts) -> Result<()> {
    for (_, kit) in kits {
        ensure!(kit.join("bin").is_dir(), "there is no {}: cargo xtask vm image", kit.display());
    }
    let mut command = cargo(&["test", "-p", "commonhold-testkit", "--features", "vm"]);
    command.args(["--test", "ports", "--", "--test-threads=1", names]);
    cargo::test(command.envs(kits.iter().map(|(name, kit)| (*name, kit))), counts)
}

/// Nothing of the workspace must compile there, and the only error must say why.
fn refuses_32_bits() -> Result<()> {
    const WHY: &str = "Commonhold needs a 64-bit machine";
    let output = X86_32
        .cargo(&["check", "--quiet", "-p", "commonhold-cli"])
        .output()
        .context("cannot run cargo")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error")).collect();
    ensure!(!output.status.success(), "it compiles");
    ensure!(errors.first().is_some_and(|error| error.contains(WHY)), "it says: {said}");
    Ok(())
}
