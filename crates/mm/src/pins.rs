//! Pins: which pages of an object must stay in memory.
//!
//! # What it owns
//! Each mapping that is locked, or lies in a super-locked space, *pins* the pages of the object that it shows. A
//! [`Pins`] lies in each object, under its lock, and knows how many pins cover each page. It keeps the *edges*: the
//! pages at which a pin begins or ends. So its size and its cost depend on the pins, not on the pages that they cover.
//!
//! A pinned page takes room in its budget and in the total before anything is brought in: [`ObjectCore::pin`] reserves
//! it, or fails. A page that several mappings pin, in whatever spaces, takes room once.
//!
//! # Invariants
//! 1. An edge is in the list while a pin begins or ends there. Its `depth` is the number of pins that cover the pages
//!    from it to the next edge.
//! 2. The pages below [`ObjectState::counted`] that a pin covers are reserved in the object's budget and in the total.
//! 3. Only [`add`](Pins::add) and [`split`](Pins::split) take memory, before anything changes.
//! 4. A mapping is pinned exactly if it is locked or its space is super-locked, except while a thread with the space
//!    locked to write changes that. A [`PinGuard`] pins pages without a mapping.

use alloc::sync::Arc;

use crate::{
    Error, FaultError, Mmu, ObjectPage, ObjectSpan, Span, State,
    index::Index,
    object::{ObjectCore, ObjectState},
    order::Token,
};

/// A page at which pins begin or end.
#[derive(Debug)]
struct Edge {
    at: u64,
    /// How many pins begin or end here.
    ends: u64,
    depth: u64,
}

/// The pins of an object.
#[derive(Debug)]
pub(crate) struct Pins {
    edges: Index<Edge>,
}

impl Pins {
    pub(crate) const fn new() -> Self {
        Self { edges: Index::new() }
    }

    /// Whether a pin covers the page.
    pub(crate) fn covers(&self, page: ObjectPage) -> bool {
        self.depth(page.number()) > 0
    }

    /// The first page of `span` that a pin covers.
    pub(crate) fn first_covered(&self, span: ObjectSpan) -> Option<ObjectPage> {
        if span.is_empty() {
            return None;
        }
        if self.covers(span.first()) {
            return Some(span.first());
        }
        let inside = self.edges.from(span.first().number());
        let mut inside = inside.take_while(|edge| edge.at < span.end().number());
        inside.find(|edge| edge.depth > 0).map(|edge| ObjectPage::new(edge.at))
    }

    /// How many pages of `span` at least one pin covers.
    pub(crate) fn covered(&self, span: ObjectSpan) -> u64 {
        let (mut at, mut depth) = (span.first().number(), self.depth(span.first().number()));
        let mut covered = 0_u64;
        let mut pass = |to: u64, next: u64| {
            covered = covered.saturating_add(if depth > 0 { to.saturating_sub(at) } else { 0 });
            (at, depth) = (to, next);
        };
        let inside = self.edges.from(span.first().number());
        for edge in inside.take_while(|edge| edge.at < span.end().number()) {
            pass(edge.at, edge.depth);
        }
        pass(span.end().number(), 0);
        covered
    }

    /// Adds a pin of these pages.
    ///
    /// # Errors
    /// [`Error::NoMemory`]; then nothing has changed.
    pub(crate) fn add(&mut self, span: ObjectSpan) -> Result<(), Error> {
        self.add_edge(span.first(), 1)?;
        self.add_edge(span.end(), 1).inspect_err(|_| self.remove_edge(span.first(), 1))?;
        self.each_edge(span, |edge| edge.depth = edge.depth.saturating_add(1));
        Ok(())
    }

    /// Takes a pin of these pages out.
    pub(crate) fn remove(&mut self, span: ObjectSpan) {
        self.each_edge(span, |edge| edge.depth = edge.depth.saturating_sub(1));
        self.remove_edge(span.first(), 1);
        self.remove_edge(span.end(), 1);
    }

    /// Makes two pins of one: the second begins at `at`.
    ///
    /// # Errors
    /// [`Error::NoMemory`]; then nothing has changed.
    pub(crate) fn split(&mut self, at: ObjectPage) -> Result<(), Error> {
        self.add_edge(at, 2)
    }

