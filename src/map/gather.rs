//! Zapping: leaves go first, then every TLB forgets them, then their counts go.

use core::fmt;

use super::leaf::Leaf;
use super::mappers::addresses_of;
use super::space::{AddressSpace, CutError};
use super::table::PageTable;
use super::virt::{Vpn, VpnRange};
use super::walk::{Leaves, Run};
use crate::pgmap::Directory;
use crate::units::PfnRange;

/// How many runs fit into a gather.
const RUNS_MAX: usize = 24;

/// The counts of leaves that are gone from a page table and may still be in a TLB.
///
/// It holds the address space exclusively, and its counts until the flush: there is no way to drop
/// them before. Dropping it does what [`flush`](Gather::flush) does; forgetting it leaks the counts
/// on purpose, because dropping them early would let the next owner's data be seen through a stale
/// translation. Mirrors `struct mmu_gather`.
///
/// # Context
///
/// Flushing is what the page table's `flush` is, and drops counts: it belongs where the hooks of
/// the owners may run.
#[must_use = "the flush is due when it is dropped"]
pub struct Gather<'s, 'd, T: PageTable> {
    space: &'s mut AddressSpace<'d, T>,
    runs: [Option<GatherRun<'d>>; RUNS_MAX],
    nr_runs: usize,
    /// From the first to the last address that was zapped.
    addresses: Option<VpnRange>,
    rest: Option<VpnRange>,
    totals: Unmapped,
}

/// What was unmapped.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Unmapped {
    /// The leaves.
    pub nr_leaves: u64,
    /// The pages behind them.
    pub nr_pages: u64,
    /// Those of them whose leaf was dirty.
    pub nr_dirty_pages: u64,
}

/// Leaves of one folio, or of foreign pages.
#[derive(Clone, Copy)]
struct GatherRun<'d> {
    /// The counts; `None` for foreign pages.
    counts: Option<Run<'d>>,
    zapped: ZapRun,
}

/// What a gather knows of the pages of one folio, or of a run of foreign pages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ZapRun {
    /// From the lowest to the highest page that was zapped.
    pub pages: PfnRange,
    /// From the lowest to the highest page that was dirty.
    pub dirty: Option<PfnRange>,
    /// Whether one of the leaves has been used.
    pub accessed: bool,
    /// The number of leaves.
    pub nr_leaves: u32,
    /// Whether the pages have no owner.
    pub is_foreign: bool,
}

impl<T: PageTable> Gather<'_, '_, T> {
    /// How many runs fit into a gather. A run is all leaves of one folio that follow each other.
    pub const RUNS_MAX: usize = RUNS_MAX;

