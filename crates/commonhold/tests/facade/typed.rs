//! Records: locks that have their data with them, and are refused as anything else.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use commonhold::{
    Access, Destroy, ErrorKind, Event, LockError, Mapping, Mutex, Record, RecordKind, RecordTag,
    RegionError, RwLock, Space, State, field, records,
    zerocopy::{FromBytes, Immutable, IntoBytes},
};

use crate::support::{
    Actor, DEADLINE, Role, SHORT, Scratch, fails, fence_me, owner_died, say, stay, until_waiters,
};

pub(crate) const ROLES: &[Role] = &[("typed-half", change_half), ("typed-count", count)];

/// Two numbers that are always the same, unless somebody dies between them; and what makes the fields
/// after them lie askew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C, packed)]
struct Odd {
    first: u64,
    second: u64,
    byte: u8,
    askew: [u8; 6],
}

type Pair = [u64; 2];

/// A space with a region `a`, and a mapping of it.
pub(crate) fn ground() -> (Scratch, Space, Mapping) {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    space.create("a", 4096).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    (scratch, space, mapping)
}

/// Takes the mutex, changes one number of the pair, and stays.
fn change_half(args: &[&str]) {
    let space = Space::open(args[0]).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    let pair = mapping.open::<Mutex<Pair>>(64).unwrap();
    let guard = match pair.lock() {
        Ok(guard) => guard,
        Err(LockError::OwnerDied(guard)) => guard,
        Err(error) => panic!("{error}"),
    };
    guard.update(|pair| pair[0] += 1).unwrap();
    say(if guard.is_inconsistent() { "owner died" } else { "clean" });
    stay();
}

#[test]
fn a_killed_owner_leaves_what_it_wrote_and_the_next_is_handed_the_guard_to_repair_it() {
    let (scratch, space, mapping) = ground();
    let pair = mapping.open::<Mutex<Pair>>(64).unwrap();
    pair.lock().unwrap().set(&[7, 7]).unwrap();
    let actor = Actor::start("typed-half", &[&scratch.url]);
    actor.says("clean");
    fails!(pair.try_lock(), LockError::TimedOut);
    let start = Instant::now();
    fails!(pair.lock_for(SHORT), LockError::TimedOut);
    assert!(start.elapsed() >= SHORT);
    actor.kill();
    let guard = owner_died(pair.lock());
    assert_eq!(guard.get().unwrap(), [8, 7]);
    assert!(guard.is_inconsistent());
    guard.leave().unwrap();
    // The next hears the same, and is killed as well, while somebody waits.
    let actor = Actor::start("typed-half", &[&scratch.url]);
    actor.says("owner died");
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| owner_died(pair.lock_for(DEADLINE)).get().unwrap());
        until_waiters(&space, "a", 1);
        actor.kill();
        assert_eq!(waiter.join().unwrap(), [9, 7]);
    });
    // That one dropped its guard without repair.
    fails!(pair.lock(), LockError::Unrecoverable);
    fails!(pair.try_lock(), LockError::Unrecoverable);
    pair.reset().unwrap();
    let guard = pair.lock().unwrap();
    assert_eq!(guard.get().unwrap(), [9, 7], "a reset changes no data");
    fails!(pair.reset(), RegionError::TimedOut { .. });
    guard.leave().unwrap();
    let guard = owner_died(pair.lock());
    guard.update(|pair| pair[1] = pair[0]).unwrap();
    guard.mark_consistent().unwrap();
    guard.unlock().unwrap();
    assert_eq!(pair.lock().unwrap().get().unwrap(), [9, 9]);
}

const ROUNDS: u64 = 5000;

fn count(args: &[&str]) {
    let space = Space::open(args[0]).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    say("ready");
    stay();
    let pair = mapping.open::<Mutex<Pair>>(0).unwrap();
    for _ in 0..ROUNDS {
        let guard = pair.lock().unwrap();
        let both = guard.update(|pair| {
            pair.iter_mut().for_each(|number| *number += 1);
            *pair
        });
        let both = both.unwrap();
        assert_eq!(both[0], both[1], "a torn pair");
    }
}

