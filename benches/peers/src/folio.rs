//! Whole lives of folios, counts, splits; attach, metadata, and requests with conditions.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use devfolio::{
    Attach, ExtentAttrs, ExtentSlot, FolioDesc, HeapMeta, MetaSize, Order, Pfn, PfnRange, Pgmap,
    PgmapCore, PinKind, Policy, Request, SetRequest, Tables,
};

use crate::frames::{Frames, SummaryBuddy};
use crate::ours::{Owner, Pool, order};
use crate::space::{NR_PAGES, Rng, pairs};
use crate::table::{Goal, Table};
use crate::timing::{Side, alone, median, pair, timed};

/// Allocated, published, put, freed by its hook: all that a folio goes through.
fn lives(order: u8) -> Side<'static> {
    let pool = <Pool as Frames>::new(NR_PAGES);
    std::mem::forget(Frames::alloc(pool, order));
    let order = self::order(order);
    timed(move |nr| {
        for _ in 0..nr {
            let folio = PgmapCore::alloc(pool, order).unwrap().publish();
            black_box(&folio);
        }
    })
}

fn arcs() -> Side<'static> {
    let arc = Arc::new(0_u64);
    timed(move |nr| {
        for _ in 0..nr {
            let clone = Arc::clone(black_box(&arc));
            black_box(&clone);
        }
    })
}

fn clones() -> Side<'static> {
    let pool = <Pool as Frames>::new(NR_PAGES);
    let folio = PgmapCore::alloc(pool, Order::ZERO).unwrap().publish();
    timed(move |nr| {
        for _ in 0..nr {
            let clone = black_box(&folio).try_clone().unwrap();
            black_box(&clone);
        }
    })
}

fn speculative_gets(order: u8) -> Side<'static> {
    let pool = <Pool as Frames>::new(NR_PAGES);
    let folio = PgmapCore::alloc(pool, self::order(order)).unwrap().publish();
    // A page with as many heads in front of it as can be.
    let pfn = folio.range().last();
    std::mem::forget(folio);
    timed(move |nr| {
        for _ in 0..nr {
            let folio = pool.try_get(black_box(pfn)).unwrap();
            black_box(&folio);
        }
    })
}

/// One pin, one unpin: for as many pages of the folio as one likes.
fn pins() -> Side<'static> {
    let pool = <Pool as Frames>::new(NR_PAGES);
    let folio = PgmapCore::alloc(pool, Order::BLOCK).unwrap().publish();
    timed(move |nr| {
        for _ in 0..nr {
            let pin = black_box(&folio).pin(PinKind::Short).unwrap();
            black_box(&pin);
        }
    })
}

/// 512 leaves counted. They are uncounted by the thousand, which is not timed.
fn maps() -> Side<'static> {
    const BATCH: u64 = 1 << 13;
    let pool = <Pool as Frames>::new(NR_PAGES);
    let folio = PgmapCore::alloc(pool, Order::BLOCK).unwrap().publish();
    Box::new(move |nr| {
        let mut nanos = 0;
        for _ in 0..nr.div_ceil(BATCH) {
            let begin = Instant::now();
            for _ in 0..BATCH {
                let _ = black_box(black_box(&folio).map(512).unwrap().into_raw());
            }
            nanos += begin.elapsed().as_nanos();
            // SAFETY: These are the counts that were just made raw.
            unsafe { pool.unmap_raw(folio.head(), 512 * BATCH as u32) }.unwrap();
        }
        nanos as f64 * nr as f64 / (nr.div_ceil(BATCH) * BATCH) as f64
    })
}

/// 512 words written: what a page table costs in any case.
fn stores() -> Side<'static> {
    let mut words = vec![0_u64; 512];
    timed(move |nr| {
        for turn in 0..nr {
            for word in &mut words {
                // SAFETY: A reference is a valid place. Volatile, so that no store is left out.
                unsafe { std::ptr::write_volatile(word, turn) };
            }
        }
    })
}

/// How many folios are split before they are given back.
const SPLITS: usize = 32;

