//! The number of a page frame.

use core::fmt;

use static_assertions::const_assert_eq;

use super::Order;

/// A page frame number.
///
/// The numbers are an abstract index space of 2^64 pages: those of real memory are physical
/// addresses in units of base pages, those of memory without an address are whatever its owner
/// chose.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(transparent)]
pub struct Pfn(u64);

impl Pfn {
    /// Creates a page frame number.
    #[must_use]
    pub const fn new(pfn: u64) -> Self {
        Self(pfn)
    }

    /// Returns the number.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Returns the page that lies `nr_pages` behind this one, if there is one.
    #[must_use]
    pub const fn checked_add(self, nr_pages: u64) -> Option<Self> {
        match self.0.checked_add(nr_pages) {
            Some(pfn) => Some(Self(pfn)),
            None => None,
        }
    }

    /// Returns the page that lies `nr_pages` before this one, if there is one.
    #[must_use]
    pub const fn checked_sub(self, nr_pages: u64) -> Option<Self> {
        match self.0.checked_sub(nr_pages) {
            Some(pfn) => Some(Self(pfn)),
            None => None,
        }
    }

    /// Returns how many pages this page lies behind `base`, or `None` if it lies before it.
    #[must_use]
    pub const fn offset_from(self, base: Self) -> Option<u64> {
        self.0.checked_sub(base.0)
    }

    /// Returns whether a folio of `order` may start here.
    #[must_use]
    pub const fn is_aligned_to(self, order: Order) -> bool {
        self.0 & Self::offset_mask(order) == 0
    }

    /// Returns the first page of the naturally aligned block of `order` that holds this page.
    #[must_use]
    pub const fn head(self, order: Order) -> Self {
        Self(self.0 & !Self::offset_mask(order))
    }

    /// Returns the first page of the other half of the next larger block.
    ///
    /// That is the block with which the block of `order` that holds this page merges.
    #[must_use]
    pub const fn buddy(self, order: Order) -> Self {
        Self(self.head(order).0 ^ order.nr_pages())
    }

    /// Returns the highest order of a folio that may start here.
    #[must_use]
    pub const fn alignment(self) -> Order {
        Order::capped(self.0.trailing_zeros())
    }

    /// Returns the bits that count pages within a block of `order`.
    const fn offset_mask(order: Order) -> u64 {
        // At least one page, so nothing wraps.
        order.nr_pages().wrapping_sub(1)
    }
}

impl fmt::Debug for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pfn({:#x})", self.0)
    }
}

impl fmt::Display for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

const_assert_eq!(size_of::<Pfn>(), 8);
