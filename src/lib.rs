//! Device memory (CXL, PMEM, VRAM, PCI BARs) as folios: naturally aligned units of 2^order pages
//! with exact counts, one life cycle, and an owner that gets each of them back.
//!
//! No heap, no operating system, no global state: metadata lives in memory that the caller lends,
//! and [`MetaSize`] says how much at compile time. Everything that touches a page is lock-free.
//!
//! # In layers
//!
//! | what | where to start | it knows |
//! |---|---|---|
//! | units | [`Pfn`], [`Order`], [`PfnRange`] | arithmetic over 2^64 pages that never overflows |
//! | metadata | [`MetaLine`], [`StaticMeta`], `HeapMeta` (feature `std`), [`MetaSize`], [`Tables`] | how much memory to lend |
//! | requests | [`Request`], [`SetRequest`] | which pages an allocation may take |
//! | owners | [`Pgmap`], [`PgmapOps`], [`Policy`], [`Directory`] | extents, hooks, the end of a device |
//! | exclusive handles | [`UniqueFolio`], [`UniqueSet`], [`Pieces`] | splitting, merging, giving back |
//! | counted handles | [`Folio`], [`FolioPin`], [`FolioMap`], [`FolioSet`] | references, pins, mappings |
//! | leases | [`Leases`], [`Lease`], [`Revocation`] | long-term pins that are taken back |
//! | live update | [`Pgmap::export`], [`PgmapCore::import`], [`Imported`] | bytes without pointers, and who adopts what is in them |
//! | mappings | [`AddressSpace`], [`PageTable`], [`LeafSet`], [`Gather`] | leaves of any order up to the folio's |
//! | capacity that comes and goes | [`DynamicCapacity`], [`CapacityRecord`] | the rules of a device's lists, and no byte of them on trust |
//! | the specification | `model`, `subject` (feature `model`) | what all of that means, page by page |
//!
//! # The life of a folio
//!
//! ```text
//! free space --alloc, claim--> UniqueFolio --publish--> Folio --clone, pin, map ... drop-->
//!    last count gone --> PgmapOps::folio_free(UniqueFolio)
//!                          --> release | keep | publish | retire | into_raw
//! Folio --try_freeze--> UniqueFolio --split, merge, trim--> UniqueFolio --publish--> Folio
//! ```
//!
//! A count of zero means free, for every kind of memory. The last one to let go of a folio, be it
//! a reference, a pin or a mapping, runs the owner's hook, exactly once, and the hook says what
//! becomes of the pages.
//!
//! # Example
//!
//! ```
//! use devfolio::{
//!     Attach, ExtentAttrs, ExtentSlot, MetaSize, Order, Pfn, PfnRange, Pgmap, PgmapOps,
//!     Policy, StaticMeta, Tables,
//! };
//!
//! struct Nvdimm;
//! impl PgmapOps for Nvdimm {
//!     type Private = ();
//! }
//!
//! const RANGE: PfnRange = match PfnRange::new(Pfn::new(0x10_0000), 0x4_0000) {
//!     Ok(range) => range,
//!     Err(_) => panic!(),
//! };
//! static META: StaticMeta<{ MetaSize::of(RANGE, Tables::Dense).lines() }> = StaticMeta::new();
//! static SLOTS: [ExtentSlot; 1] = [const { ExtentSlot::new() }; 1];
//! static PMEM: Pgmap<'static, Nvdimm> = Pgmap::new(Nvdimm, Policy::generic(), &SLOTS);
//!
//! # fn main() -> Result<(), Box<dyn core::error::Error>> {
//! let meta = META.take().ok_or("somebody has it already")?;
//! PMEM.add_extent(RANGE, ExtentAttrs::NEW, Tables::Dense, meta, Attach::Zeroed)?;
//!
//! let folio = PMEM.alloc(Order::REGION)?.publish();
//! let clone = folio.try_clone()?;
//! drop(folio);
//! assert!(PMEM.alloc(Order::ZERO).is_err(), "the whole extent is one folio");
//! drop(clone);
//! assert!(PMEM.alloc(Order::ZERO).is_ok(), "the last reference is gone");
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! `model`: the executable specification, which needs `alloc`. `arbitrary`: its operations for
//! fuzzers. `std`: what needs types of `std`. `bench`: free space without folios, for the benchmark
//! alone. None is on by default, and none changes what the crate does. The minimum supported Rust
//! version is 1.85; raising it is a minor release. The target needs 64-bit atomics.
//!
//! How the crate is built inside is in [`_documentation::architecture`].

#![no_std]
#![deny(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    test,
    allow(
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unwrap_used,
        reason = "a test may panic; the same code is linted again without its tests"
    )
)]