    /// Makes one pin of two that meet at `at`.
    pub(crate) fn join(&mut self, at: ObjectPage) {
        self.remove_edge(at, 2);
    }

    fn depth(&self, at: u64) -> u64 {
        self.edges.at_or_before(at).map_or(0, |edge| edge.depth)
    }

    fn add_edge(&mut self, at: ObjectPage, ends: u64) -> Result<(), Error> {
        let at = at.number();
        if let Some(edge) = self.edges.at_or_before_mut(at).filter(|edge| edge.at == at) {
            edge.ends = edge.ends.saturating_add(ends);
            return Ok(());
        }
        self.edges.insert(at, Edge { at, ends, depth: self.depth(at) })
    }

    fn remove_edge(&mut self, at: ObjectPage, ends: u64) {
        let at = at.number();
        let edge = self.edges.at_or_before_mut(at).filter(|edge| edge.at == at);
        let Some(edge) = edge else { return };
        edge.ends = edge.ends.saturating_sub(ends);
        if edge.ends == 0 {
            self.edges.remove(at);
        }
    }

    /// Calls `change` for each edge from the first page of `span` on, below its end.
    fn each_edge(&mut self, span: ObjectSpan, mut change: impl FnMut(&mut Edge)) {
        let mut next = span.first().number();
        loop {
            let at = self.edges.from(next).next().map(|edge| edge.at);
            let Some(at) = at.filter(|at| *at < span.end().number()) else { return };
            if let Some(edge) = self.edges.at_or_before_mut(at) {
                change(edge);
            }
            next = at.saturating_add(1);
        }
    }
}

impl<M: Mmu> ObjectState<M> {
    /// How many pages of `span` are pinned and take room in the budgets.
    pub(crate) fn pinned(&self, span: ObjectSpan) -> u64 {
        let counted = Span::between(ObjectPage::new(0), ObjectPage::new(self.counted));
        self.pins.covered(span.intersection(&counted))
    }

    /// How many pages of `span` a pin would take room for.
    fn unpinned(&self, span: ObjectSpan) -> u64 {
        let counted = Span::between(ObjectPage::new(0), ObjectPage::new(self.counted));
        span.intersection(&counted).pages().0.saturating_sub(self.pinned(span))
    }
}

impl<M: Mmu> ObjectCore<M> {
    /// Pins pages, if they have room in the budgets. Pages past the object's end take none yet.
    ///
    /// # Errors
    /// [`Error::NoMemory`]; then nothing has changed.
    pub(crate) fn pin(
        &self,
        of_object: &mut ObjectState<M>,
        span: ObjectSpan,
    ) -> Result<(), Error> {
        let fresh = of_object.unpinned(span);
        self.reserve_pinned(fresh)?;
        of_object.pins.add(span).inspect_err(|_| self.give_back_pinned(fresh))
    }

    /// Ends a pin, and gives back the room of the pages that no other pin covers.
    pub(crate) fn unpin(&self, of_object: &mut ObjectState<M>, span: ObjectSpan) {
        let before = of_object.pinned(span);
        of_object.pins.remove(span);
        self.give_back_pinned(before.saturating_sub(of_object.pinned(span)));
    }

    /// Reserves room for `pages` pages that must stay, in the budget and in the total.
    ///
    /// # Errors
    /// [`Error::NoMemory`]: there is not so much left.
    fn reserve_pinned(&self, pages: u64) -> Result<(), Error> {
        if !self.budget.pinned.take(pages, self.budget.limit()) {
            return Err(Error::NoMemory);
        }
        if !self.manager.pinned.take(pages, self.manager.settings.budget.0) {
            self.budget.pinned.give_back(pages);
            return Err(Error::NoMemory);
        }
        Ok(())
    }

    fn give_back_pinned(&self, pages: u64) {
        self.budget.pinned.give_back(pages);
        self.manager.pinned.give_back(pages);
    }

