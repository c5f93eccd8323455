//! Mapping: leaves of any order up to that of the folio, in page tables of the embedder's own.
//!
//! An [`AddressSpace`] puts runs of a folio's pages behind addresses, by the largest leaves that
//! both alignments and the architecture allow, and counts them: one operation for all leaves of a
//! folio. What it needs of a page table are two traits, [`LeafReader`] and [`PageTable`]; which
//! bits an entry has is none of its business. A mapping only counts, so a folio that is mapped by
//! small leaves stays the folio that it is.
//!
//! This floor never names the type of an owner: it finds folios by their pages, in a
//! [`Directory`](crate::Directory). A page that the directory does not know is foreign, RAM or
//! MMIO, and is mapped without being counted.

mod cut;
mod failure;
mod fracture;
mod gather;
mod gup;
mod leaf;
mod leaves;
mod mappers;
mod moves;
mod plan;
mod soft;
mod space;
mod table;
mod virt;
mod walk;

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;

pub use failure::{Mapped, for_each_mapping, memory_failure};
pub use fracture::{Fracture, FractureError, FractureReason, Fractured, fracture};
pub use gather::{Gather, Unmapped, ZapRun};
pub use gup::{GupError, GupHold, GupRun, GupSlowError, GupTake, gup, gup_fast};
pub use leaf::{Access, Entry, Leaf, Rights};
pub use leaves::LeafSet;
pub use mappers::{Mappers, Unmap, unmap_mapping_range};
pub use moves::MoveError;
pub use plan::{LeafLimit, LeafPlan, LeafRun, LeafRuns, PlanError};
pub use soft::{Replace, SoftNode, SoftReader, SoftTable};
pub use space::{AddressSpace, CutError, InsertError, MapRequest};
pub use table::{LeafReader, NoTable, PageTable};
pub use virt::{Vpn, VpnRange};
