//! Every variant of every error, with values that tell its fields apart.

use devfolio::{
    AddExtentError, AdoptError, AllocError, CheckError, ClaimError, Count, CountError, DrainError,
    ExportError, ExtentAttrs, FolioInfo, FolioKind, FreeRangeError, GetError, HoldError,
    ImportError, LeaseError, LeaseInfo, LeaseState, MergeReason, OfflineError, OnlineError, Order,
    Pfn, PinError, PoisonError, PoisonListError, RangeError, RegisterError, RemoveError,
    ReviveError, RevokeError, RevokeWaitError, SplitReason, StillBusy, UnpoisonError, Untold,
    WaitError,
};

use super::error;
use super::world::{order, range};

const PFN: Pfn = Pfn::new(0x42);

fn info(kind: FolioKind) -> FolioInfo {
    let (head, order) = (Pfn::new(0x40), order(3));
    FolioInfo { head, order, kind, refs: 1, pins: 2, mappings: 3, is_closed: false }
}

#[test]
fn ranges() {
    error! {
        RangeError::Empty { start: PFN } =>
            "Empty { start: Pfn(0x42) }",
            "range at 0x42 has no page";
        RangeError::PastTop { start: Pfn::new(u64::MAX), nr_pages: 16 } =>
            "PastTop { start: Pfn(0xffffffffffffffff), nr_pages: 16 }",
            "range of 0x10 pages at 0xffffffffffffffff runs past the last pfn";
    }
}

#[test]
fn extents() {
    let (one, two) = (range(0x40, 0x40), range(0, 0x41));
    error! {
        AddExtentError::Overlap { range: one, existing: two } =>
            "Overlap { range: PfnRange(0x40..=0x7f), existing: PfnRange(0x0..=0x40) }",
            "extent 0x40..=0x7f overlaps extent 0x0..=0x40";
        AddExtentError::TooLarge { nr_pages: 9, max: 8 } =>
            "TooLarge { nr_pages: 9, max: 8 }",
            "extent of 9 pages, of which 8 are the limit";
        AddExtentError::MetaShort { needed: 9, given: 8 } =>
            "MetaShort { needed: 9, given: 8 }",
            "metadata of 8 lines where 9 are needed";
        AddExtentError::TablesShort { needed: 2, given: 1 } =>
            "TablesShort { needed: 2, given: 1 }",
            "budget of 1 tables where 2 are needed";
        AddExtentError::PrivateShort { needed: 9, given: 8 } =>
            "PrivateShort { needed: 9, given: 8 }",
            "owner data of 8 places where 9 are needed";
        AddExtentError::NoSlot { nr_slots: 4 } =>
            "NoSlot { nr_slots: 4 }",
            "all 4 extent slots are in use";
        AddExtentError::Dying => "Dying", "the pgmap is being removed";
        RegisterError::Overlap { range: one, existing: two } =>
            "Overlap { range: PfnRange(0x40..=0x7f), existing: PfnRange(0x0..=0x40) }",
            "extent 0x40..=0x7f overlaps extent 0x0..=0x40 of another owner";
        RegisterError::Twice => "Twice", "the owner is registered already";
        RegisterError::NoSlot { nr_slots: 4 } =>
            "NoSlot { nr_slots: 4 }",
            "all 4 owner slots are in use";
        FreeRangeError { nr_pages: 512, align: Order::BLOCK, within: one } =>
            "FreeRangeError { nr_pages: 512, align: Order(9), within: PfnRange(0x40..=0x7f) }",
            "no 512 unused page numbers aligned to order 9 in 0x40..=0x7f";
    }
}

