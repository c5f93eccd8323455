//! Owners: who brings memory, what they allow, and who gets a folio back at the end.
//!
//! A [`Pgmap`] is an owner's claim on extents. It hands out [`UniqueFolio`]s and takes them back
//! through the owner's hook, [`PgmapOps::folio_free`]. The exclusive handle and the hook live
//! together on this floor, so that the counted handles above need to know only how to say "that
//! was the last one".
//!
//! # Synchronization
//!
//! | edge | release half | acquire half | what it carries |
//! |------|--------------|--------------|-----------------|
//! | `fill-slot` | [`Pgmap::add_extent`] | every lookup | an extent is complete before it is found |
//! | `fill-slot` | [`Pgmap::add_extent`], [`Pgmap::detach_extent`] | every lookup | a slot that is found by its name shows what it was filled with last |
//! | `poison` | [`PgmapCore::poison`], [`PgmapCore::poison_list`], [`PgmapCore::unpoison`] | every release, every quarantine | a page that is freed while it is poisoned is found by one side or the other |
//! | `trie` | [`Pgmap::add_extent`], [`Pgmap::detach_extent`] | every lookup among several extents | an extent that is there is not missed, and one that has left is not found, because others come and go |
//! | `condemn` | a deferred last put | [`PgmapCore::reap`] | the folio's word and link, and all uses of it |
//! | `dying` | [`PgmapCore::kill`], [`PgmapCore::remove_extent`] | whoever completes a removal | what was taken by those who did not see the flag is seen |
//! | `dying` | [`PgmapCore::kill`], [`PgmapCore::remove_extent`] | every allocation, every release | an allocation that missed the flag is seen by the scan, and the other way round |
//! | `hold` | [`Pgmap::attach_holder`] | every long-term pin and lease | a pin that comes at that moment is found, or refused |
//! | `hold` | [`Pgmap::attach_holder`] | [`PgmapCore::poison`], [`PgmapCore::kill`] and what removes an extent | a failure at that moment is told, or can be seen |
//! | `dying` | every release, the last step of a removal | a scan that found nothing, [`PgmapCore::state`] | all uses happen before anybody learns the end |

mod allocate;
mod any;
mod any_pin;
#[cfg(feature = "bench")]
mod bare;
mod bulk;
mod carve;
mod check;
#[cfg(feature = "model")]
mod corrupt;
mod directory;
mod draw;
mod extent;
mod fill;
mod folio_ref;
mod gone;
mod holder;
mod image;
mod info;
mod life;
mod lookup;
mod magazine;
mod offline;
mod ops;
mod owner;
mod pinned;
mod poison;
mod poison_list;
mod policy;
mod raw;
mod release;
mod remove;
mod scrub;
mod set;
mod stats;
mod trie;
mod unique;
mod wait;
mod withheld;

#[cfg(all(test, loom))]
pub(crate) mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;

pub use allocate::{AllocError, ClaimError};
pub use any_pin::AnyPin;
#[cfg(feature = "bench")]
pub use bare::Bare;
pub use carve::{MergeError, MergeReason, Pieces, SplitError, SplitReason};
pub use check::CheckReport;
pub use directory::{
    AnyFolio, DirSlot, Directory, FreeRangeError, Lookup, NewExtent, RegisterError,
};
pub use draw::Map;
pub use extent::{AddExtentError, Attach, Contents, ExtentAttrs, ExtentSlot};
pub use holder::{Failure, HoldError, Holder, Holding, Tighten};
pub use image::{AdoptError, ExportError, ImportError, Imported, Orphan};
pub use info::{FolioInfo, FolioKind, PageInfo};
pub use life::{Life, StillBusy};
pub use lookup::GetError;
pub use magazine::Magazine;
pub use offline::{OfflineDrained, OfflineError, OnlineError};
pub use ops::{HookCx, PgmapOps};
pub use owner::{PgmapCore, Reaped};
pub use poison::{PoisonError, Poisoned, UnpoisonError};
pub use poison_list::PoisonListError;
pub use policy::{
    AllocPolicy, HookContext, LongtermPins, MemoryType, Migration, OnDrop, P2p, Policy, Scrub,
};
pub use raw::{Detached, LentMemory, Pgmap};
pub use release::{Goal, Move, Obstacle, ReleasePlan, ReleasePlanError, Window};
pub use remove::RemoveError;
pub use scrub::{ScrubJob, ScrubWhen, Scrubbed};
pub use set::{FolioDesc, UniqueSet};
pub use stats::{Stats, Tally};
pub use unique::{RawUnique, ReviveError, UniqueFolio};
pub use wait::{DrainError, Drained, ExtentDrained};

pub(crate) use any::{AnyPlace, Known};
pub(crate) use any_pin::AddRefused;
pub(crate) use extent::covers;
pub(crate) use folio_ref::FolioRef;
pub(crate) use set::{pop_desc, split_descs};
