//! How much memory can still be had.
//!
//! # What it owns
//! The numbers of one look, how they are told, and who may go beyond them. Who looks, and where, is the platform's business.

use core::fmt;

/// What there was when more was asked for than can be had. Each number is in bytes; `None`: it is not known there, or
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
    /// What was to be taken.
    pub asked: u64,
    /// Free on the file system of the space.
    pub file_system: Option<u64>,
    /// What the machine can give without ending a process.
    pub machine: Option<u64>,
    /// What is left until the memory cgroup of this process, or one around it, reaches its limit.
    pub cgroup: Option<u64>,
    /// What is to be left over for others, in the machine and in the cgroup, whichever is nearer.
    pub spared: u64,
}

impl Room {
    /// The places and what each has, where that is known.
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
    /// What can be had, as far as that can be told beforehand.
    #[default]
    Fitting,
    /// Whatever it asks for, until the medium refuses, or the kernel ends a process.
    Forced,
}

/// Bytes, as people read them: rounded down, so that nobody is promised what is not there.
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
    fn what_is_not_known_is_not_told() {
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