#[test]
fn allocations() {
    let order = Order::BLOCK;
    error! {
        AllocError::Exhausted { order, kept_pages: 7, condemned_pages: 8 } =>
            "Exhausted { order: Order(9), kept_pages: 7, condemned_pages: 8 }",
            "no free run of order 9 (7 pages are kept, 8 condemned)";
        AllocError::NoTables { order } =>
            "NoTables { order: Order(9) }",
            "no fracture table left for order 9";
        AllocError::Contended { order } =>
            "Contended { order: Order(9) }",
            "too much contention to say about order 9";
        AllocError::OrderTooLarge { order: Order::MAX, max: order } =>
            "OrderTooLarge { order: Order(18), max: Order(9) }",
            "order 18 is above the limit of 9";
        AllocError::ClaimOnly => "ClaimOnly", "the owner alone chooses pages";
        AllocError::Dying => "Dying", "the pgmap, or each extent that would do, is being removed";
        AllocError::TooManyPieces { needed: 3, len: 2 } =>
            "TooManyPieces { needed: 3, len: 2 }",
            "set of 3 folios in storage for 2";
        AllocError::NotMultiple { nr_pages: 513, least: order } =>
            "NotMultiple { nr_pages: 513, least: Order(9) }",
            "513 pages are no multiple of order 9";
        AllocError::Inverted { order: Order::ZERO, least: order } =>
            "Inverted { order: Order(0), least: Order(9) }",
            "least order 9 above preferred order 0";
    }
}

#[test]
fn claims() {
    let (pfn, order) = (PFN, Order::BLOCK);
    error! {
        ClaimError::Outside { range: range(0x40, 2) } =>
            "Outside { range: PfnRange(0x40..=0x41) }",
            "no extent has all of 0x40..=0x41";
        ClaimError::Misaligned { head: pfn, order } =>
            "Misaligned { head: Pfn(0x42), order: Order(9) }",
            "page 0x42 is not aligned to order 9";
        ClaimError::Busy { pfn } => "Busy { pfn: Pfn(0x42) }", "page 0x42 is not free";
        ClaimError::NoTables { pfn } =>
            "NoTables { pfn: Pfn(0x42) }",
            "no fracture table left for page 0x42";
        ClaimError::Contended { pfn } =>
            "Contended { pfn: Pfn(0x42) }",
            "too much contention to say about page 0x42";
        ClaimError::OrderTooLarge { order: Order::MAX, max: order } =>
            "OrderTooLarge { order: Order(18), max: Order(9) }",
            "order 18 is above the limit of 9";
        ClaimError::Dying => "Dying", "the pgmap is being removed";
        ClaimError::TooManyPieces { needed: 3, len: 2 } =>
            "TooManyPieces { needed: 3, len: 2 }",
            "range of 3 folios in storage for 2";
        ClaimError::ScrubFailed { pfn } =>
            "ScrubFailed { pfn: Pfn(0x42) }",
            "the folio at 0x42 cannot be scrubbed";
        ClaimError::ScrubPending { pfn } =>
            "ScrubPending { pfn: Pfn(0x42) }",
            "the folio at 0x42 is yet to be scrubbed";
    }
}

