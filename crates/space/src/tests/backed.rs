//! Memory that only a number claims to be there, memory that is not available, and memory that no region has.

use super::*;
use commonhold_layout::{RegionId, header_word, peer_word, region_word};

impl World {
    /// From now on no page more can be committed.
    fn is_full_now(&self) {
        let committed = self.committed.lock().unwrap().len() as u64;
        self.pages.store(committed, Ordering::Relaxed);
    }

    fn word(&self, at: u64) -> &AtomicU64 {
        &self.words[at as usize / 8]
    }

    fn has_page(&self, at: u64) -> bool {
        self.committed.lock().unwrap().contains(&(at / PAGE))
    }
}

/// The bug: another process raised the number of used entries over holes of a full tmpfs, and a process that listed
/// the regions was killed by SIGBUS. Here a hole contains a value that would be found if the hole were touched.
#[test]
fn no_entry_is_touched_that_only_a_number_claims_to_have_memory() {
    let world = World::formatted(1 << 20);
    let a = world.attach();
    a.create("x", PAGE).unwrap();
    let mapped = a.map("x").unwrap();
    a.unmap(mapped).unwrap();
    let geometry = *a.space.view().geometry();
    let beyond = RegionId::new(geometry.regions() - 1);
    let at = geometry.region(beyond).unwrap().get();
    assert!(!world.has_page(at));
    world.is_full_now();
    world.words[header_word::REGIONS_USED].store(geometry.regions().into(), Ordering::SeqCst);
    world.word(at + 8 * region_word::STATE as u64).store(1 << 32 | 2, Ordering::SeqCst);

    for look in [false, true] {
        let view =
            if look { View::look(world.machine()) } else { View::open(world.machine()) }.unwrap();
        assert!(view.regions_used().is_err());
        assert!(view.region_record(beyond).is_err());
    }
    assert!(matches!(a.create("y", 1), Err(DirectoryError::Damaged(_))));
    assert!(matches!(a.space.check(&a.me(), Patience::LEAST), Err(DirectoryError::Damaged(_))));
    // Entries that are known to have memory can be used as before.
    let mapped = a.map("x").unwrap();
    a.unmap(mapped).unwrap();
    assert!(!world.has_page(at));

    // If there is memory, it is committed before the entries are looked at. A view that only looks commits none.
    world.word(at + 8 * region_word::STATE as u64).store(0, Ordering::SeqCst);
    world.pages.store(u64::MAX, Ordering::Relaxed);
    assert!(View::look(world.machine()).unwrap().regions_used().is_err());
    assert!(!world.has_page(at));
    a.create("y", 1).unwrap();
    assert!(world.has_page(at));
    assert!(View::look(world.machine()).unwrap().regions_used().is_ok());
}

/// The same bug with the row of share words of a peer.
#[test]
fn no_share_is_touched_that_only_a_number_claims_to_have_memory() {
    let world = World::formatted(16 << 20);
    let (a, b) = (world.attach(), world.attach());
    a.create("x", PAGE).unwrap();
    let (region, _) = a.space.view().find(&Name::new("x").unwrap()).unwrap().unwrap();
    let geometry = *a.space.view().geometry();
    let at = geometry.share(b.space.peer(), region).unwrap().get();
    assert!(!world.has_page(at));
    world.is_full_now();
    let record = geometry.peer(b.space.peer()).unwrap().get();
    world.word(record + 8 * peer_word::SHARES_USED as u64).store(1024, Ordering::SeqCst);
    let mapped_once = u64::from(b.space.generation()) << 32 | 1;
    world.word(at).store(mapped_once, Ordering::SeqCst);

    assert_eq!(a.space.view().mappings(region), 0, "a hole holds no share");
    assert!(b.map("x").unwrap_err().is_full());
    world.word(at).store(0, Ordering::SeqCst);
    world.pages.store(u64::MAX, Ordering::Relaxed);
    let mapped = b.map("x").unwrap();
    assert_eq!(a.space.view().mappings(region), 1);
    b.unmap(mapped).unwrap();
}

/// The bug: a copied space has holes where its tables were all zeros, and a process that attached to it on a full
/// tmpfs was killed by SIGBUS.
#[test]
fn holes_in_fixed_tables_are_filled_for_use_and_are_damage_to_a_look() {
    let world = World::formatted(1 << 20);
    let hole = world.attach().space.view().geometry().bucket_table().start().get();
    world.committed.lock().unwrap().remove(&(hole / PAGE));
    assert!(matches!(View::look(world.machine()), Err(AttachError::Open(_))));
    world.is_full_now();
    world.pages.fetch_sub(1, Ordering::Relaxed);
    let refused = View::open(world.machine()).unwrap_err();
    assert!(
        matches!(refused, AttachError::BackingMemory(BackingMemoryError::Full { .. })),
        "{refused}"
    );
    world.pages.store(u64::MAX, Ordering::Relaxed);
    View::open(world.machine()).unwrap();
    assert!(world.has_page(hole));
}

