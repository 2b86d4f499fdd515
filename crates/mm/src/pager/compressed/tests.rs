use std::{vec, vec::Vec};

use proptest::prelude::*;

use super::*;

const PAGE: usize = 4096;

type Compressed = CompressedPager<parking_lot::RawMutex>;

fn pager(limit: usize) -> Compressed {
    Compressed::new(PAGE, limit).unwrap()
}

fn page(number: u64) -> ObjectPage {
    ObjectPage::new(number)
}

fn read(pager: &Compressed, number: u64) -> Result<Vec<u8>, PagerError> {
    let mut bytes = vec![0xEE; PAGE];
    pager.read(page(number), &mut bytes).map(|()| bytes)
}

/// Bytes that do not compress.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

/// A page of which about `noisy` bytes do not compress.
fn text(seed: u64, noisy: u64) -> Vec<u8> {
    let mut bytes = noise(seed, usize::try_from(noisy).unwrap());
    bytes.resize(PAGE, b'x');
    bytes
}

#[test]
fn a_page_of_zeros_takes_no_room() {
    let pager = pager(0);
    pager.write(page(3), &[0; PAGE]).unwrap();
    assert_eq!(pager.usage().pages, 0);
    assert_eq!(read(&pager, 3).unwrap(), [0; PAGE]);
    assert_eq!(pager.write(page(3), &[1; PAGE]), Err(PagerError::Full));
    assert_eq!(read(&pager, 3).unwrap(), [0; PAGE]);
}

#[test]
fn a_page_that_becomes_zeros_gives_its_room_back() {
    let pager = pager(1 << 16);
    pager.write(page(3), &text(1, 1_000)).unwrap();
    assert!(pager.usage().taken_bytes >= 1_000);
    pager.write(page(3), &[0; PAGE]).unwrap();
    let usage = pager.usage();
    assert_eq!((usage.pages, usage.page_bytes, usage.kept_bytes, usage.taken_bytes), (0, 0, 0, 0));
    assert_eq!(read(&pager, 3).unwrap(), [0; PAGE]);
}

#[test]
fn a_page_that_does_not_compress_is_kept_as_it_is() {
    let pager = pager(1 << 16);
    let bytes = noise(1, PAGE);
    pager.write(page(0), &bytes).unwrap();
    let usage = pager.usage();
    assert_eq!((usage.pages, usage.plain_pages), (1, 1));
    assert_eq!((usage.taken_bytes, usage.percent()), (PAGE as u64, Some(100)));
    assert_eq!(read(&pager, 0).unwrap(), bytes);
}

#[test]
fn blocks_waste_less_than_one_block_for_each_page() {
    let pager = pager(1 << 20);
    for number in 0..100 {
        pager.write(page(number), &text(number, 30 * number)).unwrap();
    }
    let usage = pager.usage();
    assert_eq!((usage.pages, usage.page_bytes), (100, 100 * PAGE as u64));
    assert!(usage.kept_bytes <= usage.taken_bytes);
    assert!(usage.taken_bytes < usage.kept_bytes + usage.pages * BLOCK as u64);
    assert!(usage.percent().unwrap() < 50, "{usage:?}");
}

#[test]
fn a_write_beyond_the_limit_is_refused_and_changes_nothing() {
    let pager = pager(10 * PAGE);
    for number in 0..10 {
        pager.write(page(number), &noise(number, PAGE)).unwrap();
    }
    assert_eq!(pager.usage().taken_bytes, pager.usage().limit_bytes);
    assert_eq!(pager.write(page(10), &[5; PAGE]), Err(PagerError::Full));
    assert_eq!(read(&pager, 10).unwrap(), [0; PAGE]);
    for number in 0..10 {
        assert_eq!(read(&pager, number).unwrap(), noise(number, PAGE));
    }
}

#[test]
fn a_page_can_be_written_again_though_all_room_is_taken() {
    let pager = pager(2 * PAGE);
    pager.write(page(0), &noise(0, PAGE)).unwrap();
    pager.write(page(1), &noise(1, PAGE)).unwrap();
    pager.write(page(1), &noise(2, PAGE)).unwrap();
    assert_eq!(read(&pager, 1).unwrap(), noise(2, PAGE));
    pager.write(page(1), &[3; PAGE]).unwrap();
    assert_eq!(pager.write(page(2), &noise(3, PAGE)), Err(PagerError::Full));
    pager.write(page(2), &text(4, 2_000)).unwrap();
    // The new contents do not fit, and the page keeps the old ones.
    assert_eq!(pager.write(page(1), &noise(5, PAGE)), Err(PagerError::Full));
    assert_eq!(read(&pager, 1).unwrap(), [3; PAGE]);
    assert_eq!(read(&pager, 2).unwrap(), text(4, 2_000));
}

