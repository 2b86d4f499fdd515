//! Developer commands: `cargo xtask test`, `cargo xtask lint`, `cargo xtask vm`,
//! `cargo xtask bare-metal`, `cargo xtask bench`, `cargo xtask fuzz`.
#![forbid(unsafe_code)]

mod acceptance;
mod bare_metal;
mod cargo;
mod fuzz;
mod length;
mod licences;
mod machine;
mod miri;
mod points;
mod ports;
mod report;
mod suite;
mod target;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use length::Length;

/// Developer commands of Commonhold.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs everything that can be checked on this machine.
    Test {
        /// Leave out virtual machines and the long runs of the release program.
        #[arg(long)]
        quick: bool,
    },
    /// Checks formatting, lints and licences: the first minute of `test`, for before each commit.
    Lint,
    /// Builds and runs guests for the tests with virtual machines.
    Vm {
        #[command(subcommand)]
        command: vm::Command,
    },
    /// Builds for other targets, and runs their part of `test`.
    Ports {
        /// Targets to test; default: all.
        parts: Vec<ports::Part>,
    },
    /// Builds the guest of examples/bare-metal, and prints its path.
    BareMetal,
    /// Runs the fuzzers, two at a time.
    Fuzz {
        /// Fuzzers to run, such as "fuzz image" or "storm pages"; default: all.
        names: Vec<String>,
        /// How many seconds each of them runs.
        #[arg(long, default_value_t = fuzz::SHORT)]
        seconds: u32,
    },
    /// Runs `commonhold bench` from a release build. As root on Debian, installs Boost for its `locks` first.
    Bench {
        /// Arguments for it.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Test { quick } => {
            let length = if quick { Length::Quick } else { Length::Full };
            return suite::run(length);
        }
        Command::Lint => return suite::lint(),
        Command::Ports { parts } => return suite::ports(&parts),
        Command::Vm { command } => vm::run(command),
        Command::BareMetal => bare_metal::build().map(|(image, size)| {
            report::say(format_args!("{}", image.display()));
            eprintln!("{size} bytes");
        }),
        Command::Fuzz { names, seconds } => fuzz::run(&names, seconds),
        Command::Bench { arguments } => bench(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(arguments: &[String]) -> anyhow::Result<()> {
    if arguments.iter().any(|argument| argument == "locks") {
        machine::prepare_bench();
    }
    let program = cargo::release_program()?;
    cargo::must_succeed(std::process::Command::new(program).arg("bench").args(arguments))
}
