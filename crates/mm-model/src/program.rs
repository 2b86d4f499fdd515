//! Random programs from seeds: lists of steps. The small numbers in a step choose among the spaces, objects and budgets
//! that exist.

use alloc::vec::Vec;
use core::fmt;

use commonhold_mm::{Access, Protection};

use crate::{
    random::Random,
    reference::{BYTES, FIRST, LENGTH, Place},
};

/// Pages of a space: where, and how many.
pub type Part = (u64, u64);

/// An operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Maps pages of an object.
    Map {
        /// Which space.
        space: usize,
        /// Which object.
        object: usize,
        /// Where.
        place: Place,
        /// The first page of the object.
        offset: u64,
        /// How many pages.
        pages: u64,
        /// What is permitted.
        protection: Protection,
        /// Without memory until the first access.
        lazy: bool,
        /// Locked or not; `None` for the default of the object.
        locked: Option<bool>,
    },
    /// Unmaps pages.
    Unmap {
        /// Which space.
        space: usize,
        /// Which pages.
        part: Part,
    },
    /// Changes what pages permit.
    Protect {
        /// Which space.
        space: usize,
        /// Which pages.
        part: Part,
        /// What is permitted.
        protection: Protection,
    },
    /// Locks pages.
    Lock {
        /// Which space.
        space: usize,
        /// Which pages.
        part: Part,
    },
    /// Unlocks pages.
    Unlock {
        /// Which space.
        space: usize,
        /// Which pages.
        part: Part,
    },
    /// Locks all pages, also those that will be mapped if `future`.
    LockAll {
        /// Which space.
        space: usize,
        /// Also what will be mapped.
        future: bool,
    },
    /// Unlocks all pages.
    UnlockAll {
        /// Which space.
        space: usize,
    },
    /// Adds an I/O privilege: the space is super-locked.
    Grant {
        /// Which space.
        space: usize,
    },
    /// Takes one back.
    Revoke {
        /// Which space.
        space: usize,
    },
    /// Gives the object so many pages.
    Resize {
        /// Which object.
        object: usize,
        /// How many pages.
        pages: u64,
    },
    /// Writes pages of an object back.
    SyncObject {
        /// Which object.
        object: usize,
        /// Which pages.
        part: Part,
    },
    /// Writes pages back that a space shows.
    SyncSpace {
        /// Which space.
        space: usize,
        /// Which pages.
        part: Part,
    },
    /// Brings pages in.
    WillNeed {
        /// Which space.
        space: usize,
        /// Which pages.
        part: Part,
    },
    /// Lets pages go.
    DontNeed {
        /// Which space.
        space: usize,
        /// Which pages.
        part: Part,
    },
    /// Stores bytes.
    Write {
        /// Which processor.
        cpu: usize,
        /// Which space.
        space: usize,
        /// The first byte, with pages of [`BYTES`] bytes.
        address: u64,
        /// How many bytes.
        length: usize,
        /// The first byte; each byte after it is greater by one.
        value: u8,
    },
    /// Loads bytes, and compares them.
    Read {
        /// Which processor.
        cpu: usize,
        /// Which space.
        space: usize,
        /// The first byte, with pages of [`BYTES`] bytes.
        address: u64,
        /// How many bytes.
        length: u64,
    },
    /// Accesses a page from where no fault may happen.
    NoFault {
        /// Which processor.
        cpu: usize,
        /// Which space.
        space: usize,
        /// Which page.
        at: u64,
        /// Which access.
        access: Access,
    },
    /// Reports a fault, and does not wait for its pulse.
    Fault {
        /// Which processor.
        cpu: usize,
        /// Which space.
        space: usize,
        /// Which page.
        at: u64,
        /// Which access.
        access: Access,
    },
    /// Serves one pulse.
    Serve,
    /// Evicts pages.
    PageOut {
        /// How many pages.
        pages: u64,
    },
    /// Sets the limit of a budget.
    SetLimit {
        /// Which of the two budgets.
        budget: usize,
        /// How many pages.
        pages: u64,
    },
    /// Destroys an object: it takes no new mappings.
    Destroy {
        /// Which object.
        object: usize,
    },
    /// Drops the handle of an object.
    DropObject {
        /// Which object.
        object: usize,
    },
    /// Puts a new object in the place of another.
    NewObject {
        /// Which object.
        object: usize,
        /// A file, in which every other page has been written; or anonymous memory.
        file: bool,
        /// How many pages.
        pages: u64,
        /// Its budget; `None` for that of the manager.
        budget: Option<usize>,
    },
    /// Puts a new space in the place of another, which is dropped.
    NewSpace {
        /// Which space.
        space: usize,
    },
    /// Reads everything that is mapped.
    ReadAll {
        /// Which processor.
        cpu: usize,
    },
}

