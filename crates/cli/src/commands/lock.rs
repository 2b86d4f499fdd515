//! `lock`: runs a command under a region's lock, like flock(1).
//!
//! Invariants: 1. the command runs only while the lock is held: it is killed with this process (see `child`).
//! 2. A lock taken over from a dead owner is made consistent only if the command was told so and exited with 0;
//! otherwise it stays inconsistent for the next owner, and is never unrecoverable. 3. A signal ends the waiting, or
//! is forwarded to the command; the lock is released in both cases.

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

/// How long one attempt at the lock lasts before signals are checked again.
const SLICE: Duration = Duration::from_millis(500);
/// The same for an attempt to map or create the region, which may take twice as long.
const DIRECTORY_SLICE: Duration = Duration::from_millis(200);
/// How long to wait, if there is no --timeout, for a peer that holds the directory mutex.
const HELD_UP: Duration = Duration::from_secs(3);

/// How waiting ended: with the thing waited for, or with a signal.
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

/// Maps the region; creates it with size 0 if it does not exist. The region stays afterwards: if it were destroyed,
/// two commands could run under two locks of the same name.
///
/// If the region is being destroyed, this waits for it as for a held lock. For a peer that holds the directory mutex
/// (it may be stopped), it waits [`HELD_UP`] only.
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
            // Only an exclusive owner may repair, and it may do everything a reader may.
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

    /// Waits in slices, so that a signal is noticed soon.
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
        // The variable may come from an outer `commonhold lock` that runs a repair: it does not hold for this lock.
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
