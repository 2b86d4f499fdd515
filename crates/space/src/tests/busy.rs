//! Operations while a living holder of the directory mutex is stopped; and what is never done while holding the mutex.

use super::*;
use commonhold_layout::{
    LockWord, RecordKind, RecordTag, RegionId, header_word, peer_word, region_word,
};

impl World {
    fn directory(&self) -> &AtomicU64 {
        &self.words[header_word::DIRECTORY_LOCK]
    }

    /// Stops this peer while it holds the directory mutex.
    fn stops(&self, peer: &Peer) -> (u16, LockWord) {
        let word = peer.me().owner().word();
        self.directory().store(word.word(), Ordering::SeqCst);
        (peer.space.peer().get(), word)
    }

    /// The stopped peer goes on, and frees the mutex.
    fn goes_on(&self) {
        self.directory().store(0, Ordering::SeqCst);
    }
}

/// The bug: all other peers waited without end for a peer that was stopped in the middle of a create, even `destroy`
/// with a timeout of 0.
#[test]
fn an_operation_that_cannot_get_the_directory_in_time_names_the_holder_and_takes_nothing_over() {
    let world = World::formatted(1 << 20);
    let (a, b, c) = (world.attach(), world.attach(), world.attach());
    a.create_with(
        "x",
        CreateOptions { size: 10, reserve: 2 * PAGE, lazy: false, ..CreateOptions::default() },
    )
    .unwrap();
    let mapped = c.map("x").unwrap();
    let (slot, word) = world.stops(&b);
    let busy = DirectoryError::Busy { slot, thread: b.thread.thread.index() };
    assert_eq!(a.create("x", 1), Err(DirectoryError::Exists));
    assert_eq!(a.create("y", 1), Err(busy));
    assert_eq!(a.resize("x", PAGE), Err(busy));
    for how in [Destroy::Wait, Destroy::Until(0)] {
        assert_eq!(a.destroy("x", how), Err(busy));
    }
    assert_eq!(a.space.check(&a.me(), Patience::LEAST), Err(busy));
    let tag = RecordTag { kind: RecordKind::Mutex, size: 8 };
    let (at, end) = (mapped.extent.start(), mapped.extent.end());
    assert_eq!(c.space.open_record(&c.me(), at, end, tag, Patience::LEAST), Err(busy));
    assert_eq!(a.space.reap(&a.me(), Patience::LEAST), Ok(crate::Reaped::default()));
    // The holding thread would wait for itself.
    assert_eq!(b.create("y", 1), Err(DirectoryError::Reentered));
    let held = LockWord::from_word(world.directory().load(Ordering::SeqCst));
    assert_eq!(held.owner(), word.owner());
    world.goes_on();
    a.create("y", 1).unwrap();
    a.resize("x", PAGE).unwrap();
}

/// The bug: one peer destroyed a region, and another had taken the duty of freeing it. When the first created the
/// region anew, it was told that the name exists, or that there is no room.
#[test]
fn a_create_waits_for_a_peer_that_is_freeing_the_name_or_the_room_it_needs() {
    let world = World::formatted(1 << 20);
    let (a, b) = (world.attach(), world.attach());
    let room = a.check().largest_free;
    let free_by_b = |region: crate::RegionHandle| {
        let view = a.space.view();
        let entry = view.entry(region.region).unwrap();
        let state = view.region_state(region.region).unwrap();
        let freeing = state
            .in_phase(commonhold_layout::RegionPhase::Freeing)
            .with_flags(commonhold_layout::RegionFlags::DEFERRED);
        entry[region_word::ACTOR].store(b.me().owner().word().word(), Ordering::SeqCst);
        entry[region_word::STATE].store(freeing.word(), Ordering::SeqCst);
        freeing
    };
    for (name, size) in [("x", 1), ("y", room)] {
        let region = a.create("x", room).unwrap();
        let freeing = free_by_b(region);
        let (slot, thread) = (b.space.peer().get(), b.thread.thread.index());
        let refused = a.create(name, size).unwrap_err();
        if name == "x" {
            assert_eq!(refused, DirectoryError::Busy { slot, thread });
        } else {
            assert!(refused.is_full(), "{refused}");
        }
        thread::scope(|scope| {
            scope.spawn(|| {
                let budget = Patience::DEFAULT.begin(b.space.view());
                b.space.free(&b.me(), region.region, freeing, budget).unwrap();
            });
            let options =
                CreateOptions { size, reserve: 0, lazy: false, ..CreateOptions::default() };
            let name = Name::new(name).unwrap();
            a.space.create(&a.me(), &name, &options, Patience::of_ns(u64::MAX >> 1)).unwrap();
        });
        a.destroy(name, Destroy::Wait).unwrap();
    }
}

