//! `lookup`: map and unmap by name among very many regions, against the same among few.

use std::time::{Duration, Instant};

use commonhold::{Access, CreateOptions, FormatOptions, Removal, Space};
use commonhold_console::{
    failure::{Doing, Failure, broken},
    random::Random,
    session::Session,
};

use super::{Line, ROUNDS, time};

const MANY: u64 = 65_536;
const FEW: u64 = 16;
const TIMES: u32 = 20_000;
/// How long creating the regions may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Three lines, always measured in spaces made for them:
/// - random names of all regions, which includes the cost of cache misses, since so many do not fit the caches;
/// - sixteen names again and again, spread over the tables;
/// - random names of all regions, mapped read-only, which takes a system call.
pub(super) fn lookup(session: &Session) -> Result<Vec<Line>, Failure> {
    const AGAINST: &str = "the same among 16 regions";
    tracing::debug!(url = session.url, "lookup makes spaces of its own");
    let (many, few) = (Own::fill("many", MANY)?, Own::fill("few", FEW)?);
    let mut random = Random::new(1);
    let mut pick = |least: u64, step: u64| random.below(least) * step;
    let mut failed = 0_u32;
    let mut look = |own: &Own, index, access| failed += u32::from(!own.look(index, access));
    let mut times: [Vec<f64>; 5] = Default::default();
    for _ in 0..ROUNDS {
        let rounds = [
            time(TIMES, || look(&many, pick(MANY, 1), Access::ReadWrite)),
            time(TIMES, || look(&many, pick(FEW, MANY / FEW), Access::ReadWrite)),
            time(TIMES, || look(&few, pick(FEW, 1), Access::ReadWrite)),
            time(TIMES, || look(&many, pick(MANY, 1), Access::ReadOnly)),
            time(TIMES, || look(&few, pick(FEW, 1), Access::ReadOnly)),
        ];
        times.iter_mut().zip(rounds).for_each(|(all, one)| all.push(one));
    }
    if failed > 0 {
        return Err(broken(format!("{failed} regions were not mapped")));
    }
    let [all, hot, base, all_ro, base_ro] = times;
    Ok(vec![
        Line::new("lookup, any of 65536", AGAINST, all, base.clone()),
        Line::new("lookup, 16 of 65536", AGAINST, hot, base),
        Line::new("lookup, read-only", AGAINST, all_ro, base_ro),
    ])
}

/// The name of region `index`. It is computed, so that no table of names competes for the caches.
fn name(index: u64, buffer: &mut [u8; 12]) -> &str {
    let mut left = index;
    for digit in buffer.iter_mut().rev().take(5) {
        *digit = b'0' + u8::try_from(left % 10).unwrap_or(0);
        left /= 10;
    }
    std::str::from_utf8(buffer).unwrap_or_default()
}

const BLANK: [u8; 12] = *b"region-00000";

struct Own {
    url: String,
    space: Space,
}

impl Own {
    fn fill(what: &str, count: u64) -> Result<Self, Failure> {
        let url = format!("shm:bench-{what}-{}", std::process::id());
        let options =
            FormatOptions { regions: Some(count), force: true, ..FormatOptions::default() };
        Space::format(&url, &options).doing(|| format!("format {url}"))?;
        let space = Space::open(&url).doing(|| format!("open {url}"))?;
        let this = Self { url, space };
        let began = Instant::now();
        let options = CreateOptions { size: 4096, lazy: true, ..CreateOptions::default() };
        for index in 0..count {
            let mut buffer = BLANK;
            let name = name(index, &mut buffer);
            this.space.create_with(name, &options).doing(|| format!("create {name:?}"))?;
            if began.elapsed() > PATIENCE {
                let seconds = PATIENCE.as_secs();
                return Err(broken(format!("only {index} regions created in {seconds} s")));
            }
        }
        tracing::info!(count, elapsed = ?began.elapsed(), "created regions");
        Ok(this)
    }

    fn look(&self, index: u64, access: Access) -> bool {
        self.space.map(name(index, &mut { BLANK }), access).is_ok()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Err(error) = Space::remove(&self.url, Removal::Forced) {
            tracing::warn!(%error, "a space of the benchmark was not removed");
        }
    }
}
