//! Extents, exhaustively: all small ones by themselves, and all pairs of them side by side, with
//! the last pages of space among them; and what each of several counts.

#![cfg(not(miri))]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "a test may panic"
)]

use devfolio::{
    AddExtentError, AllocError, Attach, DirSlot, Directory, ExtentAttrs, ExtentSlot, MetaLine,
    MetaSize, Order, Pfn, PfnRange, Pgmap, PgmapOps, PinKind, Policy, RangeError, RegisterError,
    Tables, Tally,
};

struct Owner;

impl PgmapOps for Owner {
    type Private = ();
}

/// The first page of the last 2^5 of space, and of the last 2^6.
const TOP_32: u64 = u64::MAX - 31;
const TOP_64: u64 = u64::MAX - 63;

/// Memory that an extent was in before, enough for the largest of these.
fn used_lines() -> Vec<MetaLine> {
    let mut lines: Vec<_> = (0..512).map(|_| MetaLine::ZERO).collect();
    let slots = [const { ExtentSlot::new() }; 1];
    let pgmap = Pgmap::new(Owner, Policy::generic(), &slots);
    add(&pgmap, range(3, 700), &mut lines).unwrap();
    let folio = pgmap.alloc(Order::ZERO).unwrap();
    let _ = folio.into_raw();
    lines
}

fn range(start: u64, nr_pages: u64) -> PfnRange {
    PfnRange::new(Pfn::new(start), nr_pages).unwrap()
}

fn add<'m>(
    pgmap: &Pgmap<'m, Owner>,
    range: PfnRange,
    lines: &'m mut [MetaLine],
) -> Result<(), AddExtentError> {
    pgmap.add_extent(range, ExtentAttrs::NEW, Tables::Dense, lines, Attach::Clear)
}

/// A pair of extents.
struct Pair<'m> {
    first: PfnRange,
    second: PfnRange,
    /// Whether they have a page in common, told page by page.
    is_shared: bool,
    /// The image of an owner of the first alone.
    alone: &'m [u64],
    lines: [&'m mut [MetaLine]; 2],
}