/// The bug: a peer was stopped in the middle of changing links, with the sequence odd. A peer that looked for a name
/// that did not exist waited for the mutex.
#[test]
fn a_lookup_finds_or_misses_a_name_while_the_links_are_half_changed() {
    let world = World::formatted(1 << 20);
    let (a, b) = (world.attach(), world.attach());
    for name in ["x", "y"] {
        a.create(name, PAGE).unwrap();
    }
    world.stops(&b);
    world.words[header_word::CHAIN_SEQUENCE].fetch_or(1, Ordering::SeqCst);
    let buckets = a.space.view().geometry().bucket_table();
    a.space.view().window().zero(buckets).unwrap();
    for name in ["x", "y"] {
        let mapped = a.map(name).unwrap();
        a.unmap(mapped).unwrap();
        assert_eq!(a.space.view().stat(&Name::new(name).unwrap()).unwrap().size, PAGE);
    }
    assert_eq!(a.map("z"), Err(DirectoryError::NotFound));
    assert_eq!(a.destroy("z", Destroy::Wait), Err(DirectoryError::NotFound));
}

#[test]
fn a_damaged_entry_hides_no_other() {
    let world = World::formatted(1 << 20);
    let a = world.attach();
    for name in ["x", "y"] {
        a.create(name, PAGE).unwrap();
    }
    let first = a.space.view().geometry().region(RegionId::new(0)).unwrap().get() as usize / 8;
    world.words[first + region_word::STATE].store(u64::MAX, Ordering::SeqCst);
    // With an odd sequence, a lookup that finds nothing in the chain scans all entries, also the damaged one.
    world.words[header_word::CHAIN_SEQUENCE].fetch_or(1, Ordering::SeqCst);
    assert!(a.map("y").is_ok());
    assert!(matches!(a.map("x"), Err(DirectoryError::Damaged(_))));
    assert!(a.space.reap(&a.me(), Patience::LEAST).is_ok());
}

/// The part of a destroy that refuses new mappings needs no mutex; freeing the region is left to the next holder.
#[test]
fn a_region_is_destroyed_while_the_holder_is_stopped_and_freed_by_the_next_holder() {
    let world = World::formatted(1 << 20);
    let (a, b, c) = (world.attach(), world.attach(), world.attach());
    for name in ["unused", "deferred", "mapped"] {
        a.create(name, PAGE).unwrap();
    }
    let mapped = c.map("mapped").unwrap();
    world.stops(&b);
    a.destroy("unused", Destroy::Until(0)).unwrap();
    a.destroy("deferred", Destroy::Deferred).unwrap();
    a.destroy("mapped", Destroy::Deferred).unwrap();
    for name in ["unused", "deferred", "mapped"] {
        assert_eq!(a.map(name), Err(DirectoryError::NotFound));
        assert_eq!(a.destroy(name, Destroy::Deferred), Err(DirectoryError::NotFound));
    }
    c.unmap(mapped).unwrap();
    world.goes_on();
    a.create("other", 0).unwrap();
    assert_eq!((a.check().active, a.check().destroying), (1, 0));
    assert_eq!(world.data_pages(&a.space), 0);
}

#[test]
fn peers_of_any_kernel_attach_without_the_directory_mutex() {
    let world = World::formatted(1 << 20);
    let (a, b) = (world.attach(), world.attach());
    world.stops(&b);
    let guests = [BootId(8), BootId(8 << 64), BootId(8), BootId(9)];
    let peers = guests.map(|boot| world.attach_from(boot));
    let domain = |peer: &Peer| {
        let record = a.space.view().peer(peer.space.peer()).unwrap();
        record[peer_word::DOMAIN].load(Ordering::SeqCst)
    };
    assert_eq!(peers.each_ref().map(domain), [1, 2, 1, 3]);
    assert_eq!((domain(&a), domain(&b)), (0, 0));
    for (peer, boot) in peers.iter().zip(guests) {
        assert_eq!(a.space.view().used_domain(domain(peer) as u16), Some(boot));
    }
}

