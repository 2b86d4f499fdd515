//! The log of a worker, from which a SIGKILL loses nothing.
//!
//! Invariants: 1. each record is one write(2) to a file that only this worker appends to. One record before a call
//! says what will be done, another after it says how it ended. 2. A record has 32 bytes, little-endian; an incomplete
//! one at the end of the file is ignored.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use commonhold::RegionKey;
use commonhold_console::clock::now_ns;

use super::{
    account::Which,
    history::{NEVER, Operation, Outcome, What},
};

const RECORD: usize = 32;
const NO_KEY: RegionKey = RegionKey { entry: 0, generation: 0 };

/// A worker's log of directory operations.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    acknowledged: File,
    findings: PathBuf,
}

fn operations_of(dir: &Path, incarnation: u64) -> PathBuf {
    dir.join(format!("{incarnation}.operations"))
}

fn acknowledged_of(dir: &Path, incarnation: u64) -> PathBuf {
    dir.join(format!("{incarnation}.acknowledged"))
}

fn findings_of(dir: &Path, incarnation: u64) -> PathBuf {
    dir.join(format!("{incarnation}.findings"))
}

impl Log {
    pub(super) fn create(dir: &Path, incarnation: u64) -> io::Result<Self> {
        let open = |path| OpenOptions::new().create_new(true).append(true).open(path);
        Ok(Self {
            file: open(operations_of(dir, incarnation))?,
            acknowledged: File::create_new(acknowledged_of(dir, incarnation))?,
            findings: findings_of(dir, incarnation),
        })
    }

    pub(super) fn start(&mut self, what: What, name: u8) -> io::Result<()> {
        let (code, key) = match what {
            What::Create => (0, NO_KEY),
            What::Map => (1, NO_KEY),
            What::Unmap(key) => (2, key),
            What::Destroy => (3, NO_KEY),
            What::DestroyDeferred => (4, NO_KEY),
            What::Resize => (5, NO_KEY),
        };
        self.file.write_all(&record(b'S', code, name, key))
    }

    pub(super) fn end(&mut self, outcome: Outcome) -> io::Result<()> {
        let (code, key) = match outcome {
            Outcome::Done(key) => (0, key),
            Outcome::Exists => (1, NO_KEY),
            Outcome::NotFound => (2, NO_KEY),
            Outcome::Mapped => (3, NO_KEY),
            Outcome::TimedOut => (4, NO_KEY),
            Outcome::Refused => (5, NO_KEY),
        };
        self.file.write_all(&record(b'E', code, 0, key))
    }

    /// Records how many increments of an account are announced.
    pub(super) fn announce(&self, which: Which, count: u64) -> io::Result<()> {
        self.acknowledged.write_all_at(&count.to_le_bytes(), 16 * which.number())
    }

    /// Records how many of them have returned.
    pub(super) fn acknowledge(&self, which: Which, count: u64) -> io::Result<()> {
        self.acknowledged.write_all_at(&count.to_le_bytes(), 16 * which.number() + 8)
    }

    /// Records something that must not happen.
    pub(super) fn finding(&self, text: &str) -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(&self.findings)?;
        file.write_all(format!("{text}\n").as_bytes())
    }
}

fn record(tag: u8, code: u8, name: u8, key: RegionKey) -> [u8; RECORD] {
    let mut bytes = [0; RECORD];
    let time = now_ns().to_le_bytes();
    let fields = [tag, code, name]
        .into_iter()
        .chain([0; 5])
        .chain(time)
        .chain(key.entry.to_le_bytes())
        .chain(key.generation.to_le_bytes());
    for (byte, value) in bytes.iter_mut().zip(fields) {
        *byte = value;
    }
    bytes
}

