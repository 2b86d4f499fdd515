//! Threads that end, and slots that are reused.

use super::*;
use commonhold_layout::thread_word;
use commonhold_sync::{Liveness, LockError, Release};

impl Peer {
    /// Where a thread's life word lies.
    fn life_at(&self, thread: crate::OwnThread) -> Offset {
        self.space.view().geometry().thread(self.space.peer(), thread.thread).unwrap()
    }

    fn claim(&self, tid: u32) -> crate::OwnThread {
        self.space.claim_thread(tid).unwrap()
    }

    /// Marks the life word as the kernel does at the end of a thread.
    fn end(&self, thread: crate::OwnThread) {
        let word = self.space.view().window().word(self.life_at(thread)).unwrap();
        assert_eq!(word.load(Ordering::SeqCst), thread.life.word());
        word.store(thread.life.dead().word(), Ordering::SeqCst);
    }

    fn pid(&self) -> u32 {
        self.space.view().peer_record(self.space.peer()).unwrap().0.identity.pid
    }
}

#[test]
fn a_lock_of_an_ended_thread_is_taken_over_even_after_its_slot_was_reused() {
    let world = World::formatted(1 << 20);
    let (a, b) = (world.attach(), world.attach());
    a.create("x", PAGE).unwrap();
    let (lock, theirs) = (a.lock_of(a.map("x").unwrap()), b.lock_of(b.map("x").unwrap()));
    let thread = a.claim(2);
    assert!(thread.life.is_armed());
    let dead = a.space.thread(thread).unwrap();
    assert_eq!(lock.write(&dead, a.space.view(), None), Ok(Taken::Clean));
    let view = b.space.view();
    assert_eq!(theirs.write(&b.me(), view, Some(0)), Err(LockError::TimedOut));
    a.end(thread);
    assert!(!view.is_current(dead.owner()));
    // Another thread gets the slot before any thread has looked at the lock.
    let next = a.claim(3);
    assert_eq!(next.thread, thread.thread);
    let heir = a.space.thread(next).unwrap();
    assert_ne!(heir.owner(), dead.owner());
    assert_eq!(lock.unlock_write(&heir, a.space.view(), Release::Done), Err(LockError::Fenced));
    // The verdict names the dead thread, although another has its slot.
    assert_eq!(theirs.write(&b.me(), view, Some(0)), told_of(dead.owner()));
}

/// The bug: a thread that forgot a guard and ended kept its slot as long as its process lived.
#[test]
fn threads_that_end_never_use_up_the_slots() {
    let world = World::formatted(1 << 20);
    let a = world.attach();
    a.create("x", PAGE).unwrap();
    let lock = a.lock_of(a.map("x").unwrap());
    let threads = u32::from(a.space.view().geometry().threads());
    let mut told = Ok(Taken::Clean);
    for tid in 2..3 * threads {
        let thread = a.claim(tid);
        let me = a.space.thread(thread).unwrap();
        assert_eq!(lock.write(&me, a.space.view(), None), told);
        told = told_of(me.owner());
        a.end(thread);
    }
}

#[test]
fn a_thread_that_ended_without_a_mark_is_found_when_slots_are_short() {
    let world = World::formatted(1 << 20);
    let a = world.attach();
    let threads = u32::from(a.space.view().geometry().threads());
    let all: Vec<_> = (2..=threads).map(|tid| a.claim(tid)).collect();
    assert_eq!(
        a.space.claim_thread(9999),
        Err(DirectoryError::TooManyThreads { threads: a.space.view().geometry().threads() })
    );
    world.ended.lock().unwrap().insert((a.pid(), 7));
    let found = a.claim(9999);
    assert_eq!(found.thread, all[5].thread);
    assert!(!a.space.has_slot(all[5]) && a.space.has_slot(all[4]));
}

