//! Scripts about records: permits, values made once, barriers, conditions, sequence locks.

use commonhold_window::Point;

use crate::crash::{Outcome, scene::Scene};

/// Two processes that map `r`, which has one record of each kind; `None` if one of them died before that.
pub(super) fn records(scene: &mut Scene<'_>) -> Outcome<Option<(usize, usize)>> {
    let (a, b) = (scene.join()?, scene.join()?);
    scene.play(a, &["create r 4096", "map r", "ready r"])?;
    scene.play(b, &["map r"])?;
    if scene.deaths == 0 {
        return Ok(Some((a, b)));
    }
    scene.leave(&[a, b])?;
    Ok(None)
}

pub(super) fn permit(scene: &mut Scene<'_>) -> Outcome {
    let Some((a, b)) = records(scene)? else { return Ok(()) };
    scene.play(a, &["permit r wait"])?;
    scene.begin(b, "permit r wait")?;
    scene.reach(b, Point::EventFlagged)?;
    scene.play(a, &["unlock r"])?;
    scene.finish(b)?;
    scene.play(b, &["leave r"])?;
    scene.play(a, &["permit r 0", "unlock r", "permit r wait"])?;
    scene.kill(a)?;
    scene.play(b, &["permit r wait", "unlock r"])?;
    scene.leave(&[b])
}

pub(super) fn spend(scene: &mut Scene<'_>) -> Outcome {
    let Some((a, b)) = records(scene)? else { return Ok(()) };
    scene.play(a, &["permit r wait", "spend r"])?;
    if scene.deaths == 0 {
        scene.begin(b, "permit r wait")?;
        scene.reach(b, Point::EventFlagged)?;
        scene.play(a, &["give r"])?;
        scene.finish(b)?;
        scene.play(b, &["unlock r"])?;
    } else {
        scene.play(b, &["give r", "permit r 0", "unlock r"])?;
    }
    scene.leave(&[a, b])
}

pub(super) fn once(scene: &mut Scene<'_>) -> Outcome {
    let Some((a, b)) = records(scene)? else { return Ok(()) };
    scene.play(a, &["once r wait", "leave r", "once r wait"])?;
    scene.begin(b, "once r wait")?;
    scene.reach(b, Point::LockFlagged)?;
    scene.play(a, &["complete r"])?;
    if scene.finish(b)? != "done" {
        scene.play(b, &["complete r"])?;
    }
    scene.play(a, &["once r wait"])?;
    scene.leave(&[a, b])
}

pub(super) fn barrier(scene: &mut Scene<'_>) -> Outcome {
    let Some((a, b)) = records(scene)? else { return Ok(()) };
    for who in [a, b] {
        scene.play(who, &["join r"])?;
    }
    // If a process has died before it joined, the others would wait for it.
    if scene.deaths == 0 {
        for (first, last) in [(a, b), (b, a)] {
            scene.play(first, &["arrive r"])?;
            scene.begin(first, "pass r wait")?;
            scene.reach(first, Point::EventFlagged)?;
            scene.play(last, &["arrive r", "pass r wait"])?;
            scene.finish(first)?;
        }
    }
    for who in [a, b] {
        scene.play(who, &["part r"])?;
    }
    scene.leave(&[a, b])
}

pub(super) fn condition(scene: &mut Scene<'_>) -> Outcome {
    let Some((a, b)) = records(scene)? else { return Ok(()) };
    scene.begin(b, "await r wait")?;
    scene.reach(b, Point::EventFlagged)?;
    scene.play(a, &["notify r"])?;
    scene.finish(b)?;
    scene.leave(&[a, b])
}

pub(super) fn sequence(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = (scene.join()?, scene.join()?);
    scene.play(a, &["create r 4096", "map r", "sopen r - 64", "sput r 1 64"])?;
    scene.play(b, &["map r", "sopen r - 64", "sget r - 64", "sput r 2 64"])?;
    scene.play(a, &["sget r - 64", "sput r 3 64", "sput r 4 64", "sget r - 64"])?;
    scene.play(b, &["sget r - 64", "sput r 5 64", "sget r - 64"])?;
    scene.leave(&[a, b])
}
