//! The end of a pgmap: who begins it, who says that it is there, and who waits for it.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll};

use super::life::{Life, StillBusy};
use super::ops::PgmapOps;
use super::owner::PgmapCore;
use crate::sync::{ParkKey, has_passed};

/// Why a pgmap was not drained at the deadline; nothing changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum DrainError {
    /// Nobody has killed it.
    NotKilled,
    /// A folio was still in use.
    Busy(StillBusy),
}

impl fmt::Display for DrainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotKilled => f.write_str("the pgmap is not being removed"),
            Self::Busy(StillBusy { pfn, folio: Some(folio) }) => {
                let (head, order, refs) = (folio.head, folio.order, folio.refs);
                let (pins, mappings) = (folio.pins, folio.mappings);
                write!(f, "page {pfn} is still in use: folio {head} of order {order} has {refs} ")?;
                write!(f, "references, {pins} pins and {mappings} mappings")
            }
            Self::Busy(busy) => busy.fmt(f),
        }
    }
}

impl core::error::Error for DrainError {}

impl<O: PgmapOps> PgmapCore<O> {
    /// Returns where the life of this pgmap stands.
    pub fn state(&self) -> Life {
        self.core().life()
    }

    /// Begins the end; returns the state. From now on no page leads to a new reference or mapping,
    /// and whatever allocates, claims, revives or pins is refused, but [`PgmapCore::claim_kept`].
    ///
    /// Counts that exist stay valid, and so do the handles on them, which can still be cloned,
    /// mapped, frozen and published. The pgmap is drained as soon as no folio is left but those in
    /// quarantine, and whoever releases the last one wakes [those who wait for
    /// it](PgmapCore::wait_drained). Mirrors the killing of the percpu reference of
    /// `struct dev_pagemap`.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, and wakes waiters if nothing is left.
    pub fn kill(&self) -> Life {
        self.core().begin_end();
        let _ = self.settle_life();
        self.state()
    }

    /// Does what everybody owes who made pages free or put them into quarantine, once what they
    /// did is behind a fence.
    #[inline]
    pub(super) fn after_release(&self) {
        if self.core().is_dying() {
            let _ = self.settle_life();
        }
    }

    /// Completes the removal if nothing is left, and wakes who waits for that: once, since one call
    /// completes it.
    #[cold]
    #[inline(never)]
    pub(super) fn settle_life(&self) -> Result<(), StillBusy> {
        let wake = || self.ops().park().unpark_all(ParkKey::Removal);
        if seeded!(DrainedWakesFirst) {
            wake();
            return self.core().settle_life().map(|_| ());
        }
        if self.core().settle_life()? {
            wake();
        }
        Ok(())
    }

    /// Waits until this pgmap is drained: killed, and without a folio but those in quarantine.
    ///
    /// All uses of all folios happen before it returns. Does not kill; where nobody else does, it
    /// waits for ever. Mirrors the wait for the last count in `memunmap_pages` of Linux.
    ///
    /// # Context
    ///
    /// Where the owner's [`Park`](crate::Park) may sleep, and where no count of this pgmap waits
    /// for the caller. Whoever releases the last folio wakes.
    pub fn wait_drained(&self) {
        let park = self.ops().park();
        // Ends: with the end of the pgmap, which ends the `park` that it meets.
        loop {
            let token = park.token(ParkKey::Removal);
            if self.state() == Life::Drained {
                return;
            }
            let token =
                if seeded!(DrainedLooksOnce) { park.token(ParkKey::Removal) } else { token };
            park.park(ParkKey::Removal, token);
        }
    }

    /// Waits until this pgmap is drained, but not beyond `deadline`, a time of
    /// [`Park::now`](crate::Park::now). Looks at least once.
    ///
    /// Linux has no such bound: `memunmap_pages` waits for as long as it takes, for nobody knows
    /// which page.
    ///
    /// # Errors
    ///
    /// Names the first page that is in use at the deadline, with its folio and the counts;
    /// [`for_each_busy`](PgmapCore::for_each_busy) names them all.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::wait_drained`]; with a deadline that has passed, anywhere. Walks the
    /// extents at the deadline.
    pub fn wait_drained_until(&self, deadline: u64) -> Result<(), DrainError> {
        let park = self.ops().park();
        // Ends: at the deadline at the latest.
        loop {
            let token = park.token(ParkKey::Removal);
            if self.state() == Life::Drained {
                return Ok(());
            }
            if has_passed(park, Some(deadline)) {
                break;
            }
            park.park_until(ParkKey::Removal, token, deadline);
        }
        // Whoever looks last may find that nothing is left, and then it is the end.
        self.settle_life().map_err(DrainError::Busy)?;
        match self.state() {
            Life::Live => Err(DrainError::NotKilled),
            Life::Dying | Life::Drained => Ok(()),
        }
    }

    /// Returns a future that is ready when this pgmap is drained: [`PgmapCore::wait_drained`] for
    /// those who do not sleep.
    ///
    /// It owns nothing but its borrow, and may be dropped at any time: what the owner's
    /// [`Park`](crate::Park) has registered is woken in vain.
    ///
    /// # Context
    ///
    /// Polled where [`Park::register_waker`](crate::Park::register_waker) may be called.
    pub fn drained(&self) -> Drained<'_, O> {
        Drained { pgmap: self }
    }
}

/// The end of a pgmap, as a future: [`PgmapCore::drained`].
#[must_use = "futures do nothing unless they are polled"]
pub struct Drained<'a, O: PgmapOps> {
    pgmap: &'a PgmapCore<O>,
}

impl<O: PgmapOps> Future for Drained<'_, O> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let park = self.pgmap.ops().park();
        let token = park.token(ParkKey::Removal);
        if self.pgmap.state() == Life::Drained {
            return Poll::Ready(());
        }
        let token = if seeded!(FutureTokenLate) { park.token(ParkKey::Removal) } else { token };
        park.register_waker(ParkKey::Removal, token, cx.waker());
        Poll::Pending
    }
}

impl<O: PgmapOps> fmt::Debug for Drained<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Drained({:?})", self.pgmap.state())
    }
}