    /// From now on, pinned pages below `end` take room. Those that took room before and lie behind give it back.
    ///
    /// # Errors
    /// [`Error::NoMemory`] if `end` is higher than before and there is not so much room; then nothing has changed.
    pub(crate) fn count_pins(
        &self,
        of_object: &mut ObjectState<M>,
        end: ObjectPage,
    ) -> Result<(), Error> {
        let before = ObjectPage::new(of_object.counted);
        let more = of_object.pins.covered(Span::between(before, end));
        let less = of_object.pins.covered(Span::between(end, before));
        self.reserve_pinned(more)?;
        self.give_back_pinned(less);
        of_object.counted = end.number();
        Ok(())
    }

    /// Brings in the pages of `span` that have to be in memory for a locked mapping, without translations to them.
    /// Nothing is locked. Pages past the end are left out, and of a lazy mapping those that were never accessed.
    ///
    /// # Errors
    /// The first page that could not be brought in, and why.
    pub(crate) fn bring_in(
        self: &Arc<Self>,
        span: ObjectSpan,
        lazy: bool,
    ) -> Result<(), (ObjectPage, FaultError)> {
        let mut nothing = Token::nothing_held();
        let mut rest = span;
        loop {
            let wanted = |page: &crate::page::PageEntry| page.touched;
            let next = match lazy {
                true => self.next_page(&mut nothing, rest, wanted),
                false => self.state.lock(&mut nothing).0.within(rest).iter().next(),
            };
            let Some(page) = next else { return Ok(()) };
            self.bring_page_in(page).map_err(|error| (page, error))?;
            rest = Span::between(ObjectPage::new(page.number().saturating_add(1)), span.end());
        }
    }

