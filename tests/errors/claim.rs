//! Claims by page that are refused.

use devfolio::{ClaimError, FolioDesc, Order, Pfn, Policy, Tables};

use crate::world::{BLOCK, attach, order, range, refused, world, world_of};

const START: Pfn = Pfn::new(0x1000);

#[test]
fn pages_outside_are_named() {
    let pgmap = world();
    for (head, order) in [
        (0, Order::ZERO),
        (0xfff, Order::ZERO),
        (0x1000 + 4 * BLOCK, Order::BLOCK),
        (0x1000, order(12)),
        (u64::MAX, Order::ZERO),
        (u64::MAX - (Order::REGION.nr_pages() - 1), Order::REGION),
    ] {
        let error = refused(pgmap, || pgmap.claim(Pfn::new(head), order));
        assert_eq!(error, ClaimError::Outside { range: range(head, order.nr_pages()) });
    }
}

#[test]
fn a_range_lies_in_one_extent() {
    let pgmap = world();
    attach(pgmap, range(0x1000 + 4 * BLOCK, BLOCK), Tables::Dense);
    let mut descs = [FolioDesc::EMPTY; 8];
    for range in [range(0x1000 + 3 * BLOCK, 2 * BLOCK), range(0xfff, 2), range(0x1000, 6 * BLOCK)] {
        let error = refused(pgmap, || pgmap.claim_range(range, &mut descs));
        assert_eq!(error, ClaimError::Outside { range });
    }
}

#[test]
fn a_head_is_aligned_to_its_order() {
    let pgmap = world();
    for (head, order) in [(0x1001, order(1)), (0x1100, Order::BLOCK), (0x1000, order(13))] {
        let head = Pfn::new(head);
        let error = refused(pgmap, || pgmap.claim(head, order));
        assert_eq!(error, ClaimError::Misaligned { head, order });
    }
}

#[test]
fn the_first_page_in_the_way_is_named() {
    let pgmap = world();
    let pfn = Pfn::new(0x1000 + BLOCK + 17);
    let one = pgmap.claim(pfn, Order::ZERO).unwrap();
    let other = pgmap.claim(Pfn::new(0x1000 + 3 * BLOCK), Order::BLOCK).unwrap();
    let mut descs = [FolioDesc::EMPTY; 64];
    for order in [order(10), order(11)] {
        let error = refused(pgmap, || pgmap.claim(START, order));
        assert_eq!(error, ClaimError::Busy { pfn });
    }
    let error = refused(pgmap, || pgmap.claim(pfn, Order::ZERO));
    assert_eq!(error, ClaimError::Busy { pfn });
    let whole = range(0x1000, 4 * BLOCK);
    let error = refused(pgmap, || pgmap.claim_range(whole, &mut descs));
    assert_eq!(error, ClaimError::Busy { pfn });

    // Also if the folio that is in the way began before the range.
    let pfn = Pfn::new(0x1000 + 3 * BLOCK + 5);
    let error = refused(pgmap, || pgmap.claim_range(range(pfn.as_u64(), 3), &mut descs));
    assert_eq!(error, ClaimError::Busy { pfn });
    drop((one, other));
}

#[test]
fn a_claim_needs_a_table_for_the_block_that_it_fractures() {
    let pgmap = world_of(Policy::generic(), Tables::Budget(1));
    let mut descs = [FolioDesc::EMPTY; 64];
    let across = range(0x1000 + BLOCK - 1, 2);
    let error = refused(pgmap, || pgmap.claim_range(across, &mut descs));
    assert!(matches!(error, ClaimError::NoTables { .. }), "{error:?}");

    let first = pgmap.claim(START, Order::ZERO).unwrap();
    let pfn = Pfn::new(0x1000 + BLOCK);
    let error = refused(pgmap, || pgmap.claim(pfn, Order::ZERO));
    assert_eq!(error, ClaimError::NoTables { pfn });
    let error = refused(pgmap, || pgmap.claim_range(across, &mut descs));
    assert_eq!(error, ClaimError::NoTables { pfn });

    // Whole blocks need none.
    let range = range(0x1000 + BLOCK, 3 * BLOCK);
    let set = pgmap.claim_range(range, &mut descs).unwrap();
    assert_eq!(set.len(), 2);
    drop((first, set));
}

#[test]
fn an_order_above_the_limit_is_refused_as_such() {
    let pgmap = world_of(Policy { max_order: order(4), ..Policy::generic() }, Tables::Dense);
    let (order, max) = (order(5), order(4));
    let error = refused(pgmap, || pgmap.claim(START, order));
    assert_eq!(error, ClaimError::OrderTooLarge { order, max });

    // A range asks for pages, not for an order.
    let mut descs = [FolioDesc::EMPTY; 2];
    let set = pgmap.claim_range(range(0x1000, 32), &mut descs).unwrap();
    assert_eq!(set.iter().map(|(_, order)| order).collect::<Vec<_>>(), [max, max]);
}

#[test]
fn short_storage_is_told_exactly() {
    let pgmap = world();
    let mut descs = [FolioDesc::EMPTY; 3];
    let error = refused(pgmap, || pgmap.claim_range(range(0x1003, 10), &mut descs));
    assert_eq!(error, ClaimError::TooManyPieces { needed: 4, len: 3 });
    let error = refused(pgmap, || pgmap.claim_range(range(0x1000, 1), &mut []));
    assert_eq!(error, ClaimError::TooManyPieces { needed: 1, len: 0 });
}

#[test]
fn a_dying_pgmap_lets_nobody_claim() {
    let pgmap = world();
    let folio = pgmap.claim(START, Order::ZERO).unwrap();
    pgmap.kill();
    let next = Pfn::new(0x1001);
    assert_eq!(refused(pgmap, || pgmap.claim(next, Order::ZERO)), ClaimError::Dying);
    let mut descs = [FolioDesc::EMPTY; 3];
    let error = refused(pgmap, || pgmap.claim_range(range(0x1001, 1), &mut descs));
    assert_eq!(error, ClaimError::Dying);
    drop(folio);
}
