//! Leaf plans against their definition.

use std::vec::Vec;

use crate::map::*;
use crate::units::{Order, Pfn, PfnRange};

const SETS: [LeafSet; 7] = [
    LeafSet::PAGES,
    LeafSet::X86_64,
    LeafSet::ARM64_4K,
    LeafSet::ARM64_16K,
    LeafSet::ARM64_64K,
    LeafSet::RISCV,
    LeafSet::RISCV_SVNAPOT,
];

fn order(order: u8) -> Order {
    Order::new(order).unwrap()
}

fn set(orders: &[u8]) -> LeafSet {
    orders.iter().fold(LeafSet::PAGES, |set, &log2| set.with(order(log2)))
}

/// The definition: the largest leaf that fits, again and again.
fn naive(vpn: u64, pages: PfnRange, folio: Order, set: LeafSet) -> Vec<(Vpn, Pfn, Order)> {
    let mut leaves = Vec::new();
    let mut at = 0;
    while at < pages.nr_pages() {
        let (vpn, pfn) = (vpn + at, pages.start().as_u64() + at);
        let fits = |order: &Order| {
            let size = order.nr_pages();
            let is_aligned = vpn % size == 0 && pfn % size == 0;
            is_aligned && size <= pages.nr_pages() - at && *order <= folio && set.contains(*order)
        };
        let order = Order::all().filter(fits).max().unwrap();
        leaves.push((Vpn::new(vpn), Pfn::new(pfn), order));
        at += order.nr_pages();
    }
    leaves
}

fn assert_as_defined(vpn: u64, pages: PfnRange, folio: Order, set: LeafSet) {
    let plan = LeafPlan::new(Vpn::new(vpn), pages, folio, set, LeafLimit::Largest).unwrap();
    let expected = naive(vpn, pages, folio, set);
    assert_eq!(plan.leaves().collect::<Vec<_>>(), expected, "{vpn:#x} {pages} {folio} {set:?}");
    assert_eq!(plan.nr_leaves(), expected.len() as u64);
    assert!(plan.runs().count() <= 2 * set.orders().count() * 2);
}

#[test]
fn leaves_of_all_small_runs_are_the_largest() {
    let (end, sets) = if cfg!(miri) { (5, 3) } else { (18, 16) };
    for mask in 0..sets {
        let orders: Vec<u8> = (1..5).filter(|order| mask >> (order - 1) & 1 == 1).collect();
        let set = set(&orders);
        for (vpn, pfn) in (0..end).flat_map(|vpn| (0..end).map(move |pfn| (vpn, pfn))) {
            for nr_pages in 1..=end {
                let pages = PfnRange::new(Pfn::new(pfn), nr_pages).unwrap();
                assert_as_defined(vpn, pages, order(4), set);
                assert_as_defined(vpn, pages, order(2), set);
            }
        }
    }
}

#[test]
fn leaves_of_architectures_are_the_largest() {
    let folio = 1u64 << 40;
    for set in SETS {
        for (first, nr_pages) in
            [(0, 3), (1, 1000), (511, 3), (512, 512), (15, 70_000), (0, 1 << 17), (9, 200_001)]
        {
            let nr_pages: u64 = if cfg!(miri) { nr_pages.min(600) } else { nr_pages };
            for skew in [0, 1, 16, 512, 1 << 13, 1 << 18] {
                let pages = PfnRange::new(Pfn::new(folio + first), nr_pages).unwrap();
                assert_as_defined(first + skew, pages, Order::MAX, set);
                assert_as_defined(first + skew, pages, Order::BLOCK, set);
            }
        }
    }
}

#[test]
fn a_whole_region_is_one_leaf_or_as_many_as_are_asked_for() {
    let pages = PfnRange::folio(Pfn::new(1 << 20), Order::REGION).unwrap();
    let plan = |limit| {
        LeafPlan::new(Vpn::new(1 << 30), pages, Order::REGION, LeafSet::X86_64, limit).unwrap()
    };
    assert_eq!(plan(LeafLimit::Largest).nr_leaves(), 1);
    assert_eq!(plan(LeafLimit::UpTo(order(17))).nr_leaves(), 512);
    assert_eq!(plan(LeafLimit::Exactly(Order::BLOCK)).nr_leaves(), 512);
    assert_eq!(plan(LeafLimit::Exactly(Order::ZERO)).nr_leaves(), 262_144);
}

