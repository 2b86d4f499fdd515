//! Values in slots, and the slots in rings by class.
//!
//! Class 0 has no pages, class n has from 2^(n-1) to 2^n - 1. Within a ring the slots get turns. All operations take
//! constant time, but for the growth of the slab; only [`Rings::add`] takes memory.

use alloc::vec::Vec;

use crate::Error;

const NONE: u32 = u32::MAX;
const CLASSES: usize = 1 + u64::BITS as usize;

/// The class of a value with so many pages.
pub(crate) const fn class_of(pages: u64) -> u32 {
    u64::BITS - pages.leading_zeros()
}

/// The slots that are still to be visited.
#[derive(Debug)]
pub(crate) struct Walk {
    next: u32,
    pub(crate) left: u32,
}

/// Values in slots, and the slots in rings by class.
#[derive(Debug)]
pub(crate) struct Rings<T> {
    slots: Vec<Slot<T>>,
    /// The first free slot; `next` leads to the others.
    free: u32,
    /// The slot of each class whose turn is next.
    heads: [u32; CLASSES],
    /// Where the next walk begins.
    pub(crate) cursor: u32,
}

#[derive(Debug)]
struct Slot<T> {
    /// `None` if the slot is free.
    value: Option<T>,
    class: u32,
    before: u32,
    next: u32,
}

impl<T> Rings<T> {
    pub(crate) const fn new() -> Self {
        Self { slots: Vec::new(), free: NONE, heads: [NONE; CLASSES], cursor: 0 }
    }

    /// Puts a value into a slot, in class 0.
    pub(crate) fn add(&mut self, value: T) -> Result<u32, Error> {
        let index = match self.slots.get(self.free as usize) {
            Some(slot) => core::mem::replace(&mut self.free, slot.next),
            None => self.grow()?,
        };
        self.put(index, value);
        self.link(index, 0);
        Ok(index)
    }

    fn grow(&mut self) -> Result<u32, Error> {
        let index = u32::try_from(self.slots.len()).map_err(|_| Error::NoMemory)?;
        if index == NONE {
            return Err(Error::NoMemory);
        }
        self.slots.try_reserve(1)?;
        self.slots.push(Slot { value: None, class: 0, before: NONE, next: NONE });
        Ok(index)
    }

    pub(crate) fn put(&mut self, index: u32, value: T) {
        if let Some(slot) = self.slots.get_mut(index as usize) {
            slot.value = Some(value);
        }
    }

    pub(crate) fn remove(&mut self, index: u32) {
        self.unlink(index);
        let free = self.free;
        if let Some(slot) = self.slots.get_mut(index as usize) {
            slot.value = None;
            slot.next = free;
            self.free = index;
        }
    }

    pub(crate) fn sort(&mut self, index: u32, class: u32) {
        if self.slots.get(index as usize).is_some_and(|slot| slot.class != class) {
            self.unlink(index);
            self.link(index, class);
        }
    }

    /// The value whose turn is next in the highest class that has one, but class 0.
    pub(crate) fn turn(&mut self) -> Option<(u32, T)>
    where
        T: Clone,
    {
        let head = self.heads.iter_mut().skip(1).rev().find(|head| **head != NONE)?;
        let slot = self.slots.get(*head as usize)?;
        *head = slot.next;
        Some((slot.class, slot.value.clone()?))
    }

    pub(crate) fn walk(&self) -> Walk {
        Walk { next: self.cursor, left: u32::try_from(self.slots.len()).unwrap_or(NONE) }
    }

    /// The value of the walk's next slot, which may be free; `None` at the end.
    pub(crate) fn step(&self, walk: &mut Walk) -> Option<Option<&T>> {
        walk.left = walk.left.checked_sub(1)?;
        let index = if (walk.next as usize) < self.slots.len() { walk.next } else { 0 };
        walk.next = index.saturating_add(1);
        self.slots.get(index as usize).map(|slot| slot.value.as_ref())
    }

