//! What this machine can do, and what can be installed where something is missing.

use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

use crate::{
    cargo::{cargo, must_succeed},
    report::{Report, say},
};

/// A program that some tests run, and the Debian package that has it.
struct Need {
    program: &'static str,
    package: &'static str,
    what: &'static str,
}

const QEMU: &str = "qemu-system-x86_64";

const NEEDS: [Need; 5] = [
    Need { program: "unshare", package: "util-linux", what: "tests in PID namespaces" },
    Need { program: "mount", package: "mount", what: "tests on a small tmpfs" },
    Need { program: "python3", package: "python3-minimal", what: "the test of another language" },
    Need { program: "strace", package: "strace", what: "system calls that fail" },
    // With what it cannot be without: a BIOS, and boot ROMs.
    Need { program: QEMU, package: "qemu-system-x86", what: "virtual machines" },
];

const COMPILER: &str = "g++";
const BOOST: [&str; 2] = ["g++", "libboost-dev"];

/// Installs what is missing, if that is allowed here, and reports what cannot be run.
pub(crate) fn prepare(report: &mut Report) {
    let missing: Vec<&Need> = NEEDS.iter().filter(|need| !is_installed(need.program)).collect();
    if !missing.is_empty() && is_root() && is_installed("apt-get") {
        install(&missing.iter().map(|need| need.package).collect::<Vec<_>>());
    }
    for need in missing.iter().filter(|need| !is_installed(need.program)) {
        let Need { program, package, what } = need;
        report.not_run(what, &format!("there is no {program}: install {package}"));
    }
    if is_installed("unshare") {
        probe_namespaces(report);
    }
}

/// Installs what `commonhold bench locks` compiles the locks of Boost with, if that is allowed here. The
/// benchmark says itself what it does without.
pub(crate) fn prepare_bench() {
    if !has_boost() && is_root() && is_installed("apt-get") {
        install(&BOOST);
    }
}

/// Whether the compiler finds the headers of Boost.
fn has_boost() -> bool {
    let header = ["-x", "c++", "-fsyntax-only", "-include", "boost/version.hpp", "/dev/null"];
    works(Command::new(COMPILER).args(header))
}

/// Sees to it that there is such a program, from this Debian package.
///
/// # Errors
/// There is none, and it cannot be installed.
pub(crate) fn get(program: &str, package: &str) -> Result<()> {
    if !is_installed(program) && is_root() && is_installed("apt-get") {
        install(&[package]);
    }
    ensure!(is_installed(program), "there is no {program}: install {package}");
    Ok(())
}

fn probe_namespaces(report: &mut Report) {
    let may = "that is not permitted here: run as root, in a container with --privileged";
    if !works(Command::new("unshare").args(["--pid", "--fork", "true"])) {
        report.not_run("tests in PID namespaces", may);
    }
    // In a mount namespace of its own, so it is gone with the command.
    let tmpfs = ["--mount", "mount", "-t", "tmpfs", "-o", "size=64k", "none", "/mnt"];
    if is_installed("mount") && !works(Command::new("unshare").args(tmpfs)) {
        report.not_run("tests on a small tmpfs", may);
    }
}

/// Whether cargo has a component (`fmt`, `clippy`), after trying to get it.
pub(crate) fn has_component(subcommand: &str, component: &str) -> bool {
    let has = || works(&mut cargo(&[subcommand, "--version"]));
    has() || (works(Command::new("rustup").args(["component", "add", component])) && has())
}

fn install(packages: &[&str]) {
    say(format_args!("\n=== installing {}", packages.join(", ")));
    let done = apt_update().and_then(|()| {
        must_succeed(apt().args(["install", "-y", "--no-install-recommends"]).args(packages))
    });
    if let Err(error) = done {
        say(format_args!("apt-get: {error:#}; going on without"));
    }
}

fn apt() -> Command {
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).arg("-q");
    apt
}

/// Has `apt-get` look for what there is now, which only root may.
fn apt_update() -> Result<()> {
    must_succeed(apt().arg("update"))
}

/// Whether virtual machines can be started.
pub(crate) fn has_qemu() -> bool {
    is_installed(QEMU)
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.starts_with(b"0\n"))
}

/// Whether there is such a program.
pub(crate) fn is_installed(program: &str) -> bool {
    works(Command::new(program).arg("--version"))
}

/// Whether a command ends with 0; what it prints is nobody's.
pub(crate) fn works(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
