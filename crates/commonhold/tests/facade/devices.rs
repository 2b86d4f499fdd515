//! Memory of devices. Files stand for it, because few test machines have any.
//!
//! The environment names the files that stand for sysfs and `/dev/mem`, so these tests run in scripted processes.

use std::{
    fs,
    fs::File,
    io::{Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use commonhold::{
    Access, Destroy, DeviceError, ErrorKind, FormatOptions, LockError, Mapping, OpenError,
    RegionError, Removal, Space,
};

use crate::support::{
    DEV_MEM, Folder, IN_MEMORY, MEMORY_BASE, MEMORY_SIZE, Role, ScriptedProcess, busy, fails,
    inconsistent, owner_died, say, stay,
};

pub(crate) const ROLES: &[Role] = &[
    ("device-life", live),
    ("device-holder", hold),
    ("device-force", force),
    ("device-claims", claim),
    ("device-speed", measure),
    ("device-cut", open_what_is_cut_short),
];

const PCI_DIR: &str = "COMMONHOLD_PCI_DIR";
const ADDRESS: &str = "0000:00:04.0";
const DEVICE_SIZE: u64 = 4 << 20;

/// The folder that stands for the devices in sysfs, with one ivshmem.
fn sysfs() -> Folder {
    let folder = Folder::new();
    let device = folder.0.join(ADDRESS);
    fs::create_dir(&device).unwrap();
    let resource =
        format!("0x0 0x0 0x0\n0x0 0x0 0x0\n0x800000000 {:#x} 0x14220c\n", 0x8_003f_ffff_u64);
    for (file, text) in
        [("vendor", "0x1af4\n"), ("device", "0x1110\n"), ("enable", "1\n"), ("resource", &resource)]
    {
        fs::write(device.join(file), text).unwrap();
    }
    File::create(device.join("resource2")).unwrap().set_len(DEVICE_SIZE).unwrap();
    folder
}

/// The file that stands for `/dev/mem`, with room for this many spaces.
fn dev_mem(spaces: u64) -> (Folder, PathBuf) {
    // On a file system that can hold such a long file.
    let folder = Folder::in_memory();
    let path = folder.0.join("mem");
    File::create(&path).unwrap().set_len(MEMORY_BASE + spaces * MEMORY_SIZE).unwrap();
    (folder, path)
}

/// The URL of the only range that `dev_mem(1)` has.
fn range() -> String {
    format!("mem:{MEMORY_BASE:#x}+{MEMORY_SIZE:#x}")
}

fn play_on_pci(role: &str) {
    let folder = sysfs();
    let bytes = folder.0.join(ADDRESS).join("resource2");
    let args = ["pci:auto", bytes.to_str().unwrap(), "0"];
    ScriptedProcess::start_with(role, &args, &[(PCI_DIR, &folder.0)]).succeed();
}

fn play_on_memory(role: &str) {
    let (_folder, path) = dev_mem(1);
    let args = [&range(), path.to_str().unwrap(), &MEMORY_BASE.to_string()];
    ScriptedProcess::start_with(role, &args, &[(DEV_MEM, &path)]).succeed();
}

/// The bytes behind a window, read past all mappings.
fn bytes(path: &str, at: u64, len: u64) -> Vec<u8> {
    let mut file = File::open(path).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    let mut bytes = vec![0; len as usize];
    file.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_space_on_a_pci_device_is_formatted_used_locked_and_left_as_zeros() {
    play_on_pci("device-life");
}

#[test]
fn a_space_in_physical_memory_is_formatted_used_locked_and_left_as_zeros() {
    play_on_memory("device-life");
}

fn live(args: &[&str]) {
    let &[url, path, start] = args else { panic!("{args:?}") };
    let start: u64 = start.parse().unwrap();
    fails!(Space::open(url), OpenError::NotASpace { .. });
    fails!(Space::open_or_format(url), OpenError::NotASpace { .. });
    Space::format(url, &FormatOptions::default()).unwrap();
    fails!(Space::format(url, &FormatOptions::default()), OpenError::Exists { .. });
    let space = Space::open_or_format(url).unwrap();
    let info = space.info().unwrap();
    assert_eq!(info.waiting, "poll");
    assert_eq!(info.capacity, info.memory.size);

    space.create("a", 10_000).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    mapping.write_at(5000, b"across").unwrap();
    look_from_all_sides(&space, &mapping, path);
    locks_are_shared(url, &mapping);
    assert_eq!(mapping.offset(), start + space.stat("a").unwrap().offset);
    let (at, len) = (mapping.offset(), mapping.size());
    drop(mapping);
    space.destroy("a", Destroy::Wait).unwrap();
    assert!(bytes(path, at, len).iter().all(|byte| *byte == 0), "what was freed is not zero");
    space.check().unwrap();
}

/// Through the window, a read-only map, the descriptor that others get, and the device itself.
fn look_from_all_sides(space: &Space, mapping: &Mapping, path: &str) {
    let read = |mapping: &Mapping| {
        let mut read = [0; 6];
        mapping.read_at(5000, &mut read).unwrap();
        read
    };
    assert_eq!(&read(mapping), b"across");
    let only = space.map("a", Access::ReadOnly).unwrap();
    assert_eq!(&read(&only), b"across");
    assert_eq!(bytes(path, mapping.offset() + 5000, 6), b"across");
    let mut file = File::from(space.duplicate_fd().unwrap());
    file.seek(SeekFrom::Start(mapping.offset() + 5000)).unwrap();
    let mut read = [0; 6];
    file.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"across");
}

fn locks_are_shared(url: &str, mapping: &Mapping) {
    let holder = ScriptedProcess::start("device-holder", &[url]);
    holder.says("held");
    busy(mapping.try_lock());
    let space = Space::open(url).unwrap();
    let lives =
        space.peers().unwrap().iter().filter(|p| p.state == commonhold::PeerLife::Live).count();
    assert_eq!(lives, 3, "a process of this kernel is seen to live");
    let pid = holder.pid();
    holder.kill();
    assert_eq!(owner_died(mapping.lock()).owner.unwrap().pid, Some(pid));
    inconsistent(mapping.lock_recover()).mark_consistent().unwrap().unlock().unwrap();
}

fn hold(args: &[&str]) {
    let space = Space::open(args[0]).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    let _guard = mapping.lock().unwrap();
    say("held");
    stay();
}

#[test]
fn a_space_on_a_device_is_replaced_only_by_force_and_never_under_live_peers() {
    play_on_pci("device-force");
}

fn force(args: &[&str]) {
    let &[url, path, _] = args else { panic!("{args:?}") };
    let whole = FormatOptions::default();
    let forced = FormatOptions { force: true, ..FormatOptions::default() };
    // Data that are no space, and not at the very beginning.
    let mut old = vec![0; DEVICE_SIZE as usize];
    old[4095] = 1;
    fs::write(path, &old).unwrap();
    fails!(Space::format(url, &whole), OpenError::Exists { found: "data that is no space", .. });
    assert_eq!(fs::read(path).unwrap(), old);
    old[4095] = 0;
    old[3 << 20] = 1;
    fs::write(path, &old).unwrap();
    let small = FormatOptions { capacity: Some(1 << 20), ..FormatOptions::default() };
    Space::format(url, &small).unwrap();
    let after = fs::read(path).unwrap();
    assert_eq!(after[3 << 20], 0, "also what lies beyond the capacity is wiped");

    let space = Space::open(url).unwrap();
    assert_eq!(space.info().unwrap().capacity, 1 << 20);
    space.create("a", 64).unwrap();
    fails!(Space::format(url, &forced), OpenError::InUse { peers: 1, .. });
    assert_eq!(space.regions().unwrap().len(), 1);
    drop(space);
    let large = FormatOptions { capacity: Some(DEVICE_SIZE + 1), force: true, ..whole.clone() };
    fails!(Space::format(url, &large), OpenError::Format(_));
    let impossible = FormatOptions { peers: Some(0), force: true, ..whole };
    fails!(Space::format(url, &impossible), OpenError::Format(_));
    assert_eq!(Space::open(url).unwrap().regions().unwrap().len(), 1, "refused in time");
    Space::format(url, &forced).unwrap();
    assert_eq!(Space::open(url).unwrap().regions().unwrap().len(), 0);
    for removal in [Removal::IfUnused, Removal::Forced] {
        fails!(Space::remove(url, removal), OpenError::NotAFile { .. });
    }
    Space::open(url).unwrap();
    // The bug: a space of another version counted as unused, even while its locks were held.
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&99_u64.to_le_bytes(), 8).unwrap();
    let refused = Space::format(url, &forced);
    fails!(&refused, OpenError::Unknowable { .. });
    assert_eq!(refused.as_ref().unwrap_err().kind(), ErrorKind::InUse);
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("first 8 bytes zero"), "{text}");
    file.write_all_at(&[0; 8], 0).unwrap();
    Space::format(url, &forced).unwrap();
    Space::open(url).unwrap();
}

