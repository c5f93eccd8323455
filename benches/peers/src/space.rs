//! Bare free space: pairs, fills, churn, claims, and what is left of large runs.

use std::hint::black_box;
use std::time::Instant;

use devfolio::{Bare, Order};

use crate::frames::{Bitmap, Bsa, BuddySlab, Depot, Frames, Offset, SummaryBuddy, set_cpu};
use crate::ours::Pool;
use crate::table::{Goal, Table};
use crate::timing::{Pair, Side, alone, median, on_two, pair, timed};

/// 16 GiB.
pub(crate) const NR_PAGES: u64 = 1 << 22;

/// A generator that is the same everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.next()) * limit as u128) >> 64) as usize
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// Takes a frame and gives it back; another one is held, so that nothing has to be broken up and
/// put together again each time.
pub(crate) fn pairs<F: Frames>(order: u8) -> Side<'static> {
    let pool = F::new(NR_PAGES);
    std::mem::forget(pool.alloc(order));
    timed(move |nr| {
        for _ in 0..nr {
            let frame = pool.alloc(order).unwrap();
            black_box(&frame);
            pool.free(frame, order);
        }
    })
}

/// Takes a page out of a magazine and puts it back.
fn magazine_pairs() -> Side<'static> {
    let pool = <Pool as Frames>::new(NR_PAGES);
    let mut magazine = pool.magazine(Order::ZERO);
    magazine.alloc().unwrap().release();
    timed(move |nr| {
        for _ in 0..nr {
            let folio = magazine.alloc().unwrap();
            black_box(&folio);
            magazine.release(folio);
        }
    })
}

fn pairs_on_two<F: Frames>(order: u8) -> Side<'static> {
    let pool = F::new(NR_PAGES);
    for cpu in [1, 0] {
        set_cpu(cpu);
        std::mem::forget(pool.alloc(order));
    }
    Box::new(move |nr| {
        on_two(nr, &|thread, nr| {
            set_cpu(thread);
            for _ in 0..nr {
                let frame = pool.alloc(order).unwrap();
                black_box(&frame);
                pool.free(frame, order);
            }
        })
    })
}

/// Two threads; each gives back what the other took, through a ring of slots.
fn cross_free<F: Frames>() -> Side<'static> {
    const BATCH: usize = 64;
    let pool = F::new(NR_PAGES);
    Box::new(move |nr| {
        let boxes = [spin::Mutex::new(Vec::new()), spin::Mutex::new(Vec::new())];
        let nanos = on_two(nr.div_ceil(BATCH as u64), &|thread, nr| {
            set_cpu(thread);
            for _ in 0..nr {
                let batch: Vec<_> = (0..BATCH).map(|_| pool.alloc(0).unwrap()).collect();
                boxes[1 - thread].lock().push(batch);
                let batch = boxes[thread].lock().pop();
                for frame in batch.into_iter().flatten() {
                    pool.free(frame, 0);
                }
            }
        });
        for frame in boxes.into_iter().flat_map(|batches| batches.into_inner()).flatten() {
            pool.free(frame, 0);
        }
        nanos
    })
}

/// Takes all there is, and gives back what is not to stay, at random; returns what stays, and
/// the first pages of what does not.
fn occupy<F: Frames>(
    pool: &'static F,
    rng: &mut Rng,
    order: u8,
    percent: u64,
) -> (Vec<F::Frame>, Vec<u32>) {
    let mut frames: Vec<_> = std::iter::from_fn(|| pool.alloc(order)).collect();
    rng.shuffle(&mut frames);
    let mut gone = Vec::new();
    for frame in frames.drain(frames.len() * percent as usize / 100..) {
        gone.push(F::page(&frame) as u32);
        pool.free(frame, order);
    }
    (frames, gone)
}

/// Takes pages until none is left; what comes after is not timed.
fn fill<F: Frames>(rounds: usize) -> Vec<f64> {
    let pool = F::new(NR_PAGES);
    let mut frames = Vec::with_capacity(NR_PAGES as usize);
    let mut times = Vec::new();
    for _ in 0..=rounds {
        let begin = Instant::now();
        while let Some(frame) = pool.alloc(0) {
            frames.push(frame);
        }
        times.push(begin.elapsed().as_nanos() as f64 / frames.len() as f64);
        for frame in frames.drain(..) {
            pool.free(frame, 0);
        }
    }
    times.remove(0);
    times
}

