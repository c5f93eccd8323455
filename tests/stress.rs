//! Two threads over one pool that is 99 % full and over one set of shared folios, stopped again
//! and again for a look at everything.
//!
//! At each stop the ledgers of the threads say what every page and every count has to be, and an
//! allocation of each order succeeds exactly if the ledgers leave an aligned run of it free.
//! `DEVFOLIO_SECONDS=600 DEVFOLIO_SEED=3` makes a campaign of it (`.ci/stress`).
#![cfg(not(miri))]
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may panic"
)]

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::{Barrier, Mutex};
use std::time::Instant;
use std::vec::Vec;

use devfolio::{
    AllocError, Attach, ExtentAttrs, ExtentSlot, Folio, FolioPin, HookCx, MetaLine, MetaSize,
    Order, Pfn, PfnRange, Pgmap, PgmapCore, PgmapOps, PinKind, Policy, Tables, UniqueFolio,
};

use noise::Noise;

mod noise;

const NR_BLOCKS: u64 = 16;
const NR_PAGES: u64 = NR_BLOCKS * 512;
/// The first page of the pool; the blocks are whole, but no larger order is aligned to it.
const FIRST: u64 = 3 * 512;
const ORDER_MAX: u8 = 13;
/// 99 % of the pool.
const HELD_MAX: u64 = NR_PAGES - NR_PAGES / 100;
const NR_SHARED: usize = 24;
/// Counts on shared folios that a thread keeps over a stop.
const COUNTS_MAX: usize = 64;
/// How many stops an ordinary run makes.
const NR_POINTS: u64 = 400;
const OPS_PER_POINT: u64 = 400;

/// What lies in the first page of each folio: plain memory, which only the order of the crate's
/// atomics keeps from being a data race. Under a thread sanitizer that order is looked at.
struct Content(UnsafeCell<u64>);

// SAFETY: It is written by who has the folio alone, and read by who holds a count.
unsafe impl Sync for Content {}

struct Owner(Vec<Content>);

impl Owner {
    fn content(&self, head: Pfn) -> *mut u64 {
        self.0[usize::try_from(head.as_u64() - FIRST).unwrap()].0.get()
    }

    /// Writes into a folio.
    fn fill(&self, folio: &UniqueFolio<'_, Self>, value: u64) {
        // SAFETY: The folio is held alone.
        unsafe { self.content(folio.head()).write(value) };
    }

    /// Looks into a folio.
    fn check(&self, folio: &Folio<'_, Self>) {
        // SAFETY: The folio is counted, so nobody has it alone.
        let value = unsafe { self.content(folio.head()).read() };
        assert_eq!(value, folio.nr_pages(), "a folio has another one's content");
    }
}

impl PgmapOps for Owner {
    type Private = ();

    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, _cx: &mut HookCx<'a, Self>) {
        self.fill(&folio, 0);
        folio.release();
    }

    fn cpu_hint(&self) -> usize {
        std::thread_local!(static ID: u8 = const { 0 });
        ID.with(|id| core::ptr::from_ref(id) as usize >> 7)
    }
}

impl Noise {
    fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap()
    }
}

/// What both threads see.
struct World<'s, 'a> {
    pgmap: &'a PgmapCore<Owner>,
    shared: &'s [Folio<'a, Owner>],
    /// Pages that are held, or about to be.
    nr_held: AtomicU64,
    nr_ops: AtomicU64,
    nr_unmet: AtomicU64,
}

/// One thread's ledger.
struct Hands<'a> {
    noise: Noise,
    own: Vec<Folio<'a, Owner>>,
    refs: Vec<Folio<'a, Owner>>,
    pins: Vec<FolioPin<'a, Owner>>,
}

impl<'a> Hands<'a> {
    fn drop_own(&mut self, world: &World<'_, 'a>) {
        let folio = self.own.swap_remove(self.noise.index(self.own.len()));
        let nr_pages = folio.nr_pages();
        drop(folio);
        world.nr_held.fetch_sub(nr_pages, Ordering::Relaxed);
    }

