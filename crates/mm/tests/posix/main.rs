//! The operations of address spaces beside `mmap` and its kin. docs/POSIX.md has a row for each case: what POSIX or
//! Linux says, what is observed here, and why it differs if it does. This test holds rows and results together.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking; clippy knows that only of unit tests"
)]

mod mlock;
mod mmap;
mod msync;
mod munmap;
mod world;

use std::collections::BTreeMap;

use world::Case;

fn cases() -> impl Iterator<Item = &'static Case> {
    [mmap::CASES, munmap::CASES, mlock::CASES, msync::CASES].into_iter().flatten()
}

/// The rows of the document by their case: what is observed here, and the verdict.
fn rows() -> BTreeMap<String, (String, String)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/POSIX.md");
    let document = std::fs::read_to_string(path).unwrap();
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let mut rows = BTreeMap::new();
    for line in document.lines().filter(|line| line.starts_with("| `")) {
        let [case, _, _, here, verdict] = &cells(line)[..] else { panic!("5 cells: {line}") };
        let row = (here.clone(), verdict.clone());
        assert!(rows.insert(case.trim_matches('`').to_owned(), row).is_none(), "twice: {line}");
    }
    rows
}

#[test]
fn the_document_says_what_is_observed() {
    let mut rows = rows();
    let mut wrong = Vec::new();
    for (name, observe) in cases() {
        let (observed, row) = (observe(), rows.remove(*name));
        let said = row.as_ref().map(|(here, _)| here.as_str());
        if said != Some(&observed) {
            wrong.push(format!("{name}: observed \"{observed}\", the document says {said:?}"));
        }
    }
    wrong.extend(rows.keys().map(|name| format!("{name}: a row without a case")));
    assert!(wrong.is_empty(), "docs/POSIX.md is out of date:\n{}", wrong.join("\n"));
}

#[test]
fn every_row_says_whether_it_differs_and_why() {
    for (name, (_, verdict)) in rows() {
        let why = verdict.strip_prefix("differs: ").is_some_and(|why| why.len() > 20);
        let same = ["as POSIX", "as Linux", "as both"].contains(&verdict.as_str());
        assert!(why || same, "{name}: \"{verdict}\"");
    }
}

#[test]
fn there_are_enough_cases() {
    assert!(cases().count() >= 50);
}
