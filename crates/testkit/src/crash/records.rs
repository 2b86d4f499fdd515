//! In the child: records in the bytes of a region, one of each kind, all at places of their own.

use std::{process::exit, time::Duration};

use commonhold::{
    Barrier, BarrierError, Condvar, LockError, Mapping, Mutex, MutexGuard, Once, OnceGuard, Party,
    RegionError, Semaphore, Turn, records,
};

use crate::{
    crash::alone::ALONE,
    stage::{Line, answer, refused, say},
};

records! {
    /// One of each.
    struct Family<'a> {
        semaphore: Semaphore<'a, 1>,
        once: Once<'a, u64>,
        barrier: Barrier<'a, 2>,
        changed: Condvar<'a>,
        changes: Mutex<'a, u64>,
    }
}

/// Longest wait for a notification.
const PATIENCE: Duration = Duration::from_secs(5);

/// Does what the line says, if it is about a record.
pub(crate) fn obey(line: &Line, mapping: &Mapping) -> bool {
    let verb = line.word(0);
    const VERBS: [&str; 9] =
        ["ready", "permit", "give", "once", "join", "cycle", "await", "notify", "habit"];
    if !VERBS.contains(&verb) {
        return false;
    }
    let family = match mapping.open::<Family<'_>>(0) {
        Ok(family) => family,
        Err(error) => {
            say('=', &refused(&error));
            return true;
        }
    };
    match verb {
        "ready" => say('=', "ok"),
        "permit" => permit(line, family.semaphore),
        "give" => match family.semaphore.give() {
            Err(RegionError::NothingSpent) => say('=', "nothingspent"),
            given => answer(&given),
        },
        "once" => once(line, family.once),
        "join" => join(mapping.name(), family.barrier),
        "cycle" => say('=', &cycle(family.barrier)),
        "await" => say('=', &wait(line, &family)),
        "habit" => say('=', &habit(&family)),
        _ => say('=', &notify(&family)),
    }
    true
}

/// The next line that is about what is held in `name`, if it is one of these.
fn next(name: &str, verbs: &[&str]) -> Line {
    loop {
        let Some(line) = Line::read() else { exit(3) };
        if line.word(1) == name && verbs.contains(&line.word(0)) {
            return line;
        }
        say('=', "skip");
    }
}

fn why<G>(error: &LockError<G>) -> String {
    match error {
        LockError::TimedOut => "timedout".into(),
        LockError::Deadlock => "deadlock".into(),
        LockError::Region(error) => refused(error),
        _ => "failed".into(),
    }
}

/// `permit NAME wait|0`, then `unlock`, `leave` or `spend`.
fn permit(line: &Line, semaphore: Semaphore<'_, 1>) {
    let asked = if line.word(2) == "wait" { semaphore.acquire() } else { semaphore.try_acquire() };
    let (said, permit) = match asked {
        Ok(permit) => ("ok", permit),
        Err(LockError::OwnerDied(permit)) => ("ownerdied", permit),
        Err(error) => return say('=', &why(&error)),
    };
    say('=', said);
    answer(&match next(line.word(1), &["unlock", "leave", "spend"]).word(0) {
        "spend" => permit.spend(),
        "leave" => permit.leave(),
        _ => permit.release(),
    });
}

/// `once NAME wait|0`, then `complete` or `leave`.
fn once(line: &Line, once: Once<'_, u64>) {
    let asked = if line.word(2) == "wait" { once.begin() } else { once.try_begin() };
    let (said, guard): (_, OnceGuard<'_, u64>) = match asked {
        Ok(Turn::Done(7)) => return say('=', "done"),
        Ok(Turn::Done(_)) => return say('=', "failed: done, and not made"),
        Ok(Turn::Mine(guard)) => ("ok", guard),
        Err(LockError::OwnerDied(guard)) => ("ownerdied", guard),
        Err(error) => return say('=', &why(&error)),
    };
    say('=', said);
    match next(line.word(1), &["complete", "leave"]).word(0) {
        "complete" => answer(&guard.complete(&7)),
        _ => {
            drop(guard);
            say('=', "ok");
        }
    }
}