    fn bring_page_in(self: &Arc<Self>, page: ObjectPage) -> Result<(), FaultError> {
        let mut attempt = 0_u32;
        loop {
            let mut nothing = Token::nothing_held();
            let (mut of_object, _) = self.state.lock(&mut nothing);
            match of_object.page(page).map(|entry| entry.state) {
                None | Some(State::Clean | State::Dirty | State::Evicting) => return Ok(()),
                Some(State::Filling) => {
                    drop(of_object);
                    attempt = attempt.saturating_add(1);
                    self.manager.mmu.idle(attempt);
                }
                Some(State::Lost) => return Err(FaultError::Lost),
                Some(State::Absent | State::Compressed | State::Bad)
                    if of_object.discarding.is_some_and(|span| span.contains(page)) =>
                {
                    drop(of_object);
                    attempt = attempt.saturating_add(1);
                    self.manager.mmu.idle(attempt);
                }
                Some(State::Absent | State::Compressed | State::Bad) => {
                    let claim = of_object.claim(page, false)?;
                    drop(of_object);
                    match self.fill(claim, &mut None) {
                        // It is in memory, or will be. Or it was cut off meanwhile.
                        Ok(_) | Err(FaultError::PastEnd) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
    }
}

/// Pins pages for as long as it lives. It is made and dropped with nothing locked.
pub(crate) struct PinGuard<M: Mmu> {
    object: Arc<ObjectCore<M>>,
    span: ObjectSpan,
}

impl<M: Mmu> PinGuard<M> {
    /// Pins pages of `object`.
    ///
    /// # Errors
    /// As for [`ObjectCore::pin`].
    pub(crate) fn new(object: &Arc<ObjectCore<M>>, span: ObjectSpan) -> Result<Self, Error> {
        let mut nothing = Token::nothing_held();
        let (mut of_object, _) = object.state.lock(&mut nothing);
        object.pin(&mut of_object, span)?;
        drop(of_object);
        Ok(Self { object: Arc::clone(object), span })
    }
}

impl<M: Mmu> Drop for PinGuard<M> {
    fn drop(&mut self) {
        let mut nothing = Token::nothing_held();
        let (mut of_object, _) = self.object.state.lock(&mut nothing);
        self.object.unpin(&mut of_object, self.span);
    }
}

#[cfg(test)]
mod tests {
    use std::{vec, vec::Vec};

    use proptest::prelude::*;

    use super::Pins;
    use crate::{ObjectPage, ObjectSpan, Span};

    fn pages(first: u64, count: u64) -> ObjectSpan {
        Span::between(ObjectPage::new(first), ObjectPage::new(first + count))
    }

    proptest! {
        #[test]
        fn it_counts_what_a_list_of_pins_counts(
            steps in prop::collection::vec((0_u8..4, any::<prop::sample::Index>(), 0_u64..60, 1_u64..12), 0..200)
        ) {
            let (mut pins, mut list) = (Pins::new(), Vec::<ObjectSpan>::new());
            for (step, which, first, count) in steps {
                let place = if list.is_empty() { 0 } else { which.index(list.len()) };
                match step {
                    1 if !list.is_empty() => pins.remove(list.swap_remove(place)),
                    // As when a mapping is cut in two, and joined again if it is the second step.
                    2 | 3 if !list.is_empty() && list[place].pages().0 > 1 => {
                        let whole = list[place];
                        let at = ObjectPage::new(whole.first().number() + 1 + first % (whole.pages().0 - 1));
                        pins.split(at).unwrap();
                        if step == 2 {
                            list[place] = Span::between(whole.first(), at);
                            list.push(Span::between(at, whole.end()));
                        } else {
                            pins.join(at);
                        }
                    }
                    _ => {
                        pins.add(pages(first, count)).unwrap();
                        list.push(pages(first, count));
                    }
                }
                let covers = |page: &u64| list.iter().any(|span| span.contains(ObjectPage::new(*page)));
                for page in 0..72 {
                    prop_assert_eq!(pins.covers(ObjectPage::new(page)), covers(&page));
                }
                let expected = (first..first + count).filter(covers).count() as u64;
                prop_assert_eq!(pins.covered(pages(first, count)), expected);
                let mut ends: Vec<_> = list.iter().flat_map(|s| [s.first(), s.end()]).collect();
                ends.sort();
                ends.dedup();
                prop_assert_eq!(pins.edges.len(), ends.len());
            }
            for span in list {
                pins.remove(span);
            }
            prop_assert_eq!(pins.edges.len(), 0);
        }
    }

    /// A lock of many mappings costs as much as there are different ends among them, however large they are.
    #[test]
    fn equal_pins_take_two_edges() {
        let mut pins = Pins::new();
        let spans = vec![pages(0, 1 << 40); 10_000];
        spans.iter().for_each(|span| pins.add(*span).unwrap());
        assert_eq!((pins.edges.len(), pins.covered(pages(5, 10))), (2, 10));
        spans.iter().for_each(|span| pins.remove(*span));
        assert_eq!((pins.edges.len(), pins.covered(pages(5, 10))), (0, 0));
    }

    /// Mappings that are cut in two and joined again leave no edge behind.
    #[test]
    #[cfg(not(shuttle))]
    fn locks_that_come_in_pieces_and_go_at_once_leave_no_edge() {
        use crate::{
            Kind, Manager, MapRequest, Pages, Settings, VirtualPage, VirtualSpan, order::Token,
            soft::SoftMmu,
        };
        type Machine = SoftMmu<parking_lot::RawMutex, parking_lot::RawRwLock>;
        let machine = Machine::new(16, 100, |_| ());
        let manager = Manager::new(machine, Settings::default()).unwrap();
        let zeros = std::sync::Arc::new(crate::ZeroPager);
        let object = manager.object(Kind::Anonymous, Pages(8), zeros).unwrap();
        let span = |first, pages| VirtualSpan::new(VirtualPage::new(first), Pages(pages)).unwrap();
        let space = manager.space(span(0, 16)).unwrap();
        let at = space.map(&object, MapRequest::new(Pages(8))).unwrap();
        let edges = || {
            let mut nothing = Token::nothing_held();
            object.core.state.lock(&mut nothing).0.pins.edges.len()
        };
        for page in at.iter() {
            space.lock(span(page.number(), 1)).unwrap();
            assert_eq!(
                (edges(), space.totals().mappings),
                (2, if page.number() == 7 { 1 } else { 2 })
            );
        }
        space.unlock(span(3, 2)).unwrap();
        assert_eq!(edges(), 4);
        space.lock(span(3, 2)).unwrap();
        assert_eq!(edges(), 2);
        space.unlock_all();
        assert_eq!(edges(), 0);
        let privilege = space.io_privilege().unwrap();
        space.unmap(span(2, 1)).unwrap();
        assert_eq!(edges(), 4);
        drop(privilege);
        assert_eq!(edges(), 0);
    }
}
