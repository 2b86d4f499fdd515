//! How an owner frees a lock, and what its word tells the next owner then.

use commonhold_layout::{LockFlags, LockWord, Owner};

use crate::Taken;

/// How an owner frees a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// In order; but if it is still inconsistent, it stays so.
    Done,
    /// Inconsistent: the next owner is told that its predecessor did not finish.
    Inconsistent,
    /// Inconsistent, as it was found: the next owner is told of the one that this one was told of.
    AsFound(Option<Owner>),
    /// Nobody can take it any more, unless it is [reset](crate::Mutex::reset). Of a permit, or a place in a barrier, there is
    /// no such end: it is left inconsistent.
    GivenUp,
}

impl Release {
    /// How to give back, unchanged, what was taken so.
    #[inline]
    #[must_use]
    pub const fn unchanged(taken: Taken) -> Self {
        match taken {
            Taken::Clean => Self::Done,
            Taken::OwnerDied(who) => Self::AsFound(who),
        }
    }

    /// What a word says that `me` frees so; `inconsistent`: it was so when it was taken, and is still.
    pub(crate) const fn left(self, me: Owner, inconsistent: bool) -> LockWord {
        match self {
            Self::Done if !inconsistent => LockWord::FREE,
            Self::Done | Self::Inconsistent => LockWord::left(me, LockFlags::INCONSISTENT),
            Self::AsFound(Some(who)) => LockWord::left(who, LockFlags::INCONSISTENT),
            Self::AsFound(None) => LockWord::unowned(LockFlags::INCONSISTENT),
            Self::GivenUp => LockWord::left(me, LockFlags::UNRECOVERABLE),
        }
    }

    /// What a place says that `me` gives back so. Others could not do without it: one that is given up tells the
    /// next, and is not lost.
    pub(crate) const fn left_place(self, me: Owner) -> LockWord {
        match self {
            Self::GivenUp => Self::Inconsistent.left(me, false),
            how => how.left(me, false),
        }
    }
}
