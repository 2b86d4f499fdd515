//! `completions` and `man`: generated from the definitions of the arguments, so that they cannot drift apart.

use std::{fs, path::Path};

use clap::CommandFactory;
use clap_complete::Shell;
use commonhold_console::{
    failure::{Doing, Failure},
    session::Session,
};

use crate::args::Cli;

pub(crate) fn completions(session: &Session, shell: Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "commonhold", &mut text);
    session.out.bytes(&text)
}

pub(crate) fn man(session: &Session, dir: Option<&Path>) -> Result<(), Failure> {
    let Some(dir) = dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command())
            .render(&mut page)
            .doing(|| "write the manual page".to_owned())?;
        return session.out.bytes(&page);
    };
    let what = || format!("write manual pages to {}", dir.display());
    fs::create_dir_all(dir).doing(what)?;
    clap_mangen::generate_to(Cli::command(), dir).doing(what)
}
