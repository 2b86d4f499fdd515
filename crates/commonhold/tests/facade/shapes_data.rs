//! Data of any size under a lock, used in parts; and handles that repair inconsistent data.

use std::{
    io::{self, Read, Seek, SeekFrom, Write},
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use commonhold::{
    BoxError, Condvar, FormatOptions, LockError, LockResult, Mutex, Record, RegionError, RwLock,
    SeqLock, Space, Waited, field, plain, records,
};

use crate::{
    shapes::Pair,
    support::{
        DEADLINE, Role, SHORT, Scratch, ScriptedProcess, at_once, fails, owner_died, say,
        until_event_waiters,
    },
};

pub(crate) const ROLES: &[Role] = &[("shapes-large", use_large)];

const LARGE: usize = 4 << 20;
/// The stack of the thread that uses data sixteen times as large.
const STACK: usize = 256 << 10;

type Large = [u8; LARGE];

plain! {
    struct Film { length: u64, frames: Large }
}

/// In a process of its own, which a stack overflow would end.
#[test]
fn data_of_4_mib_are_used_on_a_stack_of_256_kib() {
    let scratch =
        Scratch::with(&FormatOptions { capacity: Some(32 << 20), ..FormatOptions::default() });
    let actor = ScriptedProcess::start("shapes-large", &[&scratch.url]);
    actor.says("done");
    actor.succeed();
}

fn use_large(args: &[&str]) {
    let url = args[0].to_owned();
    let small = thread::Builder::new().stack_size(STACK);
    small.spawn(move || large(&Space::open(&url).unwrap())).unwrap().join().unwrap();
    say("done");
}

fn boxed(byte: u8) -> Box<Large> {
    vec![byte; LARGE].into_boxed_slice().try_into().unwrap()
}

fn large(space: &Space) {
    let table = space.record::<Mutex<Large>>("mutex").unwrap();
    let guard = table.lock().unwrap();
    guard.set_from(&boxed(3));
    assert_eq!(*guard.get_boxed(), *boxed(3));
    let taken = guard.with_mut(|bytes| std::mem::replace(&mut bytes[LARGE - 1], 5));
    assert_eq!((taken, guard.with(|bytes| bytes[LARGE - 1])), (3, 5));
    assert_eq!(guard.at(LARGE - 1).unwrap().get(), 5);
    let part = guard.slice(LARGE / 2 - 1..=LARGE / 2).unwrap();
    part.copy_from(&[8, 9]).unwrap();
    assert_eq!(
        guard.slice(LARGE / 2 - 2..).unwrap().iter().take(4).collect::<Vec<_>>(),
        [3, 8, 9, 3]
    );
    guard.slice(..STACK).unwrap().fill(&1);
    let filled = guard.slice(..).unwrap().to_vec();
    assert!(filled[..STACK].iter().all(|byte| *byte == 1) && filled[STACK] == 3);
    guard.slice(..).unwrap().copy_from(&boxed(2)[..]).unwrap();
    let mut all = boxed(0);
    guard.slice(..).unwrap().copy_to(&mut all[..]).unwrap();
    assert_eq!(*all, *boxed(2));
    assert_eq!(
        io::copy(&mut guard.slice(..).unwrap().cursor(), &mut io::sink()).unwrap(),
        LARGE as u64
    );
    guard.unlock().unwrap();
    drop(table);

    let film = space.record::<RwLock<Film>>("film").unwrap();
    film.write().unwrap().field(field!(Film, frames)).set_from(&boxed(6));
    let mut guard = film.upgradable_read().unwrap();
    guard.upgrade().unwrap().with_mut(|film| film.length = film.frames[7].into());
    let reader = guard.field(field!(Film, frames)).get_boxed();
    assert_eq!((guard.with(|film| film.length), *reader == *boxed(6)), (6, true));
    drop(guard);

    let snapshot = space.record::<SeqLock<Film>>("snapshot").unwrap();
    snapshot.write().unwrap().field(field!(Film, frames)).at(9).unwrap().set(4);
    assert_eq!(snapshot.read_boxed().unwrap().frames[9], 4);
    assert_eq!(snapshot.read_field(field!(Film, length)).unwrap(), 0);
}

#[test]
fn parts_lie_at_their_offsets_and_none_lies_outside() {
    plain! {
        #[derive(PartialEq)]
        struct Inner { byte: u8, bytes: [u8; 7] }
    }
    plain! {
        #[derive(PartialEq)]
        struct Outer { number: u32, pair: [u16; 2], inner: [Inner; 3] }
    }
    let scratch = Scratch::formatted();
    let record = scratch.open().record::<Mutex<Outer>>("record").unwrap();
    let guard = record.lock().unwrap();
    let inner = guard.field(field!(Outer, inner));
    guard.field(field!(Outer, pair)).at(1).unwrap().set(0x0203);
    inner
        .at(2)
        .unwrap()
        .field(field!(Inner, bytes))
        .slice(5..)
        .unwrap()
        .copy_from(&[8, 9])
        .unwrap();
    assert_eq!(inner.at(2).unwrap().field(field!(Inner, bytes)).at(6).unwrap().replace(7), 9);
    inner.at(0).unwrap().field(field!(Inner, byte)).with_mut(|byte| *byte = 1);
    let mut expected =
        Outer { number: 0, pair: [0, 0x0203], inner: [Inner { byte: 0, bytes: [0; 7] }; 3] };
    expected.inner[0].byte = 1;
    expected.inner[2].bytes = [0, 0, 0, 0, 0, 8, 7];
    assert_eq!(guard.get(), expected);
    assert_eq!(guard.field(field!(Outer, number)).replace(4), 0);
    // A panic in the middle of a change writes nothing of it.
    let changed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        guard.field(field!(Outer, number)).with_mut(|number| {
            *number = 5;
            std::panic::resume_unwind(Box::new(()));
        });
    }));
    assert!(changed.is_err());
    assert_eq!(guard.get(), Outer { number: 4, ..expected });
    fails!(inner.at(3), RegionError::OutOfBounds { offset: 24, len: 8, size: 24 });
    fails!(inner.at(usize::MAX), RegionError::OutOfBounds { .. });
    let printed = format!("{inner:?} {:?}", inner.as_slice());
    assert!(printed.contains("Inner; 3]") && !printed.contains("byte"), "{printed}");
}

