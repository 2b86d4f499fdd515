//! A space as anybody who has its window sees it: records, read as claims.

use core::sync::atomic::{AtomicU64, Ordering};

use commonhold_layout::{
    Bell, BootId, Damage, DomainState, Extent, Geometry, HEADER_WORDS, Offset, OpenError, Owner,
    PeerId, PeerName, PeerPhase, PeerRef, PeerState, Pending, PendingKind, ReadKey, RegionId,
    ThreadId, domain_word, header_word, peer_word, region_word, thread_word,
};
use commonhold_sync::{Park, RwLock, Shares, ThreadSlot, Wake, used};
use commonhold_window::{OutOfWindow, Point, Window};

use crate::{
    AttachError, DirectoryError, Identity, Mapped, PeerRecord, Platform, RegionHandle, Touch,
    backed::Backed,
};

/// The words of a region entry.
pub(crate) type Entry = [AtomicU64; region_word::COUNT];

/// A space that was opened, and not (or not yet) attached to.
#[derive(Debug)]
pub struct View<P> {
    platform: P,
    geometry: Geometry,
    pub(crate) backed: Backed,
    /// The peer that looks through it: see `kernels.rs`.
    pub(crate) own: AtomicU64,
}

/// A record that the geometry says must exist, in a window that it has been checked against.
fn outside(error: OutOfWindow) -> Damage {
    Damage::new("an offset", error.offset)
}

impl<P: Platform> View<P> {
    /// Opens the space in the platform's window, to be used. Where tables should have memory and have none, it is
    /// taken.
    ///
    /// # Errors
    /// [`AttachError::Open`] for anything but a whole space of this version, [`AttachError::Medium`].
    pub fn open(platform: P) -> Result<Self, AttachError> {
        Self::open_to(platform, Touch::Use)
    }

    /// Opens the space in the platform's window, to be looked at: no memory is taken, and tables that have none
    /// are damage.
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

    /// Where everything lies.
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Where the space runs.
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

    /// The entry of a region whose memory exists.
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

    /// Entries below this have memory behind them: this process has made sure of that.
    ///
    /// # Errors
    /// [`Damage`], also if more entries are said to be used than memory can be had for.
    pub fn regions_used(&self) -> Result<u32, Damage> {
        // Acquire: pairs with the Release in `create`, which committed the entries before.
        let claim = self.header()?[header_word::REGIONS_USED].load(Ordering::Acquire);
        let used = u32::try_from(claim).ok().filter(|used| *used <= self.geometry.regions());
        let used = used.ok_or(Damage::new("the number of used regions", claim))?;
        self.back_entries(used)?;
        Ok(used)
    }

    /// Slots below this have had peers.
    pub fn peers_used(&self) -> u16 {
        let claim = self.header().map_or(0, |header| used(&header[header_word::PEERS_USED]));
        u16::try_from(claim).unwrap_or(u16::MAX).min(self.geometry.peers())
    }

    /// Every slot that has had a peer.
    pub fn peer_ids(&self) -> impl Iterator<Item = PeerId> + use<P> {
        (0..self.peers_used()).map(PeerId::new)
    }

    /// The state of a slot; a slot that does not exist is free.
    #[must_use]
    pub fn peer_state(&self, peer: PeerId) -> PeerState {
        self.peer(peer).map_or(PeerState::read(0), |record| {
            // SeqCst: a share is counted only if its peer is current, and both are looked at in one
            // order with the stores of whoever fences.
            PeerState::read(record[peer_word::STATE].load(Ordering::SeqCst))
        })
    }

    /// The share word of a peer in a region, if the peer's row reaches that far.
    pub(crate) fn share(&self, peer: PeerId, region: RegionId) -> Option<&AtomicU64> {
        let record = self.peer(peer).ok()?;
        // Raised by whoever extended the row, after committing its memory.
        if used(&record[peer_word::SHARES_USED]) <= u64::from(region.get()) {
            return None;
        }
        let at = self.geometry.share(peer, region).filter(|at| self.has_share(*at))?;
        self.window().word(at).ok()
    }

    /// The boot id of a domain.
    fn boot(&self, index: u64) -> BootId {
        let Some(domain) = u16::try_from(index).ok().and_then(|index| self.domain(index).ok())
        else {
            return BootId(0);
        };
        BootId(
            u128::from(domain[domain_word::BOOT_LOW].load(Ordering::Relaxed))
                | u128::from(domain[domain_word::BOOT_HIGH].load(Ordering::Relaxed)) << 64,
        )
    }

    /// The record of domain `index`, if it is in use.
    pub(crate) fn used_domain(&self, index: u16) -> Option<BootId> {
        let domain = self.domain(index).ok()?;
        // Acquire: pairs with the Release that marked it as used, after the boot id.
        let state = DomainState::read(domain[domain_word::STATE].load(Ordering::Acquire));
        (state == DomainState::Used).then(|| self.boot(u64::from(index)))
    }

