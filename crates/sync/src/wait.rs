//! One wait for a lock, from its first look to its end.

use commonhold_layout::{LockWord, Owner};

use crate::Park;

/// What a waiter has been through; it decides whether it may barge, and when it looks for evidence.
#[derive(Debug, Default)]
pub(crate) struct Wait {
    turn: u32,
    /// It has slept: it may be the one that a wake-up was meant for.
    pub(crate) parked: bool,
    /// How often it has slept.
    pub(crate) losses: u32,
    /// It has raised the starving flag.
    pub(crate) raised: bool,
    /// Who had the lock when it last went to sleep.
    pub(crate) last_owner: Option<Owner>,
}

impl Wait {
    pub(crate) fn spin(&mut self, env: &impl Park) -> bool {
        let more = env.spin(self.turn);
        self.turn = self.turn.saturating_add(1);
        more
    }

    pub(crate) fn slept(&mut self) {
        self.parked = true;
        self.losses = self.losses.saturating_add(1);
        self.turn = 0;
    }
}

/// What a waiter does next about a word that somebody owns.
#[derive(Debug)]
pub(crate) enum Step {
    /// Look again.
    Again,
    /// The owner has been fenced: take the word from it.
    Dead,
    /// Sleep while the word is this, until then.
    Sleep(LockWord, u64),
}
