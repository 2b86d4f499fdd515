//! Verdicts from evidence, with processes that really die.

use super::{fork, scripted_process::*};
use crate::{LinuxPlatform, ofd_lock, scratch::Scratch};
use commonhold_layout::{BootId, DeathFutex, Evidence};
use commonhold_space::{EvidenceLock, Identity, LivenessEvidence, PeerRecord};
use commonhold_sync::Verdict;
use std::{
    os::fd::AsFd,
    process::Command,
    time::{Duration, Instant},
};

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
    let mut actor = ScriptedProcess::play("hold", &path);
    let identity = actor.identity(&observer.identity());
    let verdict =
        |evidence, attaching| observer.verdict(&rung(record(identity, evidence)), attaching, 0);
    assert_eq!(
        observer.publish(SLOT, EvidenceLock::Alone),
        Ok(None),
        "the slot's evidence is somebody else's"
    );
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
    assert!(observer.publish(SLOT, EvidenceLock::Alone).unwrap().is_some());
}

#[test]
fn a_forked_child_closes_what_would_keep_its_dead_parent_alive() {
    let (_scratch, path, observer) = scene();
    let mut actor = ScriptedProcess::play("fork", &path);
    let child = fork::Orphan::heard(&mut actor);
    let identity = actor.identity(&observer.identity());
    assert_eq!(observer.verdict(&record(identity, OFD), false, 0), Verdict::Alive);
    actor.kill();
    assert_eq!(observer.verdict(&rung(record(identity, OFD)), false, 0), Verdict::Dead);
    assert!(child.is_alive());
}

