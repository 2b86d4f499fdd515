//! A program that a test has started, on the host or in a guest, with the same handle for both.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::Duration,
};

use crate::vm::{
    GuestImage, Outcome, PATIENCE, bound,
    console::Console,
    failed,
    link::Link,
    process::{Process, piped},
    wire::{Event, Order},
};

/// How the program is reached.
#[derive(Debug)]
enum Reach {
    Here(Process),
    Guest { link: Arc<Link>, job: u64 },
}

/// A running program. It is killed when this is dropped.
#[derive(Debug)]
pub struct Job {
    what: String,
    events: Receiver<Event>,
    reach: Reach,
    console: Option<Arc<Console>>,
    err: String,
    status: Option<i32>,
}

/// The result of a program.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status; 128 plus the signal if it was killed.
    pub status: i32,
    /// The part of standard output that was not read before.
    pub out: String,
    /// Standard error.
    pub err: String,
}

fn words(argv: &[&str]) -> String {
    argv.join(" ")
}

impl Job {
    pub(crate) fn here(image: &GuestImage, argv: &[&str]) -> Outcome<Self> {
        let what = format!("`{}` on the host", words(argv));
        let mut command = bound::bound(image, argv);
        piped(&mut command);
        let child = bound::launch(command).map_err(failed(&what))?;
        let (sender, events) = channel();
        let process = Process::follow(child, teller(sender)).map_err(failed(&what))?;
        let reach = Reach::Here(process);
        Ok(Self { what, events, reach, console: None, err: String::new(), status: None })
    }

    pub(crate) fn in_guest(link: &Arc<Link>, console: &Arc<Console>, argv: &[&str]) -> Self {
        let what = format!("`{}` in {}", words(argv), console.guest());
        let (job, events) = link.open();
        let argv = argv.iter().map(|&word| word.to_owned()).collect();
        link.send(&Order::Run { job, argv });
        let reach = Reach::Guest { link: Arc::clone(link), job };
        let console = Some(Arc::clone(console));
        Self { what, events, reach, console, err: String::new(), status: None }
    }

    /// Writes a line to its standard input.
    pub fn tell(&mut self, line: &str) {
        match &mut self.reach {
            Reach::Here(process) => process.tell(line),
            Reach::Guest { link, job } => link.send(&Order::Tell { job: *job, line: line.into() }),
        }
    }

    /// Closes its standard input.
    pub fn close(&mut self) {
        match &mut self.reach {
            Reach::Here(process) => process.close(),
            Reach::Guest { link, job } => link.send(&Order::Close { job: *job }),
        }
    }

    fn send_kill(&self) {
        match &self.reach {
            Reach::Here(process) => process.kill(),
            Reach::Guest { link, job } => link.send(&Order::Kill { job: *job }),
        }
    }

    /// Kills it with SIGKILL, and waits until it is dead.
    ///
    /// # Errors
    /// It does not end, or its guest is gone.
    pub fn kill(&mut self) -> Outcome {
        self.send_kill();
        self.end().map(drop)
    }

    /// Waits for the next line of standard output.
    ///
    /// # Errors
    /// The program has ended, or prints nothing for [`PATIENCE`].
    pub fn line(&mut self) -> Outcome<String> {
        match self.line_within(PATIENCE)? {
            Some(line) => Ok(line),
            None => Err(self.told(&format!("says nothing for {PATIENCE:?}"))),
        }
    }

    /// The next line of standard output, if it comes within `time`.
    ///
    /// # Errors
    /// The program has ended.
    pub fn line_within(&mut self, time: Duration) -> Outcome<Option<String>> {
        loop {
            match self.event(time)? {
                None => return Ok(None),
                Some(Event::Out(line)) => return Ok(Some(line)),
                Some(Event::Err(_)) => {}
                Some(Event::End(status)) => {
                    return Err(self.told(&format!("has ended with {status}")));
                }
            }
        }
    }

    /// Waits until it ends.
    ///
    /// # Errors
    /// It does not end, or the guest is gone.
    pub fn end(&mut self) -> Outcome<Ended> {
        let mut out = String::new();
        while self.status.is_none() {
            match self.event(PATIENCE)? {
                None => return Err(self.told(&format!("does not end within {PATIENCE:?}"))),
                Some(Event::Out(line)) => out = out + &line + "\n",
                Some(Event::Err(_) | Event::End(_)) => {}
            }
        }
        Ok(Ended { status: self.status.unwrap_or(-1), out, err: self.err.clone() })
    }

    fn event(&mut self, time: Duration) -> Outcome<Option<Event>> {
        if let Some(status) = self.status {
            return Err(self.told(&format!("has ended with {status}")));
        }
        match self.events.recv_timeout(time) {
            Ok(event) => {
                match &event {
                    Event::Err(line) => self.err = self.err.clone() + line + "\n",
                    Event::End(status) => self.status = Some(*status),
                    Event::Out(_) => {}
                }
                Ok(Some(event))
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(self.told("is gone with its guest")),
        }
    }

    /// A failure message: what went wrong, with everything that may explain it.
    pub(crate) fn told(&self, wrong: &str) -> String {
        let console = self.console.as_ref().map(|console| console.tail()).unwrap_or_default();
        format!("{} {wrong}\n{}{console}", self.what, self.err)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if self.status.is_none() {
            self.send_kill();
        }
    }
}

/// A function that sends events to the receiver, if it still exists.
fn teller(sender: Sender<Event>) -> impl Fn(Event) + Clone + Send + 'static {
    move |event| drop(sender.send(event))
}
