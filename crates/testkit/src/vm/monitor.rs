//! QEMU's monitor, which pauses a guest and continues it.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
};

use serde_json::{Value, json};

use crate::vm::{Outcome, PATIENCE, failed};

#[derive(Debug)]
pub(crate) struct Monitor {
    socket: BufReader<UnixStream>,
    greeted: bool,
}

impl Monitor {
    pub(crate) fn new(socket: UnixStream) -> Self {
        Self { socket: BufReader::new(socket), greeted: false }
    }

    /// Executes a command of QEMU, and waits until it is done.
    pub(crate) fn execute(&mut self, command: &str) -> Outcome {
        if !self.greeted {
            self.socket.get_ref().set_read_timeout(Some(PATIENCE)).map_err(failed("monitor"))?;
            self.ask("qmp_capabilities")?;
            self.greeted = true;
        }
        self.ask(command)
    }

    fn ask(&mut self, command: &str) -> Outcome {
        let text = json!({ "execute": command }).to_string() + "\n";
        self.socket.get_mut().write_all(text.as_bytes()).map_err(failed("monitor"))?;
        loop {
            let mut line = String::new();
            self.socket.read_line(&mut line).map_err(failed("monitor"))?;
            let answer: Value = serde_json::from_str(&line)
                .map_err(|error| format!("monitor: {command}: {error}: {line:?}"))?;
            // The greeting and events may come before the answer.
            if answer.get("return").is_some() {
                return Ok(());
            }
            if let Some(error) = answer.get("error") {
                return Err(format!("monitor: {command}: {error}"));
            }
        }
    }
}