#[test]
fn a_waiter_that_looks_finds_a_thread_that_ended_without_a_mark() {
    let world = World::formatted(1 << 20);
    let (a, b) = (world.attach(), world.attach());
    a.create("x", PAGE).unwrap();
    let (lock, theirs) = (a.lock_of(a.map("x").unwrap()), b.lock_of(b.map("x").unwrap()));
    let thread = a.claim(2);
    let owner = a.space.thread(thread).unwrap();
    assert_eq!(lock.write(&owner, a.space.view(), None), Ok(Taken::Clean));
    world.ended.lock().unwrap().insert((a.pid(), 2));
    let taken = theirs.write(&b.me(), b.space.view(), Some(u64::MAX));
    assert_eq!(taken, told_of(owner.owner()));
    assert!(a.space.is_live(), "its process lives");
}

#[test]
fn a_slot_that_names_the_id_of_the_claiming_thread_is_a_dead_threads() {
    let world = World::formatted(1 << 20);
    let a = world.attach();
    let (dead, other) = (a.claim(2), a.claim(3));
    let heir = a.claim(2);
    assert!(!a.space.has_slot(dead) || heir.thread == dead.thread);
    assert!(!a.space.has_slot(dead) && a.space.has_slot(other) && a.space.has_slot(heir));
}

/// The bug: if an ended thread had forgotten more than three read locks, they blocked writers until its process ended.
#[test]
fn read_locks_of_an_ended_thread_do_not_block_writers_once_uncounted() {
    let world = World::formatted(1 << 20);
    let (a, b) = (world.attach(), world.attach());
    a.create("x", PAGE).unwrap();
    let (lock, theirs) = (a.lock_of(a.map("x").unwrap()), b.lock_of(b.map("x").unwrap()));
    let thread = a.claim(2);
    for _ in 0..6 {
        let _ = lock.read(&a.space.thread(thread).unwrap(), a.space.view(), None).unwrap();
    }
    assert_eq!(theirs.write(&b.me(), b.space.view(), Some(0)), Err(LockError::TimedOut));
    a.end(thread);
    // Two of them are counted in the peer's share, and another thread of the peer lives.
    assert_eq!(theirs.write(&b.me(), b.space.view(), Some(0)), Err(LockError::TimedOut));
    for _ in 0..2 {
        let peer = commonhold_layout::PeerRef::new(a.space.peer(), a.space.generation());
        lock.uncount_ended(peer, a.space.view()).unwrap();
    }
    let peer = commonhold_layout::PeerRef::new(a.space.peer(), a.space.generation());
    assert!(lock.uncount_ended(peer, a.space.view()).is_err());
    assert_eq!(theirs.write(&b.me(), b.space.view(), Some(0)), Ok(Taken::Clean));
}

#[test]
fn no_thread_is_armed_in_a_slot_whose_peer_was_declared_dead_without_proof() {
    let world = World::formatted(1 << 20);
    let (a, b) = (world.attach(), world.attach());
    assert!(b.claim(2).life.is_armed());
    let slot = b.space.peer();
    assert!(a.space.view().assume_dead(slot, b.space.generation()));
    assert!(!b.space.has_slot(b.thread), "it must find that its slot is not its own");
    b.die();
    a.space.reap(&a.me(), crate::Patience::DEFAULT).unwrap();
    let heir = world.attach();
    assert_eq!(heir.space.peer(), slot);
    world.armed.lock().unwrap().clear();
    let thread = heir.claim(2);
    assert!(thread.life.is_ready() && !thread.life.is_armed());
    // After a death with proof, threads are armed.
    let slot = a.space.peer();
    a.die();
    heir.space.reap(&heir.me(), crate::Patience::DEFAULT).unwrap();
    let next = world.attach();
    assert_eq!(next.space.peer(), slot);
    world.armed.lock().unwrap().clear();
    assert!(next.claim(2).life.is_armed());
}

/// The bug: a reaper was stopped after it had seen a peer dead. When it went on, it marked the threads of the next
/// peer in the slot, and two owners were inside of one lock.
#[test]
fn a_reaper_that_was_stopped_marks_no_thread_of_the_next_peer() {
    let world = World::formatted(1 << 20);
    let (a, b) = (world.attach(), world.attach());
    let slot = b.space.peer();
    b.die();
    let dead = commonhold_layout::PeerRef::new(slot, 1);
    assert_eq!(a.space.view().verdict_of(dead), Verdict::Dead);
    let seen = a.space.view().peer_state(slot);
    a.space.reap(&a.me(), crate::Patience::DEFAULT).unwrap();
    let heir = world.attach();
    assert_eq!(heir.space.peer(), slot);
    a.space.view().mark_threads(slot, seen);
    assert!(heir.space.has_slot(heir.thread));
}

