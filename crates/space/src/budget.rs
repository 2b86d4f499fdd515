//! How long an operation on the directory may wait for other peers.
//!
//! # Invariants
//! 1. No operation waits for a peer beyond its budget; the error then names that peer.
//! 2. An operation that is given no time still waits for [`LEAST_NS`]. An honest holder needs far less, so it is not
//!    mistaken for one that is stopped.
//! 3. A loop that repeats because peers change something is bounded by the budget, not by a number of turns.
//!
//! # What it does not do
//! It does not bound the time of system calls: memory is committed and released without the
//! directory mutex, however long that takes.

use commonhold_sync::Park;

/// Time for honest holders of the directory mutex, which do a bounded amount of work and make no system call.
const LEAST_NS: u64 = if cfg!(fuzzing) { 20_000_000 } else { 100_000_000 };
/// Time for a caller that does not say how much. Less for a fuzzer, which should not spend its time waiting.
const DEFAULT_NS: u64 = if cfg!(fuzzing) { 300_000_000 } else { 3_000_000_000 };

/// How long a caller is willing to wait for peers that are changing the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience(u64);

impl Patience {
    /// Three seconds; under a fuzzer, a tenth of that.
    pub const DEFAULT: Self = Self(DEFAULT_NS);
    /// The least possible: a tenth of a second; under a fuzzer, a fifth of that.
    pub const LEAST: Self = Self(LEAST_NS);

    /// This many nanoseconds, but never less than [`LEAST`](Self::LEAST).
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

/// The moment at which an operation stops waiting for other peers, on the clock of [`Park::now`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget(u64);

impl Budget {
    /// No time at all: for work that may as well be left to the next peer.
    pub(crate) const NONE: Self = Self(0);

    /// The moment when it ends.
    pub(crate) const fn end(self) -> u64 {
        self.0
    }

    /// Whether it is used up.
    pub(crate) fn is_spent(self, clock: &impl Park) -> bool {
        clock.now() >= self.0
    }

    /// The same budget, but with at least [`Patience::LEAST`] from now on. For use after work that took long.
    pub(crate) fn renewed(self, clock: &impl Park) -> Self {
        Self(self.0.max(Patience::LEAST.begin(clock).0))
    }
}
