//! Owners, and what they have in common: so far the books of capacity that comes and goes.

mod capacity;
mod record;

pub use capacity::{
    Added, CapacityError, CapacitySlot, CapacityTarget, DynamicCapacity, ListError, Reread,
};
pub use record::{CapacityRecord, RecordError};
