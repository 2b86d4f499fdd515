//! `ls` and `stat`: what regions there are.

use std::{collections::HashMap, time::UNIX_EPOCH};

use commonhold::{LockInfo, LockKind, RegionInfo, State};
use serde::Serialize;

use super::locks::Lock;
use crate::{
    failure::{Doing, Failure},
    limits::Limits,
    output::Column,
    session::Session,
};

#[derive(Serialize)]
struct Row {
    name: String,
    size: u64,
    reserve: u64,
    lazy: bool,
    state: String,
    maps: u64,
    offset: u64,
}

impl Row {
    fn new(region: &RegionInfo) -> Self {
        Self {
            name: region.name.clone(),
            size: region.size,
            reserve: region.reserve,
            lazy: region.lazy,
            state: region.state.to_string(),
            maps: region.maps,
            offset: region.offset,
        }
    }
}

#[derive(Serialize)]
struct Stat {
    #[serde(flatten)]
    row: Row,
    entry: u32,
    generation: u32,
    created: u64,
    lock: Option<Lock>,
    resident: Option<u64>,
    #[serde(flatten)]
    supply: Limits,
}

pub(crate) fn ls(session: &Session) -> Result<(), Failure> {
    let out = session.out;
    let space = session.open()?;
    let regions = space.regions().doing(|| format!("list {}", session.url))?;
    tell_of_damage(&regions);
    if out.json {
        return out.value(&regions.iter().map(Row::new).collect::<Vec<_>>());
    }
    let locks = space.locks().doing(|| format!("list the locks of {}", session.url))?;
    let locks = by_region(&locks);
    let rows = regions.iter().map(|region| {
        vec![
            shown_name(region),
            out.size(region.size),
            region.state.to_string(),
            region.maps.to_string(),
            lock_column(region, &locks),
        ]
    });
    let columns = [
        Column::Left("NAME"),
        Column::Right("SIZE"),
        Column::Left("STATE"),
        Column::Right("MAPS"),
        Column::Left("LOCK"),
    ];
    out.table(&columns, rows.collect())
}

/// Of a damaged region only the entry is known.
fn shown_name(region: &RegionInfo) -> String {
    match region.state {
        State::Damaged => format!("(entry {})", region.id.entry),
        _ => region.name.clone(),
    }
}

/// The others are as good as ever, so this is no failure.
fn tell_of_damage(regions: &[RegionInfo]) {
    let damaged = regions.iter().filter(|region| region.state == State::Damaged);
    for region in damaged {
        eprintln!(
            "commonhold: entry {} of the table of regions makes no sense; its bytes cannot be used, and \
             other regions are not concerned",
            region.id.entry
        );
    }
}

pub(crate) fn stat(session: &Session, name: &str) -> Result<(), Failure> {
    let out = session.out;
    let space = session.open()?;
    let region = space.stat(name).doing(|| format!("stat {name:?}"))?;
    let supply = space.supply().doing(|| format!("stat {name:?}"))?;
    let supply = Limits::new(supply);
    let created = region.created.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if out.json {
        return out.value(&Stat {
            row: Row::new(&region),
            entry: region.id.entry,
            generation: region.id.generation,
            created,
            lock: region.lock.as_ref().map(Lock::new),
            resident: region.resident,
            supply,
        });
    }
    let locks = space.locks().doing(|| format!("list the locks of {}", session.url))?;
    let lock = lock_column(&region, &by_region(&locks));
    let resident = region.resident.map_or_else(|| "not known".to_owned(), |it| out.size(it));
    let mut pairs = vec![
        ("name", region.name),
        ("size", out.size(region.size)),
        ("reserve", out.size(region.reserve)),
        ("lazy", if region.lazy { "yes" } else { "no" }.to_owned()),
        ("state", region.state.to_string()),
        ("maps", region.maps.to_string()),
        ("offset", region.offset.to_string()),
        ("entry", format!("{} generation {}", region.id.entry, region.id.generation)),
        ("created", humantime::format_rfc3339_seconds(region.created).to_string()),
        ("lock", lock),
        ("resident", resident),
    ];
    pairs.extend(supply.pairs(out));
    out.pairs(&pairs)
}

/// What is said of a region's own lock in a column.
#[derive(Default)]
struct Summary<'a> {
    readers: usize,
    first: Option<&'a LockInfo>,
}

/// Regions' own locks, by the names of the regions.
fn by_region(locks: &[LockInfo]) -> HashMap<&str, Summary<'_>> {
    let mut by_region: HashMap<&str, Summary<'_>> = HashMap::new();
    for lock in locks.iter().filter(|lock| lock.offset.is_none()) {
        let summary = by_region.entry(lock.region.as_str()).or_default();
        summary.readers += usize::from(lock.kind == LockKind::Shared);
        summary.first = summary.first.or(Some(lock));
    }
    by_region
}

/// `-`, `exclusive by PID`, `upgradable by PID`, `shared by N`, `inconsistent` or `unrecoverable`. `locks` lists a
/// shared lock once for each peer that reads, beside a writer that waits for those readers to go.
fn lock_column(region: &RegionInfo, locks: &HashMap<&str, Summary<'_>>) -> String {
    let summary = locks.get(region.name.as_str());
    let readers = summary.map_or(0, |summary| summary.readers);
    if readers > 0 {
        return format!("shared by {readers}");
    }
    let first = summary.and_then(|summary| summary.first);
    let Some(lock) = region.lock.as_ref().or(first) else {
        return "-".to_owned();
    };
    match (lock.kind, &lock.holder) {
        (kind @ (LockKind::Exclusive | LockKind::Upgradable), Some(holder)) => {
            format!("{kind} by {}", holder.pid)
        }
        (LockKind::Shared, _) => "shared by 1".to_owned(),
        (kind, _) => kind.to_string(),
    }
}
