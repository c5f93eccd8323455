//! What rests on promises: lent memory, owner data, and handles made of numbers.
#![expect(unsafe_code, reason = "the lifetime of lent memory, and owner data behind words")]

use core::fmt;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ops::Deref;
use core::ptr::NonNull;

use spin::Mutex;

use super::extent::{AddExtentError, Attach, Extent, ExtentAttrs, ExtentSlot};
use super::folio_ref::FolioRef;
use super::holder::{Holder, HolderCell};
use super::life::{End, Life};
use super::ops::PgmapOps;
use super::owner::{Core, PgmapCore, slot_named};
use super::policy::Policy;
use super::remove::RemoveError;
use super::set::{FolioDesc, UniqueSet};
use super::trie::Trie;
use super::unique::{RawUnique, UniqueFolio};
use crate::meta::word::Kind;
use crate::meta::{Geometry, Lent, Meta, MetaLine, MetaSize, PrivateMem, Tables};
use crate::sync::{AtomicU64, Link, OwnLine};
use crate::units::{Order, Pfn, PfnRange};

/// An owner's claim on extents of device memory, with the memory that it was lent.
///
/// Everything that needs no new memory is a method of [`PgmapCore`], to which this dereferences.
/// `'m` is the life of the memory lent; it is invariant, so that nothing can be lent for less.
///
/// When it goes away, nothing is walked: owner data ([`PgmapOps::Private`]) of folios that still
/// exist then, because they are kept, retired, condemned or in a raw form, is leaked.
///
/// Mirrors `struct dev_pagemap` of Linux, for any number of extents.
pub struct Pgmap<'m, O: PgmapOps> {
    inner: PgmapCore<O>,
    _lent: PhantomData<fn(&'m ()) -> &'m ()>,
}

impl<O: PgmapOps> Deref for Pgmap<'_, O> {
    type Target = PgmapCore<O>;

    fn deref(&self) -> &PgmapCore<O> {
        &self.inner
    }
}

impl<O: PgmapOps> fmt::Debug for Pgmap<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

