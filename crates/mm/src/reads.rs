//! Reads: the calls that ask a pager for a page, and how they end.
//!
//! A pager reads in one of two ways. [`Pager::read`](crate::Pager::read) blocks its thread. A pager that
//! [completes later](crate::Pager::completes_later) gets a request (`pager/request.rs`), and the worker is free: its
//! pulse is put off on the page as if another thread filled it.
//!
//! # What it owns
//! A list of the reads under way, in each object under its lock. An entry holds the page's claim until the read ends.
//!
//! # How a read ends
//! 1. The pager answers: the page gets the frame, or is `Bad`.
//! 2. It takes longer than [`Settings::patience`](crate::Settings::patience): the page is `Bad`, its waiters get
//!    [`PagerError::TimedOut`], and its place in the budgets is given back. The read stays in the list until the call
//!    returns, and the pager is not asked for this page meanwhile. If the call succeeds late, the page gets the frame
//!    after all.
//! 3. The object is cut below the page: then nobody wants the answer. A call that blocks a thread in time is waited for.
//!
//! # Invariants
//! 1. A page has one read in the list that is awaited or overdue, at most.
//! 2. An awaited read has a place in the budgets, and its page is `Filling`.
//! 3. A request holds no object alive. The object's end gives back the places of its reads.

use alloc::{boxed::Box, sync::Arc, sync::Weak};
use core::sync::atomic::Ordering;

use crate::{
    FaultError, Mmu, ObjectPage, PagerError, ReadRequest, State,
    fill::{Claim, Ended, Filled},
    manager::Core,
    object::{ObjectCore, ObjectState},
    order::Token,
    pager::Call,
    pulse::Ticket,
    serve::Served,
    share::has_room,
};

/// How many overdue reads an object may have. With more, its pager is not asked: each holds a thread or a frame.
const MOST_OVERDUE: usize = 4;

const TIMED_OUT: FaultError = FaultError::Pager(PagerError::TimedOut);

/// A read under way.
#[derive(Debug)]
pub(crate) struct Read {
    number: u64,
    claim: Claim,
    /// The tick at which it began.
    began: u64,
    way: Way,
    /// The pulse that waits for a call that blocks.
    ticket: Option<Ticket>,
    fate: Fate,
    /// A thread without a pulse asks for the result.
    polled: bool,
}

/// How a pager reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Blocking,
    Later,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The page is `Filling`.
    Awaited,
    /// It has taken too long; the page is `Bad`.
    Overdue,
    /// The object was cut below the page.
    Cut,
    /// The pager has answered, and the page is about to get its frame or the error.
    Ending,
    /// A thread is about to take the result.
    Ended(Result<(), FaultError>),
}

/// A read as its thread or its request holds it. Dropped, it fails.
struct Reading<M: Mmu> {
    object: Weak<ObjectCore<M>>,
    number: u64,
    frame: Option<M::Frame>,
    /// The error if it is dropped.
    dropped: PagerError,
}

/// A thread that waits for a request. Dropped, it waits no longer.
struct Poll<'a, M: Mmu> {
    object: &'a ObjectCore<M>,
    number: u64,
}

impl<M: Mmu> ObjectState<M> {
    fn read_mut(&mut self, number: u64) -> Option<&mut Read> {
        self.reads.iter_mut().find(|read| read.number == number)
    }
}

/// Bytes of what a request holds.
pub(crate) const fn size_of_request<M: Mmu>() -> usize {
    size_of::<Reading<M>>()
}

/// Whether a call for this page has taken too long and has not returned.
pub(crate) fn is_overdue(reads: &[Read], page: ObjectPage) -> bool {
    reads.iter().any(|read| read.claim.page == page && read.fate == Fate::Overdue)
}

