//! Random programs: vectors of operations. Their small numbers choose among the spaces and objects that exist.

use commonhold_mm::{Access, Protection};
use proptest::prelude::*;

use crate::{
    reference::{FIRST, LENGTH, Place},
    trouble::Trouble,
};

/// Pages of a space: where, and how many.
pub(crate) type Part = (u64, u64);

#[derive(Debug, Clone, Copy)]
pub(crate) enum Op {
    Map {
        space: usize,
        object: usize,
        place: Place,
        offset: u64,
        pages: u64,
        protection: Protection,
        lazy: bool,
        locked: Option<bool>,
    },
    Unmap {
        space: usize,
        part: Part,
    },
    Protect {
        space: usize,
        part: Part,
        protection: Protection,
    },
    Lock {
        space: usize,
        part: Part,
    },
    Unlock {
        space: usize,
        part: Part,
    },
    LockAll {
        space: usize,
        future: bool,
    },
    UnlockAll {
        space: usize,
    },
    Grant {
        space: usize,
    },
    Revoke {
        space: usize,
    },
    Resize {
        object: usize,
        pages: u64,
    },
    SyncObject {
        object: usize,
        part: Part,
    },
    SyncSpace {
        space: usize,
        part: Part,
    },
    WillNeed {
        space: usize,
        part: Part,
    },
    DontNeed {
        space: usize,
        part: Part,
    },
    Write {
        cpu: usize,
        space: usize,
        address: u64,
        length: usize,
        value: u8,
    },
    Read {
        cpu: usize,
        space: usize,
        address: u64,
        length: u64,
    },
    NoFault {
        cpu: usize,
        space: usize,
        at: u64,
        access: Access,
    },
    Fault {
        space: usize,
        at: u64,
        access: Access,
    },
    Serve,
    PageOut {
        pages: u64,
    },
    SetLimit {
        budget: usize,
        pages: u64,
    },
    Destroy {
        object: usize,
    },
    DropObject {
        object: usize,
    },
    NewObject {
        object: usize,
        file: bool,
        pages: u64,
        budget: Option<usize>,
    },
    NewSpace {
        space: usize,
    },
    ReadAll {
        cpu: usize,
    },
}

/// How the manager, its budgets and its pagers are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) budget: u64,
    pub(crate) limits: [u64; 2],
    pub(crate) pulses: usize,
    pub(crate) anonymous_locked: bool,
    pub(crate) file_locked: bool,
    pub(crate) compressed: bool,
    /// Whether pagers drop what is cut off.
    pub(crate) discards: bool,
}

pub(crate) fn setting() -> impl Strategy<Value = Setting> {
    let locked = prop::bool::weighted(0.15);
    (1_u64..20, 1_u64..12, 1_u64..8, 1_usize..6, locked, locked, any::<[bool; 2]>()).prop_map(
        |(budget, one, two, pulses, anonymous_locked, file_locked, [compressed, discards])| {
            let limits = [one, two];
            Setting { budget, limits, pulses, anonymous_locked, file_locked, compressed, discards }
        },
    )
}

/// Mostly the same one, so that operations meet.
fn space() -> impl Strategy<Value = usize> {
    prop_oneof![6 => Just(0_usize), 2 => Just(1), 1 => Just(2)]
}

fn object() -> impl Strategy<Value = usize> {
    prop_oneof![3 => Just(0_usize), 3 => Just(1), 1 => Just(2), 1 => Just(3)]
}

fn part() -> impl Strategy<Value = Part> {
    // Now and then before the space, beyond its end, or of no pages.
    prop_oneof![
        20 => (FIRST..FIRST + LENGTH, 1_u64..6)
            .prop_map(|(at, pages)| (at, pages.min(FIRST + LENGTH - at))),
        1 => (FIRST - 2..FIRST + LENGTH + 2, 0_u64..16),
    ]
}

fn protection() -> impl Strategy<Value = Protection> {
    prop_oneof![
        6 => Just(Protection::ReadWrite),
        3 => Just(Protection::Read),
        1 => Just(Protection::None),
        1 => Just(Protection::ReadExecute),
        1 => Just(Protection::ReadWriteExecute),
    ]
}

fn access() -> impl Strategy<Value = Access> {
    prop_oneof![3 => Just(Access::Read), 3 => Just(Access::Write), 1 => Just(Access::Execute)]
}

fn place() -> impl Strategy<Value = Place> {
    let at = FIRST - 1..FIRST + LENGTH + 1;
    prop_oneof![
        2 => Just(Place::Anywhere),
        4 => at.clone().prop_map(Place::Fixed),
        1 => at.prop_map(Place::Replace),
    ]
}

