//! One program that contains all examples, built by Cargo as other programs are.
//!
//! `killed NAME` runs one of them. With `COMMONHOLD_TEST_POINT=3` it kills itself at the third statement that ends:
//! so it dies between any two statements, also where a random instant would seldom hit.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::examples::Block;

/// The variable that says at which statement a run ends.
pub(crate) const POINT: &str = "COMMONHOLD_TEST_POINT";

/// The expression by which an example names its process. It is replaced, so that two runs use the same space.
const PROCESS: &str = "std::process::id()";

/// Chooses the example, and counts its statements.
const MAIN: &str = r#"
#![allow(warnings)]
use std::{
    process::{ExitCode, Termination},
    sync::{LazyLock, atomic::{AtomicU64, Ordering}},
};

static LAST: LazyLock<u64> = LazyLock::new(|| {
    std::env::var("COMMONHOLD_TEST_POINT").map_or(0, |number| number.parse().unwrap())
});
static PASSED: AtomicU64 = AtomicU64::new(0);

fn point() {
    if PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *LAST {
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
    }
}
"#;

/// Builds the program, and returns where it is.
pub(crate) fn build(blocks: &[&Block]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    lay_out(&folder.join("killed"), blocks);
    // The dependencies are those of `../compile.rs`, and are built in the same place.
    let target = folder.join("editions/target");
    let mut build = Command::new(env!("CARGO"));
    build.current_dir(folder.join("killed")).args(["build", "--offline", "--quiet"]);
    let output = build.env("CARGO_TARGET_DIR", &target).output().unwrap();
    assert!(output.status.success(), "\n{}", String::from_utf8_lossy(&output.stderr));
    target.join("debug/killed")
}

fn lay_out(folder: &Path, blocks: &[&Block]) {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Remove what an earlier run left.
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder.join("src")).unwrap();
    // The same versions as the workspace, so that nothing is downloaded.
    fs::copy(package.join("../../Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    // Without optimisation, a run would spend most of its time zeroing tables.
    let manifest = format!(
        "[workspace]\n[package]\nname = \"killed\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\
         [profile.dev]\ndebug = false\n[profile.dev.package.commonhold-window]\nopt-level = 2\n\
         [dependencies]\ncommonhold = {{ path = {package:?} }}\nanyhow = \"1\"\n\
         rustix = {{ version = \"1\", features = [\"process\"] }}\n\
         tokio = {{ version = \"1\", default-features = false, features = [\"rt\"] }}\n"
    );
    fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    let (mut modules, mut choices) = (String::new(), String::new());
    for block in blocks {
        let name = block.identifier();
        fs::write(folder.join(format!("src/{name}.rs")), module(&block.program)).unwrap();
        writeln!(modules, "mod {name};").unwrap();
        writeln!(choices, "Some(\"{name}\") => {name}::main().report(),").unwrap();
    }
    let choose = format!(
        "fn main() -> ExitCode {{ match std::env::args().nth(1).as_deref() {{ {choices} _ => panic!() }} }}"
    );
    fs::write(folder.join("src/main.rs"), format!("{MAIN}\n{modules}\n{choose}\n")).unwrap();
}

/// An example as a module, with a point behind each line of a function that ends a statement.
fn module(program: &str) -> String {
    let mut text = String::new();
    // For each open brace, whether it is inside a function.
    let mut open = Vec::new();
    for line in program.lines() {
        for letter in line.chars() {
            match letter {
                '{' => open.push(line.contains("fn ") || open.last() == Some(&true)),
                '}' => drop(open.pop()),
                _ => {}
            }
        }
        let line = line.replace("fn main(", "pub(crate) fn main(").replace(PROCESS, "0");
        writeln!(text, "{line}").unwrap();
        if line.ends_with(';') && open.last() == Some(&true) {
            writeln!(text, "crate::point();").unwrap();
        }
    }
    text
}

#[test]
fn a_point_stands_behind_each_statement_and_nowhere_else() {
    let program = "use a::{\nB,\n};\nimpl B {\nconst C: u64 = 1;\nfn d() {\ne();\n}\n}\n\
                   fn main() {\nlet c = B {\nid: std::process::id(),\n};\n}\nuse f::G;\n";
    assert_eq!(
        module(program),
        "use a::{\nB,\n};\nimpl B {\nconst C: u64 = 1;\nfn d() {\ne();\ncrate::point();\n}\n}\n\
         pub(crate) fn main() {\nlet c = B {\nid: 0,\n};\ncrate::point();\n}\nuse f::G;\n"
    );
}
