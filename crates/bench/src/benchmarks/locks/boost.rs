//! The locks of Boost.Interprocess: a C++ program that is compiled for the run.

use std::{
    env, io,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use crate::benchmarks::folder::Folder;

const SOURCE: &str = include_str!("boost.cpp");

/// The compiled program, removed when this is dropped.
#[derive(Debug)]
pub(super) struct Boost {
    program: PathBuf,
    /// Not in /dev/shm, which is often mounted without permission to execute.
    _folder: Folder,
}

impl Boost {
    /// Compiles the program. The error says why it could not.
    pub(super) fn compile() -> Result<Self, String> {
        let folder = Folder::below(&env::temp_dir());
        let folder = folder.map_err(|failure| failure.message.unwrap_or_default())?;
        let compiler = env::var("CXX").unwrap_or_else(|_| "g++".to_owned());
        let program = folder.file("boost");
        let output = run(&compiler, &program).map_err(|error| format!("{compiler}: {error}"))?;
        if output.status.success() {
            return Ok(Self { program, _folder: folder });
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        Err(why(&errors).map_or_else(|| output.status.to_string(), str::to_owned))
    }

    pub(super) fn program(&self) -> &Path {
        &self.program
    }
}

/// The first error of a compiler, without its position and without `#error`.
fn why(errors: &str) -> Option<&str> {
    let (_, why) = errors.lines().find_map(|line| line.split_once("error: "))?;
    Some(why.trim_start_matches("#error "))
}

fn run(compiler: &str, program: &Path) -> io::Result<Output> {
    let mut child = Command::new(compiler)
        .args(["-std=c++17", "-O2", "-DNDEBUG", "-pthread", "-x", "c++", "-", "-o"])
        .arg(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        // A compiler that ends early reports the reason itself.
        let _ = input.write_all(SOURCE.as_bytes());
    }
    child.wait_with_output()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_of_a_compiler_is_the_reason() {
        let gcc = "<stdin>:6:2: error: #error there are no headers\n<stdin>:7: error: other\n";
        assert_eq!(why(gcc), Some("there are no headers"));
        let clang = "<stdin>:6:2: error: there are no headers\n 6 | #error there ...\n";
        assert_eq!(why(clang), Some("there are no headers"));
        assert_eq!(why("killed"), None);
    }
}
