//! The parts of guests that are not ours: a kernel and busybox, from Debian's archive.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{
    target::Target,
    vm::archive::{Archive, output},
};

const BUSYBOX: &str = "busybox-static";

/// The paths of the parts.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) kernel: PathBuf,
    pub(crate) busybox: PathBuf,
}

/// Fetches the parts for guests of `target` that are not in `cache` yet. If all are, the network is not used.
pub(crate) fn fetch(cache: &Path, target: Target) -> Result<Parts> {
    ensure!(
        cfg!(all(target_arch = "x86_64", target_os = "linux")),
        "the hosts of guests are x86-64 with Linux"
    );
    fs::create_dir_all(cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let kernel = |archive: &Archive| newest_kernel(archive, target);
    let busybox = |_: &Archive| Ok(BUSYBOX.to_owned());
    let source = Source { cache, architecture: target.debian()? };
    Ok(Parts {
        kernel: source.part("linux-image-", "vmlinuz", kernel, "boot/vmlinuz-")?,
        busybox: source.part(BUSYBOX, "busybox", busybox, "bin/busybox")?,
    })
}

struct Source<'a> {
    cache: &'a Path,
    architecture: &'static str,
}

impl Source<'_> {
    /// The file `name` of a package whose name begins with `prefix`. It is taken from the cache, or else from the
    /// downloaded package, in which its path begins with `inside`.
    fn part(
        &self,
        prefix: &str,
        name: &str,
        package: impl Fn(&Archive) -> Result<String>,
        inside: &str,
    ) -> Result<PathBuf> {
        if let Some(there) = cached(self.cache, prefix, name) {
            return Ok(there);
        }
        let archive = Archive::new(self.architecture, self.cache)?;
        let staging = self.cache.join("new");
        let download = || {
            if staging.exists() {
                fs::remove_dir_all(&staging)?;
            }
            fs::create_dir_all(&staging)?;
            archive.download(&package(&archive)?, &staging)
        };
        let fetched = download().or_else(|error| {
            // The lists may be old, or were never fetched.
            archive.update().map_err(|_| error).and_then(|()| download())
        })?;
        let tree = staging.join("tree");
        output(Command::new("dpkg-deb").arg("-x").args([&fetched, &tree]))?;
        let wanted = find(&tree.join(inside))?;
        // The name contains package and version; renaming makes the file appear complete.
        let stem = fetched.file_stem().unwrap_or(fetched.as_os_str());
        let home = self.cache.join(stem);
        let whole = staging.join("whole");
        fs::create_dir(&whole)?;
        fs::rename(wanted, whole.join(name))?;
        fs::rename(&whole, &home).with_context(|| format!("cannot make {}", home.display()))?;
        fs::remove_dir_all(&staging)?;
        Ok(home.join(name))
    }
}

/// The newest cached file, by name.
fn cached(cache: &Path, prefix: &str, name: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(cache).ok()?.flatten();
    let of_it = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    of_it.map(|entry| entry.path().join(name)).filter(|file| file.is_file()).max()
}

/// The name of the newest cloud kernel: the meta package depends on it. Everything that guests need is built into this
/// kernel.
fn newest_kernel(archive: &Archive, target: Target) -> Result<String> {
    let newest = format!("linux-image-cloud-{}", target.debian()?);
    let text = archive.dependencies(&newest)?;
    dependency(&text).with_context(|| format!("apt-get knows no package {newest}"))
}

fn dependency(text: &str) -> Option<String> {
    let packages = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    packages.into_iter().find(|name| name.starts_with("linux-image-")).map(str::to_owned)
}

/// The only file whose path begins with `beginning`.
fn find(beginning: &Path) -> Result<PathBuf> {
    let directory = beginning.parent().context("a path without a directory")?;
    let name = beginning.file_name().unwrap_or_default().to_string_lossy();
    let entries = fs::read_dir(directory)
        .with_context(|| format!("cannot read {}", directory.display()))?
        .flatten();
    let mut found = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&*name));
    let one = found.next().with_context(|| format!("there is no {}*", beginning.display()))?;
    Ok(one.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_the_dependency_of_the_meta_package() {
        let text = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        assert_eq!(dependency(text).as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(dependency("N: Unable to locate package"), None);
    }
}
