//! The replay: events one by one, comparisons on the way, and the picture of the fullest moment.

use core::time::Duration;
use std::time::Instant;

use devfolio::{FolioInfo, Stats};

use super::exercise::Exercise;
use super::ledger::Depth;
use super::plan::Plan;
use super::progress::{Progress, Style};
use super::rng::Rng;
use super::tally::{ByOrder, Shares};
use super::workload::Workload;
use super::world::World;

/// How a replay is to be done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) exercise: Exercise,
    pub(crate) nr_points: u64,
    pub(crate) nr_columns: usize,
    pub(crate) progress: Style,
    pub(crate) seed: u64,
}

/// What a replay found out on the way.
#[derive(Debug)]
pub(crate) struct Journey {
    /// The time that the events took, without comparisons and pictures.
    pub(crate) elapsed: Duration,
    /// Comparisons with the ledger that were made, and the folios that they looked at.
    pub(crate) nr_points: u64,
    pub(crate) nr_compared: u64,
    /// The first comparison that failed.
    pub(crate) difference: Option<String>,
    /// The pool when it was fullest.
    pub(crate) peak: Option<Snapshot>,
}

/// The pool at one moment.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) stats: Stats,
    pub(crate) shares: Shares,
    pub(crate) map: String,
    /// With the number of the request that has it.
    pub(crate) folios: Vec<(FolioInfo, u32)>,
}

impl Snapshot {
    fn take(world: &World<'_, '_>, nr_columns: usize) -> Self {
        let pgmap = world.pgmap;
        let owners = world.ledger.owners();
        let mut folios = Vec::with_capacity(owners.len());
        let mut by_order = ByOrder::default();
        pgmap.for_each_folio(|folio| {
            by_order.add(folio.order, 1);
            folios.push((folio, owners.get(&folio.head).copied().unwrap_or(0)));
        });
        Self {
            stats: pgmap.stats(),
            shares: by_order.shares(),
            map: pgmap.draw(u32::try_from(nr_columns).unwrap_or(64), 32).to_string(),
            folios,
        }
    }
}

/// Shows progress this often; a power of two.
const PROGRESS_STEP: usize = 1 << 10;

/// Replays all of `workload` in `world`.
pub(crate) fn replay(
    world: &mut World<'_, '_>,
    workload: &Workload,
    plan: &Plan,
    settings: Settings,
) -> Journey {
    let nr_events = workload.events.len();
    let mut points = Points::new(nr_events, settings.nr_points);
    let mut progress = Progress::new(settings.progress, "replaying", nr_events as u64);
    let mut rng = Rng::new(settings.seed, "comparisons");
    let mut watch = Watch::start();
    let mut journey = Journey {
        elapsed: Duration::ZERO,
        nr_points: 0,
        nr_compared: 0,
        difference: None,
        peak: None,
    };
    for (index, &event) in workload.events.iter().enumerate() {
        world.apply(event);
        world.exercise(settings.exercise);

        let is_point = points.next_is(index);
        if !is_point && index != plan.peak_at && index % PROGRESS_STEP != 0 {
            continue;
        }
        watch.pause();
        if is_point && journey.difference.is_none() {
            journey.nr_points += 1;
            journey.nr_compared += world.ledger.nr_folios();
            journey.difference = compare(world, journey.nr_points, &mut rng).err();
        }
        if index == plan.peak_at {
            journey.peak = Some(Snapshot::take(world, settings.nr_columns));
        }
        progress.show(index as u64);
        watch.resume();
    }
    watch.pause();
    progress.show(nr_events as u64);
    journey.elapsed = watch.elapsed;
    journey
}

/// A comparison in full asks for much more of the metadata than fits into a cache.
const FULL_EVERY: u64 = 8;

/// Compares every folio with the ledger, and now and then all that can be compared.
fn compare(world: &World<'_, '_>, point: u64, rng: &mut Rng) -> Result<(), String> {
    let is_full = point % FULL_EVERY == 0;
    let depth = if is_full { Depth::Tails } else { Depth::Heads };
    world.ledger.compare(world.pgmap, depth, rng)?;
    if is_full {
        world.ledger.compare_total(world.pgmap)?;
    }
    Ok(())
}

/// Event numbers that are evenly spaced and end with the last one.
#[derive(Debug)]
struct Points {
    nr_events: u128,
    nr_points: u128,
    nr_done: u128,
}

impl Points {
    fn new(nr_events: usize, nr_points: u64) -> Self {
        let nr_events = nr_events as u128;
        Self { nr_events, nr_points: u128::from(nr_points).min(nr_events), nr_done: 0 }
    }

    /// Whether a point comes right after the event `index`; asked in ascending order.
    fn next_is(&mut self, index: usize) -> bool {
        if self.nr_done == self.nr_points {
            return false;
        }
        let at = (self.nr_done + 1) * self.nr_events / self.nr_points;
        let is_next = at <= index as u128 + 1;
        self.nr_done += u128::from(is_next);
        is_next
    }
}

/// A clock that can be stopped.
#[derive(Debug)]
struct Watch {
    elapsed: Duration,
    since: Instant,
}

impl Watch {
    fn start() -> Self {
        Self { elapsed: Duration::ZERO, since: Instant::now() }
    }

    fn pause(&mut self) {
        self.elapsed += self.since.elapsed();
    }

    fn resume(&mut self) {
        self.since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(nr_events: usize, nr_points: u64) -> Vec<usize> {
        let mut points = Points::new(nr_events, nr_points);
        (0..nr_events).filter(|&index| points.next_is(index)).collect()
    }

    #[test]
    fn points_are_even_and_end_with_the_end() {
        assert_eq!(points(10, 5), [1, 3, 5, 7, 9]);
        assert_eq!(points(10, 3), [2, 5, 9]);
        assert_eq!(points(3, 10), [0, 1, 2]);
        assert!(points(3, 0).is_empty());
        assert_eq!(points(31_531, 1000).len(), 1000);
    }
}
