//! The targets, and how to install what building for them needs.

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
    /// The C compiler for it, which some dependencies need, and its Debian package.
    compiler: Option<[&'static str; 2]>,
    /// Whether that compiler also links. Rust has everything for linking programs with musl itself; linked by
    /// `musl-gcc` they would contain start-up code of both, and crash.
    links: bool,
}

/// The target of ordinary machines and their guests.
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
/// A 32-bit target, for which nothing is ever linked.
pub(crate) const X86_32: Target =
    Target { triple: "i686-unknown-linux-gnu", compiler: None, links: false };

impl Target {
    /// Installs what building for it needs, if it is missing and may be installed.
    ///
    /// # Errors
    /// Something is still missing; the message says what, and how to get it.
    pub(crate) fn prepare(self) -> Result<()> {
        let triple = self.triple;
        if !self.has_library()? {
            let add = ["target", "add", triple];
            // The compiler is asked below whether it worked.
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

    /// A cargo command that builds for it. `arguments` begin with the subcommand.
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

    /// Builds programs of the workspace that guests can run: static, and small. Returns their folder.
    pub(crate) fn build_for_guests(self, programs: &[&str]) -> Result<PathBuf> {
        // A separate target directory: these flags are for guests only.
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

    /// Debian's name of the architecture.
    pub(crate) fn debian(self) -> Result<&'static str> {
        match self {
            X86 => Ok("amd64"),
            ARM64 => Ok("arm64"),
            Target { triple, .. } => bail!("no guest is a {triple}"),
        }
    }
}
