//! Handles that programs keep, errors that they pass on, and data that are left to repair.

use std::{
    error::Error,
    mem::forget,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
    thread,
};

use commonhold::{
    Access, Barrier, BoxError, Condvar, Destroy, Event, LockError, Mapping, Mutex, OnceLock,
    RawMutex, Records, RegionError, RegionLock, RwLock, Semaphore, SeqLock, Space, Value, records,
};

use crate::support::{
    DEADLINE, Role, Scratch, ScriptedProcess, fails, fence_me, inconsistent, owner_died, say, stay,
    until_event_waiters,
};

pub(crate) const ROLES: &[Role] = &[("shapes-transfer", transfer_half)];

pub(crate) type Pair = [u64; 2];

records! {
    struct Stock {
        shelf: Mutex<Pair>,
        prices: RwLock<Pair>,
        snapshot: SeqLock<Pair>,
        opened: OnceLock<u64>,
        scanners: Semaphore<2>,
        sold: Condvar,
        meeting: Barrier<2>,
    }
}

/// A program that keeps everything it uses in a struct, without lifetimes.
struct Shop {
    stock: Stock,
    rows: Records<Mutex<u64>>,
    till: RawMutex,
    takings: Value<u64>,
    death_futex: Event,
    door: RegionLock,
    mapping: Mapping,
    space: Space,
}

const TILL: u64 = 64 * Mutex::<u64>::SIZE;

impl Shop {
    fn open(url: &str) -> Result<Self, BoxError> {
        let space = Space::open(url)?;
        let mapping = space.map_or_create("shop", 4096)?;
        Ok(Self {
            stock: space.record("stock")?,
            rows: mapping.open_array(0, 64)?,
            till: mapping.mutex(TILL)?,
            takings: mapping.value(TILL + 8)?,
            death_futex: mapping.event(TILL + 16)?,
            door: mapping.region_lock()?,
            mapping,
            space,
        })
    }

    /// A little of everything.
    fn serve(&self) -> Result<(), BoxError> {
        self.stock.opened.get_or_init(|| 5)?;
        let scanner = self.stock.scanners.acquire()?;
        self.stock.shelf.lock()?.with_mut(|shelf| shelf[0] += 1);
        self.stock.prices.write()?.with_mut(|prices| prices[0] += 1);
        let _ = self.stock.prices.read()?.get();
        let mut looking = self.stock.prices.upgradable_read()?;
        looking.upgrade()?.at(1)?.with_mut(|price| *price += 1);
        drop(looking);
        self.stock.snapshot.write()?.with_mut(|numbers| numbers[0] += 1);
        let _ = self.stock.snapshot.read()?;
        self.stock.sold.notify_all()?;
        scanner.release()?;
        self.rows.get(7)?.lock()?.with_mut(|row| *row += 1);
        let till = self.till.lock()?;
        self.takings.store(self.takings.load() + 1)?;
        till.unlock()?;
        let door = self.door.lock()?;
        self.mapping.set(TILL + 24, &(self.mapping.get::<u64>(TILL + 24)? + 1))?;
        door.unlock()?;
        Ok(self.death_futex.broadcast()?)
    }
}

#[test]
fn handles_are_kept_in_a_struct_beside_their_space_and_shared_by_threads() {
    const THREADS: u64 = 4;
    const ROUNDS: u64 = 50;
    let scratch = Scratch::formatted();
    let shop = Arc::new(Shop::open(&scratch.url).unwrap());
    let serve = |shop: &Arc<Shop>| {
        let shop = Arc::clone(shop);
        thread::spawn(move || (0..ROUNDS).try_for_each(|_| shop.serve()))
    };
    let threads: Vec<_> = (0..THREADS).map(|_| serve(&shop)).collect();
    for thread in threads {
        thread.join().unwrap().unwrap();
    }
    let all = THREADS * ROUNDS;
    let stock = &shop.stock;
    assert_eq!(stock.shelf.lock().unwrap().get(), [all, 0]);
    assert_eq!(stock.prices.read().unwrap().get(), [all; 2]);
    assert_eq!(stock.snapshot.read().unwrap(), [all, 0]);
    assert_eq!((stock.opened.get(), stock.scanners.available()), (Some(5), 2));
    assert_eq!(shop.rows.get(7).unwrap().lock().unwrap().get(), all);
    assert_eq!((shop.takings.load(), shop.death_futex.sequence()), (all, all));
    assert_eq!(shop.mapping.get::<u64>(TILL + 24).unwrap(), all);
    assert_eq!(shop.space.regions().unwrap().len(), 2);
}

