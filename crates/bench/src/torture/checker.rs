//! The rules that every history of directory operations must obey.
//!
//! Every call took effect at some instant between its start and its end. The checker reports what no choice of
//! instants can explain. It may miss a violation, but never invents one. The rules are those that the library
//! documents:
//! 1. only one create gets a region's key, and every region that exists was created;
//! 2. a map lies in the lifetime of its region;
//! 3. a waiting destroy returns only after the last mapping is gone;
//! 4. the lifetimes of two regions of the same name do not overlap, and a region is destroyed once;
//! 5. `Exists` needs a region of the name that may have existed, or another worker that resizes it;
//! 6. `NotFound` needs an instant at which no region of the name was certainly active;
//! 7. `Mapped` is returned if and only if the caller maps the region (or `NotFound`, if another worker destroys it);
//! 8. `TimedOut` of a destroy needs a mapping or a resize of another worker; of any other operation, it needs a
//!    stopped worker, which may hold what the operation waits for.

use std::collections::{BTreeSet, HashMap};

use commonhold::RegionKey;

use super::history::{History, Killed, Mapped, NEVER, Operation, Outcome, What};

/// How long others may still wait for a stopped worker after it was continued, in nanoseconds: the worker first has to
/// get a processor.
const AFTERMATH_NS: u64 = 100_000_000;

/// The violations, each with its operations; at most a hundred.
pub(super) fn check(history: &History) -> Vec<String> {
    let (mappings, caller_maps) = history.mappings();
    let mut violations = Vec::new();
    let names: BTreeSet<u8> = history.operations.iter().map(|operation| operation.name).collect();
    for name in names {
        let of_name = Name::gather(name, history, &mappings, &mut violations);
        of_name.lifetimes(&mut violations);
        of_name.maps(&mut violations);
        of_name.outcomes(history, &caller_maps, &mut violations);
    }
    violations.truncate(100);
    violations
}

/// The lifetime of a region, as far as the history shows it.
#[derive(Debug)]
struct Life {
    key: RegionKey,
    /// Start and end of its create.
    born: (u64, u64),
    destroyed: Option<Operation>,
    /// After this time it may no longer be active.
    active_until: u64,
    /// Until this time its entry certainly exists.
    there_until: u64,
    /// From this time on it is certainly gone.
    gone_from: u64,
}

struct Name<'a> {
    operations: Vec<Operation>,
    mappings: Vec<&'a Mapped>,
    lives: Vec<Life>,
    /// Destroys whose callers were killed: the start of each, and when the caller was killed.
    unknown_destroys: Vec<(u64, Killed)>,
    /// Creates whose callers were killed, or that failed after they had begun. They may have held the name meanwhile.
    possible_creates: Vec<(u64, u64)>,
    unknown_maps: Vec<Operation>,
    /// Maps that found no region: the start of each, in order, and the latest end of all maps up to it.
    failed_maps: Vec<(u64, u64)>,
}

impl<'a> Name<'a> {
    fn gather(
        name: u8,
        history: &History,
        mappings: &'a [Mapped],
        violations: &mut Vec<String>,
    ) -> Self {
        let operations: Vec<Operation> =
            history.operations.iter().filter(|operation| operation.name == name).copied().collect();
        let unknown = |operation: &&Operation| operation.outcome.is_none();
        let never = Killed { before: NEVER, after: NEVER };
        let mut this = Self {
            mappings: mappings.iter().filter(|mapped| mapped.map.name == name).collect(),
            lives: Vec::new(),
            unknown_destroys: operations
                .iter()
                .filter(unknown)
                .filter(|operation| operation.destroys())
                .map(|operation| {
                    (operation.start, history.killed(operation.worker).unwrap_or(never))
                })
                .collect(),
            possible_creates: operations
                .iter()
                .filter(|operation| operation.what == What::Create)
                .filter(|op| {
                    matches!(op.outcome, None | Some(Outcome::Refused | Outcome::TimedOut))
                })
                .map(|operation| (operation.start, operation.end))
                .collect(),
            unknown_maps: operations
                .iter()
                .filter(unknown)
                .filter(|operation| operation.what == What::Map)
                .copied()
                .collect(),
            failed_maps: failed_maps(&operations),
            operations,
        };
        this.lives(violations);
        this
    }

