//! Random arguments for the real program.
//!
//! They consist of real commands, options, sizes, URLs and names, mixed with bytes that are not text or that control a
//! terminal. A command can only write inside the arena: every `file:` names a file there, no `mem:` or `pci:` exists,
//! and the commands that `lock` and `map` run do nothing.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::OsStringExt as _,
    path::Path,
    process::Command,
};

use fastrand::Rng;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{
    Finding, Run,
    check::{self, Output, Statuses},
    child::{self, FOR_EVER},
};

/// How many rounds use the same set of spaces.
const ROUNDS: u64 = 200;

const NAMES: &[&[u8]] = &[
    b"a",
    b"b",
    b"big",
    b"",
    b"-",
    b"--",
    b"a/b",
    b"\xff\xfe",
    b"\x1b[31mred",
    b"two\nlines",
    "\u{202e}gnol".as_bytes(),
    "line\u{2028}line".as_bytes(),
    "zero\u{200b}width".as_bytes(),
    "\u{9b}31m".as_bytes(),
    "\u{1f980}".as_bytes(),
    b"--json",
    b"name with spaces",
    &[b'x'; 127],
    &[b'y'; 128],
];

const SIZES: &[&str] = &[
    "0",
    "1",
    "4096",
    "4K",
    "64K",
    "1M",
    "100M",
    "16G",
    "16777215T",
    "16777216T",
    "-1",
    "4 K",
    "1e3",
    "18446744073709551615",
    "18446744073709551616",
    "K",
    "",
    "0x10",
    "4\u{e9}",
];

const TIMES: &[&str] =
    &["0", "1ms", "20ms", "1us", "-1", "", "1", "9999999999999999999h", "5124095576h", "1.5s"];

const NUMBERS: &[&str] =
    &["0", "1", "2", "4", "16", "4096", "4097", "65536", "-1", "x", "99999999999999999999"];

/// URLs that are not spaces and cannot be formatted. None names memory or a device of this machine.
const ODD_URLS: &[&[u8]] = &[
    b"",
    b"shm:",
    b"shm:a/b",
    b"shm:..",
    b"shm:\x1b[2J",
    b"mem:",
    b"mem:0x+1",
    b"mem:1+",
    b"pci:",
    b"pci:zz",
    b"unix:",
    b"unix:/nowhere#",
    b"http://x",
    b"shm:\xff",
    "shm:\u{202e}x".as_bytes(),
];

/// Paths that may exist in an arena: see [`furnish`].
const PLACES: &[&str] = &[
    "space",
    "new",
    "plain",
    "empty",
    "folder",
    "fifo",
    "dangling",
    "circle",
    "short",
    "nowhere/x",
    "",
];

/// Commands that do nothing.
const HARMLESS: &[&[&str]] = &[
    &["true"],
    &["false"],
    &["sh", "-c", "exit 3"],
    &["sh", "-c", "kill -9 $$"],
    &["/nowhere/program"],
    &["/"],
    &["printf", "\\033[1mx"],
    &[],
];