/// The operations of one incarnation, in the order in which it did them.
pub(super) fn operations(dir: &Path, incarnation: u64) -> io::Result<Vec<Operation>> {
    let bytes = match std::fs::read(operations_of(dir, incarnation)) {
        // It was killed before it made the file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other?,
    };
    let worker = usize::try_from(incarnation).unwrap_or(usize::MAX);
    let mut operations: Vec<Operation> = Vec::with_capacity(bytes.len() / RECORD / 2);
    for record in bytes.chunks_exact(RECORD) {
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "not a record");
        let (tag, code, name, time, key) = fields(record).ok_or_else(bad)?;
        match (tag, operations.last_mut()) {
            (b'S', _) => operations.push(Operation {
                worker,
                what: what_of(code, key).ok_or_else(bad)?,
                name,
                start: time,
                end: NEVER,
                outcome: None,
            }),
            (b'E', Some(last)) => {
                last.end = time;
                last.outcome = Some(outcome_of(code, key).ok_or_else(bad)?);
            }
            _ => return Err(bad()),
        }
    }
    Ok(operations)
}

fn fields(record: &[u8]) -> Option<(u8, u8, u8, u64, RegionKey)> {
    let time = u64::from_le_bytes(record.get(8..16)?.try_into().ok()?);
    let entry = u32::from_le_bytes(record.get(16..20)?.try_into().ok()?);
    let generation = u32::from_le_bytes(record.get(20..24)?.try_into().ok()?);
    let key = RegionKey { entry, generation };
    Some((*record.first()?, *record.get(1)?, *record.get(2)?, time, key))
}

const fn what_of(code: u8, key: RegionKey) -> Option<What> {
    Some(match code {
        0 => What::Create,
        1 => What::Map,
        2 => What::Unmap(key),
        3 => What::Destroy,
        4 => What::DestroyDeferred,
        5 => What::Resize,
        _ => return None,
    })
}

const fn outcome_of(code: u8, key: RegionKey) -> Option<Outcome> {
    Some(match code {
        0 => Outcome::Done(key),
        1 => Outcome::Exists,
        2 => Outcome::NotFound,
        3 => Outcome::Mapped,
        4 => Outcome::TimedOut,
        5 => Outcome::Refused,
        _ => return None,
    })
}

/// The announced and acknowledged increments of one incarnation.
pub(super) fn acknowledged(dir: &Path, incarnation: u64, which: Which) -> io::Result<(u64, u64)> {
    let file = match File::open(acknowledged_of(dir, incarnation)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((0, 0)),
        other => other?,
    };
    let number = |at| {
        let mut bytes = [0; 8];
        match file.read_exact_at(&mut bytes, at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            other => other.map(|()| u64::from_le_bytes(bytes)),
        }
    };
    Ok((number(16 * which.number())?, number(16 * which.number() + 8)?))
}

/// The findings that one incarnation has recorded.
pub(super) fn findings(dir: &Path, incarnation: u64) -> Vec<String> {
    let text = std::fs::read_to_string(findings_of(dir, incarnation)).unwrap_or_default();
    text.lines().map(|line| format!("worker {incarnation}: {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_worker_leaves_its_last_operation_without_an_end() {
        let dir = std::env::temp_dir().join(format!("commonhold-log-test-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let key = RegionKey { entry: 7, generation: 9 };
        let mut log = Log::create(&dir, 3).unwrap();
        log.start(What::Create, 1).unwrap();
        log.end(Outcome::Done(key)).unwrap();
        log.start(What::Unmap(key), 1).unwrap();
        log.file.write_all(b"E-half").unwrap();
        log.announce(Which::Mutex, 5).unwrap();
        let read = operations(&dir, 3).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!((read[0].what, read[0].outcome), (What::Create, Some(Outcome::Done(key))));
        assert!(read[0].start <= read[0].end && read[0].end <= read[1].start);
        assert_eq!((read[1].what, read[1].outcome, read[1].end), (What::Unmap(key), None, NEVER));
        assert_eq!(acknowledged(&dir, 3, Which::Mutex).unwrap(), (5, 0));
        assert_eq!(acknowledged(&dir, 4, Which::Mutex).unwrap(), (0, 0));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
