//! The ports of `commonhold-space`, implemented for Linux.
//!
//! # What it owns
//! One window, the way to wait for its words, and the evidence of one process: everything that one
//! attachment to one space needs. It is made of `MappedWindow`, `Waiting`, `Evidences` and `DeathWords`, and
//! adds nothing to them.

use commonhold_layout::{Evidence, Extent, Offset, PeerId};
use commonhold_space::{
    BackingMemory, BackingMemoryError, EvidenceLock, Identity, LivenessEvidence, PeerRecord,
    Platform, Touch,
};
use commonhold_sync::{Park, Verdict, Wake};
use commonhold_window::{Window, atomic::AtomicU64};

use crate::{
    error::HostError,
    fork::ForkGuard,
    liveness::{DeathWords, Evidences},
    memory::MappedWindow,
    wait::{Waiting, unix_ms},
};

/// Everything that a space needs from Linux.
///
/// It belongs to the process that made it. In a child made by `fork`, its memory is not mapped, its
/// descriptors are closed, and dropping it does nothing; ask
/// [`is_forked_child`](Self::is_forked_child) before any use.
#[derive(Debug)]
pub struct LinuxPlatform {
    // The first field: the evidence lock is released before anything else is dropped.
    evidences: Evidences,
    death_words: DeathWords,
    waiting: Waiting,
    mapped: MappedWindow,
}

impl LinuxPlatform {
    /// Takes a window over, and opens its file again for the evidence.
    ///
    /// # Errors
    /// [`HostError`] of opening the file, [`HostError::Forked`], or [`HostError::Device`] if locks do not
    /// work in the memory.
    pub fn new(mapped: MappedWindow) -> Result<Self, HostError> {
        if mapped.is_forked_child() {
            return Err(HostError::Forked);
        }
        // Memory of a device is probed before any lock is taken in it; what was probed is not probed again.
        mapped.prove()?;
        let evidences = Evidences::new(&mapped)?;
        let waiting = Waiting::for_kind(mapped.kind());
        let death_words = DeathWords::new(mapped.guard());
        Ok(Self { evidences, death_words, waiting, mapped })
    }

    /// The window, with its kind, its file and its read-only maps.
    #[inline]
    #[must_use]
    pub const fn mapped(&self) -> &MappedWindow {
        &self.mapped
    }

    /// How this process identifies itself in its peer record.
    #[must_use]
    pub const fn identity(&self) -> Identity {
        self.evidences.identity()
    }

    /// Whether the calling process did not make this, but is a forked child of the process that did. One
    /// relaxed load.
    #[inline]
    #[must_use]
    pub fn is_forked_child(&self) -> bool {
        self.mapped.is_forked_child()
    }

    /// The guard behind [`is_forked_child`](Self::is_forked_child), for callers that keep it and ask often.
    #[inline]
    #[must_use]
    pub const fn fork_guard(&self) -> ForkGuard {
        self.mapped.guard()
    }

    /// Makes the calling thread keep the evidence of this process too, until it ends: in a descriptor table of its
    /// own, where no other thread can close it. After `true` the thread must not use any other descriptor that it
    /// had. `false`: that was not possible, and only the process's own table has the evidence.
    #[must_use]
    pub fn keep_evidence_here(&self) -> bool {
        let kept = self.evidences.keep_here();
        let keeps = kept.is_some();
        // Through the thread's descriptor the file can be opened even if its name is gone, or names another file.
        let path = kept.unwrap_or_else(|| self.mapped.path().to_owned());
        self.evidences.can_be_opened_at(path.clone());
        self.mapped.can_be_opened_at(path);
        keeps
    }

    /// Closes the descriptor by which the calling thread keeps evidence, if it does. The thread must end after this.
    pub fn let_evidence_go(&self) {
        self.evidences.let_go_here();
    }

    /// Restores the evidence of this process if the program has closed it. The thread that [keeps
    /// it](Self::keep_evidence_here) should call this now and then. Returns whether only that thread has the
    /// evidence.
    pub fn renew_evidence(&self) -> bool {
        self.evidences.renew()
    }

