//! Who does something in a scene.

/// A process of the scene; the driver itself is [`DRIVER`].
pub(crate) type Who = usize;

/// Who maps and locks two regions of its own while all others come and go.
pub(crate) const DRIVER: Who = usize::MAX;
