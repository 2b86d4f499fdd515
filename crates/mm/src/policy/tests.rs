use std::{collections::BTreeMap, vec::Vec};

use proptest::prelude::*;

use super::*;

/// Goes through one round, and returns the evicted pages. `referenced` tells which pages have their flag set,
/// `pinned` which have to stay.
fn round(
    residents: &mut Residents<u32>,
    mut referenced: impl FnMut(u32) -> bool,
    pinned: impl Fn(u32) -> bool,
) -> Vec<u32> {
    let mut gone = Vec::new();
    let mut round = residents.round();
    while let Some(page) = residents.candidate(&mut round) {
        match page.step {
            _ if pinned(page.key) => residents.answer(page.slot, Answer::Kept),
            Step::Probation => residents.answer(page.slot, Answer::Unmapped),
            Step::Evict if referenced(page.key) => {
                residents.answer(page.slot, Answer::Referenced);
            }
            Step::Evict => {
                residents.evicted(page.slot);
                gone.push(page.key);
            }
        }
    }
    gone
}

fn of(pages: core::ops::Range<u32>) -> (Residents<u32>, Vec<Slot>) {
    let mut residents = Residents::new();
    let slots = pages.map(|page| residents.insert(page, None).unwrap()).collect();
    (residents, slots)
}

/// Evicts one page, as a pager does when it needs one. No page has been referenced.
fn evict(residents: &mut Residents<u32>) -> (u32, Trace) {
    let mut round = residents.round();
    while let Some(page) = residents.candidate(&mut round) {
        match page.step {
            Step::Probation => residents.answer(page.slot, Answer::Unmapped),
            Step::Evict => return (page.key, residents.evicted(page.slot)),
        }
    }
    panic!("nothing to evict")
}

#[test]
fn a_page_is_unmapped_before_it_is_evicted() {
    let (mut residents, _) = of(0..100);
    let mut round = residents.round();
    let mut unmapped = [false; 100];
    while let Some(page) = residents.candidate(&mut round) {
        match page.step {
            Step::Probation => {
                unmapped[page.key as usize] = true;
                residents.answer(page.slot, Answer::Unmapped);
            }
            Step::Evict => {
                assert!(unmapped[page.key as usize]);
                residents.evicted(page.slot);
            }
        }
    }
    assert!(residents.is_empty());
}

#[test]
fn a_page_referenced_on_trial_outlives_all_that_were_not() {
    let (mut residents, _) = of(0..64);
    let gone = round(&mut residents, |page| page == 3, |_| false);
    assert_eq!(gone.len(), 63);
    assert!(!gone.contains(&3));
    assert_eq!(residents.len(), 1);
}

#[test]
fn a_round_ends_though_all_pages_are_pinned_and_asks_each_once() {
    let (mut residents, _) = of(0..50);
    let mut asked = [0; 50];
    let mut round = residents.round();
    while let Some(page) = residents.candidate(&mut round) {
        let asked = &mut asked[page.key as usize];
        *asked += 1;
        assert_eq!(*asked, 1);
        residents.answer(page.slot, Answer::Kept);
    }
    assert_eq!(asked, [1; 50]);
}

#[test]
fn a_round_ends_though_all_pages_are_referenced_or_nobody_answers() {
    let (mut residents, _) = of(0..50);
    assert!(round(&mut residents, |_| true, |_| false).is_empty());
    let mut looks = residents.round();
    let mut count = 0;
    while residents.candidate(&mut looks).is_some() {
        count += 1;
        assert!(count <= 100);
    }
    assert_eq!(residents.len(), 50);
}

#[test]
fn the_one_page_that_is_not_pinned_is_found_in_any_queue() {
    for free in 0..40 {
        let (mut residents, slots) = of(0..40);
        // Spread the pages over the queues.
        for slot in slots.iter().step_by(3) {
            residents.answer(*slot, Answer::Referenced);
        }
        for slot in slots.iter().skip(1).step_by(3) {
            residents.answer(*slot, Answer::Unmapped);
        }
        let gone = round(&mut residents, |_| false, |page| page != free);
        assert_eq!(gone, [free]);
    }
}

#[test]
fn two_callers_at_the_same_time_get_different_pages() {
    let (mut residents, _) = of(0..10);
    let (mut one, mut two) = (residents.round(), residents.round());
    let first = residents.candidate(&mut one).unwrap();
    let second = residents.candidate(&mut two).unwrap();
    assert_ne!(first.key, second.key);
}

#[test]
fn a_slot_of_a_page_that_has_gone_changes_nothing() {
    let (mut residents, slots) = of(0..3);
    residents.remove(slots[1]);
    let again = residents.insert(9, None).unwrap();
    assert_eq!(again.index, slots[1].index, "the note is used again");
    residents.remove(slots[1]);
    residents.answer(slots[1], Answer::Referenced);
    residents.unwanted(slots[1]);
    assert_eq!(residents.pages.at(again), Some(At::Fresh));
    let before = residents.evicted(again);
    assert_eq!(residents.evicted(slots[1]), before, "nothing was evicted");
    assert_eq!(residents.len(), 2);
    let generation = slots[0].generation;
    residents.remove(Slot { index: 77, generation });
    residents.remove(Slot { index: u32::MAX, generation });
    assert_eq!(round(&mut residents, |_| false, |_| false), [0, 2]);
}

