//! The only module that writes to standard output.
//!
//! Invariants: 1. with `--json` exactly one JSON value is written, and no table. 2. If a write fails, the command
//! fails, even if it only printed help. If the reader goes away (`EPIPE`), the command ends quietly with the status of
//! a command killed by SIGPIPE; destructors run, so no lock stays held. 3. Nothing here panics if standard error
//! cannot be written.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write},
};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use commonhold::{Visible, is_hidden};
use serde::Serialize;

use crate::{
    failure::{Failure, Status},
    units,
};

/// Standard output, and the form in which results are written to it.
#[derive(Debug, Clone, Copy)]
pub struct Out {
    /// Whether the result is one JSON value.
    pub json: bool,
    terminal: bool,
}

/// The title of a column, and how its cells are aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// Aligned left, for text.
    Left(&'static str),
    /// Aligned right, for numbers.
    Right(&'static str),
}

impl Out {
    /// Standard output, with or without `--json`.
    #[must_use]
    pub fn new(json: bool) -> Self {
        Self { json, terminal: io::stdout().is_terminal() }
    }

    /// Writes bytes unchanged.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn bytes(self, bytes: &[u8]) -> Result<(), Failure> {
        finish(io::stdout().lock().write_all(bytes))
    }

    /// Writes one or more lines in one piece.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn line(self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        finish(writeln!(out, "{}", Visible(text)).and_then(|()| out.flush()))
    }

    /// Writes a line of text, unless `--json` was given.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn tell(self, text: &str) -> Result<(), Failure> {
        if self.json { Ok(()) } else { self.line(text) }
    }

    /// Writes the JSON value of the command.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn value(self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Failure::new(Status::Other, format!("cannot write JSON: {error}")))?;
        self.line(&plain_json(&text))
    }

    /// Writes a table without borders.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn table(self, columns: &[Column], rows: Vec<Vec<String>>) -> Result<(), Failure> {
        self.line(&render(columns, rows))
    }

    /// Writes pairs of a name and a value, one on each line.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn pairs(self, pairs: &[(&'static str, String)]) -> Result<(), Failure> {
        let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in pairs {
            self.line(&format!("{name:width$}  {value}"))?;
        }
        Ok(())
    }

    /// A size as text: rounded if standard output is a terminal, otherwise the exact number of bytes.
    #[must_use]
    pub fn size(self, bytes: u64) -> String {
        if self.terminal { units::human_size(bytes) } else { bytes.to_string() }
    }
}

/// Writes a message to standard error. A failure to write it is ignored, since it could not be reported either.
pub fn complain(text: &str) {
    let one_line = text.replace('\n', "\\n");
    let _ = writeln!(io::stderr(), "{}", Visible(&one_line));
}

/// The same JSON, with hidden characters escaped as `\uXXXX`. They can only stand in strings.
fn plain_json(json: &str) -> String {
    let mut plain = String::with_capacity(json.len());
    for character in json.chars() {
        if character == '\n' || !is_hidden(character) {
            plain.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(plain, "\\u{unit:04x}");
            }
        }
    }
    plain
}

/// Prints what clap returns instead of arguments: help, the version, or an error.
pub fn usage(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let visible = Visible(&text).to_string();
    // Another program may have chosen the arguments, and put control characters into them.
    let printed = if visible == text {
        error.print()
    } else if error.use_stderr() {
        write!(io::stderr(), "{visible}")
    } else {
        write!(io::stdout(), "{visible}")
    };
    let printed = printed.and_then(|()| io::stdout().flush());
    let code = u8::try_from(error.exit_code()).unwrap_or(Status::Usage as u8);
    match finish(printed) {
        // After a usage error, the status tells the caller, whether the message could be written or not.
        Err(failure) if code == 0 => failure,
        _ => Failure { code, message: None },
    }
}

fn render(columns: &[Column], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|column| match column {
        Column::Left(title) | Column::Right(title) => *title,
    }));
    for row in rows {
        table.add_row(row);
    }
    for (index, column) in columns.iter().enumerate() {
        if let Some(there) = table.column_mut(index) {
            there.set_padding((0, 1));
            if matches!(column, Column::Right(_)) {
                there.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

fn finish(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::nobody_reads()),
        Err(error) => {
            Err(Failure::new(Status::Other, format!("cannot write to standard output: {error}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_no_borders_and_aligns_numbers_right() {
        let columns = [Column::Left("NAME"), Column::Right("SIZE")];
        let rows = vec![
            vec!["a".to_owned(), "4096".to_owned()],
            vec!["longer".to_owned(), "7".to_owned()],
        ];
        assert_eq!(render(&columns, rows), "NAME   SIZE\na      4096\nlonger    7");
    }
}
