//! Runs in the child: uses records in the bytes of a region, one of each kind, at fixed offsets.

use std::{
    process::exit,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use commonhold::{
    Barrier, Condvar, LockResult, Mapping, Mutex, OnceLock, Participant, Permit, Recovered,
    Semaphore, Turn, records,
};

use crate::{
    crash::alone::ALONE,
    scripted_process::{Line, answer, give_back, owner_died_if, refused, say},
};

records! {
    /// One record of each kind.
    struct Family {
        semaphore: Semaphore<1>,
        once: OnceLock<u64>,
        barrier: Barrier<2>,
        changed: Condvar,
        changes: Mutex<u64>,
    }
}

/// Longest wait for a notification.
const PATIENCE: Duration = Duration::from_secs(5);

/// Executes the line if it is about a record. Returns whether it was.
pub(crate) fn obey(line: &Line, mapping: &Mapping) -> bool {
    let verb = line.word(0);
    const VERBS: [&str; 9] =
        ["ready", "permit", "give", "once", "join", "cycle", "await", "notify", "habit"];
    if !VERBS.contains(&verb) {
        return false;
    }
    let family = match mapping.open::<Family>(0) {
        Ok(family) => family,
        Err(error) => {
            say('=', &refused(error));
            return true;
        }
    };
    match verb {
        "ready" => say('=', "ok"),
        "permit" => permit(line, &family.semaphore),
        "give" => answer(family.semaphore.give()),
        "once" => once(line, &family.once),
        "join" => join(mapping.name(), &family.barrier),
        "cycle" => say('=', &cycle(&family.barrier).unwrap_or_else(refused)),
        "await" => change(family, |family, changes| wait(line, family, changes)),
        "habit" => change(family, habit),
        _ => change(family, notify),
    }
    true
}

/// Reads the next line, which must be one of these verbs for the region `name`.
fn next(name: &str, verbs: &[&str]) -> Line {
    loop {
        let Some(line) = Line::read() else { exit(3) };
        if line.word(1) == name && verbs.contains(&line.word(0)) {
            return line;
        }
        say('=', "skip");
    }
}

/// Executes `permit NAME wait|0`, then `unlock`, `leave` or `spend`.
fn permit(line: &Line, semaphore: &Semaphore<1>) {
    let permit = if line.word(2) == "wait" {
        owner_died_if(semaphore.acquire().map(Some), || semaphore.acquire_recover())
    } else {
        owner_died_if(semaphore.try_acquire(), || semaphore.acquire_recover_for(Duration::ZERO))
    };
    let permit = match permit {
        Ok(permit) => permit,
        Err(said) => return say('=', &said),
    };
    say('=', if matches!(permit, Recovered::Inconsistent(_)) { "ownerdied" } else { "ok" });
    match next(line.word(1), &["unlock", "leave", "spend"]).word(0) {
        "spend" => answer(give_back(permit, "unlock", Permit::spend, Permit::spend)),
        how => answer(give_back(permit, how, Permit::release, Permit::leave_inconsistent)),
    }
}

/// Executes `once NAME wait|0`, then `complete` or `leave`.
fn once(line: &Line, once: &OnceLock<u64>) {
    let asked = if line.word(2) == "wait" { once.begin().map(Some) } else { once.try_begin() };
    let guard = match asked {
        Ok(Some(Turn::Done(7))) => return say('=', "done"),
        Ok(Some(Turn::Done(_))) => return say('=', "failed: done, and not made"),
        Ok(Some(Turn::Mine(guard))) => guard,
        Ok(None) => return say('=', "timedout"),
        Err(error) => return say('=', &refused(error)),
    };
    say('=', if guard.begun_before() { "ownerdied" } else { "ok" });
    match next(line.word(1), &["complete", "leave"]).word(0) {
        "complete" => answer(guard.complete(&7)),
        _ => {
            drop(guard);
            say('=', "ok");
        }
    }
}

/// Executes `join NAME`, then any number of `arrive` and `pass NAME wait|0`, then `part`.
fn join(name: &str, barrier: &Barrier<2>) {
    let participant = match barrier.join() {
        Ok(participant) => participant,
        Err(error) => return say('=', &refused(error)),
    };
    say('=', if participant.replaces().is_some() { "ownerdied" } else { "ok" });
    loop {
        let line = next(name, &["arrive", "pass", "part"]);
        match line.word(0) {
            "arrive" => answer(participant.arrive()),
            "pass" => say('=', &pass(&participant, line.word(2))),
            _ => return answer(participant.leave()),
        }
    }
}

fn pass(participant: &Participant<'_>, how: &str) -> String {
    match if how == "wait" { participant.wait().map(Some) } else { participant.try_wait() } {
        Ok(Some(_)) => "ok".into(),
        Ok(None) => "timedout".into(),
        Err(error) => refused(error),
    }
}

/// Joins both slots, in whatever state they are, and passes at least two phases.
fn cycle(barrier: &Barrier<2>) -> LockResult<String> {
    let participants = [barrier.join()?, barrier.join()?];
    let before = barrier.phase();
    for _ in 0..4 {
        for participant in &participants {
            participant.arrive()?;
        }
        // One of the participants may have arrived in the next phase already.
        participants.iter().for_each(|participant| drop(participant.try_wait()));
    }
    Ok(match barrier.phase() - before {
        0 | 1 => "failed: the barrier is stuck".into(),
        _ => "ok".into(),
    })
}

/// Runs `act`, which uses the condition and its mutex, and answers whether an owner of the mutex had died. Each way of
/// taking the mutex repairs it.
fn change(family: Family, act: impl FnOnce(&Family, &Mutex<u64>) -> LockResult<()>) {
    let told = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&told);
    let changes = family.changes.clone().repaired_by(move |_| {
        tell.store(true, Ordering::Relaxed);
        Ok(())
    });
    match act(&family, &changes) {
        Ok(()) if told.load(Ordering::Relaxed) => say('=', "ownerdied"),
        done => answer(done),
    }
}

/// Executes `await NAME wait|0`: waits until the value has changed, or an owner has died.
fn wait(line: &Line, family: &Family, changes: &Mutex<u64>) -> LockResult<()> {
    let time = if line.word(2) == "wait" { PATIENCE } else { Duration::ZERO };
    let (guard, _) = family.changed.wait_for(changes.lock()?, time)?;
    guard.unlock()
}

/// Executes `notify NAME`: changes the value, and notifies the waiters.
fn notify(family: &Family, changes: &Mutex<u64>) -> LockResult<()> {
    let guard = changes.lock()?;
    guard.with_mut(|count| *count += 1);
    family.changed.notify_one()?;
    guard.unlock()
}

/// Executes `habit NAME`: changes the value alone, until the mutex is biased.
fn habit(_: &Family, changes: &Mutex<u64>) -> LockResult<()> {
    for _ in 0..ALONE {
        let guard = changes.lock()?;
        guard.with_mut(|count| *count += 1);
        guard.unlock()?;
    }
    Ok(())
}
