//! An actor as the test has it: it is told something, and answers. See `stage.rs` for what it knows.

use std::time::Duration;

use crate::vm::{Job, Outcome, PATIENCE, failed};

/// How long one of several is listened to before the next.
const TURN: Duration = Duration::from_millis(5);

/// An actor that runs.
#[derive(Debug)]
pub struct ScriptedProcess {
    job: Job,
    asked: String,
}

impl ScriptedProcess {
    pub(crate) fn new(job: Job) -> Self {
        Self { job, asked: String::new() }
    }

    /// Tells it something, and does not wait for the answer.
    pub fn tell(&mut self, line: &str) {
        line.clone_into(&mut self.asked);
        self.job.tell(line);
    }

    /// Its answer to what it was told last.
    ///
    /// # Errors
    /// There is none.
    pub fn answer(&mut self) -> Outcome<String> {
        loop {
            let line = self.job.line().map_err(failed(&format!("{:?}", self.asked)))?;
            if let Some(answer) = line.strip_prefix('=') {
                return Ok(answer.to_owned());
            }
        }
    }

    /// Waits until it says that it has done something more of what it was told.
    ///
    /// # Errors
    /// It has ended, or is done.
    pub fn progress(&mut self) -> Outcome {
        match self.job.line()?.as_str() {
            "+" => Ok(()),
            line => Err(self.job.told(&format!("says {line:?} in {:?}", self.asked))),
        }
    }

    /// Tells it something, and gives back the answer.
    ///
    /// # Errors
    /// There is none.
    pub fn ask(&mut self, line: &str) -> Outcome<String> {
        self.tell(line);
        self.answer()
    }

    /// Tells it something that must succeed, and gives back what follows `ok`.
    ///
    /// # Errors
    /// It answers otherwise.
    pub fn must(&mut self, line: &str) -> Outcome<String> {
        self.tell(line);
        self.done()
    }

    /// Waits for the answer, which must be `ok`, and gives back what follows.
    ///
    /// # Errors
    /// It is otherwise.
    pub fn done(&mut self) -> Outcome<String> {
        let answer = self.answer()?;
        match answer.strip_prefix("ok") {
            Some(rest) => Ok(rest.trim_start().to_owned()),
            None => Err(self.job.told(&format!("answers {answer:?} to {:?}", self.asked))),
        }
    }

    /// Tells it something, and demands this answer.
    ///
    /// # Errors
    /// It is another.
    pub fn expect(&mut self, line: &str, answer: &str) -> Outcome {
        let said = self.ask(line)?;
        if said == answer {
            return Ok(());
        }
        Err(self.job.told(&format!("answers {said:?} to {line:?}, not {answer:?}")))
    }

    /// Detaches it from the space, and lets it end.
    ///
    /// # Errors
    /// It does not end well.
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

/// Which of several answers first, and what.
///
/// # Errors
/// None does, or one has ended.
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
    Err(format!("of {} actors none answers within {PATIENCE:?}", actors.len()))
}
