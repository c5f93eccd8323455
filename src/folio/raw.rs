//! Raw forms: counts as numbers, for page tables, IOMMU tables and callers in other languages.
//!
//! Adding a count by page number is safe: the worst is a leak. Dropping one is a promise that it
//! was the caller's to drop. Even a broken promise changes nothing where it can be seen: a count
//! that is not there is an [`CountError::Underflow`].
#![expect(unsafe_code, reason = "dropping a count that is only a number needs a promise")]

use super::counted::{FolioMap, FolioPin, PinError, PinKind};
use super::freeze::Busy;
use super::handle::{CountError, Folio, after_drop};
use super::set::FolioSet;
use crate::meta::Count;
use crate::meta::word::Dropped;
use crate::pgmap::{
    AdoptError, FolioDesc, FolioInfo, FolioRef, PgmapCore, PgmapOps, UniqueFolio, covers,
};
use crate::units::Pfn;

macro_rules! raw_token {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        #[must_use = "the count is lost without it"]
        pub struct $name(u64);

        impl $name {
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
    };
}

raw_token! {
    /// A reference as a number: the page frame number of the head.
    RawFolio
}
raw_token! {
    /// A pin as a number: the page frame number of the head.
    RawPin
}

/// Counted leaves as numbers.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[must_use = "the counts are lost without it"]
pub struct RawMap {
    /// The page frame number of the head.
    pub head: u64,
    /// The number of leaves.
    pub nr_leaves: u32,
}

/// What a raw drop of counts came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Put {
    /// Others still hold counts.
    StillHeld,
    /// That was the last count; the owner's hook has run, or the folio is condemned.
    Last,
}

impl<'a, O: PgmapOps> Folio<'a, O> {
    /// Gives the handle up for a number; the reference stays.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    pub fn into_raw(self) -> RawFolio {
        RawFolio(self.into_at().head.as_u64())
    }

    /// Makes the folio exclusive, if this reference and `extra_refs` raw ones are its only counts.
    ///
    /// # Errors
    ///
    /// Gives the reference back, with the counts that are in the way.
    ///
    /// # Safety
    ///
    /// The caller owns `extra_refs` references, which are consumed by success.
    ///
    /// # Context
    ///
    /// As for [`Folio::try_freeze`]: wakes waiters.
    pub unsafe fn try_freeze_raw(self, extra_refs: u32) -> Result<UniqueFolio<'a, O>, Busy<'a, O>> {
        let at = self.at();
        match at.word.try_freeze(extra_refs.saturating_add(1)) {
            Ok(frozen) => {
                let _ = self.into_at();
                at.wake(frozen.wake);
                Ok(UniqueFolio::new(at, frozen.order, false))
            }
            Err(bits) => Err(Busy { folio: self, info: FolioInfo::new(at.head, bits) }),
        }
    }
}

impl<O: PgmapOps> FolioPin<'_, O> {
    /// Gives the handle up for a number; the pin stays.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    pub fn into_raw(self) -> RawPin {
        RawPin(self.into_at().head.as_u64())
    }
}

impl<O: PgmapOps> FolioMap<'_, O> {
    /// Gives the handle up for numbers; the leaves stay counted.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    pub fn into_raw(self) -> RawMap {
        let (at, nr_leaves) = self.into_parts();
        RawMap { head: at.head.as_u64(), nr_leaves }
    }
}

impl<O: PgmapOps> PgmapCore<O> {
    /// Adds `nr` references to the live folio that covers `pfn`, in one step. Mirrors
    /// `folio_ref_add`.
    ///
    /// # Errors
    ///
    /// Says why not, and changes nothing.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::try_get`].
    pub fn get_raw(&self, pfn: Pfn, nr: u32) -> Result<(), CountError> {
        self.add_raw(pfn, Count::Refs, nr)
    }

    /// Counts `nr` leaves of the live folio that covers `pfn`, in one step.
    ///
    /// # Errors
    ///
    /// Says why not, and changes nothing.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::try_get`].
    pub fn map_raw(&self, pfn: Pfn, nr: u32) -> Result<(), CountError> {
        self.add_raw(pfn, Count::Mappings, nr)
    }

    /// Adds `nr` pins to the live folio that covers `pfn`, in one step.
    ///
    /// # Errors
    ///
    /// Says why not, and changes nothing.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::try_get`].
    pub fn pin_raw(&self, pfn: Pfn, nr: u32, kind: PinKind) -> Result<(), PinError> {
        if self.core().is_dying() {
            return Err(PinError::Count(CountError::Dying));
        }
        let at = self.covering(pfn).map_err(PinError::Count)?;
        at.check_pin(kind)?;
        self.add_raw(pfn, Count::Pins, nr).map_err(PinError::Count)?;
        // ORDERING(hold): behind the fence of `add_raw`, as in `FolioRef::add_pins`.
        let again = if nr == 0 { Ok(()) } else { at.check_kind(kind) };
        if again.is_err() {
            // The pins are this call's own, and keep their folio where it is.
            let _ = self.put_counts(pfn, Count::Pins, nr);
        }
        again
    }

    fn add_raw(&self, pfn: Pfn, count: Count, nr: u32) -> Result<(), CountError> {
        use crate::meta::word::Gate;
        if self.core().is_dying() {
            return Err(CountError::Dying);
        }
        let at = self.covering(pfn)?;
        if self.core().is_closed(at.extent) {
            return Err(CountError::Dying);
        }
        let covers = |order| covers(at.head, order, pfn);
        let added = at.word.add(count, nr, Gate::Newcomer, covers);
        added.map_err(|refused| CountError::refused(refused, count, at.head, pfn))?;
        if nr != 0 && self.core().slipped_past_kill(at.extent) {
            // The counts are this call's own, and may be the last ones.
            let _ = self.drop_counts(at, count, nr, pfn);
            return Err(CountError::Dying);
        }
        Ok(())
    }

