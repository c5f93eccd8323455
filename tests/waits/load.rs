//! A pgmap that is killed under load, ten thousand times: each wait for its end ends.

use core::iter::repeat_with;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Barrier;
use std::thread;

use devfolio::{
    AllocError, Attach, ExtentAttrs, ExtentSlot, GetError, HookCx, Life, MetaLine, MetaSize, Order,
    Park, ParkKey, Pfn, PfnRange, Pgmap, PgmapOps, PinKind, Policy, Tables, UniqueFolio,
};

use crate::sleepers::Sleepers;

const ROUNDS: u64 = 10_000;
const NR_PAGES: u64 = 4;

/// Counts the ends that are said.
#[derive(Default)]
struct Ends {
    sleepers: Sleepers,
    nr_ends: AtomicU64,
}

impl Park for Ends {
    fn token(&self, key: ParkKey) -> u64 {
        self.sleepers.token(key)
    }

    fn park(&self, key: ParkKey, token: u64) {
        self.sleepers.park(key, token);
    }

    fn unpark_all(&self, key: ParkKey) {
        if key == ParkKey::Removal {
            self.nr_ends.fetch_add(1, Ordering::Relaxed);
        }
        self.sleepers.unpark_all(key);
    }
}

#[derive(Default)]
struct Owner {
    ends: Ends,
    nr_live: AtomicU64,
}

impl PgmapOps for Owner {
    type Private = ();

    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, _: &mut HookCx<'a, Self>) {
        self.nr_live.fetch_sub(1, Ordering::Relaxed);
        folio.release();
    }

    fn park(&self) -> &dyn Park {
        &self.ends
    }
}

/// Allocates, finds, pins and drops until the pgmap refuses; returns how many folios it had.
fn work(pgmap: &Pgmap<'_, Owner>, range: PfnRange, is_over: &AtomicBool) -> u64 {
    let mut nr = 0;
    loop {
        match pgmap.alloc(Order::ZERO) {
            Ok(folio) => {
                assert!(!is_over.load(Ordering::SeqCst), "a folio behind the end");
                pgmap.ops().nr_live.fetch_add(1, Ordering::Relaxed);
                let folio = folio.publish();
                let pin = folio.pin(PinKind::Short);
                drop(folio);
                drop(pin);
                nr += 1;
                // Whoever is to kill gets a CPU, where there are few.
                thread::yield_now();
            }
            Err(AllocError::Dying) => return nr,
            Err(AllocError::Exhausted { .. } | AllocError::Contended { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        match pgmap.try_get(Pfn::new(range.start().as_u64() + nr % NR_PAGES)) {
            Ok(folio) => drop(folio),
            Err(GetError::NotLive { .. } | GetError::Dying) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn ten_thousand_pgmaps_killed_under_load_are_drained_and_their_waiters_woken() {
    let range = PfnRange::new(Pfn::new(0x40), NR_PAGES).unwrap();
    let nr_lines = MetaSize::of(range, Tables::Dense).lines();
    let mut lines: Vec<_> = repeat_with(MetaLine::default).take(nr_lines).collect();
    let mut nr_folios = 0;
    let barrier = Barrier::new(3);
    for round in 0..ROUNDS {
        lines.fill_with(MetaLine::default);
        let slots = [ExtentSlot::new()];
        let pgmap = Pgmap::new(Owner::default(), Policy::generic(), &slots);
        pgmap
            .add_extent(range, ExtentAttrs::NEW, Tables::Dense, &mut lines, Attach::Zeroed)
            .unwrap();
        let (pgmap, barrier, is_over) = (&pgmap, &barrier, AtomicBool::new(false));
        let is_over = &is_over;
        thread::scope(|scope| {
            let workers = [0, 1].map(|_| {
                scope.spawn(move || {
                    barrier.wait();
                    work(pgmap, range, is_over)
                })
            });
            barrier.wait();
            // Now and then something is in use for certain.
            let held = (round % 2 == 0).then(|| pgmap.alloc(Order::ZERO));
            pgmap.kill();
            drop(held);
            pgmap.wait_drained();
            assert_eq!(pgmap.state(), Life::Drained);
            assert_eq!(pgmap.ops().nr_live.load(Ordering::Relaxed), 0, "a folio is left");
            is_over.store(true, Ordering::SeqCst);
            for worker in workers {
                nr_folios += worker.join().unwrap();
            }
        });
        assert_eq!(pgmap.ops().ends.nr_ends.load(Ordering::Relaxed), 1, "ends in a round");
        pgmap.check().unwrap();
        assert_eq!(pgmap.stats().free_pages, NR_PAGES);
    }
    println!("{ROUNDS} ends, {nr_folios} folios");
}
