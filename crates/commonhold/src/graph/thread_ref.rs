//! Names of threads in the graph.

use commonhold_host::LinuxPlatform;
use commonhold_layout::{Owner, PeerId, PeerRef, ThreadId};
use commonhold_space::View;

/// A thread of a peer. Without a thread slot: some thread of that peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ThreadRef {
    pub(super) peer: PeerId,
    pub(super) generation: u32,
    pub(super) thread: Option<ThreadId>,
}

impl ThreadRef {
    /// If the peer of an owner is not known any more, the generation is 0, which no peer has.
    pub(super) fn new(view: &View<LinuxPlatform>, owner: Owner) -> Self {
        let generation = view.peer_of(owner).map_or(0, |peer| peer.generation);
        Self { peer: owner.peer(), generation, thread: Some(owner.thread()) }
    }

    pub(super) const fn some_of(peer: PeerRef) -> Self {
        Self { peer: peer.peer, generation: peer.generation, thread: None }
    }
}
