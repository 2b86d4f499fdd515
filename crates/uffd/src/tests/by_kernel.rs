//! Accesses by system calls, which fail where a load or a store of the program would end in a signal.

use super::*;
use std::{
    io::{Error, Read, Result, Write},
    os::fd::AsRawFd,
};

/// The address of some bytes, all in one page of a space.
fn address(space: &AddressSpace<UffdMmu>, at: VirtualPage, offset: usize) -> *mut libc::c_void {
    let pages = at.number() - space.span().first().number();
    let bytes = usize::try_from(pages * page_size()).unwrap() + offset;
    space.machine().reservation.base().as_ptr().wrapping_byte_add(bytes)
}

/// Loads bytes.
pub(super) fn load(
    space: &AddressSpace<UffdMmu>,
    at: VirtualPage,
    offset: usize,
    into: &mut [u8],
) -> Result<()> {
    let (mut from, to) = std::io::pipe()?;
    let address = address(space, at, offset).cast_const();
    // SAFETY: `write` wants bytes that can be read, or returns an error: these are in a range of addresses that the
    // space has reserved.
    let written = unsafe { libc::write(to.as_raw_fd(), address, into.len()) };
    done(written, into.len())?;
    from.read_exact(into)
}

/// Stores bytes.
pub(super) fn store(
    space: &AddressSpace<UffdMmu>,
    at: VirtualPage,
    offset: usize,
    bytes: &[u8],
) -> Result<()> {
    let (from, mut to) = std::io::pipe()?;
    to.write_all(bytes)?;
    let address = address(space, at, offset);
    // SAFETY: `read` wants bytes that can be written, or returns an error: these are in a range of addresses that the
    // space has reserved, of which nobody has a reference.
    let read = unsafe { libc::read(from.as_raw_fd(), address, bytes.len()) };
    done(read, bytes.len())
}

fn done(copied: isize, wanted: usize) -> Result<()> {
    match usize::try_from(copied) {
        Ok(copied) if copied == wanted => Ok(()),
        Ok(copied) => Err(Error::other(format!("{copied} of {wanted} bytes were copied"))),
        Err(_) => Err(Error::last_os_error()),
    }
}
