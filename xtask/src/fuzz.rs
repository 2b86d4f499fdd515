//! `cargo xtask fuzz`: the fuzzers, two at a time.
//!
//! There are two kinds (ADR 0028). Those in `fuzz/` run in one process and are guided by coverage: `cargo fuzz` builds
//! them, with AddressSanitizer, on the stable toolchain. The others are in `storm` of the testkit; they need
//! processes, file systems and failing system calls. What a run has learnt stays in `target/fuzz`. Inputs that once
//! found a bug are in `fuzz/corpus`, and run first each time.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    cargo::{self, cargo, must_succeed, root, rustflags_and},
    machine,
    report::{Report, say},
};

const MANIFEST: &str = "fuzz/Cargo.toml";
/// How many fuzzers run at the same time: as many as the smallest machine has processors.
const AT_ONCE: usize = 2;
/// How many seconds each fuzzer runs in `cargo xtask test`.
pub(crate) const SHORT: u32 = 60;
/// Exit status of `storm` if it cannot run on this machine.
const NOT_RUN: i32 = 77;

/// A fuzzer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fuzzer {
    /// A target of `fuzz/`, guided by coverage.
    Guided(&'static str),
    /// A kind of `storm`.
    Storm(&'static str),
}

/// All fuzzers, in the order in which they are started: one that computes together with one that mostly waits.
const FUZZERS: [Fuzzer; 8] = [
    Fuzzer::Guided("image"),
    Fuzzer::Storm("faults"),
    Fuzzer::Guided("decoders"),
    Fuzzer::Storm("stops"),
    Fuzzer::Storm("image"),
    Fuzzer::Storm("pages"),
    Fuzzer::Storm("scribble"),
    Fuzzer::Storm("command-line"),
];

impl Fuzzer {
    /// Whether an exit status says that this fuzzer cannot run here. libFuzzer ends with the same status if it has found
    /// something, so its targets always can.
    fn could_not_run(self, code: Option<i32>) -> bool {
        matches!(self, Self::Storm(_)) && code == Some(NOT_RUN)
    }

    fn name(self) -> String {
        match self {
            Self::Guided(target) => format!("fuzz {target}"),
            Self::Storm(kind) => format!("storm {kind}"),
        }
    }
}

/// The paths of the built fuzzers.
#[derive(Debug)]
struct Built {
    /// The guided targets, if they could be built.
    guided: Option<PathBuf>,
    storm: Option<PathBuf>,
    program: Option<PathBuf>,
    /// Corpora, artifacts and logs.
    target: PathBuf,
}

/// How a fuzzer ended.
enum Outcome {
    Done(Duration, Result<()>),
    NotRun(String),
}

/// `cargo xtask fuzz`: runs the named fuzzers, or all.
pub(crate) fn run(names: &[String], seconds: u32) -> Result<()> {
    let all: Vec<Fuzzer> = FUZZERS
        .into_iter()
        .filter(|fuzzer| names.is_empty() || names.iter().any(|name| *name == fuzzer.name()))
        .collect();
    ensure!(!all.is_empty(), "there are {}", FUZZERS.map(Fuzzer::name).join(", "));
    let program = cargo::release_program()?;
    let built = build(Some(&program))?;
    let mut failed = vec![];
    each(&built, &all, seconds, |name, outcome| match outcome {
        Outcome::Done(_, Ok(())) => {}
        Outcome::Done(_, Err(error)) => failed.push(format!("{name}: {error:#}")),
        Outcome::NotRun(why) => say(format_args!("not run: {name}, because {why}")),
    });
    if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("; ")) }
}

/// The steps of `cargo xtask test`.
pub(crate) fn steps(report: &mut Report, program: Option<&Path>) {
    let mut built = None;
    report.step("the fuzzers are built", |_| {
        built = Some(build(program)?);
        Ok(())
    });
    let Some(built) = built else { return };
    each(&built, &FUZZERS, SHORT, |name, outcome| match outcome {
        Outcome::Done(took, result) => report.done(name, took, result),
        Outcome::NotRun(why) => report.not_run(name, &why),
    });
}

/// `cargo fmt --check` for `fuzz/`.
pub(crate) fn check_format() -> Result<()> {
    cargo::run(&["fmt", "--manifest-path", MANIFEST, "--check"])
}

/// `cargo clippy` for `fuzz/`.
pub(crate) fn check_lints() -> Result<()> {
    let clippy = ["clippy", "--locked", "--all-targets", "--manifest-path", MANIFEST];
    let mut command = cargo(&clippy);
    command.arg("--target-dir").arg(target()?).args(["--", "-D", "warnings"]);
    must_succeed(&mut command)
}

fn target() -> Result<PathBuf> {
    Ok(cargo::metadata(&["--no-deps"])?.target_directory.join("fuzz"))
}

fn build(program: Option<&Path>) -> Result<Built> {
    let target = target()?;
    let guided = match tool() {
        Ok(tool) => Some(build_guided(&tool, &target)?),
        Err(error) => {
            say(format_args!("{error:#}"));
            None
        }
    };
    let storm = target.join("storm");
    let mut command = cargo(&["build", "-p", "commonhold-testkit", "--features", "fuzz"]);
    command.args(["--bin", "storm", "--bin", "crash-actor", "--target-dir"]).arg(&storm);
    // With this flag, waits for peers that never answer are shorter.
    must_succeed(command.env("RUSTFLAGS", rustflags_and("--cfg fuzzing")))?;
    let storm = Some(storm.join("debug/storm"));
    Ok(Built { guided, storm, program: program.map(Path::to_owned), target })
}

