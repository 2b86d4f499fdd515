//! The size and the mode of a new window.

/// The size and the mode of a new window.
#[derive(Debug, Clone, Copy)]
pub struct NewWindow {
    /// Bytes; rounded up to whole pages of its memory.
    pub capacity: u64,
    /// Permissions, as for `chmod`. The umask does not apply.
    pub mode: u32,
}
