//! Sets: several folios as one handle, in storage that the caller lends.

use core::fmt;
use core::mem::ManuallyDrop;

use super::allocate::{AllocError, ClaimError, Misses};
use super::extent::Extent;
use super::folio_ref::FolioRef;
use super::ops::PgmapOps;
use super::owner::PgmapCore;
use super::unique::UniqueFolio;
use crate::units::{Order, Pfn, PfnRange};
use crate::zone::{After, Content, Miss, Plan, Request, SetRequest, Shortage, Units};

/// One folio of a set, in eight bytes: where it starts. Its order is in its own word.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FolioDesc(u64);

static_assertions::assert_eq_size!(FolioDesc, u64);

impl FolioDesc {
    /// A descriptor of no folio, to fill storage with.
    pub const EMPTY: Self = Self(0);

    pub(crate) const fn link(self) -> u64 {
        self.0
    }
}

/// Several exclusive folios as one handle; dropping it drops each.
///
/// # Context
///
/// As for [`UniqueFolio`], for each folio.
#[must_use = "dropping it gives the folios back"]
pub struct UniqueSet<'a, 's, O: PgmapOps> {
    pgmap: &'a PgmapCore<O>,
    descs: &'s mut [FolioDesc],
}

impl<'a, 's, O: PgmapOps> UniqueSet<'a, 's, O> {
    pub(super) const fn new(pgmap: &'a PgmapCore<O>, descs: &'s mut [FolioDesc]) -> Self {
        Self { pgmap, descs }
    }

    /// Gives the set up without doing anything.
    pub(crate) fn into_parts(self) -> (&'a PgmapCore<O>, &'s mut [FolioDesc]) {
        let mut this = ManuallyDrop::new(self);
        (this.pgmap, core::mem::take(&mut this.descs))
    }

    /// Returns the number of folios.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.descs.len()
    }

    /// Returns whether the set has no folio.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.descs.is_empty()
    }

    /// Returns the number of pages of all folios.
    #[must_use]
    pub fn nr_pages(&self) -> u64 {
        self.iter().fold(0, |sum, (_, order)| sum.saturating_add(order.nr_pages()))
    }

    /// Yields the head and the order of each folio, in the order in which they were taken.
    pub fn iter(&self) -> impl Iterator<Item = (Pfn, Order)> + '_ {
        let places = self.descs.iter().filter_map(|desc| self.pgmap.place_of_link(desc.link()));
        places.map(|at| (at.head, at.order()))
    }

    /// Calls `each_fn` with head, order and owner data of each folio.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook. `each_fn` may call anything in the crate.
    pub fn for_each_private(&mut self, mut each_fn: impl FnMut(Pfn, Order, &mut O::Private)) {
        for desc in self.descs.iter() {
            if let Some(at) = self.pgmap.place_of_link(desc.link()) {
                each_fn(at.head, at.order(), at.private_mut());
            }
        }
    }

    /// Takes the last folio out of the set.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    pub fn pop(&mut self) -> Option<UniqueFolio<'a, O>> {
        let at = self.pgmap.place_of_link(pop_desc(&mut self.descs)?.link())?;
        Some(UniqueFolio::new(at, at.order(), false))
    }

    /// Splits the set: the folios from `at` on become a set of their own.
    ///
    /// `at` beyond the end gives an empty set.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    pub fn split_off(&mut self, at: usize) -> Self {
        Self { pgmap: self.pgmap, descs: split_descs(&mut self.descs, at) }
    }

    /// Gives the handle up for its storage; the folios stay held alone.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    #[must_use = "the folios are lost without it"]
    pub fn into_raw(self) -> &'s mut [FolioDesc] {
        self.into_parts().1
    }
}

/// Takes the last descriptor off.
pub(crate) fn pop_desc(descs: &mut &mut [FolioDesc]) -> Option<FolioDesc> {
    let (last, rest) = core::mem::take(descs).split_last_mut()?;
    *descs = rest;
    Some(core::mem::take(last))
}

/// Takes the descriptors from `at` on off.
pub(crate) fn split_descs<'s>(descs: &mut &'s mut [FolioDesc], at: usize) -> &'s mut [FolioDesc] {
    let all = core::mem::take(descs);
    let at = at.min(all.len());
    let (head, tail) = all.split_at_mut(at);
    *descs = head;
    tail
}

