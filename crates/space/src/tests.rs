//! The directory, driven by several peers of one process over a window on the heap.
#![allow(clippy::cast_possible_truncation, reason = "test sizes are small")]

use std::{
    boxed::Box,
    collections::{BTreeSet, HashSet},
    format,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    vec::Vec,
};

use commonhold_layout::{
    BootId, Evidence, Extent, FormatOptions, Name, Offset, PeerId, PeerName, PeerRef, RegionPhase,
    header_word,
};
use commonhold_sync::{Liveness as _, Park, Taken, Verdict, Wake};
use commonhold_window::Window;
use proptest::prelude::*;

use crate::{
    AttachError, CreateOptions, Demand, Destroy, DirectoryError, Identity, MakeError, Medium,
    MediumError, Patience, PeerRecord, Platform, Room, Space, Touch, View, Witness, format,
};

mod backed;
mod bias;
mod busy;
mod in_place;
mod kernels;
mod misuse;
mod threads;
mod waits;

const PAGE: u64 = 4096;

/// Something that happens to a world.
type Event = fn(&Arc<World>);

/// One machine: memory, how much of it there is, and who lives on it.
#[derive(Debug)]
struct World {
    words: &'static [AtomicU64],
    committed: Mutex<BTreeSet<u64>>,
    pages: AtomicU64,
    /// Bytes that a look says can be had.
    room: AtomicU64,
    living: Mutex<HashSet<u16>>,
    suspects: Mutex<HashSet<u16>>,
    clock: AtomicU64,
    /// Waits that could not rely on a wake.
    polls: AtomicU64,
    /// Nobody else is there: whatever may take long happens without the directory mutex, or panics.
    alone: AtomicBool,
    /// Questions for the life of a peer.
    verdicts: AtomicU64,
    /// What happens when memory is next given back.
    at_release: Mutex<Option<Event>>,
    /// Attachments so far: each is another process.
    processes: AtomicU64,
    /// Processes and ids of threads that have ended.
    ended: Mutex<HashSet<(u32, u32)>>,
    /// Life words that the kernel was asked to mark, and is not to mark any more.
    armed: Mutex<BTreeSet<u64>>,
}

#[derive(Debug)]
struct Machine {
    world: Arc<World>,
    window: Window,
}

impl World {
    fn new(bytes: usize) -> Arc<Self> {
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

    fn formatted(bytes: usize) -> Arc<Self> {
        let world = Self::new(bytes);
        let options = FormatOptions { capacity: bytes as u64, ..FormatOptions::default() };
        let machine = world.machine();
        format(&machine.window, &machine, &options, Demand::Fitting).unwrap();
        world
    }

    fn machine(self: &Arc<Self>) -> Machine {
        Machine { world: Arc::clone(self), window: Window::from_words(self.words) }
    }

    fn attach(self: &Arc<Self>) -> Peer {
        self.attach_from(BootId(7))
    }

    fn attach_from(self: &Arc<Self>, boot: BootId) -> Peer {
        let view = View::open(self.machine()).unwrap();
        let identity = Identity {
            boot,
            pid: u32::try_from(self.processes.fetch_add(1, Ordering::Relaxed)).unwrap(),
            pid_namespace: 1,
            start_time: 1,
            uid: 0,
            name: PeerName::new("test"),
        };
        let space = Space::attach(view, &identity).unwrap();
        let thread = space.claim_thread(1).unwrap();
        Peer { space, thread }
    }

    /// Something that may take long, as system calls do.
    fn takes_long(&self) {
        let held = self.words[header_word::DIRECTORY_LOCK].load(Ordering::Relaxed) != 0;
        assert!(!held || !self.alone.load(Ordering::Relaxed), "under the directory mutex");
    }

    fn data_pages(&self, space: &Space<Machine>) -> u64 {
        let data = space.view().geometry().data().start().get();
        self.committed.lock().unwrap().iter().filter(|page| **page * PAGE >= data).count() as u64
    }
}

struct Peer {
    space: Space<Machine>,
    thread: crate::OwnThread,
}

impl Peer {
    fn create(&self, name: &str, size: u64) -> Result<crate::RegionHandle, DirectoryError> {
        self.create_with(name, CreateOptions { size, ..CreateOptions::default() })
    }

