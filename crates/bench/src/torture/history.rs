//! The history of a run: the operations of all workers, each with the interval in which it took place and its outcome.
//!
//! Invariant: an operation that a killed worker did not finish lasts for ever and has no outcome. It may or may not
//! have happened, and another worker that finds what it left may complete it later.

use std::fmt;

use commonhold::RegionKey;

/// The end of an operation that did not end.
pub(super) const NEVER: u64 = u64::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Create,
    Map,
    Unmap(RegionKey),
    Destroy,
    DestroyDeferred,
    Resize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Done(RegionKey),
    Exists,
    NotFound,
    Mapped,
    TimedOut,
    /// No memory, no entry, or beyond the reserve: it may happen at any time, and changes nothing.
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Operation {
    /// The incarnation that did it.
    pub(super) worker: usize,
    pub(super) what: What,
    /// Index of the name.
    pub(super) name: u8,
    /// The time just before the call, in nanoseconds.
    pub(super) start: u64,
    /// The time just after it.
    pub(super) end: u64,
    pub(super) outcome: Option<Outcome>,
}

impl Operation {
    /// The region on which the operation acted, by its outcome.
    pub(super) const fn key(&self) -> Option<RegionKey> {
        match self.outcome {
            Some(Outcome::Done(key)) => Some(key),
            _ => None,
        }
    }

    pub(super) const fn destroys(&self) -> bool {
        matches!(self.what, What::Destroy | What::DestroyDeferred)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} ", self.start)?;
        if self.end == NEVER {
            write!(f, "..")?
        } else {
            write!(f, "{}", self.end)?
        }
        write!(f, "] worker {} {:?} n{} -> ", self.worker, self.what, self.name)?;
        match self.outcome {
            Some(outcome) => write!(f, "{outcome:?}"),
            None => write!(f, "unknown"),
        }
    }
}

/// When a worker was killed: it was alive at `before`, and dead at `after`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Killed {
    pub(super) before: u64,
    pub(super) after: u64,
}

/// A stop of a worker: it was stopped only between these two times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stopped {
    pub(super) worker: usize,
    pub(super) from: u64,
    pub(super) until: u64,
}

#[derive(Debug, Default)]
pub(super) struct History {
    /// The operations of one worker stand in the order in which it did them.
    pub(super) operations: Vec<Operation>,
    /// For each worker, when it was killed.
    pub(super) killed: Vec<Option<Killed>>,
    pub(super) stopped: Vec<Stopped>,
}

/// A mapping. It certainly exists from `map.end` to `surely_until`, and possibly from `map.start` to `possibly_until`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mapped {
    pub(super) map: Operation,
    pub(super) key: RegionKey,
    pub(super) surely_until: u64,
    pub(super) possibly_until: u64,
}

impl History {
    pub(super) fn killed(&self, worker: usize) -> Option<Killed> {
        self.killed.get(worker).copied().flatten()
    }

    /// All mappings, each paired with its unmap; and for each destroy, by its index in `operations`, whether its
    /// caller mapped a region of that name.
    pub(super) fn mappings(&self) -> (Vec<Mapped>, Vec<bool>) {
        let mut open: std::collections::HashMap<usize, Vec<Mapped>> = Default::default();
        let (mut closed, mut caller_maps) = (Vec::new(), Vec::new());
        for operation in &self.operations {
            let mine = open.entry(operation.worker).or_default();
            caller_maps.push(mine.iter().any(|mapped| mapped.map.name == operation.name));
            match (operation.what, operation.key()) {
                (What::Map, Some(key)) => {
                    let end = self.killed(operation.worker);
                    mine.push(Mapped {
                        map: *operation,
                        key,
                        surely_until: end.map_or(operation.end, |end| end.before),
                        possibly_until: NEVER,
                    });
                }
                (What::Unmap(key), _) => {
                    if let Some(index) = mine.iter().position(|mapped| mapped.key == key) {
                        let mapped = mine.remove(index);
                        closed.push(Mapped {
                            surely_until: operation.start,
                            possibly_until: operation.end,
                            ..mapped
                        });
                    }
                }
                _ => {}
            }
        }
        closed.extend(open.into_values().flatten());
        (closed, caller_maps)
    }
}

/// Logs (with `-v`) how often each operation had each outcome. A run with little variety proves little.
pub(super) fn tally(operations: &[Operation]) {
    let mut counts = std::collections::BTreeMap::<String, u64>::new();
    for operation in operations {
        let what = match operation.what {
            What::Unmap(_) => "Unmap".to_owned(),
            what => format!("{what:?}"),
        };
        let outcome = match operation.outcome {
            Some(Outcome::Done(_)) => "Done".to_owned(),
            Some(outcome) => format!("{outcome:?}"),
            None => "unknown".to_owned(),
        };
        *counts.entry(format!("{what} {outcome}")).or_default() += 1;
    }
    tracing::info!(?counts, "operations");
}