#[test]
fn processes_count_together_and_the_first_of_them_makes_the_record() {
    let (scratch, _space, mapping) = ground();
    let actors = [(); 3].map(|()| Actor::start("typed-count", &[&scratch.url]));
    for actor in &actors {
        actor.says("ready");
    }
    let ends = actors.map(|actor| std::thread::spawn(|| actor.succeed()));
    for end in ends {
        end.join().unwrap();
    }
    let sum = mapping.open::<Mutex<Pair>>(0).unwrap().lock().unwrap().get().unwrap();
    assert_eq!(sum, [3 * ROUNDS; 2]);
    // The data lie where the constants say.
    assert_eq!(mapping.get::<Pair>(Mutex::<Pair>::DATA).unwrap(), sum);
}

#[test]
fn a_record_opened_as_another_kind_or_size_is_an_error_that_names_both() {
    let (_scratch, _space, mapping) = ground();
    let mutex = mapping.open::<Mutex<u64>>(0).unwrap();
    mutex.lock().unwrap().set(&5).unwrap();
    let tag = |kind, size| RecordTag { kind, size };
    // The tag of a reader/writer lock lies two words further on than that of a mutex.
    let error = mapping.open::<RwLock<[u64; 8]>>(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    fails!(&Err::<(), _>(error), RegionError::OtherRecord { offset: 0, wanted, found }
        if (*wanted, *found) == (tag(RecordKind::RwLock, 64), tag(RecordKind::Mutex, 8)));
    let table = mapping.open::<RwLock<[u64; 8]>>(512).unwrap();
    // Nobody has used it yet: there are zeros where a mutex has its word and its tag.
    fails!(mapping.open::<Mutex<[u64; 8]>>(512), RegionError::OtherRecord { offset: 512, wanted, found }
        if (*wanted, *found) == (tag(RecordKind::Mutex, 64), tag(RecordKind::RwLock, 64)));
    drop(table.write().unwrap());
    let small = mapping.open::<Mutex<u32>>(0).unwrap_err();
    fails!(&Err::<(), _>(&small), RegionError::OtherRecord { offset: 0, wanted, found }
        if *wanted == tag(RecordKind::Mutex, 4) && *found == tag(RecordKind::Mutex, 8));
    assert_eq!(
        small.to_string(),
        "at offset 0 lies a mutex with 8 bytes of data, not a mutex with 4 bytes of data"
    );
    // An event has its tag where a mutex has it.
    fails!(mapping.open::<Event>(0), RegionError::OtherRecord { wanted, .. }
        if *wanted == tag(RecordKind::Event, 0));
    fails!(mapping.open::<RwLock<[u64; 7]>>(512), RegionError::OtherRecord { found, .. }
        if *found == tag(RecordKind::RwLock, 64));
    // Nothing was harmed by the attempts.
    assert_eq!(mapping.open::<Mutex<u64>>(0).unwrap().lock().unwrap().get().unwrap(), 5);
    drop(mapping.open::<RwLock<[u64; 8]>>(512).unwrap().write().unwrap());
}

#[test]
fn other_bytes_are_no_record_and_stay_as_they_are() {
    let (_scratch, _space, mapping) = ground();
    // A lock word that is taken, and no tag: a bare mutex.
    let bare = mapping.mutex(0).unwrap();
    let guard = bare.lock().unwrap();
    fails!(mapping.open::<Mutex<u64>>(0), RegionError::NotARecord { offset: 0, found: 0 });
    drop(guard);
    // Zeros where the words are, and something else where the tag is.
    for tag in [1, u64::MAX, 0x4741_5463_0000_0008, 0x4741_5400_0000_0008] {
        mapping.set(104, &tag).unwrap();
        let error = mapping.open::<Mutex<u64>>(96).unwrap_err();
        fails!(&Err::<(), _>(&error), RegionError::NotARecord { offset: 96, found }
            if *found == tag);
        assert!(error.to_string().contains(&format!("{tag:#x}")), "{error}");
        assert_eq!(mapping.get::<[u64; 3]>(96).unwrap(), [0, tag, 0]);
    }
}

#[test]
fn a_record_askew_or_outside_or_not_to_be_written_is_an_error() {
    let (_scratch, space, mapping) = ground();
    let size = mapping.size();
    for offset in [1, 4, 12, 4095, u64::MAX] {
        fails!(mapping.open::<Mutex<u64>>(offset), RegionError::Misaligned { offset: at }
            if *at == offset);
    }
    let last = size - Mutex::<u64>::SIZE;
    drop(mapping.open::<Mutex<u64>>(last).unwrap().lock().unwrap());
    for offset in [last + 8, size, size + 8, u64::MAX - 7, 1 << 48] {
        fails!(mapping.open::<Mutex<u64>>(offset), RegionError::OutOfBounds { offset: at, len: 24, size: of }
            if (*at, *of) == (offset, size));
        fails!(mapping.open::<RwLock<[u64; 600]>>(offset), RegionError::OutOfBounds { .. });
    }
    let read_only = space.map("a", Access::ReadOnly).unwrap();
    fails!(read_only.open::<Mutex<u64>>(0), RegionError::ReadOnly);
    fails!(read_only.open::<RwLock<u64>>(0), RegionError::ReadOnly);
    assert_eq!(mapping.get::<[u64; 8]>(0).unwrap(), [0; 8], "a refused record was tagged");
}

/// Opens one record after the other together with somebody else, and says which ones it got.
fn open_in_step<'a, R: Record<'a>>(mapping: &'a Mapping, step: &AtomicU64) -> Vec<bool> {
    let open_one = |number| {
        step.fetch_add(1, Ordering::SeqCst);
        // Neither opens before both have come: then they meet within a few instructions.
        while step.load(Ordering::SeqCst) < 2 * (number + 1) {
            std::hint::spin_loop();
        }
        mapping.open::<R>(number * RwLock::<u64>::SIZE).is_ok()
    };
    (0..RACES).map(open_one).collect()
}

const RACES: u64 = 20_000;

#[test]
fn of_two_who_make_records_of_different_kinds_at_one_place_one_is_refused() {
    let (_scratch, space, _mapping) = ground();
    space.create("b", RACES * RwLock::<u64>::SIZE).unwrap();
    let mapping = space.map("b", Access::ReadWrite).unwrap();
    let step = AtomicU64::new(0);
    let (mutexes, tables) = std::thread::scope(|scope| {
        let one = scope.spawn(|| open_in_step::<Mutex<u64>>(&mapping, &step));
        let other = scope.spawn(|| open_in_step::<RwLock<u64>>(&mapping, &step));
        (one.join().unwrap(), other.join().unwrap())
    });
    for (number, (mutex, table)) in mutexes.into_iter().zip(tables).enumerate() {
        assert!(mutex != table, "record {number}: both, or neither: {mutex}");
    }
}

#[test]
fn a_panic_under_a_guard_leaves_the_lock_inconsistent_and_writes_no_half_of_an_update() {
    let (_scratch, _space, mapping) = ground();
    let mutex = mapping.open::<Mutex<Pair>>(0).unwrap();
    let table = mapping.open::<RwLock<Pair>>(64).unwrap();
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let _other = table.write().unwrap();
        let guard = mutex.lock().unwrap();
        guard.update(|pair| {
            pair[0] = 1;
            std::panic::resume_unwind(Box::new(()));
        })
    }));
    assert!(unwound.is_err());
    let guard = owner_died(mutex.lock());
    assert_eq!(guard.get().unwrap(), [0, 0]);
    guard.mark_consistent().unwrap();
    drop(guard);
    drop(mutex.lock().unwrap());
    owner_died(table.read()).unlock().unwrap();
    owner_died(table.write()).mark_consistent().unwrap();
    drop(table.read().unwrap());
}

