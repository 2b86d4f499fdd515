//! A reader in a slot that is used for the first time, and a writer that looks at the slots in use.
//!
//! A writer that reads a count from before the slot's first use must not come in beside the reader.
//! (Loom orders `SeqCst` accesses to one word among each other, but not the initial value of the word. So each word is
//! written once before the threads begin.)

use commonhold_sync::{raise_used, used};
use commonhold_window::atomic::{AtomicU64, Ordering};
use loom::{cell::UnsafeCell, sync::Arc, thread};

use super::world::check;

const KEY: u64 = 77;
const TAKEN: u64 = 1;

struct Words {
    used: AtomicU64,
    reading: AtomicU64,
    lock: AtomicU64,
    data: UnsafeCell<u64>,
}

// SAFETY: `data` is all that is not `Sync`; loom checks that the words keep accesses to it apart.
unsafe impl Sync for Words {}
// SAFETY: as above.
unsafe impl Send for Words {}

impl Words {
    fn new() -> Arc<Self> {
        let words = Self {
            used: AtomicU64::new(0),
            reading: AtomicU64::new(0),
            lock: AtomicU64::new(0),
            data: UnsafeCell::new(0),
        };
        for word in [&words.used, &words.reading, &words.lock] {
            word.store(0, Ordering::SeqCst);
        }
        Arc::new(words)
    }

    fn read(&self) {
        raise_used(&self.used, 1);
        self.reading.swap(KEY, Ordering::SeqCst);
        if self.lock.load(Ordering::SeqCst) != TAKEN {
            // SAFETY: shared by the protocol under test, which loom verifies.
            self.data.with(|data| assert!(unsafe { *data } < 2));
        }
        self.reading.store(0, Ordering::Release);
    }

    fn write(&self) {
        self.lock.swap(TAKEN, Ordering::SeqCst);
        let reads = used(&self.used) > 0 && self.reading.load(Ordering::SeqCst) == KEY;
        if !reads {
            // SAFETY: exclusive by the protocol under test, which loom verifies.
            self.data.with_mut(|data| unsafe { *data += 1 });
        }
    }
}

#[test]
fn of_a_writer_and_a_reader_in_a_slot_used_for_the_first_time_one_sees_the_other() {
    check(3, || {
        let words = Words::new();
        let reader = thread::spawn({
            let words = Arc::clone(&words);
            move || words.read()
        });
        words.write();
        reader.join().unwrap();
    });
}
