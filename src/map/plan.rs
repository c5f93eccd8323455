//! Which leaves map a run of pages: the largest that both alignments allow.

use core::fmt;
use core::iter::FusedIterator;

use super::leaves::LeafSet;
use super::virt::{Vpn, VpnRange};
use crate::units::{Order, Pfn, PfnRange, RangeError};

/// How large the leaves of a mapping may be.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum LeafLimit {
    /// As large as possible.
    Largest,
    /// As large as possible, up to this order.
    UpTo(Order),
    /// Of this order, all of them.
    Exactly(Order),
}

impl LeafLimit {
    /// Returns whether a leaf of `order` may be one of them.
    pub(super) const fn allows(self, order: Order) -> bool {
        match self {
            Self::Largest => true,
            Self::UpTo(max) => order.as_u8() <= max.as_u8(),
            Self::Exactly(exact) => order.as_u8() == exact.as_u8(),
        }
    }
}

/// The leaves that map a run of a folio's pages from an address on, ascending.
///
/// Each is the largest of the set that is aligned on both sides, fits into what is left, and is no
/// larger than the folio. It is a value: it may be walked as often as is needed.
///
/// ```
/// use devfolio::{LeafLimit, LeafPlan, LeafSet, Order, Pfn, PfnRange, Vpn};
///
/// // A folio of 1 GiB whose last 2 MiB and a page are mapped where they are aligned alike.
/// let pages = PfnRange::new(Pfn::new(0x7_fdff), 513)?;
/// let plan = LeafPlan::new(
///     Vpn::new(0x1ff), pages, Order::REGION, LeafSet::X86_64, LeafLimit::Largest,
/// )?;
/// let orders: Vec<u8> = plan.runs().map(|run| run.order.as_u8()).collect();
/// assert_eq!((orders.as_slice(), plan.nr_leaves()), ([0, 9].as_slice(), 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LeafPlan {
    vpn: Vpn,
    pages: PfnRange,
    /// Those orders to which both sides are aligned alike, and that the folio and the limit allow.
    set: LeafSet,
}

/// Leaves of one order that follow each other, on both sides.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LeafRun {
    /// The first address.
    pub vpn: Vpn,
    /// The first page.
    pub pfn: Pfn,
    /// The order of each leaf.
    pub order: Order,
    /// How many leaves.
    pub nr_leaves: u64,
}

impl LeafRun {
    /// Yields the address and the first page of each leaf.
    pub fn leaves(self) -> impl Iterator<Item = (Vpn, Pfn)> {
        let step = self.order.nr_pages();
        (0..self.nr_leaves).map(move |index| {
            let offset = index.wrapping_mul(step);
            // The run lies within two ranges, so neither sum wraps.
            let vpn = Vpn::new(self.vpn.as_u64().wrapping_add(offset));
            (vpn, Pfn::new(self.pfn.as_u64().wrapping_add(offset)))
        })
    }
}

impl LeafPlan {
    /// Plans the mapping of `pages`, part of a folio of `folio` or foreign, from `vpn` on.
    ///
    /// # Errors
    ///
    /// Says which leaf is asked for that cannot be.
    pub const fn new(
        vpn: Vpn,
        pages: PfnRange,
        folio: Order,
        set: LeafSet,
        limit: LeafLimit,
    ) -> Result<Self, PlanError> {
        if let Err(error) = VpnRange::new(vpn, pages.nr_pages()) {
            return Err(PlanError::Range(error));
        }
        // Both sides are aligned alike to the trailing zeros of their difference.
        let alike = Pfn::new(vpn.as_u64().wrapping_sub(pages.start().as_u64())).alignment();
        let planned = set.up_to(alike).up_to(folio);
        let max = match limit {
            LeafLimit::Largest => return Ok(Self { vpn, pages, set: planned }),
            LeafLimit::UpTo(max) => return Ok(Self { vpn, pages, set: planned.up_to(max) }),
            LeafLimit::Exactly(order) => order,
        };
        if folio.as_u8() < max.as_u8() {
            return Err(PlanError::AboveFolio { leaf: max, folio });
        }
        if !set.contains(max) {
            return Err(PlanError::NoSuchLeaf { leaf: max });
        }
        let is_whole = pages.nr_pages() & max.nr_pages().wrapping_sub(1) == 0;
        if !vpn.is_aligned_to(max) || !pages.start().is_aligned_to(max) || !is_whole {
            return Err(PlanError::Misaligned { vpn, pages, leaf: max });
        }
        // Only this order is left, since everything is aligned to it.
        Ok(Self { vpn, pages, set: planned.up_to(max) })
    }