#[test]
fn a_child_that_keeps_the_descriptor_does_not_keep_its_dead_parent_alive() {
    let (_scratch, path, observer) = scene();
    let mut actor = ScriptedProcess::play("clone", &path);
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
fn a_peer_in_another_pid_namespace_is_judged_by_its_lock_alone() {
    let (_scratch, path, observer) = scene();
    let wrapper = ["unshare", "--pid", "--fork", "--kill-child", "--"];
    let allowed = Command::new("unshare").args(["--pid", "--fork", "true"]).output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        eprintln!("note: not tested: a PID namespace of its own needs root and unshare(1)");
        return;
    }
    let mut actor = ScriptedProcess::play_under(&wrapper, "hold", &path);
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
fn a_process_with_the_same_id_and_another_start_time_is_another_process() {
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
    assert_eq!(
        one.publish(SLOT, EvidenceLock::Alone),
        Ok(Some(OFD.with(PROCESS).with(Evidence::HEARTBEAT)))
    );
    assert_eq!(one.publish(SLOT, EvidenceLock::Alone), Ok(None));
    assert_eq!(two.publish(SLOT, EvidenceLock::Alone), Ok(None));
    two.withdraw(SLOT);
    let me = record(one.identity(), OFD);
    for attaching in [false, true] {
        assert_eq!(one.verdict(&me, attaching, 0), Verdict::Alive);
        assert_eq!(two.verdict(&me, attaching, 0), Verdict::Alive);
    }
    one.withdraw(SLOT);
    let rung = rung(me);
    assert_eq!(one.verdict(&rung, false, 0), Verdict::Dead);
    assert_eq!(two.verdict(&rung, false, 0), Verdict::Dead);
    assert!(one.publish(SLOT, EvidenceLock::Alone).unwrap().is_some());
    drop(one);
    assert_eq!(two.verdict(&rung, false, 0), Verdict::Dead);
}

/// The bug: a lock that was gone was proof by itself, so a holder that closed descriptors it did not know, as daemons
/// and sandboxes do, was taken for dead while it wrote.
#[test]
fn a_missing_lock_proves_nothing_while_the_process_runs_or_its_heart_beats() {
    let (_scratch, _path, observer) = scene();
    let me = observer.identity();
    let lost = record(me, OFD.with(PROCESS));
    assert_eq!(observer.verdict(&lost, false, 0), Verdict::Alive, "its process runs");
    // A peer of another PID namespace: only its lock and its heartbeat can be seen.
    let elsewhere = Identity { pid_namespace: 1, ..me };
    let lost = record(elsewhere, OFD.with(PROCESS).with(Evidence::HEARTBEAT));
    assert_eq!(observer.verdict(&lost, false, 0), Verdict::Dead, "it died before it had a heart");
    let never = PeerRecord { death_futex: DeathFutex::NEVER, ..lost };
    assert_eq!(observer.verdict(&never, false, 0), Verdict::Suspect);
    let silent = PeerRecord { death_futex: DeathFutex::of_thread(7), ..lost };
    assert_eq!(observer.verdict(&silent, false, 0), Verdict::Suspect);
    let kept = DeathFutex::of_thread(7).keeping_evidence();
    let leaving = PeerRecord { death_futex: kept.taken_down(), ..lost };
    assert_eq!(observer.verdict(&leaving, false, 0), Verdict::Dead, "it died while it left");
    let kept = PeerRecord { death_futex: kept, ..lost };
    assert_eq!(observer.verdict(&kept, false, 0), Verdict::Suspect, "its heart was just seen");
    assert_eq!(observer.verdict(&rung(lost), false, 0), Verdict::Dead);
    // A descriptor that only the end of its heartbeat thread can have closed, and a heart that stands still, are proof.
    let deadline = Instant::now() + Duration::from_secs(10);
    while observer.verdict(&kept, false, 0) != Verdict::Dead {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    assert_eq!(observer.verdict(&silent, false, 0), Verdict::Suspect);
}

#[test]
fn an_ended_thread_is_dead_and_a_live_one_is_not() {
    let (_scratch, _path, observer) = scene();
    let me = record(observer.identity(), PROCESS);
    let (tell, told) = std::sync::mpsc::channel();
    let (stay, stays) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        tell.send(crate::thread_id()).unwrap();
        let _ = stays.recv();
    });
    let tid = told.recv().unwrap();
    assert!(!observer.thread_has_ended(&me, tid));
    drop(stay);
    thread.join().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !observer.thread_has_ended(&me, tid) {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    // If the process id now belongs to another process, or is in another namespace, there is no verdict.
    let identity = observer.identity();
    let earlier = Identity { start_time: identity.start_time - 1, ..identity };
    let elsewhere = Identity { pid_namespace: 1, ..identity };
    for other in [earlier, elsewhere] {
        assert!(!observer.thread_has_ended(&record(other, PROCESS), tid));
    }
}

/// A kernel that does not see our locks and processes may attach at any time.
#[test]
fn a_heartbeat_is_always_promised() {
    let (_scratch, path, _observer) = scene();
    let platform = LinuxPlatform::new(open(&path).unwrap()).unwrap();
    let evidence = platform.publish(SLOT, EvidenceLock::Alone).unwrap().unwrap();
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

/// Locks bytes of a file as a process can that may only read it.
fn reader(path: &std::path::Path) -> std::fs::File {
    let reader = std::fs::File::open(path).unwrap();
    assert!(ofd_lock::try_share(reader.as_fd(), ofd_lock::LockByte::of_peer(SLOT)).unwrap());
    reader
}

/// The bug: any lock on the byte of a slot counted as its peer's life. So a process that could only read the file could
/// prevent for ever that the locks of a dead peer of another PID namespace were recovered.
#[test]
fn a_lock_that_a_reader_can_take_proves_no_life() {
    let (_scratch, path, observer) = scene();
    let elsewhere = Identity { pid_namespace: 1, ..observer.identity() };
    let peer = rung(record(elsewhere, OFD.with(PROCESS)));
    let living = platform(&path);
    assert!(living.publish(SLOT, EvidenceLock::Alone).unwrap().is_some());
    assert_eq!(observer.verdict(&peer, false, 0), Verdict::Alive);
    drop(living);
    let _reader = reader(&path);
    assert_eq!(observer.verdict(&peer, false, 0), Verdict::Dead);
}

/// While readers have the bytes of all slots locked, evidence is a shared lock. If it is missing, that is proof of
/// death as usual; if there is one, it may be a reader's, and proves nothing.
#[test]
fn evidence_beside_readers_is_proof_when_missing_and_becomes_exclusive_later() {
    let (_scratch, path, observer) = scene();
    let shared = Evidence::SHARED_LOCK.with(PROCESS);
    let elsewhere = Identity { pid_namespace: 1, ..observer.identity() };
    let peer = rung(record(elsewhere, shared));
    let stranger = reader(&path);
    let living = platform(&path);
    assert_eq!(living.publish(SLOT, EvidenceLock::Alone), Ok(None));
    let left = living.publish(SLOT, EvidenceLock::BesideReaders).unwrap();
    assert_eq!(left, Some(shared.with(Evidence::HEARTBEAT)));
    assert_eq!(observer.verdict(&peer, false, 0), Verdict::Suspect);
    // In the same PID namespace there is better evidence.
    let here = record(observer.identity(), shared);
    assert_eq!(observer.verdict(&here, false, 0), Verdict::Alive);
    living.renew_evidence();
    assert_eq!(observer.verdict(&peer, false, 0), Verdict::Suspect, "the reader is still there");
    drop(stranger);
    living.renew_evidence();
    assert_eq!(observer.verdict(&peer, false, 0), Verdict::Alive);
    let late = std::fs::File::open(&path).unwrap();
    assert!(!ofd_lock::try_share(late.as_fd(), ofd_lock::LockByte::of_peer(SLOT)).unwrap());
    drop(living);
    assert_eq!(observer.verdict(&peer, false, 0), Verdict::Dead);
}
