//! Locked, super-locked, and back.

use commonhold_mm::Scope;

use crate::{
    machine::Machine,
    program::Op,
    reference::{FIRST, LENGTH},
    world::{Checked, World, span},
};

impl<M: Machine> World<'_, M> {
    pub(crate) fn lock(&mut self, op: Op) -> Checked {
        let (Op::Lock { space, .. }
        | Op::Unlock { space, .. }
        | Op::LockAll { space, .. }
        | Op::UnlockAll { space }) = op
        else {
            return Ok(());
        };
        let (id, handle) = self.space(space)?;
        let mut after = self.model.clone();
        match op {
            Op::Lock { part: (at, pages), .. } => {
                let expected = self.model.may_lock(id, at, pages);
                after.lock(id, at, pages);
                let part = span(at, pages)?;
                let real = self.call(|| handle.lock(part));
                if self.agrees(expected, &real, &after)? {
                    self.model = after;
                    self.model.brought(id, at, pages);
                }
            }
            Op::LockAll { future, .. } => {
                let scope = if future { Scope::PresentAndFuture } else { Scope::Present };
                after.lock(id, FIRST, LENGTH);
                let real = self.call(|| handle.lock_all(scope));
                if self.agrees(Ok(()), &real, &after)? {
                    self.model = after;
                    self.model.brought(id, FIRST, LENGTH);
                    self.model.set_lock_future(id, future);
                }
            }
            Op::Unlock { part: (at, pages), .. } => {
                let expected = self.model.all_mapped(id, at, pages);
                let part = span(at, pages)?;
                let real = self.call(|| handle.unlock(part));
                if self.agrees(expected, &real, &after)? {
                    self.model.unlock(id, at, pages);
                }
            }
            _ => {
                self.call(|| handle.unlock_all());
                self.model.unlock(id, FIRST, LENGTH);
                self.model.set_lock_future(id, false);
            }
        }
        Ok(())
    }

    pub(crate) fn grant(&mut self, space: usize) -> Checked {
        let (id, handle) = self.space(space)?;
        let mut after = self.model.clone();
        after.set_super_locked(id, true);
        let real = self.call(|| handle.io_privilege());
        if self.agrees(Ok(()), &real, &after)? {
            self.model = after;
            self.model.brought(id, FIRST, LENGTH);
            self.privileges.entry(id).or_default().extend(real);
        }
        Ok(())
    }

    pub(crate) fn revoke(&mut self, space: usize) -> Checked {
        let (id, _) = self.space(space)?;
        let held = self.privileges.entry(id).or_default();
        let privilege = held.pop();
        let super_locked = !held.is_empty();
        self.call(|| drop(privilege));
        self.model.set_super_locked(id, super_locked);
        Ok(())
    }
}
