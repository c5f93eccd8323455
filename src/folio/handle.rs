//! The counted handle.

use core::fmt;
use core::mem::ManuallyDrop;

use crate::meta::Count;
use crate::meta::word::{Dropped, Gate, Refused, Underflow};
use crate::pgmap::{
    AnyFolio, FolioInfo, FolioRef, GetError, HookCx, PgmapCore, PgmapOps, ReviveError, UniqueFolio,
};
use crate::units::{Order, Pfn, PfnRange, cold};

/// A reference to a folio: it stays what it is while the handle lives.
///
/// Not `Clone`, since a count has a limit: [`Folio::try_clone`] returns the error. Dropping it is
/// `folio_put` of Linux; the drop of the last count of any kind runs the owner's hook.
///
/// # Context
///
/// Dropping it takes no lock, and wakes waiters. The last count runs [`PgmapOps::folio_free`] there
/// and then, so it belongs where that hook may run; with
/// [`HookContext::Deferred`](crate::HookContext::Deferred) it condemns the folio instead, which may
/// be done anywhere.
#[must_use = "dropping it drops the reference"]
pub struct Folio<'a, O: PgmapOps> {
    at: FolioRef<'a, O>,
}

/// Why a count was not changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum CountError {
    /// The count is at its limit.
    Limit {
        /// Which count.
        count: Count,
        /// Its value.
        have: u32,
        /// Its limit.
        max: u32,
    },
    /// There are fewer counts than were to be dropped.
    Underflow {
        /// Which count.
        count: Count,
        /// Its value.
        have: u32,
        /// How many were to be dropped.
        dropped: u32,
    },
    /// No live folio covers the page.
    NotLive {
        /// The page.
        pfn: Pfn,
    },
    /// The folio refuses newcomers.
    Closed {
        /// The head of the folio.
        head: Pfn,
    },
    /// No extent has this page.
    Outside {
        /// The page.
        pfn: Pfn,
    },
    /// The pgmap is being removed.
    Dying,
}

impl fmt::Display for CountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit { count, have, max } => {
                write!(f, "{have} {count}, of which {max} are the limit")
            }
            Self::Underflow { count, have, dropped } => {
                write!(f, "{dropped} {count} dropped where {have} are held")
            }
            Self::NotLive { pfn } => write!(f, "no live folio covers page {pfn}"),
            Self::Closed { head } => write!(f, "folio {head} is closed"),
            Self::Outside { pfn } => write!(f, "no extent has page {pfn}"),
            Self::Dying => f.write_str("the pgmap is being removed"),
        }
    }
}

impl core::error::Error for CountError {}

impl CountError {
    /// Says why a count was refused to somebody who asked for the folio at `head` by `pfn`.
    #[cold]
    #[inline(never)]
    pub(crate) const fn refused(refused: Refused, count: Count, head: Pfn, pfn: Pfn) -> Self {
        match refused {
            Refused::NotLive => Self::NotLive { pfn },
            Refused::Closed => Self::Closed { head },
            Refused::Limit { have } => Self::Limit { count, have, max: count.max() },
        }
    }

    pub(super) const fn underflow(
        underflow: Underflow,
        count: Count,
        dropped: u32,
        pfn: Pfn,
    ) -> Self {
        match underflow {
            Underflow::NotLive => Self::NotLive { pfn },
            Underflow::TooFew { have } => Self::Underflow { count, have, dropped },
        }
    }
}

/// Does what the drop of a count owes.
#[inline(always)]
pub(super) fn after_drop<O: PgmapOps>(at: FolioRef<'_, O>, dropped: Dropped) {
    match dropped {
        Dropped::StillHeld { wake: false } => {}
        Dropped::StillHeld { wake: true } => {
            at.wake(true);
            if seeded!(WaiterClearedLate) {
                at.word.clear_waiter();
            }
        }
        Dropped::Last { order, wake } => at.pgmap.last_put(at, order, wake),
    }
}

impl<'a, O: PgmapOps> Folio<'a, O> {
    /// Wraps a reference that the caller passes on.
    pub(super) const fn new(at: FolioRef<'a, O>) -> Self {
        Self { at }
    }

