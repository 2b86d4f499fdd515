use super::{check::checksum, tables::record_bytes, *};
use crate::{
    MAGIC, OpenError, VERSION,
    header_word::{
        CAPACITY, CHECKSUM, DOMAINS, PAGE, PEERS, REGIONS, THREADS, VERSION as VERSION_WORD,
    },
};
use proptest::prelude::*;

fn options(capacity: u64) -> FormatOptions {
    FormatOptions { capacity, ..FormatOptions::default() }
}

#[test]
fn a_window_of_one_mebibyte_holds_a_usable_space() {
    let geometry = Geometry::plan(&options(1 << 20)).unwrap();
    assert!(geometry.data().len() >= 700 << 10, "{geometry:?}");
    assert!(geometry.peers() >= 16 && geometry.regions() >= 128);
}

#[test]
fn a_window_of_one_tebibyte_with_many_regions_is_planned() {
    let geometry = Geometry::plan(&FormatOptions {
        peers: Some(128),
        regions: Some(65_536),
        ..options(1 << 40)
    })
    .unwrap();
    assert_eq!(geometry.regions(), 65_536);
    assert!(geometry.data().len() > (1 << 40) - (256 << 20));
}

#[test]
fn a_lease_that_is_too_short_or_too_long_is_refused() {
    for (lease_ms, fits) in [(0, true), (99, false), (100, true), (1 << 33, false)] {
        let planned = Geometry::plan(&FormatOptions { lease_ms, ..options(1 << 20) });
        assert_eq!(planned.is_ok(), fits, "{lease_ms}");
    }
}

#[test]
fn tables_that_do_not_fit_are_refused_with_what_they_need() {
    let error =
        Geometry::plan(&FormatOptions { regions: Some(65_536), ..options(1 << 20) }).unwrap_err();
    let FormatError::TooSmall { needed, .. } = error else { panic!("{error:?}") };
    let plan = Geometry::plan(&FormatOptions {
        regions: Some(65_536),
        peers: Some(16),
        threads: Some(16),
        ..options(needed)
    });
    assert!(plan.is_ok(), "{plan:?}");
}

#[test]
fn a_header_survives_the_round_trip() {
    let geometry = Geometry::plan(&FormatOptions {
        lease_ms: 500,
        uuid: u128::MAX - 7,
        created_ms: 99,
        ..options(1 << 30)
    })
    .unwrap();
    assert_eq!(Geometry::check(&geometry.header(), 1 << 30).unwrap(), geometry);
}

#[test]
fn each_kind_of_bad_header_is_told_apart() {
    let geometry = Geometry::plan(&options(1 << 20)).unwrap();
    let good = geometry.header();
    let with = |index: usize, value: u64| {
        let mut words = good;
        words[index] = value;
        Geometry::check(&words, 1 << 20).unwrap_err()
    };
    assert!(matches!(with(0, 0), OpenError::NotASpace { found: 0 }));
    assert!(matches!(with(VERSION_WORD, 1), OpenError::Version { found: 1 }));
    assert!(matches!(with(REGIONS, 129), OpenError::Damaged(_)));
    assert!(matches!(
        Geometry::check(&good, (1 << 20) - 1).unwrap_err(),
        OpenError::Truncated { .. }
    ));
}

proptest! {
    /// A header with a right checksum may still hold wrong sizes. If a header is accepted, every offset
    /// that is computed from it must lie inside the capacity.
    #[test]
    fn no_accepted_header_reaches_outside_its_window(
        capacity in 0_u64..1 << 50, page in prop_oneof![Just(4096_u64), Just(1 << 21), any::<u64>()],
        peers in 0_u64..5000, threads in 0_u64..5000, regions in 0_u64..2_000_000, domains in 0_u64..300,
    ) {
        let mut words = [0_u64; 32];
        words[0] = MAGIC;
        words[VERSION_WORD] = VERSION;
        words[CAPACITY] = capacity;
        words[PAGE] = page;
        words[PEERS] = peers;
        words[THREADS] = threads;
        words[REGIONS] = regions;
        words[DOMAINS] = domains;
        words[CHECKSUM] = checksum(&words);
        if let Ok(geometry) = Geometry::check(&words, capacity) {
            let last_peer = PeerId::new(geometry.peers() - 1);
            let last_region = geometry.region_id(u64::from(geometry.regions()) - 1).unwrap();
            let ends = [
                geometry.data().end(),
                geometry.peer(last_peer).unwrap().get() + record_bytes::PEER,
                geometry.region(last_region).unwrap().get() + record_bytes::REGION,
                geometry.share(last_peer, last_region).unwrap().get() + record_bytes::SHARE,
                geometry.thread_row(last_peer).unwrap().end(),
                geometry.domain(geometry.domains() - 1).unwrap().get() + record_bytes::DOMAIN,
                geometry.bucket(u64::MAX).get() + record_bytes::BUCKET,
            ];
            prop_assert!(ends.iter().all(|end| *end <= capacity));
            prop_assert!(geometry.data().len() >= page);
            prop_assert!(geometry.region_id(u64::from(geometry.regions())).is_none());
        }
    }
}
