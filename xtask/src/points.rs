//! Checks that the release programs contain no crash points.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};

use crate::cargo::root;

/// Fails if the program at `program` contains the name of a crash point.
pub(crate) fn check_absent(program: &Path) -> Result<()> {
    let source = root().join("crates/window/src/point.rs");
    let source =
        fs::read_to_string(&source).with_context(|| format!("cannot read {}", source.display()))?;
    let names = names(&source);
    ensure!(!names.is_empty(), "found no crash point in crates/window/src/point.rs");
    let bytes = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let found: Vec<&str> = names.into_iter().filter(|name| contains(&bytes, name)).collect();
    ensure!(found.is_empty(), "{} contains {}", program.display(), found.join(", "));
    Ok(())
}

/// The names in the lines like `AttachBegins = "attach.begins",`.
fn names(source: &str) -> Vec<&str> {
    let quoted = |line: &'_ str| -> Option<(usize, usize)> {
        let start = line.find(" = \"")? + 4;
        let end = line.strip_suffix("\",")?.len();
        (start < end).then_some((start, end))
    };
    source
        .lines()
        .filter_map(|line| quoted(line).and_then(|(start, end)| line.get(start..end)))
        .filter(|name| name.contains('.'))
        .collect()
}

fn contains(bytes: &[u8], name: &str) -> bool {
    bytes.windows(name.len()).any(|window| window == name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_crash_points_are_found_in_their_source() {
        let source = include_str!("../../crates/window/src/point.rs");
        let names = names(source);
        assert!(names.contains(&"create.committed") && names.contains(&"unlock.freed"));
        assert!(names.len() > 50 && names.iter().all(|name| !name.contains('"')), "{names:?}");
        assert!(contains(b"..unlock.freed..", "unlock.freed"));
        assert!(!contains(b"..unlock.free", "unlock.freed"));
    }
}
