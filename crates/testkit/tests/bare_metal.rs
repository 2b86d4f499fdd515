//! The guest of `examples/bare-metal` and this process share a space. `cargo xtask test` builds the guest and sets the
//! variable with its path.
//!
//! Nothing here waits for ever: a guest that prints nothing for a minute is killed, and its test fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "that is how a test fails, in its helpers as well"
)]

use std::{
    env,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread,
    time::Duration,
};

use commonhold::{Access, FormatOptions, LockError, Mapping, PeerLife, Removal, Space};

const LAST_DEADLINE: Duration = Duration::from_secs(60);
const MULTI: &[&str] = &["-accel", "tcg,thread=multi", "-smp", "2"];
const DONE: i32 = 33;
const FAILED: i32 = 35;

/// A space in a file that guests see as a window; removed when this is dropped.
struct RunSpace {
    url: String,
    file: String,
}

impl RunSpace {
    fn new(test: &str, lease: Option<Duration>) -> (Self, Space) {
        let name = format!("metal-{test}-{}", std::process::id());
        let run_space =
            Self { url: format!("shm:{name}"), file: format!("/dev/shm/commonhold-{name}") };
        let options = FormatOptions { capacity: Some(64 << 20), lease, ..Default::default() };
        Space::format(&run_space.url, &options).unwrap();
        let space = Space::open(&run_space.url).unwrap();
        (run_space, space)
    }

    fn guest(&self, line: &str) -> Guest {
        self.guest_on(MULTI, line)
    }

    fn guest_on(&self, machine: &[&str], line: &str) -> Guest {
        let image = env::var_os("COMMONHOLD_BARE_METAL")
            .expect("COMMONHOLD_BARE_METAL names the image: see `cargo xtask bare-metal`");
        let file = &self.file;
        let window = format!("memory-backend-file,id=w,share=on,mem-path={file},size=64M");
        let mut child = Command::new("qemu-system-x86_64")
            .args(machine)
            .args(["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"])
            .args(["-m", "32M", "-object", &window, "-device", "ivshmem-plain,memdev=w"])
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04", "-append", line])
            .arg("-kernel")
            .arg(image)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("QEMU: install qemu-system-x86");
        let (sender, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Guest { child, lines }
    }
}

impl Drop for RunSpace {
    fn drop(&mut self) {
        let _ = Space::remove(&self.url, Removal::Forced);
    }
}

/// A running guest, killed when this is dropped.
struct Guest {
    child: Child,
    lines: Receiver<String>,
}

impl Guest {
    fn line(&self) -> Option<String> {
        match self.lines.recv_timeout(LAST_DEADLINE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("the guest prints nothing any more"),
        }
    }

    /// Reads until a line begins with `begin`. Returns the rest of that line.
    fn says(&self, begin: &str) -> String {
        let mut before = Vec::new();
        while let Some(line) = self.line() {
            if let Some(rest) = line.strip_prefix(begin) {
                return rest.to_owned();
            }
            before.push(line);
        }
        panic!("the guest ended without saying {begin:?}, but {before:?}")
    }

