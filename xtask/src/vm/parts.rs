//! What guests are made of and is not ours: a kernel and busybox, from Debian's archive.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::machine;

/// The package that depends on the newest kernel for clouds. All that guests use is built into it.
const KERNELS: &str = "linux-image-cloud-amd64";
const BUSYBOX: &str = "busybox-static";

/// Where the files are.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) kernel: PathBuf,
    pub(crate) busybox: PathBuf,
}

/// Fetches what is not in `cache` yet. Nothing is asked of the network if all is.
pub(crate) fn fetch(cache: &Path) -> Result<Parts> {
    ensure!(
        cfg!(all(target_arch = "x86_64", target_os = "linux")),
        "the guests are x86-64 with Linux, and their programs are built here only for a machine like it"
    );
    fs::create_dir_all(cache).with_context(|| format!("cannot make {}", cache.display()))?;
    Ok(Parts {
        kernel: part(cache, "linux-image-", "vmlinuz", kernel_package, "boot/vmlinuz-")?,
        busybox: part(cache, BUSYBOX, "busybox", || Ok(BUSYBOX.to_owned()), "bin/busybox")?,
    })
}

/// The file `name` of a package that begins with `prefix`: in the cache, or else fetched, where it is
/// at the path that begins with `inside`.
fn part(
    cache: &Path,
    prefix: &str,
    name: &str,
    package: impl Fn() -> Result<String>,
    inside: &str,
) -> Result<PathBuf> {
    if let Some(there) = cached(cache, prefix, name) {
        return Ok(there);
    }
    if !machine::is_installed("apt-get") || !machine::is_installed("dpkg-deb") {
        bail!("its kernel comes from Debian's archive, and there is no apt-get");
    }
    let staging = cache.join("new");
    let fetched = download(&staging, &package).or_else(|error| {
        // Lists that are old, or were never fetched.
        machine::apt_update().map_err(|_| error).and_then(|()| download(&staging, &package))
    })?;
    let tree = staging.join("tree");
    run(Command::new("dpkg-deb").arg("-x").args([&fetched, &tree]))?;
    let wanted = find(&tree.join(inside))?;
    // Named after package and version, and whole at once.
    let stem = fetched.file_stem().unwrap_or(fetched.as_os_str());
    let home = cache.join(stem);
    let whole = staging.join("whole");
    fs::create_dir(&whole)?;
    fs::rename(wanted, whole.join(name))?;
    fs::rename(&whole, &home).with_context(|| format!("cannot make {}", home.display()))?;
    fs::remove_dir_all(&staging)?;
    Ok(home.join(name))
}

/// The newest, by name, that is there.
fn cached(cache: &Path, prefix: &str, name: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(cache).ok()?.flatten();
    let of_it = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    of_it.map(|entry| entry.path().join(name)).filter(|file| file.is_file()).max()
}

fn download(staging: &Path, package: &impl Fn() -> Result<String>) -> Result<PathBuf> {
    if staging.exists() {
        fs::remove_dir_all(staging)?;
    }
    fs::create_dir_all(staging)?;
    let package = package()?;
    run(Command::new("apt-get").args(["-q", "download", &package]).current_dir(staging))?;
    find(&staging.join(&package))
}

/// What the meta package depends on.
fn kernel_package() -> Result<String> {
    let output = Command::new("apt-cache")
        .args(["depends", "--no-recommends", KERNELS])
        .output()
        .context("cannot run apt-cache")?;
    let text = String::from_utf8_lossy(&output.stdout);
    dependency(&text).with_context(|| format!("apt-get knows no package {KERNELS}"))
}

fn dependency(text: &str) -> Option<String> {
    let packages = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    packages.into_iter().find(|name| name.starts_with("linux-image-")).map(str::to_owned)
}

/// The only file whose path begins so.
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

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    // The last line is the error; what comes before may be warnings.
    let why = said.trim().lines().last().unwrap_or_default();
    let program = command.get_program().display();
    ensure!(output.status.success(), "{program}: {}: {why}", output.status);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_the_one_that_the_meta_package_depends_on() {
        let text = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        assert_eq!(dependency(text).as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(dependency("N: Unable to locate package"), None);
    }
}
