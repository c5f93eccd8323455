//! The owner of the pool: what happens to a folio that nobody holds any more.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use devfolio::{HookCx, PgmapOps, UniqueFolio};

/// Keeps what is cached, releases the rest, and counts both.
#[derive(Debug, Default)]
pub(crate) struct Owner {
    /// The verdict on the folios that come back from now on.
    is_caching: AtomicBool,
    nr_kept: AtomicU64,
    nr_released: AtomicU64,
}

/// How often the hook ran, by its verdict.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct HookCalls {
    pub(crate) nr_kept: u64,
    pub(crate) nr_released: u64,
}

impl Owner {
    /// Says what the next folios that come back are worth.
    pub(crate) fn set_caching(&self, is_caching: bool) {
        // ORDERING: Relaxed. The hook runs in the thread that said so.
        self.is_caching.store(is_caching, Ordering::Relaxed);
    }

    pub(crate) fn calls(&self) -> HookCalls {
        // ORDERING: Relaxed. Statistics.
        let nr_kept = self.nr_kept.load(Ordering::Relaxed);
        // ORDERING: Relaxed. Statistics.
        HookCalls { nr_kept, nr_released: self.nr_released.load(Ordering::Relaxed) }
    }
}

impl PgmapOps for Owner {
    type Private = ();

    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, _cx: &mut HookCx<'a, Self>) {
        // ORDERING: Relaxed. The verdict was given in this thread.
        if self.is_caching.load(Ordering::Relaxed) {
            // ORDERING: Relaxed. A statistic.
            self.nr_kept.fetch_add(1, Ordering::Relaxed);
            folio.keep();
        } else {
            // ORDERING: Relaxed. A statistic.
            self.nr_released.fetch_add(1, Ordering::Relaxed);
            folio.release();
        }
    }
}
