//! The data of a record.

use std::{fmt, marker::PhantomData};

use commonhold_window::{OutOfWindow, Run};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::Field;
use crate::{Mapping, RegionError};

/// What may lie in shared bytes: a type without pointers or padding, that every bit pattern may inhabit.
/// It is implemented for all that have these traits of [`zerocopy`](crate::zerocopy), which can be derived.
pub trait Plain: FromBytes + IntoBytes + Immutable {}

impl<T: FromBytes + IntoBytes + Immutable> Plain for T {}

/// A `T` in shared bytes, while somebody holds what protects it.
pub(crate) struct Value<'a, T> {
    data: Run<'a>,
    of: PhantomData<T>,
}

impl<T> Clone for Value<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Value<'_, T> {}

impl<T> fmt::Debug for Value<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not what it holds: printing a lock must not read what it protects.
        f.write_str(std::any::type_name::<T>())
    }
}

impl<'a, T: Plain> Value<'a, T> {
    pub(crate) const fn of(data: Run<'a>) -> Self {
        Self { data, of: PhantomData }
    }

    #[inline]
    pub(crate) fn get(&self, mapping: &Mapping) -> Result<T, RegionError> {
        self.read(mapping, 0)
    }

    #[inline]
    pub(crate) fn set(&self, mapping: &Mapping, value: &T) -> Result<(), RegionError> {
        self.write(mapping, 0, value)
    }

    /// Copies out, changes the copy, and copies in. If `change` panics, nothing is copied in.
    #[inline]
    pub(crate) fn update<R>(
        &self,
        mapping: &Mapping,
        change: impl FnOnce(&mut T) -> R,
    ) -> Result<R, RegionError> {
        let mut value = self.get(mapping)?;
        let result = change(&mut value);
        self.set(mapping, &value)?;
        Ok(result)
    }

    #[inline]
    pub(crate) fn get_field<F: Plain>(
        &self,
        mapping: &Mapping,
        field: Field<T, F>,
    ) -> Result<F, RegionError> {
        self.read(mapping, field.offset())
    }

    #[inline]
    pub(crate) fn set_field<F: Plain>(
        &self,
        mapping: &Mapping,
        field: Field<T, F>,
        value: &F,
    ) -> Result<(), RegionError> {
        self.write(mapping, field.offset(), value)
    }

    #[inline]
    fn read<F: Plain>(&self, mapping: &Mapping, from: usize) -> Result<F, RegionError> {
        if mapping.attachment().is_forked() {
            // The memory is not mapped in the child.
            return Err(RegionError::Forked);
        }
        let mut value = F::new_zeroed();
        self.data.read(from, value.as_mut_bytes()).map_err(outside)?;
        Ok(value)
    }

    #[inline]
    fn write<F: Plain>(
        &self,
        mapping: &Mapping,
        from: usize,
        value: &F,
    ) -> Result<(), RegionError> {
        if !mapping.attachment().near().is_live_here() {
            return Err(refused(mapping));
        }
        self.data.write(from, value.as_bytes()).map_err(outside)
    }
}

/// Why this process may write no more.
#[cold]
fn refused(mapping: &Mapping) -> RegionError {
    if mapping.attachment().is_forked() { RegionError::Forked } else { RegionError::Fenced }
}

#[cold]
const fn outside(error: OutOfWindow) -> RegionError {
    RegionError::OutOfBounds { offset: error.offset, len: error.len, size: error.window }
}
