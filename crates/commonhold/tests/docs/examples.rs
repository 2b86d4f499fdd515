//! The examples in the documentation, read as rustdoc reads them.

use std::{
    ffi::OsStr,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

/// A block of code.
#[derive(Debug)]
pub(crate) struct Block {
    /// The file and the line that it begins in.
    pub(crate) place: String,
    /// The text after its opening fence.
    pub(crate) tags: String,
    /// The whole program, as rustdoc makes it.
    pub(crate) program: String,
}

impl Block {
    fn new(place: String, tags: &str, lines: &[&str]) -> Self {
        Self { place, tags: tags.to_owned(), program: program(lines) }
    }

    pub(crate) fn tags(&self) -> impl Iterator<Item = &str> {
        self.tags.split(',').filter(|tag| !tag.is_empty())
    }

    /// Its place, as the name of a program or a module.
    pub(crate) fn identifier(&self) -> String {
        self.place.replace(|letter: char| !letter.is_ascii_alphanumeric(), "_")
    }
}

/// Shows the hidden lines, and wraps code without a `main` in one.
fn program(lines: &[&str]) -> String {
    let mut text = String::new();
    for line in lines {
        let shown = match line.trim() {
            "#" => "",
            trimmed if trimmed.starts_with("##") => &trimmed[1..],
            trimmed => trimmed.strip_prefix("# ").unwrap_or(line),
        };
        writeln!(text, "{shown}").unwrap();
    }
    if text.contains("fn main(") { text } else { format!("fn main() {{\n{text}}}\n") }
}

/// The blocks in the documentation of a Rust file, or in a page.
pub(crate) fn blocks_in(place: &str, text: &str) -> Vec<Block> {
    let is_page = !place.ends_with(".rs");
    let documented = |line| {
        let trimmed = str::trim_start(line);
        let comment = trimmed.strip_prefix("//!").or_else(|| trimmed.strip_prefix("///"));
        comment.map(|text| text.strip_prefix(' ').unwrap_or(text))
    };
    let mut blocks = Vec::new();
    let mut open: Option<(usize, &str, Vec<&str>)> = None;
    for (number, line) in text.lines().enumerate() {
        let Some(line) = (if is_page { Some(line) } else { documented(line) }) else { continue };
        open = match (line.trim().strip_prefix("```"), open) {
            (Some(tags), None) => Some((number + 1, tags, Vec::new())),
            (Some(_), Some((begins, tags, lines))) => {
                blocks.push(Block::new(format!("{place}:{begins}"), tags, &lines));
                None
            }
            (None, Some((begins, tags, mut lines))) => {
                lines.push(line);
                Some((begins, tags, lines))
            }
            (None, None) => None,
        };
    }
    assert!(open.is_none(), "{place}: an example that does not end");
    blocks
}

/// The Rust files below a folder.
pub(crate) fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension() == Some(OsStr::new("rs")) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The blocks of this crate's documentation, and of README.
pub(crate) fn all_blocks() -> Vec<Block> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = sources(&package.join("src"));
    files.push(package.join("../../README.md"));
    let of = |path: &PathBuf| {
        let place = path.strip_prefix(package).unwrap().display().to_string();
        blocks_in(place.trim_start_matches("../"), &fs::read_to_string(path).unwrap())
    };
    files.iter().flat_map(of).collect()
}
