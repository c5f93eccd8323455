//! Where a folio is: what every handle carries.

use core::fmt;

use super::extent::Extent;
use super::ops::PgmapOps;
use super::owner::PgmapCore;
use crate::meta::word::Word;
use crate::sync::ParkKey;
use crate::units::{Order, Pfn};

/// A folio's place, without any claim to it; handles add the claim.
///
/// # Invariants
///
/// 1. `head` lies in `extent`, an extent of `pgmap`, and `word` is the word at `head` for the
///    folio's order.
pub(crate) struct FolioRef<'a, O: PgmapOps> {
    pub(crate) pgmap: &'a PgmapCore<O>,
    pub(crate) extent: &'a Extent,
    pub(crate) word: Word<'a>,
    pub(crate) head: Pfn,
}

impl<O: PgmapOps> Clone for FolioRef<'_, O> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<O: PgmapOps> Copy for FolioRef<'_, O> {}

impl<O: PgmapOps> fmt::Debug for FolioRef<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.head, self.word)
    }
}

impl<O: PgmapOps> FolioRef<'_, O> {
    /// Returns the order; stable while the caller holds a count or the folio alone.
    pub(crate) fn order(&self) -> Order {
        self.word.read().order()
    }

    /// Wakes waiters, if any are owed a wake-up.
    #[inline]
    pub(crate) fn wake(&self, wake: bool) {
        if wake {
            self.pgmap.ops().park().unpark_all(ParkKey::Folio(self.head));
        }
    }

    /// Returns the number under which lists name this folio.
    pub(crate) fn link(&self) -> u64 {
        link(self.extent, self.head)
    }
}

/// Bits of a link below the slot.
pub(super) const LINK_OFFSET_BITS: u32 = 38;

/// Returns a name for `head` that fits into the place of the counts; never zero.
pub(crate) fn link(extent: &Extent, head: Pfn) -> u64 {
    let offset = head.offset_from(extent.range().start()).unwrap_or(0);
    (u64::from(extent.slot).wrapping_add(1) << LINK_OFFSET_BITS) | offset
}

/// Returns the slot and the offset that a link names.
pub(crate) const fn unlink(link: u64) -> Option<(u64, u64)> {
    match (link >> LINK_OFFSET_BITS).checked_sub(1) {
        Some(slot) => Some((slot, link & ((1 << LINK_OFFSET_BITS) - 1))),
        None => None,
    }
}
