//! Weighing: what a window costs, and what cannot be moved out of it.

use super::heap::Least;
use super::{Move, Obstacle, Window};
use crate::meta::Count;
use crate::meta::word::Kind;
use crate::pgmap::extent::{Extent, Found};
use crate::pgmap::info::FolioInfo;
use crate::pgmap::owner::Core;
use crate::pgmap::withheld::is_withheld;
use crate::units::{Order, Pfn, PfnRange};

/// What a range is weighed for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Aim {
    /// One free run: no page of it may be withheld.
    Run,
    /// That no folio has any of it.
    Empty,
}

/// What the best windows of a pgmap are found to be.
#[derive(Debug)]
pub(super) struct Best<'s> {
    /// The cheapest first.
    pub(super) windows: &'s mut [Window],
    /// What was met first in a window that is none.
    pub(super) obstacle: Option<Obstacle>,
}

/// By what windows are compared: what they cost, and of equals, where they are.
pub(super) fn cost(window: &Window) -> (u64, Pfn) {
    let cost = if seeded!(PlanFirstWindows) { 0 } else { window.nr_pages };
    (cost, window.range.start())
}

impl Core {
    /// Finds the cheapest windows of `order`, as many as there is room for.
    ///
    /// Each window is looked at through its free bits; its folios are looked at only if it is
    /// cheaper than what was found before.
    pub(super) fn best_windows<'s>(
        &self,
        order: Order,
        within: Option<PfnRange>,
        storage: &'s mut [Window],
    ) -> Best<'s> {
        let mut least = Least::new(storage);
        let mut obstacle = None;
        for extent in self.open_extents() {
            let part = match within {
                Some(within) => within.intersection(extent.range()),
                None => Some(extent.range()),
            };
            let mut next = part.and_then(|part| first_head(part, order));
            // Ends: `next` grows on every turn, up to the end of the extent.
            while let (Some(head), Some(part)) = (next, part) {
                next = head.checked_add(order.nr_pages());
                let range = PfnRange::folio(head, order).filter(|&it| part.contains_range(it));
                let Some(range) = range else { break };
                let nr_pages = extent.index().nr_busy(range);
                let window = Window { range, nr_pages };
                if !least.wants(&cost(&window), cost) {
                    continue;
                }
                match extent.for_each_to_move(range, Aim::Run, |_| {}) {
                    Ok(()) => least.take(window, cost),
                    Err(met) => obstacle = obstacle.or(Some(met)),
                }
            }
        }
        Best { windows: least.finish(cost), obstacle }
    }

    /// Lists the folios of a window behind the `len` moves that are there; returns how many moves
    /// there would be if there were room.
    pub(super) fn list_moves(
        &self,
        window: &mut Window,
        aim: Aim,
        moves: &mut [Move],
        mut len: usize,
    ) -> Result<usize, Obstacle> {
        let unsettled = Obstacle::Unsettled { pfn: window.range.start() };
        let extent = self.extent_with(window.range).ok_or(unsettled)?;
        let mut nr_pages = 0_u64;
        extent.for_each_to_move(window.range, aim, |folio| {
            if let Some(place) = moves.get_mut(len) {
                *place = Move { from: folio.head, to: folio.head, order: folio.order };
            }
            len = len.saturating_add(1);
            let is_one = seeded!(PlanCountsFolios);
            let cost = if is_one { 1 } else { folio.order.nr_pages() };
            nr_pages = nr_pages.saturating_add(cost);
        })?;
        window.nr_pages = nr_pages;
        Ok(len)
    }
}

/// Returns the first page of `range` that is aligned to `order`.
pub(super) fn first_head(range: PfnRange, order: Order) -> Option<Pfn> {
    let (start, head) = (range.start(), range.start().head(order));
    if head == start { Some(head) } else { head.checked_add(order.nr_pages()) }
}

impl Extent {
    /// Calls `each_fn` with every folio of which `range` has pages, in ascending order.
    ///
    /// # Errors
    ///
    /// Returns the first thing in the way, in ascending order but for pages that are withheld.
    pub(super) fn for_each_to_move(
        &self,
        range: PfnRange,
        aim: Aim,
        mut each_fn: impl FnMut(FolioInfo),
    ) -> Result<(), Obstacle> {
        if aim == Aim::Run && self.withholds_any() {
            self.withheld_of(range)?;
        }
        let mut next = Some(range.start());
        // Ends: `next` grows on every turn, up to the end of the range.
        while let Some(pfn) = next.filter(|&pfn| pfn <= range.last()) {
            let chunk = self.index().chunk(pfn);
            if chunk.is_free {
                next = pfn.checked_add(chunk.nr_pages);
                continue;
            }
            let Some(found) = self.find(pfn) else { return Err(Obstacle::Unsettled { pfn }) };
            next = found.head.checked_add(found.bits.order().nr_pages());
            if aim == Aim::Empty && is_withheld(found.bits.kind()) {
                continue;
            }
            let folio = FolioInfo::new(found.head, found.bits);
            self.movable(&found, folio, range, aim)?;
            each_fn(folio);
        }
        Ok(())
    }

    /// Says if a page of `range` is bad, or offline.
    fn withheld_of(&self, range: PfnRange) -> Result<(), Obstacle> {
        if let Some(pfn) = self.first_of(Kind::Poisoned, range) {
            return Err(Obstacle::Bad { pfn });
        }
        let offline = self.first_offline(range).filter(|_| !seeded!(PlanTakesOffline));
        offline.map_or(Ok(()), |run| Err(Obstacle::Offline { pfn: run.start() }))
    }

    /// Says why a folio has to stay, if it has to.
    fn movable(
        &self,
        found: &Found<'_>,
        folio: FolioInfo,
        range: PfnRange,
        aim: Aim,
    ) -> Result<(), Obstacle> {
        if found.bits.kind() != Kind::Live {
            return Err(Obstacle::NotLive { folio });
        }
        if found.bits.count(Count::Pins) != 0 && !seeded!(PlanIgnoresPins) {
            return Err(Obstacle::Pinned { folio });
        }
        let Some(pages) = PfnRange::folio(folio.head, folio.order) else { return Ok(()) };
        if aim == Aim::Run && !range.contains_range(pages) {
            return Err(Obstacle::Larger { folio });
        }
        let bad = if self.withholds_any() { self.first_of(Kind::Poisoned, pages) } else { None };
        bad.map_or(Ok(()), |pfn| Err(Obstacle::Bad { pfn }))
    }
}
