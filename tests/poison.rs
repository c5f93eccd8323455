//! Poison: a bad page leaves free space for good, and nothing else does.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "a test may panic"
)]

use std::sync::Mutex;

use devfolio::{
    Attach, ClaimError, ExtentAttrs, ExtentSlot, FolioInfo, FolioKind, Life, MetaLine, MetaSize,
    Order, PageInfo, Pfn, PfnRange, Pgmap, PgmapOps, PinKind, PoisonError, PoisonListError,
    Poisoned, Policy, Tables, UnpoisonError,
};

/// Remembers what it is told.
#[derive(Default)]
struct Owner {
    told: Mutex<Vec<(u64, Option<FolioInfo>)>>,
}

impl PgmapOps for Owner {
    type Private = ();

    fn page_poisoned(&self, pfn: Pfn, folio: Option<FolioInfo>) {
        self.told.lock().unwrap().push((pfn.as_u64(), folio));
    }
}

type World<'m> = Pgmap<'m, Owner>;

const PAGE: Order = Order::ZERO;

fn pfn(page: u64) -> Pfn {
    Pfn::new(page)
}

fn in_world(nr_pages: u64, tables: Tables, room: u32, test_fn: impl FnOnce(&World<'_>)) {
    let range = PfnRange::new(pfn(0), nr_pages).unwrap();
    let nr_lines = MetaSize::of(range, tables).poison(room).lines();
    let mut lines: Vec<_> = (0..nr_lines).map(|_| MetaLine::ZERO).collect();
    let slots = [ExtentSlot::new()];
    let pgmap = Pgmap::new(Owner::default(), Policy::generic(), &slots);
    pgmap.add_extent(range, ExtentAttrs::NEW, tables, &mut lines, Attach::Clear).unwrap();
    test_fn(&pgmap);
    pgmap.check().unwrap();
}

/// The list of a device is there before the first page is handed out.
#[test]
fn an_extent_that_is_added_closed_hands_nothing_out_until_it_is_opened() {
    let range = PfnRange::new(pfn(0), 1024).unwrap();
    let nr_lines = MetaSize::of(range, Tables::Dense).poison(4).lines();
    let mut lines: Vec<_> = (0..2 * nr_lines).map(|_| MetaLine::ZERO).collect();
    let (lines, others) = lines.split_at_mut(nr_lines);
    let slots = [const { ExtentSlot::new() }; 2];
    let pgmap = Pgmap::new(Owner::default(), Policy::generic(), &slots);
    let (attrs, tables) = (ExtentAttrs::NEW, Tables::Dense);
    pgmap.add_closed_extent(range, attrs, tables, lines, Attach::Clear, &mut []).unwrap();
    assert_eq!(pgmap.extent_state(pfn(0)), Some(Life::Drained));
    for page in [5, 512] {
        assert!(pgmap.alloc(PAGE).is_err() && pgmap.claim(pfn(page), PAGE).is_err());
        assert_eq!(pgmap.poison(pfn(page)), Ok(Poisoned::Quarantined));
    }
    pgmap.restore_extent(pfn(0)).unwrap();
    assert_eq!(pgmap.extent_state(pfn(0)), Some(Life::Live));
    let folios: Vec<_> = core::iter::from_fn(|| pgmap.alloc(PAGE).ok()).collect();
    assert!(folios.iter().all(|folio| ![5, 512].contains(&folio.head().as_u64())));
    assert_eq!(folios.len(), 1022);
    // A refusal closes nothing.
    let again = pgmap.add_closed_extent(range, attrs, tables, others, Attach::Clear, &mut []);
    assert!(again.is_err());
    drop(folios);
    assert_eq!((pgmap.state(), pgmap.stats().free_pages), (Life::Live, 1022));
    pgmap.check().unwrap();
}

fn kind(pgmap: &World<'_>, page: u64) -> Option<FolioKind> {
    match pgmap.query(pfn(page)) {
        PageInfo::Folio(folio) => Some(folio.kind),
        _ => None,
    }
}

#[test]
fn one_bad_page_of_a_gigabyte_leaves_eighteen_healthy_folios() {
    in_world(1 << 18, Tables::Dense, 8, |pgmap| {
        let folio = pgmap.alloc(Order::REGION).unwrap();
        let poisoned = pgmap.poison(pfn(0x12345)).unwrap();
        assert!(matches!(poisoned, Poisoned::InUse { folio: Some(folio) }
            if folio.order == Order::REGION && folio.kind == FolioKind::Unique));
        folio.release();
        let stats = pgmap.stats();
        assert_eq!((stats.free_pages, stats.poisoned.nr_pages), ((1 << 18) - 1, 1));
        assert!(stats.free_by_order[..18].iter().all(|&nr| nr == 1));
        assert_eq!(stats.free_by_order[18], 0);
        assert_eq!(kind(pgmap, 0x12345), Some(FolioKind::Poisoned));
        pgmap.unpoison(pfn(0x12345)).unwrap();
        assert_eq!(pgmap.stats().free_by_order[18], 1);
    });
}

#[test]
fn one_bad_page_of_a_live_gigabyte_is_all_that_is_lost_with_its_last_count() {
    const BAD: u64 = 0x12345;
    in_world(1 << 18, Tables::Dense, 8, |pgmap| {
        let folio = pgmap.alloc(Order::REGION).unwrap().publish();
        let (pin, map) = (folio.pin(PinKind::Longterm).unwrap(), folio.map(3).unwrap());
        let Ok(Poisoned::InUse { folio: Some(seen) }) = pgmap.poison(pfn(BAD)) else {
            panic!("nobody has it")
        };
        assert_eq!((seen.head, seen.order), (pfn(0), Order::REGION));
        assert_eq!((seen.refs, seen.pins, seen.mappings), (1, 1, 3));
        // It goes on: counts are taken and dropped by every page, the bad one included.
        drop(pgmap.try_get(pfn(BAD)).unwrap());
        drop((folio.try_clone().unwrap(), folio.pin(PinKind::Short).unwrap()));
        assert_eq!(folio.info(), seen);
        drop((folio, map));
        assert_eq!(pgmap.stats().free_pages, 0, "the pin is left");
        drop(pin);
        let stats = pgmap.stats();
        assert_eq!((stats.free_pages, stats.poisoned_pages), (262_143, 1));
        assert_eq!(stats.free_by_order[18], 0);
        let nr_pieces = stats.free_by_order.iter().sum::<u64>();
        assert!(stats.free_by_order[..18].iter().all(|&nr| nr == 1), "{nr_pieces} pieces");
        assert_eq!(pgmap.free_runs().map(PfnRange::nr_pages).sum::<u64>(), 262_143);

        // Each piece can be had as one folio, the largest first, and each page of them.
        let pieces = (0..18).rev().map(|order| pgmap.alloc(Order::new(order).unwrap()).unwrap());
        let pieces: Vec<_> = pieces.collect();
        assert!(pieces.iter().all(|piece| !piece.range().contains(pfn(BAD))));
        assert_eq!(pgmap.stats().free_pages, 0);
        drop(pieces);
        let mut is_had = vec![false; 1 << 18];
        // Ends: there are so many pages.
        while let Ok(page) = pgmap.alloc(PAGE) {
            let page = page.into_raw().as_u64();
            assert!(!core::mem::replace(&mut is_had[page as usize], true), "twice: {page:#x}");
        }
        assert!((0..).zip(is_had).all(|(page, is_had)| is_had == (page != BAD)));
        assert_eq!((pgmap.stats().free_pages, pgmap.stats().unique.nr_pages), (0, 262_143));
    });
}

#[test]
fn the_owner_is_told_of_a_mapped_folio_with_its_mappings() {
    in_world(1024, Tables::Dense, 8, |pgmap| {
        let folio = pgmap.claim(pfn(512), Order::BLOCK).unwrap().publish();
        let map = folio.map(7).unwrap();
        let _ = pgmap.claim(pfn(64), Order::new(3).unwrap()).unwrap().into_raw();
        pgmap.poison(pfn(700)).unwrap();
        // What nothing but leaves holds is told as well.
        drop(folio);
        pgmap.poison(pfn(701)).unwrap();
        let told = core::mem::take(&mut *pgmap.ops().told.lock().unwrap());
        let counts = |folio: FolioInfo| (folio.head, folio.order, folio.refs, folio.mappings);
        let told: Vec<_> = told.into_iter().map(|(page, it)| (page, it.map(counts))).collect();
        let with_refs = |refs| Some((pfn(512), Order::BLOCK, refs, 7));
        assert_eq!(told, [(700, with_refs(1)), (701, with_refs(0))]);
        assert_eq!(pgmap.stats().free_pages, 504);
        drop(map);
        assert_eq!(pgmap.stats().free_pages, 504 + 510);
    });
}

#[test]
fn a_free_page_leaves_a_whole_region_at_once() {
    in_world(1 << 18, Tables::Dense, 8, |pgmap| {
        assert_eq!(pgmap.poison(pfn(0x200)), Ok(Poisoned::Quarantined));
        let stats = pgmap.stats();
        assert_eq!((stats.free_pages, stats.poisoned_pages), ((1 << 18) - 1, 1));
        assert!(stats.free_by_order[..18].iter().all(|&nr| nr == 1));
        let busy = pgmap.claim(pfn(0x200), PAGE).map(drop);
        assert_eq!(busy, Err(ClaimError::Busy { pfn: pfn(0x200) }));
        assert!(pgmap.claim(pfn(0x201), PAGE).is_ok());
    });
}

#[test]
fn a_live_folio_lives_on_with_all_its_counts() {
    in_world(1024, Tables::Dense, 8, |pgmap| {
        let folio = pgmap.alloc(Order::BLOCK).unwrap().publish();
        let pin = folio.pin(PinKind::Longterm).unwrap();
        pgmap.poison(pfn(3)).unwrap();
        pgmap.poison(pfn(511)).unwrap();
        assert_eq!(pgmap.try_get(pfn(3)).map(|other| other.head()).unwrap(), pfn(0));
        let PageInfo::Folio(info) = pgmap.query(pfn(3)) else { panic!("it is free") };
        assert_eq!((info.refs, info.pins, info.kind), (1, 1, FolioKind::Live));
        drop(folio);
        assert_eq!(pgmap.stats().free_pages, 512);
        drop(pin);
        assert_eq!(pgmap.stats().free_pages, 1022);
        assert!(pgmap.poisoned().eq([pfn(3), pfn(511)]));
    });
}

#[test]
fn the_owner_is_told_once_for_each_page() {
    in_world(1024, Tables::Dense, 8, |pgmap| {
        let folio = pgmap.claim(pfn(512), Order::BLOCK).unwrap();
        let told = || pgmap.ops().told.lock().unwrap().len();
        assert_eq!(pgmap.poison(pfn(9)), Ok(Poisoned::Quarantined));
        assert!(matches!(pgmap.poison(pfn(600)), Ok(Poisoned::InUse { .. })));
        let image = pgmap.image();
        assert_eq!(pgmap.poison(pfn(9)), Ok(Poisoned::Known));
        assert_eq!(pgmap.poison(pfn(600)), Ok(Poisoned::Known));
        assert_eq!(pgmap.image(), image);
        folio.release();
        assert_eq!(told(), 2);
        let told = pgmap.ops().told.lock().unwrap();
        assert_eq!((told[0], told[1].0), ((9, None), 600));
        assert_eq!(told[1].1.map(|folio| folio.head), Some(pfn(512)));
    });
}

#[test]
fn refusals_change_nothing() {
    in_world(1024, Tables::Dense, 1, |pgmap| {
        for page in 0..8 {
            pgmap.poison(pfn(page)).unwrap();
        }
        let image = pgmap.image();
        let full = PoisonError::NoRoom { pfn: pfn(8), max: 8 };
        assert_eq!(pgmap.poison(pfn(8)), Err(full));
        assert_eq!(pgmap.poison(pfn(1024)), Err(PoisonError::Outside { pfn: pfn(1024) }));
        assert_eq!(pgmap.unpoison(pfn(1024)), Err(UnpoisonError::Outside { pfn: pfn(1024) }));
        assert_eq!(pgmap.unpoison(pfn(8)), Err(UnpoisonError::NotPoisoned { pfn: pfn(8) }));
        assert_eq!(pgmap.image(), image);
        assert_eq!(pgmap.ops().told.lock().unwrap().len(), 8);
        assert_eq!(full.to_string(), "no room for page 0x8 in a list of 8 bad pages");
    });
    in_world(1024, Tables::Dense, 0, |pgmap| {
        let full = PoisonError::NoRoom { pfn: pfn(8), max: 0 };
        assert_eq!(pgmap.poison(pfn(8)), Err(full));
    });
}

#[test]
fn without_a_table_the_whole_block_is_in_quarantine() {
    in_world(4 * 512, Tables::Budget(0), 8, |pgmap| {
        let folio = pgmap.claim(pfn(1024), Order::new(10).unwrap()).unwrap();
        assert_eq!(pgmap.poison(pfn(5)), Ok(Poisoned::Quarantined));
        assert_eq!(pgmap.poison(pfn(6)), Ok(Poisoned::Quarantined));
        pgmap.poison(pfn(1536)).unwrap();
        folio.release();
        assert_eq!(pgmap.stats().free_pages, 1024);
        pgmap.check().unwrap();
        pgmap.unpoison(pfn(5)).unwrap();
        assert_eq!(kind(pgmap, 5), Some(FolioKind::Poisoned));
        pgmap.unpoison(pfn(6)).unwrap();
        pgmap.unpoison(pfn(1536)).unwrap();
        assert_eq!(pgmap.stats().free_by_order[10..12], [0, 1]);
    });
}

#[test]
fn a_magazine_hands_no_bad_page_out() {
    in_world(1024, Tables::Dense, 8, |pgmap| {
        let mut magazine = pgmap.magazine(PAGE);
        let held = magazine.alloc().unwrap();
        assert!(3 < magazine.len());
        // Idle in the magazine, and in the hands of whom it served.
        let idle = pfn(held.head().as_u64() + 2);
        pgmap.poison(idle).unwrap();
        pgmap.poison(held.head()).unwrap();
        let bad = [held.head(), idle];
        magazine.release(held);
        let mut pages = Vec::new();
        while let Ok(page) = magazine.alloc() {
            assert!(!bad.contains(&page.head()));
            pages.push(page);
        }
        assert_eq!(pages.len(), 1022);
        pages.into_iter().for_each(|page| magazine.release(page));
        drop(magazine);
        assert_eq!(pgmap.stats().free_pages, 1022);
    });
}

#[test]
fn what_is_in_quarantine_does_not_hold_the_end_up() {
    in_world(1024, Tables::Dense, 8, |pgmap| {
        let folio = pgmap.alloc(Order::BLOCK).unwrap();
        pgmap.poison(folio.head()).unwrap();
        pgmap.poison(pfn(1000)).unwrap();
        assert_eq!(pgmap.kill(), Life::Dying);
        folio.release();
        assert_eq!(pgmap.state(), Life::Drained);
    });
}

/// Runs a test with neighbouring extents of so many pages, each with room for eight bad ones.
fn in_extents(sizes: &[u64], test_fn: impl FnOnce(&World<'_>)) {
    let mut start = 0;
    let ranges = sizes.iter().map(|&nr_pages| {
        start += nr_pages;
        PfnRange::new(pfn(start - nr_pages), nr_pages).unwrap()
    });
    let ranges: Vec<_> = ranges.collect();
    let nr_lines = |&range: &_| MetaSize::of(range, Tables::Dense).poison(8).lines();
    let zeroed = |range| (0..nr_lines(range)).map(|_| MetaLine::ZERO).collect();
    let mut lines: Vec<Vec<_>> = ranges.iter().map(zeroed).collect();
    let slots: Vec<_> = sizes.iter().map(|_| ExtentSlot::new()).collect();
    let pgmap = Pgmap::new(Owner::default(), Policy::generic(), &slots);
    for (&range, lines) in ranges.iter().zip(&mut lines) {
        pgmap.add_extent(range, ExtentAttrs::NEW, Tables::Dense, lines, Attach::Zeroed).unwrap();
    }
    test_fn(&pgmap);
    pgmap.check().unwrap();
}

fn pfns<const N: usize>(pages: [u64; N]) -> [Pfn; N] {
    pages.map(pfn)
}

fn nr_told(pgmap: &World<'_>) -> usize {
    pgmap.ops().told.lock().unwrap().len()
}

/// Unsorted, with pages that are there twice, and over two extents.
const LIST: [u64; 8] = [1030, 9, 5, 600, 9, 1030, 1024, 0];

#[test]
fn a_list_does_what_its_pages_do_one_by_one_and_tells_nobody() {
    for nr_known in [0, 3] {
        in_extents(&[1024, 512], |by_list| {
            in_extents(&[1024, 512], |one_by_one| {
                for page in &LIST[..nr_known] {
                    by_list.poison(pfn(*page)).unwrap();
                }
                for page in LIST {
                    one_by_one.poison(pfn(page)).unwrap();
                }
                assert_eq!(by_list.poison_list(&pfns(LIST)), Ok(6 - nr_known));
                assert_eq!(by_list.image(), one_by_one.image());
                assert_eq!((nr_told(by_list), nr_told(one_by_one)), (nr_known, 6));
                // Another time, and none at all.
                let image = by_list.image();
                assert_eq!(by_list.poison_list(&pfns(LIST)), Ok(0));
                assert_eq!(by_list.poison_list(&[]), Ok(0));
                assert_eq!(by_list.image(), image);
            });
        });
    }
}

#[test]
fn no_page_of_a_list_is_handed_out_again() {
    in_extents(&[1024, 512], |pgmap| {
        let mut magazine = pgmap.magazine(PAGE);
        let first = magazine.alloc().unwrap();
        assert!(1 < magazine.len());
        let folio = pgmap.claim(pfn(512), Order::BLOCK).unwrap().publish();
        // In a magazine, in the hands of whom it served, of a live folio, and free.
        let idle = first.head().as_u64() + 1;
        let list = pfns([1024, idle, 600, 1030, first.head().as_u64(), 1535]);
        assert_eq!(pgmap.poison_list(&list), Ok(6));
        assert_eq!(pgmap.stats().poisoned.nr_pages, 3);
        assert_eq!(pgmap.query(pfn(600)), PageInfo::Folio(folio.info()));
        magazine.release(first);
        drop(folio);
        let mut pages = Vec::new();
        while let Ok(page) = magazine.alloc() {
            assert!(!list.contains(&page.head()));
            pages.push(page);
        }
        assert_eq!(pages.len(), 1536 - 6);
        pages.into_iter().for_each(|page| magazine.release(page));
        drop(magazine);
        assert_eq!((pgmap.stats().free_pages, nr_told(pgmap)), (1530, 0));
        for pfn in list {
            assert!(pgmap.claim(pfn, PAGE).is_err());
            pgmap.unpoison(pfn).unwrap();
        }
        assert_eq!(pgmap.stats().free_pages, 1536);
    });
}

/// Says why a list is refused; nothing has changed by it.
#[track_caller]
fn refused(pgmap: &World<'_>, list: &[Pfn]) -> PoisonListError {
    let before = (pgmap.image(), pgmap.stats(), nr_told(pgmap));
    let error = pgmap.poison_list(list).unwrap_err();
    assert_eq!((pgmap.image(), pgmap.stats(), nr_told(pgmap)), before);
    pgmap.check().unwrap();
    error
}

#[test]
fn a_list_that_is_refused_changes_nothing() {
    in_extents(&[1024, 512], |pgmap| {
        let outside = pfns([9, 1024, 1536, 5, u64::MAX]);
        let error = refused(pgmap, &outside);
        assert_eq!(error, PoisonListError::Outside { pfn: pfn(1536) });
        // The list of the second extent has room for three, and one page of it is known.
        for page in 1024..1029 {
            pgmap.poison(pfn(page)).unwrap();
        }
        let list = pfns([1531, 3, 1532, 1024, 1531, 1533, 2, 1534, 1535]);
        let error = refused(pgmap, &list);
        assert_eq!(error, PoisonListError::NoRoom { pfn: pfn(1534), needed: 5, left: 3 });
        let text = "no room for page 0x5fe: 5 entries in a list with room for 3";
        assert_eq!(error.to_string(), text);
        // What was locked is not any more.
        assert_eq!(pgmap.poison_list(&list[..7]), Ok(5));
        assert_eq!(pgmap.poison(pfn(4)), Ok(Poisoned::Quarantined));
    });
    in_extents(&[1; 17], |pgmap| {
        let mut list: Vec<_> = (0..17).rev().map(pfn).collect();
        let error = refused(pgmap, &list);
        assert_eq!(error, PoisonListError::TooManyExtents { pfn: pfn(16), max: 16 });
        list.retain(|&page| page != pfn(7));
        assert_eq!(pgmap.poison_list(&list), Ok(16));
        assert_eq!(pgmap.stats().free_pages, 1);
    });
    in_world(1024, Tables::Dense, 0, |pgmap| {
        let error = refused(pgmap, &[pfn(8)]);
        assert_eq!(error, PoisonListError::NoRoom { pfn: pfn(8), needed: 1, left: 0 });
    });
}

#[test]
fn a_list_without_tables_puts_whole_blocks_into_quarantine() {
    in_world(4 * 512, Tables::Budget(0), 8, |pgmap| {
        assert_eq!(pgmap.poison_list(&pfns([1025, 5, 6])), Ok(3));
        assert_eq!(pgmap.stats().free_pages, 1024);
        assert_eq!(kind(pgmap, 511), Some(FolioKind::Poisoned));
        for page in [5, 6, 1025] {
            pgmap.unpoison(pfn(page)).unwrap();
        }
        assert_eq!(pgmap.stats().free_pages, 2048);
    });
}
