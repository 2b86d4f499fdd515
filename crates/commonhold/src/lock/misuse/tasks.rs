//! Tasks of tokio. After each `.await` a task may go on in another thread. Handles go with it, but guards do not.
//!
//! A handle is moved into a task, and its lock is freed before the next `.await`:
//! ```
//! use commonhold::{LockResult, Mutex};
//! use tokio::task::{JoinHandle, yield_now};
//! fn use_it(count: Mutex<u64>) -> JoinHandle<LockResult<u64>> {
//!     tokio::spawn(async move {
//!         let before = count.lock()?.get();
//!         yield_now().await;
//!         count.lock()?.with_mut(|count| *count += 1);
//!         Ok(before)
//!     })
//! }
//! ```
//! All handles can be moved into a task and kept across an `.await`:
//! ```
//! use commonhold::{
//!     Barrier, Condvar, Event, LockError, Mapping, Mutex, OnceLock, RawMutex, Records, Region, RegionLock, RwLock,
//!     Semaphore, SeqLock, Space, Value,
//! };
//! use tokio::task::yield_now;
//! fn use_locks(count: Mutex<u64>, table: RwLock<u64>, state: SeqLock<u64>, raw: RawMutex, lock: RegionLock) {
//!     tokio::spawn(async move {
//!         yield_now().await;
//!         table.write()?.set(count.lock()?.get() + state.read()?);
//!         yield_now().await;
//!         drop((raw.lock()?, lock.read_lock()?));
//!         Ok::<(), LockError>(())
//!     });
//! }
//! fn use_the_family(seed: OnceLock<u64>, changed: Condvar, pool: Semaphore<4>, steps: Barrier<2>, arrived: Event) {
//!     tokio::spawn(async move {
//!         yield_now().await;
//!         pool.acquire()?.release()?;
//!         steps.join()?.arrive()?;
//!         yield_now().await;
//!         seed.get_or_init(|| arrived.sequence())?;
//!         changed.notify_all()
//!     });
//! }
//! fn use_memory(rows: Records<Mutex<u64>>, beat: Value<u64>, mapping: Mapping, region: Region, space: Space) {
//!     tokio::spawn(async move {
//!         yield_now().await;
//!         beat.store(rows.get(0)?.lock()?.get())?;
//!         mapping.set(0, &region.size())?;
//!         space.reap()?;
//!         Ok::<(), LockError>(())
//!     });
//! }
//! ```
//! A whole program, which is also correct after a crash:
//! ```
//! use commonhold::{LockError, Mutex, Space};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let url = format!("shm:doc-task-{}", std::process::id());
//! # let space = Space::open_or_format(&url)?;
//! let runtime = tokio::runtime::Builder::new_current_thread().build()?;
//! // One number is never half changed.
//! let count = space.record::<Mutex<u64>>("count")?.repaired_by(|_| Ok(()));
//! let task = runtime.spawn(async move {
//!     count.lock()?.with_mut(|count| *count += 1);
//!     tokio::task::yield_now().await;
//!     let now = count.lock()?.get();
//!     Ok::<u64, LockError>(now)
//! });
//! assert!(runtime.block_on(task)?? >= 1);
//! # drop(space);
//! # commonhold::Space::remove(&url, commonhold::Removal::IfUnused)?;
//! # Ok(())
//! # }
//! ```
//!
//! # What is not held across an `.await`
//!
//! A guard belongs to its thread, so a task that holds one across an `.await` does not compile. The guard of a mutex:
//! ```compile_fail
//! # // error: future cannot be sent between threads safely
//! # use commonhold::Mutex;
//! fn use_it(count: Mutex<u64>) {
//!     tokio::spawn(async move {
//!         let guard = count.lock()?;
//!         tokio::task::yield_now().await;
//!         guard.unlock()
//!     });
//! }
//! ```
//! The guard of a mutex that was left inconsistent:
//! ```compile_fail
//! # // error: future cannot be sent between threads safely
//! # use commonhold::{LockError, Mutex};
//! fn use_it(count: Mutex<u64>) {
//!     tokio::spawn(async move {
//!         let guard = count.lock_recover()?;
//!         tokio::task::yield_now().await;
//!         drop(guard);
//!         Ok::<(), LockError>(())
//!     });
//! }
//! ```
//! A reader's guard:
//! ```compile_fail
//! # // error: future cannot be sent between threads safely
//! # use commonhold::RwLock;
//! fn use_it(table: RwLock<u64>) {
//!     tokio::spawn(async move {
//!         let guard = table.read()?;
//!         tokio::task::yield_now().await;
//!         guard.unlock()
//!     });
//! }
//! ```
//! A writer's guard:
//! ```compile_fail
//! # // error: future cannot be sent between threads safely
//! # use commonhold::RwLock;
//! fn use_it(table: RwLock<u64>) {
//!     tokio::spawn(async move {
//!         let guard = table.write()?;
//!         tokio::task::yield_now().await;
//!         guard.unlock()
//!     });
//! }
//! ```
//! The guard of a lock held upgradable:
//! ```compile_fail
//! # // error: future cannot be sent between threads safely
//! # use commonhold::RwLock;
//! fn use_it(table: RwLock<u64>) {
//!     tokio::spawn(async move {
//!         let guard = table.upgradable_read()?;
//!         tokio::task::yield_now().await;
//!         guard.unlock()
//!     });
//! }
//! ```
//! The guard of the writer of a sequence lock:
//! ```compile_fail
//! # // error: future cannot be sent between threads safely
//! # use commonhold::SeqLock;
//! fn use_it(state: SeqLock<u64>) {
//!     tokio::spawn(async move {
//!         let guard = state.write()?;
//!         tokio::task::yield_now().await;
//!         guard.unlock()
//!     });
//! }
//! ```
//! The turn to make a value:
//! ```compile_fail
//! # // error: future cannot be sent between threads safely
//! # use commonhold::{LockError, OnceLock};
//! fn use_it(seed: OnceLock<u64>) {
//!     tokio::spawn(async move {
//!         let guard = seed.begin()?;
//!         tokio::task::yield_now().await;
//!         drop(guard);
//!         Ok::<(), LockError>(())
//!     });
//! }
//! ```
//! A permit of a semaphore:
//! ```compile_fail
//! # // error: future cannot be sent between threads safely
//! # use commonhold::Semaphore;
//! fn use_it(scanners: Semaphore<4>) {
//!     tokio::spawn(async move {
//!         let guard = scanners.acquire()?;
//!         tokio::task::yield_now().await;
//!         guard.release()
//!     });
//! }
//! ```
//! A participant of a barrier:
//! ```compile_fail
//! # // error: future cannot be sent between threads safely
//! # use commonhold::Barrier;
//! fn use_it(steps: Barrier<2>) {
//!     tokio::spawn(async move {
//!         let guard = steps.join()?;
//!         tokio::task::yield_now().await;
//!         guard.leave()
//!     });
//! }
//! ```
//! The guard of a bare mutex:
//! ```compile_fail
//! # // error: future cannot be sent between threads safely
//! # use commonhold::RawMutex;
//! fn use_it(mutex: RawMutex) {
//!     tokio::spawn(async move {
//!         let guard = mutex.lock()?;
//!         tokio::task::yield_now().await;
//!         guard.unlock()
//!     });
//! }
//! ```
//! The guard of a region's lock:
//! ```compile_fail
//! # // error: future cannot be sent between threads safely
//! # use commonhold::Mapping;
//! fn use_it(mapping: Mapping) {
//!     tokio::spawn(async move {
//!         let guard = mapping.lock()?;
//!         tokio::task::yield_now().await;
//!         guard.unlock()
//!     });
//! }
//! ```
//! A reader's guard of a region's lock:
//! ```compile_fail
//! # // error: future cannot be sent between threads safely
//! # use commonhold::Mapping;
//! fn use_it(mapping: Mapping) {
//!     tokio::spawn(async move {
//!         let guard = mapping.read_lock()?;
//!         tokio::task::yield_now().await;
//!         guard.unlock()
//!     });
//! }
//! ```
//! The guard of a region's lock held upgradable:
//! ```compile_fail
//! # // error: future cannot be sent between threads safely
//! # use commonhold::RegionLock;
//! fn use_it(lock: RegionLock) {
//!     tokio::spawn(async move {
//!         let guard = lock.upgradable_read()?;
//!         tokio::task::yield_now().await;
//!         guard.unlock()
//!     });
//! }
//! ```
//! The announcement that a thread waits for a process:
//! ```compile_fail
//! # // error: future cannot be sent between threads safely
//! # use commonhold::{RegionError, Space};
//! fn use_it(space: Space) {
//!     tokio::spawn(async move {
//!         let waiting = space.await_process(1)?;
//!         tokio::task::yield_now().await;
//!         drop(waiting);
//!         Ok::<(), RegionError>(())
//!     });
//! }
//! ```
