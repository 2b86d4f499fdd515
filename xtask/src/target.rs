//! Targets other than this machine's own: what it takes to build for them, and getting it.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    cargo::{self, cargo, rustflags_and},
    machine,
};

/// A target of the compiler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) triple: &'static str,
    /// The compiler of C for it, which dependencies have some of; and the Debian package.
    compiler: Option<[&'static str; 2]>,
    /// Whether that links as well. Rust brings along all that programs with musl are linked from; by `musl-gcc` they would
    /// start with a mixture of both, and crash.
    links: bool,
}

/// That of usual machines, and of their guests.
pub(crate) const X86: Target =
    Target { triple: "x86_64-unknown-linux-gnu", compiler: None, links: false };
/// The same with the C library musl.
pub(crate) const MUSL: Target = Target {
    triple: "x86_64-unknown-linux-musl",
    compiler: Some(["musl-gcc", "musl-tools"]),
    links: false,
};
/// 64-bit Arm.
pub(crate) const ARM64: Target = Target {
    triple: "aarch64-unknown-linux-gnu",
    compiler: Some(["aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"]),
    links: true,
};
/// 32 bits, for which nothing is ever linked.
pub(crate) const X86_32: Target =
    Target { triple: "i686-unknown-linux-gnu", compiler: None, links: false };

impl Target {
    /// Gets what building for it takes, where that is missing and may be installed.
    ///
    /// # Errors
    /// Something is still missing: says what, and how to get it.
    pub(crate) fn prepare(self) -> Result<()> {
        let triple = self.triple;
        if !self.has_library()? {
            let add = ["target", "add", triple];
            // Whether it worked is asked of the compiler.
            let _ = Command::new("rustup").args(add).current_dir(cargo::root()).status();
            ensure!(
                self.has_library()?,
                "there is no standard library for it: rustup target add {triple}"
            );
        }
        match self.compiler {
            Some([compiler, package]) => machine::get(compiler, package),
            None => Ok(()),
        }
    }

    fn has_library(self) -> Result<bool> {
        let output = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
            .args(["--print", "target-libdir", "--target", self.triple])
            .current_dir(cargo::root())
            .output()
            .context("cannot run rustc")?;
        Ok(Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir())
    }

    /// A cargo that builds for it. `arguments` begin with what it is to do.
    pub(crate) fn cargo(self, arguments: &[&str]) -> Command {
        let mut command = cargo(arguments);
        if let Some([compiler, _]) = self.compiler {
            let name = self.triple.replace('-', "_");
            command.env(format!("CC_{name}"), compiler);
            if self.links {
                command.env(format!("CARGO_TARGET_{}_LINKER", name.to_uppercase()), compiler);
            }
        }
        command.args(["--target", self.triple]);
        command
    }

    /// Builds programs of the workspace that guests can run: static, and small. Says where they are.
    pub(crate) fn build_for_guests(self, programs: &[&str]) -> Result<PathBuf> {
        // A target directory of its own: the flags are for guests only.
        let target = cargo::metadata(&["--no-deps"])?.target_directory.join("guest");
        let mut command = self.cargo(&["build", "--profile", "guest"]);
        command.args(["-p", "commonhold-cli", "-p", "commonhold-testkit"]);
        command.args(["--features", "commonhold-testkit/vm"]);
        for program in programs {
            command.args(["--bin", program]);
        }
        command
            .env("RUSTFLAGS", rustflags_and("-C target-feature=+crt-static"))
            .env("CARGO_TARGET_DIR", &target);
        cargo::must_succeed(&mut command)?;
        Ok(target.join(self.triple).join("guest"))
    }

    /// The architecture, as Debian calls it.
    pub(crate) fn debian(self) -> Result<&'static str> {
        match self {
            X86 => Ok("amd64"),
            ARM64 => Ok("arm64"),
            Target { triple, .. } => bail!("no guest is a {triple}"),
        }
    }
}
