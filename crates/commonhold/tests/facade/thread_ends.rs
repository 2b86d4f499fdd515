//! Threads that end, with destructors in any order, and what they leave behind.

use std::{
    cell::RefCell,
    ffi::c_void,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
};

use commonhold::{
    Access, FormatOptions, LockError, Mapping, Mutex, OnceLock, Recovered, Space, Turn,
};

use crate::support::{
    DEADLINE, Random, Role, SHORT, Scratch, ScriptedProcess, busy, fails, owner_died, say, stay,
    until, until_waiters,
};

pub(crate) const ROLES: &[Role] =
    &[("thread-ends-late", exit_late), ("thread-ends-exec", exec_from_a_thread)];

/// One mutex, and a record of the thread inside it.
struct TestSpace {
    mapping: Mapping,
    inside: AtomicBool,
    turns: AtomicU32,
    deadlocks: AtomicU32,
}

impl TestSpace {
    fn new(space: &Space) -> Arc<Self> {
        space.create("a", 64).unwrap();
        let mapping = space.map("a", Access::ReadWrite).unwrap();
        let zero = AtomicU32::new;
        let inside = AtomicBool::new(false);
        Arc::new(Self { mapping, inside, turns: zero(0), deadlocks: zero(0) })
    }

    /// One turn of the mutex: a number under it grows by 1, and no other thread is inside meanwhile.
    fn turn(&self) {
        match self.mapping.mutex(0).unwrap().lock() {
            Ok(guard) => {
                assert!(!self.inside.swap(true, Ordering::SeqCst), "two are inside");
                let value: u64 = self.mapping.get(8).unwrap();
                thread::yield_now();
                self.mapping.set(8, &(value + 1)).unwrap();
                self.inside.store(false, Ordering::SeqCst);
                guard.unlock().unwrap();
                self.turns.fetch_add(1, Ordering::SeqCst);
            }
            Err(LockError::Deadlock(_)) => {
                self.deadlocks.fetch_add(1, Ordering::SeqCst);
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    fn check(&self, turns: u32) {
        assert_eq!(self.deadlocks.load(Ordering::SeqCst), 0, "told of deadlocks that are none");
        assert_eq!(self.turns.load(Ordering::SeqCst), turns);
        assert_eq!(self.mapping.get::<u64>(8).unwrap(), u64::from(turns), "turns were lost");
    }
}

/// Takes the mutex when it is dropped: in the destructor of a thread-local.
struct Late(Arc<TestSpace>);

impl Drop for Late {
    fn drop(&mut self) {
        self.0.turn();
        self.0.turn();
    }
}

thread_local! {
    static LATE: RefCell<Option<Late>> = const { RefCell::new(None) };
}

/// The bug: a thread-local that was registered before the library's is destroyed after it. By then another thread
/// had the slot, and the ending thread still used it: two threads were inside one mutex.
#[test]
fn locks_taken_in_destructors_of_thread_locals_exclude_each_other() {
    let scratch = Scratch::formatted();
    let ground = TestSpace::new(&scratch.open());
    const THREADS: u32 = 4;
    const ROUNDS: u32 = 150;
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    let ground = Arc::clone(&ground);
                    let ends = thread::spawn(move || {
                        // Before the first use of the library, so that it is destroyed after whatever that has.
                        LATE.with(|late| *late.borrow_mut() = Some(Late(Arc::clone(&ground))));
                        ground.turn();
                    });
                    ends.join().unwrap();
                }
            });
        }
    });
    ground.check(THREADS * ROUNDS * 3);
}

static GROUND: std::sync::OnceLock<Arc<TestSpace>> = std::sync::OnceLock::new();
static KEYED: AtomicU32 = AtomicU32::new(0);

extern "C" fn at_the_end_of_a_key(_: *mut c_void) {
    GROUND.get().unwrap().turn();
    KEYED.fetch_add(1, Ordering::SeqCst);
}

extern "C" fn at_exit() {
    let ground = GROUND.get().unwrap();
    ground.turn();
    ground.check(KEYED.load(Ordering::SeqCst) * 2 + 1);
    say("at exit");
}

/// Threads with destructors of pthread keys, which run after those of thread-locals; and then a handler of `atexit`.
fn exit_late(args: &[&str]) {
    let space = Space::open(args[0]).unwrap();
    assert!(GROUND.set(TestSpace::new(&space)).is_ok());
    let mut key = 0;
    // SAFETY: the call wants a place for the key, and a function that may run at any thread's end.
    let made = unsafe { libc::pthread_key_create(&raw mut key, Some(at_the_end_of_a_key)) };
    // SAFETY: the call wants a function that may run at the end of the process.
    let set = unsafe { libc::atexit(at_exit) };
    assert_eq!((made, set), (0, 0));
    let crowd: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(move || {
                for _ in 0..50 {
                    let ends = thread::spawn(move || {
                        // SAFETY: the key exists; the value only has to be none.
                        unsafe { libc::pthread_setspecific(key, (&raw const KEYED).cast()) };
                        GROUND.get().unwrap().turn();
                    });
                    ends.join().unwrap();
                }
            })
        })
        .collect();
    crowd.into_iter().for_each(|threads| threads.join().unwrap());
    until("the last destructors", || KEYED.load(Ordering::SeqCst) == 200);
    // Handlers run on this thread.
    std::process::exit(0);
}

