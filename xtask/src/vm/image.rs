//! The programs for guests, and the file system that they boot from.

use std::{
    fs::{self, File},
    io::{BufWriter, Cursor, Write},
    path::Path,
};

use anyhow::{Context, Result};
use cpio::{NewcBuilder, newc::ModeFileType, write_cpio};

use crate::{
    bare_metal,
    cargo::{self, cargo, rustflags_and},
    vm::parts::Parts,
};

const TARGET: &str = "x86_64-unknown-linux-gnu";
const PROGRAMS: [&str; 3] = ["commonhold", "guest-actor", "guest-agent"];
/// What the kernel starts; it ends as the agent.
const INIT: &str = include_str!("../../../crates/testkit/src/vm/init.sh");

/// Fills `kit`.
pub(crate) fn make(kit: &Path, parts: &Parts) -> Result<()> {
    let programs = kit.join("bin");
    fs::create_dir_all(&programs)?;
    build(&programs)?;
    copy(&bare_metal::build()?.0, &programs.join("bare-metal"))?;
    copy(&parts.kernel, &kit.join("kernel"))?;
    let path = kit.join("initramfs");
    let new = kit.join("initramfs.new");
    let archive = BufWriter::new(File::create(&new)?);
    write(archive, &parts.busybox, &programs).context("cannot write the guests' file system")?;
    fs::rename(new, path).context("cannot write the guests' file system")
}

/// Builds them static, in a target directory of its own: the flags are for guests only.
fn build(to: &Path) -> Result<()> {
    let target = cargo::metadata(&["--no-deps"])?.target_directory.join("guest");
    let mut command = cargo(&["build", "--profile", "guest", "--target", TARGET]);
    command.args(["-p", "commonhold-cli", "-p", "commonhold-testkit"]);
    command.args(["--features", "commonhold-testkit/vm"]);
    for program in PROGRAMS {
        command.args(["--bin", program]);
    }
    command
        .env("RUSTFLAGS", rustflags_and("-C target-feature=+crt-static"))
        .env("CARGO_TARGET_DIR", &target);
    cargo::must_succeed(&mut command)?;
    for program in PROGRAMS {
        copy(&target.join(TARGET).join("guest").join(program), &to.join(program))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    // Not over what is there: it may be running.
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
    // What the kernel opens for the first process, before that one has mounted anything.
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
