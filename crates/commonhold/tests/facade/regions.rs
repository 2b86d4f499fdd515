//! What create, map, unmap, destroy and resize promise (the table of the design), and bytes.

use std::time::{Duration, Instant};

use commonhold::{
    Access, CreateOptions, Destroy, FormatOptions, Mutex, NameError, RegionError, Space, State,
};

use crate::support::{DEADLINE, Role, SHORT, Scratch, ScriptedProcess, fails, say, stay, until};

pub(crate) const ROLES: &[Role] = &[
    ("region-map", map_and_stay),
    ("region-destroy", destroy_waiting),
    ("region-write", write_through_a_read_only_pointer),
];

/// Maps a region, says so, and stays; unmaps in order.
fn map_and_stay(args: &[&str]) {
    let space = Space::open(args[0]).unwrap();
    let mapping = space.map(args[1], Access::ReadWrite).unwrap();
    say("mapped");
    stay();
    mapping.unmap().unwrap();
}

fn destroy_waiting(args: &[&str]) {
    let space = Space::open(args[0]).unwrap();
    say("destroying");
    space.destroy(args[1], Destroy::Wait).unwrap();
    say("destroyed");
}

fn mapper(scratch: &Scratch, name: &str) -> ScriptedProcess {
    let actor = ScriptedProcess::start("region-map", &[&scratch.url, name]);
    actor.says("mapped");
    actor
}

#[test]
fn a_name_is_taken_while_its_region_is_active_or_being_destroyed() {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    let first = space.create("a", 5000).unwrap();
    assert_eq!((first.name(), first.size()), ("a", 5000));
    fails!(space.create("a", 1), RegionError::Exists { name } if name == "a");
    let actor = mapper(&scratch, "a");
    fails!(Space::open(&scratch.url).unwrap().create("a", 1), RegionError::Exists { .. });
    assert_eq!(space.destroy("a", Destroy::Deferred).unwrap(), first.key());
    fails!(space.create("a", 1), RegionError::Exists { .. });
    fails!(space.map("a", Access::ReadOnly), RegionError::NotFound { .. });
    fails!(space.region("a"), RegionError::NotFound { .. });
    fails!(space.resize("a", 1), RegionError::NotFound { .. });
    fails!(space.destroy("a", Destroy::Wait), RegionError::NotFound { .. });
    assert_eq!(space.stat("a").unwrap().state, State::Destroying);
    actor.succeed();
    // The last unmap has freed it: no other peer has to act.
    fails!(space.stat("a"), RegionError::NotFound { .. });
    assert_ne!(space.create("a", 1).unwrap().key(), first.key());
    space.check().unwrap();
}

#[test]
fn a_deferred_region_whose_last_mapper_is_killed_is_freed_by_the_next_create_of_its_name() {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    space.create("a", 4096).unwrap();
    let actor = mapper(&scratch, "a");
    space.destroy("a", Destroy::Deferred).unwrap();
    actor.kill();
    space.create("a", 4096).unwrap();
    space.check().unwrap();
}

#[test]
fn a_window_or_a_table_that_is_full_is_an_error_and_makes_nothing() {
    let scratch = Scratch::with(&FormatOptions { regions: Some(3), ..Scratch::tiny() });
    let space = scratch.open();
    let free = space.info().unwrap().free;
    fails!(space.create("a", 1 << 20), RegionError::NoSpace { asked, largest }
        if *asked == 1 << 20 && *largest == free);
    fails!(
        space.create("a", u64::MAX),
        RegionError::NoSpace { .. } | RegionError::BeyondReserve { .. }
    );
    let reserve = CreateOptions { reserve: Some(1 << 40), ..CreateOptions::default() };
    fails!(space.create_with("a", &reserve), RegionError::NoSpace { .. });
    let small = CreateOptions { size: 9000, reserve: Some(8999), ..CreateOptions::default() };
    fails!(
        space.create_with("a", &small),
        RegionError::BeyondReserve { asked: 9000, reserve: 8999 }
    );
    assert_eq!(space.info().unwrap().regions.0, 0);
    space.create("whole", free).unwrap();
    fails!(space.create("b", 1), RegionError::NoSpace { largest: 0, .. });
    space.create("b", 0).unwrap();
    space.create("c", 0).unwrap();
    fails!(space.create("d", 0), RegionError::NoEntry { regions: 3 });
    for name in ["whole", "b", "c"] {
        space.destroy(name, Destroy::Wait).unwrap();
    }
    let info = space.info().unwrap();
    assert_eq!((info.used, info.free, info.largest_free), (0, free, free));
    space.check().unwrap();
}

