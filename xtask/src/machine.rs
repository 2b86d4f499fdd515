//! What this machine can run, and what can be installed if something is missing.

use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

use crate::{
    cargo::{cargo, must_succeed},
    report::{Report, say},
};

/// A program that some tests need, and the Debian package that contains it.
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
    // The package depends on a BIOS and boot ROMs, which are needed, too.
    Need { program: QEMU, package: "qemu-system-x86", what: "virtual machines" },
];

const COMPILER: &str = "g++";
const BOOST: [&str; 2] = ["g++", "libboost-dev"];

/// Installs what is missing, if that is permitted here, and reports what cannot be run.
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

/// Installs the compiler and headers for the locks of Boost in `commonhold bench locks`, if that is permitted here.
/// The benchmark itself reports what is missing.
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

/// Installs a program from this Debian package, unless it is already there.
///
/// # Errors
/// It is missing and cannot be installed.
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
    // In a new mount namespace, which vanishes with the command.
    let tmpfs = ["--mount", "mount", "-t", "tmpfs", "-o", "size=64k", "none", "/mnt"];
    if is_installed("mount") && !works(Command::new("unshare").args(tmpfs)) {
        report.not_run("tests on a small tmpfs", may);
    }
}

/// Whether cargo has a component (`fmt`, `clippy`). Tries to install it first.
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

/// Updates the package lists of `apt-get`, which only root may do.
fn apt_update() -> Result<()> {
    must_succeed(apt().arg("update"))
}

/// Whether QEMU is installed.
pub(crate) fn has_qemu() -> bool {
    is_installed(QEMU)
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.starts_with(b"0\n"))
}

/// Whether a program is installed.
pub(crate) fn is_installed(program: &str) -> bool {
    works(Command::new(program).arg("--version"))
}

/// Whether a command ends with status 0. Its output is discarded.
pub(crate) fn works(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
