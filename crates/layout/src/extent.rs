//! Offsets and extents in a window, whose arithmetic cannot wrap.

/// One more than the largest offset: words that name a lock have 48 bits for its offset.
pub const OFFSET_LIMIT: u64 = 1 << 48;

/// A position in a window, in bytes from its start; always below [`OFFSET_LIMIT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(u64);

impl Offset {
    /// The start of the window.
    pub const ZERO: Self = Self(0);

    /// The offset `bytes`, if it is below [`OFFSET_LIMIT`].
    #[inline]
    #[must_use]
    pub const fn new(bytes: u64) -> Option<Self> {
        if bytes < OFFSET_LIMIT { Some(Self(bytes)) } else { None }
    }

    /// Bytes from the start of the window.
    #[inline]
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The offset `bytes` further on, if there is one.
    #[inline]
    #[must_use]
    pub const fn plus(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(sum) => Self::new(sum),
            None => None,
        }
    }
}

/// A run of bytes in a window: `start .. start + len`, whose end is at most [`OFFSET_LIMIT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Extent {
    start: Offset,
    len: u64,
}

impl Extent {
    /// The empty extent at the start of the window.
    pub const EMPTY: Self = Self { start: Offset::ZERO, len: 0 };

    /// The extent of `len` bytes at `start`, if it ends within [`OFFSET_LIMIT`].
    #[inline]
    #[must_use]
    pub const fn new(start: u64, len: u64) -> Option<Self> {
        let Some(offset) = Offset::new(start) else { return None };
        match start.checked_add(len) {
            Some(end) if end <= OFFSET_LIMIT => Some(Self { start: offset, len }),
            _ => None,
        }
    }

    /// Where it begins.
    #[inline]
    #[must_use]
    pub const fn start(self) -> Offset {
        self.start
    }

    /// Bytes in it.
    #[inline]
    #[must_use]
    pub const fn len(self) -> u64 {
        self.len
    }

    /// Whether it holds no byte.
    #[inline]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The first byte after it, from the start of the window.
    #[inline]
    #[must_use]
    pub const fn end(self) -> u64 {
        // Cannot wrap: `new` checked it.
        self.start.0.saturating_add(self.len)
    }

    /// The part `at .. at + len` of this extent, counted from its start, if it lies inside.
    #[inline]
    #[must_use]
    pub const fn part(self, at: u64, len: u64) -> Option<Self> {
        match at.checked_add(len) {
            Some(end) if end <= self.len => Self::new(self.start.0.saturating_add(at), len),
            _ => None,
        }
    }
}

/// `value` rounded up to a multiple of `unit`, a power of two; `None` if that does not fit.
#[inline]
#[must_use]
pub const fn align_up(value: u64, unit: u64) -> Option<u64> {
    let mask = unit.wrapping_sub(1);
    match value.checked_add(mask) {
        Some(sum) => Some(sum & !mask),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extent_that_would_wrap_or_leave_the_limit_is_refused() {
        assert!(Extent::new(u64::MAX, 2).is_none());
        assert!(Extent::new(OFFSET_LIMIT - 8, 9).is_none());
        assert_eq!(Extent::new(OFFSET_LIMIT - 8, 8).unwrap().end(), OFFSET_LIMIT);
    }

    #[test]
    fn a_part_must_lie_inside() {
        let whole = Extent::new(4096, 100).unwrap();
        assert_eq!(whole.part(10, 90), Extent::new(4106, 90));
        assert!(whole.part(10, 91).is_none());
        assert!(whole.part(u64::MAX, 2).is_none());
    }

    #[test]
    fn rounding_up_refuses_to_wrap() {
        assert_eq!(align_up(4097, 4096), Some(8192));
        assert_eq!(align_up(u64::MAX, 4096), None);
    }
}
