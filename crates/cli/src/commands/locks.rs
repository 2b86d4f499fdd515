//! `locks`: who holds what, and who waits.

use commonhold::{LockInfo, PeerLife, Shown};
use serde::Serialize;

use crate::{
    failure::{Doing, Failure},
    output::Column,
    session::Session,
    units,
};

/// A lock in JSON.
#[derive(Serialize)]
pub(super) struct Lock {
    region: String,
    /// Nothing: the region's own lock.
    offset: Option<u64>,
    kind: String,
    holder: Option<Holder>,
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

impl Lock {
    pub(super) fn new(lock: &LockInfo) -> Self {
        Self {
            region: lock.region.clone(),
            offset: lock.offset,
            kind: lock.kind.to_string(),
            holder: lock.holder.as_ref().map(|holder| Holder {
                slot: holder.slot,
                generation: holder.generation,
                pid: holder.pid,
                domain: holder.domain.clone(),
                alive: holder.alive,
                state: holder.state.to_string(),
            }),
            waiters: lock.waiters,
        }
    }
}

pub(crate) fn locks(session: &Session) -> Result<(), Failure> {
    let out = session.out;
    let space = session.open()?;
    space.listen().doing(|| format!("listen to the peers of {}", session.url))?;
    let locks = space.locks().doing(|| format!("list the locks of {}", session.url))?;
    if out.json {
        return out.value(&locks.iter().map(Lock::new).collect::<Vec<_>>());
    }
    let columns = [
        Column::Left("REGION"),
        Column::Right("OFFSET"),
        Column::Left("KIND"),
        Column::Left("HOLDER"),
        Column::Left("SINCE"),
        Column::Right("WAITERS"),
    ];
    out.table(&columns, locks.iter().map(row).collect())
}

fn row(lock: &LockInfo) -> Vec<String> {
    let holder = lock.holder.as_ref().map_or_else(
        || "-".to_owned(),
        |holder| {
            let state = match holder.state {
                PeerLife::Live => String::new(),
                other => format!(" ({other})"),
            };
            format!("{}/{} pid {}{state}", holder.slot, holder.generation, holder.pid)
        },
    );
    let since = lock.since.map_or_else(|| "-".to_owned(), units::since);
    let offset = lock.offset.map_or_else(|| "-".to_owned(), |at| at.to_string());
    vec![
        Shown::new(&lock.region).to_string(),
        offset,
        lock.kind.to_string(),
        holder,
        since,
        lock.waiters.to_string(),
    ]
}
