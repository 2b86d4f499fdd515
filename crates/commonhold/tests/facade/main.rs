//! Tests of the public API with real spaces, real processes, and real deaths.
//!
//! A test that needs another process runs this binary again as a *scripted process*: see `support`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests say so by panicking"
)]
#![allow(clippy::indexing_slicing, reason = "a test that indexes wrongly fails, as it should")]
#![allow(clippy::cast_possible_truncation, reason = "numbers in tests are small")]

mod biased;
mod biased_bursts;
mod biased_writers;
mod damage;
mod descriptors;
mod devices;
mod events;
mod fork;
mod gate;
mod gate_storm;
mod graph;
mod graph_places;
mod killed_readers;
mod locks;
mod misuse;
mod open;
mod regions;
mod shapes;
mod shapes_data;
mod spaces;
mod strangers;
mod stress;
mod stress_waits;
mod stress_words;
mod stress_worker;
mod support;
mod thread_ends;
mod threads;
mod typed;
mod typed_barrier;
mod typed_condvar;
mod typed_once;
mod typed_rwlock;
mod typed_semaphore;
mod typed_seqlock;
mod typed_upgradable;

/// The scripts that a scripted process can run.
const ROLES: &[&[support::Role]] = &[
    biased::ROLES,
    biased_bursts::ROLES,
    biased_writers::ROLES,
    damage::ROLES,
    descriptors::ROLES,
    devices::ROLES,
    events::ROLES,
    fork::ROLES,
    gate::ROLES,
    gate_storm::ROLES,
    graph::ROLES,
    graph_places::ROLES,
    killed_readers::ROLES,
    locks::ROLES,
    regions::ROLES,
    shapes::ROLES,
    shapes_data::ROLES,
    spaces::ROLES,
    strangers::ROLES,
    thread_ends::ROLES,
    stress_worker::ROLES,
    threads::ROLES,
    typed::ROLES,
    typed_barrier::ROLES,
    typed_condvar::ROLES,
    typed_once::ROLES,
    typed_rwlock::ROLES,
    typed_semaphore::ROLES,
    typed_seqlock::ROLES,
    typed_upgradable::ROLES,
];

/// Not a test: the entry point of scripted processes.
#[test]
fn actor() {
    support::play(ROLES);
}
