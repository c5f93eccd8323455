//! What a subject answers, in words that every implementation can speak.
//!
//! Coarse where an implementation may phrase things its own way, exact where the answer is
//! determined: which pages, which counts, which page was in the way.

use alloc::vec::Vec;

use crate::units::{Order, Pfn, PfnRange};

/// A folio that was handed out exclusively.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Block {
    /// Its head.
    pub head: Pfn,
    /// Its order.
    pub order: Order,
    /// Whether all its pages are known to be zero.
    pub clean: bool,
    /// What its owner wrote beside it; zero without owner data.
    pub tag: u64,
}

/// What an operation did.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It succeeded, and there is nothing to say about it.
    Done,
    /// It handed out exclusive folios: one new handle each, in this order, which ascends.
    Blocks(Vec<Block>),
    /// It handed out references on these folios, which ascend: one to each, then again for each
    /// clone.
    Shared(Vec<Block>),
    /// It handed out one counted handle to this folio.
    Counted {
        /// The head of the folio.
        head: Pfn,
        /// Its order.
        order: Order,
        /// What its owner wrote beside it; zero without owner data.
        tag: u64,
    },
    /// Counts are gone.
    Put {
        /// Whether no count is left.
        last: bool,
    },
    /// Hooks ran.
    Reaped {
        /// How many.
        nr_folios: u32,
        /// Whether more wait.
        has_more: bool,
    },
    /// The heads of the leases that a revocation told, or left, in ascending order.
    Leases(Vec<Pfn>),
    /// It was begun and called off: all is as before, but for what a claim leaves behind.
    CalledOff,
    /// No folio is in the way of the end.
    Drained,
    /// It failed and changed nothing, but what the hook that scrubs was asked for.
    Refused(Refusal),
    /// The subject cannot do this at all; see [`Caps`](super::Caps).
    Unsupported,
}

/// Which of the three counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// References.
    Refs,
    /// Pins.
    Pins,
    /// Mappings.
    Maps,
}

/// Why an operation was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// No aligned free run of the size exists within the filter.
    Exhausted {
        /// The number of pages that are kept.
        kept_pages: u64,
        /// The number of pages that wait for their hook.
        condemned_pages: u64,
    },
    /// A fracture table is needed, and none is left.
    NoTables,
    /// The lent descriptors do not suffice.
    TooManyPieces {
        /// How many would.
        needed: u64,
    },
    /// The pgmap, or the extent, or each extent that would do, comes to its end.
    Dying,
    /// The policy allows claims only.
    ClaimOnly,
    /// The order is above the limit of the policy, or of the crate.
    OrderTooLarge,
    /// The head is not aligned to the order.
    Misaligned,
    /// The number of pages is not a multiple of the least folio, or zero.
    NotMultiple,
    /// The least order is above the preferred one.
    Orders,
    /// The page or range lies in no extent, or not in one alone.
    Outside,
    /// This page is not free.
    Busy {
        /// The first such page.
        pfn: Pfn,
    },
    /// No live folio covers the page.
    NotLive,
    /// The folio is closed.
    Closed,
    /// A count is at its limit.
    Limit {
        /// Which one.
        kind: Kind,
        /// Its value, which has not changed.
        value: u32,
    },
    /// More counts were put than there are.
    Underflow {
        /// Which one.
        kind: Kind,
        /// Its value, which has not changed.
        have: u32,
    },
    /// The policy refuses long-term pins.
    LongTerm,
    /// The policy grants long-term pins as leases only.
    LeaseNeeded,
    /// This page is being revoked.
    Revoked {
        /// The first such page of the folio.
        pfn: Pfn,
    },
    /// Others hold counts of the folio, or not as many as expected.
    Held {
        /// References.
        refs: u32,
        /// Pins.
        pins: u32,
        /// Mappings.
        maps: u32,
    },
    /// No folio in the state in question has its head there.
    NotThere,
    /// The page or part does not lie in the folio.
    NotInside,
    /// The two folios are no buddies, or would cross a border.
    NotBuddies,
    /// The new extent overlaps one that is there.
    Overlap {
        /// The first page of the one that is there.
        start: Pfn,
    },
    /// This page is not offline, and is not to be.
    NotOffline {
        /// The first such page.
        pfn: Pfn,
    },
    /// The run is empty or runs past the top of space.
    NoRange,
    /// The metadata memory is too small.
    ShortMeta,
    /// All slots are taken.
    NoSlot,
    /// There is a holder.
    HasHolder,
    /// This folio is pinned.
    Pinned {
        /// Its head.
        pfn: Pfn,
        /// How many pins it has.
        pins: u32,
    },
    /// The range has more pages than an extent can have.
    TooLarge,
    /// Folios are still in use.
    StillBusy {
        /// The head of the first one.
        pfn: Pfn,
        /// How many there are.
        nr_folios: u32,
    },
    /// The page is known to be bad.
    KnownBad,
    /// The page is not known to be bad.
    NotBad,
    /// The list of bad pages is full.
    NoRoom,
    /// Nobody has begun to remove the extent.
    NotDying,
    /// The device of the extent is gone.
    Gone,
    /// The folio there cannot be scrubbed, and is in quarantine now.
    ScrubFailed {
        /// Its head.
        pfn: Pfn,
    },
    /// The folio there is to be scrubbed, and kept until then.
    ScrubPending {
        /// Its head.
        pfn: Pfn,
    },
    /// Any other reason; never legal.
    Other,
}

