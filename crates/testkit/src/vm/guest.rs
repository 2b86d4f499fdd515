//! A Linux guest.

use std::{sync::Arc, thread};

use crate::vm::{GuestImage, Job, Machine, Outcome, PATIENCE, link::Link, qemu::Qemu};

/// The third line of a device's `resource` is the memory of its window.
const RESOURCES: &str = "grep -lx 0x1110 /sys/bus/pci/devices/*/device | \
                         while read -r file; do sed -n 3p \"${file%device}resource\"; done";

/// A running guest. It is killed when this is dropped.
#[derive(Debug)]
pub struct Guest {
    qemu: Qemu,
    link: Arc<Link>,
}

impl Guest {
    /// Starts a guest, and does not wait until it has booted.
    ///
    /// # Errors
    /// QEMU cannot be started.
    pub fn start(image: &GuestImage, machine: &Machine) -> Outcome<Self> {
        let (qemu, [console, agent]) = Qemu::start(image, machine.linux(image)?)?;
        let log = Arc::clone(&qemu.console);
        thread::spawn(move || log.follow(console));
        let link = Arc::new(Link::new(agent));
        let (mine, noise) = (Arc::clone(&link), Arc::clone(&qemu.console));
        thread::spawn(move || mine.follow(|line| noise.follow(line)));
        Ok(Self { qemu, link })
    }

    /// Waits until the guest has booted. Returns the boot id of its kernel.
    ///
    /// # Errors
    /// It does not boot.
    pub fn boot(&self) -> Outcome<String> {
        self.link.boot(PATIENCE).ok_or_else(|| self.qemu.console.told("does not come up"))
    }

    /// Starts a program in it.
    ///
    /// # Errors
    /// The guest does not boot.
    pub fn start_job(&self, argv: &[&str]) -> Outcome<Job> {
        self.boot()?;
        Ok(Job::in_guest(&self.link, &self.qemu.console, argv))
    }

    /// The `mem:` URL of its first window, by its address in the guest's physical memory.
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
            _ => Err(self.qemu.console.told(&format!("has no window: {ended:?}"))),
        }
    }

    /// Stops all its processors.
    ///
    /// # Errors
    /// QEMU refuses.
    pub fn pause(&mut self) -> Outcome {
        self.qemu.monitor.execute("stop")
    }

    /// Continues it.
    ///
    /// # Errors
    /// QEMU refuses.
    pub fn resume(&mut self) -> Outcome {
        self.qemu.monitor.execute("cont")
    }

    /// The process id of its QEMU.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.qemu.pid()
    }

    /// Kills it with SIGKILL, as a host that runs out of memory does.
    pub fn kill(self) {
        drop(self);
    }
}