macro_rules! new_pgmap {
    ($(#[$meta:meta])* pub [$($const:tt)?] fn new) => {
        $(#[$meta])*
        pub $($const)? fn new(ops: O, policy: Policy, slots: &'m [ExtentSlot]) -> Self {
            // SAFETY: The core is private to a type that carries `'m` invariantly.
            let slots = unsafe { Lent::new(slots) };
            let core = Core {
                slots,
                first: Link::new(),
                trie: Trie::new(),
                policy,
                end: End::new(),
                condemned: OwnLine(AtomicU64::new(0)),
                chain: Mutex::new(0),
                kept_pages: OwnLine(AtomicU64::new(0)),
                condemned_pages: OwnLine(AtomicU64::new(0)),
                shortages: OwnLine(AtomicU64::new(0)),
                attach: Mutex::new(0),
            };
            let holder = HolderCell::new();
            let inner = PgmapCore { core, ops, holder, owner: PhantomData };
            Self { inner, _lent: PhantomData }
        }
    };
}

impl<'m, O: PgmapOps> Pgmap<'m, O> {
    #[cfg(not(all(test, loom)))]
    new_pgmap! {
        /// Creates a pgmap without extents, over a table of slots that may be shared.
        #[must_use]
        pub [const] fn new
    }
    #[cfg(all(test, loom))]
    new_pgmap! {
        /// Creates a pgmap without extents.
        #[must_use]
        pub [] fn new
    }

    /// Adds an extent; its pages are free from now on.
    ///
    /// [`MetaSize::of`] says how many lines of metadata it takes. For owners with data beside each
    /// folio see [`Pgmap::add_extent_with_private`]. Mirrors `memremap_pages` of Linux.
    ///
    /// # Errors
    ///
    /// Says what is in the way, and changes nothing. With a `Private` that is not empty this always
    /// fails, with [`AddExtentError::PrivateShort`] if nothing else is in the way.
    ///
    /// # Context
    ///
    /// Not in an interrupt: takes the lock of this pgmap that guards its list of extents.
    pub fn add_extent(
        &self,
        range: PfnRange,
        attrs: ExtentAttrs,
        tables: Tables,
        meta: &'m mut [MetaLine],
        attach: Attach,
    ) -> Result<(), AddExtentError>
    where
        O::Private: 'm,
    {
        self.add_extent_with_private(range, attrs, tables, meta, attach, &mut [])
    }

    /// Adds an extent, with places for the owner data of its folios.
    ///
    /// [`MetaSize::private_slots`] says how many; none if the type is empty.
    ///
    /// # Errors
    ///
    /// Says what is in the way, and changes nothing.
    ///
    /// # Context
    ///
    /// As for [`Pgmap::add_extent`].
    pub fn add_extent_with_private(
        &self,
        range: PfnRange,
        attrs: ExtentAttrs,
        tables: Tables,
        meta: &'m mut [MetaLine],
        attach: Attach,
        private: &'m mut [MaybeUninit<O::Private>],
    ) -> Result<(), AddExtentError> {
        self.add(range, attrs, (tables, attach), meta, private, Life::Live)
    }

    /// Adds an extent that gives nothing out until [`PgmapCore::restore_extent`] opens it.
    ///
    /// It is as if its removal had begun before anybody saw it. In between, pages that the device
    /// says are bad can be [recorded](PgmapCore::poison_list), or part of it [given
    /// back](PgmapCore::offline), with nobody in the way. Takes places for owner data as
    /// [`Pgmap::add_extent_with_private`] does, none if that type is empty. Mirrors the import of
    /// a list of bad blocks by `nvdimm_badblocks_populate`, before the device is there.
    ///
    /// ```
    /// # use devfolio::*;
    /// # struct Ops;
    /// # impl PgmapOps for Ops { type Private = (); }
    /// # let range = PfnRange::new(Pfn::new(0), 1024)?;
    /// # let nr_lines = MetaSize::of(range, Tables::Dense).poison(8).lines();
    /// # let mut lines: Vec<_> = (0..nr_lines).map(|_| MetaLine::ZERO).collect();
    /// # let slots = [const { ExtentSlot::new() }];
    /// # let pgmap = Pgmap::new(Ops, Policy::generic(), &slots);
    /// # let (attrs, tables, attach) = (ExtentAttrs::NEW, Tables::Dense, Attach::Zeroed);
    /// pgmap.add_closed_extent(range, attrs, tables, &mut lines, attach, &mut [])?;
    /// assert!(pgmap.alloc(Order::ZERO).is_err());
    /// assert_eq!(pgmap.poison_list(&[3, 700].map(Pfn::new))?, 2);
    /// pgmap.restore_extent(range.start())?;
    /// assert_eq!(pgmap.stats().free_pages, 1022);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Says what is in the way, and changes nothing.
    ///
    /// # Context
    ///
    /// As for [`Pgmap::add_extent`].
    pub fn add_closed_extent(
        &self,
        range: PfnRange,
        attrs: ExtentAttrs,
        tables: Tables,
        meta: &'m mut [MetaLine],
        attach: Attach,
        private: &'m mut [MaybeUninit<O::Private>],
    ) -> Result<(), AddExtentError> {
        self.add(range, attrs, (tables, attach), meta, private, Life::Dying)?;
        // Nothing is in use, so this removal is complete until it is called off.
        self.settle();
        Ok(())
    }

    /// Adds an extent whose life is this from the first moment on.
    fn add(
        &self,
        range: PfnRange,
        attrs: ExtentAttrs,
        (tables, attach): (Tables, Attach),
        meta: &'m mut [MetaLine],
        private: &'m mut [MaybeUninit<O::Private>],
        life: Life,
    ) -> Result<(), AddExtentError> {
        let mut lowest = self.core.attach.lock();
        self.check_extent(range, tables, meta.len(), private.len())?;
        let (index, slot) = self.claim_slot()?;

        // A false promise of zeroes may spoil counts, but owner data hangs on the words.
        let is_plain = size_of::<O::Private>() == 0 && !core::mem::needs_drop::<O::Private>();
        let is_trusted = attach == Attach::Zeroed && is_plain;
        // SAFETY: The extent is reachable only through this pgmap, which carries `'m` invariantly.
        let meta = unsafe { Meta::new(meta, range, tables, is_trusted) };
        let meta = meta.map_err(|needed| {
            slot.unclaim();
            AddExtentError::MetaShort { needed, given: 0 }
        })?;
        // SAFETY: As above, and everything that reads it goes through a `PgmapCore<O>`.
        let private = unsafe { PrivateMem::new(private) };
        let withheld = super::withheld::Withheld::new();
        let extent = Extent { meta, attrs, private, slot: index, withheld, end: End::new() };
        extent.clear_withheld(is_trusted);
        extent.index().attach(attrs.contents == super::Contents::Zeroed);
        if life != Life::Live {
            // Seen by whoever finds the extent, since its name is written with release.
            extent.begin_end(&self.core);
        }
        slot.fill(extent);
        let name = u64::from(index).wrapping_add(1);
        let version = self.core.trie.begin();
        self.link_slot(name);
        self.core.trie_insert(version, &mut lowest, name);
        Ok(())
    }

    /// Writes a holder down, whose cell the caller has claimed.
    pub(super) fn fill_holder(&self, holder: &'m (dyn Holder<O> + 'm)) {
        let holder: *const (dyn Holder<O> + 'm) = holder;
        // SAFETY: The types differ in a lifetime only, and what the pointer leads to is reachable
        // only through this pgmap, whose type carries `'m` invariantly.
        let holder: *const dyn Holder<O> = unsafe { core::mem::transmute(holder) };
        // SAFETY: It was a reference.
        let holder = unsafe { &*holder };
        // SAFETY: As above.
        self.holder.0.fill(unsafe { Lent::new(holder) });
    }

    /// Checks everything about a new extent before anything is touched.
    fn check_extent(
        &self,
        range: PfnRange,
        tables: Tables,
        nr_lines: usize,
        nr_private: usize,
    ) -> Result<(), AddExtentError> {
        if self.core.is_dying() {
            return Err(AddExtentError::Dying);
        }
        let (nr_pages, max) = (range.nr_pages(), MetaSize::pages_max());
        if max < nr_pages {
            return Err(AddExtentError::TooLarge { nr_pages, max });
        }
        if let Some(existing) = self.core.overlap(range) {
            return Err(AddExtentError::Overlap { range, existing });
        }
        let size = MetaSize::of(range, tables);
        let needed = Geometry::new(range).nr_cut_blocks();
        if size.tables() < needed {
            return Err(AddExtentError::TablesShort { needed, given: size.tables() });
        }
        let (needed, given) = (size.lines() as u64, nr_lines as u64);
        let is_lax = seeded!(MetaShort) && given.saturating_add(1) == needed;
        if given < needed && !is_lax {
            return Err(AddExtentError::MetaShort { needed, given });
        }
        let (needed, given) = (size.private_slots() as u64, nr_private as u64);
        if size_of::<O::Private>() != 0 && given < needed {
            return Err(AddExtentError::PrivateShort { needed, given });
        }
        Ok(())
    }

    fn claim_slot(&self) -> Result<(u16, &ExtentSlot), AddExtentError> {
        let slots = self.core.slots.get();
        let mut indices = (0..u16::MAX).zip(slots);
        let found = indices.find(|(_, slot)| slot.claim());
        found.ok_or(AddExtentError::NoSlot { nr_slots: slots.len() })
    }

    /// Appends a filled slot to the list of this pgmap; the caller holds the lock.
    fn link_slot(&self, name: u64) {
        let slots = self.core.slots.get();
        let mut last = &self.core.first;
        // Ends: the list has no loop, since a slot is linked once.
        while let Some(slot) = slot_named(slots, last.get()) {
            last = &slot.next;
        }
        if let Some(slot) = slot_named(slots, name) {
            // What it was followed by when it served before is over.
            slot.next.set(0);
        }
        last.set(name);
    }

    /// Takes a drained extent off the list, and its memory back.
    ///
    /// # Errors
    ///
    /// Says what is in the way, and changes nothing, but that the removal has begun if an extent
    /// has the page.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::remove_extent`].
    pub fn take_extent(&mut self, pfn: Pfn) -> Result<LentMemory<'m, O>, RemoveError> {
        self.remove_extent(pfn)?;
        let detached = self.detach_extent(pfn)?;
        // SAFETY: The pgmap is borrowed exclusively, so no call is under way, and no handle or
        // iterator on it can be used again.
        unsafe { detached.reclaim() }.ok_or(RemoveError::Outside { pfn })
    }
}

/// A drained extent that is off the list, but may still be read by those who found it before.
///
/// Dropping it leaks its slot and its memory.
#[must_use = "dropping it leaks the slot and the memory of the extent"]
pub struct Detached<'a, 'm, O: PgmapOps> {
    pgmap: &'a Pgmap<'m, O>,
    slot: u16,
}

impl<'a, 'm, O: PgmapOps> Detached<'a, 'm, O> {
    /// Wraps a slot that the caller took off the list of `pgmap`.
    pub(super) const fn new(pgmap: &'a Pgmap<'m, O>, slot: u16) -> Self {
        Self { pgmap, slot }
    }

    /// Returns the range of the extent.
    #[must_use]
    pub fn range(&self) -> Option<PfnRange> {
        Some(self.slot()?.extent()?.range())
    }

    fn slot(&self) -> Option<&'a ExtentSlot> {
        self.pgmap.core().slots.get().get(usize::from(self.slot))
    }

    /// Returns the memory that was lent to the extent; its slot can be used again. Owner data of
    /// folios in quarantine is dropped.
    ///
    /// `None` is not returned in practice: it would mean that the slot is empty already.
    ///
    /// # Safety
    ///
    /// Whatever found the extent before it was detached is over: every call on this pgmap, or on a
    /// directory that has it, that began before then has returned (what `synchronize_rcu` waits for
    /// in Linux, if calls are read-side sections), and no iterator that began before then, and no
    /// handle on a folio of the extent, not even a [`FolioMap`](crate::FolioMap) without leaves or
    /// a [`Lease`](crate::Lease) that has ended, is ever used again. Each
    /// [`Magazine`](crate::Magazine) of this pgmap was called or dropped since the removal began,
    /// so that it has forgotten where its pages were.
    ///
    /// # Context
    ///
    /// Anywhere where owner data may be dropped; takes no lock, runs no hook. Walks the extent.
    #[must_use = "what it returns is all that leads to the memory"]
    pub unsafe fn reclaim(self) -> Option<LentMemory<'m, O>> {
        let slot = self.slot()?;
        let extent = slot.extent()?;
        extent.for_each_folio(|folio| {
            if folio.kind == super::FolioKind::Retired {
                self.pgmap.drop_private(extent, folio.head, folio.order);
            }
        });
        // SAFETY: By the caller's contract nobody who found the extent through the list still reads
        // it, and nobody else finds it.
        let Extent { meta, private, .. } = unsafe { slot.extent.take() }?;
        self.pgmap.core().end_leaving();
        // SAFETY: Nobody reaches the lines any more, and they were lent to this pgmap for `'m`.
        let meta = unsafe { meta.into_lines() };
        // SAFETY: As above; the places were lent as such of this type.
        let private = unsafe { private.into_places::<O::Private>() };
        Some(LentMemory { meta, private })
    }
}

