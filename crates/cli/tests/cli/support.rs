//! A space for each test, and processes in it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use serde_json::Value;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A text that no other test of this run has.
pub(crate) fn unique() -> String {
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The binary under test, without anything from the environment.
pub(crate) fn commonhold() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_commonhold"));
    for name in ["SPACE", "OWNER_DIED", "ANY_OWNER"] {
        command.env_remove(format!("COMMONHOLD_{name}"));
    }
    command
}

/// A space that is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) url: String,
    shm_dir: Option<PathBuf>,
}

impl Space {
    /// A `shm:` space that does not exist yet.
    pub(crate) fn new() -> Self {
        Self { url: format!("shm:test-{}", unique()), shm_dir: None }
    }

    /// The same, with a folder that stands for /dev/shm.
    pub(crate) fn within(dir: &std::path::Path) -> Self {
        Self { url: format!("shm:test-{}", unique()), shm_dir: Some(dir.to_owned()) }
    }

    /// The space of this URL.
    pub(crate) fn at(url: String) -> Self {
        Self { url, shm_dir: None }
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = commonhold();
        command.env("COMMONHOLD_SPACE", &self.url);
        if let Some(dir) = &self.shm_dir {
            command.env("COMMONHOLD_SHM_DIR", dir);
        }
        command.args(args);
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs a command that must end with this status. Returns its standard output.
    #[track_caller]
    pub(crate) fn ends(&self, code: i32, args: &[&str]) -> String {
        ends(code, &self.run(args), args)
    }

    /// The same for a command that may hang: with a deadline. Returns its standard error.
    #[track_caller]
    pub(crate) fn ends_by_itself(&self, code: i32, args: &[&str]) -> String {
        let nothing = std::fs::File::options().write(true).open("/dev/null").unwrap();
        let (found, said) = Held::spawn_into(self.command(args), nothing).wait_and_hear();
        assert_eq!(found, code, "{args:?} ended otherwise, saying: {said}");
        said
    }

    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let mut all = vec!["--json"];
        all.extend(args);
        serde_json::from_str(&self.ends(0, &all)).unwrap()
    }

    /// Runs a command with this standard input.
    pub(crate) fn feed(&self, args: &[&str], input: &[u8]) -> Output {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that refuses its input early closes the pipe.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    /// Starts a command that stays until it is released or killed.
    pub(crate) fn start(&self, args: &[&str]) -> Held {
        Held::spawn(self.command(args))
    }

    /// Runs a command again and again until it prints this. Returns its whole output.
    #[track_caller]
    pub(crate) fn until_text(&self, args: &[&str], wanted: &str) -> String {
        let mut text = String::new();
        until(wanted, || {
            text = self.ends(0, args);
            text.contains(wanted)
        });
        text
    }

    /// Polls `locks --json` until a lock of the region is as wanted.
    #[track_caller]
    pub(crate) fn until_lock(&self, region: &str, wanted: impl Fn(&Value) -> bool) {
        until(&format!("the lock of {region}"), || {
            let locks = self.json(&["locks"]);
            let locks = locks.as_array().unwrap().clone();
            locks.iter().any(|lock| lock["region"] == region && wanted(lock))
        });
    }

    #[track_caller]
    pub(crate) fn until_held(&self, region: &str) {
        self.until_lock(region, |lock| lock["holder"]["alive"] == true);
    }

    #[track_caller]
    pub(crate) fn until_waiters(&self, region: &str, count: u64) {
        self.until_lock(region, |lock| lock["waiters"] == count);
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let url = self.url.clone();
        let _ = self.command(&["space", "remove", &url, "--force"]).output();
    }
}

/// A process with pipes, killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    child: Child,
}

impl Held {
    pub(crate) fn spawn(mut command: Command) -> Self {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { child: piped.spawn().unwrap() }
    }

    /// The same, with its output in a file: the process would block on a pipe that is not read.
    pub(crate) fn spawn_into(mut command: Command, output: std::fs::File) -> Self {
        let piped = command.stdin(Stdio::null()).stdout(output).stderr(Stdio::piped());
        Self { child: piped.spawn().unwrap() }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The first line that the process prints.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        BufReader::new(self.child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Writes a line to its standard input.
    pub(crate) fn tell(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(format!("{text}\n").as_bytes()).unwrap();
    }

    pub(crate) fn signal(&self, signal: &str) {
        kill(signal, self.pid());
    }

    /// Closes standard input, which ends a `cat`, and waits. Returns the status as a shell reports it.
    #[track_caller]
    pub(crate) fn release(mut self) -> i32 {
        drop(self.child.stdin.take());
        self.wait()
    }

    /// Waits until the process ends, with a deadline.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> i32 {
        self.wait_and_hear().0
    }

    /// The same. Also returns its standard error.
    #[track_caller]
    pub(crate) fn wait_and_hear(&mut self) -> (i32, String) {
        use std::os::unix::process::ExitStatusExt;
        let mut status = None;
        until("a process to end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let status = status.unwrap();
        let mut text = String::new();
        self.child.stderr.as_mut().unwrap().read_to_string(&mut text).unwrap();
        eprint!("{text}");
        (status.code().unwrap_or_else(|| 128 + status.signal().unwrap()), text)
    }

    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn kill(signal: &str, pid: u32) {
    let killed = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
    assert!(killed.unwrap().success());
}

/// Whether a process exists and is not a zombie.
pub(crate) fn lives(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
}

#[track_caller]
pub(crate) fn ends(code: i32, output: &Output, args: &[&str]) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?} ended otherwise, saying: {errors}");
    assert_eq!(code == 0, errors.is_empty(), "{args:?} said: {errors:?}");
    assert!(code == 0 || code == 2 || errors.starts_with("commonhold: "), "{errors:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A folder that is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("commonhold-test-{}", unique()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The keys of a JSON object, sorted.
pub(crate) fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}
