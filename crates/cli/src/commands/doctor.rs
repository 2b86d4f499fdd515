//! `doctor`: what this machine supports, and how to get what is missing.
//!
//! Needs no space and changes nothing. It formats one scratch space to try things out, and removes it. A space on a
//! device is probed as every open does; memory of a device without a space is only read.

mod memory;

use std::{fs, fs::OpenOptions, path::Path};

use commonhold::{FormatOptions, PciDevice, Removal, Space};
use commonhold_console::{
    failure::{Failure, Status},
    output::Column,
    session::Session,
    units::human_size,
};
use rustix::process::{Resource, getrlimit};
use serde::Serialize;

/// How good or bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    Warning,
    Missing,
}

#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    found: String,
    /// What to do about it; empty if there is nothing to do.
    advice: String,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, found: found.into(), advice: String::new() }
    }

    fn warning(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        let (found, advice) = (found.into(), advice.into());
        Self { check, verdict: Verdict::Warning, found, advice }
    }

    fn missing(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        let (found, advice) = (found.into(), advice.into());
        Self { check, verdict: Verdict::Missing, found, advice }
    }
}

pub(crate) fn doctor(session: &Session) -> Result<(), Failure> {
    let directory = commonhold::shm_directory();
    let sharing = scratch_space(&directory);
    let works = sharing.verdict != Verdict::Missing;
    let mut findings = vec![
        sharing,
        memory::room(&directory),
        memory::memory(&directory),
        io_uring(),
        paging(),
        userfaultfd(),
        kvm(),
        huge_pages(),
        physical_memory(),
        pid_namespace(),
        address_space(),
        remove_ipc(&directory),
    ];
    findings.extend(pci_devices());
    print(session, findings)?;
    if works {
        return Ok(());
    }
    let message = format!(
        "doctor: memory cannot be shared in {}; the first line says why",
        directory.display()
    );
    Err(Failure::new(Status::Other, message))
}

fn print(session: &Session, findings: Vec<Finding>) -> Result<(), Failure> {
    if session.out.json {
        return session.out.value(&findings);
    }
    let rows = findings.into_iter().map(|finding| {
        let verdict = match finding.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Missing => "missing",
        };
        let text = if finding.advice.is_empty() {
            finding.found
        } else {
            format!("{}; {}", finding.found, finding.advice)
        };
        vec![finding.check.to_owned(), verdict.to_owned(), text]
    });
    let columns = [Column::Left("CHECK"), Column::Left("STATE"), Column::Left("FOUND")];
    session.out.table(&columns, rows.collect())
}

/// Formats, opens and removes a scratch space. This really tries `O_TMPFILE`, `fallocate`, OFD locks and shared
/// futexes.
fn scratch_space(directory: &Path) -> Finding {
    const CHECK: &str = "shared memory";
    let url = format!("shm:doctor-{}", std::process::id());
    let options = FormatOptions { capacity: Some(16 << 20), ..FormatOptions::default() };
    let tried = Space::format(&url, &options).and_then(|()| Space::open(&url));
    let finding = match tried {
        Ok(space) => match space.info() {
            Ok(info) => Finding::ok(CHECK, format!("{}; waiting by {}", info.memory, info.waiting)),
            Err(error) => Finding::missing(CHECK, error.to_string(), "see the message"),
        },
        Err(error) => {
            let directory = directory.display();
            let advice =
                format!("check that {directory} is a tmpfs with room that this user may write");
            Finding::missing(CHECK, error.to_string(), advice)
        }
    };
    if let Err(error) = Space::remove(&url, Removal::Forced) {
        tracing::debug!(%error, "the scratch space was not removed");
    }
    finding
}

fn io_uring() -> Finding {
    const CHECK: &str = "io_uring";
    const WHY: &str = "the broker needs it to wait for guests; wants Linux 6.7 or later";
    match text("/proc/sys/kernel/io_uring_disabled").as_deref() {
        Some("0") if kernel() >= (6, 7) => Finding::ok(CHECK, "enabled, with FUTEX_WAIT"),
        Some("0") => Finding::warning(CHECK, "enabled, but without FUTEX_WAIT", WHY),
        Some("1") => Finding::warning(
            CHECK,
            "only for a privileged group",
            "see the sysctls kernel.io_uring_group and kernel.io_uring_disabled",
        ),
        Some(_) => Finding::missing(CHECK, "disabled", "sysctl kernel.io_uring_disabled=0"),
        // The sysctl came with Linux 6.6; io_uring is older.
        None => Finding::warning(CHECK, "unknown: this kernel has no sysctl for it", WHY),
    }
}

