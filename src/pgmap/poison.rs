//! Poison: pages that are bad, and how they leave free space for good.
//!
//! An extent lists its bad pages in words of the memory that it was lent, in no order: a record is
//! one store, so that whoever frees pages reads the list without a lock, in whatever interrupt.
//! A sorted list would have to be moved under its readers; a lock could be held by the very code
//! that was interrupted. Only the calls that write the list exclude each other.
//!
//! One word beside the list has a bit for each region, taken modulo 64. What is freed in an extent
//! without bad pages pays for one look at it before, and one behind, the fence that every free
//! has; what is freed in a healthy region reads no list. Behind the fence, because a page may be
//! recorded at that very moment: who records looks at the page, who frees looks at the list, and
//! one of them finds it.
//!
//! A bad page in quarantine has a word like a folio of order 0, of a kind of its own. It takes the
//! fracture table of its block; where the pool has none left, the whole block goes along.

use core::fmt;

use spin::Mutex;

use super::extent::Extent;
use super::info::FolioInfo;
use super::ops::PgmapOps;
use super::owner::PgmapCore;
use crate::meta::word::Kind;
use crate::sync::{AtomicU64, Ordering, fence, spin_loop};
use crate::units::{Order, Pfn, PfnRange};
use crate::zone::{After, CheckError, Index, Miss};

/// How often something is tried that others are in the way of.
const RETRIES: usize = 64;

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

/// What an extent knows of its bad pages beside their list.
#[derive(Debug)]
pub(crate) struct Poison {
    /// Held while the list is written.
    lock: Mutex<()>,
    /// A bit for each region with a bad page, modulo 64.
    regions: AtomicU64,
    /// Whether a page could not be taken out of free space yet.
    pending: AtomicU64,
}

impl Poison {
    pub(super) fn new() -> Self {
        Self { lock: Mutex::new(()), regions: AtomicU64::new(0), pending: AtomicU64::new(0) }
    }

    /// Takes the lock, unless it is held for long: perhaps by whom this code interrupted.
    fn try_lock(&self) -> Option<spin::MutexGuard<'_, ()>> {
        // Ends: after so many attempts.
        for _ in 0..RETRIES {
            if let Some(guard) = self.lock.try_lock() {
                return Some(guard);
            }
            spin_loop();
        }
        None
    }
}

/// What became of an attempt to take a page out of free space.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Isolation {
    Done,
    /// The page is not free.
    Busy,
    Contended,
}

const fn region_bit(pfn: Pfn) -> u64 {
    1 << ((pfn.as_u64() >> Order::REGION.as_u8()) & 63)
}

// The list: a word is zero, or one more than the page's offset in its extent.
impl Extent {
    /// Returns whether a page of the region of `pfn`, or of one that shares its bit, is bad.
    pub(super) fn may_be_poisoned(&self, pfn: Pfn) -> bool {
        // ORDERING: Relaxed. What was poisoned before is known by whatever told the caller so;
        // what is poisoned at this moment is found behind the fence of the free.
        self.poison.regions.load(Ordering::Relaxed) & region_bit(pfn) != 0
    }

    /// Returns whether a page of a folio that was just taken is bad.
    ///
    /// The caller has passed a fence since: a page that `poison` found neither free nor its own is
    /// free only after it was recorded, and so is whatever is taken then.
    #[inline]
    pub(super) fn holds_poison(&self, head: Pfn, order: Order) -> bool {
        self.has_poison() && !seeded!(AllocMissesPoison) && self.has_poison_in(head, order)
    }

    #[cold]
    #[inline(never)]
    fn has_poison_in(&self, head: Pfn, order: Order) -> bool {
        if seeded!(PoisonFreed) {
            // What a free hands back would be taken back for ever.
            return false;
        }
        let range = PfnRange::folio(head, order).filter(|_| self.may_be_poisoned(head));
        range.is_some_and(|range| self.first_poisoned(range).is_some())
    }

    /// Returns whether any page is bad.
    #[inline]
    pub(super) fn has_poison(&self) -> bool {
        // ORDERING: Relaxed. As above; magazines learn of later ones by the count of shortages.
        self.poison.regions.load(Ordering::Relaxed) != 0
    }

    /// Empties the list of a new extent.
    pub(super) fn clear_poison(&self, is_trusted: bool) {
        if !is_trusted {
            // ORDERING: Relaxed. The extent is published later, as a whole.
            self.meta.poison_words().for_each(|word| word.store(0, Ordering::Relaxed));
        }
    }

