//! Runs of contiguous pages, and how folios tile them.

use core::fmt;
use core::iter::FusedIterator;
use core::num::NonZeroU64;

use static_assertions::const_assert_eq;

use super::{Order, Pfn};

/// A contiguous run of at least one page.
///
/// All of space, 2^64 pages, is the one run that has no name: its length is no `u64`.
///
/// # Invariants
///
/// 1. `start + (nr_pages - 1)`, the last page, does not overflow.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct PfnRange {
    start: Pfn,
    nr_pages: NonZeroU64,
}

impl PfnRange {
    /// Creates the run of `nr_pages` pages from `start`.
    ///
    /// # Errors
    ///
    /// Returns [`RangeError::Empty`] for no page, and [`RangeError::PastTop`] if the run would go
    /// on behind the last page frame number.
    pub const fn new(start: Pfn, nr_pages: u64) -> Result<Self, RangeError> {
        let Some(nr_pages) = NonZeroU64::new(nr_pages) else {
            return Err(RangeError::Empty { start });
        };
        // At least one page, so the subtraction does not wrap.
        if start.checked_add(nr_pages.get().wrapping_sub(1)).is_none() {
            return Err(RangeError::PastTop { start, nr_pages: nr_pages.get() });
        }
        // INVARIANT: 1 by the test above.
        Ok(Self { start, nr_pages })
    }

    /// Creates the run that a folio of `order` with this head covers.
    ///
    /// Returns `None` if `head` is not aligned to `order`.
    #[must_use]
    pub const fn folio(head: Pfn, order: Order) -> Option<Self> {
        if !head.is_aligned_to(order) {
            return None;
        }
        // An aligned block never crosses the top of space: 2^64 is a multiple of its size.
        match Self::new(head, order.nr_pages()) {
            Ok(range) => Some(range),
            Err(_) => None,
        }
    }

    /// Returns the naturally aligned run of `order` that holds `pfn`.
    #[must_use]
    pub const fn block(pfn: Pfn, order: Order) -> Self {
        let nr_pages = match NonZeroU64::new(order.nr_pages()) {
            Some(nr_pages) => nr_pages,
            // Every order has a page.
            None => NonZeroU64::MIN,
        };
        // INVARIANT: 1 because 2^64 is a multiple of its size.
        Self { start: pfn.head(order), nr_pages }
    }

    /// Returns the range from `first` to `last`, both included; `None` if `last` is lower, or if
    /// the range had 2^64 pages.
    #[must_use]
    pub const fn between(first: Pfn, last: Pfn) -> Option<Self> {
        match last.offset_from(first) {
            Some(offset) => match offset.checked_add(1) {
                Some(nr_pages) => match Self::new(first, nr_pages) {
                    Ok(range) => Some(range),
                    Err(_) => None,
                },
                None => None,
            },
            None => None,
        }
    }

    /// Returns the first page.
    #[must_use]
    pub const fn start(self) -> Pfn {
        self.start
    }

    /// Returns the number of pages, which is never zero.
    #[must_use]
    pub const fn nr_pages(self) -> u64 {
        self.nr_pages.get()
    }

    /// Returns the last page.
    #[must_use]
    pub const fn last(self) -> Pfn {
        // By invariant 1 neither operation wraps.
        Pfn::new(self.start.as_u64().wrapping_add(self.nr_pages.get().wrapping_sub(1)))
    }

    /// Returns whether the page lies in this run.
    #[must_use]
    pub const fn contains(self, pfn: Pfn) -> bool {
        match pfn.offset_from(self.start) {
            Some(offset) => offset < self.nr_pages.get(),
            None => false,
        }
    }

    /// Returns whether all pages of `other` lie in this run.
    #[must_use]
    pub const fn contains_range(self, other: Self) -> bool {
        self.contains(other.start) && self.contains(other.last())
    }