    fn create_with(
        &self,
        name: &str,
        options: CreateOptions,
    ) -> Result<crate::RegionHandle, DirectoryError> {
        self.space.create(&self.me(), &Name::new(name).unwrap(), &options, Patience::DEFAULT)
    }

    fn me(&self) -> commonhold_sync::Thread<'_> {
        self.space.thread(self.thread).unwrap()
    }

    fn map(&self, name: &str) -> Result<crate::Mapped, DirectoryError> {
        self.space.map(&self.me(), &Name::new(name).unwrap(), Patience::DEFAULT)
    }

    fn unmap(&self, mapped: crate::Mapped) -> Result<(), DirectoryError> {
        self.space.unmap(&self.me(), mapped.handle)
    }

    fn destroy(&self, name: &str, how: Destroy) -> Result<crate::RegionHandle, DirectoryError> {
        self.space.destroy(&self.me(), &Name::new(name).unwrap(), how, Patience::DEFAULT)
    }

    fn resize(&self, name: &str, size: u64) -> Result<(), DirectoryError> {
        let (name, demand) = (Name::new(name).unwrap(), Demand::Fitting);
        self.space.resize(&self.me(), &name, size, demand, Patience::DEFAULT)
    }

    fn lock_of(
        &self,
        mapped: crate::Mapped,
    ) -> commonhold_sync::RwLock<'_, crate::RegionShares<'_, Machine>> {
        let view = self.space.view();
        view.lock_of(&mapped, view.lock_words(&mapped).unwrap())
    }

    fn check(&self) -> crate::Census {
        self.space.check(&self.me(), Patience::DEFAULT).unwrap()
    }

    /// As SIGKILL would.
    fn die(self) {
        let machine = self.space.view().platform();
        machine.world.living.lock().unwrap().remove(&self.space.peer().get());
    }
}

impl Medium for Machine {
    fn commit(&self, extent: Extent) -> Result<(), MediumError> {
        self.world.takes_long();
        let mut committed = self.world.committed.lock().unwrap();
        for page in extent.start().get() / PAGE..extent.end().div_ceil(PAGE) {
            if !committed.contains(&page)
                && committed.len() as u64 >= self.world.pages.load(Ordering::Relaxed)
            {
                return Err(MediumError::Full { errno: 28 });
            }
            committed.insert(page);
        }
        Ok(())
    }

    fn back(&self, extent: Extent, touch: Touch) -> Result<(), MediumError> {
        let pages = extent.start().get() / PAGE..extent.end().div_ceil(PAGE);
        let holds = |page: &u64| self.world.committed.lock().unwrap().contains(page);
        match touch {
            _ if pages.clone().all(|page| holds(&page)) => Ok(()),
            Touch::Look => Err(MediumError::Hole),
            Touch::Use => self.commit(extent),
        }
    }

    fn room_for(&self, bytes: u64) -> Result<(), MediumError> {
        self.world.takes_long();
        let room = self.world.room.load(Ordering::Relaxed);
        if bytes <= room {
            return Ok(());
        }
        Err(MediumError::NoRoom(Room { asked: bytes, machine: Some(room), ..Room::default() }))
    }

    fn resident(&self, extent: Extent) -> u64 {
        self.world.takes_long();
        let committed = self.world.committed.lock().unwrap();
        let pages = extent.start().get() / PAGE..extent.end().div_ceil(PAGE);
        committed.range(pages).count() as u64 * PAGE
    }

