//! How much of a wait is explained by a holder that was stopped, or killed.
//!
//! The coordinator records which worker was stopped or killed, when, and which locks it held then. A worker reports
//! its long waits. From a wait the times are subtracted in which the holder of the lock, or the waiter itself,
//! could not run. The library is responsible for the rest.
//!
//! The rest can be too long by one stop: a worker that is stopped after it gets a lock, and before it records that,
//! explains nothing. So a rest is a violation only well above the longest stop.

use std::fmt;

/// A span of time, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(crate) from: u64,
    pub(crate) until: u64,
}

/// Why a worker did not run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) worker: u64,
    pub(crate) when: Span,
    /// A bit for each lock that it had.
    pub(crate) had: u64,
}

/// A wait that a worker reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wait {
    pub(crate) worker: u64,
    /// A bit for each lock that it waited for.
    pub(crate) locks: u64,
    pub(crate) when: Span,
    /// A timeout must be kept whatever other workers do: only the time beyond it counts, and only the waiter's own
    /// faults explain it.
    pub(crate) timeout: Option<u64>,
}

/// A longer wait is reported, in nanoseconds.
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

    /// The nanoseconds of the wait, beyond its timeout, that no fault explains.
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
fn a_wait_is_explained_by_the_time_that_its_lock_holders_could_not_run() {
    let left = |faults: &[Fault]| WAIT.unexplained(faults);
    assert_eq!(left(&[]), 100);
    assert_eq!(left(&[fault(2, 0b011, 0, 300), fault(3, 0, 0, 300)]), 100);
    assert_eq!(left(&[fault(2, 0b110, 0, 300)]), 0);
    assert_eq!(left(&[fault(2, 0b100, 0, 99), fault(3, 0b100, 201, 300)]), 100);
    assert_eq!(left(&[fault(2, 0b100, 0, 110), fault(3, 0b100, 190, 300)]), 80);
    // Faults that overlap, or lie in each other, count once, in any order.
    assert_eq!(
        left(&[fault(2, 0b100, 150, 160), fault(3, 0b100, 120, 130), fault(4, 0b100, 110, 140)]),
        60
    );
}

#[test]
fn a_stopped_waiter_does_not_wait_meanwhile() {
    assert_eq!(WAIT.unexplained(&[fault(1, 0, 120, 150)]), 70);
}

#[test]
fn a_wait_must_end_at_its_timeout_even_if_the_holder_is_stopped() {
    let wait = Wait { timeout: Some(30), ..WAIT };
    assert_eq!(wait.unexplained(&[fault(2, u64::MAX, 0, 300)]), 70);
    assert_eq!(wait.unexplained(&[fault(1, 0, 140, 150)]), 60);
    assert_eq!(Wait { timeout: Some(101), ..wait }.unexplained(&[]), 0);
}

#[test]
fn a_reported_wait_is_parsed_as_it_was_written() {
    assert_eq!(Wait::parse(&WAIT.to_string()), Some(WAIT));
    let wait = Wait { timeout: Some(0), ..WAIT };
    assert_eq!(Wait::parse(&wait.to_string()), Some(wait));
    assert_eq!(Wait::parse("1 2 3"), None);
}
