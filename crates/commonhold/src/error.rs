//! What can go wrong, one type for each family of operations.

pub(crate) mod causes;
mod holder;
mod kind;
mod lock;
mod open;
mod region;

pub use holder::DirectoryHolder;
pub use kind::ErrorKind;
pub use lock::{BoxError, LockError, LockPlace, LockResult, OwnerInfo, RepairFailed};
pub use open::OpenError;
pub use region::RegionError;

const FORKED: &str =
    "this process was forked after the space was opened; open the space in it anew";
const FENCED: &str = "this process was declared dead by its peers; open the space anew";
/// How a user can keep other users from locking the file.
const READERS: &str = "every user who may read the file can lock it so; a space with mode 600 or 660 \
                       keeps other users out";
