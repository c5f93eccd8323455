//! Atomics from `core`, or from `loom` where its model checker runs.

#[cfg(all(test, loom))]
pub(crate) use super::weak::{AtomicU64, Ordering, fence};
#[cfg(not(all(test, loom)))]
pub(crate) use core::hint::spin_loop;
#[cfg(not(all(test, loom)))]
pub(crate) use core::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(all(test, loom))]
pub(crate) use loom::hint::spin_loop;
