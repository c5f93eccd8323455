//! Waiting for the counts of all folios of a range, by those who hold none of them.
//!
//! A range has no word, so the waiter registers with the first folio that is in the way, sleeps on
//! that one, and looks at the whole range again: what it was waiting for is met when one walk from
//! end to end found nothing in the way. It takes no reference, which would be in the way of others;
//! a folio that ends meanwhile wakes it like any other drop of a count.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll};

use super::wait::{Until, WaitError, sleep};
use crate::pgmap::{FolioInfo, FolioKind, FolioRef, PgmapCore, PgmapOps};
use crate::sync::{Ordering, Sleep, fence, has_passed};
use crate::units::{Pfn, PfnRange};

impl Until {
    /// Returns whether a folio of a range is not in the way.
    fn is_met_in_range(self, info: &FolioInfo) -> bool {
        let is_idle = info.refs == 0 || self == Self::Unpinned;
        info.kind != FolioKind::Live || info.pins == 0 && is_idle
    }
}

impl<O: PgmapOps> PgmapCore<O> {
    /// Waits until no folio with pages of `range` has references or pins, mappings notwithstanding.
    ///
    /// What was done through them is behind it. Pages that are free, kept, condemned, held alone or
    /// in no extent have no counts. New counts may come as soon as this returns, or behind the
    /// place that it looks at: close the folios first, or the way to them, as a file system does
    /// that takes pages from a file. Mirrors `dax_break_layout` of Linux, over any number of
    /// folios.
    ///
    /// # Context
    ///
    /// Where the owner's [`Park`](crate::Park) may sleep, and where none of the counts is the
    /// caller's own. Walks the range, once more after each sleep.
    pub fn wait_idle_in(&self, range: PfnRange) {
        // Without a deadline there is no error.
        let _ = self.wait_in(range, Until::Idle, None, sleep);
    }

    /// Waits as [`PgmapCore::wait_idle_in`] does, but not beyond `deadline`, a time of
    /// [`Park::now`](crate::Park::now). Looks at least once.
    ///
    /// # Errors
    ///
    /// Returns [`WaitError::Deadline`] with the first folio that was in the way.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::wait_idle_in`]; with a deadline that has passed, anywhere.
    pub fn wait_idle_in_until(&self, range: PfnRange, deadline: u64) -> Result<(), WaitError> {
        self.wait_in(range, Until::Idle, Some(deadline), sleep)
    }

    /// Waits as [`PgmapCore::wait_idle_in`] does, on behalf of a caller with a lock of its own:
    /// `sleep_fn` gives it up, [sleeps](Sleep::sleep) and takes it again.
    ///
    /// # Errors
    ///
    /// Returns [`WaitError::Deadline`] if there is a deadline, with the first folio that was in the
    /// way.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::wait_idle_in`]. No lock of this crate is held when `sleep_fn` runs.
    pub fn wait_idle_in_with(
        &self,
        range: PfnRange,
        deadline: Option<u64>,
        sleep_fn: impl FnMut(Sleep<'_>),
    ) -> Result<(), WaitError> {
        self.wait_in(range, Until::Idle, deadline, sleep_fn)
    }

    /// Returns a future that is ready when [`PgmapCore::wait_idle_in`] would return.
    ///
    /// It may be dropped at any time, and then takes its last registration along; those before cost
    /// a wake-up in vain.
    ///
    /// # Context
    ///
    /// Polled where [`Park::register_waker`](crate::Park::register_waker) may be called; dropped
    /// anywhere.
    pub const fn idle_in(&self, range: PfnRange) -> RangeWait<'_, O> {
        RangeWait { pgmap: self, range, until: Until::Idle, registered: None }
    }