#[test]
fn lookups() {
    let pfn = PFN;
    error! {
        GetError::Outside { pfn } => "Outside { pfn: Pfn(0x42) }", "no extent has page 0x42";
        GetError::NotLive { pfn } =>
            "NotLive { pfn: Pfn(0x42) }",
            "no live folio covers page 0x42";
        GetError::Closed { pfn } =>
            "Closed { pfn: Pfn(0x42) }",
            "the folio of page 0x42 is closed";
        GetError::Limit { head: pfn, have: 5, max: 6 } =>
            "Limit { head: Pfn(0x42), have: 5, max: 6 }",
            "folio 0x42 has 5 references, of which 6 are the limit";
        GetError::Dying => "Dying", "the pgmap is being removed";
        ReviveError::Outside { pfn } => "Outside { pfn: Pfn(0x42) }", "no extent has page 0x42";
        ReviveError::Free { pfn } => "Free { pfn: Pfn(0x42) }", "page 0x42 is free";
        ReviveError::WrongState { pfn, folio: info(FolioKind::Unique) } =>
            "WrongState { pfn: Pfn(0x42), folio: FolioInfo { head: Pfn(0x40), order: Order(3), \
             kind: Unique, refs: 1, pins: 2, mappings: 3, is_closed: false } }",
            "page 0x42 belongs to folio 0x40 in state Unique";
        ReviveError::Dying => "Dying", "the pgmap is being removed";
        StillBusy { pfn, folio: None } =>
            "StillBusy { pfn: Pfn(0x42), folio: None }",
            "page 0x42 is still in use";
        DrainError::NotKilled =>
            "NotKilled",
            "nobody has begun its removal, or it was called off";
        DrainError::Outside { pfn } => "Outside { pfn: Pfn(0x42) }", "no extent has page 0x42";
        DrainError::Busy(StillBusy { pfn, folio: None }) =>
            "Busy(StillBusy { pfn: Pfn(0x42), folio: None })",
            "page 0x42 is still in use";
        DrainError::Busy(StillBusy { pfn, folio: Some(info(FolioKind::Live)) }) =>
            "Busy(StillBusy { pfn: Pfn(0x42), folio: Some(FolioInfo { head: Pfn(0x40), \
             order: Order(3), kind: Live, refs: 1, pins: 2, mappings: 3, is_closed: false }) })",
            "page 0x42 is still in use: folio 0x40 of order 3 has 1 references, 2 pins and 3 \
             mappings";
        WaitError::Deadline { info: info(FolioKind::Live) } =>
            "Deadline { info: FolioInfo { head: Pfn(0x40), order: Order(3), kind: Live, refs: 1, \
             pins: 2, mappings: 3, is_closed: false } }",
            "folio 0x40 of order 3 still has 1 references, 2 pins and 3 mappings";
    }
}

#[test]
fn removals() {
    let (pfn, extent) = (PFN, range(0x40, 2));
    error! {
        RemoveError::Outside { pfn } => "Outside { pfn: Pfn(0x42) }", "no extent has page 0x42";
        RemoveError::NotDying { extent } =>
            "NotDying { extent: PfnRange(0x40..=0x41) }",
            "extent 0x40..=0x41 is not being removed";
        RemoveError::Busy(StillBusy { pfn, folio: None }) =>
            "Busy(StillBusy { pfn: Pfn(0x42), folio: None })",
            "page 0x42 is still in use";
        RemoveError::Gone { extent } =>
            "Gone { extent: PfnRange(0x40..=0x41) }",
            "the device of extent 0x40..=0x41 is gone";
        RemoveError::Dying => "Dying", "the pgmap is being removed";
    }
}

#[test]
fn poison() {
    let pfn = PFN;
    error! {
        PoisonError::Outside { pfn } => "Outside { pfn: Pfn(0x42) }", "no extent has page 0x42";
        PoisonError::NoRoom { pfn, max: 8 } =>
            "NoRoom { pfn: Pfn(0x42), max: 8 }",
            "no room for page 0x42 in a list of 8 bad pages";
        PoisonError::Contended { pfn } =>
            "Contended { pfn: Pfn(0x42) }",
            "too much contention for page 0x42";
        PoisonListError::Outside { pfn } => "Outside { pfn: Pfn(0x42) }", "no extent has page 0x42";
        PoisonListError::TooManyExtents { pfn, max: 16 } =>
            "TooManyExtents { pfn: Pfn(0x42), max: 16 }",
            "page 0x42 is in one more extent than the 16 of a list";
        PoisonListError::NoRoom { pfn, needed: 9, left: 8 } =>
            "NoRoom { pfn: Pfn(0x42), needed: 9, left: 8 }",
            "no room for page 0x42: 9 entries in a list with room for 8";
        PoisonListError::Contended { pfn } =>
            "Contended { pfn: Pfn(0x42) }",
            "too much contention for page 0x42";
        UnpoisonError::Outside { pfn } => "Outside { pfn: Pfn(0x42) }", "no extent has page 0x42";
        UnpoisonError::NotPoisoned { pfn } =>
            "NotPoisoned { pfn: Pfn(0x42) }",
            "page 0x42 is not known to be bad";
        UnpoisonError::Contended { pfn } =>
            "Contended { pfn: Pfn(0x42) }",
            "too much contention for page 0x42";
    }
}

