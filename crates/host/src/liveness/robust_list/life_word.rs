//! Life words: the kernel marks a thread's life word when that thread ends, however it ends.
//!
//! The C library registers a robust list for each thread. The list's field `list_op_pending` names the futex that the
//! thread is about to take or to free. The C library writes that field only during operations on robust mutexes; at
//! other times it is null. While it is null, we let it point to the thread's life word (we *arm* the word). That costs
//! nothing per lock, and needs no list of our own.
//!
//! # What it owns
//! - That field of the calling thread, while it points to a life word.
//! - The *aliases*: extra mappings of the rows of life words, made only so that such fields can point into them.
//!
//! # Invariants
//! 1. The field is written only if it is null or points into an alias. Otherwise a robust operation, or another
//!    library, uses it. The field lies in the head of the list. Another library may register another list at any time,
//!    so the kernel is asked for the address of the head before each write, and the address is not remembered.
//! 2. An alias is given up when its attachment ends. Other threads' fields may still point into it, and only those
//!    threads can change them. So its addresses are never used for other memory, which the kernel would then mark.
//!    Inaccessible memory takes the place of the alias: the kernel cannot write there. The addresses may later become
//!    the alias of another attachment. This is safe, since the kernel marks a word only if it has the id of the thread
//!    that ends.
//! 3. A forked child has no alias of its parent's (`MADV_DONTFORK`), and clears its field if that points into one.
//!
//! # What it does not do
//! It gives no meaning to the word: `commonhold_sync::ThreadSlot` does. It does not promise that a word is marked: if
//! the thread uses a robust mutex later, the C library overwrites the field, and a thread may end without its list.

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

/// Most ranges of addresses for aliases. Each attachment uses one; a given-up range is reused only for a row of the
/// same size.
const RANGES: usize = 1024;

/// The range has no addresses yet.
const UNUSED: u32 = 0;
/// It is an alias, or about to become one.
const TAKEN: u32 = 1;
/// It was an alias, and is inaccessible memory now.
const GIVEN_UP: u32 = 2;

static ALL: [Range; RANGES] = [const { Range::new() }; RANGES];

thread_local! {
    /// What the calling thread's field points to: the index of the range, the number of its use, the epoch of the
    /// process.
    static ARMED: Cell<Option<(usize, u64, u64)>> = const { Cell::new(None) };
}

/// Addresses that are, or were, an alias.
#[derive(Debug)]
struct Range {
    state: AtomicU32,
    /// 0 until the range has addresses.
    start: AtomicUsize,
    len: AtomicUsize,
    /// How often the range has become an alias.
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
        // Acquire: pairs with the Release in `reserve`, so the length belongs to this start.
        let start = self.start.load(Ordering::Acquire);
        start != 0
            && address.checked_sub(start).is_some_and(|at| at < self.len.load(Ordering::Relaxed))
    }

    fn take(&self, from: u32) -> bool {
        // Acquire: pairs with the Release in `give_up` and `reserve`.
        self.state.compare_exchange(from, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Takes a range of `len` bytes: a former alias of that length, or new addresses.
    fn reserve(len: usize) -> Option<&'static Self> {
        let fits = |range: &&Self| range.len.load(Ordering::Relaxed) == len;
        if let Some(range) = ALL.iter().filter(fits).find(|range| range.take(GIVEN_UP)) {
            return Some(range);
        }
        let range = ALL.iter().find(|range| range.take(UNUSED))?;
        let Some(start) = untouchable(ptr::null_mut(), len) else {
            // Release: pairs with the Acquire in `take`.
            range.state.store(UNUSED, Ordering::Release);
            return None;
        };
        range.len.store(len, Ordering::Relaxed);
        // Release: pairs with the Acquire in `has`.
        range.start.store(start, Ordering::Release);
        Some(range)
    }

    /// Makes the range inaccessible, and free to be taken again.
    fn give_up(&self) {
        let start = self.start.load(Ordering::Relaxed);
        let len = self.len.load(Ordering::Relaxed);
        let place = ptr::without_provenance_mut(start);
        // If the kernel has no memory for that, the range stays mapped and taken for ever.
        if untouchable(place, len) == Some(start) {
            // Release: pairs with the Acquire in `take`.
            self.state.store(GIVEN_UP, Ordering::Release);
        }
    }
}

