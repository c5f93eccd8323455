//! Free runs: what is free, in ascending order, whatever the level it lives at.
#![expect(
    clippy::arithmetic_side_effects,
    reason = "chunks are at most a region, positions inside the extent"
)]

use super::index::Index;
use super::line;
use crate::meta::{BLOCK_PAGES, RegionLine, RootMap, WORD_BITS, page_bit};
use crate::sync::Ordering;
use crate::units::{Order, Pfn, PfnRange};

/// A stretch of pages that are all free, or all not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunk {
    pub(crate) is_free: bool,
    pub(crate) nr_pages: u64,
    /// What one of its bits speaks for: a page, a block or a region.
    pub(crate) level: Order,
}

impl Index<'_> {
    /// Returns the stretch that starts at `pfn` and ends where looking at one line ends.
    pub(crate) fn chunk(&self, pfn: Pfn) -> Chunk {
        let (meta, geometry) = (self.meta, self.geometry());
        let to_end = |order: Order| order.nr_pages() - (pfn.as_u64() & (order.nr_pages() - 1));
        let region = geometry.region_of(pfn);
        let (word, bit) = meta.root_bit(RootMap::Free, region);
        // ORDERING: Relaxed. A picture, not a decision.
        let is_free = word.load(Ordering::Relaxed) & bit != 0;
        if is_free || !meta.is_init(region) {
            return Chunk { is_free, nr_pages: to_end(Order::REGION), level: Order::REGION };
        }
        let block = geometry.block_of(pfn);
        let (_, bit) = geometry.place(block);
        let free = meta.region(region, RegionLine::Free);
        let is_free = line::is_set(free, bit);
        let table = if is_free { None } else { meta.table_of(block) };
        let Some(table) = table else {
            let nr_blocks = if is_free {
                nr_zeroes(bit, |index| !line::word(free, index))
            } else {
                // Neither free nor with a table.
                let owned = meta.region(region, RegionLine::Table);
                nr_zeroes(bit, |index| line::word(free, index) | line::word(owned, index))
            };
            let more = (nr_blocks - 1) * BLOCK_PAGES as u64;
            return Chunk { is_free, nr_pages: to_end(Order::BLOCK) + more, level: Order::BLOCK };
        };
        let (free, bit) = (table.free(), page_bit(pfn));
        let is_free = line::is_set(free, bit);
        let flip = if is_free { u64::MAX } else { 0 };
        let nr_pages = nr_zeroes(bit, |index| line::word(free, index) ^ flip);
        Chunk { is_free, nr_pages, level: Order::ZERO }
    }

    /// Returns the first maximal free run that starts at `from` or behind it, cut at `last`.
    pub(crate) fn free_run(&self, from: Pfn, last: Pfn) -> Option<PfnRange> {
        let mut start = None;
        let mut pfn = from;
        // Ends: `pfn` grows on every turn, up to `last`.
        while pfn <= last {
            let chunk = self.chunk(pfn);
            match (start, chunk.is_free) {
                (None, true) => start = Some(pfn),
                (Some(start), false) => {
                    return PfnRange::new(start, pfn.as_u64() - start.as_u64()).ok();
                }
                _ => {}
            }
            let Some(next) = pfn.checked_add(chunk.nr_pages) else { break };
            pfn = next;
        }
        let start = start?;
        PfnRange::new(start, last.as_u64() - start.as_u64() + 1).ok()
    }

    /// Returns the free run that starts with `pfn`, cut at `last`; `None` if `pfn` is not free.
    pub(crate) fn free_run_at(&self, pfn: Pfn, last: Pfn) -> Option<PfnRange> {
        if self.chunk(pfn).is_free { self.free_run(pfn, last) } else { None }
    }

    /// Returns the maximal free runs inside `range`, in ascending order.
    pub(crate) fn free_runs(&self, range: PfnRange) -> FreeRuns<'_> {
        FreeRuns { index: Index::new(self.meta), next: Some(range.start()), last: range.last() }
    }

    /// Returns how many pages of `range` are not free.
    pub(crate) fn nr_busy(&self, range: PfnRange) -> u64 {
        let mut nr_busy = 0;
        let mut next = Some(range.start());
        // Ends: `next` grows on every turn, up to the end of the range.
        while let Some(pfn) = next {
            let chunk = self.chunk(pfn);
            let end = pfn.checked_add(chunk.nr_pages).filter(|&end| end <= range.last());
            if !chunk.is_free {
                let left = range.last().as_u64() - pfn.as_u64() + 1;
                nr_busy += chunk.nr_pages.min(left);
            }
            next = end;
        }
        nr_busy
    }

    /// Returns whether all pages of `range`, which are free, are clean.
    pub(crate) fn is_clean(&self, range: PfnRange) -> bool {
        let mut next = Some(range.start());
        // Ends: `next` grows on every turn, up to the end of the range.
        while let Some(pfn) = next {
            let (is_clean, level) = self.is_clean_page(pfn);
            if !is_clean {
                return false;
            }
            let end = pfn.head(level).checked_add(level.nr_pages());
            next = end.filter(|&pfn| pfn <= range.last());
        }
        true
    }

    /// Returns whether a free page is clean, and the order of what its bit speaks for.
    pub(super) fn is_clean_page(&self, pfn: Pfn) -> (bool, Order) {
        let (meta, geometry) = (self.meta, self.geometry());
        let region = geometry.region_of(pfn);
        let (word, bit) = meta.root_bit(RootMap::Free, region);
        // ORDERING: Relaxed. A look before the claim.
        if word.load(Ordering::Relaxed) & bit != 0 || !meta.is_init(region) {
            return (self.is_clean_region(region), Order::REGION);
        }
        let block = geometry.block_of(pfn);
        let (_, bit) = geometry.place(block);
        if line::is_set(meta.region(region, RegionLine::Free), bit) {
            return (line::is_set(meta.region(region, RegionLine::Clean), bit), Order::BLOCK);
        }
        let table = meta.table_of(block);
        let is_clean = table.is_some_and(|table| line::is_set(table.clean(), page_bit(pfn)));
        (is_clean, Order::ZERO)
    }

    /// Returns the first page of `range` that is not free.
    pub(crate) fn first_busy(&self, range: PfnRange) -> Option<Pfn> {
        match self.free_run_at(range.start(), range.last()) {
            Some(run) if run.last() == range.last() => None,
            Some(run) => run.last().checked_add(1),
            None => Some(range.start()),
        }
    }
}

/// The maximal free runs of a range, as they are when they are looked at.
#[derive(Debug)]
pub(crate) struct FreeRuns<'a> {
    index: Index<'a>,
    next: Option<Pfn>,
    last: Pfn,
}

impl Iterator for FreeRuns<'_> {
    type Item = PfnRange;

    fn next(&mut self) -> Option<PfnRange> {
        let run = self.index.free_run(self.next?, self.last);
        self.next = run.and_then(|run| run.last().checked_add(1)).filter(|&pfn| pfn <= self.last);
        run
    }
}

/// Returns how many bits of a line are zero from `bit` on, which counts as zero: it was read
/// before, and may have changed since.
fn nr_zeroes(bit: usize, word_fn: impl Fn(usize) -> u64) -> u64 {
    let mut next = bit;
    // Ends: `next` grows by what is left of its word, up to the end of the line.
    while next < BLOCK_PAGES {
        let index = next / WORD_BITS;
        let ones = word_fn(index) >> (next % WORD_BITS);
        if ones != 0 {
            next += ones.trailing_zeros() as usize;
            break;
        }
        next = (index + 1) * WORD_BITS;
    }
    (next.max(bit + 1) - bit) as u64
}
