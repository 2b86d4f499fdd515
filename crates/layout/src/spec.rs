//! Holds docs/SPEC.md to the constants, in both directions.
//!
//! Each table of the document stands under a heading of its own, and each [`Table`] below says what
//! that heading must hold. Where the constants lie in one module, enum or impl, the list is held to
//! the source text as well, so that a constant added there and forgotten here is noticed.

use std::{
    collections::BTreeMap,
    string::{String, ToString},
    vec,
    vec::Vec,
};

use crate::{
    BIAS_AFTER, BIAS_MISSES, Bias, BiasPlace, BiasTurn, DomainState, EPOCH_STEP, EVENT_STEP,
    EVENT_WAITERS, Evidence, FORMATTING, FormatOptions, Geometry, HEADER_BYTES, HEADER_WORDS,
    Intent, IntentKind, IntentPhase, LockFlags, LockWord, MAGIC, Name, OFFSET_LIMIT, Offset, Owner,
    PLACES_MOST, PeerId, PeerName, PeerPhase, PeerState, Pending, PendingKind, RECORD_MARKER,
    ReadKey, RecordKind, RecordTag, RegionFlags, RegionId, RegionPhase, RegionState, ShareWord,
    ThreadId, ThreadLife, VERSION, domain_word,
    geometry::{FNV_BASIS, FNV_PRIME, SHARE_ROW_ALIGN, TABLE_ALIGN, record_bytes},
    header_word, limits, peer_word, record_words, region_word, thread_word,
};

const SPEC: &str = include_str!("../../../docs/SPEC.md");
const DOMAIN: &str = include_str!("domain.rs");
const EXTENT: &str = include_str!("extent.rs");
const GEOMETRY: &str = include_str!("geometry.rs");
const HEADER: &str = include_str!("header.rs");
const INTENT: &str = include_str!("intent.rs");
const LOCK: &str = include_str!("lock.rs");
const PEER: &str = include_str!("peer.rs");
const READ_KEY: &str = include_str!("read_key.rs");
const RECORD: &str = include_str!("record.rs");
const REGION: &str = include_str!("region.rs");
const THREAD: &str = include_str!("thread.rs");

/// What a row's second column says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Is(u64),
    Bits(u32, u32),
}

impl Number {
    fn parse(text: &str) -> Option<Self> {
        if let Some((low, high)) = text.split_once('-') {
            return Some(Self::Bits(low.parse().ok()?, high.parse().ok()?));
        }
        if let Some(power) = text.strip_prefix("2^") {
            return 1_u64.checked_shl(power.parse().ok()?).map(Self::Is);
        }
        match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok().map(Self::Is),
            None => text.parse().ok().map(Self::Is),
        }
    }

    /// The bits of `mask`, which must lie side by side.
    fn bits(mask: u64) -> Self {
        let (low, high) = (mask.trailing_zeros(), 63 - mask.leading_zeros());
        assert_eq!(mask.count_ones(), high - low + 1, "{mask:#x} has gaps");
        if low == high { Self::Is(u64::from(low)) } else { Self::Bits(low, high) }
    }
}

type Rows = BTreeMap<String, Number>;

/// What the tables of the document say: under each heading, each name's number.
fn document() -> BTreeMap<String, Rows> {
    let mut tables: BTreeMap<String, Rows> = BTreeMap::new();
    let mut heading = "";
    for line in SPEC.lines() {
        if let Some(text) = line.strip_prefix('#') {
            heading = text.trim_start_matches('#').trim();
        }
        let Some(row) = line.strip_prefix('|') else { continue };
        let cells: Vec<&str> = row.trim_end_matches('|').split('|').map(str::trim).collect();
        if cells.iter().all(|cell| cell.starts_with("---")) || cells[2..] == ["meaning"] {
            continue;
        }
        let [name, number, meaning] = cells[..] else {
            panic!("not | name | number | meaning |: {line}")
        };
        assert!(!meaning.is_empty(), "{line}");
        let number = Number::parse(number).unwrap_or_else(|| panic!("no number: {line}"));
        let rows = tables.entry(heading.to_string()).or_default();
        assert!(rows.insert(name.to_string(), number).is_none(), "twice: {line}");
    }
    tables
}

