//! Accesses by processors, faults, and pulses.

use commonhold_mm::{Access, AddressSpace, Context, Fault, FaultError, State};

use crate::{
    machine::Machine,
    reference::{FIRST, LENGTH, PAGE, SpaceId},
    trouble,
    world::{World, page},
};

impl World {
    pub(crate) fn write(&mut self, cpu: usize, space: usize, address: u64, bytes: &[u8]) {
        for (at, offset, part) in parts(address, bytes.len() as u64) {
            let bytes = &bytes[part.clone()];
            let act = |page: &mut [u8]| page[offset..offset + bytes.len()].copy_from_slice(bytes);
            let Ok(()) = self.access(cpu, space, at, Access::Write, act) else { return };
            let shown = *self.model.shown(self.space(space).0, at).unwrap();
            self.model.write(&shown, offset, bytes);
        }
    }

    pub(crate) fn read(&mut self, cpu: usize, space: usize, address: u64, length: u64) {
        for (at, offset, part) in parts(address, length) {
            let mut read = Vec::new();
            let act = |page: &mut [u8]| read = page[offset..offset + part.len()].to_vec();
            let Ok(()) = self.access(cpu, space, at, Access::Read, act) else { return };
            let shown = *self.model.shown(self.space(space).0, at).unwrap();
            let bytes = self.model.bytes(shown.object, shown.page);
            assert_eq!(read, bytes[offset..offset + read.len()], "page {at} of space {space}");
        }
    }

    pub(crate) fn read_all(&mut self, cpu: usize) {
        for space in 0..self.spaces.len() {
            for at in FIRST..FIRST + LENGTH {
                self.read(cpu, space, at * PAGE as u64, PAGE as u64);
            }
        }
    }

    /// One access, with all faults that it needs. Its result must be the model's.
    fn access(
        &mut self,
        cpu: usize,
        space: usize,
        at: u64,
        access: Access,
        mut act: impl FnMut(&mut [u8]),
    ) -> Result<(), FaultError> {
        let (id, handle) = self.space(space);
        let expected = self.model.may_access(id, at, access).map(|_| ());
        let there = self.model.is_there(id, at, access);
        for attempt in 0..100 {
            if self.try_access(cpu, &handle, at, access, &mut act) {
                assert_eq!(expected, Ok(()), "page {at} of space {id} can be accessed");
                self.model.accessed(id, at);
                return Ok(());
            }
            assert!(!there, "page {at} of space {id} faults (attempt {attempt})");
            let before = self.manager.pulses();
            let fault = self.call(|| handle.fault(page(at), access, Context::Normal));
            self.book(id, at, access, before);
            self.compare_fault(id, at, access, fault);
            match fault {
                Fault::Resolved => {}
                Fault::Failed(error) => return Err(error),
                Fault::Full => self.serve(),
                Fault::Pulsed => self.wait(id, at, access)?,
            }
        }
        panic!("100 faults for one access to page {at} of space {id}");
    }

    fn try_access(
        &self,
        cpu: usize,
        space: &AddressSpace<Machine>,
        at: u64,
        access: Access,
        act: &mut impl FnMut(&mut [u8]),
    ) -> bool {
        let soft = &self.manager.mmu().soft;
        trouble::aside(|| {
            self.cpus[cpu].try_access(soft, &space.machine().soft, page(at), access, act)
        })
    }

    /// Serves pulses until the one for this fault is answered.
    fn wait(&mut self, id: SpaceId, at: u64, access: Access) -> Result<(), FaultError> {
        while self.owed.contains_key(&(id, at, access)) {
            assert!(self.manager.pulses() > 0, "a pulse was lost");
            let answers = self.serve_one();
            let ours = |wake: &&(SpaceId, u64, Access, Result<(), FaultError>)| {
                (wake.0, wake.1, wake.2) == (id, at, access)
            };
            if let Some((_, _, _, result)) = answers.iter().find(ours) {
                return *result;
            }
        }
        Ok(())
    }