/// A peer took a domain record, and died or was stopped before the record was complete. A peer of another kernel
/// marks that record as used, so that the records stay in order, and takes the next; a peer of the same kernel
/// completes it.
#[test]
fn a_half_written_domain_record_delays_no_peer_and_is_completed() {
    let world = World::formatted(1 << 20);
    let a = world.attach();
    let boot = BootId((5 << 64) | 6);
    let words = a.space.view().domain(1).unwrap();
    words[commonhold_layout::domain_word::BOOT_LOW].store(6, Ordering::SeqCst);
    let other = world.attach_from(BootId(9 << 64 | 9));
    assert!(a.space.view().spans_kernels());
    let view = other.space.view();
    assert_eq!(view.used_domain(2), Some(BootId(9 << 64 | 9)));
    let same = world.attach_from(boot);
    assert_eq!(view.used_domain(1), Some(boot));
    assert_eq!(view.used_domain(3), None);
    drop((other, same));
}

/// The bug: a create that found the *window* full reaped and tried again. One that found the file system full did
/// not, and failed although reaping a dead peer would have freed enough memory.
#[test]
fn a_create_that_finds_the_memory_full_reaps_and_tries_again() {
    let world = World::formatted(1 << 20);
    let (a, b) = (world.attach(), world.attach());
    let reserve =
        CreateOptions { size: 1, reserve: 4 * PAGE, lazy: false, ..CreateOptions::default() };
    a.create_with("grows", reserve).unwrap();
    for again in 0..2 {
        let dead = world.attach();
        dead.create("old", 3 * PAGE).unwrap();
        *world.at_release.lock().unwrap() = Some(|_| panic!("the end of a process"));
        let freed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            dead.destroy("old", Destroy::Wait)
        }));
        assert!(freed.is_err());
        dead.die();
        let taken = world.committed.lock().unwrap().len() as u64;
        world.pages.store(taken, Ordering::Relaxed);
        if again == 0 {
            b.create("new", 3 * PAGE).unwrap();
        } else {
            b.resize("grows", 4 * PAGE).unwrap();
        }
        world.pages.store(u64::MAX, Ordering::Relaxed);
    }
    assert_eq!(b.check().active, 2);
}

/// The bug: memory was committed and released while holding the directory mutex: for new entries, by a resize, and
/// when settling what the dead had left. If the memory was slow, or the holder was stopped there, all other peers
/// waited.
#[test]
fn nothing_slow_is_done_while_holding_the_directory_mutex() {
    let world = World::formatted(1 << 20);
    let (a, b) = (world.attach(), world.attach());
    world.alone.store(true, Ordering::SeqCst);
    for index in 0..70 {
        a.create(&format!("r{index}"), 0).unwrap();
    }
    let wanted = CreateOptions {
        size: PAGE + 7,
        reserve: 8 * PAGE,
        lazy: false,
        ..CreateOptions::default()
    };
    for lazy in [false, true] {
        a.create_with("x", CreateOptions { lazy, ..wanted }).unwrap();
        a.resize("x", 5 * PAGE).unwrap();
        a.resize("x", 10).unwrap();
        a.destroy("x", Destroy::Wait).unwrap();
    }
    a.create_with("x", wanted).unwrap();
    let mapped = b.map("x").unwrap();
    assert_eq!(a.resize("x", 1), Err(DirectoryError::Mapped));
    assert_eq!(a.destroy("x", Destroy::Until(0)), Err(DirectoryError::TimedOut));
    a.destroy("x", Destroy::Deferred).unwrap();
    b.unmap(mapped).unwrap();
    // The dead peer leaves a region that is being freed, and one that is deferred and mapped.
    let taken = world.committed.lock().unwrap().len() as u64;
    world.pages.store(taken + 2, Ordering::Relaxed);
    assert!(matches!(a.create("big", 9 * PAGE), Err(DirectoryError::BackingMemory(_))));
    world.pages.store(u64::MAX, Ordering::Relaxed);
    let dead = world.attach();
    for name in ["freed", "deferred", "undone"] {
        a.create(name, PAGE).unwrap();
    }
    dead.map("deferred").unwrap();
    a.destroy("deferred", Destroy::Deferred).unwrap();
    *world.at_release.lock().unwrap() = Some(|_| panic!("the end of a process"));
    let freed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        dead.destroy("freed", Destroy::Wait)
    }));
    assert!(freed.is_err());
    dead.die();
    assert_eq!(a.space.reap(&a.me(), Patience::LEAST).unwrap().settled, 2);
    assert_eq!(a.check().destroying, 0);
}