/// What every user of paged memory has to know, and how the kernel makes its pages.
fn paging() -> Finding {
    const CHECK: &str = "paging";
    const PINS: &str = "pin memory around direct I/O, vmsplice and registered buffers, or it is lost: no kernel tells \
                        of pages that are used so (AddressSpace::pin)";
    let setting = text("/sys/kernel/mm/transparent_hugepage/shmem_enabled").unwrap_or_default();
    let shmem = setting.split(['[', ']']).nth(1).unwrap_or("never");
    match shmem {
        "always" | "within_size" | "force" => Finding::warning(
            CHECK,
            format!(
                "{PINS}; shared memory is in huge pages ({shmem}), of which parts may not be freed"
            ),
            "echo never > /sys/kernel/mm/transparent_hugepage/shmem_enabled",
        ),
        _ => Finding::ok(CHECK, PINS),
    }
}

fn userfaultfd() -> Finding {
    const CHECK: &str = "userfaultfd";
    if OpenOptions::new().read(true).write(true).open("/dev/userfaultfd").is_ok() {
        return Finding::ok(CHECK, "/dev/userfaultfd can be opened");
    }
    match text("/proc/sys/vm/unprivileged_userfaultfd").as_deref() {
        Some("1") => Finding::ok(CHECK, "vm.unprivileged_userfaultfd is 1"),
        Some(_) if rustix::process::geteuid().is_root() => Finding::ok(CHECK, "as root"),
        Some(_) => Finding::warning(
            CHECK,
            "only for faults from user space",
            "system calls into missing pages fail; give this user read and write access to \
             /dev/userfaultfd, or sysctl vm.unprivileged_userfaultfd=1",
        ),
        None => Finding::missing(CHECK, "not in this kernel", "paging by the broker cannot work"),
    }
}

fn kvm() -> Finding {
    const CHECK: &str = "KVM";
    match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => Finding::ok(CHECK, "/dev/kvm can be opened"),
        Err(error) => Finding::missing(
            CHECK,
            format!("/dev/kvm: {error}"),
            "guests run under emulation; load kvm_intel or kvm_amd, or join the group kvm",
        ),
    }
}

