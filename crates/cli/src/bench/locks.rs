//! `mutex` and `rwlock`: a lock that nobody else wants, taken and given back.

use commonhold::{Access, Destroy, FormatOptions, LockError, Mapping};

use super::{Line, ROUNDS, ground, peers, time};
use crate::{
    failure::{Doing, Failure},
    session::Session,
};

const NAME: &str = "bench.locks";
const TIMES: u32 = 200_000;

pub(super) fn mutex(session: &Session) -> Result<Line, Failure> {
    let what = || "bench mutex".to_owned();
    let peer = peers::RobustMutex::new().doing(what)?;
    with_region(session, |mapping| {
        let mutex = mapping.mutex(0).doing(what)?;
        let ours = || mutex.lock().doing(what)?.unlock().doing(what);
        let theirs = || peer.lock_unlock().doing(what);
        let (ours, theirs) = rounds(ours, theirs)?;
        Ok(Line::new("mutex", "pthread robust mutex", ours, theirs))
    })
}

pub(super) fn rwlock(session: &Session) -> Result<Line, Failure> {
    let what = || "bench rwlock".to_owned();
    let peer = peers::RwLock::new().doing(what)?;
    with_region(session, |mapping| {
        let ours = || {
            let guard = mapping.read_lock();
            guard.and_then(|guard| guard.unlock().map_err(LockError::from)).doing(what)
        };
        let theirs = || peer.read_unlock().doing(what);
        let (ours, theirs) = rounds(ours, theirs)?;
        Ok(Line::new("rwlock", "pthread rwlock, reading", ours, theirs))
    })
}

fn with_region(
    session: &Session,
    measure: impl FnOnce(&Mapping) -> Result<Line, Failure>,
) -> Result<Line, Failure> {
    let what = || "bench locks".to_owned();
    let (ground, space) = ground(session, &FormatOptions::default())?;
    let mapping = space.create(NAME, 4096).doing(what)?.map(Access::ReadWrite).doing(what)?;
    let line = measure(&mapping)?;
    mapping.unmap().doing(what)?;
    space.destroy(NAME, Destroy::Wait).doing(what)?;
    ground.remove(space)?;
    Ok(line)
}

fn rounds(
    mut ours: impl FnMut() -> Result<(), Failure>,
    mut theirs: impl FnMut() -> Result<(), Failure>,
) -> Result<(Vec<f64>, Vec<f64>), Failure> {
    let (mut our_times, mut their_times) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        our_times.push(time(TIMES, &mut ours)?);
        their_times.push(time(TIMES, &mut theirs)?);
    }
    Ok((our_times, their_times))
}
