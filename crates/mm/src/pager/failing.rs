//! A pager that fails on command, for tests.

use alloc::vec::Vec;
use core::fmt;

use lock_api::{Mutex, RawMutex};

use super::{Pager, PagerError};
use crate::{LIMIT, NoMemory, ObjectPage, ObjectSpan};

/// A wrapper that makes chosen calls of another pager fail. A call that fails does not reach the other pager. A read
/// that fails leaves rubbish in its buffer, as a broken medium does.
///
/// `R` is a raw lock of the user's choice.
///
/// # Examples
/// ```
/// use commonhold_mm::{FailingPager, ObjectPage, Pager, PagerCall, PagerError, Which, ZeroPager};
///
/// let pager = FailingPager::<_, parking_lot::RawMutex>::new(ZeroPager);
/// let error = PagerError::Io { code: 5 };
/// pager.fail(PagerCall::Read, Which::Nth(2), error)?;
/// let mut page = [0; 8];
/// assert_eq!(pager.read(ObjectPage::new(0), &mut page), Ok(()));
/// assert_eq!(pager.read(ObjectPage::new(0), &mut page), Err(error));
/// assert_eq!(pager.read(ObjectPage::new(0), &mut page), Ok(()));
/// # Ok::<(), commonhold_mm::NoMemory>(())
/// ```
pub struct FailingPager<P, R> {
    inner: P,
    orders: Mutex<R, Orders>,
}

/// A call of a pager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PagerCall {
    /// [`Pager::read`].
    Read,
    /// [`Pager::write`].
    Write,
    /// [`Pager::discard`].
    Discard,
    /// [`Pager::flush`], which is for all pages.
    Flush,
}

/// Which of the calls of one kind fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// One call: the first from now on is 1, the next 2.
    Nth(u64),
    /// All calls for any of these pages, until [`FailingPager::heal`].
    Pages(ObjectSpan),
    /// All calls, until [`FailingPager::heal`].
    All,
}

#[derive(Debug)]
struct Orders {
    orders: Vec<Order>,
    reads: Count,
    writes: Count,
    discards: Count,
    flushes: Count,
}

#[derive(Debug)]
struct Order {
    call: PagerCall,
    which: Which,
    error: PagerError,
}

#[derive(Debug, Clone, Copy)]
struct Count {
    made: u64,
    failed: u64,
}

impl<P, R: RawMutex> FailingPager<P, R> {
    /// A pager that does what `inner` does, until [`fail`](Self::fail) is called.
    pub const fn new(inner: P) -> Self {
        let none = Count { made: 0, failed: 0 };
        let orders =
            Orders { orders: Vec::new(), reads: none, writes: none, discards: none, flushes: none };
        Self { inner, orders: Mutex::new(orders) }
    }

    /// Makes these calls fail from now on with `error`. If several orders fit a call, the oldest gives the error; the
    /// call counts for all of them.
    ///
    /// # Errors
    /// [`NoMemory`] for the order.
    pub fn fail(&self, call: PagerCall, which: Which, error: PagerError) -> Result<(), NoMemory> {
        let mut orders = self.orders.lock();
        orders.orders.try_reserve(1).map_err(|_| NoMemory)?;
        orders.orders.push(Order { call, which, error });
        Ok(())
    }

    /// Drops all orders: no call fails from now on.
    pub fn heal(&self) {
        self.orders.lock().orders.clear();
    }

    /// How many calls there were, including those that failed.
    #[must_use]
    pub fn calls(&self, call: PagerCall) -> u64 {
        self.orders.lock().count(call).made
    }

    /// How many calls were made to fail.
    #[must_use]
    pub fn failures(&self, call: PagerCall) -> u64 {
        self.orders.lock().count(call).failed
    }

    /// The other pager.
    pub const fn inner(&self) -> &P {
        &self.inner
    }

    fn check(&self, call: PagerCall, pages: &ObjectSpan) -> Result<(), PagerError> {
        self.orders.lock().check(call, pages)
    }
}

impl Orders {
    fn check(&mut self, call: PagerCall, pages: &ObjectSpan) -> Result<(), PagerError> {
        let mut result = Ok(());
        self.orders.retain_mut(|order| {
            if order.call != call {
                return true;
            }
            let (fits, stays) = order.which.meets(pages);
            if fits && result.is_ok() {
                result = Err(order.error);
            }
            stays
        });
        let count = self.count(call);
        count.made += 1;
        count.failed += u64::from(result.is_err());
        result
    }

    const fn count(&mut self, call: PagerCall) -> &mut Count {
        match call {
            PagerCall::Read => &mut self.reads,
            PagerCall::Write => &mut self.writes,
            PagerCall::Discard => &mut self.discards,
            PagerCall::Flush => &mut self.flushes,
        }
    }
}

impl Which {
    /// Counts a call. Returns whether it has to fail, and whether the order remains.
    fn meets(&mut self, pages: &ObjectSpan) -> (bool, bool) {
        match self {
            Self::Nth(left) => {
                *left = left.saturating_sub(1);
                (*left == 0, *left > 0)
            }
            Self::Pages(bad) => (!bad.intersection(pages).is_empty(), true),
            Self::All => (true, true),
        }
    }
}

impl<P: Pager, R: RawMutex + Send + Sync> Pager for FailingPager<P, R> {
    fn read(&self, page: ObjectPage, into: &mut [u8]) -> Result<(), PagerError> {
        let result = self.check(PagerCall::Read, &ObjectSpan::one(page));
        result.inspect_err(|_| into.fill(0xBD))?;
        self.inner.read(page, into)
    }

    fn write(&self, page: ObjectPage, from: &[u8]) -> Result<(), PagerError> {
        self.check(PagerCall::Write, &ObjectSpan::one(page))?;
        self.inner.write(page, from)
    }

    fn discard(&self, pages: ObjectSpan) -> Result<(), PagerError> {
        self.check(PagerCall::Discard, &pages)?;
        self.inner.discard(pages)
    }

    fn flush(&self) -> Result<(), PagerError> {
        let all = ObjectSpan::between(ObjectPage::new(0), ObjectPage::new(LIMIT));
        self.check(PagerCall::Flush, &all)?;
        self.inner.flush()
    }

    fn compresses(&self) -> bool {
        self.inner.compresses()
    }
}

impl<P: fmt::Debug, R: RawMutex> fmt::Debug for FailingPager<P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailingPager").field("inner", &self.inner).finish_non_exhaustive()
    }
}
