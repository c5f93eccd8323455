//! Pages whose device is gone without notice: those of a whole extent, or a part of one.
//!
//! A whole extent that is gone is a removal that cannot be called off; `remove` begins it. Of a
//! part the pages leave as those do that are to be offline, and their entries in the list of the
//! extent say that nobody is to touch them any more: they are not scrubbed, and not moved.

use super::extent::Extent;
use super::holder::Failure;
use super::info::FolioKind;
use super::life::Life;
use super::offline::{OfflineError, around, chunks};
use super::ops::PgmapOps;
use super::owner::PgmapCore;
use super::unique::UniqueFolio;
use super::withheld::Entry;
use crate::meta::word::Kind;
use crate::units::{Order, Pfn, PfnRange};

impl<O: PgmapOps> PgmapCore<O> {
    /// Says that the device behind pages is gone, without notice, while the rest of their extent
    /// stays; returns how far their leaving has come.
    ///
    /// The pages leave as [`PgmapCore::offline`] says, also those that are offline already, with
    /// these differences: a [`Holder`](super::Holder) is told of the pages, and then the owner, by
    /// [`PgmapOps::folio_gone`], of each folio in use that has any of them; folios with counts
    /// refuse newcomers from now on, as [`close`](crate::Folio::close) has it;
    /// [`PgmapCore::is_gone`] says that the contents are out of reach, so that nothing is scrubbed
    /// there or moved from there. Puts, unpins and unmaps stay legal. [`PgmapCore::online`] takes
    /// the pages back, once a device has them again. This is a forced release of dynamic capacity,
    /// which Linux does not serve.
    ///
    /// A second call changes nothing, and tells nobody.
    ///
    /// # Errors
    ///
    /// Says what is in the way, and changes nothing; where the list has no room, the whole extent
    /// can be said to be gone.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::offline`], but runs the hook, without a lock.
    pub fn surprise_offline(&self, range: PfnRange) -> Result<Life, OfflineError> {
        let outside = OfflineError::Outside { range };
        let extent = self.core().extent_with(range).ok_or(outside)?;
        let guard = extent.withheld.try_lock().ok_or(OfflineError::Contended { range })?;
        let lost = extent.runs_without(range, Entry::is_gone).flat_map(chunks).count();
        let stay = extent.entries().filter(Entry::is_there).flat_map(|it| around(it, range));
        let needed = lost.saturating_add(stay.count());
        let (_, left) = extent.room();
        if left < needed {
            return Err(OfflineError::NoRoom { range, needed, left });
        }
        extent.list(range, Entry::is_gone, Entry::gone);
        // What was offline before is that no more.
        extent.unlist(range, Entry::is_there);
        self.leave_free_space(extent, range, guard);
        if lost != 0 && !seeded!(PartGoneUntold) {
            self.tell_gone(extent, range);
        }
        Ok(extent.offline_life(range).unwrap_or(Life::Dying))
    }

    /// Closes the folios in use that have pages of `range`, and tells of them.
    fn tell_gone(&self, extent: &Extent, range: PfnRange) {
        for found in extent.folios_in(range) {
            // Where nobody has a count, there is nobody to be refused.
            let _ = found.word.close_held();
        }
        self.tell_holder(Failure::PagesGone { range });
        self.for_each_busy_in(range, |busy| match busy.folio {
            Some(folio) if folio.kind != FolioKind::Retired => self.ops.folio_gone(folio),
            _ => {}
        });
    }

    /// Returns whether the device behind the page is gone: its contents must not be touched.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock.
    pub fn is_gone(&self, pfn: Pfn) -> bool {
        self.is_gone_in(PfnRange::block(pfn, Order::ZERO))
    }
}

impl<O: PgmapOps> UniqueFolio<'_, O> {
    /// Returns whether the device behind any of the pages is gone: contents must not be touched.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.pgmap().is_gone_in(self.range())
    }
}

impl<O: PgmapOps> PgmapCore<O> {
    /// Returns whether the device behind any of the pages, all of one extent, is gone.
    pub(crate) fn is_gone_in(&self, range: PfnRange) -> bool {
        self.core.extent_of(range.start()).is_some_and(|extent| extent.is_gone_in(range))
    }
}

impl Extent {
    /// Returns whether the device behind any of the pages is gone.
    pub(super) fn is_gone_in(&self, range: PfnRange) -> bool {
        let is_part = || self.first_run(range, Entry::is_gone).is_some();
        self.end.is_gone() || self.withholds_any() && is_part()
    }
}

impl Entry {
    const fn gone(pages: PfnRange) -> Self {
        Self { pages, kind: Kind::Offline, is_gone: true }
    }

    fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// Returns whether the pages are offline, and their device is there.
    fn is_there(&self) -> bool {
        self.is_offline() && !self.is_gone
    }
}
