//! Why a command failed, and with which exit status it ends.
//!
//! Owns the table of exit statuses. Prints nothing: [`program::end`](crate::program::end) prints the message, once.

use std::{fmt, io};

use commonhold::{ErrorKind, LockError, OpenError, RegionError};

/// An exit status other than 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Any other failure.
    Other = 1,
    /// The arguments make no sense.
    Usage = 2,
    /// There is no such region or space.
    NotFound = 3,
    /// There is already such a region or space.
    Exists = 4,
    /// The region is still mapped, or peers are attached to the space.
    InUse = 5,
    /// The time ran out.
    TimedOut = 6,
    /// No memory, or no space in a table.
    NoMemory = 7,
    /// The lock's owner died.
    OwnerDied = 8,
    /// Not a space, damaged, or of another version.
    NotASpace = 9,
}

impl From<ErrorKind> for Status {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Invalid => Self::Usage,
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Exists => Self::Exists,
            ErrorKind::InUse => Self::InUse,
            ErrorKind::TimedOut => Self::TimedOut,
            ErrorKind::NoMemory => Self::NoMemory,
            ErrorKind::OwnerDied => Self::OwnerDied,
            ErrorKind::NotASpace => Self::NotASpace,
            _ => Self::Other,
        }
    }
}

/// How a command failed: its message and its exit status.
#[derive(Debug)]
pub struct Failure {
    /// The exit status.
    pub code: u8,
    /// Such as `create "x": there is ...`; `None` if there is nothing to say, or no reader for it.
    pub message: Option<String>,
}

impl Failure {
    /// A failure with this status and message.
    pub fn new(status: Status, message: impl Into<String>) -> Self {
        Self { code: status as u8, message: Some(message.into()) }
    }

    /// The failure of a command whose reader of standard output has gone away. It has no message.
    #[must_use]
    pub const fn nobody_reads() -> Self {
        /// The status that a shell gives to a command killed by SIGPIPE.
        const BROKEN_PIPE: u8 = 128 + 13;
        Self { code: BROKEN_PIPE, message: None }
    }
}

/// An error that has an exit status.
pub trait Kinded: fmt::Display {
    /// The exit status of a command that fails with this error.
    fn status(&self) -> Status;
}

impl Kinded for OpenError {
    fn status(&self) -> Status {
        self.kind().into()
    }
}

impl Kinded for RegionError {
    fn status(&self) -> Status {
        self.kind().into()
    }
}

impl Kinded for LockError {
    fn status(&self) -> Status {
        self.kind().into()
    }
}

impl Kinded for io::Error {
    fn status(&self) -> Status {
        match self.kind() {
            io::ErrorKind::OutOfMemory | io::ErrorKind::StorageFull => Status::NoMemory,
            _ => Status::Other,
        }
    }
}

/// Turns an error of a library into a failure, by saying what the command was doing.
pub trait Doing<T> {
    /// Adds `what` to the message, written as for a user: `create "x"`.
    ///
    /// # Errors
    /// The same error, as a failure.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: Kinded> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(error.status(), format!("{}: {error}", what())))
    }
}

/// A failure of the run itself, not of an operation that it asked for.
#[must_use]
pub fn broken(message: impl Into<String>) -> Failure {
    Failure::new(Status::Other, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_error_has_its_documented_status() {
        let table = [
            (ErrorKind::Other, 1),
            (ErrorKind::Invalid, 2),
            (ErrorKind::NotFound, 3),
            (ErrorKind::Exists, 4),
            (ErrorKind::InUse, 5),
            (ErrorKind::TimedOut, 6),
            (ErrorKind::NoMemory, 7),
            (ErrorKind::OwnerDied, 8),
            (ErrorKind::NotASpace, 9),
        ];
        for (kind, code) in table {
            assert_eq!(Status::from(kind) as u8, code, "{kind:?}");
        }
    }

    #[test]
    fn a_failure_says_what_the_command_was_doing() {
        let error: Result<(), _> = Err(RegionError::NotFound { name: "x".to_owned() });
        let failure = error.doing(|| "destroy \"x\"".to_owned()).unwrap_err();
        assert_eq!(failure.code, 3);
        let message = failure.message.unwrap();
        assert!(message.starts_with("destroy \"x\": there is no active region"), "{message}");
    }
}
