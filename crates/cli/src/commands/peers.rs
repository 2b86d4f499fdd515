//! `peers` and `reap`: lists the attached peers, and frees what dead peers left.

use commonhold::{PeerInfo, Shown};
use commonhold_console::{
    failure::{Doing, Failure},
    output::Column,
    session::Session,
};
use serde::Serialize;
use serde_json::json;

use crate::args::ReapArgs;

#[derive(Serialize)]
struct Peer {
    slot: u16,
    generation: u32,
    pid: u32,
    domain: String,
    state: String,
    name: String,
}

impl From<PeerInfo> for Peer {
    fn from(peer: PeerInfo) -> Self {
        Self {
            slot: peer.slot,
            generation: peer.generation,
            pid: peer.pid,
            domain: peer.domain,
            state: peer.state.to_string(),
            name: peer.name,
        }
    }
}

pub(crate) fn peers(session: &Session) -> Result<(), Failure> {
    let out = session.out;
    let space = session.open()?;
    space.listen().doing(|| format!("listen to the peers of {}", session.url))?;
    let peers = space.peers().doing(|| format!("list the peers of {}", session.url))?;
    let peers: Vec<Peer> = peers.into_iter().map(Peer::from).collect();
    if out.json {
        return out.value(&peers);
    }
    let columns = [
        Column::Right("SLOT"),
        Column::Right("GENERATION"),
        Column::Right("PID"),
        Column::Left("DOMAIN"),
        Column::Left("STATE"),
        Column::Left("NAME"),
    ];
    let rows = peers.into_iter().map(|peer| {
        vec![
            peer.slot.to_string(),
            peer.generation.to_string(),
            peer.pid.to_string(),
            peer.domain,
            peer.state,
            Shown::new(&peer.name).to_string(),
        ]
    });
    out.table(&columns, rows.collect())
}

pub(crate) fn reap(session: &Session, args: &ReapArgs) -> Result<(), Failure> {
    let out = session.out;
    let space = session.open()?;
    for slot in &args.assume_dead {
        space.assume_dead(*slot).doing(|| format!("assume the peer in slot {slot} dead"))?;
    }
    space.listen().doing(|| format!("listen to the peers of {}", session.url))?;
    let reaped = space.reap().doing(|| format!("reap {}", session.url))?;
    if out.json {
        let peers: Vec<_> = reaped
            .peers
            .iter()
            .map(|peer| {
                json!({
                    "slot": peer.slot, "generation": peer.generation, "pid": peer.pid,
                    "name": peer.name,
                })
            })
            .collect();
        return out.value(&json!({
            "peers": peers, "settled": reaped.settled, "given_back": reaped.given_back,
        }));
    }
    for peer in &reaped.peers {
        out.line(&format!(
            "freed slot {} of generation {}: pid {} {}",
            peer.slot,
            peer.generation,
            peer.pid,
            Shown::new(&peer.name)
        ))?;
    }
    out.line(&format!(
        "{} dead peers reaped, {} of their unfinished operations settled, {} bytes of memory that belonged to no \
         region given back",
        reaped.peers.len(),
        reaped.settled,
        reaped.given_back
    ))
}
