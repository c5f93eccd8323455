//! Atomics from `core`, from `loom` where its model checker runs, or scheduled by somebody else.

#[cfg(all(sched, not(all(test, loom))))]
pub(crate) use super::sched::{AtomicU64, fence, spin_loop};
#[cfg(all(test, loom))]
pub(crate) use super::weak::{AtomicU64, Ordering, fence, fence_after_rmw};
#[cfg(not(any(sched, all(test, loom))))]
pub(crate) use core::hint::spin_loop;
#[cfg(not(all(test, loom)))]
pub(crate) use core::sync::atomic::Ordering;
#[cfg(not(any(sched, all(test, loom))))]
pub(crate) use core::sync::atomic::{AtomicU64, fence};
#[cfg(all(test, loom))]
pub(crate) use loom::hint::spin_loop;

/// A fence behind an atomic read-modify-write of the same thread, with at most stores to what the
/// thread holds alone between the two.
///
/// Where such an instruction is a full barrier of the machine, only the compiler has to be held
/// back. Mirrors `smp_mb__after_atomic`.
#[cfg(not(all(test, loom)))]
#[inline]
pub(crate) fn fence_after_rmw(ordering: Ordering) {
    #[cfg(all(target_arch = "x86_64", not(any(miri, sched))))]
    // ORDERING: The caller's; a locked instruction orders what is before it and what is behind it.
    core::sync::atomic::compiler_fence(ordering);
    #[cfg(not(all(target_arch = "x86_64", not(any(miri, sched)))))]
    // ORDERING: The caller's.
    fence(ordering);
}
