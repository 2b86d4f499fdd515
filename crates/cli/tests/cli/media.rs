//! Full file systems, memory limits, and numbers in a space that claim memory: they cause errors, and never a signal.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use commonhold_layout::{Geometry, PeerId, header_word, peer_word, region_word};

use crate::{
    root::{Tmpfs, is_root},
    support::{Folder, Held, Space, commonhold, ends, unique},
};

/// A memory cgroup (version 1) for a test, removed when this is dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    /// `None`, and a note, if a cgroup cannot be made here.
    fn new(limit: u64) -> Option<Self> {
        let folder = Path::new("/sys/fs/cgroup/memory").join(format!("commonhold-{}", unique()));
        let made = std::fs::create_dir(&folder)
            .and_then(|()| std::fs::write(folder.join("memory.limit_in_bytes"), limit.to_string()));
        if let Err(error) = made {
            eprintln!("NOTE: no memory cgroup of version 1 ({error}), so this test proves nothing");
            return None;
        }
        Some(Self(folder))
    }

    /// Runs a command on the space in this cgroup.
    fn run(&self, space: &Space, args: &[&str]) -> Output {
        let inner = space.command(args);
        let mut command = Command::new("sh");
        let script = "echo $$ > \"$0\" && exec \"$@\"";
        command.args(["-c", script]).arg(self.0.join("cgroup.procs")).arg(inner.get_program());
        command.args(inner.get_args());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.output().unwrap()
    }

    /// The most bytes that were charged to it at any time.
    fn peak(&self) -> u64 {
        let text = std::fs::read_to_string(self.0.join("memory.max_usage_in_bytes")).unwrap();
        text.trim().parse().unwrap()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// The file of a space, and the tables in it.
struct Bytes {
    file: File,
    geometry: Geometry,
}

impl Bytes {
    fn new(tmpfs: &Tmpfs, space: &Space) -> Self {
        let name = space.url.replacen("shm:", "commonhold-", 1);
        let path = tmpfs.path().join(name);
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let mut bytes = [0; 256];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let mut words = [0; 32];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(chunk.try_into().unwrap());
        }
        let geometry = Geometry::check(&words, file.metadata().unwrap().len()).unwrap();
        Self { file, geometry }
    }

    fn set(&self, at: u64, word: usize, value: u64) {
        self.file.write_all_at(&value.to_le_bytes(), at + 8 * word as u64).unwrap();
    }

    /// How many bytes of memory the file has.
    fn taken(&self) -> u64 {
        self.file.metadata().unwrap().blocks() * 512
    }
}

/// Takes all the memory that a file system has left.
fn fill(tmpfs: &Tmpfs) {
    let file = File::create(tmpfs.path().join("filler")).unwrap();
    let block = vec![1; 4096];
    let mut at = 0;
    while file.write_all_at(&block, at).is_ok() {
        at += block.len() as u64;
    }
}

#[track_caller]
fn refused(code: i32, output: &Output, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{:?}: {said}", output.status);
    for word in words {
        assert!(said.contains(word), "{word:?} is missing: {said}");
    }
}

/// The story: `create` took memory in pieces of 16 MiB until there was no more, and then gave it back. For a moment,
/// other processes had none.
#[test]
fn a_region_too_large_for_the_file_system_is_refused_before_memory_is_taken() {
    let Some(tmpfs) = is_root().then(|| Tmpfs::mount("500m")).flatten() else { return };
    let Some(cgroup) = Cgroup::new(2 << 30) else { return };
    let space = Space::within(tmpfs.path());
    let numbers =
        ["MiB cannot be had", "MiB free on the file system", "available in the machine", "--force"];
    refused(7, &cgroup.run(&space, &["create", "x", "600M"]), &numbers);
    assert!(cgroup.peak() < 100 << 20, "{} bytes were taken", cgroup.peak());
    // The same when a region grows.
    space.ends(0, &["create", "r", "4K", "--reserve", "1G"]);
    refused(7, &cgroup.run(&space, &["resize", "r", "600M"]), &numbers);
    assert!(cgroup.peak() < 100 << 20, "{} bytes were taken", cgroup.peak());
    assert_eq!(space.json(&["stat", "r"])["size"], 4096);
    // With --force it is tried.
    for args in [&["create", "x", "600M", "--force"][..], &["resize", "r", "600M", "--force"]] {
        refused(7, &cgroup.run(&space, args), &["No space left on device"]);
    }
    assert!(cgroup.peak() > 100 << 20);
    assert_eq!(space.json(&["ls"]).as_array().unwrap().len(), 1);
}