    /// Returns whether the two runs have a page in common.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.contains(other.start) || other.contains(self.start)
    }

    /// Returns the pages that both runs have in common, or `None` if there are none.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Option<Self> {
        // Two runs meet exactly if the one that starts later starts within the other.
        let (early, late) =
            if self.start.as_u64() <= other.start.as_u64() { (self, other) } else { (other, self) };
        let Some(offset) = late.start.offset_from(early.start) else { return None };
        let Some(left) = early.nr_pages.get().checked_sub(offset) else { return None };
        let nr_pages = if left < late.nr_pages.get() { left } else { late.nr_pages.get() };
        match NonZeroU64::new(nr_pages) {
            // INVARIANT: 1 because the result lies within `late`.
            Some(nr_pages) => Some(Self { start: late.start, nr_pages }),
            None => None,
        }
    }

    /// Returns what is left of this run below and above `part`.
    pub(crate) fn around(self, part: Self) -> [Option<Self>; 2] {
        let below = part.start().checked_sub(1).and_then(|last| Self::between(self.start, last));
        let above = part.last().checked_add(1).and_then(|next| Self::between(next, self.last()));
        [below, above]
    }

    /// Returns the largest folios that tile this run exactly, ascending.
    ///
    /// ```
    /// use devfolio::{Pfn, PfnRange};
    ///
    /// let range = PfnRange::new(Pfn::new(0x3), 10)?;
    /// let orders: Vec<u8> = range.tiles().map(|(_, order)| order.as_u8()).collect();
    /// assert_eq!(orders, [0, 2, 2, 0]);
    /// # Ok::<(), devfolio::RangeError>(())
    /// ```
    pub const fn tiles(self) -> Tiles {
        self.tiles_up_to(Order::MAX)
    }

    /// Returns the largest folios of at most `max` that tile this run exactly, ascending.
    pub const fn tiles_up_to(self, max: Order) -> Tiles {
        // INVARIANT: 1 of `Tiles` by invariant 1 of this type.
        Tiles { next: self.start, left: self.nr_pages.get(), max }
    }
}

impl fmt::Debug for PfnRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PfnRange({self})")
    }
}

impl fmt::Display for PfnRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..={}", self.start, self.last())
    }
}

/// Why there is no such [`PfnRange`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RangeError {
    /// The run would have no page.
    Empty {
        /// Where it would start.
        start: Pfn,
    },
    /// The run would go on behind the last page frame number.
    PastTop {
        /// Where it would start.
        start: Pfn,
        /// The number of pages it would have.
        nr_pages: u64,
    },
}

impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty { start } => write!(f, "range at {start} has no page"),
            Self::PastTop { start, nr_pages } => {
                write!(f, "range of {nr_pages:#x} pages at {start} runs past the last pfn")
            }
        }
    }
}

impl core::error::Error for RangeError {}

/// The folios that tile a [`PfnRange`], made by [`PfnRange::tiles`].
///
/// Each item is the largest naturally aligned block that lies in the range and around its first
/// page, so at most two items of each order below the limit come up.
///
/// # Invariants
///
/// 1. While `left` is not zero, `next + (left - 1)` does not overflow.
#[derive(Clone, Debug)]
#[must_use = "iterators do nothing unless they are asked"]
pub struct Tiles {
    next: Pfn,
    left: u64,
    max: Order,
}

impl Tiles {
    /// Does the work of [`Iterator::next`], also where only constants are allowed.
    pub(crate) const fn step(&mut self) -> Option<(Pfn, Order)> {
        let Some(fitting) = Order::floor_log2(self.left) else { return None };
        let head = self.next;
        let order = head.alignment().lower(fitting).lower(self.max);

        // INVARIANT: 1 because both move by the same number of pages. The block is not larger
        // than `left`; behind the last page of space `next` wraps to 0, when `left` is zero.
        self.left = self.left.wrapping_sub(order.nr_pages());
        self.next = Pfn::new(head.as_u64().wrapping_add(order.nr_pages()));
        Some((head, order))
    }
}

impl Iterator for Tiles {
    type Item = (Pfn, Order);

    fn next(&mut self) -> Option<(Pfn, Order)> {
        self.step()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // No block is larger than the limit, and none is smaller than a page.
        let least = self.left.div_ceil(self.max.nr_pages());
        (usize::try_from(least).unwrap_or(usize::MAX), usize::try_from(self.left).ok())
    }
}

impl FusedIterator for Tiles {}

const_assert_eq!(size_of::<Option<PfnRange>>(), 16);