/// Nanoseconds of a uniform split of 2 MiB into pages, and of writing its words, by round.
fn splits(rounds: usize) -> (Vec<f64>, Vec<f64>) {
    let pool = <Pool as Frames>::new(NR_PAGES);
    let mut words = vec![0_u64; 512 * SPLITS];
    let (mut ours, mut other) = (Vec::new(), Vec::new());
    for round in 0..8 * rounds {
        let folios: Vec<_> =
            (0..SPLITS).map(|_| PgmapCore::alloc(pool, Order::BLOCK).unwrap()).collect();
        let begin = Instant::now();
        let pieces: Vec<_> = folios.into_iter().map(|it| it.split(Order::ZERO).ok()).collect();
        ours.push(begin.elapsed().as_nanos() as f64 / SPLITS as f64);
        drop(pieces);
        let begin = Instant::now();
        for word in &mut words {
            // SAFETY: A reference is a valid place. Volatile, so that no store is left out.
            unsafe { std::ptr::write_volatile(word, round as u64) };
        }
        other.push(begin.elapsed().as_nanos() as f64 / SPLITS as f64);
    }
    (ours.split_off(rounds), other.split_off(rounds))
}

/// Nanoseconds of splitting 1 GiB around one page, by round.
fn splits_around(rounds: usize) -> Vec<f64> {
    let pool = <Pool as Frames>::new(NR_PAGES);
    let mut rng = Rng::new(11);
    let mut times = Vec::new();
    for _ in 0..100 * rounds {
        let folio = PgmapCore::alloc(pool, Order::REGION).unwrap();
        let pfn = Pfn::new(folio.head().as_u64() + rng.below(1 << 18) as u64);
        let begin = Instant::now();
        let pieces = folio.split_around(pfn, Order::ZERO).ok();
        times.push(begin.elapsed().as_nanos() as f64);
        drop(pieces);
    }
    times.split_off(10 * rounds)
}

fn terabyte() -> PfnRange {
    PfnRange::new(Pfn::new(0), 1 << 28).unwrap()
}

/// Microseconds of attaching 1 TiB over metadata that was written once and zeroed.
fn attach() -> f64 {
    let tables = Tables::Budget(0);
    let size = MetaSize::of(terabyte(), tables);
    let mut times = Vec::new();
    for _ in 0..9 {
        let mut meta = HeapMeta::zeroed(size.lines()).unwrap();
        let lines = meta.lines_mut();
        // SAFETY: The lines are plain memory of this length, and zeroes are lines.
        unsafe { lines.as_mut_ptr().write_bytes(0xff, lines.len()) };
        black_box(&mut *lines);
        // SAFETY: As above.
        unsafe { lines.as_mut_ptr().write_bytes(0, lines.len()) };
        let slots = [ExtentSlot::new()];
        let pgmap = Pgmap::new(Owner, Policy::generic(), &slots);
        let begin = Instant::now();
        pgmap.add_extent(terabyte(), ExtentAttrs::NEW, tables, lines, Attach::Zeroed).unwrap();
        times.push(begin.elapsed().as_nanos() as f64 / 1000.0);
    }
    median(times)
}

/// One page out of a range whose first `nr` pages are taken.
fn page_behind(nr: u64) -> Side<'static> {
    let pool = <Pool as Frames>::new(NR_PAGES);
    for _ in 0..nr {
        std::mem::forget(Frames::alloc(pool, 0));
    }
    let request = Request::order(Order::ZERO);
    let request = request.within(PfnRange::new(Pfn::new(0), nr + 64).unwrap());
    timed(move |nr| {
        for _ in 0..nr {
            black_box(pool.alloc_with(request).unwrap()).release();
        }
    })
}

/// Microseconds of a contiguous run of 2 GiB out of 4, after frees that were clean and dirty by
/// turns.
fn contiguous(rounds: usize) -> f64 {
    let pool = <Pool as Frames>::new(1 << 20);
    let mut descs = vec![FolioDesc::EMPTY; 64];
    let mut times = Vec::new();
    for _ in 0..rounds {
        let folios: Vec<_> = std::iter::from_fn(|| Frames::alloc(pool, 0)).collect();
        for (at, folio) in folios.into_iter().enumerate() {
            if at % 2 == 0 { folio.release_clean() } else { folio.release() }
        }
        let begin = Instant::now();
        let run = pool.alloc_run(1 << 19, Request::order(Order::ZERO), &mut descs).unwrap();
        times.push(begin.elapsed().as_nanos() as f64 / 1000.0);
        drop(run);
    }
    median(times)
}

