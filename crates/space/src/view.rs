//! A view of a space, for anything that has its window: it reads records as claims.

mod peers;
mod ports;

use core::sync::atomic::{AtomicU64, Ordering};

use commonhold_layout::{
    Damage, Extent, Geometry, HEADER_WORDS, Offset, OpenError, PeerId, RegionId, ThreadId,
    domain_word, header_word, peer_word, region_word, thread_word,
};
use commonhold_window::{OutOfWindow, Window};

use crate::{
    AttachError, BackingMemoryError, Demand, DirectoryError, Platform, Touch, backed::Backed,
};

pub use ports::{RegionShares, region_key};

/// The words of a region entry.
pub(crate) type Entry = [AtomicU64; region_word::COUNT];

/// An opened space, with or without an attachment.
#[derive(Debug)]
pub struct View<P> {
    platform: P,
    geometry: Geometry,
    backed: Backed,
    /// The peer that uses this view: see `kernels.rs`.
    pub(crate) own: AtomicU64,
}

/// The error for a record outside the window. The geometry was checked against the window, so this does not happen.
fn outside(error: OutOfWindow) -> Damage {
    Damage::new("an offset", error.offset)
}

impl<P: Platform> View<P> {
    /// Opens the space in the platform's window for use. Commits memory where tables should have some and have
    /// none.
    ///
    /// # Errors
    /// [`AttachError::Open`] for anything but a whole space of this version, [`AttachError::BackingMemory`].
    pub fn open(platform: P) -> Result<Self, AttachError> {
        Self::open_to(platform, Touch::Use)
    }

    /// Opens the space in the platform's window only to look at it: commits no memory, and treats tables without
    /// memory as damage.
    ///
    /// # Errors
    /// [`AttachError::Open`].
    pub fn look(platform: P) -> Result<Self, AttachError> {
        Self::open_to(platform, Touch::Look)
    }

    fn open_to(platform: P, touch: Touch) -> Result<Self, AttachError> {
        let window = platform.window();
        Backed::header(&platform, window.len(), touch)?;
        let words = window
            .words::<32>(Offset::ZERO)
            .map_err(|_| OpenError::Truncated { window: window.len(), capacity: 256 })
            .map_err(AttachError::Open)?;
        // Acquire: pairs with the Release of the magic number, the last word that formatting writes.
        let mut claims = [words[0].load(Ordering::Acquire); 32];
        for (claim, word) in claims.iter_mut().zip(words).skip(1) {
            *claim = word.load(Ordering::Relaxed);
        }
        let geometry = Geometry::check(&claims, window.len()).map_err(AttachError::Open)?;
        let backed = Backed::tables(&platform, &geometry, touch)?;
        Ok(Self { platform, geometry, backed, own: AtomicU64::new(0) })
    }

    /// The offsets and sizes of all tables.
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The platform.
    pub const fn platform(&self) -> &P {
        &self.platform
    }

    /// The window.
    pub fn window(&self) -> &Window {
        self.platform.window()
    }

    pub(crate) fn header(&self) -> Result<&[AtomicU64; HEADER_WORDS], Damage> {
        self.window().words(Offset::ZERO).map_err(outside)
    }

    pub(crate) fn peer(&self, peer: PeerId) -> Result<&[AtomicU64; peer_word::COUNT], Damage> {
        let at = self.geometry.peer(peer).ok_or(Damage::new("a peer slot", peer.get().into()))?;
        self.window().words(at).map_err(outside)
    }

    pub(crate) fn thread(
        &self,
        peer: PeerId,
        thread: ThreadId,
    ) -> Result<&[AtomicU64; thread_word::COUNT], Damage> {
        let damage = Damage::new("a thread slot", thread.index().into());
        let at = self.geometry.thread(peer, thread).ok_or(damage)?;
        self.window().words(at).map_err(outside)
    }

    pub(crate) fn domain(&self, index: u16) -> Result<&[AtomicU64; domain_word::COUNT], Damage> {
        let at = self.geometry.domain(index).ok_or(Damage::new("a domain", index.into()))?;
        self.window().words(at).map_err(outside)
    }

