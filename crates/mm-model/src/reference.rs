//! A simple model of the memory manager, without locks: objects are maps from pages to bytes, spaces are maps from
//! pages to what they show. It has no mappings, no slots and no policy, and no page ever leaves memory.
//!
//! Each operation has at most two functions: one returns the expected result and changes nothing, the other does
//! the operation.

use alloc::collections::{BTreeMap, BTreeSet};

use commonhold_mm::{Access, Error, FaultError, Kind, Pages, Protection, VirtualPage, VirtualSpan};

/// How many bytes at the beginning of a page programs store and load; all others are zeros.
pub const BYTES: usize = 8;
/// The first page of every space.
pub const FIRST: u64 = 3;
/// How many pages every space has.
pub const LENGTH: u64 = 12;

pub(crate) type ObjectId = usize;
pub(crate) type SpaceId = usize;

/// All that can be observed.
#[derive(Debug, Default, Clone)]
pub(crate) struct Model {
    pub(crate) objects: BTreeMap<ObjectId, ObjectModel>,
    pub(crate) spaces: BTreeMap<SpaceId, SpaceModel>,
}

#[derive(Debug, Clone)]
pub(crate) struct ObjectModel {
    pub(crate) kind: Kind,
    pub(crate) size: u64,
    /// Which budget it has; `None` for the shared one.
    pub(crate) budget: Option<usize>,
    pub(crate) destroyed: bool,
    /// Pages that are not zeros.
    pub(crate) bytes: BTreeMap<u64, [u8; BYTES]>,
    /// Pages that may have been in memory since they came to be.
    pub(crate) touched: BTreeSet<u64>,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct SpaceModel {
    pub(crate) pages: BTreeMap<u64, Shown>,
    pub(crate) super_locked: bool,
    pub(crate) lock_future: bool,
}

/// What a page of a space shows, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) object: ObjectId,
    pub(crate) page: u64,
    pub(crate) protection: Protection,
    pub(crate) lazy: bool,
    pub(crate) locked: bool,
    /// This space has accessed it since the object has it.
    pub(crate) used: bool,
    /// An operation was to bring it in, and reported that it failed.
    pub(crate) missing: bool,
}

/// Where a mapping is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Into the first gap that is large enough.
    Anywhere,
    /// To this page, if nothing is mapped there.
    Fixed(u64),
    /// To this page, in place of what is mapped there.
    Replace(u64),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) object: ObjectId,
    pub(crate) place: Place,
    pub(crate) offset: u64,
    pub(crate) pages: u64,
    pub(crate) protection: Protection,
    pub(crate) lazy: bool,
    pub(crate) locked: bool,
}

impl Model {
    fn space(&mut self, space: SpaceId) -> &mut SpaceModel {
        self.spaces.entry(space).or_default()
    }

    /// The place that the space shows, whatever the object has there.
    pub(crate) fn shown(&self, space: SpaceId, at: u64) -> Option<&Shown> {
        self.spaces[&space].pages.get(&at)
    }

    /// What a page of an object reads as.
    pub(crate) fn bytes(&self, object: ObjectId, page: u64) -> [u8; BYTES] {
        self.objects[&object].bytes.get(&page).copied().unwrap_or_default()
    }

    /// Whether some space has the page locked, referenced or not.
    pub(crate) fn is_kept(&self, object: ObjectId, page: u64) -> bool {
        self.spaces.values().any(|space| {
            let shows = |s: &&Shown| (s.object, s.page) == (object, page) && !s.lazy;
            space.pages.values().filter(shows).any(|s| s.locked || space.super_locked)
        })
    }

    /// The most pages that are in memory because a space has them locked, of one budget or of all.
    pub(crate) fn pinned(&self, budget: Option<Option<usize>>) -> u64 {
        let mut pinned = BTreeSet::new();
        for space in self.spaces.values() {
            let wanted = space.pages.values().filter(|s| s.locked || space.super_locked);
            pinned.extend(wanted.map(|shown| (shown.object, shown.page)));
        }
        let counts = |(object, page): &&(ObjectId, u64)| {
            let object = &self.objects[object];
            *page < object.size && budget.is_none_or(|budget| object.budget == budget)
        };
        pinned.iter().filter(counts).count() as u64
    }

    // Map, unmap, protect.