/// How the manager, its budgets and its pagers are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// The manager's budget, in pages.
    pub budget: u64,
    /// The limits of two more budgets, in pages.
    pub limits: [u64; 2],
    /// The most pulses of a space.
    pub pulses: usize,
    /// Anonymous objects are locked by default.
    pub anonymous_locked: bool,
    /// Files are locked by default.
    pub file_locked: bool,
    /// Pagers say that they compress.
    pub compressed: bool,
    /// Pagers drop what is cut off. If not, they fail.
    pub discards: bool,
}

/// What fails during one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    None,
    /// Calls of pagers.
    Pager {
        /// How many succeed first.
        after: u32,
        /// How many fail then.
        times: u32,
    },
    /// One call of the machine: the one after so many.
    Machine(u32),
    /// Allocations beyond so many bytes.
    Memory(usize),
}

/// Which kind of [`Trouble`] a program has, in every third step or so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failing {
    /// None: only budgets are short.
    Nothing,
    /// Pagers.
    Pagers,
    /// Calls of the machine ([`Machine::fail_in`](crate::Machine::fail_in)).
    Machine,
    /// Allocations ([`Machine::shortage`](crate::Machine::shortage)).
    Allocations,
}

/// An operation, and what fails meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The operation.
    pub op: Op,
    /// What fails.
    pub trouble: Trouble,
}

/// A program. It begins with a few objects in two spaces (`Program::beginning`), and ends with reading everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// How the manager is made.
    pub setting: Setting,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

impl Program {
    /// The program of this seed, with `steps` steps.
    #[must_use]
    pub fn random(seed: u64, steps: usize, failing: Failing) -> Self {
        let mut random = Random::new(seed);
        let random = &mut random;
        let setting = setting(random);
        let steps = (0..steps).map(|_| Step { op: op(random), trouble: trouble(random, failing) });
        Self { setting, steps: steps.collect() }
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
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.trouble {
            Trouble::None => write!(f, "{:?}", self.op),
            trouble => write!(f, "{:?}, with {trouble:?}", self.op),
        }
    }
}

fn setting(random: &mut Random) -> Setting {
    Setting {
        budget: random.from(1, 20),
        limits: [random.from(1, 12), random.from(1, 8)],
        pulses: 1 + random.index(5),
        anonymous_locked: random.chance(15, 100),
        file_locked: random.chance(15, 100),
        compressed: random.chance(1, 2),
        discards: random.chance(1, 2),
    }
}

fn trouble(random: &mut Random, failing: Failing) -> Trouble {
    if !random.chance(1, 3) {
        return Trouble::None;
    }
    // Below the bounds given here, which are small.
    let small = |random: &mut Random, end| u32::try_from(random.below(end)).unwrap_or(0);
    match failing {
        Failing::Nothing => Trouble::None,
        Failing::Pagers => Trouble::Pager { after: small(random, 4), times: 1 + small(random, 3) },
        Failing::Machine => Trouble::Machine(small(random, 12)),
        // From no memory at all to enough for the largest table that is allocated at once.
        Failing::Allocations => {
            let most = random.weighted(&[(1, 1), (1, 100), (1, 1000)], 20_000);
            Trouble::Memory(random.index(most))
        }
    }
}

/// Mostly the same one, so that operations meet.
fn space(random: &mut Random) -> usize {
    random.weighted(&[(6, 0), (2, 1), (1, 2)], 0)
}

fn object(random: &mut Random) -> usize {
    random.weighted(&[(3, 0), (3, 1), (1, 2), (1, 3)], 0)
}

