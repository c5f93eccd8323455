//! A cell that is written once, by its one claimer, and read by everybody afterwards.
//!
//! `spin::Once` does more than is needed here, poisoning included, and leaves panics in the object.
//!
//! # Synchronization
//!
//! | edge | release half | acquire half | what it carries |
//! |------|--------------|--------------|-----------------|
//! | `fill-slot` | [`FillOnce::fill`] | [`FillOnce::get`] | the value is complete before it is read |
#![expect(unsafe_code, reason = "a value behind a flag")]

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;

use super::{AtomicU64, Ordering};

#[cfg(all(test, loom))]
mod loom_tests;

const EMPTY: u64 = 0;
const CLAIMED: u64 = 1;
const WRITING: u64 = 2;
const FULL: u64 = 3;

/// A place for a value that is filled at most once and never dropped.
///
/// # Invariants
///
/// 1. `value` is written only by whoever turned `state` from `CLAIMED` into `WRITING`, which
///    happens once, before it becomes `FULL`.
/// 2. `state` never leaves `FULL`.
pub(crate) struct FillOnce<T> {
    state: AtomicU64,
    value: UnsafeCell<MaybeUninit<T>>,
}

impl<T> FillOnce<T> {
    const_unless_loom! {
        pub(crate) const fn new() -> Self {
            Self { state: AtomicU64::new(EMPTY), value: UnsafeCell::new(MaybeUninit::uninit()) }
        }
    }

    /// Changes the state; true if it was `from`.
    fn step(&self, from: u64, to: u64) -> bool {
        // ORDERING: Relaxed. A step only makes its caller the only one.
        self.state.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Claims the cell; true for one caller only.
    pub(crate) fn claim(&self) -> bool {
        self.step(EMPTY, CLAIMED)
    }

    /// Gives up a claim that was not used.
    pub(crate) fn unclaim(&self) {
        let _ = self.step(CLAIMED, EMPTY);
    }

    /// Fills a cell that the caller has claimed; the value is gone if it was not.
    pub(crate) fn fill(&self, value: T) {
        if !self.step(CLAIMED, WRITING) {
            return;
        }
        // SAFETY: By invariant 1 this is the only writer, and nobody reads before `FULL`.
        let place = unsafe { &mut *self.value.get() };
        place.write(value);
        if seeded!(ExtentRelaxed) {
            // ORDERING: Relaxed, which is the fault.
            return self.state.store(FULL, Ordering::Relaxed);
        }
        // ORDERING(fill-slot): Release half.
        self.state.store(FULL, Ordering::Release);
    }

    /// Returns the value once it is there.
    #[inline]
    pub(crate) fn get(&self) -> Option<&T> {
        // ORDERING(fill-slot): Acquire half.
        if self.state.load(Ordering::Acquire) != FULL {
            return None;
        }
        // SAFETY: By the invariants nobody writes any more, so a shared borrow is sound.
        let value = unsafe { &*self.value.get() };
        // SAFETY: By the invariants the value was written before the flag.
        Some(unsafe { value.assume_init_ref() })
    }
}

// SAFETY: The value is moved in by one thread and read by others.
unsafe impl<T: Send + Sync> Sync for FillOnce<T> {}
