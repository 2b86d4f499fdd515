//! The scripts. Each is played in a fresh space beside the driver; together they come to every point.

use commonhold_window::Point;

use crate::crash::{Outcome, biased, scene::Scene};

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Slots for peers.
    pub(crate) peers: u64,
    /// The driver comes when the script is over, so that its processes are the space's first.
    pub(crate) untouched: bool,
    /// The medium has so little memory; who may not mount one leaves the scenario out.
    pub(crate) memory: Option<u64>,
    pub(crate) script: fn(&mut Scene<'_>) -> Outcome,
}

const fn scenario(name: &'static str, script: fn(&mut Scene<'_>) -> Outcome) -> Scenario {
    Scenario { name, peers: 8, untouched: false, memory: None, script }
}

pub(crate) const ALL: &[Scenario] = &[
    scenario("create, use and leave", create),
    scenario("create lazily", create_lazily),
    scenario("a region without bytes", create_empty),
    scenario("creations that are refused", create_refused),
    scenario("map twice", map_twice),
    scenario("destroy among neighbours", destroy),
    scenario("destroy waits", destroy_waits),
    scenario("destroy times out", destroy_times_out),
    scenario("destroy deferred", destroy_deferred),
    scenario("resize", resize),
    scenario("resize what is lazy", resize_lazy),
    scenario("resize refused", resize_refused),
    scenario("a lock that is waited for", lock_waits),
    scenario("a lock with two waiters, one dies", lock_two_waiters),
    scenario("locks that time out", lock_times_out),
    scenario("a writer waits for readers", writer_waits),
    scenario("a reader waits for a writer", reader_waits),
    scenario("a dead owner's lock", take_over),
    scenario("a dead owner's lock, given up", abandon),
    scenario("a reader at a dead writer's lock", reader_at_dead_writer),
    scenario("a mutex among the bytes", mutex),
    scenario("an event", event),
    scenario("a permit that is waited for", permit),
    scenario("a permit that is spent and given", spend),
    scenario("a value made once", once),
    scenario("a barrier", barrier),
    scenario("a condition", condition),
    scenario("a sequence lock", sequence),
    scenario("an upgrade waits for a reader", upgrade_waits),
    scenario("an upgrade at a dead owner's lock", upgrade_at_dead),
    scenario("a mutex used alone", biased::alone),
    scenario("a biased mutex that is waited for", biased::waits),
    scenario("a biased mutex of the dead", biased::dead),
    scenario("a biased mutex of the dead, reaped", biased::reaped),
    scenario("a biased mutex that is given up", biased::left),
    scenario("a biased mutex that is forgotten", biased::forgotten),
    scenario("a biased mutex whose region is destroyed", biased::destroyed),
    scenario("a condition with a biased mutex", biased::condition),
    scenario("reaping", reap),
    scenario("memory where no region is", litter),
    scenario("two kernels", guest),
    Scenario {
        name: "a dead peer's slot",
        peers: 4,
        untouched: false,
        memory: None,
        script: inherit,
    },
    Scenario {
        name: "a dead peer's slot, with a biased mutex",
        peers: 4,
        untouched: false,
        memory: None,
        script: biased::inherited,
    },
    Scenario { name: "no memory", peers: 8, untouched: false, memory: Some(1 << 20), script: full },
    Scenario { name: "a new space", peers: 8, untouched: true, memory: None, script: first },
];

fn create(scene: &mut Scene<'_>) -> Outcome {
    let a = scene.join()?;
    scene.play(a, &["create r 10000", "map r", "fill r", "look r", "lock r wait", "unlock r"])?;
    scene.play(a, &["rlock r wait", "unlock r", "unmap r", "close"])
}

fn full(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = (scene.join()?, scene.join()?);
    // What is refused beforehand takes nothing: by force, it takes what there is.
    scene.play(a, &["create r 8192 2000000", "map r", "fill r", "create s 2000000"])?;
    scene.play(a, &["create s 2000000 0 forced"])?;
    scene.play(b, &["create s 4096", "resize r 1500000", "map r", "look r", "unmap r", "close"])?;
    scene.play(a, &["unmap r", "destroy r wait", "close"])
}