#[test]
fn years_of_rewriting_do_not_fragment_the_memory() {
    let limit = 64 * 1024;
    let pager = pager(limit);
    for turn in 0..5_000_u64 {
        pager.write(page(turn % 32), &text(turn, turn * 37 % 1_500)).unwrap();
    }
    pager.discard(ObjectSpan::between(page(0), page(32))).unwrap();
    assert_eq!(pager.usage().taken_bytes, 0);
    for number in 0..16 {
        pager.write(page(number), &noise(number, PAGE)).unwrap();
    }
}

#[test]
fn discarded_pages_are_zeros_whichever_way_is_the_shorter() {
    let pager = pager(1 << 20);
    for number in 0..20 {
        pager.write(page(number), &[9; PAGE]).unwrap();
    }
    pager.discard(ObjectSpan::between(page(5), page(8))).unwrap();
    pager.discard(ObjectSpan::between(page(15), page(crate::LIMIT))).unwrap();
    for number in 0..20 {
        let gone = (5..8).contains(&number) || number >= 15;
        assert_eq!(read(&pager, number).unwrap()[0], if gone { 0 } else { 9 }, "{number}");
    }
    assert_eq!(pager.usage().pages, 12);
}

#[test]
fn a_page_of_another_size_than_was_written_is_damaged() {
    let pager = pager(1 << 20);
    pager.write(page(0), &[9; PAGE]).unwrap();
    pager.write(page(1), &noise(1, PAGE)).unwrap();
    for number in 0..2 {
        let damaged = Err(PagerError::Damaged { page: page(number) });
        assert_eq!(pager.read(page(number), &mut [0; 2 * PAGE]), damaged);
        assert_eq!(pager.read(page(number), &mut [0; PAGE / 2]), damaged);
    }
}

#[test]
fn pages_of_any_size_can_be_kept() {
    for size in [1, 64, 5_000, 65_536, 2 << 20] {
        let pager = Compressed::new(size, 4 << 20).unwrap();
        for bytes in [vec![7; size], noise(3, size)] {
            pager.write(page(0), &bytes).unwrap();
            let mut back = vec![0; size];
            pager.read(page(0), &mut back).unwrap();
            assert_eq!(back, bytes, "{size}");
            let compressed = size > 2 * BLOCK && bytes[0] == 7;
            assert_eq!(pager.usage().plain_pages == 0, compressed, "{size}");
        }
    }
    // Pages of another size than the pager was made for are kept plain if the desk is too small for them.
    let pager = pager(4 << 20);
    let bytes = vec![7; 1 << 20];
    pager.write(page(0), &bytes).unwrap();
    let mut back = vec![0; 1 << 20];
    pager.read(page(0), &mut back).unwrap();
    assert_eq!(back, bytes);
}

#[test]
fn four_threads_share_two_desks() {
    let pager = pager(1 << 20);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let pager = &pager;
            scope.spawn(move || {
                for turn in 0..200 {
                    let number = thread * 100 + turn % 10;
                    let bytes = text(number + turn, turn * 13 % 2_000);
                    pager.write(page(number), &bytes).unwrap();
                    assert_eq!(read(pager, number).unwrap(), bytes);
                }
            });
        }
    });
    assert_eq!(pager.usage().pages, 40);
}

proptest! {
    /// The blocks of a compressed page have other contents, as after a stray write.
    #[test]
    fn damaged_bytes_are_an_error_or_other_bytes_but_no_panic(
        garbage in prop::collection::vec(any::<u8>(), 1..2_000),
        keep in 0_usize..64,
    ) {
        let pager = pager(1 << 20);
        pager.write(page(0), &text(1, 600)).unwrap();
        let mut store = pager.store.lock();
        let kept = store.pages[&0];
        let mut bytes = vec![0; kept.chain.len()];
        store.blocks.load(kept.chain, &mut bytes).unwrap();
        bytes.truncate(keep);
        bytes.extend(garbage);
        prop_assert!(store.blocks.prepare(blocks(bytes.len())));
        let chain = store.blocks.store(&bytes).unwrap();
        store.pages.insert(0, Kept { chain, page: PAGE });
        drop(store);
        if let Err(error) = read(&pager, 0) {
            prop_assert_eq!(error, PagerError::Damaged { page: page(0) });
        }
    }
}

#[test]
fn a_page_that_decompresses_to_less_is_damaged() {
    let pager = pager(1 << 20);
    pager.write(page(0), &[7; PAGE / 2]).unwrap();
    assert_eq!(read(&pager, 0), Err(PagerError::Damaged { page: page(0) }));
}

#[test]
fn a_page_cut_short_is_damaged() {
    let pager = pager(1 << 20);
    pager.write(page(0), &text(1, 600)).unwrap();
    let mut store = pager.store.lock();
    let kept = store.pages[&0];
    let mut bytes = vec![0; kept.chain.len()];
    store.blocks.load(kept.chain, &mut bytes).unwrap();
    let chain = store.blocks.store(&bytes[..bytes.len() - 3]).unwrap();
    store.pages.insert(0, Kept { chain, page: PAGE });
    drop(store);
    assert_eq!(read(&pager, 0), Err(PagerError::Damaged { page: page(0) }));
}
