//! Allocating sets: so many pages in folios as large as there are, all or nothing.

use super::allocate::{AllocError, Misses, TooLate};
use super::ops::PgmapOps;
use super::owner::PgmapCore;
use super::scrub::Tries;
use super::set::{FolioDesc, UniqueSet};
use super::unique::UniqueFolio;
use crate::units::Order;
use crate::zone::{Miss, Plan, Request, SetRequest, Units};

/// A set that is being filled.
pub(super) struct Filling<'a, 's, O: PgmapOps> {
    pgmap: &'a PgmapCore<O>,
    descs: &'s mut [FolioDesc],
    len: usize,
}

impl<'a, 's, O: PgmapOps> Filling<'a, 's, O> {
    pub(super) const fn new(pgmap: &'a PgmapCore<O>, descs: &'s mut [FolioDesc]) -> Self {
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
    pub(super) fn push(&mut self, folio: UniqueFolio<'a, O>) {
        let Some(desc) = self.descs.get_mut(self.len) else {
            debug_assert!(false, "a set without room for {folio:?}");
            return self.undo_one(folio);
        };
        let (at, _, is_clean) = folio.into_parts();
        *desc = at.desc(is_clean);
        self.len = self.len.saturating_add(1);
    }

    fn undo_one(&self, folio: UniqueFolio<'a, O>) {
        let (at, order, is_clean) = folio.into_parts();
        self.pgmap.dissolve(at, order, self.pgmap.as_undone(is_clean));
    }

    /// Gives all folios back as they came, or as they were scrubbed.
    pub(super) fn undo(&mut self) {
        if seeded!(BulkNotUndone) {
            return;
        }
        for desc in self.descs.iter_mut().take(self.len).rev() {
            if let Some(at) = self.pgmap.place_of_link(desc.link()) {
                let after = self.pgmap.as_undone(desc.is_clean());
                self.pgmap.dissolve(at, at.order(), after);
            }
            *desc = FolioDesc::EMPTY;
        }
        self.len = 0;
        // As for a search that fails: there may have been one, and nothing to give back.
        self.pgmap.after_release();
    }

    /// Returns the number of folios.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn finish(mut self) -> UniqueSet<'a, 's, O> {
        let len = core::mem::take(&mut self.len);
        let descs = core::mem::take(&mut self.descs).get_mut(..len).unwrap_or_default();
        UniqueSet::new(self.pgmap, descs)
    }
}

/// A hook that panics leaves nothing behind of a set that is half full.
impl<O: PgmapOps> Drop for Filling<'_, '_, O> {
    fn drop(&mut self) {
        if self.len != 0 {
            self.undo();
        }
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
    /// to so many pages. No pages at all are [`AllocError::NotMultiple`]. What
    /// [`PgmapCore::alloc`] says of a [`Scrub`](crate::Scrub) policy holds for each folio.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::alloc`].
    pub fn alloc_set<'s>(
        &self,
        set: SetRequest,
        descs: &'s mut [FolioDesc],
    ) -> Result<UniqueSet<'_, 's, O>, AllocError> {
        let mut request = set.request;
        // What is preferred is cut down to the limit: the caller asks for pages, not for an order.
        request.order = request.order.min(self.policy().max_order);
        self.check_request(&request)?;
        let request = self.prefer_clean(request);
        let (least, nr_pages) = (request.least, set.nr_pages);
        if nr_pages == 0 || nr_pages & least.nr_pages().wrapping_sub(1) != 0 {
            return Err(AllocError::NotMultiple { nr_pages, least });
        }
        let mut filling = Filling::new(self, descs);
        match self.fill(&mut filling, request, nr_pages) {
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
        mut request: Request,
        nr_pages: u64,
    ) -> Result<(), AllocError> {
        let mut left = nr_pages;
        let mut order = request.order;
        let (mut misses, mut tries) = (Misses::default(), Tries::new());
        let mut may_fracture = false;
        // Ends: on every turn fewer pages are left, the order falls, or there is one more folio
        // that cannot be had, of which there are few.
        while let Some(fit) = Order::floor_log2(left) {
            order = order.min(fit);
            let room = filling.check_room(left, order, request.least);
            room.or_else(|error| {
                // What is not there is not there, however much room there is for it.
                self.check_plan(&Request { order, ..request }, left, filling.room())
                    .map_err(|error| filling.whole(error))?;
                Err(error)
            })?;
            misses.is_fracture = false;
            match self.try_alloc(&request, order, may_fracture, &mut misses) {
                // The first table is taken only if the rest of the set is there, too.
                None if misses.is_fracture && !may_fracture => {
                    let room = filling.room();
                    self.check_plan(&Request { order, ..request }, left, room)
                        .map_err(|error| filling.whole(error))?;
                    may_fracture = true;
                }
                Some(folio) => match self.admit(folio, request.owner) {
                    Ok(folio) => {
                        filling.push(folio);
                        left = left.saturating_sub(order.nr_pages());
                    }
                    Err(TooLate::ScrubFailed | TooLate::ScrubPending) => tries.note(&mut request),
                    Err(late) => return Err(late.alloc_error(order)),
                },
                None => match order.shrink().filter(|&lower| request.least <= lower) {
                    Some(lower) => order = lower,
                    None => return Err(self.miss(&request, request.least, misses)),
                },
            }
        }
        Ok(())
    }

    /// Checks on paper that the rest of a set can be built and stored.
    ///
    /// Asked before the first block is fractured, which keeps its table even if the set is undone.
    fn check_plan(&self, request: &Request, nr_pages: u64, len: usize) -> Result<(), AllocError> {
        let order = request.order.min(Order::floor_log2(nr_pages).unwrap_or(Order::ZERO));
        let mut units = Units::default();
        for extent in self.core().open_extents() {
            let Some(part) = request.part_of(extent) else { continue };
            if extent.index().add_units(
                (part, request.content),
                nr_pages,
                (order, request.least),
                &mut units,
            ) {
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
                Err(self.miss(request, request.least, misses))
            }
        }
    }
}