/// Calls `pair_fn` with all pairs of extents of 2^5 pages from `origin` on.
fn for_all_pairs(origin: u64, pair_fn: impl Fn(Pair<'_>)) {
    let [mut one, mut two] = [used_lines(), used_lines()];
    let extents: Vec<_> = (0..32_u32)
        .flat_map(|base| (1..=32 - base).map(move |len| (base, len)))
        .map(|(base, len)| {
            let pages = (base..base + len).fold(0_u32, |pages, page| pages | 1 << page);
            (range(origin + u64::from(base), len.into()), pages)
        })
        .collect();
    assert_eq!(extents.len(), 528);
    for &(first, first_pages) in &extents {
        let alone = image_alone(first, &mut one);
        for &(second, second_pages) in &extents {
            let is_shared = first_pages & second_pages != 0;
            let lines = [&mut one[..], &mut two[..]];
            pair_fn(Pair { first, second, is_shared, alone: &alone, lines });
        }
    }
}

/// Returns the image of an owner of one extent, which is in order.
fn image_alone(range: PfnRange, lines: &mut [MetaLine]) -> Vec<u64> {
    let slots = [const { ExtentSlot::new() }; 1];
    let pgmap = Pgmap::new(Owner, Policy::generic(), &slots);
    add(&pgmap, range, lines).unwrap();
    assert_eq!(pgmap.check().unwrap().free_pages, range.nr_pages());
    pgmap.image()
}

/// An owner has both of two extents exactly if they are disjoint, and is as it was if not.
fn try_pair_of_one(pair: Pair<'_>) {
    let Pair { first, second, is_shared, alone, lines: [one, two] } = pair;
    let slots = [const { ExtentSlot::new() }; 2];
    let pgmap = Pgmap::new(Owner, Policy::generic(), &slots);
    add(&pgmap, first, one).unwrap();
    let added = add(&pgmap, second, two);
    if is_shared {
        let error = AddExtentError::Overlap { range: second, existing: first };
        assert_eq!(added, Err(error));
        assert_eq!(pgmap.image(), alone, "{first} and {second}");
        assert!(pgmap.extents().map(|(range, _)| range).eq([first]));
    } else {
        assert_eq!(added, Ok(()), "{first} and {second}");
        assert!(pgmap.extents().map(|(range, _)| range).eq([first, second]));
        let nr_pages = first.nr_pages() + second.nr_pages();
        assert_eq!(pgmap.check().unwrap().free_pages, nr_pages);
    }
}

/// Of two owners behind a directory, the second one is refused what the first one has.
fn try_pair_of_two(pair: Pair<'_>) {
    let Pair { first, second, is_shared, alone, lines: [one, two] } = pair;
    let (low_slots, high_slots) = ([const { ExtentSlot::new() }; 1], [const { ExtentSlot::new() }]);
    let low = Pgmap::new(Owner, Policy::generic(), &low_slots);
    let high = Pgmap::new(Owner, Policy::generic(), &high_slots);
    let dir_slots = [const { DirSlot::new() }; 2];
    let directory = Directory::new(&dir_slots);
    directory.register(&low).unwrap();
    directory.register(&high).unwrap();
    let (attrs, attach) = (ExtentAttrs::NEW, Attach::Clear);
    directory.add_extent(&low, first, attrs, Tables::Dense, one, attach).unwrap();
    let added = directory.add_extent(&high, second, attrs, Tables::Dense, two, attach);
    if is_shared {
        let error = AddExtentError::Overlap { range: second, existing: first };
        assert_eq!(added, Err(error));
        assert_eq!((&low.image()[..], high.extents().count()), (alone, 0), "{first} and {second}");
    } else {
        assert_eq!(added, Ok(()), "{first} and {second}");
        assert_eq!(high.check().unwrap().free_pages, second.nr_pages());
    }
}

/// An owner that comes with an extent is registered exactly if no other has a page of it.
fn try_registration(pair: Pair<'_>) {
    let Pair { first, second, is_shared, alone: _, lines: [one, two] } = pair;
    let (low_slots, high_slots) = ([const { ExtentSlot::new() }; 1], [const { ExtentSlot::new() }]);
    let low = Pgmap::new(Owner, Policy::generic(), &low_slots);
    let high = Pgmap::new(Owner, Policy::generic(), &high_slots);
    add(&low, first, one).unwrap();
    add(&high, second, two).unwrap();
    let dir_slots = [const { DirSlot::new() }; 2];
    let directory = Directory::new(&dir_slots);
    directory.register(&low).unwrap();
    let registered = directory.register(&high);
    let is_known = directory.query(second.start()).is_some();
    if is_shared {
        let error = RegisterError::Overlap { range: second, existing: first };
        assert_eq!(registered, Err(error));
        assert_eq!(is_known, first.contains(second.start()), "{first} and {second}");
    } else {
        assert_eq!((registered, is_known), (Ok(()), true), "{first} and {second}");
    }
}

#[test]
fn one_owner_has_two_extents_exactly_if_they_are_disjoint() {
    for_all_pairs(0, try_pair_of_one);
}

#[test]
fn two_owners_have_two_extents_exactly_if_they_are_disjoint() {
    for_all_pairs(TOP_32, try_pair_of_two);
}

#[test]
fn an_owner_is_registered_exactly_if_its_extent_is_disjoint_from_all_others() {
    for_all_pairs(TOP_32, try_registration);
}

/// The largest aligned blocks that fill `start..end`, lowest first; pages as numbers of more bits
/// than space has.
fn tiling(start: u128, end: u128) -> Vec<(u64, u8)> {
    let mut tiles = Vec::new();
    let mut at = start;
    while at < end {
        let fits = |order: &u8| at % (1 << order) == 0 && at + (1 << order) <= end;
        let order = (0..=18).rev().find(fits).unwrap();
        tiles.push((at as u64, order));
        at += 1 << order;
    }
    tiles
}

/// Attaches an extent with a line less than it takes, and then with exactly as many.
fn try_extent(range: PfnRange, tables: Tables) {
    let nr_lines = MetaSize::of(range, tables).lines();
    let [mut few, mut lines] = [nr_lines - 1, nr_lines]
        .map(|nr| (0..nr).map(|_| MetaLine::ZERO).collect::<Vec<MetaLine>>());
    let slots = [const { ExtentSlot::new() }; 1];
    let pgmap = Pgmap::new(Owner, Policy::generic(), &slots);
    let (attrs, attach) = (ExtentAttrs::NEW, Attach::Zeroed);
    let untouched = pgmap.image();
    let refused = pgmap.add_extent(range, attrs, tables, &mut few, attach);
    let (needed, given) = (nr_lines as u64, nr_lines as u64 - 1);
    assert_eq!(refused, Err(AddExtentError::MetaShort { needed, given }));
    assert_eq!((pgmap.image(), pgmap.extents().count()), (untouched, 0));
    pgmap.add_extent(range, attrs, tables, &mut lines, attach).unwrap();
    assert_eq!(pgmap.check().unwrap().free_pages, range.nr_pages());

    let mut pages: Vec<_> = (0..range.nr_pages())
        .map(|_| pgmap.alloc(Order::ZERO).unwrap_or_else(|error| panic!("{range}: {error}")))
        .collect();
    assert!(matches!(pgmap.alloc(Order::ZERO), Err(AllocError::Exhausted { .. })));
    pages.sort_by_key(|page| page.head());
    let numbers = pages.iter().map(|page| page.head().as_u64());
    assert!(numbers.eq(range.start().as_u64()..=range.last().as_u64()), "{range}");
    pgmap.check().unwrap();
    pages.into_iter().for_each(|page| page.release());

    let report = pgmap.check().unwrap();
    assert_eq!((report.free_pages, report.nr_folios), (range.nr_pages(), 0));
    let start = u128::from(range.start().as_u64());
    let tiles = tiling(start, start + u128::from(range.nr_pages()));
    let mut by_order = [0; 19];
    tiles.iter().for_each(|&(_, order)| by_order[usize::from(order)] += 1);
    assert_eq!(pgmap.stats().free_by_order, by_order, "{range}");
    assert!(pgmap.free_runs().eq([range]));
    let largest = tiles.iter().map(|tile| tile.1).max().unwrap();
    let above = Order::new(largest + 1).unwrap();
    assert!(matches!(pgmap.alloc(above), Err(AllocError::Exhausted { .. })), "{range}");
    let claims = tiles.iter().map(|&(head, order)| (Pfn::new(head), Order::new(order).unwrap()));
    let folios: Vec<_> = claims.map(|(head, order)| pgmap.claim(head, order).unwrap()).collect();
    assert_eq!(pgmap.stats().free_pages, 0, "{range}");
    drop(folios);
    assert_eq!(pgmap.stats().free_by_order, by_order, "{range}");
}

#[test]
fn each_extent_tells_its_own_pinned_and_mapped_folios() {
    let ranges = [range(0, 64), range(64, 64)];
    let mut memory = ranges.map(|it| {
        let nr_lines = MetaSize::of(it, Tables::Dense).lines();
        (0..nr_lines).map(|_| MetaLine::ZERO).collect::<Vec<_>>()
    });
    let slots = [const { ExtentSlot::new() }; 2];
    let pgmap = Pgmap::new(Owner, Policy::generic(), &slots);
    for (range, lines) in ranges.into_iter().zip(&mut memory) {
        add(&pgmap, range, lines).unwrap();
    }
    let folio =
        |head, order| pgmap.claim(Pfn::new(head), Order::new(order).unwrap()).unwrap().publish();
    let (pinned, mapped) = (folio(0, 3), folio(8, 1));
    let (both, neither) = (folio(64, 4), folio(80, 0));
    let pins = [
        pinned.pin(PinKind::Short).unwrap(),
        pinned.pin(PinKind::Longterm).unwrap(),
        both.pin(PinKind::Short).unwrap(),
    ];
    let maps = [mapped.map(5).unwrap(), both.map(1).unwrap()];
    let tally = |nr_folios, nr_pages| Tally { nr_folios, nr_pages };
    let of = |page| {
        let stats = pgmap.extent_stats(Pfn::new(page)).unwrap();
        (stats.live, stats.pinned, stats.mapped)
    };
    assert_eq!(of(63), (tally(2, 10), tally(1, 8), tally(1, 2)));
    assert_eq!(of(64), (tally(2, 17), tally(1, 16), tally(1, 16)));
    let all = pgmap.stats();
    assert_eq!((all.live, all.pinned, all.mapped), (tally(4, 27), tally(2, 24), tally(2, 18)));
    assert_eq!(pgmap.extent_stats(Pfn::new(128)), None);
    // A folio counts as long as there is a pin, or a mapping, whatever else holds it.
    drop((pinned, mapped, both, neither));
    assert_eq!(of(0), (tally(2, 10), tally(1, 8), tally(1, 2)));
    let [first, second, third] = pins;
    drop((first, third));
    assert_eq!(of(0), (tally(2, 10), tally(1, 8), tally(1, 2)), "one pin of two is left");
    assert_eq!(of(64), (tally(1, 16), tally(0, 0), tally(1, 16)));
    drop((second, maps));
    assert_eq!((pgmap.stats().pinned, pgmap.stats().mapped), (tally(0, 0), tally(0, 0)));
}

/// Tries all extents of less than 64 pages that begin within 64 pages from `origin` on.
fn try_all_from(origin: u64) {
    let mut nr_extents = 0;
    for start in (0..64).map(|base| origin + base) {
        for nr_pages in 0..64 {
            let range = PfnRange::new(Pfn::new(start), nr_pages);
            let is_beyond = u128::from(start) + u128::from(nr_pages) > 1 << 64;
            let start = Pfn::new(start);
            match range {
                Ok(range) => {
                    assert!(nr_pages != 0 && !is_beyond, "{range}");
                    try_extent(range, Tables::Dense);
                    nr_extents += 1;
                }
                Err(RangeError::Empty { start: at }) => assert_eq!((at, nr_pages), (start, 0)),
                Err(RangeError::PastTop { start: at, nr_pages: nr }) => {
                    assert_eq!((at, nr, is_beyond), (start, nr_pages, true));
                }
                Err(other) => panic!("{other:?}"),
            }
        }
    }
    // At the top of space, those that begin at page i from the end have at most i + 1 pages.
    let all = if origin == TOP_64 { 63 * 64 / 2 + 63 } else { 64 * 63 };
    assert_eq!(nr_extents, all);
}

#[test]
fn every_small_extent_is_all_free_page_by_page_and_as_a_whole() {
    try_all_from(0);
}

#[test]
fn every_small_extent_at_a_block_border_is_all_free() {
    try_all_from(0x200 - 32);
}

#[test]
fn every_small_extent_at_a_region_border_is_all_free() {
    try_all_from((1 << 18) - 32);
}

#[test]
fn every_small_extent_at_the_top_of_space_is_all_free() {
    try_all_from(TOP_64);
}

#[test]
fn tables_for_the_ends_of_an_extent_suffice_and_one_less_is_refused() {
    for start in (0x200 - 32)..(0x200 + 32) {
        for nr_pages in (1..64).chain(448..577) {
            let range = range(start, nr_pages);
            // A block takes a table for its pages exactly if the extent has a part of it alone.
            let end = start + nr_pages;
            let is_cut = |block: &u64| start > block << 9 || end < (block + 1) << 9;
            let needed = ((start >> 9)..=(end - 1) >> 9).filter(is_cut).count() as u32;
            let mut lines = used_lines();
            let slots = [const { ExtentSlot::new() }; 1];
            let pgmap = Pgmap::new(Owner, Policy::generic(), &slots);
            let (attrs, attach) = (ExtentAttrs::NEW, Attach::Clear);
            if let Some(given) = needed.checked_sub(1) {
                let tables = Tables::Budget(given);
                let few = pgmap.add_extent(range, attrs, tables, &mut lines, attach);
                assert_eq!(few, Err(AddExtentError::TablesShort { needed, given }));
            }
            if needed != 0 && nr_pages < 64 {
                try_extent(range, Tables::Budget(needed));
            }
        }
    }
}
