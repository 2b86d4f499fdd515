//! The stops: which workers are stopped by SIGSTOP, until when, and all stops of the past.
//!
//! A stopped worker is alive: no other worker may take its locks over. A worker that needs them must wait, or give up
//! in time. Some stopped workers are killed instead of being continued.
//!
//! Invariants: 1. a worker that still lives at the end of the run has been continued. 2. `past` covers every moment at
//! which a worker was stopped: an interval begins before SIGSTOP, and ends after SIGCONT or the kill.

use std::{mem, process::Child, time::Duration};

use commonhold_console::{clock::now_ns, random::Random};
use rustix::process::{Pid, Signal, kill_process};

use super::history::Stopped;

/// How long a worker is stopped at most: with `--stop-every`, and with the kills if that option is not given.
const LONGEST: Duration = Duration::from_secs(1);
const LONGEST_BESIDE_KILLS: Duration = Duration::from_millis(60);

/// A worker that is stopped now.
#[derive(Debug)]
struct Standing {
    /// Its index among the children.
    place: usize,
    worker: usize,
    from: u64,
    /// When it is continued, as time since the run began.
    until: Duration,
}

/// The stops of a run.
#[derive(Debug)]
pub(super) struct Stops {
    /// The option `--stop-every`. Without it, one kill in four comes with a stop.
    every: Option<Duration>,
    next: Duration,
    standing: Vec<Standing>,
    past: Vec<Stopped>,
    pub(super) count: u64,
}

impl Stops {
    pub(super) fn plan(every: Option<Duration>, random: &mut Random) -> Self {
        let mut stops =
            Self { every, next: Duration::ZERO, standing: Vec::new(), past: Vec::new(), count: 0 };
        stops.come_next(random);
        stops
    }

    /// Plans the next stop, counted from the planned time of this one, not from now.
    fn come_next(&mut self, random: &mut Random) {
        self.next = match self.every {
            Some(every) if !every.is_zero() => self.next.saturating_add(around(every, random)),
            _ => Duration::MAX,
        };
    }

    /// How often the coordinator must check for stops.
    pub(super) fn tick(&self) -> Option<Duration> {
        self.every.filter(|every| !every.is_zero()).map(|every| every / 2)
    }

    /// If it is time for a stop: how long it may last at most.
    pub(super) fn is_due(
        &mut self,
        now: Duration,
        killing: bool,
        random: &mut Random,
    ) -> Option<Duration> {
        if now >= self.next {
            self.come_next(random);
            return Some(LONGEST);
        }
        let beside = killing && self.every.is_none() && self.standing.is_empty();
        (beside && random.below(4) == 0).then_some(LONGEST_BESIDE_KILLS)
    }

    /// Stops a worker, unless it is stopped already.
    pub(super) fn stop(&mut self, child: &mut Child, place: usize, worker: usize, until: Duration) {
        if self.is_stopped(place) {
            return;
        }
        let from = now_ns();
        if signal(child, Signal::STOP) {
            self.standing.push(Standing { place, worker, from, until });
            self.count += 1;
        }
    }

    pub(super) fn is_stopped(&self, place: usize) -> bool {
        self.standing.iter().any(|standing| standing.place == place)
    }

    /// The stopped workers that should be continued now.
    pub(super) fn over(&self, now: Duration) -> Vec<usize> {
        let over = self.standing.iter().filter(|standing| now >= standing.until);
        over.map(|standing| standing.place).collect()
    }

    /// Continues a worker.
    pub(super) fn resume(&mut self, child: &mut Child, place: usize) {
        signal(child, Signal::CONT);
        self.has_ended(place);
    }

    /// Notes that a worker is no longer stopped, since it was continued or is dead. Returns whether it was stopped.
    pub(super) fn has_ended(&mut self, place: usize) -> bool {
        let until = now_ns();
        let (gone, standing): (Vec<_>, Vec<_>) =
            mem::take(&mut self.standing).into_iter().partition(|one| one.place == place);
        self.standing = standing;
        let past = gone.iter().map(|one| Stopped { worker: one.worker, from: one.from, until });
        self.past.extend(past);
        !gone.is_empty()
    }

    /// All past stops.
    pub(super) fn take_past(&mut self) -> Vec<Stopped> {
        mem::take(&mut self.past)
    }
}

/// A random time, from half to one and a half of `time`.
pub(super) fn around(time: Duration, random: &mut Random) -> Duration {
    let share = u32::try_from(500 + random.below(1_000)).unwrap_or(1_000);
    time.saturating_mul(share) / 1_000
}

/// Sends a signal to a worker. Returns false if the worker has ended: then another process may have its process id.
fn signal(child: &mut Child, signal: Signal) -> bool {
    if !matches!(child.try_wait(), Ok(None)) {
        return false;
    }
    let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else { return false };
    let sent = kill_process(pid, signal);
    if let Err(error) = sent {
        tracing::debug!(%error, "a worker did not get a signal");
    }
    sent.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(stops: &mut Stops, killing: bool) -> usize {
        let mut random = Random::new(7);
        let moments = (0..1_000).map(Duration::from_millis);
        moments.filter(|now| stops.is_due(*now, killing, &mut random).is_some()).count()
    }

    #[test]
    fn stops_follow_the_option_and_come_with_kills_only_without_it() {
        let mut random = Random::new(1);
        let mut plan = |every| Stops::plan(every, &mut random);
        assert_eq!(due(&mut plan(Some(Duration::ZERO)), true), 0);
        assert!((70..=140).contains(&due(&mut plan(Some(Duration::from_millis(10))), true)));
        assert_eq!(due(&mut plan(None), false), 0);
        assert!((150..=350).contains(&due(&mut plan(None), true)));
    }

    /// Kills the child even if the test fails: a stopped child would never end by itself.
    struct Killed(Child);

    impl Drop for Killed {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_stop_is_recorded_until_the_child_is_continued() {
        let mut child = Killed(std::process::Command::new("sleep").arg("60").spawn().unwrap());
        let child = &mut child.0;
        let state = |pid: u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
        };
        let until = |pid, stopped: bool| {
            let deadline = std::time::Instant::now() + Duration::from_secs(10);
            while (state(pid) == 'T') != stopped {
                assert!(std::time::Instant::now() < deadline, "in state {}", state(pid));
                std::thread::yield_now();
            }
        };
        let mut stops = Stops::plan(Some(Duration::ZERO), &mut Random::new(1));
        let begun = now_ns();
        for _ in 0..2 {
            stops.stop(child, 3, 5, Duration::from_millis(1));
        }
        until(child.id(), true);
        assert_eq!((stops.count, stops.over(Duration::ZERO)), (1, vec![]));
        assert_eq!(stops.over(Duration::from_millis(1)), [3]);
        stops.resume(child, 3);
        until(child.id(), false);
        assert!(!stops.has_ended(3));
        let past = stops.take_past();
        assert_eq!((past.len(), past[0].worker), (1, 5));
        assert!(begun <= past[0].from && past[0].from < past[0].until);
    }
}