/// The bug: the first word of the window was written before there was memory behind it.
#[test]
fn formatting_touches_nothing_before_there_is_memory() {
    let world = World::new(1 << 20);
    world.words[0].store(7, Ordering::Relaxed);
    let options = FormatOptions { capacity: 1 << 20, ..FormatOptions::default() };
    let machine = world.machine();
    let made = |demand| format(&machine.window, &machine, &options, demand).unwrap_err();
    world.pages.store(3, Ordering::Relaxed);
    assert!(matches!(
        made(Demand::Fitting),
        MakeError::BackingMemory(BackingMemoryError::Full { .. })
    ));
    assert_eq!(world.words[0].load(Ordering::Relaxed), 7);
    world.committed.lock().unwrap().clear();
    world.room.store(PAGE, Ordering::Relaxed);
    assert!(matches!(
        made(Demand::Fitting),
        MakeError::BackingMemory(BackingMemoryError::NoRoom(_))
    ));
    assert!(world.committed.lock().unwrap().is_empty(), "memory was committed");
    assert!(matches!(
        made(Demand::Forced),
        MakeError::BackingMemory(BackingMemoryError::Full { .. })
    ));
}

/// The bug: a `create` of more than the machine has committed memory until the kernel killed a process.
#[test]
fn a_request_for_too_much_memory_fails_before_any_is_committed() {
    let world = World::formatted(1 << 20);
    let a = world.attach();
    a.create_with("r", CreateOptions { size: 1, reserve: 64 * PAGE, ..CreateOptions::default() })
        .unwrap();
    let before = world.data_pages(&a.space);
    world.room.store(8 * PAGE, Ordering::Relaxed);
    let asked = 9 * PAGE;
    let room = Room { asked, machine: Some(8 * PAGE), ..Room::default() };
    let refused = DirectoryError::BackingMemory(BackingMemoryError::NoRoom(room));
    assert_eq!(a.create("x", asked), Err(refused));
    assert_eq!(a.resize("r", 10 * PAGE), Err(refused), "it grows by nine pages");
    assert_eq!((world.data_pages(&a.space), a.check().active), (before, 1));
    // A lazy region, which commits nothing, and a forced request do not fail.
    a.create_with("lazy", CreateOptions { size: asked, lazy: true, ..CreateOptions::default() })
        .unwrap();
    let forced = CreateOptions { size: asked, demand: Demand::Forced, ..CreateOptions::default() };
    a.create_with("x", forced).unwrap();
    a.resize("r", 9 * PAGE).unwrap();
    let name = Name::new("r").unwrap();
    a.space.resize(&a.me(), &name, 64 * PAGE, Demand::Forced, Patience::DEFAULT).unwrap();
    // A taken name is reported first, also when there is no room.
    assert_eq!(a.create("x", asked), Err(DirectoryError::Exists));
}

/// The bug: a core dump left memory in the whole window, and nothing released it.
#[test]
fn memory_in_free_extents_is_released_by_a_reap_or_when_it_is_needed() {
    let world = World::formatted(1 << 20);
    let a = world.attach();
    for (name, pages) in [("a", 3), ("b", 5), ("c", 2)] {
        a.create(name, pages * PAGE).unwrap();
    }
    a.destroy("b", Destroy::Wait).unwrap();
    let mine = world.data_pages(&a.space);
    let data = a.space.view().geometry().data();
    let dump = || {
        let pages = data.start().get() / PAGE..data.end() / PAGE;
        world.committed.lock().unwrap().extend(pages);
    };
    dump();
    world.alone.store(true, Ordering::Relaxed);
    let reaped = a.space.reap(&a.me(), Patience::DEFAULT).unwrap();
    let all = data.len() / PAGE;
    assert_eq!(reaped.given_back, (all - mine) * PAGE);
    assert_eq!(world.data_pages(&a.space), mine);
    assert_eq!(a.check().active, 2);
    assert_eq!(a.space.reap(&a.me(), Patience::DEFAULT).unwrap().given_back, 0);

    dump();
    world.is_full_now();
    // The create fits only if the memory in free extents is released first.
    world.committed.lock().unwrap().remove(&(data.end() / PAGE - 1));
    world.pages.fetch_sub(1, Ordering::Relaxed);
    a.create("d", data.len() - 16 * PAGE).unwrap();
    assert_eq!(a.check().active, 3);
}

/// A peer that dies while it releases memory leaves an entry as a dead destroyer does, which is settled.
#[test]
fn a_peer_that_dies_while_it_releases_memory_leaves_nothing_behind() {
    let world = World::formatted(1 << 20);
    let (a, b) = (world.attach(), world.attach());
    a.create("a", PAGE).unwrap();
    let data = a.space.view().geometry().data();
    world.committed.lock().unwrap().insert(data.end() / PAGE - 1);
    *world.at_release.lock().unwrap() = Some(|_| panic!("dies"));
    let dies = std::panic::AssertUnwindSafe(|| b.space.reap(&b.me(), Patience::DEFAULT));
    assert!(std::panic::catch_unwind(dies).is_err());
    assert_eq!(a.check().destroying, 1);
    b.die();
    let reaped = a.space.reap(&a.me(), Patience::DEFAULT).unwrap();
    assert_eq!((reaped.peers, reaped.settled), (1, 1));
    let census = a.check();
    assert_eq!((census.active, census.destroying), (1, 0));
    assert_eq!(world.data_pages(&a.space), 1);
    a.create("all", census.largest_free).unwrap();
}
