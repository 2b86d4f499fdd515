//! The memory cgroups of this process, of both versions.
//!
//! # What it owns
//! Finding them (`/proc/self/cgroup` says which, `/proc/self/mountinfo` where), and reading their limits.
//!
//! # Invariants
//! 1. Every cgroup around the process counts, as far as it can be seen from here: in a container those outside are
//!    not.
//! 2. What cannot be read limits nothing.
//!
//! Of what a cgroup uses, clean pages of files count as free: the kernel drops them before it ends anybody, as
//! `MemAvailable` has it for the machine. Pages of a tmpfs are not among them: without swap they cannot go.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A memory cgroup that has a limit, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cgroup {
    pub(crate) limit: u64,
    /// What can be taken before the kernel ends somebody in it.
    pub(crate) left: u64,
}

/// The names that one version has for things.
struct Names {
    limits: &'static [&'static str],
    usage: &'static str,
    clean: [&'static str; 2],
    unclean: [&'static str; 2],
}

const VERSION_1: Names = Names {
    limits: &["memory.limit_in_bytes"],
    usage: "memory.usage_in_bytes",
    clean: ["total_inactive_file", "total_active_file"],
    unclean: ["total_dirty", "total_writeback"],
};

const VERSION_2: Names = Names {
    // Beyond the second, who takes memory is slowed down to a halt.
    limits: &["memory.max", "memory.high"],
    usage: "memory.current",
    clean: ["inactive_file", "active_file"],
    unclean: ["file_dirty", "file_writeback"],
};

/// No limit of the first version is as large, but the one that means none.
const NONE: u64 = 1 << 62;

/// The one around this process that has least left.
pub(crate) fn tightest() -> Option<Cgroup> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let folders = folders(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"));
    let all = folders.into_iter().flat_map(|(top, bottom, names)| around(&top, bottom, names));
    all.min_by_key(|cgroup| cgroup.left)
}

/// Where each hierarchy begins, where this process is in it, and its version.
fn folders(of_process: &str, mounts: &str) -> Vec<(PathBuf, PathBuf, &'static Names)> {
    let mut folders = Vec::new();
    for line in of_process.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(id), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let names = match controllers {
            "" if id == "0" => &VERSION_2,
            list if list.split(',').any(|name| name == "memory") => &VERSION_1,
            _ => continue,
        };
        let version_2 = controllers.is_empty();
        let mount = mounts.lines().filter_map(Mount::read).find(|mount| mount.has(version_2));
        if let Some(mount) = mount {
            let bottom = mount.folder(path);
            folders.push((mount.at, bottom, names));
        }
    }
    folders
}

/// A line of `mountinfo`, of a cgroup file system.
struct Mount<'a> {
    /// Which part of the hierarchy is mounted.
    root: &'a str,
    at: PathBuf,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, at) = (mount.next()?, mount.next()?);
        let mut file_system = file_system.split(' ');
        let (kind, options) = (file_system.next()?, file_system.nth(1)?);
        Some(Self { root, at: PathBuf::from(at), kind, options })
    }

    fn has(&self, version_2: bool) -> bool {
        if version_2 {
            self.kind == "cgroup2"
        } else {
            self.kind == "cgroup" && self.options.split(',').any(|option| option == "memory")
        }
    }

    /// Where the cgroup of that path can be seen. If it lies outside what is mounted, its innermost part that can.
    fn folder(&self, path: &str) -> PathBuf {
        let inside = Path::new(path).strip_prefix(self.root).unwrap_or(Path::new(""));
        let parts = inside.components().filter_map(|part| match part {
            std::path::Component::Normal(name) => Some(name),
            _ => None,
        });
        let mut folder = self.at.clone();
        folder.extend(parts);
        folder
    }
}

/// The cgroups from `bottom` to `top` that have limits.
fn around(top: &Path, bottom: PathBuf, names: &'static Names) -> Vec<Cgroup> {
    let mut found = Vec::new();
    let mut folder = Some(bottom.as_path());
    while let Some(at) = folder.filter(|at| at.starts_with(top)) {
        found.extend(read(at, names));
        folder = at.parent();
    }
    found
}

