//! What guards have of their data, written once for all of them.

/// The ways in which a guard lets its holder read what the lock protects, each as of a [`Part`].
macro_rules! reads {
    ([$($generics:tt)*] [$($array:tt)*] $guard:ty, $of_array:ty, $mode:ty) => {
        impl<$($generics)*> $guard {
            /// A copy of the data.
            ///
            /// # Panics
            /// In a child made by `fork`, whose guard it is not.
            #[inline]
            #[must_use]
            pub fn get(&self) -> T {
                self.part().get()
            }

            /// A copy of the data, in a box: for large ones.
            ///
            /// # Panics
            /// As for [`get`](Self::get).
            #[must_use]
            pub fn get_boxed(&self) -> Box<T> {
                self.part().get_boxed()
            }

            /// What `look` says of a copy of the data.
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

/// The ways in which a guard lets its holder write.
macro_rules! writes {
    ([$($generics:tt)*] $guard:ty) => {
        impl<$($generics)*> $guard {
            /// Writes the data.
            ///
            /// If this process was declared dead nothing is written, and freeing the lock says so.
            #[inline]
            pub fn set(&self, value: T) {
                self.part().set(value);
            }

            /// Writes the data, which stay where they are: for large ones.
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

            /// Changes a copy of the data, and writes that back. If `change` panics, nothing is written.
            ///
            /// # Panics
            /// As for [`get`](Self::get).
            #[inline]
            pub fn with_mut<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
                self.part().with_mut(change)
            }

            /// The address of the data, for those who want a reference and answer for it: see
            /// [`Door::into_mut`](crate::Door::into_mut).
            #[must_use]
            pub fn door(&mut self) -> $crate::Door<'_, T> {
                self.part().door()
            }
        }
    };
}

pub(crate) use {reads, writes};
