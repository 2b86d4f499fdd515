//! Which threads wait for which, across processes and kernels, and which of them are in a deadlock.
//!
//! # What it owns
//! Reading what threads have announced, and drawing conclusions from it. It changes nothing.
//!
//! # Invariants
//! 1. A circle consists only of waits that were the same wait at two looks, with the look at the owners of locks in
//!    between. A waiting thread frees nothing. So a thread that held a lock and waited from the first look to the
//!    second held the lock all that time, and all of the circle existed at one moment. Each thread has a number
//!    that moves at the end of each wait, which tells two waits for the same lock apart.
//! 2. No thread outside of the stuck ones could end a wait in a circle. Any holder of a permit can free it, so a
//!    wait for a permit counts only if all holders are stuck, and no permit is spent or free.
//! 3. Damaged words can only produce a wrong entry: the work is bounded by the number of slots, and nothing
//!    recurses.
//!
//! # What it does not do
//! It breaks no deadlock. It does not see the deadlines of waits: if a wait in a circle has one, the circle ends by
//! itself. It does not know which thread will move an event that belongs to no lock, or which threads have yet to
//! join a barrier. It knows a raw mutex in the bytes of a region only while a thread waits for it. For the fifth
//! read lock of a thread and later ones it knows only the process, so it finds no circles through those.

mod cycles;
mod draw;
mod look;
mod slot_owners;
mod stuck;
mod thread_ref;

use std::{fmt, marker::PhantomData};

use commonhold_layout::RecordKind;

use crate::{PeerLife, RegionError, Space};

/// What threads wait for, and for which threads, at about one moment. See [`Space::wait_graph`].
///
/// Numbers in it are indices into its own lists.
///
/// # Examples
/// ```
/// use commonhold::{Space, WaitGraph};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-wait-graph-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let WaitGraph { threads, waits, cycles, .. } = space.wait_graph()?;
/// for wait in &waits {
///     println!("thread {} waits: {}", threads[wait.thread].tid, wait.kind);
/// }
/// println!("{} deadlocks", cycles.len());
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct WaitGraph {
    /// Threads that wait, or that others wait for.
    pub threads: Vec<WaitThread>,
    /// Locks that are waited for, and events.
    pub locks: Vec<WaitLock>,
    /// One for each thread that waits.
    pub waits: Vec<Wait>,
    /// Deadlocks: circles of confirmed waits. Every deadlocked thread is part of one of these, unless there are
    /// more than a hundred.
    pub cycles: Vec<Cycle>,
}

/// A thread that waits, or that others wait for.
///
/// # Examples
/// ```
/// use commonhold::{Space, WaitThread};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-wait-thread-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// for WaitThread { tid, pid, name, state, .. } in space.wait_graph()?.threads {
///     println!("thread {tid} of process {pid} ({name}, {state}) waits, or others wait for it");
/// }
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WaitThread {
    /// Slot of its peer.
    pub slot: u16,
    /// Which of the slot's peers.
    pub generation: u32,
    /// Its slot among the threads of the peer; `None`: a thread of the peer, but it is not known which.
    pub thread: Option<u16>,
    /// Its id in its own PID namespace; 0 if that is not known.
    pub tid: u32,
    /// The id of its process there; 0 if the peer is gone.
    pub pid: u32,
    /// The boot id of its kernel; empty if the peer is gone.
    pub domain: String,
    /// The name of the peer.
    pub name: String,
    /// Whether the peer lives.
    pub state: PeerLife,
}

/// A lock or an event that is waited for.
///
/// # Examples
/// ```
/// use commonhold::{Space, WaitLock};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-wait-lock-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let graph = space.wait_graph()?;
/// for WaitLock { region, offset, owner, readers, .. } in &graph.locks {
///     let owner = owner.map(|owner| graph.threads[owner].tid);
///     println!("{region:?} at {offset:?}: owner {owner:?}, {} readers", readers.len());
/// }
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WaitLock {
    /// Name of its region; `None`: the directory of the space.
    pub region: Option<String>,
    /// Offset of its word in the region, in bytes; `None`: the region's own lock.
    pub offset: Option<u64>,
    /// What kind of record it is, if it has a tag: see [`Mapping::open`](crate::Mapping::open).
    pub record: Option<RecordKind>,
    /// The thread that owns it. While readers are still to leave, this is the writer that waits for them.
    pub owner: Option<usize>,
    /// Threads that read under it, each once.
    pub readers: Vec<usize>,
}

/// The kind of a wait.
///
/// # Examples
/// ```
/// use commonhold::{Space, WaitKind};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-wait-kind-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let graph = space.wait_graph()?;
/// let for_a_lock = |kind| matches!(kind, WaitKind::Exclusive | WaitKind::Shared | WaitKind::Readers);
/// println!("{} threads wait for locks", graph.waits.iter().filter(|wait| for_a_lock(wait.kind)).count());
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitKind {
    /// To own a lock.
    Exclusive,
    /// To read under a lock.
    Shared,
    /// For the readers of a lock to leave; the thread owns the lock already.
    Readers,
    /// For an event to move. It is not known which thread will move it.
    Event,
    /// For a permit of a semaphore. The blockers hold permits, and any one of them can end the wait.
    Permit,
    /// For the others to arrive at a barrier: the blockers, and threads that have yet to join and are not known.
    Participants,
    /// For peers to unmap a region which the thread destroys.
    Mappings,
    /// For the end of a process that the thread has started: see [`Space::await_process`].
    Process,
}

