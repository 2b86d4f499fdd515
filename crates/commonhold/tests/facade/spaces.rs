//! Whole spaces: made by several processes at once, kept alive by heartbeats, and outliving their processes.

use std::{fs, time::Duration};

use commonhold::{Access, FormatOptions, LockError, LockPlace, PeerLife, Space};
use commonhold_layout::{FormatOptions as Plan, Geometry, PeerId, peer_word};

use crate::support::{
    Folder, Role, Scratch, ScriptedProcess, fails, inconsistent, listen, owner_died, say, stay,
    until,
};

pub(crate) const ROLES: &[Role] =
    &[("space-open", open_each), ("space-hold", hold), ("space-write", write)];

/// Opens or formats every space that the test names, and says which one it found.
fn open_each(_args: &[&str]) {
    say("ready");
    while let Some(url) = listen() {
        let space = Space::open_or_format(&url).unwrap();
        say(space.info().unwrap().uuid);
        // It stays attached until the next.
        assert!(listen().is_some());
    }
}

#[test]
fn processes_that_make_one_space_at_once_all_end_up_in_the_same() {
    let mut actors = [(); 8].map(|()| ScriptedProcess::start("space-open", &[]));
    for actor in &actors {
        actor.says("ready");
    }
    for _ in 0..10 {
        let scratch = Scratch::new();
        for actor in &mut actors {
            actor.tell(&scratch.url);
        }
        let found: Vec<String> = actors.iter().map(ScriptedProcess::hear).collect();
        assert!(found.iter().all(|uuid| *uuid == found[0]), "{found:?}");
        let space = scratch.open();
        assert_eq!(space.info().unwrap().uuid.to_string(), found[0]);
        assert_eq!(space.peers().unwrap().len(), 9);
        for actor in &mut actors {
            actor.tell("next");
        }
        drop(space);
    }
    for actor in actors {
        actor.succeed();
    }
}

/// Holds the lock of `a`, and stays.
fn hold(args: &[&str]) {
    let space = Space::open(args[0]).unwrap();
    space.set_name("holder").unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    let _guard = mapping.lock().unwrap();
    say(space.peer().0);
    stay();
}

/// The heartbeat of a peer of a space made by `Scratch::tiny`, straight from the file.
fn heartbeat(scratch: &Scratch, slot: u16) -> u64 {
    let plan = Plan {
        capacity: 1 << 20,
        peers: Some(4),
        threads: Some(4),
        regions: Some(16),
        ..Plan::default()
    };
    let record = Geometry::plan(&plan).unwrap().peer(PeerId::new(slot)).unwrap().get() as usize;
    let at = record + 8 * peer_word::HEARTBEAT;
    let bytes = fs::read(scratch.path()).unwrap();
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

#[test]
fn heartbeats_go_on_in_a_space_with_a_lease_and_silent_living_peers_keep_their_locks() {
    let lease = Duration::from_millis(300);
    let scratch = Scratch::with(&FormatOptions { lease: Some(lease), ..Scratch::tiny() });
    let space = scratch.open();
    assert_eq!(space.info().unwrap().lease_ms, 300);
    space.create("a", 64).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    let actor = ScriptedProcess::start("space-hold", &[&scratch.url]);
    let slot: u16 = actor.hear().parse().unwrap();
    let first = heartbeat(&scratch, slot);
    until("three beats", || heartbeat(&scratch, slot) >= first + 3);
    until("our own", || heartbeat(&scratch, space.peer().0) >= 3);
    let is_holder = |place: &LockPlace| {
        let owner = place.owner.as_ref().unwrap();
        (owner.pid, owner.name.as_str(), owner.is_foreign) == (Some(actor.pid()), "holder", false)
    };
    fails!(mapping.lock_for(lease * 3), LockError::TimedOut(place) if is_holder(place));
    let peers = space.peers().unwrap();
    let holder = peers.iter().find(|peer| peer.slot == slot).unwrap();
    assert_eq!((holder.state, holder.name.as_str()), (PeerLife::Live, "holder"));
    // A stopped peer is silent, but its process is proved to live. SAFETY: `kill` wants nothing; the process is our
    // own child.
    assert_eq!(unsafe { libc::kill(actor.pid().cast_signed(), libc::SIGSTOP) }, 0);
    fails!(mapping.lock_for(lease * 3), LockError::TimedOut(place) if is_holder(place));
    let pid = actor.pid();
    actor.kill();
    assert_eq!(owner_died(mapping.lock()).owner.unwrap().pid, Some(pid));
    drop(inconsistent(mapping.lock_recover()).mark_consistent().unwrap());
}

#[test]
fn the_heartbeat_stops_when_the_last_handle_is_dropped() {
    let lease = Some(Duration::from_secs(1));
    let scratch = Scratch::with(&FormatOptions { lease, ..Scratch::tiny() });
    let space = scratch.open();
    let hearts = || {
        fs::read_dir("/proc/self/task")
            .unwrap()
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok())
            .filter(|name| name.trim() == "commonhold-hear")
            .count()
    };
    until("a heart", || hearts() >= 1);
    let slot = space.peer().0;
    drop(space);
    let last = heartbeat(&scratch, slot);
    // Another attachment takes the slot and beats from zero: a beat of the old thread would show.
    let again = scratch.open();
    assert_eq!(again.peer().0, slot);
    drop(again);
    assert!(last < u64::MAX);
    Space::remove(&scratch.url, commonhold::Removal::IfUnused).unwrap();
}

