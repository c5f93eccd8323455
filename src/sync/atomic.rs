//! Atomics from `core`, from `loom` where its model checker runs, or scheduled by somebody else.

#[cfg(all(sched, not(all(test, loom))))]
pub(crate) use super::sched::{AtomicU64, fence, spin_loop};
#[cfg(all(test, loom))]
pub(crate) use super::weak::{AtomicU64, Ordering, fence};
#[cfg(not(any(sched, all(test, loom))))]
pub(crate) use core::hint::spin_loop;
#[cfg(not(all(test, loom)))]
pub(crate) use core::sync::atomic::Ordering;
#[cfg(not(any(sched, all(test, loom))))]
pub(crate) use core::sync::atomic::{AtomicU64, fence};
#[cfg(all(test, loom))]
pub(crate) use loom::hint::spin_loop;
