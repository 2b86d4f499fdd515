//! `space format`, `space info`, `space remove`.

use std::time::UNIX_EPOCH;

use commonhold::{FormatOptions, Removal, Shown, Space};
use commonhold_console::{
    failure::{Doing, Failure},
    session::Session,
};
use serde::Serialize;

use crate::{args::FormatArgs, limits::Limits, orphan};

pub(crate) fn format(session: &Session, args: &FormatArgs) -> Result<(), Failure> {
    let options = FormatOptions {
        capacity: args.capacity,
        peers: args.peers,
        regions: args.regions,
        lease: args.lease,
        mode: args.mode,
        force: args.force,
        owners: session.owners,
        ..FormatOptions::default()
    };
    tracing::debug!(?options, "formatting");
    Space::format(&args.url, &options).doing(|| format!("format {}", args.url))?;
    if session.out.json { session.out.value(&serde_json::json!({"url": args.url})) } else { Ok(()) }
}

#[derive(Serialize)]
struct Info {
    url: String,
    version: u64,
    uuid: String,
    created: u64,
    capacity: u64,
    tables: u64,
    used: u64,
    free: u64,
    largest_free: u64,
    page: u64,
    peers: usize,
    peer_slots: u16,
    regions: usize,
    region_entries: u32,
    lease_ms: u64,
    memory: String,
    memory_cache: Option<&'static str>,
    atomic_ns: Option<f64>,
    plain_ns: Option<f64>,
    waiting: &'static str,
    orphaned: bool,
    resident: Option<u64>,
    #[serde(flatten)]
    supply: Limits,
}

pub(crate) fn info(session: &Session) -> Result<(), Failure> {
    let out = session.out;
    let space = session.open()?;
    let info = space.info().doing(|| format!("describe {}", session.url))?;
    let memory = info.memory.to_string();
    let info = Info {
        created: info.created.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        url: info.url,
        version: info.version,
        uuid: uuid(info.uuid),
        capacity: info.capacity,
        tables: info.tables,
        used: info.used,
        free: info.free,
        largest_free: info.largest_free,
        page: info.page,
        peers: info.peers.0,
        peer_slots: info.peers.1,
        regions: info.regions.0,
        region_entries: info.regions.1,
        lease_ms: info.lease_ms,
        memory: info.memory.kind,
        memory_cache: info.memory.cache,
        atomic_ns: info.memory.atomic_ns,
        plain_ns: info.memory.plain_ns,
        waiting: info.waiting,
        orphaned: info.orphaned,
        resident: info.resident,
        supply: Limits::new(info.supply),
    };
    if out.json {
        return out.value(&info);
    }
    let limits = info.supply.pairs(out);
    let mut pairs = vec![
        ("space", Shown::new(&info.url).to_string()),
        ("format version", info.version.to_string()),
        ("uuid", info.uuid),
        ("capacity", out.size(info.capacity)),
        ("tables", out.size(info.tables)),
        ("used", out.size(info.used)),
        (
            "free",
            format!("{} (largest extent {})", out.size(info.free), out.size(info.largest_free)),
        ),
        ("page", out.size(info.page)),
        ("peers", format!("{} of {}", info.peers, info.peer_slots)),
        ("regions", format!("{} of {}", info.regions, info.region_entries)),
        (
            "lease",
            if info.lease_ms == 0 { "none".to_owned() } else { format!("{} ms", info.lease_ms) },
        ),
        ("memory", memory),
        ("waiting", info.waiting.to_owned()),
        ("name", if info.orphaned { orphan::WARNING } else { "means this space" }.to_owned()),
        ("resident", info.resident.map_or_else(|| "not known".to_owned(), |bytes| out.size(bytes))),
    ];
    pairs.extend(limits);
    out.pairs(&pairs)
}

pub(crate) fn remove(session: &Session, url: &str, force: bool) -> Result<(), Failure> {
    let removal = if force { Removal::Forced } else { Removal::IfUnused };
    Space::remove_of(url, removal, session.owners).doing(|| format!("remove {url}"))?;
    if session.out.json { session.out.value(&serde_json::json!({"url": url})) } else { Ok(()) }
}

/// A UUID in the usual form, with dashes.
fn uuid(number: u128) -> String {
    let hex = format!("{number:032x}");
    let mut text = String::with_capacity(36);
    for (index, digit) in hex.chars().enumerate() {
        if matches!(index, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_uuid_has_its_dashes() {
        assert_eq!(super::uuid(1), "00000000-0000-0000-0000-000000000001");
    }
}
