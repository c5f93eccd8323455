//! Statistics: sums made on demand, so that no counter is written on the hot path.

use super::extent::Extent;
use super::info::{FolioInfo, FolioKind};
use super::ops::PgmapOps;
use super::owner::{Core, PgmapCore};
use crate::units::{Order, Pfn, PfnRange};

/// Folios of one state.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// How many folios.
    pub nr_folios: u64,
    /// How many pages they have together.
    pub nr_pages: u64,
}

/// What the extents of a pgmap hold, summed over a walk.
///
/// Exact at rest; while others allocate, a snapshot of different moments.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// Pages of all extents.
    pub nr_pages: u64,
    /// Pages that are free.
    pub free_pages: u64,
    /// Free pages that are clean.
    pub clean_pages: u64,
    /// Free blocks of each order: the maximal aligned tiling of the free pages.
    pub free_by_order: [u64; Order::MAX.as_u8() as usize + 1],
    /// Pages of the largest contiguous free run.
    pub largest_free_run: u64,
    /// Folios held alone.
    pub unique: Tally,
    /// Idle folios.
    pub kept: Tally,
    /// Counted folios.
    pub live: Tally,
    /// Those of them that have a pin.
    pub pinned: Tally,
    /// Those of them that have a mapping.
    pub mapped: Tally,
    /// Folios in quarantine.
    pub retired: Tally,
    /// Folios that wait for their hook.
    pub condemned: Tally,
    /// Bad pages in quarantine.
    pub poisoned: Tally,
    /// Pages that are offline: they have left free space.
    pub offline: Tally,
    /// Pages that are known to be bad, those that are still part of a folio included.
    pub poisoned_pages: u64,
    /// Folios of each order, in any state.
    pub folios_by_order: [u64; Order::MAX.as_u8() as usize + 1],
    /// Fracture tables that belong to a block.
    pub tables_used: u64,
    /// Fracture tables there are.
    pub tables: u64,
}

impl Tally {
    const fn add(&mut self, folio: &FolioInfo) {
        self.nr_folios = self.nr_folios.saturating_add(1);
        self.nr_pages = self.nr_pages.saturating_add(folio.order.nr_pages());
    }
}

impl Stats {
    fn add_folio(&mut self, folio: &FolioInfo) {
        let tally = match folio.kind {
            FolioKind::Unique => &mut self.unique,
            FolioKind::Kept => &mut self.kept,
            FolioKind::Live => &mut self.live,
            FolioKind::Retired => &mut self.retired,
            FolioKind::Condemned => &mut self.condemned,
            FolioKind::Poisoned => &mut self.poisoned,
            FolioKind::Offline => &mut self.offline,
        };
        tally.add(folio);
        if folio.pins != 0 {
            self.pinned.add(folio);
        }
        if folio.mappings != 0 {
            self.mapped.add(folio);
        }
        if let Some(nr) = self.folios_by_order.get_mut(usize::from(folio.order.as_u8())) {
            *nr = nr.saturating_add(1);
        }
    }

    fn add_free(&mut self, run: PfnRange) {
        self.free_pages = self.free_pages.saturating_add(run.nr_pages());
        self.largest_free_run = self.largest_free_run.max(run.nr_pages());
        for (_, order) in run.tiles() {
            if let Some(nr) = self.free_by_order.get_mut(usize::from(order.as_u8())) {
                *nr = nr.saturating_add(1);
            }
        }
    }
}

impl Extent {
    /// Calls `each_fn` with every folio, in ascending order, as found on the way.
    pub(super) fn for_each_folio(&self, mut each_fn: impl FnMut(FolioInfo)) {
        self.folios_in(self.range()).for_each(|it| each_fn(FolioInfo::new(it.head, it.bits)));
    }

    fn add_stats(&self, stats: &mut Stats) {
        let range = self.range();
        stats.nr_pages = stats.nr_pages.saturating_add(range.nr_pages());
        let tables = u64::from(self.meta.nr_tables());
        stats.tables = stats.tables.saturating_add(tables);
        let used = tables.saturating_sub(u64::from(self.meta.tables_left()));
        stats.tables_used = stats.tables_used.saturating_add(used);
        for run in self.index().free_runs(range) {
            stats.add_free(run);
        }
        stats.clean_pages = stats.clean_pages.saturating_add(self.index().clean_pages());
        stats.poisoned_pages = stats.poisoned_pages.saturating_add(self.nr_poisoned());
        self.for_each_folio(|folio| stats.add_folio(&folio));
    }
}

impl Core {
    /// Calls `each_fn` with every folio.
    pub(super) fn for_each_folio(&self, mut each_fn: impl FnMut(FolioInfo)) {
        for extent in self.extents() {
            extent.for_each_folio(&mut each_fn);
        }
    }
}

impl<O: PgmapOps> PgmapCore<O> {
    /// Sums up what the extents hold.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock. Walks regions that are whole or wholly one folio in one step each,
    /// others block by block.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        for extent in self.core.extents() {
            extent.add_stats(&mut stats);
        }
        stats
    }

    /// Sums up what the extent with the page `pfn` holds; `None` if there is none.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::stats`].
    pub fn extent_stats(&self, pfn: Pfn) -> Option<Stats> {
        let mut stats = Stats::default();
        self.core.extent_of(pfn)?.add_stats(&mut stats);
        Some(stats)
    }

    /// Yields the maximal free runs, in ascending order within each extent.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::stats`].
    pub fn free_runs(&self) -> impl Iterator<Item = PfnRange> + '_ {
        self.core.extents().flat_map(|extent| {
            let mut next = Some(extent.range().start());
            core::iter::from_fn(move || {
                let run = extent.index().free_run(next?, extent.range().last());
                next = run.and_then(|run: PfnRange| run.last().checked_add(1));
                next = next.filter(|&pfn: &Pfn| pfn <= extent.range().last());
                run
            })
        })
    }

    /// Calls `each_fn` with every folio, in ascending order within each extent.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::stats`]. `each_fn` may call anything in the crate.
    pub fn for_each_folio(&self, each_fn: impl FnMut(FolioInfo)) {
        self.core.for_each_folio(each_fn);
    }
}
