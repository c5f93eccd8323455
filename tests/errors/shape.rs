//! Splits and merges that are refused, and give their folios back.

use devfolio::{MergeReason, Order, Pfn, Policy, SplitReason, Tables};

use crate::world::{BLOCK, Plain, Snapshot, attach, bare, order, range, refused, world, world_of};

#[test]
fn a_split_does_not_grow() {
    let pgmap = world();
    let folio = pgmap.alloc(order(2)).unwrap();
    let head = folio.head();
    let (order, max) = (order(3), order(2));
    let reason = SplitReason::OrderTooLarge { order, max };
    let error = refused(pgmap, || folio.split(order));
    assert_eq!((error.reason, error.folio.head()), (reason, head));
    let error = refused(pgmap, || error.folio.split_around(head, order));
    assert_eq!((error.reason, error.folio.order()), (reason, max));
}

#[test]
fn a_part_lies_in_its_folio() {
    let pgmap = world();
    let mut folio = pgmap.claim(Pfn::new(0x1010), order(4)).unwrap();
    let whole = folio.range();
    for part in [range(0x100f, 1), range(0x1020, 1), range(0, 1), range(u64::MAX, 1)] {
        let reason = SplitReason::NotPart { part, folio: whole };
        let error = refused(pgmap, || folio.split_around(part.start(), Order::ZERO));
        assert_eq!(error.reason, reason);
        folio = error.folio;
    }
    for part in [range(0x100f, 2), range(0x101f, 2), range(0x1000, 0x30), range(0, 1)] {
        let reason = SplitReason::NotPart { part, folio: whole };
        let error = refused(pgmap, || folio.trim(part));
        assert_eq!(error.reason, reason);
        let error = refused(pgmap, || error.folio.release_part(part));
        assert_eq!(error.reason, reason);
        folio = error.folio;
    }
    assert_eq!(folio.range(), whole);
}

#[test]
fn a_split_counts_its_tables_first() {
    let pgmap = world_of(Policy::generic(), Tables::Budget(1));
    let folio = pgmap.alloc(order(11)).unwrap();
    let error = refused(pgmap, || folio.split(order(8)));
    assert_eq!(error.reason, SplitReason::NoTables { needed: 4, left: 1 });

    // Whole blocks need no table, and one block has its own.
    let across = range(0x1000 + BLOCK - 1, 2);
    let error = refused(pgmap, || error.folio.release_part(across));
    assert_eq!(error.reason, SplitReason::NoTables { needed: 2, left: 1 });
    let error = refused(pgmap, || error.folio.trim(across));
    assert_eq!(error.reason, SplitReason::NoTables { needed: 2, left: 1 });
    let (page, rest) = error.folio.split_around(Pfn::new(0x1001), Order::ZERO).unwrap();
    assert_eq!(pgmap.stats().tables_used, 1);
    let blocks: Vec<_> = rest.filter(|piece| Order::BLOCK <= piece.order()).collect();
    let [first, _] = <[_; 2]>::try_from(blocks).unwrap();
    let error = refused(pgmap, || first.split(order(3)));
    assert_eq!(error.reason, SplitReason::NoTables { needed: 1, left: 0 });
    drop(page);
}

#[test]
fn only_buddies_merge() {
    let pgmap = world();
    let claim = |head, order| pgmap.claim(Pfn::new(head), order).unwrap();
    let one = claim(0x1001, Order::ZERO);
    let (folio, buddy) = (range(0x1001, 1), range(0x1002, 1));
    let next = claim(0x1002, Order::ZERO);
    let error = refused(pgmap, || one.merge(next));
    assert_eq!(error.reason, MergeReason::NotBuddies { folio, buddy });

    let larger = claim(0x1004, order(1));
    let (folio, buddy) = (range(0x1002, 1), range(0x1004, 2));
    let error = refused(pgmap, || error.buddy.merge(larger));
    assert_eq!(error.reason, MergeReason::NotBuddies { folio, buddy });
    assert_eq!((error.folio.range(), error.buddy.range()), (folio, buddy));
}

#[test]
fn extents_stay_apart() {
    // The two extents are neighbours, and their blocks would make one folio.
    let pgmap = bare(Plain, Policy::generic(), 2);
    attach(pgmap, range(0, BLOCK), Tables::Dense);
    attach(pgmap, range(BLOCK, BLOCK), Tables::Dense);
    let one = pgmap.claim(Pfn::new(0), Order::BLOCK).unwrap();
    let two = pgmap.claim(Pfn::new(BLOCK), Order::BLOCK).unwrap();
    let (folio, buddy) = (one.range(), two.range());
    let error = refused(pgmap, || one.merge(two));
    assert_eq!(error.reason, MergeReason::Apart { folio, buddy });
}

#[test]
fn pgmaps_stay_apart() {
    // Same type, same pages, and yet no buddies.
    let (mine, theirs) = (world(), world());
    let one = mine.claim(Pfn::new(0x1000), Order::ZERO).unwrap();
    let two = theirs.claim(Pfn::new(0x1001), Order::ZERO).unwrap();
    let (folio, buddy) = (one.range(), two.range());
    let before = Snapshot::of(theirs);
    let error = refused(mine, || one.merge(two));
    assert_eq!(Snapshot::of(theirs), before);
    assert_eq!(error.reason, MergeReason::Apart { folio, buddy });
}

#[test]
fn a_merge_stays_below_the_limit() {
    let pgmap = world_of(Policy { max_order: order(4), ..Policy::generic() }, Tables::Dense);
    let one = pgmap.claim(Pfn::new(0x1000), order(4)).unwrap();
    let two = pgmap.claim(Pfn::new(0x1010), order(4)).unwrap();
    let error = refused(pgmap, || one.merge(two));
    assert_eq!(error.reason, MergeReason::OrderTooLarge { order: order(4), max: order(4) });
}
