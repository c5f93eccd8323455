//! Virtual machines: sizes, arrivals and lifetimes of a public cloud.
//!
//! The constants describe the Azure trace of 2017 (AzurePublicDatasetV1, Cortez et al., SOSP
//! 2017, CC-BY-4.0). Only the rate of arrivals is scaled, so that the pool is almost full.

use core::cmp::Reverse;
use std::collections::BinaryHeap;

use super::super::human::{Count, PAGE_BYTES};
use super::super::rng::Rng;
use super::super::workload::{Event, Op, Workload};
use super::quantiles::Quantiles;

const QUARTER_GIB: u64 = 1 << 28;

/// Sizes in quarters of a GiB, and how many machines had them.
const SIZES: [(u64, u64); 11] = [
    (3, 6_588),
    (7, 223_557),
    (8, 89),
    (14, 82_793),
    (16, 37),
    (28, 41_841),
    (56, 40_092),
    (64, 155),
    (112, 82),
    (224, 15_018),
    (448, 18),
];

/// Arrivals in five minutes. Their mean is 250; the lowest value is chosen so that it fits.
const ARRIVALS: Quantiles = Quantiles(&[(0.0, 20.0), (0.5, 198.0), (0.99, 755.0), (1.0, 1806.0)]);

/// Lifetimes in minutes of the machines that came to an end.
const LIFETIMES: Quantiles =
    Quantiles(&[(0.0, 1.0), (0.1, 8.0), (0.5, 27.0), (0.9, 653.0), (0.99, 2659.0), (1.0, 1e4)]);

/// The share of machines that outlived the 30 days of the trace.
const STILL_ALIVE: f64 = 0.057;

/// What they live here, in minutes: about those 30 days.
const LONG_LIFETIMES: Quantiles = Quantiles(&[(0.0, 21_600.0), (1.0, 86_400.0)]);

const WINDOW_MINUTES: f64 = 5.0;
const MINUTE_MS: f64 = 60_000.0;

/// The share of the pool that the machines ask for in the long run.
const DEMAND: f64 = 0.93;

/// No machine is admitted that would fill the pool beyond this share.
const ADMISSION: f64 = 0.98;

/// Draws a history of `nr_events` events for a pool of `pool_pages` pages.
pub(crate) fn generate(seed: u64, nr_events: u64, pool_pages: u64) -> Workload {
    let pool_bytes = pool_pages.saturating_mul(PAGE_BYTES) as f64;
    let mut cloud = Cloud::new(seed, (pool_bytes * ADMISSION) as u64);
    let mean_minutes = (1.0 - STILL_ALIVE) * LIFETIMES.mean() + STILL_ALIVE * LONG_LIFETIMES.mean();
    let nr_machines = pool_bytes * DEMAND / mean_len_bytes();
    let scale = nr_machines / mean_minutes * WINDOW_MINUTES / ARRIVALS.mean();

    let nr_events = nr_events as usize;
    let mut window = 0.0;
    // Ends because a window with an arrival adds an event, if only a turned away one at times;
    // the bound is for pools too small for any machine.
    while cloud.events.len() < nr_events && cloud.nr_turned_away < 1_000_000 + nr_events as u64 {
        cloud.window(window, scale);
        window += WINDOW_MINUTES * MINUTE_MS;
    }
    cloud.events.truncate(nr_events);

    let source = format!(
        "generated virtual machines, seed {seed} ({} turned away when the pool was full)",
        Count(cloud.nr_turned_away)
    );
    Workload { source, events: cloud.events, nr_ids: cloud.nr_ids, is_shared: false }
}

/// Machines that come and go.
struct Cloud {
    rng: Rng,
    events: Vec<Event>,
    nr_ids: u32,
    nr_turned_away: u64,
    limit_bytes: u64,
    used_bytes: u64,
    /// The end of each running machine: time, number, size; the next one on top.
    ends: BinaryHeap<Reverse<(u64, u32, u64)>>,
}

impl Cloud {
    fn new(seed: u64, limit_bytes: u64) -> Self {
        Self {
            rng: Rng::new(seed, "virtual machines"),
            events: Vec::new(),
            nr_ids: 0,
            nr_turned_away: 0,
            limit_bytes,
            used_bytes: 0,
            ends: BinaryHeap::new(),
        }
    }

