//! Reading an image: claims of all its folios first, which can be undone, and then their states.

use super::{FolioRecord, Image, ImportError, Imported, Orphan, Part};
use crate::meta::word::Kind;
use crate::pgmap::extent::Extent;
use crate::pgmap::folio_ref::FolioRef;
use crate::pgmap::info::{FolioInfo, FolioKind};
use crate::pgmap::ops::PgmapOps;
use crate::pgmap::owner::PgmapCore;
use crate::pgmap::withheld::{Entry, Tile};
use crate::sync::Ordering;
use crate::units::{Order, Pfn, PfnRange};
use crate::zone::After;

impl<O: PgmapOps> PgmapCore<O> {
    /// Makes the folios of an image, which [`Pgmap::export`](super::super::Pgmap::export) wrote.
    ///
    /// The pgmap has the extents of the image, lent anew with memory of their own, and all their
    /// pages are free; what [`ExtentAttrs::contents`](super::super::ExtentAttrs::contents) says is
    /// said of the pages that the image leaves free. Each folio has its order, state and counts
    /// afterwards, and each bad page is listed, of which the owner is not told again. `data_fn` is
    /// given each folio, the number that the exporter gave for it, and its owner data, which began
    /// as `default()`; it runs before anybody can find a folio.
    ///
    /// The counts are nobody's: `orphans` lists what is to be adopted, with a place for each folio
    /// that is live or unique ([`Orphan::nr_in`] says how many). Whatever happens to the
    /// [`Imported`], counts stay until they are adopted and dropped.
    ///
    /// Any bytes give a state that [`check`](PgmapCore::check) accepts, or an error. Whether counts
    /// are those that holders have is for the writer of the image to know.
    ///
    /// # Errors
    ///
    /// Says what is in the way, and changes nothing; tables that were taken for a claim that is
    /// undone, because others were in the way, stay with their blocks.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock while `data_fn` runs, and the lock of a list of bad pages for a
    /// bounded time. Walks the image three times, with a claim for each folio.
    pub fn import<'a, 'l>(
        &'a self,
        image: &[u8],
        orphans: &'l mut [Orphan],
        mut data_fn: impl FnMut(&FolioInfo, u64, &mut O::Private),
    ) -> Result<Imported<'a, 'l, O>, ImportError> {
        let image = Image::open(image)?;
        let nr_held = self.verify(&image, orphans.len())?;
        let mut attempt = Attempt { pgmap: self, image: &image, nr_claimed: 0, nr_listed: 0 };
        for part in image.parts().flatten() {
            // An extent without folios may be gone since it was seen.
            let missing = ImportError::Missing { extent: part.range };
            let extent = self.extent_of_part(&part).ok_or(missing)?;
            for record in part.folios().flatten() {
                let at = self.claim_record(extent, &record)?;
                attempt.nr_claimed = attempt.nr_claimed.saturating_add(1);
                if let Some(at) = at {
                    data_fn(&record.info(), record.data, at.private_mut());
                }
            }
        }
        self.list_bad(&image, &mut attempt.nr_listed)?;
        if self.core.extents().any(|extent| self.is_too_late(extent)) {
            return Err(ImportError::Dying);
        }
        core::mem::forget(attempt);

        let orphans = orphans.get_mut(..nr_held).unwrap_or_default();
        let mut nr_places = 0;
        for (extent, record) in self.records(&image) {
            self.settle_record(extent, &record);
            if record.is_held() {
                if let Some(place) = orphans.get_mut(nr_places) {
                    *place = Orphan::new(&record.info());
                    nr_places = nr_places.saturating_add(1);
                }
            }
        }
        // What was parked is behind a fence.
        self.after_release();
        // What is in the places behind these is not of this import.
        Ok(Imported::new(self, orphans.get_mut(..nr_places).unwrap_or_default()))
    }

