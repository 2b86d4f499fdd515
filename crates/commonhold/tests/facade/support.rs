//! A space for each test, and other processes to share it with.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
        mpsc::{self, Receiver},
    },
    time::{Duration, Instant},
};

use commonhold::{
    FormatOptions, Inconsistent, LockError, LockPlace, LockResult, Recovered, Removal, Space,
    WaitKind,
};

/// The longest time that a step may take; a longer one hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// For waits that must run out.
pub(crate) const SHORT: Duration = Duration::from_millis(50);

/// The last of all deadlines: for waits that have none of their own, such as a plain `lock`. A test that was told to
/// run for longer has that much more.
const WATCHDOG: Duration = Duration::from_secs(240);

/// For how many seconds a test runs, instead of those that it has of its own.
pub(crate) const SECONDS_WANTED: &str = "COMMONHOLD_TEST_SECONDS";

/// A number from the environment, if it is set.
pub(crate) fn wanted(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

/// Ends this process if it hangs. Its scripted processes then see their input end, and have watchdogs of their own.
fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::thread::spawn(|| {
            let longer = Duration::from_secs(wanted(SECONDS_WANTED, 0));
            std::thread::sleep(WATCHDOG + longer);
            eprintln!("a test of the facade hangs");
            std::process::abort();
        });
    });
}

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A name that no other test has, in this run or another.
pub(crate) fn unique() -> String {
    watch();
    format!("facade-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// If set, spaces lie in the file that stands for `/dev/mem`, which has room for so many of them.
pub(crate) const IN_MEMORY: &str = "COMMONHOLD_TEST_IN_MEMORY";
/// What stands for `/dev/mem`.
pub(crate) const DEV_MEM: &str = "COMMONHOLD_DEV_MEM";
/// Where no machine has memory of its own.
pub(crate) const MEMORY_BASE: u64 = 1 << 46;
/// Bytes of each space there.
pub(crate) const MEMORY_SIZE: u64 = 16 << 20;

/// The name of a space, which is removed with it.
#[derive(Debug)]
pub(crate) struct Scratch {
    pub(crate) url: String,
}

impl Scratch {
    /// A `shm:` space that does not exist yet.
    pub(crate) fn new() -> Self {
        if std::env::var_os(IN_MEMORY).is_some() {
            watch();
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let base = MEMORY_BASE + u64::from(number) * MEMORY_SIZE;
            return Self { url: format!("mem:{base:#x}+{MEMORY_SIZE:#x}") };
        }
        Self { url: format!("shm:{}", unique()) }
    }

    /// A formatted space, large enough for most tests.
    pub(crate) fn formatted() -> Self {
        Self::with(&FormatOptions { capacity: Some(16 << 20), ..FormatOptions::default() })
    }

    pub(crate) fn with(options: &FormatOptions) -> Self {
        let scratch = Self::new();
        Space::format(&scratch.url, options).unwrap();
        scratch
    }

    /// A formatted space with few slots and entries.
    pub(crate) fn tiny() -> FormatOptions {
        FormatOptions {
            capacity: Some(1 << 20),
            peers: Some(4),
            threads: Some(4),
            regions: Some(16),
            ..FormatOptions::default()
        }
    }

    pub(crate) fn open(&self) -> Space {
        Space::open(&self.url).unwrap()
    }

    pub(crate) fn path(&self) -> PathBuf {
        commonhold_host::path_of(&self.url.parse().unwrap()).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Ok(commonhold_host::Url::Mem { base, size }) = self.url.parse() {
            forget_memory(base, size);
        }
        let _ = Space::remove(&self.url, Removal::Forced);
    }
}

/// Gives back what a range of the file that stands for `/dev/mem` takes.
fn forget_memory(base: u64, size: u64) {
    use rustix::fs::FallocateFlags;
    let file = std::env::var_os(DEV_MEM)
        .and_then(|path| std::fs::OpenOptions::new().write(true).open(path).ok());
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let _ = file.map(|file| rustix::fs::fallocate(file, flags, base, size));
}

/// A folder that is removed with its guard.
#[derive(Debug)]
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("commonhold-{}", unique()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A folder on a file system that has room for a file of any length.
    pub(crate) fn in_memory() -> Self {
        let path = PathBuf::from(format!("/dev/shm/commonhold-{}", unique()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn url(&self, name: &str) -> String {
        format!("file:{}", self.0.join(name).display())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Polls until the condition is true: a test never waits for something by sleeping for a fixed time.
#[track_caller]
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !so() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until this many threads wait for the region's lock, or for a lock in it.
#[track_caller]
pub(crate) fn until_waiters(space: &Space, region: &str, count: usize) {
    until("waiters", || {
        let locks = space.locks().unwrap();
        locks.iter().any(|lock| lock.region == region && lock.waiters == count)
    });
}

/// Waits until this many threads wait for an event, also that of a semaphore or a barrier.
#[track_caller]
pub(crate) fn until_event_waiters(space: &Space, count: usize) {
    let for_event =
        |kind| matches!(kind, WaitKind::Event | WaitKind::Permit | WaitKind::Participants);
    until("waiters for events", || {
        let graph = space.wait_graph().unwrap();
        graph.waits.iter().filter(|wait| for_event(wait.kind)).count() == count
    });
}

/// The file of a space, and where its tables lie.
pub(crate) fn geometry(scratch: &Scratch) -> (std::fs::File, commonhold_layout::Geometry) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(scratch.path()).unwrap();
    let mut header = [0; 256];
    file.read_exact_at(&mut header, 0).unwrap();
    let (words, _) = header.as_chunks::<8>();
    let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
    let claims = words.try_into().unwrap();
    let geometry =
        commonhold_layout::Geometry::check(&claims, file.metadata().unwrap().len()).unwrap();
    (file, geometry)
}

/// Writes into the space's file that this attachment is dead, as a peer would that took it for dead.
pub(crate) fn fence_me(scratch: &Scratch, space: &Space) {
    use std::os::unix::fs::FileExt;
    let me = space.peers().unwrap().into_iter().find(|peer| peer.slot == space.peer().0).unwrap();
    let (file, geometry) = geometry(scratch);
    let at = geometry.peer(commonhold_layout::PeerId::new(me.slot)).unwrap();
    let fenced = commonhold_layout::PeerState {
        generation: me.generation,
        phase: commonhold_layout::PeerPhase::Fenced,
        evidence: commonhold_layout::Evidence::NONE,
    };
    file.write_all_at(&fenced.word().to_le_bytes(), at.get()).unwrap();
}

/// The place in an `OwnerDied` error: the lock was not taken, and stays inconsistent.
#[track_caller]
pub(crate) fn owner_died<T: std::fmt::Debug>(result: LockResult<T>) -> LockPlace {
    match result {
        Err(LockError::OwnerDied(place)) => *place,
        other => panic!("not OwnerDied: {other:?}"),
    }
}

/// The guard of a lock that was left in the middle of a change.
#[track_caller]
pub(crate) fn inconsistent<G: std::fmt::Debug>(
    result: LockResult<Recovered<G>>,
) -> Inconsistent<G> {
    match result {
        Ok(Recovered::Inconsistent(guard)) => guard,
        other => panic!("not inconsistent: {other:?}"),
    }
}

/// The guard of a lock that was taken without waiting.
#[track_caller]
pub(crate) fn at_once<T>(result: LockResult<Option<T>>) -> T {
    result.unwrap().expect("somebody has it")
}

/// Asserts that a living owner has the lock.
#[track_caller]
pub(crate) fn busy<T: std::fmt::Debug>(result: LockResult<Option<T>>) {
    assert!(matches!(result, Ok(None)), "not busy: {result:?}");
}

/// Asserts that a result is an error of this shape.
macro_rules! fails {
    ($result:expr, $error:pat $(if $guard:expr)?) => {{
        // A match keeps alive what the result borrows from.
        match &$result {
            result => {
                assert!(matches!(result, Err($error) $(if $guard)?), "got {result:?}");
            }
        }
    }};
}
pub(crate) use fails;

/// A name, and the function that a scripted process of that name runs with its arguments.
pub(crate) type Role = (&'static str, fn(&[&str]));

const ROLE: &str = "COMMONHOLD_TEST_ROLE";
/// Separates arguments.
const SEPARATOR: char = '\u{1f}';
/// Marks the lines of scripted processes; the test harness prints others.
const MARK: char = '@';

/// Runs the script that the environment names, if it names one.
pub(crate) fn play(roles: &[&[Role]]) {
    let Ok(text) = std::env::var(ROLE) else { return };
    watch();
    let words: Vec<&str> = text.split(SEPARATOR).collect();
    let (_, role) =
        roles.iter().flat_map(|roles| *roles).find(|(name, _)| *name == words[0]).unwrap();
    role(&words[1..]);
}

/// Says a line to the test.
pub(crate) fn say(text: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    // One write, because forked children of this process also say lines.
    out.write_all(format!("\n{MARK}{text}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// The next line from the test; `None` when this process is to end.
pub(crate) fn listen() -> Option<String> {
    let mut line = String::new();
    let count = std::io::stdin().lock().read_line(&mut line).unwrap();
    (count > 0).then(|| line.trim_end().to_owned())
}

/// Waits until the test lets this process go, or kills it.
pub(crate) fn stay() {
    while listen().is_some() {}
}

/// Another process that runs a script of the test. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct ScriptedProcess {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl ScriptedProcess {
    pub(crate) fn start(role: &str, args: &[&str]) -> Self {
        Self::start_with(role, args, &[])
    }

    /// The same, with these additional environment variables.
    pub(crate) fn start_with(role: &str, args: &[&str], environment: &[(&str, &Path)]) -> Self {
        let words: Vec<&str> = std::iter::once(role).chain(args.iter().copied()).collect();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "actor", "--nocapture", "--test-threads=1"]);
        command.env(ROLE, words.join(&SEPARATOR.to_string()));
        command.envs(environment.iter().copied());
        Self::spawn(command, Some(MARK))
    }

    /// Runs any program. The test hears the lines that begin with `mark`, without the mark; all lines if `mark` is
    /// empty.
    pub(crate) fn spawn(mut command: Command, mark: Option<char>) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let said = match mark {
                    Some(mark) => line.strip_prefix(mark),
                    None => Some(line.as_str()),
                };
                if let Some(said) = said
                    && sender.send(said.to_owned()).is_err()
                {
                    break;
                }
            }
        });
        let input = child.stdin.take();
        Self { child, input, lines }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next thing it says.
    #[track_caller]
    pub(crate) fn hear(&self) -> String {
        self.lines.recv_timeout(DEADLINE).expect("the actor says nothing")
    }

    /// The same, if it comes in time.
    pub(crate) fn hear_within(&self, time: Duration) -> Option<String> {
        self.lines.recv_timeout(time).ok()
    }

    #[track_caller]
    pub(crate) fn says(&self, text: &str) {
        assert_eq!(self.hear(), text);
    }

    pub(crate) fn tell(&mut self, text: &str) {
        let input = self.input.as_mut().unwrap();
        input.write_all(format!("{text}\n").as_bytes()).unwrap();
    }

    /// Whether it has not ended by itself.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Kills it with SIGKILL, and returns what it had said.
    pub(crate) fn kill_and_hear(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        // The loop ends with the output of the process.
        self.lines.iter().collect()
    }

    /// Lets it go, and returns how it ended and what it had said. `None` if it does not end.
    pub(crate) fn end_and_hear(mut self) -> (Option<ExitStatus>, Vec<String>) {
        self.input = None;
        let deadline = Instant::now() + DEADLINE;
        let mut status = self.child.try_wait().unwrap();
        while status.is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
            status = self.child.try_wait().unwrap();
        }
        (status, self.kill_and_hear())
    }

    /// Kills it and leaves the zombie.
    pub(crate) fn kill_unseen(&mut self) {
        self.child.kill().unwrap();
    }

    /// Lets it go, and does not wait.
    pub(crate) fn hang_up(&mut self) {
        self.input = None;
    }

    /// Lets it go and waits for its end.
    #[track_caller]
    pub(crate) fn end(mut self) -> ExitStatus {
        self.input = None;
        let mut status = None;
        until("an actor to end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Lets it go; it must have nothing to complain about.
    #[track_caller]
    pub(crate) fn succeed(self) {
        let status = self.end();
        assert!(status.success(), "the actor failed: {status}");
    }
}

impl Drop for ScriptedProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Numbers that look random, the same in every run (SplitMix64).
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
