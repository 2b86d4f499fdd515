//! A guest without an operating system: it executes its command line, and prints what it did.

use std::{
    io::{BufRead as _, BufReader},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread,
};

use crate::vm::{GuestImage, Machine, Outcome, PATIENCE, failed, qemu::Qemu};

/// QEMU's exit status after such a guest has succeeded.
const CONTENT: i32 = 33;

/// A running guest of this kind. It is killed when this is dropped.
#[derive(Debug)]
pub struct Metal {
    qemu: Qemu,
    lines: Receiver<String>,
}

impl Metal {
    /// Starts a guest. Its command line is `Machine::append`.
    ///
    /// # Errors
    /// QEMU cannot be started.
    pub fn start(image: &GuestImage, machine: &Machine) -> Outcome<Self> {
        let mut argv = machine.bare(image.architecture())?;
        // The device by which the guest sets QEMU's exit status.
        argv.extend(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"].map(Into::into));
        argv.extend(["-kernel".into(), image.bare_metal().into()]);
        argv.extend(["-append".into(), machine.append.clone().into()]);
        let (qemu, [serial]) = Qemu::start(image, argv)?;
        let (sender, lines) = channel();
        let console = Arc::clone(&qemu.console);
        thread::spawn(move || {
            for line in BufReader::new(serial).split(b'\n').map_while(Result::ok) {
                console.follow(&*line);
                console.follow(&b"\n"[..]);
                let _ = sender.send(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
        });
        Ok(Self { qemu, lines })
    }

    /// The next line that it prints; `None` if it has ended.
    ///
    /// # Errors
    /// It prints nothing for very long.
    pub fn line(&mut self) -> Outcome<Option<String>> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => Err(self.qemu.console.told("says nothing")),
        }
    }

    /// Waits until it prints a line that begins with `beginning`. Returns the rest of the line.
    ///
    /// # Errors
    /// It ends before that.
    pub fn hear(&mut self, beginning: &str) -> Outcome<String> {
        while let Some(line) = self.line()? {
            if let Some(rest) = line.strip_prefix(beginning) {
                return Ok(rest.to_owned());
            }
        }
        Err(self.qemu.console.told(&format!("ends without saying {beginning:?}")))
    }

    /// Waits until it ends, which must be with success.
    ///
    /// # Errors
    /// It fails.
    pub fn end(mut self) -> Outcome {
        while self.line()?.is_some() {}
        match self.qemu.end().map_err(failed("QEMU"))? {
            Some(CONTENT) => Ok(()),
            status => Err(self.qemu.console.told(&format!("has ended with {status:?}"))),
        }
    }

    /// Kills it.
    pub fn kill(self) {
        drop(self);
    }
}
