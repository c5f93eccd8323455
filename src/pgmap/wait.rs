//! The end of a pgmap, or of an extent: who says that it is there, and who waits for it.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll};

use super::holder::Failure;
use super::life::{Life, StillBusy};
use super::ops::PgmapOps;
use super::owner::PgmapCore;
use crate::sync::{ParkKey, has_passed};
use crate::units::Pfn;

/// Why a pgmap, or an extent, was not drained at the deadline; nothing changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum DrainError {
    /// Nobody has begun its end, or it was called off.
    NotKilled,
    /// No extent has this page.
    Outside {
        /// The page.
        pfn: Pfn,
    },
    /// A folio was still in use.
    Busy(StillBusy),
}

impl fmt::Display for DrainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotKilled => f.write_str("nobody has begun its removal, or it was called off"),
            Self::Outside { pfn } => write!(f, "no extent has page {pfn}"),
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
    /// it](PgmapCore::wait_drained). A [`Holder`](super::Holder) is told, once. Mirrors the killing
    /// of the percpu reference of `struct dev_pagemap`.
    ///
    /// # Context
    ///
    /// Anywhere where the holder, if there is one, may be told; takes no lock, and wakes waiters if
    /// nothing is left.
    pub fn kill(&self) -> Life {
        let is_first = self.core().begin_end();
        self.settle();
        if is_first {
            self.tell_holder(Failure::Killed);
        }
        self.state()
    }

    /// Does what everybody owes who made pages free or put them into quarantine, once what they
    /// did is behind a fence.
    #[inline]
    pub(super) fn after_release(&self) {
        if self.core().is_ending() {
            self.settle();
        }
    }

    /// Completes each removal of which nothing is left, of this pgmap and of its extents, and wakes
    /// who waits for that: once, since one call completes it.
    #[cold]
    #[inline(never)]
    pub(super) fn settle(&self) {
        let wake = |key| {
            if !seeded!(EndUnsaid) {
                self.ops().park().unpark_all(key);
            }
        };
        if seeded!(DrainedWakesFirst) {
            wake(ParkKey::Removal);
            return self.core().settle(|_| ());
        }
        self.core().settle(wake);
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
        self.wait_for(ParkKey::Removal, None, || (self.state() == Life::Drained).then_some(()));
    }

    /// Waits until `over_fn` has an answer, which whoever made it so says to those who wait for
    /// `key`; `None` at the deadline.
    pub(crate) fn wait_for<T>(
        &self,
        key: ParkKey,
        deadline: Option<u64>,
        over_fn: impl Fn() -> Option<T>,
    ) -> Option<T> {
        let park = self.ops().park();
        // Ends: at the deadline, or with what is waited for, which ends the `park` that it meets.
        loop {
            let token = park.token(key);
            let over = over_fn();
            if over.is_some() {
                return over;
            }
            let token = if seeded!(DrainedLooksOnce) { park.token(key) } else { token };
            match deadline {
                _ if has_passed(park, deadline) && !seeded!(DeadlineForgotten) => return None,
                Some(deadline) => park.park_until(key, token, deadline),
                None => park.park(key, token),
            }
        }
    }

    /// Does as [`PgmapCore::wait_for`] in a future: looks once, and is to be polled again when
    /// those who wait for `key` are woken.
    pub(super) fn poll_for<T>(
        &self,
        key: ParkKey,
        cx: &Context<'_>,
        over_fn: impl FnOnce() -> Option<T>,
    ) -> Poll<T> {
        let park = self.ops().park();
        let token = park.token(key);
        if let Some(over) = over_fn() {
            return Poll::Ready(over);
        }
        let token = if seeded!(FutureTokenLate) { park.token(key) } else { token };
        park.register_waker(key, token, cx.waker());
        Poll::Pending
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
        let is_drained = || (self.state() == Life::Drained).then_some(());
        if self.wait_for(ParkKey::Removal, Some(deadline), is_drained).is_some() {
            return Ok(());
        }
        let busy = self.core().first_busy();
        // Whoever looks last may find that nothing is left, and then it is the end; what says so is
        // the state, since only the scan of an end is behind the fence of its edge.
        self.settle();
        match self.state() {
            Life::Drained => Ok(()),
            Life::Live => Err(DrainError::NotKilled),
            Life::Dying => {
                let pfn = self.core().first_extent().map_or(Pfn::new(0), |it| it.range().start());
                Err(DrainError::Busy(busy.unwrap_or(StillBusy { pfn, folio: None })))
            }
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
        let is_drained = || (self.pgmap.state() == Life::Drained).then_some(());
        self.pgmap.poll_for(ParkKey::Removal, cx, is_drained)
    }
}

