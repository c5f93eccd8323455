//! Free space, derived from who owns what, and the fracture tables it takes to carve it up.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::super::runs::{Run, pfn};
use super::{Extent, Folio, Spec};
use crate::units::{Order, Pfn};

/// The number of pages that share a fracture table.
pub(super) const BLOCK: u128 = 1 << Order::BLOCK.as_u8();
/// The number of pages of a region.
const REGION: u128 = 1 << Order::REGION.as_u8();

impl Extent {
    /// Returns whether the block can be carved up without another table.
    fn owns_table(&self, block: u128) -> bool {
        let cut = !self.range.covers(Run::new(block * BLOCK, BLOCK));
        self.budget.is_none() || cut || self.fractured.contains(&block)
    }

    fn tables_left(&self) -> usize {
        self.budget.map_or(usize::MAX, |budget| budget.saturating_sub(self.fractured.len()))
    }
}

impl Spec {
    /// Returns the free runs, ascending; none crosses a border between extents.
    pub(super) fn free_runs(&self) -> &[Run] {
        self.derived.get_or_init(|| self.derive_free_runs())
    }

    fn derive_free_runs(&self) -> Vec<Run> {
        let mut extents: Vec<Run> = self.extents.iter().map(|extent| extent.range).collect();
        extents.sort_unstable();
        let mut runs = Vec::new();
        for extent in extents {
            let mut page = extent.start;
            for (&head, folio) in self.folios.range(extent.start..extent.end) {
                runs.push(Run { start: page, end: head });
                page = Run::folio(pfn(head), folio.order).end;
            }
            runs.push(Run { start: page, end: extent.end });
        }
        runs.retain(|run| run.start < run.end);
        runs
    }

    /// Returns the free runs that can be carved up below order 9 with at most one more table.
    pub(super) fn open_runs(&self) -> Vec<Run> {
        let mut open: Vec<Run> = Vec::new();
        for &run in self.free_runs() {
            let Some(extent) = self.extents.iter().find(|extent| extent.range.covers(run)) else {
                continue;
            };
            if extent.tables_left() > 0 {
                open.push(run);
                continue;
            }
            let blocks = run.start / BLOCK..run.end.div_ceil(BLOCK);
            for block in blocks.filter(|&block| extent.owns_table(block)) {
                let Some(part) = run.meet(Run::new(block * BLOCK, BLOCK)) else { continue };
                match open.last_mut() {
                    Some(last) if last.end == part.start && run.start <= last.start => {
                        last.end = part.end;
                    }
                    _ => open.push(part),
                }
            }
        }
        open
    }

    /// Returns whether no folio and no border lies in the run.
    pub(super) fn is_free(&self, run: Run) -> bool {
        // Folios ascend and share no page, so the last one that starts in time reaches farthest.
        let last = self.folios.range(..run.end).next_back();
        let is_taken =
            |(&head, folio): (&u128, &Folio)| run.start < Run::folio(pfn(head), folio.order).end;
        self.extent_of(run).is_some() && !last.is_some_and(is_taken)
    }

    /// Returns the first page of the run that is not free.
    pub(super) fn first_busy(&self, run: Run) -> Option<u128> {
        let mut page = run.start;
        for free in self.free_runs() {
            if free.contains(page) {
                page = free.end;
            }
        }
        (page < run.end).then_some(page)
    }

    /// Returns the pages of the extent before which so many were attached.
    pub(super) fn range_of_extent(&self, place: u8) -> Option<Run> {
        let found = self.extents.iter().find(|extent| extent.node == place);
        found.map(|extent| extent.range)
    }

    /// Returns the extent that has all pages of the run.
    pub(super) fn extent_of(&self, run: Run) -> Option<usize> {
        self.extents.iter().position(|extent| extent.range.covers(run))
    }

    /// Returns whether the pieces need more fracture tables than are left.
    pub(super) fn lacks_tables(&self, pieces: &[(Pfn, Order)]) -> bool {
        let mut limited = self.extents.iter().filter(|extent| extent.budget.is_some());
        limited.any(|extent| {
            let blocks: BTreeSet<u128> = pieces
                .iter()
                .filter(|(_, order)| *order < Order::BLOCK)
                .map(|(head, _)| u128::from(head.as_u64()))
                .filter(|&page| extent.range.contains(page))
                .map(|page| page / BLOCK)
                .filter(|&block| !extent.owns_table(block))
                .collect();
            blocks.len() > extent.tables_left()
        })
    }

    /// Returns whether a request that may fracture that many blocks can fail for want of a table.
    pub(super) fn may_lack_tables(&self, nr_blocks: u128) -> bool {
        self.extents.iter().any(|extent| (extent.tables_left() as u128) < nr_blocks)
    }

    /// Notes that the block of a folio is fractured, if the folio is smaller than a block.
    pub(super) fn fracture(&mut self, head: Pfn, order: Order) {
        let page = u128::from(head.as_u64());
        let home = self.extents.iter_mut().find(|extent| extent.range.contains(page));
        if let Some(extent) = home {
            if order < Order::BLOCK && !extent.owns_table(page / BLOCK) {
                extent.fractured.insert(page / BLOCK);
            }
        }
    }

    /// Takes out of `sure` what a subject may forget now that `run` is free: one bit is left of a
    /// block, and one of a region, when it is whole.
    pub(super) fn forget_mixed(&mut self, run: Run) {
        for size in [BLOCK, REGION] {
            // What lies between is all of one kind.
            for index in [run.start / size, (run.end - 1) / size] {
                let whole = Run::new(index * size, size);
                if self.is_free(whole) && !self.sure.covers(whole) {
                    self.sure.remove(whole);
                }
            }
        }
    }
}