    /// Allocates if that leaves the pool at most 99 % full.
    fn alloc(&mut self, world: &World<'_, 'a>, order: Order) -> bool {
        let nr_pages = order.nr_pages();
        let fits = world.nr_held.fetch_add(nr_pages, Ordering::Relaxed) + nr_pages <= HELD_MAX;
        let folio = if fits { world.pgmap.alloc(order) } else { Err(AllocError::Dying) };
        match folio {
            Ok(folio) => {
                world.pgmap.ops().fill(&folio, nr_pages);
                self.own.push(folio.publish());
                return true;
            }
            Err(AllocError::Exhausted { .. } | AllocError::Contended { .. }) => {
                world.nr_unmet.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => assert!(!fits, "{error}"),
        }
        world.nr_held.fetch_sub(nr_pages, Ordering::Relaxed);
        false
    }

    fn turn(&mut self, world: &World<'_, 'a>) {
        let shared = &world.shared[self.noise.index(world.shared.len())];
        match self.noise.below(8) {
            0..=2 => {
                let order = [0, 0, 0, 1, 2, 4, 6, 7, 9][self.noise.index(9)];
                let order = Order::new(order).unwrap();
                // Makes room first; ends, since what is one's own grows less on every turn.
                while HELD_MAX < world.nr_held.load(Ordering::Relaxed) + order.nr_pages()
                    && !self.own.is_empty()
                {
                    self.drop_own(world);
                }
                self.alloc(world, order);
            }
            3 if self.refs.len() < COUNTS_MAX => {
                let pfn = shared.head().as_u64() + self.noise.below(shared.nr_pages());
                self.refs.push(world.pgmap.try_get(Pfn::new(pfn)).unwrap());
            }
            4 if self.pins.len() < COUNTS_MAX => {
                self.pins.push(shared.pin(PinKind::Short).unwrap());
            }
            5 if !self.refs.is_empty() => {
                drop(self.refs.swap_remove(self.noise.index(self.refs.len())));
            }
            6 if !self.pins.is_empty() => {
                drop(self.pins.swap_remove(self.noise.index(self.pins.len())));
            }
            _ => {
                let pfn = Pfn::new(FIRST + self.noise.below(NR_PAGES));
                if let Ok(folio) = world.pgmap.try_get(pfn) {
                    assert!(folio.range().contains(pfn), "a folio that does not cover {pfn}");
                    world.pgmap.ops().check(&folio);
                }
            }
        }
    }

    /// Works up to the next stop, at which the pool is as full as may be, but for every fourth.
    fn work(&mut self, world: &World<'_, 'a>, point: u64) {
        (0..OPS_PER_POINT).for_each(|_| self.turn(world));
        // Ends: when the pool is full.
        while point % 4 != 0 && self.alloc(world, Order::ZERO) {}
        world.nr_ops.fetch_add(OPS_PER_POINT, Ordering::Relaxed);
    }
}

/// Compares everything with the ledgers; nobody else is at work.
fn look<'a>(world: &World<'_, 'a>, hands: &[Mutex<Hands<'a>>]) {
    let hands: Vec<_> = hands.iter().map(|hands| hands.lock().unwrap()).collect();
    // Head to references and pins.
    let mut ledger: BTreeMap<Pfn, (u32, u32)> = BTreeMap::new();
    let mut is_held = vec![false; usize::try_from(NR_PAGES).unwrap()];
    for folio in world.shared.iter().chain(hands.iter().flat_map(|hands| &hands.own)) {
        let start = usize::try_from(folio.head().as_u64() - FIRST).unwrap();
        for page in &mut is_held[start..][..usize::try_from(folio.nr_pages()).unwrap()] {
            assert!(!core::mem::replace(page, true), "a page has two owners");
        }
        assert!(ledger.insert(folio.head(), (1, 0)).is_none());
    }
    for folio in hands.iter().flat_map(|hands| &hands.refs) {
        ledger.get_mut(&folio.head()).unwrap().0 += 1;
    }
    for pin in hands.iter().flat_map(|hands| &hands.pins) {
        ledger.get_mut(&pin.head()).unwrap().1 += 1;
    }
    let nr_held = is_held.iter().filter(|&&is_held| is_held).count() as u64;
    let report = world.pgmap.check().unwrap();
    assert_eq!(report.free_pages + nr_held, NR_PAGES, "a page is lost");
    assert_eq!(nr_held, world.nr_held.load(Ordering::Relaxed));
    let mut found = BTreeMap::new();
    world.pgmap.for_each_folio(|folio| {
        found.insert(folio.head, (folio.refs, folio.pins));
    });
    assert_eq!(found, ledger, "a count is lost");
    for order in (0..=ORDER_MAX).map(|order| Order::new(order).unwrap()) {
        let mut heads = (0..is_held.len()).filter(|&page| {
            Pfn::new(FIRST + page as u64).is_aligned_to(order)
                && is_held
                    .get(page..page + usize::try_from(order.nr_pages()).unwrap())
                    .is_some_and(|run| !run.contains(&true))
        });
        let expected = heads.next().is_some();
        match world.pgmap.alloc(order) {
            Ok(folio) => assert!(expected, "{folio:?} is not free"),
            Err(AllocError::Exhausted { .. }) => assert!(!expected, "a free run of {order}"),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Runs both threads until `is_over_fn` says so of a stop; returns the number of stops.
fn run(world: &World<'_, '_>, seed: u64, is_over_fn: impl Fn(u64) -> bool + Sync) -> u64 {
    let hands = [1, 2].map(|thread| {
        let noise = Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(thread));
        Mutex::new(Hands { noise, own: Vec::new(), refs: Vec::new(), pins: Vec::new() })
    });
    let (barrier, is_over, nr_points) =
        (Barrier::new(2), AtomicBool::new(false), AtomicU64::new(0));
    let thread = |index: usize| {
        let (hands, barrier) = (&hands, &barrier);
        let (is_over, nr_points, is_over_fn) = (&is_over, &nr_points, &is_over_fn);
        move || {
            // A panic of one thread must not leave the other one at the barrier.
            let _abort = AbortOnPanic;
            // Ends: when the first thread says so.
            for point in 0_u64.. {
                hands[index].lock().unwrap().work(world, point);
                barrier.wait();
                if index == 0 {
                    look(world, hands);
                    nr_points.store(point + 1, Ordering::Relaxed);
                    is_over.store(is_over_fn(point + 1), Ordering::Relaxed);
                }
                barrier.wait();
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let (first, second) = (thread(0), thread(1));
        scope.spawn(first);
        scope.spawn(second);
    });
    nr_points.into_inner()
}

struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

#[test]
fn a_full_pool_loses_no_page_no_count_and_no_run() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (seconds, seed) = (number("DEVFOLIO_SECONDS"), number("DEVFOLIO_SEED").unwrap_or(1));
    println!("seed {seed}");
    let range = PfnRange::new(Pfn::new(FIRST), NR_PAGES).unwrap();
    let lines = (0..MetaSize::of(range, Tables::Dense).lines()).map(|_| MetaLine::default());
    let mut lines: Vec<_> = lines.collect();
    let slots = [ExtentSlot::new()];
    let contents = (0..NR_PAGES).map(|_| Content(UnsafeCell::new(0)));
    let pgmap = Pgmap::new(Owner(contents.collect()), Policy::generic(), &slots);
    pgmap.add_extent(range, ExtentAttrs::NEW, Tables::Dense, &mut lines, Attach::Zeroed).unwrap();
    let whole = pgmap.stats();
    {
        let share = |order: Order| {
            let folio = pgmap.alloc(order).unwrap();
            pgmap.ops().fill(&folio, order.nr_pages());
            folio.publish()
        };
        let orders = (0..NR_SHARED).map(|index| Order::new([0, 1, 3, 5][index % 4]).unwrap());
        let shared: Vec<_> = orders.map(share).collect();
        let nr_held = AtomicU64::new(shared.iter().map(Folio::nr_pages).sum());
        let (nr_ops, nr_unmet) = (AtomicU64::new(0), AtomicU64::new(0));
        let world = World { pgmap: &pgmap, shared: &shared, nr_held, nr_ops, nr_unmet };
        let start = Instant::now();
        let nr_points = run(&world, seed, |point| match seconds {
            Some(seconds) => Duration::from_secs(seconds) <= start.elapsed(),
            None => NR_POINTS <= point,
        });
        println!(
            "seed {seed}: {nr_points} quiescent points, {} operations, {} requests unmet",
            world.nr_ops.load(Ordering::Relaxed),
            world.nr_unmet.load(Ordering::Relaxed)
        );
    }
    assert_eq!(pgmap.stats().free_by_order, whole.free_by_order, "all that is free is merged");
}
