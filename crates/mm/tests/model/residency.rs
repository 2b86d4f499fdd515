//! Locked, super-locked, and back.

use commonhold_mm::Scope;

use crate::{
    program::Op,
    reference::{FIRST, LENGTH},
    world::{World, span},
};

impl World {
    pub(crate) fn lock(&mut self, op: Op) {
        let (Op::Lock { space, .. }
        | Op::Unlock { space, .. }
        | Op::LockAll { space, .. }
        | Op::UnlockAll { space }) = op
        else {
            return;
        };
        let (id, handle) = self.space(space);
        let mut after = self.model.clone();
        match op {
            Op::Lock { part: (at, pages), .. } => {
                let expected = self.model.all_mapped(id, at, pages);
                after.lock(id, at, pages);
                let real = self.call(|| handle.lock(span(at, pages)));
                if self.agrees(expected, &real, &after) {
                    self.model = after;
                    self.model.brought(id, at, pages);
                }
            }
            Op::LockAll { future, .. } => {
                let scope = if future { Scope::PresentAndFuture } else { Scope::Present };
                after.lock(id, FIRST, LENGTH);
                let real = self.call(|| handle.lock_all(scope));
                if self.agrees(Ok(()), &real, &after) {
                    self.model = after;
                    self.model.brought(id, FIRST, LENGTH);
                    self.model.spaces.get_mut(&id).unwrap().lock_future = future;
                }
            }
            Op::Unlock { part: (at, pages), .. } => {
                let expected = self.model.all_mapped(id, at, pages);
                let real = self.call(|| handle.unlock(span(at, pages)));
                if self.agrees(expected, &real, &self.model) {
                    self.model.unlock(id, at, pages);
                }
            }
            _ => {
                self.call(|| handle.unlock_all());
                self.model.unlock(id, FIRST, LENGTH);
                self.model.spaces.get_mut(&id).unwrap().lock_future = false;
            }
        }
    }

    pub(crate) fn super_lock(&mut self, op: Op) {
        let (Op::SuperLock { space } | Op::SuperUnlock { space }) = op else { return };
        let (id, handle) = self.space(space);
        let mut after = self.model.clone();
        let real = match op {
            Op::SuperLock { .. } => self.call(|| handle.super_lock()),
            _ => {
                self.call(|| handle.super_unlock());
                Ok(())
            }
        };
        let all = matches!(op, Op::SuperLock { .. });
        let was = after.spaces[&id].super_locked;
        after.spaces.get_mut(&id).unwrap().super_locked = all;
        if self.agrees(Ok(()), &real, &after) {
            self.model = after;
            if all && !was {
                self.model.brought(id, FIRST, LENGTH);
            }
        }
    }
}
