//! Commands while a stopped peer holds the directory mutex, or while a region stays mapped: each command ends, by
//! itself or at a signal.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt,
    path::PathBuf,
};

use commonhold_layout::{Geometry, LockFlags, LockWord, RegionId, header_word, region_word};

use crate::support::{Folder, Held, Space, kill};

/// A space in a file, with a stopped peer that holds the directory mutex.
struct Stopped {
    space: Space,
    holder: Held,
    file: File,
    _folder: Folder,
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = std::panic::catch_unwind(|| self.go_on());
    }
}

fn words(file: &File, at: u64) -> u64 {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, at).unwrap();
    u64::from_le_bytes(bytes)
}

fn geometry(file: &File) -> Geometry {
    let header: Vec<u64> = (0..32).map(|word| words(file, 8 * word)).collect();
    Geometry::check(&header.try_into().unwrap(), file.metadata().unwrap().len()).unwrap()
}

fn space_in(folder: &Folder, options: &[&str]) -> (Space, PathBuf) {
    let path = folder.0.join("space");
    let space = Space::at(format!("file:{}", path.display()));
    let mut args = vec!["space", "format", &space.url];
    args.extend(options);
    space.ends(0, &args);
    (space, path)
}

impl Stopped {
    /// The peer holds the lock of a region. This test copies that lock word into the directory mutex, so that the peer
    /// holds it too.
    fn new() -> Self {
        let folder = Folder::new();
        let (space, path) = space_in(&folder, &["--capacity", "16M"]);
        for (name, size) in [("there", "4K"), ("spare", "4K"), ("later", "4K"), ("used", "4K")] {
            space.ends(0, &["create", name, size]);
        }
        let mut holder = space.start(&["lock", "used", "--", "sh", "-c", "echo held; exec cat"]);
        assert_eq!(holder.line(), "held");
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let entry = space.json(&["stat", "used"])["entry"].as_u64().unwrap();
        let entry = geometry(&file).region(RegionId::new(entry.try_into().unwrap())).unwrap();
        let word = words(&file, entry.get() + 8 * region_word::LOCK as u64);
        let word = LockWord::from_word(word).with_flags(LockFlags::NONE);
        assert!(word.is_owned());
        kill("STOP", holder.pid());
        file.write_all_at(&word.word().to_le_bytes(), 8 * header_word::DIRECTORY_LOCK as u64)
            .unwrap();
        Self { space, holder, file, _folder: folder }
    }

    /// Frees the directory mutex, and continues the holder.
    fn go_on(&self) {
        self.file.write_all_at(&[0; 8], 8 * header_word::DIRECTORY_LOCK as u64).unwrap();
        kill("CONT", self.holder.pid());
    }
}

/// The story: while a peer was stopped in the middle of a create, `destroy --timeout 0`, `destroy --defer`, `resize`,
/// `reap`, `space info`, every new attachment and `lock NEW --timeout 0` waited until it was continued.
#[test]
fn every_command_ends_while_a_stopped_peer_holds_the_directory() {
    let stopped = Stopped::new();
    for args in [
        &["ls"][..],
        &["stat", "there"],
        &["space", "info"],
        &["peers"],
        &["locks"],
        &["locks", "--graph"],
        &["reap"],
        &["read", "there"],
        &["lock", "there", "--timeout", "0", "--", "true"],
        &["map", "there", "--", "true"],
        &["destroy", "spare", "--timeout", "0"],
        &["destroy", "later", "--defer"],
    ] {
        stopped.space.ends_by_itself(0, args);
    }
    stopped.space.ends_by_itself(3, &["stat", "absent"]);
    stopped.space.ends_by_itself(3, &["map", "absent", "--", "true"]);
    stopped.space.ends_by_itself(3, &["destroy", "absent"]);
    for args in [
        &["create", "new", "4K"][..],
        &["resize", "there", "0"],
        &["lock", "new", "--timeout", "0", "--", "true"],
        &["lock", "new", "--", "true"],
        &["destroy", "used", "--timeout", "0"],
    ] {
        let said = stopped.space.ends_by_itself(6, args);
        let hint = format!("kill -CONT {}", stopped.holder.pid());
        assert!(said.contains(&hint), "{args:?} said: {said}");
    }
    stopped.go_on();
    for args in
        [&["create", "spare", "4K"][..], &["create", "later", "4K"], &["create", "new", "0"]]
    {
        stopped.space.ends(0, args);
    }
}

