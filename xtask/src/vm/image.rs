//! The programs for guests, and the file system that they boot from.

use std::{
    fs::{self, File},
    io::{BufWriter, Cursor, Write},
    path::Path,
};

use anyhow::{Context, Result};
use cpio::{NewcBuilder, newc::ModeFileType, write_cpio};

use crate::{target::Target, vm::parts::Parts};

const PROGRAMS: [&str; 3] = ["commonhold", "guest-actor", "guest-agent"];
/// The first process of a guest, which becomes the agent.
const INIT: &str = include_str!("../../../crates/testkit/src/vm/init.sh");

/// Fills the folder `guest_image` for guests of `target`.
pub(crate) fn make(guest_image: &Path, parts: &Parts, target: Target) -> Result<()> {
    let programs = guest_image.join("bin");
    fs::create_dir_all(&programs)?;
    let built = target.build_for_guests(&PROGRAMS)?;
    for program in PROGRAMS {
        copy(&built.join(program), &programs.join(program))?;
    }
    copy(&parts.kernel, &guest_image.join("kernel"))?;
    let path = guest_image.join("initramfs");
    let new = guest_image.join("initramfs.new");
    let archive = BufWriter::new(File::create(&new)?);
    write(archive, &parts.busybox, &programs).context("cannot write the guests' file system")?;
    fs::rename(new, path).context("cannot write the guests' file system")
}

/// Copies a file into an image.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    // The old file is replaced, not overwritten: it may be a running program.
    let new = to.with_extension("new");
    fs::copy(from, &new)
        .and_then(|_| fs::rename(&new, to))
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

fn write(to: impl Write, busybox: &Path, programs: &Path) -> Result<()> {
    let file =
        |name: &str| NewcBuilder::new(name).mode(0o755).set_mode_file_type(ModeFileType::Regular);
    let empty = || Cursor::new(vec![]);
    let mut entries = vec![];
    for directory in ["bin", "dev", "proc", "sys"] {
        let kind = ModeFileType::Directory;
        entries.push((NewcBuilder::new(directory).mode(0o755).set_mode_file_type(kind), empty()));
    }
    // The kernel opens this device for the first process, before that process has mounted anything.
    let console = NewcBuilder::new("dev/console").mode(0o600).rdev_major(5).rdev_minor(1);
    entries.push((console.set_mode_file_type(ModeFileType::Char), empty()));
    entries.push((file("init"), Cursor::new(INIT.into())));
    entries.push((file("bin/busybox"), Cursor::new(fs::read(busybox)?)));
    for program in PROGRAMS {
        let bytes = fs::read(programs.join(program))?;
        entries.push((file(&format!("bin/{program}")), Cursor::new(bytes)));
    }
    write_cpio(entries.into_iter(), to)?.flush()?;
    Ok(())
}