/// What the code says should stand under one heading.
struct Table {
    heading: &'static str,
    rows: Vec<(&'static str, Number)>,
    /// The source file, and the line that opens the block with all these constants.
    source: Option<(&'static str, &'static str)>,
}

impl Table {
    fn new(heading: &'static str, rows: Vec<(&'static str, Number)>) -> Self {
        Self { heading, rows, source: None }
    }

    /// The list is all that the block which begins with `opening` defines.
    fn all_of(self, file: &'static str, opening: &'static str) -> Self {
        Self { source: Some((file, opening)), ..self }
    }

    fn rows(&self) -> Rows {
        self.rows.iter().map(|(name, number)| (snake(name), *number)).collect()
    }
}

/// `HEADER_BYTES` and `OfdLock` as the document writes them.
fn snake(name: &str) -> String {
    if name.contains(char::is_lowercase) {
        let mut out = String::new();
        for character in name.chars() {
            if character.is_uppercase() && !out.is_empty() {
                out.push('_');
            }
            out.extend(character.to_lowercase());
        }
        return out;
    }
    name.to_lowercase()
}

/// The name that a line of source defines: of a constant, or of a variant without fields.
fn defined(line: &str) -> Option<String> {
    let line = line.trim();
    let constant = line.strip_prefix("pub const ").or(line.strip_prefix("pub(crate) const "));
    let name = match constant {
        Some(rest) => rest.split_once(':').map(|(name, _)| name)?,
        None => line.strip_suffix(',')?,
    };
    let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    (is_name && name.starts_with(|c: char| c.is_ascii_uppercase())).then(|| snake(name))
}

/// The names that the block of `file` which begins with the line `opening` defines.
fn block(file: &str, opening: &str) -> Vec<String> {
    let (_, rest) = file.split_once(&(opening.to_string() + " {\n")).expect(opening);
    let (body, _) = rest.split_once("\n}").expect("the end of the block");
    let mut names: Vec<String> = body.lines().filter_map(defined).filter(|n| n != "none").collect();
    names.sort();
    names
}

/// `(name, value)` for constants, named once.
macro_rules! constants {
    ($module:ident: $($name:ident)*) => {
        vec![$((stringify!($name), Number::Is($module::$name as u64))),*]
    };
}

/// `(name, value)` for the variants or constants of a type, each turned into a number by `$number`.
macro_rules! values {
    ($type:ident, $number:expr, $($name:ident)*) => {
        vec![$((stringify!($name), $number($type::$name))),*]
    };
}

fn of_words() -> Vec<Table> {
    vec![
        Table::new(
            "Header",
            constants!(header_word: MAGIC VERSION FEATURES CAPACITY PAGE PEERS THREADS REGIONS
                DOMAINS LEASE_MS UUID_LOW UUID_HIGH CREATED_MS CHECKSUM DIRECTORY_LOCK
                CHAIN_SEQUENCE REGIONS_USED FREE_HINT EXTENT_HEAD EXTENT_CURSOR DEFERRED_HINT
                INTENT INTENT_OLD INTENT_NEW PEERS_USED PROBE),
        )
        .all_of(HEADER, "pub mod header_word"),
        Table::new("Domain record", constants!(domain_word: STATE BOOT_LOW BOOT_HIGH COUNT))
            .all_of(DOMAIN, "pub mod domain_word"),
        Table::new(
            "Peer record",
            constants!(peer_word: STATE DOMAIN PID PID_NAMESPACE START_TIME UID ATTACHED_MS
                SHARES_USED HEARTBEAT THREADS_USED BELL UNPROVEN NAME COUNT),
        )
        .all_of(PEER, "pub mod peer_word"),
        Table::new(
            "Thread slot",
            constants!(thread_word: LIFE PENDING BIASES WAITS READING READING_COUNT BIAS
                BIAS_COUNT COUNT),
        )
        .all_of(THREAD, "pub mod thread_word"),
        Table::new(
            "Region entry",
            constants!(region_word: STATE OFFSET SIZE RESERVE HASH NAME_LEN NEXT_IN_CHAIN ACTOR
                NAME LOCK READERS DRAINED UNMAPPED PREVIOUS_EXTENT NEXT_EXTENT HELD_SINCE_MS
                CREATED_MS COUNT),
        )
        .all_of(REGION, "pub mod region_word"),
        Table::new(
            "Record words",
            constants!(record_words: MUTEX RW_LOCK ONCE EVENT CONDVAR SEMAPHORE BARRIER SEQ_LOCK),
        )
        .all_of(RECORD, "pub mod record_words"),
    ]
}