#[test]
fn locks_can_be_taken_in_destructors_of_pthread_keys_and_in_atexit_handlers() {
    let scratch = Scratch::formatted();
    let _keep = scratch.open();
    let actor = ScriptedProcess::start("thread-ends-late", &[&scratch.url]);
    actor.says("at exit");
    actor.succeed();
}

/// The bug of a wrong repair of the first: if a thread forgets its slot when it ends, each thread that uses the
/// library only while it ends keeps a slot for ever.
#[test]
fn threads_that_use_the_library_only_while_they_end_keep_no_slots() {
    let scratch = Scratch::with(&FormatOptions { threads: Some(3), ..Scratch::tiny() });
    let ground = TestSpace::new(&scratch.open());
    for _ in 0..300 {
        let ground = Arc::clone(&ground);
        let ends = thread::spawn(move || {
            LATE.with(|late| *late.borrow_mut() = Some(Late(ground)));
        });
        ends.join().unwrap();
    }
    ground.check(600);
}

/// The bug: others waited for the value for ever, and the next thread in the slot was told that it was making it.
#[test]
fn a_turn_that_an_ended_thread_forgot_goes_to_the_next_thread() {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    space.create("a", 64).unwrap();
    let mapping = Arc::new(space.map("a", Access::ReadWrite).unwrap());
    for round in 0..3 {
        let theirs = Arc::clone(&mapping);
        let ends = thread::spawn(move || {
            let once = theirs.open::<OnceLock<u64>>(0).unwrap();
            let Ok(Turn::Mine(guard)) = once.begin() else { panic!("made by nobody") };
            assert_eq!(guard.begun_before(), round > 0);
            std::mem::forget(guard);
        });
        ends.join().unwrap();
        let theirs = Arc::clone(&mapping);
        // The next thread has its slot.
        let next = thread::spawn(move || {
            let once = theirs.open::<OnceLock<u64>>(0).unwrap();
            let Ok(Turn::Mine(guard)) = once.begin_for(DEADLINE) else { panic!("made by nobody") };
            assert!(guard.begun_before());
            if round == 2 {
                guard.complete(&42).unwrap();
            } else {
                std::mem::forget(guard);
            }
        });
        next.join().unwrap();
    }
    assert_eq!(mapping.open::<OnceLock<u64>>(0).unwrap().get(), Some(42));
}

/// The bug: read locks beyond those that a thread has words for were counted for the process. So those of an ended
/// thread blocked writers until the process ended too.
#[test]
fn read_locks_that_an_ended_thread_forgot_block_no_writer() {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    space.create("a", 64).unwrap();
    let mapping = Arc::new(space.map("a", Access::ReadWrite).unwrap());
    let theirs = Arc::clone(&mapping);
    thread::spawn(move || {
        for _ in 0..7 {
            std::mem::forget(theirs.read_lock().unwrap());
        }
    })
    .join()
    .unwrap();
    drop(mapping.lock_for(DEADLINE).unwrap());
    // A living thread's are respected.
    let readers: Vec<_> = (0..7).map(|_| mapping.read_lock().unwrap()).collect();
    let other = scratch.open().map("a", Access::ReadWrite).unwrap();
    busy(other.try_lock());
    drop(readers);
    drop(other.lock_for(DEADLINE).unwrap());
}

/// The bug: a guard forgotten in one space kept the thread's slots in all spaces.
#[test]
fn a_guard_forgotten_in_one_space_costs_no_slot_in_another() {
    let few = FormatOptions { threads: Some(3), ..Scratch::tiny() };
    let (one, two) = (Scratch::with(&few), Scratch::with(&few));
    let grounds = [TestSpace::new(&one.open()), TestSpace::new(&two.open())];
    for _ in 0..50 {
        let [first, second] = grounds.each_ref().map(Arc::clone);
        let ends = thread::spawn(move || {
            match first.mapping.lock_recover().unwrap() {
                Recovered::Consistent(guard) => std::mem::forget(guard),
                Recovered::Inconsistent(guard) => std::mem::forget(guard),
            }
            second.turn();
        });
        ends.join().unwrap();
    }
    grounds[1].check(50);
    owner_died(grounds[0].mapping.lock_for(DEADLINE));
}

