//! What actors do with a mutex that they use alone, so that it becomes biased to them; and what the ledger knows
//! of that.

use commonhold::{LockResult, Mapping, RawMutex};
use commonhold_layout::BIAS_AFTER;
use commonhold_window::Point;

use crate::{
    crash::who::Who,
    scripted_process::{Line, refused, say},
};

/// Turns after which a mutex is biased, and has been held by the bias.
pub(crate) const ALONE: u64 = BIAS_AFTER + 2;

/// `alone NAME - OFFSET`: takes and frees the mutex until it is biased. Whether it was that.
pub(crate) fn obey(line: &Line, mapping: &Mapping) -> bool {
    if line.word(0) != "alone" {
        return false;
    }
    let said = match mapping.mutex(line.number(3)) {
        Ok(mutex) => use_alone(&mutex).map_or_else(refused, Into::into),
        Err(error) => refused(error),
    };
    say('=', &said);
    true
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

/// Whether somebody has a mutex after points of a command that takes it, or frees it, or does both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stand {
    /// It owns the word.
    Owns,
    /// It is inside, if the mutex is biased to it.
    Inside,
    /// It has not taken it yet, or has freed it.
    Outside,
}

/// `None`: it has not come so far.
pub(crate) fn stand(trace: &[Point]) -> Option<Stand> {
    trace.iter().rev().find_map(|point| {
        Some(match point {
            Point::LockAcquired | Point::LockTakenOver | Point::BiasOwned | Point::BiasPlaced => {
                Stand::Owns
            }
            Point::BiasEntered => Stand::Inside,
            // A thread that has entered, and then waits as others do, has found that it may not be inside.
            Point::LockPending | Point::LockFlagged | Point::BiasRevoked => Stand::Outside,
            Point::BiasLeft | Point::BiasMade | Point::UnlockFreed | Point::CondvarFreed => {
                Stand::Outside
            }
            _ => return None,
        })
    })
}

/// To whom a mutex is biased after `who` has passed these points with it. A bias that was revoked counts, until
/// somebody owns the word: its thread does not enter by it, but says for a moment that it is inside.
pub(crate) fn bias_after(before: Option<Who>, who: Who, trace: &[Point]) -> Option<Who> {
    trace.iter().fold(before, |bias, point| match point {
        Point::BiasMade => Some(who),
        Point::LockAcquired | Point::LockTakenOver | Point::BiasOwned => None,
        _ => bias,
    })
}
