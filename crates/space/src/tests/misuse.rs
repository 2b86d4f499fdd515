//! Unlocks by threads that do not hold the lock.

use super::*;
use commonhold_sync::{LockError, ReadHold, Release};

#[test]
fn an_unlock_by_another_thread_or_another_peer_changes_nothing() {
    let world = World::formatted(1 << 20);
    let (owner, other) = (world.attach(), world.attach());
    owner.create("a", 4096).unwrap();
    let lock = owner.lock_of(owner.map("a").unwrap());
    let theirs = other.lock_of(other.map("a").unwrap());
    let second = owner.space.claim_thread(2).unwrap();
    let sibling = owner.space.thread(second).unwrap();
    let view = owner.space.view();
    assert_eq!(lock.write(&owner.me(), view, None), Ok(Taken::Clean));
    let held = lock.writer().look();
    for thread in [sibling, other.me()] {
        for how in [Release::Done, Release::Inconsistent] {
            assert_eq!(theirs.unlock_write(&thread, view, how), Err(LockError::Fenced));
            assert_eq!(theirs.writer().unlock(&thread, view, how), Err(LockError::Fenced));
        }
        assert_eq!(theirs.writer().mark_consistent(&thread), Err(LockError::Fenced));
        assert!(!theirs.writer().unlock_quickly(thread.owner()));
        assert_eq!(theirs.unlock_read(&thread, view, ReadHold::Share), Err(LockError::Fenced));
        assert_eq!(theirs.writer().reset(view), Err(LockError::TimedOut));
    }
    assert_eq!(lock.writer().look(), held);
    // Its owner can unlock it, but only once.
    assert_eq!(lock.unlock_write(&owner.me(), view, Release::Done), Ok(()));
    assert_eq!(lock.unlock_write(&owner.me(), view, Release::Done), Err(LockError::Fenced));
    assert_eq!(lock.writer().look(), commonhold_layout::LockWord::FREE);
}
