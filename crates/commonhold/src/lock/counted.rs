//! Read locks that this thread holds without a word of its own for them.
//!
//! A thread has few words in shared memory that say what it reads; further read locks are counted with
//! those of its whole peer, which is enough for writers, but does not tell the thread itself what it
//! holds. So it keeps a list of its own, here. Guards stay in the thread that took them, and so what is
//! entered here is taken out here; what a forgotten guard leaves behind is a lock that is still held.

use std::{cell::RefCell, sync::Arc};

use commonhold_space::RegionHandle;

use crate::{Mapping, attachment::Attachment};

/// Which attachment, by its place and its peer, and which region.
type Entry = (*const Attachment, (u16, u32), RegionHandle);

thread_local! {
    static COUNTED: RefCell<Vec<Entry>> = const { RefCell::new(Vec::new()) };
}

fn entry(mapping: &Mapping) -> Entry {
    let attachment = mapping.attachment();
    (Arc::as_ptr(attachment), attachment.peer(), mapping.handle())
}

/// The thread holds one more.
pub(super) fn enter(mapping: &Mapping) {
    let entry = entry(mapping);
    // Fails only while the thread ends: then it takes no more locks that this could warn of.
    let _ = COUNTED.try_with(|counted| counted.borrow_mut().push(entry));
}

/// The thread holds one less.
pub(super) fn leave(mapping: &Mapping) {
    let entry = entry(mapping);
    let _ = COUNTED.try_with(|counted| {
        let mut counted = counted.borrow_mut();
        if let Some(at) = counted.iter().rposition(|held| *held == entry) {
            counted.swap_remove(at);
        }
    });
}

/// Whether the thread holds the lock of the region in this way.
pub(super) fn holds(mapping: &Mapping) -> bool {
    let entry = entry(mapping);
    COUNTED.try_with(|counted| counted.borrow().contains(&entry)).unwrap_or(false)
}
