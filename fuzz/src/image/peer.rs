//! A peer of the space, with all operations of the core that it can do.

use std::cell::{Cell, RefCell};

use arbitrary::Arbitrary;
use commonhold_layout::{BootId, Name, Offset, PeerId, PeerName, PeerRef, RegionId};
use commonhold_space::{
    AttachError, Attached, Census, CreateOptions, Demand, Destroy, DirectoryError, Identity,
    Mapped, OwnThread, Patience, View,
};
use commonhold_sync::{Park as _, Thread};

use super::{
    locks::LockDeed,
    machine::{BYTES, Machine},
    records::RecordDeed,
};
use crate::scribble::{name_of, pick};

/// How long a peer waits for a lock.
pub(crate) const BRIEFLY_NS: u64 = 30_000_000;

/// How many mappings a peer keeps at most.
const MAPPED_MOST: usize = 8;

/// Something that a peer does.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub(crate) enum Deed {
    Create { name: u8, pages: u8, lazy: bool, reserve: u8 },
    Map(u8),
    MapHandle(u8),
    Unmap(u8),
    UnmapInSilence(u8),
    Destroy { name: u8, how: u8 },
    Resize { name: u8, pages: u8 },
    Reap,
    Check,
    Look,
    Lock { mapped: u8, deed: LockDeed },
    Record { mapped: u8, word: u8, deed: RecordDeed },
    ClaimThread(u8),
    ReleaseThread,
    EndThread,
    MarkEnded,
    Rename,
    Beat,
    AssumeDead(u8),
    UncountReader { mapped: u8, peer: u8 },
    Stamp(u8),
    FenceRung,
    GiveUp,
    Leave,
}

impl Deed {
    pub(crate) const LEAVE: Self = Self::Leave;

    /// Whether the peer is gone afterwards.
    pub(crate) const fn is_last(self) -> bool {
        matches!(self, Self::Leave)
    }
}

#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) space: Attached<Machine>,
    thread: Cell<OwnThread>,
    tid: Cell<u32>,
    mapped: RefCell<Vec<Mapped>>,
}

impl Peer {
    pub(crate) fn attach(view: View<Machine>, process: u32) -> Result<Self, AttachError> {
        let identity = Identity {
            boot: BootId(7 + u128::from(process & 1)),
            pid: process,
            pid_namespace: 1,
            start_time: 1,
            uid: 0,
            name: PeerName::new("fuzz"),
        };
        let space = Attached::attach(view, &identity)?;
        let thread = space.claim_thread(1).map_err(AttachError::Directory)?;
        Ok(Self { space, thread: Cell::new(thread), tid: Cell::new(1), mapped: RefCell::default() })
    }

