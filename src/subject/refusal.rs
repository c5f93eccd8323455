//! The errors of this crate in the words of the specification.

use crate::folio::{CountError, LeaseError, PinError, RevokeError};
use crate::meta::Count;
use crate::model::{Kind, Refusal};
use crate::pgmap::{
    AddExtentError, AllocError, ClaimError, FolioInfo, GetError, HoldError, MergeReason,
    OfflineError, OnlineError, PoisonError, PoisonListError, RemoveError, ReviveError, SplitReason,
    StillBusy, UnpoisonError,
};

/// An error that has a counterpart in the specification.
pub(super) trait Refuses {
    fn refusal(&self) -> Refusal;
}

fn kind(count: Count) -> Kind {
    match count {
        Count::Refs => Kind::Refs,
        Count::Pins => Kind::Pins,
        Count::Mappings => Kind::Maps,
    }
}

impl Refuses for AllocError {
    fn refusal(&self) -> Refusal {
        match *self {
            Self::Exhausted { kept_pages, condemned_pages, .. } => {
                Refusal::Exhausted { kept_pages, condemned_pages }
            }
            Self::NoTables { .. } => Refusal::NoTables,
            Self::OrderTooLarge { .. } => Refusal::OrderTooLarge,
            Self::ClaimOnly => Refusal::ClaimOnly,
            Self::Dying => Refusal::Dying,
            Self::TooManyPieces { needed, .. } => Refusal::TooManyPieces { needed: needed as u64 },
            Self::NotMultiple { .. } => Refusal::NotMultiple,
            Self::Inverted { .. } => Refusal::Orders,
            // Nobody else is there to contend with.
            Self::Contended { .. } => Refusal::Other,
        }
    }
}

impl Refuses for ClaimError {
    fn refusal(&self) -> Refusal {
        match *self {
            Self::Outside { .. } => Refusal::Outside,
            Self::Misaligned { .. } => Refusal::Misaligned,
            Self::Busy { pfn } => Refusal::Busy { pfn },
            Self::NoTables { .. } => Refusal::NoTables,
            Self::OrderTooLarge { .. } => Refusal::OrderTooLarge,
            Self::Dying => Refusal::Dying,
            Self::TooManyPieces { needed, .. } => Refusal::TooManyPieces { needed: needed as u64 },
            Self::ScrubFailed { pfn } => Refusal::ScrubFailed { pfn },
            Self::ScrubPending { pfn } => Refusal::ScrubPending { pfn },
            Self::Contended { .. } => Refusal::Other,
        }
    }
}

impl Refuses for GetError {
    fn refusal(&self) -> Refusal {
        match *self {
            Self::Outside { .. } => Refusal::Outside,
            Self::NotLive { .. } => Refusal::NotLive,
            Self::Closed { .. } => Refusal::Closed,
            Self::Limit { have, .. } => Refusal::Limit { kind: Kind::Refs, value: have },
            Self::Dying => Refusal::Dying,
        }
    }
}

impl Refuses for CountError {
    fn refusal(&self) -> Refusal {
        match *self {
            Self::Limit { count, have, .. } => Refusal::Limit { kind: kind(count), value: have },
            Self::Underflow { count, have, .. } => Refusal::Underflow { kind: kind(count), have },
            Self::NotLive { .. } => Refusal::NotLive,
            Self::Closed { .. } => Refusal::Closed,
            Self::Outside { .. } => Refusal::Outside,
            Self::Dying => Refusal::Dying,
        }
    }
}

impl Refuses for PinError {
    fn refusal(&self) -> Refusal {
        match self {
            Self::LongtermRefused { .. } => Refusal::LongTerm,
            Self::LeaseNeeded { .. } => Refusal::LeaseNeeded,
            Self::Count(error) => error.refusal(),
        }
    }
}

impl Refuses for LeaseError {
    fn refusal(&self) -> Refusal {
        match self {
            Self::NoSlot { .. } => Refusal::NoSlot,
            Self::LongtermRefused { .. } => Refusal::LongTerm,
            Self::Revoked { pfn } => Refusal::Revoked { pfn: *pfn },
            Self::Count(error) => error.refusal(),
            // There is one pgmap only.
            Self::Elsewhere { .. } => Refusal::Other,
        }
    }
}

