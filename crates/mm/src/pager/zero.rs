//! Anonymous memory without swap space: zeros at first, and nowhere to page out to.

use super::{Pager, PagerError};
use crate::{ObjectPage, ObjectSpan};

/// Pages that begin as zeros and cannot be paged out once they have been written to.
#[derive(Debug, Clone, Copy, Default)]
pub struct ZeroPager;

impl Pager for ZeroPager {
    fn read(&self, _page: ObjectPage, into: &mut [u8]) -> Result<(), PagerError> {
        into.fill(0);
        Ok(())
    }

    fn write(&self, _page: ObjectPage, _from: &[u8]) -> Result<(), PagerError> {
        Err(PagerError::KeepsNothing)
    }

    fn discard(&self, _pages: ObjectSpan) -> Result<(), PagerError> {
        Ok(())
    }
}
