//! Random numbers of the kernel.

use std::path::Path;

use rustix::{
    io::{Errno, retry_on_intr},
    rand::{GetRandomFlags, getrandom},
};

use crate::error::HostError;

/// A random number from the kernel, for the identity of a new space.
///
/// # Errors
/// [`HostError`] of `getrandom`.
pub fn random_u128() -> Result<u128, HostError> {
    random().map_err(|errno| HostError::call("getrandom", Path::new("/dev/urandom"), errno))
}

pub(crate) fn random() -> Result<u128, Errno> {
    let mut bytes = [0_u8; 16];
    // The kernel never returns fewer bytes than asked, up to 256 (getrandom(2)).
    retry_on_intr(|| getrandom(&mut bytes, GetRandomFlags::empty()))?;
    Ok(u128::from_le_bytes(bytes))
}