impl Refuses for RevokeError {
    fn refusal(&self) -> Refusal {
        let Self::NoSlot { .. } = self;
        Refusal::NoSlot
    }
}

impl Refuses for ReviveError {
    fn refusal(&self) -> Refusal {
        match self {
            Self::Outside { .. } => Refusal::Outside,
            Self::Free { .. } | Self::WrongState { .. } => Refusal::NotThere,
            Self::Dying => Refusal::Dying,
        }
    }
}

impl Refuses for SplitReason {
    fn refusal(&self) -> Refusal {
        match self {
            Self::OrderTooLarge { .. } => Refusal::OrderTooLarge,
            Self::NotPart { .. } => Refusal::NotInside,
            Self::NoTables { .. } => Refusal::NoTables,
        }
    }
}

impl Refuses for MergeReason {
    fn refusal(&self) -> Refusal {
        match self {
            Self::NotBuddies { .. } | Self::Apart { .. } => Refusal::NotBuddies,
            Self::OrderTooLarge { .. } => Refusal::OrderTooLarge,
        }
    }
}

impl Refuses for AddExtentError {
    fn refusal(&self) -> Refusal {
        match *self {
            Self::Overlap { existing, .. } => Refusal::Overlap { start: existing.start() },
            Self::TooLarge { .. } => Refusal::TooLarge,
            Self::MetaShort { .. } => Refusal::ShortMeta,
            Self::NoSlot { .. } => Refusal::NoSlot,
            Self::Dying => Refusal::Dying,
            // The budget always covers the cut blocks, and owner data has the places it takes.
            Self::TablesShort { .. } | Self::PrivateShort { .. } => Refusal::Other,
        }
    }
}

impl Refuses for RemoveError {
    fn refusal(&self) -> Refusal {
        match self {
            Self::Outside { .. } => Refusal::Outside,
            Self::NotDying { .. } => Refusal::NotDying,
            Self::Gone { .. } => Refusal::Gone,
            Self::Dying => Refusal::Dying,
            // The number of those in the way is for the caller to find out.
            Self::Busy(StillBusy { pfn, .. }) => Refusal::StillBusy { pfn: *pfn, nr_folios: 0 },
        }
    }
}

impl Refuses for PoisonError {
    fn refusal(&self) -> Refusal {
        match self {
            Self::Outside { .. } => Refusal::Outside,
            Self::NoRoom { .. } => Refusal::NoRoom,
            Self::Contended { .. } => Refusal::Other,
        }
    }
}

impl Refuses for PoisonListError {
    fn refusal(&self) -> Refusal {
        match self {
            Self::Outside { .. } => Refusal::Outside,
            Self::NoRoom { .. } => Refusal::NoRoom,
            Self::TooManyExtents { .. } | Self::Contended { .. } => Refusal::Other,
        }
    }
}

impl Refuses for UnpoisonError {
    fn refusal(&self) -> Refusal {
        match self {
            Self::Outside { .. } => Refusal::Outside,
            Self::NotPoisoned { .. } => Refusal::NotBad,
            Self::Contended { .. } => Refusal::Other,
        }
    }
}

impl Refuses for HoldError {
    fn refusal(&self) -> Refusal {
        match *self {
            Self::Held => Refusal::HasHolder,
            Self::Dying => Refusal::Dying,
            Self::Pinned { pfn, pins, .. } => Refusal::Pinned { pfn, pins },
        }
    }
}

impl Refuses for OfflineError {
    fn refusal(&self) -> Refusal {
        match self {
            Self::Outside { .. } => Refusal::Outside,
            Self::NoRoom { .. } => Refusal::NoRoom,
            Self::Contended { .. } => Refusal::Other,
        }
    }
}

impl Refuses for OnlineError {
    fn refusal(&self) -> Refusal {
        match self {
            Self::Outside { .. } => Refusal::Outside,
            Self::NotOffline { pfn } => Refusal::NotOffline { pfn: *pfn },
            Self::NoRoom { .. } => Refusal::NoRoom,
            Self::Contended { .. } => Refusal::Other,
        }
    }
}

/// The counts that are in the way of a freeze.
pub(super) fn held(info: &FolioInfo) -> Refusal {
    Refusal::Held { refs: info.refs, pins: info.pins, maps: info.mappings }
}