fn of_sizes() -> Vec<Table> {
    let mut constants = constants!(self: VERSION MAGIC FORMATTING HEADER_BYTES HEADER_WORDS OFFSET_LIMIT
        TABLE_ALIGN SHARE_ROW_ALIGN FNV_BASIS FNV_PRIME RECORD_MARKER PLACES_MOST EPOCH_STEP
        BIAS_AFTER BIAS_MISSES);
    constants.push(("DONE", Number::Is(LockWord::DONE.word())));
    constants.push(("NAME_MOST", Number::Is(Name::MOST as u64)));
    constants.push(("NAME_WORDS", Number::Is(Name::WORDS as u64)));
    constants.push(("PEER_NAME_WORDS", Number::Is(PeerName::WORDS as u64)));
    vec![
        Table::new("Constants", constants),
        Table::new(
            "Limits",
            constants!(
                limits: PEERS THREADS REGIONS DOMAINS PAGE_LEAST PAGE_MOST LEASE_LEAST_MS LEASE_MOST_MS
            ),
        )
        .all_of(GEOMETRY, "pub mod limits"),
        Table::new("Places", constants!(record_bytes: DOMAIN PEER THREAD BUCKET REGION SHARE))
            .all_of(GEOMETRY, "pub(crate) mod record_bytes"),
    ]
}

fn of_values() -> Vec<Table> {
    let domain = |state: DomainState| Number::Is(state.word());
    let peer = |phase| Number::Is(peer_state(0, phase, Evidence::NONE));
    let evidence = |evidence| Number::Is(peer_state(0, PeerPhase::Free, evidence) >> 8);
    let pending = |kind| Number::Is(Pending { kind, lock: Offset::ZERO }.word());
    let region = |phase| Number::Is(region_state(0, phase, RegionFlags::NONE));
    let flags = |flags| Number::Is(region_state(0, RegionPhase::Free, flags) >> 8);
    let kind = |kind| Number::Is(intent(kind, IntentPhase::Trial, 0) >> 32);
    let phase = |phase| {
        let trial = intent(IntentKind::Link, IntentPhase::Trial, 0);
        Number::Is((intent(IntentKind::Link, phase, 0) ^ trial) >> 40)
    };
    let record = |kind| Number::Is(RecordTag { kind, size: 0 }.word() >> 32 & 0xff);
    vec![
        Table::new(
            "Record kinds",
            values!(RecordKind, record, Mutex RwLock Once Condvar Semaphore Barrier SeqLock Event),
        )
        .all_of(RECORD, "pub enum RecordKind"),
        Table::new("Domain states", values!(DomainState, domain, Free Used))
            .all_of(DOMAIN, "pub enum DomainState"),
        Table::new("Peer phases", values!(PeerPhase, peer, Free Attaching Live Fenced))
            .all_of(PEER, "pub enum PeerPhase"),
        Table::new(
            "Peer evidence",
            values!(Evidence, evidence, OFD_LOCK PROCESS HEARTBEAT SHARED_LOCK),
        )
        .all_of(PEER, "impl Evidence"),
        Table::new(
            "Pending kinds",
            values!(PendingKind, pending, Exclusive Shared Release Event Process),
        )
        .all_of(THREAD, "pub enum PendingKind"),
        Table::new(
            "Region phases",
            values!(RegionPhase, region, Free Creating Active Destroying Freeing),
        )
        .all_of(REGION, "pub enum RegionPhase"),
        Table::new("Region flags", values!(RegionFlags, flags, LAZY DEFERRED))
            .all_of(REGION, "impl RegionFlags"),
        Table::new("Intent kinds", values!(IntentKind, kind, Link Resize))
            .all_of(INTENT, "pub enum IntentKind"),
        Table::new("Intent phases", values!(IntentPhase, phase, Trial Granted))
            .all_of(INTENT, "pub enum IntentPhase"),
    ]
}

