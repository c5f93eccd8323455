//! Poison: pages that are bad, and how they leave free space for good.
//!
//! A bad page is an entry in the list of its extent; `withheld` says how the list is read and what
//! becomes of the pages.

use core::fmt;

use super::extent::Extent;
use super::holder::Failure;
use super::info::{FolioInfo, FolioKind};
use super::ops::PgmapOps;
use super::owner::PgmapCore;
use super::withheld::{Entry, Isolation, Tile};
use crate::meta::word::Kind;
use crate::sync::{Ordering, fence};
use crate::units::{Order, Pfn, PfnRange};
use crate::zone::After;

/// What [`PgmapCore::poison`] did with a page.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Poisoned {
    /// The page was known to be bad; nothing changed, and nobody was told.
    Known,
    /// The page was free and is in quarantine.
    Quarantined,
    /// The page is in use; it goes into quarantine when its folio goes back to free space.
    InUse {
        /// The folio that has it, stale by now; `None` if the page was on its way.
        folio: Option<FolioInfo>,
    },
}

/// Why a page could not be poisoned; nothing changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum PoisonError {
    /// No extent has this page.
    Outside {
        /// The page.
        pfn: Pfn,
    },
    /// The list of the extent is full.
    NoRoom {
        /// The page.
        pfn: Pfn,
        /// The bad pages that the list can hold; [`MetaSize::poison`](crate::MetaSize::poison) asks
        /// for more.
        max: usize,
    },
    /// Others kept moving the page about, or held the list; worth another attempt.
    Contended {
        /// The page.
        pfn: Pfn,
    },
}

impl fmt::Display for PoisonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside { pfn } => write!(f, "no extent has page {pfn}"),
            Self::NoRoom { pfn, max } => {
                write!(f, "no room for page {pfn} in a list of {max} bad pages")
            }
            Self::Contended { pfn } => write!(f, "too much contention for page {pfn}"),
        }
    }
}

impl core::error::Error for PoisonError {}

/// Why a page could not be repaired; nothing changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum UnpoisonError {
    /// No extent has this page.
    Outside {
        /// The page.
        pfn: Pfn,
    },
    /// The page is not known to be bad.
    NotPoisoned {
        /// The page.
        pfn: Pfn,
    },
    /// Others held the list; worth another attempt.
    Contended {
        /// The page.
        pfn: Pfn,
    },
}

impl fmt::Display for UnpoisonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside { pfn } => write!(f, "no extent has page {pfn}"),
            Self::NotPoisoned { pfn } => write!(f, "page {pfn} is not known to be bad"),
            Self::Contended { pfn } => write!(f, "too much contention for page {pfn}"),
        }
    }
}

impl core::error::Error for UnpoisonError {}

impl<O: PgmapOps> PgmapCore<O> {
    /// Records that a page is bad, whatever has it, and takes it out of free space.
    ///
    /// A page that is free leaves free space at once, and its neighbours stay. One that is part of
    /// a folio is recorded: the folio lives on, with all its counts, and when it goes back to free
    /// space, the page does not. From then on it is in quarantine, [`FolioKind::Poisoned`], until
    /// [`unpoison`](PgmapCore::unpoison), and no allocation finds it. It does not keep a dying
    /// pgmap from being drained.
    ///
    /// The owner is told by [`PgmapOps::page_poisoned`], once for each page, and a
    /// [`Holder`](super::Holder) before it. A second call changes nothing. Where the block of the
    /// page would have to be fractured and the pool of tables is empty, the whole block goes into
    /// quarantine. Magazines hold nothing of an extent with bad pages. Mirrors `memory_failure` of
    /// Linux.
    ///
    /// [`FolioKind::Poisoned`]: super::FolioKind::Poisoned
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
    /// # pgmap.add_extent(range, ExtentAttrs::NEW, Tables::Dense, &mut lines, Attach::Zeroed)?;
    /// let block = pgmap.alloc(Order::BLOCK)?.publish();
    /// pgmap.poison(Pfn::new(7))?;
    /// drop(block);
    /// assert_eq!(pgmap.stats().free_pages, 1023);
    /// assert!(pgmap.claim(Pfn::new(7), Order::ZERO).is_err());
    /// assert!(pgmap.poisoned().eq([Pfn::new(7)]));
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Says what is in the way, and changes nothing.
    ///
    /// # Context
    ///
    /// Anywhere where the owner's hook may run; takes the lock of the extent's list for a bounded
    /// time, and says [`PoisonError::Contended`] if somebody holds it, this CPU included.
    pub fn poison(&self, pfn: Pfn) -> Result<Poisoned, PoisonError> {
        let extent = self.core.extent_of(pfn).ok_or(PoisonError::Outside { pfn })?;
        let guard = extent.withheld.try_lock().ok_or(PoisonError::Contended { pfn })?;
        if extent.is_poisoned(pfn) {
            if seeded!(PoisonToldTwice) {
                self.ops.page_poisoned(pfn, None);
            }
            return Ok(Poisoned::Known);
        }
        let tile = Tile { head: pfn, order: Order::ZERO, kind: Kind::Poisoned };
        let early = seeded!(PoisonLooksFirst).then(|| self.isolate(extent, tile));
        let head = extent.find(pfn).map_or(pfn, |found| found.head);
        let marked = if seeded!(PoisonMarksHead) { head } else { pfn };
        if !extent.record(Entry::bad(marked)) {
            return Err(PoisonError::NoRoom { pfn, max: extent.room().0 });
        }
        // ORDERING(poison): the page is recorded before it is looked at; and before a holder is
        // looked for (`hold`).
        fence(Ordering::SeqCst);
        let isolation = match early {
            Some(isolation) => isolation,
            None if seeded!(PoisonFreeIgnored) => Isolation::Busy,
            None => self.isolate(extent, tile),
        };
        let folio = match isolation {
            Isolation::Done(_) => None,
            Isolation::Busy => extent.find(pfn).map(|found| FolioInfo::new(found.head, found.bits)),
            Isolation::Contended => {
                self.retract(extent, pfn);
                drop(guard);
                self.after_release();
                self.say_if_offline(extent);
                return Err(PoisonError::Contended { pfn });
            }
        };
        drop(guard);
        self.after_release();
        let is_parked = |kind| matches!(kind, FolioKind::Poisoned | FolioKind::Offline);
        let is_quarantined = matches!(isolation, Isolation::Done(_))
            || folio.is_some_and(|folio| is_parked(folio.kind));
        let folio = folio.filter(|_| !is_quarantined);
        if !is_quarantined {
            // The page may be idle in a magazine.
            // ORDERING: Relaxed. A request to be obeyed some time.
            self.core.shortages.fetch_add(1, Ordering::Relaxed);
        }
        self.tell_holder(Failure::Poisoned { pfn, folio });
        self.ops.page_poisoned(pfn, folio);
        Ok(if is_quarantined { Poisoned::Quarantined } else { Poisoned::InUse { folio } })
    }