#[test]
fn handles_move_to_other_threads_one_by_one() {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    let stock = space.record::<Stock>("stock").unwrap();
    let (shelf, sold, meeting) = (stock.shelf.clone(), stock.sold.clone(), stock.meeting.clone());
    let other = thread::spawn(move || {
        let party = meeting.join()?;
        until_event_waiters(&space, 1);
        shelf.lock()?.set([3, 4]);
        sold.notify_one()?;
        party.wait()
    });
    let empty = |shelf: &commonhold::MutexGuard<'_, Pair>| shelf.get() == [0; 2];
    let shelf = stock.sold.wait_while(stock.shelf.lock().unwrap(), empty).unwrap();
    assert_eq!(shelf.get(), [3, 4]);
    drop(shelf);
    assert_eq!(stock.meeting.join().unwrap().wait_for(DEADLINE).unwrap(), 0);
    assert_eq!(other.join().unwrap().unwrap(), 0);
}

#[test]
fn a_handle_outlives_the_mapping_and_the_space_that_it_was_opened_through() {
    let scratch = Scratch::formatted();
    let onlooker = scratch.open();
    let count = {
        let space = scratch.open();
        let mapping = space.map_or_create("a", 4096).unwrap();
        mapping.open::<Mutex<u64>>(64).unwrap()
    };
    count.lock().unwrap().set(7);
    assert_eq!((onlooker.stat("a").unwrap().maps, onlooker.peers().unwrap().len()), (1, 2));
    let theirs = onlooker.map("a", Access::ReadWrite).unwrap();
    assert_eq!(theirs.open::<Mutex<u64>>(64).unwrap().lock().unwrap().get(), 7);
    let last = count.clone();
    drop(count);
    last.lock().unwrap().set(8);
    // Dropping it also drops what it kept: the space, whose other handles are gone, and the region.
    drop(last);
    assert_eq!((onlooker.stat("a").unwrap().maps, onlooker.peers().unwrap().len()), (1, 1));
    let event = onlooker.map("a", Access::ReadWrite).unwrap().event(8).unwrap();
    drop(theirs);
    assert_eq!(onlooker.stat("a").unwrap().maps, 1);
    event.signal().unwrap();
    drop(event);
    assert_eq!(onlooker.stat("a").unwrap().maps, 0);
}

#[test]
fn unmap_and_destroy_report_how_many_handles_are_in_the_way() {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    let mapping = space.map_or_create("a", 4096).unwrap();
    let same = mapping.clone();
    let mutex = mapping.mutex(0).unwrap();
    let (value, lock) = (mapping.value::<u64>(8).unwrap(), mapping.region_lock().unwrap());
    let rows = mapping.open_array::<Mutex<u64>>(64, 4).unwrap();
    let row = rows.get(1).unwrap();
    let refused = mapping.unmap().unwrap_err();
    fails!(Err::<(), _>(&refused), RegionError::InUseHere { name, handles: 6 } if name == "a");
    assert!(refused.to_string().contains("6 other handles"), "{refused}");
    // They work as before.
    drop(mutex.lock().unwrap());
    row.lock().unwrap().set(1);
    value.store(lock.read_lock().map(|_| 1).unwrap()).unwrap();
    let destroy = || space.destroy("a", Destroy::Wait).map(drop);
    fails!(destroy(), RegionError::Mapped { name, handles: 6 } if name == "a");
    drop((mutex, value, lock));
    let refused = destroy().unwrap_err();
    fails!(Err::<(), _>(&refused), RegionError::Mapped { handles: 3, .. });
    assert!(refused.to_string().contains("handles: 3;"), "{refused}");
    // A second mapping of the region counts as well, and only that of the same name.
    let again = space.map("a", Access::ReadOnly).unwrap();
    let _other = space.map_or_create("b", 64).unwrap();
    fails!(destroy(), RegionError::Mapped { handles: 4, .. });
    drop((again, row, rows));
    fails!(destroy(), RegionError::Mapped { handles: 1, .. });
    same.unmap().unwrap();
    destroy().unwrap();
}

/// A function that only passes errors on.
fn transfer(accounts: &Mutex<Pair>, between: impl FnOnce()) -> Result<Pair, Box<dyn Error>> {
    let guard = accounts.lock()?;
    guard.at(0)?.with_mut(|first| *first += 1);
    between();
    guard.at(1)?.with_mut(|second| *second += 1);
    Ok(guard.get())
}

