//! Which pages of a space show which pages of an object.

use crate::{ObjectPage, ObjectSpan, Page, Span, VirtualPage, VirtualSpan};

/// The pages of a mapping: in the space, and in the object from `first` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) at: VirtualSpan,
    pub(crate) first: ObjectPage,
}

impl Extent {
    /// The pages of the object that it shows.
    pub(crate) fn of_object(&self) -> ObjectSpan {
        Span::between(self.first, self.first.plus(self.at.pages().0))
    }

    /// The page of the object that is shown at `at`, which lies in the mapping.
    #[inline]
    pub(crate) fn page(&self, at: VirtualPage) -> ObjectPage {
        self.first.plus(at.number().saturating_sub(self.at.first().number()))
    }

    /// The page of the space that shows `page`, which the mapping shows.
    pub(crate) fn place(&self, page: ObjectPage) -> VirtualPage {
        self.at.first().plus(page.number().saturating_sub(self.first.number()))
    }

    /// The pages of the space that show `pages`, all of which the mapping shows.
    pub(crate) fn places(&self, pages: &ObjectSpan) -> VirtualSpan {
        let first = self.place(pages.first());
        Span::between(first, first.plus(pages.pages().0))
    }
}
