//! `lookup`: map and unmap by name, among very many regions against among few.

use std::time::{Duration, Instant};

use commonhold::{Access, CreateOptions, FormatOptions, Removal, Space};

use super::{Line, ROUNDS, time};
use crate::{
    failure::{Doing, Failure},
    random::Random,
    session::Session,
    workers::broken,
};

const MANY: u64 = 65_536;
const FEW: u64 = 16;
const TIMES: u32 = 20_000;
/// The regions must have been created by then.
const PATIENCE: Duration = Duration::from_secs(120);

/// Two lines: random names of all, and sixteen of them again and again. Always in spaces of its own.
pub(super) fn lookup(session: &Session) -> Result<Vec<Line>, Failure> {
    tracing::debug!(url = session.url, "lookup makes spaces of its own");
    let (many, few) = (Own::fill("many", MANY)?, Own::fill("few", FEW)?);
    let mut random = Random::new(1);
    let (mut cold, mut hot, mut base) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        cold.push(time(TIMES, || many.look(random.below(MANY)))?);
        base.push(time(TIMES, || few.look(random.below(FEW)))?);
        hot.push(time(TIMES, || many.look(random.below(FEW)))?);
    }
    Ok(vec![
        Line::new("lookup", "the same among 16 regions", cold, base.clone()),
        Line::new("lookup, 16 hot names", "the same among 16 regions", hot, base),
    ])
}

struct Own {
    url: String,
    space: Space,
    names: Vec<String>,
}

impl Own {
    fn fill(what: &str, count: u64) -> Result<Self, Failure> {
        let url = format!("shm:bench-{what}-{}", std::process::id());
        let options =
            FormatOptions { regions: Some(count), force: true, ..FormatOptions::default() };
        Space::format(&url, &options).doing(|| format!("format {url}"))?;
        let space = Space::open(&url).doing(|| format!("open {url}"))?;
        let mut this = Self { url, space, names: Vec::new() };
        let began = Instant::now();
        let options = CreateOptions { size: 4096, lazy: true, ..CreateOptions::default() };
        for index in 0..count {
            let name = format!("region-{index}");
            this.space.create_with(&name, &options).doing(|| format!("create {name:?}"))?;
            this.names.push(name);
            if began.elapsed() > PATIENCE {
                let seconds = PATIENCE.as_secs();
                return Err(broken(format!("only {index} regions created in {seconds} s")));
            }
        }
        tracing::info!(count, elapsed = ?began.elapsed(), "created regions");
        Ok(this)
    }

    fn look(&self, index: u64) -> Result<(), Failure> {
        let name = usize::try_from(index).ok().and_then(|index| self.names.get(index));
        let name = name.ok_or_else(|| broken("no such name"))?;
        let mapped = self.space.map(name, Access::ReadOnly).and_then(|mapping| mapping.unmap());
        mapped.doing(|| "bench lookup".to_owned())
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Err(error) = Space::remove(&self.url, Removal::Forced) {
            tracing::warn!(%error, "a space of the benchmark was not removed");
        }
    }
}
