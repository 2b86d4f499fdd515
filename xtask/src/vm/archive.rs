//! Debian's archive, for packages that are unpacked here and never installed.
//!
//! Packages of this machine's architecture are looked up in its own lists. For another architecture there are lists in
//! the cache: the machine's apt is not told of it, and nothing on the machine changes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::machine;

/// Where packages of one architecture come from.
#[derive(Debug)]
pub(crate) struct Archive {
    /// What apt is told beside each command.
    options: Vec<String>,
}

impl Archive {
    /// That of an architecture, as Debian calls it. Lists of another than this machine's are kept below `cache`.
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
        // Of another architecture nothing is installed.
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

    /// Has apt look for what there is now. For this machine's architecture only root may.
    pub(crate) fn update(&self) -> Result<()> {
        output(Command::new("apt-get").args(&self.options).args(["-q", "update"])).map(drop)
    }

    /// What a package depends on, as `apt-cache depends` says it.
    pub(crate) fn dependencies(&self, package: &str) -> Result<String> {
        let depends = ["depends", "--no-recommends", package];
        output(Command::new("apt-cache").args(&self.options).args(depends))
    }

    /// Downloads a package to an empty directory, and says where it is.
    pub(crate) fn download(&self, package: &str, to: &Path) -> Result<PathBuf> {
        let download = ["-q", "download", package];
        output(Command::new("apt-get").args(&self.options).args(download).current_dir(to))?;
        let mut files = fs::read_dir(to)?.flatten().map(|entry| entry.path());
        files.next().with_context(|| format!("apt-get downloaded no {package}"))
    }
}

/// Runs a program, and gives back what it writes. Its last line of errors is the error; what comes before may be warnings.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let why = said.trim().lines().last().unwrap_or_default();
    let program = command.get_program().display();
    ensure!(output.status.success(), "{program}: {}: {why}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
