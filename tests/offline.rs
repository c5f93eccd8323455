//! Pages that go back to the device while the rest of their extent stays.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "a test may panic"
)]

use core::sync::atomic::{AtomicBool, Ordering};

use devfolio::{
    AllocError, Attach, ClaimError, DrainError, ExtentAttrs, ExtentSlot, FolioInfo, FolioKind,
    Life, MetaLine, MetaSize, OfflineError, OnlineError, Order, PageInfo, Park, ParkKey, Pfn,
    PfnRange, Pgmap, PgmapOps, PinKind, Poisoned, Policy, Request, Tables,
};

struct Owner;

impl PgmapOps for Owner {
    type Private = ();

    fn park(&self) -> &dyn Park {
        self
    }
}

/// Waiters let others run.
impl Park for Owner {
    fn token(&self, _: ParkKey) -> u64 {
        0
    }

    fn park(&self, _: ParkKey, _: u64) {
        std::thread::yield_now();
    }

    fn unpark_all(&self, _: ParkKey) {}
}

type World<'m> = Pgmap<'m, Owner>;

const PAGE: Order = Order::ZERO;

fn pfn(page: u64) -> Pfn {
    Pfn::new(page)
}

fn range(start: u64, nr_pages: u64) -> PfnRange {
    PfnRange::new(pfn(start), nr_pages).unwrap()
}

