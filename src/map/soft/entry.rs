//! An entry of a table in software, and how addresses lead to it.

use crate::map::leaf::{Leaf, Rights};
use crate::map::virt::{Vpn, VpnRange};
use crate::units::{Order, Pfn};

/// Log2 of the entries that a node has room for. Models have small nodes: loom registers every
/// entry.
pub(super) const BITS_MAX: u8 = if cfg!(all(test, loom)) { 1 } else { 9 };
pub(super) const LEVELS: u8 = if cfg!(all(test, loom)) { 2 } else { 4 };
pub(super) const NR_ENTRIES: usize = 1 << BITS_MAX;

// An entry, from the lowest bit. All zero is empty.
pub(super) const TABLE: u64 = 1 << 0;
pub(super) const LEAF: u64 = 1 << 1;
pub(super) const RIGHTS_SHIFT: u32 = 2;
pub(super) const ACCESSED: u64 = 1 << 5;
pub(super) const DIRTY: u64 = 1 << 6;
/// The order of the leaf: one that is larger than an entry has a group of equal ones.
pub(super) const ORDER_SHIFT: u32 = 7;
pub(super) const ATTRS_SHIFT: u32 = 12;
pub(super) const ATTRS_MAX: u64 = 0xfff;
/// The page of a leaf, the node of a link.
pub(super) const NUMBER_SHIFT: u32 = 24;
pub(super) const NUMBER_MAX: u64 = u64::MAX >> NUMBER_SHIFT;

/// How many entries a node has: two to the power of this.
#[derive(Clone, Copy)]
pub(super) struct Shape(pub(super) u8);

impl Shape {
    /// Returns the level whose entries, or groups of them, are leaves of `order`.
    pub(super) const fn level_of(self, order: Order) -> u8 {
        match order.as_u8().checked_div(self.0) {
            Some(level) => level,
            None => 0,
        }
    }

    /// Returns the order of one entry of a level; `Order::MAX` from there on.
    pub(super) const fn order_of(self, level: u8) -> Order {
        match Order::new(level.saturating_mul(self.0)) {
            Some(order) => order,
            None => Order::MAX,
        }
    }

    /// Log2 of the pages of one entry of a level.
    pub(super) const fn shift_of(self, level: u8) -> u32 {
        level.saturating_mul(self.0) as u32
    }

    /// Returns the index of the entry for an address at a level.
    pub(super) fn index_of(self, vpn: Vpn, level: u8) -> usize {
        let mask = 1u64.wrapping_shl(self.0.into()).wrapping_sub(1);
        usize::try_from(vpn.as_u64() >> self.shift_of(level) & mask).unwrap_or(0)
    }

    /// The addresses of a table.
    pub(super) fn addresses(self) -> VpnRange {
        let last = Vpn::new(1u64.wrapping_shl(self.shift_of(LEVELS)).wrapping_sub(1));
        VpnRange::between(Vpn::new(0), last).unwrap_or(VpnRange::page(last))
    }

    /// Returns the addresses of an entry of the node that `range` lies in.
    pub(super) fn block_at(self, range: VpnRange, level: u8, index: usize) -> VpnRange {
        let (shift, above) = (self.shift_of(level), self.shift_of(level.saturating_add(1)));
        let node = range.start().as_u64() >> above << above;
        let first = node | (index as u64) << shift;
        let last = first | 1u64.wrapping_shl(shift).wrapping_sub(1);
        VpnRange::between(Vpn::new(first), Vpn::new(last)).unwrap_or(range)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "fields of a few bits")]
pub(super) fn decode(bits: u64) -> Option<Leaf> {
    let order = Order::new((bits >> ORDER_SHIFT) as u8 & 0x1f)?;
    (bits & LEAF != 0).then_some(Leaf {
        pfn: Pfn::new(bits >> NUMBER_SHIFT),
        order,
        rights: Rights::from_bits((bits >> RIGHTS_SHIFT) as u8),
        attrs: (bits >> ATTRS_SHIFT & ATTRS_MAX) as u16,
        accessed: bits & ACCESSED != 0,
        dirty: bits & DIRTY != 0,
    })
}

pub(super) fn encode(leaf: Leaf, pfn: Pfn) -> u64 {
    let used = if leaf.accessed { ACCESSED } else { 0 } | if leaf.dirty { DIRTY } else { 0 };
    let fields = u64::from(leaf.rights.bits()) << RIGHTS_SHIFT
        | u64::from(leaf.order.as_u8()) << ORDER_SHIFT
        | (u64::from(leaf.attrs) & ATTRS_MAX) << ATTRS_SHIFT;
    pfn.as_u64() << NUMBER_SHIFT | fields | used | LEAF
}

pub(super) const fn link(node: usize) -> u64 {
    (node as u64) << NUMBER_SHIFT | TABLE
}

/// Returns the node that a link, or the first entry of a free node, names.
pub(super) fn node_of(bits: u64) -> usize {
    usize::try_from(bits >> NUMBER_SHIFT).unwrap_or(usize::MAX)
}