/// As [`fill`], a page at a time out of a magazine.
fn fill_by_magazine(rounds: usize) -> Vec<f64> {
    let pool = <Pool as Frames>::new(NR_PAGES);
    let mut magazine = pool.magazine(Order::ZERO);
    let mut folios = Vec::with_capacity(NR_PAGES as usize);
    let mut times = Vec::new();
    for _ in 0..=rounds {
        let begin = Instant::now();
        while let Ok(folio) = magazine.alloc() {
            folios.push(folio.into_raw());
        }
        times.push(begin.elapsed().as_nanos() as f64 / folios.len() as f64);
        for raw in folios.drain(..) {
            // SAFETY: It is a folio that was just made raw.
            unsafe { pool.unique_from_raw(raw) }.unwrap().release();
        }
    }
    times.remove(0);
    times
}

/// Gives all pages back in random order; how they were taken is not timed.
fn free_random<F: Frames>(rounds: usize) -> Vec<f64> {
    let pool = F::new(NR_PAGES);
    let mut rng = Rng::new(7);
    let mut frames = Vec::with_capacity(NR_PAGES as usize);
    let mut times = Vec::new();
    for _ in 0..=rounds {
        while let Some(frame) = pool.alloc(0) {
            frames.push(frame);
        }
        rng.shuffle(&mut frames);
        let begin = Instant::now();
        let nr = frames.len();
        for frame in frames.drain(..) {
            pool.free(frame, 0);
        }
        times.push(begin.elapsed().as_nanos() as f64 / nr as f64);
    }
    times.remove(0);
    times
}

/// Replaces random pages by others, one after the other, at an occupancy in percent.
///
/// Which pages go is settled before the clock starts, and where the others are kept after it has
/// stopped: the list of pages, of which each look is a miss, is no allocator's business.
fn churn<F: Frames>(nr_pages: u64, percent: u64) -> Side<'static> {
    let pool = F::new(nr_pages);
    let mut rng = Rng::new(percent);
    let (mut frames, _) = occupy(pool, &mut rng, 0, percent);
    let (mut gone, mut fresh) = (Vec::new(), Vec::new());
    Box::new(move |nr| {
        // Those at the end go: as many as there are to be, in random order.
        let nr = (nr as usize).min(frames.len());
        let kept = frames.len() - nr;
        for last in (kept..frames.len()).rev() {
            frames.swap(last, rng.below(last + 1));
        }
        gone.extend(frames.drain(kept..));
        fresh.reserve(nr);
        let begin = Instant::now();
        for frame in gone.drain(..) {
            fresh.push(pool.alloc(0).unwrap());
            pool.free(frame, 0);
        }
        let nanos = begin.elapsed().as_nanos() as f64;
        frames.append(&mut fresh);
        nanos
    })
}

/// As [`churn`] at 99 %, but of a batch of replacements only the part that takes pages counts.
fn churn_taking(nr_pages: u64) -> Side<'static> {
    const BATCH: usize = 256;
    let pool = <Bare<'static> as Frames>::new(nr_pages);
    let mut rng = Rng::new(99);
    let (mut frames, _) = occupy(pool, &mut rng, 0, 99);
    let part = frames.len() / BATCH;
    Box::new(move |nr| {
        let mut nanos = 0;
        for _ in 0..nr.div_ceil(BATCH as u64) {
            let at: [_; BATCH] = std::array::from_fn(|index| index * part + rng.below(part));
            for at in at {
                Frames::free(pool, frames[at], 0);
            }
            let begin = Instant::now();
            let fresh = [(); BATCH].map(|()| Frames::alloc(pool, 0).unwrap());
            nanos += begin.elapsed().as_nanos();
            for (at, fresh) in at.into_iter().zip(fresh) {
                frames[at] = fresh;
            }
        }
        nanos as f64
    })
}

/// Claims free pages of a pool that is half full, at random, and gives them back.
fn claim<F: Frames>(order: u8) -> Side<'static> {
    const BATCH: usize = 32;
    let pool = F::new(NR_PAGES);
    let mut rng = Rng::new(3);
    let (held, free) = occupy(pool, &mut rng, order, 50);
    std::mem::forget(held);
    timed(move |nr| {
        for _ in 0..nr.div_ceil(BATCH as u64) {
            // Looked up several at a time, as in `churn`.
            let pages: [_; BATCH] = std::array::from_fn(|_| free[rng.below(free.len())]);
            for page in pages {
                let frame = pool.claim(page.into(), order).unwrap();
                pool.free(frame, order);
            }
        }
    })
}

/// Returns how much free memory is in runs of 2 MiB after turnovers at half occupancy, in percent.
fn contiguity() -> f64 {
    let pool = <Pool as Frames>::new(NR_PAGES);
    let mut rng = Rng::new(5);
    let (mut frames, _) = occupy(pool, &mut rng, 0, 50);
    for _ in 0..60 {
        rng.shuffle(&mut frames);
        // A tenth of the pool, that is, of what is held a fifth.
        let nr = NR_PAGES as usize / 10;
        for frame in frames.drain(frames.len() - nr..) {
            pool.free(frame, 0);
        }
        frames.extend((0..nr).map(|_| Frames::alloc(pool, 0).unwrap()));
    }
    let stats = pool.stats();
    let large: u64 = (9..=18).map(|order| stats.free_by_order[order] << order).sum();
    100.0 * large as f64 / stats.free_pages as f64
}

