//! Lists of bad pages: what a device knew of itself before its memory came.
//!
//! The pages of a list become bad together or not at all, so that nobody who attaches memory has to
//! find out how far a list got. For that the lists of all extents that it touches are locked at
//! once; undoing what was done would have handed pages about meanwhile, and the caller's list may
//! have pages that were bad before, which an undo would have to tell apart without a heap.

use core::fmt;

use spin::MutexGuard;

use super::extent::Extent;
use super::ops::PgmapOps;
use super::owner::PgmapCore;
use super::withheld::{Entry, Isolation};
use crate::sync::{Ordering, fence};
use crate::units::Pfn;

/// How many extents the pages of one list may lie in: their locks are on the stack.
const EXTENTS_MAX: usize = 16;

/// Why a list of bad pages was refused; nothing changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum PoisonListError {
    /// No extent has this page.
    Outside {
        /// The page.
        pfn: Pfn,
    },
    /// The pages lie in too many extents; each extent's can be a list of its own.
    TooManyExtents {
        /// A page of an extent beyond the limit.
        pfn: Pfn,
        /// The extents that one list may touch.
        max: usize,
    },
    /// The list of an extent has no room for all of its pages.
    NoRoom {
        /// The first page of the list that finds no room.
        pfn: Pfn,
        /// The entries that the pages of that extent take.
        needed: usize,
        /// The entries that are left; [`MetaSize::poison`](crate::MetaSize::poison) asks for more.
        left: usize,
    },
    /// Others held the list of an extent; worth another attempt.
    Contended {
        /// A page of that extent.
        pfn: Pfn,
    },
}

impl fmt::Display for PoisonListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside { pfn } => write!(f, "no extent has page {pfn}"),
            Self::TooManyExtents { pfn, max } => {
                write!(f, "page {pfn} is in one more extent than the {max} of a list")
            }
            Self::NoRoom { pfn, needed, left } => {
                write!(f, "no room for page {pfn}: {needed} entries in a list with room for {left}")
            }
            Self::Contended { pfn } => write!(f, "too much contention for page {pfn}"),
        }
    }
}

impl core::error::Error for PoisonListError {}

/// Extents whose lists are held, in ascending order.
type Held<'a> = [Option<(&'a Extent, MutexGuard<'a, ()>)>; EXTENTS_MAX];

