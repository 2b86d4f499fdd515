//! `lock`: runs a command under a region's lock, as flock(1).
//!
//! Invariants: 1. the command runs only while the lock is held: it is killed with this process
//! (see `child`). 2. A lock obtained from a dead owner is never made consistent unless the command
//! was told and ended with 0; else it stays inconsistent for the next, never unrecoverable. 3. A
//! signal ends the waiting, or is forwarded to the command; either way the lock is released.

use std::{
    ffi::OsString,
    time::{Duration, Instant},
};

use commonhold::{
    ErrorKind, Inconsistent, LockError, LockGuard, LockResult, Mapping, Recovered, RegionError,
    Space,
};
use commonhold_console::{
    failure::{Doing, Failure, Kinded, Status},
    session::Session,
    signals::Signals,
};

use super::in_the_way;
use crate::{
    args::{LockArgs, OnDeath},
    child::{self, Gifts},
    orphan::Watch,
};

/// How long to sleep before looking for signals again.
const SLICE: Duration = Duration::from_millis(500);
/// The same, while the region is looked for, or made, which may take as long twice.
const DIRECTORY_SLICE: Duration = Duration::from_millis(200);
/// How long to wait, without a timeout, for a peer that is changing the table of regions.
const HELD_UP: Duration = Duration::from_secs(3);

/// What came of waiting: what was waited for, or a signal.
enum Waited<G> {
    Held(G),
    Signalled(i32),
}

pub(crate) fn lock(session: &Session, args: &LockArgs) -> Result<u8, Failure> {
    let signals = Signals::watch()?;
    let attach = Space::open_or_format_with;
    let Some(space) = session.open_heeding(attach, &signals, args.timeout)? else {
        return Ok(ended_by(signals.last().unwrap_or(0)));
    };
    let _watch = Watch::start(&space);
    let began = Instant::now();
    let mapping = match map_or_create(&space, args, &signals, began)? {
        Waited::Signalled(signal) => return Ok(ended_by(signal)),
        Waited::Held(mapping) => mapping,
    };
    let signals = &signals;
    let job = Job { args, signals, space: &space, mapping: &mapping, began };
    let code = if args.shared { job.shared()? } else { job.exclusive()? };
    mapping.unmap().doing(|| format!("unmap {:?}", args.name))?;
    Ok(code)
}

/// The region, which is made with size 0 if there is none. It stays afterwards: were it destroyed,
/// two commands could run under two locks of one name. One that is being destroyed is waited for like a lock
/// that is held; who holds up everybody, because it is stopped, for a while only.
fn map_or_create(
    space: &Space,
    args: &LockArgs,
    signals: &Signals,
    began: Instant,
) -> Result<Waited<Mapping>, Failure> {
    loop {
        if let Some(signal) = signals.last() {
            return Ok(Waited::Signalled(signal));
        }
        let left = args.timeout.map(|all| all.saturating_sub(began.elapsed()));
        let slice = left.unwrap_or(DIRECTORY_SLICE).min(DIRECTORY_SLICE);
        let error = match space.within(slice).map_or_create(&args.name, 0) {
            Ok(mapping) => return Ok(Waited::Held(mapping)),
            Err(error) => error,
        };
        let patient = match (&error, left) {
            (_, Some(left)) => left > slice,
            (RegionError::Unsettled { .. }, None) => true,
            (_, None) => began.elapsed() < HELD_UP,
        };
        if error.kind() != ErrorKind::TimedOut || !patient {
            return Err(error).doing(|| format!("lock {:?}", args.name));
        }
    }
}

struct Job<'a> {
    args: &'a LockArgs,
    signals: &'a Signals,
    space: &'a Space,
    mapping: &'a Mapping,
    began: Instant,
}

