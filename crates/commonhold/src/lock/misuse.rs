//! What must not compile. Each example stands beside one that does, so that it fails for no other
//! reason than the one it is about.
//!
//! What may go to another thread: spaces, mappings, and locks that are not held.
//! ```
//! use commonhold::{Mapping, Space};
//! fn neighbour<T: Send>(_: T) {}
//! fn use_it(space: &Space, mapping: Mapping) {
//!     neighbour(space.clone());
//!     neighbour(mapping.region_lock());
//!     neighbour(mapping.mutex(0));
//!     neighbour(mapping.event(8));
//!     neighbour(mapping);
//! }
//! ```
//!
//! A lock held alone is freed by the thread that took it, and no other:
//! ```compile_fail,E0277
//! use commonhold::{Mapping, Space};
//! fn neighbour<T: Send>(_: T) {}
//! fn use_it(space: &Space, mapping: Mapping) {
//!     neighbour(mapping.lock().unwrap());
//! }
//! ```
//! So is a lock held to read:
//! ```compile_fail,E0277
//! use commonhold::{Mapping, Space};
//! fn neighbour<T: Send>(_: T) {}
//! fn use_it(space: &Space, mapping: Mapping) {
//!     neighbour(mapping.read_lock().unwrap());
//! }
//! ```
//! And a mutex:
//! ```compile_fail,E0277
//! use commonhold::{Mapping, Space};
//! fn neighbour<T: Send>(_: T) {}
//! fn use_it(space: &Space, mapping: Mapping) {
//!     neighbour(mapping.mutex(0).unwrap().lock().unwrap());
//! }
//! ```
//! And one held upgradable:
//! ```compile_fail,E0277
//! use commonhold::{Mapping, Space};
//! fn neighbour<T: Send>(_: T) {}
//! fn use_it(space: &Space, mapping: Mapping) {
//!     neighbour(mapping.region_lock().unwrap().upgradable_read().unwrap());
//! }
//! ```
//! And a sequence lock held to write:
//! ```compile_fail,E0277
//! use commonhold::{Mapping, SeqLock, Space};
//! fn neighbour<T: Send>(_: T) {}
//! fn use_it(space: &Space, mapping: Mapping) {
//!     neighbour(mapping.open::<SeqLock<u64>>(0).unwrap().write().unwrap());
//! }
//! ```
//! That a thread waits for a process is about this thread:
//! ```compile_fail,E0277
//! use commonhold::{Mapping, Space};
//! fn neighbour<T: Send>(_: T) {}
//! fn use_it(space: &Space, mapping: Mapping) {
//!     neighbour(space.await_process(1).unwrap());
//! }
//! ```
//!
//! What lies in a region is used while it is mapped:
//! ```
//! use commonhold::{Mapping, Space};
//! fn use_it(space: &Space, mapping: Mapping) {
//!     let lock = mapping.region_lock().unwrap();
//!     let mutex = mapping.mutex(0).unwrap();
//!     let event = mapping.event(8).unwrap();
//!     drop((lock.lock().unwrap(), mutex.lock().unwrap(), event.sequence()));
//!     mapping.unmap().unwrap();
//! }
//! ```
//! Its lock is not used after that:
//! ```compile_fail,E0505
//! use commonhold::{Mapping, Space};
//! fn use_it(space: &Space, mapping: Mapping) {
//!     let lock = mapping.region_lock().unwrap();
//!     mapping.unmap().unwrap();
//!     drop(lock.lock().unwrap());
//! }
//! ```
//! Nor is a mutex in it:
//! ```compile_fail,E0505
//! use commonhold::{Mapping, Space};
//! fn use_it(space: &Space, mapping: Mapping) {
//!     let mutex = mapping.mutex(0).unwrap();
//!     mapping.unmap().unwrap();
//!     drop(mutex.lock().unwrap());
//! }
//! ```
//! Nor an event:
//! ```compile_fail,E0505
//! use commonhold::{Mapping, Space};
//! fn use_it(space: &Space, mapping: Mapping) {
//!     let event = mapping.event(8).unwrap();
//!     mapping.unmap().unwrap();
//!     event.signal().unwrap();
//! }
//! ```
//! It is not unmapped under its owner's feet:
//! ```compile_fail,E0505
//! use commonhold::{Mapping, Space};
//! fn use_it(space: &Space, mapping: Mapping) {
//!     let guard = mapping.lock().unwrap();
//!     mapping.unmap().unwrap();
//!     drop(guard);
//! }
//! ```
//! Nor under a reader's:
//! ```compile_fail,E0505
//! use commonhold::{Mapping, Space};
//! fn use_it(space: &Space, mapping: Mapping) {
//!     let guard = mapping.read_lock().unwrap();
//!     drop(mapping);
//!     drop(guard);
//! }
//! ```
//! Nor is it looked at anew, as another size may move its pages:
//! ```compile_fail,E0502
//! use commonhold::{Mapping, Space};
//! fn use_it(space: &Space, mut mapping: Mapping) {
//!     let mutex = mapping.mutex(0).unwrap();
//!     mapping.refresh().unwrap();
//!     drop(mutex.lock().unwrap());
//! }
//! ```
//!
//! Who has upgraded goes back before it frees the lock:
//! ```
//! use commonhold::{Mapping, Space};
//! fn use_it(space: &Space, mapping: Mapping) {
//!     let mut guard = mapping.region_lock().unwrap().upgradable_read().unwrap();
//!     let writer = guard.upgrade().unwrap();
//!     writer.downgrade().unwrap();
//!     guard.unlock().unwrap();
//! }
//! ```
//! And not the other way round:
//! ```compile_fail,E0505
//! use commonhold::{Mapping, Space};
//! fn use_it(space: &Space, mapping: Mapping) {
//!     let mut guard = mapping.region_lock().unwrap().upgradable_read().unwrap();
//!     let writer = guard.upgrade().unwrap();
//!     guard.unlock().unwrap();
//!     writer.downgrade().unwrap();
//! }
//! ```
//!
//! A lock is freed once:
//! ```compile_fail,E0382
//! use commonhold::{Mapping, Space};
//! fn use_it(space: &Space, mapping: Mapping) {
//!     let guard = mapping.lock().unwrap();
//!     guard.unlock().unwrap();
//!     guard.unlock().unwrap();
//! }
//! ```