#[test]
fn a_typed_mutex_taken_twice_by_one_thread_is_a_deadlock() {
    let (_scratch, _space, mapping) = ground();
    let mutex = mapping.open::<Mutex<()>>(0).unwrap();
    let again = mapping.open::<Mutex<()>>(0).unwrap();
    let guard = mutex.lock().unwrap();
    fails!(again.lock(), LockError::Deadlock);
    fails!(again.try_lock(), LockError::Deadlock);
    fails!(again.lock_for(DEADLINE), LockError::Deadlock);
    guard.unlock().unwrap();
    drop(again.lock().unwrap());
}

#[test]
fn fields_are_read_and_written_alone_wherever_they_lie() {
    let (_scratch, _space, mapping) = ground();
    let odd = mapping.open::<Mutex<Odd>>(0).unwrap();
    // 23 bytes, and a neighbour right behind the word that they end in.
    assert_eq!(Mutex::<Odd>::SIZE, 8 + 8 + 24);
    mapping.set(Mutex::<Odd>::SIZE, &u64::MAX).unwrap();
    let guard = odd.lock().unwrap();
    let value = Odd { first: 1, second: u64::MAX - 1, byte: 3, askew: [4, 5, 6, 7, 8, 9] };
    guard.set(&value).unwrap();
    assert_eq!(guard.get().unwrap(), value);
    assert_eq!(guard.get_field(field!(Odd, byte)).unwrap(), 3);
    assert_eq!(guard.get_field(field!(Odd, askew)).unwrap(), [4, 5, 6, 7, 8, 9]);
    guard.set_field(field!(Odd, askew), &[14, 15, 16, 17, 18, 19]).unwrap();
    guard.set_field(field!(Odd, byte), &13).unwrap();
    assert_eq!(guard.get().unwrap(), Odd { byte: 13, askew: [14, 15, 16, 17, 18, 19], ..value });
    assert_eq!(mapping.get::<u64>(Mutex::<Odd>::SIZE).unwrap(), u64::MAX);
}

