//! Five live participants: a guest that uses the PCI device, a guest that uses its addresses in physical memory, a
//! guest without an operating system, and two processes of the host.

use commonhold_testkit::vm::{
    Guest, GuestImage, Machine, Metal, Outcome, RunSpace, ScriptedProcess, Side,
};

use crate::support::{actor, own_boot, peers, until};

const CAPACITY: u64 = 64 << 20;
/// How many increments each of the five does.
const INCREMENTS: u64 = 40_000;

#[test]
fn three_guests_and_two_processes_share_regions_and_lose_no_increment() -> Outcome {
    let image = GuestImage::find()?;
    let run_space = RunSpace::blank(&image, CAPACITY)?;
    let machine = Machine::with(run_space.path());
    let guests = [Guest::start(&image, &machine)?, Guest::start(&image, &machine)?];
    let by_device = Side::guest(&guests[0], "pci:auto");
    let memory = guests[1].memory()?;
    let by_address = Side::guest(&guests[1], &memory);
    by_device.run(&["space", "format", "pci:auto"])?;

    let mut actors = [
        actor(&by_device, "device")?,
        actor(&by_address, "address")?,
        actor(&run_space.host(), "one")?,
        actor(&run_space.host(), "two")?,
    ];
    all_sides_see_all_peers(&[&by_device, &by_address, &run_space.host()], &guests)?;
    no_increment_is_lost(&mut actors, &image, machine)?;
    for turn in 0..actors.len() {
        actors.rotate_left(1);
        regions_are_the_same_from_every_side(&mut actors, &format!("r{turn}"))?;
    }
    actors.into_iter().try_for_each(ScriptedProcess::leave)?;
    assert_eq!(run_space.host().json(&["ls"])?.as_array().unwrap().len(), 0, "regions are left");
    Ok(())
}

fn all_sides_see_all_peers(sides: &[&Side<'_>], guests: &[Guest; 2]) -> Outcome {
    let (first, second, host) = (guests[0].boot()?, guests[1].boot()?, own_boot());
    let all = [("address", &second), ("device", &first), ("one", &host), ("two", &host)];
    assert!(first != second && first != host && second != host);
    for side in sides {
        let mut seen = peers(side)?;
        seen.sort_by(|a, b| a.name.cmp(&b.name));
        assert!(seen.iter().all(|peer| peer.state == "live"), "{seen:?}");
        let seen: Vec<_> = seen.iter().map(|peer| (peer.name.as_str(), &peer.domain)).collect();
        assert_eq!(seen, all, "as {} sees it", side.url());
    }
    Ok(())
}

fn no_increment_is_lost(
    actors: &mut [ScriptedProcess; 4],
    image: &GuestImage,
    machine: Machine,
) -> Outcome {
    actors[0].must("create counter 8")?;
    for actor in actors.iter_mut() {
        actor.must("map counter")?;
    }
    for actor in actors.iter_mut() {
        actor.tell(&format!("increments counter {INCREMENTS}"));
    }
    let append = format!("region=counter increments={INCREMENTS}");
    let mut metal = Metal::start(image, &Machine { append, ..machine })?;
    assert_eq!(metal.hear("done ")?, format!("increments={INCREMENTS} owner_died=0"));
    metal.end()?;
    for actor in actors.iter_mut() {
        assert_eq!(actor.done()?, format!("{INCREMENTS} 0"), "no owner has died");
    }
    for actor in actors.iter_mut() {
        assert_eq!(actor.must("value counter")?, (5 * INCREMENTS).to_string());
        actor.must("unmap counter")?;
    }
    actors[0].must("destroy counter wait").map(drop)
}

/// Checks `create`, `map`, `unmap` and `destroy` across kernels; the first process creates the region.
fn regions_are_the_same_from_every_side(actors: &mut [ScriptedProcess; 4], name: &str) -> Outcome {
    let [first, second, third, fourth] = actors;
    let (create, map, unmap) =
        (&format!("create {name} 70000"), &format!("map {name}"), &format!("unmap {name}"));
    first.must(create)?;
    for other in [&mut *second, third, fourth] {
        other.expect(create, "exists")?;
        other.expect(map, "ok 70000")?;
    }
    // All read what one has written. Bytes that were never written are zero, even if the memory was used before.
    third.expect(&format!("look {name}"), "ok 70000 0")?;
    second.must(&format!("fill {name}"))?;
    for other in [&mut *second, third, fourth] {
        other.expect(&format!("look {name}"), "ok 70000 70000")?;
    }
    second.expect(&format!("destroy {name} 0"), "mapped")?;
    first.expect(&format!("destroy {name} 30"), "timedout")?;
    first.expect(&format!("region {name}"), "ok active 3")?;
    second.must(unmap)?;

    // The destroy waits for the mappings in other kernels. Meanwhile the region cannot be mapped or created.
    first.tell(&format!("destroy {name} wait"));
    let state = &format!("region {name}");
    until("it is being destroyed", || Ok(second.ask(state)? == "ok destroying 2"))?;
    second.expect(map, "notfound")?;
    second.expect(create, "exists")?;
    third.must(unmap)?;
    fourth.must(unmap)?;
    first.done()?;
    for other in [&mut *first, second, third, fourth] {
        other.expect(&format!("region {name}"), "notfound")?;
        other.expect(&format!("destroy {name} 0"), "notfound")?;
    }

    // The last unmap, in any kernel, frees a deferred region.
    second.must(create)?;
    third.must(map)?;
    fourth.must(&format!("destroy {name} deferred"))?;
    first.expect(create, "exists")?;
    third.must(unmap)?;
    first.must(create)?;
    fourth.must(map)?;
    fourth.expect(&format!("look {name}"), "ok 70000 0")?;
    fourth.must(unmap)?;
    second.must(&format!("destroy {name} wait")).map(drop)
}