/// What the free hook met, in order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HookEvent {
    /// It was called with this folio.
    Called {
        /// The head.
        head: Pfn,
        /// The order.
        order: Order,
        /// What its owner wrote beside it; zero without owner data.
        tag: u64,
    },
    /// It allocated a folio, or failed to.
    Allocated(Option<Block>),
    /// It returned.
    Returned,
    /// The owner was told that a page is bad.
    Poisoned {
        /// The page.
        pfn: Pfn,
        /// The head of the folio that has it, if one has.
        head: Option<Pfn>,
    },
    /// The owner was asked to scrub the pages of a folio.
    Scrub {
        /// Its head.
        head: Pfn,
        /// Its order.
        order: Order,
        /// For whom they are.
        owner: Option<u64>,
        /// Whether they are on their way to free space, and not out of it.
        is_free: bool,
    },
    /// The owner was told that the device of a folio is gone.
    Gone {
        /// The head.
        head: Pfn,
    },
    /// The holder was told of a failure.
    Told(Failed),
}

/// What a holder is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failed {
    /// A page is bad.
    Poisoned {
        /// The page.
        pfn: Pfn,
        /// The head of the folio that has it, if one has.
        head: Option<Pfn>,
    },
    /// An extent is being removed.
    Leaving(PfnRange),
    /// The device of an extent is gone.
    Gone(PfnRange),
    /// The device of a part of an extent is gone.
    PagesGone(PfnRange),
    /// The pgmap is being removed.
    Killed,
}

/// The kind of a folio, as anybody can see it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FolioKind {
    /// Held exclusively.
    Unique,
    /// Parked with its owner.
    Kept,
    /// Shared and counted.
    Live,
    /// In quarantine.
    Retired,
    /// Its hook was put off.
    Condemned,
    /// In quarantine for a bad page.
    Poisoned,
    /// Given back to the device.
    Offline,
}

/// A folio as anybody can see it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FolioView {
    /// Its head.
    pub head: Pfn,
    /// Its order.
    pub order: Order,
    /// Its kind.
    pub kind: FolioKind,
    /// Its references.
    pub refs: u32,
    /// Its pins.
    pub pins: u32,
    /// Its mappings.
    pub maps: u32,
    /// Whether it is closed.
    pub closed: bool,
}

/// An extent as anybody can see it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ExtentView {
    /// Its pages.
    pub range: PfnRange,
    /// How far its removal has come.
    pub life: Life,
    /// Whether its device is gone.
    pub is_gone: bool,
}

/// One page as anybody can see it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PageView {
    /// It lies in no extent.
    Outside,
    /// Nobody owns it.
    Free,
    /// It belongs to this folio.
    Folio(FolioView),
}

/// Where the life of a pgmap stands.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Life {
    /// Folios are handed out.
    #[default]
    Live,
    /// Nothing new is.
    Dying,
    /// All folios are gone but those in quarantine.
    Drained,
}

/// Folios and pages of one kind.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// The number of folios.
    pub folios: u64,
    /// The number of their pages.
    pub pages: u64,
}

/// The statistics of a pgmap.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    /// Where its life stands.
    pub life: Life,
    /// All pages of all extents.
    pub nr_pages: u64,
    /// The free ones.
    pub free_pages: u64,
    /// Those of them known to be zero.
    pub clean_pages: u64,
    /// Exclusive folios.
    pub unique: Tally,
    /// Kept folios.
    pub kept: Tally,
    /// Live folios.
    pub live: Tally,
    /// Folios with a pin.
    pub pinned: Tally,
    /// Folios with a mapping.
    pub mapped: Tally,
    /// Retired folios.
    pub retired: Tally,
    /// Condemned folios.
    pub condemned: Tally,
    /// Bad pages in quarantine.
    pub poisoned: Tally,
    /// Pages that are offline.
    pub offline: Tally,
    /// All bad pages.
    pub poisoned_pages: u64,
    /// The number of blocks of each order in the maximal tiling of the free runs.
    pub free_by_order: [u64; 19],
    /// The length of the longest free run.
    pub largest_free_run: u64,
}
