//! `cargo xtask test`: every step in order; `cargo xtask lint`: the first of them.

use std::{path::Path, process::ExitCode};

use anyhow::Result;

use crate::{
    acceptance::{self, Torture},
    bare_metal,
    cargo::{self, cargo, rustflags_and},
    fuzz,
    length::Length,
    licences, machine, miri, points, ports,
    report::{Counts, Report},
    vm,
};

const DEMO_SECONDS: u32 = 15;

const TORTURES: [Torture; 3] = [
    Torture {
        peers: 8,
        seconds: 20,
        kill_every: "50ms",
        stop_every: None,
        kills_above: Some(200),
        stops_above: None,
        operations_above: None,
    },
    Torture {
        peers: 32,
        seconds: 20,
        kill_every: "0",
        stop_every: None,
        kills_above: None,
        stops_above: None,
        operations_above: Some(10_000),
    },
    Torture {
        peers: 8,
        seconds: 15,
        kill_every: "100ms",
        stop_every: Some("50ms"),
        kills_above: Some(80),
        stops_above: Some(60),
        operations_above: None,
    },
];

/// Runs all steps; they go on after a failure.
pub(crate) fn run(length: Length) -> ExitCode {
    let mut report = Report::default();
    machine::prepare(&mut report);
    lints(&mut report);
    let program = release(&mut report);
    tests(&mut report);
    bare_metal::steps(&mut report);
    match length {
        Length::Full => vm::steps(&mut report),
        Length::Quick => report.not_run("virtual machines", "of --quick"),
    }
    ports::steps(&mut report, length);
    match length {
        Length::Full => miri::step(&mut report),
        Length::Quick => report.not_run("cargo miri test", "of --quick"),
    }
    long_runs(&mut report, program.as_deref(), length);
    match length {
        Length::Full => fuzz::steps(&mut report, program.as_deref()),
        Length::Quick => report.not_run("the fuzzers", "of --quick"),
    }
    report.end()
}

/// Runs the steps that need no built program.
pub(crate) fn lint() -> ExitCode {
    let mut report = Report::default();
    lints(&mut report);
    report.end()
}

/// Runs the steps of these other targets, or of all if none is named.
pub(crate) fn ports(parts: &[ports::Part]) -> ExitCode {
    let mut report = Report::default();
    match vm::guest_image() {
        Ok(_) if parts.is_empty() => ports::steps(&mut report, Length::Full),
        Ok(_) => parts.iter().for_each(|part| part.steps(&mut report, Length::Full)),
        Err(why) => report.not_run("other targets", &format!("{why:#}")),
    }
    report.end()
}

fn lints(report: &mut Report) {
    if machine::has_component("fmt", "rustfmt") {
        report.step("cargo fmt --check", |_| {
            cargo::run(&["fmt", "--all", "--check"])?;
            bare_metal::check_format()?;
            fuzz::check_format()
        });
    } else {
        report.not_run("cargo fmt", "this toolchain has no rustfmt: rustup component add rustfmt");
    }
    if machine::has_component("clippy", "clippy") {
        report.step("cargo clippy", |_| {
            let features =
                "commonhold-testkit/vm,commonhold-testkit/crash-points,commonhold-testkit/fuzz";
            let all = ["clippy", "--workspace", "--all-targets", "--features", features];
            cargo::run(&[&all[..], &["--", "-D", "warnings"]].concat())?;
            bare_metal::check_lints()?;
            fuzz::check_lints()
        });
    } else {
        report.not_run("cargo clippy", "this toolchain has no clippy: rustup component add clippy");
    }
    report.step("licences of the dependencies", |_| licences::check());
}

/// Builds the release program; `None` if that fails.
fn release(report: &mut Report) -> Option<Box<Path>> {
    let mut program = None;
    report.step("cargo build --release", |_| {
        program = Some(cargo::release_program()?.into_boxed_path());
        Ok(())
    });
    match &program {
        Some(path) => {
            report.step("no crash point in the release programs", |_| {
                points::check_absent(path)?;
                points::check_absent(&cargo::bench_of(path))
            });
        }
        None => report.not_run("the search for crash points", "there is no release program"),
    }
    program
}

fn tests(report: &mut Report) {
    report.step("cargo test (loom: lock algorithms)", |counts| {
        checked("loom", &["-p", "commonhold-sync", "--test", "loom"], counts)
    });
    report.step("cargo test (shuttle: memory manager)", |counts| {
        checked("shuttle", &["-p", "commonhold-mm", "--test", "shuttle"], counts)
    });
    report.step("cargo test (workspace)", |counts| {
        cargo::test(&mut cargo(&["test", "--workspace", "--no-fail-fast"]), counts)
    });
    report.step("the tour of the memory manager", |_| {
        cargo::run(&["run", "--quiet", "--example", "address_spaces"])
    });
    report.step("cargo test (crash points)", |counts| {
        let features =
            ["--features", "crash-points", "--test", "crash_points", "--test", "stopped"];
        cargo::test(cargo(&["test", "-p", "commonhold-testkit"]).args(features), counts)
    });
}

/// Runs tests whose threads `checker` schedules. They have their own target directory: otherwise the different `--cfg`
/// would make cargo build everything again each time.
fn checked(checker: &str, tests: &[&str], counts: &mut Counts) -> Result<()> {
    let target = cargo::metadata(&["--no-deps"])?.target_directory.join(checker);
    let mut command = cargo(&["test", "--release"]);
    command.args(tests).env("CARGO_TARGET_DIR", target);
    command.env("RUSTFLAGS", rustflags_and(&format!("--cfg {checker}")));
    cargo::test(&mut command, counts)
}

fn long_runs(report: &mut Report, program: Option<&Path>, length: Length) {
    let demo = format!("demo --seconds {DEMO_SECONDS}");
    let program = match (program, length) {
        (Some(program), Length::Full) => program,
        (missing, _) => {
            let why = if missing.is_none() { "there is no release program" } else { "of --quick" };
            report.not_run(&demo, why);
            for torture in &TORTURES {
                report.not_run(&torture.name(), why);
            }
            return;
        }
    };
    report.step(&demo, |_| acceptance::demo(program, DEMO_SECONDS));
    for torture in &TORTURES {
        report.step(&torture.name(), |_| torture.run(program));
    }
}
