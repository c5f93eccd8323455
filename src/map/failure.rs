//! Pages that fail, and who has them mapped.
//!
//! [`PgmapCore::poison`] knows how many mappings a folio has, and not where: that is in page
//! tables, which are the embedder's. Whoever has a process to signal, or a guest to interrupt,
//! needs the addresses, so they are found here, by the same reverse map that unmapping uses.
//! Nothing is collected on the way: there is no heap, and what is told one by one needs none.

use super::leaf::Leaf;
use super::mappers::Mappers;
use super::virt::VpnRange;
use crate::pgmap::{PgmapCore, PgmapOps, PoisonError, Poisoned};
use crate::units::{Order, Pfn, PfnRange};

/// Where pages are mapped: by one leaf, as far as the reverse map named its addresses.
///
/// Mirrors `struct to_kill` of Linux, which has a task where this has the number of a visit: the
/// crate has no names for address spaces.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mapped {
    /// Which of the ranges that [`Mappers::for_each`] visited, from zero on.
    pub visit_index: usize,
    /// That range.
    pub range: VpnRange,
    /// The addresses in it that have the pages behind them, and no others.
    pub addresses: VpnRange,
    /// The leaf, which may map more; with [`Rights::NONE`](super::Rights::NONE) no CPU gets there.
    pub leaf: Leaf,
}

/// Calls `each_fn` with each leaf that maps any of `pages`, in the order in which `mappers` names
/// the addresses.
///
/// Changes nothing. Each address is told as often as the reverse map names it, so once if the
/// ranges of one address space are disjoint; a leaf that lies in two of them is told with its part
/// of either. What is mapped meanwhile may be missed: [`Folio::close`](crate::Folio::close)
/// prevents that. Mirrors `collect_procs` of Linux.
///
/// # Context
///
/// As for [`Mappers::for_each`]; takes no lock, and runs no hook.
pub fn for_each_mapping(
    mappers: &mut dyn Mappers,
    pages: PfnRange,
    mut each_fn: impl FnMut(Mapped),
) {
    let mut nr_visits = 0usize;
    let visited = mappers.for_each(pages, &mut |space, range| {
        let visit_index = nr_visits;
        nr_visits = nr_visits.wrapping_add(1);
        space.for_each_leaf_of(range, pages, &mut |addresses, leaf| {
            each_fn(Mapped { visit_index, range, addresses, leaf });
        });
        Ok(())
    });
    // Returns what the visits returned, and none of them fails.
    let _ = visited;
}

/// Records that a page is bad, and calls `each_fn` with each leaf that maps it.
///
/// This is [`PgmapCore::poison`], whose hooks run first, and then [`for_each_mapping`] for just
/// this page, once: a page that is known to be bad, or was free, has nothing told. Nothing is
/// unmapped; [`unmap_mapping_range`](super::unmap_mapping_range) takes the mappings of the page
/// away, and whoever has to be told of its addresses is known by then. Mirrors `memory_failure` of
/// Linux.
///
/// # Errors
///
/// As for [`PgmapCore::poison`]; `each_fn` has not been called.
///
/// # Context
///
/// As for [`PgmapCore::poison`] and [`Mappers::for_each`]; no lock of this crate is held while
/// `each_fn` runs.
pub fn memory_failure<O: PgmapOps>(
    pgmap: &PgmapCore<O>,
    pfn: Pfn,
    mappers: &mut dyn Mappers,
    each_fn: impl FnMut(Mapped),
) -> Result<Poisoned, PoisonError> {
    let poisoned = pgmap.poison(pfn)?;
    if matches!(poisoned, Poisoned::InUse { .. }) {
        for_each_mapping(mappers, PfnRange::block(pfn, Order::ZERO), each_fn);
    }
    Ok(poisoned)
}
