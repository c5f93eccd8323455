//! What happened, in numbers.

use devfolio::Order;

const NR_ORDERS: usize = Order::MAX.as_u8() as usize + 1;

/// A number for each order.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct ByOrder([u64; NR_ORDERS]);

impl ByOrder {
    pub(crate) fn add(&mut self, order: Order, nr: u64) {
        if let Some(slot) = self.0.get_mut(usize::from(order.as_u8())) {
            *slot += nr;
        }
    }

    pub(crate) fn get(&self, order: Order) -> u64 {
        self.0.get(usize::from(order.as_u8())).copied().unwrap_or(0)
    }

    /// Sums up, in pages, how much lies in each class of folios.
    pub(crate) fn shares(&self) -> Shares {
        let mut shares = Shares::default();
        for order in Order::all() {
            let nr_pages = self.get(order) * order.nr_pages();
            if order == Order::REGION {
                shares.regions += nr_pages;
            } else if Order::BLOCK <= order {
                shares.blocks += nr_pages;
            } else {
                shares.smaller += nr_pages;
            }
        }
        shares
    }
}

/// Pages in folios of 1 GiB, of 2 MiB or more, and smaller.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Shares {
    pub(crate) regions: u64,
    pub(crate) blocks: u64,
    pub(crate) smaller: u64,
}

impl Shares {
    pub(crate) fn total(&self) -> u64 {
        self.regions + self.blocks + self.smaller
    }
}

/// How often each thing was done.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Tally {
    /// Events of the workload.
    pub(crate) nr_events: u64,
    /// Events on requests that had failed.
    pub(crate) nr_skipped: u64,

    /// Requests.
    pub(crate) nr_requests: u64,
    /// Requests that the pool could not serve.
    pub(crate) nr_failed: u64,
    /// What the pool said to the first of them.
    pub(crate) first_failure: Option<String>,
    /// Folios that requests were given.
    pub(crate) given: ByOrder,
    /// Whole GiBs in the sizes of all requests.
    pub(crate) nr_whole_gib: u64,
    /// Pages given beyond what was asked, because sizes are rounded up.
    pub(crate) nr_rounding_pages: u64,

    /// References that were taken, dropped and refused.
    pub(crate) nr_gets: u64,
    pub(crate) nr_puts: u64,
    pub(crate) nr_get_failures: u64,
    /// Folios taken back from the owner's cache, and evicted from it.
    pub(crate) nr_revives: u64,
    pub(crate) nr_evictions: u64,
    /// Folios that were freed in either way.
    pub(crate) nr_ended: u64,

    pub(crate) nr_lookups: u64,
    pub(crate) nr_pins: u64,
    pub(crate) nr_unpins: u64,
    pub(crate) nr_maps: u64,
    pub(crate) nr_unmaps: u64,
    pub(crate) nr_freezes: u64,
    pub(crate) nr_refusals: u64,
    pub(crate) nr_splits: u64,
    pub(crate) nr_merges: u64,
    /// Parts of a folio that were given back, and their pages.
    pub(crate) nr_returns: u64,
    pub(crate) nr_returned_pages: u64,

    /// Most holders of one folio.
    pub(crate) peak_refs: u32,
    /// Most pages in use.
    pub(crate) peak_pages: u64,
}

impl Tally {
    /// The calls that changed something in the pool.
    pub(crate) fn nr_operations(&self) -> u64 {
        let nr_given: u64 = Order::all().map(|order| self.given.get(order)).sum();
        nr_given
            + self.nr_gets
            + self.nr_puts
            + self.nr_revives
            + self.nr_evictions
            + self.nr_lookups
            + self.nr_pins
            + self.nr_unpins
            + self.nr_maps
            + self.nr_unmaps
            + self.nr_freezes
            + self.nr_splits
            + self.nr_merges
            + self.nr_returns
    }

    /// Folios of a request, on average.
    pub(crate) fn mean_folios(&self) -> f64 {
        let nr_given: u64 = Order::all().map(|order| self.given.get(order)).sum();
        let nr_served = self.nr_requests - self.nr_failed;
        if nr_served == 0 { 0.0 } else { nr_given as f64 / nr_served as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        let mut by_order = ByOrder::default();
        by_order.add(Order::REGION, 2);
        by_order.add(Order::BLOCK, 3);
        by_order.add(Order::ZERO, 5);
        let shares = by_order.shares();
        assert_eq!((shares.regions, shares.blocks, shares.smaller), (2 << 18, 3 << 9, 5));
        assert_eq!(shares.total(), (2 << 18) + (3 << 9) + 5);
    }
}
