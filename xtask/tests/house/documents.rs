//! Checks that the documents agree with the code.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use serde_json::Value;

use crate::tree::{files, root};

/// The crates that each crate of the workspace uses, by package names, from the manifests.
fn used_by_manifests() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let names: BTreeSet<&str> =
        packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let uses = |package: &Value| {
        let used = package["dependencies"].as_array().unwrap().iter();
        // Dependencies of tests only are not in the picture.
        used.filter(|used| used["kind"].is_null())
            .filter_map(|used| used["name"].as_str())
            .filter(|used| names.contains(used))
            .map(str::to_owned)
            .collect()
    };
    packages
        .iter()
        .map(|package| (package["name"].as_str().unwrap().to_owned(), uses(package)))
        .collect()
}

/// The lines of the first block of code with this name, such as ```` ```crates ````.
fn block<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let begin = format!("```{name}");
    let lines = text.lines().skip_while(|line| *line != begin).skip(1);
    lines.take_while(|line| *line != "```").collect()
}

/// The same from the picture in ARCHITECTURE.md, such as `host -> layout, window`, as package names.
fn used_by_picture() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let package = |name: &str| match name {
        "commonhold" | "xtask" => name.to_owned(),
        _ => format!("commonhold-{name}"),
    };
    let lines = block(&text, "crates").into_iter().filter_map(|line| {
        let (name, rest) = line.split_once(' ')?;
        let uses = rest.split_once("->").map_or("", |(_, uses)| uses);
        let uses = uses.split([',', ' ']).filter(|name| !name.is_empty()).map(package).collect();
        Some((package(name), uses))
    });
    lines.collect()
}

#[test]
fn the_crate_picture_is_what_the_manifests_say() {
    let (picture, manifests) = (used_by_picture(), used_by_manifests());
    let wrong: Vec<_> = manifests
        .iter()
        .filter(|(name, uses)| picture.get(*name) != Some(uses))
        .map(|(name, uses)| {
            format!("{name} uses {uses:?}, the picture says {:?}", picture.get(name))
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "correct the block `crates` of ARCHITECTURE.md:\n{}",
        wrong.join("\n")
    );
    let gone: Vec<_> = picture.keys().filter(|name| !manifests.contains_key(*name)).collect();
    assert!(
        gone.is_empty(),
        "the block `crates` of ARCHITECTURE.md names {gone:?}, which are gone"
    );
}

/// The parts of a text between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Whether a quoted text looks like a path in the repository.
fn is_path(quoted: &str) -> bool {
    let ending = [".rs", ".md", ".toml"].iter().any(|ending| quoted.ends_with(ending));
    let plain = quoted.chars().all(|c| c.is_ascii_alphanumeric() || "/_-.".contains(c));
    plain && quoted.contains('/') && (ending || quoted.ends_with('/'))
}

/// Whether a path exists, from the root or (as documents abbreviate it) from `crates`.
fn exists(path: &str) -> bool {
    root().join(path).exists() || root().join("crates").join(path).exists()
}

#[test]
fn the_paths_that_documents_name_exist() {
    let folders = ["docs"].map(|folder| files(&root().join(folder), &["md"]));
    let mut documents: Vec<_> = folders.concat();
    documents
        .extend(["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(|name| root().join(name)));
    let missing: Vec<_> = documents
        .iter()
        // Decision records describe the tree as it was at the time.
        .filter(|path| path.parent().is_none_or(|folder| !folder.ends_with("adr")))
        .flat_map(|path| {
            let text = fs::read_to_string(path).unwrap();
            let named: Vec<_> =
                quoted(&text).filter(|name| is_path(name)).map(str::to_owned).collect();
            named
                .into_iter()
                .filter(|name| !exists(name))
                .map(|name| format!("{}: {name}", path.display()))
        })
        .collect();
    assert!(missing.is_empty(), "no such files:\n{}", missing.join("\n"));
}

/// The claims of the three sources.
fn claims() -> impl Iterator<Item = String> {
    [('A', 8), ('B', 12), ('C', 9)]
        .into_iter()
        .flat_map(|(source, count)| (1..=count).map(move |number| format!("{source}{number}")))
}

/// The names of all tests, and whatever else may show a claim.
fn tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for folder in ["crates", "xtask", "fuzz"] {
        for path in files(&root().join(folder), &["rs"]) {
            let text = fs::read_to_string(&path).unwrap();
            let functions = text.lines().filter_map(|line| line.trim_start().split_once("fn "));
            names.extend(functions.map(|(_, rest)| {
                rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>()
            }));
        }
    }
    names
}

#[test]
fn every_claim_of_the_sources_names_its_files_and_tests() {
    let text = fs::read_to_string(root().join("docs/SOURCES.md")).unwrap();
    let tests = tests();
    for claim in claims() {
        let row = text.lines().find(|line| line.starts_with(&format!("| {claim} |")));
        let row = row.unwrap_or_else(|| panic!("docs/SOURCES.md has no row for {claim}"));
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [_, _, what, lives, shown, _] = cells.as_slice() else {
            panic!(
                "{claim}: a row has four cells: the claim, what it asks, where it lives, what shows it"
            );
        };
        assert!(!what.is_empty());
        let planned = lives.starts_with("planned:");
        for place in quoted(lives).filter(|place| place.contains('/')) {
            assert!(exists(place), "{claim} lives in {place}, which does not exist");
        }
        assert!(planned || quoted(lives).any(exists), "{claim} lives nowhere");
        let named: Vec<_> = quoted(shown).collect();
        for test in &named {
            let is_known = tests.contains(*test) || exists(test);
            assert!(is_known, "{claim} is shown by {test}, which does not exist");
        }
        assert!(planned || !named.is_empty(), "{claim} is shown by no test");
    }
}
