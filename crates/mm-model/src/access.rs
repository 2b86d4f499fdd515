//! Accesses by processors, faults, and pulses.

use alloc::{vec, vec::Vec};
use core::ops::Range;

use commonhold_mm::{Access, Context, Fault, FaultError, State};

use crate::{
    machine::{CPUS, Machine, Outlook, Touch, Touched},
    reference::{BYTES, FIRST, LENGTH, SpaceId},
    world::{Checked, PulseKey, World, page},
};

/// How many faults one access may need. One more means that faults do not help.
const MOST_FAULTS: u32 = 100;

/// A wake: which pulse, and the result.
type Answer = (PulseKey, Result<(), FaultError>);

impl<M: Machine> World<'_, M> {
    pub(crate) fn write(
        &mut self,
        cpu: usize,
        space: usize,
        address: u64,
        bytes: &[u8],
    ) -> Checked {
        for (at, offset, part) in parts(address, bytes.len()) {
            let from = bytes.get(part).unwrap_or_default();
            if !self.access(cpu, space, at, Touch::Write { offset, from })? {
                return Ok(());
            }
            let (id, _) = self.space(space)?;
            if let Some(shown) = self.model.shown(id, at).copied() {
                self.model.write(&shown, offset, from);
            }
        }
        Ok(())
    }

    pub(crate) fn read(&mut self, cpu: usize, space: usize, address: u64, length: u64) -> Checked {
        for (at, offset, part) in parts(address, usize::try_from(length).unwrap_or(0)) {
            let mut read = vec![0xDD; part.len()];
            if !self.access(cpu, space, at, Touch::Read { offset, into: &mut read })? {
                return Ok(());
            }
            let (id, _) = self.space(space)?;
            let Some(shown) = self.model.shown(id, at).copied() else { continue };
            let bytes = self.model.bytes(shown.object, shown.page);
            let expected = bytes.get(offset..offset + read.len()).unwrap_or_default();
            ensure!(
                read == expected,
                "page {at} of space {id} reads {read:?}, and not {expected:?} ({shown:?})"
            );
        }
        Ok(())
    }

    pub(crate) fn read_all(&mut self, cpu: usize) -> Checked {
        for space in 0..self.spaces.len() {
            for at in FIRST..FIRST + LENGTH {
                self.read(cpu, space, at * BYTES as u64, BYTES as u64)?;
            }
        }
        Ok(())
    }

    /// One access, with all faults that it needs. Its result must be the model's. Returns whether it was done.
    fn access(&mut self, cpu: usize, space: usize, at: u64, mut touch: Touch<'_>) -> Checked<bool> {
        let access = touch.access();
        let (id, handle) = self.space(space)?;
        let expected = self.model.may_access(id, at, access).map(|_| ());
        let there = self.model.is_there(id, at, access);
        let sure = expected.is_ok() && !self.is_armed() && !self.is_short(&self.model);
        let outlook = if sure { Outlook::Succeeds } else { Outlook::Unknown };
        for _ in 0..MOST_FAULTS {
            let error =
                match self.machine.touch(cpu % CPUS, &handle, page(at), touch.again(), outlook) {
                    Touched::Done => {
                        ensure!(expected.is_ok(), "page {at} of space {id} can be accessed");
                        self.model.accessed(id, at);
                        return Ok(true);
                    }
                    Touched::Unable => return Ok(false),
                    Touched::Failed(error) => {
                        ensure!(!there, "page {at} of space {id} fails: {error:?}");
                        self.compare_failure(id, at, access, error)?;
                        return Ok(false);
                    }
                    Touched::Faulted => {
                        ensure!(!there, "page {at} of space {id} faults");
                        self.resolve(cpu, space, at, access)?
                    }
                };
            if error.is_err() {
                return Ok(false);
            }
        }
        // Without a record of wakes, an error that repeats is not seen itself.
        let excused = self.excuses(FaultError::NoMemory, &self.model);
        ensure!(excused, "{MOST_FAULTS} faults for one {access:?} of page {at} of space {id}");
        Ok(false)
    }

    /// Reports a fault, and serves pulses until it is answered.
    fn resolve(
        &mut self,
        cpu: usize,
        space: usize,
        at: u64,
        access: Access,
    ) -> Checked<Result<(), FaultError>> {
        let (id, _) = self.space(space)?;
        match self.fault(cpu, space, (at, access), Context::Normal)? {
            Fault::Resolved => Ok(Ok(())),
            Fault::Failed(error) => Ok(Err(error)),
            Fault::Full => self.serve().map(Ok),
            Fault::Pulsed => self.wait((id, at, access, cookie(cpu))),
        }
    }

    /// An access of a machine whose threads report faults has failed.
    fn compare_failure(
        &self,
        id: SpaceId,
        at: u64,
        access: Access,
        error: Option<FaultError>,
    ) -> Checked {
        let same = match self.model.may_access(id, at, access) {
            Err(expected) => error.is_none_or(|error| error == expected),
            Ok(_) => false,
        };
        let excused = match error {
            Some(error) => self.excuses(error, &self.model),
            None => self.fired() || self.is_short(&self.model),
        };
        ensure!(same || excused, "{access:?} of page {at} of space {id} fails: {error:?}");
        Ok(())
    }

    /// Reports a fault, and compares the immediate result with the model.
    pub(crate) fn fault(
        &mut self,
        cpu: usize,
        space: usize,
        (at, access): (u64, Access),
        context: Context,
    ) -> Checked<Fault> {
        let (id, handle) = self.space(space)?;
        let before = self.manager.pulses();
        let fault = self.call(|| handle.fault_by(page(at), access, context, cookie(cpu)));
        self.book((id, at, access, cookie(cpu)), before);
        if context == Context::NoFault {
            return Ok(fault);
        }
        let expected = self.model.may_access(id, at, access);
        match fault {
            Fault::Resolved => {
                ensure!(expected.is_ok(), "a fault on page {at} of space {id} was resolved");
                self.model.accessed(id, at);
            }
            Fault::Failed(error) => {
                let same = expected == Err(error);
                let excused = same || self.excuses(error, &self.model);
                ensure!(excused, "a fault on page {at} of space {id}: {error:?}, {expected:?}");
            }
            Fault::Pulsed | Fault::Full => {
                ensure!(expected.is_ok(), "{fault:?} for page {at} of space {id}: {expected:?}");
                if let (true, Ok(shown)) = (self.machine.serves_itself() || !self.told, expected) {
                    // It comes in without a wake that the checker sees.
                    self.model.touched(shown.object, shown.page);
                }
            }
        }
        let ours = self.owed.iter().filter(|(key, _)| key.0 == id).map(|(_, count)| count);
        let full = ours.sum::<u32>() as usize == self.setting.pulses;
        let known = self.told && !self.machine.serves_itself();
        ensure!(fault != Fault::Full || full || !known, "space {id} has room for a pulse");
        Ok(fault)
    }

    /// Notes a pulse that was accepted and not merged with another.
    fn book(&mut self, key: PulseKey, before: usize) {
        if self.machine.serves_itself() || !self.told {
            return;
        }
        let new = self.manager.pulses().saturating_sub(before);
        if new > 0 {
            *self.owed.entry(key).or_default() += u32::try_from(new).unwrap_or(u32::MAX);
        }
    }

    /// Serves pulses until the one for this fault is answered.
    fn wait(&mut self, key: PulseKey) -> Checked<Result<(), FaultError>> {
        if !self.told {
            while self.manager.pulses() > 0 {
                self.serve()?;
            }
            return Ok(Ok(()));
        }
        while self.owed.contains_key(&key) {
            ensure!(self.manager.pulses() > 0, "the pulse {key:?} was lost");
            let answers = self.serve_one()?;
            if let Some((_, result)) = answers.iter().find(|(answered, _)| *answered == key) {
                return Ok(*result);
            }
        }
        Ok(Ok(()))
    }

    pub(crate) fn serve(&mut self) -> Checked {
        self.serve_one().map(|_| ())
    }

    /// Serves one pulse, and returns the wakes.
    fn serve_one(&mut self) -> Checked<Vec<Answer>> {
        if self.machine.serves_itself() {
            return Ok(Vec::new());
        }
        let waiting = self.manager.pulses();
        let served = self.call(|| self.manager.serve());
        ensure!(served == (waiting > 0), "{waiting} pulses wait, and serving one said {served}");
        let answers = self.take_wakes()?;
        for &((id, at, access, _), result) in &answers {
            match (self.model.may_access(id, at, access), result) {
                (Ok(_), Ok(())) => self.model.accessed(id, at),
                (Err(expected), Err(error)) if expected == error => {}
                (_, Err(error)) if self.excuses(error, &self.model) => {}
                (expected, result) => {
                    fail!("a pulse for page {at} of space {id} ends with {result:?}: {expected:?}")
                }
            }
        }
        let wakes = answers.len();
        ensure!(!self.told || wakes == waiting.min(1), "serving one pulse made {wakes} wakes");
        Ok(answers)
    }

    /// The wakes since the last call. Each of them must have been promised.
    pub(crate) fn take_wakes(&mut self) -> Checked<Vec<Answer>> {
        let mut answers = Vec::new();
        for wake in self.machine.wakes().unwrap_or_default() {
            if self.machine.serves_itself() {
                continue;
            }
            let id = self.numbers.get(&wake.space).copied();
            let key = id.map(|id| (id, wake.at.number(), wake.access, wake.cookie));
            let owed = key.and_then(|key| Some((key, self.owed.get_mut(&key)?)));
            let Some((key, owed)) = owed else { fail!("{wake:?}, which no pulse waits for") };
            *owed -= 1;
            if *owed == 0 {
                self.owed.remove(&key);
            }
            answers.push((key, wake.result));
        }
        Ok(answers)
    }

    /// An access from where no fault may happen.
    pub(crate) fn no_fault(
        &mut self,
        cpu: usize,
        space: usize,
        at: u64,
        access: Access,
    ) -> Checked {
        let (id, handle) = self.space(space)?;
        let expected = self.model.may_access(id, at, access);
        if self.is_done_at_once(cpu, space, at, access)? {
            ensure!(expected.is_ok(), "page {at} of space {id} can be accessed");
            self.model.accessed(id, at);
            return Ok(());
        }
        ensure!(!self.model.is_there(id, at, access), "page {at} of space {id} faults");
        let fault = self.fault(cpu, space, (at, access), Context::NoFault)?;
        let Fault::Failed(error) = fault else { fail!("{fault:?} where no fault may happen") };
        let shown = match expected {
            Ok(shown) => shown,
            Err(expected) => {
                ensure!(error == expected, "{error:?}, and not {expected:?}");
                return Ok(());
            }
        };
        let state = handle.query(page(at)).and_then(|info| info.state);
        let all = self.model.spaces[&id].super_locked;
        let fresh = !self.model.objects[&shown.object].touched.contains(&shown.page);
        let expected = match shown.lazy {
            true if all || fresh => FaultError::NeverReferenced,
            true if !state.is_some_and(State::is_resident) => error,
            _ => FaultError::NotSuperLocked,
        };
        ensure!(error == expected, "{error:?}, and not {expected:?}: {shown:?}");
        Ok(())
    }

    /// Whether an access needs no fault.
    fn is_done_at_once(
        &mut self,
        cpu: usize,
        space: usize,
        at: u64,
        access: Access,
    ) -> Checked<bool> {
        let (id, handle) = self.space(space)?;
        if self.machine.serves_itself() {
            // An access would make a thread of the machine report a fault.
            return Ok(self.model.is_there(id, at, access));
        }
        let touch = Touch::of_nothing(access);
        let done = self.machine.touch(cpu % CPUS, &handle, page(at), touch, Outlook::Unknown);
        Ok(done == Touched::Done)
    }
}

/// What tells the faults of a processor from those of others.
fn cookie(cpu: usize) -> u64 {
    1 + (cpu % CPUS) as u64
}

/// The pages of a span of bytes: page, place in it, and which of the bytes.
fn parts(address: u64, length: usize) -> impl Iterator<Item = (u64, usize, Range<usize>)> {
    let size = BYTES as u64;
    let end = address.saturating_add(length as u64);
    (address / size..end.div_ceil(size)).map(move |at| {
        let (first, last) = (address.max(at * size), end.min((at + 1) * size));
        // All three are at most `length`, or the bytes in a page.
        let [place, first, last] = [first - at * size, first - address, last - address]
            .map(|byte| usize::try_from(byte).unwrap_or(0));
        (at, place, first..last)
    })
}