/// The bits that matter to `part`: those that alone make it true.
fn cut(part: impl Fn(u64) -> bool) -> Number {
    Number::bits((0..64).map(|bit| 1 << bit).filter(|word| part(*word)).sum())
}

fn of_lock_bits() -> Vec<Table> {
    let flag = |flag: LockFlags| Number::bits(LockWord::unowned(flag).word());
    let owned = |word: u64, part: fn(Owner) -> u16| {
        LockWord::from_word(word | 1 << 32).owner().is_some_and(|owner| part(owner) != 0)
    };
    let mut lock = values!(LockFlags, flag, WAITERS INCONSISTENT UNRECOVERABLE UPGRADABLE STARVING);
    let owner = Owner::new(PeerId::new(0), 1, ThreadId::FIRST).unwrap();
    let left = LockWord::left(owner, LockFlags::NONE).word() ^ owner.word().word();
    lock.push(("left", Number::bits(left)));
    // Beyond are the bits of a bias, which make an owner that does not exist.
    lock.push(("peer", cut(|word| word < left && owned(word, |owner| owner.peer().get()))));
    lock.push(("thread", cut(|word| owned(word, |owner| owner.thread().index()))));
    lock.push(("incarnation", cut(|word| LockWord::from_word(word).is_owned())));
    let permit = vec![
        ("failed", flag(LockFlags::INCONSISTENT)),
        ("spent", Number::bits(LockWord::SPENT.word())),
    ];
    let place = vec![
        ("arrived_even", flag(LockWord::ARRIVED[0])),
        ("failed", flag(LockFlags::INCONSISTENT)),
        ("arrived_odd", flag(LockWord::ARRIVED[1])),
    ];
    let event = vec![
        ("waiters", Number::bits(EVENT_WAITERS)),
        ("sequence", Number::bits(!(EVENT_STEP - 1))),
    ];
    let share = vec![
        ("mappings", cut(|word| ShareWord::from_word(word).mappings() != 0)),
        ("readers", cut(|word| ShareWord::from_word(word).readers() != 0)),
        ("generation", cut(|word| ShareWord::from_word(word).generation() != 0)),
    ];
    let lock_of = |word| Pending::read(word | 1).map_or(0, |pending| pending.lock.get());
    let pending = vec![
        ("kind", cut(|word| Pending::read(word).is_some())),
        ("lock", cut(|word| lock_of(word) != 0)),
    ];
    vec![
        Table::new("Lock word", lock),
        Table::new("Permit word", permit),
        Table::new("Place word", place),
        Table::new("Event word", event),
        Table::new("Share word", share),
        Table::new("Pending word", pending),
        Table::new("Life word", of_life_bits()),
    ]
}

fn of_life_bits() -> Vec<(&'static str, Number)> {
    let life = ThreadLife::from_word;
    let tids = life(0).claimed(u32::MAX).map_or(0, |claimed| claimed.word() & u64::from(u32::MAX));
    let vacant = life(0).claimed(1).map_or(life(0), ThreadLife::armed);
    vec![
        ("tid", Number::bits(tids)),
        ("died", Number::bits(vacant.dead().word() ^ vacant.unarmed().word())),
        ("ready", cut(|word| life(word).is_ready())),
        ("incarnation", cut(|word| life(word).incarnation() != 0)),
    ]
}

