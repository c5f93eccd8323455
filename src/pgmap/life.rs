//! Live, dying, drained: how a pgmap ends.

use super::extent::{Extent, Found};
use super::info::{FolioInfo, FolioKind};
use super::owner::Core;
use crate::meta::word::Kind;
use crate::sync::{Ordering, fence};
use crate::units::Pfn;

/// Where the life of a pgmap stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Life {
    /// Folios are handed out.
    Live,
    /// Nothing new; folios that exist are waited for.
    Dying,
    /// No folio is left but those in quarantine.
    Drained,
}

const LIVE: u64 = 0;
const DYING: u64 = 1;
const DRAINED: u64 = 2;

/// A folio that keeps a dying pgmap from being drained.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StillBusy {
    /// The first page that is neither free nor in quarantine.
    pub pfn: Pfn,
    /// Its folio; `None` while its pages are on their way between a folio and free space.
    pub folio: Option<FolioInfo>,
}

impl core::fmt::Display for StillBusy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "page {} is still in use", self.pfn)
    }
}

impl core::error::Error for StillBusy {}

impl Core {
    pub(super) fn life(&self) -> Life {
        // ORDERING(dying): Acquire; what was drained before is seen with it.
        match self.life.load(Ordering::Acquire) {
            LIVE => Life::Live,
            DYING => Life::Dying,
            _ => Life::Drained,
        }
    }

    /// Returns whether new folios and counts are refused.
    #[inline]
    pub(crate) fn is_dying(&self) -> bool {
        // ORDERING(dying): Relaxed, behind the fence of who took or gave something. A refusal says
        // nothing but that the end has begun; `life` says more.
        self.life.load(Ordering::Relaxed) != LIVE
    }

    /// Sets the flag that refuses whatever is new; the caller owes a look whether that was the end.
    pub(super) fn begin_end(&self) {
        // ORDERING(dying): the flag is set before the scan looks; a second kill changes nothing.
        // Relaxed, in front of the fence.
        let _ = self.life.compare_exchange(LIVE, DYING, Ordering::Relaxed, Ordering::Relaxed);
        // ORDERING(dying): the one half.
        fence(Ordering::SeqCst);
    }

    /// Completes the removal if nothing is left; returns whether this call did.
    ///
    /// # Errors
    ///
    /// Returns what a dying pgmap waits for.
    pub(super) fn settle_life(&self) -> Result<bool, StillBusy> {
        if self.life() != Life::Dying {
            return Ok(false);
        }
        if let Some(busy) = self.first_busy() {
            return Err(busy);
        }
        // ORDERING(dying): Release, so that who sees the end sees all that led to it.
        let end = self.life.compare_exchange(DYING, DRAINED, Ordering::Release, Ordering::Relaxed);
        Ok(end.is_ok())
    }

    /// Returns the first page that is neither free nor in quarantine.
    pub(super) fn first_busy(&self) -> Option<StillBusy> {
        let busy = self.extents().find_map(Extent::first_busy);
        if busy.is_none() {
            // ORDERING(dying): Acquire; whoever finds nothing in use is behind all uses.
            fence(Ordering::Acquire);
        }
        busy
    }
}

/// Returns whether a folio of that kind keeps its pgmap from being drained.
const fn is_in_the_way(kind: Kind) -> bool {
    !matches!(kind, Kind::Retired | Kind::Poisoned)
}

impl Extent {
    fn first_busy(&self) -> Option<StillBusy> {
        self.busy_from(self.range().start())
    }

    /// Returns the first page from `from` on that is neither free nor in quarantine.
    fn busy_from(&self, from: Pfn) -> Option<StillBusy> {
        let range = self.range();
        let mut from = Some(from);
        // Ends: `from` grows on every turn, up to the end of the extent.
        while let Some(pfn) = from {
            let rest = crate::units::PfnRange::between(pfn, range.last())?;
            let pfn = self.index().first_busy(rest)?;
            let found = self.find(pfn);
            match found {
                Some(found) if !is_in_the_way(found.bits.kind()) => from = self.behind(&found),
                _ => {
                    let folio = found.map(|found| FolioInfo::new(found.head, found.bits));
                    return Some(StillBusy { pfn, folio });
                }
            }
        }
        None
    }

