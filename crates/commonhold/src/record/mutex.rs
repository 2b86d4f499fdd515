//! The mutex with its data.

use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use commonhold_layout::{LockWord, RecordKind};
use commonhold_sync as sync;
use commonhold_sync::{Release, Taken};
use commonhold_window::Run;
use yoke::Yokeable;

use super::{Plan, Record, open, takes::takes};
use crate::{
    BoxError, LockResult, Mapping, Part, Plain, RawMutexGuard, Recovered, RegionError,
    data::{Gate, Span, reads, writes},
    lock::{
        Denied, Guard, RawWords, Site,
        take::{self, Exclusive, Repair},
    },
    region::{Handle, MappedRegion},
};

type Words<T> = Plan<T, { commonhold_layout::record_words::MUTEX }>;

/// The parts of a mutex, with their addresses.
#[derive(Debug, Clone, Copy, Yokeable)]
struct Found<'a> {
    raw: RawWords<'a>,
    data: Run<'a>,
}

/// A repair of the data of a mutex.
type Repairer<T> = dyn Fn(&MutexGuard<'_, T>) -> Result<(), BoxError> + Send + Sync;

/// A mutex and the `T` that it protects, in the bytes of a region. It can be kept in a struct, cloned, and sent to
/// other threads; it keeps its region mapped.
///
/// If its owner dies, the mutex is free at once, and inconsistent: every thread that takes it gets
/// [`LockError::OwnerDied`](crate::LockError::OwnerDied), until one repairs the data. The death of a waiter does
/// nothing.
///
/// # Examples
/// A thread may be killed after it has written half of the pair. This repairs the pair, for all ways to lock:
/// ```
/// use commonhold::{Mutex, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-typed-mutex-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let pair = space.record::<Mutex<[u64; 2]>>("pair")?.repaired_by(|pair| {
///     pair.at(1)?.set(pair.at(0)?.get());
///     Ok(())
/// });
/// let guard = pair.lock()?;
/// guard.with_mut(|pair| *pair = [pair[0] + 1, pair[1] + 1]);
/// assert_eq!(guard.at(0)?.get(), guard.at(1)?.get());
/// # drop(guard);
/// # drop(pair);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
///
/// A guard belongs to its thread:
/// ```compile_fail,E0277
/// fn sent<T: Send>(_: T) {}
/// fn other(mutex: commonhold::Mutex<u64>) {
///     sent(mutex.lock());
/// }
/// ```
pub struct Mutex<T: Plain> {
    found: Handle<Found<'static>>,
    repair: Option<Arc<Repairer<T>>>,
    of: PhantomData<fn() -> T>,
}

impl<T: Plain> Clone for Mutex<T> {
    fn clone(&self) -> Self {
        Self { found: self.found.clone(), repair: self.repair.clone(), of: PhantomData }
    }
}

impl<T: Plain> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").field("at", &self.site().at).finish_non_exhaustive()
    }
}

impl<T: Plain> Record for Mutex<T> {
    const SIZE: u64 = Words::<T>::SIZE;

    fn open(mapping: &Mapping, offset: u64) -> Result<Self, RegionError> {
        let found = MappedRegion::find(mapping.region(), |region| {
            let opened = open::<T, _>(region, offset, RecordKind::Mutex)?;
            let [word] = opened.words;
            let raw = RawWords::new(region, sync::Mutex::new(word, opened.at))?;
            Ok(Found { raw, data: opened.data })
        })?;
        Ok(Self { found, repair: None, of: PhantomData })
    }
}

impl<'a, T: Plain> Exclusive<'a> for &'a Mutex<T> {
    type Held = LockWord;
    type Guard = MutexGuard<'a, T>;

    fn site(self) -> Site<'a> {
        self.raw().site()
    }

    fn look(self) -> LockWord {
        self.raw().look()
    }

    fn take(self, deadline: Option<u64>) -> Result<(LockWord, Taken), Denied> {
        self.raw().take(deadline)
    }

    #[inline(always)]
    fn guard(self, held: LockWord) -> MutexGuard<'a, T> {
        MutexGuard { mutex: self, raw: self.raw().guard(held) }
    }

    fn repair(self) -> Option<Repair<'a, Self::Guard>> {
        match &self.repair {
            Some(repair) => Some(&**repair),
            None => None,
        }
    }
}

impl<T: Plain> Mutex<T> {
    /// Its size in bytes, a multiple of 8.
    pub const SIZE: u64 = Words::<T>::SIZE;
    /// The offset of its `T` in these bytes.
    pub const DATA: u64 = Words::<T>::DATA;

