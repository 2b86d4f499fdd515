//! Scripts about regions: create, map, resize, destroy, and no memory.

use commonhold_window::Point;

use crate::crash::{Outcome, scene::Scene};

pub(super) fn create(scene: &mut Scene<'_>) -> Outcome {
    let a = scene.join()?;
    scene.play(a, &["create r 10000", "map r", "fill r", "look r", "lock r wait", "unlock r"])?;
    scene.play(a, &["rlock r wait", "unlock r", "unmap r", "close"])
}

pub(super) fn full(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = (scene.join()?, scene.join()?);
    // A create that is refused beforehand takes no memory; by force, it takes all there is.
    scene.play(a, &["create r 8192 2000000", "map r", "fill r", "create s 2000000"])?;
    scene.play(a, &["create s 2000000 0 forced"])?;
    scene.play(b, &["create s 4096", "resize r 1500000", "map r", "look r", "unmap r", "close"])?;
    scene.play(a, &["unmap r", "destroy r wait", "close"])
}

pub(super) fn first(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = (scene.join()?, scene.join()?);
    scene.play(a, &["create r 4096"])?;
    scene.play(b, &["create s 4096", "map r", "fill r", "unmap r", "close"])?;
    scene.play(a, &["destroy s wait", "close"])
}

pub(super) fn create_lazily(scene: &mut Scene<'_>) -> Outcome {
    let a = scene.join()?;
    scene.play(a, &["create r 8192 20480 lazy", "map r", "look r", "fill r", "unmap r"])?;
    scene.play(a, &["create s 3000000 0 plain", "close"])
}

pub(super) fn create_empty(scene: &mut Scene<'_>) -> Outcome {
    let a = scene.join()?;
    scene.play(a, &["create e 0", "map e", "lock e wait", "unlock e", "unmap e"])?;
    scene.play(a, &["destroy e wait", "create e 0", "close"])
}

pub(super) fn create_refused(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = (scene.join()?, scene.join()?);
    scene.play(a, &["create r 4096"])?;
    scene.play(b, &["create r 4096", "create s 99999999999", "close"])?;
    scene.play(a, &["close"])
}

pub(super) fn map_twice(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = (scene.join()?, scene.join()?);
    scene.play(a, &["create r 8192", "map r", "fill r"])?;
    scene.play(b, &["map r", "map r", "look r", "unmap r", "unmap r", "map x", "close"])?;
    scene.play(a, &["look r", "unmap r", "close"])
}

pub(super) fn destroy(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = (scene.join()?, scene.join()?);
    scene.play(a, &["create p 4096", "create q 8192", "create r 4096", "map r", "fill r"])?;
    scene.play(b, &["destroy q wait", "create q 4096", "map q", "fill q", "unmap q"])?;
    scene.play(b, &["destroy p wait", "create t 8192", "close"])?;
    scene.play(a, &["look r", "unmap r", "destroy r wait", "close"])
}

pub(super) fn destroy_waits(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = (scene.join()?, scene.join()?);
    scene.play(a, &["create r 8192"])?;
    scene.play(b, &["map r", "fill r"])?;
    scene.begin(a, "destroy r wait")?;
    scene.reach(a, Point::EventFlagged)?;
    scene.play(b, &["unmap r"])?;
    scene.finish(a)?;
    scene.play(b, &["create r 4096", "close"])?;
    scene.play(a, &["close"])
}

pub(super) fn destroy_times_out(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = (scene.join()?, scene.join()?);
    scene.play(a, &["create r 8192"])?;
    scene.play(b, &["map r", "fill r"])?;
    scene.play(a, &["destroy r 5", "map r", "look r", "unmap r", "close"])?;
    scene.play(b, &["look r", "unmap r", "close"])
}

pub(super) fn destroy_deferred(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = (scene.join()?, scene.join()?);
    scene.play(a, &["create r 8192", "create s 4096"])?;
    scene.play(b, &["map r", "map r", "fill r"])?;
    scene.play(a, &["destroy r deferred", "map r", "create r 4096", "destroy s deferred"])?;
    scene.play(b, &["look r", "unmap r", "look r", "unmap r", "create r 4096", "close"])?;
    scene.play(a, &["close"])
}

pub(super) fn resize(scene: &mut Scene<'_>) -> Outcome {
    let a = scene.join()?;
    scene.play(a, &["create r 4096 20480", "map r", "fill r", "resize r 20000", "unmap r"])?;
    scene.play(a, &["map r", "look r", "fill r", "unmap r", "resize r 6000", "resize r 30000"])?;
    scene.play(a, &["resize r 20480", "map r", "look r", "unmap r", "close"])
}

pub(super) fn resize_lazy(scene: &mut Scene<'_>) -> Outcome {
    let a = scene.join()?;
    scene.play(a, &["create r 9000 20480 lazy", "map r", "fill r", "unmap r"])?;
    scene.play(a, &["resize r 5000", "resize r 20000", "map r", "look r", "unmap r", "close"])
}

pub(super) fn resize_refused(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = (scene.join()?, scene.join()?);
    scene.play(a, &["create r 8192", "map r", "fill r"])?;
    scene.play(b, &["resize r 100"])?;
    scene.play(a, &["look r", "unmap r", "close"])?;
    scene.play(b, &["close"])
}

pub(super) fn litter(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = (scene.join()?, scene.join()?);
    scene.play(a, &["create r 8192", "map r", "fill r", "litter"])?;
    scene.play(b, &["reap", "check", "create s 3000000", "destroy s wait"])?;
    scene.play(a, &["look r", "unmap r", "reap", "close"])?;
    scene.play(b, &["close"])
}