fn of_bias_bits() -> Vec<Table> {
    let none = LockWord::biased(Bias { peer: PeerId::new(0), thread: ThreadId::FIRST, number: 0 });
    let biased = |part: fn(Bias) -> bool| {
        cut(move |bit| LockWord::from_word(bit | none.word()).bias().is_some_and(part))
    };
    let bias = vec![
        ("bias_peer", biased(|bias| bias.peer.get() != 0)),
        ("revoked", Number::bits(none.revoked().word() ^ none.word())),
        ("biased", Number::bits(none.word())),
        ("bias_thread", biased(|bias| bias.thread.index() != 0)),
        ("number", biased(|bias| bias.number != 0)),
    ];
    let at = Offset::new(OFFSET_LIMIT - 8).unwrap();
    let candidate = BiasPlace::candidate(Offset::ZERO);
    let bias_place = vec![
        ("candidate", Number::bits(candidate.word() & 1)),
        ("place", Number::bits(BiasPlace::of(at).word())),
        ("left", cut(|bit| bit != 1 && BiasPlace::from_word(bit).freed().is_some())),
    ];
    let turn = BiasTurn::from_word;
    let bias_turn = vec![
        ("number", cut(|bit| turn(bit).number() != 0)),
        ("inside", cut(|bit| turn(bit).is_inside())),
        ("missed", cut(|bit| turn(bit).missed().is_none_or(|next| next.word() >> 48 > 1))),
    ];
    vec![
        Table::new("Bias", bias),
        Table::new("Bias place", bias_place),
        Table::new("Bias turn", bias_turn),
    ]
}

fn of_record_bits() -> Vec<Table> {
    let mutex = RecordTag { kind: RecordKind::Mutex, size: 0 }.word();
    let read = |bit: u64| RecordTag::read(mutex ^ bit);
    let mutex_of = |bit: u64| read(bit).ok().flatten().filter(|tag| tag.kind == RecordKind::Mutex);
    // Both a wrong marker and an unknown kind are refused: where the one ends is said here.
    let tag = vec![
        ("size", cut(|bit| mutex_of(bit).is_some_and(|tag| tag.size != 0))),
        ("kind", cut(|bit| bit < 1 << 40 && mutex_of(bit).is_none())),
        ("marker", cut(|bit| bit >= 1 << 40 && read(bit).is_err())),
    ];
    let key = |at: u64, region: u32, generation| {
        let at = Offset::new(at).unwrap();
        ReadKey::of_record(at, RegionId::new(region), generation).word()
    };
    let none = key(0, 0, 0);
    let of_place = key(OFFSET_LIMIT - 8, 0, 0) ^ none;
    let read_key = vec![
        ("low", Number::bits(of_place & 0xffff_ffff)),
        ("record", Number::bits(none)),
        ("high", Number::bits(of_place >> 32 << 32)),
        ("epoch", Number::bits(key(0, 0, u32::MAX) ^ none)),
    ];
    vec![Table::new("Record tag", tag), Table::new("Read key", read_key)]
}

fn of_state_bits() -> Vec<Table> {
    let peer = vec![
        ("phase", cut(|word| PeerState::read(word).phase != PeerPhase::Free)),
        ("evidence", cut(|word| PeerState::read(word).evidence != Evidence::NONE)),
        ("generation", cut(|word| PeerState::read(word).generation != 0)),
    ];
    let read = RegionState::read;
    let region = vec![
        // A phase that is refused has its bits here as well.
        ("phase", cut(|word| read(word).is_none_or(|state| state.phase != RegionPhase::Free))),
        ("flags", cut(|word| read(word).is_some_and(|state| state.flags != RegionFlags::NONE))),
        ("generation", cut(|word| read(word).is_some_and(|state| state.generation != 0))),
    ];
    let read = Intent::read;
    let resize = intent(IntentKind::Resize, IntentPhase::Trial, 0);
    let is_link = |intent: Intent| intent.kind == IntentKind::Link;
    let is_granted = |intent: Intent| intent.phase == IntentPhase::Granted;
    let intent = vec![
        ("region", cut(|word| read(word).is_some_and(|intent| intent.region.get() != 0))),
        // Each bit of the kind, when it changes, makes a resize something else.
        ("kind", cut(|word| read(resize ^ word).is_none_or(is_link))),
        ("phase", cut(|word| read(word).is_some_and(is_granted))),
    ];
    vec![
        Table::new("Peer state word", peer),
        Table::new("Region state word", region),
        Table::new("Intent word", intent),
    ]
}

