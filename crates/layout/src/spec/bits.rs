//! The tables of bits: what each bit of a word means, found by asking the types that read the word.

use std::{vec, vec::Vec};

use super::{Table, document::Number, words::intent};
use crate::{
    Bias, BiasState, BiasTarget, EVENT_STEP, EVENT_WAITERS, Evidence, Intent, IntentKind,
    IntentPhase, LockFlags, LockWord, OFFSET_LIMIT, Offset, Owner, PeerId, PeerPhase, PeerState,
    Pending, ReadKey, RecordKind, RecordTag, RegionFlags, RegionId, RegionPhase, RegionState,
    ShareWord, ThreadId, ThreadLife,
};

/// The bits of `part`: each of them, set alone, makes it true.
fn cut(part: impl Fn(u64) -> bool) -> Number {
    Number::bits((0..64).map(|bit| 1 << bit).filter(|word| part(*word)).sum())
}

pub(super) fn of_lock_bits() -> Vec<Table> {
    let flag = |flag: LockFlags| Number::bits(LockWord::unowned(flag).word());
    let owned = |word: u64, part: fn(Owner) -> u16| {
        LockWord::from_word(word | 1 << 32).owner().is_some_and(|owner| part(owner) != 0)
    };
    let mut lock = values!(LockFlags, flag, WAITERS INCONSISTENT UNRECOVERABLE UPGRADABLE STARVING);
    let owner = Owner::new(PeerId::new(0), 1, ThreadId::FIRST).unwrap();
    let left = LockWord::left(owner, LockFlags::NONE).word() ^ owner.word().word();
    lock.push(("left", Number::bits(left)));
    // The bits above are those of a bias, which would make an owner that does not exist.
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

pub(super) fn of_bias_bits() -> Vec<Table> {
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
    let candidate = BiasTarget::candidate(Offset::ZERO);
    let bias_place = vec![
        ("candidate", Number::bits(candidate.word() & 1)),
        ("place", Number::bits(BiasTarget::new(at).word())),
        ("left", cut(|bit| bit != 1 && BiasTarget::from_word(bit).freed().is_some())),
    ];
    let turn = BiasState::from_word;
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

pub(super) fn of_record_bits() -> Vec<Table> {
    let mutex = RecordTag { kind: RecordKind::Mutex, size: 0 }.word();
    let read = |bit: u64| RecordTag::read(mutex ^ bit);
    let mutex_of = |bit: u64| read(bit).ok().flatten().filter(|tag| tag.kind == RecordKind::Mutex);
    // Both an unknown kind and a wrong marker are refused, so the bound between them is written here.
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

pub(super) fn of_state_bits() -> Vec<Table> {
    let peer = vec![
        ("phase", cut(|word| PeerState::read(word).phase != PeerPhase::Free)),
        ("evidence", cut(|word| PeerState::read(word).evidence != Evidence::NONE)),
        ("generation", cut(|word| PeerState::read(word).generation != 0)),
    ];
    let read = RegionState::read;
    let region = vec![
        // A word with an unknown phase is refused: its bit is a bit of the phase too.
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
        // If any bit of its kind changes, a resize is read as a change of links.
        ("kind", cut(|word| read(resize ^ word).is_none_or(is_link))),
        ("phase", cut(|word| read(word).is_some_and(is_granted))),
    ];
    vec![
        Table::new("Peer state word", peer),
        Table::new("Region state word", region),
        Table::new("Intent word", intent),
    ]
}