/// The path of `cargo-fuzz`, which is installed if it is missing.
fn tool() -> Result<PathBuf> {
    let tools = cargo::metadata(&["--no-deps"])?.target_directory.join("tools");
    let tool = tools.join("bin/cargo-fuzz");
    if machine::is_installed("cargo-fuzz") {
        return Ok("cargo-fuzz".into());
    }
    if !tool.is_file() {
        let mut install = cargo(&["install", "cargo-fuzz", "--locked", "--quiet", "--root"]);
        must_succeed(install.arg(&tools)).context("cargo-fuzz cannot be installed")?;
    }
    Ok(tool)
}

fn build_guided(tool: &Path, target: &Path) -> Result<PathBuf> {
    let mut command = Command::new(tool);
    command.args(["fuzz", "build", "--target-dir"]).arg(target).current_dir(root());
    // A stable compiler needs this for the sanitizer, and for nothing else here.
    must_succeed(command.env("RUSTC_BOOTSTRAP", "1"))?;
    let host = cargo::host()?;
    Ok(target.join(host).join("release"))
}

/// Runs fuzzers, [`AT_ONCE`] at a time. Calls `tell` for each one as it ends.
fn each(built: &Built, fuzzers: &[Fuzzer], seconds: u32, mut tell: impl FnMut(&str, Outcome)) {
    let left = Mutex::new(fuzzers.iter());
    let (sender, ended) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            let (left, sender) = (&left, sender.clone());
            scope.spawn(move || {
                let next = || left.lock().ok()?.next();
                while let Some(fuzzer) = next() {
                    if sender.send((fuzzer.name(), one(built, *fuzzer, seconds))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for (name, outcome) in ended {
            tell(&name, outcome);
        }
    });
}

fn one(built: &Built, fuzzer: Fuzzer, seconds: u32) -> Outcome {
    let begun = Instant::now();
    match attempt(built, fuzzer, seconds) {
        Ok(Some(why)) => Outcome::NotRun(why),
        Ok(None) => Outcome::Done(begun.elapsed(), Ok(())),
        Err(error) => Outcome::Done(begun.elapsed(), Err(error)),
    }
}

/// Runs one fuzzer. Returns the reason if it could not run here.
fn attempt(built: &Built, fuzzer: Fuzzer, seconds: u32) -> Result<Option<String>> {
    let (mut command, log) = match fuzzer {
        Fuzzer::Guided(target) => {
            let Some(programs) = &built.guided else {
                return Ok(Some("there is no cargo-fuzz: cargo install cargo-fuzz".to_owned()));
            };
            (guided(built, programs, target, seconds)?, format!("fuzz-{target}.log"))
        }
        Fuzzer::Storm(kind) => {
            let (Some(storm), Some(program)) = (&built.storm, &built.program) else {
                return Ok(Some("there is no release program".to_owned()));
            };
            let mut command = Command::new(storm);
            command.args([kind, "--seconds", &seconds.to_string(), "--program"]).arg(program);
            (command, format!("storm-{kind}.log"))
        }
    };
    let log = built.target.join(log);
    let file = fs::File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
    let again = file.try_clone().context("cannot share a log")?;
    let status = command.stdin(Stdio::null()).stdout(file).stderr(again).status();
    let status = status.with_context(|| format!("cannot run {command:?}"))?;
    let text = String::from_utf8_lossy(&fs::read(&log).context("cannot read a log")?).into_owned();
    say(format_args!("\n=== {}\n{}", fuzzer.name(), summary(&text, status.success())));
    if fuzzer.could_not_run(status.code()) {
        return Ok(Some(text.trim_end().to_owned()));
    }
    ensure!(status.success(), "{status}; all of it is in {}", log.display());
    Ok(None)
}

fn guided(built: &Built, programs: &Path, target: &str, seconds: u32) -> Result<Command> {
    let learnt = built.target.join("corpus").join(target);
    let artifacts = built.target.join("artifacts").join(target);
    for folder in [&learnt, &artifacts] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut command = Command::new(programs.join(target));
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    // An input that runs for 30 seconds hangs, even on a busy machine.
    command.args(["-timeout=30", "-max_len=4096", "-print_final_stats=1"]);
    command.arg(learnt);
    let found = root().join("fuzz/corpus").join(target);
    if found.is_dir() {
        command.arg(found);
    }
    Ok(command)
}

/// The end of a log; more lines if the fuzzer has found something.
fn summary(text: &str, passed: bool) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let last = if passed { 40 } else { 120 };
    let mut shown: Vec<&str> =
        text.lines().filter(|line| line.starts_with('#') && line.contains("DONE")).collect();
    shown.extend(lines.get(lines.len().saturating_sub(last)..).unwrap_or(&[]));
    shown.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A crash that libFuzzer found was once reported as a fuzzer that could not be run.
    #[test]
    fn a_finding_of_libfuzzer_is_a_failure_and_not_a_fuzzer_that_cannot_run() {
        assert!(!Fuzzer::Guided("image").could_not_run(Some(77)));
        assert!(Fuzzer::Storm("pages").could_not_run(Some(77)));
        assert!(!Fuzzer::Storm("pages").could_not_run(Some(1)));
    }
}
