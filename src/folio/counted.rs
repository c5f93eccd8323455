//! Pins and mappings: the other two counts.

use core::fmt;
use core::mem::ManuallyDrop;

use super::handle::{CountError, Folio, after_drop};
use crate::meta::Count;
use crate::meta::word::Gate;
use crate::pgmap::{FolioRef, LongtermPins, PgmapOps};
use crate::units::{Order, Pfn, PfnRange, cold};

/// How long a pin may last.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum PinKind {
    /// As long as one operation of a device: direct I/O.
    Short,
    /// As long as its holder likes: VFIO, RDMA. Mirrors `FOLL_LONGTERM`.
    Longterm,
}

/// Why a pin was refused; nothing changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum PinError {
    /// The policy grants no long-term pins.
    LongtermRefused {
        /// The head of the folio.
        head: Pfn,
    },
    /// The policy grants long-term pins as leases only.
    LeaseNeeded {
        /// The head of the folio.
        head: Pfn,
    },
    /// The count was not changed.
    Count(CountError),
}

impl fmt::Display for PinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LongtermRefused { head } => {
                write!(f, "the policy of folio {head} refuses long-term pins")
            }
            Self::LeaseNeeded { head } => {
                write!(f, "the policy of folio {head} grants long-term pins as leases only")
            }
            Self::Count(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for PinError {}

impl<O: PgmapOps> FolioRef<'_, O> {
    /// Adds counts of one kind on behalf of somebody new.
    #[inline]
    pub(super) fn add(&self, count: Count, nr: u32) -> Result<(), CountError> {
        let added = self.word.add(count, nr, Gate::Newcomer, |_| true);
        let head = self.head;
        added.map(|_| ()).map_err(|refused| CountError::refused(refused, count, head, head))
    }

    /// Drops counts of one kind that a handle owns.
    #[inline]
    pub(super) fn sub_owned(self, count: Count, nr: u32) {
        match self.word.sub(count, nr) {
            Ok(dropped) => after_drop(self, dropped),
            // The handle owned them, so they can only have gone through a raw form that broke its
            // promise, or, if they are mappings, through a leaf that was set without being counted;
            // leaking is all that is safe to do.
            Err(underflow) => {
                let is_excused = count == Count::Mappings;
                debug_intact!(is_excused, "{nr} {count} of {self:?}: {underflow:?}");
            }
        }
    }

    /// Refuses new pins of a pgmap that is being removed, and of a kind that its policy refuses.
    #[inline]
    pub(super) fn check_pin(&self, kind: PinKind) -> Result<(), PinError> {
        if self.pgmap.core().is_closed(self.extent) {
            return Err(cold(PinError::Count(CountError::Dying)));
        }
        self.check_kind(kind)
    }

    /// Refuses pins of a kind that is not granted at this moment.
    #[inline]
    pub(super) fn check_kind(&self, kind: PinKind) -> Result<(), PinError> {
        if kind == PinKind::Short {
            return Ok(());
        }
        match self.pgmap.core().longterm_pins() {
            LongtermPins::Allow => Ok(()),
            LongtermPins::Refuse => Err(cold(PinError::LongtermRefused { head: self.head })),
            LongtermPins::Lease => Err(cold(PinError::LeaseNeeded { head: self.head })),
        }
    }

    /// Adds pins, unless the pgmap began to die meanwhile, or a holder came that refuses them.
    #[inline]
    pub(super) fn add_pins(&self, nr: u32, kind: PinKind) -> Result<(), PinError> {
        let nr_counted = if seeded!(PinUncounted) { 0 } else { nr };
        self.add(Count::Pins, nr_counted).map_err(|error| cold(PinError::Count(error)))?;
        if self.pgmap.core().slipped_past_kill(self.extent) && !seeded!(PinSlipsPastKill) {
            self.sub_owned(Count::Pins, nr);
            return Err(cold(PinError::Count(CountError::Dying)));
        }
        // ORDERING(hold): behind that fence; the pin is counted before it is asked for again.
        match self.check_kind(kind) {
            Err(error) if !seeded!(PinSlipsPastHolder) => {
                self.sub_owned(Count::Pins, nr);
                Err(error)
            }
            _ => Ok(()),
        }
    }
}

