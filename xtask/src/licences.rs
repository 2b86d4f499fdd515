//! Checks that every dependency has a licence whose terms we can meet.

use anyhow::{Result, bail};

use crate::cargo;

const ALLOWED: [&str; 11] = [
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Checks all packages that `cargo metadata` lists, for all platforms.
pub(crate) fn check() -> Result<()> {
    let mut bad = Vec::new();
    for package in cargo::metadata(&[])?.packages {
        let license = package.license.as_deref().unwrap_or("no licence expression");
        if !is_allowed(license) {
            bad.push(format!("{} {} ({license})", package.name, package.version));
        }
    }
    if !bad.is_empty() {
        bail!("not under any of {}: {}", ALLOWED.join(", "), bad.join("; "));
    }
    Ok(())
}

/// Whether an SPDX expression can be satisfied by allowed licences only.
fn is_allowed(expression: &str) -> bool {
    // Some old packages write MIT/Apache-2.0.
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let met = any_of(&mut words);
    met && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any_of(words: &mut Words<'_>) -> bool {
    let mut met = all_of(words);
    while words.next_if_eq(&"OR").is_some() {
        met |= all_of(words);
    }
    met
}

fn all_of(words: &mut Words<'_>) -> bool {
    let mut met = one(words);
    while words.next_if_eq(&"AND").is_some() {
        met &= one(words);
    }
    met
}

fn one(words: &mut Words<'_>) -> bool {
    match words.next() {
        Some("(") => {
            let met = any_of(words);
            words.next_if_eq(&")").is_some() && met
        }
        Some(license) => {
            // An exception only grants more rights.
            if words.next_if_eq(&"WITH").is_some() {
                words.next();
            }
            ALLOWED.contains(&license)
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_met_by_one_allowed_alternative() {
        for good in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-3.0-only OR MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR GPL-2.0-only",
        ] {
            assert!(is_allowed(good), "{good}");
        }
    }

    #[test]
    fn an_expression_without_an_allowed_alternative_is_refused() {
        for bad in ["", "GPL-3.0-only", "MIT AND GPL-3.0-only", "(MIT", "MIT )", "MIT MIT", "mit"] {
            assert!(!is_allowed(bad), "{bad}");
        }
    }
}
