//! Names, URLs, sizes and durations, which users type, or which other processes have left in a record.

use std::str::FromStr as _;

use arbitrary::Arbitrary;
use commonhold_layout::{Name, PeerName};

/// Only the parsers of the command line: their whole crate depends on the library, which would have to be built again.
#[path = "../../../crates/console/src/units.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "a face of another crate, and not all of it is fuzzed"
)]
mod units;

/// Only the parser of URLs: its whole crate has mappings and threads, and would have to be built again.
#[path = "../../../crates/host/src/memory/url.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "a face of another crate, and not all of it is fuzzed"
)]
mod url;

use url::Url;

/// Texts of all kinds.
#[derive(Debug, Arbitrary)]
pub(super) struct Texts {
    any: String,
    scheme: u8,
    rest: String,
    number: u64,
    unit: u8,
}

const SCHEMES: [&str; 8] = ["shm:", "file:", "mem:", "pci:", "unix:", "shm", "", "mem:0x"];
const UNITS: [&str; 14] =
    ["", "B", "K", "KiB", "M", "MB", "g", "T", "ms", "us", "s", "m", "h", "\u{e9}"];

pub(super) fn check(texts: &Texts, words: &[u64; Name::WORDS], len: u64) {
    names(&texts.any);
    if let Ok(name) = Name::from_words(words, len % 160) {
        assert_eq!(Name::from_words(name.words(), name.len()), Ok(name));
        names(&name.to_string());
    }
    let [first, second, third, fourth, ..] = *words;
    let peer = PeerName::from_words([first, second, third, fourth]);
    let shown = peer.to_string();
    assert!(PeerName::new(&shown).to_string().len() <= shown.len());

    let scheme = SCHEMES.get(usize::from(texts.scheme) % SCHEMES.len()).unwrap_or(&"");
    for url in [texts.any.clone(), format!("{scheme}{}", texts.rest)] {
        urls(&url);
    }
    urls(&format!("mem:{}+{}", texts.number, texts.rest));
    let unit = UNITS.get(usize::from(texts.unit) % UNITS.len()).unwrap_or(&"");
    for text in [&texts.any, &texts.rest, &format!("{}{unit}", texts.number)] {
        numbers(text);
    }
    let _ = units::human_size(texts.number);
    let _ = units::human_duration(std::time::Duration::from_micros(texts.number));
}

fn names(text: &str) {
    match Name::new(text) {
        Ok(name) => {
            assert_eq!(name.to_string(), text);
            assert_eq!(Name::from_words(name.words(), name.len()), Ok(name));
            assert!(!text.contains(['/', '\0', '\n']) && (1..=Name::MOST).contains(&text.len()));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let shown = PeerName::new(text).to_string();
    assert!(shown.len() <= 4 * 8 * text.len().max(1), "{shown:?}");
}

fn urls(text: &str) {
    match Url::from_str(text) {
        Ok(url) => {
            let shown = url.to_string();
            assert_eq!(Url::from_str(&shown), Ok(url), "{text:?} is shown as {shown:?}");
        }
        Err(error) => assert!(!error.why().is_empty()),
    }
}

fn numbers(text: &str) {
    if let Ok(size) = units::parse_size(text) {
        assert_eq!(units::parse_size(&size.to_string()), Ok(size));
    }
    if let Ok(time) = units::parse_duration(text) {
        let again = u64::try_from(time.as_micros()).map(|us| format!("{us}us"));
        assert_eq!(again.map(|text| units::parse_duration(&text)), Ok(Ok(time)));
    }
    let _ = (units::parse_mode(text), units::parse_seconds(text), units::parse_name(text));
}