#[test]
fn offline() {
    let (pfn, range) = (PFN, range(0x40, 2));
    error! {
        OfflineError::Outside { range } =>
            "Outside { range: PfnRange(0x40..=0x41) }",
            "no extent has all of 0x40..=0x41";
        OfflineError::NoRoom { range, needed: 3, left: 2 } =>
            "NoRoom { range: PfnRange(0x40..=0x41), needed: 3, left: 2 }",
            "0x40..=0x41 takes 3 entries of a list with room for 2";
        OfflineError::Contended { range } =>
            "Contended { range: PfnRange(0x40..=0x41) }",
            "too much contention for 0x40..=0x41";
        OnlineError::Outside { range } =>
            "Outside { range: PfnRange(0x40..=0x41) }",
            "no extent has all of 0x40..=0x41";
        OnlineError::NotOffline { pfn } =>
            "NotOffline { pfn: Pfn(0x42) }",
            "page 0x42 is not offline";
        OnlineError::NoRoom { range, needed: 3, left: 2 } =>
            "NoRoom { range: PfnRange(0x40..=0x41), needed: 3, left: 2 }",
            "around 0x40..=0x41 3 entries stay of a list with room for 2";
        OnlineError::Contended { range } =>
            "Contended { range: PfnRange(0x40..=0x41) }",
            "too much contention for 0x40..=0x41";
    }
}

#[test]
fn counts() {
    let (pfn, head) = (PFN, PFN);
    error! {
        CountError::Limit { count: Count::Refs, have: 5, max: 6 } =>
            "Limit { count: Refs, have: 5, max: 6 }",
            "5 references, of which 6 are the limit";
        CountError::Underflow { count: Count::Pins, have: 1, dropped: 2 } =>
            "Underflow { count: Pins, have: 1, dropped: 2 }",
            "2 pins dropped where 1 are held";
        CountError::Underflow { count: Count::Mappings, have: 1, dropped: 2 } =>
            "Underflow { count: Mappings, have: 1, dropped: 2 }",
            "2 mappings dropped where 1 are held";
        CountError::NotLive { pfn } =>
            "NotLive { pfn: Pfn(0x42) }",
            "no live folio covers page 0x42";
        CountError::Closed { head } => "Closed { head: Pfn(0x42) }", "folio 0x42 is closed";
        CountError::Outside { pfn } => "Outside { pfn: Pfn(0x42) }", "no extent has page 0x42";
        CountError::Dying => "Dying", "the pgmap is being removed";
        PinError::LongtermRefused { head } =>
            "LongtermRefused { head: Pfn(0x42) }",
            "the policy of folio 0x42 refuses long-term pins";
        PinError::LeaseNeeded { head } =>
            "LeaseNeeded { head: Pfn(0x42) }",
            "the policy of folio 0x42 grants long-term pins as leases only";
        PinError::Count(CountError::Closed { head }) =>
            "Count(Closed { head: Pfn(0x42) })",
            "folio 0x42 is closed";
    }
}

#[test]
fn leases() {
    let head = PFN;
    let lease = LeaseInfo { head, order: Order::BLOCK, state: LeaseState::Revoked };
    error! {
        LeaseError::NoSlot { nr_slots: 3 } =>
            "NoSlot { nr_slots: 3 }",
            "all 3 slots hold leases";
        LeaseError::Elsewhere { head } =>
            "Elsewhere { head: Pfn(0x42) }",
            "folio 0x42 belongs to another pgmap";
        LeaseError::LongtermRefused { head } =>
            "LongtermRefused { head: Pfn(0x42) }",
            "the policy of folio 0x42 refuses long-term pins";
        LeaseError::Revoked { pfn: head } =>
            "Revoked { pfn: Pfn(0x42) }",
            "page 0x42 is being revoked";
        LeaseError::Count(CountError::Dying) =>
            "Count(Dying)",
            "the pgmap is being removed";
        RevokeError::NoSlot { nr_slots: 1 } =>
            "NoSlot { nr_slots: 1 }",
            "all 1 slots hold revocations";
        RevokeWaitError::Deadline { lease } =>
            "Deadline { lease: LeaseInfo { head: Pfn(0x42), order: Order(9), state: Revoked } }",
            "folio 0x42 of order 9 is still leased";
        RevokeWaitError::Pinned { untold: Untold { head, order: Order::BLOCK, pins: 2 } } =>
            "Pinned { untold: Untold { head: Pfn(0x42), order: Order(9), pins: 2 } }",
            "folio 0x42 of order 9 still has 2 pins";
    }
}

