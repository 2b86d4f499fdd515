//! What the guest does as a peer: this is how the core is used.

use core::{cell::Cell, hint, sync::atomic::Ordering};

use commonhold_layout::{PeerPhase, RegionId, RegionPhase};
use commonhold_space::{
    AttachError, Attached, CreateOptions, Destroy, DirectoryError, Mapped, Patience, View,
    heartbeat_period_ms,
};
use commonhold_sync::{Park, Release, Taken, Thread, Verdict};

use crate::{
    commands::{Command, Commands, Named},
    failure::Failure,
    identity::identity,
    platform::BareMetal,
    say,
};

/// How long to listen until a missing heartbeat is certain, plus two more checks.
const LISTEN_NS: u64 = 1_500_000_000;

/// The counts that are printed at the end.
#[derive(Debug, Default)]
struct Total {
    increments: u64,
    owner_died: u64,
}

/// Attaches to the space, executes all commands, and detaches.
///
/// # Errors
/// The [`Failure`] of the first command that fails; the commands after it are not tried.
pub(crate) fn run(platform: BareMetal, commands: Commands) -> Result<(), Failure> {
    let view = View::open(platform).map_err(Failure::Open)?;
    let space = Attached::attach(view, &identity()).map_err(Failure::Attach)?;
    say!("attached as peer {} generation {}", space.peer().get(), space.generation());
    let total = Guest::new(&space).and_then(|guest| guest.all(commands));
    // Without this, the slot would stay taken until a peer reaps it.
    space.detach().map_err(Failure::Detach)?;
    let Total { increments, owner_died } = total?;
    say!("done increments={increments} owner_died={owner_died}");
    Ok(())
}

/// This guest as a peer, with its only thread.
struct Guest<'a> {
    space: &'a Attached<BareMetal>,
    me: Thread<'a>,
    next_beat: Cell<u64>,
}

impl<'a> Guest<'a> {
    fn new(space: &'a Attached<BareMetal>) -> Result<Self, Failure> {
        let failed = |e| Failure::Attach(AttachError::Directory(e));
        let me = space.claim_thread(1).and_then(|slot| space.thread(slot)).map_err(failed)?;
        Ok(Self { space, me, next_beat: Cell::new(0) })
    }