/// Makes the files and spaces that arguments may name.
fn furnish(folder: &Path) -> Finding {
    let wrong = |error: std::io::Error| error.to_string();
    fs::create_dir_all(folder.join("folder")).map_err(wrong)?;
    fs::write(folder.join("plain"), b"not a space").map_err(wrong)?;
    fs::write(folder.join("empty"), b"").map_err(wrong)?;
    fs::write(folder.join("short"), u64::from_le_bytes(*b"COMNHOLD").to_le_bytes())
        .map_err(wrong)?;
    for (link, to) in [("dangling", "absent"), ("circle", "circle")] {
        let _ = fs::remove_file(folder.join(link));
        std::os::unix::fs::symlink(to, folder.join(link)).map_err(wrong)?;
    }
    let _ = fs::remove_file(folder.join("fifo"));
    mknodat(CWD, folder.join("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .map_err(|errno| errno.to_string())
}

pub(super) fn run(run: &mut Run) -> Finding {
    let folder = run.arena.path().join("places");
    let logs = run.arena.path().join("logs");
    fs::create_dir_all(&logs).map_err(|error| error.to_string())?;
    while run.goes_on() {
        if run.rounds.is_multiple_of(ROUNDS) {
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
            furnish(&folder)?;
        }
        let seed = run.next_seed();
        let mut words = Words { random: Rng::with_seed(seed), folder: &folder, args: vec![] };
        let line = words.line();
        let mut command = Command::new(&run.program);
        command.args(&words.args).current_dir(&folder);
        command.env("COMMONHOLD_SHM_DIR", &folder).env_remove("COMMONHOLD_OWNER_DIED");
        command.env("COMMONHOLD_SPACE", words.environment());
        let ended = child::run(&mut command, &logs, FOR_EVER)?;
        let output = if line.bytes {
            Output::Bytes
        } else if words.args.iter().any(|arg| arg == "--json") {
            Output::Json
        } else {
            Output::Text
        };
        let statuses = if line.runs { Statuses::OfItsCommand } else { Statuses::Own };
        let judged = check::status(&ended, statuses)
            .and_then(|code| check::texts(&ended, output).map(|()| code));
        match judged {
            Ok(code) => run.tally.count(line.name, &code.to_string()),
            Err(why) => run.finds(seed, &format!("{}: {why}", check::typed(&command))),
        }
    }
    Ok(())
}

/// The kind of a command line.
struct Line {
    name: &'static str,
    /// It prints bytes of a region, or of another program.
    bytes: bool,
    /// It runs a command.
    runs: bool,
}

/// A command line that is being made.
struct Words<'a> {
    random: Rng,
    folder: &'a Path,
    args: Vec<OsString>,
}

impl Words<'_> {
    fn chance(&mut self, one_in: u8) -> bool {
        self.random.u8(..one_in) == 0
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        self.random.choice(of).copied()
    }

    fn word(&mut self, word: impl AsRef<OsStr>) {
        self.args.push(word.as_ref().to_owned());
    }

    fn name(&mut self) {
        // Mostly a name that may exist.
        let names = if self.chance(3) { NAMES } else { NAMES.get(..3).unwrap_or(NAMES) };
        let name = self.pick(names).unwrap_or(b"a");
        self.word(OsString::from_vec(name.to_vec()));
    }

    fn size(&mut self) {
        let size = self.pick(SIZES).unwrap_or("0");
        self.word(size);
    }

    fn url(&mut self) -> OsString {
        match self.random.u8(..6) {
            0 => OsString::from_vec(self.pick(ODD_URLS).unwrap_or(b"").to_vec()),
            1 | 2 => "shm:x".into(),
            3 => {
                let place = self.pick(PLACES).unwrap_or("space");
                let mut url = OsString::from("file:");
                url.push(self.folder.join(place));
                url
            }
            _ => {
                let mut url = OsString::from("file:");
                url.push(self.folder.join("space"));
                url
            }
        }
    }

    /// The value of an environment variable.
    fn environment(&mut self) -> OsString {
        if self.chance(4) { self.url() } else { "shm:x".into() }
    }

    fn option(&mut self, name: &str, value: impl FnOnce(&mut Self)) {
        if self.chance(3) {
            self.word(name);
            value(self);
        }
    }

    fn flag(&mut self, name: &str) {
        if self.chance(3) {
            self.word(name);
        }
    }

    fn from(&mut self, of: &[&str]) {
        let value = self.pick(of).unwrap_or("0");
        self.word(value);
    }

    fn harmless(&mut self) {
        if !self.chance(8) {
            self.word("--");
        }
        for word in self.pick(HARMLESS).unwrap_or(&["true"]) {
            self.word(word);
        }
    }

    fn line(&mut self) -> Line {
        self.flag("--json");
        let url = self.url();
        self.option("--space", |words| words.word(url));
        self.flag("-v");
        let kinds: &[fn(&mut Self) -> Line] = &[
            Self::formats,
            Self::formats,
            Self::plain,
            Self::plain,
            Self::creates,
            Self::creates,
            Self::creates,
            Self::changes,
            Self::changes,
            Self::moves,
            Self::moves,
            Self::runs,
            Self::runs,
            Self::prints,
            Self::nonsense,
        ];
        let kind = self.pick(kinds).unwrap_or(Self::plain);
        let line = kind(self);
        if self.chance(16) {
            self.name();
        }
        line
    }

    fn own(&mut self, name: &'static str) -> Line {
        self.word(name);
        Line { name, bytes: false, runs: false }
    }

    fn formats(&mut self) -> Line {
        let line = self.own("space");
        let url = self.url();
        match self.random.u8(..4) {
            0 => self.word("info"),
            1 => {
                self.word("remove");
                self.word(url);
                self.flag("--force");
            }
            _ => {
                self.word("format");
                self.word(url);
                // Always: a space of the default size of shm: takes long to check.
                self.word("--capacity");
                if self.chance(4) {
                    self.size()
                } else {
                    self.word("1M")
                }
                self.option("--peers", |words| words.from(NUMBERS));
                self.option("--regions", |words| words.from(NUMBERS));
                self.option("--lease", |words| words.from(TIMES));
                self.option("--mode", |words| words.from(&["600", "000", "777", "1777", "9", ""]));
                self.flag("--force");
            }
        }
        line
    }

    fn plain(&mut self) -> Line {
        let name = self.pick(&["ls", "peers", "locks", "reap", "doctor", "stat"]).unwrap_or("ls");
        let line = self.own(name);
        match name {
            "locks" => {
                let graph = self.pick(&["--graph", "--graph=dot", "--graph=x"]);
                self.flag(graph.unwrap_or("--graph"));
            }
            "reap" => self.option("--assume-dead", |words| words.from(NUMBERS)),
            "stat" => self.name(),
            _ => {}
        }
        line
    }

    fn creates(&mut self) -> Line {
        let line = self.own("create");
        self.name();
        self.size();
        self.flag("--lazy");
        self.flag("--force");
        self.option("--reserve", Self::size);
        line
    }

    fn changes(&mut self) -> Line {
        let name = self.pick(&["destroy", "resize"]).unwrap_or("destroy");
        let line = self.own(name);
        self.name();
        if name == "resize" {
            self.size();
        } else {
            self.option("--timeout", |words| words.from(TIMES));
            self.flag("--defer");
        }
        line
    }

    fn moves(&mut self) -> Line {
        let name = self.pick(&["read", "write"]).unwrap_or("read");
        let line = self.own(name);
        self.name();
        self.option("--offset", Self::size);
        if name == "read" {
            self.option("--len", Self::size);
        } else {
            let file = self.pick(&["plain", "empty", "folder", "absent", "/dev/zero", "-"]);
            self.word(file.unwrap_or("-"));
        }
        Line { bytes: name == "read", ..line }
    }

    fn runs(&mut self) -> Line {
        let name = self.pick(&["lock", "map"]).unwrap_or("lock");
        let line = self.own(name);
        self.name();
        if name == "lock" {
            self.flag("--shared");
            self.option("--timeout", |words| words.from(TIMES));
            self.option("--on-death", |words| words.from(&["fail", "repair", "shrug"]));
        } else {
            self.flag("--read-only");
        }
        self.harmless();
        Line { bytes: true, runs: true, ..line }
    }

    fn prints(&mut self) -> Line {
        let name = self.pick(&["completions", "man", "--help", "--version", "help"]);
        let name = name.unwrap_or("--help");
        let line = self.own(name);
        match name {
            "completions" => self.from(&["bash", "zsh", "fish", "elvish", "x", ""]),
            "man" => self.option("--", |words| words.from(&["folder", "plain", "absent"])),
            "help" => self.from(&["lock", "space", "x"]),
            _ => {}
        }
        Line { bytes: true, ..line }
    }

    fn nonsense(&mut self) -> Line {
        for _ in 0..self.random.u8(..4) {
            self.name();
        }
        Line { name: "nonsense", bytes: false, runs: true }
    }
}