fn in_world(nr_pages: u64, tables: Tables, room: u32, test_fn: impl FnOnce(&World<'_>)) {
    let all = range(0, nr_pages);
    let nr_lines = MetaSize::of(all, tables).poison(room).lines();
    let mut lines: Vec<_> = (0..nr_lines).map(|_| MetaLine::ZERO).collect();
    let slots = [ExtentSlot::new()];
    let pgmap = Pgmap::new(Owner, Policy::generic(), &slots);
    pgmap.add_extent(all, ExtentAttrs::NEW, tables, &mut lines, Attach::Clear).unwrap();
    test_fn(&pgmap);
    pgmap.check().unwrap();
}

fn busy_in(pgmap: &World<'_>, range: PfnRange) -> Vec<FolioInfo> {
    let mut folios = Vec::new();
    pgmap.for_each_busy_in(range, |busy| folios.extend(busy.folio));
    folios
}

fn offline_pages(pgmap: &World<'_>) -> u64 {
    pgmap.stats().offline.nr_pages
}

#[test]
fn free_pages_leave_at_once_and_the_others_as_soon_as_they_are_free() {
    in_world(1 << 18, Tables::Budget(4), 8, |pgmap| {
        let whole = pgmap.claim(pfn(0x400), Order::BLOCK).unwrap().publish();
        let part = pgmap.claim(pfn(0x1000), PAGE).unwrap().publish();
        let pin = part.pin(PinKind::Longterm).unwrap();
        let given = range(0x500, 0xc00);
        assert_eq!(pgmap.offline(given), Ok(Life::Dying));
        assert_eq!(busy_in(pgmap, given), [whole.info(), part.info()]);
        assert_eq!(offline_pages(pgmap), 0xc00 - 0x100 - 1);

        assert!(whole.try_clone().is_ok(), "what is in use goes on");
        drop(whole);
        assert_eq!(pgmap.query(pfn(0x4ff)), PageInfo::Free, "what is before them stays");
        assert_eq!(offline_pages(pgmap), 0xc00 - 1);
        drop(part);
        assert_eq!(pgmap.offline_state(given), Some(Life::Dying), "the pin is still there");
        drop(pin);
        assert_eq!(pgmap.offline_state(given), Some(Life::Drained));
        assert_eq!((offline_pages(pgmap), busy_in(pgmap, given)), (0xc00, vec![]));
        assert_eq!(pgmap.stats().free_pages, (1 << 18) - 0xc00);
        assert_eq!(pgmap.offline(given), Ok(Life::Drained), "a second call changes nothing");
    });
}

#[test]
fn nothing_that_is_offline_is_handed_out() {
    in_world(1024, Tables::Dense, 16, |pgmap| {
        assert_eq!(pgmap.offline(range(1, 1022)), Ok(Life::Drained));
        let claim = pgmap.claim(pfn(512), Order::BLOCK);
        assert_eq!(claim.unwrap_err(), ClaimError::Busy { pfn: pfn(512) });
        let mut magazine = pgmap.magazine(PAGE);
        let ends = [magazine.alloc().unwrap(), pgmap.alloc(PAGE).unwrap()];
        assert_eq!(ends.map(|folio| folio.into_raw().as_u64()), [0, 1023]);
        assert!(matches!(magazine.alloc(), Err(AllocError::Exhausted { .. })));
        let inside = Request::order(PAGE).within(range(4, 64));
        assert!(matches!(pgmap.alloc_with(inside), Err(AllocError::Exhausted { .. })));
    });
}

#[test]
fn pages_that_are_idle_in_a_magazine_leave_with_its_next_call() {
    in_world(1024, Tables::Dense, 8, |pgmap| {
        let mut magazine = pgmap.magazine(PAGE);
        let folio = magazine.alloc().unwrap();
        let given = range(0, 512);
        assert_eq!(pgmap.offline(given), Ok(Life::Dying));
        magazine.release(folio);
        drop(magazine.alloc().unwrap());
        assert_eq!(pgmap.offline_state(given), Some(Life::Drained));
    });
}

#[test]
fn pages_that_are_taken_back_are_free_and_merged_as_before() {
    in_world(1 << 18, Tables::Dense, 24, |pgmap| {
        let before = pgmap.stats();
        let given = range(0x10, 0x20000);
        pgmap.offline(given).unwrap();
        pgmap.online(range(0x400, 0x600)).unwrap();
        assert_eq!(pgmap.stats().free_pages, (1 << 18) - 0x20000 + 0x600);
        assert_eq!(pgmap.offline_state(range(0x400, 0x600)), Some(Life::Live));
        assert_eq!(pgmap.offline_state(range(0x3ff, 0x600)), Some(Life::Live), "not all of it");
        assert_eq!(pgmap.offline_state(range(0xa00, 0x600)), Some(Life::Drained));
        pgmap.online(range(0x10, 0x3f0)).unwrap();
        pgmap.online(range(0xa00, 0x1f610)).unwrap();
        let after = pgmap.stats();
        assert_eq!(after.free_by_order, before.free_by_order);
        assert_eq!((after.offline.nr_folios, after.free_pages), (0, 1 << 18));
    });
}

#[test]
fn a_release_that_is_called_off_leaves_the_folio_where_it_is() {
    in_world(1024, Tables::Dense, 8, |pgmap| {
        let folio = pgmap.alloc(Order::BLOCK).unwrap().publish();
        let given = folio.range();
        assert_eq!(pgmap.offline(given), Ok(Life::Dying));
        pgmap.online(given).unwrap();
        drop(folio);
        assert_eq!(pgmap.stats().free_pages, 1024);
    });
}

#[test]
fn retired_folios_are_in_use_and_kept_ones_are_until_their_owner_releases_them() {
    in_world(1024, Tables::Dense, 8, |pgmap| {
        pgmap.claim(pfn(0), PAGE).unwrap().retire();
        pgmap.claim(pfn(1), PAGE).unwrap().keep();
        let given = range(0, 8);
        assert_eq!(pgmap.offline(given), Ok(Life::Dying));
        let kinds: Vec<_> = busy_in(pgmap, given).iter().map(|folio| folio.kind).collect();
        assert_eq!(kinds, [FolioKind::Retired, FolioKind::Kept]);
        pgmap.claim_retired(pfn(0)).unwrap().release();
        pgmap.claim_kept(pfn(1)).unwrap().release();
        assert_eq!(pgmap.offline_state(given), Some(Life::Drained));
    });
}

#[test]
fn a_bad_page_stays_bad_whether_it_is_offline_or_not() {
    in_world(1024, Tables::Dense, 8, |pgmap| {
        assert_eq!(pgmap.poison(pfn(3)), Ok(Poisoned::Quarantined));
        assert_eq!(pgmap.offline(range(0, 8)), Ok(Life::Drained), "a bad page is no one's");
        assert_eq!(pgmap.poison(pfn(5)), Ok(Poisoned::Quarantined), "it has left already");
        pgmap.unpoison(pfn(3)).unwrap();
        assert_eq!(offline_pages(pgmap), 8, "it was repaired, and is offline");
        pgmap.online(range(0, 8)).unwrap();
        assert_eq!((offline_pages(pgmap), pgmap.stats().free_pages), (0, 1023));
        assert!(pgmap.claim(pfn(5), PAGE).is_err());
    });
}

#[test]
fn without_a_table_the_whole_block_leaves_and_comes_back() {
    in_world(1536, Tables::Budget(0), 8, |pgmap| {
        let held = pgmap.claim(pfn(512), Order::BLOCK).unwrap();
        assert_eq!(pgmap.offline(range(100, 600)), Ok(Life::Dying));
        assert_eq!(offline_pages(pgmap), 512);
        held.release();
        assert_eq!((offline_pages(pgmap), pgmap.stats().free_pages), (1024, 512));
        pgmap.online(range(100, 412)).unwrap();
        assert_eq!((offline_pages(pgmap), pgmap.stats().free_pages), (512, 1024));
        pgmap.online(range(512, 188)).unwrap();
        assert_eq!(pgmap.stats().free_pages, 1536);
    });
}

#[test]
fn offline_pages_do_not_keep_a_pgmap_from_being_drained() {
    in_world(1024, Tables::Dense, 8, |pgmap| {
        let folio = pgmap.claim(pfn(7), PAGE).unwrap();
        pgmap.offline(range(0, 600)).unwrap();
        assert_eq!(pgmap.kill(), Life::Dying);
        folio.release();
        assert_eq!(pgmap.state(), Life::Drained);
    });
}

#[test]
fn what_is_refused_changes_nothing() {
    in_world(1024, Tables::Dense, 8, |pgmap| {
        let check = |refuse_fn: &dyn Fn()| {
            let image = pgmap.image();
            refuse_fn();
            assert!(pgmap.image() == image, "something changed");
        };
        check(&|| {
            let outside = range(1000, 25);
            assert_eq!(pgmap.offline(outside), Err(OfflineError::Outside { range: outside }));
            assert_eq!(pgmap.online(outside), Err(OnlineError::Outside { range: outside }));
            assert_eq!(pgmap.offline_state(outside), None);
            let error = Err(DrainError::Outside { pfn: pfn(1000) });
            assert_eq!(pgmap.wait_offline(outside), error);
        });
        check(&|| {
            let wide = range(1, 1023);
            let error = OfflineError::NoRoom { range: wide, needed: 10, left: 8 };
            assert_eq!(pgmap.offline(wide), Err(error));
            assert_eq!(pgmap.wait_offline(wide), Err(DrainError::NotKilled));
        });
        assert_eq!(pgmap.offline(range(0, 128 - 1)), Ok(Life::Drained));
        check(&|| {
            let wide = range(120, 16);
            assert_eq!(pgmap.online(wide), Err(OnlineError::NotOffline { pfn: pfn(127) }));
            let hole = range(10, 1);
            let error = OnlineError::NoRoom { range: hole, needed: 6, left: 1 };
            assert_eq!(pgmap.online(hole), Err(error));
        });
    });
}

#[test]
fn the_entries_of_a_range_are_the_powers_of_two_in_its_length() {
    for nr_pages in 1..256 {
        in_world(512, Tables::Dense, 16, |pgmap| {
            let given = range(3, nr_pages);
            pgmap.offline(given).unwrap();
            let nr_left = 16 - u64::from(nr_pages.count_ones());
            let bad: Vec<_> = (0..).map(|page| pfn(300 + page)).take(17).collect();
            let taken = bad.iter().take_while(|&&page| pgmap.poison(page).is_ok()).count();
            assert_eq!(taken as u64, nr_left, "{nr_pages} pages");
        });
    }
}

#[test]
fn a_wait_without_a_clock_looks_once_and_names_the_page() {
    in_world(1024, Tables::Dense, 8, |pgmap| {
        let folio = pgmap.claim(pfn(9), PAGE).unwrap().publish();
        let given = range(0, 16);
        pgmap.offline(given).unwrap();
        let error = pgmap.wait_offline_until(given, 5).unwrap_err();
        assert!(matches!(error, DrainError::Busy(busy) if busy.folio == Some(folio.info())));
        drop(folio);
        assert_eq!(pgmap.wait_offline_until(given, 5), Ok(()));
    });
}

/// A cheap random number.
fn next(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

#[test]
fn two_threads_never_get_a_page_that_has_left() {
    const NR_PAGES: u64 = 2048;
    const NR_ROUNDS: u64 = if cfg!(miri) { 4 } else { 300 };
    let gone: Vec<_> = (0..NR_PAGES).map(|_| AtomicBool::new(false)).collect();
    let is_over = AtomicBool::new(false);
    in_world(NR_PAGES, Tables::Dense, 16, |pgmap| {
        std::thread::scope(|scope| {
            for thread in 1..3 {
                let (gone, is_over) = (&gone, &is_over);
                scope.spawn(move || {
                    let mut seed = thread;
                    let mut held = Vec::new();
                    while !is_over.load(Ordering::Relaxed) {
                        let order = Order::new((next(&mut seed) % 10) as u8).unwrap();
                        if let Ok(folio) = pgmap.alloc(order) {
                            let pages = folio.range();
                            let first = pages.start().as_u64() as usize;
                            let pages = &gone[first..first + pages.nr_pages() as usize];
                            assert!(!pages.iter().any(|page| page.load(Ordering::Acquire)));
                            held.push(folio);
                        } else if !held.is_empty() {
                            // The two of them may have all the pages there are.
                            held.swap_remove(0).release();
                        }
                        if held.len() > 3 {
                            held.swap_remove(next(&mut seed) as usize % held.len()).release();
                        }
                    }
                });
            }
            let mut seed = 99;
            for _ in 0..NR_ROUNDS {
                let start = next(&mut seed) % NR_PAGES;
                let given = range(start, next(&mut seed) % (NR_PAGES - start) % 600 + 1);
                // Ends: whoever holds a folio gives it back some time.
                while pgmap.offline(given).is_err() {}
                pgmap.wait_offline(given).unwrap();
                let pages = &gone[start as usize..][..given.nr_pages() as usize];
                pages.iter().for_each(|page| page.store(true, Ordering::Release));
                assert_eq!(pgmap.offline_state(given), Some(Life::Drained), "it stays so");
                pages.iter().for_each(|page| page.store(false, Ordering::Release));
                while pgmap.online(given).is_err() {}
            }
            is_over.store(true, Ordering::Relaxed);
        });
        assert_eq!(pgmap.stats().free_pages, NR_PAGES, "everything is back");
    });
}