    #[inline(always)]
    fn raw(&self) -> &RawWords<'_> {
        &self.found.get().raw
    }

    fn deadline(&self, timeout: Duration) -> Option<u64> {
        Some(self.raw().region().attachment().deadline(timeout))
    }

    /// The same mutex, with a repair of its data. Every method that takes the mutex by this handle, also after
    /// waiting for a condition, repairs inconsistent data first. If the repair fails, or panics, the mutex stays
    /// inconsistent.
    #[must_use]
    pub fn repaired_by(
        self,
        repair: impl Fn(&MutexGuard<'_, T>) -> Result<(), BoxError> + Send + Sync + 'static,
    ) -> Self {
        Self { repair: Some(Arc::new(repair)), ..self }
    }

    #[inline(always)]
    fn take_quickly(&self) -> Option<MutexGuard<'_, T>> {
        Some(MutexGuard { mutex: self, raw: self.raw().lock_quickly()? })
    }

    /// Takes the mutex, and waits for it without a limit.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`](crate::LockError::OwnerDied) if an owner died, or left, in the middle of a change:
    /// the mutex is free, and stays inconsistent until it is repaired. [`Deadlock`](crate::LockError::Deadlock) if
    /// this thread holds it; [`Unrecoverable`](crate::LockError::Unrecoverable).
    #[inline(always)]
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        match self.take_quickly() {
            Some(guard) => Ok(guard),
            None => self.take_until(None),
        }
    }

    /// Makes the mutex as good as new. The data stay as they are.
    ///
    /// # Errors
    /// [`LockError::TimedOut`](crate::LockError::TimedOut) if an owner has it.
    pub fn reset(&self) -> LockResult<()> {
        self.raw().reset()
    }
}

takes!(Mutex, MutexGuard, as "[`lock`](Self::lock)", try_lock, lock_for, lock_repairing, lock_recover, lock_recover_for);

/// A mutex that this thread holds: the access to its data.
///
/// It borrows its [`Mutex`], as guards of `std` do. In edition 2021 a guard in the last expression of a function
/// outlives the function's variables. If the mutex is one of them, `Ok(mutex.lock()?.get())` compiles only from
/// edition 2024 on; in edition 2021 write `let now = mutex.lock()?.get(); Ok(now)`.
///
/// # Examples
/// ```
/// use commonhold::{Mutex, MutexGuard, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-mutex-guard-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let pair = space.record::<Mutex<[u64; 2]>>("pair")?.repaired_by(|pair| {
///     pair.at(0)?.set(pair.at(1)?.get()); // the second is written last
///     Ok(())
/// });
/// let guard: MutexGuard<'_, [u64; 2]> = pair.lock()?;
/// guard.at(0)?.set(7);
/// guard.at(1)?.set(7);
/// guard.unlock()?; // reports, as dropping it cannot, whether both were written
/// # drop(pair);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[must_use = "the mutex is freed when its guard is dropped"]
pub struct MutexGuard<'a, T: Plain> {
    mutex: &'a Mutex<T>,
    raw: RawMutexGuard<'a>,
}

impl<T: Plain> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MutexGuard").field("mutex", self.mutex).finish_non_exhaustive()
    }
}

impl<'a, T: Plain> MutexGuard<'a, T> {
    #[inline]
    fn part(&self) -> Part<'_, T> {
        Part::new(Span::new(self.mutex.found.get().data, Gate::Context(self.raw.context())))
    }

    pub(crate) const fn region(&self) -> &'a MappedRegion {
        self.raw.region()
    }

    /// Lends the mutex to `wait`, which frees it, and takes it again unless it fails. If an owner has left the data
    /// half changed meanwhile, the handle's own repair repairs them.
    pub(crate) fn lend<R>(
        self,
        me: &sync::Thread<'_>,
        wait: impl FnOnce(&sync::Mutex<'a>) -> Result<(Taken, R), sync::LockError>,
    ) -> LockResult<(Self, R)> {
        let (mutex, site) = (self.mutex, self.raw.site());
        match self.raw.lend(me, wait) {
            Ok((raw, (Taken::Clean, result))) => Ok((Self { mutex, raw }, result)),
            Ok((raw, (Taken::OwnerDied(who), result))) => {
                let held = raw.into_held();
                let held = take::settled(mutex, held, who)?;
                Ok((mutex.guard(held), result))
            }
            Err(error) => Err(site.error(error.into(), mutex.look().left_by())),
        }
    }

    /// Frees the mutex, and reports whether this process still owned it and everything it set was written.
    ///
    /// # Errors
    /// [`LockError::Fenced`](crate::LockError::Fenced) if this process was declared dead meanwhile;
    /// [`LockError::Forked`](crate::LockError::Forked).
    #[inline]
    pub fn unlock(self) -> LockResult<()> {
        self.raw.unlock()
    }

    /// Frees the mutex and leaves it inconsistent: the data are half changed, and the next owner is told so.
    ///
    /// # Errors
    /// As for [`unlock`](Self::unlock).
    pub fn leave_inconsistent(self) -> LockResult<()> {
        self.raw.leave_inconsistent()
    }
}

reads!(['a, T: Plain] ['a, F: Plain, const N: usize] MutexGuard<'a, T>, MutexGuard<'a, [F; N]>, crate::Writing);
writes!(['a, T: Plain] MutexGuard<'a, T>);

impl<T: Plain> Guard for MutexGuard<'_, T> {
    fn set_consistent(&self) -> LockResult<()> {
        self.raw.set_consistent()
    }

    fn free(self, how: Release) -> LockResult<()> {
        self.raw.free(how)
    }
}