    /// Checks rule 1 and the second half of rule 4.
    fn lives(&mut self, violations: &mut Vec<String>) {
        let mut lives: HashMap<RegionKey, (Operation, (u64, u64))> = HashMap::new();
        for operation in self.operations.iter().filter(|op| op.what == What::Create) {
            let Some(key) = operation.key() else { continue };
            let born = (operation.start, operation.end);
            if let Some((first, _)) = lives.insert(key, (*operation, born)) {
                violations.push(format!("two creates made one region: {first} and {operation}"));
            }
        }
        self.adopt(&mut lives, violations);
        let mut destroyed: HashMap<RegionKey, Operation> = HashMap::new();
        for operation in self.operations.iter().filter(|operation| operation.destroys()) {
            let Some(key) = operation.key() else { continue };
            if let Some(first) = destroyed.insert(key, *operation) {
                violations.push(format!("one region destroyed twice: {first} and {operation}"));
            }
        }
        let mut by_key: HashMap<RegionKey, Vec<&Mapped>> = HashMap::new();
        for mapped in &self.mappings {
            by_key.entry(mapped.key).or_default().push(mapped);
        }
        for (key, (_, born)) in lives {
            let mappings = by_key.remove(&key).unwrap_or_default();
            let life = self.life(key, born, destroyed.get(&key).copied(), &mappings);
            self.lives.push(life);
        }
        self.lives.sort_by_key(|life| (life.born.1, life.key));
    }

    /// Finds a create for each region that was used, but whose create did not return: its creator was killed.
    fn adopt(
        &self,
        lives: &mut HashMap<RegionKey, (Operation, (u64, u64))>,
        violations: &mut Vec<String>,
    ) {
        let acts_on = |op: &&Operation| op.destroys() || op.what == What::Map;
        let mut seen: Vec<(RegionKey, Operation)> = self
            .operations
            .iter()
            .filter(acts_on)
            .filter_map(|operation| Some((operation.key()?, *operation)))
            .filter(|(key, _)| !lives.contains_key(key))
            .collect();
        seen.sort_by_key(|(_, operation)| operation.end);
        let mut parents: Vec<&Operation> = self
            .operations
            .iter()
            .filter(|operation| operation.what == What::Create && operation.outcome.is_none())
            .collect();
        parents.sort_by_key(|operation| std::cmp::Reverse(operation.start));
        for (key, operation) in seen {
            if lives.contains_key(&key) {
                continue;
            }
            let born = match parents.pop() {
                Some(parent) if parent.start < operation.end => (parent.start, operation.end),
                _ => {
                    violations.push(format!("nobody created the region of {operation}"));
                    (0, operation.end)
                }
            };
            lives.insert(key, (operation, born));
        }
    }

    fn life(
        &self,
        key: RegionKey,
        born: (u64, u64),
        destroyed: Option<Operation>,
        mappings: &[&Mapped],
    ) -> Life {
        let unknown = self
            .unknown_destroys
            .iter()
            .filter(|(_, killed)| killed.after > born.0)
            .map(|(start, _)| *start)
            .min()
            .unwrap_or(NEVER);
        let by_destroy = destroyed.map_or(NEVER, |operation| operation.start);
        let last_sure = mappings.iter().map(|mapped| mapped.surely_until).max().unwrap_or(0);
        let last_possible = mappings.iter().map(|mapped| mapped.possibly_until).max().unwrap_or(0);
        let gone_from = match destroyed {
            None => NEVER,
            Some(operation) if operation.what == What::Destroy => operation.end,
            Some(operation) if self.unknown_maps.iter().any(|map| map.start < operation.end) => {
                NEVER
            }
            Some(operation) => {
                let undone = self.failed_maps_until(operation.end);
                operation.end.max(last_possible).max(undone)
            }
        };
        let active_until = by_destroy.min(unknown);
        Life {
            key,
            born,
            destroyed,
            active_until,
            there_until: active_until.max(last_sure),
            gone_from,
        }
    }

