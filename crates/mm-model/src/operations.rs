//! Operations on spaces and objects, in the memory manager and in the model.

use alloc::vec::Vec;

use commonhold_mm::{
    Access, Advice, Context, Error, FaultError, Kind, MapRequest, ObjectPage, ObjectSpan, Pages,
    Placement, Residency, VirtualSpan, Writable,
};

use crate::{
    machine::{Machine, Translated},
    pager::FAILURE,
    program::{Op, Part, Step, Trouble},
    reference::{self, BYTES, FIRST, Model, ObjectId, Place, Request, SpaceId},
    world::{Checked, PulseKey, World, page, span},
};

impl<M: Machine> World<'_, M> {
    /// Does one step, and compares everything.
    pub(crate) fn step(&mut self, step: Step) -> Checked {
        self.arm(step.trouble);
        let acted = self.act(step.op);
        self.disarm();
        acted?;
        self.check()
    }

    /// Does one operation in which nothing fails.
    pub(crate) fn quietly(&mut self, op: Op) -> Checked {
        self.step(Step { op, trouble: Trouble::None })
    }

    fn act(&mut self, op: Op) -> Checked {
        match op {
            Op::Map { .. } => self.map(op),
            Op::Unmap { space, part } => self.unmap(space, part),
            Op::Protect { .. } => self.protect(op),
            Op::Resize { object, pages } => self.resize(object, pages),
            Op::SyncObject { object, part } => self.sync_object(object, part),
            Op::SyncSpace { space, part } => self.sync_space(space, part),
            Op::WillNeed { space, part } => self.advise(space, part, Advice::WillNeed),
            Op::DontNeed { space, part } => self.advise(space, part, Advice::DontNeed),
            Op::Write { cpu, space, address, length, value } => {
                let values = (0..20_u8).map(|n| value.wrapping_add(n)).take(length);
                let bytes: Vec<u8> = values.collect();
                self.write(cpu, space, address, &bytes)
            }
            Op::Read { cpu, space, address, length } => self.read(cpu, space, address, length),
            Op::NoFault { cpu, space, at, access } => self.no_fault(cpu, space, at, access),
            Op::Fault { cpu, space, at, access } => {
                self.fault(cpu, space, (at, access), Context::Normal).map(|_| ())
            }
            Op::Serve => self.serve(),
            Op::PageOut { pages } => self.page_out(pages),
            Op::SetLimit { budget, pages } => {
                self.budget(budget)?.set_limit(Pages(pages));
                Ok(())
            }
            Op::Destroy { object } => self.destroy(object),
            Op::DropObject { object } => {
                let dropped = self.slot_mut(object)?.handle.take();
                drop(dropped);
                Ok(())
            }
            Op::NewObject { object, file, pages, budget } => {
                if let Ok(slot) = self.make_object(file, pages, budget)? {
                    *self.slot_mut(object)? = slot;
                }
                Ok(())
            }
            Op::NewSpace { space } => self.new_space(space),
            Op::ReadAll { cpu } => self.read_all(cpu),
            Op::Lock { .. } | Op::Unlock { .. } | Op::LockAll { .. } | Op::UnlockAll { .. } => {
                self.lock(op)
            }
            Op::Grant { space } => self.grant(space),
            Op::Revoke { space } => self.revoke(space),
        }
    }

    fn page_out(&self, pages: u64) -> Checked {
        let before = self.manager.resident();
        let gone = self.call(|| self.manager.page_out(Pages(pages)));
        let after = self.manager.resident();
        ensure!(
            gone.0 <= pages && before.0 == gone.0 + after.0,
            "{gone:?} of {pages} pages have gone, and {after:?} of {before:?} are left"
        );
        let all = self.model.pinned(None) == 0 && pages >= before.0 && !self.fired();
        ensure!(!all || gone == before, "{gone:?} of {before:?} have gone, and none need stay");
        Ok(())
    }

    fn destroy(&mut self, object: usize) -> Checked {
        let slot = self.slot(object)?;
        let (id, handle) = (slot.id, slot.handle.clone());
        if let (Some(handle), Some(object)) = (handle, self.model.objects.get_mut(&id)) {
            handle.destroy();
            object.destroyed = true;
        }
        Ok(())
    }

    fn new_space(&mut self, space: usize) -> Checked {
        let place = space % self.spaces.len().max(1);
        let (id, handle) = self.spaces.swap_remove(place);
        self.privileges.remove(&id);
        self.machine.close(handle);
        self.model.spaces.remove(&id);
        self.add_space()?;
        let last = self.spaces.len().saturating_sub(1);
        self.spaces.swap(place, last);
        Ok(())
    }

    fn unmap(&mut self, space: usize, (at, pages): Part) -> Checked {
        let (id, handle) = self.space(space)?;
        let expected = self.model.may_unmap(id, at, pages);
        let part = span(at, pages)?;
        let real = self.call(|| handle.unmap(part));
        let now = self.model.clone();
        if self.agrees(expected, &real, &now)? {
            self.model.unmap(id, at, pages);
            self.none_waits(id, at, pages)?;
        }
        Ok(())
    }

    fn protect(&mut self, op: Op) -> Checked {
        let Op::Protect { space, part: (at, pages), protection } = op else { return Ok(()) };
        let (id, handle) = self.space(space)?;
        let expected = self.model.all_mapped(id, at, pages);
        let part = span(at, pages)?;
        let real = self.call(|| handle.protect(part, protection));
        let now = self.model.clone();
        if self.agrees(expected, &real, &now)? {
            self.model.protect(id, at, pages, protection);
            self.model.brought(id, at, pages);
        } else if matches!(real, Err(Error::Fault { .. })) {
            self.model.protect(id, at, pages, protection);
            self.forgive(id);
        }
        Ok(())
    }

    fn map(&mut self, op: Op) -> Checked {
        let Op::Map { space, object, place, offset, pages, protection, lazy, locked } = op else {
            return Ok(());
        };
        let slot = self.slot(object)?;
        let Some(handle) = slot.handle.clone() else { return Ok(()) };
        let default = match self.model.objects[&slot.id].kind {
            Kind::Anonymous => self.setting.anonymous_locked,
            Kind::File => self.setting.file_locked,
        };
        let request = Request {
            object: slot.id,
            place,
            offset,
            pages,
            protection,
            lazy,
            locked: locked.unwrap_or(default),
        };
        let (id, of_space) = self.space(space)?;
        let target = if let Place::Replace(at) = place { Some(at) } else { None };
        let real_request = as_asked(&request, locked);
        let expected = self.model.may_map(id, &request);
        let real = self.call(|| of_space.map(&handle, real_request));
        let mut after = self.model.clone();
        if let Place::Fixed(at) | Place::Replace(at) = request.place {
            after.map(id, &request, at);
        }
        let done = match real {
            Err(Error::NoMemory | Error::Fault { error: FaultError::NoMemory, .. })
                if expected.is_ok() && self.is_short_for(id, &request, &after)? =>
            {
                self.troubled = true;
                false
            }
            _ => self.agrees(expected, &real, &after)?,
        };
        // A replacement is made before the last thing that can fail: its translations.
        let shows = |(of, at)| {
            let asked = (handle.number(), ObjectPage::new(of), protection);
            let info = of_space.query(page(at));
            info.is_some_and(|info| (info.object, info.page, info.protection) == asked)
        };
        let late = matches!(real, Err(Error::Fault { .. }));
        let in_part = target.filter(|at| late && (offset..).zip(*at..at + pages).all(shows));
        let inside = reference::span(target.unwrap_or(FIRST), request.pages).is_ok();
        if let Some(at) = target.filter(|_| inside && done).or(in_part) {
            self.model.unmap(id, at, request.pages);
            self.none_waits(id, at, request.pages)?;
        }
        match (real, in_part) {
            (Ok(real), _) if done => self.mapped(id, &request, real)?,
            (_, Some(at)) => {
                self.mapped(id, &request, span(at, request.pages)?)?;
                self.forgive(id);
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether a mapping may fail since too many pages must stay then.
    fn is_short_for(&self, id: SpaceId, request: &Request, after: &Model) -> Checked<bool> {
        let space = &after.spaces[&id];
        // It is unknown where the mapping would have gone, but known how many more pages must stay.
        let somewhere = matches!(request.place, Place::Anywhere)
            && (request.locked || space.lock_future || space.super_locked);
        // Pages that are to be replaced stay in memory until the new ones are in.
        let replaces = matches!(request.place, Place::Replace(_));
        let more = if somewhere || replaces { request.pages } else { 0 };
        let tight = |budget: Option<usize>, limit| after.pinned(budget.map(Some)) + more >= limit;
        let own = match after.objects[&request.object].budget {
            Some(n) => tight(Some(n), self.budget(n)?.limit().0),
            None => false,
        };
        Ok(own || tight(None, self.setting.budget))
    }

    /// Notes a new mapping, and checks where it is.
    fn mapped(&mut self, id: SpaceId, request: &Request, real: VirtualSpan) -> Checked {
        let at = real.first().number();
        let asked = match request.place {
            Place::Anywhere => at,
            Place::Fixed(asked) | Place::Replace(asked) => asked,
        };
        ensure!(real.pages().0 == request.pages && asked == at, "{request:?} went to {real:?}");
        let free = self.model.may_unmap(id, at, request.pages);
        let expected = Err(Error::NotMapped { at: page(at) });
        ensure!(free == expected, "{request:?} went to {real:?}, where something is mapped");
        self.model.map(id, request, at);
        Ok(())
    }

    /// Checks that no pulse is left for pages that have been unmapped.
    fn none_waits(&mut self, id: SpaceId, at: u64, pages: u64) -> Checked {
        self.take_wakes()?;
        let waits = |key: &&PulseKey| key.0 == id && (at..at + pages).contains(&key.1);
        let left = self.owed.keys().find(waits);
        ensure!(left.is_none(), "the pulse {left:?} waits for a page that was unmapped");
        Ok(())
    }

    fn resize(&mut self, object: usize, pages: u64) -> Checked {
        let slot = self.slot(object)?;
        let (id, Some(handle)) = (slot.id, slot.handle.clone()) else { return Ok(()) };
        let mut after = self.model.clone();
        after.resize(id, pages);
        let mut real = self.call(|| handle.resize(Pages(pages)));
        let cut = ObjectPage::new(pages);
        if !self.setting.discards && real == Err(Error::Pager { page: cut, error: FAILURE }) {
            real = Ok(());
        }
        let done = self.agrees(Ok(()), &real, &after)?;
        let in_part = matches!(real, Err(Error::Fault { .. } | Error::Pager { .. }));
        // If only something after the change has failed, the size has changed nevertheless.
        if done || in_part || handle.pages().0 == pages {
            self.model = after;
        }
        if !done {
            let ids: Vec<_> = self.model.spaces.keys().copied().collect();
            ids.into_iter().for_each(|id| self.forgive(id));
        }
        Ok(())
    }

    /// Pages that a failed operation left out may be missing until another operation brings them in.
    fn forgive(&mut self, id: SpaceId) {
        let Some((_, space)) = self.spaces.iter().find(|(number, _)| *number == id) else { return };
        let Some(model) = self.model.spaces.get_mut(&id) else { return };
        let all = model.super_locked;
        for (at, shown) in &mut model.pages {
            let writes = all && shown.protection.permits(Access::Write);
            shown.missing |= match self.machine.translation(space, page(*at)) {
                Translated::Memory { writable, .. } => writes && writable == Writable::No,
                Translated::Nothing | Translated::Unknown => true,
            };
        }
    }

    fn sync_object(&mut self, object: usize, (first, pages): Part) -> Checked {
        let slot = self.slot(object)?;
        let (id, Some(handle)) = (slot.id, slot.handle.clone()) else { return Ok(()) };
        let Some(part) = ObjectSpan::new(ObjectPage::new(first), Pages(pages)) else {
            return Ok(());
        };
        let real = self.call(|| handle.sync(part));
        let now = self.model.clone();
        if self.agrees(Ok(()), &real, &now)? {
            self.is_kept(id, first, pages)?;
        }
        Ok(())
    }

    fn sync_space(&mut self, space: usize, (at, pages): Part) -> Checked {
        let (id, handle) = self.space(space)?;
        let expected = self.model.all_mapped(id, at, pages);
        let part = span(at, pages)?;
        let real = self.call(|| handle.sync(part));
        let now = self.model.clone();
        if self.agrees(expected, &real, &now)? {
            for at in at..at + pages {
                let Some(shown) = self.model.shown(id, at).copied() else { continue };
                self.is_kept(shown.object, shown.page, 1)?;
            }
        }
        Ok(())
    }

    /// Checks that the pager has the contents of the pages.
    pub(crate) fn is_kept(&self, object: ObjectId, first: u64, pages: u64) -> Checked {
        for page in first..first + pages {
            let bytes = self.model.bytes(object, page);
            let kept = self.stores[&object].page(page);
            ensure!(
                bytes == [0; BYTES] || kept == Some(bytes),
                "the pager has {kept:?} for page {page} of object {object}, and not {bytes:?}"
            );
        }
        Ok(())
    }

    fn advise(&mut self, space: usize, (at, pages): Part, advice: Advice) -> Checked {
        let (id, handle) = self.space(space)?;
        let expected = self.model.all_mapped(id, at, pages);
        let part = span(at, pages)?;
        let real = self.call(|| handle.advise(part, advice));
        let now = self.model.clone();
        if self.agrees(expected, &real, &now)? {
            let much = real.is_ok_and(|done| done.0 > pages);
            ensure!(!much, "{advice:?} for {pages} pages did {real:?}");
        }
        for at in (at..at + pages).filter(|_| advice == Advice::WillNeed) {
            let Some(shown) = self.model.shown(id, at).copied() else { continue };
            self.model.touched(shown.object, shown.page);
        }
        Ok(())
    }
}

/// The request to the memory manager.
fn as_asked(request: &Request, locked: Option<bool>) -> MapRequest {
    let placement = match request.place {
        Place::Anywhere => Placement::Anywhere,
        Place::Fixed(at) => Placement::Fixed(page(at)),
        Place::Replace(at) => Placement::Replace(page(at)),
    };
    let residency = |locked| if locked { Residency::Locked } else { Residency::Unlocked };
    MapRequest {
        placement,
        offset: ObjectPage::new(request.offset),
        pages: Pages(request.pages),
        protection: request.protection,
        lazy: request.lazy,
        residency: locked.map(residency),
    }
}
