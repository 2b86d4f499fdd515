//! Everything at once: threads touch memory while others evict, lock, protect, cut and map.

use super::*;

/// Pages that all threads write to; each thread has a word of its own in each page.
const PAGES: u64 = 48;
/// Pages behind them, which are cut off and added again.
const TAIL: u64 = 16;
const WRITERS: u64 = 3;
/// How often writers go over all pages at least, and how many disturbances they wait for.
const ROUNDS: u64 = 30;
const TURNS: u64 = 150;
/// Where the object is mapped for writers, for readers, and now and then.
const WRITTEN: u64 = 0;
const READ: u64 = 100;
const FLEETING: u64 = 200;

/// Writes to all pages, in an order of its own, and reads what it wrote before, in both mappings. Returns how often
/// it went over them.
fn write_and_read(space: &PagedSpace, number: u64, turns: &AtomicU64) -> u64 {
    for round in 1.. {
        if round > ROUNDS && turns.load(Ordering::Relaxed) >= TURNS {
            return round - 1;
        }
        for step in 0..PAGES {
            let page = (step * 5 + number * 16) % PAGES;
            let written = word(space, WRITTEN + page, number);
            let read = word(space, READ + page, number);
            let before = if round == 1 { 0 } else { (round - 1) << 16 | page };
            assert_eq!(written.load(Ordering::Relaxed), before, "page {page}, round {round}");
            written.store(round << 16 | page, Ordering::Relaxed);
            assert_eq!(read.load(Ordering::Relaxed), round << 16 | page);
        }
    }
    unreachable!("rounds have no end")
}

/// Does operations, one after the other, that must not affect the writers.
fn disturb(paging: &Paging, space: &PagedSpace, object: &Object<UffdMmu>, turn: u64) {
    // Each round of eight turns undoes its changes.
    let first = turn / 8 % (PAGES - 4);
    let (part, readable) = (span(WRITTEN + first, 4), span(READ + first, 4));
    match turn % 8 {
        0 => drop(paging.manager().page_out(Pages(PAGES))),
        1 => space.lock(part).unwrap(),
        2 => space.unlock(part).unwrap(),
        3 => space.protect(readable, Protection::Read).unwrap(),
        4 => space.protect(readable, Protection::ReadWrite).unwrap(),
        5 => drop(object.sync(Span::new(ObjectPage::new(0), Pages(PAGES)).unwrap()).unwrap()),
        6 => {
            object.resize(Pages(PAGES)).unwrap();
            object.resize(Pages(PAGES + TAIL)).unwrap();
            let tail = WRITTEN + PAGES + turn % TAIL;
            assert_eq!(get(space, tail), 0, "what was cut off came back");
            put(space, tail, turn);
        }
        _ => {
            let request = MapRequest { offset: ObjectPage::new(turn % 8), ..fixed(FLEETING, 8) };
            space.map(object, request).unwrap();
            let _ = get(space, FLEETING + turn % 7);
            space.unmap(span(FLEETING, 8)).unwrap();
        }
    }
}

fn all_at_once(pages: u64, residency: impl Fn(&PagedSpace, u64) + Sync) {
    let Some(paging) = start(budget(pages)) else { return };
    let file = file_in_memory();
    let pager = pager_of(&file);
    let object = paging.manager().object(Kind::Anonymous, Pages(PAGES + TAIL), pager).unwrap();
    let space = paging.space(Pages(256)).unwrap();
    space.map(&object, fixed(WRITTEN, PAGES + TAIL)).unwrap();
    space.map(&object, fixed(READ, PAGES)).unwrap();
    let (left, turns) = (AtomicU64::new(WRITERS), AtomicU64::new(0));
    let rounds: Vec<u64> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| {
                let (space, left, turns) = (&space, &left, &turns);
                scope.spawn(move || {
                    // Runs also if the thread panics, so that the others end.
                    let _ending = Ending(|| {
                        left.fetch_sub(1, Ordering::Relaxed);
                    });
                    write_and_read(space, number + 2, turns)
                })
            })
            .collect();
        let _ending = Ending(|| turns.store(TURNS, Ordering::Relaxed));
        for turn in 0.. {
            if left.load(Ordering::Relaxed) == 0 {
                break;
            }
            disturb(&paging, &space, &object, turn);
            residency(&space, turn);
            turns.fetch_add(1, Ordering::Relaxed);
        }
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    // A thread that faulted goes on a moment before its pulse is off the list.
    while paging.manager().pulses() > 0 {
        std::thread::yield_now();
    }
    space.unlock_all();
    object.sync(Span::new(ObjectPage::new(0), Pages(PAGES)).unwrap()).unwrap();
    for (number, rounds) in (2..).zip(rounds) {
        for page in 0..PAGES {
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, page * page_size() + number * 8).unwrap();
            assert_eq!(u64::from_le_bytes(bytes), rounds << 16 | page);
        }
    }
    let (faults, totals) = (space.totals().faults, object.totals());
    let raced = totals.evicted > 0 && totals.written > 0 && faults.fast + faults.pulsed > PAGES;
    assert!(raced, "nothing raced: {faults:?}, {totals:?}");
}

/// Calls a function when it is dropped, also by a panic.
pub(super) struct Ending<F: FnMut()>(pub(super) F);

impl<F: FnMut()> Drop for Ending<F> {
    fn drop(&mut self) {
        self.0();
    }
}

#[test]
fn threads_find_what_they_wrote_with_memory_for_half_of_it() {
    all_at_once(PAGES / 2, |_, _| ());
}

#[test]
fn threads_find_what_they_wrote_while_the_space_is_super_locked_and_unlocked() {
    let held = std::sync::Mutex::new(None);
    all_at_once(1000, |space, turn| match turn % 32 {
        3 => *held.lock().unwrap() = Some(space.io_privilege().unwrap()),
        19 => *held.lock().unwrap() = None,
        _ => {}
    });
}
