//! Runs cargo. Its output is passed through, and the results of tests in it are counted.

use std::{
    env,
    ffi::OsString,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::report::{Counts, say};

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// A command that runs the current cargo at the root.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

/// Runs cargo.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    must_succeed(&mut cargo(arguments))
}

/// Runs a command, which must end with status 0.
pub(crate) fn must_succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{status}");
    Ok(())
}

/// Runs a `cargo test` and adds its tests to `counts`. If no test ran, this fails: then the name of a package, a
/// feature or a test is wrong.
pub(crate) fn test(command: &mut Command, counts: &mut Counts) -> Result<()> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {command:?}"))?;
    if let Some(output) = child.stdout.take() {
        // Read as bytes: the output of a test need not be text.
        for line in BufReader::new(output).split(b'\n') {
            let line = line.context("cannot read what cargo prints")?;
            let line = String::from_utf8_lossy(&line);
            say(format_args!("{line}"));
            counts.add(result_line(&line).unwrap_or_default());
        }
    }
    let status = child.wait().context("cannot wait for cargo")?;
    match counts.failed {
        0 => ensure!(status.success(), "{status}"),
        failed => bail!("{failed} tests failed"),
    }
    ensure!(counts.passed > 0, "no test was run");
    Ok(())
}

/// The counts in a line like `test result: ok. 5 passed; 0 failed; 1 ignored; ...`.
fn result_line(line: &str) -> Option<Counts> {
    let (_, rest) = line.split_once("test result: ")?;
    let mut counts = Counts::default();
    for part in rest.split([';', '.']) {
        let mut words = part.split_whitespace();
        let (Some(number), Some(what)) = (words.next(), words.next()) else { continue };
        let Ok(number) = number.parse() else { continue };
        match what {
            "passed" => counts.passed = number,
            "failed" => counts.failed = number,
            "ignored" => counts.skipped = number,
            _ => {}
        }
    }
    Some(counts)
}

/// The current `RUSTFLAGS`, followed by `more`.
pub(crate) fn rustflags_and(more: &str) -> OsString {
    let mut flags = env::var_os("RUSTFLAGS").unwrap_or_default();
    flags.push(" ");
    flags.push(more);
    flags
}

/// The output of `cargo metadata`, as far as it is needed here.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    pub(crate) target_directory: PathBuf,
}

/// One package.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) license: Option<String>,
}

/// Runs `cargo metadata`.
pub(crate) fn metadata(arguments: &[&str]) -> Result<Metadata> {
    let output = cargo(&["metadata", "--format-version", "1"])
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", output.status);
    serde_json::from_slice(&output.stdout).context("cannot read what cargo metadata prints")
}

/// The default target of this toolchain.
pub(crate) fn host() -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("-vV").output().context("cannot run rustc")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc does not say what machine it builds for")
}

/// The program for `bench` and `torture`. The command line tool looks for it in its own folder.
const BENCH: &str = "commonhold-bench";

/// Builds the command line tool and the program for `bench` and `torture`, for release. Returns the path of the tool.
pub(crate) fn release_program() -> Result<PathBuf> {
    run(&["build", "--release"])?;
    let program = metadata(&["--no-deps"])?.target_directory.join("release/commonhold");
    for built in [&program, &bench_of(&program)] {
        ensure!(built.is_file(), "the build made no {}", built.display());
    }
    Ok(program)
}

/// The path of the program for `bench` and `torture` that belongs to this tool.
pub(crate) fn bench_of(program: &Path) -> PathBuf {
    program.with_file_name(BENCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_line_is_counted_and_other_lines_are_not() {
        let line = "test result: FAILED. 23 passed; 2 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.03s";
        assert_eq!(result_line(line), Some(Counts { passed: 23, failed: 2, skipped: 1 }));
        assert_eq!(result_line("test peer::tests::a_name ... ok"), None);
        assert_eq!(result_line("test result: "), Some(Counts::default()));
    }
}
