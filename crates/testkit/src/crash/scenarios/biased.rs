//! Scripts in which a mutex, or the lock of a region, is biased to one of the processes.

use commonhold_window::Point;

use super::records::records;
use crate::crash::{Outcome, scene::Scene};

/// Two processes that map `r`, with a mutex at 64 that is biased to the first.
fn biased(scene: &mut Scene<'_>) -> Outcome<(usize, usize)> {
    let (a, b) = (scene.join()?, scene.join()?);
    scene.play(a, &["create r 4096", "map r"])?;
    scene.play(b, &["map r"])?;
    scene.play(a, &["alone r - 64"])?;
    Ok((a, b))
}

pub(super) fn alone(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = biased(scene)?;
    scene.play(a, &["mlock r wait 64", "unlock r"])?;
    scene.play(b, &["mlock r wait 64", "unlock r"])?;
    // The first process still tries its old bias, finds that it is gone, and takes the mutex as usual. Then the mutex
    // becomes biased to the second.
    scene.play(a, &["mlock r wait 64", "unlock r"])?;
    scene.play(b, &["alone r - 64", "mlock r wait 64"])?;
    scene.play(a, &["mlock r 0 64"])?;
    scene.play(b, &["unlock r"])?;
    scene.play(a, &["mlock r 0 64", "unlock r"])?;
    scene.leave(&[a, b])
}

pub(super) fn waits(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = biased(scene)?;
    scene.play(a, &["mlock r wait 64"])?;
    scene.begin(b, "mlock r wait 64")?;
    scene.reach(b, Point::LockFlagged)?;
    scene.play(a, &["unlock r"])?;
    scene.finish(b)?;
    scene.play(b, &["unlock r"])?;
    scene.play(a, &["mlock r wait 64", "unlock r"])?;
    scene.leave(&[a, b])
}

pub(super) fn dead(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = biased(scene)?;
    scene.play(a, &["mlock r wait 64"])?;
    // It revokes the bias, and does not wait.
    scene.play(b, &["mlock r 0 64"])?;
    scene.kill(a)?;
    scene
        .play(b, &["mlock r wait 64", "leave r", "alone r - 64", "mlock r wait 64", "unlock r"])?;
    scene.leave(&[b])
}

pub(super) fn reaped(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = biased(scene)?;
    let c = scene.join()?;
    scene.play(c, &["map r", "alone r - 128"])?;
    scene.play(a, &["mlock r wait 64"])?;
    for who in [c, a] {
        scene.kill(who)?;
        scene.play(b, &["reap"])?;
    }
    scene.play(b, &["mlock r wait 128", "unlock r", "mlock r wait 64", "unlock r"])?;
    scene.leave(&[b])
}

pub(super) fn left(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = biased(scene)?;
    scene.play(a, &["mlock r wait 64"])?;
    scene.begin(b, "mlock r wait 64")?;
    scene.reach(b, Point::LockFlagged)?;
    scene.play(a, &["leave r"])?;
    scene.finish(b)?;
    scene.play(b, &["unlock r"])?;
    scene.leave(&[a, b])
}

pub(super) fn forgotten(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = biased(scene)?;
    scene.play(a, &["mlock r wait 64", "forget r"])?;
    scene.leave(&[a])?;
    scene.play(b, &["mlock r wait 64", "unlock r"])?;
    scene.leave(&[b])
}

pub(super) fn destroyed(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = biased(scene)?;
    scene.play(a, &["mlock r wait 64"])?;
    scene.play(b, &["unmap r", "destroy r deferred"])?;
    scene.kill(a)?;
    scene.play(b, &["reap", "close"])
}

pub(super) fn condition(scene: &mut Scene<'_>) -> Outcome {
    let Some((a, b)) = records(scene)? else { return Ok(()) };
    scene.play(b, &["habit r"])?;
    scene.begin(b, "await r wait")?;
    scene.reach(b, Point::EventFlagged)?;
    scene.play(a, &["notify r"])?;
    scene.finish(b)?;
    scene.leave(&[a, b])
}

pub(super) fn inherited(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = biased(scene)?;
    scene.play(a, &["mlock r wait 64"])?;
    scene.kill(a)?;
    let (c, d) = (scene.join()?, scene.join()?);
    scene.play(d, &["map r", "mlock r wait 64", "unlock r"])?;
    scene.leave(&[b, d])?;
    scene.play(c, &["close"])
}

/// Two processes that map `r`, whose lock is biased to the first.
fn written(scene: &mut Scene<'_>) -> Outcome<(usize, usize)> {
    let (a, b) = (scene.join()?, scene.join()?);
    scene.play(a, &["create r 4096", "map r"])?;
    scene.play(b, &["map r"])?;
    scene.play(a, &["solo r"])?;
    Ok((a, b))
}

pub(super) fn written_alone(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = written(scene)?;
    scene.play(a, &["lock r wait", "unlock r"])?;
    scene.play(b, &["lock r wait", "unlock r"])?;
    scene.play(a, &["lock r wait", "unlock r"])?;
    scene.play(b, &["solo r", "lock r wait"])?;
    scene.play(a, &["lock r 0"])?;
    scene.play(b, &["unlock r"])?;
    scene.play(a, &["lock r 0", "unlock r"])?;
    scene.leave(&[a, b])
}

/// After the first reader no thread biases the lock any more.
pub(super) fn written_and_read(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = written(scene)?;
    scene.play(b, &["rlock r wait"])?;
    scene.play(a, &["lock r 0"])?;
    scene.play(b, &["unlock r"])?;
    scene.play(a, &["solo r", "lock r wait"])?;
    scene.play(b, &["rlock r 0", "unlock r"])?;
    scene.play(a, &["unlock r", "rlock r wait", "unlock r"])?;
    scene.leave(&[a, b])
}

fn written_waits_for(scene: &mut Scene<'_>, lock: &str) -> Outcome {
    let (a, b) = written(scene)?;
    scene.play(a, &["lock r wait"])?;
    scene.begin(b, lock)?;
    scene.reach(b, Point::LockFlagged)?;
    scene.play(a, &["unlock r"])?;
    scene.finish(b)?;
    scene.play(b, &["unlock r"])?;
    scene.play(a, &["lock r wait", "unlock r"])?;
    scene.leave(&[a, b])
}

pub(super) fn written_waits(scene: &mut Scene<'_>) -> Outcome {
    written_waits_for(scene, "lock r wait")
}

pub(super) fn written_reader_waits(scene: &mut Scene<'_>) -> Outcome {
    written_waits_for(scene, "rlock r wait")
}

pub(super) fn written_dead(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = written(scene)?;
    scene.play(a, &["lock r wait"])?;
    // It revokes the bias, and does not wait. Each reader frees the lock again, if the first process died too early to
    // keep it out.
    scene.play(b, &["rlock r 0", "unlock r"])?;
    scene.kill(a)?;
    scene.play(b, &["rlock r wait", "unlock r", "lock r wait", "leave r", "rlock r 0"])?;
    scene.play(b, &["solo r", "rlock r 0", "unlock r"])?;
    scene.leave(&[b])
}

pub(super) fn written_reaped(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = written(scene)?;
    scene.play(a, &["lock r wait"])?;
    scene.kill(a)?;
    scene.play(b, &["reap", "rlock r 0", "unlock r", "lock r wait", "repair r", "unlock r"])?;
    scene.leave(&[b])
}
