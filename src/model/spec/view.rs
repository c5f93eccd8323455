//! What anybody can see of the specification's state, to be compared with a subject.

use alloc::vec::Vec;

use super::super::outcome::{FolioKind, FolioView, PageView, Tally, Totals};
use super::super::runs::{Run, pfn};
use super::request::clamp;
use super::{Folio, Spec};
use crate::units::{Order, Pfn, PfnRange};

impl Spec {
    /// Returns what there is to see of a page.
    #[must_use]
    pub fn page(&self, pfn: Pfn) -> PageView {
        let page = u128::from(pfn.as_u64());
        if !self.extents.iter().any(|extent| extent.range.contains(page)) {
            return PageView::Outside;
        }
        match self.owner(page) {
            Some((head, folio)) => PageView::Folio(view(head, folio)),
            None => PageView::Free,
        }
    }

    /// Returns all folios, ascending.
    #[must_use]
    pub fn folios(&self) -> Vec<FolioView> {
        self.folios.iter().map(|(&head, &folio)| view(head, folio)).collect()
    }

    /// Returns the longest runs of free pages, ascending.
    #[must_use]
    pub fn free_ranges(&self) -> Vec<PfnRange> {
        let range = |run: &Run| PfnRange::new(pfn(run.start), clamp(run.nr_pages())).ok();
        self.free_runs().iter().filter_map(range).collect()
    }

    /// Returns the statistics.
    ///
    /// The number of clean pages is the least that a subject has to know of.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut free_by_order = [0; Order::MAX.as_u8() as usize + 1];
        let free = self.free_runs();
        for (_, order) in free.iter().flat_map(|run| run.tiles(Order::MAX.as_u8())) {
            free_by_order[usize::from(order.as_u8())] += 1;
        }
        Totals {
            life: self.life,
            nr_pages: clamp(self.nr_pages()),
            free_pages: clamp(free.iter().map(|run| run.nr_pages()).sum()),
            clean_pages: clamp(self.sure.nr_pages()),
            unique: self.tally(FolioKind::Unique),
            kept: self.tally(FolioKind::Kept),
            live: self.tally(FolioKind::Live),
            pinned: self.tally_of(|folio| folio.counts.pins > 0),
            mapped: self.tally_of(|folio| folio.counts.maps > 0),
            retired: self.tally(FolioKind::Retired),
            condemned: self.tally(FolioKind::Condemned),
            poisoned: self.tally(FolioKind::Poisoned),
            offline: self.tally(FolioKind::Offline),
            poisoned_pages: self.bad.len() as u64,
            free_by_order,
            largest_free_run: clamp(free.iter().map(|run| run.nr_pages()).max().unwrap_or(0)),
        }
    }

    /// Returns the largest number of pages that can be known to be clean.
    #[must_use]
    pub fn clean_pages_max(&self) -> u64 {
        clamp(self.clean.nr_pages())
    }

    pub(super) fn tally(&self, kind: FolioKind) -> Tally {
        self.tally_of(|folio| folio.kind == kind)
    }

    fn tally_of(&self, is_met_fn: impl Fn(&Folio) -> bool) -> Tally {
        let mut tally = Tally::default();
        for folio in self.folios.values().filter(|folio| is_met_fn(folio)) {
            tally.folios += 1;
            tally.pages += folio.order.nr_pages();
        }
        tally
    }

    pub(in super::super) fn nr_pages(&self) -> u128 {
        self.extents.iter().map(|extent| extent.range.nr_pages()).sum()
    }

    /// Returns the first and last page of each extent.
    pub(super) fn borders(&self) -> impl Iterator<Item = (Pfn, Pfn)> {
        self.extents.iter().map(|extent| ends(extent.range))
    }

    /// Returns every stretch of pages that look alike: folios, then free runs.
    pub(in super::super) fn stretches(&self) -> impl Iterator<Item = (Pfn, Pfn, PageView)> {
        let folios = self.folios.iter().map(|(&head, &folio)| {
            let (first, last) = ends(Run::folio(pfn(head), folio.order));
            (first, last, PageView::Folio(view(head, folio)))
        });
        let free = self.free_runs().iter().map(|&run| {
            let (first, last) = ends(run);
            (first, last, PageView::Free)
        });
        folios.chain(free)
    }

    /// Returns the pages right outside of each extent.
    pub(in super::super) fn neighbours(&self) -> impl Iterator<Item = Pfn> {
        self.borders().flat_map(|(first, last)| {
            let (below, above) = (first.as_u64().wrapping_sub(1), last.as_u64().wrapping_add(1));
            [below, above].map(Pfn::new)
        })
    }
}

fn ends(run: Run) -> (Pfn, Pfn) {
    (pfn(run.start), pfn(run.end - 1))
}

fn view(head: u128, folio: Folio) -> FolioView {
    let Folio { order, kind, counts, closed, .. } = folio;
    let (refs, pins, maps) = (counts.refs, counts.pins, counts.maps);
    FolioView { head: pfn(head), order, kind, refs, pins, maps, closed }
}