/// A waiter in another process learns that the owner's thread has ended, also if its process lives.
#[test]
fn a_waiter_gets_the_lock_of_an_ended_thread_of_a_living_process() {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    space.create("a", 64).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    let holder = scratch.open();
    let theirs = holder.map("a", Access::ReadWrite).unwrap();
    let slot = holder.peer().0;
    let (go, goes) = std::sync::mpsc::channel::<()>();
    let (has, had) = std::sync::mpsc::channel();
    let thread = thread::spawn(move || {
        std::mem::forget(theirs.lock().unwrap());
        has.send(()).unwrap();
        let _ = goes.recv();
        std::mem::forget(theirs);
    });
    had.recv().unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| owner_died(mapping.lock_for(DEADLINE)));
        until_waiters(&space, "a", 1);
        drop(go);
        let owner = waiter.join().unwrap().owner.unwrap();
        assert_eq!((owner.slot, owner.pid), (slot, Some(std::process::id())));
    });
    thread.join().unwrap();
}

fn exec_from_a_thread(args: &[&str]) {
    let mapping = Space::open(args[0]).unwrap().map("a", Access::ReadWrite).unwrap();
    let thread = thread::spawn(move || {
        std::mem::forget(mapping.lock().unwrap());
        say("held");
        crate::support::listen();
        use std::os::unix::process::CommandExt;
        // Not the first thread of its process: the kernel swaps the numbers of the two before it looks at the words.
        let error = std::process::Command::new("/bin/sleep").arg("60").exec();
        panic!("{error}");
    });
    let _ = thread.join();
    stay();
}

/// The kernel does not mark this thread as dead. The waiter finds other evidence, and the new program owns no lock.
#[test]
fn a_thread_that_executes_another_program_leaves_its_lock_as_a_dead_owner() {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    space.create("a", 64).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    let mut actor = ScriptedProcess::start("thread-ends-exec", &[&scratch.url]);
    actor.says("held");
    fails!(mapping.lock_for(SHORT), LockError::TimedOut(_));
    actor.tell("go on");
    owner_died(mapping.lock_for(DEADLINE));
    assert!(actor.is_running());
    actor.kill();
}

/// The bug: one thread that locked through two attachments to one space, of two libraries say, waited for itself for
/// ever: each attachment knew its own owner only.
#[test]
fn a_thread_that_holds_the_lock_by_another_attachment_gets_deadlock() {
    let scratch = Scratch::formatted();
    let (one, two) = (scratch.open(), scratch.open());
    one.create("a", 256).unwrap();
    let map = |space: &Space| space.map("a", Access::ReadWrite).unwrap();
    let (ours, theirs) = (map(&one), map(&two));
    let guard = ours.lock().unwrap();
    fails!(theirs.lock(), LockError::Deadlock(_));
    fails!(theirs.read_lock(), LockError::Deadlock(_));
    fails!(theirs.lock_for(DEADLINE), LockError::Deadlock(_));
    // `try_lock` says that an owner has it.
    busy(theirs.try_lock());
    guard.unlock().unwrap();
    let reader = ours.read_lock().unwrap();
    fails!(theirs.lock(), LockError::Deadlock(_));
    drop(theirs.read_lock().unwrap());
    drop(reader);
    let (mutex, other) =
        (ours.open::<Mutex<u64>>(64).unwrap(), theirs.open::<Mutex<u64>>(64).unwrap());
    for _ in 0..40 {
        // The last of these are biased to the thread.
        drop(mutex.lock().unwrap());
    }
    let guard = mutex.lock().unwrap();
    fails!(other.lock(), LockError::Deadlock(_));
    drop(guard);
    drop(other.lock().unwrap());
    // Another thread of the process waits as usual.
    let guard = ours.lock().unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| drop(theirs.lock_for(DEADLINE).unwrap()));
        until_waiters(&one, "a", 1);
        guard.unlock().unwrap();
        waiter.join().unwrap();
    });
}

/// More attachments than a thread remembers, used in any order.
#[test]
fn a_thread_has_one_slot_in_each_of_many_spaces_and_finds_it_again() {
    let few = FormatOptions { threads: Some(1), ..Scratch::tiny() };
    let scratches: Vec<_> = (0..20).map(|_| Scratch::with(&few)).collect();
    let grounds: Vec<_> = scratches.iter().map(|scratch| TestSpace::new(&scratch.open())).collect();
    let mut random = Random(7);
    let mut turns = vec![0; grounds.len()];
    for _ in 0..500 {
        let which = random.below(20) as usize;
        grounds[which].turn();
        turns[which] += 1;
    }
    for (ground, turns) in grounds.iter().zip(turns) {
        ground.check(turns);
    }
}