    /// Yields what was zapped, folio by folio; this is how dirty bits reach whoever writes back.
    pub fn runs(&self) -> impl Iterator<Item = ZapRun> + '_ {
        self.runs.iter().flatten().map(|run| run.zapped)
    }

    /// Returns what was not zapped, because the gather is full: zap it next.
    #[must_use]
    pub const fn rest(&self) -> Option<VpnRange> {
        self.rest
    }

    /// Returns the sums over all runs.
    #[must_use]
    pub const fn totals(&self) -> Unmapped {
        self.totals
    }

    /// Flushes the addresses, and then drops the counts; returns what was not zapped.
    #[expect(clippy::must_use_candidate, reason = "the rest is asked for where there may be one")]
    pub fn flush(self) -> Option<VpnRange> {
        self.rest
    }

    /// Takes leaves away until all of `range` is empty or the gather is full.
    fn fill(&mut self, range: VpnRange, pages: Option<PfnRange>) {
        let mut rest = Some(range);
        // Ends: every turn goes on behind the leaf that was met.
        while let Some((part, leaf)) = rest.and_then(|r| Leaves::new(&self.space.table, r).next()) {
            let is_meant = |pages| addresses_of(part, leaf, pages).is_some();
            if pages.is_none_or(is_meant) && !self.take(part.start(), leaf) {
                break;
            }
            rest = range.behind(part.last());
        }
        self.rest = rest.filter(|&rest| Leaves::new(&self.space.table, rest).next().is_some());
    }

    /// Takes a leaf away; false if there is no room for its count.
    fn take(&mut self, vpn: Vpn, leaf: Leaf) -> bool {
        let last = self.nr_runs.checked_sub(1).and_then(|index| self.runs.get(index)?.as_ref());
        if !last.is_some_and(|run| run.goes_on_with(leaf)) {
            let Some(slot) = self.runs.get_mut(self.nr_runs) else { return false };
            *slot = Some(GatherRun::new(self.space.directory, leaf));
            self.nr_runs = self.nr_runs.wrapping_add(1);
        }
        // The accessed and dirty bits are those of the exchange, not those of the look before.
        let Some(leaf) = self.space.table.clear(vpn) else { return true };
        let block = leaf.addresses(vpn);
        let index = self.nr_runs.wrapping_sub(1);
        if let Some(run) = self.runs.get_mut(index).and_then(Option::as_mut) {
            run.add(leaf);
        }
        self.addresses = Some(self.addresses.map_or(block, |all| hull_of(all, block)));
        let nr_pages = leaf.order.nr_pages();
        let totals = &mut self.totals;
        totals.nr_leaves = totals.nr_leaves.wrapping_add(1);
        totals.nr_pages = totals.nr_pages.wrapping_add(nr_pages);
        if leaf.dirty {
            totals.nr_dirty_pages = totals.nr_dirty_pages.wrapping_add(nr_pages);
        }
        true
    }
}

impl<'d> GatherRun<'d> {
    /// Creates the run of a leaf, without that leaf.
    fn new(directory: &Directory<'d>, leaf: Leaf) -> Self {
        let counts = Run::of(directory, leaf.pfn);
        let (pages, is_foreign) = (leaf.pages(), counts.is_none());
        let zapped = ZapRun { pages, dirty: None, accessed: false, nr_leaves: 0, is_foreign };
        Self { counts, zapped }
    }

    fn goes_on_with(&self, leaf: Leaf) -> bool {
        match &self.counts {
            Some(counts) => counts.contains(leaf.pfn),
            // Foreign pages that follow each other.
            None => self.zapped.pages.last().checked_add(1) == Some(leaf.pfn),
        }
    }

    /// Adds a leaf.
    fn add(&mut self, leaf: Leaf) {
        let (zapped, pages) = (&mut self.zapped, leaf.pages());
        zapped.pages = pages_hull(zapped.pages, pages);
        zapped.accessed |= leaf.accessed;
        if leaf.dirty && !seeded!(ZapLosesDirty) {
            zapped.dirty = Some(zapped.dirty.map_or(pages, |dirty| pages_hull(dirty, pages)));
        }
        zapped.nr_leaves = zapped.nr_leaves.saturating_add(1);
        if let Some(counts) = &mut self.counts {
            counts.nr_leaves = zapped.nr_leaves;
        }
    }
}

fn pages_hull(a: PfnRange, b: PfnRange) -> PfnRange {
    PfnRange::between(a.start().min(b.start()), a.last().max(b.last())).unwrap_or(a)
}

fn hull_of(a: VpnRange, b: VpnRange) -> VpnRange {
    VpnRange::between(a.start().min(b.start()), a.last().max(b.last())).unwrap_or(a)
}

impl<T: PageTable> Drop for Gather<'_, '_, T> {
    fn drop(&mut self) {
        let Some(addresses) = self.addresses else { return };
        let nr_runs = self.nr_runs;
        let put_all = |runs: &[Option<GatherRun<'_>>]| {
            let runs = runs.iter().take(nr_runs).flatten();
            runs.filter_map(|run| run.counts.as_ref()).for_each(Run::sub);
        };
        if seeded!(PutBeforeFlush) {
            put_all(&self.runs);
            self.space.table.flush(addresses);
        } else {
            self.space.table.flush(addresses);
            put_all(&self.runs);
        }
        self.space.table.trim(addresses);
    }
}