fn read(folder: &Path, names: &Names) -> Option<Cgroup> {
    let text = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let number = |name: &str| text(name)?.trim().parse::<u64>().ok();
    let limits = names.limits.iter().filter_map(|name| number(name));
    let limit = limits.min().filter(|limit| *limit < NONE)?;
    let used = number(names.usage)?;
    let stat = text("memory.stat").unwrap_or_default();
    let sum = |fields: [&str; 2]| -> u64 {
        let value = |field: &str| {
            let mut lines = stat.lines().filter_map(|line| line.split_once(' '));
            lines.find(|(name, _)| *name == field)?.1.trim().parse::<u64>().ok()
        };
        fields.into_iter().filter_map(value).fold(0, u64::saturating_add)
    };
    let droppable = sum(names.clean).saturating_sub(sum(names.unclean)).min(used);
    Some(Cgroup { limit, left: limit.saturating_sub(used - droppable) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    const MOUNTS: &str = "\
24 1 0:21 / / rw - ext4 /dev/vda rw
30 24 0:26 / /sys/fs/cgroup/cpu rw,nosuid - cgroup cgroup rw,cpu
31 24 0:27 /docker/abc /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory
32 24 0:28 / /sys/fs/cgroup/unified rw - cgroup2 none rw
";

    fn bottoms(of_process: &str) -> Vec<PathBuf> {
        folders(of_process, MOUNTS).into_iter().map(|(_, bottom, _)| bottom).collect()
    }

    #[test]
    fn a_cgroup_is_found_where_its_hierarchy_is_mounted() {
        let both = "5:cpu:/x\n4:memory:/docker/abc/inner\n0::/user/7\n";
        let paths = ["/sys/fs/cgroup/memory/inner", "/sys/fs/cgroup/unified/user/7"];
        assert_eq!(bottoms(both), paths.map(PathBuf::from));
        // Another namespace: what is above is not shown, and never left by way of the dots.
        assert_eq!(bottoms("4:memory:/elsewhere\n"), [PathBuf::from("/sys/fs/cgroup/memory")]);
        assert_eq!(bottoms("0::/../../up\n"), [PathBuf::from("/sys/fs/cgroup/unified/up")]);
        assert!(bottoms("").is_empty() && bottoms("x:y\n5:cpu:/\n").is_empty());
    }

    /// Writes the files of a cgroup.
    fn write(folder: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(folder).unwrap();
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
    }

    #[test]
    fn every_cgroup_around_counts_and_files_that_can_be_dropped_are_free() {
        let scratch = Scratch::new();
        let (top, inner) = (scratch.path("top"), scratch.path("top/inner"));
        let stat =
            "cache 5\ninactive_file 300\nactive_file 100\nfile_dirty 40\nfile_writeback 10\n";
        let files = [("memory.max", "1000\n"), ("memory.current", "900\n"), ("memory.stat", stat)];
        write(&top, &files);
        write(&inner, &[("memory.max", "max\n"), ("memory.current", "900\n")]);
        let outer = Cgroup { limit: 1000, left: 450 };
        assert_eq!(around(&top, inner.clone(), &VERSION_2), [outer]);
        write(&inner, &[("memory.high", "905\n")]);
        let both = [Cgroup { limit: 905, left: 5 }, outer];
        assert_eq!(around(&top, inner, &VERSION_2), both);
    }

    #[test]
    fn the_first_version_has_other_names_and_a_number_for_no_limit() {
        let scratch = Scratch::new();
        let top = scratch.path("top");
        let usage = ("memory.usage_in_bytes", "70\n");
        write(&top, &[("memory.limit_in_bytes", "9223372036854771712\n"), usage]);
        assert!(around(&top, top.clone(), &VERSION_1).is_empty());
        write(&top, &[("memory.limit_in_bytes", "64\n")]);
        let over = [Cgroup { limit: 64, left: 0 }];
        assert_eq!(around(&top, top.clone(), &VERSION_1), over, "more is used than allowed");
    }
}