/// The bug: a peer whose state word had a bit that no program sets could not be fenced. The expected word of the
/// exchange did not have that bit, so it failed, 10,000 times for each verdict, each time with its system calls.
#[test]
fn a_peer_whose_state_has_unknown_bits_is_fenced_by_the_first_verdict() {
    let world = World::formatted(1 << 20);
    let (a, b) = (world.attach(), world.attach());
    let state = &a.space.view().peer(b.space.peer()).unwrap()[peer_word::STATE];
    state.fetch_or(1 << 20, Ordering::SeqCst);
    b.die();
    let before = world.verdicts.load(Ordering::Relaxed);
    assert_eq!(a.space.reap(&a.me(), Patience::LEAST).unwrap().peers, 1);
    assert!(world.verdicts.load(Ordering::Relaxed) - before < 10);
}

/// The first operation after the last mapper of a deferred region was killed frees that region, even an operation on
/// another name.
#[test]
fn a_deferred_region_whose_last_mapper_died_is_freed_by_the_next_operation() {
    let world = World::formatted(1 << 20);
    let (a, b, c) = (world.attach(), world.attach(), world.attach());
    for name in ["one", "two"] {
        a.create(name, PAGE).unwrap();
        b.map(name).unwrap();
        a.destroy(name, Destroy::Deferred).unwrap();
    }
    c.create("other", 0).unwrap();
    assert_eq!(c.check().destroying, 2);
    b.die();
    c.create("another", 0).unwrap();
    assert_eq!(c.check().destroying, 0);
    let before = world.verdicts.load(Ordering::Relaxed);
    c.create("third", 0).unwrap();
    assert_eq!(
        world.verdicts.load(Ordering::Relaxed),
        before,
        "nothing is left to settle, so no verdict is needed"
    );
}

/// Bytes that a shrink cut off never reappear, even if the shrinking peer died between deciding and clearing.
#[test]
fn bytes_that_a_dead_shrinker_left_are_cleared_before_the_region_grows() {
    let world = World::formatted(1 << 20);
    let a = world.attach();
    for reaps in [false, true] {
        let dead = world.attach();
        let wanted = CreateOptions {
            size: 4 * PAGE,
            reserve: 4 * PAGE,
            lazy: false,
            ..CreateOptions::default()
        };
        a.create_with("x", wanted).unwrap();
        let mapped = a.map("x").unwrap();
        let at = mapped.extent.start();
        let window = a.space.view().window();
        window.write(at, &[7; 4 * PAGE as usize]).unwrap();
        a.unmap(mapped).unwrap();
        *world.at_release.lock().unwrap() = Some(|_| panic!("the end of a process"));
        let shrunk =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| dead.resize("x", 100)));
        assert!(shrunk.is_err());
        dead.die();
        if reaps {
            assert_eq!(a.space.reap(&a.me(), Patience::LEAST).unwrap().settled, 1);
        }
        a.resize("x", 4 * PAGE).unwrap();
        let mut bytes = [1; 4 * PAGE as usize];
        window.read(at, &mut bytes).unwrap();
        assert!(bytes[..100] == [7; 100] && bytes[100..].iter().all(|byte| *byte == 0));
        a.destroy("x", Destroy::Wait).unwrap();
        assert_eq!(world.data_pages(&a.space), 0);
    }
}

/// While a thread grows a region, no other thread destroys it, or cuts off the bytes that it gets.
#[test]
fn a_region_is_neither_destroyed_nor_resized_while_another_thread_grows_it() {
    let world = World::formatted(1 << 20);
    let (a, b) = (world.attach(), world.attach());
    a.create_with(
        "x",
        CreateOptions { size: 1, reserve: 4 * PAGE, lazy: false, ..CreateOptions::default() },
    )
    .unwrap();
    let region = RegionId::new(0);
    let marked = b.me().owner().word().with_flags(commonhold_layout::LockFlags::INCONSISTENT);
    let actor = &a.space.view().entry(region).unwrap()[region_word::ACTOR];
    actor.store(marked.word(), Ordering::SeqCst);
    let (slot, thread) = (b.space.peer().get(), b.thread.thread.index());
    assert_eq!(a.resize("x", 2 * PAGE), Err(DirectoryError::Busy { slot, thread }));
    assert_eq!(a.destroy("x", Destroy::Until(0)), Err(DirectoryError::TimedOut));
    a.destroy("x", Destroy::Deferred).unwrap();
    assert_eq!(a.check().destroying, 1);
    b.die();
    a.create("y", 0).unwrap();
    assert_eq!(a.check().destroying, 0);
}
