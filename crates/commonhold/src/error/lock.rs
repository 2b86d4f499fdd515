//! Why a lock was not taken.

use std::{error::Error, fmt};

use super::{ErrorKind, RegionError};

/// Any error: that of a repair which the caller has written.
pub type BoxError = Box<dyn Error + Send + Sync + 'static>;

/// The result of taking or freeing a lock.
pub type LockResult<T> = Result<T, LockError>;

/// Why a lock was not taken, or was not freed as asked. The lock is not held by the caller, unless it was before.
///
/// # Examples
/// Passing it on is right: the data that a dead owner left stay inconsistent until somebody repairs them.
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-lock-error-{}", std::process::id());
/// # let space = commonhold::Space::open_or_format(&url)?;
/// fn add(balance: &commonhold::Mutex<i64>, amount: i64) -> commonhold::LockResult<i64> {
///     let balance = balance.lock()?;
///     balance.set(balance.get() + amount);
///     Ok(balance.get())
/// }
/// let balance = space.record::<commonhold::Mutex<i64>>("balance")?;
/// assert!(add(&balance, 3)? >= 3);
/// # drop(balance);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum LockError {
    /// An owner died, or left, in the middle of a change, and nobody has repaired the data. The lock is free; a
    /// thread that can repair the data takes it by `lock_repairing` or `lock_recover`.
    OwnerDied(Box<LockPlace>),
    /// A participant of the barrier died, or left, before it arrived. Let another thread
    /// [join](crate::Barrier::join) in its place, and wait again: the caller's own arrival stands.
    ParticipantDied(Box<LockPlace>),
    /// The lock could not be taken in time.
    TimedOut(Box<LockPlace>),
    /// This thread holds the lock already, or would wait for itself.
    Deadlock(Box<LockPlace>),
    /// An owner gave the lock up: no thread can take it until it is reset.
    Unrecoverable(Box<LockPlace>),
    /// The data that a dead owner left could not be repaired. The lock is free, and as inconsistent as before.
    RepairFailed(Box<RepairFailed>),
    /// Others have declared this process dead, and its share of the space is gone: open it anew.
    Fenced,
    /// This process was made by `fork` after the space was opened: open it anew.
    Forked,
    /// An error of the region.
    Region(Box<RegionError>),
}

/// Which lock the error is about, and which owner.
///
/// # Examples
/// ```
/// use commonhold::{LockError, Mutex, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-lock-place-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let count = space.record::<Mutex<u64>>("count")?;
/// # count.lock_repairing(|_| Ok(()))?.leave_inconsistent()?;
/// match count.lock() {
///     Err(LockError::OwnerDied(place)) => {
///         // It says: the lock at offset 0 of the region "count" is to be repaired
///         eprintln!("{place} is to be repaired");
///         count.lock_repairing(|count| Ok(count.set(0)))?.unlock()?;
///     }
///     result => result?.unlock()?,
/// }
/// # drop(count);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockPlace {
    /// The region's name.
    pub region: String,
    /// Where in the region the lock lies, in bytes; `None`: it is the region's own.
    pub offset: Option<u64>,
    /// The owner, or the last owner, if it is known.
    pub owner: Option<OwnerInfo>,
}

/// The owner of a lock, or its last owner.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use commonhold::{LockError, Mutex, OwnerInfo, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-owner-info-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// fn tell(owner: &OwnerInfo) {
///     match owner.pid {
///         Some(pid) if !owner.is_foreign => eprintln!("waiting for process {pid}"),
///         _ => eprintln!("waiting for {owner}"),
///     }
/// }
/// let count = space.record::<Mutex<u64>>("count")?;
/// let guard = match count.lock_for(Duration::from_millis(100)) {
///     Err(LockError::TimedOut(place)) => {
///         place.owner.iter().for_each(tell);
///         count.lock()?
///     }
///     result => result?,
/// };
/// # drop(guard);
/// # drop(count);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OwnerInfo {
    /// Its peer slot.
    pub slot: u16,
    /// Its slot among the threads of that peer.
    pub thread: u16,
    /// Its process id in its own PID namespace, if its slot still holds it.
    pub pid: Option<u32>,
    /// Whether its PID namespace is not that of the caller: then `pid` means nothing here.
    pub is_foreign: bool,
    /// The name of its peer; empty if it is not known any more.
    pub name: String,
}

