//! Every type and trait that the crate's root exports has an example in its documentation.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::examples::sources;

const DEFINITIONS: [&str; 4] = ["pub struct", "pub enum", "pub trait", "pub type"];

/// The documentation above a definition.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    AnExample,
    /// An alias needs no example: its type has one.
    Alias,
    /// With the line of the definition.
    None(usize),
}

/// Looks for the definition of a name in a source. Items are separated by empty lines.
fn look_for(name: &str, text: &str) -> Option<Found> {
    let lines: Vec<_> = text.lines().collect();
    let defines = |line: &str, keyword: &str| {
        let rest = line.strip_prefix(keyword).and_then(|rest| rest.trim_start().strip_prefix(name));
        rest.is_some_and(|rest| {
            !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_')
        })
    };
    let (at, keyword) = (0..lines.len()).find_map(|at| {
        let keyword = DEFINITIONS.into_iter().find(|keyword| defines(lines[at], keyword))?;
        Some((at, keyword))
    })?;
    if keyword == "pub type" {
        return Some(Found::Alias);
    }
    let above = lines[..at].iter().rev().take_while(|line| !line.is_empty());
    let documentation: Vec<_> = above.filter_map(|line| line.strip_prefix("///")).collect();
    let section = documentation.iter().rev().skip_while(|line| line.trim() != "# Examples");
    let has_code = section.skip(1).any(|line| line.trim().starts_with("```"));
    Some(if has_code { Found::AnExample } else { Found::None(at + 1) })
}

/// The names of types that a crate's root exports, each with the crate that it names as theirs.
fn exported(root: &str) -> BTreeMap<String, String> {
    let statements = root.split("pub use ").skip(1).filter_map(|rest| rest.split(';').next());
    let words = |statement: &str| {
        let words = statement.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    let types = |words: Vec<String>| {
        let origin = words.first().cloned().unwrap_or_default();
        let is_type = |word: &String| word.starts_with(|first: char| first.is_ascii_uppercase());
        words
            .into_iter()
            .filter(is_type)
            .map(move |name| (name, origin.clone()))
            .collect::<Vec<_>>()
    };
    statements.flat_map(|statement| types(words(statement))).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn every_public_type_has_an_example() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let own = sources(&package.join("src"));
    let of_crate = |name: &str| sources(&package.join("..").join(name).join("src"));
    let others = || ["layout", "window", "sync", "space", "host"].into_iter().flat_map(of_crate);
    let names = exported(&read(&package.join("src/lib.rs")));
    assert!(names.len() > 80, "the root exports more than {names:?}");
    let mut wrong = Vec::new();
    for (name, origin) in &names {
        let files = match origin.strip_prefix("commonhold_") {
            Some(other) => of_crate(other),
            None => own.clone(),
        };
        let find = |path: &PathBuf| Some((path.clone(), look_for(name, &read(path))?));
        // A module of this crate may export it from another one in turn.
        match files.iter().find_map(find).or_else(|| others().find_map(|path| find(&path))) {
            Some((_, Found::AnExample | Found::Alias)) => {}
            Some((path, Found::None(line))) => wrong.push(format!(
                "{}:{line}: `{name}` has no example. Give its documentation a section `# Examples` with a short \
                 program that is right after a crash too: it repairs, or passes on that an owner died.",
                path.display()
            )),
            None => wrong.push(format!("`{name}` is exported, and its definition was not found")),
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_type_without_an_example_program_is_reported() {
    let with = "/// A.\n///\n/// # Examples\n/// ```\n/// a();\n/// ```\n#[derive(Debug)]\npub struct A<T>(T);\n";
    assert_eq!(look_for("A", with), Some(Found::AnExample));
    assert_eq!(look_for("B", with), None);
    for (text, line) in [
        ("/// A.\npub enum A {}\n", 2),
        ("/// A.\n/// ```\n/// a();\n/// ```\npub trait A: B {}\n", 5),
        ("/// A.\n/// # Examples\n/// None.\npub struct A;\n", 4),
        ("/// # Examples\n/// ```\n/// ```\npub struct AB;\n\n/// A.\npub struct A;\n", 7),
    ] {
        assert_eq!(look_for("A", text), Some(Found::None(line)), "{text}");
    }
    assert_eq!(look_for("A", "/// A.\npub type A = B;\n"), Some(Found::Alias));
}

#[test]
fn exports_of_a_root_are_listed_with_their_crates() {
    let root =
        "pub use a::B;\npub use commonhold_c::{\n    D, E, f,\n};\nmod g;\npub use g::{H};\n";
    let names = exported(root);
    let names: Vec<_> =
        names.iter().map(|(name, origin)| (name.as_str(), origin.as_str())).collect();
    assert_eq!(names, [("B", "a"), ("D", "commonhold_c"), ("E", "commonhold_c"), ("H", "g")]);
}
