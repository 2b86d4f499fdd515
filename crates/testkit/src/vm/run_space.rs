//! The space of a test: a file on the host, which guests see as a device.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::vm::{GuestImage, Outcome, Side, bound::Broom, failed};

/// The directory of the file: in memory, and with file locks, so that deaths on the host can be proved.
const DIRECTORY: &str = "/dev/shm";

/// A formatted space, removed when this is dropped.
#[derive(Debug)]
pub struct RunSpace {
    image: GuestImage,
    directory: PathBuf,
    /// Removes the directory at the end, even if this process is killed.
    _broom: Broom,
}

impl RunSpace {
    /// Formats a space by `commonhold space format` with these options.
    ///
    /// # Errors
    /// The command fails.
    pub fn format(image: &GuestImage, options: &[&str]) -> Outcome<Self> {
        let run_space = Self::new(image)?;
        let url = run_space.url();
        run_space.host().run(&[&["space", "format", &url], options].concat())?;
        Ok(run_space)
    }

    /// A file of zeros, which the test formats from any side.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn blank(image: &GuestImage, bytes: u64) -> Outcome<Self> {
        let run_space = Self::new(image)?;
        let file = File::create(run_space.path());
        file.and_then(|file| file.set_len(bytes)).map_err(failed("make a file"))?;
        Ok(run_space)
    }

    fn new(image: &GuestImage) -> Outcome<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let directory = format!("commonhold-vm-{}-{number}", process::id());
        let directory = Path::new(DIRECTORY).join(directory);
        fs::create_dir(&directory).map_err(failed(&directory.display().to_string()))?;
        let broom = Broom::over(image, &directory)?;
        Ok(Self { image: image.clone(), directory, _broom: broom })
    }

    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory.join("space")
    }

    /// Its URL on the host.
    #[must_use]
    pub fn url(&self) -> String {
        format!("file:{}", self.path().display())
    }

    /// The host's side of the space.
    #[must_use]
    pub fn host(&self) -> Side<'_> {
        Side::host(&self.image, self.url())
    }
}
