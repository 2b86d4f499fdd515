//! Checks that no process uses a window before it is removed or formatted over.
//!
//! # Invariants
//! 1. *Unreadable is not unused.* The evidence of life is a lock on the file, not its bytes. So it counts for every
//!    version of the format, and whatever the bytes have become.
//! 2. For a file, the check runs under the gate, so the answer holds until the gate is given up.
//! 3. The check takes a bounded time, however large the tables are.
//!
//! # What it does not do
//! It does not keep other processes out: `commonhold_host::ExclusiveGate` does.

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use commonhold_host::{ExclusiveGate, FileLock, LinuxPlatform, Url};
use commonhold_layout::{PeerId, PeerPhase, PeerRef};
use commonhold_space::View;
use commonhold_sync::Verdict;

use super::view::{device_view, view, window_path};
use crate::{OpenError, error::causes};

/// Longest look at the peers of one space. A fuzzer waits less.
const LOOK: Duration = Duration::from_millis(if cfg!(fuzzing) { 50 } else { 1000 });

/// How long a detaching peer may need between freeing its slot and removing its evidence of life.
const LEAVING: Duration = Duration::from_millis(20);
const PAUSE: Duration = Duration::from_millis(1);

/// Refuses a file on which a process holds a lock such as peers hold, whatever the bytes of the file say.
pub(super) fn refuse_locked(gate: &ExclusiveGate) -> Result<(), OpenError> {
    match gate.any_lock().map_err(causes::host)? {
        Some(lock) => Err(held(gate, lock)),
        None => Ok(()),
    }
}

/// Refuses a file in which a peer lives, or may live.
pub(super) fn refuse_used(gate: &ExclusiveGate) -> Result<(), OpenError> {
    let peek = gate.peek().map_err(causes::host)?;
    match view(peek, || gate.map(), gate.path().to_owned(), View::look) {
        Ok(view) => {
            refuse_living(&view, || gate.path().to_owned())?;
            refuse_strangers(&view, gate)
        }
        Err(OpenError::NotASpace { .. }) => {
            refuse_locked(gate)?;
            if gate.kind().locks_are_proof() {
                return Ok(());
            }
            let memory = gate.kind().to_string();
            Err(OpenError::Unknowable { path: gate.path().to_owned(), memory })
        }
        Err(error) => Err(error),
    }
}

/// Refuses a device whose space has a peer that lives, or may live. There is no file, and so no lock on one, to
/// prove anything.
pub(super) fn refuse_used_device(url: &Url) -> Result<(), OpenError> {
    match device_view(url) {
        Ok(view) => refuse_living(&view, || window_path(url)),
        Err(OpenError::NotASpace { path, .. }) => {
            Err(OpenError::Unknowable { path, memory: "memory of a device".to_owned() })
        }
        Err(error) => Err(error),
    }
}

/// Whether the peer in a slot lives, or is not known to be dead.
fn has_living(view: &View<LinuxPlatform>, peer: PeerId) -> bool {
    let state = view.peer_state(peer);
    matches!(state.phase, PeerPhase::Live | PeerPhase::Attaching)
        && view.verdict_of(PeerRef::new(peer, state.generation)) != Verdict::Dead
}

/// Refuses a space with a peer that is alive, or not known to be dead.
fn refuse_living(view: &View<LinuxPlatform>, path: impl Fn() -> PathBuf) -> Result<(), OpenError> {
    let began = Instant::now();
    let mut peers = 0;
    for peer in view.peer_ids() {
        peers += usize::from(has_living(view, peer));
        if began.elapsed() > LOOK {
            // A peer that was not examined may live.
            peers = peers.max(1);
            break;
        }
    }
    if peers > 0 { Err(OpenError::InUse { path: path(), peers }) } else { Ok(()) }
}

/// Refuses a file with a lock that may be the evidence of a living peer. The peers that the tables call alive have
/// been examined before. Of the rest, only the lock of a fenced peer is ignored: a child may have inherited it. Any
/// process that can read the file can hold such a lock.
fn refuse_strangers(view: &View<LinuxPlatform>, gate: &ExclusiveGate) -> Result<(), OpenError> {
    let is_dead = |lock: &FileLock| {
        let peer = lock.slot.map(PeerId::new);
        peer.is_some_and(|peer| view.peer_state(peer).phase == PeerPhase::Fenced)
    };
    let began = Instant::now();
    loop {
        let locks = gate.evidence(view.geometry().peers()).map_err(causes::host)?;
        match locks.iter().find(|lock| !is_dead(lock)) {
            None => return Ok(()),
            Some(lock) if began.elapsed() > LEAVING => return Err(held(gate, *lock)),
            // The peer has just freed its slot, and is removing its evidence.
            Some(_) => thread::sleep(PAUSE),
        }
    }
}

fn held(gate: &ExclusiveGate, lock: FileLock) -> OpenError {
    let FileLock { byte, slot, .. } = lock;
    OpenError::Held { path: gate.path().to_owned(), byte, slot, by: gate.holder_of(lock) }
}