fn peer_state(generation: u32, phase: PeerPhase, evidence: Evidence) -> u64 {
    PeerState { generation, phase, evidence }.word()
}

fn region_state(generation: u32, phase: RegionPhase, flags: RegionFlags) -> u64 {
    RegionState { generation, phase, flags }.word()
}

fn intent(kind: IntentKind, phase: IntentPhase, region: u32) -> u64 {
    Intent { kind, phase, region: RegionId::new(region) }.word()
}

fn tables() -> Vec<Table> {
    let all = [
        of_words(),
        of_sizes(),
        of_values(),
        of_lock_bits(),
        of_bias_bits(),
        of_record_bits(),
        of_state_bits(),
    ];
    all.into_iter().flatten().collect()
}

#[test]
fn the_tables_of_the_document_are_the_constants() {
    let mut document = document();
    for table in tables() {
        let written = document.remove(table.heading).unwrap_or_default();
        let meant = table.rows();
        for (name, number) in &meant {
            let found = written.get(name);
            assert_eq!(found, Some(number), "{name} under {:?}", table.heading);
        }
        let extra: Vec<_> = written.keys().filter(|name| !meant.contains_key(*name)).collect();
        assert!(extra.is_empty(), "only in the document, under {:?}: {extra:?}", table.heading);
    }
    let unknown: Vec<_> = document.keys().collect();
    assert!(unknown.is_empty(), "tables that nothing holds to the code: {unknown:?}");
}

#[test]
fn no_constant_is_missing_from_the_lists_of_this_test() {
    for table in tables() {
        let Some((file, opening)) = table.source else { continue };
        let listed: Vec<String> = table.rows().into_keys().collect();
        assert_eq!(listed, block(file, opening), "{opening}");
    }
    let flags: Vec<String> = block(LOCK, "impl LockFlags");
    assert_eq!(flags.len(), 5, "{flags:?}");
}

#[test]
fn no_constant_outside_a_module_is_missing_from_the_lists_of_this_test() {
    let tables = tables();
    let constants = tables.iter().find(|table| table.heading == "Constants").unwrap().rows();
    let at_top = [HEADER, EXTENT, GEOMETRY, LOCK, READ_KEY, RECORD]
        .iter()
        .flat_map(|file| file.lines())
        .filter(|line| line.starts_with("pub"))
        .filter_map(defined)
        .filter(|name| !name.starts_with("event_"));
    let missing: Vec<String> = at_top.filter(|name| !constants.contains_key(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_example_of_the_document_has_its_tables_where_it_says() {
    let text = SPEC.split_whitespace().collect::<Vec<_>>().join(" ");
    let geometry =
        Geometry::plan(&FormatOptions { capacity: 1 << 20, ..FormatOptions::default() }).unwrap();
    let (peer, region) = (PeerId::new(0), RegionId::new(0));
    let at = [
        geometry.domain(0).unwrap(),
        geometry.peer(peer).unwrap(),
        geometry.thread(peer, ThreadId::FIRST).unwrap(),
        geometry.bucket(0),
        geometry.region(region).unwrap(),
        geometry.share(peer, region).unwrap(),
    ]
    .map(|place| place.get().to_string())
    .join(", ");
    let (domains, peers) = (geometry.domains(), geometry.peers());
    let (threads, regions) = (geometry.threads(), geometry.regions());
    let data = geometry.data().start().get();
    let sentence = std::format!(
        "A space of 1 MiB with 4096-byte pages, {domains} domains, {peers} peers, {threads} threads \
         and {regions} regions has its tables at {at}, and its data at {data}."
    );
    assert!(text.contains(&sentence), "{sentence}");
}
