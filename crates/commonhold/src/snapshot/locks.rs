//! Lists the locks that are held, waited for, or not consistent: those of regions, and those in their bytes.

use std::{collections::HashSet, sync::atomic::Ordering};

use commonhold_host::LinuxPlatform;
use commonhold_layout::{
    LockFlags, LockWord, Offset, ReadKey, RecordKind, RegionPhase, region_word,
};
use commonhold_space::{RegionRecord, View};

use super::{
    glance::Glance,
    search::{Found, Search},
    time,
};
use crate::{
    LockInfo, LockKind, LockSurvey, RegionError, Space, Unsearched,
    error::causes::{checked, region_error},
};

impl Space {
    /// The regions' own locks that are held, waited for or not consistent.
    ///
    /// # Errors
    /// [`RegionError::Damaged`], [`RegionError::Forked`].
    pub fn region_locks(&self) -> Result<Vec<LockInfo>, RegionError> {
        let glance = Glance::new(self.attachment().view()?);
        let records = self.records()?;
        Ok(records.iter().flat_map(|record| region_locks(record, &glance, usize::MAX)).collect())
    }

    /// Every lock that is held, waited for or not consistent, as [`survey_locks`](Self::survey_locks) finds them.
    ///
    /// # Errors
    /// As for [`survey_locks`](Self::survey_locks).
    pub fn locks(&self) -> Result<Vec<LockInfo>, RegionError> {
        self.survey_locks(None).map(|survey| survey.locks)
    }

    /// Every lock of the space, or of one region, that is held, waited for or not consistent.
    ///
    /// Locks in the bytes of regions are found by their tags. For this the bytes are read, where any were ever
    /// written: 256 MiB of each region at most, and 1 GiB in all (in memory of a device 4 MiB and 16 MiB). The
    /// result says which regions were not read to their end. A [`RawMutex`](crate::RawMutex) has no tag, and is
    /// listed only while a thread waits for it.
    ///
    /// # Errors
    /// [`RegionError::NotFound`], [`RegionError::Damaged`], [`RegionError::Forked`].
    pub fn survey_locks(&self, region: Option<&str>) -> Result<LockSurvey, RegionError> {
        let view = self.attachment().view()?;
        let records = match region {
            None => self.records()?,
            Some(name) => {
                vec![view.stat(&checked(name)?).map_err(|error| region_error(error, name))?]
            }
        };
        let glance = Glance::new(view);
        let (mut search, mut survey) = (Search::new(view), LockSurvey::default());
        let mut told = HashSet::new();
        for record in &records {
            survey.locks.extend(region_locks(record, &glance, usize::MAX));
            told.extend(region_lock_at(view, record));
            if record.phase != RegionPhase::Active {
                continue;
            }
            let ended = search.through(record, |found| {
                told.insert(found.at);
                survey.locks.extend(record_locks(record, &found, &glance));
            });
            if let Some(from) = ended {
                survey.unsearched.push(Unsearched { region: record.name.to_string(), from });
            }
        }
        survey.locks.extend(untold(records, &glance, &told));
        survey.locks.sort_by(|a, b| (&a.region, a.offset).cmp(&(&b.region, b.offset)));
        Ok(survey)
    }
}

/// The locks in the bytes of regions that threads wait for, without those that are listed already.
fn untold(
    mut records: Vec<RegionRecord>,
    glance: &Glance<'_>,
    told: &HashSet<Offset>,
) -> Vec<LockInfo> {
    records.retain(|record| !record.extent.is_empty());
    records.sort_by_key(|record| record.extent.start());
    let line = |(at, waiters): (&Offset, &usize)| {
        let after = records.partition_point(|record| record.extent.start() <= *at);
        let record = records.get(after.checked_sub(1)?)?;
        let inside = at.get() < record.extent.end() && !told.contains(at);
        // SeqCst: if the bias is revoked, whether its thread is inside is read after this.
        let word = glance.view.look_at(*at).filter(|_| inside)?.load(Ordering::SeqCst);
        let tag = glance.view.find_record(*at, record.extent.end());
        let line = of_word(record, Some(*at), LockWord::from_word(word), *waiters, glance);
        Some(LockInfo { record: tag.map(|tag| tag.kind), ..line })
    };
    glance.waiters.iter().filter_map(line).collect()
}

