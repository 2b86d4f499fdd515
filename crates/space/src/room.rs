//! How much memory is still available.
//!
//! # What it owns
//! The numbers, how a message shows them, and whether a caller may ask for more. The platform finds the numbers.

use core::fmt;

/// The available memory, when more was asked for. Each number is in bytes; `None`: it is not known, or
/// does not apply.
///
/// # Examples
/// ```
/// # use commonhold_space::Room;
/// let room = Room { asked: 600 << 20, file_system: Some(499 << 20), ..Room::default() };
/// assert_eq!(room.to_string(), "600 MiB cannot be had: 499 MiB free on the file system");
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Room {
    /// The amount asked for.
    pub asked: u64,
    /// Free on the file system of the space.
    pub file_system: Option<u64>,
    /// What the machine can give without killing a process.
    pub machine: Option<u64>,
    /// What is left until the memory cgroup of this process, or a parent of it, reaches its limit.
    pub cgroup: Option<u64>,
    /// What must remain for other processes, in the machine or in the cgroup, whichever has less left.
    pub spared: u64,
}

impl Room {
    /// The known numbers, each with what it is.
    fn places(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let places = [
            ("free on the file system", self.file_system),
            ("available in the machine", self.machine),
            ("left in the memory cgroup", self.cgroup),
        ];
        places.into_iter().filter_map(|(place, bytes)| Some((place, bytes?)))
    }
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be had:", Amount(self.asked))?;
        for (index, (place, bytes)) in self.places().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma} {} {place}", Amount(bytes))?;
        }
        if self.spared > 0 {
            write!(f, ", of which {} are spared for others", Amount(self.spared))?;
        }
        Ok(())
    }
}

/// How much memory a region may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Demand {
    /// No more than is available, as far as that can be known beforehand.
    #[default]
    Fitting,
    /// Any amount, until committing it fails, or the kernel kills a process.
    Forced,
}

/// Bytes in a readable unit, rounded down so that no message promises more than there is.
struct Amount(u64);

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes @ 0..0x2800 => write!(f, "{bytes} bytes"),
            bytes @ 0x2800..0xA0_0000 => write!(f, "{} KiB", bytes >> 10),
            bytes @ 0xA0_0000..0x2_8000_0000 => write!(f, "{} MiB", bytes >> 20),
            bytes => write!(f, "{} GiB", bytes >> 30),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_message_leaves_out_unknown_numbers() {
        let room = Room { asked: 600 << 20, file_system: Some(499 << 20), ..Room::default() };
        let text = "600 MiB cannot be had: 499 MiB free on the file system";
        assert_eq!(room.to_string(), text);
        let room = Room { cgroup: Some(5000), machine: Some(20 << 30), spared: 1 << 20, ..room };
        assert_eq!(
            room.to_string(),
            "600 MiB cannot be had: 499 MiB free on the file system, 20 GiB available in the machine, \
             5000 bytes left in the memory cgroup, of which 1024 KiB are spared for others"
        );
    }
}
