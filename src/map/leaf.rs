//! What an entry of a page table says, without a word about its bits.

use core::fmt;
use core::ops::{BitAnd, BitOr};

use super::virt::{Vpn, VpnRange};
use crate::units::{Order, Pfn, PfnRange};

/// What a leaf allows.
///
/// [`Rights::NONE`] is a leaf that is counted and not present: memory that the CPU cannot reach, a
/// page on the move, poison. Linux has several kinds of swap entries for it.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct Rights(u8);

impl Rights {
    /// No access.
    pub const NONE: Self = Self(0);
    /// Loads.
    pub const READ: Self = Self(1);
    /// Loads and stores.
    pub const READ_WRITE: Self = Self(1 | 2);
    /// Loads and instruction fetches.
    pub const READ_EXEC: Self = Self(1 | 4);
    /// Everything.
    pub const ALL: Self = Self(1 | 2 | 4);

    /// Returns the bits: 1 for loads, 2 for stores, 4 for instruction fetches.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Creates rights from their bits; others are ignored.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & Self::ALL.0)
    }

    /// Returns whether all of `other` is allowed.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitAnd for Rights {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl BitOr for Rights {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |bit: u8, letter| if self.0 & bit == 0 { "-" } else { letter };
        write!(f, "{}{}{}", letter(1, "r"), letter(2, "w"), letter(4, "x"))
    }
}

/// What somebody wants to do with a page.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Access {
    /// Load from it.
    Read,
    /// Store to it. Mirrors `FOLL_WRITE`.
    Write,
    /// Execute it.
    Exec,
}

impl Access {
    /// Returns the rights that it takes.
    #[must_use]
    pub const fn rights(self) -> Rights {
        match self {
            Self::Read => Rights::READ,
            Self::Write => Rights::READ_WRITE,
            Self::Exec => Rights::READ_EXEC,
        }
    }
}

/// A leaf of a page table: a naturally aligned run of pages behind as many pages of addresses.
///
/// Both its address and its pages are aligned to its order. How an architecture writes it down,
/// as one entry or as a group with a hint, is up to the [`PageTable`](super::PageTable).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Leaf {
    /// The first page.
    pub pfn: Pfn,
    /// Log2 of the pages.
    pub order: Order,
    /// What it allows.
    pub rights: Rights,
    /// Whatever the embedder keeps beside that: the memory type, a protection key, software bits.
    /// The crate copies it and never looks.
    pub attrs: u16,
    /// Whether the leaf has been used.
    pub accessed: bool,
    /// Whether there have been stores through the leaf.
    pub dirty: bool,
}

impl Leaf {
    /// Returns a leaf that has not been used.
    #[must_use]
    pub const fn new(pfn: Pfn, order: Order, rights: Rights) -> Self {
        Self { pfn, order, rights, attrs: 0, accessed: false, dirty: false }
    }

    /// Returns the pages.
    #[must_use]
    pub const fn pages(&self) -> PfnRange {
        PfnRange::block(self.pfn, self.order)
    }

    /// Returns the addresses, of which `vpn` is one.
    #[must_use]
    pub const fn addresses(&self, vpn: Vpn) -> VpnRange {
        VpnRange::block(vpn, self.order)
    }

    /// Returns the page behind the address `vpn`, which is one of those of the leaf.
    #[must_use]
    pub const fn page_at(&self, vpn: Vpn) -> Pfn {
        let low = vpn.as_u64() & self.order.nr_pages().wrapping_sub(1);
        Pfn::new(self.pfn.head(self.order).as_u64() | low)
    }

    /// Returns the leaf of a lower order, with the same rights and bits, that maps `vpn`.
    #[must_use]
    pub const fn piece(&self, vpn: Vpn, order: Order) -> Self {
        Self { pfn: self.page_at(vpn).head(order), order, ..*self }
    }

    /// Returns whether two leaves are the same but for the bits that hardware sets.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let bare = |leaf: &Self| Self { accessed: false, dirty: false, ..*leaf };
        bare(self) == bare(other)
    }
}

/// What a page table has for an address.
///
/// There are three kinds of entry: empty, a table, a leaf. A reader walks tables, so that two are
/// left.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Entry {
    /// Nothing, and neither for the naturally aligned 2^`log2_pages` pages around the address:
    /// whoever walks a range skips so many. Zero is always true.
    Empty {
        /// Log2 of the pages; 63 at most.
        log2_pages: u8,
    },
    /// A leaf.
    Leaf(Leaf),
}

impl Entry {
    /// Returns the leaf.
    #[must_use]
    pub const fn leaf(self) -> Option<Leaf> {
        match self {
            Self::Leaf(leaf) => Some(leaf),
            Self::Empty { .. } => None,
        }
    }

    /// Returns the last address that this entry speaks for; `vpn` is the one that was asked for.
    #[must_use]
    pub fn last(self, vpn: Vpn) -> Vpn {
        let log2_pages = match self {
            Self::Empty { log2_pages } => log2_pages,
            Self::Leaf(leaf) => leaf.order.as_u8(),
        };
        let mask = 1u64.checked_shl(log2_pages.into()).unwrap_or(0).wrapping_sub(1);
        Vpn::new(vpn.as_u64() | mask)
    }
}
