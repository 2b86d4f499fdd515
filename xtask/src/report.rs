//! The results of a run of the tests: steps, the tests inside them, and what could not be run.

use std::{
    fmt::Arguments,
    io::{Write, stdout},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Result;

/// Writes a line to standard output. If the reader has gone away, the tests go on.
pub(crate) fn say(line: Arguments<'_>) {
    let mut out = stdout().lock();
    let _ = out.write_fmt(line).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
}

/// Numbers of tests by result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Everything that happened so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    lines: Vec<String>,
    counts: Counts,
}

impl Report {
    /// Runs one step and prints its result. Returns whether it passed.
    pub(crate) fn step(
        &mut self,
        name: &str,
        step: impl FnOnce(&mut Counts) -> Result<()>,
    ) -> bool {
        say(format_args!("\n=== {name}"));
        let begun = Instant::now();
        let mut tests = Counts::default();
        let outcome = step(&mut tests);
        let passed = self.record(name, begun.elapsed(), tests, outcome);
        self.say_last();
        passed
    }

    /// Prints the result of something that was run elsewhere.
    pub(crate) fn done(&mut self, name: &str, took: Duration, outcome: Result<()>) {
        self.record(name, took, Counts::default(), outcome);
        self.say_last();
    }

    fn record(&mut self, name: &str, took: Duration, tests: Counts, outcome: Result<()>) -> bool {
        self.counts.add(tests);
        let took = took.as_secs_f64();
        match outcome {
            Ok(()) => {
                self.counts.passed += 1;
                self.lines.push(format!("ok      {took:7.1} s  {name}"));
                true
            }
            Err(error) => {
                self.counts.failed += 1;
                self.lines.push(format!("FAILED  {took:7.1} s  {name}: {error:#}"));
                false
            }
        }
    }

    /// Reports that something was not run.
    pub(crate) fn not_run(&mut self, what: &str, why: &str) {
        self.record_not_run(what, why);
        self.say_last();
    }

    fn record_not_run(&mut self, what: &str, why: &str) {
        self.counts.skipped += 1;
        self.lines.push(format!("not run: {what}, because {why}"));
    }

    fn say_last(&self) {
        if let Some(line) = self.lines.last() {
            say(format_args!("{line}"));
        }
    }

    /// Prints the summary, whose last line is the count.
    pub(crate) fn end(self) -> ExitCode {
        say(format_args!("\n=== summary"));
        for line in &self.lines {
            say(format_args!("{line}"));
        }
        say(format_args!("{}", self.total()));
        if self.counts.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn total(&self) -> String {
        let Counts { passed, failed, skipped } = self.counts;
        match skipped {
            0 => format!("{passed} passed, {failed} failed"),
            _ => format!("{passed} passed, {failed} failed, {skipped} skipped"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn the_last_line_counts_steps_and_the_tests_inside_them() {
        let mut report = Report::default();
        let (took, none) = (Duration::ZERO, Counts::default());
        assert!(report.record("good", took, Counts { passed: 5, ..none }, Ok(())));
        assert_eq!(report.total(), "6 passed, 0 failed");
        let tests = Counts { passed: 2, failed: 1, ..none };
        assert!(!report.record("bad", took, tests, Err(anyhow!("one test failed"))));
        report.record_not_run("that", "of this");
        assert_eq!(report.total(), "8 passed, 2 failed, 1 skipped");
    }
}
