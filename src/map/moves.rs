//! Moving mappings within an address space, and copying them to another.

use core::fmt;

use super::leaf::{Leaf, Rights};
use super::leaves::LeafSet;
use super::plan::{LeafLimit, LeafPlan};
use super::space::{AddressSpace, CutError, reserve_plan};
use super::table::{LeafReader, NoTable, PageTable};
use super::virt::{Vpn, VpnRange};
use super::walk::{Leaves, add_counts, first_leaf};
use crate::folio::CountError;
use crate::meta::word::Gate;
use crate::units::{PfnRange, RangeError};

/// The leaves of a range as they would be elsewhere.
struct Copies<'t, R> {
    leaves: Leaves<'t, R>,
    from: Vpn,
    to: Vpn,
    set: LeafSet,
}

impl<R> Clone for Copies<'_, R> {
    fn clone(&self) -> Self {
        Self { leaves: self.leaves.clone(), ..*self }
    }
}

impl<R: LeafReader> Iterator for Copies<'_, R> {
    /// A leaf of the range, and the leaves that map as much of it elsewhere.
    type Item = (Leaf, LeafPlan);

    fn next(&mut self) -> Option<(Leaf, LeafPlan)> {
        let (part, leaf) = self.leaves.next()?;
        let pages = PfnRange::new(leaf.page_at(part.start()), part.nr_pages()).ok()?;
        let vpn = self.to.checked_add(part.start().offset_from(self.from)?)?;
        let plan = LeafPlan::new(vpn, pages, leaf.order, self.set, LeafLimit::Largest);
        // The addresses have been checked as a whole.
        Some((leaf, plan.ok()?))
    }
}

/// Returns how many leaves a copy takes.
fn nr_leaves(plan: LeafPlan) -> u32 {
    u32::try_from(plan.nr_leaves()).unwrap_or(u32::MAX)
}

/// Checks that leaves fit at `to`, where nothing is.
fn check_room<T: PageTable>(table: &T, range: VpnRange, to: Vpn) -> Result<VpnRange, MoveError> {
    let addresses = VpnRange::new(to, range.nr_pages()).map_err(MoveError::Range)?;
    if !table.addresses().contains_range(addresses) {
        return Err(MoveError::OutsideTable { addresses, table: table.addresses() });
    }
    match first_leaf(table, addresses) {
        Some((vpn, leaf)) => Err(MoveError::Occupied { vpn, pfn: leaf.page_at(vpn) }),
        None => Ok(addresses),
    }
}

/// Writes what a copy takes.
fn set_all<T: PageTable>(table: &mut T, plan: LeafPlan, like: Leaf) {
    for (vpn, pfn, order) in plan.leaves() {
        table.set(vpn, Leaf { pfn, order, ..like });
    }
}

impl<'d, T: PageTable> AddressSpace<'d, T> {
    /// Moves what `range` maps to the addresses from `to` on, all of it or nothing; returns the
    /// number of leaves there.
    ///
    /// Where the new addresses are aligned worse the leaves get smaller; they never get larger. The
    /// rights, the attributes, and the accessed and dirty bits come along, and the pages are
    /// counted all the time. Mirrors `move_page_tables` of `mremap`.
    ///
    /// # Errors
    ///
    /// Says what is in the way; nothing has changed then.
    ///
    /// # Context
    ///
    /// As for [`AddressSpace::demote`], and flushes.
    pub fn remap(&mut self, range: VpnRange, to: Vpn) -> Result<u64, MoveError> {
        let addresses = VpnRange::new(to, range.nr_pages()).map_err(MoveError::Range)?;
        if addresses.overlaps(range) {
            return Err(MoveError::Overlap { from: range, to: addresses });
        }
        check_room(&self.table, range, to)?;
        let ends = self.cut_ends(range).map_err(|error| match error {
            CutError::NoTable(error) => MoveError::NoTable(error),
            CutError::Count(error) => MoveError::Count(error),
        })?;
        if let Err(error) = self.prepare_move(range, to) {
            self.table.trim(addresses);
            ends.into_iter().rev().for_each(|end| self.uncut(end));
            return Err(error);
        }
        let (mut nr, mut rest, set) = (0u64, Some(range), self.table.leaf_set());
        // Ends: every turn goes on behind the leaf that was met.
        while let Some(left) = rest {
            let leaves = Leaves::new(&self.table, left);
            let to = left.start().offset_from(range.start()).and_then(|nr| to.checked_add(nr));
            let Some(to) = to else { break };
            let Some((part, _)) = leaves.clone().next() else { break };
            let copy = Copies { leaves, from: left.start(), to, set }.next();
            if let (Some(old), Some((_, plan))) = (self.table.clear(part.start()), copy) {
                let kept = if seeded!(MoveLosesDirty) { Leaf { dirty: false, ..old } } else { old };
                set_all(&mut self.table, plan, kept);
                nr = nr.wrapping_add(plan.nr_leaves());
            }
            rest = range.behind(part.last());
        }
        // What is mapped at the old addresses next must not be seen through what was.
        self.table.flush(range);
        self.table.trim(range);
        Ok(nr)
    }

