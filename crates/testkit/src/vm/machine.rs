//! The machine that a guest gets from QEMU.

use std::{ffi::OsString, fs, path::PathBuf};

use crate::vm::{GuestImage, Outcome, architecture::Architecture, failed};

/// Options of the kernel. A panic ends the guest. An emulated timer may be late on a busy host; `no_timer_check` keeps
/// the kernel from concluding that it does not work.
const KERNEL: &str = "loglevel=4 panic=-1 oops=panic no_timer_check";

/// What kind of machine a guest gets.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The number of processors. With one, QEMU does not execute locked instructions atomically.
    pub processors: u8,
    /// The processor model, by QEMU's name, if it is not the architecture's default.
    pub processor: Option<&'static str>,
    /// QEMU's accelerator.
    pub accel: &'static str,
    /// Its own memory, in MiB.
    pub memory: u32,
    /// Files that it sees as memory devices, one device each.
    pub windows: Vec<PathBuf>,
    /// More words for the command line of the kernel.
    pub append: String,
}

impl Default for Machine {
    fn default() -> Self {
        // Inside a virtual machine KVM may be slower than emulation.
        let accel = "tcg,thread=multi";
        let (processor, windows, append) = Default::default();
        Self { processors: 2, processor, accel, memory: 128, windows, append }
    }
}

impl Machine {
    /// A default machine with one window.
    #[must_use]
    pub fn with(window: impl Into<PathBuf>) -> Self {
        Self { windows: vec![window.into()], ..Self::default() }
    }

    /// The QEMU command for this machine, without a kernel and without serial lines.
    ///
    /// # Errors
    /// The size of a window cannot be read.
    pub(crate) fn bare(&self, of: Architecture) -> Outcome<Vec<OsString>> {
        let mut all: Vec<OsString> = [of.qemu(), "-machine", of.board(), "-nodefaults"]
            .into_iter()
            .chain(["-no-user-config", "-display", "none", "-no-reboot"])
            .chain(["-cpu", self.processor.unwrap_or(of.processor())])
            .chain(["-accel", self.accel])
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

    /// The QEMU command that starts Linux on it. The kernel's console is the first serial line.
    pub(crate) fn linux(&self, image: &GuestImage) -> Outcome<Vec<OsString>> {
        let mut all = self.bare(image.architecture())?;
        let (console, agent) = image.architecture().terminals();
        let lines = format!("console={console} commonhold.agent={agent}");
        let append = format!("{lines} {KERNEL} {}", self.append.trim());
        all.extend(["-kernel".into(), image.kernel().into()]);
        all.extend(["-initrd".into(), image.initramfs().into()]);
        all.extend(["-append".into(), append.into()]);
        Ok(all)
    }
}
