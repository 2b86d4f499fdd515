//! A worker's directory operations: create, map, unmap, destroy and resize, on a few names that all workers use. Each
//! operation is logged before and after the call.
//!
//! Invariant: what a worker writes into a region depends on the region's key only. So a byte that is neither zero nor
//! made from the region's key comes from another region: two regions have the same memory.

use std::{io, time::Duration};

use commonhold::{
    Access, CreateOptions, Destroy, ErrorKind, Mapping, RegionError, RegionKey, Space,
};
use commonhold_console::{
    failure::{Doing, Failure, Kinded},
    random::{Random, mix},
};

use super::{
    history::{Outcome, What},
    log::Log,
};

/// How many mappings a worker has at most.
const MOST_MAPPINGS: usize = 3;
/// Reserve of every region.
const RESERVE: u64 = 64 << 10;

/// The name of a region that all workers use.
pub(super) fn name_of(index: u8) -> String {
    format!("torture-{index}")
}

/// How many names there are for this many workers.
pub(super) fn names_for(peers: u64) -> u8 {
    u8::try_from(4 + peers / 4).unwrap_or(u8::MAX).min(64)
}

#[derive(Debug)]
pub(super) struct Directory<'a> {
    pub(super) space: &'a Space,
    pub(super) names: u8,
    pub(super) mappings: Vec<(u8, Mapping)>,
}

impl Directory<'_> {
    /// Does one random operation.
    pub(super) fn step(&mut self, random: &mut Random, log: &mut Log) -> Result<(), Failure> {
        let name = u8::try_from(random.below(u64::from(self.names))).unwrap_or(0);
        let text = name_of(name);
        match random.below(100) {
            0..25 => self.create(name, &text, random, log),
            25..50 => self.map(name, &text, random, log),
            50..70 if !self.mappings.is_empty() => self.unmap(random, log),
            70..85 => {
                let timeout = Duration::from_micros(random.below(3_000));
                write(log, What::Destroy, name, || {
                    self.space.destroy(&text, Destroy::Within(timeout))
                })
            }
            85..92 => write(log, What::DestroyDeferred, name, || {
                self.space.destroy(&text, Destroy::Deferred)
            }),
            92..96 => {
                let size = random.below(RESERVE + 1);
                write(log, What::Resize, name, || {
                    self.space.resize(&text, size).map(|()| RegionKey { entry: 0, generation: 0 })
                })
            }
            _ => self.check_one(random, log),
        }
    }

    /// Unmaps all regions at the end.
    pub(super) fn unmap_all(&mut self, log: &mut Log) -> Result<(), Failure> {
        let mut random = Random::new(0);
        while !self.mappings.is_empty() {
            self.unmap(&mut random, log)?;
        }
        Ok(())
    }

    fn create(
        &self,
        name: u8,
        text: &str,
        random: &mut Random,
        log: &mut Log,
    ) -> Result<(), Failure> {
        let options = CreateOptions {
            size: random.below(RESERVE / 2),
            reserve: Some(RESERVE),
            lazy: random.below(2) == 0,
            ..CreateOptions::default()
        };
        write(log, What::Create, name, || {
            self.space.create_with(text, &options).map(|region| region.key())
        })
    }

    fn map(
        &mut self,
        name: u8,
        text: &str,
        random: &mut Random,
        log: &mut Log,
    ) -> Result<(), Failure> {
        if self.mappings.len() >= MOST_MAPPINGS {
            return self.unmap(random, log);
        }
        let mut got = None;
        write(log, What::Map, name, || {
            let mapping = self.space.map(text, Access::ReadWrite)?;
            Ok(got.insert(mapping).key())
        })?;
        if let Some(mapping) = got {
            check_and_mark(&mapping, random, log)?;
            self.mappings.push((name, mapping));
        }
        Ok(())
    }

    fn unmap(&mut self, random: &mut Random, log: &mut Log) -> Result<(), Failure> {
        let count = u64::try_from(self.mappings.len()).unwrap_or(0);
        let index = usize::try_from(random.below(count)).unwrap_or(0);
        let (name, mapping) = self.mappings.swap_remove(index);
        check_and_mark(&mapping, random, log)?;
        let key = mapping.key();
        write(log, What::Unmap(key), name, || mapping.unmap().map(|()| key))
    }

    fn check_one(&self, random: &mut Random, log: &Log) -> Result<(), Failure> {
        match self.mappings.first() {
            Some((_, mapping)) => check_and_mark(mapping, random, log),
            None => Ok(()),
        }
    }
}

/// Does an operation between two log records. Errors that may happen count as outcomes.
fn write(
    log: &mut Log,
    what: What,
    name: u8,
    call: impl FnOnce() -> Result<RegionKey, RegionError>,
) -> Result<(), Failure> {
    let logging = || "write the log".to_owned();
    log.start(what, name).doing(logging)?;
    let outcome = match call() {
        Ok(key) => Outcome::Done(key),
        Err(error) => match error.kind() {
            ErrorKind::Exists => Outcome::Exists,
            ErrorKind::NotFound => Outcome::NotFound,
            ErrorKind::InUse => Outcome::Mapped,
            ErrorKind::TimedOut => Outcome::TimedOut,
            ErrorKind::NoMemory => Outcome::Refused,
            // All regions have the same reserve, so a resize never meets another one.
            _ => {
                let text = format!("{what:?} {}: {error}", name_of(name));
                log.finding(&text).doing(logging)?;
                return Err(Failure::new(Kinded::status(&error), text));
            }
        },
    };
    log.end(outcome).doing(logging)
}

/// Checks a few words of a mapping, then writes the region's own pattern there.
fn check_and_mark(mapping: &Mapping, random: &mut Random, log: &Log) -> Result<(), Failure> {
    let words = mapping.size() / 8;
    for _ in 0..words.min(4) {
        let word = random.below(words);
        let own = pattern(mapping.key(), word);
        let what = || format!("look at {}", mapping.name());
        let seen: u64 = mapping.get(8 * word).doing(what)?;
        if !is_zero_or(seen, own) {
            let logged: io::Result<()> = log.finding(&format!(
                "{} {:?}: word {word} is {seen:#x}, neither 0 nor {own:#x}",
                mapping.name(),
                mapping.key()
            ));
            logged.doing(|| "write the log".to_owned())?;
        }
        mapping.set(8 * word, &own).doing(what)?;
    }
    Ok(())
}

fn pattern(key: RegionKey, word: u64) -> u64 {
    mix(u64::from(key.entry) << 32 | u64::from(key.generation)).wrapping_add(mix(word))
}

/// Compares byte by byte, since a word may be seen half written.
fn is_zero_or(seen: u64, own: u64) -> bool {
    seen.to_le_bytes().into_iter().zip(own.to_le_bytes()).all(|(s, o)| s == 0 || s == o)
}
