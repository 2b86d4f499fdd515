//! Scripts about the lock of a region, and about mutexes and events among its bytes.

use commonhold_window::Point;

use crate::crash::{Outcome, scene::Scene};

/// Two processes that map `r`; the first one holds its lock.
pub(super) fn locked(scene: &mut Scene<'_>) -> Outcome<(usize, usize)> {
    let (a, b) = (scene.join()?, scene.join()?);
    scene.play(a, &["create r 4096", "map r", "fill r", "lock r wait"])?;
    scene.play(b, &["map r"])?;
    Ok((a, b))
}

pub(super) fn lock_waits(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = locked(scene)?;
    scene.begin(b, "lock r wait")?;
    scene.reach(b, Point::LockFlagged)?;
    scene.play(a, &["unlock r"])?;
    scene.finish(b)?;
    scene.play(b, &["look r", "unlock r"])?;
    scene.play(a, &["lock r wait", "unlock r"])?;
    scene.leave(&[a, b])
}

pub(super) fn lock_two_waiters(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = locked(scene)?;
    let c = scene.join()?;
    scene.play(c, &["map r"])?;
    for waiter in [b, c] {
        scene.begin(waiter, "lock r wait")?;
        scene.reach(waiter, Point::LockFlagged)?;
    }
    scene.kill(b)?;
    scene.play(a, &["unlock r"])?;
    scene.finish(c)?;
    scene.play(c, &["unlock r"])?;
    scene.leave(&[a, c])
}

pub(super) fn lock_times_out(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = locked(scene)?;
    scene.play(b, &["lock r 0", "lock r 3", "rlock r 3"])?;
    scene.play(a, &["unlock r", "rlock r wait"])?;
    scene.play(b, &["lock r 3", "rlock r wait", "unlock r"])?;
    scene.play(a, &["unlock r"])?;
    scene.leave(&[a, b])
}

pub(super) fn writer_waits(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = locked(scene)?;
    scene.play(a, &["unlock r", "rlock r wait"])?;
    scene.begin(b, "lock r wait")?;
    scene.reach(b, Point::EventFlagged)?;
    scene.play(a, &["unlock r"])?;
    scene.finish(b)?;
    scene.play(b, &["unlock r"])?;
    scene.leave(&[a, b])
}

pub(super) fn reader_waits(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = locked(scene)?;
    scene.begin(b, "rlock r wait")?;
    scene.reach(b, Point::LockFlagged)?;
    scene.play(a, &["unlock r"])?;
    scene.finish(b)?;
    scene.play(b, &["look r", "unlock r"])?;
    scene.leave(&[a, b])
}

pub(super) fn take_over(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = locked(scene)?;
    scene.kill(a)?;
    scene.play(b, &["lock r wait", "look r", "leave r", "lock r wait", "repair r", "leave r"])?;
    scene.play(b, &["lock r wait", "unlock r", "lock r wait", "unlock r"])?;
    scene.leave(&[b])
}

pub(super) fn abandon(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = locked(scene)?;
    let c = scene.join()?;
    scene.play(c, &["map r"])?;
    scene.kill(a)?;
    scene.play(b, &["lock r wait", "abandon r"])?;
    scene.play(c, &["rlock r wait", "unlock r", "lock r wait", "abandon r"])?;
    scene.play(b, &["lock r wait", "giveup r"])?;
    scene.play(c, &["lock r wait", "rlock r wait", "reset r", "lock r wait", "unlock r"])?;
    scene.leave(&[b, c])
}

pub(super) fn reader_at_dead_writer(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = locked(scene)?;
    scene.kill(a)?;
    // It gets no lock, and so has nothing to unlock, unless the data were repaired.
    scene.play(b, &["rlock r wait", "unlock r", "lock r wait", "unlock r", "rlock r wait"])?;
    scene.play(b, &["unlock r"])?;
    scene.leave(&[b])
}

pub(super) fn upgrade_waits(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = (scene.join()?, scene.join()?);
    let c = scene.join()?;
    scene.play(a, &["create r 4096", "map r", "rlock r wait"])?;
    scene.play(b, &["map r"])?;
    scene.play(c, &["map r"])?;
    scene.begin(b, "promote r")?;
    scene.reach(b, Point::EventFlagged)?;
    // A new reader now waits for the process that upgrades, and is woken when that one is done.
    scene.begin(c, "rlock r wait")?;
    scene.reach(c, Point::LockFlagged)?;
    scene.play(a, &["unlock r"])?;
    scene.finish(b)?;
    scene.finish(c)?;
    scene.play(c, &["unlock r", "promote r"])?;
    scene.leave(&[a, b, c])
}

pub(super) fn upgrade_at_dead(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = locked(scene)?;
    scene.kill(a)?;
    scene.play(b, &["promote r", "promote r", "rlock r wait", "unlock r"])?;
    scene.leave(&[b])
}

pub(super) fn mutex(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = (scene.join()?, scene.join()?);
    scene.play(a, &["create r 4096", "map r", "mlock r wait 64"])?;
    scene.play(b, &["map r"])?;
    scene.begin(b, "mlock r wait 64")?;
    scene.reach(b, Point::LockFlagged)?;
    scene.play(a, &["unlock r"])?;
    scene.finish(b)?;
    scene.play(a, &["mlock r wait 128"])?;
    scene.kill(a)?;
    scene.play(b, &["unlock r", "mlock r wait 128", "unlock r"])?;
    scene.leave(&[b])
}

pub(super) fn event(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = (scene.join()?, scene.join()?);
    scene.play(a, &["create r 4096", "map r"])?;
    scene.play(b, &["map r"])?;
    for command in ["signal r 8", "broadcast r 8"] {
        scene.begin(b, "wait r 8")?;
        scene.reach(b, Point::EventFlagged)?;
        scene.play(a, &[command])?;
        let answer = scene.finish(b)?;
        if answer == "timedout" && scene.deaths == 0 {
            return Err(format!("nobody heard {command:?}"));
        }
    }
    scene.leave(&[a, b])
}
