//! Memory that has gone without the memory manager: a program punched a hole, or a balloon took pages back.
//!
//! The manager does not believe its states where the machine can tell. [`Mmu::install`] and [`Mmu::read`] say
//! [`Gone`](crate::MmuError::Gone) if a page that should have memory has none. The object is locked then, or the page is
//! being written, so nobody fills it meanwhile, and what they say is not out of date. Then the page gives its place in the budgets back, and:
//! - A *Clean* page is *Absent*: the next look brings it in again, from the pager or as zeros.
//! - A *Dirty* page is *Lost*. Each access fails, [`Object::sync`](crate::Object::sync) does too, and
//!   [`ObjectTotals::lost`](crate::ObjectTotals) counts it, until the page is discarded or cut off. What the pager has of
//!   it is older than what the program wrote, so it is not passed off as the page's contents.
//! - A page that a thread is writing to the pager is looked at again afterwards: the copy was made while it was there.
//!
//! A release says whether the memory has gone. Where something else holds it, the manager counts that, and the next
//! filling overwrites all of it.

use core::sync::atomic::Ordering;

use crate::{
    Mmu, ObjectPage, Released, Residents, State,
    object::{ObjectCore, ObjectState},
    order::{self, Token},
};

/// How often one fault brings a page in again that has gone meanwhile. Then it fails.
pub(crate) const REFILLS: u32 = 16;

impl<M: Mmu> ObjectCore<M> {
    /// The machine has no memory for a page that is in memory by its state. `false` if another thread writes it to the
    /// pager: then nothing has changed.
    pub(crate) fn note_gone(
        &self,
        state: &mut ObjectState<M>,
        in_object: &mut Token<'_, order::Object>,
        page: ObjectPage,
    ) -> bool {
        let place = match state.pages.find_mut(page) {
            Some(entry) if entry.writing => return false,
            Some(entry) if entry.state.is_resident() => {
                let changed = entry.state != State::Clean;
                entry.state = if changed { State::Lost } else { State::Absent };
                entry.place.take()
            }
            _ => return true,
        };
        self.count_out(in_object, place, Residents::remove);
        true
    }

    /// Lets the machine take a page's memory away. No translation to it is left, unless the machine
    /// [takes them away itself](Mmu::RELEASE_UNMAPS).
    pub(crate) fn release(&self, page: ObjectPage) {
        if self.manager.mmu.release(&self.machine, page) == Released::Held {
            self.counts.held.fetch_add(1, Ordering::Relaxed);
        }
    }
}