pub(crate) fn run(table: &mut Table, rounds: usize) {
    for (name, order, goal) in [
        ("index_o0_vs_summarybuddy", 0, 0.60),
        ("index_o4_vs_summarybuddy", 4, 0.40),
        ("index_o9_vs_summarybuddy", 9, 0.65),
        ("index_o18_vs_summarybuddy", 18, 0.70),
    ] {
        table.measure(name, Goal::AtMost(goal), SummaryBuddy::NAME, || {
            pair(pairs::<Bare<'static>>(order), pairs::<SummaryBuddy>(order), rounds)
        });
        for (peer, side) in [
            (Pool::NAME, pairs::<Pool> as fn(u8) -> Side<'static>),
            (Bsa::NAME, pairs::<Bsa>),
            (BuddySlab::NAME, pairs::<BuddySlab>),
            (Offset::NAME, pairs::<Offset>),
        ] {
            table.aside(name, peer, || alone(side(order), rounds));
        }
    }
    table.measure("magazine_o0_vs_depot", Goal::AtMost(0.30), Depot::NAME, || {
        pair(magazine_pairs(), pairs::<Depot>(0), rounds)
    });
    table.measure("index_2thr_o0_vs_depot", Goal::AtMost(1.10), Depot::NAME, || {
        pair(pairs_on_two::<Bare<'static>>(0), pairs_on_two::<Depot>(0), rounds)
    });
    table.measure("index_2thr_o9_vs_bsa", Goal::AtMost(0.05), Bsa::NAME, || {
        pair(pairs_on_two::<Bare<'static>>(9), pairs_on_two::<Bsa>(9), rounds)
    });
    table.measure("crossfree_2thr_vs_bsa", Goal::AtMost(0.15), Bsa::NAME, || {
        pair(cross_free::<Bare<'static>>(), cross_free::<Bsa>(), rounds)
    });
    for (name, order) in [("scaling_o0", 0), ("scaling_o4", 4), ("scaling_o9", 9)] {
        table.measure(name, Goal::AtLeast(1.90), "one thread", || {
            // Two threads do twice the work in this time.
            let mut one =
                pair(pairs::<Bare<'static>>(order), pairs_on_two::<Bare<'static>>(order), rounds);
            one.ratio *= 2.0;
            one
        });
    }
    table.measure("fill_o0_vs_bitmap", Goal::AtMost(0.45), Bitmap::NAME, || {
        Pair::of(fill_by_magazine(5), fill::<Bitmap>(5))
    });
    table.aside("fill_o0_vs_bitmap", "without a magazine", || median(fill::<Bare<'static>>(5)));
    table.aside("fill_o0_vs_bitmap", Pool::NAME, || median(fill::<Pool>(5)));
    table.measure("free_random_vs_summarybuddy", Goal::AtMost(0.50), SummaryBuddy::NAME, || {
        Pair::of(free_random::<Bare<'static>>(3), free_random::<SummaryBuddy>(3))
    });
    table.aside("free_random_vs_summarybuddy", Pool::NAME, || median(free_random::<Pool>(3)));
    for (name, percent, goal) in [
        ("churn50_vs_summarybuddy", 50, 0.60),
        ("churn90_vs_summarybuddy", 90, 0.85),
        ("churn99_vs_summarybuddy", 99, 1.00),
    ] {
        table.measure(name, Goal::AtMost(goal), SummaryBuddy::NAME, || {
            let ours = churn::<Bare<'static>>(NR_PAGES, percent);
            pair(ours, churn::<SummaryBuddy>(NR_PAGES, percent), rounds)
        });
        table.aside(name, Pool::NAME, || alone(churn::<Pool>(NR_PAGES, percent), rounds));
    }
    table.measure("churn99_size_flat", Goal::AtMost(1.6), "at 16 GiB", || {
        pair(churn_taking(NR_PAGES << 4), churn_taking(NR_PAGES), rounds)
    });
    for (name, order, goal) in [("claim_o0_vs_bsa", 0, 0.10), ("claim_o9_vs_bsa", 9, 0.05)] {
        table.measure(name, Goal::AtMost(goal), Bsa::NAME, || {
            pair(claim::<Bare<'static>>(order), claim::<Bsa>(order), rounds)
        });
    }
    table.value("contiguity_back_pct", Goal::AtLeast(98.0), contiguity);
}
