//! Threads that share a pgmap: every page has one owner, and everything comes back whole.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may panic"
)]

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::vec::Vec;

use devfolio::{
    AllocError, Attach, ExtentAttrs, ExtentSlot, HookCx, MetaLine, MetaSize, Order, Pfn, PfnRange,
    Pgmap, PgmapOps, Policy, Tables, UniqueFolio,
};

use noise::Noise;

mod noise;

/// Marks each page while a handle owns it.
struct Owner {
    held: Vec<AtomicU8>,
    nr_freed: AtomicU64,
}

impl Owner {
    fn set(&self, range: PfnRange, from: u8, to: u8) {
        let start = usize::try_from(range.start().as_u64()).unwrap();
        for page in &self.held[start..][..usize::try_from(range.nr_pages()).unwrap()] {
            let was = page.swap(to, Ordering::Relaxed);
            assert_eq!(was, from, "a page of {range} has two owners");
        }
    }
}

impl PgmapOps for Owner {
    type Private = ();

    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, _cx: &mut HookCx<'a, Self>) {
        self.set(folio.range(), 1, 0);
        self.nr_freed.fetch_add(1, Ordering::Relaxed);
        folio.release();
    }

    fn cpu_hint(&self) -> usize {
        std::thread_local!(static ID: u8 = const { 0 });
        ID.with(|id| core::ptr::from_ref(id) as usize >> 7)
    }
}

/// Allocates, shares, claims and drops at random; returns what was allocated.
fn work(pgmap: &Pgmap<'_, Owner>, range: PfnRange, seed: u64, orders: &[u8], turns: u32) -> u64 {
    let mut noise = Noise(seed);
    let mut held = Vec::new();
    let mut nr = 0;
    for _ in 0..turns {
        let order = Order::new(orders[usize::try_from(noise.below(orders.len() as u64)).unwrap()]);
        let order = order.unwrap();
        match noise.below(8) {
            0..=2 => match pgmap.alloc(order) {
                Ok(folio) => {
                    pgmap.ops().set(folio.range(), 0, 1);
                    held.push(folio.publish());
                    nr += 1;
                }
                Err(AllocError::Exhausted { .. } | AllocError::Contended { .. }) => {}
                Err(error) => panic!("{error}"),
            },
            3 => {
                let pfn = Pfn::new(range.start().as_u64() + noise.below(range.nr_pages()));
                if let Ok(folio) = pgmap.claim(pfn.head(order), order) {
                    pgmap.ops().set(folio.range(), 0, 1);
                    held.push(folio.publish());
                    nr += 1;
                }
            }
            4 => {
                let pfn = Pfn::new(range.start().as_u64() + noise.below(range.nr_pages()));
                if let Ok(folio) = pgmap.try_get(pfn) {
                    assert!(folio.range().contains(pfn), "a folio that does not cover {pfn}");
                }
            }
            _ if held.is_empty() => {}
            _ => drop(held.swap_remove(usize::try_from(noise.below(held.len() as u64)).unwrap())),
        }
    }
    nr
}

fn run(range: PfnRange, orders: &[u8], turns: u32) {
    let turns = if cfg!(miri) { turns / 500 } else { turns };
    let size = MetaSize::of(range, Tables::Dense).lines();
    let mut lines: Vec<_> = (0..size).map(|_| MetaLine::default()).collect();
    let slots = [ExtentSlot::new()];
    let end = usize::try_from(range.last().as_u64()).unwrap() + 1;
    let held = (0..end).map(|_| AtomicU8::new(0)).collect();
    let owner = Owner { held, nr_freed: AtomicU64::new(0) };
    let pgmap = Pgmap::new(owner, Policy::generic(), &slots);
    pgmap.add_extent(range, ExtentAttrs::NEW, Tables::Dense, &mut lines, Attach::Zeroed).unwrap();
    let whole = pgmap.stats();
    let seeds = [1_u64, 2, 3];
    let nr: u64 = std::thread::scope(|scope| {
        let pgmap = &pgmap;
        let threads =
            seeds.map(|seed| scope.spawn(move || work(pgmap, range, seed, orders, turns)));
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(pgmap.ops().nr_freed.load(Ordering::Relaxed), nr, "the hook runs once a folio");
    pgmap.check().unwrap();
    let after = pgmap.stats();
    assert_eq!(after.free_by_order, whole.free_by_order, "everything freed is everything merged");
}

#[test]
fn single_pages_are_owned_once() {
    run(PfnRange::new(Pfn::new(0), 3 * 512).unwrap(), &[0, 0, 1, 3], 150_000);
}

#[test]
fn runs_of_several_words_are_owned_once() {
    run(PfnRange::new(Pfn::new(512), 4 * 512).unwrap(), &[0, 6, 7, 8, 9], 150_000);
}

#[test]
fn blocks_and_regions_are_owned_once() {
    run(PfnRange::new(Pfn::new(0), 1 << 19).unwrap(), &[0, 8, 9, 15, 16, 17], 300);
}

#[test]
fn odd_ends_come_back_whole() {
    run(PfnRange::new(Pfn::new(77), 2_500).unwrap(), &[0, 2, 5, 7, 8, 9], 100_000);
}
