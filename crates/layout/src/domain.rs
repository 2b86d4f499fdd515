//! Domain records: one per running kernel. A kernel's first peer claims a record of zeros by compare-and-swap, word by
//! word. The record of a kernel that is gone is given to another kernel under the directory mutex.

/// Indices of the words of a domain record (64 bytes).
pub mod domain_word {
    /// 0: free; 1: in use. Written after the boot id.
    pub const STATE: usize = 0;
    /// Low half of the kernel's boot id.
    pub const BOOT_LOW: usize = 1;
    /// High half of the kernel's boot id.
    pub const BOOT_HIGH: usize = 2;
    /// Words of a record.
    pub const COUNT: usize = 8;
}

/// Whether a domain record is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainState {
    /// It is of no kernel.
    Free,
    /// It holds the boot id of a kernel.
    Used,
}

impl DomainState {
    /// Reads the state word: anything but 1 is free.
    #[must_use]
    pub const fn read(word: u64) -> Self {
        if word == 1 { Self::Used } else { Self::Free }
    }

    /// The word for this state.
    #[must_use]
    pub const fn word(self) -> u64 {
        match self {
            Self::Free => 0,
            Self::Used => 1,
        }
    }
}

/// The random identity of one incarnation of one kernel (Linux: `/proc/sys/kernel/random/boot_id`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BootId(pub u128);
