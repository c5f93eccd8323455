//! The exclusive handle: the only one that changes what a folio is.

use core::fmt;
use core::mem::ManuallyDrop;

use super::folio_ref::FolioRef;
use super::info::FolioInfo;
use super::ops::PgmapOps;
use super::owner::PgmapCore;
use super::policy::OnDrop;
use crate::meta::word::Kind;
use crate::sync::Ordering;
use crate::units::{Order, Pfn, PfnRange};
use crate::zone::After;

/// A folio that nobody else can reach: its counts are frozen at zero.
///
/// Only this handle splits, merges, trims and retires a folio, or gives it back. Dropping it does
/// what [`Policy::on_drop`](super::Policy::on_drop) says. Mirrors a folio between
/// `folio_ref_freeze` and `folio_ref_unfreeze` of Linux.
///
/// # Context
///
/// Dropping it takes no lock and never runs the free hook, so it may be done anywhere where the
/// owner's data may be dropped; and, under [`Scrub::OnFree`](super::Scrub::OnFree), where
/// [`PgmapOps::scrub`] may run.
#[must_use = "dropping it gives the folio back"]
pub struct UniqueFolio<'a, O: PgmapOps> {
    at: FolioRef<'a, O>,
    /// The order, and [`CLEAN`]: one word, so that handles are copied word by word.
    shape: u64,
}

/// Every byte of the folio is zero.
const CLEAN: u64 = 1 << 8;

impl<'a, O: PgmapOps> UniqueFolio<'a, O> {
    /// Wraps a folio whose word is unique; the caller passes its claim on.
    #[inline]
    pub(crate) const fn new(at: FolioRef<'a, O>, order: Order, is_clean: bool) -> Self {
        Self { at, shape: order.as_u8() as u64 | if is_clean { CLEAN } else { 0 } }
    }

    /// Gives the claim up without doing anything.
    #[inline]
    pub(crate) fn into_parts(self) -> (FolioRef<'a, O>, Order, bool) {
        let this = ManuallyDrop::new(self);
        (this.at, this.order(), this.is_clean())
    }

    pub(super) const fn at(&self) -> FolioRef<'a, O> {
        self.at
    }

    /// Returns the pgmap that the folio belongs to.
    #[must_use]
    pub const fn pgmap(&self) -> &'a PgmapCore<O> {
        self.at.pgmap
    }

    /// Returns the first page.
    #[must_use]
    pub const fn head(&self) -> Pfn {
        self.at.head
    }

    /// Returns log2 of the number of pages.
    #[must_use]
    pub const fn order(&self) -> Order {
        match Order::new((self.shape & 0xff) as u8) {
            Some(order) => order,
            None => Order::MAX,
        }
    }

    /// Returns the number of pages.
    #[must_use]
    pub const fn nr_pages(&self) -> u64 {
        self.order().nr_pages()
    }

    /// Returns the pages.
    #[must_use]
    pub fn range(&self) -> PfnRange {
        self.at.range(self.order())
    }

    /// Returns whether every byte was zero when the folio was handed out, or the holder said so.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.shape & CLEAN != 0
    }

    /// Declares every byte of the folio to be zero; splits inherit it.
    pub fn mark_clean(&mut self) {
        self.shape |= CLEAN;
    }

    /// Returns the owner's data.
    #[must_use]
    pub fn private(&self) -> &O::Private {
        self.at.private()
    }

    /// Returns the owner's data.
    #[must_use]
    pub fn private_mut(&mut self) -> &mut O::Private {
        self.at.private_mut()
    }

    /// Gives the pages back to free space, dirty; under [`Scrub::OnFree`](super::Scrub::OnFree)
    /// scrubbed, or where the hook's answer says.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook but, under [`Scrub::OnFree`](super::Scrub::OnFree),
    /// [`PgmapOps::scrub`].
    #[inline]
    pub fn release(self) {
        let (at, order, _) = self.into_parts();
        if at.pgmap.scrubs_free() {
            return at.pgmap.scrub_freed(at, order);
        }
        at.pgmap.dissolve(at, order, After::Dirty);
    }

    /// Gives the pages back to free space; every byte of them is zero.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    pub fn release_clean(self) {
        let (at, order, _) = self.into_parts();
        at.pgmap.dissolve(at, order, After::Clean);
    }

    /// Gives the pages of a fresh folio back, which nobody wrote to, as they were.
    pub(crate) fn give_up(self) {
        let (at, order, is_clean) = self.into_parts();
        at.pgmap.dissolve(at, order, if is_clean { After::Clean } else { After::AsWas });
    }

    /// Parks the folio with its owner: no count, not free, brought back by
    /// [`revive`](PgmapCore::revive) or [`claim_kept`](PgmapCore::claim_kept).
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    pub fn keep(self) {
        let (at, order, _) = self.into_parts();
        at.pgmap.park(at, order, Kind::Kept);
    }

    /// Puts the folio into quarantine, until [`claim_retired`](PgmapCore::claim_retired).
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    pub fn retire(self) {
        let (at, order, _) = self.into_parts();
        at.pgmap.park(at, order, Kind::Retired);
    }

    /// Gives the handle up for a number; the folio stays held alone.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    #[must_use = "the folio is lost without it"]
    pub fn into_raw(self) -> RawUnique {
        let (at, _, _) = self.into_parts();
        RawUnique(at.head.as_u64())
    }
}