#[cfg(any(test, feature = "model"))]
extern crate alloc;
#[cfg(any(test, feature = "std"))]
extern crate std;

/// A debug assertion that corrupt metadata can break, too: silent while a test corrupts it.
#[cfg(feature = "model")]
macro_rules! debug_intact {
    ($is_intact:expr, $($why:tt)+) => {
        debug_assert!($is_intact || $crate::meta::is_corruption_expected(), $($why)+)
    };
}
#[cfg(not(feature = "model"))]
macro_rules! debug_intact {
    ($is_intact:expr, $($why:tt)+) => {
        debug_assert!($is_intact, $($why)+)
    };
}

/// True if this fault is seeded; false at compile time in every ordinary build.
#[cfg(not(seeded_bugs))]
macro_rules! seeded {
    ($bug:ident) => {
        false
    };
}
#[cfg(seeded_bugs)]
macro_rules! seeded {
    ($bug:ident) => {
        $crate::seeded::is($crate::seeded::Bug::$bug)
    };
}

/// Longer texts.
#[cfg(doc)]
pub mod _documentation {
    #[doc = include_str!("README.md")]
    pub mod architecture {}
}

#[cfg(doctest)]
mod compile_fail;
mod folio;
mod map;
mod meta;
#[cfg(feature = "model")]
pub mod model;
mod owner;
mod pgmap;
#[cfg(seeded_bugs)]
pub mod seeded;
#[cfg(feature = "model")]
pub mod subject;
mod sync;
mod units;
mod zone;

pub use folio::{
    Busy, BusyAll, CloneError, ConvertError, Copied, CountError, Folio, FolioMap, FolioPin,
    FolioSet, FolioWait, Frozen, Lease, LeaseError, LeaseInfo, LeaseSlot, LeaseState, Leases,
    Migrate, Moving, MovingError, MovingReason, PinError, PinKind, Progress, Put, RangeWait,
    RawFolio, RawMap, RawPin, Revocation, Revoke, RevokeError, RevokeSlot, RevokeWaitError,
    StepRefused, Untold, WaitError,
};
pub use map::{
    Access, AddressSpace, CutError, Entry, Fracture, FractureError, FractureReason, Fractured,
    Gather, GupError, GupHold, GupRun, GupSlowError, GupTake, InsertError, Leaf, LeafLimit,
    LeafPlan, LeafReader, LeafRun, LeafRuns, LeafSet, MapRequest, Mapped, Mappers, MoveError,
    NoTable, PageTable, PlanError, Replace, Rights, SoftNode, SoftReader, SoftTable, Unmap,
    Unmapped, Vpn, VpnRange, ZapRun, for_each_mapping, fracture, gup, gup_fast, memory_failure,
    unmap_mapping_range,
};
#[cfg(all(feature = "std", not(all(test, loom))))]
pub use meta::HeapMeta;
pub use meta::{Count, MetaLine, MetaSize, StaticMeta, Tables};
pub use owner::{
    Added, CapacityError, CapacityRecord, CapacitySlot, CapacityTarget, DynamicCapacity, ListError,
    RecordError, Reread,
};
#[cfg(feature = "bench")]
#[doc(hidden)]
pub use pgmap::Bare;
pub use pgmap::{
    AddExtentError, AdoptError, AllocError, AllocPolicy, AnyFolio, AnyPin, Attach, CheckReport,
    ClaimError, Contents, Detached, DirSlot, Directory, DrainError, Drained, ExportError,
    ExtentAttrs, ExtentDrained, ExtentSlot, Failure, FolioDesc, FolioInfo, FolioKind,
    FreeRangeError, GetError, Goal, HoldError, Holder, Holding, HookContext, HookCx, ImportError,
    Imported, LentMemory, Life, LongtermPins, Lookup, Magazine, Map, MemoryType, MergeError,
    MergeReason, Migration, Move, NewExtent, Obstacle, OfflineDrained, OfflineError, OnDrop,
    OnlineError, Orphan, P2p, PageInfo, Pgmap, PgmapCore, PgmapOps, Pieces, PoisonError,
    PoisonListError, Poisoned, Policy, RawUnique, Reaped, RegisterError, ReleasePlan,
    ReleasePlanError, RemoveError, ReviveError, Scrub, ScrubJob, ScrubWhen, Scrubbed, SplitError,
    SplitReason, Stats, StillBusy, Tally, Tighten, UniqueFolio, UniqueSet, UnpoisonError, Window,
};
#[cfg(all(sched, not(all(test, loom))))]
pub use sync::on_access;
pub use sync::{Park, ParkKey, Sleep, SpinPark};
pub use units::{Order, Pfn, PfnRange, RangeError, Tiles};
pub use zone::{CheckError, Content, Direction, Request, SetRequest};

/// Compiles and runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
