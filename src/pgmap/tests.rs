//! Unit tests of owners and exclusive folios.

use core::pin::pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use std::sync::Arc;
use std::task::Wake;
use std::vec::Vec;

use super::*;
use crate::meta::{MetaLine, MetaSize, Tables};
use crate::sync::{Park, ParkKey};
use crate::units::{Order, Pfn, PfnRange};
use crate::zone::Request;

struct Plain;

impl PgmapOps for Plain {
    type Private = ();
}

fn lines(range: PfnRange, tables: Tables) -> Vec<MetaLine> {
    (0..MetaSize::of(range, tables).lines()).map(|_| MetaLine::ZERO).collect()
}

fn order(order: u8) -> Order {
    Order::new(order).unwrap()
}

#[test]
fn everything_released_is_whole_again() {
    let extents = [(3, 600), (0_u64, 16_u64), (0, 1 << 18), (512, 3 << 18), (7, (1 << 19) + 9)];
    // An interpreter gets the first of them, and few orders.
    let (nr_extents, step, nr_folios) =
        if cfg!(miri) { (1, 9, 20) } else { (extents.len(), 1, 3000) };
    for (start, nr) in extents.into_iter().take(nr_extents) {
        let range = PfnRange::new(Pfn::new(start), nr).unwrap();
        let mut meta = lines(range, Tables::Dense);
        let slots = [ExtentSlot::new()];
        let pgmap = Pgmap::new(Plain, Policy::generic(), &slots);
        pgmap
            .add_extent(range, ExtentAttrs::NEW, Tables::Dense, &mut meta, Attach::Zeroed)
            .unwrap();
        pgmap.check().unwrap();
        let whole = pgmap.stats();
        assert_eq!(whole.free_pages, nr);
        for o in (0..=18).step_by(step) {
            let mut folios = Vec::new();
            while let Ok(folio) = pgmap.alloc(order(o)) {
                folios.push(folio);
                if folios.len() > nr_folios {
                    break;
                }
            }
            pgmap.check().unwrap();
            assert!(
                !folios.is_empty()
                    || pgmap.stats().free_by_order[usize::from(o)..].iter().sum::<u64>() == 0,
                "{range} {o} {:?}",
                pgmap.stats()
            );
            drop(folios);
            pgmap.check().unwrap();
            assert_eq!(pgmap.stats().free_by_order, whole.free_by_order);
            let _ = pgmap.alloc_with(Request::order(order(o)));
        }
    }
}

#[test]
fn live_folios_split_merge_and_end() {
    // The largest order and one for an interpreter.
    let whole = order(if cfg!(miri) { 10 } else { 18 });
    let range = PfnRange::new(Pfn::new(0), 2 * whole.nr_pages()).unwrap();
    let page = Pfn::new(345);
    let mut meta = lines(range, Tables::Dense);
    let slots = [ExtentSlot::new()];
    let pgmap = Pgmap::new(Plain, Policy::generic(), &slots);
    pgmap.add_extent(range, ExtentAttrs::NEW, Tables::Dense, &mut meta, Attach::Zeroed).unwrap();
    let empty = pgmap.stats();
    assert_eq!(empty.free_pages, range.nr_pages());
    let folio = pgmap.alloc(whole).unwrap().publish();
    let other = pgmap.try_get(page).unwrap();
    assert_eq!(other.head(), folio.head());
    let busy = folio.try_freeze().unwrap_err();
    assert_eq!(busy.info.refs, 2);
    let unique = busy.folio.try_freeze_with([other]).unwrap();
    let (target, rest) = unique.split_around(page, order(0)).unwrap();
    assert_eq!(target.head(), page);
    pgmap.check().unwrap();
    let mut pieces: Vec<_> = rest.collect();
    assert_eq!(pieces.len(), usize::from(whole.as_u8()));
    pieces.push(target);
    pieces.sort_by_key(|piece| piece.order());
    let mut merged = pieces.remove(0);
    for piece in pieces {
        merged = merged.merge(piece).unwrap();
    }
    assert_eq!(merged.order(), whole);
    pgmap.check().unwrap();
    let pieces = merged.split(order(0)).unwrap();
    assert_eq!(pieces.count() as u64, whole.nr_pages());
    pgmap.check().unwrap();
    assert_eq!(pgmap.stats().free_by_order, empty.free_by_order);
    assert_eq!(pgmap.stats().free_pages, range.nr_pages());
}