#[test]
fn a_window_being_formatted_is_refused_until_force_declares_the_formatter_dead() {
    play_on_pci("device-claims");
}

fn claim(args: &[&str]) {
    let &[url, path, _] = args else { panic!("{args:?}") };
    let mut marked = vec![0; DEVICE_SIZE as usize];
    marked[..8].copy_from_slice(b"FORM1234");
    fs::write(path, &marked).unwrap();
    let refused = Space::open(url).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotASpace);
    assert!(refused.to_string().contains("--force"), "{refused}");
    fails!(Space::format(url, &FormatOptions::default()), OpenError::Formatting { .. });
    assert_eq!(fs::read(path).unwrap(), marked);
    let forced = FormatOptions { force: true, ..FormatOptions::default() };
    Space::format(url, &forced).unwrap();
    Space::open(url).unwrap();
}

#[test]
fn memory_of_a_device_is_measured_and_a_file_is_not() {
    play_on_pci("device-speed");
}

fn measure(args: &[&str]) {
    let url = args[0];
    let blank = commonhold::memory_of(url).unwrap();
    assert_eq!((blank.cache, blank.atomic_ns, blank.size), (None, None, DEVICE_SIZE));
    Space::format(url, &FormatOptions::default()).unwrap();
    let memory = Space::open(url).unwrap().info().unwrap().memory;
    assert_eq!(memory.kind, format!("PCI device {ADDRESS}"));
    assert!(matches!(memory.cache, Some("write-back" | "uncached")), "{memory:?}");
    assert!(memory.atomic_ns.is_some() && memory.plain_ns.is_some(), "{memory:?}");
    let scratch = crate::support::Scratch::formatted();
    let memory = scratch.open().info().unwrap().memory;
    assert_eq!((memory.cache, memory.atomic_ns), (Some("page cache"), None));
    assert_eq!(memory.to_string(), "tmpfs, page cache");
}

