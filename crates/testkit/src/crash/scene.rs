//! A space, the processes that use it, and the ledger that predicts their answers.

use std::{
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use commonhold::{FormatOptions, Removal, Space};
use commonhold_window::Point;

use crate::crash::{
    Outcome,
    actor::{Heard, Hit, ScriptedProcess},
    ledger::Ledger,
    medium::SmallMemory,
    who::Who,
};

/// Bytes of the space.
const CAPACITY: u64 = 6 << 20;

/// Which process of the scene dies, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arm {
    pub(crate) who: Who,
    pub(crate) at: Hit,
}

pub(crate) struct Scene<'a> {
    program: &'a Path,
    pub(crate) url: String,
    /// The process that is armed.
    pub(crate) arm: Option<Arm>,
    pub(crate) actors: Vec<ScriptedProcess>,
    pub(crate) ledger: Ledger,
    /// How many processes were killed.
    pub(crate) deaths: u32,
    /// The last field, so that no process uses it any more when it is unmounted.
    _medium: Option<SmallMemory>,
}

impl<'a> Scene<'a> {
    /// Makes a new space for `peers` peers, including the driver, with this much memory.
    pub(crate) fn new(program: &'a Path, peers: u64, memory: Option<u64>) -> Outcome<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let tag = format!("crash-{}-{number}", std::process::id());
        let medium = memory.map(|bytes| SmallMemory::mount(bytes, &tag)).transpose()?;
        let url = medium.as_ref().map_or_else(|| format!("shm:{tag}"), SmallMemory::url);
        let options = FormatOptions {
            capacity: Some(CAPACITY),
            peers: Some(peers),
            threads: Some(4),
            ..FormatOptions::default()
        };
        Space::format(&url, &options).map_err(|error| format!("{url}: {error}"))?;
        let ledger = Ledger::new(memory);
        Ok(Self { program, url, arm: None, actors: vec![], ledger, deaths: 0, _medium: medium })
    }

    /// Starts one more process, which is not attached yet.
    pub(crate) fn enter(&mut self) -> Outcome<Who> {
        let who = self.actors.len();
        let at = self.arm.filter(|arm| arm.who == who).map(|arm| arm.at);
        self.actors.push(ScriptedProcess::start(self.program, at)?);
        Ok(who)
    }

    /// Starts one more process, and attaches it.
    pub(crate) fn join(&mut self) -> Outcome<Who> {
        let who = self.enter()?;
        self.run(who, &format!("open {}", self.url.clone()))?;
        Ok(who)
    }

    pub(crate) fn actor(&mut self, who: Who) -> Outcome<&mut ScriptedProcess> {
        self.actors.get_mut(who).ok_or_else(|| format!("no actor {who}"))
    }

    /// Has `who` execute each of the commands, if it is alive.
    pub(crate) fn play(&mut self, who: Who, commands: &[&str]) -> Outcome {
        commands.iter().try_for_each(|command| self.run(who, command).map(drop))
    }

    /// Has `who` execute one command. The answer is empty if it is dead.
    pub(crate) fn run(&mut self, who: Who, command: &str) -> Outcome<String> {
        self.begin(who, command)?;
        self.finish(who)
    }

    /// Has `who` begin a command; the answer comes later.
    pub(crate) fn begin(&mut self, who: Who, command: &str) -> Outcome {
        let actor = self.actor(who)?;
        if actor.alive {
            actor.tell(command);
        }
        Ok(())
    }

    /// Waits until `who` has passed `point`, has finished its command, or is dead.
    pub(crate) fn reach(&mut self, who: Who, point: Point) -> Outcome {
        while self.actor(who)?.in_flight.is_some() && !self.actor(who)?.points().contains(&point) {
            self.hear(who)?;
        }
        // If it dies at this point, the answers to others depend on its death from now on.
        let last = self.arm.filter(|arm| arm.who == who).map(|arm| arm.at);
        let actor = self.actor(who)?;
        if let Some((point, hit)) = last
            && actor.in_flight.is_some()
            && actor.trace.iter().filter(|passed| **passed == point).count() >= hit as usize
        {
            self.hear(who)?;
        }
        Ok(())
    }

    /// Waits for the answer.
    pub(crate) fn finish(&mut self, who: Who) -> Outcome<String> {
        while self.actor(who)?.in_flight.is_some() {
            if let Some(answer) = self.hear(who)? {
                return Ok(answer);
            }
        }
        Ok(String::new())
    }

    fn hear(&mut self, who: Who) -> Outcome<Option<String>> {
        let actor = self.actor(who)?;
        match actor.hear().map_err(|error| format!("process {who} {error}"))? {
            Heard::Point(_) => Ok(None),
            Heard::Answer(answer) => {
                let command = actor.in_flight.take().ok_or("an answer without a command")?;
                if let Err(wrong) = self.judge(who, &command, &answer) {
                    // This process may know of a death of which the driver has not heard yet.
                    if !self.hear_the_armed(who)? {
                        return Err(wrong);
                    }
                    self.judge(who, &command, &answer)?;
                }
                let points = self.actor(who)?.points().to_vec();
                self.ledger.answered(who, &command, &answer, &points);
                Ok(Some(answer))
            }
            Heard::Death => {
                self.deaths += 1;
                self.mourn(who)?;
                Ok(None)
            }
        }
    }

    /// Listens to the armed process until it ends its command, or dies. `false` if it has no command, or is `but`.
    fn hear_the_armed(&mut self, but: Who) -> Outcome<bool> {
        let Some(armed) = self.arm.map(|arm| arm.who).filter(|who| *who != but) else {
            return Ok(false);
        };
        if self.actors.get(armed).is_none_or(|actor| actor.in_flight.is_none()) {
            return Ok(false);
        }
        self.finish(armed).map(|_| true)
    }

    fn mourn(&mut self, who: Who) -> Outcome {
        let actor = self.actors.get_mut(who).ok_or("nobody died")?;
        let command = actor.in_flight.take();
        self.ledger.died(who, command.as_deref(), actor.points());
        Ok(())
    }

    fn judge(&mut self, who: Who, command: &str, answer: &str) -> Outcome {
        let right = self.ledger.right_answer(who, command);
        let fits = match &right {
            Some(right) => answer == right,
            None => !answer.starts_with("failed"),
        };
        // The process skipped the command: it needs something that a dead process has not made.
        let moot = answer == "skip" && self.deaths > 0;
        if fits || moot {
            return Ok(());
        }
        let right = right.unwrap_or_default();
        Err(format!("process {who}: {command:?} was answered {answer:?}, not {right:?}"))
    }

    /// Kills `who`, as a part of the script.
    pub(crate) fn kill(&mut self, who: Who) -> Outcome {
        if self.actor(who)?.alive {
            self.actor(who)?.kill()?;
            self.mourn(who)?;
        }
        Ok(())
    }

    /// Has each of these processes unmap `r` and detach, if it is alive.
    pub(crate) fn leave(&mut self, all: &[Who]) -> Outcome {
        all.iter().try_for_each(|who| self.play(*who, &["unmap r", "close"]))
    }

    /// Ends the script: every process that is alive must have given everything back, and exits.
    pub(crate) fn end(&mut self) -> Outcome {
        self.ledger.idle()?;
        for (who, actor) in self.actors.iter_mut().enumerate().filter(|(_, actor)| actor.alive) {
            actor.dismiss().map_err(|error| format!("process {who} {error}"))?;
        }
        Ok(())
    }
}

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        self.actors.clear();
        let _ = Space::remove(&self.url, Removal::Forced);
    }
}
