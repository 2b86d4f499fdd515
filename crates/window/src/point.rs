//! Crash points: the named instants at which a test lets a process die.
//!
//! Each lies between two stores: a death there leaves the first one without the second. Without the
//! feature `crash-points` (no release build has it), reaching a point does nothing and costs nothing.

macro_rules! points {
    ($($(#[$doc:meta])* $point:ident = $name:literal,)*) => {
        /// A named instant between two stores that matter.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Point { $($(#[$doc])* $point,)* }

        #[cfg(feature = "crash-points")]
        impl Point {
            /// Every point there is.
            pub const ALL: &[Self] = &[$(Self::$point,)*];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$point => $name,)* }
            }
        }
    };
}

points! {
    /// A window that is formatted in place is claimed; nothing of it is wiped.
    FormatClaimed = "format.claimed",
    /// The window is all zeros but for the claim.
    FormatWiped = "format.wiped",
    /// The header is written, but for the magic number.
    FormatWritten = "format.written",
    /// An opener holds the gate, and the path still means the file; nothing is mapped.
    GateEntered = "gate.entered",
    /// A process that removes the file or replaces it holds the gate alone; it has not looked for users of the file.
    GateSeized = "gate.seized",
    /// No peer uses the file; it still has its name.
    NameChecked = "name.checked",
    /// The name is gone, or means another file; the gate is still held.
    NameTaken = "name.taken",
    /// An attaching process has not taken anything yet.
    AttachBegins = "attach.begins",
    /// The kernel has the evidence; the slot is not taken yet.
    AttachEvidence = "attach.evidence",
    /// The count of used slots includes this slot, which is not taken yet.
    AttachCounted = "attach.counted",
    /// The slot is taken, its record is not written yet.
    AttachSlotTaken = "attach.slot-taken",
    /// A domain record holds the boot id, but is not marked as used.
    AttachDomainWritten = "attach.domain-written",
    /// The record is written, the peer is not live yet.
    AttachRecordWritten = "attach.record-written",
    /// The peer is live.
    AttachLive = "attach.live",
    /// A thread slot is claimed, and still holds what its last thread left in it.
    ThreadClaimed = "thread.claimed",
    /// The thread slot is cleared; the kernel does not know its life word.
    ThreadCleared = "thread.cleared",
    /// The kernel knows the life word, which does not say yet that the slot is ready.
    ThreadArmed = "thread.armed",
    /// A thread slot is ready: its thread may own locks.
    ThreadReady = "thread.ready",
    /// Another thread has marked the life word of a dead one; nobody has been woken.
    ThreadMarked = "thread.marked",
    /// The kernel can no longer mark the life words of a peer that leaves; the slots are not given back.
    ThreadsDisarmed = "thread.disarmed",
    /// A peer is leaving; its slot is still live.
    DetachBegins = "detach.begins",
    /// A peer has left its slot; its evidence is still there.
    DetachFreed = "detach.freed",
    /// A dead peer has been fenced, and nothing has been cleaned up.
    ReapFenced = "reap.fenced",
    /// What a dead peer was creating or destroying has been settled; its slot is not free yet.
    ReapSettled = "reap.settled",
    /// The slot of a dead peer is free again.
    ReapFreed = "reap.freed",
    /// The directory mutex was taken from a dead holder; nothing has been repaired.
    RecoverBegins = "recover.begins",
    /// An interrupted resize has been undone or completed; the links are not rebuilt.
    RecoverResized = "recover.resized",
    /// The final size is written; the memory beyond it is not given back.
    RecoverSized = "recover.sized",
    /// The chains are empty, and about to be rebuilt.
    RecoverChainsCleared = "recover.chains-cleared",
    /// The links are rebuilt; the intent is not cleared.
    RecoverLinked = "recover.linked",
    /// The intent is cleared; the mutex is not yet marked consistent.
    RecoverCleared = "recover.cleared",
    /// New entries have memory, and are not counted as used.
    CreateEntries = "create.entries",
    /// An entry has been chosen; nothing is written.
    CreateChosen = "create.chosen",
    /// Name and extent are written; the state still says free.
    CreateWritten = "create.written",
    /// The state says creating; the entry is not linked.
    CreateState = "create.state",
    /// The entry is linked; memory is not taken.
    CreateLinked = "create.linked",
    /// Memory is taken; the region is not active.
    CreateCommitted = "create.committed",
    /// The region is active; its creator still holds the mutex.
    CreateActive = "create.active",
    /// The intent to change links is written.
    LinkIntent = "link.intent",
    /// The sequence number is odd; no link has changed.
    LinkOdd = "link.odd",
    /// The entry is in its name chain but not in the order of extents, or the other way round.
    LinkHalf = "link.half",
    /// All links are changed; the sequence number is odd.
    LinkDone = "link.done",
    /// The sequence number is even; the intent is not cleared.
    LinkEven = "link.even",
    /// The next words of a row of shares have memory, and are not counted as used.
    MapRowCommitted = "map.row-committed",
    /// The mapping is counted; the state has not been checked again.
    MapCounted = "map.counted",
    /// The mapping is counted, and the state permits it.
    MapDone = "map.done",
    /// The mapping is no longer counted; nobody has been woken.
    UnmapCounted = "unmap.counted",
    /// The destroyer that waits for the last mapping has been woken.
    UnmapWoken = "unmap.woken",
    /// The hint that a deferred destroy exists is set; the state is still active.
    DestroyHinted = "destroy.hinted",
    /// The actor is written; the state is still active.
    DestroyActor = "destroy.actor",
    /// The state says destroying.
    DestroyState = "destroy.state",
    /// The mappings have been counted, and there are none.
    DestroyDrained = "destroy.drained",
    /// The state says freeing; memory is not given back.
    DestroyFreeing = "destroy.freeing",
    /// Memory is given back; the entry is still linked.
    DestroyReleased = "destroy.released",
    /// The entry is unlinked; its state still says freeing.
    DestroyUnlinked = "destroy.unlinked",
    /// The entry is free.
    DestroyFree = "destroy.free",
    /// A destroy has timed out; the region is not active yet.
    DestroyTimedOut = "destroy.timed-out",
    /// The region is active again.
    DestroyUndone = "destroy.undone",
    /// A resize has its region to itself; nothing else has changed.
    ResizeMarked = "resize.marked",
    /// A resize's sizes are recorded, its intent is not.
    ResizeSizes = "resize.sizes",
    /// A resize's intent is written.
    ResizeIntent = "resize.intent",
    /// The new size is written; the shrink may still be refused.
    ResizeTrial = "resize.trial",
    /// The bytes that a region grows by have memory; the old size still holds.
    ResizeCommitted = "resize.committed",
    /// A shrink was refused, and the old size is written again; the intent is not cleared.
    ResizeUndone = "resize.undone",
    /// A resize is granted.
    ResizeGranted = "resize.granted",
    /// The memory that a shrink cut off is given back; the mark is not cleared.
    ResizeReleased = "resize.released",
    /// A resize has cleared its mark; nobody has been woken.
    ResizeUnmarked = "resize.unmarked",
    /// A waiter has announced the lock that it waits for.
    LockPending = "lock.pending",
    /// A waiter has set the waiters flag, and does not sleep yet.
    LockFlagged = "lock.flagged",
    /// A thread's entry says that it is inside a mutex that was biased to it; the thread has not checked the lock
    /// word.
    BiasEntered = "bias.entered",
    /// The entry of a thread that leaves says that it is outside; the thread has not looked for waiters.
    BiasLeft = "bias.left",
    /// A thread inside a biased mutex has made itself the owner of its word.
    BiasOwned = "bias.owned",
    /// A thread has an entry for a bias; the lock word is not biased yet.
    BiasPlaced = "bias.placed",
    /// A mutex that nobody holds is biased to a thread.
    BiasMade = "bias.made",
    /// A bias is revoked; whether its thread is inside is not known.
    BiasRevoked = "bias.revoked",
    /// A mutex is marked inconsistent, since a thread died inside; nobody has been woken.
    BiasSettled = "bias.settled",
    /// A mutex is held.
    LockAcquired = "lock.acquired",
    /// A lock has been taken from a dead owner.
    LockTakenOver = "lock.taken-over",
    /// A lock is marked consistent again.
    LockConsistent = "lock.consistent",
    /// A lock is reset; nobody has been woken.
    LockReset = "lock.reset",
    /// An upgradable owner keeps readers out; it has not waited for the readers inside.
    LockUpgraded = "lock.upgraded",
    /// An owner has announced that it lets readers in again.
    DowngradePending = "lock.downgrade-pending",
    /// Readers may come in again; sleeping readers have not been woken.
    LockDowngraded = "lock.downgraded",
    /// A sequence lock's sequence is odd; nothing has been written.
    SeqOdd = "seq.odd",
    /// The data are written; the sequence is odd.
    SeqWritten = "seq.written",
    /// The sequence is even; the writer's lock is still held.
    SeqEven = "seq.even",
    /// An owner has announced that it frees a lock that others wait for.
    UnlockPending = "unlock.pending",
    /// A lock is free; nobody has been woken.
    UnlockFreed = "unlock.freed",
    /// A waiter has been woken; the announcement still stands.
    UnlockWoken = "unlock.woken",
    /// The work of a once is done; nobody has been woken.
    OnceDone = "once.done",
    /// A waiter for a condition has freed the mutex, and does not sleep yet.
    CondvarFreed = "condvar.freed",
    /// A permit is taken.
    PermitTaken = "permit.taken",
    /// A permit is free; no waiter has been woken.
    PermitFreed = "permit.freed",
    /// A permit is used up.
    PermitSpent = "permit.spent",
    /// A participant has a barrier slot.
    ParticipantJoined = "party.joined",
    /// A participant has arrived; it has not looked whether it was the last.
    ParticipantArrived = "party.arrived",
    /// A participant has given its barrier slot back.
    ParticipantLeft = "party.left",
    /// A reader has announced itself to writers; it is not counted.
    ReadMarked = "read.marked",
    /// A reader is counted; it has not looked for a writer.
    ReadCounted = "read.counted",
    /// A reader is no longer counted; the writer that waits for it has not been woken.
    ReadUncounted = "read.uncounted",
    /// A writer has the word, and readers are still there.
    WriteDraining = "write.draining",
    /// A signaller has announced that it wakes others; the number has not moved.
    EventAnnounced = "event.announced",
    /// An event's number has moved; nobody has been woken.
    EventMoved = "event.moved",
    /// A sleeper has been woken, and the flag is raised again for others that may still sleep.
    EventRaised = "event.raised",
    /// A waiter has announced the event it waits for.
    EventPending = "event.pending",
    /// A waiter has set an event's flag, and does not sleep yet.
    EventFlagged = "event.flagged",
}

#[cfg(feature = "crash-points")]
mod hook {
    use std::sync::OnceLock;

    use super::Point;

    /// Called at each point that is reached.
    pub type Hook = fn(Point);

    static HOOK: OnceLock<Hook> = OnceLock::new();

    /// Calls `hook` at each point from now on. Only the first call in a process has an effect.
    pub fn at_each_point(hook: Hook) {
        let _ = HOOK.set(hook);
    }

    impl Point {
        /// The program has come to this point.
        pub fn reached(self) {
            if let Some(hook) = HOOK.get() {
                hook(self);
            }
        }
    }
}

#[cfg(feature = "crash-points")]
pub use hook::{Hook, at_each_point};

#[cfg(not(feature = "crash-points"))]
impl Point {
    /// The program has come to this point.
    #[inline(always)]
    pub const fn reached(self) {}
}
