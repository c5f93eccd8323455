//! Seeded bugs: one build, one switch, one fault at a time.
//!
//! Compiled under `cfg(seeded_bugs)` only, to show that the oracle catches each of them. The
//! switch is the one piece of global state, and it is in no other build. It is no atomic of the
//! facade, so that it also serves models, of whose interleavings it is no part.

use ::core::sync::atomic::{AtomicUsize, Ordering};

/// The active bug, counted from one; zero is none.
static ACTIVE: AtomicUsize = AtomicUsize::new(0);

macro_rules! bugs {
    (
        sequential { $($(#[doc = $text:literal])* $name:ident,)* }
        mapping { $($(#[doc = $map_text:literal])* $map:ident,)* }
        capacity { $($(#[doc = $books_text:literal])* $books:ident,)* }
        corrupt { $($(#[doc = $flip_text:literal])* $flip:ident,)* }
        image { $($(#[doc = $image_text:literal])* $image:ident,)* }
        raw_pfn { $($(#[doc = $raw_text:literal])* $raw:ident,)* }
        hook { $($(#[doc = $hook_text:literal])* $hook:ident,)* }
        scrub { $($(#[doc = $scrub_text:literal])* $scrub:ident,)* }
        plan { $($(#[doc = $plan_text:literal])* $plan:ident,)* }
        end { $($(#[doc = $end_text:literal])* $end:ident,)* }
        concurrent { $($(#[doc = $race_text:literal])* $race:ident,)* }
    ) => {
        /// The faults that can be seeded.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum Bug {
            $($(#[doc = $text])* $name,)*
            $($(#[doc = $map_text])* $map,)*
            $($(#[doc = $books_text])* $books,)*
            $($(#[doc = $flip_text])* $flip,)*
            $($(#[doc = $image_text])* $image,)*
            $($(#[doc = $raw_text])* $raw,)*
            $($(#[doc = $hook_text])* $hook,)*
            $($(#[doc = $scrub_text])* $scrub,)*
            $($(#[doc = $plan_text])* $plan,)*
            $($(#[doc = $end_text])* $end,)*
            $($(#[doc = $race_text])* $race,)*
        }

        impl Bug {
            /// Those that one thread can meet, in the order of the list.
            pub const ALL: &'static [(Self, &'static str)] =
                &[$((Self::$name, concat!($($text),*)),)*];
            /// Those of page tables, in the order of the list.
            pub const MAPPING: &'static [(Self, &'static str)] =
                &[$((Self::$map, concat!($($map_text),*)),)*];
            /// Those of the books of dynamic capacity, in the order of the list.
            pub const CAPACITY: &'static [(Self, &'static str)] =
                &[$((Self::$books, concat!($($books_text),*)),)*];
            /// Those that corrupt metadata shows, in the order of the list.
            pub const CORRUPT: &'static [(Self, &'static str)] =
                &[$((Self::$flip, concat!($($flip_text),*)),)*];
            /// Those of images, in the order of the list.
            pub const IMAGE: &'static [(Self, &'static str)] =
                &[$((Self::$image, concat!($($image_text),*)),)*];
            /// Those that some page number shows, in the order of the list.
            pub const RAW_PFN: &'static [(Self, &'static str)] =
                &[$((Self::$raw, concat!($($raw_text),*)),)*];
            /// Those that only some hooks show, in the order of the list.
            pub const HOOK: &'static [(Self, &'static str)] =
                &[$((Self::$hook, concat!($($hook_text),*)),)*];
            /// Those of scrub policies, in the order of the list.
            pub const SCRUB: &'static [(Self, &'static str)] =
                &[$((Self::$scrub, concat!($($scrub_text),*)),)*];
            /// Those of plans, in the order of the list.
            pub const PLAN: &'static [(Self, &'static str)] =
                &[$((Self::$plan, concat!($($plan_text),*)),)*];
            /// Those of waits for the end, in the order of the list.
            pub const END: &'static [(Self, &'static str)] =
                &[$((Self::$end, concat!($($end_text),*)),)*];
            /// Those that take two threads, with their names.
            pub const CONCURRENT: &'static [(Self, &'static str)] =
                &[$((Self::$race, stringify!($race)),)*];
        }
    };
}

bugs! {
sequential {
    /// split leaves the old order in the last piece
    SplitOldOrder,
    /// split forgets the last piece
    SplitForgetsLast,
    /// the word is kept when a folio ends, and met again at re-birth
    RebirthKeepsWord,
    /// non-uniform split puts the page into the wrong half
    SplitWrongHalf,
    /// merge takes the neighbour above for the buddy
    MergePlus,
    /// merge goes past the top order
    MergePastTop,
    /// merge goes over the end of the extent
    MergeOverEnd,
    /// blocks are aligned to the base of the extent
    RelativeBlock,
    /// a free bit is not cleared on allocation
    BitNotCleared,
    /// the remainder of an opened block is too large
    RemainderTooLarge,
    /// allocation skips an order
    SkipsOrder,
    /// the last page of a folio of the top order is not covered
    LastPage,
    /// put is allowed when only mappings remain
    PutOnMappings,
    /// unmap forgets the count at one
    UnmapForgetsOne,
    /// get succeeds on a folio that is not live
    GetNotLive,
    /// limits are off by one
    LimitOffByOne,
    /// the hook runs twice
    HookTwice,
    /// the hook runs before the last unmap
    HookBeforeUnmap,
    /// the hook sees the order of a merged folio
    HookWrongOrder,
    /// a kept folio in the way of an end is not named
    BusyOmitsKept,
    /// the number of kept pages drifts
    KeptDrifts,
    /// a get that is refused leaks its reference
    RefusedGetLeaks,
    /// a move that is called off forgets references of the source
    AbortForgetsRefs,
    /// the destination of a move that is called off counts as it was before it was written to
    AbortLeavesClean,
    /// the source of a move stays live
    SourceStaysLive,
    /// a refused split leaves the folio split
    RefusedSplitSplits,
    /// clean is inherited by "or"
    CleanByOr,
    /// one line too few of metadata is accepted
    MetaShort,
    /// only the ends of an extent are tested for overlap
    OverlapEnds,
    /// the last page of the page numbers is left out
    TopOfSpace,
    /// a bulk allocation that fails is not undone
    BulkNotUndone,
    /// a table goes to two blocks
    TableTwice,
    /// the upper word is not cleared by a merge
    MergeKeepsWord,
    /// a folio that is dropped unpublished counts as clean
    DropClean,
    /// a magazine that is emptied forgets a folio
    MagazineForgets,
    /// a magazine hands a folio out with the data of its last holder
    MagazineOldData,
    /// poison in a free high-order block ignored
    PoisonFreeIgnored,
    /// poison on a tail marks the head only
    PoisonMarksHead,
    /// a free hands a bad page back
    PoisonFreed,
    /// a list of bad pages that does not fit is recorded as far as it does
    ListHalfway,
    /// a list of bad pages needs room for a page each time that it names it
    ListCountsTwice,
    /// the owner is told of a bad page again
    PoisonToldTwice,
    /// healthy rest lost
    PoisonRestLost,
    /// a repaired page stays in quarantine
    UnpoisonForgets,
    /// a free hands a page out again that is to be offline
    OfflineFreed,
    /// free pages stay when they are to be offline
    OfflineFreeIgnored,
    /// the list of an extent is filled beyond its end
    OfflineUncounted,
    /// pages that are taken back from the device stay offline
    OnlineForgets,
    /// a part that is taken back from the device takes the rest along
    OnlineTakesAll,
    /// an extent that leaves still serves
    LeavingServes,
    /// where all that would serve leaves, memory is said to be exhausted
    LeavingIsExhausted,
    /// an extent is detached while a folio of it is in use
    DetachBusy,
    /// a removal that is called off is called off by half
    RestoredHalf,
    /// the extents behind one that is detached are lost
    UnlinkLosesRest,
    /// a holder is not told that the device is gone
    GoneUntold,
    /// a holder is not told that the device of a part is gone
    PartGoneUntold,
    /// pages are scrubbed on free although their device is gone
    GoneScrubbed,
    /// a freeze that is refused leaks a reference
    RefusedFreezeLeaks,
    /// the word of a folio is written after its hook
    TouchedAfterHook,
    /// the holder of a lease that begins before the range is not told
    LeaseUntold,
    /// the holder of a lease is told by every revocation
    ToldTwice,
    /// a lease is granted on pages that are revoked
    RevokedRelent,
    /// a lease is granted while an old one that was told to end has not
    LeaseRelent,
    /// a lease that ends keeps its pin
    LeaseKeepsPin,
    /// a lease that is refused keeps its slot
    LeaseSlotLost,
    /// a holder that refuses pins does not look for those that are there
    HolderSkipsScan,
    /// the pinned folio that is named to a holder is not the first one
    HolderNamesOther,
    /// a second holder is attached
    SecondHolder,
    /// the policy stays tight when the holder has gone
    DetachStaysTight,
    /// a holder is told of failures although it was detached
    HolderToldBehindEnd,
    /// a revocation forgets the pins that are older than the holder
    OldPinsForgotten,
    /// a pin that becomes a lease is counted once more
    ConvertPinsTwice,
}
mapping {
    /// a leaf may be larger than the folio
    LeafAboveFolio,
    /// the leaves of a mapping count once together
    CountsPages,
    /// counts are dropped before the flush
    PutBeforeFlush,
    /// a gather does not carry dirty
    ZapLosesDirty,
    /// dirty is lost when leaves are joined
    JoinLosesDirty,
    /// leaves are joined over the end of a folio
    JoinBeyondFolio,
    /// dirty is lost when a mapping moves
    MoveLosesDirty,
    /// the copies of a fork are not counted
    CopiesUncounted,
    /// a refused mapping keeps its table pages
    ReservedLeaks,
    /// a fracture unmaps before it looks for pins
    FractureUnmapsFirst,
    /// a refused fracture leaves the folio closed
    FractureStaysClosed,
    /// a pin takes no count
    PinUncounted,
    /// who looks for the mappings of a page is told of all addresses of its leaf
    ToldWholeLeaf,
    /// who looks for the mappings of a page is told of the first one in each space
    ToldFirstOnly,
}
capacity {
    /// an extent that is refused leaves the rest of its group
    GroupInPart,
    /// a group lacks a sequence number
    GapAccepted,
    /// a tag names two groups
    TagTwice,
    /// what was refused in the middle of a chain is forgotten by its end
    ChainGoesOn,
    /// an extent that is in use stops a release, but not what had begun
    ReleaseInPart,
    /// what is left above a part that goes is forgotten
    UpperPartLost,
    /// what a list lacks stays in use
    GoneStays,
    /// a list is read twice, and counts twice
    ListedTwice,
}
corrupt {
    /// the place where a CPU took its last run is followed out of the extent
    CorruptPlace,
    /// a region of which the extent has a part is handed out as a whole
    CorruptRegion,
    /// statistics look for tables of blocks that are not there
    CorruptStats,
}
image {
    /// an image whose folios overlap is accepted if their states differ
    ImageOverlapMissed,
    /// counts of an image are not looked at
    ImageCountMissed,
    /// a folio is imported one order too low
    ImageOrderLow,
    /// imported bad pages are not listed
    ImagePoisonUnlisted,
    /// an import that fails in the middle leaves a folio behind
    ImportLeavesFolio,
    /// a count that was adopted can be adopted again
    AdoptKeepsCount,
}
raw_pfn {
    /// a claim goes past the end of its extent
    ClaimPastEnd,
    /// a parked folio is taken by a tail
    ReviveByTail,
    /// unused page numbers are not aligned
    FreeRangeUnaligned,
    /// the last page of space has no owner
    TopIsForeign,
}
hook {
    /// a folio that was handed over is dropped inside the hook
    LaterRecurses,
    /// the hooks of folios that were handed over are not called
    LaterUncalled,
    /// what was handed over is lost when a hook panics
    PanicLosesLater,
}
scrub {
    /// what is at hand is handed out without a look whether it is clean
    ScrubNotAtHand,
    /// a magazine hands out what it has without a look whether it is clean
    ScrubNotInMagazine,
    /// a claim by page does not look whether the pages are clean
    ScrubNotByClaim,
    /// what could not be scrubbed is handed out
    ScrubFailureHandedOut,
    /// what could not be scrubbed goes to free space, and not into quarantine
    ScrubFailureFreed,
    /// what a trim cuts off is not scrubbed on free
    ScrubNotOnTrim,
    /// an undo says that what its last user was to have is clean
    ScrubUndoneClean,
    /// whoever asks is the last user
    ScrubSameForAll,
    /// what goes back to a magazine counts as clean
    ScrubMagazineClean,
}
plan {
    /// a plan does not see pins
    PlanIgnoresPins,
    /// a plan takes windows that are offline in part
    PlanTakesOffline,
    /// a plan moves folios into a window
    PlanIntoWindow,
    /// the cost of a plan is its folios, not their pages
    PlanCountsFolios,
    /// a window is compared by where it is, not by what it costs
    PlanFirstWindows,
    /// two folios of a plan get the same place
    PlanPlaceTwice,
}
end {
    /// a wait for the end goes on at its deadline
    DeadlineForgotten,
    /// whoever releases the last folio wakes nobody
    EndUnsaid,
}
concurrent {
    /// pages that are taken back while somebody looks, and are free, are said to have left
    FreeHasLeft,
    /// who waits for a range is not behind the uses of who freezes a folio of it
    FreezeUnreleased,
    /// a freeze looks at the counts and then stores
    FreezeByStore,
    /// a get succeeds on a live word whose counts are gone
    GetFromZero,
    /// a get looks at the cover of what it found, and not of what it counts
    GetWithoutCover,
    /// a freeze looks at the counts, and it is the split that writes
    SplitChecksThenWrites,
    /// a put is relaxed
    PutRelaxed,
    /// a folio is published relaxed
    PublishRelaxed,
    /// an extent is published relaxed, before its metadata
    ExtentRelaxed,
    /// a folio is published with one reference too many
    UnfreezeWrongCount,
    /// two buddies are freed at once, and neither sees the other
    NeitherCoalesces,
    /// a waiter for a range does not look again once it has registered
    RangeLooksOnce,
    /// a tile is taken back whatever its order is by now
    RetakenInexactly,
    /// a waiter does not look again once it has registered
    LostWakeUp,
    /// who waits for counts is woken before the verdict of the hook
    WakesBeforeVerdict,
    /// the waiter flag is cleared after the wake-up
    WaiterClearedLate,
    /// a waiter that gives up takes the registration of others along
    GivingUpWakesNobody,
    /// a future reads the token behind its look
    FutureTokenLate,
    /// who waits for the end of a pgmap is woken before it is said
    DrainedWakesFirst,
    /// who waits for the end of a pgmap looks before the token, and not again
    DrainedLooksOnce,
    /// a pin does not look at the end of the pgmap again
    PinSlipsPastKill,
    /// a release looks for an end before its pages are free
    ReleaseLooksFirst,
    /// an extent that leaves is counted when its end may have been said
    LeavingCountedLate,
    /// an allocation does not look at the end of the pgmap again
    AllocFromDying,
    /// whoever completes an end for another one looks without a fence
    EndUnfenced,
    /// a slot that is used again is named before it is seen to be full
    SlotNameRelaxed,
    /// what was read of a trie that changed meanwhile is believed
    TrieBelieved,
    /// whoever lowers a hint does not look at the free bits again
    HintClearedAfterRefill,
    /// a claim that is undone raises no hints
    UndoneUnhinted,
    /// a search says "exhausted" while free space is in somebody's hands
    ExhaustedWhileMoving,
    /// a claim by page says "not free" while its block is being opened
    NotFreeWhileOpened,
    /// a freeze leaves a counted handle alive
    FreezeLeavesHandle,
    /// a reaper holds its lock while the hook runs
    HookUnderLock,
    /// a lookup through a page table does not look at the leaf again
    GupLooksOnce,
    /// a free does not look for bad pages again once its pages are free
    FreeMissesPoison,
    /// a bad page is looked at before it is recorded
    PoisonLooksFirst,
    /// a page is put into quarantine without a look whether it was repaired meanwhile
    QuarantineLooksOnce,
    /// an allocation does not ask whether a page that it found is bad
    AllocMissesPoison,
    /// nobody is told that pages are offline
    OfflineUnsaid,
    /// a lease does not look for revocations again once it can be found
    LeaseSlipsPastRevoke,
    /// the holder of a lease is told when it has begun to end it
    ToldBehindEnd,
    /// the slot of a lease is emptied while its holder is being told
    TakenUnderVisitor,
    /// the end of a lease wakes nobody
    DeadUnsaid,
    /// a long-term pin does not ask again whether a holder came meanwhile
    PinSlipsPastHolder,
}
}

/// Activates a bug, counted from one in the order of the lists; zero deactivates.
pub fn activate(number: usize) {
    // ORDERING: Relaxed. Set before anything else happens.
    ACTIVE.store(number, Ordering::Relaxed);
}

/// Activates this bug alone.
pub fn activate_bug(bug: Bug) {
    activate((bug as usize).wrapping_add(1));
}

/// Activates one of [`Bug::CONCURRENT`] by its name; false if there is none of that name.
pub fn activate_concurrent(name: &str) -> bool {
    let found = Bug::CONCURRENT.iter().find(|(_, other)| *other == name);
    found.map(|(bug, _)| activate_bug(*bug)).is_some()
}

pub(crate) fn is(bug: Bug) -> bool {
    // ORDERING: Relaxed. Set before anything else happens.
    ACTIVE.load(Ordering::Relaxed) == bug as usize + 1
}
