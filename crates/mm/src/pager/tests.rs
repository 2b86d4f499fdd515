//! The promises of all pagers, checked against a plain model: a map from page numbers to contents.

use std::{collections::BTreeMap, vec, vec::Vec};

use proptest::prelude::*;

use super::*;

type Raw = parking_lot::RawMutex;

const SIZE: usize = 256;
const PAGES: u64 = 24;
const ALL: usize = 24 * SIZE;

const BROKEN: PagerError = PagerError::Io { code: 5 };

#[derive(Debug, Clone)]
enum Step {
    Read(u64),
    /// The page, how many of its bytes are noise, and the noise's seed.
    Write(u64, usize, u8),
    Discard(u64, u64),
    Fail(PagerCall, Which),
    Heal,
}

fn span(first: u64, pages: u64) -> ObjectSpan {
    ObjectSpan::between(ObjectPage::new(first), ObjectPage::new(first + pages))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..PAGES).prop_map(Step::Read),
        6 => (0..PAGES, 0..=SIZE, any::<u8>()).prop_map(|(at, noisy, byte)| Step::Write(at, noisy, byte)),
        1 => (0..PAGES, 0..PAGES).prop_map(|(first, pages)| Step::Discard(first, pages)),
    ]
}

fn failing_step() -> impl Strategy<Value = Step> {
    let call = prop_oneof![Just(PagerCall::Read), Just(PagerCall::Write), Just(PagerCall::Discard)];
    let which = prop_oneof![
        (0_u64..4).prop_map(Which::Nth),
        (0..PAGES, 0..4_u64).prop_map(|(first, pages)| Which::Pages(span(first, pages))),
        Just(Which::All)
    ];
    prop_oneof![
        10 => step(),
        1 => (call, which).prop_map(|(call, which)| Step::Fail(call, which)),
        1 => Just(Step::Heal),
    ]
}

fn contents(noisy: usize, byte: u8) -> Vec<u8> {
    let noise = |at: usize| at.to_le_bytes()[0].wrapping_mul(151).wrapping_add(byte).rotate_left(3);
    (0..SIZE).map(|at| if at < noisy { noise(at) } else { byte / 128 }).collect()
}

/// Does the steps with a pager and with a model, which begins with `initial`. `refuses` tells whether a write may
/// fail with an error.
fn run(
    pager: &impl Pager,
    steps: Vec<Step>,
    initial: impl Fn(u64) -> Vec<u8>,
    command: impl Fn(&Step),
    refuses: impl Fn(PagerError) -> bool,
) -> Result<(), TestCaseError> {
    let mut model: BTreeMap<u64, Vec<u8>> = (0..PAGES).map(|at| (at, initial(at))).collect();
    for step in steps {
        match step {
            Step::Read(at) => {
                let mut page = vec![0xEE; SIZE];
                match pager.read(ObjectPage::new(at), &mut page) {
                    Ok(()) => prop_assert_eq!(&page, &model[&at]),
                    Err(error) => prop_assert_eq!(error, BROKEN),
                }
            }
            Step::Write(at, noisy, byte) => {
                let page = contents(noisy, byte);
                match pager.write(ObjectPage::new(at), &page) {
                    Ok(()) => drop(model.insert(at, page)),
                    Err(error) => prop_assert!(refuses(error), "{:?}", error),
                }
            }
            Step::Discard(first, pages) => match pager.discard(span(first, pages)) {
                Ok(()) => {
                    model.range_mut(first..first + pages).for_each(|(_, page)| page.fill(0));
                }
                Err(error) => prop_assert_eq!(error, BROKEN),
            },
            Step::Fail(..) | Step::Heal => command(&step),
        }
    }
    command(&Step::Heal);
    for (at, page) in model {
        let mut back = vec![0xEE; SIZE];
        prop_assert_eq!(pager.read(ObjectPage::new(at), &mut back), Ok(()));
        prop_assert_eq!(back, page);
    }
    Ok(())
}

fn zeros(_: u64) -> Vec<u8> {
    vec![0; SIZE]
}

fn counted(at: u64) -> Vec<u8> {
    vec![at.to_le_bytes()[0] + 1; SIZE]
}

proptest! {
    #[test]
    fn a_vector_of_bytes_reads_as_it_was_written(steps in prop::collection::vec(step(), 1..100)) {
        let bytes: Vec<u8> = (0..PAGES).flat_map(counted).collect();
        let pager = BytesPager::<Raw>::new(&bytes, SIZE).unwrap();
        run(&pager, steps, counted, |_| {}, |_| false)?;
    }

    #[test]
    fn compressed_pages_read_as_they_were_written(steps in prop::collection::vec(step(), 1..100)) {
        let pager = CompressedPager::<Raw>::new(SIZE, ALL).unwrap();
        run(&pager, steps, zeros, |_| {}, |_| false)?;
    }

    #[test]
    fn a_full_pager_of_compressed_pages_loses_none(steps in prop::collection::vec(step(), 1..100)) {
        let pager = CompressedPager::<Raw>::new(SIZE, SIZE * 4).unwrap();
        run(&pager, steps, zeros, |_| {}, |error| error == PagerError::Full)?;
    }

    #[test]
    fn a_call_that_fails_on_command_changes_nothing(
        steps in prop::collection::vec(failing_step(), 1..150)
    ) {
        let inner = CompressedPager::<Raw>::new(SIZE, ALL).unwrap();
        let pager = FailingPager::<_, Raw>::new(inner);
        let command = |step: &Step| match *step {
            Step::Fail(call, which) => pager.fail(call, which, BROKEN).unwrap(),
            _ => pager.heal(),
        };
        run(&pager, steps, zeros, command, |error| error == BROKEN)?;
    }
}