fn accounts(url: &str) -> Mutex<Pair> {
    Space::open(url).unwrap().record("accounts").unwrap()
}

fn transfer_half(args: &[&str]) {
    let accounts = accounts(args[0]);
    transfer(&accounts, || {}).unwrap();
    let between = || {
        say("between");
        stay();
    };
    transfer(&accounts, between).unwrap();
}

/// The bug: such a function made the lock of a dead owner unrecoverable, because it dropped the guard that came
/// with the error.
#[test]
fn every_thread_learns_of_a_dead_owner_until_one_repairs() {
    let scratch = Scratch::formatted();
    let accounts = accounts(&scratch.url);
    let actor = ScriptedProcess::start("shapes-transfer", &[&scratch.url]);
    actor.says("between");
    let pid = actor.pid();
    actor.kill();
    for _ in 0..2 {
        let error = transfer(&accounts, || {}).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("process {pid} ")) && text.contains("accounts"),
            "{text}"
        );
        let Some(LockError::OwnerDied(place)) = error.downcast_ref() else { panic!("{error:?}") };
        assert_eq!((place.region.as_str(), place.offset), ("accounts", Some(0)));
        let owner = place.owner.as_ref().unwrap();
        assert_eq!((owner.pid, owner.is_foreign), (Some(pid), false));
    }
    let repaired = accounts.lock_repairing(|accounts| {
        accounts.at(1)?.set(accounts.at(0)?.get());
        Ok(())
    });
    assert_eq!(repaired.unwrap().get(), [2; 2]);
    assert_eq!(transfer(&accounts, || {}).unwrap(), [3; 2]);
}

/// Everything that can happen to an inconsistent lock, except a repair and giving it up.
macro_rules! endures {
    ($lock:expr, $take:ident, $repairing:ident, $recover:ident, $reset:ident) => {{
        let lock = $lock;
        let unwinds = |run: &dyn Fn()| assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
        let left = || assert!(owner_died(lock.$take()).owner.is_some());
        lock.$take().unwrap().leave_inconsistent().unwrap();
        left();
        let failed = lock.$repairing(|_| Err("no spare part".into())).unwrap_err();
        assert!(failed.to_string().ends_with("could not be repaired: no spare part"), "{failed}");
        fails!(Err::<(), _>(&failed), LockError::RepairFailed(failed)
            if failed.place.owner.as_ref().unwrap().pid == Some(std::process::id()));
        left();
        unwinds(&|| drop(lock.$repairing(|_| resume_unwind(Box::new(())))));
        left();
        let failed = inconsistent(lock.$recover()).repair(|_| Err("no spare part".into()));
        fails!(failed, LockError::RepairFailed(_));
        left();
        unwinds(&|| drop(inconsistent(lock.$recover()).repair(|_| resume_unwind(Box::new(())))));
        left();
        drop(inconsistent(lock.$recover()));
        left();
        thread::scope(|scope| {
            // Joined by hand: the scope alone does not wait until the thread has given its slot back.
            scope.spawn(|| forget(inconsistent(lock.$recover()))).join().unwrap();
        });
        left();
        lock.$repairing(|_| Ok(())).unwrap().unlock().unwrap();
        lock.$take().unwrap().leave_inconsistent().unwrap();
        inconsistent(lock.$recover()).repair(|_| Ok(())).unwrap().unlock().unwrap();
        lock.$take().unwrap().leave_inconsistent().unwrap();
        // Giving it up makes it unrecoverable, and a reset makes it good again.
        inconsistent(lock.$recover()).give_up().unwrap();
        fails!(lock.$take(), LockError::Unrecoverable(_));
        fails!(lock.$repairing(|_| Ok(())), LockError::Unrecoverable(_));
        fails!(lock.$recover(), LockError::Unrecoverable(_));
        lock.$reset().unwrap();
        lock.$take().unwrap().unlock().unwrap();
    }};
}

#[test]
fn an_inconsistent_lock_stays_so_until_it_is_repaired_or_given_up() {
    let scratch = Scratch::formatted();
    let shop = Shop::open(&scratch.url).unwrap();
    endures!(&shop.stock.shelf, lock, lock_repairing, lock_recover, reset);
    endures!(&shop.stock.prices, write, write_repairing, write_recover, reset);
    endures!(&shop.stock.snapshot, write, write_repairing, write_recover, reset);
    endures!(&shop.till, lock, lock_repairing, lock_recover, reset);
    endures!(&shop.door, lock, lock_repairing, lock_recover, reset);
    endures!(&shop.mapping, lock, lock_repairing, lock_recover, reset_lock);
}

