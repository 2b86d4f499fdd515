//! What `docs/SPEC.md` says: the numbers of all its tables.

use std::{
    collections::BTreeMap,
    string::{String, ToString},
    vec::Vec,
};

pub(super) const SPEC: &str = include_str!("../../../../docs/SPEC.md");

/// What a row's second column says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    Is(u64),
    Bits(u32, u32),
}

impl Number {
    fn parse(text: &str) -> Option<Self> {
        if let Some((low, high)) = text.split_once('-') {
            return Some(Self::Bits(low.parse().ok()?, high.parse().ok()?));
        }
        if let Some(power) = text.strip_prefix("2^") {
            return 1_u64.checked_shl(power.parse().ok()?).map(Self::Is);
        }
        match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok().map(Self::Is),
            None => text.parse().ok().map(Self::Is),
        }
    }

    /// The bits of `mask`, which must lie side by side.
    pub(super) fn bits(mask: u64) -> Self {
        let (low, high) = (mask.trailing_zeros(), 63 - mask.leading_zeros());
        assert_eq!(mask.count_ones(), high - low + 1, "{mask:#x} has gaps");
        if low == high { Self::Is(u64::from(low)) } else { Self::Bits(low, high) }
    }
}

pub(super) type Rows = BTreeMap<String, Number>;

/// What the tables of the document say: under each heading, each name's number.
pub(super) fn document() -> BTreeMap<String, Rows> {
    let mut tables: BTreeMap<String, Rows> = BTreeMap::new();
    let mut heading = "";
    for line in SPEC.lines() {
        if let Some(text) = line.strip_prefix('#') {
            heading = text.trim_start_matches('#').trim();
        }
        let Some(row) = line.strip_prefix('|') else { continue };
        let cells: Vec<&str> = row.trim_end_matches('|').split('|').map(str::trim).collect();
        if cells.iter().all(|cell| cell.starts_with("---")) || cells[2..] == ["meaning"] {
            continue;
        }
        let [name, number, meaning] = cells[..] else {
            panic!("not | name | number | meaning |: {line}")
        };
        assert!(!meaning.is_empty(), "{line}");
        let number = Number::parse(number).unwrap_or_else(|| panic!("no number: {line}"));
        let rows = tables.entry(heading.to_string()).or_default();
        assert!(rows.insert(name.to_string(), number).is_none(), "twice: {line}");
    }
    tables
}