    /// Calls `each_fn` with every busy folio, and with the first page of each run that is on its
    /// way.
    fn for_each_busy(&self, mut each_fn: impl FnMut(StillBusy)) {
        let mut from = Some(self.range().start());
        // The page behind one that was on its way.
        let mut on_its_way = None;
        // Ends: `from` grows on every turn, up to the end of the extent.
        while let Some(busy) = from.and_then(|from| self.busy_from(from)) {
            let nr_pages = match busy.folio {
                // What is left of it, if it was made while its pages were passed.
                Some(folio) => {
                    let before = busy.pfn.offset_from(folio.head).unwrap_or(0);
                    folio.order.nr_pages().saturating_sub(before).max(1)
                }
                None => 1,
            };
            let is_kept = busy.folio.is_some_and(|folio| folio.kind == FolioKind::Kept);
            if seeded!(BusyOmitsKept) && is_kept {
                // The fault: nobody is told.
            } else if busy.folio.is_some() || on_its_way != Some(busy.pfn) {
                each_fn(busy);
            }
            let next = busy.pfn.checked_add(nr_pages);
            on_its_way = if busy.folio.is_none() { next } else { None };
            from = next.filter(|&next| next <= self.range().last());
        }
    }

    /// Returns the page behind a folio, if the extent has it.
    fn behind(&self, found: &Found<'_>) -> Option<Pfn> {
        let next = found.head.checked_add(found.bits.order().nr_pages());
        next.filter(|&next| next <= self.range().last())
    }
}

impl<O: super::PgmapOps> super::PgmapCore<O> {
    /// Says what keeps this pgmap from being drained; `Ok` if nothing does.
    ///
    /// # Errors
    ///
    /// Returns [`StillBusy`] with the first page that is in use.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock. Walks the extents up to that page.
    pub fn try_drain(&self) -> Result<(), StillBusy> {
        self.core.first_busy().map_or(Ok(()), Err)
    }

    /// Calls `each_fn` with every folio that keeps this pgmap from being drained, and its counts:
    /// all but those in quarantine, in ascending order within each extent.
    ///
    /// Of pages that are on their way between a folio and free space it is called with the first
    /// of each run, without a folio; at rest there are none. Linux names nobody: `memunmap_pages`
    /// waits for the last count for as long as it takes.
    ///
    /// ```
    /// # use devfolio::*;
    /// # fn end<O: PgmapOps>(pgmap: &PgmapCore<O>) -> Result<(), Box<dyn std::error::Error>> {
    /// let folio = pgmap.alloc(Order::BLOCK)?.publish();
    /// let _pin = folio.pin(PinKind::Short)?;
    /// pgmap.kill();
    /// pgmap.for_each_busy(|busy| {
    ///     let folio = busy.folio.expect("nobody else is there");
    ///     assert_eq!((folio.order, folio.refs, folio.pins), (Order::BLOCK, 1, 1));
    /// });
    /// # Ok(())
    /// # }
    /// # struct Ops;
    /// # impl PgmapOps for Ops { type Private = (); }
    /// # let range = PfnRange::new(Pfn::new(0), 1024)?;
    /// # let nr_lines = MetaSize::of(range, Tables::Dense).lines();
    /// # let mut lines: Vec<_> = (0..nr_lines).map(|_| MetaLine::ZERO).collect();
    /// # let slots = [const { ExtentSlot::new() }];
    /// # let pgmap = Pgmap::new(Ops, Policy::generic(), &slots);
    /// # pgmap.add_extent(range, ExtentAttrs::NEW, Tables::Dense, &mut lines, Attach::Zeroed)?;
    /// # end(&pgmap)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock. Walks the extents; what is free is passed in large steps. `each_fn`
    /// may call anything in the crate. While others are at work, what it is called with is a
    /// snapshot of different moments.
    pub fn for_each_busy(&self, mut each_fn: impl FnMut(StillBusy)) {
        for extent in self.core.extents() {
            extent.for_each_busy(&mut each_fn);
        }
    }
}
