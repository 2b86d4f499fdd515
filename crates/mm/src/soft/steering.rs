//! What a test makes the machine do, and what it sees of it.

use alloc::{sync::Weak, vec::Vec};
use core::sync::atomic::Ordering;

use lock_api::RawMutex;

use super::{SoftMmu, SoftObject, SoftSpace, Translation, Violation};
use crate::{MmuError, ObjectPage, VirtualPage};

impl<X: RawMutex, W> SoftMmu<X, W> {
    /// Makes one call fail for lack of memory: the `calls`-th from now on that can fail. 0 is the next.
    pub fn fail_in(&self, calls: u32) {
        self.fail_in.store(i64::from(calls), Ordering::Relaxed);
    }

    /// Undoes [`fail_in`](Self::fail_in): calls fail only if there is no memory.
    pub fn succeed(&self) {
        self.fail_in.store(i64::MAX, Ordering::Relaxed);
    }

    /// Makes one translation late that a fault handler asks for, as if its table were locked: the `calls`-th from now
    /// on. 0 is the next.
    pub fn late_in(&self, calls: u32) {
        self.late_in.store(i64::from(calls), Ordering::Relaxed);
    }

    /// Lets the machine tell which translations were accessed, as processors with an accessed bit do.
    pub fn harvest_accessed(&self) {
        self.harvests.store(true, Ordering::Relaxed);
    }

    /// Lets a processor fault if it remembers a translation that permits less than the table does.
    pub fn remember_less(&self) {
        self.remembers_less.store(true, Ordering::Relaxed);
    }

    pub(super) fn remembers_less(&self) -> bool {
        self.remembers_less.load(Ordering::Relaxed)
    }

    /// Makes each of the next `fills` fillings lose its page at once, as [`steal`](Self::steal) does.
    pub fn steal_fills(&self, fills: u64) {
        self.thefts.store(fills, Ordering::Relaxed);
    }

    pub(super) fn is_late(&self) -> bool {
        let counts = self.late_in.load(Ordering::Relaxed) != i64::MAX;
        counts && self.late_in.fetch_sub(1, Ordering::Relaxed) == 0
    }

    /// The mistakes so far.
    pub fn violations(&self) -> Vec<Violation> {
        self.violations.lock().clone()
    }

    /// How many wakes there were.
    pub fn wakes(&self) -> u64 {
        self.wakes.load(Ordering::Relaxed)
    }

    /// Memory that is left, in frames.
    pub fn frames_left(&self) -> i64 {
        self.frames.left()
    }

    /// What `at` translates to in `space`.
    pub fn translation(&self, space: &SoftSpace<X>, at: VirtualPage) -> Option<Translation> {
        let table = space.table.lock();
        let entry = table.get(at)?;
        Some(Translation { protection: entry.protection, writable: entry.writable })
    }

    /// Takes a page's memory away behind the manager's back, and all translations to it, as a program does that punches
    /// holes. If other threads use the object, the caller has it locked: [`Object::walk`](crate::Object::walk) does that.
    pub fn steal(&self, object: &SoftObject<X>, page: ObjectPage) {
        if let Some(frame) = object.frames.lock().remove(&page.number()) {
            frame.steal();
            for tlb in self.tlbs.lock().iter().filter_map(Weak::upgrade) {
                tlb.forget_frame(&frame);
            }
            object.stolen.lock().insert(page.number());
        }
    }

    /// Whether processors may use `at` as it was, since the machine has failed to finish a gather.
    pub fn is_unfinished(&self, space: &SoftSpace<X>, at: VirtualPage) -> bool {
        let unfinished = self.unfinished.lock();
        unfinished.iter().any(|(of, stale)| *of == space.number && stale.contains(at))
    }

    /// Fails if [`fail_in`](Self::fail_in) says that this call must.
    pub(super) fn fails(&self) -> Result<(), MmuError> {
        if self.fail_in.load(Ordering::Relaxed) == i64::MAX {
            return Ok(());
        }
        match self.fail_in.fetch_sub(1, Ordering::Relaxed) {
            0 => Err(MmuError::NoMemory),
            _ => Ok(()),
        }
    }
}
