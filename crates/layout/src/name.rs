//! Names of regions: 1 to 127 bytes of UTF-8 without control characters or `/`.

use core::fmt;

use crate::fnv::FNV_BASIS;

/// Why a name was refused.
///
/// # Examples
/// ```
/// # use commonhold_layout::{Name, NameError};
/// assert_eq!(Name::new("").err(), Some(NameError::Empty));
/// assert_eq!(Name::new("a/b").err(), Some(NameError::Forbidden('/')));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameError {
    /// It has no characters.
    Empty,
    /// It has more than [`Name::MOST`] bytes.
    TooLong {
        /// How many it has.
        bytes: usize,
    },
    /// It contains this character.
    Forbidden(char),
    /// It is not UTF-8.
    NotText,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "a name needs at least one character"),
            Self::TooLong { bytes } => {
                write!(f, "the name has {bytes} bytes, and at most {} are allowed", Name::MOST)
            }
            Self::Forbidden(character) => {
                write!(
                    f,
                    "the name contains {character:?}; control characters and '/' are not allowed"
                )
            }
            Self::NotText => write!(f, "the name is not UTF-8"),
        }
    }
}

impl core::error::Error for NameError {}

/// A checked name.
///
/// # Examples
/// ```
/// # use commonhold_layout::{Name, NameError};
/// let name = Name::new("frames")?;
/// assert_eq!((name.len(), name.to_string().as_str()), (6, "frames"));
/// # Ok::<(), NameError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    words: [u64; Self::WORDS],
    len: u8,
    hash: NameHash,
}

/// The hash of a name: over its words, in FNV-1a's manner, each step folding the high half down so that
/// low bits are good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameHash(pub u64);

fn hash_words(words: &[u64]) -> NameHash {
    /// The golden ratio, as in Fibonacci hashing (Knuth, The Art of Computer Programming 3, 6.4).
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    NameHash(words.iter().fold(FNV_BASIS, |hash, word| {
        let mixed = (hash ^ word).wrapping_mul(FACTOR);
        mixed ^ (mixed >> 32)
    }))
}

impl Name {
    /// Most bytes of a name.
    pub const MOST: usize = 127;
    /// Words that a name takes in a region entry; unused bytes are 0.
    pub const WORDS: usize = 16;

    /// Checks a name.
    ///
    /// # Errors
    /// [`NameError`] says what is wrong with it.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > Self::MOST {
            return Err(NameError::TooLong { bytes: text.len() });
        }
        let plain = |byte: &u8| matches!(byte, b' '..=b'~') && *byte != b'/';
        if !text.as_bytes().iter().all(plain)
            && let Some(bad) = text.chars().find(|c| c.is_control() || *c == '/')
        {
            return Err(NameError::Forbidden(bad));
        }
        let mut words = [0; Self::WORDS];
        for (word, chunk) in words.iter_mut().zip(text.as_bytes().chunks(8)) {
            let mut bytes = [0; 8];
            for (to, from) in bytes.iter_mut().zip(chunk) {
                *to = *from;
            }
            *word = u64::from_le_bytes(bytes);
        }
        let hash = hash_words(words.get(..text.len().div_ceil(8)).unwrap_or(&words));
        Ok(Self { words, len: u8::try_from(text.len()).unwrap_or(u8::MAX), hash })
    }

    /// Reads a name that claims to have `len` bytes.
    ///
    /// # Errors
    /// [`NameError`] if that is no name.
    pub fn from_words(words: &[u64; Self::WORDS], len: u64) -> Result<Self, NameError> {
        let mut buffer = [0; Self::WORDS * 8];
        for (to, word) in buffer.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        let bytes = usize::try_from(len)
            .ok()
            .and_then(|len| buffer.get(..len))
            .ok_or(NameError::TooLong { bytes: usize::MAX })?;
        Self::new(core::str::from_utf8(bytes).map_err(|_| NameError::NotText)?)
    }

    /// The words that hold it.
    #[inline]
    #[must_use]
    pub const fn words(&self) -> &[u64; Self::WORDS] {
        &self.words
    }

    /// How many of the words are not empty.
    #[inline]
    #[must_use]
    pub fn used_words(&self) -> usize {
        usize::from(self.len).div_ceil(8)
    }

    /// Its length in bytes.
    #[inline]
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a name is never empty")]
    pub const fn len(&self) -> u64 {
        self.len as u64
    }

    /// Its hash.
    #[inline]
    #[must_use]
    pub const fn hash(&self) -> NameHash {
        self.hash
    }

    fn bytes(&self) -> impl Iterator<Item = u8> + '_ {
        self.words.iter().flat_map(|word| word.to_le_bytes()).take(usize::from(self.len))
    }

    /// Its text, written into `buffer`.
    #[must_use]
    pub fn text<'b>(&self, buffer: &'b mut [u8; 128]) -> &'b str {
        for (to, from) in buffer.iter_mut().zip(self.bytes()) {
            *to = from;
        }
        buffer.get(..usize::from(self.len)).and_then(|b| core::str::from_utf8(b).ok()).unwrap_or("")
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text(&mut [0; 128]))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.text(&mut [0; 128]), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::{String, ToString};

    #[test]
    fn names_outside_the_rules_are_refused() {
        assert_eq!(Name::new(""), Err(NameError::Empty));
        assert_eq!(Name::new("a/b"), Err(NameError::Forbidden('/')));
        assert_eq!(Name::new("a\nb"), Err(NameError::Forbidden('\n')));
        assert!(Name::new(&"x".repeat(127)).is_ok());
        assert_eq!(Name::new(&"x".repeat(128)), Err(NameError::TooLong { bytes: 128 }));
    }

    proptest! {
        #[test]
        fn a_good_name_survives_the_round_trip(text in "[^/\\p{Cc}]{1,31}") {
            let name = Name::new(&text).unwrap();
            prop_assert_eq!(name.to_string(), text);
            prop_assert_eq!(Name::from_words(name.words(), name.len()).unwrap(), name);
        }

        #[test]
        fn no_words_make_it_panic(words: [u64; 16], len: u64) {
            if let Ok(name) = Name::from_words(&words, len) {
                let text: String = name.to_string();
                prop_assert_eq!(text.len() as u64, len);
            }
        }
    }
}
