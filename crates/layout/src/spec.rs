//! Holds docs/SPEC.md to the constants, in both directions.
//!
//! Each table of the document stands under a heading of its own, and each [`Table`] says what that heading must hold.
//! Where the constants lie in one module, enum or impl, the list is held to the source text as well, so that a
//! constant added there and forgotten here is noticed.

use std::{
    string::{String, ToString},
    vec::Vec,
};

use crate::{FormatOptions, Geometry, PeerId, RegionId, ThreadId};
use document::{Number, Rows, SPEC, document};
use source::{
    BIAS, EXTENT, FNV, HEADER, LOCK, READ_KEY, RECORD, TABLES, block, outside_blocks, snake,
};

/// `(name, value)` for constants, named once.
macro_rules! constants {
    ($module:ident: $($name:ident)*) => {
        vec![$((stringify!($name), Number::Is($module::$name as u64))),*]
    };
}

/// `(name, value)` for the variants or constants of a type, each turned into a number by `$number`.
macro_rules! values {
    ($type:ident, $number:expr, $($name:ident)*) => {
        vec![$((stringify!($name), $number($type::$name))),*]
    };
}

mod bits;
mod document;
mod source;
mod values;
mod words;

/// What the code says should stand under one heading.
struct Table {
    heading: &'static str,
    rows: Vec<(&'static str, Number)>,
    /// All names that the source defines, where they stand together in one block or file.
    source: Option<Vec<String>>,
}

impl Table {
    fn new(heading: &'static str, rows: Vec<(&'static str, Number)>) -> Self {
        Self { heading, rows, source: None }
    }

    /// The list is all that the block of `file` which begins with `opening` defines.
    fn all_of(self, file: &str, opening: &str) -> Self {
        Self { source: Some(block(file, opening)), ..self }
    }

    /// The list is all that `file` defines.
    fn all_in(self, file: &str) -> Self {
        Self { source: Some(outside_blocks(file)), ..self }
    }

    fn rows(&self) -> Rows {
        self.rows.iter().map(|(name, number)| (snake(name), *number)).collect()
    }
}

fn tables() -> Vec<Table> {
    let all = [
        values::of_words(),
        values::of_sizes(),
        values::of_values(),
        bits::of_lock_bits(),
        bits::of_bias_bits(),
        bits::of_record_bits(),
        bits::of_state_bits(),
    ];
    all.into_iter().flatten().collect()
}

#[test]
fn the_tables_of_the_document_are_the_constants() {
    let mut document = document();
    for table in tables() {
        let written = document.remove(table.heading).unwrap_or_default();
        let meant = table.rows();
        for (name, number) in &meant {
            let found = written.get(name);
            assert_eq!(found, Some(number), "{name} under {:?}", table.heading);
        }
        let extra: Vec<_> = written.keys().filter(|name| !meant.contains_key(*name)).collect();
        assert!(extra.is_empty(), "only in the document, under {:?}: {extra:?}", table.heading);
    }
    let unknown: Vec<_> = document.keys().collect();
    assert!(unknown.is_empty(), "tables that nothing holds to the code: {unknown:?}");
}

#[test]
fn no_constant_is_missing_from_the_lists_of_this_test() {
    for table in tables() {
        let listed: Vec<String> = table.rows().into_keys().collect();
        let Some(defined) = table.source else { continue };
        assert_eq!(listed, defined, "{}", table.heading);
    }
    let flags: Vec<String> = block(LOCK, "impl LockFlags");
    assert_eq!(flags.len(), 5, "{flags:?}");
}

#[test]
fn no_constant_outside_a_module_is_missing_from_the_lists_of_this_test() {
    let tables = tables();
    let constants = tables.iter().find(|table| table.heading == "Constants").unwrap().rows();
    let files = [BIAS, EXTENT, FNV, HEADER, READ_KEY, RECORD, TABLES];
    let at_top = files.into_iter().flat_map(outside_blocks);
    let missing: Vec<String> = at_top.filter(|name| !constants.contains_key(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_example_of_the_document_has_its_tables_where_it_says() {
    let text = SPEC.split_whitespace().collect::<Vec<_>>().join(" ");
    let geometry =
        Geometry::plan(&FormatOptions { capacity: 1 << 20, ..FormatOptions::default() }).unwrap();
    let (peer, region) = (PeerId::new(0), RegionId::new(0));
    let at = [
        geometry.domain(0).unwrap(),
        geometry.peer(peer).unwrap(),
        geometry.thread(peer, ThreadId::FIRST).unwrap(),
        geometry.bucket(0),
        geometry.region(region).unwrap(),
        geometry.share(peer, region).unwrap(),
    ]
    .map(|place| place.get().to_string())
    .join(", ");
    let (domains, peers) = (geometry.domains(), geometry.peers());
    let (threads, regions) = (geometry.threads(), geometry.regions());
    let data = geometry.data().start().get();
    let sentence = std::format!(
        "A space of 1 MiB with 4096-byte pages, {domains} domains, {peers} peers, {threads} threads \
         and {regions} regions has its tables at {at}, and its data at {data}."
    );
    assert!(text.contains(&sentence), "{sentence}");
}