#[test]
fn a_lock_that_a_detached_peer_still_held_is_a_dead_owners() {
    let world = World::formatted(1 << 20);
    let (a, b) = (world.attach(), world.attach());
    a.create("x", PAGE).unwrap();
    let theirs = b.lock_of(b.map("x").unwrap());
    let lock = a.lock_of(a.map("x").unwrap());
    assert_eq!(lock.write(&a.me(), a.space.view(), None), Ok(Taken::Clean));
    let owner = a.me().owner();
    a.space.detach().unwrap();
    // The threads were marked before the slot was free: a new peer in the slot must not make them look alive.
    assert!(!a.space.has_slot(a.thread));
    assert_eq!(theirs.write(&b.me(), b.space.view(), Some(0)), told_of(owner));
    let heir = world.attach();
    assert_eq!(heir.space.peer(), a.space.peer());
    assert_ne!(heir.thread, a.thread);
}

/// The life word of a living thread is marked by mistake. The thread notices when it next takes a lock.
#[test]
fn a_living_thread_whose_word_is_marked_takes_no_lock() {
    let world = World::formatted(1 << 20);
    let a = world.attach();
    a.create("x", PAGE).unwrap();
    let lock = a.lock_of(a.map("x").unwrap());
    a.end(a.thread);
    assert_eq!(lock.write(&a.me(), a.space.view(), Some(0)), Err(LockError::Fenced));
    assert!(!lock.writer().look().is_owned());
    assert!(!a.space.has_slot(a.thread));
    a.space.give_up();
    assert!(!a.space.is_live());
}

/// The bug: one thread that used a space by two attachments waited for itself for ever.
#[test]
fn a_thread_with_two_attachments_does_not_wait_for_itself() {
    let world = World::formatted(1 << 20);
    let a = world.attach();
    world.processes.store(a.pid().into(), Ordering::Relaxed);
    let b = world.attach();
    assert_eq!(a.pid(), b.pid());
    a.create("x", PAGE).unwrap();
    let (lock, theirs) = (a.lock_of(a.map("x").unwrap()), b.lock_of(b.map("x").unwrap()));
    let _ = lock.write(&a.me(), a.space.view(), None).unwrap();
    assert_eq!(theirs.write(&b.me(), b.space.view(), None), Err(LockError::Deadlock));
    let read = theirs.read(&b.me(), b.space.view(), None);
    assert_eq!(read.map(drop), Err(LockError::Deadlock));
    // An attempt without waiting is no deadlock: the lock is held, and the thread does not wait for it.
    assert_eq!(theirs.write(&b.me(), b.space.view(), Some(0)), Err(LockError::TimedOut));
    // Another thread of the process may wait.
    let sibling = b.claim(2);
    let sibling = b.space.thread(sibling).unwrap();
    let waited = theirs.write(&sibling, b.space.view(), Some(1));
    assert_eq!(waited, Err(LockError::TimedOut));
    lock.unlock_write(&a.me(), a.space.view(), Release::Done).unwrap();
    let _ = lock.read(&a.me(), a.space.view(), None).unwrap();
    assert_eq!(theirs.write(&b.me(), b.space.view(), None), Err(LockError::Deadlock));
}

#[test]
fn the_id_of_a_thread_and_the_number_of_its_biases_share_a_word() {
    let world = World::formatted(1 << 20);
    let a = world.attach();
    let thread = a.claim(4711);
    let at = a.life_at(thread).plus(8 * thread_word::BIASES as u64).unwrap();
    let word = a.space.view().window().word(at).unwrap();
    assert_eq!(word.load(Ordering::Relaxed) >> 32, 4711);
    assert_eq!(a.space.view().thread_record(a.space.peer(), thread.thread).unwrap().tid, 4711);
}
