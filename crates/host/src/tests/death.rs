//! What is concluded from evidence, with real deaths.

use super::*;
use crate::scratch::Scratch;
use commonhold_layout::BootId;
use commonhold_sync::Verdict;
use std::time::{Duration, Instant};

const OFD: Evidence = Evidence::OFD_LOCK;
const PROCESS: Evidence = Evidence::PROCESS;

fn scene() -> (Scratch, std::path::PathBuf, LinuxPlatform) {
    let scratch = Scratch::new();
    drop(scratch.window("space", 8192));
    let path = scratch.path("space");
    let observer = platform(&path);
    (scratch, path, observer)
}

#[test]
fn a_killed_peer_is_dead_by_either_evidence_while_it_is_still_a_zombie() {
    let (_scratch, path, observer) = scene();
    let mut actor = Actor::play("hold", &path);
    let identity = actor.identity(&observer.identity());
    let verdict = |evidence, attaching| observer.verdict(&record(identity, evidence), attaching, 0);
    assert_eq!(observer.deposit(SLOT), Ok(None), "the slot's evidence is somebody else's");
    for evidence in [OFD, PROCESS, OFD.with(PROCESS)] {
        assert_eq!(verdict(evidence, false), Verdict::Alive, "{evidence:?}");
    }
    assert_eq!(verdict(OFD, true), Verdict::Alive);
    actor.kill();
    for evidence in [OFD, PROCESS, OFD.with(PROCESS)] {
        assert_eq!(verdict(evidence, false), Verdict::Dead, "{evidence:?}, zombie");
    }
    assert_eq!(verdict(OFD, true), Verdict::Dead);
    assert_eq!(verdict(PROCESS, true), Verdict::Suspect, "its record may not be written yet");
    drop(actor);
    assert_eq!(verdict(PROCESS, false), Verdict::Dead);
    assert!(observer.deposit(SLOT).unwrap().is_some());
}

#[test]
fn a_forked_child_closes_what_would_keep_its_dead_parent_alive() {
    let (_scratch, path, observer) = scene();
    let mut actor = Actor::play("fork", &path);
    let child = fork::Orphan::heard(&mut actor);
    let identity = actor.identity(&observer.identity());
    assert_eq!(observer.verdict(&record(identity, OFD), false, 0), Verdict::Alive);
    actor.kill();
    assert_eq!(observer.verdict(&record(identity, OFD), false, 0), Verdict::Dead);
    assert!(child.is_alive());
}

#[test]
fn a_child_that_keeps_the_descriptor_does_not_keep_its_dead_parent_alive() {
    let (_scratch, path, observer) = scene();
    let mut actor = Actor::play("clone", &path);
    let child = fork::Orphan::heard(&mut actor);
    let identity = actor.identity(&observer.identity());
    let both = record(identity, OFD.with(PROCESS));
    assert_eq!(observer.verdict(&both, false, 0), Verdict::Alive);
    actor.kill();
    let lock_alone = observer.verdict(&record(identity, OFD), false, 0);
    assert_eq!(lock_alone, Verdict::Alive, "or the test tests nothing");
    assert_eq!(observer.verdict(&both, false, 0), Verdict::Dead);
    assert!(child.is_alive());
}

#[test]
fn a_peer_in_another_pid_namespace_lives_by_its_lock_alone() {
    let (_scratch, path, observer) = scene();
    let wrapper = ["unshare", "--pid", "--fork", "--kill-child", "--"];
    let allowed = Command::new("unshare").args(["--pid", "--fork", "true"]).output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        eprintln!("note: not tested: a PID namespace of its own needs root and unshare(1)");
        return;
    }
    let mut actor = Actor::play_under(&wrapper, "hold", &path);
    let identity = actor.identity(&observer.identity());
    assert_ne!(identity.pid_namespace, observer.identity().pid_namespace);
    assert_eq!(identity.pid, 1, "a process id that means somebody else to the observer");
    let both = record(identity, OFD.with(PROCESS));
    assert_eq!(observer.verdict(&both, false, 0), Verdict::Alive);
    assert_eq!(observer.verdict(&record(identity, PROCESS), false, 0), Verdict::Suspect);
    actor.kill();
    let began = Instant::now();
    while observer.verdict(&both, false, 0) != Verdict::Dead {
        assert!(began.elapsed() < Duration::from_secs(60), "it does not die");
        std::thread::yield_now();
    }
}