records! {
    /// A row with a lock for each column.
    struct Account<'a> {
        balance: Mutex<'a, i64>,
        log: RwLock<'a, [u64; 8]>,
        moved: Event<'a>,
    }
}

records! {
    struct Two<'a> { left: Account<'a>, right: Account<'a> }
}

#[test]
fn a_struct_of_records_has_its_locks_one_behind_the_other() {
    let (_scratch, _space, mapping) = ground();
    let log = 100 * 8 + Mutex::<i64>::SIZE;
    let event = log + RwLock::<[u64; 8]>::SIZE;
    assert_eq!(Account::SIZE, Mutex::<i64>::SIZE + RwLock::<[u64; 8]>::SIZE + Event::SIZE);
    assert_eq!((Account::SIZE, Two::SIZE), (24 + 96 + 16, 2 * Account::SIZE));
    let account: Account = mapping.open(800).unwrap();
    account.balance.lock().unwrap().set(&-3).unwrap();
    account.log.write().unwrap().update(|log| log[7] = 9).unwrap();
    account.moved.signal().unwrap();
    assert_eq!(mapping.open::<Mutex<i64>>(800).unwrap().lock().unwrap().get().unwrap(), -3);
    let by_hand = mapping.open::<RwLock<[u64; 8]>>(log).unwrap();
    assert_eq!(by_hand.read().unwrap().get().unwrap(), [0, 0, 0, 0, 0, 0, 0, 9]);
    assert_eq!(mapping.open::<Event>(event).unwrap().sequence(), 1);
    let two = mapping.open::<Two>(800).unwrap();
    assert_eq!(two.left.balance.lock().unwrap().get().unwrap(), -3);
    assert_eq!(two.right.balance.lock().unwrap().get().unwrap(), 0);
    // What does not fit is not begun.
    let last = mapping.size() - Account::SIZE;
    fails!(mapping.open::<Account>(last + 8), RegionError::OutOfBounds { .. });
    fails!(mapping.open::<Account>(u64::MAX - 7), RegionError::OutOfBounds { .. });
    fails!(mapping.open::<Account>(last - 1), RegionError::Misaligned { .. });
    assert_eq!(mapping.get::<[u64; 17]>(last).unwrap(), [0; 17]);
    mapping.open::<Account>(last).unwrap();
}

