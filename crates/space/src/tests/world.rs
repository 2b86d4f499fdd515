//! A machine in software: a window on the heap, the memory behind it, the peers that live on it, and a clock.
//!
//! Tests tell it which peers are dead, when memory runs out, and what happens meanwhile. It panics if something that
//! may take long is done under the directory mutex while [`alone`](World::alone) is set.

use std::{
    boxed::Box,
    collections::{BTreeSet, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    vec::Vec,
};

use commonhold_layout::{
    BootId, Evidence, Extent, FormatOptions, Name, Offset, PeerId, PeerName, header_word,
};
use commonhold_sync::{Park, Verdict, Wake};
use commonhold_window::Window;

use crate::{
    Attached, BackingMemory, BackingMemoryError, CreateOptions, Demand, Destroy, DirectoryError,
    EvidenceLock, Identity, LivenessEvidence, Patience, PeerRecord, Platform, Room, Touch, View,
    format,
};

pub(super) const PAGE: u64 = 4096;

/// Something that happens to a world.
pub(super) type Event = fn(&Arc<World>);

/// One machine: its memory, and the peers that live on it.
#[derive(Debug)]
pub(super) struct World {
    pub(super) words: &'static [AtomicU64],
    pub(super) committed: Mutex<BTreeSet<u64>>,
    pub(super) pages: AtomicU64,
    /// Bytes that [`room_for`](BackingMemory::room_for) says are available.
    pub(super) room: AtomicU64,
    pub(super) living: Mutex<HashSet<u16>>,
    pub(super) suspects: Mutex<HashSet<u16>>,
    pub(super) clock: AtomicU64,
    /// Waits that could not rely on a wake.
    pub(super) polls: AtomicU64,
    /// Only one thread runs. So a held directory mutex is its own, and anything that may take long panics.
    pub(super) alone: AtomicBool,
    /// Verdicts that were asked for.
    pub(super) verdicts: AtomicU64,
    /// What happens when memory is released the next time.
    pub(super) at_release: Mutex<Option<Event>>,
    /// Attachments so far: each is another process.
    pub(super) processes: AtomicU64,
    /// Threads that have ended: process id and thread id.
    pub(super) ended: Mutex<HashSet<(u32, u32)>>,
    /// Life words that are armed.
    pub(super) armed: Mutex<BTreeSet<u64>>,
}

#[derive(Debug)]
pub(super) struct Machine {
    pub(super) world: Arc<World>,
    pub(super) window: Window,
}

impl World {
    pub(super) fn new(bytes: usize) -> Arc<Self> {
        let words: Vec<AtomicU64> = (0..bytes / 8).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self {
            words: Box::leak(words.into_boxed_slice()),
            committed: Mutex::default(),
            pages: AtomicU64::new(u64::MAX),
            room: AtomicU64::new(u64::MAX),
            living: Mutex::default(),
            suspects: Mutex::default(),
            clock: AtomicU64::new(1),
            polls: AtomicU64::new(0),
            alone: AtomicBool::new(false),
            verdicts: AtomicU64::new(0),
            at_release: Mutex::default(),
            processes: AtomicU64::new(1),
            ended: Mutex::default(),
            armed: Mutex::default(),
        })
    }

    pub(super) fn formatted(bytes: usize) -> Arc<Self> {
        let world = Self::new(bytes);
        let options = FormatOptions { capacity: bytes as u64, ..FormatOptions::default() };
        let machine = world.machine();
        format(&machine.window, &machine, &options, Demand::Fitting).unwrap();
        world
    }

    pub(super) fn machine(self: &Arc<Self>) -> Machine {
        Machine { world: Arc::clone(self), window: Window::from_words(self.words) }
    }

    pub(super) fn attach(self: &Arc<Self>) -> Peer {
        self.attach_from(BootId(7))
    }

    pub(super) fn attach_from(self: &Arc<Self>, boot: BootId) -> Peer {
        let view = View::open(self.machine()).unwrap();
        let identity = Identity {
            boot,
            pid: u32::try_from(self.processes.fetch_add(1, Ordering::Relaxed)).unwrap(),
            pid_namespace: 1,
            start_time: 1,
            uid: 0,
            name: PeerName::new("test"),
        };
        let space = Attached::attach(view, &identity).unwrap();
        let thread = space.claim_thread(1).unwrap();
        Peer { space, thread }
    }

    /// Called by everything that may take long, as system calls do.
    pub(super) fn takes_long(&self) {
        let held = self.words[header_word::DIRECTORY_LOCK].load(Ordering::Relaxed) != 0;
        assert!(!held || !self.alone.load(Ordering::Relaxed), "under the directory mutex");
    }

    pub(super) fn data_pages(&self, space: &Attached<Machine>) -> u64 {
        let data = space.view().geometry().data().start().get();
        self.committed.lock().unwrap().iter().filter(|page| **page * PAGE >= data).count() as u64
    }
}

