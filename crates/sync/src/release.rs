//! How an owner frees a lock, and what the lock's word then tells the next owner.

use commonhold_layout::{LockFlags, LockWord, Owner};

use crate::Taken;

/// How an owner frees a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// In order; but if it is still inconsistent, it stays so.
    Done,
    /// Inconsistent: the next owner is told that its predecessor did not finish.
    Inconsistent,
    /// Inconsistent, as it was found: the next owner is told of the same dead owner as this one was.
    AsFound(Option<Owner>),
    /// Nobody can take it any more, unless it is [reset](crate::Mutex::reset). A permit or a barrier slot cannot be
    /// given up: it is left inconsistent.
    GivenUp,
}

impl Release {
    /// How to give back, unchanged, a lock that was taken as `taken`.
    #[inline]
    #[must_use]
    pub const fn unchanged(taken: Taken) -> Self {
        match taken {
            Taken::Clean => Self::Done,
            Taken::OwnerDied(who) => Self::AsFound(who),
        }
    }

    /// The word after `me` has freed it so. `inconsistent`: it was inconsistent when it was taken, and still is.
    pub(crate) const fn left(self, me: Owner, inconsistent: bool) -> LockWord {
        match self {
            Self::Done if !inconsistent => LockWord::FREE,
            Self::Done | Self::Inconsistent => LockWord::left(me, LockFlags::INCONSISTENT),
            Self::AsFound(Some(who)) => LockWord::left(who, LockFlags::INCONSISTENT),
            Self::AsFound(None) => LockWord::unowned(LockFlags::INCONSISTENT),
            Self::GivenUp => LockWord::left(me, LockFlags::UNRECOVERABLE),
        }
    }

    /// The owner slot after `me` has given it back so. A slot is never lost: one that is given up is left
    /// inconsistent, since others need it.
    pub(crate) const fn left_slot(self, me: Owner) -> LockWord {
        match self {
            Self::GivenUp => Self::Inconsistent.left(me, false),
            how => how.left(me, false),
        }
    }
}
