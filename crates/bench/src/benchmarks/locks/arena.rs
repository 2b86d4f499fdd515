//! The space and the files with the locks of `bench locks`, and the order in which the locks are measured.
//!
//! Invariants: 1. all locks of one scenario exist from its first round to its last. Each has its own crew of workers.
//! One crew works at a time; the others wait for a request. 2. No file of a run outlives it.

use std::{env, path::PathBuf};

use commonhold::{Destroy, FormatOptions, Space};
use commonhold_console::{
    failure::{Doing, Failure, broken},
    session::Session,
    workers::{PATIENCE, TestSpace},
};

use super::{
    boost::Boost,
    crew::{Crew, Post},
    lock::SIZE,
};
use crate::{
    args::BenchLock,
    benchmarks::{
        folder::Folder,
        line::{Figures, Line},
    },
};

/// The space and the folder with the locks of a run.
#[derive(Debug)]
pub(super) struct Arena {
    run_space: TestSpace,
    space: Space,
    /// A folder in memory; each lock of a peer is a file there.
    folder: Folder,
    /// The program with the locks of Boost, or the reason why there is none.
    boost: Result<Boost, String>,
    crews: u32,
}

impl Arena {
    /// An arena without the locks of Boost.
    pub(super) fn open(session: &Session) -> Result<Self, Failure> {
        let (run_space, space) = TestSpace::prepare(session, "bench", &FormatOptions::default())?;
        let shm = env::var_os("COMMONHOLD_SHM_DIR").map_or("/dev/shm".into(), PathBuf::from);
        let folder = Folder::below(&shm)?;
        let boost = Err("it was not asked for".to_owned());
        Ok(Self { run_space, space, folder, boost, crews: 0 })
    }

    /// Adds the locks of Boost, if their program can be compiled here.
    pub(super) fn with_boost(mut self) -> Self {
        self.boost = Boost::compile();
        if let Err(why) = &self.boost {
            tracing::info!(why, "without Boost.Interprocess");
        }
        self
    }

    pub(super) fn close(self) -> Result<(), Failure> {
        self.run_space.remove(self.space)
    }

    /// A crew for each of these locks; none for a lock that cannot be used here.
    pub(super) fn field(&mut self, locks: &[BenchLock], workers: usize) -> Result<Field, Failure> {
        let crews = locks.iter().map(|&lock| Ok((lock, self.crew(lock, workers)?)));
        Ok(Field(crews.collect::<Result<_, Failure>>()?))
    }

    fn crew(&mut self, lock: BenchLock, workers: usize) -> Result<Option<Crew>, Failure> {
        let program = match (lock.is_boost(), &self.boost) {
            (false, _) => None,
            (true, Ok(boost)) => Some(boost.program().to_owned()),
            (true, Err(_)) => return Ok(None),
        };
        self.crews += 1;
        let name = format!("bench.locks.{}", self.crews);
        let place = if lock.is_ours() {
            self.space.create(&name, SIZE).doing(|| format!("create {name:?}"))?;
            PathBuf::from(name)
        } else {
            self.folder.file(&name)
        };
        let post = Post { lock, program, url: self.run_space.url.clone(), place };
        Crew::start(post, workers).map(Some)
    }

    /// Ends the crews, and destroys our regions.
    pub(super) fn clear(&self, field: Field) -> Result<(), Failure> {
        for (lock, crew) in field.0 {
            let Some(place) = crew.map(Crew::end).transpose()? else { continue };
            if lock.is_ours() {
                let name = place.to_string_lossy();
                let destroyed = self.space.destroy(&name, Destroy::Within(PATIENCE));
                destroyed.doing(|| format!("destroy {name:?}"))?;
            }
        }
        Ok(())
    }

    /// Lines that compare the first lock, which is ours, with each of the others.
    pub(super) fn lines(
        &self,
        name: &str,
        figures: &[(BenchLock, Option<Figures>)],
    ) -> Result<Vec<Line>, Failure> {
        let Some(((_, Some(ours)), peers)) = figures.split_first() else {
            return Err(broken(format!("nothing was measured of {name}")));
        };
        let line = |(lock, peer): &(BenchLock, Option<Figures>)| {
            let line = Line::of(name, lock.label(), ours, peer.as_ref());
            let why = self.boost.as_ref().err().filter(|_| lock.is_boost());
            Line { note: why.cloned(), ..line }
        };
        Ok(peers.iter().map(line).collect())
    }
}

/// The crews of one scenario; none for a lock that cannot be used here.
#[derive(Debug)]
pub(super) struct Field(Vec<(BenchLock, Option<Crew>)>);

impl Field {
    /// Measures each crew once in each round; `measure` gets the number of the round. Each round starts with another
    /// crew, so that no crew is always the first or the last.
    pub(super) fn rounds<T>(
        &mut self,
        rounds: usize,
        mut measure: impl FnMut(usize, &mut Crew) -> Result<T, Failure>,
    ) -> Result<Vec<(BenchLock, Vec<T>)>, Failure> {
        let mut found: Vec<(BenchLock, Vec<T>)> =
            self.0.iter().map(|(lock, _)| (*lock, Vec::with_capacity(rounds))).collect();
        for round in 0..rounds {
            for index in order(round, found.len()) {
                if let (Some((lock, Some(crew))), Some((_, all))) =
                    (self.0.get_mut(index), found.get_mut(index))
                {
                    all.push(measure(round, crew).map_err(|failure| of_lock(failure, *lock))?);
                }
            }
        }
        Ok(found)
    }
}

fn of_lock(failure: Failure, lock: BenchLock) -> Failure {
    let message = failure.message.map(|why| format!("{}: {why}", lock.label()));
    Failure { message, ..failure }
}

/// The order of the crews in a round.
fn order(round: usize, crews: usize) -> impl Iterator<Item = usize> {
    (0..crews).map(move |turn| (round + turn) % crews)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_crew_has_one_turn_in_a_round_and_the_first_one_changes() {
        let orders: Vec<Vec<usize>> = (0..4).map(|round| order(round, 3).collect()).collect();
        assert_eq!(orders, [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]);
    }
}
