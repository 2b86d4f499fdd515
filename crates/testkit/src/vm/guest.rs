//! A Linux guest under QEMU.

use std::{
    ffi::OsString,
    fs,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use command_fds::{CommandFdExt as _, FdMapping};

use crate::vm::{
    Job, Kit, Outcome, PATIENCE, bound, console::Console, failed, link::Link, monitor::Monitor,
};

/// What kind of machine a guest gets.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Processors. With one, QEMU does not execute locked instructions atomically.
    pub processors: u8,
    /// Mebibytes of its own memory.
    pub memory: u32,
    /// Files that it sees as memory devices, one device each.
    pub windows: Vec<PathBuf>,
    /// More for the kernel's command line.
    pub append: String,
}

impl Default for Machine {
    fn default() -> Self {
        Self { processors: 2, memory: 128, windows: vec![], append: String::new() }
    }
}

impl Machine {
    /// A usual machine with one window.
    #[must_use]
    pub fn with(window: impl Into<PathBuf>) -> Self {
        Self { windows: vec![window.into()], ..Self::default() }
    }

    /// The QEMU that is such a machine, without a system to start, and without serial lines.
    ///
    /// # Errors
    /// A window cannot be looked at.
    pub fn arguments(&self) -> Outcome<Vec<OsString>> {
        let mut all: Vec<OsString> = ["qemu-system-x86_64", "-machine", "pc", "-nodefaults"]
            .into_iter()
            .chain(["-no-user-config", "-display", "none", "-no-reboot"])
            // What KVM offers inside a virtual machine may be slower than no KVM.
            .chain(["-accel", "tcg,thread=multi"])
            .map(OsString::from)
            .collect();
        all.extend(["-smp".into(), self.processors.to_string().into()]);
        all.extend(["-m".into(), format!("{}M", self.memory).into()]);
        for (index, path) in self.windows.iter().enumerate() {
            let size = fs::metadata(path).map_err(failed(&path.display().to_string()))?.len();
            let mut backend = OsString::from(format!(
                "memory-backend-file,id=window{index},share=on,size={size},mem-path="
            ));
            backend.push(path);
            all.extend(["-object".into(), backend]);
            all.extend(["-device".into(), format!("ivshmem-plain,memdev=window{index}").into()]);
        }
        Ok(all)
    }
}

/// A guest that runs. It is killed when this is dropped.
#[derive(Debug)]
pub struct Guest {
    qemu: Child,
    console: Arc<Console>,
    link: Arc<Link>,
    monitor: Monitor,
}

/// Descriptors as QEMU has them.
const CONSOLE: i32 = 10;
const AGENT: i32 = 11;
const MONITOR: i32 = 12;

/// The third line of a device's `resource` is the memory of its window.
const RESOURCES: &str = "grep -lx 0x1110 /sys/bus/pci/devices/*/device | \
                         while read -r file; do sed -n 3p \"${file%device}resource\"; done";

impl Guest {
    /// Starts one, and does not wait until it is up.
    ///
    /// # Errors
    /// QEMU cannot be started.
    pub fn start(kit: &Kit, machine: &Machine) -> Outcome<Self> {
        static STARTED: AtomicU32 = AtomicU32::new(1);
        let name = format!("guest {}", STARTED.fetch_add(1, Ordering::Relaxed));
        let append =
            format!("console=ttyS0 loglevel=4 panic=-1 oops=panic {}", machine.append.trim());
        let mut argv = machine.arguments()?;
        argv.extend(["-kernel".into(), kit.kernel().into()]);
        argv.extend(["-initrd".into(), kit.initramfs().into()]);
        argv.extend(["-append".into(), append.into()]);
        for (id, fd) in [("console", CONSOLE), ("agent", AGENT), ("monitor", MONITOR)] {
            argv.extend(["-chardev".into(), format!("socket,id={id},fd={fd}").into()]);
        }
        argv.extend(["-serial", "chardev:console", "-serial", "chardev:agent"].map(Into::into));
        argv.extend(["-mon", "chardev=monitor,mode=control"].map(Into::into));
        let mut command = bound::bound(kit, &argv);
        let [console, agent, monitor] = plug(&mut command)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut qemu = bound::launch(command).map_err(failed("qemu-system-x86_64"))?;
        let (link, log) = (Arc::new(Link::new(agent)), Arc::new(Console::new(name)));
        let mine = Arc::clone(&log);
        thread::spawn(move || mine.follow(console));
        if let Some(stderr) = qemu.stderr.take() {
            let mine = Arc::clone(&log);
            thread::spawn(move || mine.follow(stderr));
        }
        let (mine, noise) = (Arc::clone(&link), Arc::clone(&log));
        thread::spawn(move || mine.follow(|line| noise.follow(line)));
        Ok(Self { qemu, console: log, link, monitor: Monitor::new(monitor) })
    }

    /// The boot id of its kernel, once it is up.
    ///
    /// # Errors
    /// It does not come up.
    pub fn boot(&self) -> Outcome<String> {
        let late = || format!("{} does not come up\n{}", self.console.guest(), self.console.tail());
        self.link.boot(PATIENCE).ok_or_else(late)
    }

    /// Starts a program in it.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start_job(&self, argv: &[&str]) -> Outcome<Job> {
        self.boot()?;
        Ok(Job::in_guest(&self.link, &self.console, argv))
    }

    /// The URL of its first window by the addresses that it has in physical memory.
    ///
    /// # Errors
    /// There is no window.
    pub fn memory(&self) -> Outcome<String> {
        let ended = self.start_job(&["sh", "-c", RESOURCES])?.end()?;
        let line = ended.out.lines().next().unwrap_or_default();
        let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
        let mut numbers = line.split_whitespace().map_while(number);
        match (numbers.next(), numbers.next()) {
            (Some(start), Some(last)) => Ok(format!("mem:{start:#x}+{}", last - start + 1)),
            _ => Err(format!("{}: no window: {ended:?}", self.console.guest())),
        }
    }

    /// Stops all its processors.
    ///
    /// # Errors
    /// QEMU refuses.
    pub fn pause(&mut self) -> Outcome {
        self.monitor.execute("stop")
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// QEMU refuses.
    pub fn resume(&mut self) -> Outcome {
        self.monitor.execute("cont")
    }

    /// Kills it, as a host does that runs out of memory.
    pub fn kill(self) {
        drop(self);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// Our ends of what QEMU will have as its descriptors.
fn plug(command: &mut Command) -> Outcome<[UnixStream; 3]> {
    let pair = || UnixStream::pair().map_err(failed("socketpair"));
    let pairs = [pair()?, pair()?, pair()?];
    let mut numbers = [CONSOLE, AGENT, MONITOR].into_iter();
    let mut mappings = vec![];
    let ours = pairs.map(|(ours, theirs)| {
        let parent_fd = OwnedFd::from(theirs);
        mappings.extend(numbers.next().map(|child_fd| FdMapping { parent_fd, child_fd }));
        ours
    });
    command.fd_mappings(mappings).map_err(|error| format!("descriptors: {error}"))?;
    Ok(ours)
}
