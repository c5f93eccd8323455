//! Unmapping pages wherever they are mapped: over all address spaces that the embedder knows of.

use super::gather::Unmapped;
use super::leaf::Leaf;
use super::space::{AddressSpace, CutError};
use super::table::PageTable;
use super::virt::{Vpn, VpnRange};
use super::walk::Leaves;
use crate::units::PfnRange;

/// Who maps what: the embedder's reverse map.
///
/// A file's list of areas, the memory slots of a guest, or simply all address spaces: whatever is
/// at hand. The crate has no heap to keep one. Mirrors the tree `i_mmap` of `struct address_space`.
pub trait Mappers {
    /// Calls `visit_fn` for each range of addresses, of whatever address space, behind which any
    /// of `pages` may be mapped; more is no harm. Returns the first error at once.
    ///
    /// # Errors
    ///
    /// What `visit_fn` returned.
    ///
    /// # Context
    ///
    /// Runs in the context of the call that it serves, without a lock of this crate. The locks that
    /// make the address spaces exclusive are the embedder's.
    fn for_each(
        &mut self,
        pages: PfnRange,
        visit_fn: &mut dyn FnMut(&mut dyn Unmap, VpnRange) -> Result<(), CutError>,
    ) -> Result<(), CutError>;
}

/// An address space, whatever its page table.
pub trait Unmap {
    /// Calls `each_fn` with each leaf that maps any of `pages` in `range`, and with those addresses
    /// of `range` that have these pages behind them; in ascending order.
    ///
    /// # Context
    ///
    /// As for [`AddressSpace::leaves`].
    fn for_each_leaf_of(
        &self,
        range: VpnRange,
        pages: PfnRange,
        each_fn: &mut dyn FnMut(VpnRange, Leaf),
    );

    /// Returns the number of leaves that map any of `pages` in `range`.
    fn nr_leaves_of(&self, range: VpnRange, pages: PfnRange) -> u64 {
        let mut nr_leaves = 0u64;
        self.for_each_leaf_of(range, pages, &mut |_, _| nr_leaves = nr_leaves.wrapping_add(1));
        nr_leaves
    }

    /// Unmaps what maps `pages` in `range`, and nothing else.
    ///
    /// # Errors
    ///
    /// Says why a leaf that maps other pages, too, cannot be demoted. Nothing is unmapped then;
    /// leaves that were demoted before stay so, with their pages, rights and counts.
    ///
    /// # Context
    ///
    /// As for [`AddressSpace::unmap`].
    fn unmap_pages(&mut self, range: VpnRange, pages: PfnRange) -> Result<Unmapped, CutError>;
}

static_assertions::assert_obj_safe!(Mappers, Unmap);

/// Returns those addresses of `part`, which `leaf` maps, that have any of `pages` behind them.
pub(super) fn addresses_of(part: VpnRange, leaf: Leaf, pages: PfnRange) -> Option<VpnRange> {
    let first = leaf.page_at(part.start());
    let behind = PfnRange::new(first, part.nr_pages()).ok()?.intersection(pages)?;
    let offset = behind.start().offset_from(first)?;
    let start: Vpn = part.start().checked_add(offset)?;
    VpnRange::new(start, behind.nr_pages()).ok()
}

impl<T: PageTable> Unmap for AddressSpace<'_, T> {
    fn for_each_leaf_of(
        &self,
        range: VpnRange,
        pages: PfnRange,
        each_fn: &mut dyn FnMut(VpnRange, Leaf),
    ) {
        for (part, leaf) in Leaves::new(&self.table, range) {
            if let Some(meant) = addresses_of(part, leaf, pages) {
                each_fn(if seeded!(ToldWholeLeaf) { part } else { meant }, leaf);
                if seeded!(ToldFirstOnly) {
                    break;
                }
            }
        }
    }

    fn unmap_pages(&mut self, range: VpnRange, pages: PfnRange) -> Result<Unmapped, CutError> {
        let mut rest = Some(range);
        // Ends: every turn goes on behind the leaf that was met.
        while let Some((part, leaf)) = rest.and_then(|r| Leaves::new(&self.table, r).next()) {
            if let Some(meant) = addresses_of(part, leaf, pages) {
                self.cut_ends(meant)?;
            }
            rest = range.behind(part.last());
        }
        Ok(self.unmap_cut(range, Some(pages)))
    }
}

/// Unmaps pages of any owner wherever they are mapped.
///
/// Every gather is flushed before its counts go. Pages that are mapped again meanwhile stay so:
/// [`Folio::close`](crate::Folio::close) prevents that. Mirrors `unmap_mapping_range`.
///
/// # Errors
///
/// Says why a leaf that maps other pages, too, cannot be demoted. What was unmapped before stays
/// so.
///
/// # Context
///
/// As for [`AddressSpace::unmap`]: the last count of a folio runs its owner's hook.
pub fn unmap_mapping_range(
    mappers: &mut dyn Mappers,
    pages: PfnRange,
) -> Result<Unmapped, CutError> {
    let mut sum = Unmapped::default();
    mappers.for_each(pages, &mut |space, range| {
        let unmapped = space.unmap_pages(range, pages)?;
        sum.nr_leaves = sum.nr_leaves.wrapping_add(unmapped.nr_leaves);
        sum.nr_pages = sum.nr_pages.wrapping_add(unmapped.nr_pages);
        sum.nr_dirty_pages = sum.nr_dirty_pages.wrapping_add(unmapped.nr_dirty_pages);
        Ok(())
    })?;
    Ok(sum)
}
