//! What `cargo xtask vm image` has made: a kernel, a file system for guests, and the programs in it.

use std::{env, path::PathBuf};

use crate::vm::Outcome;

/// The environment variable with the directory that `cargo xtask vm image` fills.
pub const KIT: &str = "COMMONHOLD_VM";

/// Where the parts are.
#[derive(Debug, Clone)]
pub struct Kit(PathBuf);

impl Kit {
    /// The kit that the environment names.
    ///
    /// # Errors
    /// There is none: nothing can be tested then, and that must not pass for success.
    pub fn find() -> Outcome<Self> {
        let Some(directory) = env::var_os(KIT) else {
            return Err(format!(
                "{KIT} is not set: run `cargo xtask vm test`, or set it to the directory that \
                 `cargo xtask vm image` prints"
            ));
        };
        Ok(Self(directory.into()))
    }

    /// The kernel of Linux guests.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.0.join("kernel")
    }

    /// Their first file system.
    #[must_use]
    pub fn initramfs(&self) -> PathBuf {
        self.0.join("initramfs")
    }

    /// The command line tool, as guests have it; it runs on the host as well.
    #[must_use]
    pub fn commonhold(&self) -> PathBuf {
        self.0.join("bin/commonhold")
    }

    /// The actor, likewise.
    #[must_use]
    pub fn actor(&self) -> PathBuf {
        self.0.join("bin/guest-actor")
    }

    /// The guest without an operating system.
    #[must_use]
    pub fn bare_metal(&self) -> PathBuf {
        self.0.join("bin/bare-metal")
    }
}
