//! `ls` and `stat`: lists all regions, or describes one.

use std::{collections::HashMap, time::UNIX_EPOCH};

use commonhold::{LockInfo, LockKind, PeerLife, RegionInfo, Shown, State};
use commonhold_console::{
    failure::{Doing, Failure},
    output::{self, Column},
    session::Session,
    units,
};
use serde::Serialize;

use super::locks::{Lock, tell_of_the_rest, whose};
use crate::limits::Limits;

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
    /// The locks in its bytes.
    locks: Vec<Lock>,
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
    let locks = space.region_locks().doing(|| format!("list the locks of {}", session.url))?;
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

/// The name of a region; for a damaged region only the number of its entry is known.
fn shown_name(region: &RegionInfo) -> String {
    match region.state {
        State::Damaged => format!("(entry {})", region.id.entry),
        _ => Shown::new(&region.name).to_string(),
    }
}

/// Warns about damaged entries. Other regions are not affected, so the command does not fail.
fn tell_of_damage(regions: &[RegionInfo]) {
    let damaged = regions.iter().filter(|region| region.state == State::Damaged);
    for region in damaged {
        output::complain(&format!(
            "commonhold: entry {} of the table of regions makes no sense; its bytes cannot be used. \
             Other regions are not affected",
            region.id.entry
        ));
    }
}

pub(crate) fn stat(session: &Session, name: &str) -> Result<(), Failure> {
    let out = session.out;
    let space = session.open()?;
    let region = space.stat(name).doing(|| format!("stat {name:?}"))?;
    let supply = space.supply().doing(|| format!("stat {name:?}"))?;
    let supply = Limits::new(supply);
    let survey = space.survey_locks(Some(name)).doing(|| format!("stat {name:?}"))?;
    tell_of_the_rest(&survey);
    let inside = survey.locks.iter().filter(|lock| lock.offset.is_some());
    let created = region.created.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if out.json {
        return out.value(&Stat {
            row: Row::new(&region),
            entry: region.id.entry,
            generation: region.id.generation,
            created,
            lock: region.lock.as_ref().map(Lock::new),
            locks: inside.map(Lock::new).collect(),
            resident: region.resident,
            supply,
        });
    }
    let lock = lock_column(&region, &by_region(&survey.locks));
    let resident = region.resident.map_or_else(|| "not known".to_owned(), |it| out.size(it));
    let mut pairs = vec![
        ("name", Shown::new(&region.name).to_string()),
        ("size", out.size(region.size)),
        ("reserve", out.size(region.reserve)),
        ("lazy", if region.lazy { "yes" } else { "no" }.to_owned()),
        ("state", region.state.to_string()),
        ("maps", region.maps.to_string()),
        ("offset", region.offset.to_string()),
        ("entry", format!("{} generation {}", region.id.entry, region.id.generation)),
        ("created", units::point(region.created)),
        ("lock", lock),
        ("resident", resident),
    ];
    pairs.extend(inside.map(|lock| ("lock inside", line(lock))));
    pairs.extend(supply.pairs(out));
    out.pairs(&pairs)
}

/// A lock in the bytes of a region, as a line of text.
fn line(lock: &LockInfo) -> String {
    let at = lock.offset.unwrap_or(0);
    let what = lock.record.map_or_else(|| "mutex".to_owned(), |record| record.to_string());
    let mut line = format!("at {at}: {what}, {}", lock.kind);
    if let Some(whose) = whose(lock) {
        line += &format!(", {whose}");
    }
    if lock.waiters > 0 {
        line += &format!(", {} waiting", lock.waiters);
    }
    line
}

/// What the column LOCK needs to know of a region's own lock.
#[derive(Default)]
struct Summary<'a> {
    readers: usize,
    first: Option<&'a LockInfo>,
}

/// The regions' own locks, by the name of the region.
fn by_region(locks: &[LockInfo]) -> HashMap<&str, Summary<'_>> {
    let mut by_region: HashMap<&str, Summary<'_>> = HashMap::new();
    for lock in locks.iter().filter(|lock| lock.offset.is_none()) {
        let summary = by_region.entry(lock.region.as_str()).or_default();
        summary.readers += usize::from(lock.kind == LockKind::Shared);
        summary.first = summary.first.or(Some(lock));
    }
    by_region
}

/// `-`, `exclusive by PID`, `upgradable by PID`, `shared by N`, `inconsistent` or `unrecoverable`. A dead holder gets
/// `(dead)`; the last two say `left by PID` if it is known. In `locks` a shared lock stands once for each peer that
/// reads, and a writer that waits for these readers stands there as well.
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
            let dead = if holder.state == PeerLife::Dead { " (dead)" } else { "" };
            format!("{kind} by {}{dead}", holder.pid)
        }
        (LockKind::Shared, _) => "shared by 1".to_owned(),
        (kind, _) => match &lock.left_by {
            Some(left) => format!("{kind}, left by {}", left.pid),
            None => kind.to_string(),
        },
    }
}