impl<O: PgmapOps> Drop for UniqueSet<'_, '_, O> {
    fn drop(&mut self) {
        // Ends: the set shrinks on every turn.
        while let Some(folio) = self.pop() {
            drop(folio);
        }
    }
}

impl<O: PgmapOps> fmt::Debug for UniqueSet<'_, '_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UniqueSet({} folios, {} pages)", self.len(), self.nr_pages())
    }
}

/// A set that is being filled.
struct Filling<'a, 's, O: PgmapOps> {
    pgmap: &'a PgmapCore<O>,
    descs: &'s mut [FolioDesc],
    len: usize,
}

impl<'a, 's, O: PgmapOps> Filling<'a, 's, O> {
    const fn new(pgmap: &'a PgmapCore<O>, descs: &'s mut [FolioDesc]) -> Self {
        Self { pgmap, descs, len: 0 }
    }

    /// Checks, before a folio of `order` is taken, that there is room for what has to follow.
    ///
    /// The bound is what it takes if the memory is not fragmented; asking before each folio keeps
    /// a block from being fractured for a set that cannot be stored.
    fn check_room(&self, left: u64, order: Order, least: Order) -> Result<(), AllocError> {
        let large = left >> order.as_u8();
        let small = (left & order.nr_pages().wrapping_sub(1)) >> least.as_u8();
        let more = large.saturating_add(u64::from(small.count_ones()));
        let needed = self.len.saturating_add(usize::try_from(more).unwrap_or(usize::MAX));
        let len = self.descs.len();
        if len < needed { Err(AllocError::TooManyPieces { needed, len }) } else { Ok(()) }
    }

    /// Returns how many more folios there is room for.
    const fn room(&self) -> usize {
        self.descs.len().saturating_sub(self.len)
    }

    /// Returns an error about the rest of the set as one about all of it.
    const fn whole(&self, error: AllocError) -> AllocError {
        match error {
            AllocError::TooManyPieces { needed, .. } => {
                let needed = self.len.saturating_add(needed);
                AllocError::TooManyPieces { needed, len: self.descs.len() }
            }
            error => error,
        }
    }

    /// Adds a folio; it goes back if there is no room, which the caller has checked.
    fn push(&mut self, folio: UniqueFolio<'a, O>) {
        let Some(desc) = self.descs.get_mut(self.len) else {
            debug_assert!(false, "a set without room for {folio:?}");
            return self.undo_one(folio);
        };
        let (at, _, _) = folio.into_parts();
        *desc = at.desc();
        self.len = self.len.saturating_add(1);
    }

    fn undo_one(&self, folio: UniqueFolio<'a, O>) {
        let (at, order, _) = folio.into_parts();
        self.pgmap.dissolve(at, order, After::AsWas);
    }

    /// Gives all folios back as they came.
    fn undo(&mut self) {
        if seeded!(BulkNotUndone) {
            return;
        }
        for desc in self.descs.iter_mut().take(self.len).rev() {
            if let Some(at) = self.pgmap.place_of_link(desc.link()) {
                self.pgmap.dissolve(at, at.order(), After::AsWas);
            }
            *desc = FolioDesc::EMPTY;
        }
        self.len = 0;
        // As for a search that fails: there may have been one, and nothing to give back.
        self.pgmap.core().after_release();
    }

    fn finish(self) -> UniqueSet<'a, 's, O> {
        let descs = self.descs.get_mut(..self.len).unwrap_or_default();
        UniqueSet::new(self.pgmap, descs)
    }
}

