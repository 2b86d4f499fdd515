//! Runs in the child: at each point it prints the name of the point; at the armed point it then kills or stops itself.

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

/// `POINT:N`: the child dies at the N-th hit of the point.
pub(crate) const ARMED: &str = "COMMONHOLD_CRASH_AT";
/// `POINT:N`: the child stops itself at the N-th hit of the point, until the driver continues it.
pub(crate) const STOPPED: &str = "COMMONHOLD_STOP_AT";

/// How many hits of one point are printed: a spinning waiter would print too many.
const SAID: u32 = 128;

struct Armed {
    at: Option<(Point, u32)>,
    stopped: Option<(Point, u32)>,
    hits: Vec<AtomicU32>,
}

static ARM: OnceLock<Armed> = OnceLock::new();

/// From now on, points are printed, and the armed point kills or stops the child.
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

/// The point with this name.
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
        // Returns when the process is continued.
        let _ = kill_process(getpid(), Signal::STOP);
    }
    if arm.at == Some((point, hit)) {
        let _ = kill_process(getpid(), Signal::KILL);
        // The signal arrives before the call returns. If it does not, the driver's wait for the death fails.
        loop {
            std::thread::park();
        }
    }
}
