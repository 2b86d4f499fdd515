//! A space on the heap, its peers, and an attacker that writes anything anywhere in it.
//!
//! # What it owns
//! A [`Program`] is a list of steps: a peer does something, the attacker writes something, a peer dies. A step may
//! also happen *inside* the next operation of another peer: at one of its crash points, or when it asks its machine
//! for something. So the interleavings of real programs are simulated without threads.
//!
//! # What must hold
//! 1. Whatever the attacker writes: no panic, no access outside the window or to bytes without memory, and no
//!    operation that waits beyond its deadline or loops for ever.
//! 2. If the attacker writes nothing: no operation reports *damage*, and everything is whole at the end.

mod locks;
mod machine;
mod peer;
mod poison;
mod records;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::Once,
};

use crate::scribble::{Scribble, pick};
use arbitrary::Arbitrary;
use commonhold_layout::{FormatOptions, Geometry};
use commonhold_space::{
    AttachError, Demand, DirectoryError, Patience, Platform as _, View, format,
};
use commonhold_window::at_each_point;

use machine::{BYTES, World};
use peer::{Deed, Peer};

/// How many peers there are at once at most.
const PEERS: usize = 4;
/// How many steps are run at most: a minimal input does not need more.
const STEPS: usize = 64;

/// An input.
#[derive(Debug, Arbitrary)]
pub struct Program {
    shape: u8,
    /// How many pages of memory there are besides the fixed tables.
    pages: u8,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Step {
    /// A peer does something.
    Do {
        peer: u8,
        deed: Deed,
    },
    /// The attacker writes something.
    Scribble(Scribble),
    /// Like `Do`, but inside the next operation, after so many moments of it.
    DoInside {
        after: u8,
        peer: u8,
        deed: Deed,
    },
    ScribbleInside {
        after: u8,
        deed: Scribble,
    },
    /// The process of a peer is killed.
    Die(u8),
    /// The heartbeat of a peer stops, or starts again.
    Suspect(u8),
    /// From now on this many pages are free.
    Pages(u8),
    /// This many milliseconds pass.
    Pass(u16),
}

/// What happens inside an operation.
#[derive(Debug, Clone, Copy)]
enum Inside {
    Do(usize, Deed),
    Scribble(Scribble),
}

struct Run {
    world: Rc<World>,
    geometry: Geometry,
    peers: [RefCell<Option<Rc<Peer>>>; PEERS],
    /// How many attachments there were; each counts as another process.
    processes: Cell<u32>,
    /// What will happen inside the current operation, and after how many moments.
    inside: RefCell<VecDeque<(u8, Inside)>>,
    /// Whether a step runs inside an operation now. Such steps do not nest.
    within: Cell<bool>,
    /// The peer that is in the middle of an operation.
    busy: Cell<usize>,
    /// Whether the attacker has written anything.
    scribbled: Cell<bool>,
}

thread_local! {
    static RUN: RefCell<Option<Rc<Run>>> = const { RefCell::new(None) };
}

/// Runs a program.
///
/// # Panics
/// If a property does not hold.
pub fn run(program: &Program) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| at_each_point(|_| interrupt()));
    let Some(run) = Run::new(program) else { return };
    let run = Rc::new(run);
    RUN.set(Some(Rc::clone(&run)));
    for step in program.steps.iter().take(STEPS) {
        run.step(*step);
    }
    run.inside.borrow_mut().clear();
    run.end();
    RUN.set(None);
}

/// A moment of an operation, at which the steps inside it may run.
fn interrupt() {
    let Some(run) = RUN.with_borrow(Option::clone) else { return };
    if run.within.get() {
        return;
    }
    let next = {
        let mut inside = run.inside.borrow_mut();
        match inside.front_mut() {
            Some((0, next)) => {
                let next = *next;
                inside.pop_front();
                next
            }
            Some((moments, _)) => {
                *moments -= 1;
                return;
            }
            None => return,
        }
    };
    run.within.set(true);
    match next {
        Inside::Scribble(scribble) => run.scribble(scribble),
        Inside::Do(peer, deed) if peer != run.busy.get() => run.deed(peer, deed),
        Inside::Do(..) => {}
    }
    run.within.set(false);
}

/// The shapes that a space can have.
fn shapes(index: u8) -> FormatOptions {
    let (peers, threads, regions) =
        pick(&[(4, 4, 16), (2, 1, 4), (5, 3, 600), (70, 2, 40)], index).unwrap_or((4, 4, 16));
    FormatOptions {
        capacity: BYTES,
        peers: Some(peers),
        threads: Some(threads),
        regions: Some(regions),
        lease_ms: u64::from(index & 0x40) << 4,
        ..FormatOptions::default()
    }
}