    /// The record of the peer in a slot, if there is one: live, still attaching, or fenced.
    pub fn peer_record(&self, peer: PeerId) -> Option<(PeerRecord, PeerPhase)> {
        self.last_record(peer).filter(|(_, phase)| *phase != PeerPhase::Free)
    }

    /// What the slot of an owner's peer says of that peer, also after it has left, as long as no other peer has
    /// the slot.
    pub fn last_record_of(&self, owner: Owner) -> Option<PeerRecord> {
        let of = self.peer_of(owner)?;
        self.last_record(of.peer)
            .map(|(record, _)| record)
            .filter(|record| record.generation == of.generation)
    }

    fn last_record(&self, peer: PeerId) -> Option<(PeerRecord, PeerPhase)> {
        let words = self.peer(peer).ok()?;
        let state = self.peer_state(peer);
        let read = |index: usize| words.get(index).map_or(0, |word| word.load(Ordering::Relaxed));
        let attaching = state.phase == PeerPhase::Attaching;
        let known = |word: u64| if attaching { 0 } else { word };
        let mut name = [0; PeerName::WORDS];
        for (index, word) in name.iter_mut().enumerate() {
            *word = known(read(peer_word::NAME + index));
        }
        let record = PeerRecord {
            peer,
            generation: state.generation,
            evidence: state.evidence,
            identity: Identity {
                boot: if attaching { BootId(0) } else { self.boot(read(peer_word::DOMAIN)) },
                pid: u32::try_from(known(read(peer_word::PID))).unwrap_or(0),
                pid_namespace: known(read(peer_word::PID_NAMESPACE)),
                start_time: known(read(peer_word::START_TIME)),
                uid: u32::try_from(known(read(peer_word::UID))).unwrap_or(0),
                name: PeerName::from_words(name),
            },
            attached_ms: known(read(peer_word::ATTACHED_MS)),
            heartbeat: read(peer_word::HEARTBEAT),
            bell: Bell::from_word(known(read(peer_word::BELL))),
        };
        // If another peer has the slot by now, what was read is of no use to anybody.
        (self.peer_state(peer) == state).then_some((record, state.phase))
    }

    /// Fences a peer that is dead: from now on it owns nothing. Then wakes whoever sleeps on a lock
    /// that one of its threads had announced. False if the slot has moved on.
    pub(crate) fn fence(&self, peer: PeerId, generation: u32) -> bool {
        let Ok(record) = self.peer(peer) else { return false };
        // The word as it is: it may have bits that no program writes, and is fenced all the same.
        let found = record[peer_word::STATE].load(Ordering::SeqCst);
        let state = PeerState::read(found);
        if !state.is_current(generation) {
            return false;
        }
        let fenced = state.in_phase(PeerPhase::Fenced).word();
        // SeqCst: see `peer_state`.
        let won = record[peer_word::STATE]
            .compare_exchange(found, fenced, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok();
        if won {
            Point::ReapFenced.reached();
            self.mark_threads(peer, PeerState::read(fenced));
            // The kernel has woken one of those who waited for the bell.
            self.ring(peer);
            self.wake_for(peer);
        }
        won
    }

    /// Wakes those whom the threads of a dead peer would have woken, or were woken instead of.
    pub(crate) fn wake_for(&self, peer: PeerId) {
        for thread in (0..self.threads_used(peer)).filter_map(ThreadId::new) {
            self.wake_for_thread(peer, thread);
        }
    }

    /// Thread slots of a peer from here on are not in use; those below have memory behind them.
    pub(crate) fn threads_used(&self, peer: PeerId) -> u16 {
        let claim = self.peer(peer).map_or(0, |record| used(&record[peer_word::THREADS_USED]));
        u16::try_from(claim).unwrap_or(u16::MAX).min(self.geometry.threads())
    }

    /// What locks and events the threads of a peer are waiting for, or giving back.
    pub fn pendings(&self, peer: PeerId) -> impl Iterator<Item = (ThreadId, Pending)> + '_ {
        (0..self.threads_used(peer)).filter_map(ThreadId::new).filter_map(move |thread| {
            let slot = self.thread(peer, thread).ok()?;
            if !ThreadSlot::new(slot).life().is_ready() {
                return None;
            }
            let pending = Pending::read(slot[thread_word::PENDING].load(Ordering::Acquire))?;
            (pending.kind != PendingKind::Process).then_some((thread, pending))
        })
    }

    /// Living peers' mappings of a region.
    pub(crate) fn mappings(&self, region: RegionId) -> u64 {
        self.mappers(region).map(|(_, count)| u64::from(count)).sum()
    }

