//! Atomics of `core` behind a call that may let another thread run, for schedules from outside.
//!
//! Under `cfg(sched)` only: a fuzzer that chooses the schedule says with [`on_access`] how. The
//! layout of an atomic is that of `core`, so that all metadata lies where it lies otherwise; and no
//! crate of schedulers is needed to build this one.

use core::sync::atomic::{self, Ordering};

static POINT: spin::Once<fn()> = spin::Once::new();

/// Has `point_fn` called before every access to an atomic; the first call of this function counts.
pub fn on_access(point_fn: fn()) {
    POINT.call_once(|| point_fn);
}

fn point() {
    if let Some(point_fn) = POINT.get() {
        point_fn();
    }
}

/// A fence, which a schedule of one access after the other has no need of.
pub(crate) fn fence(order: Ordering) {
    // ORDERING: the caller's.
    atomic::fence(order);
}

/// Whoever spins lets others run.
pub(crate) fn spin_loop() {
    point();
}

/// `core`'s, each access of which is a point at which another thread may run.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct AtomicU64(atomic::AtomicU64);

macro_rules! forward {
    ($($name:ident($($value:ident),*) -> $result:ty;)*) => {$(
        pub(crate) fn $name(&self, $($value: u64,)* order: Ordering) -> $result {
            point();
            self.0.$name($($value,)* order)
        }
    )*};
}

impl AtomicU64 {
    pub(crate) const fn new(value: u64) -> Self {
        Self(atomic::AtomicU64::new(value))
    }

    forward! {
        load() -> u64;
        store(value) -> ();
        swap(value) -> u64;
        fetch_add(value) -> u64;
        fetch_sub(value) -> u64;
        fetch_and(value) -> u64;
        fetch_or(value) -> u64;
        fetch_xor(value) -> u64;
    }

    pub(crate) fn compare_exchange(
        &self,
        current: u64,
        next: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        point();
        // ORDERING: the caller's.
        self.0.compare_exchange(current, next, success, failure)
    }

    /// Fails by chance as little as the machine does.
    pub(crate) fn compare_exchange_weak(
        &self,
        current: u64,
        next: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        point();
        // ORDERING: the caller's.
        self.0.compare_exchange_weak(current, next, success, failure)
    }

    /// A look and an exchange, between which others may run.
    pub(crate) fn fetch_update(
        &self,
        success: Ordering,
        failure: Ordering,
        mut next_fn: impl FnMut(u64) -> Option<u64>,
    ) -> Result<u64, u64> {
        let mut seen = self.load(failure);
        // Ends: a turn is repeated only when another thread changed the value.
        while let Some(next) = next_fn(seen) {
            // ORDERING: the caller's.
            match self.compare_exchange_weak(seen, next, success, failure) {
                Ok(before) => return Ok(before),
                Err(now) => seen = now,
            }
        }
        Err(seen)
    }
}