#[test]
fn slices_have_bounds_and_lengths_and_are_copied_as_wholes() {
    let scratch = Scratch::formatted();
    let record = scratch.open().record::<Mutex<[u32; 10]>>("record").unwrap();
    let guard = record.lock().unwrap();
    guard.set(std::array::from_fn(|index| index as u32));
    let all = guard.slice(..).unwrap();
    let middle = guard.slice(2..=6).unwrap();
    assert_eq!((all.len(), middle.len(), middle.to_vec()), (10, 5, vec![2, 3, 4, 5, 6]));
    let inner = middle.slice((Bound::Excluded(0), Bound::Excluded(3))).unwrap();
    assert_eq!(inner.iter().collect::<Vec<_>>(), [3, 4]);
    let chunks: Vec<Vec<u32>> = middle.chunks(2).map(|chunk| chunk.to_vec()).collect();
    assert_eq!(chunks, [vec![2, 3], vec![4, 5], vec![6]]);
    assert_eq!(middle.chunks(0).count(), 5);
    assert!(
        middle.slice(5..).unwrap().is_empty() && all.slice(10..10).unwrap().to_vec().is_empty()
    );
    // Ranges that lie outside, overflow, or have the wrong length: nothing is copied.
    fails!(middle.at(5), RegionError::OutOfBounds { offset: 20, len: 4, size: 20 });
    for outside in [(0, 11), (10, 11), (11, 11), (6, 3), (3, usize::MAX), (usize::MAX, usize::MAX)]
    {
        fails!(all.slice(outside.0..outside.1), RegionError::OutOfBounds { .. });
        fails!(guard.slice(outside.0..outside.1), RegionError::OutOfBounds { .. });
    }
    fails!(all.slice(..=usize::MAX), RegionError::OutOfBounds { .. });
    fails!(
        all.slice((Bound::Excluded(usize::MAX), Bound::Unbounded)),
        RegionError::OutOfBounds { .. }
    );
    let mut few = [70; 4];
    let mut many = [70; 6];
    fails!(middle.copy_to(&mut few), RegionError::OutOfBounds { .. });
    fails!(middle.copy_to(&mut many), RegionError::OutOfBounds { .. });
    fails!(middle.copy_from(&few), RegionError::OutOfBounds { .. });
    fails!(middle.copy_from(&many), RegionError::OutOfBounds { .. });
    assert_eq!((few, many, middle.to_vec()), ([70; 4], [70; 6], vec![2, 3, 4, 5, 6]));
    middle.copy_from(&[12, 13, 14, 15, 16]).unwrap();
    inner.fill(&9);
    let mut copied = [0; 5];
    middle.copy_to(&mut copied).unwrap();
    assert_eq!(copied, [12, 9, 9, 15, 16]);
    assert_eq!(guard.get(), [0, 1, 12, 9, 9, 15, 16, 7, 8, 9]);
}

