//! `mutex` and `rwlock`: a lock that nobody else wants, taken and given back.
//!
//! Both sides keep what leads to the lock (a pointer there, a handle here), and nothing but taking and
//! giving back is timed: what went wrong is asked once at the end.

use commonhold::{Access, Destroy, FormatOptions, Mapping};

use super::{Line, ROUNDS, ground, peers, time};
use crate::{
    failure::{Doing, Failure},
    session::Session,
    workers::broken,
};

const NAME: &str = "bench.locks";
const TIMES: u32 = 200_000;

pub(super) fn mutex(session: &Session) -> Result<Line, Failure> {
    let what = || "bench mutex".to_owned();
    let peer = peers::RobustMutex::new().doing(what)?;
    with_region(session, |mapping| {
        let mutex = mapping.mutex(0).doing(what)?;
        let (ours, theirs) = rounds(|| mutex.lock().is_ok(), || peer.lock_unlock().is_ok())?;
        Ok(Line::new("mutex", "pthread robust mutex", ours, theirs))
    })
}

pub(super) fn rwlock(session: &Session) -> Result<Vec<Line>, Failure> {
    let what = || "bench rwlock".to_owned();
    let peer = peers::RwLock::new().doing(what)?;
    let write = with_region(session, |mapping| {
        let lock = mapping.region_lock().doing(what)?;
        let (ours, theirs) = rounds(|| lock.lock().is_ok(), || peer.write_unlock().is_ok())?;
        Ok(Line::new("rwlock, write", "pthread rwlock, writing", ours, theirs))
    })?;
    let read = with_region(session, |mapping| {
        let lock = mapping.region_lock().doing(what)?;
        let (ours, theirs) = rounds(|| lock.read_lock().is_ok(), || peer.read_unlock().is_ok())?;
        Ok(Line::new("rwlock, read", "pthread rwlock, reading", ours, theirs))
    })?;
    Ok(vec![read, write])
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
    mut ours: impl FnMut() -> bool,
    mut theirs: impl FnMut() -> bool,
) -> Result<(Vec<f64>, Vec<f64>), Failure> {
    let (mut our_times, mut their_times) = (Vec::new(), Vec::new());
    let mut failed = 0_u32;
    for _ in 0..ROUNDS {
        our_times.push(time(TIMES, || failed += u32::from(!ours())));
        their_times.push(time(TIMES, || failed += u32::from(!theirs())));
    }
    if failed > 0 {
        return Err(broken(format!("{failed} locks were not taken")));
    }
    Ok((our_times, their_times))
}
