//! A space with some of everything in it, and every command that can be used on it.
//!
//! For the fuzzers that do not change the command, but what happens during it: memory runs out, a system call fails,
//! or another process is stopped.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use commonhold::{Access, CreateOptions, Destroy, FormatOptions, Space};

use super::{Finding, check::Statuses};
use crate::crash::actor::ScriptedProcess;

/// The contents of region `kept`, before and after each command.
const KEPT: [u8; 64] = [0x5a; 64];

/// A command, as words. `URL` stands for the URL of the space, `NEW` for the URL of a space that does not exist, and
/// `FILE` for a file with a page of bytes.
pub(crate) type Words = &'static [&'static str];

pub(crate) const COMMANDS: &[Words] = &[
    &["space", "format", "NEW", "--capacity", "1M", "--peers", "4", "--regions", "16"],
    &["space", "format", "URL", "--capacity", "1M", "--force"],
    &["space", "info"],
    &["space", "remove", "URL"],
    &["create", "made", "0"],
    &["create", "made", "4096"],
    &["create", "made", "100K"],
    &["create", "made", "40K", "--lazy"],
    &["create", "made", "1", "--reserve", "64K"],
    &["destroy", "gone", "--timeout", "0"],
    &["destroy", "gone", "--defer"],
    &["resize", "sized", "28K"],
    &["resize", "sized", "100"],
    &["ls"],
    &["stat", "kept"],
    &["write", "gone", "FILE"],
    &["read", "kept"],
    &["read", "lazy"],
    &["map", "kept", "--", "true"],
    &["lock", "kept", "--timeout", "0", "--", "true"],
    &["lock", "kept", "--timeout", "0", "--shared", "--", "true"],
    &["lock", "made", "--timeout", "0", "--", "true"],
    &["locks"],
    &["locks", "--graph"],
    &["peers"],
    &["reap"],
];

/// The statuses that a command may end with; some commands end with that of the command they run.
pub(crate) fn statuses(words: Words) -> Statuses {
    if matches!(words.first(), Some(&"lock" | &"map")) {
        Statuses::OfItsCommand
    } else {
        Statuses::Own
    }
}

/// Which processes use the space besides the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scene {
    /// None.
    Quiet,
    /// One process has died there, and no other has noticed it yet.
    Dead,
}

impl Scene {
    pub(crate) const ALL: [Self; 2] = [Self::Quiet, Self::Dead];
}

/// A folder with a space, `space`, and a file, `file`.
#[derive(Debug)]
pub(crate) struct TestSpace {
    pub(crate) folder: PathBuf,
    /// The file of the space as it was made. It stays open, so that no later file gets its number.
    original: Option<File>,
}

impl TestSpace {
    /// Makes a new space. A copy of one would have holes where memory is taken but nothing is written.
    pub(crate) fn make(folder: &Path, scene: Scene) -> Finding<Self> {
        let wrong = |error: &dyn std::fmt::Display| error.to_string();
        let _ = fs::remove_dir_all(folder);
        let mut test_space = Self::around(folder)?;
        let options = FormatOptions {
            capacity: Some(1 << 20),
            peers: Some(8),
            threads: Some(4),
            regions: Some(40),
            ..FormatOptions::default()
        };
        Space::format(&test_space.url(), &options).map_err(|error| wrong(&error))?;
        let original = File::open(folder.join("space")).map_err(|error| wrong(&error))?;
        test_space.original = Some(original);
        let space = Space::open(&test_space.url()).map_err(|error| wrong(&error))?;
        for (name, size, reserve, lazy) in [
            ("kept", 64, None, false),
            ("gone", 5000, None, false),
            ("sized", 5000, Some(32 << 10), false),
            ("lazy", 20_000, None, true),
        ] {
            let options = CreateOptions { size, reserve, lazy, ..CreateOptions::default() };
            space.create_with(name, &options).map_err(|error| wrong(&error))?;
        }
        let kept = space.map("kept", Access::ReadWrite).map_err(|error| wrong(&error))?;
        kept.write_at(0, &KEPT).map_err(|error| wrong(&error))?;
        drop((kept, space));
        if scene == Scene::Dead {
            let program = std::env::current_exe().map_err(|error| wrong(&error))?;
            let mut actor = ScriptedProcess::start(&program.with_file_name("crash-actor"), None)?;
            let open = format!("open {}", test_space.url());
            actor.tell_all(&[&open, "map sized", "create dead 4096", "map dead"])?;
            actor.kill()?;
        }
        Ok(test_space)
    }