    /// Who maps a region, and how often.
    pub fn mappers(&self, region: RegionId) -> impl Iterator<Item = (PeerRef, u16)> + '_ {
        self.peer_ids().filter_map(move |peer| {
            let (mapper, share) = self.current_share(peer, region)?;
            (share.mappings() > 0).then_some((mapper, share.mappings()))
        })
    }

    pub(crate) fn current_share(
        &self,
        peer: PeerId,
        region: RegionId,
    ) -> Option<(PeerRef, commonhold_layout::ShareWord)> {
        // SeqCst: pairs with the mapper's count, which comes before its second look at the state.
        let word = self.share(peer, region)?.load(Ordering::SeqCst);
        let share = commonhold_layout::ShareWord::from_word(word);
        let peer = PeerRef::new(peer, share.generation());
        self.is_peer_current(peer).then_some((peer, share))
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

    /// Gives the memory behind an extent back, piece by piece: a medium that has to write zeros for it may
    /// take long. Between the pieces the heart beats, and a peer that was declared dead stops, since
    /// somebody else may have the bytes by then.
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

    /// Where a word of an entry lies.
    pub(crate) fn entry_word(&self, region: RegionId, word: usize) -> Result<Offset, Damage> {
        self.geometry
            .region(region)
            .and_then(|at| at.plus(8 * word as u64))
            .ok_or(Damage::new("a region", region.get().into()))
    }

    /// The words of the lock of a mapped region.
    ///
    /// # Errors
    /// [`Damage`] if they do not lie in the window.
    #[inline]
    pub fn lock_words(&self, mapped: &Mapped) -> Result<&[AtomicU64; 3], Damage> {
        self.window().words(mapped.lock_at).map_err(outside)
    }

    /// The lock of a mapped region, which has these [words](Self::lock_words).
    #[inline]
    pub const fn lock_of<'a>(
        &'a self,
        mapped: &Mapped,
        words: &'a [AtomicU64; 3],
    ) -> RwLock<'a, RegionShares<'a, P>> {
        let shares = RegionShares::of(self, mapped.handle.region);
        RwLock::new(words, mapped.lock_at, region_key(mapped.handle), shares)
    }
}

/// What a thread that reads under a region's lock writes into its slot: of no other region, ever.
#[inline]
#[must_use]
pub const fn region_key(handle: RegionHandle) -> u64 {
    ReadKey::of_region(handle.region, handle.generation).word()
}

/// The share words of one region, where its readers are counted.
#[derive(Debug)]
pub struct RegionShares<'a, P> {
    view: &'a View<P>,
    region: RegionId,
}

impl<'a, P> RegionShares<'a, P> {
    /// Those of the region `region`.
    #[inline]
    #[must_use]
    pub const fn of(view: &'a View<P>, region: RegionId) -> Self {
        Self { view, region }
    }
}

impl<P> Clone for RegionShares<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for RegionShares<'_, P> {}

impl<P: Platform> Shares for RegionShares<'_, P> {
    fn peers(&self) -> u16 {
        self.view.peers_used()
    }

    fn generation(&self, peer: PeerId) -> u32 {
        let state = self.view.peer_state(peer);
        if state.is_current(state.generation) { state.generation } else { 0 }
    }

    fn owner(&self, peer: PeerId, thread: ThreadId) -> Option<Owner> {
        self.view.owner_of(peer, thread)
    }

    fn share(&self, peer: PeerId) -> Option<&AtomicU64> {
        self.view.share(peer, self.region)
    }

    fn threads(&self, peer: PeerId) -> u16 {
        self.view.threads_used(peer)
    }

    fn thread(&self, peer: PeerId, thread: ThreadId) -> Option<&[AtomicU64; thread_word::COUNT]> {
        self.view.thread(peer, thread).ok()
    }
}

impl<P: Platform> Park for View<P> {
    fn now(&self) -> u64 {
        self.platform.now()
    }

    fn wait(&self, word: &AtomicU64, expected: u64, until: u64) {
        // Who waits in vain for a peer of another kernel must not be silent meanwhile.
        self.beat();
        if self.spans_kernels() {
            self.platform.wait_among_kernels(word, expected, until);
        } else {
            self.platform.wait(word, expected, until);
        }
    }

    fn wait_for(&self, owners: &[Owner], word: &AtomicU64, expected: u64, until: u64) {
        if self.spans_kernels() || !self.sleep_by_bells(owners, word, expected, until) {
            self.wait(word, expected, until);
        } else {
            self.beat();
        }
    }

    fn wake(&self, word: &AtomicU64, who: Wake) {
        self.platform.wake(word, who);
    }

    fn wake_any(&self, word: &AtomicU64, who: Wake) -> bool {
        // Those of other kernels look again by themselves.
        self.platform.wake_any(word, who)
    }

    fn give_way(&self) {
        self.platform.give_way();
    }

    #[inline]
    fn spin(&self, word: &AtomicU64, turn: u32) -> bool {
        self.platform.spin(word, turn)
    }

    fn has_spun(&self, word: &AtomicU64, won: bool) {
        self.platform.has_spun(word, won);
    }
}