fn region_lock_at(view: &View<LinuxPlatform>, record: &RegionRecord) -> Option<Offset> {
    view.geometry().region(record.handle.region)?.plus(8 * region_word::LOCK as u64)
}

/// The line of a lock's owner, by the lock's word. Without `at` it is the region's own lock.
fn of_word(
    record: &RegionRecord,
    at: Option<Offset>,
    word: LockWord,
    waiters: usize,
    glance: &Glance<'_>,
) -> LockInfo {
    let word_at = at.or_else(|| region_lock_at(glance.view, record));
    let holder = word_at.and_then(|at| glance.view.holder(word, at));
    let from_start = |at: Offset| at.get().saturating_sub(record.extent.start().get());
    LockInfo {
        region: record.name.to_string(),
        offset: at.map(from_start),
        record: None,
        kind: kind(word),
        holder: holder.map(|owner| glance.holder(owner)),
        left_by: word.left_by().map(|owner| glance.holder(owner)),
        since: record.held_since_ms.filter(|_| at.is_none()).map(time),
        waiters,
    }
}

/// Whether a line says more than that threads wait.
fn says_more(line: &LockInfo) -> bool {
    line.holder.is_some() || line.kind != LockKind::Exclusive
}

/// The lines of a region's own lock, at most `most`.
pub(super) fn region_locks(
    record: &RegionRecord,
    glance: &Glance<'_>,
    most: usize,
) -> Vec<LockInfo> {
    let at = region_lock_at(glance.view, record);
    let waiters = at.map_or(0, |at| glance.waiters(at));
    let own = of_word(record, None, record.lock, waiters, glance);
    let readers = glance.readers(record).into_values().take(most);
    let mut lines = with_readers(own, readers.map(|reader| glance.peer(reader)));
    lines.truncate(most);
    lines
}

/// The line of a lock's owner, if there is one, and one line for each reader. If there are neither but threads
/// wait, the line without a holder.
fn with_readers(own: LockInfo, readers: impl Iterator<Item = crate::Holder>) -> Vec<LockInfo> {
    let shared = |reader| LockInfo {
        kind: LockKind::Shared,
        holder: Some(reader),
        left_by: None,
        ..own.clone()
    };
    let mut lines: Vec<_> = readers.map(shared).collect();
    if says_more(&own) || lines.is_empty() && own.waiters > 0 {
        lines.insert(0, own);
    }
    lines
}

/// The lines of a lock in the bytes of a region.
fn record_locks(record: &RegionRecord, found: &Found, glance: &Glance<'_>) -> Vec<LockInfo> {
    let line = |word, waiters| LockInfo {
        record: Some(found.tag.kind),
        ..of_word(record, Some(found.at), word, waiters, glance)
    };
    match found.tag.kind {
        RecordKind::Mutex | RecordKind::RwLock | RecordKind::SeqLock | RecordKind::Once => {
            let word = found.words.first().copied().filter(|word| *word != LockWord::DONE);
            let own = line(word.unwrap_or(LockWord::FREE), glance.waiters(found.at));
            let key = ReadKey::of_record(found.at, record.handle.region, record.handle.generation);
            let readers = glance.readers_by(key.word()).into_values();
            with_readers(own, readers.map(|reader| glance.peer(reader)))
        }
        RecordKind::Semaphore => {
            let permits = found.words.iter().filter(|word| **word != LockWord::SPENT);
            let lines = permits.map(|word| line(*word, glance.listeners(found.at)));
            let as_permit = |line: LockInfo| match line.kind {
                LockKind::Exclusive => LockInfo { kind: LockKind::Permit, ..line },
                _ => line,
            };
            lines.filter(says_more).map(as_permit).collect()
        }
        // A participant of a barrier keeps no thread out, and the others cannot be held.
        RecordKind::Barrier | RecordKind::Condvar | RecordKind::Event => Vec::new(),
    }
}

/// The kind of lock state in a word.
fn kind(word: LockWord) -> LockKind {
    if word.is_upgradable() {
        LockKind::Upgradable
    } else if word.is_owned() {
        LockKind::Exclusive
    } else if word.is_unrecoverable() {
        LockKind::Unrecoverable
    } else if word.flags().contains(LockFlags::INCONSISTENT) {
        LockKind::Inconsistent
    } else {
        LockKind::Exclusive
    }
}
