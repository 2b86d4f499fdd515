//! What must hold for every command that has ended.

use std::process::Command;

use super::{
    Finding,
    child::{End, Ended},
};

/// The exit statuses that a command may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Statuses {
    /// 0 to 9.
    Own,
    /// Also those of the command that it runs: 126, 127, and 128 plus a signal.
    OfItsCommand,
}

/// What a command writes to standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// Text for people.
    Text,
    /// One JSON value, or nothing.
    Json,
    /// Bytes of a region, or of another program.
    Bytes,
}

/// The exit status of a command; an error if it is not one of the permitted ones.
pub(crate) fn status(ended: &Ended, statuses: Statuses) -> Finding<i32> {
    if let Some(line) = ended.message().lines().find(|line| line.contains("panicked")) {
        return Err(format!("it panics: {line}"));
    }
    match ended.how {
        End::Exit(code @ 0..=9) => Ok(code),
        End::Exit(code) if statuses == Statuses::OfItsCommand && code >= 126 => Ok(code),
        ref other => Err(format!("it ends by {other:?}, saying {:?}", ended.message())),
    }
}

/// Checks that a command has printed only what it may print.
pub(crate) fn texts(ended: &Ended, output: Output) -> Finding {
    printable("standard error", &ended.said)?;
    match output {
        Output::Bytes => Ok(()),
        Output::Text => printable("standard output", &ended.output),
        Output::Json if ended.output.is_empty() => Ok(()),
        // Programs read it and need names unchanged. JSON itself escapes control characters.
        Output::Json => {
            let value: Result<serde_json::Value, _> = serde_json::from_slice(&ended.output);
            value.map(drop).map_err(|error| {
                format!("no JSON ({error}): {:?}", String::from_utf8_lossy(&ended.output))
            })
        }
    }
}

/// Checks that a text has no characters that control a terminal or hide other text.
fn printable(what: &str, bytes: &[u8]) -> Finding {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("{what} is no text: {error}"))?;
    let bad = |c: &char| (c.is_control() && *c != '\n') || is_invisible(*c);
    match text.chars().find(bad) {
        None => Ok(()),
        Some(bad) => Err(format!("{what} has {bad:?} in it: {text:?}")),
    }
}

/// Whether a character changes the order of others, or ends a line in some programs.
const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// A command as a user would type it.
pub(crate) fn typed(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" ")
}
