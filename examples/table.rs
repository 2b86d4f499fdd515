//! A hash table of counters that processes share, with a lock for each bucket.
//!
//!     cargo run --example table -- add apples 3
//!     cargo run --example table -- get apples
//!
//! An entry is in the table once `used` includes it, and a count is one word, written by a single store. So a process
//! that dies while it holds the lock of a bucket leaves the bucket whole, and there is nothing to repair.
#![allow(clippy::print_stdout, reason = "what a program is for")]

use std::{
    env,
    error::Error,
    hash::{DefaultHasher, Hash, Hasher},
};

use commonhold::{Mutex, MutexGuard, Records, Space, field, plain};

const BUCKETS: usize = 256;
const ENTRIES: usize = 15;

plain! {
    struct Entry { key: u64, count: u64 }
}

plain! {
    struct Bucket { used: u64, entries: [Entry; ENTRIES] }
}

struct Table {
    buckets: Records<Mutex<Bucket>>,
}

impl Table {
    fn open(space: &Space) -> Result<Self, Box<dyn Error>> {
        let table = space.map_or_create("table", BUCKETS as u64 * Mutex::<Bucket>::SIZE)?;
        Ok(Self { buckets: table.open_array(0, BUCKETS)? })
    }

    /// Adds to the count of a key. Returns the new count.
    fn add(&self, key: &str, by: u64) -> Result<u64, Box<dyn Error>> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let key = hasher.finish();
        let bucket = self.buckets.get(usize::try_from(key % BUCKETS as u64)?)?;
        let bucket = bucket.lock_repairing(|_| Ok(()))?;
        let index = place(&bucket, key)?;
        let entry = bucket.field(field!(Bucket, entries)).at(index)?;
        let count = entry.field(field!(Entry, count));
        count.with_mut(|count| *count += by);
        Ok(count.get())
    }
}

/// The index of a key in its bucket; the key is inserted if it is not there.
fn place(bucket: &MutexGuard<'_, Bucket>, key: u64) -> Result<usize, Box<dyn Error>> {
    let used = bucket.field(field!(Bucket, used));
    let entries = bucket.field(field!(Bucket, entries));
    let known =
        entries.slice(..usize::try_from(used.get())?)?.iter().position(|entry| entry.key == key);
    if let Some(index) = known {
        return Ok(index);
    }
    let index = usize::try_from(used.get())?;
    entries.at(index).map_err(|_| "the bucket is full")?.set(Entry { key, count: 0 });
    used.set(used.get() + 1);
    Ok(index)
}

fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("COMMONHOLD_SPACE").unwrap_or("shm:default".into());
    let table = Table::open(&Space::open_or_format(&url)?)?;
    let words: Vec<String> = env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["add", key, times] => (0..times.parse()?).try_for_each(|_| table.add(key, 1).map(drop)),
        ["get", key] => table.add(key, 0).map(|count| println!("{count}")),
        _ => Err("table add KEY TIMES, or table get KEY".into()),
    }
}
