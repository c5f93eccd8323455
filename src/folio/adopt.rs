//! Adopting: imported counts become handles again, or are put because nobody comes for them.

use super::counted::{FolioMap, FolioPin};
use super::handle::Folio;
use super::raw::Put;
use crate::meta::Count;
use crate::pgmap::{AdoptError, FolioKind, Imported, PgmapOps};
use crate::units::Pfn;

impl<'a, O: PgmapOps> Imported<'a, '_, O> {
    /// Adopts a reference of the live folio that has `pfn`.
    ///
    /// # Errors
    ///
    /// Says what is in the way, and changes nothing.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    pub fn adopt_folio(&mut self, pfn: Pfn) -> Result<Folio<'a, O>, AdoptError> {
        self.take(pfn, Count::Refs, 1).map(Folio::new)
    }

    /// Adopts a pin of the live folio that has `pfn`.
    ///
    /// Neither the policy nor the end of the pgmap is asked: the pin was granted already.
    ///
    /// # Errors
    ///
    /// As for [`Imported::adopt_folio`].
    ///
    /// # Context
    ///
    /// As for [`Imported::adopt_folio`].
    pub fn adopt_pin(&mut self, pfn: Pfn) -> Result<FolioPin<'a, O>, AdoptError> {
        self.take(pfn, Count::Pins, 1).map(FolioPin::new)
    }

    /// Adopts `nr_leaves` leaves that map pages of the live folio that has `pfn`.
    ///
    /// For leaves in page tables whose counts no handle has, turn it
    /// [`into_raw`](FolioMap::into_raw).
    ///
    /// # Errors
    ///
    /// As for [`Imported::adopt_folio`].
    ///
    /// # Context
    ///
    /// As for [`Imported::adopt_folio`].
    pub fn adopt_map(&mut self, pfn: Pfn, nr_leaves: u32) -> Result<FolioMap<'a, O>, AdoptError> {
        let at = self.take(pfn, Count::Mappings, nr_leaves)?;
        Ok(FolioMap::new(at, nr_leaves))
    }

    /// Drops all counts that nobody adopted of the folio that has `pfn`, or, if it is exclusive,
    /// the folio.
    ///
    /// A leaf or a device that still reaches the pages would reach those of the next owner: it is
    /// for the caller to know that there is none.
    ///
    /// # Errors
    ///
    /// As for [`Imported::adopt_folio`]; also if nothing is left.
    ///
    /// # Context
    ///
    /// Where the owner's hook may run, unless its policy defers it.
    pub fn put_orphans(&mut self, pfn: Pfn) -> Result<Put, AdoptError> {
        let info = self.take_all(pfn)?;
        if info.kind == FolioKind::Unique {
            return self.adopt_unique(pfn).map(drop).map(|()| Put::Last);
        }
        let all =
            [(Count::Mappings, info.mappings), (Count::Pins, info.pins), (Count::Refs, info.refs)];
        let mut put = Err(AdoptError::Gone { head: info.head });
        for (count, nr) in all.into_iter().filter(|(_, nr)| *nr != 0) {
            // Fails if a page table lied about mappings; the others are as they were.
            put = self.pgmap().put_counts(info.head, count, nr).or(put);
        }
        put
    }
}