/// Writes data into the space of a file, and then dies or detaches.
fn write(args: &[&str]) {
    let space = Space::open(args[0]).unwrap();
    let mapping = match space.create("data", 10_000) {
        Ok(region) => region.map(Access::ReadWrite).unwrap(),
        Err(_) => space.map("data", Access::ReadWrite).unwrap(),
    };
    let guard = mapping.lock().unwrap();
    mapping.write_at(5_000, args[1].as_bytes()).unwrap();
    say("written");
    stay();
    guard.unlock().unwrap();
}

#[test]
fn a_space_in_a_file_outlives_all_its_processes() {
    let folder = Folder::new();
    let url = folder.url("space");
    let options = FormatOptions { capacity: Some(4 << 20), ..FormatOptions::default() };
    Space::format(&url, &options).unwrap();
    let actor = ScriptedProcess::start("space-write", &[&url, "first"]);
    actor.says("written");
    actor.succeed();
    let read = || {
        let space = Space::open(&url).unwrap();
        let mapping = space.map("data", Access::ReadOnly).unwrap();
        assert_eq!(space.info().unwrap().peers.0, 1);
        (mapping.get::<[u8; 5]>(5_000).unwrap(), mapping.lock().map(drop).is_ok())
    };
    assert_eq!(read(), (*b"first", true));
    // No process is left that saw the writer die: only the file tells.
    let actor = ScriptedProcess::start("space-write", &[&url, "later"]);
    actor.says("written");
    let pid = actor.pid();
    actor.kill();
    assert_eq!(read(), (*b"later", false));
    let space = Space::open(&url).unwrap();
    let mapping = space.map("data", Access::ReadOnly).unwrap();
    // It tells the second caller as well, and still names the writer.
    assert_eq!(owner_died(mapping.lock()).owner.unwrap().pid, Some(pid));
    drop(inconsistent(mapping.lock_recover()).mark_consistent().unwrap());
    drop(mapping.lock().unwrap());
    space.check().unwrap();
    drop((mapping, space));
    Space::remove(&url, commonhold::Removal::IfUnused).unwrap();
    assert!(fs::read_dir(&folder.0).unwrap().next().is_none());
}

#[test]
fn each_dead_peer_is_reaped_once_with_its_name() {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    space.create("a", 64).unwrap();
    let actor = ScriptedProcess::start("space-hold", &[&scratch.url]);
    let slot: u16 = actor.hear().parse().unwrap();
    let pid = actor.pid();
    assert!(space.reap().unwrap().peers.is_empty());
    actor.kill();
    let reaped = space.reap().unwrap().peers;
    assert_eq!(reaped.len(), 1);
    assert_eq!((reaped[0].slot, reaped[0].pid, reaped[0].name.as_str()), (slot, pid, "holder"));
    assert_eq!(space.reap().unwrap(), commonhold::Reaped::default());
    assert_eq!(space.info().unwrap().peers.0, 1);
}
