//! A cell that is written by its one claimer, and read by everybody afterwards.
//!
//! `spin::Once` does more than is needed here, poisoning included, and leaves panics in the object.
//!
//! # Synchronization
//!
//! | edge | release half | acquire half | what it carries |
//! |------|--------------|--------------|-----------------|
//! | `fill-slot` | [`FillOnce::fill`] | [`FillOnce::get`] | the value is complete before it is read |
//! | `fill-slot` | [`FillOnce::take`] | [`FillOnce::claim`] | the old value is out before a new one is written |
//! | `fill-slot` | [`Link::set`] | [`Link::get`] | a cell that serves again shows what it was filled with last |
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

/// A place for a value that is filled by one claimer, and emptied by promise only.
///
/// # Invariants
///
/// 1. `value` is written only by whoever turned `state` from `CLAIMED` into `WRITING`, which
///    happens once, before it becomes `FULL`.
/// 2. `state` leaves `FULL` only by [`FillOnce::take`], when nobody reads any more.
#[repr(C)]
pub(crate) struct FillOnce<T> {
    state: AtomicU64,
    value: UnsafeCell<MaybeUninit<T>>,
    /// Shows models who reads and writes the value.
    #[cfg(all(test, loom))]
    touched: super::models::Bytes,
}

impl<T> FillOnce<T> {
    const_unless_loom! {
        pub(crate) const fn new() -> Self {
            Self {
                state: AtomicU64::new(EMPTY),
                value: UnsafeCell::new(MaybeUninit::uninit()),
                #[cfg(all(test, loom))]
                touched: super::models::Bytes::new(),
            }
        }
    }

    /// Changes the state; true if it was `from`.
    fn step(&self, from: u64, to: u64) -> bool {
        // ORDERING(fill-slot): Acquire half: who took the last value out has read it.
        self.state.compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed).is_ok()
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
        #[cfg(all(test, loom))]
        self.touched.write();
        if seeded!(ExtentRelaxed) {
            // ORDERING: Relaxed, which is the fault.
            return self.state.store(FULL, Ordering::Relaxed);
        }
        // ORDERING(fill-slot): Release half.
        self.state.store(FULL, Ordering::Release);
    }

    /// Takes the value out; the cell can be claimed again then.
    ///
    /// # Safety
    ///
    /// No borrow from [`FillOnce::get`] is used any more, no call of it is under way, and every
    /// later one is behind the next [`FillOnce::fill`], or finds the cell empty.
    pub(crate) unsafe fn take(&self) -> Option<T> {
        self.get()?;
        // SAFETY: By the caller's contract nobody else reads, and `get` saw that it is full.
        let place = unsafe { &*self.value.get() };
        // SAFETY: As above; the value is not read again, because the state says so from now on.
        let value = unsafe { place.assume_init_read() };
        #[cfg(all(test, loom))]
        self.touched.write();
        // ORDERING(fill-slot): Release half: the value is out before another one is put in.
        self.state.store(EMPTY, Ordering::Release);
        Some(value)
    }

    /// Returns the value once it is there.
    #[inline]
    pub(crate) fn get(&self) -> Option<&T> {
        // ORDERING(fill-slot): Acquire half.
        if self.state.load(Ordering::Acquire) != FULL {
            return None;
        }
        #[cfg(all(test, loom))]
        self.touched.read();
        // SAFETY: By the invariants nobody writes any more, so a shared borrow is sound.
        let value = unsafe { &*self.value.get() };
        // SAFETY: By the invariants the value was written before the flag.
        Some(unsafe { value.assume_init_ref() })
    }
}

/// The name of a cell that may serve again: whoever reads it finds what the cell was filled with
/// last. Written by one thread at a time.
#[derive(Debug)]
pub(crate) struct Link(AtomicU64);

impl Link {
    const_unless_loom! {
        pub(crate) const fn new() -> Self {
            Self(AtomicU64::new(0))
        }
    }

    /// Returns the name.
    #[inline]
    pub(crate) fn get(&self) -> u64 {
        // ORDERING(fill-slot): Acquire half.
        self.0.load(Ordering::Acquire)
    }

    /// Names a cell that is full, or none.
    pub(crate) fn set(&self, name: u64) {
        if seeded!(SlotNameRelaxed) {
            // ORDERING: Relaxed, which is the fault.
            return self.0.store(name, Ordering::Relaxed);
        }
        // ORDERING(fill-slot): Release half.
        self.0.store(name, Ordering::Release);
    }
}

// SAFETY: The value is moved in by one thread and read by others.
unsafe impl<T: Send + Sync> Sync for FillOnce<T> {}
