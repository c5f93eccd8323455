//! Parked folios that cannot be brought back.

use devfolio::{FolioInfo, FolioKind, Order, PageInfo, Pfn, ReviveError};

use crate::world::{BLOCK, Plain, Static, order, refused, world};

fn info(pgmap: Static<Plain>, pfn: Pfn) -> FolioInfo {
    match pgmap.query(pfn) {
        PageInfo::Folio(folio) => folio,
        other => panic!("{pfn:?} is {other:?}"),
    }
}

/// What all three ways back say of a page where nothing suitable starts.
fn refusals(pgmap: Static<Plain>, pfn: Pfn) -> [ReviveError; 3] {
    [
        refused(pgmap, || pgmap.revive(pfn)),
        refused(pgmap, || pgmap.claim_kept(pfn)),
        refused(pgmap, || pgmap.claim_retired(pfn)),
    ]
}

#[test]
fn pages_without_a_folio_are_told_apart() {
    let pgmap = world();
    for pfn in [0, 0xfff, 0x1000 + 4 * BLOCK, u64::MAX].map(Pfn::new) {
        assert_eq!(refusals(pgmap, pfn), [ReviveError::Outside { pfn }; 3]);
    }
    for pfn in [0x1000, 0x1000 + 4 * BLOCK - 1].map(Pfn::new) {
        assert_eq!(refusals(pgmap, pfn), [ReviveError::Free { pfn }; 3]);
    }
}

#[test]
fn a_folio_in_use_is_not_parked() {
    let pgmap = world();
    let unique = pgmap.alloc(order(2)).unwrap();
    let pfn = unique.head();
    let folio = info(pgmap, pfn);
    assert_eq!(folio.kind, FolioKind::Unique);
    assert_eq!(refusals(pgmap, pfn), [ReviveError::WrongState { pfn, folio }; 3]);

    let live = unique.publish();
    let folio = info(pgmap, pfn);
    assert_eq!((folio.kind, folio.refs), (FolioKind::Live, 1));
    assert_eq!(refusals(pgmap, pfn), [ReviveError::WrongState { pfn, folio }; 3]);
    drop(live);
}

#[test]
fn each_state_has_its_own_way_back() {
    let pgmap = world();
    let kept = pgmap.alloc(order(2)).unwrap();
    let pfn = kept.head();
    kept.keep();
    let folio = info(pgmap, pfn);
    assert_eq!(folio.kind, FolioKind::Kept);
    let error = refused(pgmap, || pgmap.claim_retired(pfn));
    assert_eq!(error, ReviveError::WrongState { pfn, folio });

    pgmap.claim_kept(pfn).unwrap().retire();
    let folio = info(pgmap, pfn);
    assert_eq!(folio.kind, FolioKind::Retired);
    let wrong = ReviveError::WrongState { pfn, folio };
    assert_eq!(refused(pgmap, || pgmap.revive(pfn)), wrong);
    assert_eq!(refused(pgmap, || pgmap.claim_kept(pfn)), wrong);
    pgmap.claim_retired(pfn).unwrap().release();
    assert_eq!(pgmap.stats().free_pages, 4 * BLOCK);
}

#[test]
fn only_the_head_brings_a_folio_back() {
    let pgmap = world();
    let kept = pgmap.alloc(order(2)).unwrap();
    let (head, pfn) = (kept.head(), kept.range().last());
    kept.keep();
    let folio = info(pgmap, pfn);
    assert_eq!(folio.head, head);
    assert_eq!(refusals(pgmap, pfn), [ReviveError::WrongState { pfn, folio }; 3]);
    pgmap.claim_kept(head).unwrap().release();
}

#[test]
fn the_dying_are_emptied_but_not_revived() {
    let pgmap = world();
    let kept = pgmap.alloc(Order::ZERO).unwrap();
    let head = kept.head();
    kept.keep();
    pgmap.kill();
    assert_eq!(refused(pgmap, || pgmap.revive(head)), ReviveError::Dying);
    pgmap.claim_kept(head).unwrap().release();
    assert_eq!(pgmap.state(), devfolio::Life::Drained);
}