    /// The latest end of all maps that began before `moment` and found no region. A map counts itself before it checks
    /// whether the region is being destroyed. Until it takes that back, it delays a deferred destroy, and may be the
    /// one that frees the region.
    fn failed_maps_until(&self, moment: u64) -> u64 {
        let before = self.failed_maps.partition_point(|(start, _)| *start < moment);
        before.checked_sub(1).and_then(|last| self.failed_maps.get(last)).map_or(0, |(_, end)| *end)
    }

    /// Checks the first half of rule 4: the entries of two regions certainly exist at the same time.
    fn lifetimes(&self, violations: &mut Vec<String>) {
        let mut longest: Option<&Life> = None;
        for life in &self.lives {
            if life.there_until <= life.born.1 {
                continue;
            }
            if let Some(before) = longest
                && before.there_until > life.born.1
            {
                violations
                    .push(format!("two regions of one name at once: {before:?} and {life:?}"));
            }
            if longest.is_none_or(|before| before.there_until < life.there_until) {
                longest = Some(life);
            }
        }
    }

    /// Checks rules 2 and 3.
    fn maps(&self, violations: &mut Vec<String>) {
        let lives: HashMap<RegionKey, &Life> =
            self.lives.iter().map(|life| (life.key, life)).collect();
        for mapped in &self.mappings {
            let Some(life) = lives.get(&mapped.key) else { continue };
            if life.born.0 >= mapped.map.end {
                violations.push(format!("mapped before it was created: {}, {life:?}", mapped.map));
            }
            let Some(destroy) = life.destroyed else { continue };
            if mapped.map.start >= destroy.end {
                violations
                    .push(format!("mapped after it was destroyed: {}, {destroy}", mapped.map));
            } else if destroy.what == What::Destroy && mapped.surely_until >= destroy.end {
                violations.push(format!(
                    "destroy returned before the last unmap: {destroy}, {} until {}",
                    mapped.map, mapped.surely_until
                ));
            }
        }
        for life in &self.lives {
            if let Some(destroy) = life.destroyed
                && destroy.end <= life.born.0
            {
                violations.push(format!("destroyed before it was created: {destroy}, {life:?}"));
            }
        }
    }

    /// Checks rules 5 to 8.
    fn outcomes(&self, history: &History, caller_maps: &[bool], violations: &mut Vec<String>) {
        let there = union(
            self.lives
                .iter()
                .map(|life| (life.born.0, life.gone_from))
                .chain(self.possible_creates.iter().copied())
                .chain(self.resizes().map(|resize| (resize.start, resize.end)))
                .collect(),
        );
        let active = self.certainly_active();
        let busy = self.busy();
        let stopped = history.stopped.iter();
        let held_up =
            union(stopped.map(|it| (it.from, it.until.saturating_add(AFTERMATH_NS))).collect());
        for (operation, maps) in history.operations.iter().zip(caller_maps) {
            let name = self.operations.first().map(|first| first.name);
            if Some(operation.name) != name {
                continue;
            }
            let (start, end) = (operation.start, operation.end);
            match operation.outcome {
                Some(Outcome::Exists) if !touches(&there, start, end) => {
                    violations.push(format!("exists, but nothing could be there: {operation}"));
                }
                Some(Outcome::NotFound) if covers(&active, start, end) => {
                    violations.push(format!("not found, but it was active: {operation}"));
                }
                Some(Outcome::Mapped) if operation.destroys() && !maps => {
                    violations.push(format!("mapped by the caller, but it is not: {operation}"));
                }
                Some(Outcome::TimedOut)
                    if !(touches(&held_up, start, end)
                        || operation.destroys() && busy.by_another(operation)) =>
                {
                    violations.push(format!(
                        "timed out, but nobody maps it, and nobody was stopped: {operation}"
                    ));
                }
                _ => {}
            }
            let went_on = matches!(operation.outcome, Some(Outcome::Done(_) | Outcome::TimedOut));
            if operation.destroys() && *maps && went_on {
                violations.push(format!("its caller maps it, and was not told: {operation}"));
            }
        }
    }

