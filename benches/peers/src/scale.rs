//! What the size of an extent costs.

use std::time::Instant;

use devfolio::{
    Attach, Bare, ExtentAttrs, ExtentSlot, HeapMeta, MetaSize, Pfn, PfnRange, Pgmap, Policy, Tables,
};

use crate::ours::{Owner, order};
use crate::space::Rng;
use crate::table::Table;
use crate::timing::{Side, alone, median, timed};

/// Blocks that are fractured, wherever they are.
const NR_BLOCKS: usize = 4096;

fn pair(free: Bare<'static>, log2_pages: u8) -> Side<'static> {
    let order = order(log2_pages);
    let _held = free.alloc(order, 0).unwrap();
    timed(move |nr| {
        for _ in 0..nr {
            let head = free.alloc(order, 0).unwrap();
            free.free(head, order);
        }
    })
}

/// Claims pages of blocks that lie anywhere.
fn spread(free: Bare<'static>, nr_pages: u64) -> Side<'static> {
    let page = order(0);
    let mut rng = Rng::new(19);
    let heads: Vec<_> = (0..NR_BLOCKS)
        .filter_map(|_| {
            let head = Pfn::new((rng.next() % (nr_pages >> 9)) << 9);
            free.claim(head, page)
        })
        .collect();
    timed(move |nr| {
        for _ in 0..nr {
            let head = heads[rng.below(heads.len())];
            let other = Pfn::new(head.as_u64() + 1 + rng.below(511) as u64);
            let head = free.claim(other, page).unwrap();
            free.free(head, page);
        }
    })
}

/// Searches that find nothing, since all of it is taken in the largest folios.
fn nothing(free: Bare<'static>) -> Side<'static> {
    while free.alloc(order(18), 0).is_some() {}
    while free.alloc(order(9), 0).is_some() {}
    timed(move |nr| {
        for _ in 0..nr {
            assert!(free.alloc(order(9), 0).is_none());
        }
    })
}

/// Memory of the process that is there, in MiB.
fn committed() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let resident: f64 = pages.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0.0);
    resident / 256.0
}

/// One bad page in each of many folios of 1 GiB: what it takes to record it while the folio is
/// live, and to give the healthy pages back.
fn bad_pages() -> String {
    const NR_REGIONS: u32 = 64;
    let range = PfnRange::new(Pfn::new(0), u64::from(NR_REGIONS) << 18).unwrap();
    let tables = Tables::Budget(NR_REGIONS);
    let size = MetaSize::of(range, tables).poison(NR_REGIONS);
    let mut lines = HeapMeta::zeroed(size.lines()).unwrap();
    let slots = [ExtentSlot::new()];
    let pgmap = Pgmap::new(Owner, Policy::generic(), &slots);
    let lines = lines.lines_mut();
    pgmap.add_extent(range, ExtentAttrs::NEW, tables, lines, Attach::Zeroed).unwrap();
    let mut rng = Rng::new(23);
    let (mut records, mut frees) = (Vec::new(), Vec::new());
    for _ in 0..NR_REGIONS {
        let folio = pgmap.alloc(order(18)).unwrap().publish();
        let page = Pfn::new(folio.head().as_u64() + rng.below(1 << 18) as u64);
        let begin = Instant::now();
        pgmap.poison(page).unwrap();
        records.push(begin.elapsed().as_nanos() as f64);
        let begin = Instant::now();
        drop(folio);
        frees.push(begin.elapsed().as_nanos() as f64);
    }
    let stats = pgmap.stats();
    let nr_pieces: u64 = stats.free_by_order.iter().sum();
    assert_eq!((stats.free_pages, nr_pieces), (range.nr_pages() - 64, 64 * 18));
    format!(
        "poison: a page of a live folio of 1 GiB {:.0} ns; \
         giving the folio back in 18 pieces {:.0} ns",
        median(records),
        median(frees)
    )
}

pub(crate) fn run(table: &mut Table, rounds: usize) {
    table.line("poison", bad_pages);
    for (name, log2_pages) in [("64 GiB", 24), ("1 TiB", 28), ("64 TiB", 34)] {
        table.line("scale", || {
            let range = PfnRange::new(Pfn::new(0), 1 << log2_pages).unwrap();
            let tables = Tables::Budget(2 * NR_BLOCKS as u32);
            let size = MetaSize::of(range, tables);
            let before = committed();
            let lines = Box::leak(Box::new(HeapMeta::zeroed(size.lines()).unwrap())).lines_mut();
            let slots = Vec::leak(vec![ExtentSlot::new()]);
            let pgmap = Box::leak(Box::new(Pgmap::new(Owner, Policy::generic(), slots)));
            let begin = Instant::now();
            pgmap.add_extent(range, ExtentAttrs::NEW, tables, lines, Attach::Zeroed).unwrap();
            let attach = begin.elapsed().as_nanos() as f64 / 1000.0;
            let attached = committed() - before;
            let free = pgmap.bare().unwrap();
            let pairs = [0, 9, 18].map(|order| alone(pair(free, order), rounds));
            let spread = alone(spread(free, 1 << log2_pages), rounds);
            let used = committed() - before;
            let nothing = alone(nothing(free), rounds);
            let mib = size.bytes() as f64 / f64::from(1 << 20);
            format!(
                "scale {name}: metadata {mib:.1} MiB with {} tables, attach {attach:.0} us, \
                 committed by it {attached:.1} MiB, after use {used:.1} MiB; \
                 pair at order 0 / 9 / 18 \
                 {:.1} / {:.1} / {:.1} ns; claim of a random page and free {spread:.1} ns; \
                 search that finds nothing {nothing:.0} ns",
                2 * NR_BLOCKS,
                pairs[0],
                pairs[1],
                pairs[2],
            )
        });
    }
}
