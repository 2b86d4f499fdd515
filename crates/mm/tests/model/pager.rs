//! A pager that keeps what it is given, and fails on command.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use commonhold_mm::{ObjectPage, ObjectSpan, Page, Pager, PagerError};

use crate::{program::Setting, reference::PAGE, trouble};

/// The error of a call that fails on command.
pub(crate) const FAILURE: PagerError = PagerError::Io { code: 5 };

/// When calls fail: shared by all pagers of a test.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    after: u32,
    times: u32,
    failed: u32,
}

impl Failures {
    pub(crate) fn arm(&mut self, after: u32, times: u32) {
        *self = Self { after, times, failed: 0 };
    }

    pub(crate) fn disarm(&mut self) {
        *self = Self::default();
    }

    /// Whether a call has failed since.
    pub(crate) fn have_failed(&self) -> bool {
        self.failed > 0
    }

    fn fails(&mut self) -> Result<(), PagerError> {
        if self.after > 0 {
            self.after -= 1;
        } else if self.times > 0 {
            self.times -= 1;
            self.failed += 1;
            return Err(FAILURE);
        }
        Ok(())
    }
}

/// Keeps pages.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) pages: Mutex<BTreeMap<u64, [u8; PAGE]>>,
    compressed: bool,
    discards: bool,
    failures: Arc<Mutex<Failures>>,
}

impl Store {
    pub(crate) fn new(
        pages: BTreeMap<u64, [u8; PAGE]>,
        Setting { compressed, discards, .. }: Setting,
        failures: &Arc<Mutex<Failures>>,
    ) -> Self {
        Self { pages: Mutex::new(pages), compressed, discards, failures: Arc::clone(failures) }
    }

    pub(crate) fn page(&self, page: u64) -> Option<[u8; PAGE]> {
        self.pages.lock().unwrap().get(&page).copied()
    }
}

impl Pager for Store {
    fn read(&self, page: ObjectPage, into: &mut [u8]) -> Result<(), PagerError> {
        self.failures.lock().unwrap().fails().inspect_err(|_| into.fill(0xEE))?;
        into.copy_from_slice(&self.page(page.number()).unwrap_or_default());
        Ok(())
    }

    fn write(&self, page: ObjectPage, from: &[u8]) -> Result<(), PagerError> {
        self.failures.lock().unwrap().fails()?;
        let bytes = from.try_into().unwrap();
        trouble::aside(|| self.pages.lock().unwrap().insert(page.number(), bytes));
        Ok(())
    }

    fn discard(&self, pages: ObjectSpan) -> Result<(), PagerError> {
        self.failures.lock().unwrap().fails()?;
        if !self.discards {
            return Err(FAILURE);
        }
        let gone = |page: u64| pages.contains(ObjectPage::from_number(page));
        self.pages.lock().unwrap().retain(|page, _| !gone(*page));
        Ok(())
    }

    fn compresses(&self) -> bool {
        self.compressed
    }
}
