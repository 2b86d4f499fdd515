//! What the source text defines: the names of the constants in a file, or in a block of one.

use std::{
    string::{String, ToString},
    vec::Vec,
};

pub(super) const BIAS: &str = include_str!("../bias.rs");
pub(super) const DOMAIN: &str = include_str!("../domain.rs");
pub(super) const EXTENT: &str = include_str!("../extent.rs");
pub(super) const FNV: &str = include_str!("../fnv.rs");
pub(super) const HEADER: &str = include_str!("../header.rs");
pub(super) const INTENT: &str = include_str!("../intent.rs");
pub(super) const LIMITS: &str = include_str!("../limits.rs");
pub(super) const LOCK: &str = include_str!("../lock.rs");
pub(super) const PEER: &str = include_str!("../peer.rs");
pub(super) const READ_KEY: &str = include_str!("../read_key.rs");
pub(super) const RECORD: &str = include_str!("../record.rs");
pub(super) const REGION: &str = include_str!("../region.rs");
pub(super) const TABLES: &str = include_str!("../geometry/tables.rs");
pub(super) const THREAD: &str = include_str!("../thread.rs");

/// `HEADER_BYTES` and `OfdLock` as the document writes them.
pub(super) fn snake(name: &str) -> String {
    if name.contains(char::is_lowercase) {
        let mut out = String::new();
        for character in name.chars() {
            if character.is_uppercase() && !out.is_empty() {
                out.push('_');
            }
            out.extend(character.to_lowercase());
        }
        return out;
    }
    name.to_lowercase()
}

/// The name that a line of source defines: of a constant, or of a variant without fields.
pub(super) fn defined(line: &str) -> Option<String> {
    let line = line.trim();
    let constant = line.strip_prefix("pub const ").or(line.strip_prefix("pub(crate) const "));
    let name = match constant {
        Some(rest) => rest.split_once(':').map(|(name, _)| name)?,
        None => line.strip_suffix(',')?,
    };
    let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    (is_name && name.starts_with(|c: char| c.is_ascii_uppercase())).then(|| snake(name))
}

/// The names that the block of `file` which begins with the line `opening` defines.
pub(super) fn block(file: &str, opening: &str) -> Vec<String> {
    let (_, rest) = file.split_once(&(opening.to_string() + " {\n")).expect(opening);
    let (body, _) = rest.split_once("\n}").expect("the end of the block");
    let mut names: Vec<String> = body.lines().filter_map(defined).filter(|n| n != "none").collect();
    names.sort();
    names
}

/// The names that the lines of `file` define which are in no block.
pub(super) fn outside_blocks(file: &str) -> Vec<String> {
    let mut names: Vec<String> =
        file.lines().filter(|line| line.starts_with("pub")).filter_map(defined).collect();
    names.sort();
    names
}
