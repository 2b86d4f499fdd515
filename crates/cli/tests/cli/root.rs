//! Tests that need root: a full file system, and several PID namespaces.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use crate::support::{Folder, Held, Space, kill, until};

/// Whether this is root; if not, a note says that the test cannot run.
pub(crate) fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    let root = id.stdout == b"0\n";
    if !root {
        eprintln!("NOTE: not root, so this test proves nothing");
    }
    root
}

/// A tmpfs for a test, unmounted when this is dropped.
pub(crate) struct Tmpfs(Folder);

impl Tmpfs {
    /// `None`, and a note, if mounting is not allowed.
    pub(crate) fn mount(size: &str) -> Option<Self> {
        Self::mount_as("tmpfs", &format!("size={size}"))
    }

    /// The same with another kind of file system in memory.
    pub(crate) fn mount_as(kind: &str, options: &str) -> Option<Self> {
        let folder = Folder::new();
        let mounted = Command::new("mount")
            .args(["-t", kind, "-o", options, kind])
            .arg(&folder.0)
            .stderr(Stdio::null())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(folder));
        }
        eprintln!("NOTE: cannot mount a {kind}, so this test proves nothing");
        None
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0.0
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

#[test]
fn a_full_file_system_fails_the_create_with_7_and_never_a_touch_later() {
    let Some(tmpfs) = is_root().then(|| Tmpfs::mount("24m")).flatten() else { return };
    let space = Space::within(tmpfs.path());
    space.ends(0, &["space", "format", &space.url, "--capacity", "1G"]);
    let mut made = Vec::new();
    loop {
        let name = format!("r{}", made.len());
        let output = space.run(&["create", &name, "4M"]);
        match output.status.code() {
            Some(0) => made.push(name),
            code => {
                assert_eq!(code, Some(7), "{}", String::from_utf8_lossy(&output.stderr));
                break;
            }
        }
        assert!(made.len() < 7, "24 MiB hold no more than five regions of 4 MiB");
    }
    assert!(!made.is_empty());
    assert_eq!(space.json(&["ls"]).as_array().unwrap().len(), made.len());
    // All memory of the created regions can be touched.
    for name in &made {
        let output = space.feed(&["write", name], &vec![b'x'; 4 << 20]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
    space.ends(0, &["destroy", &made[0]]);
    space.ends(0, &["create", "again", "4M"]);
}

/// Starts a command as process 1 of a new PID namespace.
fn alone(space: &Space, args: &[&str]) -> Option<Held> {
    let allowed = Command::new("unshare")
        .args(["-pf", "--mount-proc", "true"])
        .stderr(Stdio::null())
        .status();
    if !allowed.is_ok_and(|status| status.success()) {
        eprintln!("NOTE: cannot make PID namespaces, so this test proves nothing");
        return None;
    }
    let mut command = Command::new("unshare");
    command
        .args(["-pf", "--mount-proc", "--kill-child"])
        .arg(env!("CARGO_BIN_EXE_commonhold"))
        .args(args)
        .env("COMMONHOLD_SPACE", &space.url);
    Some(Held::spawn(command))
}

/// The process id of the process in the namespace, as seen from outside.
fn inside(held: &Held) -> u32 {
    let pid = held.pid();
    let mut child = None;
    until("the namespace", || {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        child = children.unwrap_or_default().split_whitespace().next().and_then(|c| c.parse().ok());
        child.is_some()
    });
    child.unwrap()
}

#[test]
fn a_living_owner_keeps_its_lock_when_a_waiter_of_another_pid_namespace_dies() {
    if !is_root() {
        return;
    }
    let space = Space::new();
    space.ends(0, &["create", "x", "0"]);
    let Some(owner) = alone(&space, &["lock", "x", "--", "cat"]) else { return };
    space.until_held("x");
    let holder = space.json(&["locks"])[0]["holder"].clone();
    assert_eq!(holder["pid"], 1, "the owner is process 1 of its namespace");

    // A waiter that is also process 1, of another namespace, dies. That says nothing about the owner.
    let Some(mut waiter) = alone(&space, &["lock", "x", "--", "true"]) else { return };
    space.until_waiters("x", 1);
    kill("KILL", inside(&waiter));
    waiter.wait();
    space.ends(0, &["reap"]);
    space.ends(6, &["lock", "x", "--timeout", "200ms", "--", "true"]);
    assert_eq!(space.json(&["locks"])[0]["holder"], holder);

    // The owner dies: the waiter of the other namespace is told.
    let Some(mut waiter) = alone(&space, &["lock", "x", "--", "true"]) else { return };
    space.until_waiters("x", 1);
    assert!(waiter.runs());
    kill("KILL", inside(&owner));
    assert_eq!(waiter.wait(), 8);
    space.ends(0, &["lock", "x", "--on-death", "repair", "--", "true"]);
    space.ends(0, &["lock", "x", "--timeout", "0", "--", "true"]);
}