impl<'a, O: PgmapOps> Folio<'a, O> {
    /// Promises that the pages stay where they are, as long as the pin lives: `pin_user_pages`.
    ///
    /// One pin serves any run of the folio's pages.
    ///
    /// # Errors
    ///
    /// Refused by policy or by a [`Holder`](crate::Holder), to newcomers of a closed folio, at the
    /// limit, or while dying.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    #[inline]
    pub fn pin(&self, kind: PinKind) -> Result<FolioPin<'a, O>, PinError> {
        self.at().check_pin(kind)?;
        self.at().add_pins(1, kind)?;
        Ok(FolioPin::new(self.at()))
    }

    /// Counts `nr_leaves` leaves, of whatever orders, that are about to appear in page tables.
    ///
    /// One operation, however many they are. Mirrors `folio_add_file_rmap_ptes`.
    ///
    /// # Errors
    ///
    /// Refused to newcomers of a closed folio and at the limit.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    #[inline]
    pub fn map(&self, nr_leaves: u32) -> Result<FolioMap<'a, O>, CountError> {
        self.at().add(Count::Mappings, nr_leaves)?;
        Ok(FolioMap::new(self.at(), nr_leaves))
    }
}

/// A pin on a folio; dropping it is `unpin_user_page` of Linux.
///
/// # Context
///
/// As for [`Folio`]: its drop may be that of the last count.
#[must_use = "dropping it drops the pin"]
pub struct FolioPin<'a, O: PgmapOps> {
    at: FolioRef<'a, O>,
}

impl<'a, O: PgmapOps> FolioPin<'a, O> {
    pub(super) const fn new(at: FolioRef<'a, O>) -> Self {
        Self { at }
    }

    pub(super) const fn at(&self) -> FolioRef<'a, O> {
        self.at
    }

    pub(super) fn into_at(self) -> FolioRef<'a, O> {
        ManuallyDrop::new(self).at
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

    /// Returns the pages.
    #[must_use]
    pub fn range(&self) -> PfnRange {
        self.at.range(self.order())
    }
}

impl<O: PgmapOps> Drop for FolioPin<'_, O> {
    #[inline]
    fn drop(&mut self) {
        self.at.sub_owned(Count::Pins, 1);
    }
}

impl<O: PgmapOps> fmt::Debug for FolioPin<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FolioPin({}, order {})", self.at.head, self.order())
    }
}

/// A number of counted leaves; dropping it uncounts them, so it outlives the TLB flush.
///
/// A handle without leaves, which [`Folio::map`] of none and [`FolioMap::split_off`] may give or
/// leave behind, claims nothing: the folio may be gone, and what the handle says about it is then
/// about whatever starts there now.
///
/// # Context
///
/// As for [`Folio`]: its drop may be that of the last count.
#[must_use = "dropping it uncounts the leaves"]
pub struct FolioMap<'a, O: PgmapOps> {
    at: FolioRef<'a, O>,
    nr_leaves: u32,
}

impl<'a, O: PgmapOps> FolioMap<'a, O> {
    pub(super) const fn new(at: FolioRef<'a, O>, nr_leaves: u32) -> Self {
        Self { at, nr_leaves }
    }

    pub(super) fn into_parts(self) -> (FolioRef<'a, O>, u32) {
        let this = ManuallyDrop::new(self);
        (this.at, this.nr_leaves)
    }

    /// Returns the first page of the folio.
    #[must_use]
    pub const fn head(&self) -> Pfn {
        self.at.head
    }

    /// Returns log2 of the number of pages of the folio.
    #[must_use]
    pub fn order(&self) -> Order {
        self.at.order()
    }

    /// Returns the pages of the folio.
    #[must_use]
    pub fn range(&self) -> PfnRange {
        self.at.range(self.order())
    }

    /// Returns how many leaves this handle counts.
    #[must_use]
    pub const fn nr_leaves(&self) -> u32 {
        self.nr_leaves
    }

    /// Splits the handle: `nr_leaves` of its leaves, or all if there are fewer, get one of their
    /// own.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    pub fn split_off(&mut self, nr_leaves: u32) -> Self {
        let nr_leaves = nr_leaves.min(self.nr_leaves);
        self.nr_leaves = self.nr_leaves.saturating_sub(nr_leaves);
        Self { at: self.at, nr_leaves }
    }
}

impl<O: PgmapOps> Drop for FolioMap<'_, O> {
    #[inline]
    fn drop(&mut self) {
        if self.nr_leaves != 0 {
            self.at.sub_owned(Count::Mappings, self.nr_leaves);
        }
    }
}

impl<O: PgmapOps> fmt::Debug for FolioMap<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FolioMap({}, order {}, {} leaves)", self.at.head, self.order(), self.nr_leaves)
    }
}
