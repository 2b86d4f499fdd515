//! Describes the peer that holds the directory mutex and does not free it, for error messages.
//!
//! All of it is read after the time is up, and only for people to read: the peer may have gone on meanwhile.

use commonhold_layout::{Name, PeerId, ThreadId};
use commonhold_space::{BackingMemoryError, DirectoryError};

use crate::{DirectoryHolder, RegionError, attachment::Attachment, error::causes::region_error};

impl Attachment {
    /// The living thread that is creating or destroying the region of this name, if there is one.
    #[cold]
    pub(crate) fn at_work(&self, name: &Name) -> Option<Box<DirectoryHolder>> {
        let owner = self.view().ok()?.at_work(name)?;
        Some(Box::new(self.holder(owner.peer().get(), owner.thread().index())))
    }

    /// The error of an operation on the directory, with the peer that is in the way.
    #[cold]
    pub(crate) fn error(&self, error: DirectoryError, name: &str) -> RegionError {
        match error {
            DirectoryError::Busy { slot, thread } => {
                RegionError::Busy(Box::new(self.holder(slot, thread)))
            }
            DirectoryError::BackingMemory(BackingMemoryError::Blocked { byte }) => {
                RegionError::Blocked { by: self.platform().mapped().holder_of(byte) }
            }
            other => region_error(other, name),
        }
    }

    fn holder(&self, slot: u16, thread: u16) -> DirectoryHolder {
        let view = self.view().ok();
        let record = view.and_then(|view| view.peer_record(PeerId::new(slot)));
        let tid = view
            .zip(ThreadId::new(thread))
            .and_then(|(view, thread)| view.thread_record(PeerId::new(slot), thread))
            .map_or(0, |record| record.tid);
        let Some((record, _)) = record else {
            return DirectoryHolder {
                slot,
                thread,
                pid: 0,
                tid,
                name: String::new(),
                stopped: None,
            };
        };
        DirectoryHolder {
            slot,
            thread,
            pid: record.identity.pid,
            tid,
            name: record.identity.name.to_string(),
            stopped: commonhold_host::is_stopped(&record.identity, tid),
        }
    }
}
