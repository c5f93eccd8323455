//! The directory: from a page to its owner, across owners of different type.

use core::fmt;
use core::mem::ManuallyDrop;
use core::mem::MaybeUninit;

use spin::Mutex;

use super::any::AnyPlace;
use super::extent::{AddExtentError, Attach, ExtentAttrs};
use super::folio_ref::FolioRef;
use super::info::{FolioInfo, PageInfo};
use super::lookup::GetError;
use super::ops::PgmapOps;
use super::owner::{Core, PgmapCore};
use super::policy::Policy;
use super::raw::Pgmap;
use crate::meta::{Count, MetaLine, Tables};
use crate::sync::{FillOnce, ParkKey, const_unless_loom};
use crate::units::{Order, Pfn, PfnRange};

/// An owner whose type is not known here.
pub(super) trait AnyOwner: Sync {
    fn core(&self) -> &Core;

    fn wake(&self, head: Pfn);

    /// Does what the last count of the folio at `head` owes; its word is unique already.
    fn last_put(&self, head: Pfn, order: Order, wake: bool);
}

impl<O: PgmapOps> AnyOwner for PgmapCore<O> {
    fn core(&self) -> &Core {
        &self.core
    }

    fn wake(&self, head: Pfn) {
        self.ops.park().unpark_all(ParkKey::Folio(head));
    }

    fn last_put(&self, head: Pfn, order: Order, wake: bool) {
        if let Some(at) = self.place(head, order) {
            Self::last_put(self, at, order, wake);
        }
    }
}

static_assertions::assert_obj_safe!(AnyOwner);

/// The place of one owner in the table that the caller lends to a directory.
pub struct DirSlot<'d> {
    owner: FillOnce<&'d (dyn AnyOwner + 'd)>,
}

impl DirSlot<'_> {
    const_unless_loom! {
        /// Creates an empty slot.
        #[must_use]
        pub const fn new() -> Self {
            Self { owner: FillOnce::new() }
        }
    }
}

impl Default for DirSlot<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for DirSlot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.owner.get().is_some() { "DirSlot(owner)" } else { "DirSlot(empty)" })
    }
}

/// Owners of different type, by page.
///
/// What it does not know is foreign: RAM or MMIO, the embedder's business, never counted here.
/// Owners stay for the life of the directory. Extents that an owner adds by itself later are found
/// too; whether they overlap those of others is checked by [`Directory::add_extent`] only.
pub struct Directory<'d> {
    slots: &'d [DirSlot<'d>],
    /// Held while an owner is registered or an extent added.
    lock: Mutex<()>,
}