    /// Waits until no folio with pages of `range` has pins, whatever other counts there are.
    ///
    /// What devices did through the pins is behind it; the rest is as for
    /// [`PgmapCore::wait_idle_in`].
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::wait_idle_in`], but the caller may have references.
    pub fn wait_unpinned_in(&self, range: PfnRange) {
        // Without a deadline there is no error.
        let _ = self.wait_in(range, Until::Unpinned, None, sleep);
    }

    /// Waits as [`PgmapCore::wait_unpinned_in`] does, but not beyond `deadline`, a time of
    /// [`Park::now`](crate::Park::now). Looks at least once.
    ///
    /// # Errors
    ///
    /// Returns [`WaitError::Deadline`] with the first folio that was in the way.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::wait_unpinned_in`]; with a deadline that has passed, anywhere.
    pub fn wait_unpinned_in_until(&self, range: PfnRange, deadline: u64) -> Result<(), WaitError> {
        self.wait_in(range, Until::Unpinned, Some(deadline), sleep)
    }

    /// Waits as [`PgmapCore::wait_unpinned_in`] does, on behalf of a caller with a lock of its own,
    /// as [`PgmapCore::wait_idle_in_with`] does.
    ///
    /// # Errors
    ///
    /// Returns [`WaitError::Deadline`] if there is a deadline, with the first folio that was in the
    /// way.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::wait_unpinned_in`]. No lock of this crate is held when `sleep_fn` runs.
    pub fn wait_unpinned_in_with(
        &self,
        range: PfnRange,
        deadline: Option<u64>,
        sleep_fn: impl FnMut(Sleep<'_>),
    ) -> Result<(), WaitError> {
        self.wait_in(range, Until::Unpinned, deadline, sleep_fn)
    }

    /// Returns a future that is ready when [`PgmapCore::wait_unpinned_in`] would return.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::idle_in`].
    pub const fn unpinned_in(&self, range: PfnRange) -> RangeWait<'_, O> {
        RangeWait { pgmap: self, range, until: Until::Unpinned, registered: None }
    }

    /// Returns the first folio with pages of `range` that is in the way; `None` is behind all uses
    /// of the counts that are gone.
    fn first_in_way(&self, range: PfnRange, until: Until) -> Option<(FolioRef<'_, O>, FolioInfo)> {
        for (extent, part) in self.core().parts(range) {
            for found in extent.folios_in(part) {
                let info = FolioInfo::new(found.head, found.bits);
                if !until.is_met_in_range(&info) {
                    let word = found.word;
                    return Some((FolioRef { pgmap: self, extent, word, head: found.head }, info));
                }
            }
        }
        // ORDERING(use-before-free): Acquire half, behind the looks that found them gone.
        fence(Ordering::Acquire);
        None
    }

    /// Takes the registration with the folio at `head` away.
    fn unregister_at(&self, head: Option<Pfn>) {
        if let Some((at, _)) = head.and_then(|head| self.find(head)) {
            at.unregister_waiter();
        }
    }

    fn wait_in(
        &self,
        range: PfnRange,
        until: Until,
        deadline: Option<u64>,
        mut sleep_fn: impl FnMut(Sleep<'_>),
    ) -> Result<(), WaitError> {
        let park = self.ops().park();
        // By name: the extent may leave while this sleeps.
        let mut last = None;
        // Ends: when the others have dropped their counts, each of which ends a sleep; or at the
        // deadline.
        while let Some((at, info)) = self.first_in_way(range, until) {
            if has_passed(park, deadline) {
                self.unregister_at(last);
                return Err(WaitError::Deadline { info });
            }
            let token = park.token(at.key());
            last = Some(at.head);
            if at.register_for(until, range) || seeded!(RangeLooksOnce) {
                sleep_fn(Sleep::new(park, at.key(), token, deadline));
            }
        }
        Ok(())
    }
}

impl<O: PgmapOps> FolioRef<'_, O> {
    /// Registers a waiter who has no reference, so that the folio may be gone by now; false if what
    /// is there is not in the way. It may be another folio, with fewer pages.
    pub(super) fn register_for(&self, until: Until, range: PfnRange) -> bool {
        let is_in_way = || {
            let info = FolioInfo::new(self.head, self.word.read());
            PfnRange::block(info.head, info.order).overlaps(range) && !until.is_met_in_range(&info)
        };
        self.word.register_waiter() && is_in_way()
    }
}

/// Counts of the folios of a range that are to go, as a future: [`PgmapCore::idle_in`] and
/// [`PgmapCore::unpinned_in`].
#[must_use = "futures do nothing unless they are polled"]
pub struct RangeWait<'a, O: PgmapOps> {
    pgmap: &'a PgmapCore<O>,
    range: PfnRange,
    until: Until,
    /// The last folio with which it registered, by name: its extent may leave between two polls.
    registered: Option<Pfn>,
}

impl<O: PgmapOps> Future for RangeWait<'_, O> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let park = this.pgmap.ops().park();
        // Ends: a turn is repeated only when a folio that was in the way is not any more.
        while let Some((at, _)) = this.pgmap.first_in_way(this.range, this.until) {
            let token = park.token(at.key());
            this.registered = Some(at.head);
            if at.register_for(this.until, this.range) {
                park.register_waker(at.key(), token, cx.waker());
                return Poll::Pending;
            }
        }
        this.registered = None;
        Poll::Ready(())
    }
}

impl<O: PgmapOps> Drop for RangeWait<'_, O> {
    fn drop(&mut self) {
        self.pgmap.unregister_at(self.registered);
    }
}

impl<O: PgmapOps> fmt::Debug for RangeWait<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RangeWait({}, {:?})", self.range, self.until)
    }
}
