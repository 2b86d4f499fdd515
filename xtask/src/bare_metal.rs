//! `cargo xtask bare-metal`: the guest of `examples/bare-metal`, built and checked.
//!
//! It is a separate workspace, since it is linked for no operating system. The commands that check the main workspace
//! do not cover it; this module does.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::{
    cargo::{self, cargo},
    machine,
    report::{Counts, Report},
};

const MANIFEST: &str = "examples/bare-metal/Cargo.toml";
/// The largest permitted size of the image, in bytes.
const MOST: u64 = 256 << 10;

/// Builds the image. Returns its path and size.
pub(crate) fn build() -> Result<(PathBuf, u64)> {
    let target = target()?;
    let build = ["build", "--release", "--locked", "--manifest-path", MANIFEST];
    cargo::must_succeed(cargo(&build).arg("--target-dir").arg(&target))?;
    let image = target.join("release/bare-metal");
    let size = fs::metadata(&image).with_context(|| format!("no {}", image.display()))?.len();
    ensure!(size < MOST, "{} has {size} bytes, {MOST} or more", image.display());
    Ok((image, size))
}

fn target() -> Result<PathBuf> {
    Ok(cargo::metadata(&["--no-deps"])?.target_directory.join("bare-metal"))
}

/// `cargo fmt --check` for it.
pub(crate) fn check_format() -> Result<()> {
    cargo::run(&["fmt", "--manifest-path", MANIFEST, "--check"])
}

/// `cargo clippy` for it.
pub(crate) fn check_lints() -> Result<()> {
    let clippy = ["clippy", "--locked", "--all-targets", "--manifest-path", MANIFEST];
    let mut command = cargo(&clippy);
    command.arg("--target-dir").arg(target()?).args(["--", "-D", "warnings"]);
    cargo::must_succeed(&mut command)
}

/// The steps of `cargo xtask test`: builds it, and boots it.
pub(crate) fn steps(report: &mut Report) {
    let tests = "cargo test (bare-metal guest)";
    let mut image = None;
    report.step("the image of the bare-metal guest", |_| {
        image = Some(build()?.0);
        Ok(())
    });
    match image {
        _ if !machine::has_qemu() => report.not_run(tests, "there is no QEMU"),
        None => report.not_run(tests, "there is no image"),
        Some(image) => {
            report.step(tests, |counts| test(&image, counts));
        }
    }
}

fn test(image: &Path, counts: &mut Counts) -> Result<()> {
    let test = ["test", "-p", "commonhold-testkit", "--features", "bare-metal"];
    let mut command = cargo(&test);
    command.args(["--test", "bare_metal"]).env("COMMONHOLD_BARE_METAL", image);
    cargo::test(&mut command, counts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cargo::root;

    /// A table of a manifest: the lines after `[name]`, without comments.
    fn table<'a>(manifest: &'a str, name: &str) -> Vec<&'a str> {
        let head = format!("[{name}]");
        let lines = manifest.lines().skip_while(|line| *line != head).skip(1);
        let lines = lines.take_while(|line| !line.starts_with('['));
        lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
    }

    #[test]
    fn the_separate_workspaces_have_the_lints_of_the_main_workspace() {
        let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
        let ours = read("Cargo.toml");
        for theirs in [MANIFEST, "fuzz/Cargo.toml"] {
            for kind in ["rust", "clippy"] {
                let expected = table(&ours, &format!("workspace.lints.{kind}"));
                assert!(expected.len() > 3, "{expected:?}");
                assert_eq!(table(&read(theirs), &format!("lints.{kind}")), expected, "{theirs}");
            }
        }
    }
}