    fn view(&self) -> &'a View<BareMetal> {
        self.space.view()
    }

    /// Writes this guest's heartbeat, and reads those of others. Everything that takes long must call it again and
    /// again, except a wait for a lock, during which the core does so.
    fn keep_alive(&self) {
        let now = self.view().now();
        if now >= self.next_beat.get() {
            self.space.beat();
            self.space.watch();
            let lease_ms = self.view().geometry().lease_ms();
            // The period for several kernels: this guest is a kernel of its own.
            let period_ms = heartbeat_period_ms(true, lease_ms);
            self.next_beat.set(now.saturating_add(period_ms.saturating_mul(1_000_000)));
        }
    }

    fn all(&self, commands: Commands) -> Result<Total, Failure> {
        let mut total = Total::default();
        for command in commands {
            match command.map_err(Failure::Arguments)? {
                Command::List => self.list()?,
                Command::Create { name, size } => self.create(name, size)?,
                Command::Destroy(name) => self.destroy(name)?,
                Command::Hold(name) => self.with_region(name, |region| region.hold())?,
                Command::Increment { name, times } => {
                    self.with_region(name, |region| region.increment(times, &mut total))?;
                }
            }
        }
        Ok(total)
    }

    /// Prints all regions and peers, after listening to the heartbeats of others for long enough to judge them.
    fn list(&self) -> Result<(), Failure> {
        let known = self.view().now().saturating_add(LISTEN_NS);
        while self.space.unproven().next().is_some() && self.view().now() < known {
            self.keep_alive();
            hint::spin_loop();
        }
        let used = self.view().regions_used().map_err(Failure::Damaged)?;
        for region in (0..used).map(RegionId::new) {
            let record = self.view().region_record(region).map_err(Failure::Damaged)?;
            let Some(record) = record else { continue };
            let state = match record.phase {
                RegionPhase::Creating => "creating",
                RegionPhase::Active => "active",
                _ => "destroying",
            };
            say!("region {} size={} {state} maps={}", record.name, record.size, record.mappings);
        }
        for peer in self.view().peer_ids() {
            let Some((record, phase)) = self.view().peer_record(peer) else { continue };
            let verdict = match phase {
                PeerPhase::Live | PeerPhase::Attaching => self.view().verdict_on(&record),
                _ => Verdict::Dead,
            };
            let state = match verdict {
                Verdict::Alive => "live",
                Verdict::Suspect => "suspect",
                Verdict::Dead => "dead",
            };
            let name = record.identity.name;
            say!("peer {} generation={} {state} {name}", peer.get(), record.generation);
        }
        Ok(())
    }

    fn create(&self, Named { text, name }: Named, size: u64) -> Result<(), Failure> {
        let options = CreateOptions { size, ..CreateOptions::default() };
        self.space
            .create(&self.me, &name, &options, Patience::DEFAULT)
            .map_err(|e| Failure::Region(text, e))?;
        say!("created {text} size={size}");
        Ok(())
    }

    fn destroy(&self, Named { text, name }: Named) -> Result<(), Failure> {
        self.space
            .destroy(&self.me, &name, Destroy::Wait, Patience::DEFAULT)
            .map_err(|e| Failure::Region(text, e))?;
        say!("destroyed {text}");
        Ok(())
    }

    /// Maps a region, runs `what` on it, and unmaps it.
    fn with_region(
        &self,
        Named { text, name }: Named,
        what: impl FnOnce(&Region<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let failed = |e: DirectoryError| Failure::Region(text, e);
        let mapped = self.space.map(&self.me, &name, Patience::DEFAULT).map_err(failed)?;
        let done = what(&Region { guest: self, name: text, mapped });
        self.space.unmap(&self.me, mapped.handle).map_err(failed)?;
        done
    }
}

/// A mapped region.
struct Region<'a> {
    guest: &'a Guest<'a>,
    name: &'static str,
    mapped: Mapped,
}

impl Region<'_> {
    fn increment(&self, times: u64, total: &mut Total) -> Result<(), Failure> {
        let view = self.guest.view();
        if self.mapped.size < 8 {
            return Err(Failure::NoWord(self.name));
        }
        let word = view
            .window()
            .word(self.mapped.extent.start())
            .map_err(|e| Failure::Region(self.name, e.into()))?;
        for _ in 0..times {
            let taken = self.lock()?;
            if taken.is_owner_died() {
                total.owner_died += 1;
            }
            // Not one atomic operation but two: the lock makes them one.
            let value = word.load(Ordering::Relaxed);
            word.store(value.wrapping_add(1), Ordering::Relaxed);
            self.unlock()?;
            total.increments += 1;
            self.guest.keep_alive();
        }
        Ok(())
    }

    fn hold(&self) -> Result<(), Failure> {
        let _: Taken = self.lock()?;
        say!("holding {}", self.name);
        loop {
            self.guest.keep_alive();
            hint::spin_loop();
        }
    }

    /// Takes the lock to write, however long it takes. If its last owner died, the data need no repair: a single word
    /// is never half written.
    fn lock(&self) -> Result<Taken, Failure> {
        let (view, me) = (self.guest.view(), &self.guest.me);
        let words = view.lock_words(&self.mapped).map_err(Failure::Damaged)?;
        let lock = view.lock_of(&self.mapped, words);
        let failed = |e| Failure::Lock(self.name, e);
        let taken = lock.write(me, view, None).map_err(failed)?;
        if taken.is_owner_died() {
            lock.writer().mark_consistent(me).map_err(failed)?;
        }
        Ok(taken)
    }

    fn unlock(&self) -> Result<(), Failure> {
        let (view, me) = (self.guest.view(), &self.guest.me);
        let words = view.lock_words(&self.mapped).map_err(Failure::Damaged)?;
        let lock = view.lock_of(&self.mapped, words);
        lock.unlock_write(me, view, Release::Done).map_err(|e| Failure::Lock(self.name, e))
    }
}
