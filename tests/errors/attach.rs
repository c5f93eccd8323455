//! Extents that cannot be added.

use core::mem::MaybeUninit;

use devfolio::{
    AddExtentError, Attach, ExtentAttrs, MetaSize, Order, PageInfo, Pfn, PfnRange, Pgmap, PgmapOps,
    Policy, RangeError, Tables,
};

use crate::world::{BLOCK, Plain, Static, Tagged, attach, bare, lines, range, refused, world};

/// Adds `range` with so many lines fewer than it takes.
fn add(
    pgmap: Static<Plain>,
    range: PfnRange,
    tables: Tables,
    nr_missing: usize,
) -> Result<(), AddExtentError> {
    let lines = lines(MetaSize::of(range, tables).lines() - nr_missing);
    pgmap.add_extent(range, ExtentAttrs::NEW, tables, lines, Attach::Zeroed)
}

#[test]
fn there_is_no_empty_range_and_none_past_the_top() {
    let top = Pfn::new(u64::MAX);
    assert_eq!(PfnRange::new(top, 0), Err(RangeError::Empty { start: top }));
    assert_eq!(PfnRange::new(top, 2), Err(RangeError::PastTop { start: top, nr_pages: 2 }));
    assert_eq!(PfnRange::new(top, 1).unwrap().last(), top);
}

#[test]
fn an_overlap_names_both_ranges() {
    let pgmap = world();
    let existing = range(0x1000, 4 * BLOCK);
    let overlaps = [
        existing,
        range(0x1000 + BLOCK, 1),
        range(0xfff, 4 * BLOCK + 2),
        range(0x1000 - BLOCK, BLOCK + 1),
        range(0x1000 + 4 * BLOCK - 1, BLOCK),
    ];
    for range in overlaps {
        let error = refused(pgmap, || add(pgmap, range, Tables::Dense, 0));
        assert_eq!(error, AddExtentError::Overlap { range, existing });
    }
}

#[test]
fn neighbours_do_not_overlap() {
    let pgmap = bare(Plain, Policy::generic(), 3);
    for start in [0x1000, 0x1000 - BLOCK, 0x1000 + BLOCK] {
        attach(pgmap, range(start, BLOCK), Tables::Dense);
    }
    assert_eq!(pgmap.stats().nr_pages, 3 * BLOCK);
}

#[test]
fn short_metadata_says_how_much_is_needed() {
    let pgmap = bare(Plain, Policy::generic(), 1);
    let range = range(0x7, 3 * BLOCK);
    let nr_lines = MetaSize::of(range, Tables::Dense).lines();
    for nr_missing in [1, 2, nr_lines] {
        let error = refused(pgmap, || add(pgmap, range, Tables::Dense, nr_missing));
        let (needed, given) = (nr_lines as u64, (nr_lines - nr_missing) as u64);
        assert_eq!(error, AddExtentError::MetaShort { needed, given });
    }

    // The refusals have not used the only slot up.
    add(pgmap, range, Tables::Dense, 0).unwrap();
    assert_eq!(pgmap.stats().free_pages, 3 * BLOCK);
}

#[test]
fn cut_blocks_need_tables_at_once() {
    let pgmap = bare(Plain, Policy::generic(), 1);
    for (start, nr_pages, needed) in [(1, BLOCK - 1, 1), (1, BLOCK, 2), (BLOCK - 1, 2, 2)] {
        let given = needed - 1;
        let range = range(start, nr_pages);
        let error = refused(pgmap, || add(pgmap, range, Tables::Budget(given), 0));
        assert_eq!(error, AddExtentError::TablesShort { needed, given });
    }
    add(pgmap, range(0, BLOCK), Tables::Budget(0), 0).unwrap();
}

#[test]
fn too_few_places_for_owner_data_are_refused() {
    let pgmap: Static<Tagged> = bare(Tagged, Policy::generic(), 1);
    let range = range(0, 2 * BLOCK);
    let size = MetaSize::of(range, Tables::Budget(1));
    let add = |given: usize| {
        let places: Vec<_> = (0..given).map(|_| MaybeUninit::uninit()).collect();
        let (tables, lines) = (Tables::Budget(1), lines(size.lines()));
        let attrs = ExtentAttrs::NEW;
        pgmap.add_extent_with_private(range, attrs, tables, lines, Attach::Clear, places.leak())
    };
    let needed = size.private_slots() as u64;
    let given = needed - 1;
    let error = refused(pgmap, || add(size.private_slots() - 1));
    assert_eq!(error, AddExtentError::PrivateShort { needed, given });
    let error = refused(pgmap, || add(0));
    assert_eq!(error, AddExtentError::PrivateShort { needed, given: 0 });
    add(size.private_slots()).unwrap();
}

