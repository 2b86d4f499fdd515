//! The order in which locks are taken, as types.
//!
//! Every lock has a *level*, and to take one needs a [`Token`] of what is held already. Taking it
//! borrows that token until the lock is given back, and hands out one for the level of the new lock. From
//! there only later levels can be reached: [`Space`], then [`Object`], then [`Leaf`], then [`Short`]. There is
//! no token of which one could reach an earlier level, so the wrong order does not compile.
//!
//! A fault handler may not wait. Its token is one of level [`Handler`]: from there, spaces and objects can only be
//! *tried*, and only [`Short`] locks can be taken.
//!
//! ```
//! use commonhold_mm::order::{Leaf, Object, Ordered, Space, Token};
//!
//! let space = Ordered::<parking_lot::RawMutex, Space, _>::new("mappings");
//! let object = Ordered::<parking_lot::RawMutex, Object, _>::new("pages");
//! let queue = Ordered::<parking_lot::RawMutex, Leaf, _>::new("pulses");
//!
//! let mut nothing = Token::nothing_held();
//! let (mappings, mut in_space) = space.lock(&mut nothing);
//! let (pages, mut in_object) = object.lock(&mut in_space);
//! let (pulses, _) = queue.lock(&mut in_object);
//! assert_eq!((*mappings, *pages, *pulses), ("mappings", "pages", "pulses"));
//! ```
//!
//! An object first, and then a space: rejected.
//!
//! ```compile_fail,E0277
//! use commonhold_mm::order::{Object, Ordered, Space, Token};
//!
//! let space = Ordered::<parking_lot::RawMutex, Space, _>::new(());
//! let object = Ordered::<parking_lot::RawMutex, Object, _>::new(());
//!
//! let mut nothing = Token::nothing_held();
//! let (pages, mut in_object) = object.lock(&mut nothing);
//! let (mappings, _) = space.lock(&mut in_object);
//! ```
//!
//! And the token from before cannot be used while the object is locked: rejected as well.
//!
//! ```compile_fail,E0499
//! use commonhold_mm::order::{Object, Ordered, Space, Token};
//!
//! let space = Ordered::<parking_lot::RawMutex, Space, _>::new(());
//! let object = Ordered::<parking_lot::RawMutex, Object, _>::new(());
//!
//! let mut nothing = Token::nothing_held();
//! let (pages, _in_object) = object.lock(&mut nothing);
//! let (mappings, _) = space.lock(&mut nothing);
//! drop(pages);
//! ```

//! A fault handler that waits for a lock: rejected.
//!
//! ```compile_fail,E0277
//! use commonhold_mm::order::{Object, Ordered, Token};
//!
//! let object = Ordered::<parking_lot::RawMutex, Object, _>::new(());
//! let mut handler = Token::handler();
//! let (pages, _) = object.lock(&mut handler);
//! ```
//!
//! It may try the lock, and may take a short one then:
//!
//! ```
//! use commonhold_mm::order::{Object, Ordered, Short, Token};
//!
//! let object = Ordered::<parking_lot::RawMutex, Object, _>::new("pages");
//! let queue = Ordered::<parking_lot::RawMutex, Short, _>::new("pulses");
//! let mut handler = Token::handler();
//! let (pages, mut tried) = object.try_lock(&mut handler).unwrap();
//! let (pulses, _) = queue.lock(&mut tried);
//! assert_eq!((*pages, *pulses), ("pages", "pulses"));
//! ```

use core::{fmt, marker::PhantomData};

use lock_api::{Mutex, MutexGuard, RawMutex, RawRwLock, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// No lock is held.
#[derive(Debug)]
pub enum Nothing {}
/// The lock of an address space.
#[derive(Debug)]
pub enum Space {}
/// The lock of a memory object.
#[derive(Debug)]
pub enum Object {}
/// A lock under which no other is taken.
#[derive(Debug)]
pub enum Leaf {}

/// A lock that is held for a short time only, never over a wait or an allocation: a fault handler may take it.
#[derive(Debug)]
pub enum Short {}
/// No lock is held, and the thread handles a fault.
#[derive(Debug)]
pub enum Handler {}
/// A fault handler holds a lock of level `L`, which was free.
#[derive(Debug)]
pub struct Tried<L>(PhantomData<fn() -> L>);

/// Levels after which a lock of level `L` may be taken.
pub trait Before<L> {}
impl Before<Short> for Nothing {}
impl Before<Short> for Space {}
impl Before<Short> for Object {}
impl Before<Short> for Leaf {}
impl Before<Short> for Handler {}
impl<L> Before<Short> for Tried<L> {}

/// Levels of a fault handler after which a lock of level `L` may be tried.
pub trait Tries<L> {}
impl Tries<Space> for Handler {}
impl Tries<Object> for Handler {}
impl Tries<Object> for Tried<Space> {}

impl Before<Space> for Nothing {}
impl Before<Object> for Nothing {}
impl Before<Leaf> for Nothing {}
impl Before<Object> for Space {}
impl Before<Leaf> for Space {}
impl Before<Leaf> for Object {}

/// Shows that a lock of level `L`, and none of a later one, is held by this thread.
#[derive(Debug)]
pub struct Token<'held, L> {
    held: PhantomData<(&'held mut (), L)>,
}

impl Token<'static, Nothing> {
    /// Where a thread begins: at the entrance of a public function, not with a lock held. There is no
    /// check of that; everything after it is checked.
    #[inline]
    #[must_use]
    pub const fn nothing_held() -> Self {
        Self { held: PhantomData }
    }
}