fn part(random: &mut Random) -> Part {
    // Now and then before the space, beyond its end, or of no pages.
    if random.chance(1, 21) {
        return (random.from(FIRST - 2, FIRST + LENGTH + 2), random.below(16));
    }
    let at = random.from(FIRST, FIRST + LENGTH);
    (at, random.from(1, 6).min(FIRST + LENGTH - at))
}

fn protection(random: &mut Random) -> Protection {
    let choices = [
        (6, Protection::ReadWrite),
        (3, Protection::Read),
        (1, Protection::None),
        (1, Protection::ReadExecute),
        (1, Protection::ReadWriteExecute),
    ];
    random.weighted(&choices, Protection::ReadWrite)
}

fn access(random: &mut Random) -> Access {
    let choices = [(3, Access::Read), (3, Access::Write), (1, Access::Execute)];
    random.weighted(&choices, Access::Read)
}

fn place(random: &mut Random) -> Place {
    let at = random.from(FIRST - 1, FIRST + LENGTH + 1);
    let choices = [(2, Place::Anywhere), (4, Place::Fixed(at)), (1, Place::Replace(at))];
    random.weighted(&choices, Place::Anywhere)
}

fn map(random: &mut Random) -> Op {
    Op::Map {
        space: space(random),
        object: object(random),
        place: place(random),
        offset: random.below(6),
        pages: if random.chance(1, 21) { 0 } else { random.from(1, 6) },
        protection: protection(random),
        lazy: random.chance(1, 4),
        locked: random.chance(1, 5).then(|| random.chance(1, 2)),
    }
}

fn of_space(random: &mut Random) -> Op {
    let (space, part) = (space(random), part(random));
    match random.below(33) {
        0..4 => Op::Unmap { space, part },
        4..8 => Op::Protect { space, part, protection: protection(random) },
        8..12 => Op::Lock { space, part },
        12..16 => Op::Unlock { space, part },
        16..18 => Op::LockAll { space, future: random.chance(1, 2) },
        18..20 => Op::UnlockAll { space },
        20..22 => Op::Grant { space },
        22..25 => Op::Revoke { space },
        25..27 => Op::SyncSpace { space, part },
        27..29 => Op::WillNeed { space, part },
        29..32 => Op::DontNeed { space, part },
        _ => Op::NewSpace { space },
    }
}

fn of_object(random: &mut Random) -> Op {
    let object = object(random);
    match random.below(17) {
        0..5 => Op::Resize { object, pages: random.below(12) },
        5..8 => Op::SyncObject { object, part: (random.below(12), random.below(12)) },
        8 => Op::Destroy { object },
        9 => Op::DropObject { object },
        10..12 => Op::NewObject {
            object,
            file: random.chance(1, 2),
            pages: random.from(1, 12),
            budget: random.chance(1, 2).then(|| random.index(2)),
        },
        12..15 => Op::PageOut { pages: random.below(12) },
        _ => Op::SetLimit { budget: random.index(2), pages: random.from(1, 12) },
    }
}

fn accesses(random: &mut Random) -> Op {
    let (cpu, space) = (random.index(3), space(random));
    let address = random.from(FIRST * BYTES as u64, (FIRST + LENGTH + 1) * BYTES as u64);
    let at = random.from(FIRST, FIRST + LENGTH);
    match random.below(26) {
        0..8 => {
            let value = u8::try_from(random.below(256)).unwrap_or(0);
            Op::Write { cpu, space, address, length: 1 + random.index(19), value }
        }
        8..14 => Op::Read { cpu, space, address, length: random.from(1, 20) },
        14..16 => Op::NoFault { cpu, space, at, access: access(random) },
        16..21 => Op::Fault { cpu, space, at, access: access(random) },
        21..25 => Op::Serve,
        _ => Op::ReadAll { cpu },
    }
}

fn op(random: &mut Random) -> Op {
    match random.below(23) {
        0..4 => map(random),
        4..10 => of_space(random),
        10..13 => of_object(random),
        _ => accesses(random),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_program_again() {
        let program = |seed| Program::random(seed, 50, Failing::Pagers);
        assert_eq!(program(3), program(3));
        assert_ne!(program(3), program(4));
        assert_eq!(program(5).steps.len(), 50);
    }
}
