//! A simulated terminal: a program with an input to type into, and its output so far.

use std::{
    io::{Read, Write as _},
    process::{Child, ChildStdin, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Instant,
};

use crate::vm::{GuestImage, Outcome, PATIENCE, bound, failed};

/// A terminal. The program in it is killed when this is dropped.
#[derive(Debug)]
pub struct Terminal {
    name: String,
    child: Child,
    input: ChildStdin,
    heard: Arc<Heard>,
    /// How many bytes of the output have been searched.
    seen: usize,
}

/// The output so far.
#[derive(Debug, Default)]
struct Heard {
    said: Mutex<Said>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Said {
    bytes: Vec<u8>,
    /// How many streams may still bring more output.
    streams: u8,
}

impl Heard {
    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(self: &Arc<Self>, mut from: impl Read + Send + 'static) {
        self.said().streams += 1;
        let heard = Arc::clone(self);
        thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                heard.said().bytes.extend(buffer.iter().take(count));
                heard.more.notify_all();
            }
            heard.said().streams -= 1;
            heard.more.notify_all();
        });
    }
}

impl Terminal {
    /// Starts a shell that runs a script. The script may become another program by `exec`.
    ///
    /// # Errors
    /// The shell cannot be started.
    pub fn open(image: &GuestImage, name: &str, script: &str) -> Outcome<Self> {
        let mut command = bound::bound(image, &["bash", "-c", script]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = bound::launch(command).map_err(failed("bash"))?;
        let heard = Arc::new(Heard::default());
        child.stdout.take().into_iter().for_each(|stream| heard.follow(stream));
        child.stderr.take().into_iter().for_each(|stream| heard.follow(stream));
        let input = child.stdin.take().ok_or("a terminal without input")?;
        Ok(Self { name: name.to_owned(), child, input, heard, seen: 0 })
    }

    /// Types a line.
    ///
    /// # Errors
    /// The program does not read its input any more.
    pub fn type_line(&mut self, line: &str) -> Outcome {
        let typed = self.input.write_all(format!("{line}\n").as_bytes());
        typed.and_then(|()| self.input.flush()).map_err(|error| self.told(&error.to_string()))
    }

    /// Waits until `mark` finds something in the output after the last place that it found. Returns what it found and
    /// the text before it; only the text, if the program has ended.
    ///
    /// # Errors
    /// It takes longer than [`PATIENCE`].
    pub fn hear<T>(
        &mut self,
        mark: impl Fn(&str) -> Option<(usize, T)>,
    ) -> Outcome<(String, Option<T>)> {
        let heard = Arc::clone(&self.heard);
        let begun = Instant::now();
        let mut said = heard.said();
        loop {
            let fresh = said.bytes.get(self.seen..).unwrap_or_default();
            let text = String::from_utf8_lossy(fresh).replace('\r', "");
            if let Some((at, found)) = mark(&text) {
                self.seen = said.bytes.len();
                return Ok((text.get(..at).unwrap_or_default().to_owned(), Some(found)));
            }
            if said.streams == 0 {
                return Ok((text, None));
            }
            let Some(left) = PATIENCE.checked_sub(begun.elapsed()) else {
                return Err(self.told(&format!("says nothing more:\n{text}")));
            };
            said = heard.more.wait_timeout(said, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn told(&self, wrong: &str) -> String {
        format!("{}: {wrong}", self.name)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
