//! The agent: the first process of a guest. It runs the programs that the test at the other end of the serial line
//! asks for.
//!
//! The kernel never writes to this serial line. `init.sh` has set the line to raw mode.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Write as _},
    path::Path,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
};

use crate::vm::{
    process::{Process, piped},
    wire::{Event, Order, Report},
};

/// The serial line back to the test.
#[derive(Clone)]
struct Line(Arc<Mutex<File>>);

impl Line {
    fn report(&self, report: &Report) {
        let Ok(mut text) = serde_json::to_string(report) else { return };
        text.push('\n');
        let mut line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A test that no longer listens will kill the guest.
        let _ = line.write_all(text.as_bytes());
    }

    fn of_job(&self, job: u64) -> impl Fn(Event) + Clone + Send + 'static {
        let line = self.clone();
        move |event| line.report(&Report::Job { job, event })
    }
}

/// Serves the test at `tty`. Returns only after a failure, which ends the guest.
///
/// # Errors
/// The line cannot be opened, or has ended.
pub fn serve(tty: &Path) -> io::Result<()> {
    let input = BufReader::new(File::open(tty)?);
    let line = Line(Arc::new(Mutex::new(OpenOptions::new().write(true).open(tty)?)));
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
    line.report(&Report::Ready { boot });
    let mut jobs: HashMap<u64, Process> = HashMap::new();
    for text in input.lines() {
        match serde_json::from_str(&text?)? {
            Order::Run { job, argv } => match start(&argv, line.of_job(job)) {
                Ok(process) => drop(jobs.insert(job, process)),
                Err(error) => {
                    let tell = line.of_job(job);
                    tell(Event::Err(format!("cannot run {argv:?}: {error}")));
                    tell(Event::End(127));
                }
            },
            Order::Tell { job, line } => {
                if let Some(process) = jobs.get_mut(&job) {
                    process.tell(&line);
                }
            }
            Order::Close { job } => {
                if let Some(process) = jobs.get_mut(&job) {
                    process.close();
                }
            }
            Order::Kill { job } => {
                if let Some(process) = jobs.remove(&job) {
                    process.kill();
                }
            }
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

fn start(argv: &[String], tell: impl Fn(Event) + Clone + Send + 'static) -> io::Result<Process> {
    let (program, arguments) = argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    Process::follow(piped(Command::new(program).args(arguments)).spawn()?, tell)
}
