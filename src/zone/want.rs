//! What a search looks for: an order, and where a run of it may start.
#![expect(clippy::arithmetic_side_effects, reason = "orders are at most 18")]

use crate::units::{Order, Pfn, PfnRange};

/// What is looked for in one extent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Want {
    pub(super) order: Order,
    pub(super) align: Order,
    /// The lowest and the highest first page, both aligned.
    pub(super) lo: Pfn,
    pub(super) hi: Pfn,
    pub(super) is_down: bool,
}

impl Want {
    /// Returns what to look for inside `range`; `None` if no aligned run fits into it.
    pub(crate) fn inside(
        range: PfnRange,
        order: Order,
        align: Order,
        is_down: bool,
    ) -> Option<Self> {
        let align = align.max(order);
        if seeded!(RelativeBlock) {
            let (lo, hi) = (range.start(), range.last().checked_sub(order.nr_pages() - 1)?);
            return (lo <= hi).then_some(Self { order, align: Order::ZERO, lo, hi, is_down });
        }
        let lo = range.start().head(align);
        let lo = if lo < range.start() { lo.checked_add(align.nr_pages())? } else { lo };
        let is_cut = seeded!(TopOfSpace) && range.last() == Pfn::new(u64::MAX);
        let last = range.last().checked_sub(u64::from(is_cut))?;
        let hi = last.checked_sub(order.nr_pages() - 1)?.head(align);
        (lo <= hi).then_some(Self { order, align, lo, hi, is_down })
    }
}