    /// Forgets that a page is bad; if it is in quarantine, it is free from now on.
    ///
    /// A block that is in quarantine as a whole stays there as long as another of its pages is bad.
    /// Mirrors `unpoison_memory` of Linux.
    ///
    /// # Errors
    ///
    /// Says what is in the way, and changes nothing.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::poison`], but runs no hook.
    pub fn unpoison(&self, pfn: Pfn) -> Result<(), UnpoisonError> {
        let extent = self.core.extent_of(pfn).ok_or(UnpoisonError::Outside { pfn })?;
        let guard = extent.withheld.try_lock().ok_or(UnpoisonError::Contended { pfn })?;
        if !extent.is_poisoned(pfn) {
            return Err(UnpoisonError::NotPoisoned { pfn });
        }
        self.retract(extent, pfn);
        drop(guard);
        self.after_release();
        // It may be offline from now on.
        self.say_if_offline(extent);
        Ok(())
    }

    /// Yields the pages that are known to be bad, in ascending order within each extent.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock. Each step reads the list of an extent.
    pub fn poisoned(&self) -> impl Iterator<Item = Pfn> + '_ {
        self.core.extents().flat_map(|extent| extent.poisoned(extent.range()))
    }

    /// Takes a page off the list, and out of quarantine; the caller holds the lock.
    fn retract(&self, extent: &Extent, pfn: Pfn) {
        extent.erase(Entry::bad(pfn));
        // ORDERING(poison): the page is off the list before its word is looked at.
        fence(Ordering::SeqCst);
        let found = extent.find(pfn).filter(|found| found.bits.kind() == Kind::Poisoned);
        let Some(found) = found.filter(|_| !seeded!(UnpoisonForgets)) else { return };
        let tile = Tile { head: found.head, order: found.bits.order(), kind: Kind::Poisoned };
        // A block that went along stays as long as another of its pages is bad.
        let pages = tile.pages();
        let pages = pages.filter(|&pages| extent.first_of(Kind::Poisoned, pages).is_none());
        if let Some(pages) = pages.filter(|_| extent.retake(tile)) {
            self.distribute(extent, pages, After::Dirty);
        }
    }
}

impl Entry {
    /// Returns the entry of a bad page.
    pub(super) const fn bad(pfn: Pfn) -> Self {
        let pages = PfnRange::block(pfn, Order::ZERO);
        Self { pages, kind: Kind::Poisoned, is_gone: false }
    }
}

impl Extent {
    /// Returns whether a page of a folio is bad.
    pub(super) fn has_bad_of(&self, head: Pfn, order: Order) -> bool {
        let pages = PfnRange::folio(head, order).filter(|_| self.withholds_any());
        pages.is_some_and(|pages| self.first_of(Kind::Poisoned, pages).is_some())
    }

    pub(super) fn is_poisoned(&self, pfn: Pfn) -> bool {
        self.first_of(Kind::Poisoned, Entry::bad(pfn).pages).is_some()
    }

    pub(super) fn nr_poisoned(&self) -> u64 {
        self.entries().filter(|entry| entry.kind == Kind::Poisoned).count() as u64
    }
}
