//! Every command with a limited number of pages of memory left: none at first, then more, until it succeeds.
//!
//! Each command must succeed or end with the status of *no memory*, and never by a signal. Afterwards, with memory
//! again, everything must be whole and usable.

use std::{fs, path::Path};

use fastrand::Rng;

use super::{
    Finding, Run,
    arena::Arena,
    check::{self, typed},
    child::{self, FOR_EVER},
    commands::{COMMANDS, Scene, TestSpace, Words, statuses},
};

/// Bytes of the file system that is filled.
const ROOM: u64 = 8 << 20;
/// More pages than any command needs.
const PAGES: u64 = 80;
/// How often a command must succeed before it is given no more.
const ENOUGH: u64 = 2;
/// The status of a command that lacks memory.
const NO_MEMORY: i32 = 7;

pub(super) fn run(run: &mut Run) -> Finding {
    let logs = run.arena.path().join("logs");
    fs::create_dir_all(&logs).map_err(|error| error.to_string())?;
    let full = Arena::mount(&run.arena.path().join("full"), ROOM)?;
    let mut cells: Vec<(Words, Scene)> =
        Scene::ALL.iter().flat_map(|scene| COMMANDS.iter().map(|words| (*words, *scene))).collect();
    Rng::with_seed(run.seed).shuffle(&mut cells);
    for (words, scene) in cells.into_iter().cycle() {
        let mut successes = 0;
        for pages in 0..PAGES {
            if !run.goes_on() {
                return Ok(());
            }
            if successes >= ENOUGH {
                break;
            }
            run.rounds += 1;
            let what = words.iter().take(2).copied().collect::<Vec<_>>().join(" ");
            match with_pages(run, &full, scene, words, pages, &logs) {
                Ok(code) => {
                    successes += u64::from(code != NO_MEMORY);
                    run.tally.count(&what, &code.to_string());
                }
                Err(why) => run.finds(run.seed, &format!("with {pages} pages: {why}")),
            }
        }
    }
    Ok(())
}

fn with_pages(
    run: &Run,
    full: &Arena,
    scene: Scene,
    words: Words,
    pages: u64,
    logs: &Path,
) -> Finding<i32> {
    full.empty();
    let test_space = TestSpace::make(&full.path().join("test_space"), scene)?;
    full.leave_pages(pages)?;
    let mut command = test_space.command(&run.program, words);
    let ended = child::run(&mut command, logs, FOR_EVER)?;
    let wrong = |why: String| format!("{}: {why}", typed(&command));
    let code = check::status(&ended, statuses(words)).map_err(wrong)?;
    check::texts(&ended, check::Output::Bytes).map_err(wrong)?;
    if ![0, NO_MEMORY].contains(&code) {
        return Err(wrong(format!("it ends with {code}: {}", ended.message())));
    }
    full.empty();
    test_space.is_whole().map_err(wrong)?;
    Ok(code)
}