impl<T: PageTable> fmt::Debug for Gather<'_, '_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.runs()).finish()
    }
}

impl<'d, T: PageTable> AddressSpace<'d, T> {
    /// Takes the leaves of `range` away, into a gather that holds their counts until the flush.
    ///
    /// A leaf that reaches over an end is demoted there first, so that the rest of it stays. If the
    /// gather gets full, [`Gather::rest`] says what is left. Mirrors `unmap_page_range`.
    ///
    /// # Errors
    ///
    /// Says why a leaf cannot be demoted; nothing has changed then.
    ///
    /// # Context
    ///
    /// As for [`AddressSpace::insert`]; for the flush see [`Gather`].
    pub fn zap(&mut self, range: VpnRange) -> Result<Gather<'_, 'd, T>, CutError> {
        self.cut_ends(range)?;
        Ok(self.gather(range, None))
    }

    /// Takes the leaves of `range` away that map any of `pages`, if that is said.
    pub(super) fn gather(&mut self, range: VpnRange, pages: Option<PfnRange>) -> Gather<'_, 'd, T> {
        let runs = [None; RUNS_MAX];
        let totals = Unmapped::default();
        let mut gather =
            Gather { space: self, runs, nr_runs: 0, addresses: None, rest: None, totals };
        gather.fill(range, pages);
        gather
    }

    /// Unmaps `range`: zaps, flushes and uncounts, as often as it takes. Mirrors `zap_page_range`.
    ///
    /// # Errors
    ///
    /// Says why a leaf that reaches over an end cannot be demoted; nothing has changed then.
    ///
    /// # Context
    ///
    /// As for [`Gather`]: the last count of a folio runs its owner's hook.
    pub fn unmap(&mut self, range: VpnRange) -> Result<Unmapped, CutError> {
        if let Some(unmapped) = self.unmap_leaf(range) {
            return Ok(unmapped);
        }
        self.cut_ends(range)?;
        Ok(self.unmap_cut(range, None))
    }

    /// Unmaps a range that is one leaf and nothing else: it takes no gather.
    fn unmap_leaf(&mut self, range: VpnRange) -> Option<Unmapped> {
        let vpn = range.start();
        // What is beyond them is somebody else's.
        if !self.table.addresses().contains_range(range) {
            return None;
        }
        let leaf = self.table.read(vpn).leaf()?;
        if leaf.addresses(vpn) != range {
            return None;
        }
        let mut run = GatherRun::new(self.directory, leaf);
        let leaf = self.table.clear(vpn)?;
        run.add(leaf);
        // If the flush panics the counts leak, as those of a gather do.
        if seeded!(PutBeforeFlush) {
            run.counts.as_ref().into_iter().for_each(Run::sub);
            self.table.flush(range);
        } else {
            self.table.flush(range);
            run.counts.as_ref().into_iter().for_each(Run::sub);
        }
        self.table.trim(range);
        let nr_pages = leaf.order.nr_pages();
        let nr_dirty_pages = if leaf.dirty { nr_pages } else { 0 };
        Some(Unmapped { nr_leaves: 1, nr_pages, nr_dirty_pages })
    }

    /// Unmaps leaves, none of which reaches over an end of what is meant.
    pub(super) fn unmap_cut(&mut self, range: VpnRange, pages: Option<PfnRange>) -> Unmapped {
        let mut sum = Unmapped::default();
        let mut rest = Some(range);
        // Ends: a full gather has taken leaves away.
        while let Some(range) = rest {
            let gather = self.gather(range, pages);
            let totals = gather.totals();
            rest = gather.flush();
            sum.nr_leaves = sum.nr_leaves.wrapping_add(totals.nr_leaves);
            sum.nr_pages = sum.nr_pages.wrapping_add(totals.nr_pages);
            sum.nr_dirty_pages = sum.nr_dirty_pages.wrapping_add(totals.nr_dirty_pages);
        }
        sum
    }
}