#[test]
fn a_region_may_be_mapped_many_times_and_is_destroyed_after_the_last() {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    fails!(space.map("a", Access::ReadWrite), RegionError::NotFound { name } if name == "a");
    fails!(space.destroy("a", Destroy::Wait), RegionError::NotFound { .. });
    let region = space.create("a", 4096).unwrap();
    let one = space.map("a", Access::ReadWrite).unwrap();
    let two = region.map(Access::ReadOnly).unwrap();
    let three = space.map("a", Access::ReadWrite).unwrap();
    one.set(0, &42_u64).unwrap();
    assert_eq!((two.get::<u64>(0).unwrap(), three.get::<u64>(0).unwrap()), (42, 42));
    assert_eq!(space.stat("a").unwrap().maps, 3);
    let waiting = [Destroy::Wait, Destroy::Within(DEADLINE), Destroy::Deferred];
    for (mapping, left) in [(one, 3), (two, 2), (three, 1)] {
        for how in waiting {
            fails!(space.destroy("a", how), RegionError::Mapped { name, handles }
                if (name.as_str(), *handles) == ("a", left));
        }
        mapping.unmap().unwrap();
    }
    assert_eq!(space.stat("a").unwrap().maps, 0);
    assert_eq!(space.destroy("a", Destroy::Wait).unwrap(), region.key());
}

#[test]
fn a_mapping_ends_with_the_last_handle_that_uses_it() {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    space.create("a", 4096).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    let mutex = mapping.open::<Mutex<u64>>(0).unwrap();
    let clone = mapping.clone();
    let beat = clone.value::<u64>(64).unwrap();
    // All of these handles share one mapping.
    assert_eq!(space.stat("a").unwrap().maps, 1);
    fails!(mapping.unmap(), RegionError::InUseHere { name, handles: 3 } if name == "a");
    fails!(clone.unmap(), RegionError::InUseHere { handles: 2, .. });
    fails!(space.destroy("a", Destroy::Deferred), RegionError::Mapped { handles: 2, .. });
    // Handles that were opened in it work as before.
    let guard = mutex.lock().unwrap();
    beat.store(guard.get() + 1).unwrap();
    assert_eq!(beat.load(), 1);
    drop(guard);
    drop(beat);
    let error = space.destroy("a", Destroy::Wait).unwrap_err();
    fails!(&Err::<(), _>(&error), RegionError::Mapped { handles: 1, .. });
    assert!(error.to_string().contains("handles: 1;"), "{error}");
    assert_eq!(space.stat("a").unwrap().maps, 1);
    drop(mutex);
    assert_eq!(space.stat("a").unwrap().maps, 0);
    space.destroy("a", Destroy::Wait).unwrap();
}

#[test]
fn destroy_waits_for_others_refuses_new_maps_meanwhile_and_gives_up_in_time() {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    space.create("a", 4096).unwrap();
    let actor = mapper(&scratch, "a");
    let start = Instant::now();
    fails!(space.destroy("a", Destroy::Within(SHORT)), RegionError::TimedOut { .. });
    assert!(start.elapsed() >= SHORT);
    // It is active again, whole, and blocks nothing.
    drop(space.map("a", Access::ReadWrite).unwrap());
    let destroyer = ScriptedProcess::start("region-destroy", &[&scratch.url, "a"]);
    destroyer.says("destroying");
    until("the destroyer to wait", || space.stat("a").unwrap().state == State::Destroying);
    fails!(space.map("a", Access::ReadWrite), RegionError::NotFound { .. });
    fails!(space.create("a", 1), RegionError::Exists { .. });
    fails!(space.destroy("a", Destroy::Wait), RegionError::NotFound { .. });
    assert_eq!(destroyer.hear_within(SHORT), None);
    actor.succeed();
    destroyer.says("destroyed");
    destroyer.succeed();
    fails!(space.stat("a"), RegionError::NotFound { .. });
}

