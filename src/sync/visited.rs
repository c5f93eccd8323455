//! A cell whose value comes and goes while others look at it.
//!
//! Unlike [`FillOnce`](super::FillOnce) it needs no promise to be emptied: whoever looks is
//! counted, and who gives the value up leaves it to the last visitor. A few flags lie in the same
//! word, so that what they say is decided by one exchange.
//!
//! # Synchronization
//!
//! | edge | release half | acquire half | what it carries |
//! |------|--------------|--------------|-----------------|
//! | `visit` | [`Visited::fill`] | [`Visited::visit`] | the value is complete before it is looked at |
//! | `visit` | the end of a [`Visit`] | taking the value out | all looks are over before it is out |
//! | `visit` | taking the value out | [`Visited::claim`] | the old value is out before a new one is written |
//! | `visit` | [`Visited::raise`], [`Visited::lower`], [`Visited::retire`] | [`Visited::flags`], [`Visited::visit`] | what was done before a flag changed, or the value was given up |
#![expect(unsafe_code, reason = "a value behind a count of visitors")]

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;

use super::{AtomicU64, Ordering, fence};

#[cfg(all(test, loom))]
mod loom_tests;

const EMPTY: u64 = 0;
const CLAIMED: u64 = 1;
const FULL: u64 = 2;
const PHASE: u64 = 3;
/// The value was given up, and goes with the last visitor.
const OVER: u64 = 4;
/// Flags for whoever owns the cell.
const FLAGS: u64 = 0xf8;
const VISITOR: u64 = 1 << 8;

/// A place for a value that others visit.
///
/// A cell that goes away with a value in it leaks the value.
///
/// # Invariants
///
/// 1. `value` is initialised exactly while the phase is `FULL`, and written only by whoever
///    claimed the cell.
/// 2. The word counts every [`Visit`] that exists. Nobody enters a cell that is `OVER`.
/// 3. The value is taken out by whoever made the exchange that left an `OVER` cell without
///    visitors, which is one.
pub(crate) struct Visited<T> {
    state: AtomicU64,
    value: UnsafeCell<MaybeUninit<T>>,
    /// Shows models who reads and writes the value.
    #[cfg(all(test, loom))]
    touched: super::models::Bytes,
}

impl<T> Visited<T> {
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

    /// Returns one of the flags of whoever owns the cell: five, from zero on.
    pub(crate) const fn flag(index: u32) -> u64 {
        assert!(index < FLAGS.count_ones(), "there are five flags");
        1_u64.wrapping_shl(FLAGS.trailing_zeros()).wrapping_shl(index)
    }

