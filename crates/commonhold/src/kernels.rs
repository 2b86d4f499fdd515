//! Peers of other kernels: whether they still live, and what to do if that cannot be known.
//!
//! Within one kernel, deaths are proved. Kernels that share nothing but memory see only each other's heartbeats: a
//! heartbeat shows that a peer lives, but its absence does not prove that the peer is dead.

use std::{
    thread,
    time::{Duration, Instant},
};

use commonhold_layout::PeerId;
use commonhold_space::PeerRecord;
use commonhold_sync::Verdict;

use crate::{PeerInfoBrief, RegionError, Space};

/// Pause between two looks at heartbeats.
const LOOK: Duration = Duration::from_millis(10);
/// How long [`Space::listen`] listens. A peer that is silent for so long is suspect, unless something else proves
/// that it lives: a stopped process has no heartbeat, but is alive.
const LONGEST: Duration = Duration::from_millis(1500);

impl Space {
    /// Listens to the peers that have no other proof of life than their heartbeat, until each has beaten or is
    /// suspect. This takes some 250 ms if all of them beat, a second if one is silent, and 1.5 s at most. A process
    /// that has just attached has heard no heartbeat yet, and takes every peer to be alive; a process that has been
    /// attached for a while knows already.
    ///
    /// # Errors
    /// [`RegionError::Forked`].
    pub fn listen(&self) -> Result<(), RegionError> {
        let unproven = self.attachment().core()?.unproven().collect();
        self.listen_to(unproven)
    }

    fn listen_to(&self, mut unheard: Vec<PeerRecord>) -> Result<(), RegionError> {
        let view = self.attachment().view()?;
        let end = Instant::now() + LONGEST;
        loop {
            unheard.retain(|before| {
                // Each look may take some system calls, and there may be thousands of peers.
                if Instant::now() >= end {
                    return false;
                }
                let now = view.peer_record(before.peer).map(|(now, _)| now);
                let silent = now.is_some_and(|now| {
                    (now.generation, now.heartbeat) == (before.generation, before.heartbeat)
                });
                silent && view.verdict_on(before) == Verdict::Alive
            });
            if unheard.is_empty() {
                return Ok(());
            }
            thread::sleep(LOOK);
        }
    }

    /// Declares the peer in a slot dead, because the caller knows what this kernel cannot: that the machine of that
    /// peer is gone. Others can take over its locks, as those of any dead owner; [`reap`](Self::reap) frees the
    /// rest. This listens for the peer's heartbeat first, for a second.
    ///
    /// If the peer lives after all, and was only stopped, it may be in the middle of a write, and goes on with it
    /// when it wakes up. Its next call tells it that it was declared dead.
    ///
    /// # Errors
    /// [`RegionError::PeerLives`] if there is a heartbeat or a proof of life, or the slot is this process's own;
    /// [`RegionError::NoPeer`].
    pub fn assume_dead(&self, slot: u16) -> Result<PeerInfoBrief, RegionError> {
        let view = self.attachment().view()?;
        let Some((record, _)) = view.peer_record(PeerId::new(slot)) else {
            return Err(RegionError::NoPeer { slot });
        };
        let lives = || Err(RegionError::PeerLives { slot, pid: record.identity.pid });
        if self.attachment().peer() == (slot, record.generation) {
            return lives();
        }
        let unproven = self.attachment().core()?.unproven();
        self.listen_to(unproven.filter(|other| other.peer == record.peer).collect())?;
        match view.verdict_on(&record) {
            Verdict::Alive => return lives(),
            Verdict::Suspect => drop(view.assume_dead(record.peer, record.generation)),
            Verdict::Dead => {}
        }
        Ok(PeerInfoBrief::new(&record))
    }
}
