//! What `cargo xtask vm image` and `cargo xtask ports` have made: programs, and for guests a kernel and a file system.

use std::{
    env,
    path::{Path, PathBuf},
};

use crate::vm::{Outcome, architecture::Architecture};

/// The environment variable with the directory that `cargo xtask vm image` fills.
pub const GUEST_IMAGE: &str = "COMMONHOLD_VM";
/// The same, of guests with arm64 processors.
pub const GUEST_IMAGE_ARM64: &str = "COMMONHOLD_VM_ARM64";
/// The same, of programs with the C library musl. There is no guest in it.
pub const GUEST_IMAGE_MUSL: &str = "COMMONHOLD_MUSL";

/// Where the parts are.
#[derive(Debug, Clone)]
pub struct GuestImage {
    parts: PathBuf,
    /// An actor that runs here, whatever the parts are for.
    helper: PathBuf,
    architecture: Architecture,
}

impl GuestImage {
    /// The image of guests like this machine.
    ///
    /// # Errors
    /// There is none: nothing can be tested then, and that must not pass for success.
    pub fn find() -> Outcome<Self> {
        let parts = directory(GUEST_IMAGE, "vm test")?;
        Ok(Self { helper: actor(&parts), parts, architecture: Architecture::X86 })
    }

    /// The image of arm64 guests.
    ///
    /// # Errors
    /// There is none, or no usual one.
    pub fn arm64() -> Outcome<Self> {
        let parts = directory(GUEST_IMAGE_ARM64, "ports")?;
        Ok(Self { parts, architecture: Architecture::Arm64, ..Self::find()? })
    }

    /// The programs with the other C library.
    ///
    /// # Errors
    /// There are none.
    pub fn musl() -> Outcome<Self> {
        let parts = directory(GUEST_IMAGE_MUSL, "ports")?;
        Ok(Self { helper: actor(&parts), parts, architecture: Architecture::X86 })
    }

    /// What its guests' processors are.
    pub(crate) const fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// The kernel of Linux guests.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.parts.join("kernel")
    }

    /// Their first file system.
    #[must_use]
    pub fn initramfs(&self) -> PathBuf {
        self.parts.join("initramfs")
    }

    /// The command line tool, as guests have it; it runs on the host as well, if that is of the same architecture.
    #[must_use]
    pub fn commonhold(&self) -> PathBuf {
        self.parts.join("bin/commonhold")
    }

    /// The actor, likewise.
    #[must_use]
    pub fn actor(&self) -> PathBuf {
        actor(&self.parts)
    }

    /// The actor that starts and cleans up for a test on this machine.
    pub(crate) fn helper(&self) -> &Path {
        &self.helper
    }

    /// The guest without an operating system.
    #[must_use]
    pub fn bare_metal(&self) -> PathBuf {
        self.parts.join("bin/bare-metal")
    }
}

fn actor(parts: &Path) -> PathBuf {
    parts.join("bin/guest-actor")
}

fn directory(variable: &str, command: &str) -> Outcome<PathBuf> {
    let found = env::var_os(variable).map(PathBuf::from);
    found.ok_or_else(|| format!("{variable} is not set: run `cargo xtask {command}`"))
}
