//! Two kernels that share a window, as far as one machine can simulate them: processes of the other kernel read
//! another boot id, and find the window in a file that stands for a PCI device. Real kernels are in the tests with
//! virtual machines.

use std::{
    fs,
    os::unix::fs::symlink,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use crate::support::{Folder, Held, Space, commonhold, ends, until};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const OTHER_BOOT: &str = "01234567-89ab-cdef-0123-456789abcdef";
const SIZE: u64 = 8 << 20;

/// A space in a file, which the other kernel sees as a PCI device.
struct Board {
    host: Space,
    folder: Folder,
}

impl Board {
    /// `None`, and a note, if another kernel cannot be simulated here.
    fn new(options: &[&str]) -> Option<Self> {
        let folder = Folder::new();
        let file = folder.0.join("window");
        let device = folder.0.join("pci/0000:00:04.0");
        fs::create_dir_all(&device).unwrap();
        fs::write(folder.0.join("boot_id"), OTHER_BOOT).unwrap();
        fs::write(device.join("vendor"), "0x1af4\n").unwrap();
        fs::write(device.join("device"), "0x1110\n").unwrap();
        fs::write(device.join("enable"), "1\n").unwrap();
        let none = "0x0 0x0 0x0\n";
        let bar = format!("{none}{none}0x800000000 {:#x} 0x14220c\n", 0x8_0000_0000_u64 + SIZE - 1);
        fs::write(device.join("resource"), bar).unwrap();
        symlink(&file, device.join("resource2")).unwrap();
        let host = Space::at(format!("file:{}", file.display()));
        let board = Self { host, folder };
        let mut format = vec!["space", "format", board.host.url.as_str(), "--capacity", "8M"];
        format.extend(options);
        board.host.ends(0, &format);
        let played = board.guest(&["--version"]).output().is_ok_and(|done| done.status.success());
        if !played {
            eprintln!("NOTE: cannot simulate another kernel (root?), so this test proves nothing");
        }
        played.then_some(board)
    }

    /// A command of the other kernel.
    fn guest(&self, args: &[&str]) -> Command {
        let boot_id = self.folder.0.join("boot_id");
        let mount = format!("mount --bind {} {BOOT_ID} && exec \"$@\"", boot_id.display());
        let program = commonhold();
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", &mount, "sh"])
            .arg(program.get_program())
            .args(args)
            .env("COMMONHOLD_SPACE", "pci:auto")
            .env("COMMONHOLD_PCI_DIR", self.folder.0.join("pci"))
            .env_remove("COMMONHOLD_OWNER_DIED")
            .stdin(Stdio::null());
        command
    }

    fn guest_run(&self, args: &[&str]) -> Output {
        self.guest(args).output().unwrap()
    }

    /// A command of the other kernel that holds the lock of `x` until it is released.
    fn guest_holds(&self) -> Held {
        let mut held =
            Held::spawn(self.guest(&["lock", "x", "--", "sh", "-c", "echo held; exec cat"]));
        assert_eq!(held.line(), "held");
        held
    }

    fn holder(&self) -> Value {
        self.host.json(&["locks"])[0]["holder"].clone()
    }
}

#[test]
fn both_kernels_see_each_others_peers_and_wait_for_their_locks() {
    let Some(board) = Board::new(&[]) else { return };
    board.host.ends(0, &["create", "x", "64K"]);
    let ours = fs::read_to_string(BOOT_ID).unwrap().trim().to_owned();
    let holder = board.guest_holds();
    assert_eq!(board.holder()["domain"], OTHER_BOOT);
    let peers = board.host.json(&["peers"]);
    let mut seen: Vec<_> = peers.as_array().unwrap().iter().collect();
    seen.sort_by_key(|peer| peer["domain"] != OTHER_BOOT);
    assert_eq!((&seen[0]["domain"], &seen[0]["state"]), (&OTHER_BOOT.into(), &"live".into()));
    assert_eq!((&seen[1]["domain"], &seen[1]["state"]), (&ours.into(), &"live".into()));
    let waiting = &board.host.json(&["space", "info"])["waiting"];
    assert_eq!(waiting, "futex and poll");

    let mut waiter = board.host.start(&["lock", "x", "--", "true"]);
    board.host.until_waiters("x", 1);
    assert!(waiter.runs());
    assert_eq!(holder.release(), 0);
    assert_eq!(waiter.wait(), 0);
    assert_eq!(board.host.json(&["space", "info"])["waiting"], "futex");

    board.host.feed(&["write", "x"], b"from the host");
    let read = board.guest_run(&["read", "x", "--len", "13"]);
    assert_eq!(ends(0, &read, &["read"]), "from the host");
    ends(0, &board.guest_run(&["destroy", "x"]), &["destroy"]);
    board.host.ends(3, &["stat", "x"]);
    board.host.ends(0, &["create", "x", "64K"]);
    let read = board.guest_run(&["read", "x", "--len", "4"]);
    assert_eq!(ends(0, &read, &["read"]), "\0\0\0\0");
}

#[test]
fn without_a_lease_a_silent_owner_keeps_its_lock_until_it_is_declared_dead() {
    let Some(board) = Board::new(&[]) else { return };
    let mut holder = board.guest_holds();
    let slot = board.holder()["slot"].to_string();
    assert_eq!(board.holder()["alive"], true);
    board.host.ends(5, &["reap", "--assume-dead", &slot]);
    holder.signal("KILL");
    holder.wait();
    until("the silence to be noticed", || board.holder()["state"] == "suspect");
    assert_eq!(board.holder()["alive"], false);
    board.host.ends(6, &["lock", "x", "--timeout", "1500ms", "--", "true"]);
    board.host.ends(0, &["reap"]);
    assert_eq!(board.holder()["slot"].to_string(), slot);

    board.host.ends(3, &["reap", "--assume-dead", "15"]);
    let reaped = board.host.json(&["reap", "--assume-dead", &slot]);
    assert_eq!(reaped["peers"][0]["slot"].to_string(), slot);
    board.host.ends(8, &["lock", "x", "--", "true"]);
    board.host.ends(0, &["lock", "x", "--on-death", "repair", "--", "true"]);
}

/// A kernel can prove the death of its own processes, which another kernel cannot.
#[test]
fn a_death_is_proved_within_its_own_kernel() {
    let Some(board) = Board::new(&[]) else { return };
    let mut holder = board.guest_holds();
    holder.signal("KILL");
    holder.wait();
    let taken = board.guest_run(&["lock", "x", "--on-death", "repair", "--", "true"]);
    ends(0, &taken, &["lock"]);
    board.host.ends(0, &["lock", "x", "--timeout", "0", "--", "true"]);
}

#[test]
fn with_a_lease_a_silent_owner_is_replaced_once_and_is_told_when_it_comes_back() {
    let Some(board) = Board::new(&["--lease", "500ms"]) else { return };
    board.host.ends(2, &["space", "format", &board.host.url, "--lease", "50ms", "--force"]);
    let holder = board.guest_holds();
    holder.signal("STOP");
    let repair = ["lock", "x", "--on-death", "repair", "--", "sh", "-c"];
    let died = "test -n \"$COMMONHOLD_OWNER_DIED\" && echo held && exec cat";
    let mut next = board.host.start(&[&repair[..], &[died]].concat());
    assert_eq!(next.line(), "held");
    holder.signal("CONT");
    // Its unlock changes nothing: the next owner still holds it.
    assert_eq!(holder.release(), 1);
    assert_eq!(board.holder()["pid"], next.pid());
    assert_eq!(next.release(), 0);
    let once = "test -z \"$COMMONHOLD_OWNER_DIED\"";
    board.host.ends(0, &[&repair[..], &[once]].concat());
    let reaped = board.host.json(&["reap"]);
    assert_eq!(reaped["peers"].as_array().unwrap().len(), 1, "{reaped}");
}