/// Maps `len` bytes of inaccessible memory: at `place`, replacing what was there, or anywhere if `place` is null.
fn untouchable(place: *mut c_void, len: usize) -> Option<usize> {
    let fixed = if place.is_null() { MapFlags::empty() } else { MapFlags::FIXED };
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | fixed;
    // SAFETY: `mmap_anonymous` wants no pointer into a range that it replaces. With a null hint it replaces none.
    // Otherwise the range is an alias, into which only fields for the kernel point.
    let mapped = unsafe { mm::mmap_anonymous(place, len, ProtFlags::empty(), flags) };
    mapped.ok().map(|start| start.addr())
}

/// The head of the list that is registered for the calling thread; `None` if its length is not the one that we know.
fn head() -> Option<&'static Head> {
    let (head, len) = registered().ok()?;
    if len != mem::size_of::<Head>() {
        return None;
    }
    // SAFETY: `as_ref` wants null, or an aligned pointer that is valid while the reference is used. The C library
    // registered it and keeps it valid as long as the thread lives; our callers use it only during their call, in
    // this thread. Only this thread writes the head, and the kernel reads it when the thread ends.
    unsafe { head.as_ref() }
}

/// The address of the futex of a list entry.
fn futex_of(head: &Head, entry: usize) -> usize {
    entry.wrapping_add_signed(isize::try_from(head.futex_offset).unwrap_or(0))
}

/// The address of the list entry of a futex.
fn entry_of(head: &Head, futex: usize) -> usize {
    futex.wrapping_sub(isize::try_from(head.futex_offset).unwrap_or(0).cast_unsigned())
}

/// The alias of one attachment's row of life words.
#[derive(Debug)]
pub(crate) struct DeathWords {
    alias: Mutex<State>,
    guard: ForkGuard,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Unused,
    /// The alias is the range with index `range`, in its use number `uses`. It maps the window from offset `begins`
    /// on.
    Mapped {
        range: usize,
        begins: u64,
        uses: u64,
    },
    /// Given up; there will be no other.
    Over,
}

impl DeathWords {
    pub(crate) const fn new(guard: ForkGuard) -> Self {
        Self { alias: Mutex::new(State::Unused), guard }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.alias.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the kernel mark the word at offset `at`, which lies in `row`, when the calling thread ends. `file` is the
    /// window's, mapped in pages of `page` bytes. `false` if the field is in use, or an alias or a list cannot be had.
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
        // No fence for other threads: the kernel reads the field when this thread ends. The compiler must not move
        // later accesses before the store.
        compiler_fence(Ordering::SeqCst);
        ARMED.set(Some((range, uses, self.guard.epoch())));
        true
    }

    /// Undoes [`arm`](Self::arm) for the word at offset `at`, if the calling thread's field points to it.
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

    /// Gives the alias up: from now on the kernel marks no word of this attachment for any thread.
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

/// Makes an alias of the pages that contain `row`.
fn map(file: BorrowedFd<'_>, page: u64, row: Extent) -> Option<State> {
    let begins = row.start().get() & !(page - 1);
    let len = commonhold_layout::align_up(row.end().checked_sub(begins)?, page)?;
    let len = usize::try_from(len).ok()?;
    let range = Range::reserve(len)?;
    let place = ptr::without_provenance_mut(range.start.load(Ordering::Relaxed));
    let access = ProtFlags::READ | ProtFlags::WRITE;
    let flags = MapFlags::SHARED | MapFlags::NORESERVE | MapFlags::FIXED;
    // SAFETY: `mmap` wants no pointer into a range that it replaces: the range was reserved for us, and is
    // inaccessible.
    let mapped = unsafe { mm::mmap(place, len, access, flags, file, begins) };
    // SAFETY: `madvise` wants a range that no other code relies on: this one is ours and new.
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

/// Whether the calling thread's field, which points to `futex`, may be written: `futex` is in an alias, and it is not
/// a word of an open attachment that this thread has armed.
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

/// Clears the field of the calling thread if it points into an alias. Runs in children made by `fork`, so it uses
/// only atomics and a system call.
fn forget_in_child() {
    ARMED.set(None);
    let Some(head) = head() else { return };
    let seen = head.list_op_pending.load(Ordering::Relaxed);
    if seen != 0 && ALL.iter().any(|range| range.has(futex_of(head, seen))) {
        head.list_op_pending.store(0, Ordering::Relaxed);
    }
}
