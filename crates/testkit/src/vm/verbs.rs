//! The additional commands of scripted processes in the virtual machine tests.
//!
//! - `increments NAME N`: adds 1 to the number at the head of a mapped region, N times, by reading and writing it
//!   under the region's lock. Answers `ok N M`: M times the last owner had died.
//! - `value NAME`: answers `ok` and that number.
//! - `churn SEED N`: does N random creates, maps and destroys; prints `+` after each.
//! - `verify`: maps every region and checks all its bytes, then checks all tables. Answers `ok` and the number of
//!   regions.
//!
//! `churn` fills a region with words that name this region. So a word that is neither zero nor such a word shows that
//! two regions have the same memory, or that the memory was not cleared for the second one.

use std::{process::ExitCode, time::Duration};

use commonhold::{
    Access, CreateOptions, Destroy, ErrorKind, LockResult, Mapping, RegionError, Space, State,
};

use crate::scripted_process::{self, refused, say};

/// How many names all processes use.
const NAMES: u64 = 12;
/// The size of the largest region.
const LARGEST: u64 = 64 << 10;
/// How many mappings a process keeps at the same time.
const KEPT: usize = 3;
/// How long a destroy waits for the mappings of others.
const BRIEFLY: Duration = Duration::from_millis(20);

pub(crate) fn act() -> ExitCode {
    scripted_process::act(|line, space, mapping| {
        let done = match (line.word(0), space, mapping) {
            ("increments", _, Some(mapping)) => {
                increments(mapping, line.number(2)).map_err(refused)
            }
            ("value", _, Some(mapping)) => {
                mapping.get(0).map(|value: u64| value.to_string()).map_err(refused)
            }
            ("churn", Some(space), _) => churn(space, line.number(1), line.number(2)),
            ("verify", Some(space), _) => verify(space),
            _ => return false,
        };
        match done {
            Ok(said) => say('=', &format!("ok {said}")),
            Err(said) => say('=', &said),
        }
        true
    })
}

/// A result, or the answer that says what is wrong.
type Said<T = ()> = Result<T, String>;

fn increments(mapping: &Mapping, count: u64) -> LockResult<String> {
    let lock = mapping.region_lock()?;
    let mut repaired = 0;
    for _ in 0..count {
        let guard = lock.lock_repairing(|_| {
            repaired += 1;
            Ok(())
        })?;
        mapping.set(0, &(mapping.get::<u64>(0)? + 1))?;
        guard.unlock()?;
    }
    Ok(format!("{count} {repaired}"))
}

fn churn(space: &Space, seed: u64, count: u64) -> Said<String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut kept: Vec<Mapping> = vec![];
    for _ in 0..count {
        let name = format!("churn-{}", random.u64(0..NAMES));
        let result = match random.u8(0..10) {
            0..3 => create(space, &name, random.u64(0..=LARGEST)),
            3..7 => space.map(&name, Access::ReadWrite).map(|mapping| kept.push(mapping)),
            7 => space.destroy(&name, Destroy::Within(BRIEFLY)).map(drop),
            _ => space.destroy(&name, Destroy::Deferred).map(drop),
        };
        match result {
            Err(error) if !is_usual(&error) => return Err(refused(error)),
            _ => {}
        }
        if let Some(mapping) = kept.last() {
            look(mapping)?;
            fill(mapping).map_err(refused)?;
        }
        if kept.len() > KEPT {
            let index = random.usize(0..kept.len());
            kept.swap_remove(index).unmap().map_err(refused)?;
        }
        say('+', "");
    }
    for mapping in kept {
        mapping.unmap().map_err(refused)?;
    }
    Ok(count.to_string())
}

fn create(space: &Space, name: &str, size: u64) -> Result<(), RegionError> {
    space.create_with(name, &CreateOptions { size, ..CreateOptions::default() }).map(drop)
}

/// Whether an operation may fail with this error while other processes are at work.
fn is_usual(error: &RegionError) -> bool {
    matches!(error, RegionError::Mapped { .. })
        || matches!(
            error.kind(),
            ErrorKind::NotFound | ErrorKind::Exists | ErrorKind::TimedOut | ErrorKind::NoMemory
        )
}

/// The right word at an index of a region. It names the region and the index, and is never 0.
fn word(mapping: &Mapping, index: u64) -> u64 {
    let key = mapping.key();
    let region = u64::from(key.entry) << 32 | u64::from(key.generation);
    fastrand::Rng::with_seed(region.wrapping_add(index << 16)).u64(1..)
}

/// Writes all words of a region, under its lock. If a process dies here, some words are written, and all of these are
/// right.
fn fill(mapping: &Mapping) -> LockResult<()> {
    let guard = mapping.lock_repairing(|_| Ok(()))?;
    for index in 0..mapping.size() / 8 {
        mapping.set(index * 8, &word(mapping, index))?;
    }
    guard.unlock()
}

/// Checks that each word of a region is the right one, or has not been written yet.
fn look(mapping: &Mapping) -> Said {
    for index in 0..mapping.size() / 8 {
        let found: u64 = mapping.get(index * 8).map_err(refused)?;
        if found != 0 && found != word(mapping, index) {
            return Err(format!(
                "failed: word {index} of {:?} ({:?}, {} bytes) is {found:#x}",
                mapping.name(),
                mapping.key(),
                mapping.size()
            ));
        }
    }
    Ok(())
}

fn verify(space: &Space) -> Said<String> {
    let mut seen = 0;
    for region in space.regions().map_err(refused)? {
        if region.state != State::Active || !region.name.starts_with("churn-") {
            continue;
        }
        match space.map(&region.name, Access::ReadWrite) {
            Err(RegionError::NotFound { .. }) => continue,
            Err(error) => return Err(refused(error)),
            Ok(mapping) => look(&mapping)?,
        }
        seen += 1;
    }
    space.check().map_err(refused)?;
    Ok(seen.to_string())
}
