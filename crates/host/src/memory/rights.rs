//! Whose file a space is, who asks, and whether the two go together.
//!
//! # What it owns
//! The rule whose files are used without a word, and what messages say about rights.
//!
//! # Invariants
//! 1. The rule is asked about an open descriptor: its file cannot become another one between the look and the use.
//! 2. Whoever owns a space can stop, mislead and end those who use it, and a name in a directory that all may write
//!    belongs to whoever comes first. So a space is used if this user or root owns it, or if its owner shares it with
//!    a group that this user is in and not with all the world. Root uses none but root's. All else wants
//!    [`Owners::Any`].
//! 3. The environment of a program that runs with rights that its caller lacks (set-user-ID) says nothing.
//!
//! # What it does not do
//! It keeps nobody from what the mode of a file allows; it does not look at devices, whose nodes are root's to give.

use std::{env, ffi::OsString, fmt, io, path::PathBuf};

use rustix::{fs::Stat, process};

use crate::shown;

/// Says that the spaces of all users are to be used: `1`.
const ANY_OWNER: &str = "COMMONHOLD_ANY_OWNER";

/// Bits of a mode: who may write.
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;
/// Of a directory: only who owns a file may take its name away.
const STICKY: u32 = 0o1000;

/// Whose spaces are used.
///
/// # Examples
/// ```
/// # use commonhold_host::Owners;
/// assert_eq!(Owners::default(), Owners::Trusted);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Owners {
    /// Those of this user, of root, and of whoever shares them with a group that this user is in and not with all
    /// the world. For root only root's. If `COMMONHOLD_ANY_OWNER` is 1 in the environment, it is the same as `Any`.
    #[default]
    Trusted,
    /// Those of anybody: whoever owns one can stop, mislead and end this process.
    Any,
}

impl Owners {
    /// What was asked for, or what the environment says.
    pub(crate) fn or_of_environment(self) -> Self {
        match variable(ANY_OWNER) {
            Some(value) if value == "1" => Self::Any,
            _ => self,
        }
    }
}

/// A variable of the environment, if it is set, not empty, and to be believed.
pub(crate) fn variable(name: &str) -> Option<OsString> {
    // SAFETY: `getauxval` wants nothing: it reads what the kernel left beside the environment.
    if unsafe { libc::getauxval(libc::AT_SECURE) } != 0 {
        return None;
    }
    env::var_os(name).filter(|value| !value.is_empty())
}

/// Who asks.
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

/// Whose a file or a directory is, what its mode lets whom do, and who asked.
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
    /// The user who asked, as the kernel counts it.
    pub asker: u32,
    /// The first group of who asked.
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
            // Whoever gives access to one user alone (an access control list) asks for more than a group.
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

/// What this user may not do.
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
    /// Which call was refused.
    pub call: &'static str,
    /// What it was about.
    pub path: PathBuf,
    /// Whose rights were not enough: the same, or the directory that it is in.
    pub object: PathBuf,
    /// What they are, if that could be seen.
    pub rights: Option<Rights>,
    /// What the call said.
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
    fn whose_spaces_are_used_is_a_matter_of_owner_group_and_mode() {
        let root = Asker { user: 0, groups: vec![0, 7] };
        let user = Asker { user: 1000, groups: vec![1000, 7] };
        for (owner, group, mode, by_root, by_user) in [
            (0, 0, 0o600, true, true),
            (0, 0, 0o666, true, true),
            (1000, 1000, 0o600, false, true),
            (1000, 1000, 0o666, false, true),
            // Another user's: for a group, for the world, for both, for a group of others.
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
