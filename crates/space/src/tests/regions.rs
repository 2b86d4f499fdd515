//! Regions by name: created, mapped, resized and destroyed, in a space with and without room.

use super::*;

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
fn a_waiting_destroy_returns_when_the_last_mapper_unmaps_or_dies() {
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

#[test]
fn a_create_without_memory_leaves_no_half_made_region() {
    let world = World::formatted(1 << 20);
    let a = world.attach();
    a.create("small", 1).unwrap();
    a.map("small").unwrap();
    let taken = world.committed.lock().unwrap().len() as u64;
    world.pages.store(taken + 3, Ordering::Relaxed);
    let full = DirectoryError::BackingMemory(BackingMemoryError::Full { errno: 28 });
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
