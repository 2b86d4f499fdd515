//! The methods that take a record's lock alone, written once for all locks.

/// All these methods but the first, which each lock has and documents itself: `$first` is the link to it. The lock
/// has the methods `take_quickly` and `deadline`.
macro_rules! takes {
    (
        $lock:ident, $guard:ident, as $first:literal,
        $try_take:ident, $take_for:ident, $take_repairing:ident, $take_recover:ident, $take_recover_for:ident
    ) => {
        impl<T: Plain> $lock<T> {
            #[inline(always)]
            fn take_until(&self, deadline: Option<u64>) -> LockResult<$guard<'_, T>> {
                match take::whole(self, deadline) {
                    Ok(held) => Ok(self.guard(held)),
                    Err(error) => Err(*error),
                }
            }

            #[doc = concat!("As ", $first, ", but does not wait; `None` if a living owner has the lock.")]
            ///
            /// # Errors
            #[doc = concat!("As for ", $first, ".")]
            pub fn $try_take(&self) -> LockResult<Option<$guard<'_, T>>> {
                take::whole_at_once(self)
            }

            #[doc = concat!("As ", $first, ", but waits for `timeout` at most.")]
            ///
            /// # Errors
            /// [`LockError::TimedOut`](crate::LockError::TimedOut) names the owner; and as for
            #[doc = concat!($first, ".")]
            pub fn $take_for(&self, timeout: Duration) -> LockResult<$guard<'_, T>> {
                self.take_until(self.deadline(timeout))
            }

            #[doc = concat!("As ", $first, "; but if the last owner died in the middle of a change,")]
            /// `repair` makes the data consistent first.
            ///
            /// # Errors
            /// [`LockError::RepairFailed`](crate::LockError::RepairFailed), after which the lock is free, and as
            /// inconsistent as before; and as for
            #[doc = concat!($first, ", but never `OwnerDied`.")]
            #[inline(always)]
            pub fn $take_repairing<'a>(
                &'a self,
                repair: impl FnOnce(&$guard<'a, T>) -> Result<(), BoxError>,
            ) -> LockResult<$guard<'a, T>> {
                match self.take_quickly() {
                    Some(guard) => Ok(guard),
                    None => take::repairing(self, None, repair),
                }
            }

            #[doc = concat!("As ", $first, ", but takes an inconsistent lock as well:")]
            /// the caller decides what to do with the data.
            ///
            /// # Errors
            #[doc = concat!("As for ", $first, ", but never `OwnerDied`.")]
            pub fn $take_recover(&self) -> LockResult<Recovered<$guard<'_, T>>> {
                take::recovered(self, None)
            }

            #[doc = concat!("As [`", stringify!($take_recover), "`](Self::", stringify!($take_recover), "),")]
            /// but waits for `timeout` at most.
            ///
            /// # Errors
            /// [`LockError::TimedOut`](crate::LockError::TimedOut), and as for
            #[doc = concat!("[`", stringify!($take_recover), "`](Self::", stringify!($take_recover), ").")]
            pub fn $take_recover_for(
                &self,
                timeout: Duration,
            ) -> LockResult<Recovered<$guard<'_, T>>> {
                take::recovered(self, self.deadline(timeout))
            }
        }
    };
}

pub(super) use takes;
