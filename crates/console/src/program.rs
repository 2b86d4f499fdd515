//! From the arguments of a program to a session, and from its result to an exit status.
//!
//! Owns the options that every command of every program takes. Knows no command.

use std::{io, process::ExitCode};

use clap::{ArgMatches, Args, Parser, parser::ValueSource};
use commonhold::Owners;

use crate::{
    failure::Failure,
    output::{self, Out},
    session::Session,
};

/// Options that every command takes. If one is given twice, the last one counts, so a program can pass its arguments
/// on to another without checking whether they repeat an option.
#[derive(Debug, Args)]
pub struct GlobalArgs {
    /// URL of the space: shm:NAME, file:PATH, mem:BASE+SIZE, pci:BDF, pci:auto or unix:SOCKET.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "COMMONHOLD_SPACE",
        default_value = "shm:default",
        overrides_with = "space"
    )]
    pub space: String,
    /// Also uses a space of another user that everybody may write, and, as root, a space that does not belong to
    /// root. The owner of a space can block, mislead and crash all processes that use it. The same as
    /// COMMONHOLD_ANY_OWNER=1.
    #[arg(long, global = true, overrides_with = "any_owner")]
    pub any_owner: bool,
    /// Prints one JSON value instead of tables.
    #[arg(long, global = true, overrides_with = "json")]
    pub json: bool,
    /// Logs more on standard error; -vv and -vvv log still more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

impl GlobalArgs {
    /// Starts the log on standard error, and returns the session that these options ask for. `program` is the name of
    /// this program.
    #[must_use]
    pub fn start(self, program: &'static str, matches: &ArgMatches) -> Session {
        start_log(self.verbose);
        Session {
            program,
            url: self.space,
            chosen: matches.value_source("space") == Some(ValueSource::CommandLine),
            owners: if self.any_owner { Owners::Any } else { Owners::Trusted },
            verbose: self.verbose,
            out: Out::new(self.json),
        }
    }
}

/// Parses the arguments of this process. Returns them as types, and as clap's matches.
///
/// # Errors
/// A failure without a message, if the arguments are wrong or ask for help or the version: the text has already been
/// printed.
pub fn parse<C: Parser>() -> Result<(C, ArgMatches), Failure> {
    let matches = C::command().try_get_matches().map_err(|error| output::usage(&error))?;
    let arguments = C::from_arg_matches(&matches).map_err(|error| output::usage(&error))?;
    Ok((arguments, matches))
}

/// Ends the program: prints the message of a failure on standard error, and returns the exit status.
pub fn end(program: &str, result: Result<u8, Failure>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            if let Some(message) = &failure.message {
                output::complain(&format!("{program}: {message}"));
            }
            ExitCode::from(failure.code)
        }
    }
}

fn start_log(verbose: u8) {
    let level = match verbose {
        0 => tracing::Level::WARN,
        1 => tracing::Level::INFO,
        2 => tracing::Level::DEBUG,
        _ => tracing::Level::TRACE,
    };
    tracing_subscriber::fmt().with_writer(io::stderr).with_max_level(level).with_ansi(false).init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        global: GlobalArgs,
        rest: Vec<String>,
    }

    #[test]
    fn an_option_may_be_repeated_and_the_last_one_counts() {
        let args =
            ["x", "--json", "--space", "shm:a", "-v", "word", "--space=shm:b", "--json", "-v"];
        let cli = Cli::try_parse_from(args).unwrap();
        assert!(cli.global.json && !cli.global.any_owner);
        assert_eq!((cli.global.space.as_str(), cli.global.verbose), ("shm:b", 2));
        assert_eq!(cli.rest, ["word"]);
    }
}
