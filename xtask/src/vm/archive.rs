//! Debian's archive, for packages that are unpacked here and never installed.
//!
//! For this machine's architecture, packages are looked up in the lists of its apt. For another architecture the lists
//! are kept in the cache: apt's configuration is not changed, and nothing else on the machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::machine;

/// The source of packages for one architecture.
#[derive(Debug)]
pub(crate) struct Archive {
    /// Options for each command of apt.
    options: Vec<String>,
}

impl Archive {
    /// The source for an architecture, by Debian's name. Lists for a foreign architecture are kept in `cache`.
    pub(crate) fn new(architecture: &str, cache: &Path) -> Result<Self> {
        ensure!(
            machine::is_installed("apt-get") && machine::is_installed("dpkg-deb"),
            "its kernel comes from Debian's archive, and there is no apt-get"
        );
        let ours = output(Command::new("dpkg").arg("--print-architecture"))?;
        if ours.trim() == architecture {
            return Ok(Self { options: vec![] });
        }
        let lists = cache.join("lists");
        for directory in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(lists.join(directory))?;
        }
        // An empty status file: nothing of a foreign architecture is installed.
        fs::write(lists.join("status"), "")?;
        let at = |path: &str| lists.join(path).display().to_string();
        let settings = [
            format!("APT::Architecture={architecture}"),
            format!("APT::Architectures={architecture}"),
            format!("Dir::State={}", at("state")),
            format!("Dir::State::status={}", at("status")),
            format!("Dir::Cache={}", at("cache")),
        ];
        Ok(Self { options: settings.into_iter().flat_map(|set| ["-o".into(), set]).collect() })
    }

    /// Updates the package lists. For this machine's architecture only root may do so.
    pub(crate) fn update(&self) -> Result<()> {
        output(Command::new("apt-get").args(&self.options).args(["-q", "update"])).map(drop)
    }

    /// The dependencies of a package, as `apt-cache depends` prints them.
    pub(crate) fn dependencies(&self, package: &str) -> Result<String> {
        let depends = ["depends", "--no-recommends", package];
        output(Command::new("apt-cache").args(&self.options).args(depends))
    }

    /// Downloads a package into an empty directory. Returns its path.
    pub(crate) fn download(&self, package: &str, to: &Path) -> Result<PathBuf> {
        let download = ["-q", "download", package];
        output(Command::new("apt-get").args(&self.options).args(download).current_dir(to))?;
        let mut files = fs::read_dir(to)?.flatten().map(|entry| entry.path());
        files.next().with_context(|| format!("apt-get downloaded no {package}"))
    }
}

/// Runs a program, and returns its standard output. If it fails, the error is its last line on standard error, since
/// the lines before may be warnings.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let why = said.trim().lines().last().unwrap_or_default();
    let program = command.get_program().display();
    ensure!(output.status.success(), "{program}: {}: {why}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