#[test]
fn holders() {
    error! {
        HoldError::Held => "Held", "the pgmap has a holder";
        HoldError::Dying => "Dying", "the pgmap is being removed";
        HoldError::Pinned { pfn: PFN, order: order(1), pins: 3 } =>
            "Pinned { pfn: Pfn(0x42), order: Order(1), pins: 3 }",
            "folio 0x42 of order 1 has 3 pins";
    }
}

#[test]
fn shapes() {
    let (folio, buddy) = (range(0x40, 4), range(0x44, 2));
    let reasons = [
        SplitReason::OrderTooLarge { order: Order::MAX, max: order(2) },
        SplitReason::NotPart { part: buddy, folio },
        SplitReason::NoTables { needed: 2, left: 1 },
    ];
    assert_eq!(
        reasons.map(|reason| format!("{reason:?}: {reason}")),
        [
            "OrderTooLarge { order: Order(18), max: Order(2) }: \
             order 18 is above the folio's order 2",
            "NotPart { part: PfnRange(0x44..=0x45), folio: PfnRange(0x40..=0x43) }: \
             0x44..=0x45 is no part of folio 0x40..=0x43",
            "NoTables { needed: 2, left: 1 }: 2 fracture tables needed, 1 left",
        ]
    );
    let reasons = [
        MergeReason::NotBuddies { folio, buddy },
        MergeReason::Apart { folio, buddy },
        MergeReason::OrderTooLarge { order: order(4), max: order(4) },
    ];
    assert_eq!(
        reasons.map(|reason| format!("{reason:?}: {reason}")),
        [
            "NotBuddies { folio: PfnRange(0x40..=0x43), buddy: PfnRange(0x44..=0x45) }: \
             0x40..=0x43 and 0x44..=0x45 are no buddies",
            "Apart { folio: PfnRange(0x40..=0x43), buddy: PfnRange(0x44..=0x45) }: \
             0x40..=0x43 and 0x44..=0x45 are of different extents",
            "OrderTooLarge { order: Order(4), max: Order(4) }: \
             order 4 cannot grow above the limit of 4",
        ]
    );
}

#[test]
fn checks() {
    let (pfn, order) = (PFN, Order::BLOCK);
    error! {
        CheckError::BadWord { pfn, word: 0xff } =>
            "BadWord { pfn: Pfn(0x42), word: 255 }",
            "word 0xff of page 0x42 is no state";
        CheckError::BadShape { pfn, order } =>
            "BadShape { pfn: Pfn(0x42), order: Order(9) }",
            "no folio of order 9 fits at 0x42";
        CheckError::Claimed { pfn } =>
            "Claimed { pfn: Pfn(0x42) }",
            "page 0x42 is claimed twice";
        CheckError::Lost { pfn } => "Lost { pfn: Pfn(0x42) }", "page 0x42 is lost";
        CheckError::Unmerged { pfn } =>
            "Unmerged { pfn: Pfn(0x42) }",
            "free pages at 0x42 are not merged";
        CheckError::Hole { pfn } =>
            "Hole { pfn: Pfn(0x42) }",
            "page 0x42 is free outside the extent";
        CheckError::BadClean { pfn } =>
            "BadClean { pfn: Pfn(0x42) }",
            "page 0x42 is clean where it is not free";
        CheckError::NoHint { pfn, order } =>
            "NoHint { pfn: Pfn(0x42), order: Order(9) }",
            "no hint to order 9 at 0x42";
        CheckError::BadTable { pfn } =>
            "BadTable { pfn: Pfn(0x42) }",
            "table of the block at 0x42 is not its own";
        CheckError::BadPool { owned: 1, taken: 2 } =>
            "BadPool { owned: 1, taken: 2 }",
            "1 tables owned, 2 handed out";
        CheckError::BadPoison { pfn } =>
            "BadPoison { pfn: Pfn(0x42) }",
            "poison of page 0x42 is not where it is listed";
        CheckError::BadList { pfn } =>
            "BadList { pfn: Pfn(0x42) }",
            "link of condemned folio 0x42 leads nowhere";
    }
}

