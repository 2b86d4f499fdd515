//! A held lock whose data may be half changed.

use std::{fmt, ops::Deref};

use commonhold_sync::Release;

use crate::{BoxError, LockError, LockPlace, LockResult, RepairFailed};

/// What [`Inconsistent`] needs of an exclusive guard.
pub(crate) trait Guard {
    /// Marks the data as consistent.
    fn set_consistent(&self) -> LockResult<()>;

    /// Frees the lock.
    fn free(self, how: Release) -> LockResult<()>;
}

/// The guards under which data can be repaired. Other crates cannot implement it.
///
/// # Examples
/// ```
/// use commonhold::{LockResult, Mutex, Recovered, Repairable, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-repairable-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// /// Takes a lock over data that are written in one piece, and so are never half changed.
/// fn whole<G: Repairable>(taken: Recovered<G>) -> LockResult<G> {
///     match taken {
///         Recovered::Consistent(guard) => Ok(guard),
///         Recovered::Inconsistent(guard) => guard.mark_consistent(),
///     }
/// }
/// let count = space.record::<Mutex<u64>>("count")?;
/// whole(count.lock_recover()?)?.with_mut(|count| *count += 1);
/// # drop(count);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[allow(private_bounds, reason = "keeps other crates from implementing it")]
pub trait Repairable: Guard {}

impl<G: Guard> Repairable for G {}

/// A lock that was taken in any state.
///
/// # Examples
/// ```
/// use commonhold::{Mutex, Recovered, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-recovered-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let pair = space.record::<Mutex<[u64; 2]>>("pair")?;
/// let guard = match pair.lock_recover()? {
///     Recovered::Consistent(guard) => guard,
///     Recovered::Inconsistent(guard) => {
///         eprintln!("{:?} was killed half way: both begin anew", guard.place().owner);
///         guard.set([0, 0]);
///         guard.mark_consistent()?
///     }
/// };
/// guard.at(0)?.with_mut(|number| *number += 1);
/// guard.at(1)?.with_mut(|number| *number += 1);
/// # drop(guard);
/// # drop(pair);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "the lock is freed when this is dropped"]
pub enum Recovered<G> {
    /// The data are consistent.
    Consistent(G),
    /// An owner died, or left, in the middle of a change.
    Inconsistent(Inconsistent<G>),
}

/// A guard of a lock whose last owner died, or left, in the middle of a change. It is used like the guard itself,
/// to read and to repair the data. Dropping it frees the lock and leaves it inconsistent.
///
/// # Examples
/// ```
/// use commonhold::{Mutex, Recovered};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-inconsistent-{}", std::process::id());
/// # let space = commonhold::Space::open_or_format(&url)?;
/// let pair = space.record::<Mutex<[u64; 2]>>("pair")?;
/// # { let guard = pair.lock_repairing(|_| Ok(()))?; guard.at(0)?.set(7); guard.leave_inconsistent()?; }
/// let guard = match pair.lock_recover()? {
///     Recovered::Consistent(guard) => guard,
///     Recovered::Inconsistent(guard) => {
///         // The last owner wrote the first number, and died before it wrote the second.
///         guard.at(1)?.set(guard.at(0)?.get());
///         guard.mark_consistent()?
///     }
/// };
/// assert_eq!(guard.get(), [7, 7]);
/// # drop(guard);
/// # drop(pair);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[must_use = "the lock is freed, and stays inconsistent, when this is dropped"]
pub struct Inconsistent<G> {
    guard: G,
    place: Box<LockPlace>,
}

impl<G: fmt::Debug> fmt::Debug for Inconsistent<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inconsistent")
            .field("guard", &self.guard)
            .field("place", &self.place)
            .finish()
    }
}

impl<G> Deref for Inconsistent<G> {
    type Target = G;

    fn deref(&self) -> &G {
        &self.guard
    }
}

impl<G> Inconsistent<G> {
    pub(crate) const fn new(guard: G, place: Box<LockPlace>) -> Self {
        Self { guard, place }
    }

    /// Which lock it is, and which owner left it so, if that is known.
    pub const fn place(&self) -> &LockPlace {
        &self.place
    }
}

impl<G: Repairable> Inconsistent<G> {
    /// Marks the data as repaired.
    ///
    /// # Errors
    /// [`LockError::Fenced`] if this process was declared dead meanwhile, [`LockError::Forked`].
    pub fn mark_consistent(self) -> LockResult<G> {
        self.guard.set_consistent()?;
        Ok(self.guard)
    }

    /// Calls `repair` to repair the data, and marks them as repaired. If `repair` fails or panics, the lock stays
    /// inconsistent.
    ///
    /// # Errors
    /// [`LockError::RepairFailed`], and as for [`mark_consistent`](Self::mark_consistent). In either case the lock
    /// is free.
    pub fn repair(self, repair: impl FnOnce(&G) -> Result<(), BoxError>) -> LockResult<G> {
        match repair(&self.guard) {
            Ok(()) => self.mark_consistent(),
            Err(error) => {
                Err(LockError::RepairFailed(Box::new(RepairFailed { place: *self.place, error })))
            }
        }
    }

    /// Gives the lock up: no thread can take it until one makes the data anew and resets the lock.
    ///
    /// # Errors
    /// As for [`mark_consistent`](Self::mark_consistent).
    pub fn give_up(self) -> LockResult<()> {
        self.guard.free(Release::GivenUp)
    }
}
