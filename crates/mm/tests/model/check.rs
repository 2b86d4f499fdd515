//! Checks that must hold after every operation.

use std::collections::BTreeSet;

use commonhold_mm::{
    Access, ObjectPage, ObjectSpan, Pages, SpaceTotals, State, Writable, soft::Translation,
};

use crate::{
    reference::{FIRST, LENGTH, PAGE},
    trouble::Trouble,
    world::{FRAMES, Slot, World, page},
};

impl World {
    pub(crate) fn check(&mut self) {
        self.take_wakes();
        let owed: u32 = self.owed.values().sum();
        assert_eq!(self.manager.pulses(), owed as usize, "pulses that wait, and wakes to come");
        assert_eq!(self.manager.mmu().soft.violations(), []);
        self.note_touched();
        for space in 0..self.spaces.len() {
            self.check_space(space);
        }
        for slot in &self.objects {
            self.check_object(slot);
        }
        self.check_totals();
    }

    /// What is in memory has been touched.
    fn note_touched(&mut self) {
        for slot in &self.objects {
            let Some(handle) = &slot.handle else { continue };
            let resident = |page: &u64| handle.state(ObjectPage::new(*page)).unwrap().is_resident();
            let size = self.model.objects[&slot.id].size;
            for page in (0..size).filter(resident) {
                let asked = self.troubled.get() || self.model.is_kept(slot.id, page);
                let object = self.model.objects.get_mut(&slot.id).unwrap();
                let new = object.touched.insert(page);
                assert!(asked || !new, "page {page} of {} came in unasked", slot.id);
            }
        }
    }

    fn check_space(&self, space: usize) {
        let (id, handle) = self.space(space);
        let model = &self.model.spaces[&id];
        assert_eq!(handle.is_super_locked(), model.super_locked);
        let mut totals = SpaceTotals { faults: handle.totals().faults, ..Default::default() };
        for at in FIRST - 1..=FIRST + LENGTH {
            let translation = self.manager.mmu().soft.translation(&handle.machine().soft, page(at));
            let (Some(info), Some(shown)) = (handle.query(page(at)), model.pages.get(&at)) else {
                let nothing = handle.query(page(at)).is_none() && !model.pages.contains_key(&at);
                assert!(nothing && translation.is_none(), "page {at} of space {id}");
                continue;
            };
            let locked = shown.locked || model.super_locked;
            assert_eq!(
                (info.page.number(), info.protection, info.lazy, info.locked),
                (shown.page, shown.protection, shown.lazy, locked),
                "page {at} of space {id}"
            );
            let ends = shown.page >= self.model.objects[&shown.object].size;
            assert_eq!(info.state.is_none(), ends, "page {at} of space {id}");
            let settled = !matches!(info.state, Some(State::Filling | State::Evicting));
            assert!(settled, "page {at} of space {id} is stuck: {info:?}");
            let resident = info.state.is_some_and(State::is_resident);
            totals.mapped.0 += 1;
            totals.locked.0 += u64::from(locked);
            totals.resident.0 += u64::from(resident);
            totals.dirty.0 += u64::from(info.state == Some(State::Dirty));
            if let Some(Translation { protection, writable }) = translation {
                assert!(resident && protection == shown.protection, "page {at} of space {id}");
                let dirty = info.state == Some(State::Dirty);
                assert!(writable == Writable::No || dirty, "page {at} of {id}: {info:?}");
            }
            let writable = translation.map(|translation| translation.writable);
            let reads = !self.model.is_there(id, at, Access::Read) || writable.is_some();
            let writes = !self.model.is_there(id, at, Access::Write);
            assert!(reads, "page {at} of space {id} is to be there: {shown:?}");
            assert!(
                writes || writable == Some(Writable::Yes),
                "page {at} of space {id}: {shown:?}"
            );
            let kept = locked && !shown.lazy && !ends && !shown.missing;
            assert!(!kept || resident || !shown.protection.permits(Access::Read), "{at} of {id}");
        }
        let real = handle.totals();
        let mappings = real.mappings;
        assert!(mappings >= self.model.runs(id) && Pages(mappings as u64) <= real.mapped);
        assert_eq!(real, SpaceTotals { mappings, ..totals });
    }

