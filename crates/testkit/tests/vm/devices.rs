//! What a guest says of its devices.

use commonhold_testkit::vm::{Guest, GuestImage, Machine, Outcome, RunSpace, Side};

const CAPACITY: u64 = 16 << 20;

#[test]
fn of_several_devices_each_is_a_space_of_its_own_and_none_is_taken_by_accident() -> Outcome {
    let image = GuestImage::find()?;
    let run_spaces = [RunSpace::blank(&image, CAPACITY)?, RunSpace::blank(&image, CAPACITY)?];
    let windows = run_spaces.iter().map(RunSpace::path).collect();
    let guest = Guest::start(&image, &Machine { windows, ..Machine::default() })?;
    let any = Side::guest(&guest, "pci:auto");
    let refused = any.try_run(&["ls"])?;
    assert_ne!(refused.status, 0);
    let found: Vec<&str> = refused
        .err
        .split([' ', ',', ';', '\n'])
        .filter(|word| word.starts_with("pci:0000"))
        .collect();
    assert_eq!(found.len(), 2, "{}", refused.err);
    for (index, url) in found.iter().enumerate() {
        let there = Side::guest(&guest, url);
        there.run(&["space", "format", url])?;
        there.run(&["create", &format!("region-{index}"), "4096"])?;
    }
    for run_space in &run_spaces {
        let regions = run_space.host().json(&["ls"])?;
        assert_eq!(regions.as_array().unwrap().len(), 1, "{regions}");
    }
    Ok(())
}

#[test]
fn without_a_device_a_guest_is_told_so() -> Outcome {
    let image = GuestImage::find()?;
    let guest = Guest::start(&image, &Machine::default())?;
    let refused = Side::guest(&guest, "pci:auto").try_run(&["ls"])?;
    assert_ne!(refused.status, 0);
    assert!(refused.err.contains("ivshmem"), "{}", refused.err);
    Ok(())
}

#[test]
fn a_guest_whose_atomics_are_none_is_refused_with_the_remedy() -> Outcome {
    let image = GuestImage::find()?;
    let run_space = RunSpace::format(&image, &["--capacity", "16M"])?;
    let usual = Machine::with(run_space.path());
    let alone = Machine { processors: 1, ..usual.clone() };
    let in_turn = Machine { accel: "tcg,thread=single", ..usual };
    for (machine, reason) in [(alone, "with one processor"), (in_turn, "in one thread")] {
        let guest = Guest::start(&image, &machine)?;
        let refused = Side::guest(&guest, "pci:auto").try_run(&["peers"])?;
        assert_ne!(refused.status, 0, "{refused:?}");
        for part in [reason, "-smp 2 -accel tcg,thread=multi"] {
            let said = refused.err.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(said.contains(part), "{part:?} is not in {said}");
        }
    }
    Ok(())
}