    /// Returns the addresses.
    #[must_use]
    pub const fn addresses(self) -> VpnRange {
        match VpnRange::new(self.vpn, self.pages.nr_pages()) {
            Ok(range) => range,
            // Tested by `new`.
            Err(_) => VpnRange::page(self.vpn),
        }
    }

    /// Returns the pages.
    #[must_use]
    pub const fn pages(self) -> PfnRange {
        self.pages
    }

    /// Yields the leaves, in as many runs as the order changes.
    #[must_use]
    pub const fn runs(self) -> LeafRuns {
        LeafRuns { plan: self, offset: 0 }
    }

    /// Yields the address, the first page and the order of each leaf.
    pub fn leaves(self) -> impl Iterator<Item = (Vpn, Pfn, Order)> {
        self.runs().flat_map(|run| run.leaves().map(move |(vpn, pfn)| (vpn, pfn, run.order)))
    }

    /// Returns the number of leaves, without walking them.
    #[must_use]
    pub fn nr_leaves(self) -> u64 {
        // No more than the pages, so the sum fits.
        self.runs().fold(0, |sum, run| sum.wrapping_add(run.nr_leaves))
    }
}

/// The leaves of a plan, run by run.
#[derive(Clone, Debug)]
pub struct LeafRuns {
    plan: LeafPlan,
    /// The pages that have been yielded.
    offset: u64,
}

impl Iterator for LeafRuns {
    type Item = LeafRun;

    fn next(&mut self) -> Option<LeafRun> {
        let LeafPlan { vpn, pages, set } = self.plan;
        let left = pages.nr_pages().checked_sub(self.offset).filter(|&left| left != 0)?;
        let vpn = Vpn::new(vpn.as_u64().wrapping_add(self.offset));
        let pfn = Pfn::new(pages.start().as_u64().wrapping_add(self.offset));
        // Every order of the set divides the difference of both sides, so one side will do.
        let fitting = Order::floor_log2(left)?;
        let order = set.floor(fitting).min(set.floor(pfn.alignment()));
        // The run ends where a larger leaf begins, or where the pages do.
        let nr_pages = match set.above(order) {
            Some(above) if !pfn.is_aligned_to(above) => {
                let mask = above.nr_pages().wrapping_sub(1);
                let distance = (pfn.as_u64() & mask).wrapping_neg() & mask;
                left.min(distance)
            }
            _ => left,
        };
        let nr_leaves = nr_pages.wrapping_shr(order.as_u8().into());
        self.offset = self.offset.wrapping_add(nr_leaves.wrapping_shl(order.as_u8().into()));
        Some(LeafRun { vpn, pfn, order, nr_leaves })
    }
}

impl FusedIterator for LeafRuns {}

/// Why a mapping cannot be planned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum PlanError {
    /// The addresses would go on behind the last one.
    Range(RangeError),
    /// The leaf is larger than the folio: it would map pages that are somebody else's.
    AboveFolio {
        /// The order asked for.
        leaf: Order,
        /// That of the folio.
        folio: Order,
    },
    /// The page table has no leaves of this order.
    NoSuchLeaf {
        /// The order asked for.
        leaf: Order,
    },
    /// The address, the first page or the number of pages is no multiple of the leaf.
    Misaligned {
        /// The address.
        vpn: Vpn,
        /// The pages.
        pages: PfnRange,
        /// The order asked for.
        leaf: Order,
    },
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(error) => error.fmt(f),
            Self::AboveFolio { leaf, folio } => {
                write!(f, "a leaf of order {leaf} is larger than a folio of order {folio}")
            }
            Self::NoSuchLeaf { leaf } => write!(f, "the page table has no leaf of order {leaf}"),
            Self::Misaligned { vpn, pages, leaf } => {
                write!(f, "pages {pages} at {vpn} are no leaves of order {leaf}")
            }
        }
    }
}

impl core::error::Error for PlanError {}