#[test]
fn destroy_does_not_wait_for_a_mapper_that_was_killed() {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    space.create("a", 4096).unwrap();
    let actor = mapper(&scratch, "a");
    let destroyer = ScriptedProcess::start("region-destroy", &[&scratch.url, "a"]);
    destroyer.says("destroying");
    until("the destroyer to wait", || space.stat("a").unwrap().state == State::Destroying);
    actor.kill();
    destroyer.says("destroyed");
    destroyer.succeed();
}

#[test]
fn a_region_whose_destroyer_is_killed_while_it_waits_is_active_again() {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    space.create("a", 4096).unwrap();
    let actor = mapper(&scratch, "a");
    let destroyer = ScriptedProcess::start("region-destroy", &[&scratch.url, "a"]);
    until("the destroyer to wait", || space.stat("a").unwrap().state == State::Destroying);
    destroyer.kill();
    drop(space.map("a", Access::ReadWrite).unwrap());
    actor.succeed();
    space.destroy("a", Destroy::Wait).unwrap();
}

#[test]
fn resize_grows_into_the_reserve_and_shrinks_only_unmapped_regions() {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    let wanted =
        CreateOptions { size: 100, reserve: Some(10_000), lazy: false, ..CreateOptions::default() };
    space.create_with("a", &wanted).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    let view = space.map("a", Access::ReadOnly).unwrap();
    let clone = view.clone();
    fails!(space.resize("b", 1), RegionError::NotFound { .. });
    fails!(space.resize("a", 1 << 30), RegionError::BeyondReserve { asked, .. } if *asked == 1 << 30);
    // A mapped region can grow, and its mappers see the new size after `refresh`.
    Space::open(&scratch.url).unwrap().resize("a", 10_000).unwrap();
    fails!(
        mapping.write_at(100, &[1]),
        RegionError::OutOfBounds { offset: 100, len: 1, size: 100 }
    );
    assert_eq!((mapping.refresh().unwrap(), mapping.size()), (10_000, 10_000));
    mapping.write_at(9_992, &7_u64.to_le_bytes()).unwrap();
    assert_eq!((view.size(), clone.size()), (100, 100));
    assert_eq!(view.refresh().unwrap(), 10_000);
    assert_eq!(clone.size(), 10_000, "a clone is the same mapping");
    assert_eq!(view.get::<u64>(9_992).unwrap(), 7);
    for size in [9_999, 0] {
        fails!(space.resize("a", size), RegionError::Mapped { handles: 3, .. });
    }
    assert_eq!(space.stat("a").unwrap().size, 10_000);
    drop((mapping, view, clone));
    // The mapping of a killed process blocks nothing.
    mapper(&scratch, "a").kill();
    space.resize("a", 9_000).unwrap();
    space.resize("a", 10_000).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    assert_eq!(mapping.get::<u64>(9_992).unwrap(), 0, "what was cut off came back");
    drop(mapping);
    space.resize("a", 0).unwrap();
    assert_eq!(space.map("a", Access::ReadOnly).unwrap().size(), 0);
    space.check().unwrap();
}

#[test]
fn a_read_only_mapping_can_be_read_and_locked_and_nothing_else() {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    space.create("a", 4096).unwrap();
    space.map("a", Access::ReadWrite).unwrap().write_at(0, b"bytes").unwrap();
    let mapping = space.map("a", Access::ReadOnly).unwrap();
    let mut bytes = [0; 5];
    mapping.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"bytes");
    fails!(mapping.write_at(0, b"other"), RegionError::ReadOnly);
    fails!(mapping.write_at(9999, b""), RegionError::ReadOnly);
    fails!(mapping.set(0, &1_u64), RegionError::ReadOnly);
    fails!(mapping.mutex(0), RegionError::ReadOnly);
    fails!(mapping.event(0), RegionError::ReadOnly);
    drop(mapping.lock().unwrap());
    drop(mapping.read_lock().unwrap());
    assert_eq!(mapping.get::<[u8; 5]>(0).unwrap(), *b"bytes");
}

