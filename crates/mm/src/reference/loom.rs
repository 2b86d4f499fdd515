//! The walk under loom: walks interleaved with changes to the mappings of a space, with a bounded number of
//! preemptions. Run with `RUSTFLAGS="--cfg loom" cargo test -p commonhold-mm --release --lib loom`.
//!
//! The main thread acts as the holder of the space's lock: it alone links, unlinks, allocates and frees, in the
//! order of `map.rs`, `unmap.rs` and `space.rs`. The other threads walk. Each walk is checked:
//! 1. Everything it visits is, or was, a mapping of this list.
//! 2. It visits every page that is shown from before its beginning until after its end.

use std::{
    println,
    sync::atomic::{AtomicU64 as Tally, Ordering::Relaxed},
    vec::Vec,
};

use ::loom::thread::{self, JoinHandle};

use super::List;
use crate::{
    ObjectPage, Page, Pages, VirtualPage, VirtualSpan,
    slots::{Extent, FreeList, SlotId, Slots},
};

type Shared<T> = std::sync::Arc<T>;

/// Loom's search, with so few preemptions that it ends in minutes; `LOOM_MAX_PREEMPTIONS` overrides the number.
/// Prints how many interleavings it tried (`--nocapture` shows it).
fn check(preemptions: usize, scenario: impl Fn() + Sync + Send + 'static) {
    let mut model = ::loom::model::Builder::new();
    if model.preemption_bound.is_none() {
        model.preemption_bound = Some(preemptions);
    }
    model.max_branches = 10_000;
    let ways = Shared::new(Tally::new(0));
    let counted = Shared::clone(&ways);
    model.check(move || {
        counted.fetch_add(1, Relaxed);
        scenario();
    });
    let name = std::thread::current().name().map(std::string::ToString::to_string);
    println!("{}: {} interleavings", name.unwrap_or_default(), ways.load(Relaxed));
}

/// `pages` pages of the space from `at` on, which show the object's pages from `10 * at` on.
fn extent(at: u64, pages: u64) -> Extent {
    let span = VirtualSpan::new(VirtualPage::new(at), Pages(pages)).unwrap();
    Extent { at: span, first: ObjectPage::new(at * 10) }
}

/// A space that maps two objects.
struct Space {
    slots: Shared<Slots>,
    free: FreeList,
    /// The mappings of the object that is walked.
    list: Shared<List>,
    /// The mappings of the other object.
    other: Shared<List>,
}

impl Space {
    /// A space with one free slot, which still has the contents of a mapping of the other object.
    fn new() -> Self {
        let slots = Shared::new(Slots::new());
        let list = || Shared::new(List::new(Shared::clone(&slots), false));
        let (list, other) = (list(), list());
        let mut space = Self { slots, free: FreeList::default(), list, other };
        let stale = space.map_other(extent(900, 9));
        space.other.unlink(stale);
        space.slots.free(&mut space.free, stale);
        space
    }

    fn allocate(&mut self, extent: Extent) -> SlotId {
        self.slots.allocate(&mut self.free, extent).unwrap()
    }

    fn map(&mut self, extent: Extent) -> SlotId {
        let slot = self.allocate(extent);
        self.list.link(slot);
        slot
    }

    fn map_other(&mut self, extent: Extent) -> SlotId {
        let slot = self.allocate(extent);
        self.other.link(slot);
        slot
    }

    fn unmap(&mut self, slot: SlotId) {
        self.list.unlink(slot);
        self.slots.free(&mut self.free, slot);
    }

    fn split(&mut self, slot: SlotId, head: u64, tail: Extent) -> SlotId {
        let new = self.allocate(tail);
        self.list.link_after(slot, new);
        self.slots.get(slot).unwrap().set_pages(head);
        new
    }

    fn join(&mut self, slot: SlotId, pages: u64, next: SlotId) {
        self.slots.get(slot).unwrap().set_pages(pages);
        self.unmap(next);
    }