/// `join NAME`, then `arrive` and `pass NAME wait|0` as often as one likes, then `part`.
fn join(name: &str, barrier: Barrier<'_, 2>) {
    let (said, party) = match barrier.join() {
        Ok(party) => ("ok", party),
        Err(LockError::OwnerDied(party)) => ("ownerdied", party),
        Err(error) => return say('=', &why(&error)),
    };
    say('=', said);
    loop {
        let line = next(name, &["arrive", "pass", "part"]);
        match line.word(0) {
            "arrive" => answer(&party.arrive()),
            "pass" => say('=', &pass(&party, line.word(2))),
            _ => return answer(&party.leave()),
        }
    }
}

fn pass(party: &Party<'_>, how: &str) -> String {
    match if how == "wait" { party.wait() } else { party.try_wait() } {
        Ok(_) => "ok".into(),
        Err(BarrierError::PartyDied) => "partydied".into(),
        Err(BarrierError::TimedOut) => "timedout".into(),
        Err(error) => format!("failed: {error}"),
    }
}

/// Takes both places, whatever has become of them, and passes two phases at least.
fn cycle(barrier: Barrier<'_, 2>) -> String {
    let mut parties = vec![];
    for _ in 0..2 {
        match barrier.join() {
            Ok(party) | Err(LockError::OwnerDied(party)) => parties.push(party),
            Err(error) => return why(&error),
        }
    }
    let before = barrier.phase();
    for _ in 0..4 {
        for party in &parties {
            if let Err(error) = party.arrive() {
                return refused(&error);
            }
        }
        // One of them may have arrived in the next phase by now.
        parties.iter().for_each(|party| drop(party.try_wait()));
    }
    match barrier.phase() - before {
        0 | 1 => "failed: the barrier is stuck".into(),
        _ => "ok".into(),
    }
}

type Changes<'a> = MutexGuard<'a, u64>;

/// What was told of the mutex: `ok`, or once `ownerdied`.
type Told = &'static str;

fn repaired<'a>(
    locked: Result<Changes<'a>, LockError<Changes<'a>>>,
) -> Result<(Changes<'a>, Told), String> {
    match locked {
        Ok(guard) => Ok((guard, "ok")),
        Err(LockError::OwnerDied(guard)) => match guard.mark_consistent() {
            Ok(()) => Ok((guard, "ownerdied")),
            Err(error) => Err(refused(&error)),
        },
        Err(error) => Err(why(&error)),
    }
}

/// `await NAME wait|0`: waits until something has changed, or somebody has died.
fn wait(line: &Line, family: &Family<'_>) -> String {
    let time = if line.word(2) == "wait" { PATIENCE } else { Duration::ZERO };
    let waited = repaired(family.changes.lock()).and_then(|(guard, told)| {
        let again = family.changed.wait_for(guard, time).map(|(guard, _)| guard);
        let (guard, told_again) = repaired(again)?;
        guard.unlock().map_err(|error| refused(&error))?;
        Ok(if told == "ok" { told_again } else { told })
    });
    waited.map_or_else(|error| error, Into::into)
}

/// `notify NAME`: changes something, and says so.
fn notify(family: &Family<'_>) -> String {
    let changed = repaired(family.changes.lock()).and_then(|(guard, told)| {
        let changed = guard.update(|count| *count += 1);
        let notified = changed.and_then(|()| family.changed.notify_one());
        notified.and_then(|()| guard.unlock()).map_err(|error| refused(&error))?;
        Ok(told)
    });
    changed.map_or_else(|error| error, Into::into)
}

/// `habit NAME`: changes it alone, until the mutex is biased.
fn habit(family: &Family<'_>) -> String {
    let mut told = "ok";
    for _ in 0..ALONE {
        let done = repaired(family.changes.lock()).and_then(|(guard, said)| {
            let changed = guard.update(|count| *count += 1);
            changed.and_then(|()| guard.unlock()).map_err(|error| refused(&error))?;
            Ok(said)
        });
        match done {
            Ok("ok") => {}
            Ok(said) => told = said,
            Err(error) => return error,
        }
    }
    told.into()
}