impl<O: PgmapOps> fmt::Debug for Detached<'_, '_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Detached({:?})", self.range())
    }
}

/// What was lent for an extent, as it comes back.
pub struct LentMemory<'m, O: PgmapOps> {
    /// The metadata; what it contains means nothing any more.
    pub meta: &'m mut [MetaLine],
    /// The places of owner data, of which none holds a value any more.
    pub private: &'m mut [MaybeUninit<O::Private>],
}

impl<O: PgmapOps> fmt::Debug for LentMemory<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (lines, places) = (self.meta.len(), self.private.len());
        write!(f, "LentMemory({lines} lines, {places} places)")
    }
}

// Owner data. A place is initialised exactly while a folio with this head and order exists.
impl<O: PgmapOps> PgmapCore<O> {
    /// Begins the owner data of a folio that was just born.
    #[inline]
    pub(super) fn begin_private(&self, extent: &Extent, head: Pfn, order: Order) {
        if let Some(place) = Self::private_place(extent, head, order) {
            let value = O::Private::default();
            // SAFETY: The place is the folio's own, and the folio is held alone; what it held is
            // uninitialised.
            unsafe { place.write(value) };
        }
    }

    /// Ends the owner data of a folio that is held alone.
    #[inline]
    pub(super) fn drop_private(&self, extent: &Extent, head: Pfn, order: Order) {
        if let Some(place) = Self::private_place(extent, head, order) {
            // SAFETY: The folio exists, so its data is initialised, and it is held alone; the
            // caller lets nobody read it afterwards.
            unsafe { place.drop_in_place() };
        }
    }

