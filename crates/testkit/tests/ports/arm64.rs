//! A guest of another architecture together with guests and processes of this one. It has other processors, another
//! kernel, another way of mapping the device, and other machine code for our locks. (QEMU emulates it on this machine,
//! so loads and stores are reordered only as far as this machine does so.)

use commonhold_testkit::vm::{
    Guest, GuestImage, Machine, Outcome, RunSpace, ScriptedProcess, Side,
};

use crate::support::{actor, locks, own_boot, peers, until};

const CAPACITY: u64 = 64 << 20;
/// How many increments each of four processes does.
const INCREMENTS: u64 = 20_000;

/// The processors: one with instructions for atomic operations, and one with exclusive loads and stores only.
const PROCESSORS: [Option<&str>; 2] = [None, Some("cortex-a72")];

#[test]
fn an_arm64_guest_an_x86_guest_and_processes_of_the_host_lose_no_increment() -> Outcome {
    let (image, arm64) = (GuestImage::find()?, GuestImage::arm64()?);
    for processor in PROCESSORS {
        let run_space = RunSpace::blank(&image, CAPACITY)?;
        let machine = Machine::with(run_space.path());
        let guests = [
            Guest::start(&arm64, &Machine { processor, ..machine.clone() })?,
            Guest::start(&image, &machine)?,
        ];
        let sides = guests.each_ref().map(|guest| Side::guest(guest, "pci:auto"));
        let [there, beside] = &sides;
        there.run(&["space", "format", "pci:auto"])?;
        there.run(&["create", "counter", "8"])?;
        let mut actors = [
            actor(there, "arm64")?,
            actor(beside, "x86")?,
            actor(&run_space.host(), "one")?,
            actor(&run_space.host(), "two")?,
        ];
        let mut domains = [guests[0].boot()?, guests[1].boot()?, own_boot(), own_boot()];
        domains.sort();
        for side in [there, beside, &run_space.host()] {
            let mut seen: Vec<_> = peers(side)?.into_iter().map(|peer| peer.domain).collect();
            seen.sort();
            assert_eq!(seen, domains, "as {} sees it", side.url());
        }
        for actor in &mut actors {
            actor.must("map counter")?;
        }
        for actor in &mut actors {
            actor.tell(&format!("increments counter {INCREMENTS}"));
        }
        for actor in &mut actors {
            assert_eq!(actor.done()?, format!("{INCREMENTS} 0"), "no owner has died");
        }
        for actor in &mut actors {
            assert_eq!(actor.must("value counter")?, (4 * INCREMENTS).to_string());
            actor.must("unmap counter")?;
        }
        actors.into_iter().try_for_each(ScriptedProcess::leave)?;
    }
    Ok(())
}

#[test]
fn the_lock_of_a_holder_killed_in_an_arm64_guest_passes_to_other_kernels_and_back() -> Outcome {
    let (image, arm64) = (GuestImage::find()?, GuestImage::arm64()?);
    let run_space = RunSpace::format(&image, &["--capacity", "64M"])?;
    let guest = Guest::start(&arm64, &Machine::with(run_space.path()))?;
    let (there, host) = (Side::guest(&guest, "pci:auto"), run_space.host());
    host.run(&["create", "r", "4096"])?;
    for (dead, heirs) in [(&there, &host), (&host, &there)] {
        let (mut holder, mut heir) = (actor(dead, "holder")?, actor(heirs, "heir")?);
        for actor in [&mut holder, &mut heir] {
            actor.must("map r")?;
        }
        holder.must("lock r wait")?;
        heir.tell("lock r wait");
        until("the heir waits", || Ok(locks(&host)?.iter().any(|lock| lock.waiters == 1)))?;
        holder.kill()?;
        // Only the kernel of the dead process can prove the death; a living process there publishes it in the space.
        dead.run(&["reap"])?;
        assert_eq!(heir.answer()?, "ownerdied");
        heir.expect("inspect r", "ok inconsistent")?;
        heir.must("unlock r")?;
        heir.must("lock r wait")?;
        heir.must("unlock r")?;
        heir.must("unmap r")?;
        heir.leave()?;
    }
    assert_eq!(peers(&host)?, [], "all that were killed are reaped");
    Ok(())
}

#[test]
fn with_a_lease_the_lock_of_a_killed_arm64_guest_is_inherited_by_another_kernel() -> Outcome {
    let (image, arm64) = (GuestImage::find()?, GuestImage::arm64()?);
    let run_space = RunSpace::format(&image, &["--capacity", "64M", "--lease", "500ms"])?;
    let machine = Machine::with(run_space.path());
    let (killed, beside) = (Guest::start(&arm64, &machine)?, Guest::start(&image, &machine)?);
    let mut holder = actor(&Side::guest(&killed, "pci:auto"), "holder")?;
    let mut heirs =
        [actor(&Side::guest(&beside, "pci:auto"), "x86")?, actor(&run_space.host(), "host")?];
    holder.must("create r 4096")?;
    holder.must("map r")?;
    holder.must("lock r wait")?;
    for heir in &mut heirs {
        heir.must("map r")?;
        heir.expect("lock r 0", "timedout")?;
    }
    killed.kill();
    heirs[0].expect("lock r wait", "ownerdied")?;
    heirs[0].must("unlock r")?;
    heirs[1].expect("lock r wait", "ok")?;
    heirs[1].must("unlock r")?;
    for mut heir in heirs {
        heir.must("unmap r")?;
        heir.leave()?;
    }
    Ok(())
}

#[test]
fn an_arm64_guest_without_real_atomics_is_refused_with_a_remedy() -> Outcome {
    let (image, arm64) = (GuestImage::find()?, GuestImage::arm64()?);
    let run_space = RunSpace::format(&image, &["--capacity", "16M"])?;
    let usual = Machine::with(run_space.path());
    let alone = Machine { processors: 1, ..usual.clone() };
    let in_turn = Machine { accel: "tcg,thread=single", ..usual };
    for (machine, reason) in [(alone, "with one processor"), (in_turn, "in one thread")] {
        for processor in PROCESSORS {
            let guest = Guest::start(&arm64, &Machine { processor, ..machine.clone() })?;
            let refused = Side::guest(&guest, "pci:auto").try_run(&["peers"])?;
            assert_ne!(refused.status, 0, "{reason}, {processor:?}: {refused:?}");
            for part in [reason, "-smp 2 -accel tcg,thread=multi"] {
                let said = refused.err.split_whitespace().collect::<Vec<_>>().join(" ");
                assert!(said.contains(part), "{part:?} is not in {said}");
            }
        }
    }
    Ok(())
}
