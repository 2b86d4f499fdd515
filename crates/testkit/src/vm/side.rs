//! One kernel's side of a space: where programs run, and by which URL they open the space.

use serde_json::Value;

use crate::vm::{Ended, Guest, GuestImage, Job, Outcome, ScriptedProcess};

#[derive(Debug, Clone, Copy)]
enum Place<'a> {
    Host(&'a GuestImage),
    Guest(&'a Guest),
}

/// The host's or a guest's side of a space.
#[derive(Debug, Clone)]
pub struct Side<'a> {
    place: Place<'a>,
    url: String,
}

impl<'a> Side<'a> {
    /// The host's side.
    #[must_use]
    pub const fn host(image: &'a GuestImage, url: String) -> Self {
        Self { place: Place::Host(image), url }
    }

    /// A guest's side.
    #[must_use]
    pub fn guest(guest: &'a Guest, url: &str) -> Self {
        Self { place: Place::Guest(guest), url: url.to_owned() }
    }

    /// The URL of the space on this side.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    fn start(&self, program: &str, arguments: &[&str]) -> Outcome<Job> {
        match self.place {
            Place::Guest(guest) => guest.start_job(&[&[program], arguments].concat()),
            Place::Host(image) => {
                let path = match program {
                    "commonhold" => image.commonhold(),
                    _ => image.actor(),
                };
                let path = path.to_string_lossy();
                Job::here(image, &[&[path.as_ref()], arguments].concat())
            }
        }
    }

    /// Starts a scripted process, and has it open the space.
    ///
    /// # Errors
    /// It cannot open the space.
    pub fn actor(&self) -> Outcome<ScriptedProcess> {
        let mut actor = ScriptedProcess::new(self.start("guest-actor", &["act"])?);
        actor.must(&format!("open {}", self.url))?;
        Ok(actor)
    }

    /// Starts `commonhold` on the space.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn command(&self, arguments: &[&str]) -> Outcome<Job> {
        self.start("commonhold", &[&["--space", &self.url], arguments].concat())
    }

    /// Runs `commonhold` on the space until it ends, with any status.
    ///
    /// # Errors
    /// It does not end.
    pub fn try_run(&self, arguments: &[&str]) -> Outcome<Ended> {
        self.command(arguments)?.end()
    }

    /// Runs `commonhold` on the space, which must end with status 0. Returns its standard output.
    ///
    /// # Errors
    /// It ends with another status.
    pub fn run(&self, arguments: &[&str]) -> Outcome<String> {
        let mut job = self.command(arguments)?;
        let ended = job.end()?;
        match ended.status {
            0 => Ok(ended.out),
            status => Err(job.told(&format!("has ended with {status}"))),
        }
    }

    /// Runs `commonhold --json`. Returns its JSON value.
    ///
    /// # Errors
    /// As for [`run`](Self::run), or the output is not JSON.
    pub fn json(&self, arguments: &[&str]) -> Outcome<Value> {
        let text = self.run(&[&["--json"], arguments].concat())?;
        serde_json::from_str(&text).map_err(|error| format!("{arguments:?}: {error}: {text}"))
    }
}
