//! Checks which programs compile, and which do not, in editions 2021 and 2024.
//!
//! The cases are the examples in this crate's documentation and in README. `src/lock/misuse.rs` has examples only
//! for this test. rustdoc builds examples in one edition, and accepts any error in an example that must not
//! compile, unless the compiler is a nightly. Here each example is a program in a package that depends on this
//! crate as others do. There is one package for each edition, and one `cargo check` reports the errors of all of
//! them.
//!
//! An example with an error that only a build finds (E0080, a value that is too large) must pass this check: then
//! nothing else is wrong with it. rustdoc builds it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say so by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test that indexes wrongly fails, as it should")]

#[path = "docs/examples.rs"]
mod examples;

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
    fs,
    path::Path,
    process::Command,
};

use examples::{Block, all_blocks, blocks_in};
use serde_json::Value;

const EDITIONS: [&str; 2] = ["2021", "2024"];
/// Errors that `cargo check` does not find.
const OF_A_BUILD: &str = "E0080";
/// Marks the line of an example with the beginning of the expected message.
const MESSAGE: &str = "// error: ";

/// What the compiler must report for an example.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Expected {
    Nothing,
    /// Errors with this code, and no others.
    Code(String),
    /// Errors whose messages begin like this, and no others.
    Message(String),
}

/// An error that a compiler found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    code: Option<String>,
    message: String,
}

impl Expected {
    fn is_met_by(&self, found: &Found) -> bool {
        match self {
            Self::Nothing => false,
            Self::Code(code) => found.code.as_ref() == Some(code),
            Self::Message(message) => found.message.starts_with(message),
        }
    }

    /// What differs between `self` and the errors found, if anything.
    fn complaint(&self, compiled: bool, found: &[Found]) -> Option<String> {
        if compiled {
            let compiles = || format!("compiles, and should not: {self:?}");
            return (*self != Self::Nothing).then(compiles);
        }
        if found.is_empty() {
            return Some("was not checked".to_owned());
        }
        let met = found.iter().all(|found| self.is_met_by(found));
        let unmet = || format!("does not compile: {self:?} is expected, and found is {found:?}");
        (!met).then(unmet)
    }
}

#[derive(Debug)]
struct Example {
    /// The file and the line that it begins in.
    place: String,
    name: String,
    program: String,
    /// `None`: all.
    edition: Option<String>,
    expected: Expected,
}

impl Example {
    /// What the compiler must report for a block. `None`: the block is not Rust.
    fn new(block: &Block) -> Option<Self> {
        let place = &block.place;
        let (mut edition, mut code, mut fails) = (None, None, false);
        for tag in block.tags() {
            match tag {
                "rust" | "no_run" => {}
                "compile_fail" => fails = true,
                _ if tag.starts_with("edition") => edition = tag.strip_prefix("edition"),
                _ if tag.starts_with('E') => code = Some(tag),
                _ => return None,
            }
        }
        let message = block.program.lines().find_map(|line| line.trim().strip_prefix(MESSAGE));
        let expected = match (fails, code, message) {
            (false, None, None) | (true, Some(OF_A_BUILD), None) => Expected::Nothing,
            (true, Some(code), None) => Expected::Code(code.to_owned()),
            (true, None, Some(message)) => Expected::Message(message.to_owned()),
            _ => panic!("{place}: it must be said by which error it does not compile"),
        };
        let (name, edition) = (block.identifier(), edition.map(str::to_owned));
        let program = block.program.clone();
        Some(Self { place: place.clone(), name, program, edition, expected })
    }

    fn is_for(&self, edition: &str) -> bool {
        self.edition.as_ref().is_none_or(|only| only == edition)
    }

    /// The name of its program, which differs between editions.
    fn target(&self, edition: &str) -> String {
        format!("{}_{edition}", self.name)
    }
}

/// A workspace with a package for each edition, whose programs are the examples.
fn lay_out(workspace: &Path, examples: &[Example]) {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::create_dir_all(workspace).unwrap();
    let members = "[workspace]\nresolver = \"3\"\nmembers = [\"2021\", \"2024\"]\n";
    fs::write(workspace.join("Cargo.toml"), members).unwrap();
    // The same versions as the workspace, so that nothing is downloaded.
    fs::copy(package.join("../../Cargo.lock"), workspace.join("Cargo.lock")).unwrap();
    for edition in EDITIONS {
        let member = workspace.join(edition);
        // Remove what an earlier run left.
        let _ = fs::remove_dir_all(&member);
        fs::create_dir_all(member.join("src/bin")).unwrap();
        let manifest = format!(
            "[package]\nname = \"edition-{edition}\"\nversion = \"0.0.0\"\nedition = \"{edition}\"\n\n\
             [dependencies]\ncommonhold = {{ path = {package:?} }}\nanyhow = \"1\"\n\
             tokio = {{ version = \"1\", default-features = false, features = [\"rt\"] }}\n"
        );
        fs::write(member.join("Cargo.toml"), manifest).unwrap();
        for example in examples.iter().filter(|example| example.is_for(edition)) {
            let file = format!("src/bin/{}.rs", example.target(edition));
            fs::write(member.join(file), &example.program).unwrap();
        }
    }
}

