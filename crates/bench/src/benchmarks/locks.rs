//! `locks`: our locks beside those of POSIX, std, parking_lot and Boost, in one run; `mutex`, `rwlock` and
//! `recovery` are parts of it.
//!
//! Owns which locks take part in which scenario. Each scenario has its own file. The locks are taken by
//! [worker](worker) processes, which all run the same loops (`protocol`, `worker`, and `boost.cpp` for Boost).
//!
//! Every lock protects the same counters, which its holder reads and writes by plain loads and stores. Ours are
//! reached as users reach them: those of the mutex through its guard, those of the region's lock as `Value`s that were
//! found once. (Until format version 4 ours were reached by `Mapping::get` and `set`, which look everything up each
//! time. That costs 7 to 14 ns, three times in each turn, and the peers did not pay it: the benchmark compared the
//! access as much as the lock.) In the uncontended scenarios the counter of every lock lies in the worker's own
//! memory.

mod arena;
mod boost;
mod contention;
mod crew;
mod hand_over;
mod lock;
mod protocol;
mod read_mostly;
mod recovery;
mod resident;
mod uncontended;
mod worker;

use std::time::Duration;

use commonhold_console::{failure::Failure, session::Session};

use super::line::Line;
use crate::args::{BenchArgs, BenchLock as L};

use arena::Arena;
use protocol::How;

pub(super) use lock::{Counters, Found, Lock, TURN};
pub(crate) use worker::worker;

/// How often all locks of a scenario are measured in turn.
const ROUNDS: usize = 5;

/// How many holders are killed by default. Fewer with much memory: a holder needs time to touch it.
const KILLS: u32 = 50;
const KILLS_BY_SIZE: u32 = 25;

/// How long each lock is measured in each scenario, over all rounds.
#[derive(Debug, Clone, Copy)]
struct Span(Duration);

impl Span {
    fn new(args: &BenchArgs) -> Self {
        Self(Duration::from_secs_f64(args.seconds))
    }

    /// The same in one of the rounds.
    fn slice(self) -> Duration {
        self.0.div_f64(5.0)
    }
}

const MUTEXES: [L; 6] = [
    L::OurMutex,
    L::PthreadPlain,
    L::PthreadRobust,
    L::StdMutex,
    L::ParkingLotMutex,
    L::BoostMutex,
];
const RWLOCKS: [L; 5] =
    [L::OurRegion, L::PthreadRwlock, L::StdRwlock, L::ParkingLotRwlock, L::BoostSharable];
const SHARED_MUTEXES: [L; 4] = [L::OurMutex, L::PthreadPlain, L::PthreadRobust, L::BoostMutex];
const SHARED_RWLOCKS: [L; 3] = [L::OurRegion, L::PthreadRwlock, L::BoostSharable];
const TURNS: [L; 4] = [L::OurMutex, L::PthreadPlain, L::Futex, L::BoostMutex];
const ROBUST: [L; 2] = [L::OurMutex, L::PthreadRobust];

pub(super) fn locks(session: &Session, args: &BenchArgs) -> Result<Vec<Line>, Failure> {
    let span = Span::new(args);
    let mut arena = Arena::open(session)?.with_boost();
    let arena_ = &mut arena;
    let solo = uncontended::SPAN.min(span.slice());
    let mut lines = Vec::new();
    lines.extend(uncontended::measure(arena_, "uncontended mutex", How::Write, &MUTEXES, solo)?);
    lines.extend(uncontended::measure(arena_, "uncontended write", How::Write, &RWLOCKS, solo)?);
    lines.extend(uncontended::measure(arena_, "uncontended read", How::Read, &RWLOCKS, solo)?);
    lines.extend(contention::measure(arena_, &SHARED_MUTEXES, span)?);
    lines.extend(read_mostly::measure(arena_, &SHARED_RWLOCKS, span)?);
    lines.extend(hand_over::measure(arena_, &TURNS, span)?);
    lines.extend(recovery::measure(arena_, &ROBUST, args.kills.unwrap_or(KILLS))?);
    arena.close()?;
    Ok(lines)
}

/// Uncontended, against the peer that is most similar.
pub(super) fn mutex(session: &Session) -> Result<Vec<Line>, Failure> {
    part(session, |arena| {
        uncontended::measure(arena, "mutex", How::Write, &ROBUST, uncontended::SPAN)
    })
}

/// Uncontended, against the peer that is most similar.
pub(super) fn rwlock(session: &Session) -> Result<Vec<Line>, Failure> {
    let locks = [L::OurRegion, L::PthreadRwlock];
    part(session, |arena| {
        let span = uncontended::SPAN;
        let mut lines = uncontended::measure(arena, "rwlock, read", How::Read, &locks, span)?;
        lines.extend(uncontended::measure(arena, "rwlock, write", How::Write, &locks, span)?);
        Ok(lines)
    })
}

pub(super) fn recovery(session: &Session, args: &BenchArgs) -> Result<Vec<Line>, Failure> {
    part(session, |arena| {
        let mut lines = recovery::measure(arena, &ROBUST, args.kills.unwrap_or(KILLS))?;
        let kills = args.kills.unwrap_or(KILLS_BY_SIZE);
        lines.extend(resident::measure(arena, &ROBUST, &args.resident, kills)?);
        Ok(lines)
    })
}

fn part(
    session: &Session,
    measure: impl FnOnce(&mut Arena) -> Result<Vec<Line>, Failure>,
) -> Result<Vec<Line>, Failure> {
    let mut arena = Arena::open(session)?;
    let lines = measure(&mut arena)?;
    arena.close()?;
    Ok(lines)
}
