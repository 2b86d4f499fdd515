//! `locks --graph`: which thread waits for which, as text, for Graphviz, and as JSON.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use commonhold::{PeerLife, Shown, Wait, WaitGraph, WaitKind};
use commonhold_console::{
    failure::{Doing, Failure},
    session::Session,
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::args::GraphForm;

/// What to do about a deadlock.
const HINT: &str = concat!(
    "  No thread in a deadlock goes on before one of them gives up. One that waits with --timeout does,\n",
    "  and frees what it holds. Otherwise end one process: its locks go to the next owners, which are told.\n",
    "  To avoid deadlocks, take the locks in the same order everywhere.",
);

pub(crate) fn graph(session: &Session, form: GraphForm) -> Result<(), Failure> {
    let out = session.out;
    let space = session.open()?;
    space.listen().doing(|| format!("listen to the peers of {}", session.url))?;
    let graph = space.wait_graph().doing(|| format!("look who waits in {}", session.url))?;
    if out.json {
        return out.value(&value(&graph));
    }
    let picture = Picture::new(&graph);
    match form {
        GraphForm::Text => out.line(&picture.text()),
        GraphForm::Dot => out.line(&picture.dot()),
    }
}

#[derive(Serialize)]
struct Thread<'a> {
    slot: u16,
    generation: u32,
    thread: Option<u16>,
    tid: u32,
    pid: u32,
    domain: &'a str,
    state: String,
    name: &'a str,
}

fn value(graph: &WaitGraph) -> Value {
    let threads = graph.threads.iter().map(|thread| Thread {
        slot: thread.slot,
        generation: thread.generation,
        thread: thread.thread,
        tid: thread.tid,
        pid: thread.pid,
        domain: &thread.domain,
        state: thread.state.to_string(),
        name: &thread.name,
    });
    let locks = graph.locks.iter().map(|lock| {
        json!({
            "region": lock.region, "offset": lock.offset, "owner": lock.owner,
            "record": lock.record.map(|record| record.to_string()), "readers": lock.readers,
        })
    });
    let waits = graph.waits.iter().map(|wait| {
        json!({
            "thread": wait.thread, "kind": wait.kind.to_string(), "lock": wait.lock,
            "process": wait.process, "blockers": wait.blockers, "open": wait.open,
            "confirmed": wait.confirmed,
        })
    });
    let confirmed = |waits: &[usize]| {
        waits.iter().all(|wait| graph.waits.get(*wait).is_some_and(|wait| wait.confirmed))
    };
    let cycles = graph
        .cycles
        .iter()
        .map(|cycle| json!({ "waits": cycle.waits, "confirmed": confirmed(&cycle.waits) }));
    json!({
        "threads": threads.collect::<Vec<_>>(), "locks": locks.collect::<Vec<_>>(),
        "waits": waits.collect::<Vec<_>>(), "cycles": cycles.collect::<Vec<_>>(),
    })
}

/// A wait graph, with a text for each thread and lock in it.
struct Picture<'a> {
    graph: &'a WaitGraph,
    threads: Vec<String>,
    locks: Vec<String>,
}

impl<'a> Picture<'a> {
    fn new(graph: &'a WaitGraph) -> Self {
        let mut peers: BTreeMap<u32, BTreeSet<(u16, u32)>> = BTreeMap::new();
        for thread in &graph.threads {
            peers.entry(thread.pid).or_default().insert((thread.slot, thread.generation));
        }
        // Processes in other PID namespaces or kernels may have the same process id.
        let twice = |pid| peers.get(&pid).is_some_and(|peers| peers.len() > 1);
        let threads = graph.threads.iter().map(|thread| {
            let mut about = vec![Shown::new(&thread.name).to_string()];
            if thread.pid == 0 || twice(thread.pid) {
                about.push(format!("slot {}/{}", thread.slot, thread.generation));
            }
            if thread.state != PeerLife::Live {
                about.push(thread.state.to_string());
            }
            about.retain(|word| !word.is_empty());
            let own = thread.thread.is_some() && thread.tid != 0 && thread.tid != thread.pid;
            let tid = if own { format!(" thread {}", thread.tid) } else { String::new() };
            format!("pid {}{tid} ({})", thread.pid, about.join(", "))
        });
        let locks = graph.locks.iter().map(|lock| match (&lock.region, lock.offset) {
            (None, _) => "the directory".to_owned(),
            (Some(region), None) => Shown::new(region).to_string(),
            (Some(region), Some(offset)) => {
                let region = Shown::new(region);
                match lock.record {
                    Some(record) => format!("the {record} {region}+{offset}"),
                    None => format!("{region}+{offset}"),
                }
            }
        });
        Self { graph, threads: threads.collect(), locks: locks.collect() }
    }

    fn thread(&self, index: usize) -> &str {
        self.threads.get(index).map_or("?", String::as_str)
    }

    fn lock(&self, wait: &Wait) -> &str {
        wait.lock.and_then(|lock| self.locks.get(lock)).map_or("?", String::as_str)
    }

