//! The memory cgroups of this process, of both versions.
//!
//! # What it owns
//! Finding them (`/proc/self/cgroup` names them, `/proc/self/mountinfo` tells where they are), and reading their
//! limits.
//!
//! # Invariants
//! 1. Every cgroup around the process counts, if the process can see it. In a container it cannot see those outside.
//! 2. A cgroup that cannot be read limits nothing.
//!
//! Clean pages of files that a cgroup uses count as free, as in the machine's `MemAvailable`: the kernel drops them
//! before it kills a process. Pages of a tmpfs do not count as free: without swap they cannot be dropped.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A memory cgroup that has a limit, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cgroup {
    pub(crate) limit: u64,
    /// How much can be taken before the kernel kills a process in it.
    pub(crate) left: u64,
}

/// The names of files and fields in one version.
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
    // Above `memory.high`, the kernel slows a process that takes memory down, almost to a halt.
    limits: &["memory.max", "memory.high"],
    usage: "memory.current",
    clean: ["inactive_file", "active_file"],
    unclean: ["file_dirty", "file_writeback"],
};

/// A limit of version 1 that is as large as this means that there is none.
const NONE: u64 = 1 << 62;

/// The cgroup around this process that has the least left.
pub(crate) fn tightest() -> Option<Cgroup> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let folders = folders(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"));
    let all = folders.into_iter().flat_map(|(top, bottom, names)| around(&top, bottom, names));
    all.min_by_key(|cgroup| cgroup.left)
}

/// For each hierarchy: its top folder, the folder of this process's cgroup, and its names.
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

/// A line of `mountinfo` for a cgroup file system.
struct Mount<'a> {
    /// The part of the hierarchy that is mounted.
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

    /// The folder of the cgroup `path`. If the cgroup lies outside the mounted part, the top of that part.
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
        // In another namespace: cgroups above the mount are not visible, and `..` in a path never leaves the mount.
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
    fn every_cgroup_around_counts_and_clean_file_pages_are_free() {
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
