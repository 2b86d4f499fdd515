//! A processor: it accesses memory by address, remembers translations, and faults.

use alloc::sync::Arc;
use core::fmt;

use lock_api::{RawMutex, RawRwLock};

use super::{SoftMmu, SoftSpace, Violation, tlb::Tlb};
use crate::{Access, AddressSpace, Context, Fault, FaultError, Manager, VirtualPage};

/// A processor of a [`SoftMmu`]. It serves pulses itself while it waits for one.
pub struct Cpu<X> {
    tlb: Arc<Tlb<X>>,
}

impl<X: RawMutex, W> SoftMmu<X, W> {
    /// A processor of this machine.
    pub fn cpu(&self) -> Cpu<X> {
        let tlb = Arc::new(Tlb::new());
        self.connect(&tlb);
        Cpu { tlb }
    }
}

impl<X: RawMutex + Send + Sync + 'static> Cpu<X> {
    /// Reads bytes at an address of `space`.
    ///
    /// # Errors
    /// The error of the fault; the bytes of earlier pages are in `into`.
    pub fn read<W: RawRwLock + Send + Sync + 'static>(
        &self,
        manager: &Manager<SoftMmu<X, W>>,
        space: &AddressSpace<SoftMmu<X, W>>,
        address: u64,
        into: &mut [u8],
    ) -> Result<(), FaultError> {
        let page_size = manager.mmu().page_size_u64();
        let mut address = address;
        let mut rest = into;
        while !rest.is_empty() {
            let (at, offset, length) = part(address, rest.len(), page_size);
            let (now, later) = rest.split_at_mut(length);
            self.access(manager, space, at, Access::Read, Context::Normal, |bytes| {
                if let Some(bytes) = bytes.get(offset..offset + length) {
                    now.copy_from_slice(bytes);
                }
            })?;
            address += length as u64;
            rest = later;
        }
        Ok(())
    }

    /// Writes bytes to an address of `space`.
    ///
    /// # Errors
    /// The error of the fault; earlier pages have been written to.
    pub fn write<W: RawRwLock + Send + Sync + 'static>(
        &self,
        manager: &Manager<SoftMmu<X, W>>,
        space: &AddressSpace<SoftMmu<X, W>>,
        address: u64,
        from: &[u8],
    ) -> Result<(), FaultError> {
        let page_size = manager.mmu().page_size_u64();
        let mut address = address;
        let mut rest = from;
        while !rest.is_empty() {
            let (at, offset, length) = part(address, rest.len(), page_size);
            let (now, later) = rest.split_at(length);
            self.access(manager, space, at, Access::Write, Context::Normal, |bytes| {
                if let Some(bytes) = bytes.get_mut(offset..offset + length) {
                    bytes.copy_from_slice(now);
                }
            })?;
            address += length as u64;
            rest = later;
        }
        Ok(())
    }

    /// One access to one page, with all faults that it needs.
    ///
    /// # Errors
    /// The error of the fault; with [`Context::NoFault`], every fault is an error.
    pub fn access<W: RawRwLock + Send + Sync + 'static>(
        &self,
        manager: &Manager<SoftMmu<X, W>>,
        space: &AddressSpace<SoftMmu<X, W>>,
        at: VirtualPage,
        access: Access,
        context: Context,
        mut act: impl FnMut(&mut [u8]),
    ) -> Result<(), FaultError> {
        let mmu = manager.mmu();
        while !self.try_access(mmu, space.machine(), at, access, &mut act) {
            let ticket = mmu.waits.expect(space.machine().number, at, access);
            let waited = wait(manager, space.fault_by(at, access, context, ticket), ticket);
            mmu.waits.forget(ticket);
            waited?;
        }
        Ok(())
    }

    /// An access by a translation that is remembered, or stands in the table. `false` if there is none.
    pub fn try_access<W>(
        &self,
        mmu: &SoftMmu<X, W>,
        space: &SoftSpace<X>,
        at: VirtualPage,
        access: Access,
        act: &mut impl FnMut(&mut [u8]),
    ) -> bool {
        let mut remembered = self.tlb.remembered.lock();
        let key = (space.number, at);
        if mmu.remembers_less() && remembered.get(&key).is_some_and(|entry| !entry.permits(access))
        {
            remembered.remove(&key);
            return false;
        }
        if remembered.get(&key).is_none_or(|entry| !entry.permits(access)) {
            let mut table = space.table.lock();
            let Some(entry) = table.get_mut(at).filter(|entry| entry.permits(access)) else {
                return false;
            };
            entry.accessed = true;
            remembered.insert(key, entry.clone());
        }
        let Some(entry) = remembered.get(&key) else { return false };
        if entry.frame.is_released() {
            mmu.blame(Violation::UsedAfterRelease { at });
        }
        act(&mut entry.frame.bytes.lock());
        true
    }
}

/// Waits for the result of a fault.
fn wait<X, W>(manager: &Manager<SoftMmu<X, W>>, fault: Fault, ticket: u64) -> Result<(), FaultError>
where
    X: RawMutex + Send + Sync + 'static,
    W: RawRwLock + Send + Sync + 'static,
{
    let mmu = manager.mmu();
    let mut attempt = 0_u32;
    match fault {
        Fault::Resolved => Ok(()),
        Fault::Failed(error) => Err(error),
        Fault::Full => {
            if !manager.serve() {
                crate::Mmu::idle(mmu, attempt);
            }
            Ok(())
        }
        Fault::Pulsed => loop {
            if let Some(result) = mmu.waits.result(ticket) {
                return result;
            }
            if !manager.serve() {
                attempt = attempt.saturating_add(1);
                crate::Mmu::idle(mmu, attempt);
            }
        },
    }
}

/// The page of an address, the offset in the page, and how many of `length` bytes lie in the page.
fn part(address: u64, length: usize, page_size: u64) -> (VirtualPage, usize, usize) {
    let (at, offset) = (VirtualPage::new(address / page_size), address % page_size);
    // Both are at most the size of a page, which is a usize.
    let [offset, left] = [offset, page_size - offset].map(|n| usize::try_from(n).unwrap_or(0));
    (at, offset, left.min(length))
}

impl<X, W> SoftMmu<X, W>
where
    X: RawMutex + Send + Sync + 'static,
    W: RawRwLock + Send + Sync + 'static,
{
    fn page_size_u64(&self) -> u64 {
        crate::Mmu::page_size(self) as u64
    }
}

impl<X> fmt::Debug for Cpu<X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cpu").finish_non_exhaustive()
    }
}
