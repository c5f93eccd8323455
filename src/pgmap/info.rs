//! What can be told of a page: values, stale as soon as they are read.

use crate::meta::Count;
use crate::meta::word::{Bits, Kind};
use crate::units::{Order, Pfn};

/// The state of a folio.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum FolioKind {
    /// Held by one exclusive handle, or by the owner's hook.
    Unique,
    /// Idle, parked with its owner.
    Kept,
    /// Counted.
    Live,
    /// In quarantine.
    Retired,
    /// Without counts; its hook has yet to run.
    Condemned,
    /// A bad page in quarantine; or its block, where there was no table left to fracture it.
    Poisoned,
    /// Given back to the device by [`PgmapCore::offline`](super::PgmapCore::offline).
    Offline,
}

/// What a folio's word said at some instant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FolioInfo {
    /// The first page.
    pub head: Pfn,
    /// Log2 of the pages.
    pub order: Order,
    /// The state.
    pub kind: FolioKind,
    /// References.
    pub refs: u32,
    /// Pins.
    pub pins: u32,
    /// Mappings.
    pub mappings: u32,
    /// Whether newcomers are refused.
    pub is_closed: bool,
}

impl FolioInfo {
    pub(crate) const fn new(head: Pfn, bits: Bits) -> Self {
        let kind = match bits.kind() {
            Kind::Live => FolioKind::Live,
            Kind::Kept => FolioKind::Kept,
            Kind::Retired => FolioKind::Retired,
            Kind::Condemned => FolioKind::Condemned,
            Kind::Poisoned => FolioKind::Poisoned,
            Kind::Offline => FolioKind::Offline,
            Kind::None | Kind::Unique | Kind::Undefined => FolioKind::Unique,
        };
        let is_live = matches!(kind, FolioKind::Live);
        Self {
            head,
            order: bits.order(),
            kind,
            refs: if is_live { bits.count(Count::Refs) } else { 0 },
            pins: if is_live { bits.count(Count::Pins) } else { 0 },
            mappings: if is_live { bits.count(Count::Mappings) } else { 0 },
            is_closed: is_live && bits.is_closed(),
        }
    }

    /// Returns the sum of all counts, as Linux counts references.
    #[must_use]
    pub const fn ref_count(&self) -> u32 {
        self.refs.saturating_add(self.pins).saturating_add(self.mappings)
    }
}

/// What is known of a page.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum PageInfo {
    /// No extent has this page.
    Outside,
    /// No folio has this page.
    Free,
    /// This folio has it.
    Folio(FolioInfo),
}