#[test]
fn texts_of_the_model() {
    use devfolio::model::{GeometryParseError, History, HistoryParseError, OpParseError};

    let header = "hello".parse::<History>().unwrap_err();
    error! {
        header => "Header", "the first line is not `devfolio-history v1`";
        HistoryParseError::Geometry => "Geometry", "the second line is no sound geometry";
        HistoryParseError::Op { line: 3, why: OpParseError::Word } =>
            "Op { line: 3, why: Word }",
            "line 3: no such operation";
        GeometryParseError => "GeometryParseError", "not the line of a geometry";
        OpParseError::Field("order") => "Field(\"order\")", "no value for `order`";
        OpParseError::TooLong => "TooLong", "words behind the last field";
    }
}

#[test]
fn exports() {
    let (head, extent) = (PFN, range(0x40, 0x40));
    error! {
        ExportError::Short { needed: 9, given: 8 } =>
            "Short { needed: 9, given: 8 }",
            "image of 9 bytes in room for 8";
        ExportError::Condemned { head } =>
            "Condemned { head: Pfn(0x42) }",
            "folio 0x42 waits for its hook";
        ExportError::Offline { pfn: PFN } => "Offline { pfn: Pfn(0x42) }", "page 0x42 is offline";
        ExportError::Leaving { extent } =>
            "Leaving { extent: PfnRange(0x40..=0x7f) }",
            "extent 0x40..=0x7f is being removed";
        ExportError::Dying => "Dying", "the pgmap is being removed";
        ExportError::Lost { pfn: PFN } =>
            "Lost { pfn: Pfn(0x42) }",
            "page 0x42 is neither free nor part of a folio";
    }
}

