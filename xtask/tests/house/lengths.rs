//! The lengths of files, and the number of files in a folder.

use std::fs;

use crate::tree::{files, is_test, root, shown, sources};

const LONGEST: usize = 500;
/// How many files the root of `host` may have, so that a reader sees at once what it does.
const MOST_IN_HOST: usize = 10;

/// How many lines a file has before the tests at its end.
fn lines_without_tests(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines.windows(2).position(|two| {
        two[0].starts_with("#[cfg(test)]") && two[1].starts_with("mod ") && two[1].ends_with('{')
    });
    tests.unwrap_or(lines.len())
}

#[test]
fn tests_at_the_end_of_a_file_do_not_count() {
    assert_eq!(lines_without_tests("a\nb\n#[cfg(test)]\nmod tests {\n}\n"), 2);
    assert_eq!(lines_without_tests("#[cfg(test)]\nmod tests;\nb\n"), 3);
}

#[test]
fn no_file_is_longer_than_500_lines_without_its_tests() {
    let all = sources().into_iter().flat_map(|(_, source)| files(&source, &["rs", "cpp"]));
    let long: Vec<_> = all
        .filter(|path| !is_test(path))
        .map(|path| (lines_without_tests(&fs::read_to_string(&path).unwrap()), shown(&path)))
        .filter(|(lines, _)| *lines > LONGEST)
        .collect();
    assert!(long.is_empty(), "split these files by topic: {long:?}");
}

#[test]
fn the_root_of_host_has_at_most_ten_files() {
    let host = fs::read_dir(root().join("crates/host/src")).unwrap();
    let count = host.filter(|entry| entry.as_ref().unwrap().path().is_file()).count();
    assert!(count <= MOST_IN_HOST, "{count} files in crates/host/src: move them into its folders");
}