#[test]
fn an_unwanted_page_is_the_next_to_go() {
    let (mut residents, slots) = of(0..32);
    slots[..8].iter().for_each(|slot| residents.answer(*slot, Answer::Unmapped));
    residents.unwanted(slots[20]);
    assert_eq!(round(&mut residents, |_| false, |_| false).first(), Some(&20));
}

#[test]
fn a_page_whose_write_back_failed_is_not_tried_again_before_the_others() {
    let (mut residents, _) = of(0..20);
    let mut round = residents.round();
    let mut evictions = Vec::new();
    while let Some(page) = residents.candidate(&mut round) {
        match page.step {
            Step::Probation => residents.answer(page.slot, Answer::Unmapped),
            Step::Evict => {
                evictions.push(page.key);
                residents.answer(page.slot, Answer::Kept);
            }
        }
    }
    evictions.sort_unstable();
    assert_eq!(evictions, (0..20).collect::<Vec<_>>());
}

#[test]
fn pages_used_once_do_not_push_out_pages_used_again() {
    let (mut residents, slots) = of(0..64);
    for slot in &slots[..24] {
        residents.answer(*slot, Answer::Referenced);
    }
    for page in 100..1_000 {
        let (gone, _) = evict(&mut residents);
        assert!(gone >= 24, "{gone} was known");
        residents.insert(page, None).unwrap();
    }
}

#[test]
fn a_page_that_comes_back_soon_is_known_and_one_that_comes_back_late_is_not() {
    let (mut residents, _) = of(0..64);
    let (soon, trace) = evict(&mut residents);
    let slot = residents.insert(soon, Some(trace)).unwrap();
    assert_eq!(residents.pages.at(slot), Some(At::Known));
    let (late, trace) = evict(&mut residents);
    for page in 100..100 + 3 * 64 {
        residents.insert(page, None).unwrap();
        evict(&mut residents);
    }
    let slot = residents.insert(late, Some(trace)).unwrap();
    assert_eq!(residents.pages.at(slot), Some(At::Fresh));
}

#[test]
fn few_returning_pages_become_known_when_there_is_no_room() {
    let (mut residents, _) = of(0..64);
    let mut known = 0;
    for turn in 0..1_000 {
        let (page, trace) = evict(&mut residents);
        let slot = residents.insert(page, Some(trace)).unwrap();
        known += u32::from(turn >= 500 && residents.pages.at(slot) == Some(At::Known));
    }
    assert!((100..=300).contains(&known), "{known} of 500");
}

#[test]
fn insert_never_fails_within_the_reserved_memory() {
    let mut residents = Residents::new();
    residents.reserve(100).unwrap();
    let room = residents.pages.capacity();
    for page in 0..100 {
        residents.insert(page, None).unwrap();
    }
    assert_eq!(residents.pages.capacity(), room);
    assert_eq!(Residents::<u64>::new().reserve(usize::MAX), Err(NoMemory));
}

#[derive(Debug, Clone)]
enum Call {
    Insert,
    Remove(usize),
    Evicted(usize),
    Unwanted(usize),
    Answer(usize, Answer),
    Ask,
}

fn call() -> impl Strategy<Value = Call> {
    let answer = prop_oneof![Just(Answer::Unmapped), Just(Answer::Referenced), Just(Answer::Kept)];
    prop_oneof![
        3 => Just(Call::Insert),
        1 => any::<usize>().prop_map(Call::Remove),
        1 => any::<usize>().prop_map(Call::Evicted),
        1 => any::<usize>().prop_map(Call::Unwanted),
        3 => (any::<usize>(), answer).prop_map(|(which, answer)| Call::Answer(which, answer)),
        3 => Just(Call::Ask),
    ]
}

proptest! {
    /// Some calls use slots of pages that have gone.
    #[test]
    fn after_any_calls_exactly_the_present_pages_are_proposed(
        calls in prop::collection::vec(call(), 1..200)
    ) {
        let mut residents = Residents::new();
        let mut there = BTreeMap::new();
        let mut slots: Vec<(u32, Slot)> = Vec::new();
        let mut ask = residents.round();
        for call in calls {
            let pick = |which: usize| slots.get(which % slots.len().max(1)).copied();
            match call {
                Call::Insert => {
                    let page = u32::try_from(slots.len()).unwrap();
                    let slot = residents.insert(page, None).unwrap();
                    there.insert(page, slot);
                    slots.push((page, slot));
                }
                Call::Remove(which) => if let Some((page, slot)) = pick(which) {
                    residents.remove(slot);
                    there.remove(&page);
                },
                Call::Evicted(which) => if let Some((page, slot)) = pick(which) {
                    residents.evicted(slot);
                    there.remove(&page);
                },
                Call::Unwanted(which) => if let Some((_, slot)) = pick(which) {
                    residents.unwanted(slot);
                },
                Call::Answer(which, answer) => if let Some((_, slot)) = pick(which) {
                    residents.answer(slot, answer);
                },
                Call::Ask => match residents.candidate(&mut ask) {
                    Some(page) => prop_assert_eq!(there.get(&page.key), Some(&page.slot)),
                    None => ask = residents.round(),
                },
            }
            prop_assert_eq!(residents.len(), there.len());
        }
        let mut gone = round(&mut residents, |_| false, |_| false);
        gone.sort_unstable();
        prop_assert_eq!(gone, there.keys().copied().collect::<Vec<_>>());
    }
}
