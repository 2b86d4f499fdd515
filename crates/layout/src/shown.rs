//! Untrusted text, made safe to show on a terminal.
//!
//! Any user can choose the names of regions and peers, and paths. A character that turns the direction of
//! writing, or that has no width, can make one name look like another. A control character can control the terminal.
//!
//! # Invariants
//! 1. The output holds no such character, and no byte that is not UTF-8: they are shown by their numbers.
//! 2. [`Shown`] writes different texts differently: a backslash of the text is doubled.
//!
//! # What it does not do
//! It does not distinguish letters that look alike. Programs get names as they are.

use core::fmt::{self, Write};

/// Invisible characters that the standard library takes for visible: fillers, joiners and selectors without a width of
/// their own (most of `Default_Ignorable_Code_Point` of Unicode), and the blank of Braille.
const INVISIBLE: &[(u32, u32)] = &[
    (0x034f, 0x034f),
    (0x115f, 0x1160),
    (0x17b4, 0x17b5),
    (0x180b, 0x180f),
    (0x2800, 0x2800),
    (0x3164, 0x3164),
    (0xfe00, 0xfe0f),
    (0xffa0, 0xffa0),
    (0xe0100, 0xe01ef),
];

/// Whether a character is invisible, or changes how others are shown: controls, format characters, separators
/// other than a space, characters that are not assigned or for private use, and other invisible ones.
#[must_use]
pub fn is_hidden(character: char) -> bool {
    if character.is_ascii() {
        return character.is_ascii_control();
    }
    let code = u32::from(character);
    if INVISIBLE.iter().any(|(first, last)| (*first..=*last).contains(&code)) {
        return true;
    }
    // The standard library knows which characters can be printed, but takes a mark for printable only after another
    // character.
    let mut text = *b"x\0\0\0\0";
    let len = 1 + text.get_mut(1..).map_or(0, |rest| character.encode_utf8(rest).len());
    let text = text.get(..len).and_then(|text| core::str::from_utf8(text).ok());
    text.is_none_or(|text| text.escape_debug().nth(1) == Some('\\'))
}

/// A name, or a path, to be shown to people: hidden characters, backslashes and bytes that are not UTF-8 are escaped.
///
/// # Examples
/// ```
/// # use commonhold_layout::Shown;
/// assert_eq!(Shown::new("frames\u{202e}").to_string(), r"frames\u{202e}");
/// assert_eq!(Shown::of_bytes(b"a\xff").to_string(), r"a\xff");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a>(&'a [u8]);

impl<'a> Shown<'a> {
    /// Shows a text.
    #[must_use]
    pub const fn new(text: &'a str) -> Self {
        Self(text.as_bytes())
    }

    /// Shows bytes that should be UTF-8.
    #[must_use]
    pub const fn of_bytes(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '\\' => f.write_str("\\\\")?,
                    other => write_visible(f, other)?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// Text that was put together from several parts, and is shown as it is: only hidden characters in it are escaped. It
/// may have several lines.
///
/// # Examples
/// ```
/// # use commonhold_layout::Visible;
/// assert_eq!(Visible("two\nlines\x07").to_string(), "two\nlines\\u{7}");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Visible<'a>(pub &'a str);

impl fmt::Display for Visible<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '\n' => f.write_char('\n')?,
                other => write_visible(f, other)?,
            }
        }
        Ok(())
    }
}

fn write_visible(f: &mut fmt::Formatter<'_>, character: char) -> fmt::Result {
    if is_hidden(character) {
        write!(f, "{}", character.escape_unicode())
    } else {
        f.write_char(character)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{format, string::ToString};

    #[test]
    fn characters_that_turn_hide_or_break_text_are_shown_by_their_numbers() {
        for (text, shown) in [
            ("a\u{202e}b", "a\\u{202e}b"),
            ("\u{2066}x\u{2069}", "\\u{2066}x\\u{2069}"),
            ("a\u{200b}", "a\\u{200b}"),
            ("\u{feff}", "\\u{feff}"),
            ("a\u{2028}b\u{2029}", "a\\u{2028}b\\u{2029}"),
            ("a\u{a0}b", "a\\u{a0}b"),
            ("\u{1b}[31m", "\\u{1b}[31m"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("a\nb\u{7f}", "a\\u{a}b\\u{7f}"),
            ("\u{e000}\u{10ffff}", "\\u{e000}\\u{10ffff}"),
            ("\u{378}", "\\u{378}"),
            ("\u{3164}\u{115f}\u{2800}", "\\u{3164}\\u{115f}\\u{2800}"),
            ("a\u{fe0f}\u{e0041}", "a\\u{fe0f}\\u{e0041}"),
            ("\\u{202e}", "\\\\u{202e}"),
        ] {
            assert_eq!(Shown::new(text).to_string(), shown);
        }
        let bytes = Shown::of_bytes(b"a\xff\xc3(\xe2\x80\xaeb");
        assert_eq!(bytes.to_string(), "a\\xff\\xc3(\\u{202e}b");
    }

    #[test]
    fn ordinary_text_is_shown_as_it_is() {
        for text in ["frames", "Grüße, 世界", "e\u{301}", "नमस्ते", "שלום", "it's \"so\" / 7", "😀"]
        {
            assert_eq!(Shown::new(text).to_string(), text);
            assert_eq!(Visible(text).to_string(), text);
        }
    }

    #[test]
    fn of_all_characters_no_hidden_one_and_no_control_is_shown_as_it_is() {
        for character in (0..=0x10_ffff).filter_map(char::from_u32) {
            let shown = format!("{}", Shown::new(character.encode_utf8(&mut [0; 4])));
            let plain = shown == character.to_string();
            assert_eq!(plain, !is_hidden(character) && character != '\\');
            assert!(!plain || !character.is_control());
        }
    }

    #[test]
    fn visible_text_keeps_its_lines() {
        assert_eq!(Visible("a\\b\nc\u{202e}\r").to_string(), "a\\b\nc\\u{202e}\\u{d}");
    }
}
