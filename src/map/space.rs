//! An address space: folios behind addresses, every leaf of them counted.

use core::fmt;

use super::leaf::{Entry, Leaf, Rights};
use super::plan::{LeafLimit, LeafPlan, PlanError};
use super::table::{NoTable, PageTable};
use super::virt::{Vpn, VpnRange};
use super::walk::{Leaves, first_leaf};
use crate::folio::{CountError, Folio};
use crate::meta::Count;
use crate::meta::word::Gate;
use crate::pgmap::{AnyFolio, AnyPlace, Directory, PgmapOps};
use crate::units::{Order, Pfn, PfnRange};

/// A page table with the promise that each of its leaves is counted.
///
/// Folios of all owners of a [`Directory`] and foreign pages, RAM and MMIO, live side by side. What
/// is exclusive is this handle; lockless lookups run beside it.
///
/// When it goes away with leaves in it, their counts are leaked:
/// [`unmap`](AddressSpace::unmap) everything before. Mirrors `struct mm_struct`, as far as that is
/// about leaves.
#[derive(Debug)]
pub struct AddressSpace<'d, T> {
    pub(super) table: T,
    pub(super) directory: &'d Directory<'d>,
}

/// What is to be mapped, where, and how.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MapRequest {
    /// The first address.
    pub vpn: Vpn,
    /// The pages, in the order of the addresses.
    pub pages: PfnRange,
    /// What the leaves allow.
    pub rights: Rights,
    /// [`Leaf::attrs`](super::Leaf::attrs).
    pub attrs: u16,
    /// How large the leaves are.
    pub limit: LeafLimit,
}

impl MapRequest {
    /// Returns the request for the largest leaves, without attributes.
    #[must_use]
    pub const fn new(vpn: Vpn, pages: PfnRange, rights: Rights) -> Self {
        Self { vpn, pages, rights, attrs: 0, limit: LeafLimit::Largest }
    }

    /// Returns the same request with another limit.
    #[must_use]
    pub const fn limit(self, limit: LeafLimit) -> Self {
        Self { limit, ..self }
    }
}

impl<'d, T: PageTable> AddressSpace<'d, T> {
    /// Creates an address space over an empty page table.
    #[must_use]
    pub const fn new(table: T, directory: &'d Directory<'d>) -> Self {
        Self { table, directory }
    }

    /// Returns the page table.
    #[must_use]
    pub const fn table(&self) -> &T {
        &self.table
    }

    /// Returns the page table, for what is the embedder's own. Whoever changes leaves behind the
    /// back of the address space spoils counts.
    #[must_use]
    pub const fn table_mut(&mut self) -> &mut T {
        &mut self.table
    }

    /// Gives the page table up. Leaves that it still has stay counted, for ever.
    #[must_use]
    pub fn into_table(self) -> T {
        self.table
    }

