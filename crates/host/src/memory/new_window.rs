//! What a new window is to be.

/// What a new window should be.
#[derive(Debug, Clone, Copy)]
pub struct NewWindow {
    /// Bytes; rounded up to whole pages of the memory it will be made of.
    pub capacity: u64,
    /// Permissions, as for `chmod`. The umask plays no part.
    pub mode: u32,
}
