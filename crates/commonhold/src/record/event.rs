//! The event as a record.

use commonhold_layout::{RecordKind, record_words};

use super::{Plan, Record, open};
use crate::{Event, Mapping, RegionError};

type Words = Plan<(), { record_words::EVENT }>;

impl Event<'_> {
    /// Bytes that it takes as a record, with its tag: a multiple of 8. A bare word takes 8.
    pub const SIZE: u64 = Words::SIZE;
}

/// With a tag, in contrast to [`Mapping::event`].
impl<'a> Record<'a> for Event<'a> {
    const SIZE: u64 = Words::SIZE;

    fn open(mapping: &'a Mapping, offset: u64) -> Result<Self, RegionError> {
        let opened = open::<(), _>(mapping, offset, RecordKind::Event)?;
        let [word] = opened.words;
        Ok(Self::of(mapping, commonhold_sync::Event::new(word, opened.at)))
    }
}