    /// Returns the place of the folio that covers `pfn`, in whatever state.
    fn covering(&self, pfn: Pfn) -> Result<FolioRef<'_, O>, CountError> {
        match self.find(pfn) {
            Some((at, _)) => Ok(at),
            None if self.core().extent_of(pfn).is_some() => Err(CountError::NotLive { pfn }),
            None => Err(CountError::Outside { pfn }),
        }
    }

    /// Drops counts that the caller owns of the live folio that covers `pfn`.
    pub(super) fn put_counts(&self, pfn: Pfn, count: Count, nr: u32) -> Result<Put, AdoptError> {
        let at = self.covering(pfn).ok();
        let put = at.and_then(|at| self.drop_counts(at, count, nr, pfn).ok());
        put.ok_or(AdoptError::Gone { head: pfn })
    }

    fn drop_counts<'a>(
        &'a self,
        at: FolioRef<'a, O>,
        count: Count,
        nr: u32,
        pfn: Pfn,
    ) -> Result<Put, CountError> {
        let dropped = at.word.sub(count, nr);
        let dropped = dropped.map_err(|error| CountError::underflow(error, count, nr, pfn))?;
        after_drop(at, dropped);
        Ok(match dropped {
            Dropped::StillHeld { .. } => Put::StillHeld,
            Dropped::Last { .. } => Put::Last,
        })
    }

    /// Drops `nr` references of the folio that covers `pfn`, in one step. Mirrors `folio_put_refs`.
    ///
    /// # Errors
    ///
    /// Says why not, and changes nothing: a reference dropped twice is seen here at the latest
    /// when none is left.
    ///
    /// # Safety
    ///
    /// The caller owns `nr` references of that folio, and uses them no more.
    ///
    /// # Context
    ///
    /// Where the owner's hook may run, unless its policy defers it.
    pub unsafe fn put_raw(&self, pfn: Pfn, nr: u32) -> Result<Put, CountError> {
        self.drop_counts(self.covering(pfn)?, Count::Refs, nr, pfn)
    }

    /// Uncounts `nr` leaves of the folio that covers `pfn`, in one step. Mirrors
    /// `folio_remove_rmap_ptes`.
    ///
    /// # Errors
    ///
    /// As for [`PgmapCore::put_raw`].
    ///
    /// # Safety
    ///
    /// The caller owns `nr` mappings of that folio, and no TLB has a translation left.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::put_raw`].
    pub unsafe fn unmap_raw(&self, pfn: Pfn, nr: u32) -> Result<Put, CountError> {
        self.drop_counts(self.covering(pfn)?, Count::Mappings, nr, pfn)
    }

    /// Drops `nr` pins of the folio that covers `pfn`, in one step. Mirrors `unpin_user_folio`.
    ///
    /// # Errors
    ///
    /// As for [`PgmapCore::put_raw`].
    ///
    /// # Safety
    ///
    /// The caller owns `nr` pins of that folio, and no device reaches it any more through them.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::put_raw`].
    pub unsafe fn unpin_raw(&self, pfn: Pfn, nr: u32) -> Result<Put, CountError> {
        self.drop_counts(self.covering(pfn)?, Count::Pins, nr, pfn)
    }

    /// Returns the handle that [`Folio::into_raw`] gave up; `None` if no live folio starts there.
    ///
    /// # Safety
    ///
    /// `raw` came from a handle of this pgmap, or from [`PgmapCore::get_raw`], and is used once.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    pub unsafe fn folio_from_raw(&self, raw: RawFolio) -> Option<Folio<'_, O>> {
        self.live_at(raw.0, Count::Refs, 1).map(Folio::new)
    }

    /// Returns the handle that [`FolioPin::into_raw`] gave up; `None` if no pinned folio starts
    /// there.
    ///
    /// # Safety
    ///
    /// As for [`PgmapCore::folio_from_raw`].
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    pub unsafe fn pin_from_raw(&self, raw: RawPin) -> Option<FolioPin<'_, O>> {
        self.live_at(raw.0, Count::Pins, 1).map(FolioPin::new)
    }

    /// Returns the handle that [`FolioMap::into_raw`] gave up; `None` if no folio with so many
    /// mappings starts there.
    ///
    /// # Safety
    ///
    /// As for [`PgmapCore::folio_from_raw`].
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    pub unsafe fn map_from_raw(&self, raw: RawMap) -> Option<FolioMap<'_, O>> {
        let at = self.live_at(raw.head, Count::Mappings, raw.nr_leaves.max(1))?;
        Some(FolioMap::new(at, raw.nr_leaves))
    }

    /// Returns the set that [`FolioSet::into_raw`] gave up.
    ///
    /// # Safety
    ///
    /// `descs` came from a set of this pgmap, unchanged, and is used once.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    pub unsafe fn folio_set_from_raw<'s>(&self, descs: &'s mut [FolioDesc]) -> FolioSet<'_, 's, O> {
        FolioSet::new(self, descs)
    }

    /// Returns the live folio at `head`, if it has at least `nr` counts of that kind.
    fn live_at(&self, head: u64, count: Count, nr: u32) -> Option<FolioRef<'_, O>> {
        let (at, found) = self.find(Pfn::new(head))?;
        let is_head = found.head.as_u64() == head;
        (is_head && found.bits.is_held() && nr <= found.bits.count(count)).then_some(at)
    }
}
