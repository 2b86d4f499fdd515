//! Messages about a window that a process uses, or may use.

use std::fmt;

use commonhold_host::shown;

use super::OpenError;
use crate::error::READERS;

impl OpenError {
    /// Describes a window that cannot be read, and who uses it.
    pub(super) fn fmt_about_use(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { path, byte, slot, by } => {
                let path = shown(path);
                match by {
                    Some(by) => write!(f, "{by} uses {path}: it")?,
                    None => write!(f, "somebody uses {path} and")?,
                }
                write!(f, " has byte {byte} locked")?;
                match slot {
                    Some(slot) => write!(f, " (evidence of peer slot {slot})")?,
                    None => f.write_str(" (no peer of this version)")?,
                }
                write!(
                    f,
                    ", and the file does not say that it is dead; stop it first (`fuser {path}` or `lsof \
                     {path}` lists who has the file open), or, if it can do no harm, `rm {path}`"
                )
            }
            Self::Unknowable { path, memory } => write!(
                f,
                "{} cannot be read as a space of this version, and nothing can tell whether somebody uses it \
                 ({memory}: locks prove nothing there); if nobody does, {}",
                shown(path),
                if memory.starts_with("file") {
                    "remove it by hand (`rm`)"
                } else {
                    "make its first 8 bytes zero (those of a PCI device on its host), and format it then"
                }
            ),
            _ => self.fmt_about_locks(f),
        }
    }

    /// Describes a file that belongs to another user, or that another process has locked.
    fn fmt_about_locks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAWindow { path, found } => write!(f, "{} is {found}", shown(path)),
            Self::Denied(denied) => write!(f, "{denied}"),
            Self::Stranger { path, rights } => write!(
                f,
                "{} {rights}; the owner of a space can stop, mislead and crash its users: choose \
                 another name, or one of file:PATH; if you trust that user, say so (--any-owner, or \
                 COMMONHOLD_ANY_OWNER=1), or, unless you are root, share it with a group (mode 660)",
                shown(path)
            ),
            Self::SlotLocked { path, slot, by } => {
                match by {
                    Some(by) => write!(f, "{by} is no peer, but has")?,
                    None => f.write_str("somebody who is no peer has")?,
                }
                write!(
                    f,
                    " all free peer slots of {} locked (slot {slot} among them), as only who may write it can; \
                     end it (`fuser` lists who has the file open)",
                    shown(path)
                )
            }
            Self::TimedOut { path, by: Some(by) } => write!(
                f,
                "{by} is opening, removing or replacing {}, or has it locked as if it were, and does not come \
                 to an end; {}; {READERS}",
                shown(path),
                if by.stopped {
                    "let it go on (`kill -CONT`), or end it (`kill -9`)"
                } else {
                    "try again, or end it"
                }
            ),
            Self::TimedOut { path, .. } => write!(
                f,
                "others are opening, removing or replacing {} all the time, or one of them is stopped, or has \
                 it locked; try again (`fuser` or `lsof` lists who has it open, also of other users if asked \
                 by root); {READERS}",
                shown(path)
            ),
            _ => Ok(()),
        }
    }
}