#[test]
fn a_bad_page_that_was_out_of_reach_is_in_quarantine_before_an_export() {
    let (range, pfn) = (PfnRange::new(Pfn::new(64), 64).unwrap(), Pfn::new(70));
    let nr_lines = MetaSize::of(range, Tables::Dense).poison(1).lines();
    let mut meta: Vec<_> = (0..nr_lines).map(|_| MetaLine::ZERO).collect();
    let slots = [ExtentSlot::new()];
    let pgmap = Pgmap::new(Plain, Policy::generic(), &slots);
    pgmap.add_extent(range, ExtentAttrs::NEW, Tables::Dense, &mut meta, Attach::Zeroed).unwrap();
    // What others leave behind who kept the page on its way for too long.
    let extent = pgmap.core().extents().next().unwrap();
    assert!(extent.record(withheld::Entry::bad(pfn)));
    extent.withheld.pending.store(1, Ordering::Relaxed);
    assert_eq!(pgmap.query(pfn), PageInfo::Free);

    let mut image = [0; 256];
    pgmap.export_at_rest(&mut image, |_| 0).unwrap();
    assert_eq!(pgmap.stats().poisoned.nr_pages, 1);
    pgmap.check().unwrap();
}

/// An owner who wakes nobody, so that whoever is woken woke itself.
struct Silent;

impl PgmapOps for Silent {
    type Private = ();

    fn park(&self) -> &dyn Park {
        self
    }
}

impl Park for Silent {
    fn token(&self, _: ParkKey) -> u64 {
        0
    }

    fn park(&self, _: ParkKey, _: u64) {}

    fn unpark_all(&self, _: ParkKey) {}

    fn register_waker(&self, _: ParkKey, _: u64, _: &Waker) {}
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_future_of_pages_looks_again_when_others_hold_their_list() {
    let range = PfnRange::new(Pfn::new(64), 64).unwrap();
    let nr_lines = MetaSize::of(range, Tables::Dense).poison(8).lines();
    let mut meta: Vec<_> = (0..nr_lines).map(|_| MetaLine::ZERO).collect();
    let slots = [ExtentSlot::new()];
    let pgmap = Pgmap::new(Silent, Policy::generic(), &slots);
    pgmap.add_extent(range, ExtentAttrs::NEW, Tables::Dense, &mut meta, Attach::Zeroed).unwrap();
    pgmap.offline(range).unwrap();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut future = pin!(pgmap.offline_drained(range).unwrap());

    let extent = pgmap.core().extents().next().unwrap();
    let guard = extent.withheld.try_lock().unwrap();
    assert_eq!(future.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Pending);
    assert!(woken.0.load(Ordering::Relaxed), "nobody says when the list is let go");
    drop(guard);
    assert_eq!(future.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Ready(Ok(())));
}

/// Whoever holds the list of one extent is not waited for, and what was asked for is refused as a
/// whole: the list of the other extent is let go again.
#[test]
fn what_takes_the_list_of_pages_that_others_hold_is_refused() {
    let ranges = [64, 1024].map(|start| PfnRange::new(Pfn::new(start), 64).unwrap());
    let lines = |range| MetaSize::of(range, Tables::Dense).poison(8).lines();
    let mut meta = ranges.map(|range| (0..lines(range)).map(|_| MetaLine::ZERO).collect());
    let slots = [const { ExtentSlot::new() }; 2];
    let pgmap = Pgmap::new(Plain, Policy::generic(), &slots);
    for (range, meta) in ranges.into_iter().zip::<&mut [Vec<_>; 2]>(&mut meta) {
        pgmap.add_extent(range, ExtentAttrs::NEW, Tables::Dense, meta, Attach::Zeroed).unwrap();
    }
    let [first, second] = ranges.map(PfnRange::start);
    let range = PfnRange::new(second, 4).unwrap();
    pgmap.offline(range).unwrap();
    pgmap.poison(second).unwrap();
    let before = pgmap.image();

    let extent = pgmap.core().extents().find(|extent| extent.range() == ranges[1]).unwrap();
    let guard = extent.withheld.try_lock().unwrap();
    let pfn = second;
    assert_eq!(pgmap.poison(pfn), Err(PoisonError::Contended { pfn }));
    assert_eq!(pgmap.unpoison(pfn), Err(UnpoisonError::Contended { pfn }));
    assert_eq!(pgmap.poison_list(&[first, pfn]), Err(PoisonListError::Contended { pfn }));
    assert_eq!(pgmap.offline(range), Err(OfflineError::Contended { range }));
    assert_eq!(pgmap.online(range), Err(OnlineError::Contended { range }));
    assert_eq!(pgmap.surprise_offline(range), Err(OfflineError::Contended { range }));
    drop(guard);
    assert!(pgmap.image() == before, "a refusal changed something");
    assert_eq!(pgmap.poison_list(&[first, pfn]), Ok(1));
    pgmap.online(range).unwrap();
    pgmap.check().unwrap();
}
