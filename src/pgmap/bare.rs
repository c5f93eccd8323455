//! Free space without folios, for the benchmark: its peers hand out bare frames, too.
//!
//! Pages that are taken here have no state word. Nothing else may be done with the pgmap.

use super::extent::Extent;
use super::ops::PgmapOps;
use super::owner::PgmapCore;
use crate::units::{Order, Pfn};
use crate::zone::{After, Content, Index, Want};

/// The free space of a pgmap's first extent.
#[derive(Clone, Copy, Debug)]
pub struct Bare<'a>(&'a Extent);

impl<O: PgmapOps> PgmapCore<O> {
    /// Returns the free space of the first extent.
    pub fn bare(&self) -> Option<Bare<'_>> {
        self.core.first_extent().map(Bare)
    }
}

impl Bare<'_> {
    /// Takes the pages of a folio.
    #[inline(always)]
    #[must_use = "the pages are lost without it"]
    pub fn alloc(&self, order: Order, cpu: usize) -> Option<Pfn> {
        match self.0.index().claim_at_hand(order, cpu) {
            Some((grant, _)) => Some(grant.head),
            None => self.search(order, cpu),
        }
    }

    #[cold]
    #[inline(never)]
    fn search(&self, order: Order, cpu: usize) -> Option<Pfn> {
        let want = Want::inside(self.0.range(), order, order, false)?;
        Some(self.0.index().claim(&want, Content::Any, cpu, true).ok()?.head)
    }

    /// Takes exactly these pages.
    #[inline]
    #[must_use = "the pages are lost without it"]
    pub fn claim(&self, head: Pfn, order: Order) -> Option<Pfn> {
        Some(self.0.index().claim_at(head, order).ok()?.head)
    }

    /// Gives pages back.
    #[inline]
    pub fn free(&self, head: Pfn, order: Order) {
        Index::free_in(&self.0.meta, head, order, After::Dirty);
    }
}
