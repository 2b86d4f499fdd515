//! Memory of devices: messages and exit statuses.

use std::{
    fs,
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

use crate::support::{Folder, commonhold, ends};

/// A physical address at which no machine has memory.
const BASE: u64 = 1 << 46;

/// A folder that stands for the devices of sysfs.
struct Devices(Folder);

impl Devices {
    fn new() -> Self {
        Self(Folder::new())
    }

    /// A folder with one ivshmem device of 4 MiB.
    fn one() -> Self {
        let devices = Self::new();
        devices.add("0000:00:04.0", "0x1110", 4 << 20);
        devices
    }

    fn add(&self, address: &str, id: &str, size: u64) -> PathBuf {
        let device = self.0.0.join(address);
        fs::create_dir(&device).unwrap();
        let none = "0x0 0x0 0x0\n";
        let last = 0x8_0000_0000 + size - 1;
        let resource = format!("{none}{none}0x800000000 {last:#x} 0x14220c\n");
        for (file, text) in
            [("vendor", "0x1af4\n"), ("device", id), ("enable", "1\n"), ("resource", &resource)]
        {
            fs::write(device.join(file), text).unwrap();
        }
        let memory = device.join("resource2");
        File::create(&memory).unwrap().set_len(size).unwrap();
        memory
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = commonhold();
        command.env("COMMONHOLD_PCI_DIR", &self.0.0).args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    #[track_caller]
    fn ends(&self, code: i32, args: &[&str]) -> String {
        ends(code, &self.run(args), args)
    }

    /// Runs a command that must fail with this status and with a message that contains all of `says`.
    #[track_caller]
    fn refuses(&self, code: i32, args: &[&str], says: &[&str]) {
        says_all(&self.run(args), code, args, says);
    }
}

#[track_caller]
fn says_all(output: &Output, code: i32, args: &[&str], says: &[&str]) {
    ends(code, output, args);
    let said = String::from_utf8_lossy(&output.stderr);
    for part in says {
        assert!(said.contains(part), "{args:?} did not say {part:?}: {said}");
    }
}

#[track_caller]
fn json(output: &Output, args: &[&str]) -> Value {
    serde_json::from_str(&ends(0, output, args)).unwrap()
}

#[test]
fn commands_work_on_a_device_as_they_do_on_a_file() {
    let devices = Devices::one();
    devices.ends(0, &["space", "format", "pci:auto"]);
    let space = "--space=pci:0000:00:04.0";
    devices.ends(0, &[space, "create", "x", "10000"]);
    let locked = devices.ends(0, &[space, "lock", "x", "--", "echo", "locked"]);
    assert_eq!(locked, "locked\n");
    let args = ["--json", space, "space", "info"];
    let info = json(&devices.run(&args), &args);
    assert_eq!(info["memory"], "PCI device 0000:00:04.0");
    assert_eq!(info["waiting"], "poll");
    assert!(["write-back", "uncached"].iter().any(|cache| info["memory_cache"] == *cache));
    assert!(info["atomic_ns"].is_f64() && info["plain_ns"].is_f64(), "{info}");
    let text = devices.ends(0, &[space, "space", "info"]);
    assert!(text.contains("an atomic operation takes"), "{text}");
    devices.ends(0, &[space, "destroy", "x"]);
}

/// Reading memory of a device may take a microsecond per word, so a large region is not searched for locks completely.
/// A message says so.
#[test]
fn a_large_region_of_a_device_is_searched_for_locks_in_part_with_a_message() {
    let folder = Folder::new();
    let memory = in_memory(&folder, 16 << 20);
    let (url, space) = (format!("mem:{BASE:#x}+16M"), format!("--space=mem:{BASE:#x}+16M"));
    let run = |args: &[&str]| {
        let mut command = commonhold();
        command.env("COMMONHOLD_DEV_MEM", &memory.0).args(args).output().unwrap()
    };
    ends(0, &run(&["space", "format", &url]), &["space", "format"]);
    ends(0, &run(&[&space, "create", "x", "6M"]), &["create"]);
    // An inconsistent mutex without data that no thread holds.
    let words = [1_u64 << 29, 0x47_4154 << 40 | 1 << 32];
    let lock = folder.0.join("lock");
    fs::write(&lock, words.map(u64::to_le_bytes).as_flattened()).unwrap();
    for at in ["64", "5M"] {
        let args = [&space, "write", "x", "--offset", at, lock.to_str().unwrap()];
        ends(0, &run(&args), &args);
    }
    for args in [&[&space, "--json", "locks"][..], &[&space, "--json", "stat", "x"]] {
        let output = run(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("up to offset 4194304 (4 MiB)"), "{said}");
        let found = String::from_utf8_lossy(&output.stdout);
        assert!(found.contains("\"offset\": 64,") && !found.contains("5242880"), "{found}");
    }
    let args = [&space, "reset", "x", "--offset", "5M"];
    ends(0, &run(&args), &args);
}

#[test]
fn other_programs_get_a_device_and_the_offset_in_it() {
    let folder = Folder::new();
    let memory = in_memory(&folder, 16 << 20);
    let (url, space) = (format!("mem:{BASE:#x}+16M"), format!("--space=mem:{BASE:#x}+16M"));
    let run = |args: &[&str]| {
        let mut command = commonhold();
        command.env("COMMONHOLD_DEV_MEM", &memory.0).args(args).output().unwrap()
    };
    ends(0, &run(&["space", "format", &url]), &["space", "format"]);
    ends(0, &run(&[&space, "create", "x", "4K"]), &["create"]);
    let place = "echo $COMMONHOLD_OFFSET; readlink /proc/self/fd/$COMMONHOLD_FD";
    for read_only in [&[][..], &["--read-only"]] {
        let mut args = vec![space.as_str(), "map", "x"];
        args.extend(read_only);
        args.extend(["--", "sh", "-c", place]);
        let said = ends(0, &run(&args), &args);
        let (offset, file) = said.trim().split_once('\n').unwrap();
        let args = ["--json", &space, "stat", "x"];
        let stat = json(&run(&args), &args);
        let inside = stat["offset"].as_u64().unwrap();
        assert_eq!(offset.parse::<u64>().unwrap(), BASE + inside);
        assert_eq!(Path::new(file), memory.0);
    }
}

/// A file that stands for `/dev/mem`.
struct Memory(PathBuf);

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Makes that file; the file system must allow a sparse file of any length.
fn in_memory(folder: &Folder, size: u64) -> Memory {
    let memory = Memory(Path::new("/dev/shm").join(folder.0.file_name().unwrap()));
    File::create(&memory.0).unwrap().set_len(BASE + size).unwrap();
    memory
}

#[test]
fn an_ambiguous_device_is_refused() {
    let devices = Devices::new();
    let format = |url| ["space", "format", url];
    let here = devices.0.0.to_str().unwrap();
    devices.refuses(3, &format("pci:auto"), &["no ivshmem", "lspci -d 1af4:1110", here]);
    devices.refuses(3, &["--space", "pci:auto", "ls"], &["-device ivshmem-plain"]);
    devices.add("0000:00:02.0", "0x1000", 4096);
    devices.refuses(3, &format("pci:auto"), &["no ivshmem"]);
    devices.refuses(2, &format("pci:00:02.0"), &["0000:00:02.0 is 1af4:1000", "lspci"]);
    devices.refuses(3, &format("pci:00:07.0"), &["no device 0000:00:07.0", here]);
    devices.refuses(2, &format("pci:nonsense"), &["pci: needs"]);
    devices.add("0000:00:05.0", "0x1110", 4 << 20);
    devices.add("0000:00:04.0", "0x1110", 4 << 20);
    devices.refuses(2, &format("pci:auto"), &["pci:0000:00:04.0, pci:0000:00:05.0"]);
    devices.ends(0, &format("pci:00:05.0"));
}

#[test]
fn a_device_that_cannot_be_used_says_why() {
    let devices = Devices::one();
    let device = devices.0.0.join("0000:00:04.0");
    let format = ["space", "format", "pci:auto"];
    fs::write(device.join("enable"), "0\n").unwrap();
    devices.ends(0, &format);
    assert_eq!(fs::read_to_string(device.join("enable")).unwrap(), "1");
    File::options().write(true).open(device.join("resource2")).unwrap().set_len(0).unwrap();
    devices.refuses(1, &format, &["ends the process (signal 7)", "longer"]);
    fs::remove_file(device.join("resource2")).unwrap();
    devices.refuses(1, &format, &["0000:00:04.0 has no memory in BAR 2"]);
    fs::write(device.join("resource"), "0x0 0x0 0x0\n").unwrap();
    devices.refuses(1, &format, &["0000:00:04.0 has no memory in BAR 2"]);
}

#[test]
fn a_window_too_small_for_its_tables_or_for_what_was_asked_is_refused() {
    let devices = Devices::new();
    let memory = devices.add("0000:00:04.0", "0x1110", 64 << 10);
    fs::write(&memory, vec![0; 64 << 10]).unwrap();
    devices.refuses(2, &["space", "format", "pci:auto"], &["65536 bytes is too small"]);
    let args = ["space", "format", "pci:auto", "--capacity", "1M"];
    devices.refuses(2, &args, &["the capacity is 1048576", "65536"]);
    assert!(fs::read(&memory).unwrap().iter().all(|byte| *byte == 0));
    let args = ["space", "format", "pci:auto", "--peers", "4", "--regions", "16"];
    devices.ends(0, &args);
}

#[test]
fn what_is_in_a_window_is_replaced_by_force_only() {
    let devices = Devices::one();
    let memory = devices.0.0.join("0000:00:04.0/resource2");
    let (format, force) =
        (["space", "format", "pci:auto"], ["space", "format", "pci:auto", "--force"]);
    let open = ["--space", "pci:auto", "ls"];
    devices.refuses(9, &open, &["pci:auto: not a space", "space format"]);
    let bytes = |first: &[u8]| {
        let mut bytes = vec![0; 4 << 20];
        bytes[..first.len()].copy_from_slice(first);
        fs::write(&memory, bytes).unwrap();
    };
    bytes(b"something");
    devices.refuses(4, &format, &["data that is no space", "--force"]);
    bytes(b"FORM\x01\x02\x03\x04");
    devices.refuses(5, &format, &["died while doing so", "--force"]);
    devices.refuses(9, &open, &["died while doing so", "--force"]);
    bytes(&[0xFF; 4096]);
    devices.refuses(4, &format, &["data that is no space", "--force"]);
    devices.refuses(1, &open, &["reads as ones only", "enable"]);
    devices.ends(0, &force);
    devices.refuses(4, &format, &["already holds a space"]);
    devices.ends(0, &open);
    for args in [&["space", "remove", "pci:auto"][..], &["space", "remove", "pci:auto", "--force"]]
    {
        devices.refuses(2, args, &["memory and no file", "shm:", "file:"]);
    }
    devices.ends(0, &open);
}

#[test]
fn a_range_of_physical_memory_must_be_possible() {
    let run = |url: &str, device: &str| {
        let mut command = commonhold();
        command.env("COMMONHOLD_DEV_MEM", device).args(["space", "format", url]);
        command.output().unwrap()
    };
    let refuses = |url: &str, device: &str, code, says: &[&str]| {
        says_all(&run(url, device), code, &["space", "format", url], says);
    };
    refuses("mem:0x400000000001+4K", "/dev/mem", 2, &["whole pages", "0x1000"]);
    refuses("mem:0x400000000000+5000", "/dev/mem", 2, &["whole pages"]);
    let nowhere = "/dev/there-is-no-such-device";
    refuses("mem:0x400000000000+4K", nowhere, 3, &[nowhere, "CONFIG_DEVMEM"]);
    refuses("mem:0x400000000000+4K", "/dev/null", 1, &["/dev/null"]);
    let readable = fs::read_to_string("/proc/iomem").unwrap_or_default();
    if readable.lines().any(|line| line.ends_with("System RAM") && !line.contains("00000000-0")) {
        refuses("mem:0+1G", nowhere, 2, &["System RAM", "memmap=", "reserved-memory"]);
    } else {
        eprintln!("note: not tested: System RAM, since /proc/iomem hides addresses");
    }
}

#[test]
fn the_doctor_looks_at_every_device_and_formats_none() {
    let devices = Devices::one();
    let off = devices.add("0000:00:05.0", "0x1110", 1 << 20);
    fs::write(off.with_file_name("enable"), "0\n").unwrap();
    let found = |devices: &Devices| {
        let args = ["--json", "doctor"];
        let findings = json(&devices.run(&args), &args);
        let of = |check: &str| -> Vec<String> {
            let all = findings.as_array().unwrap().iter();
            all.filter(|finding| finding["check"] == check).map(Value::to_string).collect()
        };
        assert_eq!(of("physical memory").len(), 1);
        of("PCI device")
    };
    let [blank, disabled] = &found(&devices)[..] else { panic!("not two") };
    assert!(blank.contains("space format pci:0000:00:04.0"), "{blank}");
    assert!(disabled.contains("does not answer"), "{disabled}");
    let memory = devices.0.0.join("0000:00:04.0/resource2");
    assert!(fs::read(&memory).unwrap().iter().all(|byte| *byte == 0));
    assert_eq!(fs::read_to_string(off.with_file_name("enable")).unwrap(), "0\n");
    devices.ends(0, &["space", "format", "pci:00:04.0"]);
    let found = found(&devices);
    assert!(found[0].contains("an atomic operation takes"), "{}", found[0]);
}
