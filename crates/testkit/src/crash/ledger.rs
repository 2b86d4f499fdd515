//! The model of the suite: it predicts every answer from the commands, the answers so far, and the deaths alone.
//!
//! # Invariants
//! 1. The ledger never looks into the space. It knows which command was in flight at a death, and which points had
//!    been passed. For each command, one point marks the instant at which it takes effect.
//! 2. So at any time every answer to a survivor has exactly one right value.

use std::collections::BTreeMap;

use commonhold_window::Point;

use crate::crash::{
    Outcome,
    alone::{Stand, bias_after, stand},
    command::{Command, Which, parse},
    participants::Participants,
    shared::{Seq, Seqs, has_repaired, is_upgraded},
    who::{DRIVER, Who},
};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Life {
    #[default]
    Absent,
    Present,
    /// Destroyed, and gone as soon as no process maps it.
    Doomed,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Health {
    #[default]
    Clean,
    Inconsistent,
    Unrecoverable,
    /// A permit that is used up.
    Spent,
    /// A once whose value is made.
    Done,
}

#[derive(Debug, Clone, Default)]
struct Lock {
    writer: Option<Who>,
    readers: Vec<Who>,
    health: Health,
    /// The process to which this lock is biased.
    bias: Option<Who>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Region {
    pub(crate) life: Life,
    size: u64,
    reserve: u64,
    filled: u64,
    /// Locks and events have been written among its bytes.
    raw: bool,
    mappers: Vec<Who>,
    own: Lock,
    mutexes: BTreeMap<u64, Lock>,
    pub(crate) seqs: Seqs,
    /// It contains one record of each kind.
    pub(crate) records: bool,
    permit: Lock,
    once: Lock,
    /// The mutex of the condition.
    changes: Lock,
    participants: Participants,
}

/// The expected state of the space: all regions by name, and all guards.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    regions: BTreeMap<String, Region>,
    /// All guards, in the order in which they were taken: the process, the region, and which lock.
    guards: Vec<(Who, String, Which)>,
    /// Bytes of memory behind the space, if limited. A larger region finds no memory, unless it is lazy.
    memory: Option<u64>,
}

fn remove_one(list: &mut Vec<Who>, who: Who) {
    if let Some(index) = list.iter().rposition(|other| *other == who) {
        list.remove(index);
    }
}

impl Region {
    fn lock(&mut self, which: Which) -> &mut Lock {
        match which {
            Which::Own => &mut self.own,
            Which::Mutex(offset) => self.mutexes.entry(offset).or_default(),
            Which::Permit => &mut self.permit,
            Which::Once => &mut self.once,
            Which::Changes => &mut self.changes,
        }
    }

    fn unmapped(&mut self) {
        if self.life == Life::Doomed && self.mappers.is_empty() {
            self.life = Life::Absent;
        }
    }

    fn create(&mut self, command: &Command<'_>) {
        let size = command.size();
        let reserve = size.max(command.third).next_multiple_of(4096);
        *self = Self { life: Life::Present, size, reserve, ..Self::default() };
    }

    fn resize(&mut self, size: u64) {
        self.size = size;
        self.filled = self.filled.min(size);
    }
}

impl Ledger {
    /// The ledger of an empty space, with this much memory behind it.
    pub(crate) fn new(memory: Option<u64>) -> Self {
        Self { memory, ..Self::default() }
    }

    pub(crate) fn region(&mut self, name: &str) -> &mut Region {
        self.regions.entry(name.to_owned()).or_default()
    }

    /// The names that a scenario has used, without those of the driver's own regions.
    pub(crate) fn names(&self) -> Vec<String> {
        let driver = |region: &Region| region.mappers.contains(&DRIVER);
        self.regions.iter().filter(|(_, it)| !driver(it)).map(|(name, _)| name.clone()).collect()
    }

    /// The mutexes of a region.
    pub(crate) fn mutexes(&mut self, name: &str) -> Vec<u64> {
        self.region(name).mutexes.keys().copied().collect()
    }

    /// The size up to which a region can grow, if that is larger than its size.
    pub(crate) fn room(&mut self, name: &str) -> Option<u64> {
        let memory = self.memory;
        let region = self.region(name);
        let fits = memory.is_none_or(|memory| region.reserve < memory);
        (fits && region.reserve > region.size && !region.raw).then_some(region.reserve)
    }

    pub(crate) fn is_raw(&mut self, name: &str) -> bool {
        self.region(name).raw
    }

    /// The right answer to a command of `who`. `None`: any answer except a failure.
    pub(crate) fn right_answer(&mut self, who: Who, text: &str) -> Option<String> {
        let command = parse(text);
        let full = self.memory.is_some_and(|memory| command.size() >= memory);
        let region = self.region(command.name);
        let others = region.mappers.iter().any(|other| *other != who);
        let absent = region.life != Life::Present;
        Some(match command.verb {
            "create" if command.size() > 1 << 30 => "nospace".into(),
            "create" if region.life != Life::Absent => "exists".into(),
            "create" if full => "nomemory".into(),
            "map" | "destroy" | "resize" if absent => "notfound".into(),
            "map" => format!("ok {}", region.size),
            "look" => format!("ok {} {}", region.size, region.filled),
            "destroy" if region.mappers.contains(&who) => "mapped".into(),
            "destroy" if others && !matches!(command.how, "wait" | "deferred") => "timedout".into(),
            "destroy" if others && command.how == "wait" => return Some("no answer yet".into()),
            "resize" if command.size() > region.reserve => "beyond".into(),
            "resize" if command.size() < region.size && !region.mappers.is_empty() => {
                "mapped".into()
            }
            "resize" if full => "nomemory".into(),
            "lock" | "rlock" | "mlock" | "permit" | "once" => {
                let lock = region.lock(command.takes()?);
                Self::right_lock(who, lock, &command).into()
            }
            "alone" | "solo" | "await" | "notify" | "habit" => {
                let lock = region.lock(command.uses()?);
                Self::right_lock(who, lock, &command).into()
            }
            "give" if region.permit.health != Health::Spent => "nothingspent".into(),
            "join" => region.participants.right_join().into(),
            "pass" => region.participants.right_pass(who, command.how == "wait").into(),
            "promote" if !region.own.readers.is_empty() => {
                return Some("no answer yet: somebody reads".into());
            }
            "promote" => Self::right_lock(who, &region.own, &command).into(),
            "sput" => region.seqs.entry(command.third).or_default().right_put().into(),
            "sget" => region.seqs.entry(command.third).or_default().right_get(),
            "reset" if region.own.writer.is_some() => "timedout".into(),
            "wait" => return None,
            "unlock" | "leave" | "abandon" | "giveup" | "repair" | "forget" | "spend"
            | "complete"
                if self.held_by(who, command.name).is_none() =>
            {
                "skip".into()
            }
            _ => "ok".into(),
        })
    }

    fn right_lock(who: Who, lock: &Lock, command: &Command<'_>) -> &'static str {
        let busy = lock.writer.is_some()
            || (matches!(command.verb, "lock" | "solo") && !lock.readers.is_empty());
        match lock.health {
            _ if lock.writer == Some(who) => "deadlock",
            _ if busy && command.how == "wait" => "no answer yet: another living process has it",
            _ if busy => "timedout",
            Health::Clean => "ok",
            Health::Inconsistent => "ownerdied",
            Health::Unrecoverable => "unrecoverable",
            Health::Spent if command.how == "wait" => "no answer yet: no permit is left",
            Health::Spent => "timedout",
            Health::Done => "done",
        }
    }

    /// Records that `who` got `answer`.
    pub(crate) fn answered(&mut self, who: Who, text: &str, answer: &str, trace: &[Point]) {
        let command = parse(text);
        self.follow(who, &command, trace);
        // A reader is told that the owner died, and gets no lock.
        let held = answer == "ok" || answer == "ownerdied" && command.verb != "rlock";
        // A wait that times out also leaves its flag in the event.
        self.region(command.name).raw |= command.verb == "wait";
        if let (true, Some(which)) = (held, command.takes()) {
            self.take(who, &command, which);
        } else if let (true, Some(which)) = (held, command.uses()) {
            self.region(command.name).lock(which).health = Health::Clean;
        } else if command.verb == "join" && held {
            self.region(command.name).participants.join(who);
        } else if command.verb == "promote" && held {
            self.region(command.name).own.health = Health::Clean;
        } else if command.verb == "sput" && held {
            self.seq(&command).put(command.size());
        } else if answer.starts_with("ok") {
            self.done(who, &command);
        }
    }

    fn take(&mut self, who: Who, command: &Command<'_>, which: Which) {
        let region = self.region(command.name);
        region.raw |= !matches!(which, Which::Own);
        let lock = region.lock(which);
        if command.verb == "rlock" {
            lock.readers.push(who);
        } else {
            lock.writer = Some(who);
        }
        self.guards.push((who, command.name.to_owned(), which));
    }

    fn done(&mut self, who: Who, command: &Command<'_>) {
        let region = self.regions.entry(command.name.to_owned()).or_default();
        match command.verb {
            "create" => region.create(command),
            "map" => region.mappers.push(who),
            "unmap" => {
                remove_one(&mut region.mappers, who);
                region.unmapped();
            }
            "fill" => region.filled = region.size,
            "signal" | "broadcast" => region.raw = true,
            "sopen" => {
                region.raw = true;
                region.seqs.entry(command.third).or_default();
            }
            "destroy" => {
                region.life = Life::Doomed;
                region.unmapped();
            }
            "resize" => region.resize(command.size()),
            "reset" => region.own.health = Health::Clean,
            "repair" | "unlock" | "leave" | "abandon" | "giveup" | "forget" | "spend"
            | "complete" => {
                self.give_back(who, command);
            }
            "ready" => (region.records, region.raw) = (true, true),
            "give" => region.permit.health = Health::Clean,
            "arrive" => region.participants.arrive(who),
            "part" => region.participants.leave(who),
            "look" | "wait" | "sget" | "pass" | "cycle" => {}
            // It gives up whatever it still holds.
            "close" => self.gone(who),
            // These commands have no region.
            _ => drop(self.regions.remove(command.name)),
        }
    }

    /// The guard in this region that `who` gives back next.
    fn held_by(&self, who: Who, name: &str) -> Option<usize> {
        self.guards.iter().rposition(|guard| guard.0 == who && guard.1 == name)
    }

    fn give_back(&mut self, who: Who, command: &Command<'_>) {
        let Some(index) = self.held_by(who, command.name) else { return };
        let Some(which) = self.guards.get(index).map(|guard| guard.2) else { return };
        if command.verb != "repair" {
            self.guards.remove(index);
        }
        if command.verb == "forget" {
            return;
        }
        let lock = self.region(command.name).lock(which);
        if lock.writer != Some(who) {
            return remove_one(&mut lock.readers, who);
        }
        lock.health = match (command.verb, lock.health) {
            ("leave", _) => Health::Inconsistent,
            ("spend", _) => Health::Spent,
            ("complete", _) => Health::Done,
            ("giveup", Health::Inconsistent) => Health::Unrecoverable,
            // Data that were not repaired stay inconsistent.
            ("abandon", Health::Inconsistent) => Health::Inconsistent,
            _ => Health::Clean,
        };
        if command.verb != "repair" {
            lock.writer = None;
        }
    }

    /// Records that `who` has died, in the middle of the command `text` if there is one, after the points of `trace`.
    pub(crate) fn died(&mut self, who: Who, text: Option<&str>, trace: &[Point]) {
        if let Some(text) = text {
            let command = parse(text);
            self.follow(who, &command, trace);
            self.died_in(who, &command, trace);
        }
        self.gone(who);
    }

    /// Records that `who` is no longer a peer.
    fn gone(&mut self, who: Who) {
        for region in self.regions.values_mut() {
            region.mappers.retain(|other| *other != who);
            region.unmapped();
            region.participants.died(who);
            let own = [&mut region.own, &mut region.permit, &mut region.once, &mut region.changes];
            for lock in region.mutexes.values_mut().chain(own) {
                lock.readers.retain(|other| *other != who);
                if lock.writer == Some(who) {
                    lock.writer = None;
                    lock.health = Health::Inconsistent;
                }
            }
        }
        self.guards.retain(|guard| guard.0 != who);
    }

    /// Records the effect of a command in which `who` died. The command has taken effect if the point after its
    /// decisive store was passed.
    fn died_in(&mut self, who: Who, command: &Command<'_>, trace: &[Point]) {
        let passed = |point| trace.contains(&point);
        match command.verb {
            "create" if passed(Point::CreateActive) => self.done(who, command),
            "destroy" if self.region(command.name).life != Life::Present => {}
            "destroy" if passed(Point::DestroyFreeing) => self.done(who, command),
            "destroy" if command.how == "deferred" && passed(Point::DestroyState) => {
                self.done(who, command);
            }
            "resize" if passed(Point::ResizeGranted) => self.done(who, command),
            "reset" if passed(Point::LockReset) => self.done(who, command),
            // The tag of the record may be there or not.
            "sopen" => self.region(command.name).raw = true,
            "sput" => self.seq(command).died(command.size(), trace),
            "promote" => self.died_upgrading(command, trace),
            "permit" if passed(Point::PermitTaken) => self.take(who, command, Which::Permit),
            "lock" | "mlock" | "once" => {
                if let Some(which) = command.takes()
                    && self.holds(who, command, which, trace) == Some(true)
                {
                    self.take(who, command, which);
                }
            }
            "alone" | "solo" | "await" | "notify" | "habit" => self.died_using(who, command, trace),
            "unlock" | "leave" | "abandon" | "giveup"
                if passed(Point::PermitFreed) || stand(trace) == Some(Stand::Outside) =>
            {
                self.give_back(who, command);
            }
            // Some of the records may have been made.
            "ready" => self.region(command.name).raw = true,
            "spend" if passed(Point::PermitSpent) => self.give_back(who, command),
            "complete" if passed(Point::OnceDone) => self.give_back(who, command),
            "give" if passed(Point::PermitFreed) => self.done(who, command),
            "join" if passed(Point::ParticipantJoined) => {
                self.region(command.name).participants.join(who);
            }
            "arrive" if passed(Point::ParticipantArrived) => self.done(who, command),
            "part" if passed(Point::ParticipantLeft) => self.done(who, command),
            _ => {}
        }
    }

    fn seq(&mut self, command: &Command<'_>) -> &mut Seq {
        let region = self.region(command.name);
        region.raw = true;
        region.seqs.entry(command.third).or_default()
    }

    /// Whether `who` has the lock after these points of a command. `None`: as before the command.
    fn holds(
        &mut self,
        who: Who,
        command: &Command<'_>,
        which: Which,
        trace: &[Point],
    ) -> Option<bool> {
        let bias = self.region(command.name).lock(which).bias;
        stand(trace).map(|stand| match stand {
            Stand::Owns => true,
            Stand::Inside => bias == Some(who),
            Stand::Outside => false,
        })
    }

    /// Records a death in the middle of a command that takes a lock and frees it again.
    fn died_using(&mut self, who: Who, command: &Command<'_>, trace: &[Point]) {
        let Some(which) = command.uses() else { return };
        let Some(holds) = self.holds(who, command, which, trace) else { return };
        let lock = self.region(command.name).lock(which);
        let repaired = trace.contains(&Point::LockConsistent);
        if holds {
            lock.health = Health::Inconsistent;
        } else if repaired {
            lock.health = Health::Clean;
        }
    }

    /// Records what these points have changed in the bias of the command's lock.
    fn follow(&mut self, who: Who, command: &Command<'_>, trace: &[Point]) {
        let Some(which) = self.concerns(who, command) else { return };
        let region = self.region(command.name);
        region.raw |= matches!(which, Which::Mutex(_));
        let lock = region.lock(which);
        lock.bias = bias_after(lock.bias, who, trace);
    }

    fn concerns(&self, who: Who, command: &Command<'_>) -> Option<Which> {
        let which = match command.verb {
            "unlock" | "leave" | "abandon" | "giveup" | "repair" | "forget" => {
                let index = self.held_by(who, command.name);
                index.and_then(|index| self.guards.get(index)).map(|(_, _, which)| *which)
            }
            _ => command.uses().or_else(|| command.takes()),
        };
        which.filter(|which| matches!(which, Which::Own | Which::Mutex(_) | Which::Changes))
    }

    fn died_upgrading(&mut self, command: &Command<'_>, trace: &[Point]) {
        let own = &mut self.region(command.name).own;
        match is_upgraded(trace) {
            Some(true) => own.health = Health::Inconsistent,
            Some(false) => own.health = Health::Clean,
            None if has_repaired(trace) => own.health = Health::Clean,
            None => {}
        }
    }

    /// Checks that nothing is held or half done any more.
    pub(crate) fn idle(&self) -> Outcome {
        match self.guards.iter().find(|guard| guard.0 != DRIVER) {
            Some(guard) => Err(format!("the scenario itself leaves {guard:?}")),
            None => Ok(()),
        }
    }

    /// Records a region of the driver's own.
    pub(crate) fn keep(&mut self, name: &str, size: u64, verb: &str) {
        let create = format!("create {name} {size}");
        for text in [create.as_str(), &format!("map {name}"), &format!("fill {name}")] {
            self.done(DRIVER, &parse(text));
        }
        self.take(DRIVER, &parse(&format!("{verb} {name} wait")), Which::Own);
    }
}
