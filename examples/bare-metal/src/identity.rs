//! The identity of this guest.
//!
//! A space identifies a kernel by its boot id. So the id must differ from that of every other kernel that ever
//! attaches, including earlier boots of this guest.

use commonhold_layout::{BootId, PeerName};
use commonhold_space::Identity;

use crate::cpu::{in8, random, ticks};

/// What this guest states about itself when it attaches. It has no process id and the like.
pub(crate) fn identity() -> Identity {
    Identity {
        boot: boot_id(),
        pid: 0,
        pid_namespace: 0,
        start_time: 0,
        uid: 0,
        name: PeerName::new("bare-metal"),
    }
}

/// A boot id of 128 bits. It mixes random numbers of the processor, if there are any, with the duration of some
/// hundred port reads, the last bits of which cannot be predicted.
fn boot_id() -> BootId {
    const ROUNDS: u32 = 512;
    let mut halves = [random().unwrap_or(0), random().unwrap_or(0)];
    for round in 0..ROUNDS {
        in8(0x61);
        let [low, high] = halves;
        halves =
            [mix(low ^ ticks().wrapping_add(high)), mix(high.rotate_left(1) ^ u64::from(round))];
    }
    let [low, high] = halves;
    // The id 0 means "none".
    BootId(u128::from(high) << 64 | u128::from(low) | 1)
}

/// The finisher of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): every bit of the result depends on
/// every bit of the input.
const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}