/// The mess of "4K pages into PMDs" has no way to begin.
#[test]
fn a_leaf_above_the_order_of_the_folio_is_refused() {
    let page = PfnRange::folio(Pfn::new(1 << 9), Order::ZERO).unwrap();
    let limit = LeafLimit::Exactly(Order::BLOCK);
    let plan = LeafPlan::new(Vpn::new(0), page, Order::ZERO, LeafSet::X86_64, limit);
    let (leaf, folio) = (Order::BLOCK, Order::ZERO);
    assert_eq!(plan, Err(PlanError::AboveFolio { leaf, folio }));

    // 512 pages of order 0 side by side are not a block, however they are aligned.
    let pages = PfnRange::new(Pfn::new(1 << 9), 512).unwrap();
    let plan = LeafPlan::new(Vpn::new(0), pages, Order::ZERO, LeafSet::X86_64, LeafLimit::Largest);
    assert_eq!(plan.unwrap().nr_leaves(), 512);
}

#[test]
fn refusals_of_plans_say_which_leaf_cannot_be() {
    let pages = PfnRange::new(Pfn::new(1 << 9), 513).unwrap();
    let vpn = Vpn::new(1 << 9);
    let plan = |vpn, leaf| {
        LeafPlan::new(vpn, pages, Order::MAX, LeafSet::X86_64, LeafLimit::Exactly(leaf))
    };
    let leaf = Order::BLOCK;
    assert_eq!(plan(vpn, leaf), Err(PlanError::Misaligned { vpn, pages, leaf }));
    assert_eq!(plan(vpn, order(4)), Err(PlanError::NoSuchLeaf { leaf: order(4) }));
    assert!(matches!(plan(Vpn::new(u64::MAX - 3), leaf), Err(PlanError::Range(_))));
    assert!(plan(vpn, Order::ZERO).is_ok());
}

#[test]
fn plans_reach_the_last_page_of_space() {
    let pages = PfnRange::folio(Pfn::new(u64::MAX << 9), Order::BLOCK).unwrap();
    let vpn = Vpn::new(u64::MAX << 9);
    let plan = LeafPlan::new(vpn, pages, Order::BLOCK, LeafSet::ARM64_4K, LeafLimit::Largest);
    let plan = plan.unwrap();
    assert_eq!(plan.leaves().collect::<Vec<_>>(), [(vpn, pages.start(), Order::BLOCK)]);
    assert_eq!(plan.addresses().last(), Vpn::new(u64::MAX));
    let last = PfnRange::page_at_top();
    let plan =
        LeafPlan::new(Vpn::new(u64::MAX), last, Order::MAX, LeafSet::X86_64, LeafLimit::Largest);
    assert_eq!(plan.unwrap().nr_leaves(), 1);
}

impl PfnRange {
    fn page_at_top() -> Self {
        Self::new(Pfn::new(u64::MAX), 1).unwrap()
    }
}

#[test]
fn sets_know_their_neighbours() {
    let set = LeafSet::ARM64_4K;
    let all: Vec<u8> = set.orders().map(Order::as_u8).collect();
    assert_eq!(all, [0, 4, 9, 13, 18]);
    assert_eq!(set.orders().next_back(), Some(order(18)));
    assert_eq!((set.above(order(4)), set.above(order(5))), (Some(order(9)), Some(order(9))));
    assert_eq!((set.above(Order::MAX), set.below(Order::ZERO)), (None, None));
    assert_eq!((set.below(order(9)), set.below(order(8))), (Some(order(4)), Some(order(4))));
    assert_eq!((set.floor(order(17)), set.max()), (order(13), order(18)));
    assert_eq!(set.up_to(order(12)), LeafSet::PAGES.with(order(4)).with(order(9)));
    assert_eq!(
        std::format!("{:?}", LeafSet::RISCV_SVNAPOT),
        "{Order(0), Order(4), Order(9), Order(18)}"
    );
}
