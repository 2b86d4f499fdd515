//! Which users' files a process uses as spaces.
//!
//! # What it owns
//! The rule which files are trusted, and the messages about rights.
//!
//! # Invariants
//! 1. The rule is applied to an open descriptor, so its file cannot be exchanged between the check and the use.
//! 2. The owner of a space can stop, mislead and end the processes that use it, and in a directory that all users may
//!    write any user can take a name first. So a process uses a space without asking only if its own user or root
//!    owns it, or if the owner shares it with a group of this user and not with the world. Root uses only root's
//!    spaces. All others need [`Owners::Any`].
//! 3. In a program with more rights than its caller (set-user-ID), the environment is ignored.
//!
//! # What it does not do
//! It forbids nothing that the mode of a file allows to other users. It does not check devices: root decides who may
//! open their nodes.

use std::{env, ffi::OsString, fmt, io, path::PathBuf};

use rustix::{fs::Stat, process};

use crate::shown;

/// If this variable is `1`, the spaces of all users are used.
const ANY_OWNER: &str = "COMMONHOLD_ANY_OWNER";

/// Bits of a mode: who may write.
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;
/// Mode bit of a directory: only the owner of a file may remove its name.
const STICKY: u32 = 0o1000;

/// Which users' spaces are used.
///
/// # Examples
/// ```
/// # use commonhold_host::Owners;
/// assert_eq!(Owners::default(), Owners::Trusted);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Owners {
    /// Spaces of this user, of root, and of users who share them with a group of this user and not with the world.
    /// For root, only root's. If `COMMONHOLD_ANY_OWNER` is 1 in the environment, this is the same as `Any`.
    #[default]
    Trusted,
    /// Spaces of all users. The owner of a space can stop, mislead and end this process.
    Any,
}

impl Owners {
    /// `Any` if the environment says so, otherwise `self`.
    pub(crate) fn or_of_environment(self) -> Self {
        match variable(ANY_OWNER) {
            Some(value) if value == "1" => Self::Any,
            _ => self,
        }
    }
}

/// A variable of the environment, if it is set, not empty, and trusted (invariant 3).
pub(crate) fn variable(name: &str) -> Option<OsString> {
    // SAFETY: `getauxval` has no requirement: it reads a value that the kernel gave the process at its start.
    if unsafe { libc::getauxval(libc::AT_SECURE) } != 0 {
        return None;
    }
    env::var_os(name).filter(|value| !value.is_empty())
}

/// The user and the groups of a process that asks.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asker {
    user: u32,
    groups: Vec<u32>,
}

impl Asker {
    fn this_process() -> Self {
        let mut groups = vec![process::getegid().as_raw()];
        groups.extend(process::getgroups().unwrap_or_default().iter().map(|group| group.as_raw()));
        Self { user: process::geteuid().as_raw(), groups }
    }
}

/// The owner, group and mode of a file or directory, and the user who asked.
///
/// # Examples
/// ```
/// # use commonhold_host::Rights;
/// fn tell(rights: &Rights) {
///     if rights.owner != rights.asker && rights.mode & 0o020 == 0 {
///         println!("user {} has not shared it with group {}", rights.owner, rights.group);
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rights {
    /// The user who owns it.
    pub owner: u32,
    /// Its group.
    pub group: u32,
    /// Its permission bits.
    pub mode: u32,
    /// The effective user who asked.
    pub asker: u32,
    /// The effective group of that user.
    pub asker_group: u32,
}

impl Rights {
    pub(crate) fn new(stat: &Stat) -> Self {
        Self {
            owner: stat.st_uid,
            group: stat.st_gid,
            mode: stat.st_mode & 0o7777,
            asker: process::geteuid().as_raw(),
            asker_group: process::getegid().as_raw(),
        }
    }

    /// Whether the file may be used as a space.
    pub(crate) fn are_trusted(&self) -> bool {
        self.let_in(&Asker::this_process())
    }

    fn let_in(&self, asker: &Asker) -> bool {
        const ROOT: u32 = 0;
        match self.owner {
            ROOT => true,
            owner if owner == asker.user => true,
            _ if asker.user == ROOT || self.mode & OTHERS_WRITE != 0 => false,
            // Access that an access control list gives to one user is not enough: the owner must share with a group.
            _ => self.mode & GROUP_WRITES != 0 && asker.groups.contains(&self.group),
        }
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { owner, group, mode, asker, asker_group } = self;
        write!(
            f,
            "belongs to user {owner}, group {group}, mode {mode:04o}; user {asker}, group {asker_group} asked"
        )
    }
}

/// A call that this user may not make.
///
/// # Examples
/// ```
/// # use commonhold_host::Denied;
/// fn tell(denied: &Denied) {
///     match denied.rights {
///         Some(rights) => println!("{}: ask user {}", denied.object.display(), rights.owner),
///         None => println!("{denied}"),
///     }
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Denied {
    /// The call that was refused.
    pub call: &'static str,
    /// The file of the call.
    pub path: PathBuf,
    /// The object whose rights refused it: the file, or its directory.
    pub object: PathBuf,
    /// The rights of that object, if they could be read.
    pub rights: Option<Rights>,
    /// The call's error.
    pub source: io::Error,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { call, path, object, rights, source } = self;
        write!(f, "{call} {}: {source}", shown(path))?;
        if let Some(rights) = rights {
            write!(f, "; {} {rights}", shown(object))?;
        }
        f.write_str(if object == path {
            "; its owner can share it with a group (chgrp, and mode 660: `space format --mode 660`), or choose \
             another space"
        } else if rights.is_some_and(|rights| rights.mode & STICKY != 0) {
            "; in it only the owner of a file may remove or replace it"
        } else {
            "; choose a space in a directory that this user may write (file:PATH)"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(owner: u32, group: u32, mode: u32) -> Rights {
        Rights { owner, group, mode, asker: 0, asker_group: 0 }
    }

    #[test]
    fn owner_group_and_mode_decide_which_spaces_are_used() {
        let root = Asker { user: 0, groups: vec![0, 7] };
        let user = Asker { user: 1000, groups: vec![1000, 7] };
        for (owner, group, mode, by_root, by_user) in [
            (0, 0, 0o600, true, true),
            (0, 0, 0o666, true, true),
            (1000, 1000, 0o600, false, true),
            (1000, 1000, 0o666, false, true),
            // Another user's, shared with a group of ours, with the world, or with a group of others.
            (2000, 7, 0o660, false, true),
            (2000, 7, 0o666, false, false),
            (2000, 2000, 0o666, false, false),
            (2000, 2000, 0o602, false, false),
            (2000, 2000, 0o660, false, false),
            (2000, 7, 0o640, false, false),
        ] {
            let rights = rights(owner, group, mode);
            assert_eq!(rights.let_in(&root), by_root, "root: {rights}");
            assert_eq!(rights.let_in(&user), by_user, "a user: {rights}");
        }
    }
}
