//! Every decoder of words, names and URLs, on arbitrary input.
//!
//! # What must hold
//! 1. No input causes a panic.
//! 2. A decoded value is a fixed point: encoded and decoded again, it is the same value, with the same word.
//! 3. A refusal has a message that can be printed.

mod text;

use std::fmt::Debug;

use arbitrary::Arbitrary;
use commonhold_layout::{
    Bias, BiasState, BiasTarget, BootId, Damage, DeathFutex, DomainState, Extent, FormatOptions,
    Geometry, Intent, LockFlags, LockWord, Marker, Offset, Owner, PeerId, PeerName, PeerState,
    Pending, ReadKey, RecordTag, RegionId, RegionState, ShareWord, ThreadId, ThreadLife, align_up,
};

/// An input.
#[derive(Debug, Arbitrary)]
pub struct Claims {
    word: u64,
    other: u64,
    generation: u32,
    header: [u64; 32],
    window: u64,
    options: Options,
    name: [u64; 16],
    text: text::Texts,
}

/// Options for formatting a space.
#[derive(Debug, Arbitrary)]
struct Options {
    capacity: u64,
    page: u64,
    peers: Option<u64>,
    threads: Option<u64>,
    regions: Option<u64>,
    lease_ms: u64,
    uuid: u128,
}

/// Checks all decoders.
///
/// # Panics
/// If a property does not hold.
pub fn check(claims: &Claims) {
    states(claims.word);
    states(claims.other);
    locks(claims);
    shares(claims.word, claims.generation);
    extents(claims);
    geometry(claims);
    text::check(&claims.text, &claims.name, claims.word);
}

/// Checks that a decoded value is a fixed point. Returns the value.
fn stable<T: PartialEq + Debug>(
    word: u64,
    read: impl Fn(u64) -> T,
    write: impl Fn(&T) -> Option<u64>,
) -> T {
    let first = read(word);
    if let Some(written) = write(&first) {
        let again = read(written);
        assert_eq!(again, first, "{word:#x} was written as {written:#x}");
        assert_eq!(write(&again), Some(written));
    }
    first
}

fn states(word: u64) {
    stable(word, PeerState::read, |state| Some(state.word()));
    if let Some(state) = stable(word, RegionState::read, |state| state.map(RegionState::word)) {
        assert_eq!(state.in_phase(state.phase).with_flags(state.flags), state);
    }
    stable(word, Intent::read, |intent| intent.map(Intent::word));
    let pending = stable(word, Pending::read, |pending| pending.map(Pending::word));
    if let Some(pid) = pending.and_then(Pending::process) {
        assert_eq!(Pending::of_process(pid).process(), Some(pid));
    }
    stable(word, DomainState::read, |state| Some(state.word()));
    stable(word, Marker::read, |marker| marker.map(Marker::word));
    let key = stable(word, ReadKey::read, |key| key.map(ReadKey::word));
    let place = key.and_then(ReadKey::record);
    assert!(place.is_none_or(|place| place.get().is_multiple_of(8)));
    match RecordTag::read(word) {
        Ok(Some(tag)) => {
            assert_eq!(RecordTag::read(tag.word()), Ok(Some(tag)));
            assert!(!tag.to_string().is_empty());
        }
        Ok(None) => assert_eq!(word, 0),
        Err(not) => assert_eq!(not.found, word),
    }
    let death_futex = DeathFutex::from_word(word);
    assert_eq!(death_futex.word(), word);
    assert!(death_futex.with_sleepers().has_fired() == death_futex.has_fired());
    assert_eq!(death_futex.taken_down().taken_down(), death_futex.taken_down());
    let _ = (
        death_futex.is_there(),
        death_futex.keeps_alone(),
        death_futex.is_never_there(),
        death_futex.keeps_evidence(),
    );
    let _ = Damage::new("a word", word).to_string();
    life(ThreadLife::from_word(word));
}

/// Checks the properties of a thread slot's life word.
fn life(life: ThreadLife) {
    let kinds = u8::from(life.is_vacant()) + u8::from(life.is_ready());
    assert!(kinds <= 1, "{life:?} is two things");
    assert!(!life.is_armed() || life.is_ready(), "{life:?} is armed for nobody");
    assert!(!life.dead().is_ready() && life.dead().dead() == life.dead(), "{life:?} lives on");
    assert!(life.vacated().is_vacant(), "{life:?} cannot be vacated");
    if let Some(claimed) = life.claimed(1) {
        assert!(!claimed.is_vacant() && !claimed.is_of(life.incarnation()));
    }
}

fn locks(claims: &Claims) {
    let word = LockWord::from_word(claims.word);
    assert_eq!(word.word(), claims.word);
    if let Some(owner) = word.owner() {
        assert_eq!(owner.word().owner(), Some(owner));
        assert!(word.is_owned_by(owner) && word.is_owned());
        let named = Owner::new(owner.peer(), owner.incarnation(), owner.thread());
        assert_eq!(named, Some(owner));
    }
    if let Some(bias) = word.bias() {
        assert!(word.is_biased());
        assert_eq!(LockWord::biased(bias).bias(), Some(bias));
        assert!(word.is_biased_by(bias) && word.revoked().is_biased_by(bias), "{word:?}");
        assert_eq!(word.revoked().bias(), Some(bias));
    }
    let flags = word.flags();
    assert_eq!(flags.with(flags), flags);
    assert_eq!(flags.without(flags), LockFlags::NONE);
    assert!(flags.contains(flags.only(LockFlags::WAITERS)));
    assert!(LockWord::unowned(flags).owner().is_none());
    let _ = (format!("{word:?}"), word.is_unrecoverable(), word.welcomes_readers());
    bias(claims);
}

