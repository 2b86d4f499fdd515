//! A pager that keeps what it is given, and fails on command.

use alloc::{collections::BTreeMap, format, string::String, sync::Arc};

use commonhold_mm::{ObjectPage, ObjectSpan, Page, Pager, PagerError};
use lock_api::{Mutex, RawMutex};

use crate::{Shortage, program::Setting, reference::BYTES};

/// The error of a call that fails on command.
pub(crate) const FAILURE: PagerError = PagerError::Io { code: 5 };

/// What all pagers of a program share.
pub(crate) struct Pagers<X> {
    failures: Mutex<X, Failures>,
    /// The first mistake of the memory manager.
    complaint: Mutex<X, Option<String>>,
    shortage: Arc<Shortage>,
}

/// When calls fail.
#[derive(Debug, Default, Clone, Copy)]
struct Failures {
    after: u32,
    times: u32,
    failed: u32,
}

impl<X: RawMutex> Pagers<X> {
    pub(crate) fn new(shortage: Arc<Shortage>) -> Self {
        let (failures, complaint) = (Mutex::new(Failures::default()), Mutex::new(None));
        Self { failures, complaint, shortage }
    }

    pub(crate) fn arm(&self, after: u32, times: u32) {
        *self.failures.lock() = Failures { after, times, failed: 0 };
    }

    pub(crate) fn disarm(&self) {
        *self.failures.lock() = Failures::default();
    }

    /// Whether a call has failed since.
    pub(crate) fn has_failed(&self) -> bool {
        self.failures.lock().failed > 0
    }

    pub(crate) fn complaint(&self) -> Option<String> {
        self.complaint.lock().clone()
    }

    fn complain(&self, what: impl FnOnce() -> String) {
        self.shortage.aside(|| self.complaint.lock().get_or_insert_with(what).len());
    }

    fn fails(&self) -> Result<(), PagerError> {
        let mut failures = self.failures.lock();
        if let Some(fewer) = failures.after.checked_sub(1) {
            failures.after = fewer;
        } else if let Some(fewer) = failures.times.checked_sub(1) {
            failures.times = fewer;
            failures.failed = failures.failed.saturating_add(1);
            return Err(FAILURE);
        }
        Ok(())
    }
}

/// Keeps the first bytes of pages; the others are zeros.
pub(crate) struct Store<X> {
    pages: Mutex<X, BTreeMap<u64, [u8; BYTES]>>,
    compressed: bool,
    discards: bool,
    pagers: Arc<Pagers<X>>,
}

impl<X: RawMutex> Store<X> {
    pub(crate) fn new(
        pages: BTreeMap<u64, [u8; BYTES]>,
        Setting { compressed, discards, .. }: Setting,
        pagers: &Arc<Pagers<X>>,
    ) -> Self {
        Self { pages: Mutex::new(pages), compressed, discards, pagers: Arc::clone(pagers) }
    }

    pub(crate) fn page(&self, page: u64) -> Option<[u8; BYTES]> {
        self.pages.lock().get(&page).copied()
    }
}

impl<X: RawMutex + Send + Sync> Pager for Store<X> {
    fn read(&self, page: ObjectPage, into: &mut [u8]) -> Result<(), PagerError> {
        self.pagers.fails().inspect_err(|_| into.fill(0xEE))?;
        into.fill(0);
        if let Some(first) = into.first_chunk_mut() {
            *first = self.page(page.number()).unwrap_or_default();
        }
        Ok(())
    }

    fn write(&self, page: ObjectPage, from: &[u8]) -> Result<(), PagerError> {
        self.pagers.fails()?;
        let Some((bytes, rest)) = from.split_first_chunk() else {
            self.pagers.complain(|| format!("{page:?} was written with {} bytes", from.len()));
            return Err(FAILURE);
        };
        if rest.iter().any(|byte| *byte != 0) {
            self.pagers.complain(|| format!("{page:?} was written with bytes that nobody stored"));
        }
        self.pagers.shortage.aside(|| self.pages.lock().insert(page.number(), *bytes));
        Ok(())
    }

    fn discard(&self, pages: ObjectSpan) -> Result<(), PagerError> {
        self.pagers.fails()?;
        if !self.discards {
            return Err(FAILURE);
        }
        let gone = |page: u64| pages.contains(ObjectPage::from_number(page));
        self.pages.lock().retain(|page, _| !gone(*page));
        Ok(())
    }

    fn compresses(&self) -> bool {
        self.compressed
    }
}
