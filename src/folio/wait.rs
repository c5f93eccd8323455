//! Waiting for the counts of a folio: asleep, up to a deadline, or as a future.
//!
//! Every drop of a count that finds the waiter flag of the word takes it away and then wakes all,
//! whatever they wait for: a pin that goes wakes who waits for pins, however many mappings stay.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll};

use super::handle::Folio;
use crate::pgmap::{FolioInfo, FolioRef, PgmapOps};
use crate::sync::{Ordering, Park, ParkKey, Sleep, fence, has_passed};

/// Why a wait ended without what it waited for; nothing changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum WaitError {
    /// The deadline has passed.
    Deadline {
        /// The folio, with the counts that were in the way.
        info: FolioInfo,
    },
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Deadline { info } = self;
        let FolioInfo { head, order, refs, pins, mappings, .. } = info;
        write!(f, "folio {head} of order {order} still has {refs} references, {pins} pins and ")?;
        write!(f, "{mappings} mappings")
    }
}

impl core::error::Error for WaitError {}

/// What a holder of one reference waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Until {
    /// The reference is the only count.
    Idle,
    /// There are no pins.
    Unpinned,
}

impl Until {
    const fn is_met(self, info: &FolioInfo) -> bool {
        match self {
            Self::Idle => info.ref_count() == 1,
            Self::Unpinned => info.pins == 0,
        }
    }
}

impl<O: PgmapOps> FolioRef<'_, O> {
    fn park(&self) -> &dyn Park {
        self.pgmap.ops().park()
    }

    pub(super) const fn key(&self) -> ParkKey {
        ParkKey::Folio(self.head)
    }

    /// Takes the registration of a waiter away that gives up. It may be that of others as well, so
    /// they are woken and register again.
    #[cold]
    pub(super) fn unregister_waiter(&self) {
        if self.word.clear_waiter() && !seeded!(GivingUpWakesNobody) {
            self.wake(true);
        }
    }
}

impl<'a, O: PgmapOps> Folio<'a, O> {
    /// Waits until this reference is the only count.
    ///
    /// What the others did with the folio is behind their drops, and so behind this. Close the
    /// folio first if newcomers could go on for ever. Sleeps as the owner's
    /// [`Park`] does; whoever drops a count wakes. Mirrors `dax_break_layout` of
    /// Linux.
    ///
    /// # Context
    ///
    /// Where the owner's `Park` may sleep, and where nobody waits for the caller: two holders who
    /// wait for each other on one folio wait for ever.
    pub fn wait_idle(&self) {
        // Without a deadline there is no error.
        let _ = self.wait(Until::Idle, None, sleep);
    }

    /// Waits until this reference is the only count, but not beyond `deadline`, a time of
    /// [`Park::now`]. Looks at least once.
    ///
    /// # Errors
    ///
    /// Returns [`WaitError::Deadline`] with the counts that are in the way.
    ///
    /// # Context
    ///
    /// As for [`Folio::wait_idle`]; with a deadline that has passed, anywhere.
    pub fn wait_idle_until(&self, deadline: u64) -> Result<(), WaitError> {
        self.wait(Until::Idle, Some(deadline), sleep)
    }

