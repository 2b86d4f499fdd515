//! `reset`: makes an inconsistent or unrecoverable lock usable again.
//!
//! Invariant: a lock that a living process holds is not touched; the error names the holder.

use std::time::Duration;

use commonhold::{Access, LockError, LockGuard, LockResult, Mapping, RecordTag, Recovered, Space};
use commonhold_console::{
    failure::{Failure, Kinded},
    session::Session,
};
use serde_json::json;

use crate::args::ResetArgs;

pub(crate) fn reset(session: &Session, args: &ResetArgs) -> Result<(), Failure> {
    let space = session.open()?;
    let done = reset_in(&space, args).map_err(|error| {
        let what = format!("reset {:?}", args.name);
        Failure::new(error.status(), format!("{what}: {error}{}", others(&space, args, &error)))
    })?;
    if !session.out.json {
        return Ok(());
    }
    session.out.value(&json!({
        "region": args.name, "offset": args.offset, "record": done.map(|tag| tag.kind.to_string()),
    }))
}

fn reset_in(space: &Space, args: &ResetArgs) -> LockResult<Option<RecordTag>> {
    let mapping = space.map(&args.name, Access::ReadWrite)?;
    let done = match args.offset {
        Some(offset) => Some(mapping.reset_record(offset)?),
        None => {
            reset_own(&mapping)?;
            None
        }
    };
    mapping.unmap()?;
    Ok(done)
}

/// Resets the region's own lock, by taking it: only a thread that takes the lock learns whether its owner died.
fn reset_own(mapping: &Mapping) -> LockResult<()> {
    match mapping.lock_recover_for(Duration::ZERO) {
        Ok(Recovered::Consistent(guard)) => guard.unlock(),
        Ok(Recovered::Inconsistent(guard)) => guard.mark_consistent().and_then(LockGuard::unlock),
        Err(LockError::Unrecoverable(_)) => mapping.reset_lock(),
        Err(error) => Err(error),
    }
}

/// Names the readers that hold the lock: the error itself names at most one owner.
fn others(space: &Space, args: &ResetArgs, error: &LockError) -> String {
    let LockError::TimedOut(place) = error else { return String::new() };
    if place.owner.is_some() {
        return String::new();
    }
    let locks = space.survey_locks(Some(&args.name)).map_or(Vec::new(), |survey| survey.locks);
    let holders = locks.iter().filter(|lock| lock.offset == args.offset);
    let pids: Vec<_> = holders
        .filter_map(|lock| lock.holder.as_ref())
        .map(|holder| format!("process {}", holder.pid))
        .collect();
    if pids.is_empty() { String::new() } else { format!(": {} has it", pids.join(", ")) }
}
