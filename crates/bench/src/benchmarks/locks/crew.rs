//! The worker processes as the coordinator sees them, and the crews of workers that share a lock.
//!
//! Invariants: 1. no answer is waited for without a limit. 2. A worker ends with its crew, and also when this process
//! dies, however it dies.

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

/// Time for all workers to read their request before they start.
const HEAD_START_NS: u64 = 10_000_000;

/// Which lock the workers use, and where it is.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) lock: BenchLock,
    /// The program to start, if it is not this one.
    pub(super) program: Option<PathBuf>,
    pub(super) url: String,
    /// The path of a file, or the name of a region.
    pub(super) place: PathBuf,
}

/// The workers that share a lock.
#[derive(Debug)]
pub(super) struct Crew {
    post: Post,
    workers: Vec<Worker>,
}

impl Crew {
    /// Starts this many workers. The first one makes the lock.
    pub(super) fn start(post: Post, workers: usize) -> Result<Self, Failure> {
        let mut crew = Self { post, workers: Vec::with_capacity(workers) };
        while crew.workers.len() < workers {
            let another = crew.start_worker(0)?;
            crew.workers.push(another);
        }
        Ok(crew)
    }

    /// Starts one more worker at the same lock, with this many bytes of private memory.
    pub(super) fn start_worker(&self, resident: u64) -> Result<Worker, Failure> {
        Worker::start(&self.post, self.workers.is_empty(), resident)
    }

    pub(super) fn worker(&mut self, index: usize) -> Result<&mut Worker, Failure> {
        self.workers.get_mut(index).ok_or_else(|| broken("there are not that many workers"))
    }

    /// Pins each worker to its own processor, as long as there are enough.
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

    /// Sends a request to each of the first `workers` workers. All start at the same moment, and work for `slice`.
    /// Returns their answers in order.
    pub(super) fn at_once(
        &mut self,
        workers: usize,
        slice: Duration,
        request: impl Fn(usize, u64, u64) -> Request,
    ) -> Result<Vec<Vec<u64>>, Failure> {
        let from = now_ns().saturating_add(HEAD_START_NS);
        let until = from.saturating_add(u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX));
        let workers = self.workers.get_mut(..workers);
        let workers = workers.ok_or_else(|| broken("there are not that many workers"))?;
        for (index, worker) in workers.iter_mut().enumerate() {
            worker.tell(request(index, from, until))?;
        }
        workers.iter_mut().map(|worker| worker.answer(slice + PATIENCE)).collect()
    }

    /// Ends all workers. Returns where the lock is.
    pub(super) fn end(self) -> Result<PathBuf, Failure> {
        self.workers.into_iter().try_for_each(Worker::end)?;
        Ok(self.post.place)
    }
}

/// A worker process.
#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
    /// Its standard input; closed to tell it to end.
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
        // Ctrl-C on a terminal must reach the parent only.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().doing(|| format!("start {}", post.lock.name()))?;
        let (sender, answers) = mpsc::channel();
        if let Some(output) = child.stdout.take() {
            // The thread ends when the worker closes its output.
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

    /// Sends a request, and waits for the answer.
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

    /// Kills the worker with SIGKILL. Returns when.
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