    /// A walk in a thread. It must visit only extents in `allowed`, and every page that `always` shows.
    fn walker<const N: usize, const K: usize>(
        &self,
        allowed: [Extent; N],
        always: [Extent; K],
    ) -> JoinHandle<()> {
        let list = Shared::clone(&self.list);
        thread::spawn(move || {
            let mut visited = Vec::new();
            list.walk(|extent, _| {
                assert!(allowed.contains(&extent), "{extent:?} was never a mapping of this object");
                visited.push(extent);
            });
            for page in always.iter().flat_map(|extent| extent.of_object().iter()) {
                let seen = visited.iter().any(|extent| extent.of_object().contains(page));
                assert!(seen, "{page:?} is missing in {visited:?}");
            }
        })
    }
}

#[test]
fn a_slot_reused_by_another_object_is_not_visited() {
    check(4, || {
        let mut space = Space::new();
        let (stays, goes) = (extent(1, 2), extent(11, 3));
        space.map(stays);
        let slot = space.map(goes);
        let walker = space.walker([stays, goes], [stays]);
        space.unmap(slot);
        // The first reuses the slot that was just freed, unless the walk stands on it; the second takes another.
        space.map_other(extent(21, 4));
        space.map_other(extent(31, 5));
        walker.join().unwrap();
    });
}

#[test]
fn a_walk_that_stands_on_the_last_mapping_does_not_stray_onto_the_free_list() {
    check(4, || {
        let mut space = Space::new();
        let (goes, stays) = (extent(1, 2), extent(11, 3));
        let slot = space.map(goes);
        space.map(stays);
        let walker = space.walker([stays, goes], [stays]);
        space.unmap(slot);
        space.map_other(extent(21, 4));
        walker.join().unwrap();
    });
}

#[test]
fn a_slot_reused_by_the_same_object_shows_its_old_or_its_new_mapping() {
    check(4, || {
        let mut space = Space::new();
        let (stays, goes, comes) = (extent(1, 2), extent(11, 3), extent(21, 4));
        space.map(stays);
        let slot = space.map(goes);
        let walker = space.walker([stays, goes, comes], [stays]);
        space.unmap(slot);
        space.map(comes);
        walker.join().unwrap();
    });
}

#[test]
fn two_walks_both_keep_the_slot_they_stand_on() {
    check(2, || {
        let mut space = Space::new();
        let (stays, goes) = (extent(1, 2), extent(11, 3));
        space.map(stays);
        let slot = space.map(goes);
        let walkers = [(); 2].map(|()| space.walker([stays, goes], [stays]));
        space.unmap(slot);
        space.map_other(extent(21, 4));
        for walker in walkers {
            walker.join().unwrap();
        }
    });
}

#[test]
fn a_mapping_that_is_split_is_visited_whole() {
    check(4, || {
        let mut space = Space::new();
        let (whole, before) = (extent(1, 4), extent(11, 3));
        let tail = Extent { at: extent(3, 2).at, first: whole.first.plus(2) };
        let slot = space.map(whole);
        space.map(before);
        let walker = space.walker([whole, extent(1, 2), tail, before], [whole, before]);
        space.split(slot, 2, tail);
        walker.join().unwrap();
    });
}

#[test]
fn mappings_that_are_joined_are_visited_whole() {
    check(4, || {
        let mut space = Space::new();
        let whole = extent(1, 4);
        let tail = Extent { at: extent(3, 2).at, first: whole.first.plus(2) };
        let slot = space.map(whole);
        let next = space.split(slot, 2, tail);
        let walker = space.walker([whole, extent(1, 2), tail], [whole]);
        space.join(slot, 4, next);
        space.map_other(extent(21, 4));
        walker.join().unwrap();
    });
}

#[test]
fn a_mapping_whose_head_goes_after_a_split_keeps_its_tail() {
    check(4, || {
        let mut space = Space::new();
        let (whole, comes) = (extent(1, 4), extent(21, 4));
        let tail = Extent { at: extent(3, 2).at, first: whole.first.plus(2) };
        let slot = space.map(whole);
        let walker = space.walker([whole, extent(1, 2), tail, comes], [tail]);
        space.split(slot, 2, tail);
        space.unmap(slot);
        space.map(comes);
        walker.join().unwrap();
    });
}
