//! Every command, with a timeout of 0, while another process is stopped at a crash point.
//!
//! Each command ends at once with a documented status. If it times out, its message names the stopped process. Then
//! the stopped process is continued and finishes its operation, and everything is whole.

use std::{
    fs,
    path::{Path, PathBuf},
};

use commonhold_window::Point;
use fastrand::Rng;

use super::{
    Finding, Run,
    check::{self, typed},
    child::{self, FOR_EVER},
    commands::{COMMANDS, Scene, TestSpace, Words, statuses},
};
use crate::crash::{
    actor::{Heard, ScriptedProcess},
    arm,
};

/// The scripts of the stopped process. It is stopped at each point of each line.
const SCRIPTS: &[&[&str]] = &[
    &["open URL", "create made 8192", "map made", "unmap made", "destroy made wait", "close"],
    &["open URL", "destroy gone wait", "close"],
    &["open URL", "destroy gone deferred", "close"],
    &["open URL", "resize sized 100", "resize sized 20000", "close"],
    &["open URL", "map kept", "lock kept wait", "unlock kept", "unmap kept", "close"],
    &["open URL", "map kept", "rlock kept wait", "unlock kept", "unmap kept", "close"],
    &["open URL", "map gone", "mlock gone wait 64", "unlock gone", "unmap gone", "close"],
    &["open URL", "reap", "check", "close"],
    &["remove URL"],
    &["renew URL"],
];

/// A line of a script, and the first hit of a point in it.
#[derive(Debug, Clone, Copy)]
struct Stop {
    script: &'static [&'static str],
    line: usize,
    point: Point,
    /// The number of this hit of the point, counted from the beginning of the script.
    hit: u32,
}

/// How many commands run during one stop; the others run during other stops.
const BESIDE: usize = 5;

/// Whether a command ends at once while another process is stopped. `create`, `resize` and `map` have no `--timeout`:
/// they wait for a default time, which takes too long here.
fn hurried(words: Words) -> bool {
    !matches!(words.first(), Some(&"create" | &"resize" | &"map"))
}

pub(super) fn run(run: &mut Run) -> Finding {
    let logs = run.arena.path().join("logs");
    fs::create_dir_all(&logs).map_err(|error| error.to_string())?;
    let place = run.arena.path().join("test_space");
    let mut stops = vec![];
    for scene in Scene::ALL {
        for script in SCRIPTS {
            let test_space = TestSpace::make(&place, scene)?;
            stops.extend(points(&test_space, script)?.into_iter().map(|stop| (scene, stop)));
        }
    }
    let mut random = Rng::with_seed(run.seed);
    random.shuffle(&mut stops);
    for (scene, stop) in stops.iter().cycle() {
        if !run.goes_on() {
            return Ok(());
        }
        run.rounds += 1;
        let test_space = TestSpace::make(&place, *scene)?;
        if let Err(why) = beside(run, &test_space, *stop, &mut random, &logs) {
            let line = stop.script.get(stop.line).unwrap_or(&"");
            let at = format!("{line:?} stopped at {} ({})", stop.point.name(), stop.hit);
            run.finds(run.seed, &format!("{at}: {why}"));
        }
    }
    Ok(())
}

fn program() -> Finding<PathBuf> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    Ok(this.with_file_name("crash-actor"))
}

fn told(test_space: &TestSpace, line: &str) -> String {
    line.replace("URL", &test_space.url())
}

/// The points that a script passes.
fn points(test_space: &TestSpace, script: &'static [&'static str]) -> Finding<Vec<Stop>> {
    let mut actor = ScriptedProcess::start(&program()?, None)?;
    let mut stops: Vec<Stop> = vec![];
    for (line, command) in script.iter().enumerate() {
        let begun = actor.trace.len();
        actor.tell(&told(test_space, command));
        actor.answer()?.ok_or_else(|| format!("it died in {command:?}"))?;
        let (before, now) = actor.trace.split_at(begun);
        for (index, point) in now.iter().enumerate() {
            if stops.iter().any(|stop| stop.line == line && stop.point == *point) {
                continue;
            }
            let earlier = before.iter().chain(now.iter().take(index));
            let hit = earlier.filter(|earlier| *earlier == point).count() + 1;
            let hit = u32::try_from(hit).unwrap_or(u32::MAX);
            stops.push(Stop { script, line, point: *point, hit });
        }
    }
    actor.dismiss()?;
    Ok(stops)
}

fn beside(
    run: &mut Run,
    test_space: &TestSpace,
    stop: Stop,
    random: &mut Rng,
    logs: &Path,
) -> Finding {
    let at = PathBuf::from(format!("{}:{}", stop.point.name(), stop.hit));
    let mut stopped = ScriptedProcess::start_with(&program()?, None, &[(arm::STOPPED, &at)])?;
    let (before, after) = stop.script.split_at(stop.line);
    let before: Vec<String> = before.iter().map(|line| told(test_space, line)).collect();
    stopped.tell_all(&before.iter().map(String::as_str).collect::<Vec<_>>())?;
    let mut after = after.iter().map(|line| told(test_space, line));
    stopped.tell(&after.next().unwrap_or_default());
    let mut left = stop.hit
        - u32::try_from(stopped.trace.iter().filter(|point| **point == stop.point).count())
            .unwrap_or(0);
    while left > 0 {
        match stopped.hear()? {
            Heard::Point(point) => left -= u32::from(point == stop.point),
            other => return Err(format!("it does not come there: {other:?}")),
        }
    }
    stopped.until_stopped()?;
    let pid = stopped.pid().as_raw_nonzero().to_string();
    let commands: Vec<Words> = COMMANDS.iter().copied().filter(|words| hurried(words)).collect();
    let commands = random.choose_multiple(commands, BESIDE);
    let seen = commands.into_iter().try_for_each(|words| one(run, test_space, words, &pid, logs));
    stopped.go_on()?;
    stopped.answer()?.ok_or("it went on, and died")?;
    for line in after {
        stopped.tell(&line);
        stopped.answer()?.ok_or_else(|| format!("it died in {line:?}"))?;
    }
    stopped.dismiss()?;
    seen?;
    test_space.is_whole()
}

/// Runs one command while the other process is stopped.
fn one(run: &mut Run, test_space: &TestSpace, words: Words, pid: &str, logs: &Path) -> Finding {
    const TIMED_OUT: i32 = 6;
    let mut command = test_space.command(&run.program, words);
    let ended = child::run(&mut command, logs, FOR_EVER)?;
    let wrong = |why: String| format!("{}: {why}", typed(&command));
    let code = check::status(&ended, statuses(words)).map_err(wrong)?;
    check::texts(&ended, check::Output::Bytes).map_err(wrong)?;
    if code == TIMED_OUT && !ended.message().contains(pid) {
        return Err(wrong(format!("it does not name process {pid}: {}", ended.message())));
    }
    let what = words.iter().take(2).copied().collect::<Vec<_>>().join(" ");
    run.tally.count(&what, &code.to_string());
    Ok(())
}