#[test]
fn a_full_table_of_slots_is_told() {
    let pgmap = bare(Plain, Policy::generic(), 0);
    let error = refused(pgmap, || add(pgmap, range(0, 1), Tables::Dense, 0));
    assert_eq!(error, AddExtentError::NoSlot { nr_slots: 0 });

    let pgmap = bare(Plain, Policy::generic(), 2);
    attach(pgmap, range(0, 1), Tables::Dense);
    attach(pgmap, range(2, 1), Tables::Dense);
    let error = refused(pgmap, || add(pgmap, range(4, 1), Tables::Dense, 0));
    assert_eq!(error, AddExtentError::NoSlot { nr_slots: 2 });
}

#[test]
fn an_extent_has_a_largest_size() {
    let pgmap = bare(Plain, Policy::generic(), 1);
    let max = MetaSize::pages_max();
    let range = range(0, max + 1);
    // The saturated size cannot be lent, so what is lent does not matter.
    let lines = lines(1);
    let error = refused(pgmap, || {
        pgmap.add_extent(range, ExtentAttrs::NEW, Tables::Budget(0), lines, Attach::Zeroed)
    });
    assert_eq!(error, AddExtentError::TooLarge { nr_pages: max + 1, max });
}

#[test]
fn a_dying_pgmap_takes_no_extent() {
    let pgmap = world();
    let folio = pgmap.alloc(Order::ZERO).unwrap().publish();
    pgmap.kill();
    let error = refused(pgmap, || add(pgmap, range(0, BLOCK), Tables::Dense, 0));
    assert_eq!(error, AddExtentError::Dying);
    drop(folio);
}

#[test]
fn the_last_page_of_space_is_a_page_like_any_other() {
    let pgmap = bare(Plain, Policy::generic(), 1);
    let first = u64::MAX - (BLOCK + 2);
    attach(pgmap, range(first, BLOCK + 3), Tables::Dense);

    let last = pgmap.claim(Pfn::new(u64::MAX), Order::ZERO).unwrap().publish();
    assert!(matches!(pgmap.query(Pfn::new(u64::MAX)), PageInfo::Folio(folio) if folio.refs == 1));
    assert_eq!(pgmap.try_get(Pfn::new(u64::MAX)).unwrap().head(), last.head());
    assert_eq!(pgmap.query(Pfn::new(0)), PageInfo::Outside);
    assert_eq!(pgmap.query(Pfn::new(first - 1)), PageInfo::Outside);
    drop(last);
    assert_eq!(pgmap.stats().largest_free_run, BLOCK + 3);
}

#[test]
fn pgmaps_may_share_a_table_of_slots() {
    let slots = [const { devfolio::ExtentSlot::new() }; 2];
    let one = Pgmap::new(Plain, Policy::generic(), &slots);
    let two = Pgmap::new(Plain, Policy::generic(), &slots);
    for pgmap in [&one, &two, &one] {
        let (range, tables) = (range(0, BLOCK), Tables::Dense);
        let lines = lines(MetaSize::of(range, tables).lines());
        let _ = pgmap.add_extent(range, ExtentAttrs::NEW, tables, lines, Attach::Zeroed);
    }
    for pgmap in [&one, &two] {
        assert_eq!(pgmap.extents().count(), 1);
        assert_eq!(pgmap.alloc(Order::BLOCK).unwrap().head(), Pfn::new(0));
    }
}

/// An owner type whose data is only ever made by the crate.
struct Unit;

impl PgmapOps for Unit {
    type Private = [u8; 0];
}

#[test]
fn empty_owner_data_needs_no_places() {
    let pgmap = bare(Unit, Policy::generic(), 1);
    let (range, tables) = (range(0, BLOCK), Tables::Dense);
    let lines = lines(MetaSize::of(range, tables).lines());
    pgmap.add_extent(range, ExtentAttrs::NEW, tables, lines, Attach::Zeroed).unwrap();
    assert_eq!(pgmap.alloc(Order::ZERO).unwrap().private(), &[0_u8; 0]);
}