    /// Yields the leaves that map part of `range`, ascending, each with those of its addresses that
    /// lie in the range.
    pub fn leaves(&self, range: VpnRange) -> impl Iterator<Item = (VpnRange, Leaf)> + '_ {
        Leaves::new(&self.table, range)
    }

    /// Maps pages of a folio, all of them or none; returns the number of leaves.
    ///
    /// The leaves are the largest that both alignments, the page table, the folio and the owner's
    /// policy allow, and they are counted by one operation. Mirrors `vmf_insert_folio_pmd` and its
    /// kin, for all orders at once.
    ///
    /// # Errors
    ///
    /// Says what is in the way; nothing is mapped, counted or reserved then.
    ///
    /// # Context
    ///
    /// Whatever the page table's `reserve` allows; takes no lock, runs no hook.
    pub fn insert<O: PgmapOps>(
        &mut self,
        folio: &Folio<'_, O>,
        request: MapRequest,
    ) -> Result<u32, InsertError> {
        let at = folio.at();
        let place = self.directory.place_in(at.pgmap.core(), at.word, at.head);
        self.insert_counted(place.ok_or(InsertError::NotRegistered { head: at.head })?, request)
    }

    /// Maps pages of a folio whose owner's type is not known.
    ///
    /// # Errors
    ///
    /// As for [`AddressSpace::insert`].
    ///
    /// # Context
    ///
    /// As for [`AddressSpace::insert`].
    pub fn insert_any(
        &mut self,
        folio: &AnyFolio<'_>,
        request: MapRequest,
    ) -> Result<u32, InsertError> {
        let place = self.directory.known(folio.place());
        let head = folio.head();
        self.insert_counted(place.ok_or(InsertError::NotRegistered { head })?, request)
    }

    /// Maps pages that no owner of the directory has, RAM or MMIO, without counting them.
    ///
    /// They must stay foreign while they are mapped: an extent that is added over them meanwhile
    /// will miss counts. Mirrors `remap_pfn_range`.
    ///
    /// # Errors
    ///
    /// As for [`AddressSpace::insert`]; [`InsertError::Owned`] if an owner has one of the pages.
    ///
    /// # Context
    ///
    /// As for [`AddressSpace::insert`].
    pub fn insert_foreign(&mut self, request: MapRequest) -> Result<u64, InsertError> {
        let pages = request.pages;
        if let Some(extent) = self.directory.overlap(pages) {
            return Err(InsertError::Owned { pages, extent });
        }
        let plan = self.plan(request, Order::MAX, Order::MAX)?;
        self.reserve(plan)?;
        self.set_all(plan, request);
        Ok(plan.nr_leaves())
    }

    fn insert_counted(
        &mut self,
        place: AnyPlace<'_>,
        request: MapRequest,
    ) -> Result<u32, InsertError> {
        let (pages, folio) = (request.pages, place.pages());
        if !folio.contains_range(pages) {
            return Err(InsertError::OutsideFolio { pages, folio });
        }
        if let Some(order) = self.only_leaf(&place, &request) {
            self.insert_leaf(place, request, order)?;
            return Ok(1);
        }
        // The caller's reference keeps the order what it is.
        let order = Order::floor_log2(folio.nr_pages()).unwrap_or(Order::ZERO);
        let plan = self.plan(request, order, place.policy().mapping_max)?;
        // No more leaves than the pages of a folio.
        let nr_leaves = u32::try_from(plan.nr_leaves()).unwrap_or(u32::MAX);
        self.reserve(plan)?;
        let counted = count(place, nr_leaves).map_err(InsertError::Count);
        self.or_trim(plan.addresses(), counted)?;
        self.set_all(plan, request);
        Ok(nr_leaves)
    }

    /// Returns the order of the leaf that a request is, if it is one, and if there is nothing at
    /// its address. What else may be the matter is found by the plan.
    fn only_leaf(&self, place: &AnyPlace<'_>, request: &MapRequest) -> Option<Order> {
        let MapRequest { vpn, pages, limit, .. } = *request;
        let order = Order::floor_log2(pages.nr_pages())?;
        let is_one = PfnRange::block(pages.start(), order) == pages && vpn.is_aligned_to(order);
        let set = self.table.leaf_set().up_to(place.policy().mapping_max);
        if !is_one || !limit.allows(order) || !set.contains(order) {
            return None;
        }
        let addresses = VpnRange::block(vpn, order);
        if !self.table.addresses().contains_range(addresses) || !self.table.can_hold(pages) {
            return None;
        }
        match self.table.read(vpn) {
            Entry::Empty { log2_pages } if order.as_u8() <= log2_pages => Some(order),
            _ => None,
        }
    }

    /// Maps one leaf where there is nothing: it takes no plan.
    fn insert_leaf(
        &mut self,
        place: AnyPlace<'_>,
        request: MapRequest,
        order: Order,
    ) -> Result<(), InsertError> {
        let MapRequest { vpn, pages, rights, attrs, .. } = request;
        let addresses = VpnRange::block(vpn, order);
        let reserved = self.table.reserve(addresses, order);
        self.or_trim(addresses, reserved.map_err(InsertError::NoTable))?;
        self.or_trim(addresses, count(place, 1).map_err(InsertError::Count))?;
        self.table.set(vpn, Leaf { attrs, ..Leaf::new(pages.start(), order, rights) });
        Ok(())
    }

    /// Gives back what was reserved for `addresses` if what came after has failed.
    fn or_trim(
        &mut self,
        addresses: VpnRange,
        result: Result<(), InsertError>,
    ) -> Result<(), InsertError> {
        if result.is_err() && !seeded!(ReservedLeaks) {
            self.table.trim(addresses);
        }
        result
    }

    /// Plans a mapping, and checks that there is room for it.
    fn plan(
        &self,
        request: MapRequest,
        folio: Order,
        policy: Order,
    ) -> Result<LeafPlan, InsertError> {
        let MapRequest { vpn, pages, limit, .. } = request;
        if let LeafLimit::Exactly(leaf) = limit {
            if policy < leaf {
                return Err(InsertError::AbovePolicy { leaf, max: policy });
            }
        }
        let set = self.table.leaf_set().up_to(policy);
        let folio = if seeded!(LeafAboveFolio) { Order::MAX } else { folio };
        let plan = LeafPlan::new(vpn, pages, folio, set, limit).map_err(InsertError::Plan)?;
        let (addresses, table) = (plan.addresses(), self.table.addresses());
        if !table.contains_range(addresses) {
            return Err(InsertError::OutsideTable { addresses, table });
        }
        if !self.table.can_hold(pages) {
            return Err(InsertError::Unencodable { pages });
        }
        match first_leaf(&self.table, addresses) {
            Some((vpn, leaf)) => Err(InsertError::Occupied { vpn, pfn: leaf.page_at(vpn) }),
            None => Ok(plan),
        }
    }

    fn reserve(&mut self, plan: LeafPlan) -> Result<(), InsertError> {
        let reserved = reserve_plan(&mut self.table, plan);
        self.or_trim(plan.addresses(), reserved.map_err(InsertError::NoTable))
    }

    fn set_all(&mut self, plan: LeafPlan, request: MapRequest) {
        for run in plan.runs() {
            for (vpn, pfn) in run.leaves() {
                let leaf = Leaf::new(pfn, run.order, request.rights);
                self.table.set(vpn, Leaf { attrs: request.attrs, ..leaf });
            }
        }
    }

    /// Changes what all leaves of `range` allow, and flushes if they allow less; returns their
    /// number. A leaf that reaches over an end is demoted there first.
    ///
    /// Accessed and dirty bits stay. Mirrors `change_protection`.
    ///
    /// # Errors
    ///
    /// Says why a leaf cannot be demoted; nothing has changed then.
    ///
    /// # Context
    ///
    /// As for [`AddressSpace::insert`].
    pub fn protect(&mut self, range: VpnRange, rights: Rights) -> Result<u64, CutError> {
        self.cut_ends(range)?;
        let (mut nr_leaves, mut takes_away, mut rest) = (0u64, false, Some(range));
        // Ends: every turn goes on behind the leaf that was met.
        while let Some((part, leaf)) = rest.and_then(|r| Leaves::new(&self.table, r).next()) {
            self.table.protect(part.start(), rights);
            takes_away |= !rights.contains(leaf.rights);
            nr_leaves = nr_leaves.wrapping_add(1);
            rest = range.behind(part.last());
        }
        if takes_away {
            self.table.flush(range);
        }
        Ok(nr_leaves)
    }
}