    /// How often the evidence of this process was found closed, because the program closes descriptors that it does
    /// not know. If a thread [keeps it](Self::keep_evidence_here) as well: 1 if it was closed elsewhere at the last
    /// look, else 0.
    #[must_use]
    pub fn evidence_lost(&self) -> u32 {
        self.evidences.lost()
    }

    /// How threads wait for words of this window: `"futex"`, `"poll"`, or `"futex and poll"`. `spans_kernels` says
    /// whether peers of several kernels are attached.
    #[must_use]
    pub const fn waiting_name(&self, spans_kernels: bool) -> &'static str {
        self.waiting.name(spans_kernels)
    }
}

impl Park for LinuxPlatform {
    fn now(&self) -> u64 {
        self.waiting.now()
    }

    fn wait(&self, word: &AtomicU64, expected: u64, until: u64) {
        self.waiting.wait(word, expected, until);
    }

    fn wake(&self, word: &AtomicU64, who: Wake) {
        self.waiting.wake(word, who);
    }

    fn wake_any(&self, word: &AtomicU64, who: Wake) -> bool {
        self.waiting.wake_any(word, who)
    }

    fn yield_now(&self) {
        std::thread::yield_now();
    }

    #[inline]
    fn spin(&self, word: &AtomicU64, turn: u32) -> bool {
        self.waiting.spin(word, turn)
    }

    fn has_spun(&self, word: &AtomicU64, won: bool) {
        self.waiting.has_spun(word, won);
    }
}

impl BackingMemory for LinuxPlatform {
    fn commit(&self, extent: Extent) -> Result<(), BackingMemoryError> {
        self.mapped.commit(extent)
    }

    fn release(&self, extent: Extent) -> Result<(), BackingMemoryError> {
        self.mapped.release(extent)
    }

    fn back(&self, extent: Extent, touch: Touch) -> Result<(), BackingMemoryError> {
        self.mapped.back(extent, touch)
    }

    fn room_for(&self, bytes: u64) -> Result<(), BackingMemoryError> {
        self.mapped.room_for(bytes)
    }

    fn resident(&self, extent: Extent) -> u64 {
        self.mapped.resident(extent).unwrap_or(0)
    }
}

impl LivenessEvidence for LinuxPlatform {
    fn publish(
        &self,
        peer: PeerId,
        hold: EvidenceLock,
    ) -> Result<Option<Evidence>, BackingMemoryError> {
        self.evidences.publish(peer, hold)
    }

    fn withdraw(&self, peer: PeerId) {
        self.evidences.withdraw(peer);
    }

    fn verdict(&self, record: &PeerRecord, attaching: bool, lease_ms: u64) -> Verdict {
        self.evidences.verdict(record, attaching, lease_ms)
    }

    fn thread_has_ended(&self, record: &PeerRecord, tid: u32) -> bool {
        if self.evidences.is_own(record) {
            return self.evidences.own_thread_has_ended(tid);
        }
        self.evidences.thread_has_ended(record, tid)
    }

    fn arm(&self, row: Extent, at: Offset) -> bool {
        // Where futexes do not work, the kernel could not wake the threads that sleep on the word.
        let file = self.mapped.file().filter(|_| self.mapped.kind().futex_works());
        file.is_some_and(|file| self.death_words.arm(file, self.mapped.mapped_page(), row, at))
    }

    fn disarm(&self, at: Offset) {
        self.death_words.disarm(at);
    }

    fn disarm_all(&self) {
        self.death_words.disarm_all();
    }

    fn unix_ms(&self) -> u64 {
        unix_ms()
    }
}

impl Platform for LinuxPlatform {
    #[inline]
    fn window(&self) -> &Window {
        self.mapped.window()
    }

    fn wait_among_kernels(&self, word: &AtomicU64, expected: u64, until: u64) {
        self.waiting.wait_among_kernels(word, expected, until);
    }

    fn hears_death_futexes(&self) -> bool {
        self.waiting.hears_death_futexes()
    }

    fn wait_for_any(&self, words: &[(&AtomicU64, u64)], until: u64) {
        self.waiting.wait_for_any(words, until);
    }
}