    /// The entry of a region, if the entry has memory.
    pub(crate) fn entry(&self, region: RegionId) -> Result<&Entry, Damage> {
        let damage = Damage::new("a region", region.get().into());
        if !self.backed.has_entry(region) && region.get() >= self.regions_used()? {
            return Err(damage);
        }
        self.window().words(self.geometry.region(region).ok_or(damage)?).map_err(outside)
    }

    pub(crate) fn bucket(&self, hash: u64) -> Result<&AtomicU64, Damage> {
        self.window().word(self.geometry.bucket(hash)).map_err(outside)
    }

    /// The number of entries that have memory, which this process has verified.
    ///
    /// # Errors
    /// [`Damage`]; also if there is no memory for as many entries as the window claims.
    pub fn regions_used(&self) -> Result<u32, Damage> {
        // Acquire: pairs with the Release in `create`, which committed the entries before.
        let claim = self.header()?[header_word::REGIONS_USED].load(Ordering::Acquire);
        let used = u32::try_from(claim).ok().filter(|used| *used <= self.geometry.regions());
        let used = used.ok_or(Damage::new("the number of used regions", claim))?;
        self.backed.back_entries(&self.platform, &self.geometry, used)?;
        Ok(used)
    }

    /// The extent that an entry claims, if it lies in the data area; empty for a region without bytes.
    pub(crate) fn extent(&self, entry: &Entry) -> Result<Extent, Damage> {
        let offset = entry[region_word::OFFSET].load(Ordering::Relaxed);
        let reserve = entry[region_word::RESERVE].load(Ordering::Relaxed);
        if reserve == 0 {
            return Ok(Extent::EMPTY);
        }
        let data = self.geometry.data();
        Extent::new(offset, reserve)
            .filter(|extent| extent.start() >= data.start() && extent.end() <= data.end())
            .filter(|extent| (offset | extent.len()) & (self.geometry.page() - 1) == 0)
            .ok_or(Damage::new("the extent of a region", offset))
    }

    /// Releases the memory behind an extent, piece by piece, since a device that has to write zeros for it may
    /// take long. Before each piece this peer counts up its heartbeat, and stops if it was declared dead: another
    /// region may have the bytes by then.
    pub(crate) fn release(&self, extent: Extent) -> Result<(), DirectoryError> {
        const AT_ONCE: u64 = 16 << 20;
        let piece = AT_ONCE.max(self.geometry.page());
        let mut at = 0;
        while let Some(left) = extent.len().checked_sub(at).filter(|left| *left > 0) {
            let part = extent.part(at, piece.min(left));
            self.beat();
            if self.is_fenced() {
                return Err(DirectoryError::Fenced);
            }
            self.platform.release(part.ok_or(Damage::new("an extent", at))?)?;
            at = at.saturating_add(piece);
        }
        Ok(())
    }

    /// A word of the window at an unchecked offset, to be read only: `None` if it does not lie in the window, or has
    /// no memory.
    #[must_use]
    pub fn look_at(&self, at: Offset) -> Option<&AtomicU64> {
        let word = self.window().word(at).ok()?;
        self.may_look(Extent::new(at.get(), 8)?).then_some(word)
    }

    /// Whether bytes of an unchecked extent can be read without committing memory.
    #[must_use]
    pub fn may_look(&self, extent: Extent) -> bool {
        extent.end() <= self.window().len() && self.platform.back(extent, Touch::Look).is_ok()
    }

    /// An error if there is not so much memory, before any of it is committed; unless the caller forces it.
    pub(crate) fn room_for(&self, bytes: u64, demand: Demand) -> Result<(), BackingMemoryError> {
        match demand {
            Demand::Fitting => self.platform.room_for(bytes),
            Demand::Forced => Ok(()),
        }
    }

    /// The offset of a word of an entry.
    pub(crate) fn entry_word(&self, region: RegionId, word: usize) -> Result<Offset, Damage> {
        self.geometry
            .region(region)
            .and_then(|at| at.plus(8 * word as u64))
            .ok_or(Damage::new("a region", region.get().into()))
    }
}
