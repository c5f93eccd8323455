//! Live, dying, drained: how a pgmap ends.

use super::extent::Extent;
use super::info::FolioInfo;
use super::owner::Core;
use crate::meta::word::Kind;
use crate::sync::{Ordering, fence};
use crate::units::Pfn;

/// Where the life of a pgmap stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Life {
    /// Folios are handed out.
    Live,
    /// Nothing new; folios that exist are waited for.
    Dying,
    /// No folio is left but those in quarantine.
    Drained,
}

const LIVE: u64 = 0;
const DYING: u64 = 1;
const DRAINED: u64 = 2;

/// A folio that keeps a dying pgmap from being drained.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StillBusy {
    /// The first page that is neither free nor in quarantine.
    pub pfn: Pfn,
    /// Its folio; `None` while its pages are on their way between a folio and free space.
    pub folio: Option<FolioInfo>,
}

impl core::fmt::Display for StillBusy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "page {} is still in use", self.pfn)
    }
}

impl core::error::Error for StillBusy {}

impl Core {
    pub(super) fn life(&self) -> Life {
        // ORDERING(dying): Acquire; what was drained before is seen with it.
        match self.life.load(Ordering::Acquire) {
            LIVE => Life::Live,
            DYING => Life::Dying,
            _ => Life::Drained,
        }
    }

    /// Returns whether new folios and counts are refused.
    #[inline]
    pub(crate) fn is_dying(&self) -> bool {
        // ORDERING(dying): Relaxed, behind the fence of who took or gave something. A refusal says
        // nothing but that the end has begun; `life` says more.
        self.life.load(Ordering::Relaxed) != LIVE
    }

    pub(super) fn kill(&self) -> Life {
        // ORDERING(dying): the flag is set before the scan looks; a second kill changes nothing.
        // Relaxed, in front of the fence.
        let _ = self.life.compare_exchange(LIVE, DYING, Ordering::Relaxed, Ordering::Relaxed);
        // ORDERING(dying): the one half.
        fence(Ordering::SeqCst);
        self.settle_life();
        self.life()
    }

    /// Does what everybody owes who made pages free or put them into quarantine, once what they
    /// did is behind a fence.
    #[inline]
    pub(super) fn after_release(&self) {
        if self.is_dying() {
            self.settle_life();
        }
    }

    /// Completes the removal if nothing is left.
    #[cold]
    fn settle_life(&self) {
        if self.life() == Life::Dying && self.first_busy().is_none() {
            // ORDERING(dying): Release, so that who sees the end sees all that led to it.
            let _ =
                self.life.compare_exchange(DYING, DRAINED, Ordering::Release, Ordering::Relaxed);
        }
    }

    /// Returns the first page that is neither free nor in quarantine.
    pub(super) fn first_busy(&self) -> Option<StillBusy> {
        let busy = self.extents().find_map(Extent::first_busy);
        if busy.is_none() {
            // ORDERING(dying): Acquire; whoever finds nothing in use is behind all uses.
            fence(Ordering::Acquire);
        }
        busy
    }
}

impl Extent {
    fn first_busy(&self) -> Option<StillBusy> {
        let range = self.range();
        let mut from = Some(range.start());
        // Ends: `from` grows on every turn, up to the end of the extent.
        while let Some(pfn) = from {
            let rest = crate::units::PfnRange::between(pfn, range.last())?;
            let pfn = self.index().first_busy(rest)?;
            let found = self.find(pfn);
            match found {
                Some(found) if matches!(found.bits.kind(), Kind::Retired | Kind::Poisoned) => {
                    let next = found.head.checked_add(found.bits.order().nr_pages());
                    from = next.filter(|&next| next <= range.last());
                }
                _ => {
                    let folio = found.map(|found| FolioInfo::new(found.head, found.bits));
                    return Some(StillBusy { pfn, folio });
                }
            }
        }
        None
    }
}

impl<O: super::PgmapOps> super::PgmapCore<O> {
    /// Says what keeps this pgmap from being drained; `Ok` if nothing does.
    ///
    /// # Errors
    ///
    /// Returns [`StillBusy`] with the first page that is in use.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock. Walks the extents up to that page.
    pub fn try_drain(&self) -> Result<(), StillBusy> {
        self.core.first_busy().map_or(Ok(()), Err)
    }
}