impl fmt::Display for WaitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Exclusive => "exclusive",
            Self::Shared => "shared",
            Self::Readers => "readers",
            Self::Event => "event",
            Self::Permit => "permit",
            Self::Participants => "parties",
            Self::Mappings => "mappings",
            Self::Process => "process",
        })
    }
}

/// A thread that waits.
///
/// # Examples
/// ```
/// use commonhold::{Space, Wait};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-wait-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let graph = space.wait_graph()?;
/// for Wait { thread, kind, blockers, .. } in graph.waits.iter().filter(|wait| !wait.open) {
///     let blockers: Vec<_> = blockers.iter().map(|blocker| graph.threads[*blocker].tid).collect();
///     println!("thread {} ({kind}) waits for {blockers:?}", graph.threads[*thread].tid);
/// }
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Wait {
    /// The thread that waits.
    pub thread: usize,
    /// The kind of the wait.
    pub kind: WaitKind,
    /// The lock or event; for [`WaitKind::Mappings`] the lock of the region; `None` for a process.
    pub lock: Option<usize>,
    /// The process, for [`WaitKind::Process`].
    pub process: Option<u32>,
    /// The threads that can end this wait: all of them have to act, or for [`WaitKind::Permit`] any one.
    pub blockers: Vec<usize>,
    /// Whether it may end without the blockers, so that it is in no circle: another thread may move an event; a
    /// permit is free, or spent, and any thread may give one; or an owner has died.
    pub open: bool,
    /// Whether a second look found it in the same wait.
    pub confirmed: bool,
}

/// A deadlock: each of these waits ends only after the next one, and the last only after the first. If one of them
/// is for a permit, the other holders of permits are stuck as well.
///
/// # Examples
/// ```
/// use commonhold::{Cycle, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-cycle-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let graph = space.wait_graph()?;
/// for Cycle { waits, .. } in &graph.cycles {
///     let threads = waits.iter().map(|wait| graph.threads[graph.waits[*wait].thread].tid);
///     println!("a deadlock of the threads {:?}", threads.collect::<Vec<_>>());
/// }
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cycle {
    /// The waits, all of them confirmed.
    pub waits: Vec<usize>,
}

impl Space {
    /// Which threads wait, for what and for which threads, and which of them are in a deadlock.
    ///
    /// Threads go on while this looks at them, so a single look proves nothing: it may see one lock before a change
    /// and another after it. So this looks at the waits twice, and at the owners of locks in between, and builds
    /// circles only from waits that were the same at both looks. A circle that it reports did exist, all of it at
    /// one moment. (If a wait in it has a deadline, the circle will end.)
    ///
    /// A command that runs under `commonhold lock` counts as part of the thread that holds the lock, and so do the
    /// processes that it starts, as far as `/proc` shows them: see [`await_process`](Self::await_process). This
    /// assumes that the command ends only after each of its threads has got what it waits for. That may be wrong
    /// for a command that leaves a background process behind.
    ///
    /// # Errors
    /// [`RegionError::Damaged`], [`RegionError::Forked`].
    pub fn wait_graph(&self) -> Result<WaitGraph, RegionError> {
        let sight = self.look_at_waits()?;
        Ok(draw::draw(self, &sight))
    }

    /// Announces that this thread waits for a process it has started, given by its id, until the returned value is
    /// dropped: this thread then waits for whatever that process waits for. Only [`wait_graph`](Self::wait_graph)
    /// uses this.
    ///
    /// # Errors
    /// [`RegionError::Forked`], [`RegionError::TooManyThreads`].
    pub fn await_process(&self, pid: u32) -> Result<ProcessWait<'_>, RegionError> {
        self.attachment().me()?.await_process(pid);
        Ok(ProcessWait { space: self, not_send: PhantomData })
    }
}

/// The announcement that this thread waits for a process: see [`Space::await_process`].
///
/// # Examples
/// ```
/// use commonhold::{ProcessWait, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-process-wait-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let mut command = std::process::Command::new("true").spawn()?;
/// // Until it is dropped, this thread counts as waiting for whatever the command waits for.
/// let waiting: ProcessWait<'_> = space.await_process(command.id())?;
/// command.wait()?;
/// drop(waiting);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "the announcement ends when this is dropped"]
pub struct ProcessWait<'a> {
    space: &'a Space,
    /// The announcement is about its thread.
    not_send: PhantomData<*const ()>,
}

impl Drop for ProcessWait<'_> {
    fn drop(&mut self) {
        // In a forked child this fails: the slot is that of the parent's thread.
        if let Ok(me) = self.space.attachment().me() {
            me.awaited();
        }
    }
}
