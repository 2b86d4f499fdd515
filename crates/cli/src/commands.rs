//! One module for each command, or family of commands.

pub(crate) mod bytes;
pub(crate) mod doctor;
pub(crate) mod generate;
pub(crate) mod graph;
mod in_the_way;
pub(crate) mod list;
pub(crate) mod lock;
pub(crate) mod locks;
pub(crate) mod map;
pub(crate) mod peers;
pub(crate) mod region;
pub(crate) mod reset;
pub(crate) mod space;