impl<O: PgmapOps> FolioRef<'_, O> {
    /// Returns the pages of the folio, which has `order`.
    pub(crate) fn range(&self, order: Order) -> PfnRange {
        // A folio never crosses its extent, so the second arm is not reached.
        PfnRange::folio(self.head, order).unwrap_or_else(|| self.extent.range())
    }
}

impl<O: PgmapOps> Drop for UniqueFolio<'_, O> {
    #[inline]
    fn drop(&mut self) {
        match self.at.pgmap.policy().on_drop {
            OnDrop::Release if self.at.pgmap.scrubs_free() => {
                self.at.pgmap.scrub_freed(self.at, self.order());
            }
            OnDrop::Release => {
                let after = if seeded!(DropClean) { After::Clean } else { After::Dirty };
                self.at.pgmap.dissolve(self.at, self.order(), after);
            }
            OnDrop::Keep => self.at.pgmap.park(self.at, self.order(), Kind::Kept),
        }
    }
}

impl<O: PgmapOps> fmt::Debug for UniqueFolio<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UniqueFolio({}, order {})", self.at.head, self.order())
    }
}

/// An exclusive handle as a number: the page frame number of the head.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[must_use = "the folio is lost without it"]
pub struct RawUnique(u64);

impl RawUnique {
    /// Returns the number.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Wraps a number; what it is used for is what needs a promise.
    pub const fn from_u64(raw: u64) -> Self {
        Self(raw)
    }
}

/// Why a parked folio could not be brought back; nothing changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ReviveError {
    /// No extent has this page.
    Outside {
        /// The page.
        pfn: Pfn,
    },
    /// No folio has this page.
    Free {
        /// The page.
        pfn: Pfn,
    },
    /// The page is not the head of a folio in the state in question.
    WrongState {
        /// The page.
        pfn: Pfn,
        /// The folio that has it.
        folio: FolioInfo,
    },
    /// The pgmap is being removed.
    Dying,
}

impl fmt::Display for ReviveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside { pfn } => write!(f, "no extent has page {pfn}"),
            Self::Free { pfn } => write!(f, "page {pfn} is free"),
            Self::WrongState { pfn, folio } => {
                write!(f, "page {pfn} belongs to folio {} in state {:?}", folio.head, folio.kind)
            }
            Self::Dying => f.write_str("the pgmap is being removed"),
        }
    }
}

impl core::error::Error for ReviveError {}

impl<O: PgmapOps> PgmapCore<O> {
    /// Takes a kept folio back, exclusively.
    ///
    /// Allowed while the pgmap is dying: it is how its owner empties it.
    ///
    /// # Errors
    ///
    /// Says what is at `head` instead, and changes nothing.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    pub fn claim_kept(&self, head: Pfn) -> Result<UniqueFolio<'_, O>, ReviveError> {
        let at = self.find_parked(head, Kind::Kept)?;
        let order = self.unpark(at, head, Kind::Kept)?;
        Ok(UniqueFolio::new(at, order, false))
    }

    /// Takes a folio out of quarantine, exclusively.
    ///
    /// # Errors
    ///
    /// Says what is at `head` instead, and changes nothing.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    pub fn claim_retired(&self, head: Pfn) -> Result<UniqueFolio<'_, O>, ReviveError> {
        // A drained pgmap would not be drained any more.
        if self.core.is_dying() {
            return Err(ReviveError::Dying);
        }
        let at = self.find_parked(head, Kind::Retired)?;
        if self.core.is_closed(at.extent) {
            return Err(ReviveError::Dying);
        }
        let order = self.unpark(at, head, Kind::Retired)?;
        let folio = UniqueFolio::new(at, order, false);
        if self.core.slipped_past_kill(at.extent) {
            folio.retire();
            return Err(ReviveError::Dying);
        }
        Ok(folio)
    }

    /// Takes the parked folio over that was found by the page `head`; returns its order.
    fn unpark(&self, at: FolioRef<'_, O>, head: Pfn, kind: Kind) -> Result<Order, ReviveError> {
        let order = at.word.claim(kind).map_err(|bits| Self::wrong_state(head, at.head, bits))?;
        self.count_unparked(kind, order);
        Ok(order)
    }

    pub(crate) fn count_unparked(&self, kind: Kind, order: Order) {
        if kind == Kind::Kept && !seeded!(KeptDrifts) {
            // ORDERING: Relaxed. A statistic.
            self.core.kept_pages.fetch_sub(order.nr_pages(), Ordering::Relaxed);
        }
    }

    pub(crate) fn find_parked(
        &self,
        head: Pfn,
        kind: Kind,
    ) -> Result<FolioRef<'_, O>, ReviveError> {
        let Some((at, found)) = self.find(head) else {
            let is_inside = self.core.extent_of(head).is_some();
            return Err(if is_inside {
                ReviveError::Free { pfn: head }
            } else {
                ReviveError::Outside { pfn: head }
            });
        };
        if found.head != head && !seeded!(ReviveByTail) || found.bits.kind() != kind {
            return Err(Self::wrong_state(head, found.head, found.bits));
        }
        Ok(at)
    }

    pub(crate) fn wrong_state(pfn: Pfn, head: Pfn, bits: crate::meta::word::Bits) -> ReviveError {
        if bits.is_folio() {
            ReviveError::WrongState { pfn, folio: FolioInfo::new(head, bits) }
        } else {
            ReviveError::Free { pfn }
        }
    }
}
