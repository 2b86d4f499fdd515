//! Whether a thread of another process is stopped, so that it cannot go on by itself.
//!
//! The answer is for messages and decides nothing: it may be out of date at once.

use std::fs;

use commonhold_space::Identity;

use super::process::Myself;

/// Whether the thread `tid` of the process of this identity is stopped, by a signal or a debugger. If there is no
/// such thread (its id is 0, or it has ended), the state of its process counts. `None` if `/proc` does not say, or
/// does not show that process because it is in another PID namespace or another kernel.
#[must_use]
pub fn is_stopped(identity: &Identity, tid: u32) -> Option<bool> {
    let me = Myself::look();
    if !me.proc_is_ours() || !me.shares_processes_with(identity) {
        return None;
    }
    let pid = identity.pid;
    let state = |path: String| state_of(&fs::read(path).ok()?);
    let state = state(format!("/proc/{pid}/task/{tid}/stat"))
        .or_else(|| state(format!("/proc/{pid}/stat")))?;
    Some(matches!(state, b'T' | b't'))
}

/// The letter after the name of the command, which stands in parentheses and may itself contain `)`.
fn state_of(stat: &[u8]) -> Option<u8> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    stat.get(end + 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

    #[test]
    fn a_stopped_process_is_reported_as_stopped() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let identity = Identity { pid: child.id(), ..Myself::look().identity };
        assert_eq!(is_stopped(&identity, child.id()), Some(false));
        kill_process(pid, Signal::STOP).unwrap();
        waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT).unwrap();
        for tid in [child.id(), 0] {
            assert_eq!(is_stopped(&identity, tid), Some(true));
        }
        let elsewhere = Identity { pid_namespace: 1, ..identity };
        assert_eq!(is_stopped(&elsewhere, child.id()), None);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_command_may_have_any_name() {
        assert_eq!(state_of(b"42 (a) T (b) S 1 42"), Some(b'S'));
        for text in [&b""[..], b"42 (a", b"42 (a)"] {
            assert_eq!(state_of(text), None);
        }
    }
}
