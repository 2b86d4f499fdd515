//! The run of the demo: starts workers, kills them in the middle of a transfer, and checks the sum.

use std::{
    path::Path,
    process::Child,
    thread,
    time::{Duration, Instant},
};

use commonhold::{Access, CreateOptions, Destroy, FormatOptions, Mapping, Space};
use commonhold_console::{
    clock::now_ns,
    failure::{Doing, Failure, broken},
    output::Out,
    session::Session,
    signals::Signals,
    workers::{self, Order, PATIENCE, TestSpace},
};
use serde::Serialize;

use super::ledger::{
    ACCOUNTS, CONTROL, DEATH_FUTEX, FROZEN, Ledger, NAME, OPENING, PHASE, REST, RESTS, SIZE, STOP,
    freeze_of, says_of,
};
use crate::args::DemoArgs;

#[derive(Debug, Default, Serialize)]
struct Summary {
    seconds: f64,
    peers: u64,
    kills: u64,
    recoveries: u64,
    transfers: u64,
    expected: u64,
    seen: u64,
    lost: i128,
    recovery_us: Vec<u64>,
    destroy_waited_us: u64,
    leaked_regions: usize,
    leaked_peers: usize,
    stuck: u64,
}

pub(crate) fn demo(session: &Session, args: &DemoArgs) -> Result<(), Failure> {
    workers::watchdog(session, "the demo", Duration::from_secs(args.seconds) + 6 * PATIENCE);
    let signals = Signals::watch()?;
    let out = session.out;
    let (run_space, space) = TestSpace::prepare(session, "demo", &FormatOptions::default())?;
    out.tell(&format!(
        "{} workers share {ACCOUNTS} accounts of {OPENING} in {}, under one lock",
        args.peers, run_space.url
    ))?;
    let mut run = Run::prepare(out, &run_space, &space, args)?;
    let result = run.perform(&signals);
    // After any failure no worker may stay. After success, `finish` lets them release what they hold.
    let result = result.and_then(|()| run.finish());
    if result.is_err() {
        for child in &mut run.children {
            if let Err(error) = workers::kill(child) {
                tracing::warn!(%error, "a worker could not be killed");
            }
        }
    }
    result?;
    let summary = run.summary;
    run_space.remove(space)?;
    if out.json {
        out.value(&summary)?;
    }
    let clean = summary.lost == 0
        && summary.leaked_regions == 0
        && summary.leaked_peers == 0
        && summary.stuck == 0
        && summary.kills <= summary.recoveries;
    if !clean {
        return Err(broken(format!("something was lost: {summary:?}")));
    }
    out.tell("nothing lost, nothing locked, nothing left")
}

struct Run<'a> {
    out: Out,
    run_space: &'a TestSpace,
    space: &'a Space,
    args: &'a DemoArgs,
    control: Option<Mapping>,
    ledger: Option<Ledger>,
    children: Vec<Child>,
    /// Index of the child that this process has killed and not replaced yet.
    victim: Option<usize>,
    began: Instant,
    summary: Summary,
}

impl<'a> Run<'a> {
    fn prepare(
        out: Out,
        run_space: &'a TestSpace,
        space: &'a Space,
        args: &'a DemoArgs,
    ) -> Result<Self, Failure> {
        let what = || "prepare the ledger".to_owned();
        let options = CreateOptions { size: 64 + 64 * args.peers, ..CreateOptions::default() };
        let control = space.create_with(CONTROL, &options).doing(what)?;
        let control = control.map(Access::ReadWrite).doing(what)?;
        let ledger = space.create(NAME, SIZE).doing(what)?.map(Access::ReadWrite).doing(what)?;
        let ledger = Ledger(ledger);
        ledger.open_accounts().doing(what)?;
        let mut run = Self {
            out,
            run_space,
            space,
            args,
            control: Some(control),
            ledger: Some(ledger),
            children: Vec::new(),
            victim: None,
            began: Instant::now(),
            summary: Summary { peers: args.peers, ..Summary::default() },
        };
        for cell in 0..args.peers {
            let child = run.start(cell)?;
            run.children.push(child);
        }
        Ok(run)
    }

    fn start(&self, cell: u64) -> Result<Child, Failure> {
        let (url, peers) = (self.run_space.url.as_str(), self.args.peers);
        let seed = now_ns().wrapping_add(cell);
        let log = Path::new("-");
        let owners = self.run_space.owners;
        workers::start(Order { command: "demo-worker", url, owners, cell, seed, peers, log })
    }