    fn release(&self, extent: Extent) -> Result<(), MediumError> {
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

impl Witness for Machine {
    fn deposit(&self, peer: PeerId) -> Result<Option<Evidence>, MediumError> {
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

    fn spin(&self, _turn: u32) -> bool {
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

#[test]
fn a_name_is_taken_until_its_region_is_gone() {
    let world = World::formatted(1 << 20);
    let (a, b) = (world.attach(), world.attach());
    a.create("x", 100).unwrap();
    assert_eq!(b.create("x", 1), Err(DirectoryError::Exists));
    let mapped = b.map("x").unwrap();
    a.destroy("x", Destroy::Deferred).unwrap();
    assert_eq!(a.create("x", 1), Err(DirectoryError::Exists));
    assert_eq!(a.map("x"), Err(DirectoryError::NotFound));
    b.unmap(mapped).unwrap();
    assert_eq!(a.check().used, 0);
    a.create("x", 1).unwrap();
    a.destroy("x", Destroy::Wait).unwrap();
    assert_eq!(a.destroy("x", Destroy::Wait), Err(DirectoryError::NotFound));
    assert_eq!(world.data_pages(&a.space), 0);
}

#[test]
fn destroy_refuses_its_own_mapper_and_times_out_on_others() {
    let world = World::formatted(1 << 20);
    let (a, b) = (world.attach(), world.attach());
    a.create("x", PAGE).unwrap();
    let mapped = a.map("x").unwrap();
    assert_eq!(a.destroy("x", Destroy::Wait), Err(DirectoryError::Mapped));
    assert_eq!(b.destroy("x", Destroy::Until(5)), Err(DirectoryError::TimedOut));
    let again = b.map("x").unwrap();
    b.unmap(again).unwrap();
    assert_eq!(b.unmap(again), Err(DirectoryError::NotMapped));
    a.unmap(mapped).unwrap();
    b.destroy("x", Destroy::Wait).unwrap();
}

#[test]
fn a_waiting_destroy_returns_when_the_last_mapping_goes_or_dies() {
    for dies in [false, true] {
        let world = World::formatted(1 << 20);
        let (a, b) = (world.attach(), world.attach());
        a.create("x", PAGE).unwrap();
        let mapped = b.map("x").unwrap();
        thread::scope(|scope| {
            let destroyer = scope.spawn(|| a.destroy("x", Destroy::Wait));
            while b.space.view().region_record(mapped.handle.region).unwrap().unwrap().phase
                != RegionPhase::Destroying
            {
                thread::yield_now();
            }
            if dies {
                b.die();
            } else {
                b.unmap(mapped).unwrap();
            }
            destroyer.join().unwrap().unwrap();
        });
        assert_eq!(
            a.check(),
            crate::Census { largest_free: a.check().largest_free, ..Default::default() }
        );
    }
}

#[test]
fn a_full_medium_leaves_no_half_made_region() {
    let world = World::formatted(1 << 20);
    let a = world.attach();
    a.create("small", 1).unwrap();
    a.map("small").unwrap();
    let taken = world.committed.lock().unwrap().len() as u64;
    world.pages.store(taken + 3, Ordering::Relaxed);
    let full = DirectoryError::Medium(MediumError::Full { errno: 28 });
    assert_eq!(a.create("big", 4 * PAGE), Err(full));
    assert_eq!(world.committed.lock().unwrap().len() as u64, taken);
    assert_eq!(a.check().active, 1);
    a.create("lazy", 0).unwrap();
    a.create_with(
        "lazy2",
        CreateOptions { size: 40 * PAGE, lazy: true, reserve: 0, ..CreateOptions::default() },
    )
    .unwrap();
    a.create("fits", 3 * PAGE).unwrap();
}

#[test]
fn a_window_without_room_says_how_much_is_left() {
    let world = World::formatted(1 << 20);
    let a = world.attach();
    let all = a.space.view().geometry().data().len();
    assert_eq!(
        a.create("x", all + 1),
        Err(DirectoryError::NoSpace { asked: all + 1, largest: all })
    );
    a.create("x", all).unwrap();
    assert!(matches!(a.create("y", 1), Err(DirectoryError::NoSpace { largest: 0, .. })));
    a.destroy("x", Destroy::Wait).unwrap();
    for index in 0..a.space.view().geometry().regions() {
        a.create(&format!("r{index}"), 0).unwrap();
    }
    assert!(matches!(a.create("more", 0), Err(DirectoryError::NoEntry { .. })));
}

#[test]
fn resize_stays_in_the_reserve_and_shows_no_old_bytes() {
    let world = World::formatted(1 << 20);
    let (a, b) = (world.attach(), world.attach());
    a.create_with(
        "x",
        CreateOptions { size: 10, reserve: 8 * PAGE, lazy: false, ..CreateOptions::default() },
    )
    .unwrap();
    let mapped = b.map("x").unwrap();
    a.resize("x", 5 * PAGE).unwrap();
    assert_eq!(b.space.look_again(mapped.handle).unwrap().size, 5 * PAGE);
    let at = mapped.extent.start().plus(PAGE + 100).unwrap();
    b.space.view().window().write(at, &[7; 2 * PAGE as usize]).unwrap();
    assert_eq!(a.resize("x", PAGE + 100), Err(DirectoryError::Mapped));
    assert_eq!(b.space.look_again(mapped.handle).unwrap().size, 5 * PAGE);
    b.unmap(mapped).unwrap();
    a.resize("x", PAGE + 100).unwrap();
    a.resize("x", 8 * PAGE).unwrap();
    let mut bytes = [1; 3 * PAGE as usize];
    a.space.view().window().read(at, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 3 * PAGE as usize]);
    assert_eq!(
        a.resize("x", 8 * PAGE + 1),
        Err(DirectoryError::BeyondReserve { asked: 8 * PAGE + 1, reserve: 8 * PAGE })
    );
}

/// The story: bytes that name a living peer without evidence as the owner of the directory mutex made
/// `create` wait for ever, since nothing could prove that peer dead.
#[test]
fn a_directory_held_by_somebody_who_cannot_be_judged_is_an_error_and_no_hang() {
    let world = World::formatted(1 << 20);
    let (a, b) = (world.attach(), world.attach());
    world.suspects.lock().unwrap().insert(b.space.peer().get());
    let owner = b.me().owner();
    world.words[64].store(owner.word().word(), Ordering::Relaxed);
    let slot = b.space.peer().get();
    assert_eq!(a.create("x", 1), Err(DirectoryError::HeldBySuspect { slot }));
    world.suspects.lock().unwrap().clear();
    world.living.lock().unwrap().remove(&slot);
    a.create("x", 1).unwrap();
}

#[test]
fn the_dead_give_back_their_slots_mappings_and_locks() {
    let world = World::formatted(1 << 20);
    let (a, b) = (world.attach(), world.attach());
    a.create("x", PAGE).unwrap();
    let theirs = b.map("x").unwrap();
    let lock = b.lock_of(theirs);
    let _ = lock.write(&b.me(), b.space.view(), None).unwrap();
    let slot = b.space.peer();
    b.die();
    let mine = a.map("x").unwrap();
    let lock = a.lock_of(mine);
    assert_eq!(lock.write(&a.me(), a.space.view(), None), Ok(Taken::OwnerDied));
    lock.writer().mark_consistent(&a.me()).unwrap();
    lock.unwrite(&a.me(), a.space.view(), commonhold_sync::Release::Done).unwrap();
    assert_eq!(a.space.reap(&a.me(), Patience::DEFAULT).unwrap().peers, 1);
    a.unmap(mine).unwrap();
    a.destroy("x", Destroy::Wait).unwrap();
    assert_eq!(world.attach().space.peer(), slot);
}

/// `a` reaped `b`. It had looked at the entry of `c`, which lived; then `c` died, a fourth fenced it,
/// and `a` freed its slot together with `b`'s. No dead peer was left to make anybody look at the entry
/// again: its bytes were lost to all but a creation of the same name.
#[test]
fn whoever_dies_while_others_are_reaped_leaves_nothing_either() {
    let world = World::formatted(1 << 20);
    let (a, b, c) = (world.attach(), world.attach(), world.attach());
    c.create("c", PAGE).unwrap();
    b.create("b", PAGE).unwrap();
    for (peer, name) in [(&c, "c"), (&b, "b")] {
        *world.at_release.lock().unwrap() = Some(|_| panic!("the end of a process"));
        let freed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            peer.destroy(name, Destroy::Wait)
        }));
        assert!(freed.is_err());
    }
    assert_eq!(c.space.peer(), PeerId::new(2));
    b.die();
    *world.at_release.lock().unwrap() = Some(|world| {
        world.living.lock().unwrap().remove(&2);
        let fourth = View::open(world.machine()).unwrap();
        let c = PeerRef::new(PeerId::new(2), 1);
        assert_eq!(fourth.verdict_of(c), Verdict::Dead);
    });
    while a.space.reap(&a.me(), Patience::DEFAULT).unwrap().freed_anything() {}
    assert_eq!(a.check(), crate::Census { largest_free: a.check().largest_free, ..<_>::default() });
    assert_eq!(world.data_pages(&a.space), 0);
}

#[test]
fn slots_of_the_dead_are_used_again_and_full_tables_are_refused() {
    let world = World::formatted(1 << 20);
    let mut peers: Vec<Peer> = (0..16).map(|_| world.attach()).collect();
    let identity = Identity {
        boot: BootId(7),
        pid: 0,
        pid_namespace: 0,
        start_time: 0,
        uid: 0,
        name: PeerName::default(),
    };
    let refused = Space::attach(View::open(world.machine()).unwrap(), &identity).unwrap_err();
    assert_eq!(refused, AttachError::NoSlot { peers: 16 });
    let dead = peers.swap_remove(5);
    let (slot, generation) = (dead.space.peer(), dead.space.generation());
    dead.die();
    let heir = world.attach();
    assert_eq!((heir.space.peer(), heir.space.generation()), (slot, generation + 1));
}

#[test]
fn many_threads_with_clashing_names_leave_an_empty_space() {
    let world = World::formatted(4 << 20);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for seed in 0..4_u64 {
            let (world, stop) = (&world, &stop);
            scope.spawn(move || {
                let peer = world.attach();
                let mut random = seed;
                for _ in 0..3000 {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
                    let name = ["a", "b", "c"][(random >> 33) as usize % 3];
                    match (random >> 40) % 4 {
                        0 | 1 => drop(peer.create(name, (random >> 50) % 9000)),
                        2 => {
                            if let Ok(mapped) = peer.map(name) {
                                peer.unmap(mapped).unwrap();
                            }
                        }
                        _ => drop(peer.destroy(name, Destroy::Wait)),
                    }
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
                peer.space.detach().unwrap();
            });
        }
    });
    let peer = world.attach();
    peer.check();
    for name in ["a", "b", "c"] {
        let _ = peer.destroy(name, Destroy::Wait);
    }
    assert_eq!(peer.check().used, 0);
    assert_eq!(world.data_pages(&peer.space), 0);
}

