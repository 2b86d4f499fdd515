//! In the child: what happens at each point. It is said, and if it is the one, that was the last word, or the
//! last for a while.

use std::{
    env,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use commonhold_window::Point;
use rustix::process::{Signal, getpid, kill_process};

use crate::scripted_process::say;

/// `POINT:N`: die at the N-th hit of it.
pub(crate) const ARMED: &str = "COMMONHOLD_CRASH_AT";
/// `POINT:N`: be stopped at the N-th hit of it, until somebody says that it goes on.
pub(crate) const STOPPED: &str = "COMMONHOLD_STOP_AT";

/// Hits of one point that are said; a waiter that spins would say no end of them.
const SAID: u32 = 128;

struct Armed {
    at: Option<(Point, u32)>,
    stopped: Option<(Point, u32)>,
    hits: Vec<AtomicU32>,
}

static ARM: OnceLock<Armed> = OnceLock::new();

/// From now on points are said, and the armed one kills.
pub(crate) fn install() {
    let hit = |variable| {
        let text = env::var(variable).ok()?;
        let (name, number) = text.split_once(':')?;
        Some((point(name)?, number.parse().ok()?))
    };
    let hits = Point::ALL.iter().map(|_| AtomicU32::new(0)).collect();
    let _ = ARM.set(Armed { at: hit(ARMED), stopped: hit(STOPPED), hits });
    commonhold_window::at_each_point(hook);
}

/// The point of a name.
pub(crate) fn point(name: &str) -> Option<Point> {
    Point::ALL.iter().copied().find(|point| point.name() == name)
}

fn hook(point: Point) {
    let Some(arm) = ARM.get() else { return };
    let index = Point::ALL.iter().position(|other| *other == point);
    let Some(hits) = index.and_then(|index| arm.hits.get(index)) else { return };
    let hit = hits.fetch_add(1, Ordering::Relaxed).saturating_add(1);
    if hit <= SAID {
        say('@', point.name());
    }
    if arm.stopped == Some((point, hit)) {
        // Returns when it is continued.
        let _ = kill_process(getpid(), Signal::STOP);
    }
    if arm.at == Some((point, hit)) {
        let _ = kill_process(getpid(), Signal::KILL);
        // It comes before the call returns; if not, the one who waits for it will notice.
        loop {
            std::thread::park();
        }
    }
}
