//! Guests with several devices, with none, and with unsuitable processors.

use commonhold_testkit::vm::{Guest, GuestImage, Machine, Outcome, RunSpace, Side};

const CAPACITY: u64 = 16 << 20;

#[test]
fn each_of_several_devices_is_its_own_space_and_none_is_used_by_accident() -> Outcome {
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
fn a_guest_without_a_device_gets_an_error_that_says_so() -> Outcome {
    let image = GuestImage::find()?;
    let guest = Guest::start(&image, &Machine::default())?;
    let refused = Side::guest(&guest, "pci:auto").try_run(&["ls"])?;
    assert_ne!(refused.status, 0);
    assert!(refused.err.contains("ivshmem"), "{}", refused.err);
    Ok(())
}

#[test]
fn a_guest_without_real_atomics_is_refused_with_a_remedy() -> Outcome {
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