impl<O: PgmapOps> PgmapCore<O> {
    /// Allocates exactly so many pages as a set of folios: the preferred order first, then lower
    /// ones, never below the least.
    ///
    /// All or nothing. [`SetRequest::len_max`] says how much storage is enough.
    ///
    /// ```
    /// # use devfolio::*;
    /// # struct Ops;
    /// # impl PgmapOps for Ops { type Private = (); }
    /// # let range = PfnRange::new(Pfn::new(0), 4096)?;
    /// # let nr_lines = MetaSize::of(range, Tables::Dense).lines();
    /// # let mut lines: Vec<_> = (0..nr_lines).map(|_| MetaLine::ZERO).collect();
    /// # let slots = [const { ExtentSlot::new() }];
    /// # let pgmap = Pgmap::new(Ops, Policy::generic(), &slots);
    /// # pgmap.add_extent(range, ExtentAttrs::NEW, Tables::Dense, &mut lines, Attach::Zeroed)?;
    /// let least = Order::new(3).ok_or("no such order")?;
    /// let mut descs = vec![FolioDesc::EMPTY; SetRequest::len_max(1000, least)];
    /// let guest = pgmap.alloc_set(SetRequest::pages(1000).least(least), &mut descs)?.publish();
    ///
    /// let mut pins = Vec::new();
    /// guest.for_each(|folio| pins.push(folio.pin(PinKind::Longterm)));
    /// drop(guest);
    /// assert_eq!(pgmap.stats().live.nr_pages, 1000); // the pins hold them
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// At rest, [`AllocError::Exhausted`] means that the free runs of the least order do not add up
    /// to so many pages. No pages at all are [`AllocError::NotMultiple`].
    ///
    /// # Context
    ///
    /// Anywhere, interrupts included; takes no lock, runs no hook.
    pub fn alloc_set<'s>(
        &self,
        set: SetRequest,
        descs: &'s mut [FolioDesc],
    ) -> Result<UniqueSet<'_, 's, O>, AllocError> {
        let mut request = set.request;
        // What is preferred is cut down to the limit: the caller asks for pages, not for an order.
        request.order = request.order.min(self.policy().max_order);
        self.check_request(&request)?;
        let (least, nr_pages) = (request.least, set.nr_pages);
        if nr_pages == 0 || nr_pages & least.nr_pages().wrapping_sub(1) != 0 {
            return Err(AllocError::NotMultiple { nr_pages, least });
        }
        let mut filling = Filling::new(self, descs);
        match self.fill(&mut filling, &request, nr_pages) {
            Ok(()) => Ok(filling.finish()),
            Err(error) => {
                filling.undo();
                Err(error)
            }
        }
    }

    /// Fills a set with `nr_pages` pages, the largest folios first.
    fn fill<'a>(
        &'a self,
        filling: &mut Filling<'a, '_, O>,
        request: &Request,
        nr_pages: u64,
    ) -> Result<(), AllocError> {
        let mut left = nr_pages;
        let mut order = request.order;
        let mut misses = Misses::default();
        let mut may_fracture = false;
        // Ends: on every turn fewer pages are left, or the order falls.
        while let Some(fit) = Order::floor_log2(left) {
            order = order.min(fit);
            let room = filling.check_room(left, order, request.least);
            room.or_else(|error| {
                // What is not there is not there, however much room there is for it.
                self.check_plan(&Request { order, ..*request }, left, filling.room())
                    .map_err(|error| filling.whole(error))?;
                Err(error)
            })?;
            misses.is_fracture = false;
            match self.try_alloc(request, order, may_fracture, &mut misses) {
                // The first table is taken only if the rest of the set is there, too.
                None if misses.is_fracture && !may_fracture => {
                    let room = filling.room();
                    self.check_plan(&Request { order, ..*request }, left, room)
                        .map_err(|error| filling.whole(error))?;
                    may_fracture = true;
                }
                Some(folio) => {
                    let Some(folio) = self.unless_dying(folio) else {
                        return Err(AllocError::Dying);
                    };
                    filling.push(folio);
                    left = left.saturating_sub(order.nr_pages());
                }
                None => match order.shrink().filter(|&lower| request.least <= lower) {
                    Some(lower) => order = lower,
                    None => return Err(self.miss(request.least, misses)),
                },
            }
        }
        Ok(())
    }

    /// Checks on paper that the rest of a set can be built and stored.
    ///
    /// Asked before the first block is fractured, which keeps its table even if the set is undone.
    fn check_plan(&self, request: &Request, nr_pages: u64, len: usize) -> Result<(), AllocError> {
        if request.content == Content::OnlyClean {
            return Ok(());
        }
        let order = request.order.min(Order::floor_log2(nr_pages).unwrap_or(Order::ZERO));
        let mut units = Units::default();
        for extent in self.core().extents() {
            let Some(part) = request.part_of(extent) else { continue };
            if extent.index().add_units(part, nr_pages, (order, request.least), &mut units) {
                return Ok(());
            }
        }
        match units.plan(nr_pages, order, request.least) {
            Plan::Pieces(nr) => {
                let needed = usize::try_from(nr).unwrap_or(usize::MAX);
                if len < needed { Err(AllocError::TooManyPieces { needed, len }) } else { Ok(()) }
            }
            Plan::Short { is_tables } => {
                let mut misses = Misses::default();
                if is_tables {
                    misses.note(Miss::NoTables);
                }
                Err(self.miss(request.least, misses))
            }
        }
    }

    /// Allocates `nr_folios` folios of one order, all or nothing; none at all are an empty set.
    ///
    /// The order is that of `request`: what it is [down to](Request::down_to) does not matter.
    ///
    /// # Errors
    ///
    /// At rest, [`AllocError::Exhausted`] means that there are not so many aligned free runs.
    ///
    /// # Context
    ///
    /// Anywhere, interrupts included; takes no lock, runs no hook.
    pub fn alloc_bulk<'s>(
        &self,
        request: Request,
        nr_folios: usize,
        descs: &'s mut [FolioDesc],
    ) -> Result<UniqueSet<'_, 's, O>, AllocError> {
        let request = Request { least: request.order, ..request };
        self.check_request(&request)?;
        let len = descs.len();
        if len < nr_folios {
            return Err(AllocError::TooManyPieces { needed: nr_folios, len });
        }
        let order = request.order;
        let mut filling = Filling::new(self, descs);
        let mut misses = Misses::default();
        let mut may_fracture = false;
        for index in 0..nr_folios {
            misses.is_fracture = false;
            let mut folio = self.try_alloc(&request, order, may_fracture, &mut misses);
            if folio.is_none() && misses.is_fracture && !may_fracture {
                // The first table is taken only if the rest of the folios are there, too.
                let left = nr_folios.saturating_sub(index) as u64;
                let nr_pages = left.saturating_mul(order.nr_pages());
                if let Err(error) = self.check_supply(&request, order, nr_pages) {
                    filling.undo();
                    return Err(error);
                }
                may_fracture = true;
                folio = self.try_alloc(&request, order, may_fracture, &mut misses);
            }
            let error = match folio.map(|folio| self.unless_dying(folio)) {
                Some(Some(folio)) => {
                    filling.push(folio);
                    continue;
                }
                Some(None) => AllocError::Dying,
                None => self.miss(order, misses),
            };
            filling.undo();
            return Err(error);
        }
        Ok(filling.finish())
    }

    /// Checks, before anything is touched, that there are so many pages in runs of `unit`.
    ///
    /// From order 9 on nothing is left behind by an attempt that is undone; below, a block that it
    /// fractured keeps its table.
    fn check_supply(
        &self,
        request: &Request,
        unit: Order,
        nr_pages: u64,
    ) -> Result<(), AllocError> {
        if Order::BLOCK <= unit || request.content == Content::OnlyClean || nr_pages == 0 {
            return Ok(());
        }
        let mut left = nr_pages;
        let mut has_no_tables = false;
        for extent in self.core().extents() {
            let Some(part) = request.part_of(extent) else { continue };
            let is_fractured = request.order < Order::BLOCK;
            match extent.index().has_units(part, unit.max(request.align), unit, left, is_fractured)
            {
                Ok(()) => return Ok(()),
                Err(Shortage { missing, is_tables }) => {
                    left = missing;
                    has_no_tables |= is_tables;
                }
            }
        }
        let mut misses = Misses::default();
        if has_no_tables {
            misses.note(Miss::NoTables);
        }
        Err(self.miss(unit, misses))
    }

    /// Takes all pages of `range` as folios as large as can be, all or nothing.
    ///
    /// # Errors
    ///
    /// Says which page is in the way, and changes nothing.
    ///
    /// # Context
    ///
    /// Anywhere, interrupts included; takes no lock, runs no hook.
    pub fn claim_range<'s>(
        &self,
        range: PfnRange,
        descs: &'s mut [FolioDesc],
    ) -> Result<UniqueSet<'_, 's, O>, ClaimError> {
        if self.core.is_dying() {
            return Err(ClaimError::Dying);
        }
        let extent = self.core().extents().find(|extent| extent.range().contains_range(range));
        let extent = extent.ok_or(ClaimError::Outside { range })?;
        self.claim_tiles(extent, range, Content::Any, descs)
    }

    fn claim_tiles<'a, 's>(
        &'a self,
        extent: &'a Extent,
        range: PfnRange,
        content: Content,
        descs: &'s mut [FolioDesc],
    ) -> Result<UniqueSet<'a, 's, O>, ClaimError> {
        let max = self.policy().max_order;
        let (needed, len) = (range.tiles_up_to(max).count(), descs.len());
        if len < needed {
            return Err(ClaimError::TooManyPieces { needed, len });
        }
        if let Some(pfn) = extent.index().first_busy(range) {
            return Err(ClaimError::Busy { pfn });
        }
        if let Some(pfn) = extent.index().first_without_table(range, max) {
            return Err(ClaimError::NoTables { pfn });
        }
        let mut filling = Filling::new(self, descs);
        for (head, order) in range.tiles_up_to(max) {
            let folio = self.try_claim(extent, head, order);
            let error = match folio.map(|folio| self.unless_dying(folio)) {
                Ok(Some(folio)) => {
                    let is_fit = content != Content::OnlyClean || folio.is_clean();
                    filling.push(folio);
                    if is_fit {
                        continue;
                    }
                    // Somebody had the pages between the look and the claim.
                    ClaimError::Contended { pfn: head }
                }
                Ok(None) => ClaimError::Dying,
                Err(error) => error,
            };
            filling.undo();
            return Err(error);
        }
        Ok(filling.finish())
    }

    /// Allocates a run of exactly `nr_pages` contiguous pages, wherever it starts and whatever
    /// borders it crosses; the tail behind it stays free.
    ///
    /// Alignment, range, direction and extent are taken from `request`, the order is not; of its
    /// content only [`Content::OnlyClean`] counts, for the first fit of each free run.
    ///
    /// # Errors
    ///
    /// At rest, [`AllocError::Exhausted`] means that there is no such run.
    ///
    /// # Context
    ///
    /// Anywhere, interrupts included; takes no lock, runs no hook. Walks the free runs.
    pub fn alloc_run<'s>(
        &self,
        nr_pages: u64,
        request: Request,
        descs: &'s mut [FolioDesc],
    ) -> Result<UniqueSet<'_, 's, O>, AllocError> {
        let request = Request { order: request.order.min(self.policy().max_order), ..request };
        let request = Request { least: Order::ZERO, ..request };
        self.check_request(&request)?;
        let least = Order::ZERO;
        if nr_pages == 0 {
            return Err(AllocError::NotMultiple { nr_pages, least });
        }
        let mut storage = descs;
        let mut misses = Misses::default();
        let mut pieces = None;
        for extent in self.core().extents() {
            let Some(part) = request.part_of(extent) else { continue };
            let is_down = request.direction == crate::zone::Direction::TopDown;
            let fits = extent.index().fits(part, nr_pages, request.align, is_down);
            // Ends: `fits` yields each free run at most once.
            for range in fits {
                if request.content == Content::OnlyClean && !extent.index().is_clean(range) {
                    continue;
                }
                // The storage is lent anew for each attempt: it comes back out of a failed one.
                let descs = core::mem::take(&mut storage);
                let claimed = self
                    .claim_tiles(extent, range, request.content, &mut *descs)
                    .map(|set| set.into_raw().len());
                match claimed {
                    Ok(len) => {
                        let descs = descs.get_mut(..len).unwrap_or_default();
                        return Ok(UniqueSet::new(self, descs));
                    }
                    Err(ClaimError::TooManyPieces { needed, len }) => pieces = Some((needed, len)),
                    Err(ClaimError::NoTables { .. }) => misses.note(Miss::NoTables),
                    Err(ClaimError::Dying) => return Err(AllocError::Dying),
                    Err(_) => misses.note(Miss::Contended),
                }
                storage = descs;
            }
        }
        match pieces {
            Some((needed, len)) => Err(AllocError::TooManyPieces { needed, len }),
            None => Err(self.miss(least, misses)),
        }
    }
}

impl<O: PgmapOps> FolioRef<'_, O> {
    /// Returns the descriptor of this folio.
    pub(crate) fn desc(&self) -> FolioDesc {
        FolioDesc(self.link())
    }
}
