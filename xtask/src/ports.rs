//! `cargo xtask ports`: builds and tests for other targets, as far as that is possible here.
//!
//! # What it owns
//! More images like that of `vm.rs`: `target/musl`, programs with the C library musl, and `target/vm-arm64`,
//! everything that guests with arm64 processors need.
//!
//! # Invariants
//! 1. A target that cannot be built here is reported with the reason, which is not a failure.

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

/// Variables by which the tests find what is built here; `testkit::vm` has the same names.
const GUEST_IMAGE_MUSL: &str = "COMMONHOLD_MUSL";
const GUEST_IMAGE_ARM64: &str = "COMMONHOLD_VM_ARM64";

/// The programs that are built with musl; the agent of guests is not needed.
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

/// The targets that can be tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// 32 bits: the build is refused, with a good message.
    Bits32,
    /// The C library musl, by itself and together with glibc.
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
    /// Runs the steps of this target.
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
                    let guest_images =
                        [(vm::GUEST_IMAGE, vm::directory()?), (GUEST_IMAGE_ARM64, arm64_image()?)];
                    test("arm64::", &guest_images, counts)
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
        let guest_images =
            [(vm::GUEST_IMAGE, vm::directory()?), (GUEST_IMAGE_MUSL, musl_programs()?)];
        test("musl::", &guest_images, counts)
    });
}

/// Runs `steps` if this machine can build for the target; otherwise reports why not.
fn with(report: &mut Report, what: &str, target: Target, steps: impl FnOnce(&mut Report)) {
    match target.prepare() {
        Ok(()) => steps(report),
        Err(why) => report.not_run(what, &format!("of {}: {why:#}", target.triple)),
    }
}

fn guest_image(name: &str) -> Result<PathBuf> {
    Ok(cargo::metadata(&["--no-deps"])?.target_directory.join(name))
}

fn musl_programs() -> Result<PathBuf> {
    let guest_image = guest_image("musl")?;
    let mut command = MUSL.cargo(&["build"]);
    command.args(["-p", "commonhold-cli", "-p", "commonhold-testkit"]);
    command.args(["--features", "commonhold-testkit/vm"]);
    for program in PROGRAMS {
        command.args(["--bin", program]);
    }
    cargo::must_succeed(&mut command)?;
    let built = cargo::metadata(&["--no-deps"])?.target_directory.join(MUSL.triple).join("debug");
    fs::create_dir_all(guest_image.join("bin"))?;
    for program in PROGRAMS {
        image::copy(&built.join(program), &guest_image.join("bin").join(program))?;
    }
    Ok(guest_image)
}

fn arm64_image() -> Result<PathBuf> {
    let guest_image = guest_image("vm-arm64")?;
    let parts = parts::fetch(&guest_image.join("debian"), ARM64)?;
    image::make(&guest_image, &parts, ARM64)?;
    Ok(guest_image)
}

/// Runs the tests of `testkit/tests/ports` whose names begin with `names`, one after the other.
fn test(names: &str, guest_images: &[(&str, PathBuf)], counts: &mut Counts) -> Result<()> {
    for (_, guest_image) in guest_images {
        ensure!(
            guest_image.join("bin").is_dir(),
            "there is no {}: cargo xtask vm image",
            guest_image.display()
        );
    }
    let mut command = cargo(&["test", "-p", "commonhold-testkit", "--features", "vm"]);
    command.args(["--test", "ports", "--", "--test-threads=1", names]);
    cargo::test(
        command.envs(guest_images.iter().map(|(name, guest_image)| (*name, guest_image))),
        counts,
    )
}

/// Checks that the workspace does not compile for 32 bits, and that the only error says why.
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
