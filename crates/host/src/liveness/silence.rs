//! The silence of all peers, as this process has watched it.

use std::{collections::HashMap, sync::Mutex, sync::PoisonError};

use commonhold_space::{PeerRecord, Watched};
use commonhold_sync::Verdict;

/// Heartbeats as this observer has seen them.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    // By slot, so that it stays as small as the table of peers.
    seen: Mutex<HashMap<u16, Watched>>,
}

impl Silence {
    /// Judges by the heartbeat alone.
    pub(crate) fn judge(&self, record: &PeerRecord, lease_ms: u64, now_ms: u64) -> Verdict {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.entry(record.peer.get()).or_default().look(record, lease_ms, now_ms)
    }
}
