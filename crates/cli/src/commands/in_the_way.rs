//! Which processes a command has waited for when its time is up, so that the user can find them.
//!
//! They are looked up after the timeout, and may be gone by then. If none is found, the message stays as it is.

use std::time::SystemTime;

use commonhold::{LockInfo, PeerInfo, Space};
use commonhold_console::{failure::Failure, units};

/// How many processes are named at most.
const MOST: usize = 3;

/// Adds to a failure which processes hold the region's own lock.
pub(super) fn name_holders(space: &Space, region: &str, failure: Failure) -> Failure {
    let (Ok(locks), Ok(peers)) = (space.locks(), space.peers()) else { return failure };
    let own = locks.iter().filter(|lock| lock.region == region && lock.offset.is_none());
    let holders: Vec<_> = own.filter_map(|lock| holder(lock, &peers)).collect();
    added(failure, "held", &holders)
}

/// Adds to a failure which processes map the region.
pub(super) fn name_mappers(space: &Space, region: &str, failure: Failure) -> Failure {
    let Ok(mappers) = space.mappers(region) else { return failure };
    let mappers: Vec<_> = mappers
        .iter()
        .map(|peer| format!("{}, attached {}", named(peer), units::since(peer.attached)))
        .collect();
    added(failure, "mapped", &mappers)
}

fn added(failure: Failure, how: &str, who: &[String]) -> Failure {
    let Some(message) = failure.message.as_ref().filter(|_| !who.is_empty()) else {
        return failure;
    };
    let shown: Vec<&str> = who.iter().take(MOST).map(String::as_str).collect();
    let more = match who.len().saturating_sub(MOST) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let message = format!("{message}; it is {how} by {}{more}", shown.join("; by "));
    Failure { message: Some(message), ..failure }
}

fn holder(lock: &LockInfo, peers: &[PeerInfo]) -> Option<String> {
    let holder = lock.holder.as_ref()?;
    let slot = |peer: &&PeerInfo| (peer.slot, peer.generation) == (holder.slot, holder.generation);
    let peer = peers.iter().find(slot)?;
    let since: Option<SystemTime> = lock.since;
    Some(match since {
        Some(since) => format!("{}, since {}", named(peer), units::since(since)),
        // Not every holder records since when it holds the lock, but none can hold it longer than it is attached.
        None => format!("{}, attached {}", named(peer), units::since(peer.attached)),
    })
}

fn named(peer: &PeerInfo) -> String {
    let PeerInfo { slot, pid, name, state, .. } = peer;
    format!("process {pid} ({name:?}, slot {slot}, {state})")
}
