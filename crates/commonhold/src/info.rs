//! What a space tells about itself: plain values, taken at one moment.

mod lock;
mod peer;
mod region;
mod space;

pub use lock::{Holder, LockInfo, LockKind, LockSurvey, Unsearched};
pub(crate) use peer::domain;
pub use peer::{PeerInfo, PeerInfoBrief, PeerLife, Reaped};
pub use region::{RegionInfo, RegionKey, State};
pub use space::{MemoryInfo, SpaceInfo};
