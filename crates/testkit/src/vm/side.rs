//! One kernel's side of a space: where programs run, and by which URL they find it.

use serde_json::Value;

use crate::vm::{Ended, Guest, GuestImage, Job, Outcome, ScriptedProcess};

#[derive(Debug, Clone, Copy)]
enum Place<'a> {
    Host(&'a GuestImage),
    Guest(&'a Guest),
}

/// A side.
#[derive(Debug, Clone)]
pub struct Side<'a> {
    place: Place<'a>,
    url: String,
}

impl<'a> Side<'a> {
    /// The host's.
    #[must_use]
    pub const fn host(image: &'a GuestImage, url: String) -> Self {
        Self { place: Place::Host(image), url }
    }

    /// A guest's.
    #[must_use]
    pub fn guest(guest: &'a Guest, url: &str) -> Self {
        Self { place: Place::Guest(guest), url: url.to_owned() }
    }

    /// The URL of the space here.
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

    /// An actor that has opened the space.
    ///
    /// # Errors
    /// It cannot.
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

    /// Runs `commonhold` on the space to its end, whatever that is.
    ///
    /// # Errors
    /// The end does not come.
    pub fn try_run(&self, arguments: &[&str]) -> Outcome<Ended> {
        self.command(arguments)?.end()
    }

    /// Runs `commonhold` on the space, which must end with 0, and gives back what it wrote.
    ///
    /// # Errors
    /// It ends otherwise.
    pub fn run(&self, arguments: &[&str]) -> Outcome<String> {
        let mut job = self.command(arguments)?;
        let ended = job.end()?;
        match ended.status {
            0 => Ok(ended.out),
            status => Err(job.told(&format!("has ended with {status}"))),
        }
    }

    /// Runs `commonhold --json`, and gives back its value.
    ///
    /// # Errors
    /// As for [`run`](Self::run), or it is no JSON.
    pub fn json(&self, arguments: &[&str]) -> Outcome<Value> {
        let text = self.run(&[&["--json"], arguments].concat())?;
        serde_json::from_str(&text).map_err(|error| format!("{arguments:?}: {error}: {text}"))
    }
}
