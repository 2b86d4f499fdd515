//! What the loader passes to this program: the kernel command line.
//!
//! The layout is that of `struct hvm_start_info` in Xen's public headers
//! (`xen/include/public/arch-x86/hvm/start_info.h`).

use core::{ffi::CStr, ptr, slice};

use crate::{boot::LOW_END, failure::Failure};

const MAGIC: u32 = 0x336e_c578;
/// Longer command lines are cut off.
const MOST: usize = 4096;

/// The first fields of the structure, up to the ones that are needed.
#[repr(C)]
#[derive(Clone, Copy)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    module_list: u64,
    command_line: u64,
}

/// The command line, empty if there is none.
///
/// # Errors
/// [`Failure::Loader`] if this program was not started by the PVH protocol.
pub(crate) fn command_line(start_info: u64) -> Result<&'static str, Failure> {
    let info = mapped(start_info, size_of::<StartInfo>() as u64)?.cast::<StartInfo>();
    if !info.is_aligned() {
        return Err(Failure::Loader);
    }
    // SAFETY: `read` wants readable, aligned bytes of any value: they lie in mapped memory, and the
    // alignment was checked.
    let info = unsafe { ptr::read(info) };
    if info.magic != MAGIC {
        return Err(Failure::Loader);
    }
    if info.command_line == 0 {
        return Ok("");
    }
    let text = mapped(info.command_line, MOST as u64)?;
    // SAFETY: `from_raw_parts` wants bytes that nobody changes from now on: they lie in mapped memory
    // that the loader is done with, and nothing here writes below the image.
    let bytes = unsafe { slice::from_raw_parts(text, MOST) };
    let text = CStr::from_bytes_until_nul(bytes).map_err(|_| Failure::Loader)?;
    text.to_str().map_err(|_| Failure::Loader)
}

/// Checks that bytes lie where memory is mapped at its physical address, and not at address 0. Returns a pointer to
/// them.
fn mapped(at: u64, len: u64) -> Result<*const u8, Failure> {
    match at.checked_add(len) {
        Some(end) if at != 0 && end <= LOW_END => {
            let at = usize::try_from(at).map_err(|_| Failure::Loader)?;
            Ok(ptr::with_exposed_provenance(at))
        }
        _ => Err(Failure::Loader),
    }
}
