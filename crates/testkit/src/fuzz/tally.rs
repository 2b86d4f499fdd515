//! Counts of how operations ended.

use std::{collections::BTreeMap, fmt};

/// Counts, by operation and outcome.
#[derive(Debug, Default)]
pub(crate) struct Tally(BTreeMap<String, BTreeMap<String, u64>>);

impl Tally {
    pub(crate) fn count(&mut self, what: &str, outcome: &str) {
        self.add(what, outcome, 1);
    }

    fn add(&mut self, what: &str, outcome: &str, count: u64) {
        let outcomes = self.0.entry(what.to_owned()).or_default();
        *outcomes.entry(outcome.to_owned()).or_default() += count;
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.values().flat_map(BTreeMap::values).sum()
    }

    /// Adds the counts of another process: one line of [`lines`](Self::lines).
    pub(crate) fn hear(&mut self, line: &str) {
        let mut parts = line.splitn(3, '\t');
        if let (Some(what), Some(outcome), Some(count)) = (parts.next(), parts.next(), parts.next())
            && let Ok(count) = count.parse()
        {
            self.add(what, outcome, count);
        }
    }

    /// The counts as lines for another process.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.0.iter().flat_map(|(what, outcomes)| {
            outcomes.iter().map(move |(outcome, count)| format!("{what}\t{outcome}\t{count}"))
        })
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, outcomes) in &self.0 {
            write!(f, "  {what}:")?;
            for (outcome, count) in outcomes {
                write!(f, " {outcome} {count}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