fn first(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = (scene.join()?, scene.join()?);
    scene.play(a, &["create r 4096"])?;
    scene.play(b, &["create s 4096", "map r", "fill r", "unmap r", "close"])?;
    scene.play(a, &["destroy s wait", "close"])
}

fn create_lazily(scene: &mut Scene<'_>) -> Outcome {
    let a = scene.join()?;
    scene.play(a, &["create r 8192 20480 lazy", "map r", "look r", "fill r", "unmap r"])?;
    scene.play(a, &["create s 3000000 0 plain", "close"])
}

fn create_empty(scene: &mut Scene<'_>) -> Outcome {
    let a = scene.join()?;
    scene.play(a, &["create e 0", "map e", "lock e wait", "unlock e", "unmap e"])?;
    scene.play(a, &["destroy e wait", "create e 0", "close"])
}

fn create_refused(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = (scene.join()?, scene.join()?);
    scene.play(a, &["create r 4096"])?;
    scene.play(b, &["create r 4096", "create s 99999999999", "close"])?;
    scene.play(a, &["close"])
}

fn map_twice(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = (scene.join()?, scene.join()?);
    scene.play(a, &["create r 8192", "map r", "fill r"])?;
    scene.play(b, &["map r", "map r", "look r", "unmap r", "unmap r", "map x", "close"])?;
    scene.play(a, &["look r", "unmap r", "close"])
}

fn destroy(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = (scene.join()?, scene.join()?);
    scene.play(a, &["create p 4096", "create q 8192", "create r 4096", "map r", "fill r"])?;
    scene.play(b, &["destroy q wait", "create q 4096", "map q", "fill q", "unmap q"])?;
    scene.play(b, &["destroy p wait", "create t 8192", "close"])?;
    scene.play(a, &["look r", "unmap r", "destroy r wait", "close"])
}

