//! Runs in the child: attaches as a peer that claims to run on another kernel, which only the core crates allow.

use commonhold_host::{LinuxPlatform, Url};
use commonhold_layout::BootId;
use commonhold_space::{Attached, Identity, View};

use crate::scripted_process::{Line, say};

/// Executes `guest URL BOOT`: attaches as a peer of the kernel with that boot id, and detaches at `close`.
pub(crate) fn attend(url: &str, boot: u64) {
    let space = match attach(url, boot) {
        Ok(space) => space,
        Err(error) => return say('=', &error),
    };
    say('=', "ok");
    loop {
        match Line::read() {
            None => std::process::exit(3),
            Some(line) if line.word(0) == "close" => break,
            Some(_) => say('=', "skip"),
        }
    }
    say('=', &left(&space));
}

/// Executes `tour URL N`: attaches and detaches as a peer of N new kernels, one after the other.
pub(crate) fn tour(url: &str, kernels: u64) {
    for boot in 0..kernels {
        match attach(url, 1000 + boot).map(|space| left(&space)) {
            Ok(said) if said == "ok" => {}
            Ok(error) | Err(error) => return say('=', &error),
        }
    }
    say('=', "ok");
}

fn left(space: &Attached<LinuxPlatform>) -> String {
    space.detach().map_or_else(|error| format!("failed: {error}"), |()| "ok".into())
}

fn attach(url: &str, boot: u64) -> Result<Attached<LinuxPlatform>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("failed: {error}");
    let url: Url = url.parse().map_err(|_| "failed: no URL".to_owned())?;
    let mapped = commonhold_host::open(&url, commonhold_host::Owners::Trusted)
        .map_err(|error| failed(&error))?;
    let platform = LinuxPlatform::new(mapped).map_err(|error| failed(&error))?;
    let identity = Identity { boot: BootId(boot.into()), ..platform.identity() };
    let view = View::open(platform).map_err(|error| failed(&error))?;
    Attached::attach(view, &identity).map_err(|error| failed(&error))
}
