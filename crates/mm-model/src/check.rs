//! Checks that must hold after every operation.

use alloc::{collections::BTreeSet, vec, vec::Vec};

use commonhold_mm::{
    Access, AddressSpace, Kind, Mmu, Object, ObjectPage, ObjectSpan, ObjectTotals, PageInfo, Pages,
    SpaceTotals, State, Writable,
};

use crate::{
    machine::{CPUS, Machine, Outlook, Touch, Touched, Translated},
    program::Op,
    reference::{BYTES, FIRST, LENGTH, ObjectId, Shown, SpaceId},
    world::{Checked, Slot, World, page},
};

impl<M: Machine> World<'_, M> {
    pub(crate) fn check(&mut self) -> Checked {
        self.take_wakes()?;
        let owed: u32 = self.owed.values().sum();
        let pulses = self.manager.pulses();
        let agree = pulses == owed as usize || !self.told;
        ensure!(agree || self.machine.serves_itself(), "{pulses} pulses for {owed} wakes to come");
        let violations = self.machine.violations();
        ensure!(violations.is_empty(), "the machine saw: {}", violations.join("; "));
        if let Some(complaint) = self.pagers.complaint() {
            fail!("{complaint}");
        }
        self.note_touched()?;
        for (id, handle) in &self.spaces {
            self.check_space(*id, handle)?;
        }
        for slot in &self.objects {
            if let Some(handle) = &slot.handle {
                self.check_object(slot.id, handle)?;
                self.check_walk(slot.id, handle)?;
            }
        }
        self.check_totals()
    }

    /// What is in memory has been touched.
    fn note_touched(&mut self) -> Checked {
        for slot in &self.objects {
            let Some(handle) = &slot.handle else { continue };
            for page in 0..self.model.objects[&slot.id].size {
                if !handle.state(ObjectPage::new(page)).is_some_and(State::is_resident) {
                    continue;
                }
                let asked = self.troubled || self.model.is_kept(slot.id, page);
                let new = self.model.touched(slot.id, page);
                ensure!(asked || !new, "page {page} of object {} came in unasked", slot.id);
            }
        }
        // Objects without a handle are seen where they are mapped.
        for (id, handle) in &self.spaces {
            for (at, shown) in self.model.spaces[id].pages.clone() {
                let state = handle.query(page(at)).and_then(|info| info.state);
                if state.is_some_and(State::is_resident) {
                    self.model.touched(shown.object, shown.page);
                }
            }
        }
        Ok(())
    }

    fn check_space(&self, id: SpaceId, handle: &AddressSpace<M::Mmu>) -> Checked {
        let model = &self.model.spaces[&id];
        let super_locked = handle.is_super_locked();
        ensure!(super_locked == model.super_locked, "space {id}: super-locked is {super_locked}");
        let mut totals = SpaceTotals::default();
        for at in FIRST - 1..=FIRST + LENGTH {
            let seen = self.translation(handle, at);
            self.check_processor((id, at), handle, seen)?;
            match (handle.query(page(at)), model.pages.get(&at)) {
                (Some(info), Some(shown)) => {
                    let held = (id, at, shown);
                    self.check_page(held, &info)?;
                    self.check_translation(held, &info, seen)?;
                    totals.mapped.0 += 1;
                    totals.locked.0 += u64::from(info.locked);
                    totals.resident.0 += u64::from(info.state.is_some_and(State::is_resident));
                    totals.dirty.0 += u64::from(info.state == Some(State::Dirty));
                }
                (None, None) => ensure!(
                    !matches!(seen, Translated::Memory { .. }),
                    "page {at} of space {id} shows nothing, and translates to {seen:?}"
                ),
                (info, shown) => fail!("page {at} of space {id}: {info:?}, and not {shown:?}"),
            }
        }
        let real = handle.totals();
        let (mappings, fewest) = (real.mappings, self.model.runs(id));
        ensure!(
            mappings >= fewest && Pages(mappings as u64) <= real.mapped,
            "space {id} has {mappings} mappings, which show {fewest} runs"
        );
        // A thread of the machine counts a fault after the access has gone on.
        let expected = SpaceTotals { mappings, faults: real.faults, ..totals };
        ensure!(real == expected, "space {id} has {real:?}, and not {expected:?}");
        Ok(())
    }

    fn check_page(&self, (id, at, shown): (SpaceId, u64, &Shown), info: &PageInfo) -> Checked {
        let locked = shown.locked || self.model.spaces[&id].super_locked;
        let real = (info.page.number(), info.protection, info.lazy, info.locked);
        let expected = (shown.page, shown.protection, shown.lazy, locked);
        ensure!(real == expected, "page {at} of space {id} has {real:?}, and not {expected:?}");
        let ends = shown.page >= self.model.objects[&shown.object].size;
        ensure!(info.state.is_none() == ends, "page {at} of space {id} is {:?}", info.state);
        let stuck = matches!(info.state, Some(State::Filling | State::Evicting));
        ensure!(!stuck, "page {at} of space {id} is stuck: {info:?}");
        let resident = info.state.is_some_and(State::is_resident);
        let kept = locked && !shown.lazy && !ends && !shown.missing;
        let readable = shown.protection.permits(Access::Read);
        ensure!(
            !kept || resident || !readable,
            "page {at} of space {id} is locked, and has no memory: {info:?}"
        );
        Ok(())
    }

    fn check_translation(
        &self,
        (id, at, shown): (SpaceId, u64, &Shown),
        info: &PageInfo,
        seen: Translated,
    ) -> Checked {
        let [reads, writes] =
            [Access::Read, Access::Write].map(|access| self.model.is_there(id, at, access));
        match seen {
            Translated::Unknown => {}
            Translated::Nothing => {
                ensure!(!reads && !writes, "page {at} of space {id} must not fault: {shown:?}");
            }
            Translated::Memory { protection, writable } => {
                let resident = info.state.is_some_and(State::is_resident);
                ensure!(resident, "page {at} of space {id} translates, and is {:?}", info.state);
                let same = protection.is_none_or(|protection| protection == shown.protection);
                ensure!(same, "page {at} of space {id} permits {protection:?}: {shown:?}");
                let dirty = info.state == Some(State::Dirty);
                ensure!(
                    writable == Writable::No || dirty,
                    "page {at} of space {id} can be written, and is {:?}",
                    info.state
                );
                ensure!(
                    !writes || writable == Writable::Yes,
                    "page {at} of space {id} must not fault on a write: {shown:?}"
                );
            }
        }
        Ok(())
    }

    /// Checks that a processor uses no translation that is gone, or that permitted more, and does not fault where no
    /// access may. Afterwards it remembers the present translation, so a flush that is forgotten later is seen.
    fn check_processor(
        &self,
        (id, at): (SpaceId, u64),
        handle: &AddressSpace<M::Mmu>,
        seen: Translated,
    ) -> Checked {
        if self.machine.serves_itself() || seen == Translated::Unknown {
            return Ok(());
        }
        let cpu = self.turn % CPUS;
        let permits = |access: Access| match seen {
            Translated::Memory { protection, writable } => {
                let writes = access != Access::Write || writable == Writable::Yes;
                writes && protection.is_none_or(|protection| protection.permits(access))
            }
            _ => false,
        };
        for access in [Access::Read, Access::Write] {
            let touch = Touch::of_nothing(access);
            let done = self.machine.touch(cpu, handle, page(at), touch, Outlook::Unknown);
            ensure!(
                done != Touched::Done || permits(access),
                "processor {cpu} does {access:?} of page {at} of space {id}, which has {seen:?}"
            );
            ensure!(
                done != Touched::Faulted || !self.model.is_there(id, at, access),
                "processor {cpu} faults at page {at} of space {id} for {access:?}, which has {seen:?}"
            );
        }
        Ok(())
    }

    fn check_object(&self, id: ObjectId, handle: &Object<M::Mmu>) -> Checked {
        let model = &self.model.objects[&id];
        let (pages, spaces) = (handle.pages(), handle.spaces());
        let expected = (Pages(model.size), self.model.spaces_of(id));
        ensure!((pages, spaces) == expected, "object {id}: {pages:?}, {spaces}, not {expected:?}");
        let totals = handle.totals();
        let mut counted = ObjectTotals { filled: 0, evicted: 0, ..totals };
        (counted.resident, counted.dirty, counted.bad, counted.compressed) = Default::default();
        for page in 0..model.size {
            let Some(state) = handle.state(ObjectPage::new(page)) else {
                fail!("page {page} of object {id} has no state");
            };
            self.check_contents(id, handle, page, state)?;
            counted.resident.0 += u64::from(state.is_resident());
            counted.dirty.0 += u64::from(state == State::Dirty);
            counted.bad.0 += u64::from(state == State::Bad);
            counted.compressed.0 += u64::from(state == State::Compressed);
        }
        let beyond = handle.state(ObjectPage::new(model.size));
        ensure!(beyond.is_none(), "object {id}: the page past its end is {beyond:?}");
        let real = (totals.resident, totals.dirty, totals.bad, totals.compressed);
        let expected = (counted.resident, counted.dirty, counted.bad, counted.compressed);
        ensure!(real == expected, "object {id} has {real:?}, and not {expected:?}");
        let left = totals.filled.checked_sub(totals.evicted);
        ensure!(left.is_some_and(|left| left >= counted.resident.0), "object {id}: {totals:?}");
        Ok(())
    }

    /// Checks that the contents of a page are in memory, or with the pager.
    fn check_contents(
        &self,
        id: ObjectId,
        handle: &Object<M::Mmu>,
        page: u64,
        state: State,
    ) -> Checked {
        let bytes = self.model.bytes(id, page);
        let kept = self.stores[&id].page(page);
        let is_kept = bytes == [0; BYTES] || kept == Some(bytes);
        match state {
            State::Clean | State::Dirty => {
                let mut memory = vec![0xDD; self.manager.mmu().page_size()];
                let told =
                    self.machine.memory(handle.machine(), ObjectPage::new(page), &mut memory);
                let (first, rest) = memory.split_at(BYTES.min(memory.len()));
                let same = first == bytes && rest.iter().all(|byte| *byte == 0);
                ensure!(
                    same || !told,
                    "page {page} of object {id} has {first:?} in memory, and not {bytes:?}"
                );
                ensure!(
                    state == State::Dirty || is_kept,
                    "page {page} of object {id} is clean; the pager has {kept:?}, not {bytes:?}"
                );
            }
            State::Absent | State::Compressed | State::Bad => ensure!(
                is_kept,
                "page {page} of object {id} is lost: the pager has {kept:?}, and not {bytes:?}"
            ),
            State::Filling | State::Evicting | State::Lost => {
                fail!("page {page} of object {id} is {state:?}")
            }
        }
        Ok(())
    }

    /// Checks that a walk finds all places where the object is shown, and no others.
    fn check_walk(&self, id: ObjectId, handle: &Object<M::Mmu>) -> Checked {
        let Some(whole) = ObjectSpan::new(ObjectPage::new(0), Pages(64)) else { return Ok(()) };
        let mut found = BTreeSet::new();
        handle.walk(whole, |reach| {
            found.insert((reach.at().number(), reach.page().number()));
        });
        let places = self.model.places(id);
        ensure!(found == places, "a walk finds object {id} at {found:?}, and not {places:?}");
        Ok(())
    }

    fn check_totals(&self) -> Checked {
        let resident = self.manager.resident().0;
        let most = self.setting.budget;
        ensure!(resident <= most, "{resident} pages in memory, of {most}");
        let (locked, pinned) = (self.manager.locked().0, self.model.pinned(None));
        ensure!(locked == pinned, "{locked} pages must stay, and not {pinned}");
        for (n, budget) in self.budgets.iter().enumerate() {
            let (locked, pinned) = (budget.locked().0, self.model.pinned(Some(Some(n))));
            ensure!(locked == pinned, "{locked} pages of budget {n} must stay, and not {pinned}");
        }
        let frames = self.machine.frames().unwrap_or(resident);
        ensure!(frames == resident, "{frames} pages of memory for {resident} pages");
        for (budget, before) in self.budgets.iter().zip(&self.before) {
            let (limit, resident) = (budget.limit().0, budget.resident().0);
            ensure!(resident <= limit.max(*before), "a budget has {resident} pages of {limit}");
        }
        let hidden =
            self.model.spaces.values().flat_map(|space| space.pages.values()).any(|shown| {
                !self.objects.iter().any(|slot| slot.id == shown.object && slot.handle.is_some())
            });
        let known = |counts: &dyn Fn(&Slot<M>) -> bool| -> u64 {
            let slots = self.objects.iter().filter(|slot| counts(slot));
            let handles = slots.filter_map(|slot| slot.handle.as_ref());
            handles.map(|object| object.totals().resident.0).sum()
        };
        let agree = |known: u64, resident| known == resident || (hidden && known < resident);
        let all = known(&|_| true);
        ensure!(agree(all, resident), "objects have {all} pages in memory, of {resident}");
        for (n, budget) in self.budgets.iter().enumerate() {
            let (own, resident) = (
                known(&|slot| self.model.objects[&slot.id].budget == Some(n)),
                budget.resident().0,
            );
            ensure!(agree(own, resident), "budget {n}: objects have {own} pages, of {resident}");
        }
        Ok(())
    }

    /// Without failures everything works again: all pulses are served, all pages can be read, and in the end
    /// nothing is left.
    pub(crate) fn finish(&mut self) -> Checked {
        while self.manager.pulses() > 0 && !self.machine.serves_itself() {
            self.quietly(Op::Serve)?;
        }
        for space in 0..self.spaces.len() {
            while self.space(space)?.1.is_super_locked() {
                self.quietly(Op::Revoke { space })?;
            }
            self.quietly(Op::UnlockAll { space })?;
        }
        self.quietly(Op::ReadAll { cpu: 0 })?;
        let is_file = |slot: &&Slot<M>| {
            slot.handle.is_some() && self.model.objects[&slot.id].kind == Kind::File
        };
        let files: Vec<_> = self.objects.iter().filter(is_file).map(|slot| slot.id).collect();
        for (_, space) in core::mem::take(&mut self.spaces) {
            self.machine.close(space);
        }
        self.machine.settle();
        self.objects.clear();
        let (resident, frames) = (self.manager.resident().0, self.machine.frames().unwrap_or(0));
        ensure!((resident, frames) == (0, 0), "{resident} pages in {frames} of memory are left");
        let violations = self.machine.violations();
        ensure!(violations.is_empty(), "the machine saw: {}", violations.join("; "));
        for file in files {
            self.is_kept(file, 0, self.model.objects[&file].size)?;
        }
        Ok(())
    }
}
