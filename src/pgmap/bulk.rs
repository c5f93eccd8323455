//! Allocating several folios at once: of one order, in a range, or in a row. All or nothing.

use super::allocate::{AllocError, ClaimError, Misses, TooLate};
use super::extent::Extent;
use super::fill::Filling;
use super::ops::PgmapOps;
use super::owner::PgmapCore;
use super::scrub::Tries;
use super::set::{FolioDesc, UniqueSet};
use crate::units::{Order, PfnRange};
use crate::zone::{Content, Miss, Request, Shortage};

impl<O: PgmapOps> PgmapCore<O> {
    /// Allocates `nr_folios` folios of one order, all or nothing; none at all are an empty set.
    ///
    /// The order is that of `request`: what it is [down to](Request::down_to) does not matter.
    ///
    /// # Errors
    ///
    /// At rest, [`AllocError::Exhausted`] means that there are not so many aligned free runs. What
    /// [`PgmapCore::alloc`] says of a [`Scrub`](crate::Scrub) policy holds for each folio.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::alloc`].
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
        let mut request = self.prefer_clean(request);
        let order = request.order;
        let mut filling = Filling::new(self, descs);
        let (mut misses, mut tries) = (Misses::default(), Tries::new());
        let mut may_fracture = false;
        // Ends: on every turn there is one more folio, or one more that cannot be had, of which
        // there are few.
        while filling.len() < nr_folios {
            misses.is_fracture = false;
            let mut folio = self.try_alloc(&request, order, may_fracture, &mut misses);
            if folio.is_none() && misses.is_fracture && !may_fracture {
                // The first table is taken only if the rest of the folios are there, too.
                let left = nr_folios.saturating_sub(filling.len()) as u64;
                let nr_pages = left.saturating_mul(order.nr_pages());
                if let Err(error) = self.check_supply(&request, order, nr_pages) {
                    filling.undo();
                    return Err(error);
                }
                may_fracture = true;
                folio = self.try_alloc(&request, order, may_fracture, &mut misses);
            }
            let error = match folio.map(|folio| self.admit(folio, request.owner)) {
                Some(Ok(folio)) => {
                    filling.push(folio);
                    continue;
                }
                Some(Err(TooLate::ScrubFailed | TooLate::ScrubPending)) => {
                    tries.note(&mut request);
                    continue;
                }
                Some(Err(late)) => late.alloc_error(order),
                None => self.miss(&request, order, misses),
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
        if Order::BLOCK <= unit || nr_pages == 0 {
            return Ok(());
        }
        let mut left = nr_pages;
        let mut has_no_tables = false;
        for extent in self.core().open_extents() {
            let Some(part) = request.part_of(extent) else { continue };
            let is_fractured = request.order < Order::BLOCK;
            let (stock, units) = ((part, request.content), (unit.max(request.align), unit));
            match extent.index().has_units(stock, units, left, is_fractured) {
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
        Err(self.miss(request, unit, misses))
    }

    /// Takes all pages of `range` as folios as large as can be, all or nothing.
    ///
    /// # Errors
    ///
    /// As for [`PgmapCore::claim`]: of the pages that are not named, none has left free space.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::alloc`].
    pub fn claim_range<'s>(
        &self,
        range: PfnRange,
        descs: &'s mut [FolioDesc],
    ) -> Result<UniqueSet<'_, 's, O>, ClaimError> {
        if self.core.is_dying() {
            return Err(ClaimError::Dying);
        }
        let extent = self.core.extent_with(range);
        let extent = extent.ok_or(ClaimError::Outside { range })?;
        if self.core.is_closed(extent) {
            return Err(ClaimError::Dying);
        }
        self.claim_tiles(extent, range, (Content::Any, None), descs)
    }

    fn claim_tiles<'a, 's>(
        &'a self,
        extent: &'a Extent,
        range: PfnRange,
        (content, owner): (Content, Option<u64>),
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
            let error = match folio.map(|folio| self.admit(folio, owner)) {
                Ok(Ok(folio)) => {
                    let is_fit = content != Content::OnlyClean || folio.is_clean();
                    filling.push(folio);
                    if is_fit {
                        continue;
                    }
                    // Somebody had the pages between the look and the claim.
                    ClaimError::Contended { pfn: head }
                }
                Ok(Err(late)) => late.claim_error(head),
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
    /// At rest, [`AllocError::Exhausted`] means that there is no such run, or, under a
    /// [`Scrub`](crate::Scrub) policy, none that can be had at once.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::alloc`]. Walks the free runs, and does so again when a folio of one
    /// could not be scrubbed.
    pub fn alloc_run<'s>(
        &self,
        nr_pages: u64,
        request: Request,
        descs: &'s mut [FolioDesc],
    ) -> Result<UniqueSet<'_, 's, O>, AllocError> {
        let request = Request { order: request.order.min(self.policy().max_order), ..request };
        let mut request = Request { least: Order::ZERO, ..request };
        self.check_request(&request)?;
        let least = Order::ZERO;
        if nr_pages == 0 {
            return Err(AllocError::NotMultiple { nr_pages, least });
        }
        let mut tries = Tries::new();
        // Ends: a turn is repeated only after one more folio that cannot be had, of which there
        // are few.
        loop {
            match self.try_run(nr_pages, &request, descs) {
                Ok(len) => {
                    let descs = descs.get_mut(..len).unwrap_or_default();
                    return Ok(UniqueSet::new(self, descs));
                }
                Err(Some(error)) => return Err(error),
                Err(None) => tries.note(&mut request),
            }
        }
    }

    /// Takes a run and returns how many folios it is; fails without an error if one of them could
    /// not be scrubbed, so that other pages are free now than those that were looked at.
    fn try_run(
        &self,
        nr_pages: u64,
        request: &Request,
        descs: &mut [FolioDesc],
    ) -> Result<usize, Option<AllocError>> {
        let mut misses = Misses::default();
        let mut pieces = None;
        let source = (request.content, request.owner);
        for extent in self.core().open_extents() {
            let Some(part) = request.part_of(extent) else { continue };
            let is_down = request.direction == crate::zone::Direction::TopDown;
            let fits = extent.index().fits(part, nr_pages, request.align, is_down);
            // Ends: `fits` yields each free run at most once.
            for range in fits {
                if request.content == Content::OnlyClean && !extent.index().is_clean(range) {
                    continue;
                }
                let claimed = self.claim_tiles(extent, range, source, descs);
                match claimed.map(|set| set.into_raw().len()) {
                    Ok(len) => return Ok(len),
                    Err(ClaimError::TooManyPieces { needed, len }) => pieces = Some((needed, len)),
                    Err(ClaimError::NoTables { .. }) => misses.note(Miss::NoTables),
                    Err(ClaimError::Dying) if self.core.is_dying() => {
                        return Err(Some(AllocError::Dying));
                    }
                    Err(ClaimError::ScrubFailed { .. } | ClaimError::ScrubPending { .. }) => {
                        return Err(None);
                    }
                    Err(_) => misses.note(Miss::Contended),
                }
            }
        }
        Err(Some(match pieces {
            Some((needed, len)) => AllocError::TooManyPieces { needed, len },
            None => self.miss(request, request.least, misses),
        }))
    }
}
