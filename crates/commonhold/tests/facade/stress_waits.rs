//! What of a wait is explained by a holder that was stopped, or killed.
//!
//! The director writes down who was stopped or killed, when, and which locks that one had then. A worker tells of its
//! long waits. What is left of a wait when the times are taken out in which the lock's holder, or the waiter
//! itself, could not run, is the library's.
//!
//! It errs on one side only, and by one stop: who is stopped between the instant at which it gets a lock and that at
//! which it says so is no explanation. So a wait counts as unexplained from well above the longest stop on.

use std::fmt;

/// Times from one moment to another, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(crate) from: u64,
    pub(crate) until: u64,
}

/// Why somebody did not run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) worker: u64,
    pub(crate) when: Span,
    /// A bit for each lock that it had.
    pub(crate) had: u64,
}

/// A wait that a worker told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wait {
    pub(crate) worker: u64,
    /// A bit for each lock that it waited for.
    pub(crate) locks: u64,
    pub(crate) when: Span,
    /// A timeout is kept whatever others do: then only what exceeds it counts, and only the waiter's own faults
    /// explain that.
    pub(crate) timeout: Option<u64>,
}

/// A wait that is longer is told, in nanoseconds.
const WORTH_TELLING: u64 = 200_000_000;
/// For no timeout.
const NONE: u64 = u64::MAX;

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { worker, locks, when: Span { from, until }, timeout } = self;
        let timeout = Self::timeout_word(*timeout);
        write!(f, "{worker} {locks} {from} {until} {timeout}")
    }
}

impl Wait {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let numbers: Vec<u64> = text.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
        let [worker, locks, from, until, timeout] = numbers[..] else { return None };
        let timeout = Self::timeout_of(timeout);
        Some(Self { worker, locks, when: Span { from, until }, timeout })
    }

    pub(crate) fn timeout_word(timeout: Option<u64>) -> u64 {
        timeout.unwrap_or(NONE)
    }

    pub(crate) fn timeout_of(word: u64) -> Option<u64> {
        Some(word).filter(|timeout| *timeout != NONE)
    }

    pub(crate) fn is_worth_telling(&self) -> bool {
        self.when.until - self.when.from > WORTH_TELLING
    }

    /// Nanoseconds of it that no fault explains, beyond those that it was ready to wait.
    pub(crate) fn unexplained(&self, faults: &[Fault]) -> u64 {
        let locks = if self.timeout.is_none() { self.locks } else { 0 };
        let explain = |fault: &&Fault| fault.worker == self.worker || fault.had & locks != 0;
        let mut spans: Vec<Span> = faults.iter().filter(explain).map(|fault| fault.when).collect();
        spans.sort_unstable();
        let (mut left, mut at) = (0, self.when.from);
        for span in spans {
            left += span.from.clamp(at, self.when.until) - at;
            at = at.max(span.until).min(self.when.until);
        }
        (left + self.when.until - at).saturating_sub(self.timeout.unwrap_or(0))
    }
}

const WAIT: Wait =
    Wait { worker: 1, locks: 0b100, when: Span { from: 100, until: 200 }, timeout: None };

fn fault(worker: u64, had: u64, from: u64, until: u64) -> Fault {
    Fault { worker, when: Span { from, until }, had }
}

#[test]
fn a_wait_is_explained_by_those_who_had_its_lock_and_while_they_could_not_run() {
    let left = |faults: &[Fault]| WAIT.unexplained(faults);
    assert_eq!(left(&[]), 100);
    assert_eq!(left(&[fault(2, 0b011, 0, 300), fault(3, 0, 0, 300)]), 100);
    assert_eq!(left(&[fault(2, 0b110, 0, 300)]), 0);
    assert_eq!(left(&[fault(2, 0b100, 0, 99), fault(3, 0b100, 201, 300)]), 100);
    assert_eq!(left(&[fault(2, 0b100, 0, 110), fault(3, 0b100, 190, 300)]), 80);
    // Those that overlap, or lie in each other, count once, in whatever order they come.
    assert_eq!(
        left(&[fault(2, 0b100, 150, 160), fault(3, 0b100, 120, 130), fault(4, 0b100, 110, 140)]),
        60
    );
}

#[test]
fn who_was_stopped_itself_did_not_wait_meanwhile() {
    assert_eq!(WAIT.unexplained(&[fault(1, 0, 120, 150)]), 70);
}

#[test]
fn a_timeout_is_kept_whatever_the_holder_does() {
    let wait = Wait { timeout: Some(30), ..WAIT };
    assert_eq!(wait.unexplained(&[fault(2, u64::MAX, 0, 300)]), 70);
    assert_eq!(wait.unexplained(&[fault(1, 0, 140, 150)]), 60);
    assert_eq!(Wait { timeout: Some(101), ..wait }.unexplained(&[]), 0);
}

#[test]
fn a_wait_is_read_as_it_was_told() {
    assert_eq!(Wait::parse(&WAIT.to_string()), Some(WAIT));
    let wait = Wait { timeout: Some(0), ..WAIT };
    assert_eq!(Wait::parse(&wait.to_string()), Some(wait));
    assert_eq!(Wait::parse("1 2 3"), None);
}
