//! Sets of counted folios.

use core::fmt;
use core::mem::ManuallyDrop;

use super::handle::{CountError, Folio};
use crate::pgmap::{
    FolioDesc, FolioRef, PgmapCore, PgmapOps, UniqueFolio, UniqueSet, pop_desc, split_descs,
};
use crate::units::{Order, Pfn};

/// Why a set was not cloned; nothing changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum CloneError {
    /// A folio of the set takes no further reference.
    Count(CountError),
    /// The set has more folios than the storage that was lent.
    TooManyPieces {
        /// The folios of the set.
        needed: usize,
        /// The descriptors that were lent.
        len: usize,
    },
}

impl fmt::Display for CloneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(error) => error.fmt(f),
            Self::TooManyPieces { needed, len } => {
                write!(f, "set of {needed} folios in storage for {len}")
            }
        }
    }
}

impl core::error::Error for CloneError {}

/// A reference on each of several folios as one handle; dropping it drops each.
///
/// # Context
///
/// As for [`Folio`], for each folio: the hook may run as often as there are folios.
#[must_use = "dropping it drops the references"]
pub struct FolioSet<'a, 's, O: PgmapOps> {
    pgmap: &'a PgmapCore<O>,
    descs: &'s mut [FolioDesc],
}

impl<'a, 's, O: PgmapOps> FolioSet<'a, 's, O> {
    pub(super) const fn new(pgmap: &'a PgmapCore<O>, descs: &'s mut [FolioDesc]) -> Self {
        Self { pgmap, descs }
    }

    /// Returns the number of folios.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.descs.len()
    }

    /// Returns whether the set has no folio.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.descs.is_empty()
    }

    /// Returns the number of pages of all folios.
    #[must_use]
    pub fn nr_pages(&self) -> u64 {
        self.iter().fold(0, |sum, (_, order)| sum.saturating_add(order.nr_pages()))
    }

    fn places(&self) -> impl Iterator<Item = FolioRef<'a, O>> + '_ {
        self.descs.iter().filter_map(|desc| self.pgmap.place_of_link(desc.link()))
    }

    /// Yields the head and the order of each folio, in the order in which they were taken.
    pub fn iter(&self) -> impl Iterator<Item = (Pfn, Order)> + '_ {
        self.places().map(|at| (at.head, at.order()))
    }

    /// Calls `each_fn` with each folio.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook. `each_fn` may call anything in the crate.
    pub fn for_each(&self, mut each_fn: impl FnMut(&Folio<'a, O>)) {
        for at in self.places() {
            each_fn(&ManuallyDrop::new(Folio::new(at)));
        }
    }

    /// Takes another reference on the folio at `index`; `None` if there is none.
    ///
    /// # Errors
    ///
    /// Returns [`CountError::Limit`] at the limit.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    #[must_use]
    pub fn try_clone_at(&self, index: usize) -> Option<Result<Folio<'a, O>, CountError>> {
        let at = self.pgmap.place_of_link(self.descs.get(index)?.link())?;
        Some(ManuallyDrop::new(Folio::new(at)).try_clone())
    }

    /// Takes another reference on each folio, into storage of the same length at least.
    ///
    /// All or nothing.
    ///
    /// # Errors
    ///
    /// Refused if the storage is too short, and with [`CountError::Limit`] of the first folio that
    /// is at its limit.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook: what is dropped again after a failure is never a last
    /// count, since this set holds one.
    pub fn try_clone_into<'t>(
        &self,
        descs: &'t mut [FolioDesc],
    ) -> Result<FolioSet<'a, 't, O>, CloneError> {
        if descs.len() < self.len() {
            return Err(CloneError::TooManyPieces { needed: self.len(), len: descs.len() });
        }
        let mut len = 0;
        for (at, desc) in self.places().zip(descs.iter_mut()) {
            match ManuallyDrop::new(Folio::new(at)).try_clone() {
                Ok(folio) => *desc = folio.into_at().desc(false),
                Err(error) => {
                    drop(FolioSet::new(self.pgmap, descs.get_mut(..len).unwrap_or_default()));
                    return Err(CloneError::Count(error));
                }
            }
            len = len.saturating_add(1);
        }
        Ok(FolioSet::new(self.pgmap, descs.get_mut(..len).unwrap_or_default()))
    }

    /// Takes the last folio out of the set.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    pub fn pop(&mut self) -> Option<Folio<'a, O>> {
        let at = self.pgmap.place_of_link(pop_desc(&mut self.descs)?.link())?;
        Some(Folio::new(at))
    }

    /// Splits the set: the folios from `at` on become a set of their own.
    ///
    /// `at` beyond the end gives an empty set.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    pub fn split_off(&mut self, at: usize) -> Self {
        Self { pgmap: self.pgmap, descs: split_descs(&mut self.descs, at) }
    }

    /// Gives the handle up for its storage; the references stay.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    #[must_use = "the references are lost without it"]
    pub fn into_raw(self) -> &'s mut [FolioDesc] {
        let mut this = ManuallyDrop::new(self);
        core::mem::take(&mut this.descs)
    }
}

impl<O: PgmapOps> Drop for FolioSet<'_, '_, O> {
    fn drop(&mut self) {
        // Ends: the set shrinks on every turn.
        while let Some(folio) = self.pop() {
            drop(folio);
        }
    }
}

impl<O: PgmapOps> fmt::Debug for FolioSet<'_, '_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FolioSet({} folios, {} pages)", self.len(), self.nr_pages())
    }
}

impl<'a, 's, O: PgmapOps> UniqueSet<'a, 's, O> {
    /// Makes all folios live, with one reference each.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    pub fn publish(self) -> FolioSet<'a, 's, O> {
        let (pgmap, descs) = self.into_parts();
        for desc in descs.iter() {
            if let Some(at) = pgmap.place_of_link(desc.link()) {
                let _ = UniqueFolio::new(at, at.order(), false).publish().into_at();
            }
        }
        FolioSet::new(pgmap, descs)
    }
}
