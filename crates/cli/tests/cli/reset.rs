//! `reset`, and the locks in the bytes of regions that `locks` and `stat` show.

use std::{mem, thread};

use commonhold::{
    Access, Mapping, Mutex, MutexGuard, OnceLock, Recovered, RwLock, Semaphore, SeqLock, Turn,
    records,
};
use serde_json::{Value, json};

use crate::support::{Space, ends, until};

records! {
    /// One lock of each kind that can be held.
    struct Family {
        mutex: Mutex<[u64; 2]>,
        rwlock: RwLock<u64>,
        seqlock: SeqLock<[u64; 4]>,
        once: OnceLock<u64>,
        semaphore: Semaphore<2>,
    }
}

const MUTEX: u64 = 64;
const RWLOCK: u64 = MUTEX + Mutex::<[u64; 2]>::SIZE;
const SEQLOCK: u64 = RWLOCK + RwLock::<u64>::SIZE;
const ONCE: u64 = SEQLOCK + SeqLock::<[u64; 4]>::SIZE;
const SEMAPHORE: u64 = ONCE + OnceLock::<u64>::SIZE;

/// The word of a free lock whose data are inconsistent.
const INCONSISTENT: u64 = 1 << 29;

/// The tag of a lock of this kind; the lock lies before the tag, and `size` bytes of data lie behind it.
const fn tag(kind: u64, size: u64) -> u64 {
    0x47_4154 << 40 | kind << 32 | size
}

/// A space with the region `x`, which this process maps.
fn mapped() -> (Space, Mapping) {
    let space = Space::new();
    space.ends(0, &["create", "x", "64K"]);
    let mapping = commonhold::Space::open(&space.url).unwrap();
    let mapping = mapping.map("x", Access::ReadWrite).unwrap();
    (space, mapping)
}

fn family(mapping: &Mapping) -> Family {
    mapping.open(MUTEX).unwrap()
}

/// All lines of `locks` about the lock at this offset.
fn of(space: &Space, offset: Option<u64>) -> Vec<Value> {
    let locks = space.json(&["locks"]).as_array().unwrap().clone();
    locks.into_iter().filter(|lock| lock["offset"] == json!(offset)).collect()
}

fn refused(space: &Space, code: i32, args: &[&str]) -> String {
    let output = space.run(args);
    ends(code, &output, args);
    String::from_utf8(output.stderr).unwrap()
}

/// Runs `act` in a thread, which ends even if it still holds a lock.
fn in_a_thread_that_ends(act: impl FnOnce() + Send + 'static) {
    thread::spawn(act).join().unwrap();
}

#[test]
fn a_reset_repairs_a_lock_that_is_inconsistent_or_unrecoverable() {
    let (space, mapping) = mapped();
    let me = std::process::id();
    for give_up in [false, true] {
        mapping.lock().unwrap().leave_inconsistent().unwrap();
        let mut kind = "inconsistent";
        if give_up {
            let Recovered::Inconsistent(guard) = mapping.lock_recover().unwrap() else {
                panic!("the lock does not say that its last owner left")
            };
            guard.give_up().unwrap();
            kind = "unrecoverable";
        }
        let lock = of(&space, None).remove(0);
        assert_eq!((lock["kind"].as_str(), lock["holder"].is_null()), (Some(kind), true));
        assert_eq!(lock["left_by"]["pid"], me, "{lock}");
        assert!(space.ends(0, &["ls"]).contains(&format!("{kind}, left by {me}")));
        assert!(space.ends(0, &["stat", "x"]).contains(&format!("{kind}, left by {me}")));
        let message = refused(&space, 8, &["lock", "x", "--", "true"]);
        assert!(message.contains(&format!("process {me} ")), "{message}");
        assert_eq!(message.contains("commonhold reset x"), give_up, "{message}");
        space.ends(0, &["reset", "x"]);
        assert_eq!(space.json(&["locks"]), json!([]));
        space.ends(0, &["lock", "x", "--timeout", "0", "--", "true"]);
    }
    let said = space.json(&["reset", "x"]);
    assert_eq!(said, json!({"region": "x", "offset": null, "record": null}));
}