    /// Returns the page that a word of the list names.
    fn named(&self, word: &AtomicU64) -> Option<Pfn> {
        // ORDERING: Relaxed. One word says all; the fences of the edge `poison` are the callers'.
        let offset = word.load(Ordering::Relaxed).checked_sub(1)?;
        let pfn = self.range().start().checked_add(offset)?;
        (pfn <= self.range().last()).then_some(pfn)
    }

    /// Returns the first page of `range` that is known to be bad.
    fn first_poisoned(&self, range: PfnRange) -> Option<Pfn> {
        let pages = self.meta.poison_words().filter_map(|word| self.named(word));
        pages.filter(|&pfn| range.contains(pfn)).min()
    }

    /// Returns what is kept beside the list.
    #[cfg(feature = "model")]
    pub(super) const fn poison_state(&self) -> [&AtomicU64; 2] {
        [&self.poison.regions, &self.poison.pending]
    }

    fn is_poisoned(&self, pfn: Pfn) -> bool {
        PfnRange::folio(pfn, Order::ZERO).is_some_and(|page| self.first_poisoned(page).is_some())
    }

    pub(super) fn nr_poisoned(&self) -> u64 {
        self.meta.poison_words().filter(|word| self.named(word).is_some()).count() as u64
    }

    /// Records a page; the caller holds the lock. Fails if there is no room.
    fn record(&self, pfn: Pfn) -> Result<(), PoisonError> {
        // ORDERING: Relaxed. The list is written by the holder of the lock alone.
        let is_empty = |word: &&AtomicU64| word.load(Ordering::Relaxed) == 0;
        let Some(word) = self.meta.poison_words().find(is_empty) else {
            return Err(PoisonError::NoRoom { pfn, max: self.meta.poison_words().count() });
        };
        let offset = pfn.offset_from(self.range().start()).unwrap_or(0);
        // ORDERING(poison): Relaxed, in front of the caller's fence.
        word.store(offset.wrapping_add(1), Ordering::Relaxed);
        // ORDERING(poison): Relaxed, as above.
        self.poison.regions.fetch_or(region_bit(pfn), Ordering::Relaxed);
        Ok(())
    }

    /// Takes a page off the list; the caller holds the lock.
    fn erase(&self, pfn: Pfn) {
        let words = self.meta.poison_words().filter(|word| self.named(word) == Some(pfn));
        // ORDERING(poison): Relaxed, in front of the caller's fence.
        words.for_each(|word| word.store(0, Ordering::Relaxed));
        self.refresh_poison();
    }

    /// Says which regions have bad pages; the caller is the only one who writes the list.
    pub(super) fn refresh_poison(&self) {
        let pages = self.meta.poison_words().filter_map(|word| self.named(word));
        let regions = pages.fold(0, |bits, pfn| bits | region_bit(pfn));
        // ORDERING: Relaxed. A bit goes when the last page of its regions is repaired, and who
        // sees it longer reads the list in vain.
        self.poison.regions.store(regions, Ordering::Relaxed);
    }

    /// Returns the pages that go into quarantine for a bad one; the caller holds its block alone,
    /// or a table is there.
    fn quarantine_of(&self, pfn: Pfn) -> (Pfn, Order) {
        let block = self.meta.geometry().block_of(pfn);
        if self.meta.table_of(block).is_some() || self.meta.assign_table(block).is_some() {
            (pfn, Order::ZERO)
        } else {
            (pfn.head(Order::BLOCK), Order::BLOCK)
        }
    }

    /// Puts pages into quarantine that the caller holds alone.
    fn quarantine(&self, head: Pfn, order: Order) {
        if let Some(word) = self.word(head, order) {
            word.begin(order);
            word.park(Kind::Poisoned);
        }
        // ORDERING(poison, dying): the pages are parked before the list and the flag are read.
        fence(Ordering::SeqCst);
    }
}