impl<M: Mmu> ObjectCore<M> {
    /// Has the pager read a page that was claimed. Nothing is locked.
    pub(crate) fn read(
        self: &Arc<Self>,
        claim: Claim,
        frame: M::Frame,
        pulse: &mut Option<Served<M>>,
    ) -> Result<Filled, FaultError> {
        let page = claim.page;
        let way = if self.pager.completes_later() { Way::Later } else { Way::Blocking };
        let room = way == Way::Blocking || has_room::<Reading<M>>();
        let begun =
            if room { self.begin_read(claim, way, pulse) } else { Err(FaultError::NoMemory) };
        let (number, polled) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                drop(frame);
                self.end_filling(claim, Ended::Failed(error));
                return Err(error);
            }
        };
        let (object, frame) = (Arc::downgrade(self), Some(frame));
        let mut reading = Reading { object, number, frame, dropped: PagerError::Panicked };
        if way == Way::Blocking {
            let result = self.pager.read(page, reading.bytes());
            return reading.finish(result).map(|()| Filled::InMemory);
        }
        reading.dropped = PagerError::Abandoned;
        let poll = polled.then_some(Poll { object: self, number });
        self.pager.start_read(ReadRequest::new(page, Box::new(reading)));
        match poll {
            Some(poll) => poll.wait().map(|()| Filled::InMemory),
            None => Ok(Filled::Left),
        }
    }

    /// Puts a read on the list. Returns its number, and whether this thread has to ask for the result.
    fn begin_read(
        &self,
        claim: Claim,
        way: Way,
        pulse: &mut Option<Served<M>>,
    ) -> Result<(u64, bool), FaultError> {
        let mut nothing = Token::nothing_held();
        let (mut state, mut in_object) = self.state.lock(&mut nothing);
        if claim.page.number() >= state.size {
            return Err(FaultError::PastEnd);
        }
        if state.reads.iter().filter(|read| read.fate == Fate::Overdue).count() >= MOST_OVERDUE {
            return Err(TIMED_OUT);
        }
        state.reads.try_reserve(1).map_err(|_| FaultError::NoMemory)?;
        let ticket = pulse.as_ref().map(Served::ticket);
        let put_off = way == Way::Later
            && ticket
                .is_some_and(|ticket| self.put_off(&mut state, claim.page, ticket, &mut in_object));
        if put_off {
            *pulse = None;
        }
        let polled = way == Way::Later && !put_off;
        let number = state.next_read;
        state.next_read += 1;
        let ticket = ticket.filter(|_| way == Way::Blocking);
        let (began, fate) = (self.manager.now(), Fate::Awaited);
        state.reads.push(Read { number, claim, began, way, ticket, fate, polled });
        self.manager.reads.fetch_add(1, Ordering::Relaxed);
        Ok((number, polled))
    }

    /// Notes the pager's answer, and gives the page its frame.
    fn end_read(
        &self,
        number: u64,
        frame: M::Frame,
        result: Result<(), PagerError>,
    ) -> Result<(), FaultError> {
        let Some((page, wanted)) = self.take_answer(number, result.is_ok()) else {
            return Err(TIMED_OUT);
        };
        let result = match wanted {
            Ok(()) => {
                let result = result.map_err(FaultError::Pager);
                result.and_then(|()| self.settle(page, frame))
            }
            // Made ready by nobody, so it may be dropped whatever the page's state is.
            Err(error) => {
                drop(frame);
                Err(error)
            }
        };
        if wanted.is_ok() {
            self.budget.sort_if_grown();
            if result.is_err() {
                self.manager.unreserve(&self.budget);
            }
        }
        let mut nothing = Token::nothing_held();
        let (mut state, mut in_object) = self.state.lock(&mut nothing);
        let Some(place) = state.reads.iter().position(|read| read.number == number) else {
            return result;
        };
        let polled = state.reads.get_mut(place).filter(|read| read.polled);
        let claim = match polled {
            Some(read) => {
                read.fate = Fate::Ended(result);
                read.claim
            }
            None => state.reads.swap_remove(place).claim,
        };
        self.manager.reads.fetch_sub(1, Ordering::Relaxed);
        if wanted.is_ok() {
            self.note_end(&mut state, &mut in_object, claim, result.into());
        }
        drop(state);
        self.wake_failed();
        result
    }

    /// The page of a read whose pager has answered, and whether it still wants the frame.
    fn take_answer(&self, number: u64, ok: bool) -> Option<(ObjectPage, Result<(), FaultError>)> {
        let mut nothing = Token::nothing_held();
        let (mut state, _) = self.state.lock(&mut nothing);
        let ObjectState { pages, reads, .. } = &mut *state;
        let read = reads.iter_mut().find(|read| read.number == number)?;
        let page = read.claim.page;
        let wanted = match read.fate {
            Fate::Awaited => Ok(()),
            Fate::Overdue => {
                if read.way == Way::Blocking {
                    self.manager.stuck.fetch_sub(1, Ordering::Relaxed);
                }
                match pages.find_mut(page) {
                    Some(entry)
                        if ok
                            && entry.state == State::Bad
                            && self.manager.try_reserve(&self.budget) =>
                    {
                        entry.state = State::Filling;
                        read.claim.reserved = true;
                        Ok(())
                    }
                    _ => Err(TIMED_OUT),
                }
            }
            Fate::Cut | Fate::Ending | Fate::Ended(_) => Err(FaultError::PastEnd),
        };
        if wanted.is_ok() {
            read.fate = Fate::Ending;
        }
        Some((page, wanted))
    }

    /// Takes the answers that nobody wants any more: of reads of pages from `end` on that are overdue or complete later.
    /// Nothing is locked. `false` if there was none.
    pub(crate) fn cut_read(&self, end: ObjectPage) -> bool {
        self.give_up_read(Fate::Cut, FaultError::PastEnd, |read| {
            let waits = read.fate == Fate::Awaited && read.way == Way::Later;
            read.claim.page >= end && (waits || read.fate == Fate::Overdue)
        })
    }

    /// Gives up one read that has taken too long.
    fn expire_read(&self, now: u64, patience: u64) -> bool {
        self.give_up_read(Fate::Overdue, TIMED_OUT, |read| {
            read.fate == Fate::Awaited && now.saturating_sub(read.began) > patience
        })
    }

    fn give_up_read(&self, fate: Fate, error: FaultError, which: impl Fn(&Read) -> bool) -> bool {
        let mut nothing = Token::nothing_held();
        let (mut state, mut in_object) = self.state.lock(&mut nothing);
        let Some(read) = state.reads.iter_mut().find(|read| which(read)) else { return false };
        let before = core::mem::replace(&mut read.fate, fate);
        let reserved = core::mem::take(&mut read.claim.reserved);
        let (page, ticket) = (read.claim.page, read.ticket.take());
        let stuck = &self.manager.stuck;
        match (read.way, before, fate) {
            (Way::Blocking, Fate::Awaited, Fate::Overdue) => {
                stuck.fetch_add(1, Ordering::Relaxed);
            }
            (Way::Blocking, Fate::Overdue, _) => {
                stuck.fetch_sub(1, Ordering::Relaxed);
            }
            _ => {}
        }
        if before == Fate::Awaited {
            self.counts.failed.fetch_add(1, Ordering::Relaxed);
            if let Some(entry) = state.pages.find_mut(page) {
                entry.state = if fate == Fate::Overdue { State::Bad } else { State::Absent };
            }
            self.release_put_off(&mut state, &mut in_object, page, Ended::Failed(error));
        }
        drop(state);
        if reserved {
            self.manager.unreserve(&self.budget);
        }
        self.wake_failed();
        if let Some(ticket) = ticket {
            self.manager.end_pulse(ticket, Err(error));
        }
        true
    }

    /// The object is being dropped: the places of its reads are given back.
    pub(crate) fn drop_reads(&mut self) {
        for read in core::mem::take(&mut self.state.get_mut().reads) {
            if !matches!(read.fate, Fate::Ended(_)) {
                self.manager.reads.fetch_sub(1, Ordering::Relaxed);
            }
            if read.claim.reserved {
                self.manager.unreserve(&self.budget);
            }
        }
    }
}