    /// Claims the cell; true for one caller only.
    pub(crate) fn claim(&self) -> bool {
        // ORDERING(visit): Acquire half: the last value is out.
        self.state.compare_exchange(EMPTY, CLAIMED, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Gives up a claim that was not used.
    pub(crate) fn unclaim(&self) {
        // ORDERING(visit): Relaxed. An exchange, so that the next claimer is still behind whoever
        // took the last value out.
        self.state.fetch_and(!PHASE, Ordering::Relaxed);
    }

    /// Fills a cell that the caller has claimed; the value is gone if it was not.
    pub(crate) fn fill(&self, value: T) {
        // ORDERING: Relaxed. The claimer is alone.
        if self.state.load(Ordering::Relaxed) != CLAIMED {
            return;
        }
        // SAFETY: By invariant 1 the claimer is the only one here: nobody enters before `FULL`.
        let place = unsafe { &mut *self.value.get() };
        place.write(value);
        #[cfg(all(test, loom))]
        self.touched.write();
        // ORDERING(visit): Release half.
        self.state.store(FULL, Ordering::Release);
    }

    /// Enters the cell, unless it is empty or its value was given up.
    pub(crate) fn visit(&self) -> Option<Visit<'_, T>> {
        // Ends: a turn is repeated only when another thread changed the state.
        loop {
            // ORDERING(visit): Acquire half, of the end of the last value.
            let seen = self.state.load(Ordering::Acquire);
            if seen & (PHASE | OVER) != FULL {
                return None;
            }
            let next = seen.wrapping_add(VISITOR);
            // ORDERING(visit): Acquire half: the value may be another one than that of the look.
            match self.state.compare_exchange_weak(seen, next, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return Some(Visit { cell: self }),
                Err(_) => super::spin_loop(),
            }
        }
    }

    /// Returns the flags that are up.
    pub(crate) fn flags(&self) -> u64 {
        // ORDERING(visit): Acquire half.
        self.state.load(Ordering::Acquire) & FLAGS
    }

    /// Raises `flags`, unless one of `unless` is up; returns those that were up before. For
    /// visitors and for whoever will give the value up.
    pub(crate) fn raise(&self, flags: u64, unless: u64) -> Result<u64, u64> {
        let next_fn = |seen| (seen & unless == 0).then_some(seen | flags);
        // ORDERING(visit): Release half. What comes of a flag that is up is looked at by `flags`.
        let raised = self.state.fetch_update(Ordering::Release, Ordering::Relaxed, next_fn);
        raised.map(|seen| seen & FLAGS).map_err(|seen| seen & FLAGS)
    }

    /// Lowers `flags`. As for [`Visited::raise`].
    pub(crate) fn lower(&self, flags: u64) {
        // ORDERING(visit): Release half.
        self.state.fetch_and(!flags, Ordering::Release);
    }

    /// Gives the value up: nobody enters any more, and it is dropped with the last visit, or now.
    ///
    /// Called once, by whoever filled the cell.
    pub(crate) fn retire(&self) {
        // ORDERING(visit): Release half.
        let before = self.state.fetch_or(OVER, Ordering::Release);
        if before & (PHASE | OVER) == FULL && (before < VISITOR || seeded!(TakenUnderVisitor)) {
            self.empty();
        }
    }

    /// Returns whether a value was given up that is still being looked at.
    pub(crate) fn is_leaving(&self) -> bool {
        // ORDERING(visit): Acquire half: if not, all looks at what was given up are over.
        self.state.load(Ordering::Acquire) & OVER != 0
    }

    /// Takes the value out; the caller made the exchange of invariant 3.
    #[cold]
    fn empty(&self) {
        // ORDERING(visit): Acquire half: all visits have ended.
        fence(Ordering::Acquire);
        // SAFETY: By invariant 3 the caller is the only one here.
        let place = unsafe { &*self.value.get() };
        // SAFETY: By invariant 1 it is initialised, and it is not read again, since the phase says
        // so from now on.
        let value = unsafe { place.assume_init_read() };
        #[cfg(all(test, loom))]
        self.touched.write();
        // ORDERING(visit): Release half: the value is out before another one is put in.
        self.state.store(EMPTY, Ordering::Release);
        // Behind the state: it is the embedder's, and may do anything.
        drop(value);
    }
}

/// A look at the value of a cell, which stays as long.
#[must_use = "the visit ends at once"]
pub(crate) struct Visit<'a, T> {
    cell: &'a Visited<T>,
}

impl<T> Visit<'_, T> {
    pub(crate) fn value(&self) -> &T {
        #[cfg(all(test, loom))]
        self.cell.touched.read();
        // SAFETY: By invariants 2 and 3 nobody writes while the visit is counted.
        let value = unsafe { &*self.cell.value.get() };
        // SAFETY: By invariant 1 it is initialised: the cell was full when it was entered.
        unsafe { value.assume_init_ref() }
    }
}

impl<T> Drop for Visit<'_, T> {
    fn drop(&mut self) {
        // ORDERING(visit): Release half.
        let before = self.cell.state.fetch_sub(VISITOR, Ordering::Release);
        let is_over = before & (PHASE | OVER) == FULL | OVER;
        if is_over && before & !(VISITOR - 1) == VISITOR && !seeded!(TakenUnderVisitor) {
            self.cell.empty();
        }
    }
}

// SAFETY: The value is moved in by one thread, read by others, and dropped by any.
unsafe impl<T: Send + Sync> Sync for Visited<T> {}
