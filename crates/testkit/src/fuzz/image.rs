//! Files of spaces whose processes died in the middle of something, which are damaged and then used.
//!
//! A round copies one of a few images, writes plausible words to it, punches holes, and sometimes cuts its end off.
//! Now and then it runs a command of the real program on it. Then a process opens it and tries every operation, while
//! more words are written between the operations.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use arbitrary::{Arbitrary as _, Unstructured};
use commonhold::{FormatOptions, Removal, Space};
use commonhold_layout::{Geometry, HEADER_BYTES};
use commonhold_window::Point;
use fastrand::Rng;
use rustix::fs::{FallocateFlags, fallocate};

use super::{
    Finding, Job, Run,
    check::{self, Output},
    child::{self, End, FOR_EVER, Said, Worker, say},
    commands::{COMMANDS, TestSpace, statuses},
    operations,
    scribble::{Scribble, Words},
    tally::Tally,
};
use crate::crash::actor::ScriptedProcess;

/// How many rounds one process does.
const BATCH: u64 = 64;
/// How long an operation may wait in a round.
const BRIEFLY: Duration = Duration::from_millis(10);

/// What was in progress when all processes died: a command, and the point that its process had reached.
const SCENES: &[(&str, Option<Point>)] = &[
    ("create last 100", None),
    ("create made 8192", Some(Point::CreateLinked)),
    ("create made 8192", Some(Point::LinkHalf)),
    ("destroy c wait", Some(Point::DestroyFreeing)),
    ("destroy c wait", Some(Point::LinkOdd)),
    ("resize sized 20000", Some(Point::ResizeTrial)),
    ("resize sized 100", Some(Point::ResizeGranted)),
    ("destroy kept deferred", None),
];

/// The file of a space, which can be written at any offset.
#[derive(Debug)]
pub(crate) struct Bytes(pub(crate) File);

impl Words for Bytes {
    fn get(&self, at: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, at).ok()?;
        Some(u64::from_le_bytes(bytes))
    }

    fn set(&self, at: u64, word: u64) {
        let _ = self.0.write_all_at(&word.to_le_bytes(), at);
    }

    fn punch(&self, at: u64) {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let _ = fallocate(&self.0, flags, at & !(HEADER_BYTES - 1), HEADER_BYTES);
    }
}

impl Bytes {
    pub(crate) fn open(path: &Path) -> Finding<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path);
        file.map(Self).map_err(|error| format!("{}: {error}", path.display()))
    }

    pub(crate) fn geometry(&self) -> Option<Geometry> {
        let mut words = [0; 32];
        for (at, word) in (0_u64..).step_by(8).zip(&mut words) {
            *word = self.get(at)?;
        }
        Geometry::check(&words, self.0.metadata().ok()?.len()).ok()
    }
}

/// A random change.
pub(crate) fn scribble(random: &mut Rng) -> Option<Scribble> {
    let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(64).collect();
    Scribble::arbitrary(&mut Unstructured::new(&bytes)).ok()
}

/// Makes a small space with some of everything in it, all of whose processes have died.
fn scene(folder: &Path, index: usize, script: &str, point: Option<Point>) -> Finding<PathBuf> {
    let path = folder.join(format!("scene-{index}"));
    let url = format!("file:{}", path.display());
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let options = FormatOptions {
        capacity: Some(1 << 20),
        peers: Some(8),
        threads: Some(4),
        regions: Some(40),
        ..FormatOptions::default()
    };
    Space::format(&url, &options).map_err(|error| text(&error))?;
    let program = std::env::current_exe().map_err(|error| text(&error))?;
    let program = program.with_file_name("crash-actor");
    let open = format!("open {url}");
    let mut first = ScriptedProcess::start(&program, None)?;
    let begin = [&open, "create a 64", "create b 9000", "create c 4096", "create kept 4096"];
    first.tell_all(&begin)?;
    first.tell_all(&["create sized 10000 30000", "create d 0", "map a", "lock a wait"])?;
    let mut second = ScriptedProcess::start(&program, None)?;
    second.tell_all(&[&open, "map kept", "rlock kept wait", "map b", "mlock b wait 8"])?;
    let mut third = ScriptedProcess::start(&program, point.map(|point| (point, 1)))?;
    third.tell_all(&[&open])?;
    third.tell(script);
    third.answer()?;
    for mut actor in [third, second, first] {
        if actor.alive {
            actor.kill()?;
        }
    }
    Ok(path)
}

