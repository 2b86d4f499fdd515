//! Programs that must not compile, and programs that must.
//!
//! Each example that must not compile stands beside one that does, so that it fails only for the reason that it is
//! about. rustdoc builds all of them in this crate's edition. `tests/compile.rs` also builds them in edition 2021,
//! and checks that the error is the expected one: its code follows the fence, or, for an error without a code, a
//! hidden line of the example has its message.
//!
//! # Where a lock is freed
//!
//! A guard borrows its handle, as a guard of `std` does, so the program keeps the handle:
//! ```
//! use commonhold::{Mapping, Mutex};
//! fn use_it(mapping: &Mapping) -> anyhow::Result<u64> {
//!     let count = mapping.open::<Mutex<u64>>(0)?;
//!     let guard = count.lock()?;
//!     Ok(guard.get() + mapping.open::<Mutex<u64>>(24)?.lock()?.get())
//! }
//! ```
//! A temporary handle is gone before the guard is used:
//! ```compile_fail,E0716
//! use commonhold::{Mapping, Mutex};
//! fn use_it(mapping: &Mapping) -> anyhow::Result<u64> {
//!     let guard = mapping.open::<Mutex<u64>>(0)?.lock()?;
//!     Ok(guard.get())
//! }
//! ```
//! A guard does not leave the block that its handle lives in:
//! ```compile_fail,E0597
//! use commonhold::{Mapping, Mutex};
//! fn use_it(mapping: &Mapping) -> anyhow::Result<u64> {
//!     let guard = {
//!         let count = mapping.open::<Mutex<u64>>(0)?;
//!         count.lock()?
//!     };
//!     Ok(guard.get())
//! }
//! ```
//! A guard does not leave the function that its handle lives in:
//! ```compile_fail,E0515
//! use commonhold::{Mapping, Mutex, MutexGuard};
//! fn taken(mapping: &Mapping) -> anyhow::Result<MutexGuard<'_, u64>> {
//!     let count = mapping.open::<Mutex<u64>>(0)?;
//!     Ok(count.lock()?)
//! }
//! ```
//! The handle is not dropped, or given away, while its lock is held:
//! ```compile_fail,E0505
//! use commonhold::Mutex;
//! fn use_it(count: Mutex<u64>) {
//!     let guard = count.lock().unwrap();
//!     drop(count);
//!     drop(guard);
//! }
//! ```
//!
//! In edition 2024 a guard in the last expression of a function is dropped before the function's variables:
//! ```edition2024
//! use commonhold::{Mapping, Mutex};
//! fn use_it(mapping: &Mapping) -> anyhow::Result<u64> {
//!     let count = mapping.open::<Mutex<u64>>(0)?;
//!     Ok(count.lock()?.get())
//! }
//! ```
//! In edition 2021 it is dropped after them, and outlives its handle:
//! ```compile_fail,E0597,edition2021
//! use commonhold::{Mapping, Mutex};
//! fn use_it(mapping: &Mapping) -> anyhow::Result<u64> {
//!     let count = mapping.open::<Mutex<u64>>(0)?;
//!     Ok(count.lock()?.get())
//! }
//! ```
//! A program for both editions puts the value into a variable first:
//! ```
//! use commonhold::{Mapping, Mutex};
//! fn use_it(mapping: &Mapping) -> anyhow::Result<u64> {
//!     let count = mapping.open::<Mutex<u64>>(0)?;
//!     let now = count.lock()?.get();
//!     Ok(now)
//! }
//! ```
//!
//! A guard that is not kept frees its lock at once. The compiler warns of that, here as an error:
//! ```compile_fail
//! # // error: unused `commonhold::MutexGuard` that must be used
//! #![deny(unused_must_use)]
//! use commonhold::{LockResult, Mutex};
//! fn use_it(count: &Mutex<u64>) -> LockResult<()> {
//!     count.lock()?;
//!     Ok(())
//! }
//! ```
//! It does not warn of `let _ = count.lock()?`, which does the same; `_guard` keeps the lock:
//! ```
//! #![deny(unused_must_use)]
//! use commonhold::{LockResult, Mutex};
//! fn use_it(count: &Mutex<u64>) -> LockResult<()> {
//!     let _guard = count.lock()?;
//!     let _ = count.lock()?;
//!     Ok(())
//! }
//! ```
//!
//! A lock is freed once:
//! ```compile_fail,E0382
//! use commonhold::Mapping;
//! fn use_it(mapping: Mapping) {
//!     let guard = mapping.lock().unwrap();
//!     guard.unlock().unwrap();
//!     guard.unlock().unwrap();
//! }
//! ```
//! A guard that was given to a condition variable is used again only when the variable gives it back:
//! ```compile_fail,E0382
//! use commonhold::{Condvar, LockResult, Mutex};
//! fn use_it(count: &Mutex<u64>, changed: &Condvar) -> LockResult<u64> {
//!     let guard = count.lock()?;
//!     changed.wait(guard)?;
//!     Ok(guard.get())
//! }
//! ```
//!
//! # Whose a guard is
//!
//! Handles may go to other threads, guards may not. The guard of a region's lock:
//! ```compile_fail,E0277
//! fn neighbour<T: Send>(_: T) {}
//! fn use_it(mapping: commonhold::Mapping) {
//!     neighbour(mapping.lock().unwrap());
//! }
//! ```
//! A reader's guard of it:
//! ```compile_fail,E0277
//! fn neighbour<T: Send>(_: T) {}
//! fn use_it(mapping: commonhold::Mapping) {
//!     neighbour(mapping.read_lock().unwrap());
//! }
//! ```
//! Its upgradable guard:
//! ```compile_fail,E0277
//! fn neighbour<T: Send>(_: T) {}
//! fn use_it(lock: commonhold::RegionLock) {
//!     neighbour(lock.upgradable_read().unwrap());
//! }
//! ```
//! The guard of a bare mutex:
//! ```compile_fail,E0277
//! fn neighbour<T: Send>(_: T) {}
//! fn use_it(mutex: commonhold::RawMutex) {
//!     neighbour(mutex.lock().unwrap());
//! }
//! ```
//! The guard of a mutex with its data:
//! ```compile_fail,E0277
//! fn neighbour<T: Send>(_: T) {}
//! fn use_it(count: commonhold::Mutex<u64>) {
//!     neighbour(count.lock().unwrap());
//! }
//! ```
//! The guard of a mutex that was left inconsistent:
//! ```compile_fail,E0277
//! fn neighbour<T: Send>(_: T) {}
//! fn use_it(count: commonhold::Mutex<u64>) {
//!     neighbour(count.lock_recover().unwrap());
//! }
//! ```
//! A part of the data:
//! ```compile_fail,E0277
//! fn neighbour<T: Send>(_: T) {}
//! fn use_it(table: commonhold::Mutex<[u64; 8]>) {
//!     let guard = table.lock().unwrap();
//!     neighbour(guard.at(3).unwrap());
//! }
//! ```
//! A reader's guard of a lock with its data:
//! ```compile_fail,E0277
//! fn neighbour<T: Send>(_: T) {}
//! fn use_it(table: commonhold::RwLock<[u64; 8]>) {
//!     neighbour(table.read().unwrap());
//! }
//! ```
//! A writer's guard of it:
//! ```compile_fail,E0277
//! fn neighbour<T: Send>(_: T) {}
//! fn use_it(table: commonhold::RwLock<[u64; 8]>) {
//!     neighbour(table.write().unwrap());
//! }
//! ```
//! The guard of the writer of a sequence lock:
//! ```compile_fail,E0277
//! fn neighbour<T: Send>(_: T) {}
//! fn use_it(state: commonhold::SeqLock<u64>) {
//!     neighbour(state.write().unwrap());
//! }
//! ```
//! The turn to make a value:
//! ```compile_fail,E0277
//! fn neighbour<T: Send>(_: T) {}
//! fn use_it(seed: commonhold::OnceLock<u64>) {
//!     neighbour(seed.begin().unwrap());
//! }
//! ```
//! The announcement that a thread waits for a process:
//! ```compile_fail,E0277
//! fn neighbour<T: Send>(_: T) {}
//! fn use_it(space: commonhold::Space) {
//!     neighbour(space.await_process(1).unwrap());
//! }
//! ```
//!
//! # What stays mapped
//!
//! A handle keeps its region mapped, so it can outlive the mapping that it came from. And a mapping can be
//! refreshed while its guards are held:
//! ```
//! use commonhold::Mapping;
//! fn use_it(mapping: Mapping) {
//!     let mutex = mapping.mutex(0).unwrap();
//!     let guard = mutex.lock().unwrap();
//!     mapping.refresh().unwrap();
//!     drop(mapping);
//!     guard.unlock().unwrap();
//! }
//! ```
//! A guard that was taken from the mapping itself borrows the mapping, which cannot be unmapped meanwhile:
//! ```compile_fail,E0505
//! use commonhold::Mapping;
//! fn use_it(mapping: Mapping) {
//!     let guard = mapping.lock().unwrap();
//!     mapping.unmap().unwrap();
//!     drop(guard);
//! }
//! ```
//! The same for a reader's guard:
//! ```compile_fail,E0505
//! use commonhold::Mapping;
//! fn use_it(mapping: Mapping) {
//!     let guard = mapping.read_lock().unwrap();
//!     drop(mapping);
//!     drop(guard);
//! }
//! ```
//! A part of the data does not outlive its guard:
//! ```compile_fail,E0505
//! use commonhold::Mutex;
//! fn use_it(table: Mutex<[u64; 8]>) {
//!     let guard = table.lock().unwrap();
//!     let part = guard.at(3).unwrap();
//!     drop(guard);
//!     part.set(1);
//! }
//! ```
//! Not even for one line:
//! ```compile_fail,E0716
//! use commonhold::Mutex;
//! fn use_it(table: Mutex<[u64; 8]>) {
//!     let part = table.lock().unwrap().at(3).unwrap();
//!     part.set(1);
//! }
//! ```
//!
//! # What is done under which guard
//!
//! A thread that takes an inconsistent lock repairs it, or gives it up:
//! ```
//! use commonhold::{Condvar, LockResult, Mutex, Recovered};
//! fn use_it(count: &Mutex<u64>, changed: &Condvar) -> LockResult<()> {
//!     let guard = match count.lock_recover()? {
//!         Recovered::Consistent(guard) => guard,
//!         Recovered::Inconsistent(guard) if guard.get() > 9 => return guard.give_up(),
//!         Recovered::Inconsistent(guard) => guard.mark_consistent()?,
//!     };
//!     changed.wait(guard)?.unlock()
//! }
//! ```
//! An ordinary guard cannot mark the lock as consistent:
//! ```compile_fail,E0599
//! use commonhold::{LockResult, Mutex};
//! fn use_it(count: &Mutex<u64>) -> LockResult<()> {
//!     drop(count.lock()?.mark_consistent()?);
//!     Ok(())
//! }
//! ```
//! Nor can it give the lock up:
//! ```compile_fail,E0599
//! use commonhold::{LockResult, Mutex};
//! fn use_it(count: &Mutex<u64>) -> LockResult<()> {
//!     count.lock()?.give_up()
//! }
//! ```
//! A guard of an inconsistent lock does not wait for a condition:
//! ```compile_fail,E0308
//! use commonhold::{Condvar, LockResult, Mutex, Recovered};
//! fn use_it(count: &Mutex<u64>, changed: &Condvar) -> LockResult<()> {
//!     match count.lock_recover()? {
//!         Recovered::Consistent(guard) => changed.wait(guard)?.unlock(),
//!         Recovered::Inconsistent(guard) => changed.wait(guard)?.unlock(),
//!     }
//! }
//! ```
//!
//! A reader only reads:
//! ```compile_fail,E0599
//! use commonhold::{LockResult, RwLock};
//! fn use_it(table: &RwLock<u64>) -> LockResult<()> {
//!     table.read()?.set(1);
//!     Ok(())
//! }
//! ```
//! So does the holder of an upgradable guard:
//! ```compile_fail,E0599
//! use commonhold::{LockResult, RwLock};
//! fn use_it(table: &RwLock<[u64; 8]>) -> LockResult<()> {
//!     table.upgradable_read()?.at(0)?.set(1);
//!     Ok(())
//! }
//! ```
//! A thread that has upgraded downgrades before it frees the lock:
//! ```
//! use commonhold::{LockResult, RwLock};
//! fn use_it(table: &RwLock<[u64; 8]>) -> LockResult<()> {
//!     let mut guard = table.upgradable_read()?;
//!     let writer = guard.upgrade()?;
//!     writer.at(0)?.set(1);
//!     writer.downgrade()?;
//!     guard.unlock()
//! }
//! ```
//! It cannot free the lock first:
//! ```compile_fail,E0505
//! use commonhold::{LockResult, RwLock};
//! fn use_it(table: &RwLock<[u64; 8]>) -> LockResult<()> {
//!     let mut guard = table.upgradable_read()?;
//!     let writer = guard.upgrade()?;
//!     guard.unlock()?;
//!     writer.downgrade()
//! }
//! ```
//!
//! # What may lie in shared bytes
//!
//! References are no data, also not `'static` ones: other processes have other addresses.
//! ```compile_fail,E0277
//! fn use_it(space: &commonhold::Space) {
//!     let name = space.record::<commonhold::Mutex<&'static str>>("name");
//! }
//! ```
//! Nor types whose contents lie elsewhere:
//! ```compile_fail,E0277
//! fn use_it(space: &commonhold::Space) {
//!     let name = space.record::<commonhold::Mutex<String>>("name");
//! }
//! ```
//! Nor types with invalid bit patterns: a neighbour can write any bytes:
//! ```compile_fail,E0277
//! fn use_it(space: &commonhold::Space) {
//!     let is_ready = space.record::<commonhold::SeqLock<bool>>("ready");
//! }
//! ```
//! Nor as a field (padding is refused too: see `plain!`):
//! ```compile_fail,E0277
//! commonhold::plain! {
//!     struct State { is_ready: bool }
//! }
//! ```
//!
//! A value that is too large for the stack is used in parts, or in a box:
//! ```
//! use commonhold::{LockResult, Mutex};
//! fn use_it(image: &Mutex<[u8; 4 << 20]>) -> LockResult<()> {
//!     let guard = image.lock()?;
//!     guard.slice(100..200)?.fill(&7);
//!     guard.set_from(&guard.get_boxed());
//!     Ok(())
//! }
//! ```
//! It cannot be copied by value. (Only a build finds this, and only for methods that the program calls.)
//! ```compile_fail,E0080
//! use commonhold::{LockResult, Mutex};
//! fn use_it(image: &Mutex<[u8; 4 << 20]>) -> LockResult<u8> {
//!     Ok(image.lock()?.get()[0])
//! }
//! # fn main() { std::hint::black_box(use_it as fn(&_) -> _); }
//! ```
//! The type of a semaphore says how many permits it has:
//! ```compile_fail,E0080
//! use commonhold::{RegionError, Semaphore, Space};
//! fn use_it(space: &Space) -> Result<Semaphore, RegionError> {
//!     space.record("scanners")
//! }
//! # fn main() { std::hint::black_box(use_it as fn(&_) -> _); }
//! ```

mod programs;
mod tasks;
