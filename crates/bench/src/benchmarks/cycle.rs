//! `create`: create, map, touch, unmap and destroy a region of 4 KiB, against a POSIX shared memory object.

use commonhold::{Access, Destroy, FormatOptions, RegionError, Space};
use commonhold_console::{
    failure::{Doing, Failure},
    session::Session,
};

use super::{Line, ROUNDS, peers, prepare_space, time};

const NAME: &str = "bench.cycle";
const BYTES: u64 = 4096;
const TIMES: u32 = 500;

pub(super) fn create(session: &Session) -> Result<Line, Failure> {
    let (run_space, space) = prepare_space(session, &FormatOptions::default())?;
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    let object = format!("bench-peer-{}", std::process::id());
    let mut result = Ok(());
    let mut peer_result = Ok(());
    for _ in 0..ROUNDS {
        ours.push(time(TIMES, || {
            if result.is_ok() {
                result = cycle(&space);
            }
        }));
        peer.push(time(TIMES, || {
            if peer_result.is_ok() {
                peer_result = peers::shm_cycle(&object, 4096);
            }
        }));
    }
    result.doing(|| "bench create".to_owned())?;
    peer_result.doing(|| "bench create, the peer".to_owned())?;
    run_space.remove(space)?;
    Ok(Line::new("create", "shm_open + mmap", ours, peer))
}

/// Creates, maps, touches, unmaps and destroys.
fn cycle(space: &Space) -> Result<(), RegionError> {
    let mapping = space.create(NAME, BYTES)?.map(Access::ReadWrite)?;
    mapping.set(0, &1_u64)?;
    mapping.unmap()?;
    space.destroy(NAME, Destroy::Wait).map(|_| ())
}