/// A repair that failed: of which lock, and why.
///
/// # Examples
/// ```
/// use commonhold::{LockError, Mutex, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-repair-failed-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let count = space.record::<Mutex<u64>>("count")?;
/// # count.lock_repairing(|_| Ok(()))?.leave_inconsistent()?;
/// match count.lock_repairing(|_| Err("there is no log to count anew".into())) {
///     // The mutex is free, and as inconsistent as before.
///     Err(LockError::RepairFailed(failed)) => eprintln!("{}: {}", failed.place, failed.error),
///     result => result?.unlock()?,
/// }
/// count.lock_repairing(|count| Ok(count.set(0)))?.unlock()?;
/// # drop(count);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct RepairFailed {
    /// The lock.
    pub place: LockPlace,
    /// The error of the repair.
    pub error: BoxError,
}

impl LockError {
    /// What it means for the caller.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::OwnerDied(_)
            | Self::ParticipantDied(_)
            | Self::Unrecoverable(_)
            | Self::RepairFailed(_) => ErrorKind::OwnerDied,
            Self::TimedOut(_) => ErrorKind::TimedOut,
            Self::Deadlock(_) => ErrorKind::InUse,
            Self::Fenced | Self::Forked => ErrorKind::Other,
            Self::Region(error) => error.kind(),
        }
    }

    /// The lock that the error is about, if it is about one.
    #[must_use]
    pub const fn place(&self) -> Option<&LockPlace> {
        match self {
            Self::OwnerDied(place)
            | Self::ParticipantDied(place)
            | Self::TimedOut(place)
            | Self::Deadlock(place)
            | Self::Unrecoverable(place) => Some(place),
            Self::RepairFailed(failed) => Some(&failed.place),
            Self::Fenced | Self::Forked | Self::Region(_) => None,
        }
    }
}

impl fmt::Display for LockPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.offset {
            Some(offset) => {
                write!(f, "the lock at offset {offset} of the region {:?}", self.region)
            }
            None => write!(f, "the lock of the region {:?}", self.region),
        }
    }
}

impl fmt::Display for OwnerInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "process {pid}")?,
            None => write!(f, "a process that had peer slot {}", self.slot)?,
        }
        if self.is_foreign {
            f.write_str(" of another PID namespace")?;
        }
        if !self.name.is_empty() {
            write!(f, " ({:?})", self.name)?;
        }
        Ok(())
    }
}

/// The owner that an error is about, or a general word for it.
struct By<'a>(&'a LockPlace, &'static str);

impl fmt::Display for By<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.owner {
            Some(owner) => owner.fmt(f),
            None => f.write_str(self.1),
        }
    }
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnerDied(place) => write!(
                f,
                "{} died, or left, in the middle of a change of what {place} protects; it must be repaired \
                 before further use",
                By(place, "an owner")
            ),
            Self::ParticipantDied(place) => write!(
                f,
                "{} died, or left, before it arrived at the barrier ({place}); let another thread join in its \
                 place, and wait again",
                By(place, "a participant")
            ),
            Self::TimedOut(place) => {
                write!(f, "{place} could not be taken in time")?;
                match &place.owner {
                    Some(owner) => write!(f, ": {owner} has it"),
                    None => Ok(()),
                }
            }
            Self::Deadlock(place) => {
                write!(f, "this thread has {place} already, or would wait for itself")
            }
            Self::Unrecoverable(place) => write!(
                f,
                "{place} was given up by {}; what it protects must be made anew, and the lock reset",
                By(place, "an owner")
            ),
            Self::RepairFailed(failed) => {
                write!(f, "what {} protects could not be repaired: {}", failed.place, failed.error)
            }
            Self::Fenced => f.write_str(super::FENCED),
            Self::Forked => f.write_str(super::FORKED),
            Self::Region(error) => error.fmt(f),
        }
    }
}

impl Error for LockError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::RepairFailed(failed) => Some(&*failed.error),
            Self::Region(error) => Some(error),
            _ => None,
        }
    }
}

impl From<RegionError> for LockError {
    fn from(error: RegionError) -> Self {
        match error {
            RegionError::Fenced => Self::Fenced,
            RegionError::Forked => Self::Forked,
            error => Self::Region(Box::new(error)),
        }
    }
}
