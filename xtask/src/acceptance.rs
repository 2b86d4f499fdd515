//! The long runs of the release program, and the results that they must have.

use std::{
    io::Read,
    path::Path,
    process::{self, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::report::say;

/// How much longer than asked for a run may take before it counts as hung.
const GRACE: Duration = Duration::from_secs(120);

/// One run of `commonhold torture`.
pub(crate) struct Torture {
    pub(crate) peers: u32,
    pub(crate) seconds: u32,
    pub(crate) kill_every: &'static str,
    /// The option `--stop-every`. Without it, some processes are stopped for a moment along with the kills.
    pub(crate) stop_every: Option<&'static str>,
    /// The run must have more kills than this.
    pub(crate) kills_above: Option<u64>,
    /// The run must have more stops than this.
    pub(crate) stops_above: Option<u64>,
    /// The run must have more operations than this.
    pub(crate) operations_above: Option<u64>,
}

/// The fields of `commonhold torture --json` that are checked.
#[derive(Debug, Deserialize)]
struct Outcome {
    kills: u64,
    stops: u64,
    operations: u64,
    lost: i64,
    leaked_regions: u64,
    stuck: u64,
    violations: u64,
}

impl Torture {
    /// Its name in the report.
    pub(crate) fn name(&self) -> String {
        let Self { peers, seconds, kill_every, .. } = self;
        let stops = self.stop_every.map(|every| format!(" --stop-every {every}"));
        let stops = stops.unwrap_or_default();
        format!("torture --peers {peers} --seconds {seconds} --kill-every {kill_every}{stops}")
    }

    /// Runs it in a new space.
    pub(crate) fn run(&self, program: &Path) -> Result<()> {
        let output = in_own_space(program, self.seconds, |command| {
            command.arg("--json").args(self.name().split(' ')).stdout(Stdio::piped());
        })?;
        say(format_args!("{}", output.trim_end()));
        self.judge(&output)
    }

    fn judge(&self, json: &str) -> Result<()> {
        let outcome: Outcome =
            serde_json::from_str(json).context("cannot read the JSON that torture printed")?;
        let Outcome { kills, stops, operations, lost, leaked_regions, stuck, violations } = outcome;
        ensure!(lost == 0, "{lost} updates were lost");
        ensure!(leaked_regions == 0, "{leaked_regions} regions were leaked");
        ensure!(stuck == 0, "{stuck} peers were stuck");
        ensure!(violations == 0, "mutual exclusion was violated {violations} times");
        let least = self.kills_above.unwrap_or(0);
        ensure!(
            self.kills_above.is_none() || kills > least,
            "only {kills} kills, not over {least}"
        );
        let least = self.stops_above.unwrap_or(0);
        ensure!(
            self.stops_above.is_none() || stops > least,
            "only {stops} stops, not over {least}"
        );
        let least = self.operations_above.unwrap_or(0);
        ensure!(
            self.operations_above.is_none() || operations > least,
            "only {operations} operations, not over {least}"
        );
        Ok(())
    }
}

/// Runs `commonhold demo`.
pub(crate) fn demo(program: &Path, seconds: u32) -> Result<()> {
    in_own_space(program, seconds, |command| {
        command.args(["demo", "--seconds", &seconds.to_string()]);
    })
    .map(drop)
}

/// Runs the program in a new space, which is removed afterwards in any case. Returns what it wrote to a piped standard
/// output.
fn in_own_space(
    program: &Path,
    seconds: u32,
    prepare: impl FnOnce(&mut Command),
) -> Result<String> {
    let space = format!("shm:xtask-{}", process::id());
    let mut command = Command::new(program);
    command.args(["--space", &space]).stdin(Stdio::null());
    prepare(&mut command);
    let limit = Duration::from_secs(seconds.into()) + GRACE;
    let done = within(limit, &mut command);
    // This fails if the run has never formatted the space, which is all right.
    let _ = Command::new(program).args(["space", "remove", &space, "--force"]).output();
    done
}

/// Runs a command that must end with status 0 within `limit`.
fn within(limit: Duration, command: &mut Command) -> Result<String> {
    let begun = Instant::now();
    let mut child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
    let (sender, output) = mpsc::channel();
    if let Some(mut pipe) = child.stdout.take() {
        thread::spawn(move || {
            let mut text = String::new();
            let _ = sender.send(pipe.read_to_string(&mut text).map(|_| text));
        });
    } else {
        drop(sender);
    }
    let status = loop {
        if let Some(status) = child.try_wait().context("cannot wait for the program")? {
            break status;
        }
        if begun.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            bail!("it hung: killed after {} s", limit.as_secs());
        }
        thread::sleep(Duration::from_millis(50));
    };
    // A child that outlives the program may hold the pipe open: do not wait for it for ever.
    let text = match output.recv_timeout(Duration::from_secs(10)) {
        Ok(text) => text.context("cannot read what the program printed")?,
        Err(mpsc::RecvTimeoutError::Disconnected) => String::new(),
        Err(mpsc::RecvTimeoutError::Timeout) => bail!("a process that it started lives on"),
    };
    ensure!(status.success(), "{status}{}{}", if text.is_empty() { "" } else { ": " }, text.trim());
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(kills: u64, stops: u64, operations: u64, lost: i64, violations: u64) -> Result<()> {
        let run = Torture {
            peers: 8,
            seconds: 1,
            kill_every: "50ms",
            stop_every: Some("50ms"),
            kills_above: Some(200),
            stops_above: Some(60),
            operations_above: Some(10_000),
        };
        run.judge(&format!(
            r#"{{"seconds":1,"kills":{kills},"stops":{stops},"operations":{operations},"lost":{lost},
                "leaked_regions":0,"stuck":0,"violations":{violations}}}"#
        ))
    }

    #[test]
    fn each_number_of_a_run_is_checked() {
        judge(201, 61, 10_001, 0, 0).unwrap();
        judge(200, 61, 10_001, 0, 0).unwrap_err();
        judge(201, 60, 10_001, 0, 0).unwrap_err();
        judge(201, 61, 10_000, 0, 0).unwrap_err();
        judge(201, 61, 10_001, -1, 0).unwrap_err();
        judge(201, 61, 10_001, 0, 1).unwrap_err();
    }

    #[test]
    fn a_command_that_hangs_is_killed_and_one_that_fails_is_reported_with_its_output() {
        let error = within(Duration::ZERO, Command::new("sleep").arg("60")).unwrap_err();
        assert!(error.to_string().contains("hung"), "{error}");
        let mut command = Command::new("sh");
        command.args(["-c", "echo why; exit 3"]).stdout(Stdio::piped());
        let error = within(GRACE, &mut command).unwrap_err().to_string();
        assert!(error.ends_with("3: why"), "{error}");
    }
}