impl<'a> Job<'a> {
    fn exclusive(&self) -> Result<u8, Failure> {
        if self.args.on_death == OnDeath::Fail {
            return match self.wait(|slice| self.mapping.lock_for(slice)) {
                Ok(Waited::Signalled(signal)) => Ok(ended_by(signal)),
                Ok(Waited::Held(guard)) => self.under(guard),
                Err(error) => Err(self.not_locked(error)),
            };
        }
        match self.wait(|slice| self.mapping.lock_recover_for(slice)) {
            Ok(Waited::Signalled(signal)) => Ok(ended_by(signal)),
            Ok(Waited::Held(Recovered::Consistent(guard))) => self.under(guard),
            Ok(Waited::Held(Recovered::Inconsistent(guard))) => self.after_death(guard),
            Err(error) => Err(self.not_locked(error)),
        }
    }

    fn shared(&self) -> Result<u8, Failure> {
        match self.wait(|slice| self.mapping.read_lock_for(slice)) {
            Ok(Waited::Signalled(signal)) => Ok(ended_by(signal)),
            Ok(Waited::Held(guard)) => {
                let code = self.run(false);
                self.release(guard.unlock())?;
                code
            }
            // Only an exclusive owner may repair, and it may do all that a reader may.
            Err(LockError::OwnerDied(_)) if self.args.on_death == OnDeath::Repair => {
                self.exclusive()
            }
            Err(error) => Err(self.not_locked(error)),
        }
    }

    fn under(&self, guard: LockGuard<'a>) -> Result<u8, Failure> {
        guard.stamp();
        let code = self.run(false);
        self.release(guard.unlock())?;
        code
    }

    fn after_death(&self, guard: Inconsistent<LockGuard<'a>>) -> Result<u8, Failure> {
        guard.stamp();
        let code = self.run(true)?;
        if code == 0 {
            self.release(guard.mark_consistent().and_then(LockGuard::unlock))?;
        } else {
            tracing::warn!("the repair did not end with 0: the lock stays inconsistent");
        }
        Ok(code)
    }

    /// Waits in slices, so that a signal is heard in time.
    fn wait<G>(&self, mut attempt: impl FnMut(Duration) -> LockResult<G>) -> LockResult<Waited<G>> {
        loop {
            if let Some(signal) = self.signals.last() {
                return Ok(Waited::Signalled(signal));
            }
            let left = self.args.timeout.map(|all| all.saturating_sub(self.began.elapsed()));
            match attempt(left.unwrap_or(SLICE).min(SLICE)) {
                Err(LockError::TimedOut(_)) if left.is_none_or(|left| !left.is_zero()) => {}
                result => return result.map(Waited::Held),
            }
        }
    }

    fn timed_out(&self) -> Failure {
        let name = &self.args.name;
        let message = format!("lock {name:?}: it was not free in time");
        in_the_way::name_holders(self.space, name, Failure::new(Status::TimedOut, message))
    }

    fn run(&self, owner_died: bool) -> Result<u8, Failure> {
        if let Some(signal) = self.signals.last() {
            return Ok(ended_by(signal));
        }
        let command: &[OsString] = &self.args.command;
        // Under a lock inside a repair, what was said about the outer lock is not true of this one.
        let died = owner_died.then(|| "1".to_owned());
        let environment = vec![("COMMONHOLD_OWNER_DIED", died)];
        let gifts = Gifts { environment, descriptor: None };
        let status = child::run(self.space, command, gifts, self.signals)?;
        Ok(child::code_of(status))
    }

    fn release(&self, result: LockResult<()>) -> Result<(), Failure> {
        result.doing(|| format!("unlock {:?}", self.args.name))
    }

    fn not_locked(&self, error: LockError) -> Failure {
        let name = &self.args.name;
        if matches!(error, LockError::TimedOut(_)) {
            return self.timed_out();
        }
        let advice = match &error {
            LockError::OwnerDied(_) => {
                ". The command was not run. Run one that repairs it with --on-death repair"
                    .to_owned()
            }
            LockError::Unrecoverable(_) => format!(" (`commonhold reset {name}`)"),
            _ => String::new(),
        };
        Failure::new(error.status(), format!("lock {name:?}: {error}{advice}"))
    }
}

fn ended_by(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(1)
}
