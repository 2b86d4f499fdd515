//! The number of a process in a scene.

/// A process of the scene; the driver itself is [`DRIVER`].
pub(crate) type Who = usize;

/// The driver, which maps and locks two regions of its own throughout.
pub(crate) const DRIVER: Who = usize::MAX;
