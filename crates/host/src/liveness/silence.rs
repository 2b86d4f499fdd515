//! How long the heartbeat counts of peers have stood still, as this process has observed them.

use std::{collections::HashMap, sync::Mutex, sync::PoisonError};

use commonhold_space::{PeerRecord, Watched};
use commonhold_sync::Verdict;

/// What this process has observed of each peer's heartbeat count.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    // Keyed by slot, so that it never has more entries than the peer table.
    seen: Mutex<HashMap<u16, Watched>>,
}

impl Silence {
    /// The verdict by the heartbeat count alone.
    pub(crate) fn judge(&self, record: &PeerRecord, lease_ms: u64, now_ms: u64) -> Verdict {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.entry(record.peer.get()).or_default().look(record, lease_ms, now_ms)
    }
}