fn map() -> impl Strategy<Value = Op> {
    let locked = prop_oneof![4 => Just(None), 1 => any::<bool>().prop_map(Some)];
    let what = (0_u64..6, prop_oneof![20 => 1_u64..6, 1 => Just(0)]);
    let how = (protection(), prop::bool::weighted(0.25), locked);
    (space(), object(), place(), what, how).prop_map(
        |(space, object, place, (offset, pages), (protection, lazy, locked))| Op::Map {
            space,
            object,
            place,
            offset,
            pages,
            protection,
            lazy,
            locked,
        },
    )
}

fn of_space() -> impl Strategy<Value = Op> {
    let place = || (space(), part());
    prop_oneof![
        4 => place().prop_map(|(space, part)| Op::Unmap { space, part }),
        4 => (place(), protection())
            .prop_map(|((space, part), protection)| Op::Protect { space, part, protection }),
        4 => place().prop_map(|(space, part)| Op::Lock { space, part }),
        4 => place().prop_map(|(space, part)| Op::Unlock { space, part }),
        2 => (space(), any::<bool>()).prop_map(|(space, future)| Op::LockAll { space, future }),
        2 => space().prop_map(|space| Op::UnlockAll { space }),
        2 => space().prop_map(|space| Op::Grant { space }),
        3 => space().prop_map(|space| Op::Revoke { space }),
        2 => place().prop_map(|(space, part)| Op::SyncSpace { space, part }),
        2 => place().prop_map(|(space, part)| Op::WillNeed { space, part }),
        3 => place().prop_map(|(space, part)| Op::DontNeed { space, part }),
        1 => space().prop_map(|space| Op::NewSpace { space }),
    ]
}

fn of_object() -> impl Strategy<Value = Op> {
    let budget = prop_oneof![Just(None), (0_usize..2).prop_map(Some)];
    prop_oneof![
        5 => (object(), 0_u64..12).prop_map(|(object, pages)| Op::Resize { object, pages }),
        3 => (object(), (0_u64..12, 0_u64..12))
            .prop_map(|(object, part)| Op::SyncObject { object, part }),
        1 => object().prop_map(|object| Op::Destroy { object }),
        1 => object().prop_map(|object| Op::DropObject { object }),
        2 => (object(), any::<bool>(), 1_u64..12, budget).prop_map(
            |(object, file, pages, budget)| Op::NewObject { object, file, pages, budget }),
        3 => (0_u64..12).prop_map(|pages| Op::PageOut { pages }),
        2 => (0_usize..2, 1_u64..12).prop_map(|(budget, pages)| Op::SetLimit { budget, pages }),
    ]
}

fn accesses() -> impl Strategy<Value = Op> {
    let who = || (0_usize..3, space());
    let address = || (FIRST * 8..(FIRST + LENGTH + 1) * 8, 1_u64..20);
    let at = || FIRST..FIRST + LENGTH;
    prop_oneof![
        8 => (who(), address(), 1_usize..20, any::<u8>()).prop_map(|((cpu, space), (address, _), length, value)| {
            Op::Write { cpu, space, address, length, value }
        }),
        6 => (who(), address()).prop_map(|((cpu, space), (address, length))| {
            Op::Read { cpu, space, address, length }
        }),
        2 => (who(), at(), access())
            .prop_map(|((cpu, space), at, access)| Op::NoFault { cpu, space, at, access }),
        5 => (space(), at(), access())
            .prop_map(|(space, at, access)| Op::Fault { space, at, access }),
        4 => Just(Op::Serve),
        1 => (0_usize..3).prop_map(|cpu| Op::ReadAll { cpu }),
    ]
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    prop_oneof![4 => map(), 6 => of_space(), 3 => of_object(), 10 => accesses()]
}

/// How many programs: as `PROPTEST_CASES` says, or as many as a test command has time for.
pub(crate) fn cases() -> ProptestConfig {
    let default = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => default,
        None => ProptestConfig { cases: 128, ..default },
    }
}

/// Programs in which nothing fails.
pub(crate) fn quiet() -> impl Strategy<Value = Vec<(Op, Trouble)>> {
    prop::collection::vec((op(), Just(Trouble::None)), 1..60)
}

/// Programs in which every third operation or so has trouble of this kind.
pub(crate) fn with(
    trouble: impl Strategy<Value = Trouble>,
) -> impl Strategy<Value = Vec<(Op, Trouble)>> {
    let trouble = prop_oneof![2 => Just(Trouble::None), 1 => trouble];
    prop::collection::vec((op(), trouble), 1..60)
}

/// What is mapped at the beginning: the first two objects in two spaces, and parts of the others.
pub(crate) fn beginning() -> impl Iterator<Item = Op> {
    let map = |(space, object, at, offset, pages)| Op::Map {
        space,
        object,
        place: Place::Fixed(at),
        offset,
        pages,
        protection: Protection::ReadWrite,
        lazy: object == 3,
        locked: Some(false),
    };
    let maps =
        [(0, 0, 3, 0, 5), (0, 1, 9, 1, 4), (1, 0, 5, 2, 4), (1, 2, 10, 0, 3), (2, 3, 4, 0, 3)];
    maps.into_iter().map(map)
}