    /// What a thread waits for.
    fn waits_for(&self, wait: &Wait) -> String {
        let lock = self.lock(wait);
        match wait.kind {
            WaitKind::Shared => format!("waits to read {lock}"),
            WaitKind::Readers => format!("waits for the readers of {lock}"),
            WaitKind::Event => format!("waits for an event at {lock}"),
            WaitKind::Permit => format!("waits for a permit of {lock}"),
            WaitKind::Participants => format!("waits at {lock}"),
            WaitKind::Mappings => format!("waits to destroy {lock}"),
            WaitKind::Process => format!("waits for process {}", wait.process.unwrap_or(0)),
            _ => format!("waits for {lock}"),
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for cycle in &self.graph.cycles {
            let waits: Vec<_> =
                cycle.waits.iter().filter_map(|w| self.graph.waits.get(*w)).collect();
            let before = waits.iter().cycle().skip(waits.len().saturating_sub(1));
            let steps = waits.iter().zip(before).map(|(wait, before)| {
                // What this thread holds: the wait before it ends only when this thread gives it up.
                let has = match before.kind {
                    WaitKind::Exclusive | WaitKind::Shared => {
                        format!("holds {} and ", self.lock(before))
                    }
                    WaitKind::Readers => format!("reads {} and ", self.lock(before)),
                    WaitKind::Permit => format!("holds a permit of {} and ", self.lock(before)),
                    WaitKind::Participants => {
                        format!("has not arrived at {} and ", self.lock(before))
                    }
                    _ => String::new(),
                };
                format!("{} {has}{}", self.thread(wait.thread), self.waits_for(wait))
            });
            text += &format!("deadlock: {}\n", steps.collect::<Vec<_>>().join("; "));
        }
        if !text.is_empty() {
            text += HINT;
            text += "\n\n";
        }
        if self.graph.waits.is_empty() {
            text += "nobody waits\n";
        }
        let mut lines: Vec<_> = self.graph.waits.iter().map(|wait| self.line(wait)).collect();
        lines.sort();
        text += &lines.join("\n");
        text.trim_end().to_owned()
    }

    fn line(&self, wait: &Wait) -> String {
        let mut line = format!("{} {}", self.thread(wait.thread), self.waits_for(wait));
        let blockers: Vec<_> = wait.blockers.iter().map(|blocker| self.thread(*blocker)).collect();
        if !blockers.is_empty() {
            line += match wait.kind {
                WaitKind::Readers => ": ",
                WaitKind::Mappings => ", mapped by ",
                WaitKind::Process => ", which waits: ",
                WaitKind::Permit if wait.open => ", some held by ",
                WaitKind::Permit => ", all held by ",
                WaitKind::Participants => " for ",
                _ => ", held by ",
            };
            line += &blockers.join(", ");
        }
        line
    }

    fn dot(&self) -> String {
        let mut text = String::from("digraph locks {\n  rankdir=LR;\n");
        for (index, name) in self.threads.iter().enumerate() {
            text += &format!("  t{index} [shape=box, label={}];\n", quoted(name));
        }
        for (index, name) in self.locks.iter().enumerate() {
            text += &format!("  l{index} [shape=ellipse, label={}];\n", quoted(name));
        }
        for ((from, to, label), circular) in self.arrows() {
            let color = if circular { ", color=red, penwidth=2" } else { "" };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {from} -> {to} [label={}{color}];", quoted(&label));
        }
        text + "}"
    }

    /// The arrows: from, to and label, and whether it is part of a deadlock. Each arrow stands there once.
    fn arrows(&self) -> BTreeMap<(String, String, String), bool> {
        let mut arrows = BTreeMap::new();
        let mut arrow = |from: String, to: String, label: String, circular: bool| {
            *arrows.entry((from, to, label)).or_insert(false) |= circular;
        };
        for (index, wait) in self.graph.waits.iter().enumerate() {
            let next = self.next_in_circles(index);
            let thread = format!("t{}", wait.thread);
            let middle = wait.lock.map(|lock| format!("l{lock}"));
            if let Some(lock) = &middle {
                arrow(
                    thread.clone(),
                    lock.clone(),
                    waiting(wait.kind).to_owned(),
                    !next.is_empty(),
                );
            }
            for blocker in &wait.blockers {
                let label = match wait.process {
                    Some(process) => format!("waits for process {process}"),
                    None => holding(wait.kind).to_owned(),
                };
                let from = middle.clone().unwrap_or_else(|| thread.clone());
                arrow(from, format!("t{blocker}"), label, next.contains(blocker));
            }
        }
        arrows
    }

    /// The threads that follow this wait in the deadlocks it is part of.
    fn next_in_circles(&self, wait: usize) -> BTreeSet<usize> {
        let next = |waits: &[usize]| {
            let at = waits.iter().position(|other| *other == wait)?;
            let next = waits.iter().cycle().nth(at + 1)?;
            self.graph.waits.get(*next).map(|wait| wait.thread)
        };
        self.graph.cycles.iter().filter_map(|cycle| next(&cycle.waits)).collect()
    }
}

const fn waiting(kind: WaitKind) -> &'static str {
    match kind {
        WaitKind::Shared => "waits to read",
        WaitKind::Readers => "waits for readers",
        WaitKind::Event => "waits for an event",
        WaitKind::Permit => "waits for a permit",
        WaitKind::Participants => "waits at",
        WaitKind::Mappings => "waits to destroy",
        _ => "waits for",
    }
}

const fn holding(kind: WaitKind) -> &'static str {
    match kind {
        WaitKind::Readers => "read by",
        WaitKind::Mappings => "mapped by",
        WaitKind::Participants => "waits for",
        _ => "held by",
    }
}

/// A quoted string for Graphviz.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