#[test]
fn a_region_that_is_to_go_stays_with_its_locks_until_it_is_unmapped_and_the_next_begins_anew() {
    let (scratch, space, mapping) = ground();
    let mutex = mapping.open::<Mutex<u64>>(0).unwrap();
    let table = mapping.open::<RwLock<u64>>(64).unwrap();
    mutex.lock().unwrap().set(&1).unwrap();
    // Forgotten for ever, by a thread that lives on.
    std::mem::forget(table.read().unwrap());
    let other = scratch.open();
    other.destroy("a", Destroy::Deferred).unwrap();
    assert_eq!(other.stat("a").unwrap().state, State::Destroying);
    let guard = mutex.lock().unwrap();
    guard.update(|number| *number += 1).unwrap();
    assert_eq!(guard.get().unwrap(), 2);
    drop(guard);
    drop(mapping.open::<Mutex<u8>>(128).unwrap().lock().unwrap());
    let place = mapping.offset();
    drop(mapping);
    fails!(space.map("a", Access::ReadWrite), RegionError::NotFound { .. });
    // Two regions have had the place by then, and of one of them a reader is left.
    space.create("b", 4096).unwrap();
    let next = space.map("b", Access::ReadWrite).unwrap();
    assert_eq!(next.offset(), place);
    assert_eq!(next.open::<Mutex<u64>>(0).unwrap().lock().unwrap().get().unwrap(), 0);
    let table = next.open::<RwLock<u64>>(64).unwrap();
    drop(table.try_write().unwrap());
    drop(table.read().unwrap());
    drop(table.try_write().unwrap());
    // What was a mutex there may be something else here.
    drop(next.open::<RwLock<[u64; 4]>>(128).unwrap().write().unwrap());
}

#[test]
fn whoever_was_declared_dead_gets_an_error_from_every_guard_and_lock_and_writes_nothing() {
    let (scratch, space, mapping) = ground();
    let mutex = mapping.open::<Mutex<u64>>(0).unwrap();
    let table = mapping.open::<RwLock<u64>>(64).unwrap();
    let another = mapping.open::<RwLock<u64>>(128).unwrap();
    let guard = mutex.lock().unwrap();
    let writer = table.write().unwrap();
    let reader = another.read().unwrap();
    let free_mutex = mapping.open::<Mutex<u64>>(256).unwrap();
    let free_table = mapping.open::<RwLock<u64>>(512).unwrap();
    guard.set(&1).unwrap();
    let other = scratch.open();
    let theirs = other.map("a", Access::ReadWrite).unwrap();
    fence_me(&scratch, &space);
    fails!(guard.set(&2), RegionError::Fenced);
    fails!(guard.update(|number| *number = 2), RegionError::Fenced);
    fails!(writer.set(&2), RegionError::Fenced);
    fails!(free_mutex.lock(), LockError::Region(RegionError::Fenced));
    fails!(free_table.write(), LockError::Region(RegionError::Fenced));
    fails!(free_table.read(), LockError::Region(RegionError::Fenced));
    fails!(mapping.open::<Mutex<u64>>(1024), RegionError::Fenced);
    // The locks are others' to take, and what they then do is not undone.
    let taken = owner_died(theirs.open::<Mutex<u64>>(0).unwrap().try_lock());
    assert_eq!(taken.get().unwrap(), 1);
    taken.set(&3).unwrap();
    taken.mark_consistent().unwrap();
    drop(owner_died(theirs.open::<RwLock<u64>>(64).unwrap().try_read()));
    drop(theirs.open::<RwLock<u64>>(128).unwrap().try_write().unwrap());
    fails!(guard.mark_consistent(), RegionError::Fenced);
    fails!(guard.unlock(), RegionError::Fenced);
    fails!(writer.unlock(), RegionError::Fenced);
    fails!(reader.unlock(), RegionError::Fenced);
    assert_eq!(taken.get().unwrap(), 3);
    taken.unlock().unwrap();
}
