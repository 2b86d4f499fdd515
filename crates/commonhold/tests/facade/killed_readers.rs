//! Readers in many processes are killed at random while a writer works.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use commonhold::{Access, Mapping, RwLock, SeqLock, Space};

use crate::{
    support::{Random, Role, SECONDS_WANTED, Scratch, ScriptedProcess, say, wanted},
    typed::ground,
};

pub(crate) const ROLES: &[Role] = &[("herd-read", read)];

type Pair = [u64; 2];
/// Long enough to be changed while it is copied.
type Table = [u64; 128];
/// How often it is copied, and changed, between two turns with the other lock.
const AT_ONCE: u64 = 100;

const READERS: u64 = 64;
/// For how many seconds readers are killed, unless the environment gives another number.
const SECONDS: u64 = 3;
/// A writer that waits longer than this hangs.
const HANG: Duration = Duration::from_secs(10);

/// How long a reader holds the lock, and how long the writer leaves it to readers. This only decides which of them
/// is likely to hold the lock.
const HOLD: Duration = Duration::from_micros(500);
const PAUSE: Duration = Duration::from_millis(2);

/// The layout: a word that says stop, the two locks, and for each reader a word that says whether it holds the
/// lock.
const STOP: u64 = 0;
const LOCK: u64 = 64;
const SNAPSHOT: u64 = 192;
const HAS_IT: u64 = 2048;

/// Reads under both locks until it is told to stop. It ends at the first violation.
fn read(args: &[&str]) {
    let space = Space::open(args[0]).unwrap();
    let mark = HAS_IT + 8 * args[1].parse::<u64>().unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    let onlooker = space.map("a", Access::ReadOnly).unwrap();
    let lock = mapping.open::<RwLock<Pair>>(LOCK).unwrap();
    let snapshot = onlooker.open::<SeqLock<Table>>(SNAPSHOT).unwrap();
    say("reads");
    let mut last = 0;
    while mapping.get::<u64>(STOP).unwrap() == 0 {
        let guard = lock.read().unwrap();
        mapping.set(mark, &1_u64).unwrap();
        let seen = guard.get();
        // It holds the lock most of the time, so that many readers die with it.
        thread::sleep(HOLD);
        let again = guard.get();
        assert_eq!([seen[0]; 4], [seen[0], seen[1], again[0], again[1]], "torn under a read lock");
        mapping.set(mark, &0_u64).unwrap();
        guard.unlock().unwrap();
        for _ in 0..AT_ONCE {
            let seen = snapshot.read().unwrap();
            assert!(seen.iter().all(|number| *number == seen[0]), "a torn snapshot: {seen:?}");
            assert!(seen[0] >= last, "time ran backwards");
            last = seen[0];
        }
    }
    assert!(last > 0);
}

/// Changes the data of both locks, one half after the other. Says how often it did, and how long its longest wait
/// was.
fn write(mapping: &Mapping, stop: &AtomicBool) -> (u64, Duration) {
    let lock = mapping.open::<RwLock<Pair>>(LOCK).unwrap();
    let snapshot = mapping.open::<SeqLock<Table>>(SNAPSHOT).unwrap();
    let (mut writes, mut longest) = (0, Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let guard = lock.write_for(HANG).unwrap();
        longest = longest.max(begun.elapsed());
        writes += 1;
        guard.with_mut(|pair| pair[0] += 1);
        guard.with_mut(|pair| pair[1] += 1);
        guard.unlock().unwrap();
        for _ in 0..AT_ONCE {
            let table = snapshot.write_for(HANG).unwrap();
            table.with_mut(|table| table.iter_mut().for_each(|number| *number += 1));
        }
        thread::sleep(PAUSE);
    }
    (writes, longest)
}

/// Also when the test panics, because the scope then waits for its threads.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn reader(url: &str, number: u64) -> ScriptedProcess {
    ScriptedProcess::start("herd-read", &[url, &number.to_string()])
}

/// To run it longer: `COMMONHOLD_TEST_SECONDS=60 cargo test -p commonhold --test facade killed_readers --
/// --nocapture`.
#[test]
fn readers_in_64_processes_are_killed_at_random_and_a_writer_does_not_notice() {
    let (scratch, _space, mapping) = ground();
    mapping.open::<SeqLock<Table>>(SNAPSHOT).unwrap();
    let seconds = wanted(SECONDS_WANTED, SECONDS);
    let mut readers: Vec<_> = (0..READERS).map(|number| reader(&scratch.url, number)).collect();
    for reader in &readers {
        reader.says("reads");
    }
    let beside = |other: &mut dyn FnMut()| {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let writer = scope.spawn(|| write(&mapping, &stop));
            let stops = StopOnDrop(&stop);
            other();
            drop(stops);
            writer.join().unwrap()
        })
    };
    let (_, undisturbed) = beside(&mut || thread::sleep(Duration::from_secs(1)));
    let (mut kills, mut with_lock) = (0, 0);
    let (writes, longest) = beside(&mut || {
        let time = Duration::from_secs(seconds);
        (kills, with_lock) = kill(&scratch, &mapping, &mut readers, time);
    });
    mapping.set(STOP, &1_u64).unwrap();
    for reader in readers {
        reader.succeed();
    }
    eprintln!(
        "{READERS} readers, {kills} killed in {seconds} s, {with_lock} of them with the lock: {writes} writes, \
         longest wait {longest:?}; before, without kills, {undisturbed:?}"
    );
    assert!(with_lock > 0 && writes > 0);
}

/// Kills one reader after the other, and starts another in its place at once. Returns how many it killed, and how
/// many of them held the lock.
fn kill(
    scratch: &Scratch,
    mapping: &Mapping,
    readers: &mut [ScriptedProcess],
    time: Duration,
) -> (u64, u64) {
    let mut random = Random(7);
    let (mut kills, mut with_lock) = (0, 0);
    let begun = Instant::now();
    // On a slow machine too, it goes on until a reader was killed that held the lock.
    while begun.elapsed() < time || (with_lock == 0 && begun.elapsed() < 10 * HANG) {
        let number = random.below(READERS);
        let index = usize::try_from(number).unwrap();
        let next = reader(&scratch.url, number);
        let mark = HAS_IT + 8 * number;
        let mut last = std::mem::replace(&mut readers[index], next);
        assert!(last.is_running(), "a reader had something to complain about");
        last.kill();
        with_lock += mapping.get::<u64>(mark).unwrap();
        mapping.set(mark, &0_u64).unwrap();
        // It reads before it may be killed.
        readers[index].says("reads");
        kills += 1;
    }
    (kills, with_lock)
}
