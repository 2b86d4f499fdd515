//! `write` and `read`: copy bytes into and out of a region.
//!
//! Invariants: 1. nothing is written unless all of the input fits. The input is read completely first, but never
//! further than one byte past what fits. 2. No lock is taken.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use commonhold::Access;
use commonhold_console::{
    failure::{Doing, Failure, Status},
    session::Session,
};
use serde_json::json;

use crate::args::{ReadArgs, WriteArgs};

/// How many bytes `read` copies at a time.
const CHUNK: usize = 1 << 20;

pub(crate) fn write(session: &Session, args: &WriteArgs) -> Result<(), Failure> {
    let what = || format!("write {:?}", args.name);
    let space = session.open()?;
    let mapping = space.map(&args.name, Access::ReadWrite).doing(what)?;
    let Some(room) = mapping.size().checked_sub(args.offset) else {
        return Err(outside(&what(), args.offset, mapping.size()));
    };
    let input = input(args.file.as_deref(), room)?;
    let len = u64::try_from(input.len()).unwrap_or(u64::MAX);
    if len > room {
        return Err(Failure::new(
            Status::NoMemory,
            format!(
                "{}: the input does not fit into the {room} bytes from offset {} on; nothing was \
                 written. A region of {} bytes can grow by `commonhold resize` within its reserve",
                what(),
                args.offset,
                mapping.size()
            ),
        ));
    }
    mapping.write_at(args.offset, &input).doing(what)?;
    mapping.unmap().doing(what)?;
    if session.out.json {
        session.out.value(&json!({"name": args.name, "offset": args.offset, "written": len}))
    } else {
        Ok(())
    }
}

pub(crate) fn read(session: &Session, args: &ReadArgs) -> Result<(), Failure> {
    let what = || format!("read {:?}", args.name);
    let space = session.open()?;
    let mapping = space.map(&args.name, Access::ReadOnly).doing(what)?;
    let Some(room) = mapping.size().checked_sub(args.offset) else {
        return Err(outside(&what(), args.offset, mapping.size()));
    };
    let len = args.len.unwrap_or(room);
    if len > room {
        return Err(outside(&what(), args.offset.saturating_add(len), mapping.size()));
    }
    let mut buffer = vec![0; CHUNK];
    let mut done = 0;
    while done < len {
        let part = usize::try_from(len - done).unwrap_or(CHUNK).min(CHUNK);
        let Some(part) = buffer.get_mut(..part) else { break };
        mapping.read_at(args.offset + done, part).doing(what)?;
        session.out.bytes(part)?;
        done += u64::try_from(part.len()).unwrap_or(0);
    }
    mapping.unmap().doing(what)
}

fn outside(what: &str, offset: u64, size: u64) -> Failure {
    Failure::new(
        Status::Usage,
        format!("{what}: byte {offset} is outside the region, which has {size} bytes"),
    )
}

/// All of the input; if it does not fit, one byte more than fits.
fn input(file: Option<&Path>, room: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let most = room.saturating_add(1);
    match file {
        Some(path) if path.as_os_str() != "-" => {
            let what = || format!("read {}", path.display());
            File::open(path).doing(what)?.take(most).read_to_end(&mut bytes).doing(what)?;
        }
        _ => {
            io::stdin()
                .lock()
                .take(most)
                .read_to_end(&mut bytes)
                .doing(|| "read standard input".to_owned())?;
        }
    }
    Ok(bytes)
}
