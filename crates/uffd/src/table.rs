//! The mappings and poisoned pages of a space, as plain data.
//!
//! # Invariants
//! 1. Parts do not overlap. Each shows consecutive pages of one object, with one protection.
//! 2. A page is in `poisoned` from its poisoning until it is mapped or healed, or its part is taken out.

use std::collections::{BTreeMap, BTreeSet};

use commonhold_mm::{ObjectPage, Page, Pages, Protection, Span, VirtualPage, VirtualSpan};

/// Pages of an object, in a space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) at: VirtualSpan,
    /// The object's number.
    pub(crate) object: u64,
    pub(crate) first: ObjectPage,
    pub(crate) protection: Protection,
}

impl Part {
    /// This part, cut to `span`; it may have no pages left.
    fn within(&self, span: &VirtualSpan) -> Self {
        let at = self.at.intersection(span);
        let skipped = at.first().number().saturating_sub(self.at.first().number());
        Self { at, first: self.first.plus(skipped), ..*self }
    }

    /// Whether it shows the object's pages at the places where they lie if `first` lies at the beginning of `span`.
    fn is_of(&self, span: &VirtualSpan, object: u64, first: ObjectPage) -> bool {
        let here = self.at.first().number().wrapping_sub(self.first.number());
        let there = span.first().number().wrapping_sub(first.number());
        self.object == object && here == there
    }
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    /// The parts by their first pages.
    parts: BTreeMap<u64, Part>,
    pub(crate) poisoned: BTreeSet<VirtualPage>,
}

impl Table {
    /// The parts that show something in `span`, each cut to it.
    pub(crate) fn parts_in(&self, span: VirtualSpan) -> impl Iterator<Item = Part> {
        let before = self.parts.range(..span.first().number()).next_back();
        let within = self.parts.range(span.first().number()..span.end().number());
        let parts = before.into_iter().chain(within).map(move |(_, part)| part.within(&span));
        parts.filter(|part| !part.at.is_empty())
    }

    /// Where `span` shows the object's pages from `first` on, with `first` at its beginning.
    pub(crate) fn shown(
        &self,
        span: VirtualSpan,
        object: u64,
        first: ObjectPage,
    ) -> impl Iterator<Item = VirtualSpan> {
        let ours = move |part: &Part| part.is_of(&span, object, first);
        self.parts_in(span).filter(ours).map(|part| part.at)
    }

    /// The part that shows `at`.
    pub(crate) fn part_at(&self, at: VirtualPage) -> Option<Part> {
        let (_, part) = self.parts.range(..=at.number()).next_back()?;
        part.at.contains(at).then_some(*part)
    }

    /// Whether something is shown at `at`.
    pub(crate) fn shows(&self, at: VirtualPage) -> bool {
        self.part_at(at).is_some()
    }

    /// Adds a part where there is none.
    pub(crate) fn add(&mut self, part: Part) {
        self.parts.insert(part.at.first().number(), part);
    }

    /// Takes out everything that is shown in `span`.
    pub(crate) fn take_out(&mut self, span: VirtualSpan) {
        self.cut(span.first());
        self.cut(span.end());
        let (first, end) = (span.first(), span.end());
        while let Some((&key, _)) = self.parts.range(first.number()..end.number()).next() {
            self.parts.remove(&key);
        }
        while let Some(&at) = self.poisoned.range(first..end).next() {
            self.poisoned.remove(&at);
        }
    }

    /// Sets the protection of everything that is shown in `span`.
    pub(crate) fn protect(&mut self, span: VirtualSpan, protection: Protection) {
        self.cut(span.first());
        self.cut(span.end());
        let inside = self.parts.range_mut(span.first().number()..span.end().number());
        inside.for_each(|(_, part)| part.protection = protection);
    }

    /// Cuts parts so that none reaches across `at`.
    fn cut(&mut self, at: VirtualPage) {
        let Some((_, part)) = self.parts.range_mut(..at.number()).next_back() else { return };
        if part.at.contains(at) {
            let whole = *part;
            part.at = Span::between(whole.at.first(), at);
            self.add(whole.within(&Span::between(at, whole.at.end())));
        }
    }
}

/// How many bytes `pages` take; `None` if these are more than a `usize` can hold.
pub(crate) fn bytes(pages: Pages, page_size: usize) -> Option<usize> {
    usize::try_from(pages.0).ok()?.checked_mul(page_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(first: u64, pages: u64) -> VirtualSpan {
        Span::new(VirtualPage::new(first), Pages(pages)).unwrap()
    }

    #[test]
    fn parts_are_cut_at_the_ends_of_a_span_that_is_taken_out_or_protected() {
        let mut table = Table::default();
        let (protection, first) = (Protection::ReadWrite, ObjectPage::new(100));
        table.add(Part { at: span(10, 10), object: 7, first, protection });
        table.poisoned.insert(VirtualPage::new(12));
        table.take_out(span(12, 3));
        table.protect(span(17, 9), Protection::Read);
        let parts: Vec<_> = table.parts_in(span(0, 50)).collect();
        let part = |at, first, protection| Part {
            at,
            object: 7,
            first: ObjectPage::new(first),
            protection,
        };
        assert_eq!(
            parts,
            [
                part(span(10, 2), 100, protection),
                part(span(15, 2), 105, protection),
                part(span(17, 3), 107, Protection::Read)
            ]
        );
        assert!(table.poisoned.is_empty());
        assert!(table.shows(VirtualPage::new(15)) && !table.shows(VirtualPage::new(14)));
    }

    #[test]
    fn pages_of_another_object_or_at_another_place_are_not_shown() {
        let mut table = Table::default();
        let (protection, first) = (Protection::Read, ObjectPage::new(3));
        table.add(Part { at: span(10, 4), object: 1, first, protection });
        table.add(Part { at: span(14, 4), object: 2, first, protection });
        let shown =
            |at, object, first| table.shown(at, object, ObjectPage::new(first)).collect::<Vec<_>>();
        assert_eq!(shown(span(8, 20), 1, 1), [span(10, 4)]);
        assert_eq!(shown(span(12, 1), 1, 5), [span(12, 1)]);
        assert_eq!(shown(span(12, 1), 1, 4), []);
        assert_eq!(shown(span(12, 1), 2, 5), []);
    }
}