    /// The same folder, for a space that the caller puts there.
    pub(crate) fn around(folder: &Path) -> Finding<Self> {
        let wrong = |error: std::io::Error| error.to_string();
        fs::create_dir_all(folder).map_err(wrong)?;
        fs::write(folder.join("file"), [7; 4096]).map_err(wrong)?;
        Ok(Self { folder: folder.to_owned(), original: None })
    }

    pub(crate) fn url(&self) -> String {
        format!("file:{}", self.folder.join("space").display())
    }

    /// The command, as words for a process.
    pub(crate) fn words(&self, words: Words) -> Vec<String> {
        let new = format!("file:{}", self.folder.join("new").display());
        let real = |word: &&str| match *word {
            "URL" => self.url(),
            "NEW" => new.clone(),
            "FILE" => self.folder.join("file").display().to_string(),
            other => other.to_owned(),
        };
        words.iter().map(real).collect()
    }

    /// The same as a process, with its environment.
    pub(crate) fn command(&self, program: &Path, words: Words) -> Command {
        let mut command = Command::new(program);
        command.args(self.words(words));
        self.surround(&mut command);
        command
    }

    pub(crate) fn surround(&self, command: &mut Command) {
        command.current_dir(&self.folder).env("COMMONHOLD_SPACE", self.url());
        command.env("COMMONHOLD_SHM_DIR", &self.folder).env_remove("COMMONHOLD_OWNER_DIED");
    }

    /// Whether the space's name means another file than the one that was made.
    fn is_new(&self) -> std::io::Result<bool> {
        let number = |file: fs::Metadata| (file.dev(), file.ino());
        let now = number(fs::metadata(self.folder.join("space"))?);
        match &self.original {
            Some(original) => Ok(number(original.metadata()?) != now),
            None => Ok(false),
        }
    }

    /// Checks that everything is whole, that nothing is lost, and that the space can still be used.
    pub(crate) fn is_whole(&self) -> Finding {
        let path = self.folder.join("space");
        if !path.exists() {
            // The command has removed it.
            return Ok(());
        }
        let space = Space::open(&self.url()).map_err(|error| format!("afterwards: {error}"))?;
        let wrong = |error: commonhold::RegionError| format!("afterwards: {error}");
        space.reap().map_err(wrong)?;
        space.check().map_err(wrong)?;
        let names: Vec<String> =
            space.regions().map_err(wrong)?.into_iter().map(|region| region.name).collect();
        // A space that was formatted anew has only what commands made there since.
        if !self.is_new().map_err(|error| format!("afterwards: {error}"))? {
            if !names.iter().any(|name| name == "kept") {
                return Err(format!("afterwards: \"kept\" is gone from {names:?}"));
            }
            let kept = space.map("kept", Access::ReadOnly).map_err(wrong)?;
            let mut bytes = [0; KEPT.len()];
            kept.read_at(0, &mut bytes).map_err(wrong)?;
            if bytes != KEPT {
                return Err("afterwards: what was kept is lost".to_owned());
            }
            kept.unmap().map_err(wrong)?;
        }
        space.create("afterwards", 4096).map_err(wrong)?;
        space.destroy("afterwards", Destroy::Wait).map_err(wrong)?;
        Ok(())
    }
}
