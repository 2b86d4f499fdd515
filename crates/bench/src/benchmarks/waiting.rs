//! `waiting`: what it costs to wait for a lock where no kernel can wake the waiter, against a futex.
//!
//! A worker process has two threads: one holds a lock for some time, the other waits for it. It runs twice: in a
//! `shm:` space, and in a space in memory of a device, for which a file stands.

use std::{
    env, fs,
    io::Read as _,
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use commonhold::{Access, Destroy, FormatOptions, Mapping, Space};
use commonhold_console::{
    child,
    clock::now_ns,
    failure::{Doing, Failure, broken},
    session::Session,
    workers::WorkerArgs,
};
use serde::{Deserialize, Serialize};

use super::line::{Figures, Line};

const NAME: &str = "bench.waiting";
/// A physical address at which no machine has memory, so that a file can stand for it.
const BASE: u64 = 1 << 43;
const SIZE: u64 = 8 << 20;
/// How long the lock is held, in microseconds, and how often.
const HOLDS: [(u64, usize); 3] = [(100, 200), (10_000, 60), (200_000, 10)];
/// How long the lock is held to measure the processor time of waiting.
const IDLE: Duration = Duration::from_secs(5);

/// What a worker has measured, in nanoseconds.
#[derive(Debug, Serialize, Deserialize)]
struct Measured {
    /// Times from the unlock until the waiter has the lock, for each of [`HOLDS`].
    hand_over: Vec<Vec<f64>>,
    /// Processor time for a second of waiting.
    of_a_second: f64,
}

/// The file that stands for physical memory; removed when this is dropped.
struct Device(PathBuf);

impl Device {
    fn make() -> Result<Self, Failure> {
        let directory = env::var_os("COMMONHOLD_SHM_DIR").map_or("/dev/shm".into(), PathBuf::from);
        let path = directory.join(format!("commonhold-bench-device-{}", std::process::id()));
        let file = fs::File::create(&path).doing(|| format!("make {}", path.display()))?;
        let device = Self(path);
        file.set_len(BASE + SIZE).doing(|| format!("make {}", device.0.display()))?;
        Ok(device)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "the file of this run is left");
        }
    }
}

pub(super) fn waiting(session: &Session) -> Result<Vec<Line>, Failure> {
    let (run_space, space) = super::prepare_space(session, &FormatOptions::default())?;
    let futex = measured(&run_space.url, |_| {})?;
    run_space.remove(space)?;
    let device = Device::make()?;
    let poll = measured(&format!("mem:{BASE:#x}+{SIZE:#x}"), |command| {
        command.env("COMMONHOLD_DEV_MEM", &device.0);
    })?;
    let names = ["hand-over after 100 us", "hand-over after 10 ms", "hand-over after 200 ms"];
    let pairs = poll.hand_over.into_iter().zip(futex.hand_over);
    let mut lines: Vec<Line> = names
        .into_iter()
        .zip(pairs)
        .map(|(name, (ours, peer))| {
            let ours = Figures::spread(ours).unwrap_or_default();
            Line::of(name, "futex", &ours, Figures::spread(peer).as_ref())
        })
        .collect();
    let (ours, peer) = (vec![poll.of_a_second], vec![futex.of_a_second]);
    lines.push(Line::new("processor, of 1 s waited", "futex", ours, peer));
    Ok(lines)
}

fn measured(url: &str, prepare: impl FnOnce(&mut Command)) -> Result<Measured, Failure> {
    let what = || "bench waiting".to_owned();
    let mut command = child::this_program();
    command.args(["waiter", "--space", url]);
    command.args(["--parent", &std::process::id().to_string()]);
    prepare(&mut command);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().doing(what)?;
    let mut text = String::new();
    if let Some(mut output) = child.stdout.take() {
        output.read_to_string(&mut text).doing(what)?;
    }
    let status = child.wait().doing(what)?;
    if !status.success() {
        return Err(broken(format!("the waiter in {url} ended with {status}")));
    }
    serde_json::from_str(&text)
        .map_err(|error| broken(format!("the waiter said {text:?}: {error}")))
}

/// The worker.
pub(crate) fn waiter(session: &Session, args: &WorkerArgs) -> Result<(), Failure> {
    let what = || "wait for oneself".to_owned();
    if !child::die_with(args.parent).doing(what)? {
        return Err(Failure { code: 1, message: None });
    }
    let options = FormatOptions { capacity: Some(SIZE), force: true, ..FormatOptions::default() };
    if session.url.starts_with("mem:") {
        Space::format(&session.url, &options).doing(what)?;
    }
    let space = session.open()?;
    let region = space.create(NAME, 4096).doing(what)?;
    let mapping = region.map(Access::ReadWrite).doing(what)?;
    drop(region);
    let late = HOLDS.iter().map(|&(micros, times)| {
        let hold = Duration::from_micros(micros);
        (0..times).map(|_| hand_over(&mapping, hold).map(|(late, _)| late)).collect()
    });
    let late = late.collect::<Result<_, _>>()?;
    let (_, idle) = hand_over(&mapping, IDLE)?;
    mapping.unmap().doing(what)?;
    space.destroy(NAME, Destroy::Wait).doing(what)?;
    session.out.value(&Measured { hand_over: late, of_a_second: idle / IDLE.as_secs_f64() })
}

/// Nanoseconds from the unlock until the waiter has the lock, and nanoseconds of processor time that waiting took.
fn hand_over(mapping: &Mapping, hold: Duration) -> Result<(f64, f64), Failure> {
    let what = || "hand over".to_owned();
    let waits = AtomicU64::new(0);
    let guard = mapping.lock().doing(what)?;
    let (given, got) = thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let before = processor_ns();
            waits.store(1, Ordering::Release);
            let guard = mapping.lock().doing(what)?;
            let got = now_ns();
            let used = processor_ns().saturating_sub(before);
            guard.unlock().doing(what)?;
            Ok::<_, Failure>((got, used))
        });
        while waits.load(Ordering::Acquire) == 0 {
            thread::yield_now();
        }
        thread::sleep(hold);
        let given = now_ns();
        guard.unlock().doing(what)?;
        let got = waiter.join().map_err(|_| broken("the waiter panicked"))??;
        Ok::<_, Failure>((given, got))
    })?;
    let exact = |nanos: u64| Duration::from_nanos(nanos).as_secs_f64() * 1e9;
    Ok((exact(got.0.saturating_sub(given)), exact(got.1)))
}

/// Processor time of this thread, in nanoseconds.
fn processor_ns() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0)
}