/// Starts and stops VMs of cloud sizes on a pool of exactly their peak; returns how many of them
/// did not get their memory.
fn vm_failures() -> f64 {
    /// 256 MiB, what every VM is a multiple of.
    const UNIT: u64 = 1 << 16;
    /// Sizes in units, by how common they are.
    const SIZES: [u64; 12] = [3, 7, 7, 14, 14, 14, 28, 28, 32, 56, 112, 224];
    let mut rng = Rng::new(17);
    // When what number of units starts, and when it stops: first on paper.
    let vms: Vec<_> = (0..4000)
        .map(|start| {
            let life = 1 + (rng.below(300) * rng.below(300)) / 300;
            (SIZES[rng.below(SIZES.len())], start, start + life)
        })
        .collect();
    let used = |now| -> u64 {
        let running = vms.iter().filter(|(_, start, stop)| (*start..*stop).contains(&now));
        running.map(|(units, ..)| units).sum()
    };
    let peak = (0..vms.len()).map(used).max().unwrap();

    let pool = <Pool as Frames>::new(peak * UNIT);
    let mut running = Vec::new();
    let mut nr_failures = 0;
    for &(units, now, stop) in &vms {
        running.retain(|(stop, _)| now < *stop);
        let least = order(16);
        let len = SetRequest::len_max(units * UNIT, least);
        let descs = Vec::leak(vec![FolioDesc::EMPTY; len]);
        match pool.alloc_set(SetRequest::pages(units * UNIT).least(least), descs) {
            Ok(set) => running.push((stop, set.publish())),
            Err(_) => nr_failures += 1,
        }
    }
    f64::from(nr_failures)
}

pub(crate) fn run(table: &mut Table, rounds: usize) {
    for (name, order, goal) in [
        ("life_o0_vs_summarybuddy", 0, 0.90),
        ("life_o9_vs_summarybuddy", 9, 1.20),
        ("life_o18_vs_summarybuddy", 18, 1.10),
    ] {
        table.measure(name, Goal::AtMost(goal), SummaryBuddy::NAME, || {
            pair(lives(order), pairs::<SummaryBuddy>(order), rounds)
        });
    }
    let arc = "Arc";
    table.measure("getput_vs_arc", Goal::AtMost(1.15), arc, || pair(clones(), arcs(), rounds));
    for (name, order, goal) in [("tryget_o0_vs_arc", 0, 1.6), ("tryget_o18_vs_arc", 18, 2.2)] {
        table.measure(name, Goal::AtMost(goal), arc, || {
            pair(speculative_gets(order), arcs(), rounds)
        });
    }
    table.measure("pinrun_vs_arc", Goal::AtMost(1.6), arc, || pair(pins(), arcs(), rounds));
    table.measure("maprun_vs_store", Goal::AtMost(0.10), "512 stores", || {
        pair(maps(), stores(), rounds)
    });
    table.value("split9to0_vs_store", Goal::AtMost(1.5), || {
        let (ours, other) = splits(rounds);
        median(ours) / median(other)
    });
    table.value("split18at_vs_getput", Goal::AtMost(60.0), || {
        median(splits_around(rounds)) / alone(clones(), rounds)
    });
    table.value("attach_1tib_us", Goal::AtMost(50.0), attach);
    let mib = |tables| MetaSize::of(terabyte(), tables).bytes() as f64 / f64::from(1 << 20);
    table.value("meta_1tib_mib", Goal::AtMost(8.0), || mib(Tables::Budget(0)));
    table.value("meta_1tib_full_mib", Goal::AtMost(2150.0), || mib(Tables::Dense));
    table.measure("range_256k_vs_1k", Goal::AtMost(1.5), "1k in the way", || {
        pair(page_behind(256 << 10), page_behind(1 << 10), rounds)
    });
    table.value("contig_2gib_us", Goal::AtMost(10.0), || contiguous(rounds));
    table.value("vmtrace_failures", Goal::AtMost(0.0), vm_failures);
}