/// The story: on a tmpfs larger than all memory, a `create` that was too large brought the whole machine down. In a
/// container it killed the creator, and the memory stayed charged.
#[test]
fn a_region_too_large_for_the_memory_cgroup_is_refused_and_no_process_is_killed() {
    let Some(tmpfs) = is_root().then(|| Tmpfs::mount("60g")).flatten() else { return };
    for (limit, size) in [(2 << 30, "50G"), (64 << 20, "100M")] {
        let Some(cgroup) = Cgroup::new(limit) else { return };
        let space = Space::within(tmpfs.path());
        space.ends(0, &["space", "format", &space.url]);
        let numbers =
            ["free on the file system", "available in the machine", "left in the memory cgroup"];
        refused(7, &cgroup.run(&space, &["create", "x", size]), &numbers);
        assert!(cgroup.peak() < limit / 2, "{} bytes were taken", cgroup.peak());
        assert_eq!(space.json(&["ls"]), serde_json::json!([]));
        // A region that fits is created there.
        ends(0, &cgroup.run(&space, &["create", "y", "16M"]), &["create"]);
        let info = cgroup.run(&space, &["--json", "space", "info"]);
        let info: serde_json::Value = serde_json::from_slice(&info.stdout).unwrap();
        assert_eq!(info["cgroup_limit"], limit);
        assert!(info["cgroup_left"].as_u64().unwrap() < limit - (16 << 20), "{info}");
    }
}

/// The tables of a space may be large, too.
#[test]
fn tables_that_do_not_fit_are_refused_before_memory_is_taken() {
    let Some(tmpfs) = is_root().then(|| Tmpfs::mount("24m")).flatten() else { return };
    let space = Space::within(tmpfs.path());
    let format = ["space", "format", &space.url, "--peers", "4096"];
    refused(7, &space.run(&format), &["129 MiB cannot be had: 24 MiB free", "fewer peers"]);
    space.ends(3, &["ls"]);
}

/// The story: the first word was written before there was memory for it.
#[test]
fn formatting_without_memory_is_status_7_and_no_signal() {
    if !is_root() {
        return;
    }
    if let Some(tmpfs) = Tmpfs::mount("1m") {
        fill(&tmpfs);
        let space = Space::within(tmpfs.path());
        for force in [&[][..], &["--force"]] {
            let format = ["space", "format", &space.url, "--capacity", "64M"];
            refused(7, &space.run(&[&format, force].concat()), &[]);
            space.ends(3, &["ls"]);
        }
    }
    let free = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    if free.is_ok_and(|free| free.trim() == "0")
        && let Some(huge) = Tmpfs::mount_as("hugetlbfs", "pagesize=2M")
    {
        let url = format!("file:{}", huge.path().join("space").display());
        for force in [&[][..], &["--force"]] {
            let format = ["space", "format", &url, "--capacity", "64M"];
            let output = commonhold().args(format).args(force).output().unwrap();
            refused(7, &output, &[]);
        }
    }
}

/// The story: another peer raised the numbers of used entries and share words. A process that read the entries beyond
/// the real ones touched holes, and on a full tmpfs it was killed by SIGBUS.
#[test]
fn counts_that_claim_memory_are_damage_and_cause_no_signal() {
    let Some(tmpfs) = is_root().then(|| Tmpfs::mount("24m")).flatten() else { return };
    let space = Space::within(tmpfs.path());
    space.ends(0, &["create", "x", "4K"]);
    space.ends(0, &["read", "x"]);
    let bytes = Bytes::new(&tmpfs, &space);
    fill(&tmpfs);

    // The rows of all slots that never had a peer.
    let peers = bytes.geometry.peers();
    for peer in 1..peers {
        let record = bytes.geometry.peer(PeerId::new(peer)).unwrap().get();
        bytes.set(record, peer_word::SHARES_USED, bytes.geometry.regions().into());
    }
    bytes.set(0, header_word::PEERS_USED, peers.into());
    for args in [&["ls"][..], &["stat", "x"], &["peers"], &["locks"], &["locks", "--graph"]] {
        space.ends(0, args);
    }
    space.ends(0, &["resize", "x", "0"]);
    space.ends(0, &["destroy", "x"]);

    bytes.set(0, header_word::REGIONS_USED, bytes.geometry.regions().into());
    for args in [&["ls"][..], &["space", "info"], &["locks"], &["create", "y", "0"]] {
        refused(9, &space.run(args), &["the number of used regions"]);
    }
    // With memory behind them, they are entries like any other.
    std::fs::remove_file(tmpfs.path().join("filler")).unwrap();
    space.ends(0, &["create", "y", "0"]);
    assert_eq!(space.json(&["ls"]).as_array().unwrap().len(), 1);
}

