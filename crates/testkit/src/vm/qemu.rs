//! A running QEMU: its process, its serial lines and its monitor. It leaves no sockets behind: all of them are
//! inherited and have no names.

use std::{
    ffi::OsString,
    io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use command_fds::{CommandFdExt as _, FdMapping};

use crate::vm::{GuestImage, Outcome, bound, console::Console, failed, monitor::Monitor};

/// The number of the first descriptor that QEMU inherits, high enough to be free.
const FIRST: i32 = 10;

/// A running QEMU. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Qemu {
    child: Child,
    pub(crate) console: Arc<Console>,
    pub(crate) monitor: Monitor,
}

impl Qemu {
    /// Starts QEMU with this number of additional serial lines.
    pub(crate) fn start<const LINES: usize>(
        image: &GuestImage,
        mut argv: Vec<OsString>,
    ) -> Outcome<(Self, [UnixStream; LINES])> {
        static STARTED: AtomicU32 = AtomicU32::new(1);
        let name = format!("guest {}", STARTED.fetch_add(1, Ordering::Relaxed));
        let (monitor, theirs) = pair()?;
        argv.extend(["-chardev".into(), format!("socket,id=monitor,fd={FIRST}").into()]);
        argv.extend(["-mon", "chardev=monitor,mode=control"].map(Into::into));
        let mut mappings = vec![FdMapping { parent_fd: theirs, child_fd: FIRST }];
        let mut ours = vec![];
        for (line, child_fd) in (0..LINES).zip(FIRST + 1..) {
            argv.extend(["-chardev".into(), format!("socket,id=line{line},fd={child_fd}").into()]);
            argv.extend(image.architecture().serial(line));
            let (line, parent_fd) = pair()?;
            mappings.push(FdMapping { parent_fd, child_fd });
            ours.push(line);
        }
        let mut command = bound::bound(image, &argv);
        command.fd_mappings(mappings).map_err(failed("descriptors of QEMU"))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = bound::launch(command).map_err(failed(image.architecture().qemu()))?;
        let console = Arc::new(Console::new(name));
        if let Some(stderr) = child.stderr.take() {
            let console = Arc::clone(&console);
            thread::spawn(move || console.follow(stderr));
        }
        let lines = ours.try_into().map_err(|_| "the number of serial lines is wrong")?;
        Ok((Self { child, console, monitor: Monitor::new(monitor) }, lines))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it ends. It has closed its serial lines already, so this takes not long.
    pub(crate) fn end(&mut self) -> io::Result<Option<i32>> {
        self.child.wait().map(|status| status.code())
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A pair of sockets: our end, and the end for QEMU.
fn pair() -> Outcome<(UnixStream, OwnedFd)> {
    let (ours, theirs) = UnixStream::pair().map_err(failed("socketpair"))?;
    Ok((ours, theirs.into()))
}
