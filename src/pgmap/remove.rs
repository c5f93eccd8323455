//! Extents that leave: begun, waited for, taken off the list, and their memory given back.
//!
//! A removal refuses what is new in the extent, as the end of a whole pgmap does, and has come to
//! its end with the last folio. The extent can still be looked up then; [`Pgmap::detach_extent`]
//! takes it off the list, so that whoever begins to look finds nothing. Those who began before may
//! still be reading its metadata, of which they can make nothing: no word is live, and what they
//! take out of free space they give back, because they look whether the extent is dying. Hence the
//! memory comes back only by the promise that they are done, or by an exclusive borrow.

use core::fmt;

use super::extent::Extent;
use super::holder::Failure;
use super::life::{Life, StillBusy};
use super::ops::PgmapOps;
use super::owner::{Core, PgmapCore, slot_named};
use super::raw::{Detached, Pgmap};
use crate::sync::{Ordering, fence};
use crate::units::{Pfn, PfnRange};

/// Why an extent could not be removed, detached or restored; nothing changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RemoveError {
    /// No extent has this page.
    Outside {
        /// The page.
        pfn: Pfn,
    },
    /// Nobody has begun to remove the extent, so it cannot be detached or restored.
    NotDying {
        /// The extent.
        extent: PfnRange,
    },
    /// A folio of the extent is in use, so it cannot be detached.
    Busy(StillBusy),
    /// The device is gone, so the extent cannot be restored.
    Gone {
        /// The extent.
        extent: PfnRange,
    },
    /// The pgmap is being removed, so no extent of it can be restored.
    Dying,
}

impl fmt::Display for RemoveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside { pfn } => write!(f, "no extent has page {pfn}"),
            Self::NotDying { extent } => write!(f, "extent {extent} is not being removed"),
            Self::Busy(busy) => busy.fmt(f),
            Self::Gone { extent } => write!(f, "the device of extent {extent} is gone"),
            Self::Dying => f.write_str("the pgmap is being removed"),
        }
    }
}

impl core::error::Error for RemoveError {}

impl<O: PgmapOps> PgmapCore<O> {
    /// Begins to remove the extent that has `pfn`; returns how far that has come.
    ///
    /// From now on no page of the extent leads to a new reference or mapping, and nothing is
    /// allocated, claimed, revived or pinned there: allocations go to other extents, the other
    /// calls are refused. Counts that exist stay valid, as they do when a pgmap
    /// [dies](PgmapCore::kill). The removal is complete, [`Life::Drained`], as soon as no folio of
    /// the extent is left but those in quarantine; then [`Pgmap::detach_extent`] takes the extent
    /// off the list. A second call changes nothing. A [`Holder`](super::Holder) is told, once the
    /// removal has begun. Mirrors the first half of `memunmap_pages`, for one range of several.
    ///
    /// ```
    /// # use devfolio::*;
    /// # struct Ops;
    /// # impl PgmapOps for Ops { type Private = (); }
    /// # let range = PfnRange::new(Pfn::new(0), 1024)?;
    /// # let nr_lines = MetaSize::of(range, Tables::Dense).lines();
    /// # let mut lines: Vec<_> = (0..nr_lines).map(|_| MetaLine::ZERO).collect();
    /// # let slots = [const { ExtentSlot::new() }];
    /// # let mut pgmap = Pgmap::new(Ops, Policy::generic(), &slots);
    /// # pgmap.add_extent(range, ExtentAttrs::NEW, Tables::Dense, &mut lines, Attach::Zeroed)?;
    /// let folio = pgmap.alloc(Order::BLOCK)?.publish();
    /// assert_eq!(pgmap.remove_extent(range.start())?, Life::Dying);
    /// assert!(pgmap.alloc(Order::ZERO).is_err(), "nothing new");
    /// assert!(folio.try_clone().is_ok(), "what is held stays valid");
    /// drop(folio);
    /// assert_eq!(pgmap.extent_state(range.start()), Some(Life::Drained));
    /// let lent = pgmap.take_extent(range.start())?;
    /// assert_eq!(lent.meta.len(), nr_lines);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Says that no extent has the page, and changes nothing.
    ///
    /// # Context
    ///
    /// Not in an interrupt: takes the lock of this pgmap that guards its list of extents, and tells
    /// the holder without it. Runs no hook of the owner.
    pub fn remove_extent(&self, pfn: Pfn) -> Result<Life, RemoveError> {
        let attach = self.core.attach.lock();
        let extent = self.core.extent_of(pfn).ok_or(RemoveError::Outside { pfn })?;
        let is_first = extent.begin_end(&self.core);
        drop(attach);
        let life = self.removal_begun(extent);
        if !is_first {
            return Ok(life);
        }
        self.tell_holder(Failure::Leaving { extent: extent.range() });
        Ok(extent.end.life())
    }

    /// Says that the device behind an extent is gone, without notice; returns how far the removal
    /// has come.
    ///
    /// This is a removal as [`PgmapCore::remove_extent`] begins it, with three differences: the
    /// owner is told of each folio in use by [`PgmapOps::folio_gone`], once the removal has begun,
    /// and a [`Holder`](super::Holder) before it, of the extent; it cannot be called off; and
    /// [`PgmapCore::is_gone`] says from now on that the contents are out of reach. Puts, unpins and
    /// unmaps stay legal, and the metadata outlives the last one.
    ///
    /// # Errors
    ///
    /// Says that no extent has the page, and changes nothing.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::remove_extent`], but runs the hook, without a lock. Walks the extent.
    pub fn surprise_remove_extent(&self, pfn: Pfn) -> Result<Life, RemoveError> {
        let attach = self.core.attach.lock();
        let extent = self.core.extent_of(pfn).ok_or(RemoveError::Outside { pfn })?;
        let is_first = extent.end.lose();
        extent.begin_end(&self.core);
        drop(attach);
        let life = self.removal_begun(extent);
        if !is_first {
            return Ok(life);
        }
        self.tell_holder(Failure::Gone { extent: extent.range() });
        if !seeded!(GoneUntold) {
            extent.for_each_busy(|busy| {
                if let Some(folio) = busy.folio {
                    self.ops.folio_gone(folio);
                }
            });
        }
        Ok(extent.end.life())
    }

