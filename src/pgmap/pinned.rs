//! Folios with pins: found by a walk over what is in use.

use super::extent::Extent;
use super::info::FolioInfo;
use super::owner::Core;
use crate::sync::{Ordering, fence};
use crate::units::PfnRange;

impl Core {
    /// Returns the pinned folio with the lowest head.
    ///
    /// Whoever finds none is behind all that was done through the pins that are gone.
    pub(super) fn first_pinned(&self) -> Option<FolioInfo> {
        if seeded!(HolderNamesOther) {
            return self.extents().flat_map(|it| it.pinned_in(it.range())).last();
        }
        lowest(self.extents().filter_map(|it| it.pinned_in(it.range()).next()))
    }

    /// Returns the pinned folio with the lowest head of those that have pages of `range`, as
    /// [`Core::first_pinned`] does.
    pub(crate) fn first_pinned_in(&self, range: PfnRange) -> Option<FolioInfo> {
        lowest(self.parts(range).filter_map(|(extent, part)| extent.pinned_in(part).next()))
    }

    /// Yields the pinned folios that have pages of `range`, ascending in each extent.
    pub(crate) fn pinned_in(&self, range: PfnRange) -> impl Iterator<Item = FolioInfo> {
        self.parts(range).flat_map(|(extent, part)| extent.pinned_in(part))
    }
}

impl Extent {
    fn pinned_in(&self, range: PfnRange) -> impl Iterator<Item = FolioInfo> {
        let folios = self.folios_in(range).map(|found| FolioInfo::new(found.head, found.bits));
        folios.filter(|folio| folio.pins != 0)
    }
}

fn lowest(folios: impl Iterator<Item = FolioInfo>) -> Option<FolioInfo> {
    let lowest = folios.min_by_key(|folio| folio.head);
    // ORDERING(use-before-free): Acquire half, behind the looks that found no pin.
    fence(Ordering::Acquire);
    lowest
}