impl<'d> Directory<'d> {
    /// Creates a directory over an empty table.
    #[must_use]
    pub const fn new(slots: &'d [DirSlot<'d>]) -> Self {
        Self { slots, lock: Mutex::new(()) }
    }

    pub(super) fn owners(&self) -> impl Iterator<Item = &'d (dyn AnyOwner + 'd)> + '_ {
        self.slots.iter().filter_map(|slot| slot.owner.get().copied())
    }

    pub(super) fn owner_of(&self, pfn: Pfn) -> Option<&'d (dyn AnyOwner + 'd)> {
        self.owners().find(|owner| {
            owner.core().extent_of(pfn).is_some()
                && !(seeded!(TopIsForeign) && pfn == Pfn::new(u64::MAX))
        })
    }

    /// Adds an owner with the extents that it has.
    ///
    /// # Errors
    ///
    /// Refuses an owner that is there already, or with an extent that overlaps one of another.
    ///
    /// # Context
    ///
    /// Not in an interrupt: takes the lock of this directory.
    pub fn register<O: PgmapOps>(&self, pgmap: &'d Pgmap<'_, O>) -> Result<(), RegisterError> {
        let owner: &'d PgmapCore<O> = pgmap;
        let _lock = self.lock.lock();
        for other in self.owners() {
            if core::ptr::eq(other.core(), owner.core()) {
                return Err(RegisterError::Twice);
            }
            for range in owner.core().extents().map(|extent| extent.range()) {
                if let Some(existing) = other.core().overlap(range) {
                    return Err(RegisterError::Overlap { range, existing });
                }
            }
        }
        let slot = self.slots.iter().find(|slot| slot.owner.claim());
        let slot = slot.ok_or(RegisterError::NoSlot { nr_slots: self.slots.len() })?;
        slot.owner.fill(owner);
        Ok(())
    }

    /// Adds an extent to an owner, unless it overlaps one of any owner.
    ///
    /// # Errors
    ///
    /// As for [`Pgmap::add_extent`].
    ///
    /// # Context
    ///
    /// Not in an interrupt: takes the lock of this directory and that of the pgmap.
    pub fn add_extent<'m, O: PgmapOps>(
        &self,
        pgmap: &Pgmap<'m, O>,
        range: PfnRange,
        attrs: ExtentAttrs,
        tables: Tables,
        meta: &'m mut [MetaLine],
        attach: Attach,
    ) -> Result<(), AddExtentError>
    where
        O::Private: 'm,
    {
        let extent = NewExtent { range, attrs, tables, attach };
        self.add_extent_with_private(pgmap, extent, meta, &mut [])
    }

    /// Adds an extent to an owner with data beside each folio, unless it overlaps one of any owner.
    ///
    /// # Errors
    ///
    /// As for [`Pgmap::add_extent_with_private`].
    ///
    /// # Context
    ///
    /// As for [`Directory::add_extent`].
    pub fn add_extent_with_private<'m, O: PgmapOps>(
        &self,
        pgmap: &Pgmap<'m, O>,
        extent: NewExtent,
        meta: &'m mut [MetaLine],
        private: &'m mut [MaybeUninit<O::Private>],
    ) -> Result<(), AddExtentError> {
        let NewExtent { range, attrs, tables, attach } = extent;
        let _lock = self.lock.lock();
        if let Some(existing) = self.owners().find_map(|owner| owner.core().overlap(range)) {
            return Err(AddExtentError::Overlap { range, existing });
        }
        pgmap.add_extent_with_private(range, attrs, tables, meta, attach, private)
    }

    /// Returns what is known of a page at this moment; `None` if it is foreign.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock.
    pub fn query(&self, pfn: Pfn) -> Option<PageInfo> {
        Some(self.owner_of(pfn)?.core().query(pfn))
    }

    /// Takes a reference on the folio that covers `pfn`, whoever owns it, if it is live.
    ///
    /// # Context
    ///
    /// Anywhere, interrupts included; takes no lock. If the pgmap begins to die meanwhile, the
    /// reference is dropped again, and that may run the hook.
    pub fn try_get(&self, pfn: Pfn) -> Lookup<'d> {
        let Some(owner) = self.owner_of(pfn) else {
            return Lookup::Foreign;
        };
        match AnyFolio::get(owner, pfn) {
            Ok(folio) => Lookup::Folio(folio),
            Err(error) => Lookup::Miss(error),
        }
    }

    /// Returns a range of `nr_pages` page frame numbers that no extent uses, the highest in
    /// `within`: for memory that has no physical address.
    ///
    /// Mirrors `request_free_mem_region` of Linux. The range is not reserved: add the extent
    /// before the next call.
    ///
    /// # Errors
    ///
    /// Returns [`FreeRangeError`] if there is no such range.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock.
    pub fn request_free_range(
        &self,
        nr_pages: u64,
        align: Order,
        within: PfnRange,
    ) -> Result<PfnRange, FreeRangeError> {
        let error = FreeRangeError { nr_pages, align, within };
        let low = within.start();
        // The highest page of the candidate; it falls below every extent in the way.
        let mut last = within.last();
        // Ends: `last` falls on every turn.
        loop {
            let offset = nr_pages.checked_sub(1).ok_or(error)?;
            let start = last
                .checked_sub(offset)
                .ok_or(error)?
                .head(if seeded!(FreeRangeUnaligned) { Order::ZERO } else { align });
            if start < low {
                return Err(error);
            }
            let range = PfnRange::new(start, nr_pages).map_err(|_| error)?;
            let taken = self.owners().filter_map(|owner| owner.core().overlap(range));
            let Some(taken) = taken.map(PfnRange::start).min() else {
                return Ok(range);
            };
            last = taken.checked_sub(1).ok_or(error)?;
        }
    }
}

impl fmt::Debug for Directory<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Directory({} owners)", self.owners().count())
    }
}

/// An extent to be added, without the memory for it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NewExtent {
    /// Its pages.
    pub range: PfnRange,
    /// What the device says about it.
    pub attrs: ExtentAttrs,
    /// How many fracture tables it has.
    pub tables: Tables,
    /// How the metadata memory comes.
    pub attach: Attach,
}