    fn control(&self) -> Result<&Mapping, Failure> {
        self.control.as_ref().ok_or_else(|| broken("the control region is unmapped"))
    }

    fn ledger(&self) -> Result<&Ledger, Failure> {
        self.ledger.as_ref().ok_or_else(|| broken("the ledger is unmapped"))
    }

    fn perform(&mut self, signals: &Signals) -> Result<(), Failure> {
        let end = Duration::from_secs(self.args.seconds);
        let every = Duration::from_secs_f64((end.as_secs_f64() / 5.0).clamp(0.5, 3.0));
        let (mut next_kill, mut next_report) = (every, Duration::from_secs(1));
        let (mut reported, mut victim) = (0, 0);
        while self.began.elapsed() < end && signals.last().is_none() {
            thread::sleep(Duration::from_millis(20));
            self.nobody_failed()?;
            let now = self.began.elapsed();
            if now >= next_report {
                let transfers =
                    self.ledger()?.totals().doing(|| "read totals".to_owned())?.transfers;
                self.out.tell(&format!(
                    "{:5.1} s  {:>9} transfers/s",
                    now.as_secs_f64(),
                    transfers.wrapping_sub(reported)
                ))?;
                reported = transfers;
                next_report = now + Duration::from_secs(1);
            }
            if now >= next_kill && now + Duration::from_millis(200) < end {
                self.kill_in_transfer(victim)?;
                victim = (victim + 1) % self.args.peers;
                next_kill = self.began.elapsed() + every;
            }
        }
        self.summary.seconds = self.began.elapsed().as_secs_f64();
        Ok(())
    }

    /// Stops a worker in the middle of a transfer, kills it, and waits for the recovery.
    fn kill_in_transfer(&mut self, cell: u64) -> Result<(), Failure> {
        let what = || "kill a worker".to_owned();
        self.control()?.set(freeze_of(cell), &1_u64).doing(what)?;
        self.until("a worker to stop in the middle of a transfer", |run| {
            Ok(run.control()?.get::<u64>(says_of(cell)).doing(what)? == FROZEN)
        })?;
        let before = self.ledger()?.totals().doing(what)?.recoveries;
        let index = usize::try_from(cell).unwrap_or(0);
        let child = self.children.get_mut(index).ok_or_else(|| broken("no such worker"))?;
        let (pid, killed_at) = (child.id(), now_ns());
        workers::kill(child).doing(what)?;
        self.victim = Some(index);
        self.summary.kills += 1;
        self.until("another worker to recover the lock", |run| {
            Ok(run.ledger()?.totals().doing(what)?.recoveries != before)
        })?;
        let totals = self.ledger()?.totals().doing(what)?;
        let micros = totals.recovered_at.saturating_sub(killed_at) / 1_000;
        self.summary.recovery_us.push(micros);
        self.out.tell(&format!(
            "{:5.1} s  pid {pid} died holding the lock, in the middle of a transfer; pid {} had \
             the lock {micros} us later and undid the transfer of {}",
            self.began.elapsed().as_secs_f64(),
            totals.recovered_by,
            totals.undone
        ))?;
        let control = self.control()?;
        control.set(freeze_of(cell), &0_u64).doing(what)?;
        control.set(says_of(cell), &0_u64).doing(what)?;
        let fresh = self.start(cell)?;
        if let Some(place) = self.children.get_mut(index) {
            *place = fresh;
        }
        self.victim = None;
        Ok(())
    }

