//! The commands on the kernel command line.
//!
//! Words are separated by spaces, so a name cannot contain spaces. All words are read before anything is done.

use core::{fmt, str::SplitAsciiWhitespace};

use commonhold_layout::{Name, NameError};

/// The name of a region, as text and as a checked name.
#[derive(Clone, Copy)]
pub(crate) struct Named {
    /// The text, for messages.
    pub(crate) text: &'static str,
    /// The checked name, for the space.
    pub(crate) name: Name,
}

/// A command.
#[derive(Clone, Copy)]
pub(crate) enum Command {
    /// Print what is in the space.
    List,
    /// Create a region.
    Create {
        /// Its name.
        name: Named,
        /// Bytes.
        size: u64,
    },
    /// Destroy a region, once no peer maps it.
    Destroy(Named),
    /// Take the lock of a region, and hold it for ever.
    Hold(Named),
    /// Take the lock of a region `times` times, and each time add one to its first word.
    Increment {
        /// Its name.
        name: Named,
        /// How often.
        times: u64,
    },
}

/// Why the command line was refused.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ArgumentError {
    /// The line is empty.
    Empty,
    /// This word is not known.
    Unknown(&'static str),
    /// Another word must follow this one.
    Missing {
        /// The word without a successor.
        after: &'static str,
        /// How the next word must begin.
        wanted: &'static str,
    },
    /// This word does not end in a number.
    Number(&'static str),
    /// This is not a valid name.
    Name(&'static str, NameError),
}

impl fmt::Display for ArgumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("there is nothing to do")?,
            Self::Unknown(word) => write!(f, "the word \"{word}\" means nothing here")?,
            Self::Missing { after, wanted } => write!(f, "after \"{after}\" must come {wanted}")?,
            Self::Number(word) => {
                write!(f, "\"{word}\" does not end in a number such as 4096, 64K, 16M or 2G")?;
            }
            Self::Name(word, why) => write!(f, "\"{word}\": {why}")?,
        }
        f.write_str("; give QEMU -append \"...\" with any of: list, create=NAME size=SIZE, ")?;
        f.write_str("destroy=NAME, hold=NAME, region=NAME increments=N")
    }
}

/// The commands of a line, in order.
#[derive(Clone)]
pub(crate) struct Commands(SplitAsciiWhitespace<'static>);

impl Commands {
    /// Reads a line.
    ///
    /// # Errors
    /// [`ArgumentError`] for the first word that is wrong.
    pub(crate) fn read(line: &'static str) -> Result<Self, ArgumentError> {
        let commands = Self(line.split_ascii_whitespace());
        let mut count = 0;
        for command in commands.clone() {
            command?;
            count += 1;
        }
        if count == 0 { Err(ArgumentError::Empty) } else { Ok(commands) }
    }

    fn command(&mut self, word: &'static str) -> Result<Command, ArgumentError> {
        let Some((key, value)) = word.split_once('=') else {
            return if word == "list" {
                Ok(Command::List)
            } else {
                Err(ArgumentError::Unknown(word))
            };
        };
        let name = || match Name::new(value) {
            Ok(name) => Ok(Named { text: value, name }),
            Err(why) => Err(ArgumentError::Name(word, why)),
        };
        match key {
            "create" => Ok(Command::Create { name: name()?, size: self.number(word, "size=")? }),
            "destroy" => Ok(Command::Destroy(name()?)),
            "hold" => Ok(Command::Hold(name()?)),
            "region" => {
                Ok(Command::Increment { name: name()?, times: self.number(word, "increments=")? })
            }
            _ => Err(ArgumentError::Unknown(word)),
        }
    }

    /// The number in the next word, which must begin with `wanted`.
    fn number(&mut self, after: &'static str, wanted: &'static str) -> Result<u64, ArgumentError> {
        let word = self.0.next().ok_or(ArgumentError::Missing { after, wanted })?;
        let text = word.strip_prefix(wanted).ok_or(ArgumentError::Missing { after, wanted })?;
        number(text).ok_or(ArgumentError::Number(word))
    }
}

impl Iterator for Commands {
    type Item = Result<Command, ArgumentError>;

    fn next(&mut self) -> Option<Self::Item> {
        let word = self.0.next()?;
        Some(self.command(word))
    }
}

/// Parses `4096`, `64K`, `16M` or `2G`; units are powers of 1024.
fn number(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'K' => (text.strip_suffix('K')?, 10),
        b'M' => (text.strip_suffix('M')?, 20),
        b'G' => (text.strip_suffix('G')?, 30),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}