    pub(crate) fn me(&self) -> Result<Thread<'_>, DirectoryError> {
        self.space.thread(self.thread.get())
    }

    /// The deadline of its waits.
    pub(crate) fn deadline(&self) -> u64 {
        self.space.view().now().saturating_add(BRIEFLY_NS)
    }

    /// Dies as by SIGKILL.
    pub(crate) fn die(&self) {
        self.space.view().platform().world.kill(self.space.peer());
    }

    fn mapping(&self, index: u8) -> Option<Mapped> {
        pick(&self.mapped.borrow(), index)
    }

    /// Does something. A refusal that the space may give counts as `Ok`.
    pub(crate) fn does(&self, deed: Deed) -> Result<(), DirectoryError> {
        match deed {
            Deed::Lock { mapped, deed } => {
                self.mapping(mapped).map_or(Ok(()), |mapped| deed.run(self, &mapped))
            }
            Deed::Record { mapped, word, deed } => {
                self.mapping(mapped).map_or(Ok(()), |mapped| deed.run(self, &mapped, word))
            }
            Deed::Check => self.space.check(&self.me()?, Patience::LEAST).map(drop),
            Deed::Look => self.looks_at_everything(),
            Deed::Reap => self.space.reap(&self.me()?, Patience::LEAST).map(drop),
            Deed::Leave => self.leaves(),
            deed => match self.changes_directory(deed) {
                None => self.changes_itself(deed),
                Some(result) => result,
            },
        }
    }

    fn changes_directory(&self, deed: Deed) -> Option<Result<(), DirectoryError>> {
        let me = match self.me() {
            Ok(me) => me,
            Err(error) => return Some(Err(error)),
        };
        Some(match deed {
            Deed::Create { name, pages, lazy, reserve } => {
                let options = CreateOptions {
                    size: u64::from(pages) * 1000,
                    lazy,
                    reserve: u64::from(reserve) * 4096,
                    demand: Demand::Fitting,
                };
                self.space.create(&me, &name_of(name)?, &options, Patience::LEAST).map(drop)
            }
            Deed::Map(name) => self.keep(self.space.map(&me, &name_of(name)?, Patience::LEAST)),
            Deed::MapHandle(index) => {
                self.keep(self.space.map_handle(&me, self.mapping(index)?.handle))
            }
            Deed::Unmap(index) => {
                let mapped = self.forget(index)?;
                self.space.unmap(&me, mapped.handle)
            }
            Deed::UnmapInSilence(index) => {
                let mapped = self.forget(index)?;
                self.space.unmap_in_silence(mapped.handle)
            }
            Deed::Destroy { name, how } => {
                let soon = self.deadline();
                let how = pick(&[Destroy::Deferred, Destroy::Until(soon), Destroy::Until(0)], how)?;
                self.space.destroy(&me, &name_of(name)?, how, Patience::LEAST).map(drop)
            }
            Deed::Resize { name, pages } => {
                let size = u64::from(pages) * 1000;
                self.space.resize(&me, &name_of(name)?, size, Demand::Fitting, Patience::LEAST)
            }
            _ => return None,
        })
    }

    fn keep(&self, mapped: Result<Mapped, DirectoryError>) -> Result<(), DirectoryError> {
        let mapped = mapped?;
        let end = mapped.extent.end();
        assert!(end <= BYTES, "a mapping beyond the window: {mapped:?}");
        assert!(mapped.size <= mapped.extent.len(), "a mapping beyond its extent: {mapped:?}");
        let mut kept = self.mapped.borrow_mut();
        if kept.len() < MAPPED_MOST {
            kept.push(mapped);
        }
        Ok(())
    }

    fn forget(&self, index: u8) -> Option<Mapped> {
        let mut kept = self.mapped.borrow_mut();
        let index = usize::from(index).checked_rem(kept.len())?;
        Some(kept.swap_remove(index))
    }

    fn changes_itself(&self, deed: Deed) -> Result<(), DirectoryError> {
        match deed {
            Deed::ClaimThread(tid) => {
                // The thread id of another thread of the same process.
                self.tid.set(u32::from(tid));
                self.thread.set(self.space.claim_thread(u32::from(tid))?);
            }
            Deed::ReleaseThread => self.space.release_thread(self.thread.get()),
            Deed::EndThread => self.space.view().platform().world.end_thread(self.tid.get()),
            Deed::MarkEnded => drop(self.space.mark_ended(0, u16::MAX)),
            Deed::Rename => self.space.rename(&PeerName::new("another name")),
            Deed::Beat => {
                self.space.beat();
                self.space.watch();
                self.space.rouse();
            }
            Deed::AssumeDead(slot) => {
                let peer = PeerId::new(u16::from(slot) & 7);
                let generation = self.space.view().peer_state(peer).generation;
                self.space.view().assume_dead(peer, generation);
            }
            Deed::UncountReader { mapped, peer } => {
                if let Some(mapped) = self.mapping(mapped) {
                    let peer = PeerId::new(u16::from(peer) & 7);
                    let of = self.space.view().peer_state(peer).generation;
                    let of = PeerRef::new(peer, of);
                    // Only the read lock of a peer that is gone is uncounted: a live peer still holds its own.
                    if !self.space.view().is_peer_current(of) {
                        self.space.uncount_reader(mapped.handle, of)?;
                    }
                }
            }
            Deed::Stamp(index) => {
                if let Some(mapped) = self.mapping(index) {
                    self.space.stamp(mapped.handle.region, 5);
                }
            }
            Deed::FenceRung => self.space.view().fence_fired(),
            Deed::GiveUp => self.space.give_up(),
            _ => {}
        }
        Ok(())
    }

    fn leaves(&self) -> Result<(), DirectoryError> {
        if let Ok(me) = self.me() {
            for mapped in self.mapped.take() {
                self.space.unmap(&me, mapped.handle)?;
            }
        }
        self.space.detach()
    }

    /// Reads everything that can be read without changing the space.
    pub(crate) fn looks_at_everything(&self) -> Result<(), DirectoryError> {
        let _ = self.space.unproven().count();
        look(self.space.view())
    }

    /// Cleans up what dead and detached peers have left, and checks that everything is whole.
    pub(crate) fn makes_whole(&self, patience: Patience) -> Result<Census, DirectoryError> {
        let me = self.me()?;
        self.space.reap(&me, patience)?;
        let names: Vec<Name> = (0..6).filter_map(name_of).collect();
        for name in &names {
            match self.space.destroy(&me, name, Destroy::Until(self.deadline()), patience) {
                Ok(_) | Err(DirectoryError::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        self.space.check(&me, patience)
    }
}

/// Reads everything in the space.
pub(crate) fn look(view: &View<Machine>) -> Result<(), DirectoryError> {
    for peer in view.peer_ids() {
        if let Some((record, _)) = view.peer_record(peer) {
            let _ = record.identity.name.to_string();
            let _ = view.verdict_on(&record);
        }
        view.pendings(peer).for_each(|(_, pending)| {
            let _ = (view.place(pending.lock), view.look_at(pending.lock));
        });
        for thread in view.threads(peer) {
            let _ = (view.still_waits(peer, &thread), view.owner_of(peer, thread.thread));
        }
        view.reading(peer).for_each(drop);
    }
    let _ = view.spans_kernels();
    for region in (0..view.regions_used()?).map(RegionId::new) {
        let Some(record) = view.region_record(region)? else { continue };
        let _ = record.name.to_string();
        assert!(record.extent.end() <= BYTES, "a region beyond the window: {record:?}");
        let holder = view.holder(record.lock, Offset::ZERO);
        let _ = holder.and_then(|owner| view.peer_of(owner));
        view.shares(region).for_each(drop);
    }
    for name in (0..6).filter_map(name_of) {
        match view.stat(&name) {
            Ok(_) | Err(DirectoryError::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