#[test]
fn memory_that_kills_the_process_on_touch_is_refused_without_a_kill() {
    play_on_pci("device-cut");
}

fn open_what_is_cut_short(args: &[&str]) {
    let &[url, path, _] = args else { panic!("{args:?}") };
    File::options().write(true).open(path).unwrap().set_len(0).unwrap();
    for result in [Space::open(url).map(drop), Space::format(url, &FormatOptions::default())] {
        fails!(result, OpenError::Device(DeviceError::Kills { .. }));
    }
    // What reads as ones only is no memory, unless somebody insists.
    fs::write(path, vec![0xFF; DEVICE_SIZE as usize]).unwrap();
    fails!(Space::open(url), OpenError::Device(DeviceError::AllOnes));
    fails!(Space::format(url, &FormatOptions::default()), OpenError::Exists { .. });
    let forced = FormatOptions { force: true, ..FormatOptions::default() };
    Space::format(url, &forced).unwrap();
    let space = Space::open(url).unwrap();
    fails!(space.create("a", 1 << 30), RegionError::NoSpace { .. });
    fails!(space.map("a", Access::ReadOnly), RegionError::NotFound { .. });
    let mapping = space.map_or_create("a", 8).unwrap();
    let guard = mapping.lock().unwrap();
    fails!(mapping.lock(), LockError::Deadlock(_));
    drop(guard);
}

/// Runs the tests that do not depend on files again.
#[test]
fn regions_locks_events_threads_and_forks_are_the_same_in_memory_of_devices() {
    let (_folder, path) = dev_mem(200);
    let run = run_again(&path, &["regions::", "locks::", "events::", "threads::", "fork::"]);
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}");
    let passed = said.lines().filter(|line| line.ends_with("... ok")).count();
    assert!(passed > 30, "{said}");
}

fn run_again(device: &Path, tests: &[&str]) -> std::process::Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(tests).arg("--test-threads=2").env(IN_MEMORY, "1").env(DEV_MEM, device);
    command.output().unwrap()
}
