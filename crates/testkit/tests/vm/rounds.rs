//! One guest after the other attaches, creates and destroys regions, and is killed, while others go on.

use commonhold_testkit::vm::{
    Guest, GuestImage, Machine, Outcome, RunSpace, ScriptedProcess, Side,
};
use serde_json::Value;

use crate::support::{actor, peers, until};

const ROUNDS: u64 = 10;
/// How many operations each survivor does in a round at least.
const CHURNS: u64 = 30;
/// The guest is killed after this many operations at most.
const LAST: u64 = 40;

/// The fields of `space info` that an empty space must have again.
fn emptiness(info: &Value) -> Vec<&Value> {
    ["used", "free", "largest_free", "regions"].iter().map(|key| &info[key]).collect()
}

#[test]
fn ten_guests_killed_at_random_leave_no_region_half_made_and_nothing_leaked() -> Outcome {
    let image = GuestImage::find()?;
    let run_space = RunSpace::format(&image, &["--capacity", "64M", "--lease", "2s"])?;
    let machine = Machine::with(run_space.path());
    let survivor = Guest::start(&image, &machine)?;
    let mut next = Guest::start(&image, &machine)?;
    let host = run_space.host();
    let empty = host.json(&["space", "info"])?;
    let mut here = actor(&host, "here")?;
    let mut there = actor(&Side::guest(&survivor, "pci:auto"), "there")?;
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..ROUNDS {
        // The guest of the next round boots while the guest of this round works.
        let guest = std::mem::replace(&mut next, Guest::start(&image, &machine)?);
        let operations = random.u64(1..LAST);
        let victim = round_of(&guest, [&mut here, &mut there], round, operations)
            .map_err(|why| format!("round {round}, {operations} operations: {why}"))?;
        guest.kill();
        drop(victim);
        here.done()?;
        there.done()?;
        until("the dead is reaped", || {
            here.must("reap")?;
            Ok(peers(&host)?.len() == 2)
        })?;
        let seen = here.must("verify")?;
        assert_eq!(there.must("verify")?, seen, "regions that both see, in round {round}");
        for region in host.json(&["ls"])?.as_array().unwrap() {
            assert_eq!((&region["state"], &region["maps"]), (&"active".into(), &0.into()));
            host.run(&["destroy", region["name"].as_str().unwrap()])?;
        }
        let info = host.json(&["space", "info"])?;
        assert_eq!(emptiness(&info), emptiness(&empty), "what is left of round {round}");
    }
    here.leave()?;
    there.leave()
}

/// Runs a round up to the instant at which the guest is killed.
fn round_of(
    guest: &Guest,
    survivors: [&mut ScriptedProcess; 2],
    round: u64,
    operations: u64,
) -> Outcome<ScriptedProcess> {
    let mut victim = actor(&Side::guest(guest, "pci:auto"), "victim")?;
    victim.tell(&format!("churn {} {}", 3 * round, u64::MAX));
    for (index, survivor) in (1..).zip(survivors) {
        survivor.tell(&format!("churn {} {CHURNS}", 3 * round + index));
    }
    for _ in 0..operations {
        victim.progress()?;
    }
    Ok(victim)
}
