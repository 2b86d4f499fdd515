//! `bench` and `torture`, which another program runs: here a script stands for it.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use crate::support::unique;

const BENCH: &str = "commonhold-bench";

/// A folder that contains only the product. The program is a hard link in the build folder, not a copy: a file that
/// this process has just written cannot be executed while another thread starts a process.
struct Installed(PathBuf);

impl Installed {
    fn new() -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("external-{}", unique()));
        fs::create_dir_all(folder.join("path")).unwrap();
        fs::hard_link(env!("CARGO_BIN_EXE_commonhold"), folder.join("commonhold")).unwrap();
        Self(folder)
    }

    /// Adds the script, at this path in the folder.
    fn with_bench(self, place: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/commonhold-bench.sh");
        symlink(script, self.0.join(place)).unwrap();
        self
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(self.0.join("commonhold"));
        let path =
            format!("/nonexistent:/dev/null:{}:/usr/bin:/bin", self.0.join("path").display());
        command.args(args).env("PATH", path).env("COMMONHOLD_SPACE", "shm:of-the-environment");
        command.stdin(Stdio::null()).output().unwrap()
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[track_caller]
fn lines(output: &Output) -> Vec<String> {
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn bench_and_torture_start_the_program_beside_this_one_with_all_arguments() {
    let installed = Installed::new().with_bench(BENCH).with_bench("path/commonhold-bench");
    let beside = installed.0.join(BENCH).display().to_string();
    let output = installed.run(&["bench", "locks", "--seconds", "0.2", "--json", "--", "-x"]);
    let given = ["space=shm:of-the-environment", "locks", "--seconds", "0.2", "--json", "--", "-x"];
    assert_eq!(lines(&output), [&[beside.as_str()], &given[..]].concat());

    let global = ["--space", "shm:x", "--any-owner", "-vv", "torture", "--json", "--peers", "2"];
    let given = ["--space", "shm:x", "--any-owner", "--json", "--verbose", "--verbose"];
    let given = [&["space=shm:of-the-environment"], &given[..], &["torture", "--peers", "2"]];
    assert_eq!(lines(&installed.run(&global)), [&[beside.as_str()], &given.concat()[..]].concat());

    assert_eq!(lines(&installed.run(&["bench"])).len(), 2);
}

#[test]
fn the_program_is_also_found_in_path_and_prints_its_own_help() {
    let installed = Installed::new().with_bench("path/commonhold-bench");
    let found = installed.0.join("path").join(BENCH).display().to_string();
    for help in ["--help", "-h", "--version", "-V"] {
        let given = [found.as_str(), "space=shm:of-the-environment", "torture", help];
        assert_eq!(lines(&installed.run(&["torture", help])), given);
    }
}

#[test]
fn without_the_program_a_message_says_how_to_get_it() {
    let installed = Installed::new();
    for args in [&["bench", "locks"][..], &["--json", "torture", "--help"]] {
        let output = installed.run(args);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(127), 0), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.starts_with("commonhold: ") && said.lines().count() == 1, "{said}");
        assert!(said.contains("cargo build --release -p commonhold-bench"), "{said}");
    }
    fs::write(installed.0.join(BENCH), "not a program").unwrap();
    let output = installed.run(&["bench"]);
    assert_eq!(output.status.code(), Some(126), "{output:?}");
}
