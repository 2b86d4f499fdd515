//! A value in the bytes of a region that no lock of this library protects.

use std::{fmt, marker::PhantomData, sync::Arc};

use commonhold_window::Run;
use yoke::Yokeable;

use super::{Gate, Part, Plain, Reading, Span};
use crate::{
    Access, RegionError,
    attachment::LockContext,
    region::{Handle, MappedRegion},
};

/// Where the value lies.
#[derive(Debug, Clone, Copy, Yokeable)]
struct Found<'a> {
    region: &'a MappedRegion,
    context: LockContext<'a>,
    offset: u64,
    run: Run<'a>,
    access: Access,
}

/// A value in the bytes of a region, with its address found once. The caller protects it by a lock of its own
/// choice, or by none: others read and write it at any time. A value of 8 bytes is read and written whole.
///
/// # Examples
/// ```
/// use commonhold::{Space, Value};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-value-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let board = space.map_or_create("board", 4096)?;
/// let heartbeat: Value<u64> = board.value(64)?;
/// heartbeat.store(heartbeat.load() + 1)?;
/// assert_eq!(board.get::<u64>(64)?, heartbeat.load());
/// # drop((heartbeat, board));
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
pub struct Value<T> {
    found: Handle<Found<'static>>,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for Value<T> {
    fn clone(&self) -> Self {
        Self { found: self.found.clone(), of: PhantomData }
    }
}

impl<T> fmt::Debug for Value<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value<{}>", std::any::type_name::<T>())
    }
}

impl<T: Plain> Value<T> {
    pub(crate) fn new(region: &Arc<MappedRegion>, offset: u64) -> Result<Self, RegionError> {
        let found = MappedRegion::find(region, |region| {
            let (context, access) = (region.attachment().context()?, region.access());
            let run = region.run(offset, size_of::<T>() as u64)?;
            Ok(Found { region, context, offset, run, access })
        })?;
        Ok(Self { found, of: PhantomData })
    }

    #[inline]
    fn span(&self) -> Span<'_> {
        let Found { context, run, .. } = self.found.get();
        Span::new(*run, Gate::Context(context))
    }

    /// A copy of the value.
    ///
    /// # Panics
    /// In a child made by `fork`.
    #[inline]
    #[must_use]
    pub fn load(&self) -> T {
        Part::<T, Reading>::new(self.span()).get()
    }

    /// Writes the value.
    ///
    /// # Errors
    /// [`RegionError::ReadOnly`]; [`RegionError::Fenced`] if this process was declared dead,
    /// [`RegionError::Forked`]. Nothing has been written then.
    #[inline]
    pub fn store(&self, value: T) -> Result<(), RegionError> {
        let Found { region, context, offset, run, access } = self.found.get();
        if *access != Access::ReadWrite || !context.is_live_here() {
            return Err(refused(region));
        }
        if !size_of::<T>().is_multiple_of(8) {
            // The rest of its last word may belong to another value.
            return region.write(*offset, value.as_bytes());
        }
        let written = run.write(0, value.as_bytes());
        debug_assert!(written.is_ok(), "the value lies in its words");
        Ok(())
    }
}

#[cold]
fn refused(region: &MappedRegion) -> RegionError {
    match region.writable() {
        Err(error) => error,
        Ok(()) if region.attachment().is_forked() => RegionError::Forked,
        Ok(()) => RegionError::Fenced,
    }
}
