//! Page arithmetic that cannot overflow, and sets of pages.
//!
//! A [`Run`] is half open and counts in `u128`, so that the run that ends at the last page frame
//! number needs no care. A [`RunSet`] is a sorted list of runs: an extent of 2^18 pages is one
//! entry, and every operation is a loop over all entries that a reader checks in one look.

use alloc::vec::Vec;

use crate::units::{Order, Pfn, PfnRange};

/// The pages from `start` up to, and without, `end`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Run {
    pub(crate) start: u128,
    pub(crate) end: u128,
}

impl Run {
    pub(crate) fn new(start: u128, nr_pages: u128) -> Self {
        Self { start, end: start + nr_pages }
    }

    pub(crate) fn folio(head: Pfn, order: Order) -> Self {
        Self::new(head.as_u64().into(), order.nr_pages().into())
    }

    pub(crate) fn nr_pages(self) -> u128 {
        self.end - self.start
    }

    pub(crate) fn contains(self, page: u128) -> bool {
        self.start <= page && page < self.end
    }

    pub(crate) fn covers(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// Returns the pages that both have, or `None` if there are none.
    pub(crate) fn meet(self, other: Self) -> Option<Self> {
        let (start, end) = (self.start.max(other.start), self.end.min(other.end));
        (start < end).then_some(Self { start, end })
    }

    /// Returns the largest naturally aligned blocks of at most `max` that tile this run.
    ///
    /// Greedy, from the first page on; independent of the arithmetic of [`PfnRange::tiles`].
    pub(crate) fn tiles(self, max: u8) -> impl Iterator<Item = (Pfn, Order)> {
        let mut page = self.start;
        core::iter::from_fn(move || {
            let order = (0..=max).rev().find(|&order| {
                align_down(page, 1 << order) == page && page + (1 << order) <= self.end
            })?;
            let tile = (pfn(page), Order::new(order)?);
            page += 1 << order;
            Some(tile)
        })
    }
}

impl From<PfnRange> for Run {
    fn from(range: PfnRange) -> Self {
        Self::new(range.start().as_u64().into(), range.nr_pages().into())
    }
}

/// Rounds a page up to a multiple of `step`, a power of two.
pub(crate) fn align_up(page: u128, step: u128) -> u128 {
    (page + step - 1) & !(step - 1)
}

/// Rounds a page down to a multiple of `step`, a power of two.
pub(crate) fn align_down(page: u128, step: u128) -> u128 {
    page & !(step - 1)
}

/// Returns how many runs of `nr_pages` pages can start at different multiples of `step`, a power
/// of two, in the run.
pub(crate) fn nr_places(run: Run, nr_pages: u128, step: u128) -> u128 {
    match run.end.checked_sub(align_up(run.start, step) + nr_pages) {
        Some(rest) => (rest >> step.trailing_zeros()) + 1,
        None => 0,
    }
}

/// Returns the page as a page frame number; the caller knows that it is one.
pub(crate) fn pfn(page: u128) -> Pfn {
    Pfn::new(u64::try_from(page).unwrap_or(u64::MAX))
}

/// A set of pages.
///
/// # Invariants
///
/// 1. The runs ascend, none is empty, and between two of them lies at least one page.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct RunSet(Vec<Run>);

impl RunSet {
    pub(crate) fn insert(&mut self, run: Run) {
        // INVARIANT: 1 because the new run swallows all that it touches.
        let mut merged = run;
        self.0.retain(|old| {
            let touches = old.start <= merged.end && merged.start <= old.end;
            if touches {
                merged.start = merged.start.min(old.start);
                merged.end = merged.end.max(old.end);
            }
            !touches
        });
        let at = self.0.partition_point(|old| old.start < merged.start);
        self.0.insert(at, merged);
    }

    pub(crate) fn remove(&mut self, run: Run) {
        // INVARIANT: 1 because what is left of a run is split only by removed pages.
        let mut left = Vec::with_capacity(self.0.len() + 1);
        for &old in &self.0 {
            let below = Run { start: old.start, end: old.end.min(run.start) };
            let above = Run { start: old.start.max(run.end), end: old.end };
            left.extend([below, above].into_iter().filter(|part| part.start < part.end));
        }
        self.0 = left;
    }

    /// Returns whether all pages of `run` are in this set.
    pub(crate) fn covers(&self, run: Run) -> bool {
        self.0.iter().any(|own| own.covers(run))
    }

    /// Returns the pages of `run` that are not in this set.
    pub(crate) fn missing_of(&self, run: Run) -> Self {
        let mut missing = Self::default();
        missing.insert(run);
        self.0.iter().for_each(|own| missing.remove(*own));
        missing
    }

    /// Returns the parts of `run` that are in this set.
    pub(crate) fn parts_of(&self, run: Run) -> impl Iterator<Item = Run> {
        self.0.iter().filter_map(move |own| own.meet(run))
    }

    pub(crate) fn nr_pages(&self) -> u128 {
        self.0.iter().map(|run| run.nr_pages()).sum()
    }

    #[cfg(all(test, not(loom)))]
    pub(crate) fn contains(&self, page: u128) -> bool {
        self.0.iter().any(|run| run.contains(page))
    }

    #[cfg(all(test, not(loom)))]
    pub(crate) fn nr_runs(&self) -> usize {
        self.0.len()
    }
}