fn bias(claims: &Claims) {
    let place = BiasTarget::from_word(claims.word);
    assert_eq!(place.word(), claims.word);
    if let Some(at) = place.biased() {
        assert_eq!(BiasTarget::new(at).biased(), Some(at));
        assert!(!place.is_candidate(at));
    }
    assert!(place.freed().is_none_or(|freed| freed.word() < claims.word));
    let turn = BiasState::from_word(claims.other);
    assert_eq!(turn.inside().outside(), turn.outside());
    assert!(turn.inside().is_inside() && !turn.outside().is_inside());
    assert_eq!(turn.inside().number(), turn.number());
    assert!(turn.missed().is_none_or(|missed| missed.number() == turn.number()));
    let thread = ThreadId::new(u16::try_from(claims.word & 0xfff).unwrap_or(0));
    if let Some(thread) = thread {
        let peer = PeerId::new(u16::try_from(claims.other & 0xffff).unwrap_or(0));
        let bias = Bias { peer, thread, number: turn.number() };
        let word = LockWord::biased(bias);
        assert!(word.is_biased_by(bias) || word.bias().is_none());
    }
}

fn shares(word: u64, generation: u32) {
    let share = ShareWord::from_word(word);
    assert_eq!(share.word(), word);
    let _ = format!("{share:?}");
    let Ok(own) = share.of(generation) else { return };
    assert_eq!(own.generation(), generation);
    if let Ok(more) = own.map() {
        // The last unmap also drops the read locks.
        let left = if own.mappings() == 0 { 0 } else { own.readers() };
        let back = more.unmap().map(|less| (less.readers(), less.mappings()));
        assert_eq!(back, Ok((left, own.mappings())));
        assert_eq!((more.readers(), more.mappings()), (own.readers(), own.mappings() + 1));
    }
    if let Ok(more) = own.read() {
        assert_eq!(more.unlock_read(), Ok(own));
        assert_eq!((more.readers(), more.mappings()), (own.readers() + 1, own.mappings()));
    }
}

fn extents(claims: &Claims) {
    let (start, len) = (claims.word, claims.other);
    if let Some(extent) = Extent::new(start, len) {
        assert_eq!((extent.start().get(), extent.len()), (start, len));
        assert_eq!(extent.end(), start + len);
        if let Some(part) = extent.part(claims.window, u64::from(claims.generation)) {
            assert!(part.start() >= extent.start() && part.end() <= extent.end());
        }
    }
    let unit = 1 << (len & 63);
    if let Some(aligned) = align_up(start, unit) {
        assert!(aligned >= start && aligned - start < unit && aligned.is_multiple_of(unit));
    }
    if let Some(offset) = Offset::new(start) {
        assert!(offset.plus(len).is_none_or(|more| more.get() == start + len));
    }
}

/// Checks that the tables of every accepted header lie in the window, one after the other.
fn geometry(claims: &Claims) {
    if let Ok(geometry) = Geometry::check(&claims.header, claims.window) {
        inside(&geometry, claims.window);
    }
    let Options { capacity, page, peers, threads, regions, lease_ms, uuid } = claims.options;
    let asked = FormatOptions {
        capacity,
        page,
        peers,
        threads,
        regions,
        lease_ms,
        uuid,
        created_ms: claims.other,
    };
    match Geometry::plan(&asked) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(geometry) => {
            inside(&geometry, capacity);
            assert_eq!(Geometry::check(&geometry.header(), capacity), Ok(geometry));
            assert!(Geometry::check(&geometry.header(), capacity - 1).is_err());
        }
    }
    match Geometry::check(&claims.header, claims.window) {
        Ok(geometry) => {
            assert_eq!(Geometry::check(&geometry.header(), claims.window), Ok(geometry))
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn inside(geometry: &Geometry, window: u64) {
    assert!(geometry.capacity() <= window && geometry.data().end() <= geometry.capacity());
    let peer = PeerId::new(geometry.peers() - 1);
    let region = RegionId::new(geometry.regions() - 1);
    let thread = ThreadId::new(geometry.threads() - 1);
    let last = [
        geometry.domain(geometry.domains() - 1).map(|at| at.get() + 64),
        geometry.peer(peer).map(|at| at.get() + 256),
        thread.and_then(|thread| geometry.thread(peer, thread)).map(|at| at.get() + 128),
        Some(geometry.bucket_table().end()),
        geometry.region(region).map(|at| at.get() + 256),
        geometry.share(peer, region).map(|at| at.get() + 8),
        Some(geometry.data().start().get()),
    ];
    assert!(last.iter().all(Option::is_some), "a table has no end: {last:?}");
    assert!(last.is_sorted(), "tables overlap: {last:?}");
    assert!(geometry.bucket(u64::MAX).get() < geometry.bucket_table().end());
    assert!(geometry.peer(PeerId::new(geometry.peers())).is_none());
    assert!(geometry.region(RegionId::new(geometry.regions())).is_none());
    let _ = BootId(geometry.uuid());
    let _ = PeerName::from_words([geometry.capacity(); PeerName::WORDS]).to_string();
}