impl Run {
    fn new(program: &Program) -> Option<Self> {
        let options = shapes(program.shape);
        let geometry = Geometry::plan(&options).ok()?;
        let tables = geometry.fixed_tables().end().div_ceil(machine::PAGE);
        let pages = u32::try_from(tables).ok()?.saturating_add(program.pages.into());
        let world = World::new(pages, interrupt);
        let machine = world.machine();
        format(machine.window(), &machine, &options, Demand::Fitting).ok()?;
        Some(Self {
            world,
            geometry,
            peers: Default::default(),
            processes: Cell::new(1),
            inside: RefCell::default(),
            within: Cell::new(false),
            busy: Cell::new(PEERS),
            scribbled: Cell::new(false),
        })
    }

    fn step(&self, step: Step) {
        match step {
            Step::Do { peer, deed } => self.deed(usize::from(peer) % PEERS, deed),
            Step::Scribble(scribble) => self.scribble(scribble),
            Step::DoInside { after, peer, deed } => {
                self.later(after, Inside::Do(usize::from(peer) % PEERS, deed));
            }
            Step::ScribbleInside { after, deed } => self.later(after, Inside::Scribble(deed)),
            Step::Die(peer) => {
                if let Some(peer) = self.slot(usize::from(peer) % PEERS).take() {
                    peer.die();
                }
            }
            Step::Suspect(peer) => {
                if let Some(peer) = self.peer(usize::from(peer) % PEERS) {
                    self.world.suspect(peer.space.peer());
                }
            }
            Step::Pages(pages) => self.world.free_pages.set(pages.into()),
            Step::Pass(ms) => self.world.pass(u64::from(ms) * 1_000_000),
        }
    }

    fn later(&self, after: u8, inside: Inside) {
        self.inside.borrow_mut().push_back((after, inside));
    }

    fn slot(&self, index: usize) -> std::cell::RefMut<'_, Option<Rc<Peer>>> {
        // The index was taken modulo the number of peers.
        self.peers.get(index).unwrap_or(&self.peers[0]).borrow_mut()
    }

    fn peer(&self, index: usize) -> Option<Rc<Peer>> {
        self.slot(index).clone()
    }

    fn scribble(&self, scribble: Scribble) {
        self.scribbled.set(true);
        scribble.apply(&*self.world, &self.geometry);
    }

    /// A peer does something; it attaches first if it is not attached.
    fn deed(&self, index: usize, deed: Deed) {
        let before = self.world.begin();
        let was = self.busy.replace(index);
        if matches!(deed, Deed::AssumeDead(_)) && self.within.get() {
            // The peer may go on in the middle of an operation after it was declared dead, and nothing can stop it.
            // That counts as writing.
            self.scribbled.set(true);
        }
        let result = match self.peer(index) {
            Some(peer) => {
                let result = peer.does(deed);
                if deed.is_last() {
                    self.slot(index).take();
                }
                result
            }
            None => self.attach(index),
        };
        self.expect(result);
        self.busy.set(was);
        self.world.end(before);
    }

    fn attach(&self, index: usize) -> Result<(), DirectoryError> {
        let view = match View::open(self.world.machine()) {
            Ok(view) => view,
            Err(AttachError::Open(error)) => {
                assert!(self.scribbled.get(), "a whole space cannot be opened: {error}");
                return Ok(());
            }
            Err(_) => return Ok(()),
        };
        self.processes.set(self.processes.get() + 1);
        let peer = Peer::attach(view, self.processes.get());
        match peer {
            Ok(peer) => {
                *self.slot(index) = Some(Rc::new(peer));
                Ok(())
            }
            Err(AttachError::Directory(error)) => Err(error),
            Err(_) => Ok(()),
        }
    }

    /// Reads everything without being a peer.
    fn look_on(&self) {
        let before = self.world.begin();
        if let Ok(view) = View::look(self.world.machine()) {
            self.expect(peer::look(&view));
        }
        self.world.end(before);
    }

    /// Checks that no damage is reported unless the attacker has written something.
    fn expect(&self, result: Result<(), DirectoryError>) {
        if let Err(DirectoryError::Damaged(damage)) = result {
            assert!(self.scribbled.get(), "an honest space is damaged: {damage}");
        }
    }

    /// All peers detach; then one attaches again, and checks everything.
    fn end(&self) {
        self.busy.set(PEERS);
        for index in 0..PEERS {
            if let Some(peer) = self.slot(index).take() {
                let before = self.world.begin();
                let result = peer.does(Deed::LEAVE);
                self.expect(result);
                self.world.end(before);
            }
        }
        self.look_on();
        self.world.free_pages.set(u32::MAX);
        let before = self.world.begin();
        let attached = self.attach(0);
        self.expect(attached);
        if let Some(last) = self.peer(0) {
            let looked = last.looks_at_everything();
            self.expect(looked);
            let whole = last
                .makes_whole(Patience::LEAST)
                .map(|census| (census.active + census.creating + census.destroying, census.used));
            let right = whole == Ok((0, 0)) || self.scribbled.get();
            assert!(right, "afterwards not everything is whole and gone: {whole:?}");
            let left = last.does(Deed::LEAVE);
            self.expect(left);
        } else {
            assert!(self.scribbled.get(), "nobody can come back");
        }
        self.world.end(before);
        self.slot(0).take();
    }
}