impl<O: PgmapOps> PgmapCore<O> {
    /// Records that a page is bad, whatever has it, and takes it out of free space.
    ///
    /// A page that is free leaves free space at once, and its neighbours stay. One that is part of
    /// a folio is recorded: the folio lives on, with all its counts, and when it goes back to free
    /// space, the page does not. From then on it is in quarantine, [`FolioKind::Poisoned`], until
    /// [`unpoison`](PgmapCore::unpoison), and no allocation finds it. It does not keep a dying
    /// pgmap from being drained.
    ///
    /// The owner is told by [`PgmapOps::page_poisoned`], once for each page. A second call changes
    /// nothing. Where the block of the page would have to be fractured and the pool of tables is
    /// empty, the whole block goes into quarantine. Magazines hold nothing of an extent with bad
    /// pages. Mirrors `memory_failure` of Linux.
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
        let guard = extent.poison.try_lock().ok_or(PoisonError::Contended { pfn })?;
        if extent.is_poisoned(pfn) {
            if seeded!(PoisonToldTwice) {
                self.ops.page_poisoned(pfn, None);
            }
            return Ok(Poisoned::Known);
        }
        let early = seeded!(PoisonLooksFirst).then(|| self.isolate(extent, pfn));
        let head = extent.find(pfn).map_or(pfn, |found| found.head);
        extent.record(if seeded!(PoisonMarksHead) { head } else { pfn })?;
        // ORDERING(poison): the page is recorded before it is looked at.
        fence(Ordering::SeqCst);
        let isolation = match early {
            Some(isolation) => isolation,
            None if seeded!(PoisonFreeIgnored) => Isolation::Busy,
            None => self.isolate(extent, pfn),
        };
        let folio = match isolation {
            Isolation::Done => None,
            Isolation::Busy => extent.find(pfn).map(|found| FolioInfo::new(found.head, found.bits)),
            Isolation::Contended => {
                self.retract(extent, pfn);
                return Err(PoisonError::Contended { pfn });
            }
        };
        drop(guard);
        let is_quarantined = isolation == Isolation::Done
            || folio.is_some_and(|folio| folio.kind == super::FolioKind::Poisoned);
        let folio = folio.filter(|_| !is_quarantined);
        if !is_quarantined {
            // The page may be idle in a magazine.
            // ORDERING: Relaxed. A request to be obeyed some time.
            self.core.shortages.fetch_add(1, Ordering::Relaxed);
        }
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
        let _guard = extent.poison.try_lock().ok_or(UnpoisonError::Contended { pfn })?;
        if !extent.is_poisoned(pfn) {
            return Err(UnpoisonError::NotPoisoned { pfn });
        }
        self.retract(extent, pfn);
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
        extent.erase(pfn);
        // ORDERING(poison): the page is off the list before its word is looked at.
        fence(Ordering::SeqCst);
        if !seeded!(UnpoisonForgets) && self.lift(extent, pfn) {
            // What is still bad in a block that was free for a moment goes back.
            let block = PfnRange::folio(pfn.head(Order::BLOCK), Order::BLOCK);
            let block = block.and_then(|block| block.intersection(extent.range()));
            self.settle_poison(extent, block.unwrap_or(extent.range()));
        }
    }

    /// Ends the quarantine of a page, if it is in one and nothing in there is bad any more.
    fn lift(&self, extent: &Extent, pfn: Pfn) -> bool {
        let Some(found) = extent.find(pfn).filter(|found| found.bits.kind() == Kind::Poisoned)
        else {
            return false;
        };
        let pages = PfnRange::folio(found.head, found.bits.order());
        if pages.is_none_or(|pages| extent.first_poisoned(pages).is_some()) {
            return false;
        }
        let Ok(order) = found.word.claim(Kind::Poisoned) else { return false };
        found.word.end();
        Index::free_in(&extent.meta, found.head, order, After::Dirty);
        self.after_release();
        true
    }

    /// Takes a bad page out of free space, if it is there.
    fn isolate(&self, extent: &Extent, pfn: Pfn) -> Isolation {
        let mut isolation = Isolation::Contended;
        // Ends: after so many attempts.
        for _ in 0..RETRIES {
            let block = pfn.head(Order::BLOCK);
            match extent.index().claim_at(pfn, Order::ZERO) {
                Ok(_) => {
                    extent.quarantine(pfn, Order::ZERO);
                    isolation = Isolation::Done;
                    break;
                }
                Err(Miss::Exhausted) => {
                    isolation = Isolation::Busy;
                    break;
                }
                Err(Miss::NoTables) if extent.index().claim_at(block, Order::BLOCK).is_ok() => {
                    extent.quarantine(block, Order::BLOCK);
                    isolation = Isolation::Done;
                    break;
                }
                Err(Miss::NoTables | Miss::Contended | Miss::Fracture) => spin_loop(),
            }
        }
        // What is parked is behind a fence; and as for a search that fails, there may have been
        // a release that saw the page in our hands.
        self.after_release();
        isolation
    }

    /// Takes the bad pages of a folio out of free space: the caller freed it just now.
    #[cold]
    #[inline(never)]
    pub(super) fn settle_freed(&self, extent: &Extent, head: Pfn, order: Order) {
        let suspect = PfnRange::folio(head, order).filter(|_| extent.may_be_poisoned(head));
        if let Some(range) = suspect {
            self.settle_poison(extent, range);
        }
    }

    /// Takes the bad pages of `range` out of free space.
    fn settle_poison(&self, extent: &Extent, range: PfnRange) {
        // ORDERING: Relaxed. A request to be obeyed some time.
        let is_pending = extent.poison.pending.load(Ordering::Relaxed) != 0;
        if is_pending {
            // ORDERING: Relaxed. As above; it is made again where it cannot be obeyed.
            extent.poison.pending.store(0, Ordering::Relaxed);
        }
        let range = if is_pending { extent.range() } else { range };
        let mut is_settled = false;
        // Ends: a turn is repeated only when a page was repaired that had just been isolated.
        while !is_settled {
            is_settled = true;
            for pfn in extent.poisoned(range) {
                match self.isolate(extent, pfn) {
                    Isolation::Done if !seeded!(QuarantineLooksOnce) => {
                        is_settled &= !self.lift(extent, pfn);
                    }
                    Isolation::Done | Isolation::Busy => {}
                    Isolation::Contended => {
                        // ORDERING: Relaxed. As above.
                        extent.poison.pending.store(1, Ordering::Relaxed);
                    }
                }
            }
        }
    }

    /// Gives the pages of a folio back but for the bad ones.
    #[cold]
    #[inline(never)]
    pub(super) fn dissolve_around(&self, extent: &Extent, head: Pfn, order: Order, after: After) {
        let range = PfnRange::folio(head, order).and_then(|it| it.intersection(extent.range()));
        let place = extent.word(head, order).zip(range);
        let Some((word, range)) = place else {
            debug_intact!(false, "a folio without a word at {head}");
            return;
        };
        word.end();
        if order == Order::REGION {
            // All of it is held alone.
            extent.meta.init_region(extent.meta.geometry().region_of(head));
        }
        let mut next = Some(range.start());
        // Ends: `next` grows on every turn, up to the end of the folio.
        while let Some(from) = next {
            let rest = PfnRange::between(from, range.last());
            let suspect = rest.filter(|_| extent.may_be_poisoned(head));
            let bad = suspect.and_then(|rest| extent.first_poisoned(rest));
            let bad = bad.filter(|_| !seeded!(PoisonFreed)).map(|pfn| extent.quarantine_of(pfn));
            let healthy = match bad {
                None => rest,
                Some((head, _)) if head <= from => None,
                Some((head, _)) => {
                    head.checked_sub(1).and_then(|last| PfnRange::between(from, last))
                }
            };
            for (head, order) in healthy.into_iter().flat_map(PfnRange::tiles) {
                Index::free_in(&extent.meta, head, order, after);
            }
            next = None;
            if let Some((head, order)) = bad {
                extent.quarantine(head, order);
                if !seeded!(QuarantineLooksOnce) {
                    self.lift(extent, head);
                }
                let end = head.checked_add(order.nr_pages());
                next = end.filter(|&end| end <= range.last() && !seeded!(PoisonRestLost));
            }
        }
        if !seeded!(PoisonFreed) {
            self.settle_freed(extent, head, order);
        }
        self.after_release();
    }

    /// Checks that what is listed is bad is not free, and the other way round.
    pub(super) fn check_poison(&self) -> Result<(), CheckError> {
        for extent in self.core.extents() {
            let words = || extent.meta.poison_words();
            for word in words() {
                // ORDERING: Relaxed. Checked at rest.
                let raw = word.load(Ordering::Relaxed);
                let Some(pfn) = extent.named(word) else {
                    let pfn = Pfn::new(raw);
                    if raw != 0 {
                        return Err(CheckError::BadPoison { pfn });
                    }
                    continue;
                };
                let nr_records = words().filter(|word| extent.named(word) == Some(pfn)).count();
                let is_free = extent.index().chunk(pfn).is_free;
                if is_free || nr_records != 1 || !extent.may_be_poisoned(pfn) {
                    return Err(CheckError::BadPoison { pfn });
                }
            }
        }
        let mut bad = None;
        self.core.for_each_folio(|folio| {
            let pages = PfnRange::folio(folio.head, folio.order);
            let extent = self.core.extent_of(folio.head);
            let is_bad = |pages| extent.is_some_and(|it| it.first_poisoned(pages).is_some());
            if folio.kind == super::FolioKind::Poisoned && !pages.is_some_and(is_bad) {
                bad = bad.or(Some(folio.head));
            }
        });
        bad.map_or(Ok(()), |pfn| Err(CheckError::BadPoison { pfn }))
    }
}

impl Extent {
    /// Yields the pages of `range` that are known to be bad, ascending.
    fn poisoned(&self, range: PfnRange) -> impl Iterator<Item = Pfn> + '_ {
        let mut next = Some(range.start());
        core::iter::from_fn(move || {
            let pfn = self.first_poisoned(PfnRange::between(next?, range.last())?)?;
            next = pfn.checked_add(1);
            Some(pfn)
        })
    }
}