    /// Does what a removal owes that was begun, without the lock.
    fn removal_begun(&self, extent: &Extent) -> Life {
        // What is idle in magazines has to come back, and none may remember the extent.
        // ORDERING: Relaxed. A request to be obeyed at the next call.
        self.core.shortages.fetch_add(1, Ordering::Relaxed);
        // ORDERING(dying): the one half; and one of `hold`, before a holder is looked for.
        fence(Ordering::SeqCst);
        self.settle();
        extent.end.life()
    }

    /// Calls the removal of the extent that has `pfn` off: it serves as before.
    ///
    /// # Errors
    ///
    /// Says what is in the way, and changes nothing.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::remove_extent`].
    pub fn restore_extent(&self, pfn: Pfn) -> Result<(), RemoveError> {
        let attach = self.core.attach.lock();
        if self.core.is_dying() {
            return Err(RemoveError::Dying);
        }
        let extent = self.core.extent_of(pfn).ok_or(RemoveError::Outside { pfn })?;
        let range = extent.range();
        if extent.end.is_gone() {
            return Err(RemoveError::Gone { extent: range });
        }
        if !extent.end.is_dying() {
            return Err(RemoveError::NotDying { extent: range });
        }
        extent.call_off(&self.core);
        let key = extent.removal_key();
        drop(attach);
        // Whoever waits for the end waits in vain.
        self.ops.park().unpark_all(key);
        Ok(())
    }

    /// Returns how far the removal of the extent that has `pfn` has come: [`Life::Live`] if nobody
    /// began it, even if the pgmap is dying.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock.
    pub fn extent_state(&self, pfn: Pfn) -> Option<Life> {
        Some(self.core.extent_of(pfn)?.end.life())
    }

    /// Says what keeps the extent that has `pfn` from being drained; `Ok` if nothing does.
    ///
    /// # Errors
    ///
    /// Returns the first page that is in use, or says that no extent has the page.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock. Walks the extent up to that page.
    pub fn try_drain_extent(&self, pfn: Pfn) -> Result<(), RemoveError> {
        let extent = self.core.extent_of(pfn).ok_or(RemoveError::Outside { pfn })?;
        extent.first_busy().map_or(Ok(()), |busy| Err(RemoveError::Busy(busy)))
    }

    /// Calls `each_fn` with every folio that keeps the extent that has `pfn` from being drained, as
    /// [`PgmapCore::for_each_busy`] does for all of them.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::for_each_busy`].
    pub fn for_each_busy_in_extent(&self, pfn: Pfn, each_fn: impl FnMut(StillBusy)) {
        if let Some(extent) = self.core.extent_of(pfn) {
            extent.for_each_busy(each_fn);
        }
    }
}

impl<'m, O: PgmapOps> Pgmap<'m, O> {
    /// Takes a drained extent off the list: whoever looks for its pages from now on finds none.
    ///
    /// The slot and the memory stay lent until [`Detached::reclaim`]; if that is never called, they
    /// are leaked. The same range may be added again at once, with other memory. Folios in
    /// quarantine go along with the extent. Where the pgmap can be
    /// borrowed exclusively, [`Pgmap::take_extent`] does it in one step.
    ///
    /// # Errors
    ///
    /// Says what is in the way, and changes nothing.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::remove_extent`].
    pub fn detach_extent(&self, pfn: Pfn) -> Result<Detached<'_, 'm, O>, RemoveError> {
        let mut lowest = self.core().attach.lock();
        let extent = self.core().extent_of(pfn).ok_or(RemoveError::Outside { pfn })?;
        if !extent.end.is_dying() {
            return Err(RemoveError::NotDying { extent: extent.range() });
        }
        if extent.end.life() != Life::Drained && !seeded!(DetachBusy) {
            // Who sees it drained at this moment need not be the one who says so.
            let pfn = extent.range().start();
            let busy = extent.first_busy().unwrap_or(StillBusy { pfn, folio: None });
            return Err(RemoveError::Busy(busy));
        }
        let version = self.core().trie.begin();
        self.core().unlink_slot(extent.slot);
        let name = u64::from(extent.slot).wrapping_add(1);
        self.core().trie_remove(version, &mut lowest, name);
        Ok(Detached::new(self, extent.slot))
    }
}

impl Core {
    /// Takes a slot off the list; the caller holds the lock.
    fn unlink_slot(&self, slot: u16) {
        let name = u64::from(slot).wrapping_add(1);
        let slots = self.slots.get();
        let mut link = &self.first;
        // Ends: the list has no loop, since a slot is linked once.
        loop {
            let next = link.get();
            let Some(slot) = slot_named(slots, next) else { return };
            if next == name {
                // Who stands on the slot at this moment still finds its way on.
                let behind = slot.next.get();
                let behind = if seeded!(UnlinkLosesRest) { 0 } else { behind };
                return link.set(behind);
            }
            link = &slot.next;
        }
    }
}
