//! Who waits for whom, across processes and kernels, and who waits in a circle.
//!
//! # What it owns
//! The reading of what threads have announced, and what follows from it. It changes nothing.
//!
//! # Invariants
//! 1. A circle is made only of waits that were the same wait at two looks, with the look at who holds
//!    what between them. A thread that waits frees nothing, so whoever held a lock and waited all
//!    through, held it all through: at the moment between, all of the circle was there at once. A thread
//!    has a number that moves at the end of each wait, so that two waits for one lock are told apart.
//! 2. None of the waits in a circle could end by anybody outside of those that are stuck. A permit comes from
//!    any of its holders, so a wait for one counts only if all of them are stuck, and no permit is spent or free.
//! 3. Whatever stands in the words costs an entry that makes no sense, and nothing else: the work is
//!    bounded by the number of slots, and nothing recurses.
//!
//! # What it does not do
//! It breaks no deadlock. It does not see the deadline of a wait: a circle in which somebody waits with
//! one comes undone by itself. Of an event that is part of nothing it does not know who moves it, and at a
//! barrier it does not know of threads that have yet to join. It knows a mutex in the bytes of a region only
//! while somebody waits for it; and of a thread's fifth read lock and the later ones only whose process has
//! them, so that no circle is found through those.

mod cycles;
mod draw;
mod look;
mod slot_owners;
mod stuck;
mod thread_ref;

use std::{fmt, marker::PhantomData};

use commonhold_layout::RecordKind;

use crate::{PeerLife, RegionError, Space};

/// What threads wait for, and for whom, as of one moment or nearly so. See [`Space::wait_graph`].
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
    /// Circles of confirmed waits: deadlocks. Every thread that is part of one is part of one of these,
    /// unless there are more than a hundred.
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
    /// Its slot among the threads of the peer; `None`: some thread of the peer, it is not known which.
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
    /// What lies there, if it has a tag that says so: see [`Mapping::open`](crate::Mapping::open).
    pub record: Option<RecordKind>,
    /// The thread that owns it. Among readers that are still to leave, it is the writer that waits for
    /// them.
    pub owner: Option<usize>,
    /// Threads that read under it, each once.
    pub readers: Vec<usize>,
}

/// What a thread waits for.
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
    /// That the readers of a lock leave, which it owns otherwise.
    Readers,
    /// That an event moves. Nobody knows who will do that.
    Event,
    /// For a permit of a semaphore. Any one of the blockers, which hold permits, can end it.
    Permit,
    /// That the others arrive at a barrier: the blockers, and those that nobody knows, since they are still to
    /// join.
    Participants,
    /// That others unmap a region which it destroys.
    Mappings,
    /// That a process ends which it has started: see [`Space::await_process`].
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
            Self::Participants => "threads",
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
    /// Who waits.
    pub thread: usize,
    /// How.
    pub kind: WaitKind,
    /// The lock or event; for [`WaitKind::Mappings`] the lock of the region; `None` for a process.
    pub lock: Option<usize>,
    /// The process, for [`WaitKind::Process`].
    pub process: Option<u32>,
    /// Who has to do something before this ends: each of them, or for [`WaitKind::Permit`] any one.
    pub blockers: Vec<usize>,
    /// Whether it may end without them, so that it is in no circle: by whoever moves an event; by a permit that
    /// is free, or spent, since anybody may give that; because of a death, for which nobody waits.
    pub open: bool,
    /// Whether a second look found it in the same wait.
    pub confirmed: bool,
}

/// A deadlock: each of these waits ends only after the next one, and the last only after the first. A wait
/// for a permit could also end by another holder of one: then that one is stuck as well.
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
    /// Who waits for what and for whom, and who waits in a circle.
    ///
    /// Threads go on while this looks at them, so a single look proves nothing: of two locks that are
    /// handed from one to the other, it may see the one before and the other after. A wait is therefore
    /// looked at twice, and only those that were the same are made circles of; who holds what is looked
    /// at in between. So a circle that this reports was there, all of it at one moment. (If somebody in
    /// it waits with a deadline, it will be gone again.)
    ///
    /// A command that runs under `commonhold lock` counts as part of its holder, as do the processes it
    /// started in turn, as far as `/proc` tells: see [`await_process`](Self::await_process). It is taken to
    /// end only after each of its threads has got what it waits for; of one that leaves a background
    /// process behind, that may not be so.
    ///
    /// # Errors
    /// [`RegionError::Damaged`], [`RegionError::Forked`].
    pub fn wait_graph(&self) -> Result<WaitGraph, RegionError> {
        let sight = self.look_at_waits()?;
        Ok(draw::draw(self, &sight))
    }

    /// Says, until what this returns is dropped, that this thread waits for a process it has started,
    /// by its id: whatever that process waits for, this thread waits for. Only those learn of it who
    /// [look](Self::wait_graph).
    ///
    /// # Errors
    /// [`RegionError::Forked`], [`RegionError::TooManyThreads`].
    pub fn await_process(&self, pid: u32) -> Result<ProcessWait<'_>, RegionError> {
        self.attachment().me()?.await_process(pid);
        Ok(ProcessWait { space: self, not_send: PhantomData })
    }
}

/// This thread waits for a process: see [`Space::await_process`].
///
/// # Examples
/// ```
/// use commonhold::{ProcessWait, Space};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let url = format!("shm:doc-process-wait-{}", std::process::id());
/// # let space = Space::open_or_format(&url)?;
/// let mut command = std::process::Command::new("true").spawn()?;
/// // Until it is dropped, whatever the command waits for counts as waited for by this thread.
/// let waiting: ProcessWait<'_> = space.await_process(command.id())?;
/// command.wait()?;
/// drop(waiting);
/// # drop(space);
/// # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "others are told only until it is dropped"]
pub struct ProcessWait<'a> {
    space: &'a Space,
    /// It is about its thread.
    not_send: PhantomData<*const ()>,
}

impl Drop for ProcessWait<'_> {
    fn drop(&mut self) {
        // In a forked child the thread's slot is the parent's.
        if let Ok(me) = self.space.attachment().me() {
            me.awaited();
        }
    }
}
