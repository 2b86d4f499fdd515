//! The mappings of a space by address.
//!
//! A sorted sequence in chunks. A search looks into one short array of first pages, then into one chunk, so its
//! cost hardly grows with the number of mappings. Memory is taken before anything changes, and an allocation
//! that fails is an error.

use alloc::vec::Vec;

use crate::Error;

/// Mappings in a chunk at most.
const CHUNK: usize = 64;

/// Values by the number of their first page.
#[derive(Debug)]
pub(crate) struct Index<V> {
    /// The first key of each chunk.
    firsts: Vec<u64>,
    /// None of them is empty.
    chunks: Vec<Chunk<V>>,
    len: usize,
}

#[derive(Debug)]
struct Chunk<V> {
    keys: Vec<u64>,
    values: Vec<V>,
}

impl<V> Chunk<V> {
    fn new() -> Result<Self, Error> {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        keys.try_reserve_exact(CHUNK)?;
        values.try_reserve_exact(CHUNK)?;
        Ok(Self { keys, values })
    }
}

impl<V> Index<V> {
    pub(crate) const fn new() -> Self {
        Self { firsts: Vec::new(), chunks: Vec::new(), len: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The value with the greatest key that is at most `key`.
    #[inline]
    pub(crate) fn at_or_before(&self, key: u64) -> Option<&V> {
        let (chunk, place) = self.place_before(key)?;
        self.chunks.get(chunk)?.values.get(place)
    }

    /// As [`at_or_before`](Self::at_or_before), mutable.
    pub(crate) fn at_or_before_mut(&mut self, key: u64) -> Option<&mut V> {
        let (chunk, place) = self.place_before(key)?;
        self.chunks.get_mut(chunk)?.values.get_mut(place)
    }

    #[inline]
    fn place_before(&self, key: u64) -> Option<(usize, usize)> {
        let chunk = self.firsts.partition_point(|first| *first <= key).checked_sub(1)?;
        let place = self.chunks.get(chunk)?.keys.partition_point(|k| *k <= key).checked_sub(1)?;
        Some((chunk, place))
    }

    /// The values whose key is at least `key`, in order.
    pub(crate) fn from(&self, key: u64) -> impl Iterator<Item = &V> {
        let (chunk, place) = match self.place_before(key) {
            None => (0, 0),
            Some((chunk, place)) => {
                let exact = self.chunks.get(chunk).and_then(|c| c.keys.get(place)) == Some(&key);
                (chunk, if exact { place } else { place + 1 })
            }
        };
        let head =
            self.chunks.get(chunk).into_iter().flat_map(move |c| c.values.iter().skip(place));
        let rest = self.chunks.iter().skip(chunk + 1).flat_map(|c| c.values.iter());
        head.chain(rest)
    }

    /// Puts `value` at `key`, which has none yet.
    ///
    /// # Errors
    /// [`Error::NoMemory`]; then nothing has changed.
    pub(crate) fn insert(&mut self, key: u64, value: V) -> Result<(), Error> {
        let mut chunk = self.firsts.partition_point(|first| *first <= key).saturating_sub(1);
        match self.chunks.get(chunk).map(|c| c.keys.len()) {
            None => self.add_chunk(0, Chunk::new()?, key)?,
            Some(CHUNK) => {
                self.make_room(chunk, key)?;
                chunk = self.firsts.partition_point(|first| *first <= key).saturating_sub(1);
            }
            Some(_) => {}
        }
        if let (Some(into), Some(first)) = (self.chunks.get_mut(chunk), self.firsts.get_mut(chunk))
        {
            let place = into.keys.partition_point(|k| *k < key);
            // Room for both was reserved when the chunk was made.
            into.keys.insert(place, key);
            into.values.insert(place, value);
            *first = (*first).min(key);
            self.len += 1;
        }
        Ok(())
    }

    fn add_chunk(&mut self, place: usize, chunk: Chunk<V>, first: u64) -> Result<(), Error> {
        self.firsts.try_reserve(1)?;
        self.chunks.try_reserve(1)?;
        self.firsts.insert(place, first);
        self.chunks.insert(place, chunk);
        Ok(())
    }

    /// Makes room in a full chunk into which `key` belongs: cuts it into halves. If `key` lies behind the last key
    /// of all, it adds an empty chunk instead, so mapping in rising order fills every chunk.
    fn make_room(&mut self, place: usize, key: u64) -> Result<(), Error> {
        let last = place + 1 == self.chunks.len();
        let last_key = self.chunks.get(place).and_then(|chunk| chunk.keys.last());
        if last && last_key.is_some_and(|last| *last < key) {
            return self.add_chunk(place + 1, Chunk::new()?, key);
        }
        self.firsts.try_reserve(1)?;
        self.chunks.try_reserve(1)?;
        let mut upper = Chunk::new()?;
        let Some(lower) = self.chunks.get_mut(place) else { return Ok(()) };
        upper.keys.extend(lower.keys.drain(CHUNK / 2..));
        upper.values.extend(lower.values.drain(CHUNK / 2..));
        match upper.keys.first() {
            Some(&first) => self.add_chunk(place + 1, upper, first),
            None => Ok(()),
        }
    }

    /// Takes the value at `key` out.
    pub(crate) fn remove(&mut self, key: u64) -> Option<V> {
        let (chunk, place) = self.place_before(key)?;
        let from = self.chunks.get_mut(chunk)?;
        if from.keys.get(place) != Some(&key) {
            return None;
        }
        from.keys.remove(place);
        let value = from.values.remove(place);
        self.len -= 1;
        match from.keys.first() {
            Some(&first) => *self.firsts.get_mut(chunk)? = first,
            None => {
                self.firsts.remove(chunk);
                self.chunks.remove(chunk);
            }
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, vec::Vec};

    use proptest::prelude::*;

    use super::Index;

    proptest! {
        #[test]
        fn it_behaves_as_an_ordered_map(
            steps in prop::collection::vec((any::<bool>(), 0_u64..400), 0..2000)
        ) {
            let (mut index, mut map) = (Index::new(), BTreeMap::new());
            for (insert, key) in steps {
                if insert && !map.contains_key(&key) {
                    index.insert(key, key * 3).unwrap();
                    map.insert(key, key * 3);
                } else if !insert {
                    prop_assert_eq!(index.remove(key), map.remove(&key));
                }
                prop_assert_eq!(index.len(), map.len());
                prop_assert_eq!(index.at_or_before(key), map.range(..=key).next_back().map(|(_, v)| v));
            }
            for key in 0..400 {
                let (ours, theirs): (Vec<_>, Vec<_>) =
                    (index.from(key).collect(), map.range(key..).map(|(_, v)| v).collect());
                prop_assert_eq!(ours, theirs);
            }
        }
    }
}