/// Everything a program does with a space, with every result accepted.
fn use_everything(world: &Arc<World>) {
    let Ok(view) = View::open(world.machine()) else { return };
    let identity = Identity {
        boot: BootId(9),
        pid: 1,
        pid_namespace: 1,
        start_time: 1,
        uid: 0,
        name: PeerName::new("stranger"),
    };
    let Ok(space) = Space::attach(view, &identity) else { return };
    let Ok(thread) = space.claim_thread(1) else { return };
    let peer = Peer { space, thread };
    let _ = peer.space.reap(&peer.me(), Patience::DEFAULT);
    for name in ["a", "b", "new"] {
        let _ = peer.create(name, 5000);
        if let Ok(mapped) = peer.map(name) {
            let view = peer.space.view();
            if let Ok(words) = view.lock_words(&mapped)
                && let lock = view.lock_of(&mapped, words)
                && lock.write(&peer.me(), peer.space.view(), Some(0)).is_ok()
            {
                let _ = lock.unwrite(&peer.me(), peer.space.view(), commonhold_sync::Release::Done);
            }
            let _ = peer.unmap(mapped);
        }
        let _ = peer.resize(name, 100);
        let _ = peer.destroy(name, Destroy::Until(1));
    }
    let _ = peer.space.check(&peer.me(), Patience::DEFAULT);
    for region in 0..peer.space.view().regions_used().unwrap_or(0) {
        let _ = peer.space.view().region_record(commonhold_layout::RegionId::new(region));
    }
    let _ = peer.space.detach();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Damage anywhere in the tables behind the checksummed header.
    #[test]
    fn damaged_tables_cost_an_error_and_nothing_else(
        damage in proptest::collection::vec((256_u64..(160 << 10), any::<u64>(), 0_u32..4), 1..60),
    ) {
        let world = World::formatted(1 << 20);
        let peer = world.attach();
        peer.create("a", 9000).unwrap();
        peer.create("b", 0).unwrap();
        peer.map("a").unwrap();
        for (at, value, kind) in damage {
            // Small numbers and flipped bits get further into the code than noise does.
            let word = &world.words[at as usize / 8];
            match kind {
                0 => word.store(value, Ordering::Relaxed),
                1 => word.store(value % 200, Ordering::Relaxed),
                _ => { word.fetch_xor(1 << (value % 64), Ordering::Relaxed); }
            }
        }
        use_everything(&world);
    }
}