    #[inline]
    pub(super) fn private_place(
        extent: &Extent,
        head: Pfn,
        order: Order,
    ) -> Option<NonNull<O::Private>> {
        // What is empty lies nowhere, so there is nothing to look up.
        let is_empty = size_of::<O::Private>() == 0;
        let index = if is_empty { 0 } else { extent.private_index(head, order)? };
        extent.private.place(index)
    }

    /// Calls the owner's hook with the data of a folio that is held alone, and with that of a piece
    /// of it, which is too.
    #[inline]
    pub(super) fn split_private(
        &self,
        from: &O::Private,
        piece: Option<NonNull<O::Private>>,
        head: Pfn,
        order: Order,
    ) {
        if let Some(mut piece) = piece {
            // SAFETY: The piece was born with its data, is another place than `from`, and is held
            // alone; nobody else has a borrow of it.
            let piece = unsafe { piece.as_mut() };
            self.ops.folio_split(from, piece, head, order);
        }
    }

    /// Moves the owner data of a folio that is held alone along with its word.
    pub(super) fn move_private(&self, extent: &Extent, head: Pfn, from: Order, to: Order) {
        let [from, to] = [from, to].map(|order| Self::private_place(extent, head, order));
        let (Some(from), Some(to)) = (from, to) else { return };
        if from != to {
            // SAFETY: Both places belong to the folio, which is held alone; the old one is
            // initialised, and nobody reads it again.
            let value = unsafe { from.read() };
            // SAFETY: As above; the new place is uninitialised.
            unsafe { to.write(value) };
        }
    }
}

