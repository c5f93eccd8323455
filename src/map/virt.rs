//! Pages of an address space: numbers and runs of them.

use core::fmt;

use static_assertions::const_assert_eq;

use crate::units::{Order, Pfn, PfnRange, RangeError};

/// The number of a page of an address space: an address in units of base pages.
///
/// As abstract as a [`Pfn`], and never mistaken for one: a space may be that of a process, of a
/// guest, or of a device behind an IOMMU.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(transparent)]
pub struct Vpn(u64);

impl Vpn {
    /// Creates a page number.
    #[must_use]
    pub const fn new(vpn: u64) -> Self {
        Self(vpn)
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
            Some(vpn) => Some(Self(vpn)),
            None => None,
        }
    }

    /// Returns how many pages this page lies behind `base`, or `None` if it lies before it.
    #[must_use]
    pub const fn offset_from(self, base: Self) -> Option<u64> {
        self.0.checked_sub(base.0)
    }

    /// Returns whether a leaf of `order` may start here.
    #[must_use]
    pub const fn is_aligned_to(self, order: Order) -> bool {
        self.as_pfn().is_aligned_to(order)
    }

    /// Returns the first page of the naturally aligned block of `order` that holds this page.
    #[must_use]
    pub const fn head(self, order: Order) -> Self {
        Self(self.as_pfn().head(order).as_u64())
    }

    /// The arithmetic of page numbers is the same on both sides of a page table.
    const fn as_pfn(self) -> Pfn {
        Pfn::new(self.0)
    }
}

impl fmt::Debug for Vpn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vpn({:#x})", self.0)
    }
}

impl fmt::Display for Vpn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A contiguous run of at least one page of an address space.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct VpnRange(PfnRange);

impl VpnRange {
    /// Creates the run of `nr_pages` pages from `start`.
    ///
    /// # Errors
    ///
    /// As for [`PfnRange::new`]: none at all, or past the last page number.
    pub const fn new(start: Vpn, nr_pages: u64) -> Result<Self, RangeError> {
        match PfnRange::new(start.as_pfn(), nr_pages) {
            Ok(range) => Ok(Self(range)),
            Err(error) => Err(error),
        }
    }

    /// Creates the range from `first` to `last`, both included; `None` if `last` is lower.
    #[must_use]
    pub const fn between(first: Vpn, last: Vpn) -> Option<Self> {
        match PfnRange::between(first.as_pfn(), last.as_pfn()) {
            Some(range) => Some(Self(range)),
            None => None,
        }
    }

    /// Returns the naturally aligned run of `order` that holds `vpn`.
    #[must_use]
    pub const fn block(vpn: Vpn, order: Order) -> Self {
        Self(PfnRange::block(vpn.as_pfn(), order))
    }

    /// Returns the run of one page.
    #[must_use]
    pub const fn page(vpn: Vpn) -> Self {
        Self::block(vpn, Order::ZERO)
    }

    /// Returns the first page.
    #[must_use]
    pub const fn start(self) -> Vpn {
        Vpn(self.0.start().as_u64())
    }

    /// Returns the last page.
    #[must_use]
    pub const fn last(self) -> Vpn {
        Vpn(self.0.last().as_u64())
    }

    /// Returns the number of pages, which is never zero.
    #[must_use]
    pub const fn nr_pages(self) -> u64 {
        self.0.nr_pages()
    }

    /// Returns whether the page lies in this run.
    #[must_use]
    pub const fn contains(self, vpn: Vpn) -> bool {
        self.0.contains(vpn.as_pfn())
    }

    /// Returns whether all pages of `other` lie in this run.
    #[must_use]
    pub const fn contains_range(self, other: Self) -> bool {
        self.0.contains_range(other.0)
    }

    /// Returns whether the two runs have a page in common.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.0.overlaps(other.0)
    }

    /// Returns the pages that both runs have in common, or `None` if there are none.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Option<Self> {
        match self.0.intersection(other.0) {
            Some(range) => Some(Self(range)),
            None => None,
        }
    }

    /// Returns what lies from `vpn` on, or `None` if nothing does.
    #[must_use]
    pub const fn from(self, vpn: Vpn) -> Option<Self> {
        if vpn.0 <= self.start().0 { Some(self) } else { Self::between(vpn, self.last()) }
    }

    /// Returns what lies behind `vpn`, or `None` if nothing does.
    #[must_use]
    pub const fn behind(self, vpn: Vpn) -> Option<Self> {
        match vpn.checked_add(1) {
            Some(next) => self.from(next),
            None => None,
        }
    }
}

impl fmt::Debug for VpnRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VpnRange({self})")
    }
}

impl fmt::Display for VpnRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

const_assert_eq!(size_of::<Vpn>(), 8);