/// Says `reading`, reads through the pointer, and then writes through it.
fn write_through_a_read_only_pointer(args: &[&str]) {
    let space = Space::open(args[0]).unwrap();
    let mapping = space.map("a", Access::ReadOnly).unwrap();
    let byte = mapping.as_ptr();
    // SAFETY: `read_volatile` wants a mapped address: the mapping is alive and has a byte.
    say(format!("read {}", unsafe { byte.as_ptr().read_volatile() }));
    // SAFETY: none: the page cannot be written, and that the kernel says so is what is tested.
    unsafe { byte.as_ptr().write_volatile(1) };
    say("written");
}

#[test]
fn writing_through_the_pointer_of_a_read_only_mapping_ends_the_process_and_changes_nothing() {
    use std::os::unix::process::ExitStatusExt;
    let scratch = Scratch::formatted();
    let space = scratch.open();
    space.create("a", 100).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    mapping.set(0, &42_u8).unwrap();
    let actor = ScriptedProcess::start("region-write", &[&scratch.url]);
    actor.says("read 42");
    assert_eq!(actor.end().signal(), Some(libc::SIGSEGV));
    assert_eq!(mapping.get::<u8>(0).unwrap(), 42);
    drop(mapping);
    space.destroy("a", Destroy::Within(DEADLINE)).unwrap();
}

#[test]
fn the_pointer_of_a_mapping_leads_to_its_bytes() {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    space.create("a", 100).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    let byte = mapping.as_ptr();
    // SAFETY: `write_volatile` wants a mapped, writable address: the mapping is alive and has a byte.
    unsafe { byte.as_ptr().write_volatile(9) };
    assert_eq!(mapping.get::<u8>(0).unwrap(), 9);
}

#[test]
fn a_region_of_no_bytes_is_a_named_lock() {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    space.create("lock", 0).unwrap();
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let mapping = space.map("lock", access).unwrap();
        assert_eq!(mapping.size(), 0);
        drop(mapping.lock().unwrap());
        drop(mapping.read_lock().unwrap());
        mapping.read_at(0, &mut []).unwrap();
        fails!(mapping.get::<u8>(0), RegionError::OutOfBounds { offset: 0, len: 1, size: 0 });
        let _ = mapping.as_ptr();
    }
    let mapping = space.map("lock", Access::ReadWrite).unwrap();
    mapping.write_at(0, &[]).unwrap();
    fails!(mapping.mutex(0), RegionError::OutOfBounds { .. });
    assert_eq!(space.info().unwrap().used, 0);
    drop(mapping);
    space.destroy("lock", Destroy::Wait).unwrap();
}

#[test]
fn bytes_outside_a_mapping_are_refused_and_nothing_is_copied() {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    space.create("a", 100).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    mapping.write_at(0, &[5; 100]).unwrap();
    for offset in [93, 100, 4096, 16 << 20, u64::MAX - 7, u64::MAX] {
        let mut bytes = [1; 8];
        fails!(
            mapping.read_at(offset, &mut bytes),
            RegionError::OutOfBounds { len: 8, size: 100, .. }
        );
        assert_eq!(bytes, [1; 8]);
        fails!(mapping.write_at(offset, &bytes), RegionError::OutOfBounds { .. });
        fails!(mapping.get::<u64>(offset), RegionError::OutOfBounds { .. });
        fails!(mapping.set(offset, &0_u64), RegionError::OutOfBounds { .. });
    }
    let mut all = [0; 100];
    mapping.read_at(0, &mut all).unwrap();
    assert_eq!(all, [5; 100]);
    for offset in [1, 4, 95] {
        fails!(mapping.mutex(offset), RegionError::Misaligned { .. });
        fails!(mapping.event(offset), RegionError::Misaligned { .. });
    }
    for offset in [96, 104, u64::MAX - 7] {
        fails!(mapping.mutex(offset), RegionError::OutOfBounds { .. });
        fails!(mapping.event(offset), RegionError::OutOfBounds { .. });
    }
    mapping.read_at(100, &mut []).unwrap();
}

