//! `commonhold`: create, map, lock and destroy shared memory by name.
//!
//! Calls the module of each command. Most are in `commands`; `demo` starts worker processes of its own; `bench` and
//! `torture` are commands of another program (`external`).

#![forbid(unsafe_code)]

mod args;
mod child;
mod commands;
mod demo;
mod external;
mod limits;
mod orphan;

use std::process::ExitCode;

use commonhold_console::{failure::Failure, program, session::Session};

use crate::args::{Cli, Command, SpaceCommand};

/// What this program is called in messages.
const NAME: &str = "commonhold";

fn main() -> ExitCode {
    let done = program::parse::<Cli>().and_then(|(cli, matches)| {
        let session = cli.global.start(NAME, &matches);
        run(&session, cli.command)
    });
    program::end(NAME, done)
}

fn run(session: &Session, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Space(SpaceCommand::Format(args)) => commands::space::format(session, &args),
        Command::Space(SpaceCommand::Info) => commands::space::info(session),
        Command::Space(SpaceCommand::Remove { url, force }) => {
            commands::space::remove(session, &url, force)
        }
        Command::Create(args) => commands::region::create(session, &args),
        Command::Destroy(args) => commands::region::destroy(session, &args),
        Command::Resize { name, size, force } => {
            commands::region::resize(session, &name, size, force)
        }
        Command::Ls => commands::list::ls(session),
        Command::Stat { name } => commands::list::stat(session, &name),
        Command::Write(args) => commands::bytes::write(session, &args),
        Command::Read(args) => commands::bytes::read(session, &args),
        Command::Map(args) => return commands::map::map(session, &args),
        Command::Lock(args) => return commands::lock::lock(session, &args),
        Command::Reset(args) => commands::reset::reset(session, &args),
        Command::Locks(args) => match args.graph {
            None => commands::locks::locks(session),
            Some(form) => commands::graph::graph(session, form),
        },
        Command::Peers => commands::peers::peers(session),
        Command::Reap(args) => commands::peers::reap(session, &args),
        Command::Demo(args) => demo::demo(session, &args),
        Command::Torture(args) => Err(external::become_bench(session, Some("torture"), &args)),
        Command::Bench(args) => Err(external::become_bench(session, None, &args)),
        Command::Doctor => commands::doctor::doctor(session),
        Command::Completions { shell } => commands::generate::completions(session, shell),
        Command::Man { dir } => commands::generate::man(session, dir.as_deref()),
        Command::ExecChild(args) => Err(child::become_command(&args)),
        Command::DemoWorker(args) => demo::worker(session, &args),
    }?;
    Ok(0)
}