    /// Reserves and counts what a move takes beyond what there is.
    fn prepare_move(&mut self, range: VpnRange, to: Vpn) -> Result<(), MoveError> {
        let set = self.table.leaf_set();
        let mut rest = Some(range);
        // Ends: every turn goes on behind the leaf that was met.
        while let Some(left) = rest {
            let leaves = Leaves::new(&self.table, left);
            let Some((part, _)) = leaves.clone().next() else { break };
            let mut copies =
                Copies { leaves: Leaves::new(&self.table, part), from: range.start(), to, set };
            if let Some((_, plan)) = copies.next() {
                reserve_plan(&mut self.table, plan).map_err(MoveError::NoTable)?;
            }
            rest = range.behind(part.last());
        }
        let leaves = Leaves::new(&self.table, range);
        let copies = Copies { leaves, from: range.start(), to, set };
        let more = copies.map(|(leaf, plan)| (leaf.pfn, nr_leaves(plan).saturating_sub(1)));
        add_counts(self.directory, more, Gate::Holder).map_err(MoveError::Count)
    }

    /// Maps what `range` maps here in another address space, at the same addresses, all of it or
    /// nothing; returns the number of leaves there.
    ///
    /// The copies allow what the originals do and `rights` has, and have not been used: the
    /// accessed and dirty bits stay with the originals. To have both sides fault on stores, take
    /// the right here, too, with [`AddressSpace::protect`]. The other space may have other leaves.
    /// Mirrors `copy_page_range` of `fork`.
    ///
    /// # Errors
    ///
    /// Says what is in the way; nothing has changed then.
    ///
    /// # Context
    ///
    /// Whatever the other page table's `reserve` allows; takes no lock, runs no hook.
    pub fn duplicate<U: PageTable>(
        &self,
        range: VpnRange,
        other: &mut AddressSpace<'d, U>,
        rights: Rights,
    ) -> Result<u64, MoveError> {
        if !core::ptr::eq(self.directory, other.directory) {
            return Err(MoveError::OtherDirectory);
        }
        check_room(&other.table, range, range.start())?;
        let (from, set) = (range.start(), other.table.leaf_set());
        let copies = Copies { leaves: Leaves::new(&self.table, range), from, to: from, set };
        if let Err(error) = other.prepare_copies(copies.clone()) {
            other.table.trim(range);
            return Err(error);
        }
        let mut nr = 0u64;
        for (leaf, plan) in copies {
            let rights = leaf.rights & rights;
            let copy = Leaf { rights, accessed: false, dirty: false, ..leaf };
            set_all(&mut other.table, plan, copy);
            nr = nr.wrapping_add(plan.nr_leaves());
        }
        Ok(nr)
    }

    fn prepare_copies<R: LeafReader>(&mut self, copies: Copies<'_, R>) -> Result<(), MoveError> {
        for (_, plan) in copies.clone() {
            let pages = plan.pages();
            if !self.table.can_hold(pages) {
                return Err(MoveError::Unencodable { pages });
            }
            reserve_plan(&mut self.table, plan).map_err(MoveError::NoTable)?;
        }
        if seeded!(CopiesUncounted) {
            return Ok(());
        }
        let more = copies.map(|(leaf, plan)| (leaf.pfn, nr_leaves(plan)));
        add_counts(self.directory, more, Gate::Newcomer).map_err(MoveError::Count)
    }
}

/// Why nothing was moved or duplicated; nothing has changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum MoveError {
    /// The addresses would go on behind the last one.
    Range(RangeError),
    /// The old and the new addresses have some in common.
    Overlap {
        /// The old ones.
        from: VpnRange,
        /// The new ones.
        to: VpnRange,
    },
    /// The address spaces have different directories.
    OtherDirectory,
    /// The page table does not translate these addresses.
    OutsideTable {
        /// The addresses.
        addresses: VpnRange,
        /// Those of the table.
        table: VpnRange,
    },
    /// An entry of the page table cannot name these pages.
    Unencodable {
        /// The pages.
        pages: PfnRange,
    },
    /// Something is mapped there.
    Occupied {
        /// The first such address.
        vpn: Vpn,
        /// The page behind it.
        pfn: crate::units::Pfn,
    },
    /// There are not enough table pages.
    NoTable(NoTable),
    /// The additional leaves were not counted.
    Count(CountError),
}

impl fmt::Display for MoveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(error) => error.fmt(f),
            Self::Overlap { from, to } => write!(f, "addresses {from} and {to} overlap"),
            Self::OtherDirectory => f.write_str("the address spaces have different directories"),
            Self::OutsideTable { addresses, table } => {
                write!(f, "addresses {addresses} are not all in {table}")
            }
            Self::Unencodable { pages } => write!(f, "no entry can name pages {pages}"),
            Self::Occupied { vpn, pfn } => write!(f, "{vpn} is mapped to page {pfn}"),
            Self::NoTable(error) => error.fmt(f),
            Self::Count(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for MoveError {}
