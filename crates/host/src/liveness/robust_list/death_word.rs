//! Having the kernel mark a thread's life word when that thread ends, by any way to end.
//!
//! The C library registers a robust list for each thread. Its field `list_op_pending` names the futex that the thread is
//! about to take or to free. The C library writes that field only in the middle of operations on robust mutexes. Else
//! it is null, and a life word may stand there: it costs nothing per lock, and needs no list of our own.
//!
//! # What it owns
//! That field of the calling thread while it points to a word of ours; and the addresses that fields of any thread
//! of this process may point to: *aliases*, mappings of the rows of life words that are used for nothing else.
//!
//! # Invariants
//! 1. The field is written only if it is null or points into an alias: else a robust operation, or another library, is
//!    at work. The head of the list is asked for each time, as it may have been replaced.
//! 2. An address that was an alias once is never anything else: when the alias is given up, memory that nobody
//!    can touch takes its place. So a field that still points there, of a thread that is not ours to stop, can have
//!    the kernel write nowhere. The address may be an alias again; the words there say who has them.
//! 3. A forked child has no alias of its parent's (`MADV_DONTFORK`), and forgets what its field points to.
//!
//! # What it does not do
//! It gives no meaning to the word: `commonhold_sync::ThreadSlot` does. It does not promise that a word is marked: a
//! robust mutex that the thread uses later takes the field back, and a thread may end without its list.

use std::{
    cell::Cell,
    ffi::c_void,
    mem, ptr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, compiler_fence},
    },
};

use commonhold_layout::{Extent, Offset};
use rustix::{
    fd::BorrowedFd,
    mm::{self, Advice, MapFlags, ProtFlags},
};

use super::{Head, registered};
use crate::fork::{ChildTask, ForkGuard};

/// Addresses that can be aliases: attachments at one time, and sizes of rows.
const RANGES: usize = 1024;

/// A range that nobody has used.
const UNUSED: u32 = 0;
/// It is an alias, or about to become one.
const TAKEN: u32 = 1;
/// It was an alias, and is memory that nobody can touch.
const GIVEN_UP: u32 = 2;

static ALL: [Range; RANGES] = [const { Range::new() }; RANGES];

thread_local! {
    /// What the calling thread's field points to: the range, its use, and the process.
    static ARMED: Cell<Option<(usize, u64, u64)>> = const { Cell::new(None) };
}

/// Addresses that are, or were, an alias.
#[derive(Debug)]
struct Range {
    state: AtomicU32,
    /// 0 until there is one.
    start: AtomicUsize,
    len: AtomicUsize,
    /// How often it has become an alias.
    uses: AtomicU64,
}

impl Range {
    const fn new() -> Self {
        Self {
            state: AtomicU32::new(UNUSED),
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            uses: AtomicU64::new(0),
        }
    }

    fn has(&self, address: usize) -> bool {
        // Acquire: pairs with the Release of whoever made it, so the length is that of this start.
        let start = self.start.load(Ordering::Acquire);
        start != 0
            && address.checked_sub(start).is_some_and(|at| at < self.len.load(Ordering::Relaxed))
    }

    fn take(&self, from: u32) -> bool {
        // Acquire: pairs with the Release of `give_up`.
        self.state.compare_exchange(from, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Addresses of `len` bytes that nobody else uses: of a former alias, or new ones.
    fn reserve(len: usize) -> Option<&'static Self> {
        let fits = |range: &&Self| range.len.load(Ordering::Relaxed) == len;
        if let Some(range) = ALL.iter().filter(fits).find(|range| range.take(GIVEN_UP)) {
            return Some(range);
        }
        let range = ALL.iter().find(|range| range.take(UNUSED))?;
        let Some(start) = untouchable(ptr::null_mut(), len) else {
            range.state.store(UNUSED, Ordering::Release);
            return None;
        };
        range.len.store(len, Ordering::Relaxed);
        // Release: pairs with the Acquire in `has`.
        range.start.store(start, Ordering::Release);
        Some(range)
    }

    /// Makes memory that nobody can touch of it, and lets others have it.
    fn give_up(&self) {
        let start = self.start.load(Ordering::Relaxed);
        let len = self.len.load(Ordering::Relaxed);
        let place = ptr::without_provenance_mut(start);
        // If the kernel has no memory for that, the range stays as it is, and nobody else has it.
        if untouchable(place, len) == Some(start) {
            self.state.store(GIVEN_UP, Ordering::Release);
        }
    }
}

/// Memory of `len` bytes that nobody can touch, at `place` in the stead of what was there, or anywhere if that is null.
fn untouchable(place: *mut c_void, len: usize) -> Option<usize> {
    let fixed = if place.is_null() { MapFlags::empty() } else { MapFlags::FIXED };
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | fixed;
    // SAFETY: `mmap_anonymous` wants no pointer into a range that it replaces: with a null hint it replaces none, and
    // else the range is an alias, to which only the kernel has addresses.
    let mapped = unsafe { mm::mmap_anonymous(place, len, ProtFlags::empty(), flags) };
    mapped.ok().map(|start| start.addr())
}

/// The list that is registered for the calling thread, if it has the form that we know.
fn head() -> Option<&'static Head> {
    let (head, len) = registered().ok()?;
    if len != mem::size_of::<Head>() {
        return None;
    }
    // SAFETY: `as_ref` wants null, or a pointer that is aligned and valid for as long as the reference is used: the
    // kernel was told of it by the C library, which keeps it as long as the thread lives, and it is used in this
    // call only. Nobody but this thread writes it, and the kernel reads it when the thread is over.
    unsafe { head.as_ref() }
}

/// The futex that an entry of the list stands for, and back.
fn futex_of(head: &Head, entry: usize) -> usize {
    entry.wrapping_add_signed(isize::try_from(head.futex_offset).unwrap_or(0))
}

