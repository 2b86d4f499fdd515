//! From the arguments of a program to a session, and from its result to an exit status.
//!
//! Owns: the options that every command of every program takes. Does not know any command.

use std::{io, process::ExitCode};

use clap::{ArgMatches, Args, Parser, parser::ValueSource};
use commonhold::Owners;

use crate::{
    failure::Failure,
    output::{self, Out},
    session::Session,
};

/// Options that every command takes. One that is given twice counts as its last: a program that hands its
/// arguments on to another need not look whether they repeat an option.
#[derive(Debug, Args)]
pub struct GlobalArgs {
    /// Which space: shm:NAME, file:PATH, mem:BASE+SIZE, pci:BDF, pci:auto or unix:SOCKET.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "COMMONHOLD_SPACE",
        default_value = "shm:default",
        overrides_with = "space"
    )]
    pub space: String,
    /// Also uses a space that belongs to another user who shares it with all the world, or that is not root's if
    /// this is root: whoever owns a space can stop, mislead and crash those who use it. The same as
    /// COMMONHOLD_ANY_OWNER=1.
    #[arg(long, global = true, overrides_with = "any_owner")]
    pub any_owner: bool,
    /// Prints one JSON value instead of tables.
    #[arg(long, global = true, overrides_with = "json")]
    pub json: bool,
    /// Says more of what happens, on standard error; -vv and -vvv still more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

impl GlobalArgs {
    /// The session that these options ask for, of the program with this name. From here on the log goes to
    /// standard error.
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

/// The arguments of this process, as types and as clap found them.
///
/// # Errors
/// A failure without a message: if they make no sense, or ask for help or the version, that has been said, and
/// nothing is left to do.
pub fn parse<C: Parser>() -> Result<(C, ArgMatches), Failure> {
    let matches = C::command().try_get_matches().map_err(|error| output::usage(&error))?;
    let arguments = C::from_arg_matches(&matches).map_err(|error| output::usage(&error))?;
    Ok((arguments, matches))
}

/// The exit status of the program with this name. The message of a failure goes to standard error.
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
    fn an_option_that_was_handed_on_may_be_repeated() {
        let args =
            ["x", "--json", "--space", "shm:a", "-v", "word", "--space=shm:b", "--json", "-v"];
        let cli = Cli::try_parse_from(args).unwrap();
        assert!(cli.global.json && !cli.global.any_owner);
        assert_eq!((cli.global.space.as_str(), cli.global.verbose), ("shm:b", 2));
        assert_eq!(cli.rest, ["word"]);
    }
}