#[test]
fn evidence_that_was_never_left_proves_nothing() {
    let (_scratch, _path, observer) = scene();
    let me = observer.identity();
    let elsewhere = [
        Identity { boot: BootId(1), ..me },
        Identity { boot: BootId(0), ..me },
        Identity { pid_namespace: 1, ..me },
        Identity { pid: 0, ..me },
    ];
    for identity in elsewhere {
        for evidence in [Evidence::NONE, PROCESS] {
            let verdict = observer.verdict(&record(identity, evidence), false, 1);
            assert_eq!(verdict, Verdict::Suspect, "{evidence:?}");
        }
        let beating = record(identity, PROCESS.with(Evidence::HEARTBEAT));
        assert_eq!(observer.verdict(&beating, false, 3_600_000), Verdict::Alive);
    }
}

#[test]
fn a_process_of_the_same_id_and_another_start_is_another_process() {
    let (_scratch, _path, observer) = scene();
    let me = observer.identity();
    let earlier = record(Identity { start_time: me.start_time - 1, ..me }, PROCESS);
    assert_eq!(observer.verdict(&earlier, false, 0), Verdict::Dead);
    assert_eq!(observer.verdict(&earlier, true, 0), Verdict::Suspect);
    assert_eq!(observer.verdict(&record(me, PROCESS), false, 0), Verdict::Alive);
}

#[test]
fn a_process_knows_its_own_slot_and_that_of_its_other_attachment() {
    let (_scratch, path, one) = scene();
    let two = platform(&path);
    assert_eq!(one.deposit(SLOT), Ok(Some(OFD.with(PROCESS).with(Evidence::HEARTBEAT))));
    assert_eq!(one.deposit(SLOT), Ok(None));
    assert_eq!(two.deposit(SLOT), Ok(None));
    two.withdraw(SLOT);
    let me = record(one.identity(), OFD);
    for attaching in [false, true] {
        assert_eq!(one.verdict(&me, attaching, 0), Verdict::Alive);
        assert_eq!(two.verdict(&me, attaching, 0), Verdict::Alive);
    }
    one.withdraw(SLOT);
    assert_eq!(one.verdict(&me, false, 0), Verdict::Dead);
    assert_eq!(two.verdict(&me, false, 0), Verdict::Dead);
    assert!(one.deposit(SLOT).unwrap().is_some());
    drop(one);
    assert_eq!(two.verdict(&me, false, 0), Verdict::Dead);
}

/// A kernel that sees nothing of our locks and processes may attach at any time.
#[test]
fn a_heartbeat_is_promised_always() {
    let (_scratch, path, _observer) = scene();
    let platform = LinuxPlatform::new(open(&path).unwrap()).unwrap();
    let evidence = platform.deposit(SLOT).unwrap().unwrap();
    assert_eq!(evidence, OFD.with(PROCESS).with(Evidence::HEARTBEAT));
}

#[test]
fn a_peer_of_another_kernel_is_judged_by_its_heart_alone() {
    let (_scratch, _path, observer) = scene();
    let other = Identity { boot: BootId(1), ..observer.identity() };
    let evidence = PROCESS.with(Evidence::HEARTBEAT);
    let mut peer = record(other, evidence);
    assert_eq!(observer.verdict(&peer, false, 0), Verdict::Alive);
    let begun = Instant::now();
    while observer.verdict(&peer, false, 0) == Verdict::Alive
        && begun.elapsed() < Duration::from_secs(60)
    {
        std::thread::yield_now();
    }
    assert_eq!(observer.verdict(&peer, false, 0), Verdict::Suspect);
    assert_eq!(observer.verdict(&peer, false, 1), Verdict::Dead);
    peer.heartbeat += 1;
    assert_eq!(observer.verdict(&peer, false, 500), Verdict::Alive);
}
