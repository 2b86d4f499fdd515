//! The scripts. Each runs in a new space, which the driver uses as well. Together they pass every point.

mod biased;
mod locks;
mod peers;
mod records;
mod regions;

use crate::crash::{Outcome, scene::Scene};

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Slots for peers.
    pub(crate) peers: u64,
    /// The driver attaches only after the script, so that the script's processes are the first in the space.
    pub(crate) untouched: bool,
    /// Bytes of memory behind the space, if limited. Without the right to mount, the scenario is skipped.
    pub(crate) memory: Option<u64>,
    pub(crate) script: fn(&mut Scene<'_>) -> Outcome,
}

const fn scenario(name: &'static str, script: fn(&mut Scene<'_>) -> Outcome) -> Scenario {
    Scenario { name, peers: 8, untouched: false, memory: None, script }
}

pub(crate) const ALL: &[Scenario] = &[
    scenario("create, use and leave", regions::create),
    scenario("create lazily", regions::create_lazily),
    scenario("a region without bytes", regions::create_empty),
    scenario("creations that are refused", regions::create_refused),
    scenario("map twice", regions::map_twice),
    scenario("destroy among neighbours", regions::destroy),
    scenario("destroy waits", regions::destroy_waits),
    scenario("destroy times out", regions::destroy_times_out),
    scenario("destroy deferred", regions::destroy_deferred),
    scenario("resize", regions::resize),
    scenario("resize what is lazy", regions::resize_lazy),
    scenario("resize refused", regions::resize_refused),
    scenario("a lock that is waited for", locks::lock_waits),
    scenario("a lock with two waiters, one dies", locks::lock_two_waiters),
    scenario("locks that time out", locks::lock_times_out),
    scenario("a writer waits for readers", locks::writer_waits),
    scenario("a reader waits for a writer", locks::reader_waits),
    scenario("a dead owner's lock", locks::take_over),
    scenario("a dead owner's lock, abandoned and given up", locks::abandon),
    scenario("a reader at a dead writer's lock", locks::reader_at_dead_writer),
    scenario("a mutex among the bytes", locks::mutex),
    scenario("an event", locks::event),
    scenario("a permit that is waited for", records::permit),
    scenario("a permit that is spent and given", records::spend),
    scenario("a value made once", records::once),
    scenario("a barrier", records::barrier),
    scenario("a condition", records::condition),
    scenario("a sequence lock", records::sequence),
    scenario("an upgrade waits for a reader", locks::upgrade_waits),
    scenario("an upgrade at a dead owner's lock", locks::upgrade_at_dead),
    scenario("a mutex used alone", biased::alone),
    scenario("a biased mutex that is waited for", biased::waits),
    scenario("a biased mutex of the dead", biased::dead),
    scenario("a biased mutex of the dead, reaped", biased::reaped),
    scenario("a biased mutex that is given up", biased::left),
    scenario("a biased mutex that is forgotten", biased::forgotten),
    scenario("a biased mutex whose region is destroyed", biased::destroyed),
    scenario("a condition with a biased mutex", biased::condition),
    scenario("a region written alone", biased::written_alone),
    scenario("a region written alone, then read", biased::written_and_read),
    scenario("a region written alone, with a waiting writer", biased::written_waits),
    scenario("a region written alone, with a waiting reader", biased::written_reader_waits),
    scenario("a region written alone by the dead", biased::written_dead),
    scenario("a region written alone by the dead, reaped", biased::written_reaped),
    scenario("reaping", peers::reap),
    scenario("memory where no region is", regions::litter),
    scenario("two kernels", peers::guest),
    Scenario {
        name: "a dead peer's slot",
        peers: 4,
        untouched: false,
        memory: None,
        script: peers::inherit,
    },
    Scenario {
        name: "a dead peer's slot, with a biased mutex",
        peers: 4,
        untouched: false,
        memory: None,
        script: biased::inherited,
    },
    Scenario {
        name: "no memory",
        peers: 8,
        untouched: false,
        memory: Some(1 << 20),
        script: regions::full,
    },
    Scenario {
        name: "a new space",
        peers: 8,
        untouched: true,
        memory: None,
        script: regions::first,
    },
];