/// A space, a record in it as this process has it, and as another peer does.
fn two<R: commonhold::Record>() -> (Scratch, Space, R, R) {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    let mine = space.record("record").unwrap();
    let theirs = scratch.open().record("record").unwrap();
    (scratch, space, mine, theirs)
}

/// The bug: the second half was dropped in silence, and then the lock was freed as consistent.
#[test]
fn a_change_half_dropped_after_a_fence_leaves_the_lock_inconsistent() {
    // Mutexes that are used often are held by a bias.
    for habit in [0, 40] {
        for unlocks in [true, false] {
            let (scratch, space, pair, theirs) = two::<Mutex<Pair>>();
            (0..habit).for_each(|_| drop(pair.lock().unwrap()));
            let guard = pair.lock().unwrap();
            guard.at(0).unwrap().set(7);
            fence_me(&scratch, &space);
            guard.at(1).unwrap().set(7);
            if unlocks {
                fails!(guard.unlock(), LockError::Fenced);
            } else {
                drop(guard);
            }
            fails!(pair.lock(), LockError::Fenced);
            assert_eq!(owner_died(theirs.lock()).owner.unwrap().slot, space.peer().0);
            assert_eq!(inconsistent(theirs.lock_recover()).get(), [7, 0]);
        }
    }
}

#[test]
fn a_fenced_writer_frees_nothing_however_it_ends_its_change() {
    let ends: [fn(commonhold::RwLockWriteGuard<'_, Pair>); 2] =
        [|guard| drop(guard), |guard| fails!(guard.unlock(), LockError::Fenced)];
    for end in ends {
        let (scratch, space, pair, theirs) = two::<RwLock<Pair>>();
        let guard = pair.write().unwrap();
        guard.at(0).unwrap().set(7);
        fence_me(&scratch, &space);
        guard.slice(1..).unwrap().fill(&7);
        end(guard);
        owner_died(theirs.read());
        assert_eq!(inconsistent(theirs.write_recover()).get(), [7, 0]);
    }
    let (scratch, space, pair, theirs) = two::<RwLock<Pair>>();
    let mut guard = pair.upgradable_read().unwrap();
    let writer = guard.upgrade().unwrap();
    writer.at(0).unwrap().set(7);
    fence_me(&scratch, &space);
    writer.at(1).unwrap().set(7);
    fails!(writer.downgrade(), LockError::Fenced);
    fails!(guard.unlock(), LockError::Fenced);
    owner_died(theirs.upgradable_read());
    let ends: [fn(commonhold::SeqLockGuard<'_, Pair>); 2] =
        [|guard| drop(guard), |guard| fails!(guard.unlock(), LockError::Fenced)];
    for end in ends {
        let (scratch, space, pair, theirs) = two::<SeqLock<Pair>>();
        let guard = pair.write().unwrap();
        guard.at(0).unwrap().set(7);
        fence_me(&scratch, &space);
        guard.at(1).unwrap().set(7);
        end(guard);
        owner_died(theirs.read());
        assert_eq!(inconsistent(theirs.write_recover()).get(), [7, 0]);
    }
}

#[test]
fn a_fenced_repairer_marks_nothing_consistent_and_cannot_wait_for_a_condition() {
    let (scratch, space, pair, theirs) = two::<Mutex<Pair>>();
    pair.lock().unwrap().leave_inconsistent().unwrap();
    let guard = inconsistent(pair.lock_recover());
    fence_me(&scratch, &space);
    guard.set([7; 2]);
    fails!(guard.mark_consistent(), LockError::Fenced);
    assert_eq!(inconsistent(theirs.lock_recover()).get(), [0; 2]);
    let (scratch, space, mine, theirs) = two::<Stock>();
    let guard = mine.shelf.lock().unwrap();
    fence_me(&scratch, &space);
    guard.set([7; 2]);
    fails!(mine.sold.wait(guard), LockError::Fenced);
    owner_died(theirs.shelf.lock());
    // A value without a lock reports it at once.
    let (scratch, space, ..) = two::<Mutex<u64>>();
    let value = space.map_or_create("value", 8).unwrap().value::<u64>(0).unwrap();
    value.store(1).unwrap();
    fence_me(&scratch, &space);
    fails!(value.store(2), RegionError::Fenced);
    assert_eq!(value.load(), 1);
}
