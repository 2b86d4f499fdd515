//! Formatting a window that other processes can reach meanwhile.

use commonhold_layout::OpenError;

use super::*;
use crate::{Claim, MakeError};

const OPTIONS: FormatOptions = FormatOptions {
    capacity: 1 << 20,
    page: 0,
    peers: None,
    threads: None,
    regions: None,
    lease_ms: 0,
    uuid: 5,
    created_ms: 0,
};

/// A window with other contents.
fn used() -> (Arc<World>, Machine) {
    let world = World::new(2 << 20);
    world.words.iter().for_each(|word| word.store(0x55, Ordering::Relaxed));
    let machine = world.machine();
    (world, machine)
}

#[test]
fn a_window_formatted_in_place_is_zero_but_for_its_header() {
    let (world, machine) = used();
    let geometry = Claim::take(&machine.window, 0x55, 7).unwrap().format(&OPTIONS).unwrap();
    let values = || world.words.iter().map(|word| word.load(Ordering::Relaxed));
    assert!(values().take(32).eq(geometry.header()));
    assert_eq!(values().skip(32).filter(|value| *value != 0).count(), 0);
    assert_eq!(world.attach().space.view().geometry(), &geometry);
}

#[test]
fn if_two_formatters_claim_a_window_one_wins_and_the_other_writes_nothing() {
    let (world, machine) = used();
    let claim = Claim::take(&machine.window, 0x55, 7).unwrap();
    assert_eq!(View::open(world.machine()).unwrap_err(), AttachError::Open(OpenError::Unfinished));
    assert_eq!(Claim::take(&machine.window, 0x55, 8).unwrap_err(), MakeError::Contested);
    claim.format(&OPTIONS).unwrap();
    assert_eq!(Claim::take(&machine.window, 0x55, 9).unwrap_err(), MakeError::Contested);
    View::open(world.machine()).unwrap();
}

#[test]
fn a_formatter_that_was_declared_dead_and_comes_back_does_not_change_the_new_space() {
    let (world, machine) = used();
    let stopped = Claim::take(&machine.window, 0x55, 7).unwrap();
    let first = || world.words[0].load(Ordering::Relaxed);
    let replaced = Claim::take(&machine.window, first(), 8).unwrap();
    // A replaced formatter fails while its successor is at work, and after that has finished.
    let again = Claim::take(&machine.window, first(), 9).unwrap();
    assert_eq!(replaced.format(&OPTIONS), Err(MakeError::Contested));
    assert_eq!(
        world.words[1].load(Ordering::Relaxed),
        0x55,
        "a formatter without the claim wiped bytes"
    );
    again.format(&OPTIONS).unwrap();
    let peer = world.attach();
    let before: Vec<u64> = world.words.iter().map(|w| w.load(Ordering::Relaxed)).collect();
    assert_eq!(stopped.format(&OPTIONS), Err(MakeError::Contested));
    let after = world.words.iter().map(|word| word.load(Ordering::Relaxed));
    assert!(after.eq(before));
    assert!(peer.space.is_live());
}

#[test]
fn giving_a_claim_back_leaves_the_window_as_it_was() {
    let (world, machine) = used();
    Claim::take(&machine.window, 0x55, 7).unwrap().give_back(0x55);
    assert!(world.words.iter().all(|word| word.load(Ordering::Relaxed) == 0x55));
    let lost = Claim::take(&machine.window, 0x55, 7).unwrap();
    world.words[0].store(1, Ordering::Relaxed);
    lost.give_back(0x55);
    assert_eq!(world.words[0].load(Ordering::Relaxed), 1);
}

#[test]
fn a_window_that_is_too_small_stays_claimed_but_is_not_changed() {
    let (world, machine) = used();
    let claim = Claim::take(&machine.window, 0x55, 7).unwrap();
    let refused = claim.format(&FormatOptions { capacity: 4 << 20, ..OPTIONS });
    assert!(matches!(refused, Err(MakeError::Window(_))), "{refused:?}");
    assert!(world.words.iter().skip(1).all(|word| word.load(Ordering::Relaxed) == 0x55));
}