#[test]
fn a_name_has_1_to_127_bytes_and_neither_slashes_nor_control_characters() {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    let long = "n".repeat(128);
    let umlauts = "ü".repeat(64);
    for (bad, why) in [
        ("", NameError::Empty),
        (long.as_str(), NameError::TooLong { bytes: 128 }),
        (umlauts.as_str(), NameError::TooLong { bytes: 128 }),
        ("a/b", NameError::Forbidden('/')),
        ("a\nb", NameError::Forbidden('\n')),
        ("a\0", NameError::Forbidden('\0')),
        ("\u{85}", NameError::Forbidden('\u{85}')),
    ] {
        let results = [
            space.create(bad, 1).map(drop),
            space.map(bad, Access::ReadWrite).map(drop),
            space.region(bad).map(drop),
            space.stat(bad).map(drop),
            space.destroy(bad, Destroy::Wait).map(drop),
            space.resize(bad, 1),
        ];
        for result in results {
            fails!(result, RegionError::Name { name, why: found } if name == bad && *found == why);
        }
    }
    for good in [&long[1..], "ein Name mit Leerzeichen", "名前", ".", "-", "a:b*?"] {
        space.create(good, 8).unwrap();
        assert_eq!(space.map(good, Access::ReadWrite).unwrap().name(), good);
        assert_eq!(space.stat(good).unwrap().name, good);
    }
}

#[test]
fn a_region_handle_does_not_map_a_later_region_of_its_name() {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    let old = space.create("a", 64).unwrap();
    space.destroy("a", Destroy::Wait).unwrap();
    fails!(old.map(Access::ReadWrite), RegionError::NotFound { .. });
    let new = space.create("a", 64).unwrap();
    assert_ne!(old.key(), new.key());
    fails!(old.map(Access::ReadWrite), RegionError::NotFound { .. });
    assert_eq!(new.map(Access::ReadWrite).unwrap().key(), new.key());
    assert_eq!(space.region("a").unwrap().key(), new.key());
}

#[test]
fn a_new_region_is_zero_whatever_its_bytes_were_before() {
    let scratch = Scratch::with(&Scratch::tiny());
    let space = scratch.open();
    let size = space.info().unwrap().largest_free;
    for lazy in [false, true] {
        space
            .create_with(
                "a",
                &CreateOptions { size, reserve: None, lazy, ..CreateOptions::default() },
            )
            .unwrap();
        let mapping = space.map("a", Access::ReadWrite).unwrap();
        let mut bytes = vec![1; size as usize];
        mapping.read_at(0, &mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0));
        mapping.write_at(0, &vec![0xff; size as usize]).unwrap();
        drop(mapping);
        space.destroy("a", Destroy::Wait).unwrap();
    }
}

#[test]
fn a_mapping_keeps_its_process_attached() {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    let other = Space::open(&scratch.url).unwrap();
    space.create("a", 64).unwrap();
    let mapping = other.map("a", Access::ReadWrite).unwrap();
    let clone = other.clone();
    assert_eq!(clone.peer(), other.peer());
    drop((other, clone));
    mapping.set(0, &3_u64).unwrap();
    drop(mapping.lock().unwrap());
    assert_eq!(space.peers().unwrap().len(), 2);
    assert_eq!(space.stat("a").unwrap().maps, 1);
    drop(mapping);
    assert_eq!(space.peers().unwrap().len(), 1);
    assert_eq!(space.stat("a").unwrap().maps, 0);
    // A region handle does so as well.
    let region = Space::open(&scratch.url).unwrap().region("a").unwrap();
    assert_eq!(region.map(Access::ReadOnly).unwrap().get::<u64>(0).unwrap(), 3);
    assert_eq!(space.peers().unwrap().len(), 2);
}

#[test]
fn a_duplicated_descriptor_is_no_evidence_of_life() {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    let other = Space::open(&scratch.url).unwrap();
    let descriptor = other.duplicate_fd().unwrap();
    let slot = other.peer();
    drop(other);
    assert!(space.peers().unwrap().iter().all(|peer| (peer.slot, peer.generation) != slot));
    // The slot is free for the next, though the descriptor lives.
    assert_eq!(Space::open(&scratch.url).unwrap().peer().0, slot.0);
    drop(descriptor);
}

#[test]
fn destroy_with_a_timeout_of_zero_does_not_wait() {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    space.create("a", 64).unwrap();
    let actor = mapper(&scratch, "a");
    let none = Destroy::Within(Duration::ZERO);
    fails!(space.destroy("a", none), RegionError::TimedOut { .. });
    actor.succeed();
    space.destroy("a", none).unwrap();
}
