//! Spaces with damaged bytes: an error now and then, but never a crash and never a hang.

use std::{fs, time::Duration};

use commonhold::{Access, CreateOptions, Destroy, Mutex, RwLock, Space};
use commonhold_layout::header_word;

use crate::support::{Folder, Random, Role, Scratch, ScriptedProcess, say};

pub(crate) const ROLES: &[Role] = &[("damage", rounds)];

/// Longer than all waits of one round together.
const HANG: Duration = Duration::from_secs(10);
const BRIEFLY: Duration = Duration::from_millis(20);
/// Seeds 0 to this; more of them if `COMMONHOLD_DAMAGE_ROUNDS` says so.
const ROUNDS: u64 = 400;

/// A closed space in use: regions, links between them, a lock whose owner was killed.
fn pristine(folder: &Folder) -> Vec<u8> {
    let url = folder.url("pristine");
    Space::format(&url, &Scratch::tiny()).unwrap();
    let space = Space::open(&url).unwrap();
    for (name, size) in [("a", 64), ("b", 9000), ("c", 0), ("d", 4096), ("e", 4096)] {
        space.create(name, size).unwrap();
    }
    space.destroy("d", Destroy::Wait).unwrap();
    drop(space);
    let actor = ScriptedProcess::start("lock-hold", &[&url, "a", "write"]);
    actor.says("clean");
    actor.kill();
    fs::read(folder.0.join("pristine")).unwrap()
}

/// A value that a damaged word may have, by accident or by malice.
fn value(random: &mut Random, old: u64) -> u64 {
    match random.below(7) {
        0 => 0,
        1 => u64::MAX,
        2 => random.below(20),
        3 => old ^ (1 << random.below(64)),
        4 => old.wrapping_add(random.below(5)).wrapping_sub(2),
        5 => random.below(1 << 20) & !0xfff,
        _ => random.next(),
    }
}

/// Damages up to eight words below `end`.
fn damage(bytes: &mut [u8], random: &mut Random, end: usize) {
    for _ in 0..=random.below(8) {
        // Mostly words that are in use, because most of a table is empty.
        let mut at = 0;
        for _ in 0..20 {
            at = 8 * random.below(end as u64 / 8) as usize;
            if bytes[at..at + 8] != [0; 8] {
                break;
            }
        }
        let old = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let new = value(random, old);
        bytes[at..at + 8].copy_from_slice(&new.to_le_bytes());
    }
}

/// Corrects the checksum of the damaged header.
fn mend_checksum(bytes: &mut [u8]) {
    let end = 8 * header_word::CHECKSUM;
    let sum = bytes[8..end].iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    bytes[end..end + 8].copy_from_slice(&sum.to_le_bytes());
}

/// Calls every operation on a space, and ignores the results.
fn use_all(url: &str) -> Option<()> {
    let space = Space::open(url).ok()?;
    let _ = space.info();
    let _ = (space.regions(), space.peers(), space.locks(), space.wait_graph());
    let _ = space.create("new", 5000);
    let wanted =
        CreateOptions { size: 10, reserve: Some(8192), lazy: true, ..CreateOptions::default() };
    let _ = space.create_with("lazy", &wanted);
    let _ = space.resize("lazy", 8000);
    for name in ["a", "b", "c", "new", "lazy"] {
        let _ = space.stat(name);
        for access in [Access::ReadOnly, Access::ReadWrite] {
            let Ok(mapping) = space.map(name, access) else { continue };
            let _ = mapping.refresh();
            let _ = mapping.set(0, &7_u64);
            let _ = mapping.get::<u64>(mapping.size().saturating_sub(8));
            if let Ok(guard) = mapping.lock_for(BRIEFLY) {
                let _ = guard.unlock();
            }
            let _ = mapping.read_lock_for(BRIEFLY).map(drop);
            if let Ok(mutex) = mapping.open::<Mutex<u64>>(0) {
                let _ = mutex.lock_for(BRIEFLY).map(|guard| guard.with_mut(|number| *number ^= 1));
            }
            if let Ok(table) = mapping.open::<RwLock<u64>>(24) {
                let _ = table.read_for(BRIEFLY).map(|guard| guard.get());
                let _ = table.write_for(BRIEFLY).map(|guard| guard.set(1));
            }
            let _ = mapping.reset_lock();
            let _ = mapping.unmap();
        }
    }
    for name in ["a", "e", "new", "lazy"] {
        let _ = space.destroy(name, Destroy::Within(BRIEFLY));
    }
    let _ = space.destroy("b", Destroy::Deferred);
    let _ = (space.reap(), space.check());
    Some(())
}

/// Runs rounds, beginning with the number in the second argument. It announces each, so that the test knows which
/// one ended this process.
fn rounds(args: &[&str]) {
    let folder = args[0];
    let bytes = fs::read(format!("{folder}/pristine")).unwrap();
    let tables: usize = args[1].parse().unwrap();
    let (begin, end): (u64, u64) = (args[2].parse().unwrap(), args[3].parse().unwrap());
    let path = format!("{folder}/damaged-{begin}");
    let mut opened = 0;
    for round in begin..end {
        say(round);
        let mut bytes = bytes.clone();
        let mut random = Random(round);
        let header_only = round % 4 == 0;
        damage(&mut bytes, &mut random, if header_only { 4096 } else { tables });
        if round % 8 != 0 {
            mend_checksum(&mut bytes);
        }
        fs::write(&path, bytes).unwrap();
        opened += u64::from(use_all(&format!("file:{path}")).is_some());
    }
    say(format!("opened {opened}"));
}

#[test]
fn damage_anywhere_in_the_tables_costs_an_error_and_neither_a_crash_nor_a_hang() {
    let folder = Folder::new();
    pristine(&folder);
    let tables = Space::open(&folder.url("pristine")).unwrap().info().unwrap().tables;
    // The space is closed and not reaped, so that the next peers to attach find the damage.
    Space::remove(&folder.url("pristine"), commonhold::Removal::Forced).unwrap();
    pristine(&folder);
    let rounds = std::env::var("COMMONHOLD_DAMAGE_ROUNDS");
    let rounds = rounds.map_or(ROUNDS, |text| text.parse().unwrap());
    let folder = folder.0.display().to_string();
    let args = [folder.as_str(), &tables.to_string(), "0", &rounds.to_string()];
    let actor = ScriptedProcess::start("damage", &args);
    let mut last = String::from("none");
    let opened: u64 = loop {
        match actor.hear_within(HANG) {
            Some(line) => match line.strip_prefix("opened ") {
                Some(count) => break count.parse().unwrap(),
                None => last = line,
            },
            None => panic!("round {last} hung, or ended the process"),
        }
    };
    assert!(opened > rounds / 3, "{opened} of {rounds} spaces could be opened: too few to tell");
    actor.succeed();
}
