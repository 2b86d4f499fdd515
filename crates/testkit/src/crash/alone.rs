//! Mutexes that one process uses alone, and regions that one process writes alone, so that their locks become biased to
//! it: what the child does, and what the ledger derives from it.

use commonhold::{LockResult, Mapping, RawMutex};
use commonhold_layout::BIAS_AFTER;
use commonhold_window::Point;

use crate::{
    crash::who::Who,
    scripted_process::{Line, refused, say},
};

/// After so many turns a lock is biased, and was taken by the bias at least once.
pub(crate) const ALONE: u64 = BIAS_AFTER + 2;

/// Executes `alone NAME - OFFSET` and `solo NAME`: takes and frees the mutex, or the region's own lock, until it is
/// biased. Returns whether the line was such a command.
pub(crate) fn obey(line: &Line, mapping: &Mapping) -> bool {
    let said = match line.word(0) {
        "alone" => match mapping.mutex(line.number(3)) {
            Ok(mutex) => use_alone(&mutex).map_or_else(refused, Into::into),
            Err(error) => refused(error),
        },
        "solo" => write_alone(mapping).map_or_else(refused, Into::into),
        _ => return false,
    };
    say('=', &said);
    true
}

fn write_alone(mapping: &Mapping) -> LockResult<&'static str> {
    let mut told = "ok";
    for _ in 0..ALONE {
        let guard = mapping.lock_repairing(|_| {
            told = "ownerdied";
            Ok(())
        })?;
        guard.unlock()?;
    }
    Ok(told)
}

fn use_alone(mutex: &RawMutex) -> LockResult<&'static str> {
    let mut told = "ok";
    for _ in 0..ALONE {
        let guard = mutex.lock_repairing(|_| {
            told = "ownerdied";
            Ok(())
        })?;
        guard.unlock()?;
    }
    Ok(told)
}

/// Whether a process has a lock, after it has passed some points of a command that takes it, frees it, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stand {
    /// It owns the word.
    Owns,
    /// It holds the lock by the bias, if the lock is biased to it.
    Inside,
    /// It has not taken the lock yet, or has freed it.
    Outside,
}

/// The same from the points of a trace; `None` if no point decides it yet.
pub(crate) fn stand(trace: &[Point]) -> Option<Stand> {
    trace.iter().rev().find_map(|point| {
        Some(match point {
            Point::LockAcquired | Point::LockTakenOver | Point::BiasOwned | Point::BiasPlaced => {
                Stand::Owns
            }
            Point::BiasEntered => Stand::Inside,
            // A thread that entered by the bias and then waits like any other has found that its bias was revoked.
            Point::LockPending | Point::LockFlagged | Point::BiasRevoked => Stand::Outside,
            Point::BiasLeft | Point::BiasMade | Point::UnlockFreed | Point::CondvarFreed => {
                Stand::Outside
            }
            _ => return None,
        })
    })
}

/// The process to which a lock is biased after `who` has passed these points with it. A revoked bias counts until a
/// thread owns the word: the biased thread cannot enter by it, but its slot says for a moment that it is inside.
pub(crate) fn bias_after(before: Option<Who>, who: Who, trace: &[Point]) -> Option<Who> {
    trace.iter().fold(before, |bias, point| match point {
        Point::BiasMade => Some(who),
        Point::LockAcquired | Point::LockTakenOver | Point::BiasOwned => None,
        _ => bias,
    })
}