impl Token<'static, Handler> {
    /// Where a fault handler begins.
    #[inline]
    #[must_use]
    pub const fn handler() -> Self {
        Self { held: PhantomData }
    }
}

impl<L> Token<'_, L> {
    const fn new() -> Self {
        Token { held: PhantomData }
    }
}

/// The guard of a mutex that a fault handler has tried, and the token of its level.
pub type TriedMutex<'a, R, L, T> = (MutexGuard<'a, R, T>, Token<'a, Tried<L>>);

/// As [`TriedMutex`], of a reader/writer lock that was tried to read.
pub type TriedRead<'a, R, L, T> = (RwLockReadGuard<'a, R, T>, Token<'a, Tried<L>>);

/// A mutex with a level.
pub struct Ordered<R, L, T> {
    lock: Mutex<R, T>,
    level: PhantomData<fn() -> L>,
}

impl<R: RawMutex, L, T> Ordered<R, L, T> {
    /// A free mutex around `value`.
    pub const fn new(value: T) -> Self {
        Self { lock: Mutex::new(value), level: PhantomData }
    }

    /// Takes it, after those that `held` stands for.
    #[inline]
    pub fn lock<'a, H: Before<L>>(
        &'a self,
        _held: &'a mut Token<'_, H>,
    ) -> (MutexGuard<'a, R, T>, Token<'a, L>) {
        (self.lock.lock(), Token::new())
    }

    /// Takes it if it is free.
    #[inline]
    pub fn try_lock<'a, H: Tries<L>>(
        &'a self,
        _held: &'a mut Token<'_, H>,
    ) -> Option<TriedMutex<'a, R, L, T>> {
        Some((self.lock.try_lock()?, Token::new()))
    }

    /// The guarded value, through an exclusive reference to the mutex.
    pub fn get_mut(&mut self) -> &mut T {
        self.lock.get_mut()
    }
}

/// A reader/writer lock with a level.
pub struct OrderedRw<R, L, T> {
    lock: RwLock<R, T>,
    level: PhantomData<fn() -> L>,
}

impl<R: RawRwLock, L, T> OrderedRw<R, L, T> {
    /// A free lock around `value`.
    pub const fn new(value: T) -> Self {
        Self { lock: RwLock::new(value), level: PhantomData }
    }

    /// Takes it to read, after those that `held` stands for.
    #[inline]
    pub fn read<'a, H: Before<L>>(
        &'a self,
        _held: &'a mut Token<'_, H>,
    ) -> (RwLockReadGuard<'a, R, T>, Token<'a, L>) {
        (self.lock.read(), Token::new())
    }

    /// Takes it to read if nobody writes.
    #[inline]
    pub fn try_read<'a, H: Tries<L>>(
        &'a self,
        _held: &'a mut Token<'_, H>,
    ) -> Option<TriedRead<'a, R, L, T>> {
        Some((self.lock.try_read()?, Token::new()))
    }

    /// Takes it to write.
    #[inline]
    pub fn write<'a, H: Before<L>>(
        &'a self,
        _held: &'a mut Token<'_, H>,
    ) -> (RwLockWriteGuard<'a, R, T>, Token<'a, L>) {
        (self.lock.write(), Token::new())
    }

    /// The guarded value, through an exclusive reference to the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.lock.get_mut()
    }
}

impl<R, L, T> fmt::Debug for Ordered<R, L, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ordered").finish_non_exhaustive()
    }
}

impl<R, L, T> fmt::Debug for OrderedRw<R, L, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrderedRw").finish_non_exhaustive()
    }
}
