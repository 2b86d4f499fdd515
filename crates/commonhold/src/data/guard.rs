//! The methods by which guards reach their data, written once for all guards.

/// The methods of a guard that read the data, each as for a [`Part`](crate::Part).
macro_rules! reads {
    ([$($generics:tt)*] [$($array:tt)*] $guard:ty, $of_array:ty, $mode:ty) => {
        impl<$($generics)*> $guard {
            /// A copy of the data.
            ///
            /// # Panics
            /// In a child made by `fork`: the guard is the parent's.
            #[inline]
            #[must_use]
            pub fn get(&self) -> T {
                self.part().get()
            }

            /// A copy of the data in a box, for large data.
            ///
            /// # Panics
            /// As for [`get`](Self::get).
            #[must_use]
            pub fn get_boxed(&self) -> Box<T> {
                self.part().get_boxed()
            }

            /// Calls `look` with a copy of the data, and returns its result.
            ///
            /// # Panics
            /// As for [`get`](Self::get).
            #[inline]
            pub fn with<R>(&self, look: impl FnOnce(&T) -> R) -> R {
                self.part().with(look)
            }

            /// A [field](crate::field) of the data.
            #[inline]
            #[must_use]
            pub fn field<F: $crate::Plain>(
                &self,
                field: $crate::Field<T, F>,
            ) -> $crate::Part<'_, F, $mode> {
                self.part().field(field)
            }
        }

        impl<$($array)*> $of_array {
            /// The element with this index.
            ///
            /// # Errors
            /// [`RegionError::OutOfBounds`](crate::RegionError::OutOfBounds) if there is none.
            #[inline]
            pub fn at(
                &self,
                index: usize,
            ) -> Result<$crate::Part<'_, F, $mode>, $crate::RegionError> {
                self.part().at(index)
            }

            /// The elements in this range.
            ///
            /// # Errors
            /// [`RegionError::OutOfBounds`](crate::RegionError::OutOfBounds) if there are not so many.
            pub fn slice(
                &self,
                range: impl ::std::ops::RangeBounds<usize>,
            ) -> Result<$crate::Slice<'_, F, $mode>, $crate::RegionError> {
                self.part().slice(range)
            }
        }
    };
}

/// The methods of a guard that write the data.
macro_rules! writes {
    ([$($generics:tt)*] $guard:ty) => {
        impl<$($generics)*> $guard {
            /// Writes the data.
            ///
            /// If this process was declared dead, nothing is written, and freeing the lock reports that.
            #[inline]
            pub fn set(&self, value: T) {
                self.part().set(value);
            }

            /// Writes the data from a reference, for large data.
            #[inline]
            pub fn set_from(&self, value: &T) {
                self.part().set_from(value);
            }

            /// Writes the data and returns what was there before.
            ///
            /// # Panics
            /// As for [`get`](Self::get).
            #[inline]
            pub fn replace(&self, value: T) -> T {
                self.part().replace(value)
            }

            /// Calls `change` with a copy of the data, and writes the copy back. If `change` panics, nothing is
            /// written.
            ///
            /// # Panics
            /// As for [`get`](Self::get).
            #[inline]
            pub fn with_mut<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
                self.part().with_mut(change)
            }

            /// The address of the data, for callers that make a reference by `unsafe` code of their own: see
            /// [`Door::into_mut`](crate::Door::into_mut).
            #[must_use]
            pub fn door(&mut self) -> $crate::Door<'_, T> {
                self.part().door()
            }
        }
    };
}

pub(crate) use {reads, writes};
