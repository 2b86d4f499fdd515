//! What every command needs to know: which space, and where results go.

use commonhold::Space;

use crate::{
    failure::{Doing, Failure},
    output::Out,
};

/// The space that was asked for, and how.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// The URL: of `--space`, of the environment, or the default.
    pub(crate) url: String,
    /// Whether `--space` stood on the command line.
    pub(crate) chosen: bool,
    pub(crate) out: Out,
}

impl Session {
    /// Attaches to a space that must exist.
    pub(crate) fn open(&self) -> Result<Space, Failure> {
        tracing::info!(url = %self.url, "opening");
        let space = Space::open(&self.url).doing(|| format!("open {}", self.url))?;
        tracing::debug!(peer = ?space.peer(), "attached");
        Ok(space)
    }

    /// Attaches to a space; a `shm:` space is formatted if it does not exist.
    pub(crate) fn open_or_format(&self) -> Result<Space, Failure> {
        tracing::info!(url = %self.url, "opening, or formatting with defaults");
        let space = Space::open_or_format(&self.url).doing(|| format!("open {}", self.url))?;
        tracing::debug!(peer = ?space.peer(), "attached");
        Ok(space)
    }
}
