//! The protocol between the coordinator of `bench locks` and its workers.
//!
//! A worker is a process with one lock: it runs this program, or `boost.cpp`. It writes `ok` when it has opened its
//! lock. Then each line it reads is a request, and each line it writes is an answer: `ok` and numbers, or `error` and
//! the reason. Times are nanoseconds of `CLOCK_MONOTONIC`. The worker ends at the end of its input.
//!
//! Invariants: 1. each request has one answer, with two exceptions: [`Request::Await`] has one before and one after
//! the wait, and [`Request::Leave`] has two, with a [`Request::Go`] between them. 2. A request for several workers
//! at once says when to begin and when to end.

use std::{fmt, str::FromStr};

/// How a lock is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// Shared with other readers.
    Read,
    /// Exclusively.
    Write,
}

/// What a worker shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// Take and release the lock for `ns` nanoseconds. Answer: how often, and the nanoseconds that it took.
    Solo { how: How, ns: u64 },
    /// Take the exclusive lock and increment the counters, again and again, with a pause between. Answer: how often,
    /// and the longest wait.
    Write { from: u64, until: u64, pause_ns: u64 },
    /// Take the shared lock and compare the counters, again and again. Answer: how often.
    Read { from: u64, until: u64 },
    /// Take turns with another worker, and keep each turn for `keep_ns`. Answer of side 0: the nanoseconds from each
    /// of its turns to the next.
    Pass { side: u64, times: u64, keep_ns: u64 },
    /// Take the lock, answer, and hold it until killed.
    Hold,
    /// Answer; take the lock; answer whether its owner had died, and when the lock was taken.
    Await,
    /// Take the lock in a new thread; answer; wait for `Go`; let the thread end while it holds the lock. Answer: when
    /// it ended.
    Leave,
    /// Go on with `Leave`. It has no answer of its own.
    Go,
    /// Answer: how often all workers together have taken the lock by `Write`.
    Count,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Solo { how: How::Read, ns } => write!(f, "solo-read {ns}"),
            Self::Solo { how: How::Write, ns } => write!(f, "solo-write {ns}"),
            Self::Write { from, until, pause_ns } => write!(f, "write {from} {until} {pause_ns}"),
            Self::Read { from, until } => write!(f, "read {from} {until}"),
            Self::Pass { side, times, keep_ns } => write!(f, "pass {side} {times} {keep_ns}"),
            Self::Hold => f.write_str("hold"),
            Self::Await => f.write_str("await"),
            Self::Leave => f.write_str("leave"),
            Self::Go => f.write_str("go"),
            Self::Count => f.write_str("count"),
        }
    }
}

impl FromStr for Request {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let unknown = || format!("no such request: {line:?}");
        let mut words = line.split_whitespace();
        let verb = words.next().ok_or_else(unknown)?;
        let numbers: Vec<u64> =
            words.map(str::parse).collect::<Result<_, _>>().map_err(|_| unknown())?;
        Ok(match (verb, &numbers[..]) {
            ("solo-read", &[ns]) => Self::Solo { how: How::Read, ns },
            ("solo-write", &[ns]) => Self::Solo { how: How::Write, ns },
            ("write", &[from, until, pause_ns]) => Self::Write { from, until, pause_ns },
            ("read", &[from, until]) => Self::Read { from, until },
            ("pass", &[side, times, keep_ns]) => Self::Pass { side, times, keep_ns },
            ("hold", []) => Self::Hold,
            ("await", []) => Self::Await,
            ("leave", []) => Self::Leave,
            ("go", []) => Self::Go,
            ("count", []) => Self::Count,
            _ => return Err(unknown()),
        })
    }
}

/// An answer as a line.
pub(super) fn answer(result: Result<&[u64], &str>) -> String {
    match result {
        Ok(numbers) => {
            numbers.iter().fold("ok".to_owned(), |line, number| format!("{line} {number}"))
        }
        Err(why) => format!("error {}", why.replace('\n', " ")),
    }
}

/// The numbers of an answer, or the reason of an error.
pub(super) fn numbers(line: &str) -> Result<Vec<u64>, String> {
    let odd = || format!("it said {line:?}");
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match word {
        "ok" => {
            rest.split_whitespace().map(str::parse).collect::<Result<_, _>>().map_err(|_| odd())
        }
        "error" => Err(rest.to_owned()),
        _ => Err(odd()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_is_read_as_it_was_written() {
        for request in [
            Request::Solo { how: How::Read, ns: 1 },
            Request::Solo { how: How::Write, ns: u64::MAX },
            Request::Write { from: 1, until: 2, pause_ns: 3 },
            Request::Read { from: 4, until: 5 },
            Request::Pass { side: 1, times: 200, keep_ns: 7 },
            Request::Hold,
            Request::Await,
            Request::Leave,
            Request::Go,
            Request::Count,
        ] {
            assert_eq!(request.to_string().parse(), Ok(request));
        }
    }

    #[test]
    fn a_malformed_request_is_an_error() {
        for bad in ["", "lock", "write", "write 1 2", "write 1 2 -3", "hold 1", "count x"] {
            bad.parse::<Request>().unwrap_err();
        }
    }

    #[test]
    fn answers_carry_numbers_or_a_reason_on_one_line() {
        assert_eq!(numbers(&answer(Ok(&[]))), Ok(vec![]));
        assert_eq!(numbers(&answer(Ok(&[0, u64::MAX]))), Ok(vec![0, u64::MAX]));
        assert_eq!(numbers(&answer(Err("two\nlines"))), Err("two lines".to_owned()));
        for bad in ["", "okay", "ok 1 x", "segmentation fault"] {
            numbers(bad).unwrap_err();
        }
    }
}