    pub(crate) fn may_map(&self, space: SpaceId, request: &Request) -> Result<(), Error> {
        match request.place {
            Place::Anywhere if request.pages == 0 => return Err(Error::BadSpan),
            Place::Anywhere => self.gap(space, request.pages)?,
            Place::Fixed(at) | Place::Replace(at) => span(at, request.pages)?,
        };
        if let Place::Fixed(at) = request.place {
            let mut shown = self.spaces[&space].pages.range(at..at + request.pages);
            if let Some((&at, _)) = shown.next() {
                return Err(Error::Occupied { at: VirtualPage::new(at) });
            }
        }
        self.may_refer(request)
    }

    pub(crate) fn may_refer(&self, request: &Request) -> Result<(), Error> {
        let object = &self.objects[&request.object];
        if object.destroyed { Err(Error::Destroyed) } else { Ok(()) }
    }

    fn gap(&self, space: SpaceId, pages: u64) -> Result<VirtualSpan, Error> {
        let shown = &self.spaces[&space].pages;
        let free = |at: &u64| shown.range(*at..*at + pages).next().is_none();
        let ends = (FIRST + LENGTH + 1).saturating_sub(pages);
        let found = (FIRST..ends).find(free).and_then(|at| span(at, pages).ok());
        found.ok_or(Error::NoGap { asked: Pages(pages) })
    }

    pub(crate) fn map(&mut self, space: SpaceId, request: &Request, at: u64) {
        let space = self.space(space);
        for n in 0..request.pages {
            let shown = Shown {
                object: request.object,
                page: request.offset + n,
                protection: request.protection,
                lazy: request.lazy,
                locked: request.locked || space.lock_future,
                used: false,
                missing: false,
            };
            space.pages.insert(at + n, shown);
        }
    }

    pub(crate) fn may_unmap(&self, space: SpaceId, at: u64, pages: u64) -> Result<(), Error> {
        span(at, pages)?;
        match self.spaces[&space].pages.range(at..at + pages).next() {
            Some(_) => Ok(()),
            None => Err(Error::NotMapped { at: VirtualPage::new(at) }),
        }
    }

    pub(crate) fn unmap(&mut self, space: SpaceId, at: u64, pages: u64) {
        self.space(space).pages.retain(|page, _| !(at..at + pages).contains(page));
    }

    /// Checks that there are no gaps: for protect, lock, unlock, sync and advice.
    pub(crate) fn all_mapped(&self, space: SpaceId, at: u64, pages: u64) -> Result<(), Error> {
        span(at, pages)?;
        let gap = (at..at + pages).find(|at| self.shown(space, *at).is_none());
        gap.map_or(Ok(()), |at| Err(Error::NotMapped { at: VirtualPage::new(at) }))
    }

    fn each(&mut self, space: SpaceId, at: u64, pages: u64, change: impl Fn(&mut Shown)) {
        self.space(space).pages.range_mut(at..at + pages).for_each(|(_, shown)| change(shown));
    }

    pub(crate) fn protect(&mut self, space: SpaceId, at: u64, pages: u64, protection: Protection) {
        self.each(space, at, pages, |shown| shown.protection = protection);
    }

    // Residency.