    /// Waits until this reference is the only count, on behalf of a caller with a lock of its own:
    /// `sleep_fn` gives it up, [sleeps](Sleep::sleep) and takes it again.
    ///
    /// It is called once for each sleep, and not at all if there is nothing to wait for. What it
    /// protects may have changed meanwhile. Mirrors the callback of `dax_break_layout`.
    ///
    /// # Errors
    ///
    /// Returns [`WaitError::Deadline`] if there is a deadline, with the counts that are in the way.
    ///
    /// # Context
    ///
    /// As for [`Folio::wait_idle`]. No lock of this crate is held when `sleep_fn` runs.
    pub fn wait_idle_with(
        &self,
        deadline: Option<u64>,
        sleep_fn: impl FnMut(Sleep<'_>),
    ) -> Result<(), WaitError> {
        self.wait(Until::Idle, deadline, sleep_fn)
    }

    /// Returns a future that is ready when this reference is the only count: [`Folio::wait_idle`]
    /// for those who do not sleep.
    ///
    /// It may be dropped at any time, and then takes its registration along.
    ///
    /// # Context
    ///
    /// Polled where [`Park::register_waker`] may be called; dropped
    /// anywhere.
    pub const fn idle(&self) -> FolioWait<'_, 'a, O> {
        FolioWait { folio: self, until: Until::Idle, is_registered: false }
    }

    /// Waits until the folio has no pins, whatever other counts there are.
    ///
    /// What devices did through the pins is behind it. Close the folio first if newcomers could go
    /// on for ever. Mirrors what drivers of Linux do with `folio_maybe_dma_pinned`, in a loop.
    ///
    /// # Context
    ///
    /// As for [`Folio::wait_idle`]; holders may wait for the same folio together.
    pub fn wait_unpinned(&self) {
        // Without a deadline there is no error.
        let _ = self.wait(Until::Unpinned, None, sleep);
    }

    /// Waits until the folio has no pins, but not beyond `deadline`, a time of
    /// [`Park::now`]. Looks at least once.
    ///
    /// # Errors
    ///
    /// Returns [`WaitError::Deadline`] with the counts at that time.
    ///
    /// # Context
    ///
    /// As for [`Folio::wait_unpinned`]; with a deadline that has passed, anywhere.
    pub fn wait_unpinned_until(&self, deadline: u64) -> Result<(), WaitError> {
        self.wait(Until::Unpinned, Some(deadline), sleep)
    }

    /// Waits until the folio has no pins, on behalf of a caller with a lock of its own: `sleep_fn`
    /// gives it up, [sleeps](Sleep::sleep) and takes it again, as for [`Folio::wait_idle_with`].
    ///
    /// # Errors
    ///
    /// Returns [`WaitError::Deadline`] if there is a deadline, with the counts at that time.
    ///
    /// # Context
    ///
    /// As for [`Folio::wait_unpinned`]. No lock of this crate is held when `sleep_fn` runs.
    pub fn wait_unpinned_with(
        &self,
        deadline: Option<u64>,
        sleep_fn: impl FnMut(Sleep<'_>),
    ) -> Result<(), WaitError> {
        self.wait(Until::Unpinned, deadline, sleep_fn)
    }

    /// Returns a future that is ready when the folio has no pins: [`Folio::wait_unpinned`] for
    /// those who do not sleep.
    ///
    /// # Context
    ///
    /// As for [`Folio::idle`].
    pub const fn unpinned(&self) -> FolioWait<'_, 'a, O> {
        FolioWait { folio: self, until: Until::Unpinned, is_registered: false }
    }

    /// Looks whether a wait is over; what was done with the counts that are gone is then behind it.
    fn look(&self, until: Until) -> Result<(), FolioInfo> {
        let info = self.info();
        if !until.is_met(&info) {
            return Err(info);
        }
        // ORDERING(use-before-free): Acquire half, behind the look that found them gone.
        fence(Ordering::Acquire);
        Ok(())
    }

    fn wait(
        &self,
        until: Until,
        deadline: Option<u64>,
        mut sleep_fn: impl FnMut(Sleep<'_>),
    ) -> Result<(), WaitError> {
        let at = self.at();
        let (park, key) = (at.park(), at.key());
        let mut is_registered = false;
        // Ends: when the others have dropped their counts, each of which ends a sleep; or at the
        // deadline.
        while let Err(info) = self.look(until) {
            if has_passed(park, deadline) {
                if is_registered {
                    at.unregister_waiter();
                }
                return Err(WaitError::Deadline { info });
            }
            let token = park.token(key);
            // The reference keeps the folio live, so there is always something to register with.
            is_registered = at.word.register_waiter();
            if self.look(until).is_err() || seeded!(LostWakeUp) {
                sleep_fn(Sleep::new(park, key, token, deadline));
            }
        }
        Ok(())
    }
}

/// Counts of a folio that are to go, as a future: [`Folio::idle`] and [`Folio::unpinned`].
///
/// It borrows the reference that waits, so the folio stays what it is.
#[must_use = "futures do nothing unless they are polled"]
pub struct FolioWait<'f, 'a, O: PgmapOps> {
    folio: &'f Folio<'a, O>,
    until: Until,
    is_registered: bool,
}

impl<O: PgmapOps> Future for FolioWait<'_, '_, O> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let at = this.folio.at();
        let token = at.park().token(at.key());
        this.is_registered = at.word.register_waiter();
        if this.folio.look(this.until).is_ok() {
            return Poll::Ready(());
        }
        let token = if seeded!(FutureTokenLate) { at.park().token(at.key()) } else { token };
        at.park().register_waker(at.key(), token, cx.waker());
        Poll::Pending
    }
}

impl<O: PgmapOps> Drop for FolioWait<'_, '_, O> {
    fn drop(&mut self) {
        if self.is_registered {
            self.folio.at().unregister_waiter();
        }
    }
}

impl<O: PgmapOps> fmt::Debug for FolioWait<'_, '_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FolioWait({}, {:?})", self.folio.head(), self.until)
    }
}

pub(super) fn sleep(sleep: Sleep<'_>) {
    sleep.sleep();
}
