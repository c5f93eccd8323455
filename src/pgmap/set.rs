//! Sets: several folios as one handle, in storage that the caller lends.

use core::fmt;
use core::mem::ManuallyDrop;

use super::folio_ref::FolioRef;
use super::ops::PgmapOps;
use super::owner::PgmapCore;
use super::unique::UniqueFolio;
use crate::units::{Order, Pfn};

/// One folio of a set, in eight bytes: where it starts. Its order is in its own word.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FolioDesc(u64);

static_assertions::assert_eq_size!(FolioDesc, u64);

impl FolioDesc {
    /// A descriptor of no folio, to fill storage with.
    pub const EMPTY: Self = Self(0);

    /// Says that every byte of the folio is zero; above the bits of a link.
    const CLEAN: u64 = 1 << 63;

    pub(crate) const fn link(self) -> u64 {
        self.0 & !Self::CLEAN
    }

    pub(super) const fn is_clean(self) -> bool {
        self.0 & Self::CLEAN != 0
    }
}

/// Several exclusive folios as one handle; dropping it drops each.
///
/// # Context
///
/// As for [`UniqueFolio`], for each folio.
#[must_use = "dropping it gives the folios back"]
pub struct UniqueSet<'a, 's, O: PgmapOps> {
    pgmap: &'a PgmapCore<O>,
    descs: &'s mut [FolioDesc],
}

impl<'a, 's, O: PgmapOps> UniqueSet<'a, 's, O> {
    pub(super) const fn new(pgmap: &'a PgmapCore<O>, descs: &'s mut [FolioDesc]) -> Self {
        Self { pgmap, descs }
    }

    /// Gives the set up without doing anything.
    pub(crate) fn into_parts(self) -> (&'a PgmapCore<O>, &'s mut [FolioDesc]) {
        let mut this = ManuallyDrop::new(self);
        (this.pgmap, core::mem::take(&mut this.descs))
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

    /// Yields the head and the order of each folio, in the order in which they were taken.
    pub fn iter(&self) -> impl Iterator<Item = (Pfn, Order)> + '_ {
        let places = self.descs.iter().filter_map(|desc| self.pgmap.place_of_link(desc.link()));
        places.map(|at| (at.head, at.order()))
    }

    /// Yields whether each folio is clean, in the order of [`UniqueSet::iter`].
    #[cfg(any(test, feature = "model"))]
    pub(crate) fn cleanness(&self) -> impl Iterator<Item = bool> + '_ {
        self.descs.iter().map(|desc| desc.is_clean())
    }

    /// Calls `each_fn` with head, order and owner data of each folio.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook. `each_fn` may call anything in the crate.
    pub fn for_each_private(&mut self, mut each_fn: impl FnMut(Pfn, Order, &mut O::Private)) {
        for desc in self.descs.iter() {
            if let Some(at) = self.pgmap.place_of_link(desc.link()) {
                each_fn(at.head, at.order(), at.private_mut());
            }
        }
    }

    /// Takes the last folio out of the set.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    pub fn pop(&mut self) -> Option<UniqueFolio<'a, O>> {
        let desc = pop_desc(&mut self.descs)?;
        let at = self.pgmap.place_of_link(desc.link())?;
        Some(UniqueFolio::new(at, at.order(), desc.is_clean()))
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

    /// Gives the handle up for its storage; the folios stay held alone.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    #[must_use = "the folios are lost without it"]
    pub fn into_raw(self) -> &'s mut [FolioDesc] {
        self.into_parts().1
    }
}

/// Takes the last descriptor off.
pub(crate) fn pop_desc(descs: &mut &mut [FolioDesc]) -> Option<FolioDesc> {
    let (last, rest) = core::mem::take(descs).split_last_mut()?;
    *descs = rest;
    Some(core::mem::take(last))
}

/// Takes the descriptors from `at` on off.
pub(crate) fn split_descs<'s>(descs: &mut &'s mut [FolioDesc], at: usize) -> &'s mut [FolioDesc] {
    let all = core::mem::take(descs);
    let at = at.min(all.len());
    let (head, tail) = all.split_at_mut(at);
    *descs = head;
    tail
}

impl<O: PgmapOps> Drop for UniqueSet<'_, '_, O> {
    fn drop(&mut self) {
        // Ends: the set shrinks on every turn.
        while let Some(folio) = self.pop() {
            drop(folio);
        }
    }
}

impl<O: PgmapOps> fmt::Debug for UniqueSet<'_, '_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UniqueSet({} folios, {} pages)", self.len(), self.nr_pages())
    }
}

impl<O: PgmapOps> FolioRef<'_, O> {
    /// Returns the descriptor of this folio, which is clean or not.
    pub(crate) fn desc(&self, is_clean: bool) -> FolioDesc {
        FolioDesc(self.link() | if is_clean { FolioDesc::CLEAN } else { 0 })
    }
}
