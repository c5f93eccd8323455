//! Unit tests of the mapping floor.

use core::sync::atomic::{AtomicU64, Ordering};
use std::vec::Vec;

use crate::map::*;
use crate::meta::{MetaLine, MetaSize, Tables};
use crate::pgmap::*;
use crate::units::{Order, Pfn, PfnRange};

mod faults;
mod fracture;
mod gup;
mod plan;
mod space;

/// An owner that counts what comes back.
#[derive(Default)]
struct Owner {
    nr_freed: AtomicU64,
}

impl PgmapOps for Owner {
    type Private = ();

    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, _: &mut HookCx<'a, Self>) {
        self.nr_freed.fetch_add(1, Ordering::Relaxed);
        folio.release();
    }
}

/// Another type of owner.
struct Other;

impl PgmapOps for Other {
    type Private = ();
}

/// What the tests share: two owners of different type behind one directory.
struct World<'d> {
    directory: &'d Directory<'d>,
    owner: &'d PgmapCore<Owner>,
    other: &'d PgmapCore<Other>,
}

const FIRST: Pfn = Pfn::new(1 << 20);
const NR_PAGES: u64 = 1 << 19;

fn order(order: u8) -> Order {
    Order::new(order).unwrap()
}

fn range(vpn: u64, nr_pages: u64) -> VpnRange {
    VpnRange::new(Vpn::new(vpn), nr_pages).unwrap()
}

fn pages(pfn: Pfn, nr_pages: u64) -> PfnRange {
    PfnRange::new(pfn, nr_pages).unwrap()
}

/// Runs a test with two owners of 2 GiB and 8 MiB; afterwards everything is free again.
fn with_world(test_fn: impl FnOnce(&World<'_>)) {
    with_policy(Policy::generic(), test_fn);
}

fn with_policy(policy: Policy, test_fn: impl FnOnce(&World<'_>)) {
    let ranges = [pages(FIRST, NR_PAGES), pages(Pfn::new(1 << 24), 2048)];
    let lines = ranges.map(|range| MetaSize::of(range, Tables::Budget(8)).lines());
    let mut meta = lines.map(|nr| (0..nr).map(|_| MetaLine::ZERO).collect::<Vec<_>>());
    let [first, second] = &mut meta;
    let extents = [ExtentSlot::new(), ExtentSlot::new()];
    let owner = Pgmap::new(Owner::default(), policy, &extents);
    let other = Pgmap::new(Other, Policy::fs_dax(), &extents);
    let attrs = ExtentAttrs::NEW;
    owner.add_extent(ranges[0], attrs, Tables::Budget(8), first, Attach::Zeroed).unwrap();
    other.add_extent(ranges[1], attrs, Tables::Budget(8), second, Attach::Zeroed).unwrap();
    let slots = [DirSlot::new(), DirSlot::new()];
    let directory = Directory::new(&slots);
    directory.register(&owner).unwrap();
    directory.register(&other).unwrap();
    test_fn(&World { directory: &directory, owner: &owner, other: &other });
    owner.check().unwrap();
    other.check().unwrap();
    assert_eq!(owner.stats().free_pages, NR_PAGES, "everything came back");
}

/// Lends nodes for a table.
fn nodes(nr: usize) -> Vec<SoftNode> {
    (0..nr).map(|_| SoftNode::new()).collect()
}

const BOTH: [Replace; 2] = [Replace::Atomic, Replace::BreakBeforeMake];

/// The leaves of a range, as orders in runs.
fn orders<T: PageTable>(space: &AddressSpace<'_, T>, range: VpnRange) -> Vec<(u8, usize)> {
    let mut runs: Vec<(u8, usize)> = Vec::new();
    for (_, leaf) in space.leaves(range) {
        match runs.last_mut() {
            Some((order, nr)) if *order == leaf.order.as_u8() => *nr += 1,
            _ => runs.push((leaf.order.as_u8(), 1)),
        }
    }
    runs
}
