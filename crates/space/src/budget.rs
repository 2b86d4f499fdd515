//! How long an operation on the directory may wait for others.
//!
//! # Invariants
//! 1. No operation waits for a peer beyond its budget: whoever is in the way then is named in the error.
//! 2. An operation that is given no time still waits for [`LEAST_NS`]: an honest holder needs far less, and is
//!    not to be mistaken for one that is stopped.
//! 3. What loops because others change something looks at the budget, and not at a number of turns.
//!
//! # What it does not do
//! It does not bound what this process's own kernel takes: memory is committed and given back without the
//! directory mutex, however long that lasts.

use commonhold_sync::Park;

/// Time for honest holders of the directory mutex, who do a bounded amount of work and make no system call.
const LEAST_NS: u64 = if cfg!(fuzzing) { 20_000_000 } else { 100_000_000 };
/// Time for whoever does not say how much. A fuzzer has better things to do.
const DEFAULT_NS: u64 = if cfg!(fuzzing) { 300_000_000 } else { 3_000_000_000 };

/// For how long a caller is willing to wait for others who are changing the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience(u64);

impl Patience {
    /// Three seconds; of a fuzzer, a tenth of that.
    pub const DEFAULT: Self = Self(DEFAULT_NS);
    /// As little as there is: a tenth of a second; of a fuzzer, a fifth of that.
    pub const LEAST: Self = Self(LEAST_NS);

    /// So many nanoseconds, and never less than [`LEAST`](Self::LEAST).
    #[must_use]
    pub const fn of_ns(ns: u64) -> Self {
        Self(if ns < LEAST_NS { LEAST_NS } else { ns })
    }

    /// In nanoseconds.
    #[must_use]
    pub const fn ns(self) -> u64 {
        self.0
    }

    /// The budget of an operation that begins now.
    pub(crate) fn begin(self, clock: &impl Park) -> Budget {
        Budget(clock.now().saturating_add(self.0))
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The moment at which an operation stops waiting for others, on the clock of [`Park::now`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget(u64);

impl Budget {
    /// No time at all: for what may as well be left to the next.
    pub(crate) const NONE: Self = Self(0);

    /// Its end.
    pub(crate) const fn end(self) -> u64 {
        self.0
    }

    /// Whether it is used up.
    pub(crate) fn is_spent(self, clock: &impl Park) -> bool {
        clock.now() >= self.0
    }

    /// The same, but with time for honest holders from now on: after work that took long.
    pub(crate) fn renewed(self, clock: &impl Park) -> Self {
        Self(self.0.max(Patience::LEAST.begin(clock).0))
    }
}
