//! A guest without an operating system, a Linux guest and a process of the host share a space.

use commonhold_testkit::vm::{
    Guest, GuestImage, Machine, Metal, Outcome, RunSpace, ScriptedProcess, Side,
};

use crate::support::{actor, locks, peers, until};

/// How many increments each of three processes does.
const INCREMENTS: u64 = 50_000;

fn metal(image: &GuestImage, run_space: &RunSpace, line: &str) -> Outcome<Metal> {
    Metal::start(image, &Machine { append: line.to_owned(), ..Machine::with(run_space.path()) })
}

#[test]
fn a_guest_without_an_operating_system_is_a_peer_like_any_other() -> Outcome {
    let image = GuestImage::find()?;
    let run_space = RunSpace::format(&image, &["--capacity", "16M"])?;
    let guest = Guest::start(&image, &Machine::with(run_space.path()))?;
    let mut maker =
        metal(&image, &run_space, "create=counter size=8 create=short-lived size=4096")?;
    maker.hear("created short-lived")?;
    maker.end()?;

    let host = run_space.host();
    let linux = Side::guest(&guest, "pci:auto");
    let mut actors = [actor(&host, "here")?, actor(&linux, "there")?];
    for actor in &mut actors {
        actor.must("map counter")?;
        actor.expect("region short-lived", "ok active 0")?;
    }
    let line = format!("destroy=short-lived region=counter increments={INCREMENTS} list");
    let mut third = metal(&image, &run_space, &line)?;
    third.hear("destroyed short-lived")?;
    let increments = format!("increments counter {INCREMENTS}");
    actors.iter_mut().for_each(|actor| actor.tell(&increments));
    for actor in &mut actors {
        assert_eq!(actor.done()?, format!("{INCREMENTS} 0"), "no owner has died");
    }
    // It sees the mappings of the others.
    third.hear("region counter size=8 active maps=2")?;
    assert_eq!(third.hear("done ")?, format!("increments={INCREMENTS} owner_died=0"));
    third.end()?;
    for actor in &mut actors {
        assert_eq!(actor.must("value counter")?, (3 * INCREMENTS).to_string());
        actor.expect("region short-lived", "notfound")?;
        actor.must("unmap counter")?;
    }
    assert_eq!(peers(&host)?.len(), 2, "the one that is done has detached");
    actors.into_iter().try_for_each(ScriptedProcess::leave)
}

#[test]
fn with_a_lease_the_lock_of_a_killed_guest_without_a_system_is_inherited() -> Outcome {
    let image = GuestImage::find()?;
    let run_space = RunSpace::format(&image, &["--capacity", "16M", "--lease", "500ms"])?;
    let host = run_space.host();
    let mut heir = actor(&host, "heir")?;
    heir.must("create r 8")?;
    heir.must("map r")?;
    let mut holder = metal(&image, &run_space, "hold=r")?;
    holder.hear("holding r")?;
    heir.expect("lock r 0", "timedout")?;
    // It keeps the lock as long as its heart beats.
    assert!(peers(&host)?.iter().all(|peer| peer.state == "live"));
    assert!(locks(&host)?.iter().any(|lock| lock.holder.is_some()));
    holder.kill();
    heir.expect("lock r wait", "ownerdied")?;
    heir.must("unlock r")?;
    until("the dead is reaped", || {
        heir.must("reap")?;
        Ok(peers(&host)?.len() == 1)
    })?;
    heir.must("unmap r")?;
    heir.leave()
}
