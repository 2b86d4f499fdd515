//! What `cargo xtask vm image` and `cargo xtask ports` make: programs, and for guests a kernel and a file system.

use std::{
    env,
    path::{Path, PathBuf},
};

use crate::vm::{Outcome, architecture::Architecture};

/// Variable with the directory that `cargo xtask vm image` fills.
pub const GUEST_IMAGE: &str = "COMMONHOLD_VM";
/// The same for guests with arm64 processors.
pub const GUEST_IMAGE_ARM64: &str = "COMMONHOLD_VM_ARM64";
/// The same for programs with the C library musl. It contains no guest.
pub const GUEST_IMAGE_MUSL: &str = "COMMONHOLD_MUSL";

/// The directory with the parts of an image.
#[derive(Debug, Clone)]
pub struct GuestImage {
    parts: PathBuf,
    /// The program `guest-actor` for this machine, whatever architecture the parts are for.
    helper: PathBuf,
    architecture: Architecture,
}

impl GuestImage {
    /// The image of guests with the architecture of this machine.
    ///
    /// # Errors
    /// There is none. Then nothing can be tested, which must not count as success.
    pub fn find() -> Outcome<Self> {
        let parts = directory(GUEST_IMAGE, "vm test")?;
        Ok(Self { helper: actor(&parts), parts, architecture: Architecture::X86 })
    }

    /// The image of arm64 guests.
    ///
    /// # Errors
    /// There is none, or none for this machine.
    pub fn arm64() -> Outcome<Self> {
        let parts = directory(GUEST_IMAGE_ARM64, "ports")?;
        Ok(Self { parts, architecture: Architecture::Arm64, ..Self::find()? })
    }

    /// The programs with the C library musl.
    ///
    /// # Errors
    /// There are none.
    pub fn musl() -> Outcome<Self> {
        let parts = directory(GUEST_IMAGE_MUSL, "ports")?;
        Ok(Self { helper: actor(&parts), parts, architecture: Architecture::X86 })
    }

    /// The architecture of its guests.
    pub(crate) const fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// The kernel of Linux guests.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.parts.join("kernel")
    }

    /// The first file system of Linux guests.
    #[must_use]
    pub fn initramfs(&self) -> PathBuf {
        self.parts.join("initramfs")
    }

    /// The command line tool for guests. It also runs on the host, if the host has the same architecture.
    #[must_use]
    pub fn commonhold(&self) -> PathBuf {
        self.parts.join("bin/commonhold")
    }

    /// The program of the scripted processes, likewise.
    #[must_use]
    pub fn actor(&self) -> PathBuf {
        actor(&self.parts)
    }

    /// The program that starts programs and cleans up for a test on this machine.
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
