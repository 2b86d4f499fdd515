//! A scripted process as the test sees it: it gets commands and answers them. `scripted_process.rs` has the commands.

use std::time::Duration;

use crate::vm::{Job, Outcome, PATIENCE, failed};

/// How long to listen to one of several processes before the next.
const TURN: Duration = Duration::from_millis(5);

/// A running scripted process.
#[derive(Debug)]
pub struct ScriptedProcess {
    job: Job,
    asked: String,
}

impl ScriptedProcess {
    pub(crate) fn new(job: Job) -> Self {
        Self { job, asked: String::new() }
    }

    /// Sends it a command, and does not wait for the answer.
    pub fn tell(&mut self, line: &str) {
        line.clone_into(&mut self.asked);
        self.job.tell(line);
    }

    /// Waits for its answer to the last command.
    ///
    /// # Errors
    /// There is no answer.
    pub fn answer(&mut self) -> Outcome<String> {
        loop {
            let line = self.job.line().map_err(failed(&format!("{:?}", self.asked)))?;
            if let Some(answer) = line.strip_prefix('=') {
                return Ok(answer.to_owned());
            }
        }
    }

    /// Waits until it reports one more step of its command.
    ///
    /// # Errors
    /// The process has ended, or the command is done.
    pub fn progress(&mut self) -> Outcome {
        match self.job.line()?.as_str() {
            "+" => Ok(()),
            line => Err(self.job.told(&format!("says {line:?} in {:?}", self.asked))),
        }
    }

    /// Sends it a command, and waits for the answer.
    ///
    /// # Errors
    /// There is no answer.
    pub fn ask(&mut self, line: &str) -> Outcome<String> {
        self.tell(line);
        self.answer()
    }

    /// Sends it a command that must succeed. Returns what follows `ok` in the answer.
    ///
    /// # Errors
    /// The answer is another one.
    pub fn must(&mut self, line: &str) -> Outcome<String> {
        self.tell(line);
        self.done()
    }

    /// Waits for the answer, which must be `ok`. Returns what follows.
    ///
    /// # Errors
    /// The answer is another one.
    pub fn done(&mut self) -> Outcome<String> {
        let answer = self.answer()?;
        match answer.strip_prefix("ok") {
            Some(rest) => Ok(rest.trim_start().to_owned()),
            None => Err(self.job.told(&format!("answers {answer:?} to {:?}", self.asked))),
        }
    }

    /// Sends it a command, and expects this answer.
    ///
    /// # Errors
    /// The answer is another one.
    pub fn expect(&mut self, line: &str, answer: &str) -> Outcome {
        let said = self.ask(line)?;
        if said == answer {
            return Ok(());
        }
        Err(self.job.told(&format!("answers {said:?} to {line:?}, not {answer:?}")))
    }

    /// Detaches it from the space, and ends it.
    ///
    /// # Errors
    /// It does not end with status 0.
    pub fn leave(mut self) -> Outcome {
        self.must("close")?;
        self.job.close();
        match self.job.end()?.status {
            0 => Ok(()),
            status => Err(self.job.told(&format!("has ended with {status}"))),
        }
    }

    /// Kills it, and waits until it is dead.
    ///
    /// # Errors
    /// It does not die.
    pub fn kill(mut self) -> Outcome {
        self.job.kill()
    }
}

/// Waits for the first answer of several processes. Returns the index of the process and its answer.
///
/// # Errors
/// None of them answers, or one has ended.
pub fn first_of(actors: &mut [&mut ScriptedProcess]) -> Outcome<(usize, String)> {
    let turns = PATIENCE.as_millis() / TURN.as_millis();
    for _ in 0..turns {
        for (index, actor) in actors.iter_mut().enumerate() {
            let said = actor.job.line_within(TURN)?;
            if let Some(answer) = said.as_deref().and_then(|line| line.strip_prefix('=')) {
                return Ok((index, answer.to_owned()));
            }
        }
    }
    Err(format!("none of {} scripted processes answers within {PATIENCE:?}", actors.len()))
}
