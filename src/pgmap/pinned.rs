//! Folios with pins: found by a walk over what is in use.

use super::extent::Extent;
use super::info::FolioInfo;
use super::owner::Core;
use crate::sync::{Ordering, fence};
use crate::units::PfnRange;

impl Core {
    /// Returns the pinned folio with the lowest head.
    pub(super) fn first_pinned(&self) -> Option<FolioInfo> {
        let found = self.extents().filter_map(|extent| extent.first_pinned(extent.range()));
        if seeded!(HolderNamesOther) {
            return found.last();
        }
        found.min_by_key(|folio| folio.head)
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
