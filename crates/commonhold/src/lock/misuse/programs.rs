//! Typical programs. All of them must compile, in every edition. The examples beside them that must not compile
//! differ in one thing each.
//!
//! `?` passes on what goes wrong, whatever the function returns:
//! ```
//! use commonhold::{LockError, LockResult, Mutex, Space};
//! fn by_anyhow(space: &Space) -> anyhow::Result<u64> {
//!     let count = space.record::<Mutex<u64>>("count")?;
//!     let guard = count.lock()?;
//!     guard.with_mut(|count| *count += 1);
//!     let now = guard.get();
//!     guard.unlock()?;
//!     Ok(now)
//! }
//! fn by_any_error(count: &Mutex<u64>) -> Result<u64, Box<dyn std::error::Error>> {
//!     Ok(count.lock()?.get())
//! }
//! fn by_any_error_of_a_thread(count: &Mutex<u64>) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
//!     Ok(count.lock()?.get())
//! }
//! fn by_its_own(count: &Mutex<[u64; 2]>) -> LockResult<u64> {
//!     let guard = count.lock()?;
//!     Ok(guard.at(0)?.get() + guard.slice(..)?.iter().sum::<u64>())
//! }
//! fn owned<E: std::error::Error + Send + Sync + 'static>(_: E) {}
//! fn kept(error: LockError) {
//!     owned(error);
//! }
//! ```
//!
//! So it does in a repair, without type annotations:
//! ```
//! use anyhow::Context as _;
//! use commonhold::{LockResult, Mutex, RwLock};
//! fn repaired(name: Mutex<[u8; 8]>, table: &RwLock<[u64; 2]>) -> LockResult<()> {
//!     let name = name.repaired_by(|name| {
//!         let text = std::str::from_utf8(&name.get())?.parse::<u64>()?.to_string();
//!         name.slice(..text.len())?.copy_from(text.as_bytes())?;
//!         Ok(())
//!     });
//!     name.lock()?.at(0)?.set(b'1');
//!     drop(table.read_repairing(|table| {
//!         let first = table.at(0).context("a table of nothing")?.get();
//!         Ok(table.at(1)?.set(first))
//!     })?);
//!     Ok(())
//! }
//! ```
//!
//! Handles are fields of a struct beside their space, in an `Arc` too, and need no lifetime:
//! ```
//! use std::sync::Arc;
//! use commonhold::{
//!     Barrier, Condvar, Event, Mapping, Mutex, OnceLock, RawMutex, Records, RegionError, RegionLock, RwLock, Semaphore,
//!     SeqLock, Space, Value,
//! };
//! #[derive(Debug, Clone)]
//! struct Service {
//!     count: Mutex<u64>,
//!     table: RwLock<[u64; 8]>,
//!     state: SeqLock<[u64; 4]>,
//!     seed: OnceLock<u64>,
//!     changed: Condvar,
//!     pool: Semaphore<4>,
//!     steps: Barrier<2>,
//!     arrived: Event,
//!     raw: RawMutex,
//!     lock: RegionLock,
//!     rows: Records<Mutex<u64>>,
//!     beat: Value<u64>,
//!     mapping: Mapping,
//!     space: Space,
//! }
//! fn shared<T: Clone + Send + Sync + 'static>(_: T) {}
//! fn use_it(service: Service) {
//!     shared(service.clone());
//!     let service = Arc::new(service);
//!     let theirs = Arc::clone(&service);
//!     let thread = std::thread::spawn(move || theirs.count.lock().map(|guard| guard.get()));
//!     std::thread::scope(|scope| scope.spawn(|| service.table.read().map(|guard| guard.get())).join()).unwrap().unwrap();
//!     thread.join().unwrap().unwrap();
//! }
//! fn given_away(space: Space) -> Result<Mutex<u64>, RegionError> {
//!     // What keeps the region mapped goes with the handle.
//!     space.record("count")
//! }
//! ```
//!
//! A program's own types, with this crate as the only dependency:
//! ```
//! use commonhold::{Mutex, Record, SeqLock, Space, field, plain, records};
//! plain! {
//!     #[derive(PartialEq, Default)]
//!     pub struct Point { pub x: f64, pub y: f64 }
//! }
//! plain! {
//!     struct Path { length: u64, points: [Point; 16] }
//! }
//! records! {
//!     pub struct Car { pub at: SeqLock<Point>, path: Mutex<Path> }
//! }
//! records! {
//!     struct Fleet { first: Car, second: Car }
//! }
//! fn drive(space: &Space) -> anyhow::Result<()> {
//!     let fleet: Fleet = space.record("fleet")?;
//!     assert_eq!(Fleet::SIZE, 2 * Car::SIZE);
//!     let path = fleet.first.path.lock()?;
//!     let next = path.field(field!(Path, points)).at(3)?;
//!     next.field(field!(Point, x)).with_mut(|x| *x += 1.0);
//!     path.field(field!(Path, length)).set(4);
//!     fleet.first.at.write()?.set(next.get());
//!     let x = fleet.first.at.read_field(field!(Point, x))?;
//!     assert_eq!(fleet.first.at.read()?, Point { x, y: 0.0 });
//!     Ok(())
//! }
//! ```
//!
//! All forms of waiting for a condition:
//! ```
//! use std::time::Duration;
//! use commonhold::{Condvar, LockResult, Mutex, Waited};
//! fn next(count: &Mutex<u64>, changed: &Condvar) -> LockResult<Option<u64>> {
//!     let mut guard = count.lock()?;
//!     while guard.get() == 0 {
//!         guard = changed.wait(guard)?;
//!     }
//!     let guard = changed.wait_while(guard, |count| count.get() < 3)?;
//!     let (guard, waited) = changed.wait_for(guard, Duration::from_millis(10))?;
//!     Ok((waited != Waited::TimedOut).then(|| guard.get()))
//! }
//! ```
