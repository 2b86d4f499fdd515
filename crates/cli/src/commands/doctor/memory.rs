//! What limits the memory of spaces on this machine: the directory of `shm:`, the machine, and the memory cgroup.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use commonhold::Supply;
use commonhold_console::units::human_size;

use super::Finding;

/// Size of /dev/shm in a container, by default.
const OF_A_CONTAINER: u64 = 64 << 20;
const ENOUGH: u64 = 1 << 30;

/// How much room the directory of `shm:` spaces has.
pub(super) fn room(directory: &Path) -> Finding {
    const CHECK: &str = "room for shm: spaces";
    let name = directory.display();
    let supply = match commonhold::supply_in(directory) {
        Ok(supply) => supply,
        Err(error) => {
            let advice = format!("make that directory, on a tmpfs: mount -t tmpfs tmpfs {name}");
            return Finding::missing(CHECK, format!("{name}: {error}"), advice);
        }
    };
    let Some((size, free)) = supply.file_system else {
        return Finding::ok(CHECK, format!("{name}: no limit"));
    };
    let found = format!("{name}: {} free of {}", human_size(free), human_size(size));
    if size == OF_A_CONTAINER && directory == Path::new("/dev/shm") {
        let advice = "a container's default; start it with --shm-size=2g or --ipc=host";
        return Finding::warning(CHECK, found, advice);
    }
    if free >= ENOUGH {
        return Finding::ok(CHECK, found);
    }
    // A file system with a limit of the machine is a tmpfs, which a remount can grow. A disk it cannot.
    let advice = if supply.machine.is_some() {
        let mount = mount_point(directory);
        format!("grow it: mount -o remount,size=4G {}", mount.display())
    } else {
        format!("make room on the file system of {name}, or mount a tmpfs there")
    };
    Finding::warning(CHECK, found, advice)
}

/// How much memory can really be taken, whatever size the file system shows.
pub(super) fn memory(directory: &Path) -> Finding {
    const CHECK: &str = "memory";
    let Ok(supply) = commonhold::supply_in(directory) else {
        return Finding::ok(CHECK, "not known");
    };
    let found = describe(&supply);
    let Some((_, least)) = supply.cgroup.into_iter().chain(supply.machine).min_by_key(|it| it.1)
    else {
        return Finding::ok(CHECK, found);
    };
    if least < OF_A_CONTAINER {
        let advice = "`create` refuses to take more than that: free some, or raise the limit";
        Finding::warning(CHECK, found, advice)
    } else {
        Finding::ok(CHECK, found)
    }
}

/// The memory of the machine and of the cgroup, as text.
fn describe(supply: &Supply) -> String {
    let of = |(all, left): (u64, u64), what: &str| {
        format!("{} {what} of {}", human_size(left), human_size(all))
    };
    let machine = supply
        .machine
        .map_or("no limit of the machine".to_owned(), |machine| of(machine, "available"));
    match supply.cgroup {
        Some(cgroup) => format!("{machine}; the memory cgroup has {}", of(cgroup, "left")),
        None => format!("{machine}; no limit of a memory cgroup"),
    }
}

/// The mount point of the file system of `directory`.
fn mount_point(directory: &Path) -> PathBuf {
    let device = |path: &Path| path.metadata().ok().map(|found| found.dev());
    let here = device(directory);
    let above = directory.ancestors().take_while(|path| device(path) == here);
    above.last().unwrap_or(directory).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_point_of_a_directory_is_found() {
        assert_eq!(mount_point(Path::new("/dev/shm")), Path::new("/dev/shm"));
        assert_eq!(mount_point(Path::new("/")), Path::new("/"));
    }
}