    /// Compares the immediate result of a fault with the model.
    pub(crate) fn compare_fault(&mut self, id: SpaceId, at: u64, access: Access, fault: Fault) {
        let expected = self.model.may_access(id, at, access);
        match fault {
            Fault::Resolved => {
                assert!(expected.is_ok(), "a fault on page {at} of space {id} was resolved");
                self.model.accessed(id, at);
            }
            Fault::Failed(error) => {
                let same = expected == Err(error);
                assert!(same || self.excuses(error, &self.model), "{error}, not {expected:?}");
            }
            Fault::Pulsed | Fault::Full => assert!(expected.is_ok(), "{fault:?}: {expected:?}"),
        }
        let ours = self.owed.iter().filter(|(key, _)| key.0 == id).map(|(_, count)| count);
        let full = ours.sum::<u32>() as usize == self.setting.pulses;
        assert!(fault != Fault::Full || full, "full, with room");
    }

    /// Notes a pulse that was accepted and not merged with another.
    pub(crate) fn book(&mut self, id: SpaceId, at: u64, access: Access, before: usize) {
        let new = self.manager.pulses() - before;
        if new > 0 {
            *self.owed.entry((id, at, access)).or_default() += u32::try_from(new).unwrap();
        }
    }

    pub(crate) fn serve(&mut self) {
        self.serve_one();
    }

    /// Serves one pulse, and returns the wakes.
    fn serve_one(&mut self) -> Vec<(SpaceId, u64, Access, Result<(), FaultError>)> {
        let waiting = self.manager.pulses();
        assert_eq!(self.call(|| self.manager.serve()), waiting > 0);
        let wakes = self.take_wakes();
        for &(id, at, access, result) in &wakes {
            match (self.model.may_access(id, at, access), result) {
                (Ok(_), Ok(())) => self.model.accessed(id, at),
                (Err(expected), Err(error)) if expected == error => {}
                (_, Err(error)) if self.excuses(error, &self.model) => {}
                (expected, result) => panic!("{result:?} for page {at} of {id}: {expected:?}"),
            }
        }
        assert_eq!(wakes.len(), waiting.min(1), "one pulse, one wake");
        wakes
    }

    /// The wakes since the last call. Each of them must have been promised.
    pub(crate) fn take_wakes(&mut self) -> Vec<(SpaceId, u64, Access, Result<(), FaultError>)> {
        let wakes = self.manager.mmu().wakes();
        let wakes = wakes.into_iter().map(|(id, at, access, result)| {
            let key = (id, at.number(), access);
            let owed = self.owed.get_mut(&key).unwrap_or_else(|| panic!("{key:?} woken twice"));
            *owed -= 1;
            if *owed == 0 {
                self.owed.remove(&key);
            }
            (id, at.number(), access, result)
        });
        wakes.collect()
    }

    /// An access from where no fault may happen.
    pub(crate) fn no_fault(&mut self, cpu: usize, space: usize, at: u64, access: Access) {
        let (id, handle) = self.space(space);
        let expected = self.model.may_access(id, at, access);
        if self.try_access(cpu, &handle, at, access, &mut |_| ()) {
            assert!(expected.is_ok());
            self.model.accessed(id, at);
            return;
        }
        assert!(!self.model.is_there(id, at, access), "page {at} of space {id} faults");
        let fault = self.call(|| handle.fault(page(at), access, Context::NoFault));
        let Fault::Failed(error) = fault else { panic!("{fault:?} where no fault may be") };
        let shown = match expected {
            Ok(shown) => shown,
            Err(expected) => return assert_eq!(error, expected),
        };
        let state = handle.query(page(at)).unwrap().state;
        let all = self.model.spaces[&id].super_locked;
        let fresh = !self.model.objects[&shown.object].touched.contains(&shown.page);
        let expected = match shown.lazy {
            true if all || fresh => FaultError::NeverReferenced,
            true if !state.is_some_and(State::is_resident) => error,
            _ => FaultError::NotSuperLocked,
        };
        assert_eq!(error, expected, "{shown:?}");
    }
}

/// The pages of a span of bytes: page, place in it, and which of the bytes.
fn parts(address: u64, length: u64) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let size = PAGE as u64;
    (address / size..(address + length).div_ceil(size)).map(move |at| {
        let (first, end) = (address.max(at * size), (address + length).min((at + 1) * size));
        let place = usize::try_from(first - at * size).unwrap();
        let [first, end] = [first, end].map(|byte| usize::try_from(byte - address).unwrap());
        (at, place, first..end)
    })
}