/// What [`Directory::try_get`] found.
#[derive(Debug)]
#[must_use]
pub enum Lookup<'d> {
    /// A live folio, on which the caller has a reference now.
    Folio(AnyFolio<'d>),
    /// No owner has this page.
    Foreign,
    /// The page has an owner, but no reference was to be had.
    Miss(GetError),
}

/// A counted handle to a folio whose owner's type is not known.
///
/// # Context
///
/// Dropping it is what dropping a [`Folio`](crate::Folio) is: the last count runs the owner's hook
/// there and then, or condemns the folio.
#[must_use = "dropping it drops the reference"]
pub struct AnyFolio<'d> {
    at: AnyPlace<'d>,
}

impl<'d> AnyFolio<'d> {
    fn get(owner: &'d (dyn AnyOwner + 'd), pfn: Pfn) -> Result<Self, GetError> {
        let (extent, found) = owner.core().get(pfn)?;
        let folio = Self::new(AnyPlace { owner, word: found.word, head: found.head });
        if owner.core().slipped_past_kill(extent) {
            return Err(GetError::Dying);
        }
        Ok(folio)
    }

    /// Wraps a reference that the caller passes on.
    pub(crate) const fn new(at: AnyPlace<'d>) -> Self {
        Self { at }
    }

    pub(crate) const fn place(&self) -> AnyPlace<'d> {
        self.at
    }

    /// Returns the first page.
    #[must_use]
    pub const fn head(&self) -> Pfn {
        self.at.head
    }

    /// Returns log2 of the number of pages.
    #[must_use]
    pub fn order(&self) -> Order {
        self.at.read().order()
    }

    /// Returns the counts at this moment.
    #[must_use]
    pub fn info(&self) -> FolioInfo {
        FolioInfo::new(self.at.head, self.at.read())
    }

    /// Returns the policy of the owner.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.at.policy()
    }

    /// Takes another reference.
    ///
    /// # Errors
    ///
    /// Returns [`GetError::Limit`] at the limit of the count.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    pub fn try_clone(&self) -> Result<Self, GetError> {
        let max = Count::Refs.max();
        let head = self.at.head;
        self.at.word.get().map_err(|have| GetError::Limit { head, have, max })?;
        Ok(Self::new(self.at))
    }

    /// Returns the reference as one of `pgmap`, if that is the owner.
    ///
    /// # Errors
    ///
    /// Gives the handle back if the folio belongs to another pgmap.
    pub(crate) fn try_into_ref<O: PgmapOps>(
        self,
        pgmap: &'d PgmapCore<O>,
    ) -> Result<FolioRef<'d, O>, Self> {
        // Two cores never share an address, so the same address is the same owner, and the
        // argument proves its type.
        let is_owner = core::ptr::eq(self.at.core(), pgmap.core());
        let place = if is_owner { pgmap.place(self.at.head, self.order()) } else { None };
        let Some(at) = place else { return Err(self) };
        let _ = ManuallyDrop::new(self);
        Ok(at)
    }
}

impl Drop for AnyFolio<'_> {
    fn drop(&mut self) {
        self.at.put();
    }
}

impl fmt::Debug for AnyFolio<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnyFolio({}, order {})", self.at.head, self.order())
    }
}

/// Why [`Directory::register`] refused; nothing changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RegisterError {
    /// An extent overlaps one of another owner.
    Overlap {
        /// The extent of the new owner.
        range: PfnRange,
        /// The extent in its way.
        existing: PfnRange,
    },
    /// The owner is registered already.
    Twice,
    /// Every slot of the table has an owner.
    NoSlot {
        /// The slots of the table.
        nr_slots: usize,
    },
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overlap { range, existing } => {
                write!(f, "extent {range} overlaps extent {existing} of another owner")
            }
            Self::Twice => f.write_str("the owner is registered already"),
            Self::NoSlot { nr_slots } => write!(f, "all {nr_slots} owner slots are in use"),
        }
    }
}

impl core::error::Error for RegisterError {}

/// No range of page frame numbers is free.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FreeRangeError {
    /// The pages asked for.
    pub nr_pages: u64,
    /// The alignment asked for.
    pub align: Order,
    /// Where it was looked for.
    pub within: PfnRange,
}

impl fmt::Display for FreeRangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nr_pages, align, within } = self;
        write!(f, "no {nr_pages} unused page numbers aligned to order {align} in {within}")
    }
}

impl core::error::Error for FreeRangeError {}