    /// Checks that there are no gaps, and that each page that is not lazy can be brought in.
    pub(crate) fn may_lock(&self, space: SpaceId, at: u64, pages: u64) -> Result<(), Error> {
        self.all_mapped(space, at, pages)?;
        for at in at..at + pages {
            match self.may_access(space, at, Access::Read) {
                Err(error) if !self.spaces[&space].pages[&at].lazy => {
                    return Err(Error::Fault { at: VirtualPage::new(at), error });
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(crate) fn lock(&mut self, space: SpaceId, at: u64, pages: u64) {
        self.each(space, at, pages, |shown| shown.locked = true);
    }

    pub(crate) fn unlock(&mut self, space: SpaceId, at: u64, pages: u64) {
        self.each(space, at, pages, |shown| shown.locked = false);
    }

    pub(crate) fn set_lock_future(&mut self, space: SpaceId, future: bool) {
        self.space(space).lock_future = future;
    }

    pub(crate) fn set_super_locked(&mut self, space: SpaceId, super_locked: bool) {
        self.space(space).super_locked = super_locked;
    }

    /// Notes that the pages have been brought in, as far as they must be.
    pub(crate) fn brought(&mut self, space: SpaceId, at: u64, pages: u64) {
        self.each(space, at, pages, |shown| shown.missing = false);
    }

    // Objects.

    pub(crate) fn create(&mut self, id: ObjectId, object: ObjectModel) {
        self.objects.insert(id, object);
    }

    pub(crate) fn resize(&mut self, object: ObjectId, pages: u64) {
        let Some(of_object) = self.objects.get_mut(&object) else { return };
        of_object.size = pages;
        of_object.bytes.retain(|page, _| *page < pages);
        of_object.touched.retain(|page| *page < pages);
        for space in self.spaces.values_mut() {
            for shown in space.pages.values_mut().filter(|shown| shown.object == object) {
                shown.used &= shown.page < pages;
            }
        }
    }

    // Accesses.

    /// The result of an access, if the page can be brought in.
    pub(crate) fn may_access(
        &self,
        space: SpaceId,
        at: u64,
        access: Access,
    ) -> Result<Shown, FaultError> {
        let shown = *self.shown(space, at).ok_or(FaultError::NotMapped)?;
        if !shown.protection.permits(access) {
            return Err(FaultError::Protection);
        }
        if shown.page >= self.objects[&shown.object].size {
            return Err(FaultError::PastEnd);
        }
        Ok(shown)
    }

    /// Notes an access to the page.
    pub(crate) fn accessed(&mut self, space: SpaceId, at: u64) {
        let Some(shown) = self.space(space).pages.get_mut(&at) else { return };
        shown.used = true;
        let (object, page) = (shown.object, shown.page);
        self.touched(object, page);
    }

    pub(crate) fn write(&mut self, shown: &Shown, offset: usize, bytes: &[u8]) {
        let Some(object) = self.objects.get_mut(&shown.object) else { return };
        let page = object.bytes.entry(shown.page).or_default();
        if let Some(part) = page.get_mut(offset..offset.saturating_add(bytes.len())) {
            part.copy_from_slice(bytes);
        }
    }

    /// Notes that the page may have come into memory. `true` if it had not before.
    pub(crate) fn touched(&mut self, object: ObjectId, page: u64) -> bool {
        self.objects.get_mut(&object).is_some_and(|object| object.touched.insert(page))
    }

    /// Whether an access must succeed without a fault.
    pub(crate) fn is_there(&self, space: SpaceId, at: u64, access: Access) -> bool {
        let all = self.spaces[&space].super_locked;
        let Ok(shown) = self.may_access(space, at, access) else { return false };
        let kept = all || (shown.locked && access != Access::Write);
        kept && (!shown.lazy || (all && shown.used)) && !shown.missing
    }

    // Query.

    /// Where an object is shown.
    pub(crate) fn places(&self, object: ObjectId) -> BTreeSet<(u64, u64)> {
        let spaces = self.spaces.values().flat_map(|space| &space.pages);
        let shown = spaces.filter(|(_, shown)| shown.object == object);
        shown.map(|(at, shown)| (*at, shown.page)).collect()
    }

    /// How many spaces show it.
    pub(crate) fn spaces_of(&self, object: ObjectId) -> usize {
        let shows = |space: &&SpaceModel| space.pages.values().any(|s| s.object == object);
        self.spaces.values().filter(shows).count()
    }

    /// The fewest mappings that can show what the space shows.
    pub(crate) fn runs(&self, space: SpaceId) -> usize {
        let pages = &self.spaces[&space].pages;
        let continued = |(at, shown): &(&u64, &Shown)| {
            let Some(before) = pages.get(&(*at - 1)) else { return false };
            before.object == shown.object
                && before.page + 1 == shown.page
                && (before.protection, before.lazy, before.locked)
                    == (shown.protection, shown.lazy, shown.locked)
        };
        pages.iter().filter(|entry| !continued(entry)).count()
    }
}

/// A span that lies in a space.
pub(crate) fn span(at: u64, pages: u64) -> Result<VirtualSpan, Error> {
    let inside = pages > 0 && at >= FIRST && at + pages <= FIRST + LENGTH;
    if !inside {
        return Err(Error::BadSpan);
    }
    VirtualSpan::new(VirtualPage::new(at), Pages(pages)).ok_or(Error::BadSpan)
}