fn destroy_waits(scene: &mut Scene<'_>) -> Outcome {
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

fn destroy_times_out(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = (scene.join()?, scene.join()?);
    scene.play(a, &["create r 8192"])?;
    scene.play(b, &["map r", "fill r"])?;
    scene.play(a, &["destroy r 5", "map r", "look r", "unmap r", "close"])?;
    scene.play(b, &["look r", "unmap r", "close"])
}

fn destroy_deferred(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = (scene.join()?, scene.join()?);
    scene.play(a, &["create r 8192", "create s 4096"])?;
    scene.play(b, &["map r", "map r", "fill r"])?;
    scene.play(a, &["destroy r deferred", "map r", "create r 4096", "destroy s deferred"])?;
    scene.play(b, &["look r", "unmap r", "look r", "unmap r", "create r 4096", "close"])?;
    scene.play(a, &["close"])
}

fn resize(scene: &mut Scene<'_>) -> Outcome {
    let a = scene.join()?;
    scene.play(a, &["create r 4096 20480", "map r", "fill r", "resize r 20000", "unmap r"])?;
    scene.play(a, &["map r", "look r", "fill r", "unmap r", "resize r 6000", "resize r 30000"])?;
    scene.play(a, &["resize r 20480", "map r", "look r", "unmap r", "close"])
}

fn resize_lazy(scene: &mut Scene<'_>) -> Outcome {
    let a = scene.join()?;
    scene.play(a, &["create r 9000 20480 lazy", "map r", "fill r", "unmap r"])?;
    scene.play(a, &["resize r 5000", "resize r 20000", "map r", "look r", "unmap r", "close"])
}

fn resize_refused(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = (scene.join()?, scene.join()?);
    scene.play(a, &["create r 8192", "map r", "fill r"])?;
    scene.play(b, &["resize r 100"])?;
    scene.play(a, &["look r", "unmap r", "close"])?;
    scene.play(b, &["close"])
}

/// Two processes that map `r`, the first with its lock.
fn locked(scene: &mut Scene<'_>) -> Outcome<(usize, usize)> {
    let (a, b) = (scene.join()?, scene.join()?);
    scene.play(a, &["create r 4096", "map r", "fill r", "lock r wait"])?;
    scene.play(b, &["map r"])?;
    Ok((a, b))
}

pub(crate) fn leave(scene: &mut Scene<'_>, all: &[usize]) -> Outcome {
    all.iter().try_for_each(|who| scene.play(*who, &["unmap r", "close"]))
}

fn lock_waits(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = locked(scene)?;
    scene.begin(b, "lock r wait")?;
    scene.reach(b, Point::LockFlagged)?;
    scene.play(a, &["unlock r"])?;
    scene.finish(b)?;
    scene.play(b, &["look r", "unlock r"])?;
    scene.play(a, &["lock r wait", "unlock r"])?;
    leave(scene, &[a, b])
}

fn lock_two_waiters(scene: &mut Scene<'_>) -> Outcome {
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
    leave(scene, &[a, c])
}

fn lock_times_out(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = locked(scene)?;
    scene.play(b, &["lock r 0", "lock r 3", "rlock r 3"])?;
    scene.play(a, &["unlock r", "rlock r wait"])?;
    scene.play(b, &["lock r 3", "rlock r wait", "unlock r"])?;
    scene.play(a, &["unlock r"])?;
    leave(scene, &[a, b])
}

fn writer_waits(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = locked(scene)?;
    scene.play(a, &["unlock r", "rlock r wait"])?;
    scene.begin(b, "lock r wait")?;
    scene.reach(b, Point::EventFlagged)?;
    scene.play(a, &["unlock r"])?;
    scene.finish(b)?;
    scene.play(b, &["unlock r"])?;
    leave(scene, &[a, b])
}

fn reader_waits(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = locked(scene)?;
    scene.begin(b, "rlock r wait")?;
    scene.reach(b, Point::LockFlagged)?;
    scene.play(a, &["unlock r"])?;
    scene.finish(b)?;
    scene.play(b, &["look r", "unlock r"])?;
    leave(scene, &[a, b])
}

fn take_over(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = locked(scene)?;
    scene.kill(a)?;
    scene.play(b, &["lock r wait", "look r", "leave r", "lock r wait", "repair r", "leave r"])?;
    scene.play(b, &["lock r wait", "unlock r", "lock r wait", "unlock r"])?;
    leave(scene, &[b])
}

fn abandon(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = locked(scene)?;
    let c = scene.join()?;
    scene.play(c, &["map r"])?;
    scene.kill(a)?;
    scene.play(b, &["lock r wait", "abandon r"])?;
    scene.play(c, &["lock r wait", "rlock r wait", "reset r", "lock r wait", "unlock r"])?;
    leave(scene, &[b, c])
}

fn reader_at_dead_writer(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = locked(scene)?;
    scene.kill(a)?;
    scene.play(b, &["rlock r wait", "unlock r", "lock r wait", "unlock r", "rlock r wait"])?;
    scene.play(b, &["unlock r"])?;
    leave(scene, &[b])
}

fn mutex(scene: &mut Scene<'_>) -> Outcome {
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
    leave(scene, &[b])
}

fn event(scene: &mut Scene<'_>) -> Outcome {
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
    leave(scene, &[a, b])
}

/// Two processes that map `r`, which has one record of each kind; none if one died before that.
pub(crate) fn records(scene: &mut Scene<'_>) -> Outcome<Option<(usize, usize)>> {
    let (a, b) = (scene.join()?, scene.join()?);
    scene.play(a, &["create r 4096", "map r", "ready r"])?;
    scene.play(b, &["map r"])?;
    if scene.deaths == 0 {
        return Ok(Some((a, b)));
    }
    leave(scene, &[a, b])?;
    Ok(None)
}

fn permit(scene: &mut Scene<'_>) -> Outcome {
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
    leave(scene, &[b])
}

fn spend(scene: &mut Scene<'_>) -> Outcome {
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
    leave(scene, &[a, b])
}

fn once(scene: &mut Scene<'_>) -> Outcome {
    let Some((a, b)) = records(scene)? else { return Ok(()) };
    scene.play(a, &["once r wait", "leave r", "once r wait"])?;
    scene.begin(b, "once r wait")?;
    scene.reach(b, Point::LockFlagged)?;
    scene.play(a, &["complete r"])?;
    if scene.finish(b)? != "done" {
        scene.play(b, &["complete r"])?;
    }
    scene.play(a, &["once r wait"])?;
    leave(scene, &[a, b])
}

fn barrier(scene: &mut Scene<'_>) -> Outcome {
    let Some((a, b)) = records(scene)? else { return Ok(()) };
    for who in [a, b] {
        scene.play(who, &["join r"])?;
    }
    // One that died before it joined would be waited for.
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
    leave(scene, &[a, b])
}

fn condition(scene: &mut Scene<'_>) -> Outcome {
    let Some((a, b)) = records(scene)? else { return Ok(()) };
    scene.begin(b, "await r wait")?;
    scene.reach(b, Point::EventFlagged)?;
    scene.play(a, &["notify r"])?;
    scene.finish(b)?;
    leave(scene, &[a, b])
}

fn sequence(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = (scene.join()?, scene.join()?);
    scene.play(a, &["create r 4096", "map r", "sopen r - 64", "sput r 1 64"])?;
    scene.play(b, &["map r", "sopen r - 64", "sget r - 64", "sput r 2 64"])?;
    scene.play(a, &["sget r - 64", "sput r 3 64", "sput r 4 64", "sget r - 64"])?;
    scene.play(b, &["sget r - 64", "sput r 5 64", "sget r - 64"])?;
    leave(scene, &[a, b])
}

fn upgrade_waits(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = (scene.join()?, scene.join()?);
    let c = scene.join()?;
    scene.play(a, &["create r 4096", "map r", "rlock r wait"])?;
    scene.play(b, &["map r"])?;
    scene.play(c, &["map r"])?;
    scene.begin(b, "promote r")?;
    scene.reach(b, Point::EventFlagged)?;
    // Who comes to read now waits for the one that upgrades, and is woken when it is done.
    scene.begin(c, "rlock r wait")?;
    scene.reach(c, Point::LockFlagged)?;
    scene.play(a, &["unlock r"])?;
    scene.finish(b)?;
    scene.finish(c)?;
    scene.play(c, &["unlock r", "promote r"])?;
    leave(scene, &[a, b, c])
}

fn upgrade_at_dead(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = locked(scene)?;
    scene.kill(a)?;
    scene.play(b, &["promote r", "promote r", "rlock r wait", "unlock r"])?;
    leave(scene, &[b])
}

fn reap(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = locked(scene)?;
    let c = scene.join()?;
    scene.play(a, &["create s 8192", "map s", "rlock s wait"])?;
    scene.play(b, &["destroy s deferred"])?;
    scene.kill(a)?;
    scene.play(c, &["reap", "check", "reap"])?;
    scene.play(b, &["reap", "lock r wait", "unlock r"])?;
    leave(scene, &[b])?;
    scene.play(c, &["close"])
}

fn litter(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = (scene.join()?, scene.join()?);
    scene.play(a, &["create r 8192", "map r", "fill r", "litter"])?;
    scene.play(b, &["reap", "check", "create s 3000000", "destroy s wait"])?;
    scene.play(a, &["look r", "unmap r", "reap", "close"])?;
    scene.play(b, &["close"])
}

fn guest(scene: &mut Scene<'_>) -> Outcome {
    let (a, b) = (scene.enter()?, scene.join()?);
    scene.run(a, &format!("guest {} 7", scene.url.clone()))?;
    scene.play(b, &["create r 4096", "reap"])?;
    scene.play(a, &["close"])?;
    scene.play(b, &["close"])?;
    // More than there are records for: those of kernels that are gone are used again.
    let c = scene.enter()?;
    scene.run(c, &format!("tour {} 20", scene.url.clone()))?;
    Ok(())
}

fn inherit(scene: &mut Scene<'_>) -> Outcome {
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
