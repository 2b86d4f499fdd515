//! Whether nobody uses what is to be removed or formatted over.
//!
//! # Invariants
//! 1. *Unreadable is not unused.* Evidence of life lies on the file, not in its bytes, so it counts in every
//!    version of the format, and whatever the bytes have become.
//! 2. Of a file, it is asked under the gate, so the answer holds until the gate is given up.
//! 3. Looking takes a bounded time, however large the tables are.
//!
//! # What it does not do
//! It keeps nobody out: `commonhold_host::ExclusiveGate` does.

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

/// Longest look at the peers of one space. A fuzzer has better things to do.
const LOOK: Duration = Duration::from_millis(if cfg!(fuzzing) { 50 } else { 1000 });

/// How long one who is leaving may need from freeing its slot to taking its evidence away.
const LEAVING: Duration = Duration::from_millis(20);
const PAUSE: Duration = Duration::from_millis(1);

/// Refuses a file that anybody has locked as peers do, whatever its bytes say.
pub(super) fn refuse_locked(gate: &ExclusiveGate) -> Result<(), OpenError> {
    match gate.any_lock().map_err(causes::host)? {
        Some(lock) => Err(held(gate, lock)),
        None => Ok(()),
    }
}

/// Refuses a file in which anybody lives, or may live.
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

/// Refuses a device that holds a space in which anybody lives, or may live. It has no file, and so no
/// evidence on one.
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

/// Refuses if any peer is alive, or not known to be dead.
fn refuse_living(view: &View<LinuxPlatform>, path: impl Fn() -> PathBuf) -> Result<(), OpenError> {
    let began = Instant::now();
    let mut peers = 0;
    for peer in view.peer_ids() {
        peers += usize::from(has_living(view, peer));
        if began.elapsed() > LOOK {
            // Those who were not asked may live.
            peers = peers.max(1);
            break;
        }
    }
    if peers > 0 { Err(OpenError::InUse { path: path(), peers }) } else { Ok(()) }
}

/// Refuses if there is the evidence of somebody who is not proved dead. (All whom the tables call alive have been
/// asked, also those who have a lock that whoever can read the file can have. A child may keep the lock of one who is dead.)
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
            // The slot is free: its peer has left it just now, and is taking its evidence away.
            Some(_) => thread::sleep(PAUSE),
        }
    }
}

fn held(gate: &ExclusiveGate, lock: FileLock) -> OpenError {
    let FileLock { byte, slot, .. } = lock;
    OpenError::Held { path: gate.path().to_owned(), byte, slot, by: gate.holder_of(lock) }
}