    /// Lets the workers rest, checks the sum, destroys the accounts while workers still map them, reaps, and checks
    /// that nothing is left.
    fn finish(&mut self) -> Result<(), Failure> {
        let what = || "count the ledger".to_owned();
        self.say(REST)?;
        self.until("the workers to rest", |run| {
            let control = run.control()?;
            let resting = (0..run.args.peers)
                .map(|cell| control.get::<u64>(says_of(cell)).doing(what))
                .collect::<Result<Vec<_>, _>>()?;
            Ok(resting.iter().all(|says| *says == RESTS))
        })?;
        self.count()?;
        self.destroy_while_mapped()?;
        let joined = workers::join(&mut self.children);
        self.summary.stuck = joined.stuck;
        let what = || "clean up".to_owned();
        if let Some(control) = self.control.take() {
            control.unmap().doing(what)?;
        }
        self.space.destroy(CONTROL, Destroy::Within(PATIENCE)).doing(what)?;
        let reaped = self.space.reap().doing(what)?;
        let ours = |name: &str| name == NAME || name == CONTROL;
        let regions = self.space.regions().doing(what)?;
        self.summary.leaked_regions = regions.iter().filter(|region| ours(&region.name)).count();
        let me = self.space.peer();
        let peers = self.space.peers().doing(what)?;
        let workers = |name: &str| name.starts_with("demo-");
        self.summary.leaked_peers = peers
            .iter()
            .filter(|peer| (peer.slot, peer.generation) != me && workers(&peer.name))
            .count();
        self.out.tell(&format!(
            "reaped {} more; {} regions and {} peers left",
            reaped.peers.len(),
            self.summary.leaked_regions,
            self.summary.leaked_peers
        ))?;
        if joined.failed.is_empty() {
            Ok(())
        } else {
            Err(broken(format!("workers failed: {:?}", joined.failed)))
        }
    }

    fn count(&mut self) -> Result<(), Failure> {
        let what = || "count the ledger".to_owned();
        let ledger = self.ledger()?;
        let repair = |_: &_| Ok(ledger.repair(now_ns(), u64::from(std::process::id()))?);
        let guard = ledger.0.lock_repairing(repair).doing(what)?;
        let (seen, totals) = (ledger.sum().doing(what)?, ledger.totals().doing(what)?);
        guard.unlock().doing(what)?;
        self.summary.expected = ACCOUNTS * OPENING;
        self.summary.seen = seen;
        self.summary.lost = i128::from(self.summary.expected) - i128::from(seen);
        self.summary.transfers = totals.transfers;
        self.summary.recoveries = totals.recoveries;
        self.out.tell(&format!(
            "{} transfers, {} workers killed, {} recoveries; sum {seen}, expected {}",
            totals.transfers, self.summary.kills, totals.recoveries, self.summary.expected
        ))
    }

    /// Destroys the accounts' region while the workers still map it and this process does not: the destroy waits.
    fn destroy_while_mapped(&mut self) -> Result<(), Failure> {
        let what = || "destroy the ledger".to_owned();
        if let Some(Ledger(mapping)) = self.ledger.take() {
            mapping.unmap().doing(what)?;
        }
        let maps = self.space.stat(NAME).doing(what)?.maps;
        self.out.tell(&format!("destroying the ledger while {maps} workers still map it ..."))?;
        let space = self.space.clone();
        let began = Instant::now();
        let destroyer = thread::spawn(move || {
            let result = space.destroy(NAME, Destroy::Within(PATIENCE));
            (result, began.elapsed())
        });
        // Not a synchronisation: gives the user time to see that the destroy waits.
        thread::sleep(Duration::from_millis(300));
        if destroyer.is_finished() {
            return Err(broken("destroy did not wait for the mappings to go"));
        }
        self.say(STOP)?;
        let (result, waited) =
            destroyer.join().map_err(|_| broken("the thread that destroys panicked"))?;
        result.doing(what)?;
        self.summary.destroy_waited_us = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        self.out.tell(&format!(
            "... it returned after {} ms, when the last mapping went",
            waited.as_millis()
        ))
    }

    fn say(&self, phase: u64) -> Result<(), Failure> {
        let what = || "tell the workers".to_owned();
        let control = self.control()?;
        control.set(PHASE, &phase).doing(what)?;
        control.event(DEATH_FUTEX).doing(what)?.broadcast().doing(what)
    }

    fn until(
        &mut self,
        what: &str,
        mut done: impl FnMut(&Self) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        while !done(self)? {
            self.nobody_failed()?;
            if Instant::now() > deadline {
                return Err(broken(format!("waited {} s for {what}", PATIENCE.as_secs())));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn nobody_failed(&mut self) -> Result<(), Failure> {
        for (index, child) in self.children.iter_mut().enumerate() {
            if self.victim == Some(index) {
                continue;
            }
            let ended = child.try_wait().doing(|| "look at a worker".to_owned())?;
            if let Some(status) = ended {
                return Err(broken(format!("worker {} ended early: {status}", child.id())));
            }
        }
        Ok(())
    }
}
