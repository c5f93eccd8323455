//! The size of a folio, as the logarithm of its number of pages.

use core::fmt;

use static_assertions::const_assert_eq;

/// The base-2 logarithm of a number of pages.
///
/// # Invariants
///
/// 1. The value never exceeds [`Order::MAX`], so [`Order::nr_pages`] cannot overflow.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(transparent)]
pub struct Order(u8);

impl Order {
    /// One base page.
    pub const ZERO: Self = Self(0);
    /// One block: 2 MiB of 4 KiB pages.
    pub const BLOCK: Self = Self(9);
    /// One region: 1 GiB of 4 KiB pages.
    pub const REGION: Self = Self(18);
    /// The highest order that a folio can have.
    pub const MAX: Self = Self::REGION;

    /// Creates the order of that logarithm, or `None` above [`Order::MAX`].
    #[must_use]
    pub const fn new(log2_pages: u8) -> Option<Self> {
        // INVARIANT: 1 by the comparison.
        if log2_pages <= Self::MAX.0 { Some(Self(log2_pages)) } else { None }
    }

    /// Returns the order of the largest folio that `nr_pages` pages could hold.
    ///
    /// The answer is [`Order::MAX`] from there on, and `None` for no page at all.
    #[must_use]
    pub const fn floor_log2(nr_pages: u64) -> Option<Self> {
        match nr_pages.checked_ilog2() {
            None => None,
            Some(log2) => Some(Self::capped(log2)),
        }
    }

    /// Returns the order of that logarithm, capped at [`Order::MAX`].
    #[expect(clippy::cast_possible_truncation, reason = "capped below 256 before the cast")]
    pub(super) const fn capped(log2: u32) -> Self {
        // INVARIANT: 1 by the comparison.
        if log2 < Self::MAX.0 as u32 { Self(log2 as u8) } else { Self::MAX }
    }

    /// Returns all orders, ascending.
    #[must_use]
    pub fn all() -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator + Clone + fmt::Debug {
        // INVARIANT: 1 by the end of the range.
        (Self::ZERO.0..=Self::MAX.0).map(Self as fn(u8) -> Self)
    }

    /// Returns the logarithm.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self.0
    }

    /// Returns the number of pages of a folio of this order.
    #[must_use]
    pub const fn nr_pages(self) -> u64 {
        1u64.wrapping_shl(self.0 as u32)
    }

    /// Returns the next higher order, or `None` at [`Order::MAX`].
    #[must_use]
    pub const fn grow(self) -> Option<Self> {
        Self::new(self.0.saturating_add(1))
    }

    /// Returns the next lower order, or `None` at [`Order::ZERO`].
    #[must_use]
    pub const fn shrink(self) -> Option<Self> {
        match self.0.checked_sub(1) {
            // INVARIANT: 1 because the value only got smaller.
            Some(log2_pages) => Some(Self(log2_pages)),
            None => None,
        }
    }

    /// Returns the lower of two orders.
    pub(super) const fn lower(self, other: Self) -> Self {
        if self.0 < other.0 { self } else { other }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

const_assert_eq!(size_of::<Order>(), 1);