    pub(crate) const fn at(&self) -> FolioRef<'a, O> {
        self.at
    }

    /// Gives the handle up without dropping the reference.
    pub(super) fn into_at(self) -> FolioRef<'a, O> {
        ManuallyDrop::new(self).at
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
    pub fn order(&self) -> Order {
        self.at.order()
    }

    /// Returns the number of pages.
    #[must_use]
    pub fn nr_pages(&self) -> u64 {
        self.order().nr_pages()
    }

    /// Returns the pages.
    #[must_use]
    pub fn range(&self) -> PfnRange {
        self.at.range(self.order())
    }

    /// Returns the owner's data.
    #[must_use]
    pub fn private(&self) -> &O::Private {
        self.at.private()
    }

    /// Returns the counts at this moment.
    #[must_use]
    pub fn info(&self) -> FolioInfo {
        FolioInfo::new(self.at.head, self.at.word.read())
    }

    /// Returns the sum of references, pins and mappings at this moment, as `folio_ref_count` of
    /// Linux does. The references alone are `info().refs`.
    #[must_use]
    pub fn ref_count(&self) -> u32 {
        self.info().ref_count()
    }

    /// Returns the number of mappings at this moment: leaves of any order in any page table.
    ///
    /// Mirrors `folio_mapcount`, but for the order: a leaf counts once however large it is.
    #[must_use]
    pub fn mapcount(&self) -> u32 {
        self.info().mappings
    }

    /// Returns the number of pins at this moment.
    #[must_use]
    pub fn pincount(&self) -> u32 {
        self.info().pins
    }

    /// Returns whether the folio is pinned at this moment; exact, but stale at once.
    ///
    /// Mirrors `folio_maybe_dma_pinned`.
    #[must_use]
    pub fn maybe_dma_pinned(&self) -> bool {
        self.pincount() != 0
    }

    /// Takes another reference: `folio_get` of Linux, with a limit.
    ///
    /// # Errors
    ///
    /// Returns [`CountError::Limit`] at the limit.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    #[inline]
    pub fn try_clone(&self) -> Result<Self, CountError> {
        let (count, max) = (Count::Refs, Count::Refs.max());
        match self.at.word.get() {
            Ok(()) => Ok(Self::new(self.at)),
            Err(have) => Err(cold(CountError::Limit { count, have, max })),
        }
    }

    /// Adds `nr` references in one step, as raw ones; the caller owes as many
    /// [`put_raw`](PgmapCore::put_raw).
    ///
    /// # Errors
    ///
    /// Returns [`CountError::Limit`] at the limit.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    pub fn get_many(&self, nr: u32) -> Result<(), CountError> {
        let added = self.at.word.add(Count::Refs, nr, Gate::Holder, |_| true);
        let head = self.at.head;
        let refused = |refused| CountError::refused(refused, Count::Refs, head, head);
        added.map(|_| ()).map_err(refused)
    }

    /// Refuses new mappings, pins and speculative references, so that a freeze is not starved.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock.
    pub fn close(&self) {
        self.at.word.close();
    }

    /// Admits newcomers again.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock.
    pub fn reopen(&self) {
        self.at.word.reopen();
    }
}

impl<O: PgmapOps> Drop for Folio<'_, O> {
    #[inline]
    fn drop(&mut self) {
        after_drop(self.at, self.at.word.put());
    }
}

impl<O: PgmapOps> fmt::Debug for Folio<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Folio({}, order {})", self.at.head, self.order())
    }
}

impl<'a, O: PgmapOps> UniqueFolio<'a, O> {
    /// Makes the folio live, with one reference: everybody may find it by its pages.
    ///
    /// Mirrors `folio_ref_unfreeze`.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    #[inline]
    pub fn publish(self) -> Folio<'a, O> {
        let (at, _, _) = self.into_parts();
        at.word.publish(1);
        Folio::new(at)
    }
}

impl<O: PgmapOps> PgmapCore<O> {
    /// Takes a reference on the folio that covers `pfn`, if it is live.
    ///
    /// Success means that the folio covers the page; there is nothing to check again. A miss means
    /// "not live", never "free". Mirrors `try_get_folio` of GUP.
    ///
    /// # Errors
    ///
    /// Says why not, and changes nothing.
    ///
    /// # Context
    ///
    /// Anywhere, interrupts included; takes no lock. If the pgmap begins to die meanwhile, the
    /// reference is dropped again, and that may run the hook.
    #[inline]
    pub fn try_get(&self, pfn: Pfn) -> Result<Folio<'_, O>, GetError> {
        let folio = Folio::new(self.get(pfn)?);
        if self.core().slipped_past_kill(folio.at.extent) {
            // The drop may be the last one: it is the full put, hook and all.
            return Err(cold(GetError::Dying));
        }
        Ok(folio)
    }

    /// Makes a kept folio live again, with one reference. For the owner only.
    ///
    /// # Errors
    ///
    /// Says what is at `head` instead, and changes nothing.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::try_get`].
    pub fn revive(&self, head: Pfn) -> Result<Folio<'_, O>, ReviveError> {
        use crate::meta::word::Kind;
        if self.core().is_dying() {
            return Err(ReviveError::Dying);
        }
        let at = self.find_parked(head, Kind::Kept)?;
        if self.core().is_closed(at.extent) {
            return Err(ReviveError::Dying);
        }
        let order = at.word.revive().map_err(|bits| Self::wrong_state(head, at.head, bits))?;
        self.count_unparked(Kind::Kept, order);
        let folio = Folio::new(at);
        if self.core().slipped_past_kill(at.extent) {
            // Parked again, as it was; unless somebody found it meanwhile, whose put is the last.
            if let Ok(folio) = folio.try_freeze() {
                folio.keep();
            }
            return Err(ReviveError::Dying);
        }
        Ok(folio)
    }
}

impl<'d> AnyFolio<'d> {
    /// Returns the reference as one of `pgmap`, if that is its owner.
    ///
    /// # Errors
    ///
    /// Gives the handle back if the folio belongs to another pgmap.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    pub fn downcast<O: PgmapOps>(self, pgmap: &'d PgmapCore<O>) -> Result<Folio<'d, O>, Self> {
        self.try_into_ref(pgmap).map(Folio::new)
    }
}

impl<'a, O: PgmapOps> HookCx<'a, O> {
    /// Drops a reference; if it is the last count, the hook of its folio runs after this one has
    /// returned, in a loop, with constant stack.
    ///
    /// Dropping a folio inside the hook works too, and recurses. A folio of another pgmap is
    /// dropped in the ordinary way.
    ///
    /// # Context
    ///
    /// In the hook; takes no lock. The hooks of these folios run in the context of this one.
    pub fn drop_later(&mut self, folio: Folio<'a, O>) {
        if let Err(at) = self.put_later(folio.into_at()) {
            drop(Folio::new(at));
        }
    }
}