    fn check_object(&self, slot: &Slot) {
        let Some(handle) = &slot.handle else { return };
        let (model, store) = (&self.model.objects[&slot.id], &self.stores[&slot.id]);
        assert_eq!(handle.pages(), Pages(model.size));
        assert_eq!(handle.spaces(), self.model.spaces_of(slot.id));
        let totals = handle.totals();
        let (mut resident, mut dirty, mut bad, mut compressed) = (0, 0, 0, 0);
        for page in 0..model.size {
            let state = handle.state(ObjectPage::new(page)).unwrap();
            let bytes = self.model.bytes(slot.id, page);
            let kept = store.page(page);
            match state {
                State::Clean | State::Dirty => {
                    let mut memory = [0; PAGE];
                    let soft = &self.manager.mmu().soft;
                    let copied = commonhold_mm::Mmu::copy_out(
                        soft,
                        handle.machine(),
                        ObjectPage::new(page),
                        &mut memory,
                    );
                    assert_eq!((copied, memory), (Ok(()), bytes), "page {page} in memory");
                    let clean = state == State::Clean;
                    assert!(!clean || bytes == [0; PAGE] || kept == Some(bytes), "page {page}");
                }
                State::Absent | State::Compressed | State::Bad | State::Lost => {
                    assert!(bytes == [0; PAGE] || kept == Some(bytes), "page {page} is lost");
                }
                State::Filling | State::Evicting => panic!("page {page} is stuck: {state:?}"),
            }
            resident += u64::from(state.is_resident());
            dirty += u64::from(state == State::Dirty);
            bad += u64::from(state == State::Bad);
            compressed += u64::from(state == State::Compressed);
        }
        assert_eq!(handle.state(ObjectPage::new(model.size)), None);
        let counted = (totals.resident.0, totals.dirty.0, totals.bad.0, totals.compressed.0);
        assert_eq!(counted, (resident, dirty, bad, compressed));
        assert!(totals.filled - totals.evicted >= resident);
        self.check_walk(slot);
    }

    /// Checks that a walk finds all places where the object is shown, and no others.
    fn check_walk(&self, slot: &Slot) {
        let Some(handle) = &slot.handle else { return };
        let mut found = BTreeSet::new();
        let whole = ObjectSpan::new(ObjectPage::new(0), Pages(64)).unwrap();
        handle.walk(whole, |reach| {
            found.insert((reach.at().number(), reach.page().number()));
        });
        assert_eq!(found, self.model.places(slot.id), "object {}", slot.id);
    }

    fn check_totals(&self) {
        let resident = self.manager.resident().0;
        assert!(resident <= self.setting.budget, "{resident} pages in memory");
        let left = u64::try_from(self.manager.mmu().soft.frames_left()).unwrap();
        assert_eq!(u64::from(FRAMES) - left, resident, "frames in use");
        for (budget, before) in self.budgets.iter().zip(&self.before) {
            let (limit, resident) = (budget.limit().0, budget.resident().0);
            assert!(resident <= limit.max(*before), "{resident} pages of {limit}");
        }
        let known: u64 = self
            .objects
            .iter()
            .filter_map(|s| s.handle.as_ref())
            .map(|object| object.totals().resident.0)
            .sum();
        let hidden =
            self.model.spaces.values().flat_map(|space| space.pages.values()).any(|shown| {
                !self.objects.iter().any(|slot| slot.id == shown.object && slot.handle.is_some())
            });
        assert!(known == resident || (hidden && known < resident), "{known} of {resident}");
        for (n, budget) in self.budgets.iter().enumerate() {
            let own = |slot: &&Slot| self.model.objects[&slot.id].budget == Some(n);
            let known: u64 = self
                .objects
                .iter()
                .filter(own)
                .filter_map(|s| s.handle.as_ref())
                .map(|object| object.totals().resident.0)
                .sum();
            assert!(known == budget.resident().0 || (hidden && known < budget.resident().0));
        }
    }

    /// Without failures everything works again: all pulses are served, all pages can be read, and in the end
    /// nothing is left.
    pub(crate) fn finish(mut self) {
        while self.manager.pulses() > 0 {
            self.step(crate::program::Op::Serve, Trouble::None);
        }
        for space in 0..self.spaces.len() {
            while self.model.spaces[&self.space(space).0].super_locked {
                self.step(crate::program::Op::Revoke { space }, Trouble::None);
            }
            self.step(crate::program::Op::UnlockAll { space }, Trouble::None);
        }
        self.step(crate::program::Op::ReadAll { cpu: 0 }, Trouble::None);
        let mut files = Vec::new();
        for slot in self.objects.iter().filter(|slot| slot.handle.is_some()) {
            if self.model.objects[&slot.id].kind == commonhold_mm::Kind::File {
                files.push(slot.id);
            }
        }
        self.spaces.clear();
        self.objects.clear();
        assert_eq!(self.manager.resident(), Pages(0));
        assert_eq!(self.manager.mmu().soft.frames_left(), i64::from(FRAMES));
        assert_eq!(self.manager.mmu().soft.violations(), []);
        for file in files {
            self.is_kept(file, 0, self.model.objects[&file].size);
        }
    }
}