    /// Lives through the window that starts at `start_ms`.
    fn window(&mut self, start_ms: f64, scale: f64) {
        let nr_arrivals = ARRIVALS.draw(&mut self.rng) * scale;
        // A fraction of a machine arrives with that probability; windows without any are rare
        // enough not to matter, and at least one in many has some.
        let nr_arrivals = (nr_arrivals + self.rng.unit()).max(f64::from(u8::from(scale < 1e-3)));
        let length_ms = WINDOW_MINUTES * MINUTE_MS;
        let mut times: Vec<u64> = (0..nr_arrivals as u64)
            .map(|_| (start_ms + self.rng.unit() * length_ms) as u64)
            .collect();
        times.sort_unstable();
        for time_ms in times {
            self.end_until(time_ms);
            self.arrive(time_ms);
        }
    }

    fn arrive(&mut self, time_ms: u64) {
        let len_bytes = draw_size(&mut self.rng) * QUARTER_GIB;
        let is_long = self.rng.chance(STILL_ALIVE);
        let lifetimes = if is_long { LONG_LIFETIMES } else { LIFETIMES };
        let lifetime_ms = (lifetimes.draw(&mut self.rng) * MINUTE_MS) as u64;
        if self.limit_bytes < self.used_bytes.saturating_add(len_bytes) {
            self.nr_turned_away += 1;
            return;
        }
        let id = self.nr_ids;
        self.nr_ids += 1;
        self.used_bytes += len_bytes;
        self.events.push(Event { time_ms, id, op: Op::Alloc { len_bytes } });
        self.ends.push(Reverse((time_ms + lifetime_ms, id, len_bytes)));
    }

    fn end_until(&mut self, now_ms: u64) {
        while let Some(&Reverse((time_ms, id, len_bytes))) = self.ends.peek() {
            if now_ms < time_ms {
                return;
            }
            self.ends.pop();
            self.used_bytes -= len_bytes;
            self.events.push(Event { time_ms, id, op: Op::Free });
        }
    }
}

/// Draws a size in quarters of a GiB.
fn draw_size(rng: &mut Rng) -> u64 {
    let mut at = rng.below(SIZES.iter().map(|&(_, weight)| weight).sum());
    for (quarters, weight) in SIZES {
        if at < weight {
            return quarters;
        }
        at -= weight;
    }
    SIZES.map(|(quarters, _)| quarters).into_iter().max().unwrap_or(1)
}

fn mean_len_bytes() -> f64 {
    let weights: u64 = SIZES.iter().map(|&(_, weight)| weight).sum();
    let quarters: u64 = SIZES.iter().map(|&(quarters, weight)| quarters * weight).sum();
    quarters as f64 * QUARTER_GIB as f64 / weights as f64
}

#[cfg(test)]
mod tests {
    use super::super::super::workload::Holders;
    use super::*;

    const POOL_PAGES: u64 = (8 << 40) / PAGE_BYTES;

    #[test]
    fn a_seed_fixes_the_history_and_every_step_is_valid() {
        let workload = generate(1, 20_000, POOL_PAGES);
        assert_eq!(workload.events, generate(1, 20_000, POOL_PAGES).events);
        assert_ne!(workload.events, generate(2, 20_000, POOL_PAGES).events);
        assert_eq!(workload.events.len(), 20_000);
        let mut holders = vec![Holders::default(); workload.nr_ids as usize];
        for event in &workload.events {
            holders[event.id as usize].step(event.op).unwrap();
        }
        assert!(workload.events.is_sorted_by_key(|event| event.time_ms));
    }

    #[test]
    fn the_pool_gets_full_and_not_fuller() {
        let (mut used, mut peak) = (0, 0);
        let mut sizes = std::collections::HashMap::new();
        for event in generate(3, 200_000, POOL_PAGES).events {
            match event.op {
                Op::Alloc { len_bytes } => {
                    used += len_bytes;
                    sizes.insert(event.id, len_bytes);
                }
                _ => used -= sizes[&event.id],
            }
            peak = used.max(peak);
        }
        assert!((7 << 40..8 << 40).contains(&peak), "{peak}");
    }

    #[test]
    fn a_pool_too_small_for_any_machine_ends_too() {
        assert!(generate(1, 10, 1).events.is_empty());
    }

    #[test]
    fn sizes_have_the_mean_of_the_trace() {
        let mut rng = Rng::new(1, "test");
        let sum: u64 = (0..100_000).map(|_| draw_size(&mut rng)).sum();
        let mean = sum as f64 / 1e5 * QUARTER_GIB as f64;
        assert!((mean / mean_len_bytes() - 1.0).abs() < 0.02);
    }
}
