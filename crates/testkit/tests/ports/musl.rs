//! Programs with the C library musl together with programs with glibc. With musl, the kernel does not mark the life
//! word of a dead thread, so the programs detect deaths by other evidence.

use commonhold_testkit::vm::{GuestImage, Outcome, RunSpace, ScriptedProcess, Side};

use crate::support::{actor, locks, peers, until};

/// How many increments each of four processes does.
const INCREMENTS: u64 = 50_000;

/// The two sides of a space: one for each C library.
fn both(run_space: &RunSpace) -> Outcome<[Side<'_>; 2]> {
    // Leaked: there are few images, and the test process is short-lived.
    let musl = Box::leak(Box::new(GuestImage::musl()?));
    Ok([run_space.host(), Side::host(musl, run_space.url())])
}

#[test]
fn programs_of_two_c_libraries_see_the_same_regions_and_lose_no_increment() -> Outcome {
    let run_space = RunSpace::format(&GuestImage::find()?, &["--capacity", "16M"])?;
    let [glibc, musl] = both(&run_space)?;
    musl.run(&["create", "counter", "8"])?;
    let mut actors = [
        actor(&glibc, "one")?,
        actor(&musl, "two")?,
        actor(&glibc, "three")?,
        actor(&musl, "four")?,
    ];
    assert_eq!(peers(&glibc)?, peers(&musl)?);
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
    actors.into_iter().try_for_each(ScriptedProcess::leave)
}

#[test]
fn the_locks_of_killed_processes_pass_between_two_c_libraries_in_both_directions() -> Outcome {
    let run_space = RunSpace::format(&GuestImage::find()?, &["--capacity", "16M"])?;
    let sides = both(&run_space)?;
    for (dead, heirs) in [(&sides[0], &sides[1]), (&sides[1], &sides[0])] {
        let mut heir = actor(heirs, "heir")?;
        heir.must("create r 4096")?;
        heir.must("map r")?;
        // First the heir sleeps when the owner dies; then the heir takes the lock only after the death.
        for waits in [true, false] {
            let mut holder = actor(dead, "holder")?;
            holder.must("map r")?;
            holder.must("lock r wait")?;
            if waits {
                heir.tell("lock r wait");
                until("the heir waits", || Ok(locks(heirs)?.iter().any(|lock| lock.waiters == 1)))?;
                holder.kill()?;
            } else {
                holder.kill()?;
                heir.tell("lock r wait");
            }
            assert_eq!(heir.answer()?, "ownerdied");
            heir.must("repair r")?;
            heir.must("unlock r")?;
        }
        // A dead reader does not block a writer.
        let mut reader = actor(dead, "reader")?;
        reader.must("map r")?;
        reader.must("rlock r wait")?;
        heir.expect("lock r 0", "timedout")?;
        heir.tell("lock r wait");
        reader.kill()?;
        assert_eq!(heir.answer()?, "ok");
        heir.must("unlock r")?;
        heir.must("unmap r")?;
        heir.must("destroy r wait")?;
        until("the dead are reaped", || {
            heir.must("reap")?;
            Ok(peers(heirs)?.len() == 1)
        })?;
        heir.leave()?;
    }
    Ok(())
}