/// The story: a copy of a space has holes where the original has zeros.
#[test]
fn a_copy_with_holes_is_status_7_where_there_is_no_memory_and_can_be_removed() {
    let Some(tmpfs) = is_root().then(|| Tmpfs::mount("24m")).flatten() else { return };
    let (space, copy) = (Space::within(tmpfs.path()), Space::within(tmpfs.path()));
    space.ends(0, &["create", "x", "4K"]);
    let [from, to] =
        [&space, &copy].map(|it| tmpfs.path().join(it.url.replacen("shm:", "commonhold-", 1)));
    let copied = Command::new("cp").arg("--sparse=always").args([from, to]).status();
    assert!(copied.unwrap().success());
    fill(&tmpfs);
    for args in [&["ls"][..], &["create", "y", "0"], &["stat", "x"]] {
        refused(7, &copy.run(args), &["No space left on device"]);
    }
    // Removing it only reads the file.
    copy.ends(0, &["space", "remove", &copy.url]);
}

/// The story: the same with the size of a region.
#[test]
fn a_region_that_claims_memory_is_status_7_and_no_signal() {
    let Some(tmpfs) = is_root().then(|| Tmpfs::mount("24m")).flatten() else { return };
    let space = Space::within(tmpfs.path());
    space.ends(0, &["create", "x", "4K", "--reserve", "1G"]);
    space.ends(0, &["read", "x"]);
    let bytes = Bytes::new(&tmpfs, &space);
    fill(&tmpfs);
    let entry = bytes.geometry.region(commonhold_layout::RegionId::new(0)).unwrap().get();
    bytes.set(entry, region_word::SIZE, 1 << 30);
    for args in [
        &["read", "x"][..],
        &["map", "x", "--", "true"],
        &["map", "x", "--read-only", "--", "true"],
    ] {
        refused(7, &space.run(args), &["No space left on device"]);
    }
    ends(7, &space.feed(&["write", "x", "--offset", "1M"], b"x"), &["write"]);
    // The lock of the region lies elsewhere, and has memory.
    space.ends(0, &["destroy", "x"]);
}

/// The story: `read` of a lazy region of 600 MB filled the tmpfs, and died of SIGBUS.
#[test]
fn reading_a_lazy_region_takes_no_memory() {
    let Some(tmpfs) = is_root().then(|| Tmpfs::mount("24m")).flatten() else { return };
    let space = Space::within(tmpfs.path());
    space.ends(0, &["create", "lazy", "200M", "--lazy"]);
    ends(0, &space.feed(&["write", "lazy", "--offset", "64M"], b"in the middle"), &["write"]);
    let bytes = Bytes::new(&tmpfs, &space);
    let before = bytes.taken();
    let read = space.run(&["read", "lazy"]);
    assert_eq!(read.status.code(), Some(0), "{}", String::from_utf8_lossy(&read.stderr));
    let mut expected = vec![0; 200 << 20];
    expected[64 << 20..][..13].copy_from_slice(b"in the middle");
    assert!(read.stdout == expected);
    assert_eq!(bytes.taken(), before);
    // The same when no memory is left.
    fill(&tmpfs);
    assert!(space.run(&["read", "lazy"]).stdout == expected);
    let stat = space.json(&["stat", "lazy"]);
    assert_eq!(
        (stat["resident"].as_u64(), stat["file_system_free"].as_u64()),
        (Some(4096), Some(0))
    );
    assert_eq!(stat["file_system_size"].as_u64(), Some(24 << 20));
    assert!(stat["memory_available"].as_u64() < stat["memory_total"].as_u64());
    assert_eq!(space.json(&["space", "info"])["resident"].as_u64(), Some(bytes.taken()));
}

