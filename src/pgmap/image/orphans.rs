//! Orphans: imported counts that nobody has adopted yet.
//!
//! The ledger lies in memory that the caller lends, sorted by page. It never says more than the
//! words do: it is filled with the counts that an import publishes, and an adoption takes from it
//! what it gives out. So safe code gets no handle without a count.

use core::fmt;

use super::{AdoptError, Image, ImportError};
use crate::meta::Count;
use crate::meta::word::{Counts, Kind};
use crate::pgmap::extent::covers;
use crate::pgmap::folio_ref::FolioRef;
use crate::pgmap::info::{FolioInfo, FolioKind};
use crate::pgmap::ops::PgmapOps;
use crate::pgmap::owner::PgmapCore;
use crate::pgmap::unique::UniqueFolio;
use crate::units::{Order, Pfn};

/// What is left to be adopted of one folio: a place that the caller lends to
/// [`PgmapCore::import`].
#[derive(Clone, Copy)]
pub struct Orphan {
    head: Pfn,
    order: Order,
    is_unique: bool,
    counts: Counts,
}

impl Orphan {
    /// A place for one folio.
    pub const EMPTY: Self = Self {
        head: Pfn::new(0),
        order: Order::ZERO,
        is_unique: false,
        counts: Counts { refs: 0, pins: 0, mappings: 0, is_closed: false },
    };

    /// Returns how many folios of an image are to be adopted: the places that
    /// [`PgmapCore::import`] takes.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the image as a whole; its folios are not looked at.
    pub fn nr_in(image: &[u8]) -> Result<u64, ImportError> {
        Image::open(image).map(|image| image.header.nr_held)
    }

    pub(super) fn new(info: &FolioInfo) -> Self {
        let FolioInfo { head, order, kind, refs, pins, mappings, is_closed } = *info;
        let counts = Counts { refs, pins, mappings, is_closed };
        Self { head, order, is_unique: kind == FolioKind::Unique, counts }
    }

    /// Returns the folio with the counts that are left; `None` if there are none.
    fn info(&self) -> Option<FolioInfo> {
        let Counts { refs, pins, mappings, is_closed } = self.counts;
        let kind = if self.is_unique { FolioKind::Unique } else { FolioKind::Live };
        let (head, order) = (self.head, self.order);
        let is_left = self.is_unique || !self.counts.is_idle();
        is_left.then_some(FolioInfo { head, order, kind, refs, pins, mappings, is_closed })
    }

    const fn left_mut(&mut self, count: Count) -> &mut u32 {
        match count {
            Count::Refs => &mut self.counts.refs,
            Count::Pins => &mut self.counts.pins,
            Count::Mappings => &mut self.counts.mappings,
        }
    }
}

impl Default for Orphan {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl fmt::Debug for Orphan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.info() {
            Some(info) => write!(f, "Orphan({info:?})"),
            None => f.write_str("Orphan(none)"),
        }
    }
}

/// The counts of an imported pgmap, until their holders have adopted them.
///
/// Who comes first adopts: the image knows how many counts there are, and not whose they are.
/// Dropping this leaves the counts that nobody adopted as they are, without a way to drop
/// them; [`Imported::put_orphans`] is what ends a folio whose holders do not come back. A count
/// that is still listed here belongs to this value, and may not be dropped in a raw form.
#[must_use = "counts that nobody adopts stay for ever"]
pub struct Imported<'a, 'l, O: PgmapOps> {
    pgmap: &'a PgmapCore<O>,
    /// Ascending.
    orphans: &'l mut [Orphan],
}

impl<'a, 'l, O: PgmapOps> Imported<'a, 'l, O> {
    /// Lists counts that the caller has just published.
    pub(super) const fn new(pgmap: &'a PgmapCore<O>, orphans: &'l mut [Orphan]) -> Self {
        Self { pgmap, orphans }
    }

    /// Returns the pgmap.
    #[must_use]
    pub const fn pgmap(&self) -> &'a PgmapCore<O> {
        self.pgmap
    }

    /// Yields what nobody has adopted, ascending: each folio with the counts that are left.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock.
    pub fn orphans(&self) -> impl Iterator<Item = FolioInfo> + '_ {
        self.orphans.iter().filter_map(Orphan::info)
    }

    /// Adopts the exclusive folio that has `pfn`.
    ///
    /// # Errors
    ///
    /// Says what is in the way, and changes nothing.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    pub fn adopt_unique(&mut self, pfn: Pfn) -> Result<UniqueFolio<'a, O>, AdoptError> {
        let pgmap = self.pgmap;
        let orphan = self.orphan_mut(pfn)?;
        let (head, order) = (orphan.head, orphan.order);
        if !orphan.is_unique {
            return Err(AdoptError::NotUnique { head });
        }
        let found = pgmap.find(head).filter(|(_, found)| {
            found.bits.kind() == Kind::Unique && found.head == head && found.bits.order() == order
        });
        let (at, _) = found.ok_or(AdoptError::Gone { head })?;
        orphan.is_unique = seeded!(AdoptKeepsCount);
        Ok(UniqueFolio::new(at, order, false))
    }

    /// Takes `nr` counts of the folio that has `pfn` off the list; the caller passes them on.
    pub(crate) fn take(
        &mut self,
        pfn: Pfn,
        count: Count,
        nr: u32,
    ) -> Result<FolioRef<'a, O>, AdoptError> {
        let pgmap = self.pgmap;
        let orphan = self.orphan_mut(pfn)?;
        let (head, order) = (orphan.head, orphan.order);
        let left = orphan.left_mut(count);
        let too_few = AdoptError::TooFew { head, count, left: *left, nr };
        let rest = left.checked_sub(nr).ok_or(too_few)?;
        // Counts of mappings go by what page tables say, and one may have lied since.
        let found = pgmap.find(head).filter(|(_, found)| {
            let (bits, is_head) = (found.bits, found.head == head);
            is_head && bits.is_held() && bits.order() == order && nr <= bits.count(count)
        });
        let (at, _) = found.ok_or(AdoptError::Gone { head })?;
        if !seeded!(AdoptKeepsCount) {
            *left = rest;
        }
        Ok(at)
    }

    /// Takes all that is left of the folio that has `pfn` off the list; the caller owes a put of
    /// each count, or has the folio alone.
    pub(crate) fn take_all(&mut self, pfn: Pfn) -> Result<FolioInfo, AdoptError> {
        let orphan = self.orphan_mut(pfn)?;
        let info = orphan.info().ok_or(AdoptError::Unknown { pfn })?;
        if info.kind == FolioKind::Live {
            orphan.counts = Counts::default();
        }
        Ok(info)
    }

    fn orphan_mut(&mut self, pfn: Pfn) -> Result<&mut Orphan, AdoptError> {
        let above = self.orphans.partition_point(|orphan| orphan.head <= pfn);
        let orphan = above.checked_sub(1).and_then(|index| self.orphans.get_mut(index));
        let orphan = orphan.filter(|orphan| covers(orphan.head, orphan.order, pfn));
        orphan.ok_or(AdoptError::Unknown { pfn })
    }
}

impl<O: PgmapOps> fmt::Debug for Imported<'_, '_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Imported({} folios with orphans)", self.orphans().count())
    }
}