pub(super) fn run(run: &mut Run) -> Finding {
    let folder = run.arena.path().to_owned();
    for (index, (script, point)) in SCENES.iter().enumerate() {
        scene(&folder, index, script, *point)?;
    }
    let log = folder.join("log");
    let path = folder.to_string_lossy().into_owned();
    while run.goes_on() {
        let first = run.next_seed();
        let (seed_text, program) = (first.to_string(), run.program.to_string_lossy());
        let role = ["image-worker", &path, "--seed", &seed_text, "--program", &program];
        let mut worker = Worker::start(&role, &log)?;
        let mut seed = first;
        loop {
            match worker.hear(FOR_EVER)? {
                Said::Line(line) => match line.strip_prefix("seed ") {
                    Some(now) => seed = now.parse().unwrap_or(seed),
                    None => run.tally.hear(&line),
                },
                Said::End(End::Exit(0)) => break,
                Said::End(how) => {
                    let why = fs::read_to_string(&log).unwrap_or_default();
                    run.finds(seed, &format!("{how:?}: {}", why.trim_end()));
                    break;
                }
            }
        }
        run.rounds = seed.wrapping_sub(run.seed).wrapping_add(1);
    }
    Ok(())
}

/// The process that uses damaged images: does some rounds, and announces each.
pub(super) fn work(job: &Job) -> ExitCode {
    let mut tally = Tally::default();
    let Some(folder) = job.rest.first().map(Path::new) else { return ExitCode::FAILURE };
    for seed in job.seed..job.seed.saturating_add(BATCH) {
        say(&format!("seed {seed}"));
        if let Err(why) = round(folder, &job.program, seed, &mut tally) {
            eprintln!("{why}");
            return ExitCode::FAILURE;
        }
    }
    tally.lines().for_each(|line| say(&line));
    ExitCode::SUCCESS
}

fn round(folder: &Path, program: &Path, seed: u64, tally: &mut Tally) -> Finding {
    let mut random = Rng::with_seed(seed);
    let scene = folder.join(format!("scene-{}", random.usize(..SCENES.len())));
    let damaged = TestSpace::around(&folder.join("damaged"))?;
    let path = damaged.folder.join("space");
    // The copy keeps the holes.
    let source = Bytes::open(&scene)?;
    let geometry = source.geometry().ok_or("a scene that is no space")?;
    copy(&source.0, &path)?;
    let bytes = Bytes::open(&path)?;
    for _ in 0..random.u8(..12) {
        if let Some(scribble) = scribble(&mut random) {
            scribble.apply(&bytes, &geometry);
        }
    }
    match random.u8(..32) {
        0 => drop(bytes.0.set_len(random.u64(..geometry.capacity()))),
        1 => drop(bytes.0.set_len(random.u64(..64) * 4096)),
        _ => {}
    }
    if random.u8(..4) == 0 {
        command(&damaged, folder, program, &mut random, tally)?;
    }
    let url = damaged.url();
    let space = match Space::open_within(&url, BRIEFLY) {
        Ok(space) => space.within(BRIEFLY),
        Err(error) => {
            let _ = error.to_string();
            tally.count("open", &format!("{:?}", error.kind()));
            return remove(&url, &path, tally);
        }
    };
    tally.count("open", "done");
    for _ in 0..random.u8(..40) {
        operations::any(&space, &mut random, tally);
        if random.u8(..4) == 0
            && let Some(scribble) = scribble(&mut random)
        {
            scribble.apply(&bytes, &geometry);
        }
    }
    operations::all(&space, &mut random, tally);
    drop(space);
    remove(&url, &path, tally)
}

/// Runs a command of the real program on the damaged space.
fn command(
    damaged: &TestSpace,
    logs: &Path,
    program: &Path,
    random: &mut Rng,
    tally: &mut Tally,
) -> Finding {
    let Some(words) = random.choice(COMMANDS) else { return Ok(()) };
    let mut command = damaged.command(program, words);
    let ended = child::run(&mut command, logs, FOR_EVER)?;
    let wrong = |why: String| format!("{}: {why}", check::typed(&command));
    let code = check::status(&ended, statuses(words)).map_err(wrong)?;
    let output = if words.contains(&"read") { Output::Bytes } else { Output::Text };
    check::texts(&ended, output).map_err(wrong)?;
    tally.count(&format!("commonhold {}", words.first().unwrap_or(&"")), &code.to_string());
    Ok(())
}

fn remove(url: &str, path: &Path, tally: &mut Tally) -> Finding {
    for removal in [Removal::IfUnused, Removal::Forced] {
        let how = Space::remove(url, removal)
            .map_or_else(|error| format!("{:?}", error.kind()), |()| "done".into());
        tally.count("remove", &how);
    }
    let _ = fs::remove_file(path);
    Ok(())
}

/// Copies a file, and leaves holes where it is zero.
fn copy(from: &File, to: &Path) -> Finding {
    const PAGE: usize = 4096;
    let wrong = |error: std::io::Error| error.to_string();
    let len = from.metadata().map_err(wrong)?.len();
    let to = File::create(to).map_err(wrong)?;
    to.set_len(len).map_err(wrong)?;
    let mut page = [0; PAGE];
    for at in (0..len).step_by(PAGE) {
        from.read_exact_at(&mut page, at).map_err(wrong)?;
        if page.iter().any(|byte| *byte != 0) {
            to.write_all_at(&page, at).map_err(wrong)?;
        }
    }
    Ok(())
}
