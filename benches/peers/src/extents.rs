//! What it costs to find a page among many extents.

use std::hint::black_box;

use devfolio::{
    Attach, ExtentAttrs, ExtentSlot, HeapMeta, MetaSize, Pfn, PfnRange, Pgmap, PgmapCore, Policy,
    Tables,
};

use crate::ours::{Owner, Pool, order};
use crate::space::Rng;
use crate::table::{Goal, Table};
use crate::timing::{Side, pair, timed};

/// Pages that are looked up, one in each extent where there are so many.
const NR_PLACES: u64 = 1000;
/// From one of them to the next; the extents have less, and none is aligned.
const STEP: u64 = 5003;

/// References on pages that lie everywhere, taken by page.
fn lookups(ranges: &[PfnRange]) -> Side<'static> {
    let sizes: Vec<_> = ranges.iter().map(|&range| MetaSize::of(range, Tables::Dense)).collect();
    let nr_lines = sizes.iter().map(|size| size.lines()).sum();
    let mut lines = Box::leak(Box::new(HeapMeta::zeroed(nr_lines).unwrap())).lines_mut();
    let slots = Vec::leak(ranges.iter().map(|_| ExtentSlot::new()).collect::<Vec<_>>());
    let pool: &Pool = Box::leak(Box::new(Pgmap::new(Owner, Policy::generic(), slots)));
    let mut rng = Rng::new(23);
    let mut order_of_adding: Vec<_> = (0..ranges.len()).collect();
    rng.shuffle(&mut order_of_adding);
    for at in order_of_adding {
        let (own, rest) = lines.split_at_mut(sizes[at].lines());
        lines = rest;
        let (attrs, tables) = (ExtentAttrs::NEW, Tables::Dense);
        pool.add_extent(ranges[at], attrs, tables, own, Attach::Zeroed).unwrap();
    }
    let mut places: Vec<_> = (0..NR_PLACES).map(|at| Pfn::new(at * STEP + 1100)).collect();
    for &pfn in &places {
        std::mem::forget(PgmapCore::claim(pool, pfn, order(0)).unwrap().publish());
    }
    rng.shuffle(&mut places);
    let mut places = places.into_iter().cycle();
    timed(move |nr| {
        for pfn in places.by_ref().take(nr as usize) {
            let folio = pool.try_get(black_box(pfn)).unwrap();
            black_box(&folio);
        }
    })
}

fn one() -> Side<'static> {
    lookups(&[PfnRange::new(Pfn::new(7), NR_PLACES * STEP).unwrap()])
}

fn many() -> Side<'static> {
    let mut rng = Rng::new(29);
    let ranges = (0..NR_PLACES).map(|at| {
        let (before, behind) = (1 + rng.below(1000) as u64, rng.below(1000) as u64);
        PfnRange::new(Pfn::new(at * STEP + 1100 - before), before + 1 + behind).unwrap()
    });
    lookups(&ranges.collect::<Vec<_>>())
}

pub(crate) fn run(table: &mut Table, rounds: usize) {
    table.measure_more("lookup_1000_vs_1", Goal::AtMost(1.5), "one extent", || {
        pair(many(), one(), rounds)
    });
}
