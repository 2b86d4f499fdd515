//! Peers of other kernels: whether they still live, and what to do if nobody can know.
//!
//! Within one kernel a death is proved. Between kernels that share nothing but memory there is only
//! the heartbeat, which says that somebody lives and never that somebody is dead.

use std::{
    thread,
    time::{Duration, Instant},
};

use commonhold_layout::PeerId;
use commonhold_space::PeerRecord;
use commonhold_sync::Verdict;

use crate::{PeerInfoBrief, RegionError, Space};

/// Pause between two looks at hearts.
const LOOK: Duration = Duration::from_millis(10);
/// For how long hearts are listened to. One that is silent so long is suspect, unless something else shows that
/// its peer lives: a stopped process whose heart stands still is alive, and stays so.
const LONGEST: Duration = Duration::from_millis(1500);

impl Space {
    /// Listens until it is known of every peer whose life can be told by its heartbeat only, whether
    /// the heart beats: some 250 ms if all do, and a second if one is silent. A process that has just
    /// attached has heard nobody yet, and takes everybody to be alive; one that stays knows already. It ends
    /// after a second and a half in any case.
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
                // A look at each may take some system calls, and there may be thousands of them.
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

    /// Declares the peer in a slot dead, on the word of the caller, who knows better than this kernel
    /// can: that the machine it ran on is gone. What it had locked can be taken over, as from any dead
    /// owner; [`reap`](Self::reap) frees the rest. Listens to its heart for a second first.
    ///
    /// If it lives after all, and was only stopped, it may be in the middle of a write, and will go on
    /// with it when it wakes up; the next call that it makes tells it that it was declared dead.
    ///
    /// # Errors
    /// [`RegionError::PeerLives`] if there is a sign of life, or proof, or it is this process itself;
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