impl<O: PgmapOps> PgmapCore<O> {
    /// Records that pages are bad, all of them or none, and takes them out of free space; returns
    /// how many were not known to be.
    ///
    /// This is [`PgmapCore::poison`] for the list that a device or a boot loader brings along, in
    /// any order, pages that it has twice or that are known included. Neither
    /// [`PgmapOps::page_poisoned`] nor a [`Holder`](super::Holder) is told: it is the caller who
    /// knows. Between [`add_closed_extent`] and [`restore_extent`] nothing has been handed out;
    /// later, a page in use goes into quarantine when its folio ends, as ever. A page that others
    /// move about at this moment stays in free space until something is freed near it, and is not
    /// handed out either.
    ///
    /// The pages may lie in up to 16 extents. Mirrors `nvdimm_badblocks_populate` of Linux.
    ///
    /// [`add_closed_extent`]: super::Pgmap::add_closed_extent
    /// [`restore_extent`]: PgmapCore::restore_extent
    ///
    /// ```
    /// # use devfolio::*;
    /// # struct Ops;
    /// # impl PgmapOps for Ops { type Private = (); }
    /// # let range = PfnRange::new(Pfn::new(0), 1024)?;
    /// # let nr_lines = MetaSize::of(range, Tables::Dense).poison(8).lines();
    /// # let mut lines: Vec<_> = (0..nr_lines).map(|_| MetaLine::ZERO).collect();
    /// # let slots = [const { ExtentSlot::new() }];
    /// # let pgmap = Pgmap::new(Ops, Policy::generic(), &slots);
    /// let (attrs, tables) = (ExtentAttrs::NEW, Tables::Dense);
    /// pgmap.add_closed_extent(range, attrs, tables, &mut lines, Attach::Zeroed, &mut [])?;
    /// let nr_new = pgmap.poison_list(&[600, 7, 600].map(Pfn::new))?;
    /// pgmap.restore_extent(range.start())?;
    /// assert_eq!((nr_new, pgmap.stats().free_pages), (2, 1022));
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Says what is in the way of which page, and changes nothing.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::poison`], but runs no hook of a page. Holds the locks of the lists for a
    /// time that grows with the square of the number of pages.
    pub fn poison_list(&self, pages: &[Pfn]) -> Result<usize, PoisonListError> {
        let mut held: Held<'_> = [const { None }; EXTENTS_MAX];
        self.hold_lists(pages, &mut held)?;
        for (extent, _) in held.iter().flatten() {
            if !seeded!(ListHalfway) {
                extent.check_room(pages)?;
            }
        }
        let (mut nr_new, mut nr_busy) = (0usize, 0usize);
        for (extent, _) in held.iter().flatten() {
            for &pfn in pages.iter().filter(|&&pfn| extent.range().contains(pfn)) {
                if extent.is_poisoned(pfn) || !extent.record(Entry::bad(pfn)) {
                    // There is room for all; the rest is known.
                    debug_assert!(extent.is_poisoned(pfn), "the room was counted");
                    continue;
                }
                nr_new = nr_new.saturating_add(1);
                // ORDERING(poison): the page is recorded before it is looked at.
                fence(Ordering::SeqCst);
                if !matches!(self.isolate_bad(extent, pfn), Isolation::Done(_)) {
                    nr_busy = nr_busy.saturating_add(1);
                }
            }
        }
        drop(held);
        if nr_busy != 0 {
            // Pages may be idle in magazines.
            // ORDERING: Relaxed. A request to be obeyed some time.
            self.core.shortages.fetch_add(1, Ordering::Relaxed);
        }
        if nr_new != 0 {
            self.after_release();
        }
        Ok(nr_new)
    }

    /// Takes the locks of all lists that `pages` belong into.
    ///
    /// In ascending order, so that of two calls one gets on: neither waits for the other for long,
    /// but in different orders both could be refused.
    fn hold_lists<'a>(&'a self, pages: &[Pfn], held: &mut Held<'a>) -> Result<(), PoisonListError> {
        let mut before: Option<Pfn> = None;
        for slot in held.iter_mut() {
            let found = pages.iter().filter_map(|pfn| Some((*pfn, self.core.extent_of(*pfn)?)));
            let ahead = found.filter(|(_, extent)| before < Some(extent.range().start()));
            let Some((pfn, extent)) = ahead.min_by_key(|(_, extent)| extent.range().start()) else {
                break;
            };
            let guard = extent.withheld.try_lock().ok_or(PoisonListError::Contended { pfn })?;
            *slot = Some((extent, guard));
            before = Some(extent.range().start());
        }
        let is_held = |pfn| held.iter().flatten().any(|(extent, _)| extent.range().contains(pfn));
        match pages.iter().find(|&&pfn| !is_held(pfn)) {
            None => Ok(()),
            Some(&pfn) if self.core.extent_of(pfn).is_none() => {
                Err(PoisonListError::Outside { pfn })
            }
            Some(&pfn) => Err(PoisonListError::TooManyExtents { pfn, max: EXTENTS_MAX }),
        }
    }
}

impl Extent {
    /// Checks that the list has room for those of `pages` that belong into it; the caller holds the
    /// lock.
    fn check_room(&self, pages: &[Pfn]) -> Result<(), PoisonListError> {
        let (_, left) = self.room();
        let (mut needed, mut refused) = (0usize, None);
        for (index, &pfn) in pages.iter().enumerate() {
            let is_repeated =
                || !seeded!(ListCountsTwice) && pages.iter().take(index).any(|&it| it == pfn);
            if !self.range().contains(pfn) || self.is_poisoned(pfn) || is_repeated() {
                continue;
            }
            if needed == left {
                refused = Some(pfn);
            }
            needed = needed.saturating_add(1);
        }
        refused.map_or(Ok(()), |pfn| Err(PoisonListError::NoRoom { pfn, needed, left }))
    }
}
