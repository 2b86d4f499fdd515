//! stub
mod error;
mod info;
mod stub;
pub use commonhold_layout::{Damage, FormatError, Name, NameError};
pub use error::{ErrorKind, LockError, OpenError, RegionError};
pub use info::{
    Holder, LockInfo, LockKind, PeerInfo, PeerInfoBrief, PeerLife, Reaped, RegionInfo, RegionKey,
    SpaceInfo, State,
};
pub use stub::*;
