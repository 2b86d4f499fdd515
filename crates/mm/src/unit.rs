//! Pages, counts of pages, and spans of pages.
//!
//! # Invariants
//! 1. A page number is at most [`LIMIT`], or it is [`LIMIT`]` + 1`, which names no page. So sums of numbers and counts
//!    cannot overflow. [`Span::new`] makes no span that ends above [`LIMIT`].
//! 2. A page of an address space and a page of an object are different types.

/// The greatest page number, and the greatest end of a span: 2^52 pages.
pub const LIMIT: u64 = 1 << 52;

/// The number of all pages above [`LIMIT`]. No space and no object has such a page.
const BEYOND: u64 = LIMIT + 1;

/// A number of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Pages(pub u64);

/// A page by its number.
pub trait Page: Copy + Ord {
    /// The page with this number. All numbers above [`LIMIT`] become `LIMIT + 1`.
    fn from_number(number: u64) -> Self;

    /// Its number, at most `LIMIT + 1`.
    fn number(self) -> u64;

    /// The page `pages` further on.
    #[must_use]
    fn plus(self, pages: u64) -> Self {
        Self::from_number(self.number().saturating_add(pages))
    }
}

macro_rules! page {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// The page with this number. All numbers above [`LIMIT`] become `LIMIT + 1`: no space and no object has
            /// that page, and no operation takes a span that contains it.
            #[inline]
            #[must_use]
            pub const fn new(number: u64) -> Self {
                Self(if number > LIMIT { BEYOND } else { number })
            }

            /// Its number, at most `LIMIT + 1`.
            #[inline]
            #[must_use]
            pub const fn number(self) -> u64 {
                self.0
            }
        }

        impl Page for $name {
            #[inline]
            fn from_number(number: u64) -> Self {
                Self::new(number)
            }

            #[inline]
            fn number(self) -> u64 {
                self.0
            }
        }
    };
}

page! {
    /// A page of an address space, by its number: its address divided by the size of a page.
    VirtualPage
}

page! {
    /// A page of an object, by its number from the object's start.
    ObjectPage
}

/// Consecutive pages; none, if the count is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span<P> {
    first: P,
    pages: u64,
}

/// Pages of an address space.
pub type VirtualSpan = Span<VirtualPage>;

/// Pages of an object.
pub type ObjectSpan = Span<ObjectPage>;

impl<P: Page> Span<P> {
    /// `pages` pages from `first` on; `None` if they end above [`LIMIT`].
    #[inline]
    #[must_use]
    pub fn new(first: P, pages: Pages) -> Option<Self> {
        let room = LIMIT.checked_sub(first.number())?;
        (pages.0 <= room).then_some(Self { first, pages: pages.0 })
    }

    /// The pages from `first` up to, and without, `end`; none if `end` is not above `first`.
    #[inline]
    #[must_use]
    pub fn between(first: P, end: P) -> Self {
        Self { first, pages: end.number().saturating_sub(first.number()) }
    }

    /// One page.
    #[inline]
    #[must_use]
    pub fn one(page: P) -> Self {
        Self::between(page, page.plus(1))
    }

    /// The first page.
    #[inline]
    #[must_use]
    pub const fn first(&self) -> P {
        self.first
    }

    /// The page after the last.
    #[inline]
    #[must_use]
    pub fn end(&self) -> P {
        self.first.plus(self.pages)
    }

    /// How many there are.
    #[inline]
    #[must_use]
    pub const fn pages(&self) -> Pages {
        Pages(self.pages)
    }

    /// Whether there are none.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.pages == 0
    }

    /// Whether `page` is one of them.
    #[inline]
    #[must_use]
    pub fn contains(&self, page: P) -> bool {
        self.first <= page && page < self.end()
    }

    /// The pages that are in both; there may be none.
    #[inline]
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self::between(self.first.max(other.first), self.end().min(other.end()))
    }

    /// One page after the other.
    pub fn iter(&self) -> impl Iterator<Item = P> + use<P> {
        (self.first.number()..self.end().number()).map(P::from_number)
    }
}