/// The compiler's results: the programs that compiled, and the errors of the others.
#[derive(Debug, Default)]
struct Said {
    compiled: HashSet<String>,
    found: HashMap<String, Vec<Found>>,
}

impl Said {
    /// Reads what Cargo prints, a line for each message.
    fn read(output: &str) -> Self {
        let mut said = Self::default();
        for line in output.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let Some(name) = line["target"]["name"].as_str().map(str::to_owned) else { continue };
            let message = &line["message"];
            match line["reason"].as_str() {
                Some("compiler-artifact") => {
                    said.compiled.insert(name);
                }
                Some("compiler-message") if message["level"] == "error" => {
                    let code = message["code"]["code"].as_str().map(str::to_owned);
                    let message = message["message"].as_str().unwrap().to_owned();
                    // Only the number of errors.
                    if !message.starts_with("aborting due to") {
                        said.found.entry(name).or_default().push(Found { code, message });
                    }
                }
                _ => {}
            }
        }
        said
    }
}

#[test]
fn examples_compile_or_fail_as_expected_in_every_edition() {
    let examples: Vec<_> = all_blocks().iter().filter_map(Example::new).collect();
    let workspace = Path::new(env!("CARGO_TARGET_TMPDIR")).join("editions");
    lay_out(&workspace, &examples);
    let mut check = Command::new(env!("CARGO"));
    check.current_dir(&workspace).env("CARGO_TARGET_DIR", workspace.join("target"));
    check.args(["check", "--workspace", "--bins", "--offline", "--keep-going", "--quiet"]);
    let output = check.arg("--message-format=json").output().unwrap();
    let said = Said::read(&String::from_utf8(output.stdout).unwrap());
    let mut wrong = String::new();
    for edition in EDITIONS {
        let cases = || examples.iter().filter(|example| example.is_for(edition));
        let failing = cases().filter(|example| example.expected != Expected::Nothing).count();
        assert!(failing > 0 && failing < cases().count(), "the examples were not found");
        for example in cases() {
            let target = example.target(edition);
            let found = said.found.get(&target).map_or(&[][..], Vec::as_slice);
            let compiled = said.compiled.contains(&target);
            if let Some(complaint) = example.expected.complaint(compiled, found) {
                writeln!(wrong, "{}, edition {edition}: {complaint}", example.place).unwrap();
            }
        }
    }
    if said.found.is_empty() {
        wrong += &String::from_utf8_lossy(&output.stderr);
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

fn found(code: Option<&str>, message: &str) -> Found {
    Found { code: code.map(str::to_owned), message: message.to_owned() }
}

#[test]
fn an_example_that_fails_for_another_reason_or_not_at_all_is_reported() {
    let moved = found(Some("E0382"), "use of moved value");
    let typo = found(None, "expected `;`");
    let code = Expected::Code("E0382".to_owned());
    assert_eq!(code.complaint(false, &[moved.clone(), moved.clone()]), None);
    for (compiled, errors) in
        [(true, vec![]), (false, vec![]), (false, vec![typo.clone()]), (false, vec![moved, typo])]
    {
        assert!(code.complaint(compiled, &errors).is_some(), "{compiled}, {errors:?}");
        assert_eq!(Expected::Nothing.complaint(compiled, &errors).is_none(), compiled);
    }
    let message = Expected::Message("future cannot be sent".to_owned());
    let sent = found(None, "future cannot be sent between threads safely");
    assert_eq!(message.complaint(false, std::slice::from_ref(&sent)), None);
    assert!(
        message.complaint(false, &[sent, found(Some("E0382"), "use of moved value")]).is_some()
    );
}

#[test]
fn examples_are_read_as_rustdoc_reads_them() {
    let text = "//! About it:\n//! ```\n//! # use a::B;\n//! let b = B;\n//! ```\n\
                /// ```compile_fail,E0597,edition2021\n/// fn main() {}\n/// ```\n\
                /// ```text\n/// none\n/// ```\n\
                /// ```compile_fail,E0080\n/// #![deny(unused)]\n/// ```\n";
    let blocks = blocks_in("src/a.rs", text);
    let examples: Vec<_> = blocks.iter().filter_map(Example::new).collect();
    let [plain, fails, build] = &examples[..] else { panic!("not three") };
    assert_eq!((plain.place.as_str(), &plain.expected), ("src/a.rs:2", &Expected::Nothing));
    assert_eq!(plain.program, "fn main() {\nuse a::B;\nlet b = B;\n}\n");
    assert!(plain.is_for("2021") && plain.is_for("2024"));
    assert_eq!(fails.expected, Expected::Code("E0597".to_owned()));
    assert_eq!(fails.program, "fn main() {}\n");
    assert!(fails.is_for("2021") && !fails.is_for("2024"));
    assert_eq!(build.expected, Expected::Nothing);
    let page = "```rust,no_run\nfn main() {}\n```\n```sh\nls\n```\n";
    assert_eq!(blocks_in("README.md", page).iter().filter_map(Example::new).count(), 1);
}
