//! Scripts about peers: reaping, inherited slots, and other kernels.

use super::locks::locked;
use crate::crash::{Outcome, scene::Scene};

pub(super) fn reap(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = locked(scene)?;
    let c = scene.join()?;
    scene.play(a, &["create s 8192", "map s", "rlock s wait"])?;
    scene.play(b, &["destroy s deferred"])?;
    scene.kill(a)?;
    scene.play(c, &["reap", "check", "reap"])?;
    scene.play(b, &["reap", "lock r wait", "unlock r"])?;
    scene.leave(&[b])?;
    scene.play(c, &["close"])
}

pub(super) fn guest(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = (scene.enter()?, scene.join()?);
    scene.run(a, &format!("guest {} 7", scene.url.clone()))?;
    scene.play(b, &["create r 4096", "reap"])?;
    scene.play(a, &["close"])?;
    scene.play(b, &["close"])?;
    // More kernels than there are records for them: records of kernels that are gone are used again.
    let c = scene.enter()?;
    scene.run(c, &format!("tour {} 20", scene.url.clone()))?;
    Ok(())
}

pub(super) fn inherit(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = (scene.join()?, scene.join()?);
    scene
        .play(a, &["create r 4096", "map r", "fill r", "lock r wait", "create s 4096", "map s"])?;
    scene.play(b, &["destroy s deferred"])?;
    scene.kill(a)?;
    let c = scene.join()?;
    let d = scene.join()?;
    scene.play(d, &["check", "map r", "lock r wait", "unlock r", "unmap r", "close"])?;
    scene.play(c, &["create s 4096", "close"])?;
    scene.play(b, &["close"])
}
