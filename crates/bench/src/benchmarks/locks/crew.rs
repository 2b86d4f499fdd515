//! Participants as their director has them, and the crews that share a lock.
//!
//! Invariants: 1. no answer is waited for without a limit. 2. A worker ends with its crew, and with this
//! process however that dies.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    slice,
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use commonhold_console::{
    child,
    clock::now_ns,
    failure::{Doing, Failure, broken},
    workers::{self, PATIENCE},
};
use rustix::{
    process::Pid,
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

use super::protocol::{Request, numbers};
use crate::args::BenchLock;

/// Until all workers have read what they are to do.
const HEAD_START_NS: u64 = 10_000_000;

/// Which lock, and where.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) lock: BenchLock,
    /// Another program than this one.
    pub(super) program: Option<PathBuf>,
    pub(super) url: String,
    /// A file, or the name of a region.
    pub(super) place: PathBuf,
}

/// The workers that share a lock.
#[derive(Debug)]
pub(super) struct Crew {
    post: Post,
    workers: Vec<Worker>,
}

impl Crew {
    /// The first worker makes the lock.
    pub(super) fn start(post: Post, workers: usize) -> Result<Self, Failure> {
        let mut crew = Self { post, workers: Vec::with_capacity(workers) };
        while crew.workers.len() < workers {
            let another = crew.start_worker(0)?;
            crew.workers.push(another);
        }
        Ok(crew)
    }

    /// One more worker at the same lock, with so many bytes of memory of its own.
    pub(super) fn start_worker(&self, resident: u64) -> Result<Worker, Failure> {
        Worker::start(&self.post, self.workers.is_empty(), resident)
    }

    pub(super) fn worker(&mut self, index: usize) -> Result<&mut Worker, Failure> {
        self.workers.get_mut(index).ok_or_else(|| broken("there are not so many workers"))
    }

    /// Gives each worker a processor of its own, as long as there are enough.
    pub(super) fn spread(&self) -> Result<(), Failure> {
        let what = || "choose processors".to_owned();
        let allowed = sched_getaffinity(None).map_err(io::Error::from).doing(what)?;
        let processors = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
        for (worker, processor) in self.workers.iter().zip(processors) {
            let mut only = CpuSet::new();
            only.set(processor);
            let pid = i32::try_from(worker.pid()).ok().and_then(Pid::from_raw);
            sched_setaffinity(pid, &only).map_err(io::Error::from).doing(what)?;
        }
        Ok(())
    }

    /// Asks the first workers at once, one request each, from a moment to come on, for so long. What it
    /// gives back is in their order.
    pub(super) fn at_once(
        &mut self,
        workers: usize,
        slice: Duration,
        request: impl Fn(usize, u64, u64) -> Request,
    ) -> Result<Vec<Vec<u64>>, Failure> {
        let from = now_ns().saturating_add(HEAD_START_NS);
        let until = from.saturating_add(u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX));
        let workers = self.workers.get_mut(..workers);
        let workers = workers.ok_or_else(|| broken("there are not so many workers"))?;
        for (index, worker) in workers.iter_mut().enumerate() {
            worker.tell(request(index, from, until))?;
        }
        workers.iter_mut().map(|worker| worker.answer(slice + PATIENCE)).collect()
    }

    /// Ends all workers; gives back where the lock is.
    pub(super) fn end(self) -> Result<PathBuf, Failure> {
        self.workers.into_iter().try_for_each(Worker::end)?;
        Ok(self.post.place)
    }
}

/// A process with a lock.
#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
    /// Until it is told to end.
    input: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl Worker {
    fn start(post: &Post, make: bool, resident: u64) -> Result<Self, Failure> {
        let mut command = match &post.program {
            Some(program) => Command::new(program),
            None => child::this_program(),
        };
        if post.program.is_none() {
            command.args(["worker", "--space", &post.url]);
        }
        command.args(["--parent", &std::process::id().to_string(), "--lock", &post.lock.name()]);
        command.arg("--place").arg(&post.place);
        if make {
            command.arg("--make");
        }
        if resident > 0 {
            command.args(["--resident", &resident.to_string()]);
        }
        // A terminal's Ctrl-C is for the parent.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().doing(|| format!("start {}", post.lock.name()))?;
        let (sender, answers) = mpsc::channel();
        if let Some(output) = child.stdout.take() {
            // Ends with the worker's output.
            thread::spawn(move || {
                let lines = BufReader::new(output).lines().map_while(Result::ok);
                lines.map(|line| sender.send(line)).take_while(Result::is_ok).for_each(drop);
            });
        }
        let input = child.stdin.take();
        let mut worker = Self { child, input, answers };
        worker.answer(PATIENCE)?;
        Ok(worker)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks, and waits for the answer.
    pub(super) fn ask(&mut self, request: Request, limit: Duration) -> Result<Vec<u64>, Failure> {
        self.tell(request)?;
        self.answer(limit)
    }

    pub(super) fn tell(&mut self, request: Request) -> Result<(), Failure> {
        let input = self.input.as_mut().ok_or_else(|| broken("the worker was told to end"))?;
        writeln!(input, "{request}").doing(|| "talk to a worker".to_owned())
    }

    pub(super) fn answer(&mut self, limit: Duration) -> Result<Vec<u64>, Failure> {
        let line = self.answers.recv_timeout(limit).map_err(|error| match error {
            mpsc::RecvTimeoutError::Timeout => {
                broken(format!("a worker said nothing for {} s", limit.as_secs()))
            }
            mpsc::RecvTimeoutError::Disconnected => broken("a worker ended too early"),
        })?;
        numbers(&line).map_err(broken)
    }

    /// Kills it with SIGKILL; says when.
    pub(super) fn kill(mut self) -> Result<u64, Failure> {
        let what = || "kill the holder".to_owned();
        let at = now_ns();
        self.child.kill().doing(what)?;
        self.child.wait().doing(what)?;
        Ok(at)
    }

    pub(super) fn end(mut self) -> Result<(), Failure> {
        drop(self.input.take());
        let joined = workers::join(slice::from_mut(&mut self.child));
        match (joined.stuck, joined.failed.is_empty()) {
            (0, true) => Ok(()),
            _ => Err(broken(format!("worker {} did not end well", self.pid()))),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Err(error) = workers::kill(&mut self.child) {
            tracing::warn!(pid = self.pid(), %error, "a worker could not be killed");
        }
    }
}
