//! Memory that runs out, and the places where spaces can lie.

use super::scripted_process::*;
use crate::{
    CreateError, HostError, LinuxPlatform, MemoryKind, NewWindow, Owners, Url, create,
    memory::FileLocation, peek, replace, scratch::Scratch, seize,
};
use commonhold_layout::{Evidence, Extent, Offset};
use commonhold_space::{BackingMemory, BackingMemoryError, EvidenceLock, LivenessEvidence, Touch};
use rustix::{
    mount::{MountFlags, UnmountFlags, mount, unmount},
    process::{Resource, Rlimit, setrlimit},
};
use std::{
    env,
    ffi::CString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::Ordering,
    time::Duration,
};

/// A file system of its own, for one test.
struct Mounted {
    path: PathBuf,
    _scratch: Scratch,
}

impl Mounted {
    fn new(kind: &str, options: &str) -> Option<Self> {
        let scratch = Scratch::new();
        let path = scratch.path("mount");
        std::fs::create_dir(&path).unwrap();
        let options = CString::new(options).unwrap();
        match mount("none", &path, kind, MountFlags::empty(), options.as_c_str()) {
            Ok(()) => Some(Self { path, _scratch: scratch }),
            Err(errno) => {
                eprintln!(
                    "note: not tested: mounting {kind} needs root, or is forbidden ({errno})"
                );
                None
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(&self.path, UnmountFlags::DETACH);
    }
}

#[test]
fn a_full_tmpfs_is_an_error_at_commit_and_no_signal_later() {
    let Some(mounted) = Mounted::new("tmpfs", "size=64k") else { return };
    let place = FileLocation::of_path(&mounted.path.join("space"));
    let new = NewWindow { capacity: 1 << 30, mode: 0o600 };
    let (mapped, ()) = place.create(new, |_| Ok::<_, HostError>(())).unwrap();
    let large = Extent::new(0, 1 << 20).unwrap();
    assert_eq!(mapped.commit(large), Err(BackingMemoryError::Full { errno: libc::ENOSPC }));
    let small = Extent::new(4096, 8192).unwrap();
    mapped.commit(small).unwrap();
    mapped.window().write(small.start(), &[1; 8192]).unwrap();
    mapped.release(large).unwrap();
    mapped.commit(small).unwrap();
    let mut byte = [9];
    mapped.window().read(Offset::new(5000).unwrap(), &mut byte).unwrap();
    assert_eq!(byte, [0]);
}

/// The flags of the mappings of a file, as the kernel shows them.
fn flags_of(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut ours = false;
    let mut flags = Vec::new();
    for line in text.lines() {
        // A mapping begins with a line of its addresses; the lines about it begin with a name and a colon.
        if line.split_whitespace().next().is_some_and(|word| !word.ends_with(':')) {
            ours = line.ends_with(path.to_str().unwrap());
        } else if let Some(found) = line.strip_prefix("VmFlags:").filter(|_| ours) {
            flags.push(found.to_owned());
        }
    }
    flags
}

/// The bug: a core dump of a process that maps 64 GiB of holes took minutes, and memory for all of them.
#[test]
fn no_core_dump_holds_a_window_or_a_part_of_one() {
    let scratch = Scratch::new();
    let path = scratch.path("space");
    let mapped = scratch.window("space", 1 << 20);
    let part = mapped.map_read_only(Extent::new(4096, 10).unwrap()).unwrap();
    let flags = flags_of(&path);
    assert_eq!(flags.len(), 2, "the window and its part");
    for flags in flags {
        assert!(flags.split_whitespace().any(|flag| flag == "dd"), "{flags}");
    }
    drop(part);
}

#[test]
fn a_look_takes_no_memory_and_a_use_takes_what_is_missing() {
    let scratch = Scratch::new();
    let mapped = scratch.window("space", 1 << 20);
    let (all, one) = (Extent::new(0, 1 << 20).unwrap(), Extent::new(8192, 8).unwrap());
    assert_eq!(mapped.back(one, Touch::Look), Err(BackingMemoryError::Hole));
    assert_eq!(mapped.resident(all), Some(0));
    let mut bytes = [7; 16];
    mapped.read_past_holes(one.start(), &mut bytes).unwrap();
    assert_eq!((bytes, mapped.resident(all)), ([0; 16], Some(0)));
    mapped.back(one, Touch::Use).unwrap();
    mapped.window().write(one.start(), b"x").unwrap();
    mapped.back(one, Touch::Look).unwrap();
    mapped.read_past_holes(one.start(), &mut bytes).unwrap();
    assert_eq!((bytes[0], mapped.resident(all)), (b'x', Some(4096)));
    // An extent that was cut off is an error here; touching it would be a signal.
    rustix::fs::ftruncate(mapped.file().unwrap(), 4096).unwrap();
    assert!(mapped.read_past_holes(one.start(), &mut bytes).is_err());
}

#[test]
fn huge_pages_round_sizes_up_and_run_out_with_an_error() {
    let Some(mounted) = Mounted::new("hugetlbfs", "pagesize=2M") else { return };
    let path = mounted.path.join("space");
    let new = NewWindow { capacity: (1 << 36) + 1, mode: 0o600 };
    let (mapped, ()) =
        FileLocation::of_path(&path).create(new, |_| Ok::<_, HostError>(())).unwrap();
    assert_eq!(mapped.kind(), MemoryKind::Hugetlbfs { page_size: 2 << 20 });
    assert_eq!(mapped.window().len(), (1 << 36) + (2 << 20));
    assert_eq!(mapped.peek().unwrap().words[0], 0);

    let free = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    if free.is_ok_and(|text| text.trim() != "0") {
        mapped.commit(Extent::new(0, 4096).unwrap()).unwrap();
        mapped.window().write(Offset::ZERO, b"x").unwrap();
        assert_eq!(mapped.peek().unwrap().words[0], u64::from(b'x'));
    } else {
        eprintln!("note: not tested: writing, since there are no free huge pages");
    }
    let all = Extent::new(0, 1 << 36).unwrap();
    assert!(matches!(mapped.commit(all), Err(BackingMemoryError::Full { .. })));
    let map = mapped.map_read_only(Extent::new(4096, 10).unwrap()).unwrap();
    assert_eq!(map.len(), 10);
    mapped.release(all).unwrap();
    drop(map);
    // Locks and waiting work here as they do on any local file.
    drop(mapped);
    assert_eq!(hold(&path).waiting_name(false), "futex");
}

#[test]
fn a_space_can_lie_on_the_disk_of_temporary_files() {
    let scratch = Scratch::below(&env::temp_dir());
    let place = FileLocation::of_path(&scratch.path("space"));
    let new = NewWindow { capacity: 1 << 20, mode: 0o600 };
    let (mapped, ()) = place.create(new, |_| Ok::<_, HostError>(())).unwrap();
    let extent = Extent::new(4096, 8192).unwrap();
    mapped.commit(extent).unwrap();
    mapped.window().write(extent.start(), b"x").unwrap();
    mapped.release(extent).unwrap();
    mapped.commit(extent).unwrap();
    assert_eq!(mapped.window().word(extent.start()).unwrap().load(Ordering::Relaxed), 0);
    let proof = mapped.kind().locks_are_proof();
    let platform = LinuxPlatform::new(mapped).unwrap();
    let evidence = platform.publish(SLOT, EvidenceLock::Alone).unwrap().unwrap();
    assert_eq!(evidence.contains(Evidence::OFD_LOCK), proof);
}

#[test]
fn a_window_that_does_not_fit_in_the_address_space_is_an_error() {
    let scratch = Scratch::new();
    drop(scratch.window("space", 64 << 30));
    ScriptedProcess::play("limit", &scratch.path("space")).succeed();
}

pub(super) fn open_under_a_limit(path: &Path) {
    assert!(open(path).is_ok());
    let limit = Rlimit { current: Some(8 << 30), maximum: Some(8 << 30) };
    setrlimit(Resource::As, limit).unwrap();
    let error = open(path).unwrap_err();
    assert!(matches!(error, HostError::Call { call: "mmap", .. }));
    assert_eq!(error.errno(), Some(libc::ENOMEM));
    assert!(error.is_full());
    assert!(error.to_string().contains("ulimit"));
}

#[test]
fn shm_spaces_can_lie_in_another_directory() {
    let scratch = Scratch::new();
    let program = env::current_exe().unwrap();
    let status = Command::new(program)
        .args(["--exact", &role_test(), "--nocapture"])
        .env(ROLE, "shm")
        .env(PATH, "unused")
        .env("COMMONHOLD_SHM_DIR", scratch.path(""))
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    assert!(scratch.path("commonhold-left").exists());
}

pub(super) fn use_another_directory() {
    let url: Url = "shm:here".parse().unwrap();
    let new = NewWindow { capacity: 4097, mode: 0o640 };
    assert!(matches!(crate::open(&url, Owners::Trusted), Err(HostError::NotFound { .. })));
    let (mapped, answer) = create(&url, new, |_| Ok::<_, HostError>(42)).unwrap();
    assert_eq!((mapped.window().len(), answer), (8192, 42));
    let again = create(&url, new, |_| Ok::<_, HostError>(42));
    assert!(matches!(again, Err(CreateError::Host(HostError::Exists { .. }))));
    let soon = Duration::from_secs(10);
    replace(&url, (Owners::Trusted, soon), new, |_| Ok::<_, HostError>(()), |_| Ok(())).unwrap();
    assert_eq!(peek(&url, Owners::Trusted).unwrap().size, 8192);
    assert!(crate::open(&url, Owners::Trusted).is_ok());
    seize(&url, Owners::Trusted, soon).unwrap().unlink().unwrap();
    assert!(matches!(seize(&url, Owners::Trusted, soon), Err(HostError::NotFound { .. })));
    let left: Url = "shm:left".parse().unwrap();
    create(&left, new, |_| Ok::<_, HostError>(())).unwrap();
}

#[test]
fn schemes_of_later_versions_are_refused_by_name() {
    let error = crate::open(&"unix:/a".parse().unwrap(), Owners::Trusted).unwrap_err();
    assert_eq!(error.to_string(), "unix: is not supported yet");
}

#[test]
fn device_memory_is_neither_created_nor_removed_nor_read_as_a_file() {
    let new = NewWindow { capacity: 1 << 20, mode: 0o600 };
    for text in ["mem:4G+1M", "pci:auto"] {
        let url: Url = text.parse().unwrap();
        assert!(matches!(peek(&url, Owners::Trusted), Err(HostError::NotAFile { .. })));
        assert!(matches!(
            seize(&url, Owners::Trusted, Duration::ZERO),
            Err(HostError::NotAFile { .. })
        ));
        let made = create(&url, new, |_| Ok::<_, HostError>(()));
        assert!(matches!(made, Err(CreateError::Host(HostError::NotAFile { .. }))));
    }
}
