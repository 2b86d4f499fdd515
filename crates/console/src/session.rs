//! What every command needs to know: which space to use, and where results go.
//!
//! Owns how a command opens its space, and how long that may take.

use std::time::{Duration, Instant};

use commonhold::{ErrorKind, OpenError, OpenOptions, Owners, Shown, Space};

use crate::{
    failure::{Doing, Failure},
    output::Out,
    signals::Signals,
};

/// How long to wait while other processes remove or replace the space; less if the command has a shorter timeout.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait before signals are checked again.
const SLICE: Duration = Duration::from_millis(250);

/// A function that attaches to the space of a URL.
pub type Attach = fn(&str, &OpenOptions) -> Result<Space, OpenError>;

/// The space that the command line asks for, and how to use it.
#[derive(Debug, Clone)]
pub struct Session {
    /// The name of this program, for messages.
    pub program: &'static str,
    /// The URL: from `--space`, from the environment, or the default.
    pub url: String,
    /// Whether `--space` was given on the command line.
    pub chosen: bool,
    /// Whose spaces may be used.
    pub owners: Owners,
    /// How often `-v` was given.
    pub verbose: u8,
    /// Where results go.
    pub out: Out,
}

impl Session {
    /// Attaches to a space that must exist.
    ///
    /// # Errors
    /// As for [`Space::open_with`].
    pub fn open(&self) -> Result<Space, Failure> {
        tracing::info!(url = ?self.url, "opening");
        let space =
            Space::open_with(&self.url, &self.options(PATIENCE)).doing(|| self.opening())?;
        tracing::debug!(peer = ?space.peer(), "attached");
        Ok(space)
    }

    fn options(&self, patience: Duration) -> OpenOptions {
        OpenOptions { patience: Some(patience), owners: self.owners }
    }

    fn opening(&self) -> String {
        format!("open {}", Shown::new(&self.url))
    }

    /// Like [`Session::open`], but waits no longer than the timeout of the whole command.
    ///
    /// # Errors
    /// As for [`Session::open`].
    pub fn open_within(&self, timeout: Option<Duration>) -> Result<Space, Failure> {
        tracing::info!(url = ?self.url, "opening");
        let patience = timeout.map_or(PATIENCE, |timeout| timeout.min(PATIENCE));
        Space::open_with(&self.url, &self.options(patience)).doing(|| self.opening())
    }

    /// Attaches to a space; a `shm:` space is formatted if it does not exist.
    ///
    /// # Errors
    /// As for [`Space::open_or_format_with`].
    pub fn open_or_format(&self) -> Result<Space, Failure> {
        tracing::info!(url = ?self.url, "opening, or formatting with defaults");
        let options = self.options(PATIENCE);
        let space = Space::open_or_format_with(&self.url, &options).doing(|| self.opening())?;
        tracing::debug!(peer = ?space.peer(), "attached");
        Ok(space)
    }

    /// Attaches by `attach`, waiting no longer than the timeout of the whole command. Returns `None` if a signal
    /// arrives.
    ///
    /// # Errors
    /// As for `attach`.
    pub fn open_heeding(
        &self,
        attach: Attach,
        signals: &Signals,
        timeout: Option<Duration>,
    ) -> Result<Option<Space>, Failure> {
        tracing::info!(url = ?self.url, "opening");
        let began = Instant::now();
        let patience = timeout.map_or(PATIENCE, |timeout| timeout.min(PATIENCE));
        while signals.last().is_none() {
            let left = patience.saturating_sub(began.elapsed());
            match attach(&self.url, &self.options(left.min(SLICE))) {
                Err(error) if error.kind() == ErrorKind::TimedOut && left > SLICE => {}
                result => return result.map(Some).doing(|| self.opening()),
            }
        }
        Ok(None)
    }
}