#[test]
fn locks_in_the_bytes_of_a_region_are_listed_with_their_holders() {
    let (space, mapping) = mapped();
    let Family { mutex, rwlock, seqlock, once, semaphore } = family(&mapping);
    assert_eq!(space.json(&["locks"]), json!([]), "no lock was taken yet");
    // Data under a lock that look like an inconsistent lock.
    let held = mutex.lock().unwrap();
    held.set([INCONSISTENT, tag(1, 0)]);
    let reads = rwlock.read().unwrap();
    let writes = seqlock.write().unwrap();
    let Turn::Mine(makes) = once.begin().unwrap() else { panic!("it is already done") };
    let permit = semaphore.acquire().unwrap();

    let locks = space.json(&["locks"]);
    let short = |lock: &Value| {
        assert_eq!(lock["holder"]["pid"], std::process::id(), "{lock}");
        assert_eq!(lock["holder"]["alive"], true, "{lock}");
        json!([lock["offset"], lock["record"], lock["kind"]])
    };
    let short: Vec<_> = locks.as_array().unwrap().iter().map(short).collect();
    let all = json!([
        [MUTEX, "mutex", "exclusive"],
        [RWLOCK, "reader/writer lock", "shared"],
        [SEQLOCK, "sequence lock", "exclusive"],
        [ONCE, "once", "exclusive"],
        [SEMAPHORE, "semaphore", "permit"],
    ]);
    assert_eq!(Value::from(short), all);
    assert_eq!(space.json(&["stat", "x"])["locks"], locks);
    let text = space.ends(0, &["stat", "x"]);
    assert!(text.contains(&format!("at {MUTEX}: mutex, exclusive, ")), "{text}");
    // `ls` shows the regions' own locks only.
    assert!(space.ends(0, &["ls"]).lines().nth(1).unwrap().ends_with(" -"));

    drop((held, reads, writes, permit));
    makes.complete(&7).unwrap();
    assert_eq!(space.json(&["locks"]), json!([]), "a once that is done is not held");
}

#[test]
fn a_dead_holder_is_marked_and_a_reset_takes_the_lock_from_it() {
    let (space, mapping) = mapped();
    let theirs = family(&mapping);
    in_a_thread_that_ends(move || {
        mem::forget(theirs.mutex.lock().unwrap());
        mem::forget(theirs.rwlock.write().unwrap());
        let writer = theirs.seqlock.write().unwrap();
        writer.set([1; 4]);
        mem::forget(writer);
    });
    for (offset, record) in
        [(MUTEX, "mutex"), (RWLOCK, "reader/writer lock"), (SEQLOCK, "sequence lock")]
    {
        let lock = of(&space, Some(offset)).remove(0);
        assert_eq!(lock["kind"], "exclusive", "{lock}");
        assert_eq!(lock["holder"]["alive"], false, "{lock}");
        assert_eq!(lock["holder"]["pid"], std::process::id(), "{lock}");
        let table = space.ends(0, &["locks"]);
        let row = table.lines().find(|row| row.contains(&format!(" {offset} "))).unwrap();
        assert!(row.contains(&format!("pid {} (dead)", std::process::id())), "{table}");
        let said = space.json(&["reset", "x", "--offset", &offset.to_string()]);
        assert_eq!(said, json!({"region": "x", "offset": offset, "record": record}));
        assert_eq!(of(&space, Some(offset)), [] as [Value; 0]);
    }
    let mine = family(&mapping);
    drop(mine.mutex.lock().unwrap());
    drop(mine.rwlock.write().unwrap());
    assert_eq!(mine.seqlock.read().unwrap(), [1; 4]);
    drop(mine.seqlock.write().unwrap());
}

#[test]
fn inconsistent_and_unrecoverable_locks_in_the_bytes_are_listed_and_reset() {
    let (space, mapping) = mapped();
    let mine = family(&mapping);
    let given_up = |guard: Recovered<MutexGuard<'_, [u64; 2]>>| match guard {
        Recovered::Inconsistent(guard) => guard.give_up().unwrap(),
        Recovered::Consistent(_) => panic!("the lock does not say that its last owner left"),
    };
    mine.mutex.lock().unwrap().leave_inconsistent().unwrap();
    given_up(mine.mutex.lock_recover().unwrap());
    mine.rwlock.write().unwrap().leave_inconsistent().unwrap();
    let writer = mine.seqlock.write().unwrap();
    writer.set([1; 4]);
    writer.leave_inconsistent().unwrap();
    mine.semaphore.acquire().unwrap().leave_inconsistent().unwrap();
    for (offset, kind) in [
        (MUTEX, "unrecoverable"),
        (RWLOCK, "inconsistent"),
        (SEQLOCK, "inconsistent"),
        (SEMAPHORE, "inconsistent"),
    ] {
        let lock = of(&space, Some(offset)).remove(0);
        assert_eq!((lock["kind"].as_str(), lock["holder"].is_null()), (Some(kind), true), "{lock}");
        assert_eq!(lock["left_by"]["pid"], std::process::id(), "{lock}");
        assert_eq!(lock["left_by"]["alive"], true, "{lock}");
    }
    for offset in [MUTEX, RWLOCK, SEQLOCK] {
        space.ends(0, &["reset", "x", "--offset", &offset.to_string()]);
    }
    drop(mine.mutex.lock().unwrap());
    drop(mine.rwlock.read().unwrap());
    assert_eq!(mine.seqlock.read().unwrap(), [1; 4]);
    let message = refused(&space, 2, &["reset", "x", "--offset", &SEMAPHORE.to_string()]);
    assert!(message.contains("semaphore"), "{message}");
}