impl<'a, O: PgmapOps> FolioRef<'a, O> {
    /// Returns the owner data of a folio on which the caller holds a count, or which it holds
    /// alone.
    #[inline]
    pub(crate) fn private(&self) -> &'a O::Private {
        let place = self.private_place();
        // SAFETY: The folio exists, so its data is initialised; while the caller's claim lasts it
        // is neither dropped nor moved, and only an exclusive holder has it mutably. The returned
        // borrow is shortened by the handle that calls this.
        unsafe { place.as_ref() }
    }

    /// Returns the owner data of a folio that the caller holds alone.
    #[inline]
    pub(super) fn private_mut(&self) -> &'a mut O::Private {
        let mut place = self.private_place();
        // SAFETY: As for `private`, and the exclusive handle is borrowed mutably.
        unsafe { place.as_mut() }
    }

    #[inline]
    fn private_place(&self) -> NonNull<O::Private> {
        let is_empty = size_of::<O::Private>() == 0;
        let order = if is_empty { Order::ZERO } else { self.order() };
        let place = PgmapCore::<O>::private_place(self.extent, self.head, order);
        debug_assert!(place.is_some(), "a folio without a place for its data: {self:?}");
        // `begin_private` found the place when the folio was born, so it is there; an empty type,
        // for which corrupt metadata may not lead to harm, is fine with any place.
        place.unwrap_or(NonNull::dangling())
    }
}

impl<O: PgmapOps> PgmapCore<O> {
    /// Returns the exclusive handle that [`UniqueFolio::into_raw`] gave up; `None` if no folio that
    /// is held alone starts there.
    ///
    /// # Safety
    ///
    /// `raw` came from a handle of this pgmap, and is used once.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    pub unsafe fn unique_from_raw(&self, raw: RawUnique) -> Option<UniqueFolio<'_, O>> {
        let (at, found) = self.find(Pfn::new(raw.as_u64()))?;
        let is_unique = found.bits.kind() == Kind::Unique && found.head.as_u64() == raw.as_u64();
        is_unique.then(|| UniqueFolio::new(at, found.bits.order(), false))
    }

    /// Returns the set that [`UniqueSet::into_raw`] gave up.
    ///
    /// # Safety
    ///
    /// `descs` came from a set of this pgmap, unchanged, and is used once.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock, runs no hook.
    pub unsafe fn unique_set_from_raw<'s>(
        &self,
        descs: &'s mut [FolioDesc],
    ) -> UniqueSet<'_, 's, O> {
        UniqueSet::new(self, descs)
    }
}