pub(super) struct Peer {
    pub(super) space: Attached<Machine>,
    pub(super) thread: crate::OwnThread,
}

impl Peer {
    pub(super) fn create(
        &self,
        name: &str,
        size: u64,
    ) -> Result<crate::RegionHandle, DirectoryError> {
        self.create_with(name, CreateOptions { size, ..CreateOptions::default() })
    }

    pub(super) fn create_with(
        &self,
        name: &str,
        options: CreateOptions,
    ) -> Result<crate::RegionHandle, DirectoryError> {
        self.space.create(&self.me(), &Name::new(name).unwrap(), &options, Patience::DEFAULT)
    }

    pub(super) fn me(&self) -> commonhold_sync::Thread<'_> {
        self.space.thread(self.thread).unwrap()
    }

    pub(super) fn map(&self, name: &str) -> Result<crate::Mapped, DirectoryError> {
        self.space.map(&self.me(), &Name::new(name).unwrap(), Patience::DEFAULT)
    }

    pub(super) fn unmap(&self, mapped: crate::Mapped) -> Result<(), DirectoryError> {
        self.space.unmap(&self.me(), mapped.handle)
    }

    pub(super) fn destroy(
        &self,
        name: &str,
        how: Destroy,
    ) -> Result<crate::RegionHandle, DirectoryError> {
        self.space.destroy(&self.me(), &Name::new(name).unwrap(), how, Patience::DEFAULT)
    }

    pub(super) fn resize(&self, name: &str, size: u64) -> Result<(), DirectoryError> {
        let (name, demand) = (Name::new(name).unwrap(), Demand::Fitting);
        self.space.resize(&self.me(), &name, size, demand, Patience::DEFAULT)
    }

    pub(super) fn lock_of(
        &self,
        mapped: crate::Mapped,
    ) -> commonhold_sync::RwLock<'_, crate::RegionShares<'_, Machine>> {
        let view = self.space.view();
        view.lock_of(&mapped, view.lock_words(&mapped).unwrap())
    }

    pub(super) fn check(&self) -> crate::Census {
        self.space.check(&self.me(), Patience::DEFAULT).unwrap()
    }

    /// Dies as by SIGKILL.
    pub(super) fn die(self) {
        let machine = self.space.view().platform();
        machine.world.living.lock().unwrap().remove(&self.space.peer().get());
    }
}

impl BackingMemory for Machine {
    fn commit(&self, extent: Extent) -> Result<(), BackingMemoryError> {
        self.world.takes_long();
        let mut committed = self.world.committed.lock().unwrap();
        for page in extent.start().get() / PAGE..extent.end().div_ceil(PAGE) {
            if !committed.contains(&page)
                && committed.len() as u64 >= self.world.pages.load(Ordering::Relaxed)
            {
                return Err(BackingMemoryError::Full { errno: 28 });
            }
            committed.insert(page);
        }
        Ok(())
    }

