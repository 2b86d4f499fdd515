//! Queries that several tests use.

use std::{
    thread,
    time::{Duration, Instant},
};

use commonhold_testkit::vm::{Outcome, PATIENCE, ScriptedProcess, Side};
use serde_json::Value;

/// One row of `commonhold peers --json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) slot: u64,
    pub(crate) domain: String,
    pub(crate) state: String,
    pub(crate) name: String,
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("no {key:?} in {value}")).to_owned()
}

/// The peers by `commonhold peers`, without the command itself.
pub(crate) fn peers(side: &Side<'_>) -> Outcome<Vec<Peer>> {
    let rows = side.json(&["peers"])?;
    let rows = rows.as_array().unwrap().iter().map(|row| Peer {
        slot: row["slot"].as_u64().unwrap(),
        domain: text(row, "domain"),
        state: text(row, "state"),
        name: text(row, "name"),
    });
    Ok(rows.filter(|peer| peer.name != "commonhold").collect())
}

/// One row of `commonhold locks --json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lock {
    pub(crate) region: String,
    pub(crate) kind: String,
    /// Slot and domain of the holder.
    pub(crate) holder: Option<(u64, String)>,
    pub(crate) waiters: u64,
}

/// The locks by `commonhold locks`.
pub(crate) fn locks(side: &Side<'_>) -> Outcome<Vec<Lock>> {
    let rows = side.json(&["locks"])?;
    let rows = rows.as_array().unwrap().iter().map(|row| Lock {
        region: text(row, "region"),
        kind: text(row, "kind"),
        holder: row["holder"]["slot"].as_u64().map(|slot| (slot, text(&row["holder"], "domain"))),
        waiters: row["waiters"].as_u64().unwrap(),
    });
    Ok(rows.collect())
}

/// The boot id of the kernel that runs the tests.
pub(crate) fn own_boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().to_owned()
}

/// A scripted process with this name, which `peers` shows.
pub(crate) fn actor(side: &Side<'_>, name: &str) -> Outcome<ScriptedProcess> {
    let mut actor = side.actor()?;
    actor.must(&format!("name {name}"))?;
    Ok(actor)
}

/// Polls a condition until it holds. How long that takes does not matter, up to [`PATIENCE`].
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> Outcome<bool>) -> Outcome {
    let begun = Instant::now();
    while !is_so()? {
        if begun.elapsed() > PATIENCE {
            return Err(format!("{what}: not so within {PATIENCE:?}"));
        }
        // Leaves the processors to the processes that work.
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
