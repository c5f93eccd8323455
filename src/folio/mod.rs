//! Counted handles: references, pins and mappings, and what rests on them.
//!
//! A [`Folio`] is a reference, a [`FolioPin`] a promise that the pages stay where they are, a
//! [`FolioMap`] a number of leaves in page tables. The three counts are disjoint, and the last one
//! to go, of whatever kind, runs the owner's hook. There is no fourth way to use a page.

mod adopt;
mod counted;
mod freeze;
mod handle;
mod lease;
mod migrate;
mod raw;
mod revoke;
mod set;
mod untold;
mod wait;
mod wait_range;

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, loom))]
mod programs;
#[cfg(all(test, not(loom)))]
mod tests;

pub use counted::{FolioMap, FolioPin, PinError, PinKind};
pub use freeze::{Busy, BusyAll};
pub use handle::{CountError, Folio};
pub use lease::{Lease, LeaseError, LeaseInfo, LeaseSlot, LeaseState, Leases, Revoke};
pub use migrate::{
    Copied, Frozen, Migrate, Moving, MovingError, MovingReason, Progress, StepRefused,
};
pub use raw::{Put, RawFolio, RawMap, RawPin};
pub use revoke::{Revocation, RevokeError, RevokeSlot, RevokeWaitError};
pub use set::{CloneError, FolioSet};
pub use untold::{ConvertError, Untold};
pub use wait::{FolioWait, WaitError};
pub use wait_range::RangeWait;
