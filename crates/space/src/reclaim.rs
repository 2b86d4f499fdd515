//! Releasing memory in free extents.
//!
//! A free extent may have memory because some process touched it in passing: a core dump reads every hole of what it
//! dumps, and so does a reader of `/proc/PID/mem`. No region owns that memory, so nothing else would ever release it.
//!
//! # What it owns
//! The search for such memory, and the entry that keeps it from becoming a region's meanwhile.
//!
//! # Invariants
//! 1. Free extents are first looked for without the directory mutex, which proves nothing. Under the mutex the extent
//!    is checked again, and given to an entry that is being freed, with this thread as its actor. From then on it is
//!    freed like a region's extent: no other entry gets it before its memory is released, and if this thread dies,
//!    the next peer that comes across the entry completes it.
//! 2. This commits no memory: it uses only an entry that has memory.
//! 3. It does what can be done at once. It skips an extent that is no longer free, and one for which there is no free
//!    entry; it stops if the directory mutex is busy. The next creation that lacks memory searches again.

use core::fmt::{self, Write};

use commonhold_layout::{Extent, Name, RegionId, RegionState};
use commonhold_sync::Thread;

use crate::{
    Attached, CreateOptions, DirectoryError, Platform, View,
    budget::Budget,
    directory::{Directory, FreeExtent},
};

/// Most bytes that are withheld at one time from peers that may be looking for room.
const PIECE: u64 = 1 << 30;

impl<P: Platform> Attached<P> {
    /// Releases the memory in free extents, and returns how many bytes that was.
    pub(crate) fn reclaim(&self, me: &Thread<'_>, budget: Budget) -> Result<u64, DirectoryError> {
        let view = self.view();
        let (mut after, mut given) = (0, 0_u64);
        for _ in 0..=view.geometry().regions() {
            // An error may only mean that another thread is changing the links.
            let Ok((gap, next)) = view.gap_after(after) else { break };
            for piece in pieces(gap) {
                let bytes = view.platform().resident(piece);
                if bytes > 0 {
                    match self.reclaim_piece(me, piece, budget.renewed(view)) {
                        Ok(true) => given = given.saturating_add(bytes),
                        Ok(false) => {}
                        Err(error) if error.is_busy() => return Ok(given),
                        Err(error) => return Err(error),
                    }
                }
            }
            if next == 0 {
                break;
            }
            after = next;
        }
        Ok(given)
    }

    /// False if the piece is not free any more, or there is no entry for it.
    fn reclaim_piece(
        &self,
        me: &Thread<'_>,
        piece: Extent,
        budget: Budget,
    ) -> Result<bool, DirectoryError> {
        let directory = self.view().directory(me, budget)?;
        let Some((region, state)) = directory.take_free(piece)? else { return Ok(false) };
        let freeing = self.free_as_actor(region, state)?.ok_or(DirectoryError::Fenced)?;
        drop(directory);
        self.free(me, region, freeing, budget)?;
        Ok(true)
    }
}

impl<P: Platform> Directory<'_, P> {
    /// Gives a free extent to a new entry, of which this thread is the actor.
    fn take_free(&self, piece: Extent) -> Result<Option<(RegionId, RegionState)>, DirectoryError> {
        let view: &View<P> = self.view;
        let Some(after) = self.find_gap(piece)? else { return Ok(None) };
        let region = match self.free_entry() {
            Ok(Ok(region)) => region,
            Ok(Err(_)) | Err(DirectoryError::NoEntry { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(name) = name_of(region) else { return Ok(None) };
        if self.find(&name)?.is_some() || view.is_fenced() {
            return Ok(None);
        }
        let place = FreeExtent { extent: piece, after };
        let state = self.write_entry(region, &name, &place, &CreateOptions::default())?;
        Ok(Some((region, state)))
    }

    /// The link of the extent that the whole free piece follows; `None` if the piece is not free.
    fn find_gap(&self, piece: Extent) -> Result<Option<u64>, DirectoryError> {
        let mut after = 0;
        for _ in 0..=self.view.geometry().regions() {
            let (gap, next) = self.view.gap_after(after)?;
            if gap.start() <= piece.start() && piece.end() <= gap.end() {
                return Ok(Some(after));
            }
            if next == 0 || gap.end() > piece.start().get() {
                break;
            }
            after = next;
        }
        Ok(None)
    }
}

/// Parts of a free extent, in order.
fn pieces(gap: Extent) -> impl Iterator<Item = Extent> {
    (0..gap.len().div_ceil(PIECE)).filter_map(move |index| {
        let at = index * PIECE;
        gap.part(at, PIECE.min(gap.len().checked_sub(at)?))
    })
}

/// The name of the entry meanwhile, which listings show. It contains the entry's number, so no other entry has it.
fn name_of(region: RegionId) -> Option<Name> {
    let mut text = Text { bytes: [0; 32], len: 0 };
    write!(text, "(memory to give back {})", region.get()).ok()?;
    Name::new(core::str::from_utf8(text.bytes.get(..text.len)?).ok()?).ok()
}

/// A short text.
struct Text {
    bytes: [u8; 32],
    len: usize,
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len.checked_add(text.len()).ok_or(fmt::Error)?;
        self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}
