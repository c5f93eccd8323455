//! Why nothing is planned, and why nothing is moved.

use devfolio::{
    ClaimError, FolioInfo, FolioKind, MovingReason, Obstacle, Order, Pfn, RangeError,
    ReleasePlanError, StepRefused,
};

use super::error;
use super::world::{order, range};

const PFN: Pfn = Pfn::new(0x42);

fn info(kind: FolioKind) -> FolioInfo {
    let (head, order) = (Pfn::new(0x40), order(3));
    FolioInfo { head, order, kind, refs: 1, pins: 2, mappings: 3, is_closed: false }
}

#[test]
fn plans() {
    let (pfn, order) = (PFN, order(3));
    let folio = info(FolioKind::Live);
    error! {
        ReleasePlanError::Refused => "Refused", "contents of this memory stay where they are";
        ReleasePlanError::Outside { range: range(0x40, 2) } =>
            "Outside { range: PfnRange(0x40..=0x41) }",
            "no extent has all of 0x40..=0x41";
        ReleasePlanError::Gone { range: range(0x40, 2) } =>
            "Gone { range: PfnRange(0x40..=0x41) }",
            "the device of 0x40..=0x41 is gone";
        ReleasePlanError::InTheWay(Obstacle::Bad { pfn }) =>
            "InTheWay(Bad { pfn: Pfn(0x42) })",
            "page 0x42 is bad";
        ReleasePlanError::NotEnough { wanted: 3, found: 2, obstacle: None } =>
            "NotEnough { wanted: 3, found: 2, obstacle: None }",
            "3 windows wanted where 2 can be emptied";
        ReleasePlanError::NotEnough {
            wanted: 3,
            found: 2,
            obstacle: Some(Obstacle::Offline { pfn }),
        } =>
            "NotEnough { wanted: 3, found: 2, obstacle: Some(Offline { pfn: Pfn(0x42) }) }",
            "3 windows wanted where 2 can be emptied; page 0x42 is offline";
        ReleasePlanError::TooManyWindows { needed: 3, len: 2 } =>
            "TooManyWindows { needed: 3, len: 2 }",
            "3 windows in storage for 2";
        ReleasePlanError::TooManyMoves { needed: 3, len: 2 } =>
            "TooManyMoves { needed: 3, len: 2 }",
            "3 moves in storage for 2";
        ReleasePlanError::OverBudget { needed: 3, max: 2 } =>
            "OverBudget { needed: 3, max: 2 }",
            "3 pages to be moved, of which 2 are the limit";
        ReleasePlanError::NoRoom { from: pfn, order } =>
            "NoRoom { from: Pfn(0x42), order: Order(3) }",
            "no free run of order 3 for folio 0x42";
        ReleasePlanError::NoTables { from: pfn, order } =>
            "NoTables { from: Pfn(0x42), order: Order(3) }",
            "no fracture table for folio 0x42 of order 3";
        ReleasePlanError::Dying => "Dying", "the pgmap is being removed";
    }
    let shown = [
        Obstacle::Pinned { folio },
        Obstacle::NotLive { folio: info(FolioKind::Kept) },
        Obstacle::Larger { folio },
        Obstacle::Unsettled { pfn },
    ];
    assert_eq!(
        shown.map(|obstacle| obstacle.to_string()),
        [
            "folio 0x40 has 2 pins",
            "folio 0x40 is Kept",
            "folio 0x40 of order 3 is larger",
            "page 0x42 is on its way",
        ]
    );
}

#[test]
fn moves() {
    let (from, to) = (order(3), Order::BLOCK);
    error! {
        MovingReason::Refused => "Refused", "contents of this memory stay where they are";
        MovingReason::Orders { from, to } =>
            "Orders { from: Order(3), to: Order(9) }",
            "a folio of order 3 is no copy of one of order 9";
        MovingReason::Gone { head: PFN } =>
            "Gone { head: Pfn(0x42) }",
            "the device of folio 0x42 is gone";
        MovingReason::Refs { refs: 7, max: 6 } =>
            "Refs { refs: 7, max: 6 }",
            "a folio with 7 references where 1 to 6 can be";
        StepRefused::<RangeError>::Claim(ClaimError::Busy { pfn: PFN }) =>
            "Claim(Busy { pfn: Pfn(0x42) })",
            "page 0x42 is not free";
        StepRefused::<RangeError>::NotFrozen => "NotFrozen", "the folio could not be frozen";
        StepRefused::<RangeError>::Other => "Other", "another folio was frozen";
        StepRefused::<RangeError>::Moving(MovingReason::Refs { refs: 7, max: 6 }) =>
            "Moving(Refs { refs: 7, max: 6 })",
            "a folio with 7 references where 1 to 6 can be";
        StepRefused::Copy(RangeError::Empty { start: PFN }) =>
            "Copy(Empty { start: Pfn(0x42) })",
            "the copy failed: range at 0x42 has no page";
        StepRefused::Rehome(RangeError::Empty { start: PFN }) =>
            "Rehome(Empty { start: Pfn(0x42) })",
            "the owner stays: range at 0x42 has no page";
    }
}