    /// Links a slot as the last of its class to get a turn.
    fn link(&mut self, index: u32, class: u32) {
        let Some(head) = self.heads.get_mut(class as usize) else { return };
        let next = if *head == NONE { index } else { *head };
        if *head == NONE {
            *head = index;
        }
        let last = self.slots.get(next as usize).map_or(index, |slot| slot.before);
        let last = if next == index { index } else { last };
        if let Some(slot) = self.slots.get_mut(index as usize) {
            (slot.class, slot.before, slot.next) = (class, last, next);
        }
        self.join(last, index);
        self.join(index, next);
    }

    fn unlink(&mut self, index: u32) {
        let Some(slot) = self.slots.get(index as usize) else { return };
        let (class, before, next) = (slot.class, slot.before, slot.next);
        self.join(before, next);
        if let Some(head) = self.heads.get_mut(class as usize)
            && *head == index
        {
            *head = if next == index { NONE } else { next };
        }
    }

    fn join(&mut self, one: u32, two: u32) {
        if let Some(slot) = self.slots.get_mut(one as usize) {
            slot.next = two;
        }
        if let Some(slot) = self.slots.get_mut(two as usize) {
            slot.before = one;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

    use alloc::sync::Arc;

    use super::*;

    fn turns(rings: &mut Rings<char>, count: usize) -> Vec<char> {
        (0..count).map_while(|_| rings.turn()).map(|(_, value)| value).collect()
    }

    #[test]
    fn a_class_doubles_the_one_before() {
        let classes = [0, 1, 2, 3, 4, 7, 8, u64::MAX].map(class_of);
        assert_eq!(classes, [0, 1, 2, 2, 3, 3, 4, 64]);
    }

    #[test]
    fn the_highest_class_gives_in_turns() {
        let mut rings = Rings::new();
        let [a, b, c, d] = ['a', 'b', 'c', 'd'].map(|value| rings.add(value).unwrap());
        assert_eq!(turns(&mut rings, 1), []);
        rings.sort(a, 3);
        rings.sort(b, 5);
        rings.sort(c, 5);
        rings.sort(d, 64);
        assert_eq!(turns(&mut rings, 3), ['d', 'd', 'd']);
        rings.sort(d, 5);
        assert_eq!(turns(&mut rings, 6), ['b', 'c', 'd', 'b', 'c', 'd']);
        rings.remove(b);
        rings.remove(d);
        assert_eq!(turns(&mut rings, 2), ['c', 'c']);
        rings.sort(c, 0);
        assert_eq!(turns(&mut rings, 2), ['a', 'a']);
        rings.remove(a);
        assert_eq!(turns(&mut rings, 1), []);
    }

    #[test]
    fn a_dropped_value_leaves_no_trace_and_its_slot_is_used_again() {
        let mut rings = Rings::new();
        let kept = Arc::new(());
        let slots = [(); 3].map(|()| rings.add(Arc::downgrade(&kept)).unwrap());
        for slot in slots {
            rings.remove(slot);
        }
        assert_eq!(Arc::weak_count(&kept), 0);
        let mut again = [(); 3].map(|()| rings.add(Arc::downgrade(&kept)).unwrap());
        again.sort_unstable();
        assert_eq!(again, slots);
    }

    #[test]
    fn a_walk_visits_each_slot_once_from_the_cursor_on() {
        let mut rings = Rings::new();
        for value in ['a', 'b', 'c', 'd'] {
            rings.add(value).unwrap();
        }
        rings.remove(1);
        for (cursor, order) in [(0, "acd"), (2, "cda"), (3, "dac"), (4, "acd"), (9, "acd")] {
            rings.cursor = cursor;
            let mut walk = rings.walk();
            let visited: alloc::string::String =
                core::iter::from_fn(|| rings.step(&mut walk)).flatten().collect();
            assert_eq!(visited, order);
        }
    }
}