fn huge_pages() -> Finding {
    const CHECK: &str = "huge pages";
    let meminfo = text("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let line = meminfo.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    let (total, free) =
        (field("HugePages_Total:").unwrap_or(0), field("HugePages_Free:").unwrap_or(0));
    let size = human_size(field("Hugepagesize:").unwrap_or(0).saturating_mul(1024));
    let mounts = text("/proc/self/mounts").unwrap_or_default();
    let mount = mounts
        .lines()
        .filter(|line| line.split_whitespace().nth(2) == Some("hugetlbfs"))
        .find_map(|line| line.split_whitespace().nth(1));
    match mount {
        _ if total == 0 => Finding::missing(
            CHECK,
            "none reserved",
            "only needed for file: spaces on hugetlbfs: sysctl vm.nr_hugepages=N",
        ),
        None => Finding::warning(
            CHECK,
            format!("{free} of {total} of {size} free"),
            "mount a hugetlbfs to use them",
        ),
        Some(mount) => Finding::ok(CHECK, format!("{free} of {total} of {size} free; {mount}")),
    }
}

/// One finding for each ivshmem device, or a single finding that there is none.
fn pci_devices() -> Vec<Finding> {
    let devices = commonhold::pci_devices();
    if devices.is_empty() {
        return vec![Finding::missing(
            PCI_DEVICE,
            "no ivshmem (1af4:1110)",
            "only needed inside a virtual machine that shares a space",
        )];
    }
    devices.iter().map(pci_device).collect()
}

const PCI_DEVICE: &str = "PCI device";

fn pci_device(device: &PciDevice) -> Finding {
    let url = format!("pci:{}", device.address);
    let driver =
        device.driver.as_ref().map_or(String::new(), |driver| format!(", driver {driver}"));
    let found = format!("{url}, {}{driver}", human_size(device.size));
    if device.size == 0 {
        return Finding::warning(PCI_DEVICE, found, "it has no memory in BAR 2");
    }
    if !device.enabled {
        // Opening the device would enable it, and `doctor` changes nothing.
        let advice = "it does not answer to its addresses; the first process that opens it as root enables it";
        return Finding::warning(PCI_DEVICE, found, advice);
    }
    match commonhold::memory_of(&url) {
        Ok(memory) if memory.cache.is_none() => Finding::warning(
            PCI_DEVICE,
            format!("{found}, holds no space"),
            format!("commonhold space format {url}"),
        ),
        Ok(memory) if memory.cached => Finding::ok(PCI_DEVICE, format!("{found}; {memory}")),
        Ok(memory) => Finding::warning(PCI_DEVICE, found, memory.to_string()),
        Err(error) => Finding::missing(PCI_DEVICE, found, error.to_string()),
    }
}

fn physical_memory() -> Finding {
    const CHECK: &str = "physical memory";
    let path = commonhold::physical_memory();
    let found = path.display();
    match OpenOptions::new().read(true).write(true).open(&path) {
        Ok(_) => Finding::ok(
            CHECK,
            format!(
                "{found} can be opened; mem: can use what neither a driver nor the kernel uses"
            ),
        ),
        Err(error) => Finding::missing(
            CHECK,
            format!("{found}: {error}"),
            "only needed for mem: spaces; it needs root (CAP_SYS_RAWIO) and CONFIG_DEVMEM",
        ),
    }
}

fn pid_namespace() -> Finding {
    const CHECK: &str = "PID namespace";
    let status = text("/proc/self/status").unwrap_or_default();
    let levels = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))
        .map_or(1, |pids| pids.split_whitespace().count());
    let name = fs::read_link("/proc/self/ns/pid")
        .map_or_else(|_| "unknown".to_owned(), |name| name.display().to_string());
    if levels > 1 {
        let found = format!("{name}, {levels} levels deep: peers outside have other PIDs");
        Finding::ok(CHECK, found)
    } else {
        Finding::ok(CHECK, name)
    }
}

fn address_space() -> Finding {
    const CHECK: &str = "address space";
    match getrlimit(Resource::As).current {
        None => Finding::ok(CHECK, "no limit"),
        Some(limit) if limit > 1 << 37 => {
            Finding::ok(CHECK, format!("limit {}", human_size(limit)))
        }
        Some(limit) => Finding::warning(
            CHECK,
            format!("limit {}", human_size(limit)),
            "a shm: space maps 64 GiB of addresses by default: ulimit -v unlimited, or \
             format smaller (--capacity)",
        ),
    }
}

/// Whether systemd-logind deletes this user's files in /dev/shm when the user logs out.
fn remove_ipc(directory: &Path) -> Finding {
    const CHECK: &str = "RemoveIPC";
    if directory != Path::new("/dev/shm") {
        return Finding::ok(CHECK, format!("does not concern {}", directory.display()));
    }
    if !Path::new("/run/systemd/system").exists() {
        return Finding::ok(CHECK, "no systemd");
    }
    let uid = rustix::process::getuid().as_raw();
    if uid < 1000 {
        return Finding::ok(CHECK, "does not concern system users");
    }
    let off = text("/etc/systemd/logind.conf").is_some_and(|conf| {
        conf.lines().any(|line| line.replace(' ', "").eq_ignore_ascii_case("RemoveIPC=no"))
    });
    if off || Path::new("/var/lib/systemd/linger").join(uid.to_string()).exists() {
        Finding::ok(CHECK, "off for this user")
    } else {
        Finding::warning(
            CHECK,
            "spaces of this user vanish with the last log-out",
            "RemoveIPC=no in /etc/systemd/logind.conf, or run as a system user",
        )
    }
}

/// Major and minor version of the kernel.
fn kernel() -> (u32, u32) {
    let release = text("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn text(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}
