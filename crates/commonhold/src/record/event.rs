//! The event as a record.

use commonhold_layout::{RecordKind, record_words};

use super::{Plan, Record, open};
use crate::{Event, Mapping, RegionError};

type Words = Plan<(), { record_words::EVENT }>;

impl Event {
    /// Its size in bytes as a record, with its tag: a multiple of 8. A bare word takes 8.
    pub const SIZE: u64 = Words::SIZE;
}

/// The event has a tag, unlike one of [`Mapping::event`].
impl Record for Event {
    const SIZE: u64 = Words::SIZE;

    fn open(mapping: &Mapping, offset: u64) -> Result<Self, RegionError> {
        Self::new(mapping.region(), |region| {
            let opened = open::<(), _>(region, offset, RecordKind::Event)?;
            let [word] = opened.words;
            Ok(commonhold_sync::Event::new(word, opened.at))
        })
    }
}