#[test]
fn bytes_are_read_written_and_sought_like_a_file_of_fixed_length() {
    let scratch = Scratch::formatted();
    let record = scratch.open().record::<RwLock<[u8; 12]>>("record").unwrap();
    let guard = record.write().unwrap();
    let mut file = guard.slice(1..11).unwrap().cursor();
    file.write_all(b"shared").unwrap();
    assert_eq!(file.position(), 6);
    // Only what fits is written.
    assert_eq!(file.write(b"memory").unwrap(), 4);
    assert_eq!(file.write(b"y").unwrap(), 0);
    assert_eq!(file.write_all(b"y").unwrap_err().kind(), io::ErrorKind::WriteZero);
    assert_eq!(file.seek(SeekFrom::End(-4)).unwrap(), 6);
    file.write_all(b"M").unwrap();
    assert_eq!(file.seek(SeekFrom::Current(-7)).unwrap(), 0);
    for before in [SeekFrom::Current(-1), SeekFrom::End(-11), SeekFrom::Current(i64::MIN)] {
        assert_eq!(file.seek(before).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(file.position(), 0);
    }
    file.seek(SeekFrom::Start(u64::MAX)).unwrap();
    assert_eq!((file.read(&mut [0; 4]).unwrap(), file.write(b"x").unwrap()), (0, 0));
    assert!(file.seek(SeekFrom::Current(1)).is_err(), "past the last number");
    file.seek(SeekFrom::Start(4)).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "edMemo");
    drop(guard);
    let guard = record.read().unwrap();
    assert_eq!(&guard.get(), b"\0sharedMemo\0");
    let mut file = guard.slice(..).unwrap().cursor();
    assert_eq!(file.seek(SeekFrom::Current(7)).unwrap(), 7);
    let mut four = [0; 4];
    file.read_exact(&mut four).unwrap();
    assert_eq!(&four, b"Memo");
    assert_eq!(file.read_exact(&mut four).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

/// A handle with a repair, one without, and how often the first has repaired.
struct Mended<R> {
    knows: R,
    other: R,
    times: Arc<AtomicU64>,
    _scratch: Scratch,
}

impl<R: Record + Clone> Mended<R> {
    fn new(repaired_by: impl FnOnce(R, Arc<AtomicU64>) -> R) -> Self {
        let scratch = Scratch::formatted();
        let other = scratch.open().record::<R>("record").unwrap();
        let times = Arc::default();
        let knows = repaired_by(other.clone(), Arc::clone(&times));
        Self { knows, other, times, _scratch: scratch }
    }

    /// Each method that takes the lock repairs the data once, and then finds them consistent.
    fn by_each(&self, leave: impl Fn(&R), ways: &[fn(&R) -> LockResult<Pair>]) {
        for (number, way) in ways.iter().enumerate() {
            leave(&self.other);
            fails!(way(&self.other), LockError::OwnerDied(_));
            // A clone has the repair too.
            let [first, second] = way(&self.knows.clone()).unwrap();
            assert_eq!(first, second, "way {number}");
            assert_eq!(self.times.swap(0, Ordering::Relaxed), 1, "way {number}");
            way(&self.other).unwrap();
            assert_eq!(self.times.load(Ordering::Relaxed), 0, "way {number}");
        }
    }
}

/// A repair of a pair that counts its calls.
macro_rules! repair {
    ($times:ident) => {
        move |pair| {
            pair.at(1)?.set(pair.at(0)?.get());
            $times.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    };
}

records! {
    struct Letters {
        pair: Mutex<Pair>,
        changed: Condvar,
    }
}

#[test]
fn every_method_of_a_handle_with_a_repair_repairs_first() {
    let mutex = Mended::<Mutex<Pair>>::new(|mutex, times| mutex.repaired_by(repair!(times)));
    mutex.by_each(
        |mutex| {
            let guard = mutex.lock().unwrap();
            guard.at(0).unwrap().with_mut(|first| *first += 1);
            guard.leave_inconsistent().unwrap();
        },
        &[
            |mutex| Ok(mutex.lock()?.get()),
            |mutex| Ok(mutex.lock_for(DEADLINE)?.get()),
            |mutex| mutex.try_lock().map(|guard| guard.unwrap().get()),
        ],
    );
    let lock = Mended::<RwLock<Pair>>::new(|lock, times| lock.repaired_by(repair!(times)));
    lock.by_each(
        |lock| {
            let guard = lock.write().unwrap();
            guard.at(0).unwrap().with_mut(|first| *first += 1);
            guard.leave_inconsistent().unwrap();
        },
        &[
            |lock| Ok(lock.read()?.get()),
            |lock| Ok(lock.read_for(DEADLINE)?.get()),
            |lock| lock.try_read().map(|guard| guard.unwrap().get()),
            |lock| Ok(lock.write()?.get()),
            |lock| Ok(lock.write_for(DEADLINE)?.get()),
            |lock| lock.try_write().map(|guard| guard.unwrap().get()),
            |lock| Ok(lock.upgradable_read()?.get()),
            |lock| Ok(lock.upgradable_read_for(DEADLINE)?.get()),
            |lock| lock.try_upgradable_read().map(|guard| guard.unwrap().get()),
        ],
    );
    let lock = Mended::<SeqLock<Pair>>::new(|lock, times| lock.repaired_by(repair!(times)));
    lock.by_each(
        |lock| {
            let guard = lock.write().unwrap();
            guard.at(0).unwrap().with_mut(|first| *first += 1);
            guard.leave_inconsistent().unwrap();
        },
        &[
            |lock| lock.read(),
            |lock| lock.read_for(DEADLINE),
            |lock| lock.try_read().map(Option::unwrap),
            |lock| lock.read_boxed().map(|pair| *pair),
            |lock| Ok(lock.write()?.get()),
            |lock| Ok(lock.write_for(DEADLINE)?.get()),
            |lock| lock.try_write().map(|guard| guard.unwrap().get()),
        ],
    );
}

#[test]
fn a_waiter_for_a_condition_repairs_data_that_were_left_inconsistent_meanwhile() {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    let Letters { pair, changed } = space.record::<Letters>("letters").unwrap();
    let times = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&times);
    let knows = pair.clone().repaired_by(repair!(counted));
    let leave = |number| {
        until_event_waiters(&space, 1);
        let guard = pair.lock().unwrap();
        guard.at(0).unwrap().set(number);
        guard.leave_inconsistent().unwrap();
        changed.notify_all().unwrap();
    };
    thread::scope(|scope| {
        scope.spawn(|| leave(1));
        let guard = changed.wait_while(knows.lock().unwrap(), |pair| pair.get()[0] == 0).unwrap();
        assert_eq!((guard.get(), times.load(Ordering::Relaxed)), ([1; 2], 1));
    });
    thread::scope(|scope| {
        scope.spawn(|| leave(2));
        let (guard, waited) = changed.wait_for(knows.lock().unwrap(), DEADLINE).unwrap();
        assert_eq!(
            (guard.get(), times.load(Ordering::Relaxed), waited),
            ([2; 2], 2, Waited::Notified)
        );
    });
    // A handle without a repair gets an error, and does not hold the mutex any more.
    thread::scope(|scope| {
        scope.spawn(|| leave(3));
        owner_died(changed.wait(pair.lock().unwrap()));
    });
    owner_died(pair.try_lock());
    assert_eq!(at_once(knows.try_lock()).get(), [3; 2]);
    let (guard, waited) = changed.wait_for(knows.lock().unwrap(), SHORT).unwrap();
    assert_eq!((guard.get(), waited), ([3; 2], Waited::TimedOut));
}

#[test]
fn a_failed_repair_leaves_the_lock_to_a_repair_that_succeeds() {
    let fails_with = || -> Result<(), BoxError> { Err("no spare part".into()) };
    let scratch = Scratch::formatted();
    let space = scratch.open();
    let mutex = space.record::<Mutex<Pair>>("mutex").unwrap();
    let lock = space.record::<RwLock<Pair>>("rwlock").unwrap();
    let table = space.record::<SeqLock<Pair>>("seqlock").unwrap();
    mutex.lock().unwrap().leave_inconsistent().unwrap();
    lock.write().unwrap().leave_inconsistent().unwrap();
    let guard = table.write().unwrap();
    guard.set([1, 0]);
    guard.leave_inconsistent().unwrap();
    for _ in 0..2 {
        let mutex = mutex.clone().repaired_by(move |_| fails_with());
        let lock = lock.clone().repaired_by(move |_| fails_with());
        let table = table.clone().repaired_by(move |_| fails_with());
        fails!(mutex.lock(), LockError::RepairFailed(_));
        fails!(mutex.try_lock(), LockError::RepairFailed(_));
        fails!(lock.read(), LockError::RepairFailed(_));
        fails!(lock.upgradable_read(), LockError::RepairFailed(_));
        fails!(lock.read_repairing(|_| fails_with()), LockError::RepairFailed(_));
        fails!(table.read(), LockError::RepairFailed(_));
        fails!(table.try_write(), LockError::RepairFailed(_));
    }
    drop(mutex.repaired_by(|_| Ok(())).lock().unwrap());
    drop(lock.read_repairing(|_| Ok(())).unwrap());
    assert_eq!(table.repaired_by(|_| Ok(())).read().unwrap(), [1, 0]);
}