/// The story: the kernel read the whole sparse window into the core dump of a process that held a lock. That took
/// minutes in which no other process could take the lock, and memory for every hole, which was not given back.
#[test]
fn a_holder_that_dumps_core_loses_its_lock_at_once_and_takes_no_memory() {
    let Some(tmpfs) = is_root().then(|| Tmpfs::mount("100m")).flatten() else { return };
    let space = Space::within(tmpfs.path());
    space.ends(0, &["create", "x", "4K"]);
    space.ends(0, &["read", "x"]);
    let bytes = Bytes::new(&tmpfs, &space);
    let before = bytes.taken();
    // The folder of the core dump, if it is written to a file.
    let folder = Folder::new();
    let inner = space.command(&["lock", "x", "--", "cat"]);
    let mut command = Command::new("sh");
    let script = "ulimit -c unlimited; echo 0xff > /proc/self/coredump_filter; exec \"$0\" \"$@\"";
    command.args(["-c", script]).arg(inner.get_program()).args(inner.get_args());
    command.env("COMMONHOLD_SPACE", &space.url).env("COMMONHOLD_SHM_DIR", tmpfs.path());
    command.env_remove("COMMONHOLD_DUMP").current_dir(&folder.0);
    let mut holder = Held::spawn(command);
    space.until_held("x");
    holder.signal("ABRT");
    space.ends(8, &["lock", "x", "--timeout", "5s", "--", "true"]);
    assert_eq!(holder.wait(), 134);
    let grown = bytes.taken().saturating_sub(before);
    assert!(grown < 30 << 20, "the dump took {grown} bytes of the space");
}

/// A core dump or a reader of `/proc/PID/mem` may still leave memory where there is no region.
#[test]
fn memory_outside_of_regions_is_given_back_by_reap_and_by_a_create_that_needs_it() {
    let Some(tmpfs) = is_root().then(|| Tmpfs::mount("100m")).flatten() else { return };
    let space = Space::within(tmpfs.path());
    space.ends(0, &["create", "x", "1M"]);
    ends(0, &space.feed(&["write", "x"], b"kept"), &["write"]);
    let bytes = Bytes::new(&tmpfs, &space);
    let before = bytes.taken();
    let litter = || {
        let block = vec![0; 1 << 20];
        for mebibyte in 0..64 {
            // Across the border of two pieces of the search.
            bytes.file.write_all_at(&block, (2 << 30) - (1 << 20) + (mebibyte << 20)).unwrap();
        }
    };
    litter();
    let reaped = space.json(&["reap"]);
    assert_eq!(reaped["given_back"].as_u64(), Some(64 << 20));
    assert_eq!(bytes.taken(), before);
    assert_eq!(space.json(&["reap"])["given_back"].as_u64(), Some(0));
    litter();
    space.ends(0, &["create", "y", "60M"]);
    assert_eq!(space.run(&["read", "x", "--len", "4"]).stdout, b"kept");
    assert_eq!(space.json(&["ls"]).as_array().unwrap().len(), 2);
}

/// The story: with `COMMONHOLD_SHM_DIR` set, `doctor` advised to remount another directory, and ended with status 0.
#[test]
fn the_doctor_checks_the_directory_in_use_and_fails_if_nothing_can_be_shared() {
    let folder = Folder::new();
    let absent = folder.0.join("absent");
    let doctor = |directory: &Path, args: &[&str]| {
        let mut command = commonhold();
        command.env("COMMONHOLD_SHM_DIR", directory).args(args).output().unwrap()
    };
    let output = doctor(&absent, &["doctor", "--json"]);
    refused(1, &output, &["memory cannot be shared", absent.to_str().unwrap()]);
    let findings: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(findings[0]["verdict"], "missing");
    refused(1, &doctor(&absent, &["doctor"]), &[]);

    let Some(tmpfs) = is_root().then(|| Tmpfs::mount("100m")).flatten() else { return };
    let text = ends(0, &doctor(tmpfs.path(), &["doctor"]), &["doctor"]);
    assert!(text.contains(&format!("remount,size=4G {}", tmpfs.path().display())), "{text}");
    assert!(!text.contains("/dev/shm"), "{text}");
    fill(&tmpfs);
    refused(1, &doctor(tmpfs.path(), &["doctor"]), &["memory cannot be shared"]);
}