#[test]
fn a_lock_with_a_living_holder_is_not_reset_and_the_holder_is_named() {
    let (space, mapping) = mapped();
    let mine = family(&mapping);
    let mut message;
    let name = format!("process {}", std::process::id());
    {
        let _held = (mapping.lock().unwrap(), mine.mutex.lock().unwrap());
        let _held = (mine.rwlock.read().unwrap(), mine.seqlock.write().unwrap());
        let all = [None, Some(MUTEX), Some(RWLOCK), Some(SEQLOCK)];
        for offset in all.map(|offset| offset.map(|offset| offset.to_string())) {
            let mut args = vec!["reset", "x"];
            args.extend(offset.iter().flat_map(|offset| ["--offset", offset]));
            message = refused(&space, 6, &args);
            assert!(message.contains(&name), "{message}");
        }
    }
    let _reads = mapping.read_lock().unwrap();
    message = refused(&space, 6, &["reset", "x"]);
    assert!(message.contains(&name), "{message}");
}

#[test]
fn an_offset_without_a_lock_cannot_be_reset() {
    let (space, mapping) = mapped();
    let _mine = family(&mapping);
    refused(&space, 3, &["reset", "none"]);
    refused(&space, 3, &["reset", "none", "--offset", "64"]);
    for offset in ["0", "72", "32768"] {
        let message = refused(&space, 3, &["reset", "x", "--offset", offset]);
        assert!(message.contains(&format!("offset {offset}")), "{message}");
    }
    for offset in ["65", "65536", "16M"] {
        refused(&space, 2, &["reset", "x", "--offset", offset]);
    }
}

/// A tag is 24 bits of marker, a kind and a size, so data may look like a tag. Before each of these words there is no
/// possible lock word, or the lock would not fit into the region.
#[test]
fn data_that_look_like_tags_are_not_listed_and_hide_no_lock() {
    let (space, mapping) = mapped();
    let owner = |peer: u64| 7 << 32 | INCONSISTENT | peer;
    for (index, [word, tag]) in [
        // An owner in a peer slot that does not exist; an owner in a thread slot that does not exist.
        [owner(0x0fff), tag(1, 8)],
        [owner(0) | 0x0fff << 16, tag(1, 8)],
        // A word that no lock has, and the bias of a kind of lock that is never biased.
        [12345, tag(1, 8)],
        [1 << 15 | 9 << 32, tag(3, 8)],
        // Data that end outside the region, permits that are not whole words, and a kind that does not exist.
        [owner(0), tag(1, 1 << 20)],
        [owner(0), tag(5, 12)],
        [owner(0), tag(9, 8)],
    ]
    .into_iter()
    .enumerate()
    {
        mapping.set(1024 + 64 * index as u64, &[word, tag]).unwrap();
    }
    let after: Mutex<u64> = mapping.open(4096).unwrap();
    after.lock().unwrap().leave_inconsistent().unwrap();
    let locks = space.json(&["locks"]);
    assert_eq!(locks.as_array().unwrap().len(), 1, "{locks}");
    assert_eq!(locks[0]["offset"], 4096);
}

/// Searching a large region that is mostly holes takes no memory, and finds a lock at its end.
#[test]
fn a_large_region_with_holes_is_searched_only_where_it_has_memory() {
    let (space, _) = mapped();
    space.ends(0, &["create", "large", "8G", "--lazy"]);
    let shared = commonhold::Space::open(&space.url).unwrap();
    let large = shared.map("large", Access::ReadWrite).unwrap();
    let mutex: Mutex<u64> = large.open(large.size() - Mutex::<u64>::SIZE).unwrap();
    mutex.lock().unwrap().leave_inconsistent().unwrap();
    let memory = || {
        use std::os::unix::fs::MetadataExt as _;
        std::fs::File::from(shared.duplicate_fd().unwrap()).metadata().unwrap().blocks()
    };
    let before = memory();
    let lock = of(&space, Some(large.size() - Mutex::<u64>::SIZE)).remove(0);
    assert_eq!(lock["kind"], "inconsistent");
    assert_eq!(memory(), before, "the search has taken memory");
}

#[test]
fn a_waiter_for_a_lock_without_a_tag_is_listed() {
    let (space, mapping) = mapped();
    let mutex = mapping.mutex(8).unwrap();
    let held = mutex.lock().unwrap();
    let theirs = mapping.clone();
    let waiter = thread::spawn(move || drop(theirs.mutex(8).unwrap().lock().unwrap()));
    until("the waiter", || of(&space, Some(8)).first().is_some_and(|lock| lock["waiters"] == 1));
    assert_eq!(of(&space, Some(8))[0]["record"], Value::Null);
    drop(held);
    waiter.join().unwrap();
}
