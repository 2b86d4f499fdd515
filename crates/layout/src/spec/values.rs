//! The tables of constants: words of records, sizes, limits, and values of enums.

use std::{vec, vec::Vec};

use super::{
    Table,
    document::Number,
    source::{DOMAIN, HEADER, INTENT, LIMITS, PEER, RECORD, REGION, TABLES, THREAD},
    words::{intent, peer_state, region_state},
};
use crate::{
    BIAS_AFTER, BIAS_MISSES, DomainState, EPOCH_STEP, Evidence, FORMATTING, HEADER_BYTES,
    HEADER_WORDS, IntentKind, IntentPhase, LockWord, MAGIC, Name, OFFSET_LIMIT, Offset,
    PLACES_MOST, PeerName, PeerPhase, Pending, PendingKind, RECORD_MARKER, RecordKind, RecordTag,
    RegionFlags, RegionPhase, VERSION, domain_word,
    fnv::{FNV_BASIS, FNV_PRIME},
    geometry::{SHARE_ROW_ALIGN, TABLE_ALIGN, record_bytes},
    header_word, limits, peer_word, record_words, region_word, thread_word,
};

pub(super) fn of_words() -> Vec<Table> {
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
                SHARES_USED HEARTBEAT THREADS_USED DEATH_FUTEX UNPROVEN NAME COUNT),
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

pub(super) fn of_sizes() -> Vec<Table> {
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
        .all_in(LIMITS),
        Table::new("Offsets of tables", constants!(record_bytes: DOMAIN PEER THREAD BUCKET REGION SHARE))
            .all_of(TABLES, "pub(crate) mod record_bytes"),
    ]
}

pub(super) fn of_values() -> Vec<Table> {
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