impl<O: PgmapOps> fmt::Debug for Drained<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Drained({:?})", self.pgmap.state())
    }
}

// The same for one extent. Each look begins with the page, so that no waiter stands on the metadata
// of an extent that was detached meanwhile.
impl<O: PgmapOps> PgmapCore<O> {
    /// Waits until the removal of the extent that has `pfn` is complete.
    ///
    /// All uses of all its folios happen before it returns. An extent that is detached meanwhile
    /// was drained.
    ///
    /// # Errors
    ///
    /// Says that nobody removes the extent, or that it was called off, or that there is none.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::wait_drained`], for the counts of the extent.
    pub fn wait_extent_drained(&self, pfn: Pfn) -> Result<(), DrainError> {
        self.wait_extent(pfn, None)
    }

    /// Waits until the removal of the extent that has `pfn` is complete, but not beyond `deadline`,
    /// a time of [`Park::now`](crate::Park::now). Looks at least once.
    ///
    /// # Errors
    ///
    /// As for [`PgmapCore::wait_extent_drained`]; at the deadline it names the first page that is
    /// in use, and [`for_each_busy_in_extent`](PgmapCore::for_each_busy_in_extent) names them all.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::wait_drained_until`].
    pub fn wait_extent_drained_until(&self, pfn: Pfn, deadline: u64) -> Result<(), DrainError> {
        self.wait_extent(pfn, Some(deadline))
    }

    /// Returns a future that is ready when the removal of the extent that has `pfn` is complete:
    /// [`PgmapCore::wait_extent_drained`] for those who do not sleep.
    ///
    /// # Errors
    ///
    /// Says that there is no such extent.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::drained`].
    pub fn extent_drained(&self, pfn: Pfn) -> Result<ExtentDrained<'_, O>, DrainError> {
        let key = self.removal_key(pfn).ok_or(DrainError::Outside { pfn })?;
        Ok(ExtentDrained { pgmap: self, pfn, key })
    }

    fn removal_key(&self, pfn: Pfn) -> Option<ParkKey> {
        Some(self.core().extent_of(pfn)?.removal_key())
    }

    /// Returns whether the removal has come to its end; `None` while it is under way.
    fn removal_is_over(&self, pfn: Pfn) -> Option<Result<(), DrainError>> {
        match self.extent_state(pfn) {
            None | Some(Life::Drained) => Some(Ok(())),
            Some(Life::Live) => Some(Err(DrainError::NotKilled)),
            Some(Life::Dying) => None,
        }
    }

    fn wait_extent(&self, pfn: Pfn, deadline: Option<u64>) -> Result<(), DrainError> {
        let key = self.removal_key(pfn).ok_or(DrainError::Outside { pfn })?;
        if let Some(end) = self.wait_for(key, deadline, || self.removal_is_over(pfn)) {
            return end;
        }
        let busy = self.core().extent_of(pfn).and_then(|extent| extent.first_busy());
        // As for a pgmap.
        self.settle();
        let busy = busy.unwrap_or(StillBusy { pfn, folio: None });
        self.removal_is_over(pfn).unwrap_or(Err(DrainError::Busy(busy)))
    }
}

/// The end of a removal, as a future: [`PgmapCore::extent_drained`].
#[must_use = "futures do nothing unless they are polled"]
pub struct ExtentDrained<'a, O: PgmapOps> {
    pgmap: &'a PgmapCore<O>,
    pfn: Pfn,
    key: ParkKey,
}

impl<O: PgmapOps> Future for ExtentDrained<'_, O> {
    type Output = Result<(), DrainError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.pgmap.poll_for(self.key, cx, || self.pgmap.removal_is_over(self.pfn))
    }
}

impl<O: PgmapOps> fmt::Debug for ExtentDrained<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExtentDrained({:?}, {:?})", self.pfn, self.pgmap.extent_state(self.pfn))
    }
}