    /// Waits for its end. Returns its exit status and the remaining lines.
    fn end(mut self) -> (i32, Vec<String>) {
        let lines = std::iter::from_fn(|| self.line()).collect();
        (self.child.wait().unwrap().code().unwrap(), lines)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sets the flag when it is dropped.
struct Stopped<'a>(&'a AtomicBool);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn increment(counter: &Mapping) {
    let guard = counter.lock().unwrap();
    let value: u64 = counter.get(0).unwrap();
    counter.set(0, &(value + 1)).unwrap();
    drop(guard);
}

#[test]
fn a_guest_and_threads_of_the_host_count_together_and_lose_nothing() {
    const GUEST: u64 = 100_000;
    let (run_space, space) = RunSpace::new("count", None);
    let counter = space.create("counter", 4096).unwrap().map(Access::ReadWrite).unwrap();
    let stop = AtomicBool::new(false);
    let host: u64 = thread::scope(|scope| {
        let count = || {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                increment(&counter);
                count += 1;
            }
            count
        };
        let threads = [scope.spawn(count), scope.spawn(count)];
        // The threads also end if the guest fails.
        let _stopped = Stopped(&stop);
        let guest = run_space.guest(&format!("region=counter increments={GUEST}"));
        assert_eq!(guest.says("done "), format!("increments={GUEST} owner_died=0"));
        stop.store(true, Ordering::Relaxed);
        assert_eq!(guest.end().0, DONE);
        threads.map(|thread| thread.join().unwrap()).iter().sum()
    });
    assert!(host > 0);
    assert_eq!(counter.get::<u64>(0).unwrap(), GUEST + host);
    assert_eq!(space.peers().unwrap().len(), 1, "the guest has detached");
    space.check().unwrap();
}

#[test]
fn a_killed_guest_keeps_its_lock_until_it_is_declared_dead() {
    let (run_space, space) = RunSpace::new("hold", None);
    let region = space.create("held", 8).unwrap().map(Access::ReadWrite).unwrap();
    let guest = run_space.guest("hold=held");
    guest.says("holding held");
    let state = || {
        space.listen().unwrap();
        let peers = space.peers().unwrap();
        peers.into_iter().find(|peer| peer.name == "bare-metal").map(|peer| (peer.slot, peer.state))
    };
    let (slot, life) = state().unwrap();
    assert_eq!(life, PeerLife::Live, "a guest that does nothing but hold a lock beats");
    assert!(region.try_lock().unwrap().is_none());
    space.assume_dead(slot).unwrap_err();
    // SIGKILL, as if the hypervisor had crashed.
    drop(guest);
    assert_eq!(state(), Some((slot, PeerLife::Suspect)));
    assert!(region.try_lock().unwrap().is_none());
    space.assume_dead(slot).unwrap();
    let Err(LockError::OwnerDied(place)) = region.try_lock() else { panic!("nobody died") };
    assert_eq!(place.owner.unwrap().slot, slot);
    region.lock_repairing(|_| Ok(())).unwrap().unlock().unwrap();
    assert_eq!(space.reap().unwrap().peers.len(), 1);
    space.check().unwrap();
}

#[test]
fn with_a_lease_a_guest_takes_over_what_another_held_when_it_was_killed() {
    let (run_space, space) = RunSpace::new("lease", Some(Duration::from_secs(1)));
    space.create("held", 8).unwrap();
    space.create("other", 8).unwrap();
    let (first, second) = (run_space.guest("hold=held"), run_space.guest("hold=other"));
    first.says("holding held");
    second.says("holding other");
    let mut domains: Vec<_> = space.peers().unwrap().into_iter().map(|peer| peer.domain).collect();
    domains.sort();
    domains.dedup();
    assert_eq!(domains.len(), 3, "every guest is a kernel of its own");
    // Now only guests are attached, and one of them must notice the death.
    drop(space);
    drop(first);
    let heir = run_space.guest("region=held increments=1");
    assert_eq!(heir.says("done "), "increments=1 owner_died=1");
    assert_eq!(heir.end().0, DONE);
}

#[test]
fn the_host_sees_what_a_guest_creates_and_destroys() {
    let (run_space, space) = RunSpace::new("make", None);
    assert_eq!(run_space.guest("create=made size=64K").end().0, DONE);
    let made = space.map("made", Access::ReadWrite).unwrap();
    assert_eq!(made.size(), 64 << 10);
    let created = space.stat("made").unwrap().created;
    let off = created.elapsed().unwrap_or_else(|ahead| ahead.duration());
    assert!(off < Duration::from_secs(3600), "the guest knows what time it is, but for {off:?}");
    made.write_at(0, &[0xff; 64 << 10]).unwrap();
    // The destroy waits for the mapping of this process, as a destroy on the host would.
    let guest = run_space.guest("destroy=made create=again size=64K");
    guest.says("attached as peer");
    made.unmap().unwrap();
    assert_eq!(guest.end().0, DONE);
    assert!(space.map("made", Access::ReadOnly).is_err());
    let again = space.map("again", Access::ReadOnly).unwrap();
    let mut bytes = vec![1; 64 << 10];
    again.read_at(0, &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0), "memory that was used before is zero");
    space.check().unwrap();
}

#[test]
fn a_guest_reports_what_it_cannot_do_and_leaves_nothing_behind() {
    let (run_space, space) = RunSpace::new("wrong", None);
    for (line, says) in [
        ("", "there is nothing to do"),
        ("region=a", "after \"region=a\" must come increments="),
        ("list create=a size=1Q", "\"size=1Q\" does not end in a number"),
        ("region=none increments=1", "region none: no region of that name is active; create="),
        ("create=tiny size=4 region=tiny increments=1", "region tiny is shorter than 8 bytes"),
    ] {
        let (status, lines) = run_space.guest(line).end();
        let error = lines.iter().find_map(|line| line.strip_prefix("error: "));
        assert!(error.is_some_and(|error| error.starts_with(says)), "{line}: {lines:?}");
        assert_eq!(status, FAILED, "{line}");
    }
    assert_eq!(space.peers().unwrap().len(), 1, "a guest that fails detaches");
}

#[test]
fn a_guest_refuses_to_attach_if_all_processors_are_emulated_in_one_thread() {
    let (run_space, space) = RunSpace::new("one", None);
    for machine in [["-accel", "tcg", "-smp", "1"], ["-accel", "tcg,thread=single", "-smp", "2"]] {
        let (status, lines) = run_space.guest_on(&machine, "list").end();
        assert_eq!(status, FAILED, "{machine:?}");
        assert!(
            lines.iter().any(|line| line.contains("-smp 2 -accel tcg,thread=multi")),
            "{lines:?}"
        );
    }
    assert_eq!(space.peers().unwrap().len(), 1);
}
