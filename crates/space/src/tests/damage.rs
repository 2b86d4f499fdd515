//! Damaged bytes, which no correct program writes.

use proptest::prelude::*;

use super::*;

/// Calls every operation on a space, and accepts every result.
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
    let Ok(space) = Attached::attach(view, &identity) else { return };
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
                let _ = lock.unlock_write(
                    &peer.me(),
                    peer.space.view(),
                    commonhold_sync::Release::Done,
                );
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
