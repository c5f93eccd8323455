//! The atomics facade, the lock and the embedder's way to sleep.
//!
//! Everything above takes its atomics from here, so that a build with `--cfg loom` explores the
//! interleavings of the very code that ships, and a fuzzer with `--cfg sched` chooses them. The
//! only lock is [`spin::Mutex`]; it guards rare paths (an extent being added, an owner being
//! registered, the reaper's chain) and is never held while a hook runs.

/// A constructor that is `const`, except for models: `loom` registers every atomic as it is made.
macro_rules! const_unless_loom {
    ($(#[$meta:meta])* $vis:vis const fn new() -> Self $body:block) => {
        #[cfg(not(all(test, loom)))]
        $(#[$meta])*
        $vis const fn new() -> Self $body
        #[cfg(all(test, loom))]
        $(#[$meta])*
        $vis fn new() -> Self $body
    };
}

mod atomic;
#[cfg(all(test, loom))]
pub(crate) mod models;
mod once;
mod park;
#[cfg(all(sched, not(all(test, loom))))]
mod sched;
mod visited;
#[cfg(all(test, loom))]
mod weak;

pub(crate) use const_unless_loom;

/// A value on a cache line of its own: what is written often, beside what everybody reads.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct OwnLine<T>(pub(crate) T);

impl<T> core::ops::Deref for OwnLine<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

pub(crate) use atomic::{AtomicU64, Ordering, fence, fence_after_rmw, spin_loop};
pub(crate) use once::{FillOnce, Link};
pub(crate) use park::has_passed;
pub use park::{Park, ParkKey, Sleep, SpinPark};
#[cfg(all(sched, not(all(test, loom))))]
pub use sched::on_access;
pub(crate) use visited::{Visit, Visited};
