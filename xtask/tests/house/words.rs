//! The words: those of the field, in plain sentences.

use std::fs;

use crate::tree::{files, root, shown};

/// Names that only we understood, and what stands in their place.
const GONE: &[(&str, &str)] = &[
    ("Party", "Participant; in the graph ThreadRef, in benchmarks Worker"),
    ("Parties", "Participants"),
    ("Places", "what it is: OwnerSlots, TableOffsets, SlotOwners"),
    ("BiasPlace", "BiasTarget"),
    ("BiasTurn", "BiasState"),
    ("Crowd", "OwnerSet"),
    ("Vigil", "OwnerSetWatch"),
    ("Bell", "DeathFutex, or DeathNotice"),
    ("Hung", "RobustList"),
    ("Heart", "HeartbeatThread"),
    ("Grip", "MutexHold"),
    ("Hold", "ReadHold"),
    ("Witness", "LivenessEvidence"),
    ("Near", "LockContext"),
    ("Nearest", "LockContext"),
    ("Medium", "BackingMemory"),
    ("give_way", "yield_now"),
    ("DOUBT_NS", "RECHECK_NS"),
    ("HURRY_NS", "EAGER_PROBE_NS"),
    ("Refusal", "BoxedLockError"),
    ("graded", "owner_died_if"),
    ("handed_over", "into_guard"),
    ("unread", "unlock_read"),
    ("unwrite", "unlock_write"),
    ("shield", "write_protect"),
    ("Ground", "Existing, RunSpace or TestSpace"),
    ("Kit", "GuestImage"),
    ("Actor", "ScriptedProcess"),
];

/// Words that lean a sentence on another, and how often they may be left in the tree.
const LEANING: &[&str] = &["whoever", "whom", "of which each", "in the stead"];
const MOST_LEANING: usize = 30;

/// Files in which a name may stand, and why.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("CHANGELOG.md", "Party", "what it was called in the version that it tells of"),
    ("crates/bench", "Hold", "a request to a worker: hold the lock"),
    ("examples/bare-metal", "Hold", "a command to the guest: hold the lock"),
];

/// Sources and documents, with their texts: all that a reader reads.
fn texts() -> Vec<(String, String)> {
    let folders = ["crates", "xtask", "fuzz", "docs", "examples"].map(|folder| root().join(folder));
    let mut paths: Vec<_> =
        folders.iter().flat_map(|folder| files(folder, &["rs", "md", "toml", "cpp"])).collect();
    let at_the_root = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path());
    paths.extend(at_the_root.filter(|path| path.extension().is_some_and(|end| end == "md")));
    let this = root().join(file!());
    paths.retain(|path| *path != this);
    paths.into_iter().map(|path| (shown(&path), fs::read_to_string(&path).unwrap())).collect()
}

/// How often `word` stands in a text as a word of its own.
fn count(text: &str, word: &str) -> usize {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let stands = |at: &usize| {
        let (before, after) = (&text[..*at], &text[at + word.len()..]);
        !before.ends_with(is_part) && !after.starts_with(is_part)
    };
    text.match_indices(word).map(|(at, _)| at).filter(stands).count()
}

#[test]
fn a_word_is_counted_where_it_stands_alone() {
    assert_eq!(count("whom, whomever, `whom` and_whom", "whom"), 2);
}

#[test]
fn words_that_only_we_understood_are_gone() {
    let mut found = Vec::new();
    for (path, text) in texts() {
        for (word, instead) in GONE {
            let excepted =
                EXCEPTIONS.iter().any(|(file, name, _)| path.starts_with(file) && name == word);
            let times = count(&text, word);
            if times > 0 && !excepted {
                found.push(format!("{path}: {word} ({times} times): say {instead}"));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn sentences_have_plain_subjects() {
    let mut found = Vec::new();
    for (path, text) in texts() {
        let text = text.to_lowercase();
        let times: usize = LEANING.iter().map(|word| count(&text, word)).sum();
        if times > 0 {
            found.push((times, path));
        }
    }
    let all: usize = found.iter().map(|(times, _)| times).sum();
    found.sort_unstable_by(|one, other| other.cmp(one));
    assert!(all <= MOST_LEANING, "{all} of {LEANING:?}: name the actor instead: {found:#?}");
}
