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
                let expected = self.model.may_lock(id, at, pages);
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

    pub(crate) fn privilege(&mut self, op: Op) {
        match op {
            Op::Grant { space } => {
                let (id, handle) = self.space(space);
                let mut after = self.model.clone();
                after.spaces.get_mut(&id).unwrap().super_locked = true;
                let real = self.call(|| handle.io_privilege());
                if self.agrees(Ok(()), &real, &after) {
                    self.model = after;
                    self.model.brought(id, FIRST, LENGTH);
                    self.privileges.entry(id).or_default().push(real.unwrap());
                }
            }
            Op::Revoke { space } => {
                let (id, _) = self.space(space);
                let held = self.privileges.entry(id).or_default();
                let privilege = held.pop();
                let super_locked = !held.is_empty();
                self.call(|| drop(privilege));
                self.model.spaces.get_mut(&id).unwrap().super_locked = super_locked;
            }
            _ => {}
        }
    }
}
