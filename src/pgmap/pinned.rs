//! Folios with pins: found by a walk over what is in use.

use super::extent::Extent;
use super::info::FolioInfo;
use super::owner::Core;
use crate::sync::{Ordering, fence};
use crate::units::PfnRange;

impl Core {
    /// Returns the pinned folio with the lowest head.
    pub(super) fn first_pinned(&self) -> Option<FolioInfo> {
        if seeded!(HolderNamesOther) {
            let mut other = None;
            self.extents().for_each(|it| self.for_each_pinned(it.range(), |at| other = Some(at)));
            return other;
        }
        let found = self.extents().filter_map(|extent| extent.first_pinned(extent.range()));
        found.min_by_key(|folio| folio.head)
    }

    /// Returns the pinned folio with the lowest head of those that have pages of `range`.
    pub(crate) fn first_pinned_in(&self, range: PfnRange) -> Option<FolioInfo> {
        let found = self.extents().filter_map(|extent| extent.first_pinned(range));
        found.min_by_key(|folio| folio.head)
    }

    /// Calls `each_fn` with every pinned folio that has pages of `range`, ascending in each extent.
    pub(crate) fn for_each_pinned(&self, range: PfnRange, mut each_fn: impl FnMut(FolioInfo)) {
        for extent in self.extents() {
            let mut rest = Some(range);
            // Ends: `rest` begins later on every turn, up to the end of the range.
            while let Some(folio) = rest.and_then(|rest| extent.first_pinned(rest)) {
                each_fn(folio);
                let next = PfnRange::block(folio.head, folio.order).last().checked_add(1);
                let next = next.filter(|&next| next <= range.last());
                rest = next.and_then(|next| PfnRange::between(next, range.last()));
            }
        }
    }
}

impl Extent {
    /// Returns the first pinned folio that has pages of `range`.
    ///
    /// Whoever finds none is behind all that was done through the pins that are gone.
    fn first_pinned(&self, range: PfnRange) -> Option<FolioInfo> {
        let mut rest = self.range().intersection(range);
        // Ends: `rest` begins later on every turn, up to the end of the extent.
        while let Some(now) = rest {
            let Some(pfn) = self.index().first_busy(now) else { break };
            let found = self.find(pfn).map(|found| FolioInfo::new(found.head, found.bits));
            if let Some(folio) = found.filter(|folio| folio.pins != 0) {
                return Some(folio);
            }
            // What is on its way is passed page by page, like all that may become a folio.
            let last = found.map_or(pfn, |folio| PfnRange::block(folio.head, folio.order).last());
            let next = last.max(pfn).checked_add(1).filter(|&next| next <= now.last());
            rest = next.and_then(|next| PfnRange::between(next, now.last()));
        }
        // ORDERING(use-before-free): Acquire half, behind the looks that found no pin.
        fence(Ordering::Acquire);
        None
    }
}
