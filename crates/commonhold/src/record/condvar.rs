//! The condition variable as a record.

use std::{fmt, sync::Arc, time::Duration};

use commonhold_layout::{RecordKind, record_words};
use commonhold_sync as sync;
use commonhold_sync::Waited;
use yoke::Yokeable;

use super::{MutexGuard, Plan, Record, open};
use crate::{
    LockResult, Mapping, Plain, RegionError,
    region::{Handle, MappedRegion},
};

type Words = Plan<(), { record_words::CONDVAR }>;

/// A condition variable, with the address of its word.
#[derive(Debug, Clone, Copy, Yokeable)]
struct Found<'a> {
    region: &'a MappedRegion,
    condvar: sync::Condvar<'a>,
}

/// A condition variable in the bytes of a region: a thread frees a mutex, and waits until the data that it protects
/// may have changed.
///
/// As with any condition variable, a wait may end without a reason, so callers check their condition again. Here
/// every wait ends after a second at most, which makes deaths harmless:
/// - If the thread that should notify dies while it holds the mutex, a waiter takes the mutex within some 50 ms. It
///   repairs the data if its handle [knows how](crate::Mutex::repaired_by); otherwise it gets an error.
/// - If that thread dies after it frees the mutex, or another thread repairs the data and does not notify, the
///   waiter checks its condition within about a second.
/// - If a waiter dies, with or without a notification, the other waiters are notified all the same.
///
/// Notify while you hold the mutex, or afterwards; but change the condition only under the mutex.
///
/// # Examples
/// ```
/// use commonhold::{Condvar, Mutex, Space, records};
///
/// records! {
///     struct Inbox {
///         letters: Mutex<u64>,
///         arrived: Condvar,
///     }
/// }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-condvar-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// # let postman = space.clone();
/// # let postman = std::thread::spawn(move || {
/// #     let inbox = postman.record::<Inbox>("inbox")?;
/// #     // Elsewhere: a letter, and a notification.
/// #     inbox.letters.lock_repairing(|_| Ok(()))?.with_mut(|letters| *letters += 1);
/// #     inbox.arrived.notify_one()
/// # });
/// let inbox = space.record::<Inbox>("inbox")?;
/// // A number is never half changed: the data are consistent even if the postman is killed with the mutex.
/// let letters = inbox.letters.repaired_by(|_| Ok(()));
/// let guard = inbox.arrived.wait_while(letters.lock()?, |letters| letters.get() == 0)?;
/// guard.with_mut(|letters| *letters -= 1);
/// # drop(guard);
/// # postman.join().map_err(|_| "the thread panicked")??;
/// # drop((letters, inbox.arrived));
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Condvar {
    found: Handle<Found<'static>>,
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condvar").finish_non_exhaustive()
    }
}

impl Condvar {
    /// Its size in bytes, a multiple of 8.
    pub const SIZE: u64 = Words::SIZE;
}

impl Record for Condvar {
    const SIZE: u64 = Words::SIZE;

    fn open(mapping: &Mapping, offset: u64) -> Result<Self, RegionError> {
        let found = MappedRegion::find(mapping.region(), |region| {
            let opened = open::<(), _>(region, offset, RecordKind::Condvar)?;
            let [word] = opened.words;
            Ok(Found { region, condvar: sync::Condvar::new(word, opened.at) })
        })?;
        Ok(Self { found })
    }
}

impl Condvar {
    /// Wakes one waiter. The other waiters also check their condition, a little later.
    ///
    /// # Errors
    /// [`LockError::Forked`](crate::LockError::Forked), [`LockError::Fenced`](crate::LockError::Fenced).
    pub fn notify_one(&self) -> LockResult<()> {
        let Found { region, condvar } = self.found.get();
        let attachment = region.attachment();
        condvar.notify_one(&attachment.me()?, attachment.my_view());
        Ok(())
    }

    /// Wakes all waiters.
    ///
    /// # Errors
    /// As for [`notify_one`](Self::notify_one).
    pub fn notify_all(&self) -> LockResult<()> {
        let Found { region, condvar } = self.found.get();
        let attachment = region.attachment();
        condvar.notify_all(&attachment.me()?, attachment.my_view());
        Ok(())
    }

    /// Frees the mutex of `guard`, waits to be notified, and takes the mutex again.
    ///
    /// # Errors
    /// As for [`Mutex::lock`](crate::Mutex::lock); [`RegionError::OtherSpace`] if the mutex was opened through
    /// another [`Space`](crate::Space). After an error the mutex is not held.
    pub fn wait<'m, T: Plain>(&self, guard: MutexGuard<'m, T>) -> LockResult<MutexGuard<'m, T>> {
        self.wait_until(guard, None).map(|(guard, _)| guard)
    }

    /// As [`wait`](Self::wait), but waits for a notification for `timeout` at most; the wait for the mutex has no
    /// limit. A timeout of 0 only lets other threads take the mutex in between.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait). A timeout is no error, because the mutex is held then.
    pub fn wait_for<'m, T: Plain>(
        &self,
        guard: MutexGuard<'m, T>,
        timeout: Duration,
    ) -> LockResult<(MutexGuard<'m, T>, Waited)> {
        let deadline = self.found.get().region.attachment().deadline(timeout);
        self.wait_until(guard, Some(deadline))
    }

    /// Waits as long as `condition` is true.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait), whatever the condition says.
    pub fn wait_while<'m, T: Plain>(
        &self,
        mut guard: MutexGuard<'m, T>,
        condition: impl Fn(&MutexGuard<'m, T>) -> bool,
    ) -> LockResult<MutexGuard<'m, T>> {
        while condition(&guard) {
            guard = self.wait(guard)?;
        }
        Ok(guard)
    }

    fn wait_until<'m, T: Plain>(
        &self,
        guard: MutexGuard<'m, T>,
        deadline: Option<u64>,
    ) -> LockResult<(MutexGuard<'m, T>, Waited)> {
        let Found { region, condvar } = self.found.get();
        let attachment = region.attachment();
        if !Arc::ptr_eq(attachment, guard.region().attachment()) {
            return Err(RegionError::OtherSpace.into());
        }
        let me = attachment.me()?;
        guard.lend(&me, |mutex| condvar.wait(mutex, &me, attachment.my_view(), deadline))
    }
}