    /// Yields the folios of a verified image, with their extents.
    fn records<'a>(&'a self, image: &Image<'_>) -> impl Iterator<Item = (&'a Extent, FolioRecord)> {
        let parts = self.parts(image);
        parts.flat_map(|(extent, part)| part.folios().flatten().map(move |record| (extent, record)))
    }

    /// Yields the parts of a verified image, with their extents.
    fn parts<'a, 'b>(
        &'a self,
        image: &Image<'b>,
    ) -> impl Iterator<Item = (&'a Extent, Part<'b>)> + use<'a, 'b, O> {
        let parts = image.parts().flatten();
        parts.filter_map(|part| Some((self.extent_of_part(&part)?, part)))
    }

    /// Takes the pages of a folio and begins it, held alone; of a quarantine it takes the pages.
    fn claim_record<'a>(
        &'a self,
        extent: &'a Extent,
        record: &FolioRecord,
    ) -> Result<Option<FolioRef<'a, O>>, ImportError> {
        let FolioRecord { head, order, kind, .. } = *record;
        let contended = ImportError::Contended { pfn: head };
        let Ok(grant) = extent.index().claim_at(head, order) else {
            // As for a search that fails.
            self.after_release();
            return Err(contended);
        };
        if kind == FolioKind::Poisoned {
            return Ok(None);
        }
        let order = match order.shrink() {
            Some(lower) if seeded!(ImageOrderLow) => lower,
            _ => order,
        };
        let folio = self.begin(extent, grant, order).ok_or(contended)?;
        Ok(Some(folio.into_parts().0))
    }

    /// Lists the bad pages, all of which are claimed, and counts them.
    fn list_bad(&self, image: &Image<'_>, nr_listed: &mut usize) -> Result<(), ImportError> {
        for (extent, pfn) in self.bad_pages(image) {
            let guard = extent.withheld.try_lock();
            let contended = ImportError::Contended { pfn };
            let _guard = guard.ok_or(contended)?;
            // Somebody may have found out in the meantime.
            if extent.is_poisoned(pfn) {
                return Err(contended);
            }
            if !seeded!(ImagePoisonUnlisted) {
                extent.record(Entry::bad(pfn)).then_some(()).ok_or(contended)?;
            }
            *nr_listed = nr_listed.saturating_add(1);
        }
        // Magazines learn of it.
        // ORDERING: Relaxed. A request to be obeyed some time.
        self.core.shortages.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Yields the bad pages of a verified image, with their extents.
    fn bad_pages<'a>(&'a self, image: &Image<'_>) -> impl Iterator<Item = (&'a Extent, Pfn)> {
        let parts = self.parts(image);
        parts.flat_map(|(extent, part)| part.bad().map(move |pfn| (extent, pfn)))
    }

    /// Puts a folio that was begun into the state that the image says.
    fn settle_record<'a>(&'a self, extent: &'a Extent, record: &FolioRecord) {
        let FolioRecord { head, order, kind, counts, .. } = *record;
        if kind == FolioKind::Poisoned {
            // Somebody may have repaired it meanwhile.
            return self.park_tile(extent, Tile { head, order, kind: Kind::Poisoned });
        }
        let Some(word) = extent.word(head, order) else { return };
        let at = FolioRef { pgmap: self, extent, word, head };
        match kind {
            FolioKind::Live => word.restore(counts),
            FolioKind::Kept => self.park(at, order, Kind::Kept),
            FolioKind::Retired => self.park(at, order, Kind::Retired),
            FolioKind::Unique | FolioKind::Condemned | FolioKind::Poisoned | FolioKind::Offline => {
            }
        }
    }

    /// Gives the pages of a folio back that was begun, and to which nobody wrote.
    fn forget_record<'a>(&'a self, extent: &'a Extent, head: Pfn, order: Order, kind: FolioKind) {
        if kind == FolioKind::Poisoned {
            // Others may have found pages of it to be bad meanwhile.
            if let Some(pages) = PfnRange::folio(head, order) {
                self.distribute(extent, pages, After::AsWas);
                self.settle_freed(extent, head, order);
            }
            self.after_release();
        } else if let Some(word) = extent.word(head, order) {
            self.dissolve(FolioRef { pgmap: self, extent, word, head }, order, After::AsWas);
        }
    }
}

/// An import that may still fail: unless it is forgotten, everything is undone.
struct Attempt<'a, 'i, O: PgmapOps> {
    pgmap: &'a PgmapCore<O>,
    image: &'i Image<'i>,
    /// The folios that were begun.
    nr_claimed: usize,
    /// The bad pages that were listed.
    nr_listed: usize,
}

impl<O: PgmapOps> Drop for Attempt<'_, '_, O> {
    fn drop(&mut self) {
        for (extent, pfn) in self.pgmap.bad_pages(self.image).take(self.nr_listed) {
            // Whoever holds the lock does so for a moment. A page that stays listed is a leak.
            if let Some(_guard) = extent.withheld.try_lock() {
                extent.erase(Entry::bad(pfn));
            }
        }
        let left = usize::from(seeded!(ImportLeavesFolio));
        let nr_claimed = self.nr_claimed.saturating_sub(left);
        for (extent, record) in self.pgmap.records(self.image).take(nr_claimed) {
            self.pgmap.forget_record(extent, record.head, record.order, record.kind);
        }
    }
}