#[test]
fn imports_of_a_whole() {
    let extent = range(0x40, 0x40);
    let (image, pgmap) = (ExtentAttrs { node: 1, ..ExtentAttrs::NEW }, ExtentAttrs::NEW);
    let attrs = ImportError::Attrs { extent, image, pgmap };
    let shown = format!("Attrs {{ extent: {extent:?}, image: {image:?}, pgmap: {pgmap:?} }}");
    assert_eq!(format!("{attrs:?}"), shown);
    super::said(&attrs, "extent 0x40..=0x7f has another node, tier or tag than in the image");
    error! {
        ImportError::Magic { found: 0x42 } => "Magic { found: 66 }", "0x42 begins no image";
        ImportError::Version { found: 2 } =>
            "Version { found: 2 }",
            "image of the unknown version 2";
        ImportError::Short { needed: 9, given: 8 } =>
            "Short { needed: 9, given: 8 }",
            "image of 9 bytes cut to 8";
        ImportError::Length { len: 9 } =>
            "Length { len: 9 }",
            "image that does not take the 9 bytes it says";
        ImportError::Checksum { expected: 2, found: 1 } =>
            "Checksum { expected: 2, found: 1 }",
            "image with checksum 0x1 where it has 0x2";
        ImportError::MemoryType { image: 3, pgmap: 4 } =>
            "MemoryType { image: 3, pgmap: 4 }",
            "image of memory type 3 for a pgmap of type 4";
        ImportError::Dying => "Dying", "the pgmap is being removed";
        ImportError::BadExtent { start: PFN, nr_pages: 0 } =>
            "BadExtent { start: Pfn(0x42), nr_pages: 0 }",
            "extent of 0 pages at 0x42 is none, or out of order";
        ImportError::Missing { extent } =>
            "Missing { extent: PfnRange(0x40..=0x7f) }",
            "the pgmap has no extent 0x40..=0x7f";
        ImportError::Unknown { extent } =>
            "Unknown { extent: PfnRange(0x40..=0x7f) }",
            "the image has no extent 0x40..=0x7f";
        ImportError::Busy { pfn: PFN } => "Busy { pfn: Pfn(0x42) }", "page 0x42 is in use";
        ImportError::NoRoom { extent, needed: 9, max: 8 } =>
            "NoRoom { extent: PfnRange(0x40..=0x7f), needed: 9, max: 8 }",
            "9 bad pages in a list for 8 of extent 0x40..=0x7f";
        ImportError::NoTables { extent, needed: 2, left: 1 } =>
            "NoTables { extent: PfnRange(0x40..=0x7f), needed: 2, left: 1 }",
            "2 fracture tables needed in extent 0x40..=0x7f, 1 left";
        ImportError::Held { said: 3, found: 2 } =>
            "Held { said: 3, found: 2 }",
            "2 folios are to be adopted where the image says 3";
        ImportError::OrphansShort { needed: 2, given: 1 } =>
            "OrphansShort { needed: 2, given: 1 }",
            "2 folios to be adopted in places for 1";
        ImportError::Contended { pfn: PFN } =>
            "Contended { pfn: Pfn(0x42) }",
            "others are in the way of page 0x42";
    }
}

#[test]
fn imports_of_a_folio() {
    let (head, order) = (PFN, Order::BLOCK);
    error! {
        ImportError::BadFolio { head } =>
            "BadFolio { head: Pfn(0x42) }",
            "the record of folio 0x42 is none";
        ImportError::OrderTooLarge { head, order: Order::MAX, max: order } =>
            "OrderTooLarge { head: Pfn(0x42), order: Order(18), max: Order(9) }",
            "order 18 of folio 0x42 is above the limit of 9";
        ImportError::Misplaced { head, order } =>
            "Misplaced { head: Pfn(0x42), order: Order(9) }",
            "folio 0x42 of order 9 is misaligned or beyond its extent";
        ImportError::Overlap { head } =>
            "Overlap { head: Pfn(0x42) }",
            "folio 0x42 overlaps the one in front of it";
        ImportError::Limit { head, count: Count::Refs, have: 7, max: 6 } =>
            "Limit { head: Pfn(0x42), count: Refs, have: 7, max: 6 }",
            "7 references of folio 0x42, of which 6 are the limit";
        ImportError::Counts { head } =>
            "Counts { head: Pfn(0x42) }",
            "folio 0x42 has counts that do not fit its state";
        ImportError::Healthy { head } =>
            "Healthy { head: Pfn(0x42) }",
            "quarantine 0x42 has no bad page";
        ImportError::BadPage { pfn: PFN } =>
            "BadPage { pfn: Pfn(0x42) }",
            "bad page 0x42 is free, or out of order";
    }
}

#[test]
fn adoptions() {
    let head = PFN;
    error! {
        AdoptError::Unknown { pfn: PFN } =>
            "Unknown { pfn: Pfn(0x42) }",
            "nobody held page 0x42 in the image";
        AdoptError::TooFew { head, count: Count::Pins, left: 1, nr: 2 } =>
            "TooFew { head: Pfn(0x42), count: Pins, left: 1, nr: 2 }",
            "2 pins of folio 0x42 wanted where 1 are left";
        AdoptError::NotUnique { head } =>
            "NotUnique { head: Pfn(0x42) }",
            "folio 0x42 is no exclusive one to be adopted";
        AdoptError::Gone { head } =>
            "Gone { head: Pfn(0x42) }",
            "the counts of folio 0x42 are gone";
    }
}