    /// The intervals in which a region of the name was certainly active: sorted, and disjoint unless rule 4 is broken.
    fn certainly_active(&self) -> Vec<(u64, u64)> {
        // A destroy that timed out refused new maps for a while.
        let holes = union(
            self.operations
                .iter()
                .filter(|op| op.destroys() && op.outcome == Some(Outcome::TimedOut))
                .map(|operation| (operation.start, operation.end))
                .collect(),
        );
        let mut pieces = Vec::new();
        for life in &self.lives {
            let mut from = life.born.1;
            let first = holes.partition_point(|(_, end)| *end < from);
            for (start, end) in holes.iter().skip(first) {
                if *start >= life.active_until {
                    break;
                }
                if from < *start {
                    pieces.push((from, *start));
                }
                from = *end;
            }
            if from < life.active_until {
                pieces.push((from, life.active_until));
            }
        }
        pieces.sort_unstable();
        pieces
    }

    /// The resizes. A resize uses the region like a mapping does: a destroy waits for it, or is deferred.
    fn resizes(&self) -> impl Iterator<Item = &Operation> {
        self.operations.iter().filter(|operation| {
            operation.what == What::Resize && operation.outcome != Some(Outcome::NotFound)
        })
    }

    fn busy(&self) -> Busy {
        let gone: HashMap<RegionKey, u64> =
            self.lives.iter().map(|life| (life.key, life.gone_from)).collect();
        let known = self.mappings.iter().map(|mapped| {
            let gone = gone.get(&mapped.key).copied().unwrap_or(NEVER);
            (mapped.map.start, mapped.possibly_until.min(gone), mapped.map.worker)
        });
        let unknown = self.unknown_maps.iter().map(|map| (map.start, NEVER, map.worker));
        let resizes = self.resizes().map(|resize| (resize.start, resize.end, resize.worker));
        Busy::new(known.chain(unknown).chain(resizes).collect())
    }
}

/// The end of a mapping, and the worker that has it.
type End = (u64, usize);

/// The mappings that may exist, sorted by start. Each entry has the two latest ends so far, of two different workers.
struct Busy(Vec<(u64, End, End)>);

impl Busy {
    fn new(mut intervals: Vec<(u64, u64, usize)>) -> Self {
        intervals.sort_unstable();
        let nobody = (0, usize::MAX);
        let (mut first, mut second) = (nobody, nobody);
        let mut steps = Vec::with_capacity(intervals.len());
        for (start, end, worker) in intervals {
            if worker == first.1 {
                first.0 = first.0.max(end);
            } else if end > first.0 {
                second = first;
                first = (end, worker);
            } else if end > second.0 {
                second = (end, worker);
            }
            steps.push((start, first, second));
        }
        Self(steps)
    }

    fn by_another(&self, operation: &Operation) -> bool {
        let before = self.0.partition_point(|(start, ..)| *start < operation.end);
        let Some((_, first, second)) = before.checked_sub(1).and_then(|last| self.0.get(last))
        else {
            return false;
        };
        let latest = if first.1 == operation.worker { second } else { first };
        latest.0 > operation.start
    }
}

/// Merges intervals that overlap or touch.
fn union(mut intervals: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    intervals.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::with_capacity(intervals.len());
    for (start, end) in intervals {
        match merged.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    merged
}

/// Whether any of the sorted, disjoint intervals has a point in common with `[start, end]`.
fn touches(intervals: &[(u64, u64)], start: u64, end: u64) -> bool {
    let before = intervals.partition_point(|(from, _)| *from <= end);
    before.checked_sub(1).and_then(|last| intervals.get(last)).is_some_and(|last| last.1 >= start)
}

/// Whether one of the sorted intervals contains all of `[start, end]`.
fn covers(intervals: &[(u64, u64)], start: u64, end: u64) -> bool {
    let before = intervals.partition_point(|(from, _)| *from < start);
    before.checked_sub(1).and_then(|last| intervals.get(last)).is_some_and(|last| last.1 > end)
}

fn failed_maps(operations: &[Operation]) -> Vec<(u64, u64)> {
    let mut failed: Vec<(u64, u64)> = operations
        .iter()
        .filter(|op| op.what == What::Map)
        .filter(|op| matches!(op.outcome, Some(Outcome::NotFound | Outcome::TimedOut)))
        .map(|operation| (operation.start, operation.end))
        .collect();
    failed.sort_unstable();
    let mut latest = 0;
    for (_, end) in &mut failed {
        latest = latest.max(*end);
        *end = latest;
    }
    failed
}

#[cfg(test)]
mod tests;