impl<M: Mmu> Core<M> {
    /// One tick has passed: gives up the reads that have taken too long.
    pub(crate) fn tick(&self) {
        // Relaxed: a read that sees an earlier tick is given up a tick earlier.
        let now = self.ticks.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let Some(patience) = self.settings.patience else { return };
        let mut last = 0;
        while self.reads.load(Ordering::Relaxed) > 0 {
            let Some(object) = self.next_object(last) else { return };
            last = object.number;
            while object.expire_read(now, patience) {}
        }
    }

    /// How many ticks there were.
    pub(crate) fn now(&self) -> u64 {
        self.ticks.load(Ordering::Relaxed)
    }
}

impl<M: Mmu> Reading<M> {
    fn finish(&mut self, result: Result<(), PagerError>) -> Result<(), FaultError> {
        let Some(frame) = self.frame.take() else { return Err(TIMED_OUT) };
        // Without its object, nobody wants the page.
        let Some(object) = self.object.upgrade() else { return Err(FaultError::NotMapped) };
        object.end_read(self.number, frame, result)
    }
}

impl<M: Mmu> Call for Reading<M> {
    fn bytes(&mut self) -> &mut [u8] {
        self.frame.as_mut().map(AsMut::as_mut).unwrap_or_default()
    }

    fn end(&mut self, result: Result<(), PagerError>) {
        // Its waiters get an error from the object.
        let _ = self.finish(result);
    }
}

impl<M: Mmu> Drop for Reading<M> {
    fn drop(&mut self) {
        self.end(Err(self.dropped));
    }
}

impl<M: Mmu> Poll<'_, M> {
    /// Waits for the result.
    fn wait(&self) -> Result<(), FaultError> {
        let mut attempt = 0_u32;
        loop {
            let mut nothing = Token::nothing_held();
            let (mut state, _) = self.object.state.lock(&mut nothing);
            match state.read_mut(self.number).map(|read| read.fate) {
                Some(Fate::Awaited | Fate::Ending) => {}
                Some(Fate::Ended(result)) => return result,
                Some(Fate::Cut) => return Err(FaultError::PastEnd),
                Some(Fate::Overdue) | None => return Err(TIMED_OUT),
            }
            drop(state);
            attempt = attempt.saturating_add(1);
            self.object.manager.mmu.idle(attempt);
        }
    }
}

impl<M: Mmu> Drop for Poll<'_, M> {
    fn drop(&mut self) {
        let mut nothing = Token::nothing_held();
        let (mut state, _) = self.object.state.lock(&mut nothing);
        let ended = |read: &Read| matches!(read.fate, Fate::Ended(_));
        state.reads.retain(|read| read.number != self.number || !ended(read));
        if let Some(read) = state.read_mut(self.number) {
            read.polled = false;
        }
    }
}
