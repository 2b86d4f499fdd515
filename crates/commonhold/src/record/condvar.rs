//! The condition variable as a record.

use std::{fmt, sync::Arc, time::Duration};

use commonhold_layout::{RecordKind, record_words};
use commonhold_sync as sync;
use commonhold_sync::{Taken, Waited};

use super::{MutexGuard, Plain, Plan, Record, open};
use crate::{LockError, Mapping, RegionError, lock::refused};

type Words = Plan<(), { record_words::CONDVAR }>;

/// A condition variable in the bytes of a region: waits, without a mutex, until what the mutex protects may
/// have become as wanted.
///
/// As everywhere a wait may end for no reason, so the condition is looked at again. Here it does so once a
/// second, and that is what makes deaths harmless:
/// - If whoever should notify dies with the mutex, the waiter has the mutex within 50 ms or so, and is told, by
///   [`LockError::OwnerDied`].
/// - If it dies after it freed the mutex, or whoever repaired the data does not know that somebody waits, the
///   waiter looks again within about a second.
/// - If one who waits dies, with or without a notification, the others are notified all the same.
///
/// Notify while you hold the mutex, or after; but change the condition under the mutex.
///
/// # Examples
/// ```
/// use commonhold::{Access, Condvar, LockError, Mutex, Space, records};
///
/// records! {
///     struct Inbox<'a> {
///         letters: Mutex<'a, u64>,
///         arrived: Condvar<'a>,
///     }
/// }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-condvar-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// space.create("inbox", Inbox::SIZE)?;
/// # let postman = space.clone();
/// # let postman = std::thread::spawn(move || {
/// #     let mapping = postman.map("inbox", Access::ReadWrite).unwrap();
/// #     let inbox = mapping.open::<Inbox>(0).unwrap();
/// #     // Elsewhere: a letter, and a notification.
/// #     inbox.letters.lock().unwrap().update(|letters| *letters += 1).unwrap();
/// #     inbox.arrived.notify_one().unwrap();
/// # });
/// let mapping = space.map("inbox", Access::ReadWrite)?;
/// let inbox = mapping.open::<Inbox>(0)?;
/// let mut guard = inbox.letters.lock().map_err(|error| error.to_string())?;
/// while guard.get()? == 0 {
///     guard = match inbox.arrived.wait(guard) {
///         Ok(guard) => guard,
///         Err(LockError::OwnerDied(guard)) => {
///             // The postman was killed while it had the mutex. Look after the data, and go on.
///             guard.mark_consistent()?;
///             guard
///         }
///         Err(error) => return Err(error.to_string().into()),
///     };
/// }
/// guard.update(|letters| *letters -= 1)?;
/// # drop(guard);
/// # postman.join().unwrap();
/// # drop(mapping);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// # use commonhold::Record as _;
/// ```
#[derive(Clone, Copy)]
pub struct Condvar<'a> {
    mapping: &'a Mapping,
    condvar: sync::Condvar<'a>,
}

impl fmt::Debug for Condvar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condvar").finish_non_exhaustive()
    }
}

impl Condvar<'_> {
    /// Bytes that it takes, a multiple of 8.
    pub const SIZE: u64 = Words::SIZE;
}

impl<'a> Record<'a> for Condvar<'a> {
    const SIZE: u64 = Words::SIZE;

    fn open(mapping: &'a Mapping, offset: u64) -> Result<Self, RegionError> {
        let opened = open::<(), _>(mapping, offset, RecordKind::Condvar)?;
        let [word] = opened.words;
        Ok(Self { mapping, condvar: sync::Condvar::new(word, opened.at) })
    }
}

/// A guard that was had again, and whether it was in time.
type Woken<'m, T> = Result<(MutexGuard<'m, T>, Waited), LockError<MutexGuard<'m, T>>>;

impl Condvar<'_> {
    /// Wakes one who waits. Others who wait look at the condition too, a little later.
    ///
    /// # Errors
    /// [`RegionError::Forked`].
    pub fn notify_one(&self) -> Result<(), RegionError> {
        let attachment = self.mapping.attachment();
        self.condvar.notify_one(&attachment.me()?, attachment.view()?);
        Ok(())
    }

    /// Wakes all who wait.
    ///
    /// # Errors
    /// [`RegionError::Forked`].
    pub fn notify_all(&self) -> Result<(), RegionError> {
        let attachment = self.mapping.attachment();
        self.condvar.notify_all(&attachment.me()?, attachment.view()?);
        Ok(())
    }

    /// Frees the mutex of `guard`, waits to be notified, and takes the mutex again.
    ///
    /// If the mutex was [inconsistent](MutexGuard::is_inconsistent), it stays so, and whoever takes it next
    /// is told.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`] hands over the guard, as [`Mutex::lock`](crate::Mutex::lock) does. With all
    /// others the mutex is not held any more: [`LockError::Unrecoverable`]; [`RegionError::OtherSpace`] if
    /// the mutex was opened through another [`Space`](crate::Space); [`RegionError::Fenced`].
    pub fn wait<'m, T: Plain>(
        &self,
        guard: MutexGuard<'m, T>,
    ) -> Result<MutexGuard<'m, T>, LockError<MutexGuard<'m, T>>> {
        self.wait_until(guard, None).map(|(guard, _)| guard)
    }

    /// As [`wait`](Self::wait), so long at most; but the mutex is waited for as long as it takes. With a
    /// timeout of 0 others get the mutex in between, and no more.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait). That the time is up is no error, since the mutex is held.
    pub fn wait_for<'m, T: Plain>(
        &self,
        guard: MutexGuard<'m, T>,
        timeout: Duration,
    ) -> Woken<'m, T> {
        self.wait_until(guard, Some(self.mapping.attachment().deadline(timeout)))
    }

    /// Waits as long as `condition` is true of the data, and until their mutex is held.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait); [`LockError::OwnerDied`] whatever the condition says.
    pub fn wait_while<'m, T: Plain>(
        &self,
        mut guard: MutexGuard<'m, T>,
        condition: impl Fn(&T) -> bool,
    ) -> Result<MutexGuard<'m, T>, LockError<MutexGuard<'m, T>>> {
        while condition(&guard.get()?) {
            guard = self.wait(guard)?;
        }
        Ok(guard)
    }

    fn wait_until<'m, T: Plain>(
        &self,
        guard: MutexGuard<'m, T>,
        deadline: Option<u64>,
    ) -> Woken<'m, T> {
        let attachment = self.mapping.attachment();
        if !Arc::ptr_eq(attachment, guard.mapping().attachment()) {
            return Err(RegionError::OtherSpace.into());
        }
        let me = attachment.me()?;
        let lent =
            guard.lend(&me, |mutex| self.condvar.wait(mutex, &me, attachment.my_view(), deadline));
        match lent.map_err(refused)? {
            (guard, (Taken::Clean, waited)) => Ok((guard, waited)),
            (guard, (Taken::OwnerDied, _)) => Err(LockError::OwnerDied(guard)),
        }
    }
}
