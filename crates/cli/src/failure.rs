//! Why a command ended without doing what was asked, and with which exit status.
//!
//! Owns: the table of exit statuses. Does not print: `main` does, once.

use std::{fmt, io};

use commonhold::{ErrorKind, LockError, OpenError, RegionError};

/// An exit status other than 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Other = 1,
    Usage = 2,
    NotFound = 3,
    Exists = 4,
    InUse = 5,
    TimedOut = 6,
    NoMemory = 7,
    OwnerDied = 8,
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

/// How a command failed: what to say, and what to end with.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit status.
    pub(crate) code: u8,
    /// `create "x": there is ...`; nothing if there is nobody left to tell.
    pub(crate) message: Option<String>,
}

impl Failure {
    pub(crate) fn new(status: Status, message: impl Into<String>) -> Self {
        Self { code: status as u8, message: Some(message.into()) }
    }

    /// Whoever read standard output has gone: nobody listens to a message.
    pub(crate) const fn nobody_reads() -> Self {
        /// As a shell has it of a command that SIGPIPE ended.
        const BROKEN_PIPE: u8 = 128 + 13;
        Self { code: BROKEN_PIPE, message: None }
    }
}

/// An error that says what it means for the caller.
pub(crate) trait Kinded: fmt::Display {
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

/// Turns a library's error into a failure by saying what was asked for.
pub(crate) trait Doing<T> {
    /// `what` is as a person would write it: `create "x"`.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: Kinded> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(error.status(), format!("{}: {error}", what())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_error_has_the_status_that_the_manual_gives_it() {
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
    fn a_failure_says_what_was_asked_for() {
        let error: Result<(), _> = Err(RegionError::NotFound { name: "x".to_owned() });
        let failure = error.doing(|| "destroy \"x\"".to_owned()).unwrap_err();
        assert_eq!(failure.code, 3);
        let message = failure.message.unwrap();
        assert!(message.starts_with("destroy \"x\": there is no active region"), "{message}");
    }
}
