//! Which leaves an architecture has: data, not code.

use core::fmt;

use crate::units::Order;

/// The orders of leaf that a page table can hold.
///
/// # Invariants
///
/// 1. Order 0 is one of them.
/// 2. No bit above [`Order::MAX`] is set.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct LeafSet(u32);

/// Order 0, which every page table has.
const PAGES: LeafSet = LeafSet(1);

impl LeafSet {
    /// x86-64: 4 KiB, 2 MiB, 1 GiB.
    pub const X86_64: Self = PAGES.and(9).and(18);
    /// AArch64 with a granule of 4 KiB and the contiguous hint: 4 KiB, 64 KiB, 2 MiB, 32 MiB,
    /// 1 GiB.
    pub const ARM64_4K: Self = PAGES.and(4).and(9).and(13).and(18);
    /// AArch64 with a granule of 16 KiB and the contiguous hint: 16 KiB, 2 MiB, 32 MiB, 1 GiB.
    /// Orders are in units of 16 KiB.
    pub const ARM64_16K: Self = PAGES.and(7).and(11).and(16);
    /// AArch64 with a granule of 64 KiB and the contiguous hint: 64 KiB, 2 MiB, 512 MiB, 16 GiB.
    /// Orders are in units of 64 KiB.
    pub const ARM64_64K: Self = PAGES.and(5).and(13).and(18);
    /// RISC-V Sv39 and Sv48: 4 KiB, 2 MiB, 1 GiB.
    pub const RISCV: Self = PAGES.and(9).and(18);
    /// RISC-V Sv39 and Sv48 with Svnapot: 4 KiB, 64 KiB, 2 MiB, 1 GiB.
    pub const RISCV_SVNAPOT: Self = PAGES.and(4).and(9).and(18);
    /// Base pages alone.
    pub const PAGES: Self = PAGES;

    const fn and(self, order: u8) -> Self {
        match Order::new(order) {
            Some(order) => self.with(order),
            None => self,
        }
    }

    /// Returns the set with one more order.
    #[must_use]
    pub const fn with(self, order: Order) -> Self {
        // INVARIANT: 1 because bits are only added, 2 by the limit of `Order`.
        Self(self.0 | 1u32.wrapping_shl(order.as_u8() as u32))
    }

    /// Returns the set of those orders that are no higher than `max`.
    #[must_use]
    pub const fn up_to(self, max: Order) -> Self {
        // The mask has all bits up to that of `max`, which is 18 at most. INVARIANT: 1 because
        // the mask has the lowest bit, 2 because bits are only cleared.
        Self(self.0 & 2u32.wrapping_shl(max.as_u8() as u32).wrapping_sub(1))
    }

    /// Returns whether leaves of that order exist.
    #[must_use]
    pub const fn contains(self, order: Order) -> bool {
        self.0 & 1u32.wrapping_shl(order.as_u8() as u32) != 0
    }

    /// Returns the highest order that is no higher than `max`.
    #[must_use]
    pub const fn floor(self, max: Order) -> Order {
        match Order::floor_log2(self.up_to(max).0 as u64) {
            Some(order) => order,
            // By invariant 1 the set is not empty.
            None => Order::ZERO,
        }
    }

    /// Returns the highest order.
    #[must_use]
    pub const fn max(self) -> Order {
        self.floor(Order::MAX)
    }

    /// Returns the next lower order, or `None` at order 0.
    #[must_use]
    pub const fn below(self, order: Order) -> Option<Order> {
        match order.shrink() {
            Some(max) => Some(self.floor(max)),
            None => None,
        }
    }

    /// Returns the next higher order, if there is one.
    #[must_use]
    pub const fn above(self, order: Order) -> Option<Order> {
        let low = self.up_to(order).0;
        // The lowest bit that is left; 18 at most by invariant 2.
        match (self.0 & !low).trailing_zeros() {
            #[expect(clippy::cast_possible_truncation, reason = "18 at most")]
            bit @ 0..=18 => Order::new(bit as u8),
            _ => None,
        }
    }

    /// Returns the orders, ascending.
    #[must_use]
    pub fn orders(self) -> impl DoubleEndedIterator<Item = Order> + Clone + fmt::Debug {
        // A filter over a function pointer, so that it can be cloned and printed.
        OrdersOf { set: self, all: Order::all() }
    }
}

/// The orders of a set.
#[derive(Clone, Debug)]
struct OrdersOf<I> {
    set: LeafSet,
    all: I,
}

impl<I: DoubleEndedIterator<Item = Order>> Iterator for OrdersOf<I> {
    type Item = Order;

    fn next(&mut self) -> Option<Order> {
        let set = self.set;
        self.all.find(|&order| set.contains(order))
    }
}

impl<I: DoubleEndedIterator<Item = Order>> DoubleEndedIterator for OrdersOf<I> {
    fn next_back(&mut self) -> Option<Order> {
        let set = self.set;
        self.all.rfind(|&order| set.contains(order))
    }
}

impl fmt::Debug for LeafSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.orders()).finish()
    }
}