/// The story: `lock NAME --timeout 0` while a `destroy` of NAME was stopped ended in time, but did not say which
/// process destroys the region.
#[test]
fn a_timeout_names_the_process_that_destroys_the_region() {
    let space = Space::new();
    space.ends(0, &["create", "going", "4K"]);
    let mut mapper = space.start(&["map", "going", "--", "sh", "-c", "echo held; exec cat"]);
    assert_eq!(mapper.line(), "held");
    let destroyer = space.start(&["destroy", "going"]);
    crate::support::until("the region to be on its way out", || {
        space.json(&["stat", "going"])["state"] == "destroying"
    });
    kill("STOP", destroyer.pid());
    let said = space.ends_by_itself(6, &["lock", "going", "--timeout", "0", "--", "true"]);
    assert!(said.contains(&format!("(pid {},", destroyer.pid())), "{said}");
    kill("CONT", destroyer.pid());
}

/// Sends a signal to a command as soon as it has attached, and returns its status.
fn ended_by(space: &Space, args: &[&str], signal: &str) -> i32 {
    let mut waiter = space.start(args);
    // It waits as soon as it has attached; the signal must end it then, or before. (`peers` cannot be used here: it
    // listens for heartbeats, which takes about as long as the wait itself.)
    crate::support::until("the space to be mapped", || {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", waiter.pid()));
        maps.is_ok_and(|maps| maps.contains("commonhold-"))
    });
    waiter.signal(signal);
    waiter.wait()
}

#[test]
fn a_signal_ends_a_command_that_waits_for_a_stopped_peer() {
    let stopped = Stopped::new();
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        for args in [
            &["create", "new", "4K"][..],
            &["lock", "new", "--", "true"],
            &["resize", "there", "0"],
        ] {
            // On a busy machine the signal may come after the command's own time is up; one that ignores signals has
            // that end each time.
            let ended =
                (0..20).map(|_| ended_by(&stopped.space, args, signal)).find(|end| *end != 6);
            assert_eq!(ended, Some(code), "{args:?} at {signal}");
        }
    }
}

/// The story: while a region was being destroyed, or was destroyed with `--defer` and still mapped, `lock NAME
/// --timeout 0` retried for ever, and ignored signals meanwhile.
#[test]
fn a_lock_of_a_region_that_is_being_destroyed_keeps_its_timeout_and_notices_signals() {
    let space = Space::new();
    for (name, how) in [("deferred", &["--defer"][..]), ("awaited", &[])] {
        space.ends(0, &["create", name, "4K"]);
        let mut user = space.start(&["map", name, "--", "sh", "-c", "echo mapped; exec cat"]);
        assert_eq!(user.line(), "mapped");
        let mut args = vec!["destroy", name];
        args.extend(how);
        let destroyer = space.start(&args);
        crate::support::until("the region to be on its way out", || {
            space.json(&["stat", name])["state"] == "destroying"
        });
        space.ends_by_itself(6, &["lock", name, "--timeout", "0", "--", "true"]);
        space.ends_by_itself(6, &["lock", name, "--timeout", "300ms", "--", "true"]);
        for (signal, code) in [("INT", 130), ("TERM", 143)] {
            let mut waiter = space.start(&["lock", name, "--", "true"]);
            crate::support::until("a peer", || {
                let peers = space.json(&["peers"]);
                peers.as_array().unwrap().iter().any(|peer| peer["pid"] == waiter.pid())
            });
            waiter.signal(signal);
            assert_eq!(waiter.wait(), code, "{name} at {signal}");
        }
        // Once the region is gone, a waiting command creates it again.
        let mut waiter = space.start(&["lock", name, "--", "true"]);
        assert_eq!(user.release(), 0);
        assert_eq!(waiter.wait(), 0);
        drop(destroyer);
        space.ends(0, &["destroy", name]);
    }
}

/// The story: a region was destroyed with `--defer`, and its last user was killed. Its memory stayed taken until a
/// `reap`, or until the same name was used again.
#[test]
fn a_deferred_region_whose_last_user_was_killed_is_freed_by_the_next_operation_of_any_peer() {
    let space = Space::new();
    for (name, next) in
        [("a", &["create", "other", "4K"][..]), ("b", &["destroy", "other"]), ("c", &["ls"])]
    {
        space.ends(0, &["create", name, "4K"]);
        let mut user = space.start(&["map", name, "--", "sh", "-c", "echo mapped; exec cat"]);
        assert_eq!(user.line(), "mapped");
        space.ends(0, &["destroy", name, "--defer"]);
        user.signal("KILL");
        assert_eq!(user.wait(), 137);
        space.ends(0, next);
        space.ends(3, &["stat", name]);
    }
}
