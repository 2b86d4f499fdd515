//! Guests that are killed or paused while they hold a lock or wait for it. From outside only their heartbeat is
//! visible.

use commonhold_testkit::vm::{Guest, GuestImage, Machine, Outcome, RunSpace, Side, first_of};

use crate::support::{Peer, actor, locks, peers, until};

const CAPACITY: [&str; 2] = ["--capacity", "64M"];
const LEASE: [&str; 4] = ["--capacity", "64M", "--lease", "500ms"];

fn named<'a>(peers: &'a [Peer], name: &str) -> &'a Peer {
    peers.iter().find(|peer| peer.name == name).unwrap_or_else(|| panic!("no {name}: {peers:?}"))
}

#[test]
fn without_a_lease_a_killed_guest_keeps_its_lock_until_it_is_declared_dead() -> Outcome {
    let image = GuestImage::find()?;
    let run_space = RunSpace::format(&image, &CAPACITY)?;
    let machine = Machine::with(run_space.path());
    let (first, second) = (Guest::start(&image, &machine)?, Guest::start(&image, &machine)?);
    let host = run_space.host();
    let mut survivor = actor(&host, "survivor")?;
    survivor.must("create r 4096")?;
    survivor.must("map r")?;
    let mut holder = actor(&Side::guest(&first, "pci:auto"), "holder")?;
    let mut waiter = actor(&Side::guest(&second, "pci:auto"), "waiter")?;
    holder.must("map r")?;
    waiter.must("map r")?;
    holder.must("lock r wait")?;
    waiter.tell("lock r wait");
    until("the waiter waits", || Ok(locks(&host)?.iter().any(|lock| lock.waiters == 1)))?;
    let (holders, waiters) = (first.boot()?, second.boot()?);
    first.kill();
    second.kill();

    survivor.expect("lock r 3000", "timedout")?;
    let seen = peers(&host)?;
    let (holder, waiter) = (named(&seen, "holder"), named(&seen, "waiter"));
    assert_eq!((&holder.domain, holder.state.as_str()), (&holders, "suspect"));
    assert_eq!((&waiter.domain, waiter.state.as_str()), (&waiters, "suspect"));
    assert_eq!(named(&seen, "survivor").state, "live");
    let held = locks(&host)?;
    let [lock] = &held[..] else { panic!("not one lock: {held:?}") };
    assert_eq!((lock.region.as_str(), lock.kind.as_str()), ("r", "exclusive"));
    assert_eq!(lock.holder, Some((holder.slot, holders)), "who holds it, and in which kernel");
    assert_eq!(host.json(&["reap"])?["peers"].as_array().unwrap().len(), 0, "nothing is proved");
    survivor.expect("lock r 0", "timedout")?;

    // A live peer cannot be declared dead.
    let living = named(&seen, "survivor").slot.to_string();
    assert_ne!(host.try_run(&["reap", "--assume-dead", &living])?.status, 0);
    let dead = holder.slot.to_string();
    let reaped = host.json(&["reap", "--assume-dead", &dead])?;
    assert_eq!(reaped["peers"][0]["slot"].as_u64(), Some(holder.slot), "{reaped}");
    survivor.expect("lock r wait", "ownerdied")?;
    survivor.must("unlock r")?;
    survivor.must("lock r wait")?;
    survivor.must("unlock r")?;
    host.run(&["reap", "--assume-dead", &waiter.slot.to_string()])?;
    assert_eq!(peers(&host)?.len(), 1, "the survivor is alone");
    survivor.must("unmap r")?;
    // A destroy does not wait for the mappings of dead peers.
    survivor.must("destroy r wait")?;
    survivor.leave()
}

#[test]
fn with_a_lease_the_lock_of_a_killed_guest_passes_to_one_of_two_waiters_as_inconsistent() -> Outcome
{
    let image = GuestImage::find()?;
    let run_space = RunSpace::format(&image, &LEASE)?;
    let machine = Machine::with(run_space.path());
    let (first, second) = (Guest::start(&image, &machine)?, Guest::start(&image, &machine)?);
    let host = run_space.host();
    let mut here = actor(&host, "here")?;
    here.must("create r 4096")?;
    let mut holder = actor(&Side::guest(&first, "pci:auto"), "holder")?;
    let mut there = actor(&Side::guest(&second, "pci:auto"), "there")?;
    for actor in [&mut holder, &mut here, &mut there] {
        actor.must("map r")?;
    }
    holder.must("lock r wait")?;
    for waiter in [&mut here, &mut there] {
        waiter.tell("lock r wait");
    }
    until("two wait", || Ok(locks(&host)?.iter().any(|lock| lock.waiters == 2)))?;
    first.kill();

    let (winner, said) = first_of(&mut [&mut here, &mut there])?;
    assert_eq!(said, "ownerdied");
    let (mut winner, mut other) = if winner == 0 { (here, there) } else { (there, here) };
    winner.expect("inspect r", "ok inconsistent")?;
    // `unlock` repairs the data first. The other waiter gets the lock afterwards, and is not told of the death.
    winner.must("unlock r")?;
    assert_eq!(other.answer()?, "ok", "a second heir");
    other.expect("inspect r", "ok consistent")?;
    other.must("unlock r")?;
    until("the dead is reaped", || {
        winner.must("reap")?;
        Ok(peers(&host)?.len() == 2)
    })?;
    for mut actor in [winner, other] {
        actor.must("unmap r")?;
        actor.leave()?;
    }
    host.run(&["destroy", "r"]).map(drop)
}

#[test]
fn a_guest_that_was_paused_for_longer_than_the_lease_is_fenced_and_changes_nothing() -> Outcome {
    let image = GuestImage::find()?;
    let run_space = RunSpace::format(&image, &LEASE)?;
    let mut guest = Guest::start(&image, &Machine::with(run_space.path()))?;
    let host = run_space.host();
    let mut heir = actor(&host, "heir")?;
    let mut third = actor(&host, "third")?;
    heir.must("create r 4096")?;
    let mut paused = actor(&Side::guest(&guest, "pci:auto"), "paused")?;
    for actor in [&mut heir, &mut third, &mut paused] {
        actor.must("map r")?;
    }
    paused.must("lock r wait")?;
    guest.pause()?;
    heir.expect("lock r wait", "ownerdied")?;
    heir.expect("inspect r", "ok inconsistent")?;
    heir.must("repair r")?;
    guest.resume()?;

    // The heir has the lock and keeps it, whatever the continued guest does.
    paused.expect("unlock r", "fenced")?;
    third.expect("lock r 0", "timedout")?;
    let held = locks(&host)?;
    let seen = peers(&host)?;
    let slot = named(&seen, "heir").slot;
    assert_eq!(held.len(), 1, "{held:?}");
    assert_eq!(held[0].holder.as_ref().map(|holder| holder.0), Some(slot));
    assert_eq!(held[0].kind, "exclusive");
    paused.expect("lock r wait", "fenced")?;
    heir.must("unlock r")?;
    third.must("lock r wait")?;
    third.must("unlock r")?;
    paused.kill()?;

    // It can attach again, as a new peer.
    let mut again = actor(&Side::guest(&guest, "pci:auto"), "again")?;
    again.must("map r")?;
    again.must("lock r wait")?;
    again.must("unlock r")?;
    again.must("unmap r")?;
    again.leave()
}
