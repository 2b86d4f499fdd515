//! `locks`: the locks that are held, waited for, or not consistent, with their owners.

use commonhold::{LockInfo, LockSurvey, PeerLife, Shown};
use commonhold_console::{
    failure::{Doing, Failure},
    output::Column,
    session::Session,
    units::{self, human_size},
};
use serde::Serialize;

/// A lock, as JSON shows it.
#[derive(Serialize)]
pub(super) struct Lock {
    region: String,
    /// Where it lies in the bytes of the region; null for the region's own lock.
    offset: Option<u64>,
    /// Its kind by its tag, if it lies in the bytes of the region and has one.
    record: Option<String>,
    kind: String,
    holder: Option<Holder>,
    /// The peer that left it inconsistent, or made it unrecoverable.
    left_by: Option<Holder>,
    waiters: usize,
}

#[derive(Serialize)]
struct Holder {
    slot: u16,
    generation: u32,
    pid: u32,
    domain: String,
    alive: bool,
    state: String,
}

impl Holder {
    fn new(holder: &commonhold::Holder) -> Self {
        Self {
            slot: holder.slot,
            generation: holder.generation,
            pid: holder.pid,
            domain: holder.domain.clone(),
            alive: holder.alive,
            state: holder.state.to_string(),
        }
    }
}

impl Lock {
    pub(super) fn new(lock: &LockInfo) -> Self {
        Self {
            region: lock.region.clone(),
            offset: lock.offset,
            record: lock.record.map(|record| record.to_string()),
            kind: lock.kind.to_string(),
            holder: lock.holder.as_ref().map(Holder::new),
            left_by: lock.left_by.as_ref().map(Holder::new),
            waiters: lock.waiters,
        }
    }
}

pub(crate) fn locks(session: &Session) -> Result<(), Failure> {
    let out = session.out;
    let space = session.open()?;
    space.listen().doing(|| format!("listen to the peers of {}", session.url))?;
    let survey = space.survey_locks(None).doing(|| format!("list the locks of {}", session.url))?;
    tell_of_the_rest(&survey);
    if out.json {
        return out.value(&survey.locks.iter().map(Lock::new).collect::<Vec<_>>());
    }
    let columns = [
        Column::Left("REGION"),
        Column::Right("OFFSET"),
        Column::Left("KIND"),
        Column::Left("HOLDER"),
        Column::Left("SINCE"),
        Column::Right("WAITERS"),
        Column::Left("LOCK"),
    ];
    out.table(&columns, survey.locks.iter().map(row).collect())
}

/// Says which regions are so large that only a part of their bytes was searched for locks.
pub(super) fn tell_of_the_rest(survey: &LockSurvey) {
    for part in &survey.unsearched {
        eprintln!(
            "commonhold: the bytes of {:?} were searched for locks up to offset {} ({}) only; a lock after it is \
             listed only while a thread waits for it",
            part.region,
            part.from,
            human_size(part.from)
        );
    }
}

/// The peer that holds a lock, or left it.
pub(super) fn whose(lock: &LockInfo) -> Option<String> {
    let name = |holder: &commonhold::Holder| {
        let state = match holder.state {
            PeerLife::Live => String::new(),
            other => format!(" ({other})"),
        };
        format!("{}/{} pid {}{state}", holder.slot, holder.generation, holder.pid)
    };
    let left = || lock.left_by.as_ref().map(|left| format!("left by {}", name(left)));
    lock.holder.as_ref().map(name).or_else(left)
}

fn row(lock: &LockInfo) -> Vec<String> {
    let none = || "-".to_owned();
    vec![
        Shown::new(&lock.region).to_string(),
        lock.offset.map_or_else(none, |at| at.to_string()),
        lock.kind.to_string(),
        whose(lock).unwrap_or_else(none),
        lock.since.map_or_else(none, units::since),
        lock.waiters.to_string(),
        lock.record.map_or_else(none, |record| record.to_string()),
    ]
}