    fn back(&self, extent: Extent, touch: Touch) -> Result<(), BackingMemoryError> {
        let pages = extent.start().get() / PAGE..extent.end().div_ceil(PAGE);
        let holds = |page: &u64| self.world.committed.lock().unwrap().contains(page);
        match touch {
            _ if pages.clone().all(|page| holds(&page)) => Ok(()),
            Touch::Look => Err(BackingMemoryError::Hole),
            Touch::Use => self.commit(extent),
        }
    }

    fn room_for(&self, bytes: u64) -> Result<(), BackingMemoryError> {
        self.world.takes_long();
        let room = self.world.room.load(Ordering::Relaxed);
        if bytes <= room {
            return Ok(());
        }
        Err(BackingMemoryError::NoRoom(Room {
            asked: bytes,
            machine: Some(room),
            ..Room::default()
        }))
    }

    fn resident(&self, extent: Extent) -> u64 {
        self.world.takes_long();
        let committed = self.world.committed.lock().unwrap();
        let pages = extent.start().get() / PAGE..extent.end().div_ceil(PAGE);
        committed.range(pages).count() as u64 * PAGE
    }

    fn release(&self, extent: Extent) -> Result<(), BackingMemoryError> {
        self.world.takes_long();
        let happens = self.world.at_release.lock().unwrap().take();
        if let Some(happens) = happens {
            happens(&self.world);
        }
        let mut committed = self.world.committed.lock().unwrap();
        for page in extent.start().get() / PAGE..extent.end().div_ceil(PAGE) {
            committed.remove(&page);
        }
        self.window.zero(extent).unwrap();
        Ok(())
    }
}

impl LivenessEvidence for Machine {
    fn publish(
        &self,
        peer: PeerId,
        _hold: EvidenceLock,
    ) -> Result<Option<Evidence>, BackingMemoryError> {
        let fresh = self.world.living.lock().unwrap().insert(peer.get());
        Ok(fresh.then_some(Evidence::OFD_LOCK))
    }

    fn withdraw(&self, peer: PeerId) {
        self.world.living.lock().unwrap().remove(&peer.get());
    }

    fn verdict(&self, record: &PeerRecord, _attaching: bool, _lease_ms: u64) -> Verdict {
        self.world.takes_long();
        self.world.verdicts.fetch_add(1, Ordering::Relaxed);
        if self.world.suspects.lock().unwrap().contains(&record.peer.get()) {
            Verdict::Suspect
        } else if self.world.living.lock().unwrap().contains(&record.peer.get()) {
            Verdict::Alive
        } else {
            Verdict::Dead
        }
    }

    fn thread_has_ended(&self, record: &PeerRecord, tid: u32) -> bool {
        self.world.ended.lock().unwrap().contains(&(record.identity.pid, tid))
    }

    fn arm(&self, row: Extent, at: Offset) -> bool {
        assert!(row.start() <= at && at.get() < row.end());
        self.world.armed.lock().unwrap().insert(at.get())
    }

    fn disarm(&self, at: Offset) {
        self.world.armed.lock().unwrap().remove(&at.get());
    }

    fn unix_ms(&self) -> u64 {
        0
    }
}

impl Park for Machine {
    fn now(&self) -> u64 {
        self.world.clock.fetch_add(100_000, Ordering::Relaxed)
    }

    fn wait(&self, _word: &AtomicU64, _expected: u64, _until: u64) {
        thread::yield_now();
    }

    fn wake(&self, _word: &AtomicU64, _who: Wake) {
        self.world.takes_long();
    }

    fn spin(&self, _word: &AtomicU64, _turn: u32) -> bool {
        false
    }
}

impl Platform for Machine {
    fn window(&self) -> &Window {
        &self.window
    }

    fn wait_among_kernels(&self, word: &AtomicU64, expected: u64, until: u64) {
        self.world.polls.fetch_add(1, Ordering::Relaxed);
        self.wait(word, expected, until);
    }
}
