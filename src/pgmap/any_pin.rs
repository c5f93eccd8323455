//! What a lockless lookup takes: counts on folios that are found by a page of theirs.

use core::fmt;

use super::any::AnyPlace;
use super::extent::covers;
use super::policy::Policy;
use crate::meta::Count;
use crate::meta::word::{Gate, Refused};
use crate::units::{Order, Pfn, PfnRange};

/// Why [`AnyPlace::add`] refused; nothing changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum AddRefused {
    /// The word said no.
    Word(Refused),
    /// The pgmap is being removed.
    Dying,
}

impl AnyPlace<'_> {
    /// Adds counts for somebody new who has found the folio by its page `pfn`.
    pub(crate) fn add(&self, count: Count, nr: u32, pfn: Pfn) -> Result<(), AddRefused> {
        if self.owner.core().is_closed_at(self.head) {
            return Err(AddRefused::Dying);
        }
        let covers = |order: Order| covers(self.head, order, pfn);
        self.word.add(count, nr, Gate::Newcomer, covers).map_err(AddRefused::Word)?;
        if nr != 0 && self.owner.core().slipped_past_kill_at(self.head) {
            // The counts are this call's own, and may be the last ones.
            let _ = self.sub(count, nr);
            return Err(AddRefused::Dying);
        }
        Ok(())
    }
}

/// A pin on a folio whose owner's type is not known.
///
/// # Context
///
/// Dropping it is what dropping a [`FolioPin`](crate::FolioPin) is: the last count runs the owner's
/// hook there and then, or condemns the folio.
#[must_use = "dropping it drops the pin"]
pub struct AnyPin<'d> {
    place: AnyPlace<'d>,
}

impl<'d> AnyPin<'d> {
    /// Wraps a pin that the caller passes on.
    pub(crate) const fn new(place: AnyPlace<'d>) -> Self {
        Self { place }
    }

    /// Returns the first page of the folio.
    #[must_use]
    pub const fn head(&self) -> Pfn {
        self.place.head
    }

    /// Returns log2 of the number of pages of the folio.
    #[must_use]
    pub fn order(&self) -> Order {
        self.place.read().order()
    }

    /// Returns the pages of the folio.
    #[must_use]
    pub fn range(&self) -> PfnRange {
        self.place.pages()
    }

    /// Returns the policy of the owner.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.place.policy()
    }
}

impl Drop for AnyPin<'_> {
    fn drop(&mut self) {
        // The handle owned the pin, so it can only have gone through a raw form that broke its
        // promise; leaking is all that is safe to do.
        let dropped = self.place.sub(Count::Pins, 1);
        let is_ok = dropped.is_ok() || seeded!(PinUncounted);
        debug_intact!(is_ok, "a pin of {:?}: {dropped:?}", self.place);
    }
}

impl fmt::Debug for AnyPin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnyPin({}, order {})", self.head(), self.order())
    }
}