/// Counts the leaves of a new mapping.
fn count(place: AnyPlace<'_>, nr_leaves: u32) -> Result<(), CountError> {
    let head = place.head();
    let nr_leaves = if seeded!(CountsPages) { nr_leaves.min(1) } else { nr_leaves };
    let added = place.add_held(Count::Mappings, nr_leaves, Gate::Newcomer);
    added.map_err(|refused| CountError::refused(refused, Count::Mappings, head, head))
}

/// Reserves what a plan takes.
pub(super) fn reserve_plan(table: &mut impl PageTable, plan: LeafPlan) -> Result<(), NoTable> {
    for run in plan.runs() {
        let nr_pages = run.nr_leaves.wrapping_shl(run.order.as_u8().into());
        // A run lies within the addresses of the plan.
        if let Ok(range) = VpnRange::new(run.vpn, nr_pages) {
            table.reserve(range, run.order)?;
        }
    }
    Ok(())
}

/// Why nothing was mapped; nothing has changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum InsertError {
    /// The directory of this address space does not have the owner of the folio, so that nobody
    /// could uncount the leaves.
    NotRegistered {
        /// The head of the folio.
        head: Pfn,
    },
    /// The pages are not all of the folio.
    OutsideFolio {
        /// The pages.
        pages: PfnRange,
        /// Those of the folio.
        folio: PfnRange,
    },
    /// An owner has one of the pages that were to be foreign.
    Owned {
        /// The pages.
        pages: PfnRange,
        /// An extent with one of them.
        extent: PfnRange,
    },
    /// The policy of the owner allows no leaf of this order.
    AbovePolicy {
        /// The order asked for.
        leaf: Order,
        /// The largest that is allowed.
        max: Order,
    },
    /// The leaves cannot be as asked for.
    Plan(PlanError),
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
        pfn: Pfn,
    },
    /// There are not enough table pages.
    NoTable(NoTable),
    /// The leaves were not counted.
    Count(CountError),
}

impl fmt::Display for InsertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRegistered { head } => {
                write!(f, "the directory does not have the owner of folio {head}")
            }
            Self::OutsideFolio { pages, folio } => {
                write!(f, "pages {pages} are not all of folio {folio}")
            }
            Self::Owned { pages, extent } => {
                write!(f, "pages {pages} are not foreign: there is extent {extent}")
            }
            Self::AbovePolicy { leaf, max } => {
                write!(f, "a leaf of order {leaf} where the policy allows order {max}")
            }
            Self::Plan(error) => error.fmt(f),
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

impl core::error::Error for InsertError {}

/// Why a leaf was not made smaller; nothing has changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum CutError {
    /// There are not enough table pages.
    NoTable(NoTable),
    /// The additional leaves were not counted.
    Count(CountError),
}

impl fmt::Display for CutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTable(error) => error.fmt(f),
            Self::Count(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for CutError {}