#[test]
fn anonymous_memory_is_zeros_and_cannot_be_paged_out() {
    let mut page = [1; 16];
    ZeroPager.read(ObjectPage::new(5), &mut page).unwrap();
    assert_eq!(page, [0; 16]);
    assert_eq!(ZeroPager.write(ObjectPage::new(5), &page), Err(PagerError::KeepsNothing));
    assert_eq!(ZeroPager.discard(span(0, 10)), Ok(()));
}

#[test]
fn the_last_page_of_bytes_is_incomplete_and_the_next_is_past_the_end() {
    let pager = BytesPager::<Raw>::new(b"abcdefghij", 4).unwrap();
    let mut page = [0xEE; 4];
    pager.read(ObjectPage::new(2), &mut page).unwrap();
    assert_eq!(&page, b"ij\0\0");
    pager.write(ObjectPage::new(2), b"IJKL").unwrap();
    assert_eq!(pager.with(<[u8]>::to_vec), b"abcdefghIJ");
    let past = |page| Err(PagerError::PastEnd { page });
    for number in [3, crate::LIMIT, u64::MAX] {
        let number = ObjectPage::new(number);
        assert_eq!(pager.read(number, &mut page), past(number));
        assert_eq!(pager.write(number, &page), past(number));
    }
    pager.discard(ObjectSpan::between(ObjectPage::new(1), ObjectPage::new(crate::LIMIT))).unwrap();
    assert_eq!(pager.into_bytes(), b"abcd\0\0\0\0\0\0");
}

#[test]
fn bytes_that_were_cut_off_come_back_as_zeros() {
    let pager = BytesPager::<Raw>::new(b"abcdefgh", 4).unwrap();
    pager.resize(5).unwrap();
    let mut page = [0xEE; 4];
    pager.read(ObjectPage::new(1), &mut page).unwrap();
    assert_eq!(&page, b"e\0\0\0");
    pager.resize(8).unwrap();
    assert_eq!(pager.with(<[u8]>::to_vec), b"abcde\0\0\0");
    assert_eq!(pager.resize(usize::MAX), Err(crate::NoMemory));
    assert_eq!(pager.with(<[u8]>::len), 8);
}

#[test]
fn each_order_counts_its_own_calls() {
    let pager = FailingPager::<_, Raw>::new(ZeroPager);
    let read = |number| pager.read(ObjectPage::new(number), &mut [0; 4]);
    pager.fail(PagerCall::Read, Which::Pages(span(8, 2)), PagerError::Full).unwrap();
    pager.fail(PagerCall::Read, Which::Nth(3), BROKEN).unwrap();
    assert_eq!(read(0), Ok(()));
    assert_eq!(read(9), Err(PagerError::Full));
    assert_eq!(read(0), Err(BROKEN), "the third, counting the one that failed for its page");
    assert_eq!(read(0), Ok(()));
    assert_eq!(read(8), Err(PagerError::Full));
    assert_eq!(pager.discard(span(0, 10)), Ok(()), "orders are for one kind of call");
    pager.fail(PagerCall::Discard, Which::Pages(span(9, 1)), BROKEN).unwrap();
    assert_eq!(pager.discard(span(0, 10)), Err(BROKEN));
    assert_eq!(pager.discard(span(0, 9)), Ok(()));
    pager.heal();
    assert_eq!(read(8), Ok(()));
    assert_eq!((pager.calls(PagerCall::Read), pager.failures(PagerCall::Read)), (6, 3));
    assert_eq!((pager.calls(PagerCall::Discard), pager.failures(PagerCall::Discard)), (3, 1));
    assert_eq!(pager.calls(PagerCall::Write), 0);
}

#[test]
fn a_read_that_fails_on_command_leaves_rubbish() {
    let pager = FailingPager::<_, Raw>::new(ZeroPager);
    pager.fail(PagerCall::Read, Which::All, BROKEN).unwrap();
    let mut page = [0; 4];
    assert_eq!(pager.read(ObjectPage::new(0), &mut page), Err(BROKEN));
    assert_ne!(page, [0; 4]);
}

#[test]
fn only_the_compressing_pager_says_that_it_compresses() {
    let compressed = CompressedPager::<Raw>::new(SIZE, 0).unwrap();
    assert!(FailingPager::<_, Raw>::new(compressed).compresses());
    assert!(!FailingPager::<_, Raw>::new(ZeroPager).compresses());
    assert!(!BytesPager::<Raw>::new(&[], SIZE).unwrap().compresses());
}