fn entry_of(head: &Head, futex: usize) -> usize {
    futex.wrapping_sub(isize::try_from(head.futex_offset).unwrap_or(0).cast_unsigned())
}

/// The words of the threads of one attachment, where the kernel may mark them.
#[derive(Debug)]
pub(crate) struct DeathWords {
    alias: Mutex<State>,
    guard: ForkGuard,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Unused,
    /// The range with this index, at a place in the window that begins there, in its use of this number.
    Mapped {
        range: usize,
        begins: u64,
        uses: u64,
    },
    Over,
}

impl DeathWords {
    pub(crate) const fn new(guard: ForkGuard) -> Self {
        Self { alias: Mutex::new(State::Unused), guard }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.alias.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the kernel mark the word at `at`, which lies in `row`, when the calling thread ends. `file` is that of the
    /// window, mapped in pages of `page` bytes.
    pub(crate) fn arm(&self, file: BorrowedFd<'_>, page: u64, row: Extent, at: Offset) -> bool {
        ChildTask::ForgetDeathWords.set(forget_in_child);
        let Some(head) = head() else { return false };
        let mut state = self.state();
        if matches!(*state, State::Unused)
            && let Some(mapped) = map(file, page, row)
        {
            *state = mapped;
        }
        let State::Mapped { range, begins, uses } = *state else { return false };
        let Some(alias) = ALL.get(range) else { return false };
        let within = at.get().checked_sub(begins).and_then(|within| usize::try_from(within).ok());
        let futex = within.and_then(|at| alias.start.load(Ordering::Relaxed).checked_add(at));
        let Some(futex) = futex.filter(|futex| alias.has(*futex)) else { return false };
        let seen = head.list_op_pending.load(Ordering::Relaxed);
        if seen != 0 && !is_free(futex_of(head, seen), self.guard) {
            return false;
        }
        head.list_op_pending.store(entry_of(head, futex), Ordering::Relaxed);
        // What is done after this is done with the field written, should the thread end.
        compiler_fence(Ordering::SeqCst);
        ARMED.set(Some((range, uses, self.guard.epoch())));
        true
    }

    /// Has the kernel leave the word at `at` alone when the calling thread ends.
    pub(crate) fn disarm(&self, at: Offset) {
        let State::Mapped { range, begins, .. } = *self.state() else { return };
        let (Some(head), Some(alias)) = (head(), ALL.get(range)) else { return };
        let within = at.get().checked_sub(begins).and_then(|within| usize::try_from(within).ok());
        let futex = within.map(|at| alias.start.load(Ordering::Relaxed).wrapping_add(at));
        let seen = head.list_op_pending.load(Ordering::Relaxed);
        if seen != 0 && futex == Some(futex_of(head, seen)) {
            head.list_op_pending.store(0, Ordering::Relaxed);
            compiler_fence(Ordering::SeqCst);
            ARMED.set(None);
        }
    }

    /// Has the kernel leave all words alone, of whichever threads.
    pub(crate) fn disarm_all(&self) {
        if self.guard.is_forked_child() {
            return;
        }
        let before = mem::replace(&mut *self.state(), State::Over);
        if let State::Mapped { range, .. } = before
            && let Some(alias) = ALL.get(range)
        {
            alias.give_up();
        }
    }
}

impl Drop for DeathWords {
    fn drop(&mut self) {
        self.disarm_all();
    }
}

/// Maps the pages that a row lies in.
fn map(file: BorrowedFd<'_>, page: u64, row: Extent) -> Option<State> {
    let begins = row.start().get() & !(page - 1);
    let len = commonhold_layout::align_up(row.end().checked_sub(begins)?, page)?;
    let len = usize::try_from(len).ok()?;
    let range = Range::reserve(len)?;
    let place = ptr::without_provenance_mut(range.start.load(Ordering::Relaxed));
    let access = ProtFlags::READ | ProtFlags::WRITE;
    let flags = MapFlags::SHARED | MapFlags::NORESERVE | MapFlags::FIXED;
    // SAFETY: `mmap` wants no pointer into a range that it replaces: the range is reserved, and memory that nobody
    // can touch.
    let mapped = unsafe { mm::mmap(place, len, access, flags, file, begins) };
    // SAFETY: `madvise` wants a range whose change of meaning hurts nobody: this one is ours and new.
    let advised =
        mapped.and_then(|start| unsafe { mm::madvise(start, len, Advice::LinuxDontFork) });
    if advised.is_err() {
        range.give_up();
        return None;
    }
    let uses = range.uses.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
    let range = ALL.iter().position(|known| ptr::eq(known, range))?;
    Some(State::Mapped { range, begins, uses })
}

/// Whether the field of the calling thread, which stands for this futex, may be written: the futex is one of ours, and
/// not one that is still to be marked.
fn is_free(futex: usize, guard: ForkGuard) -> bool {
    if !ALL.iter().any(|range| range.has(futex)) {
        return false;
    }
    let Some((range, uses, epoch)) = ARMED.get() else { return true };
    let in_use = ALL.get(range).is_some_and(|range| {
        range.state.load(Ordering::Relaxed) == TAKEN
            && range.uses.load(Ordering::Relaxed) == uses
            && range.has(futex)
    });
    !in_use || epoch != guard.epoch()
}

/// Forgets what the field of the calling thread points to, in a child made by `fork`: only atomics and a system call.
fn forget_in_child() {
    ARMED.set(None);
    let Some(head) = head() else { return };
    let seen = head.list_op_pending.load(Ordering::Relaxed);
    if seen != 0 && ALL.iter().any(|range| range.has(futex_of(head, seen))) {
        head.list_op_pending.store(0, Ordering::Relaxed);
    }
}
