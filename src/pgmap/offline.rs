//! Pages that go back to the device while the rest of their extent stays.
//!
//! What is to be offline is a run of pages in the list of its extent; `withheld` says how the list
//! is read. Free pages leave at once, and each other page as soon as it would be free: whoever
//! frees it finds it on the list. So no page leaves twice and none is handed out on its way, and
//! no bit beside the counts says so.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll};

use spin::MutexGuard;

use super::extent::Extent;
use super::info::FolioInfo;
use super::life::{Life, StillBusy};
use super::ops::PgmapOps;
use super::owner::PgmapCore;
use super::wait::DrainError;
use super::withheld::{Entry, Tile, is_withheld};
use crate::meta::word::Kind;
use crate::sync::{Ordering, ParkKey, fence, spin_loop};
use crate::units::{Pfn, PfnRange};
use crate::zone::After;

/// Why pages could not be given back; nothing changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum OfflineError {
    /// No single extent has all the pages.
    Outside {
        /// The pages.
        range: PfnRange,
    },
    /// The list of the extent has no room for them.
    NoRoom {
        /// The pages.
        range: PfnRange,
        /// The entries that it takes.
        needed: usize,
        /// The entries that are left; [`MetaSize::poison`](crate::MetaSize::poison) asks for more.
        left: usize,
    },
    /// Others held the list; worth another attempt.
    Contended {
        /// The pages.
        range: PfnRange,
    },
}

impl fmt::Display for OfflineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside { range } => write!(f, "no extent has all of {range}"),
            Self::NoRoom { range, needed, left } => {
                write!(f, "{range} takes {needed} entries of a list with room for {left}")
            }
            Self::Contended { range } => write!(f, "too much contention for {range}"),
        }
    }
}

impl core::error::Error for OfflineError {}

/// Why pages could not be taken back from the device; nothing changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum OnlineError {
    /// No single extent has all the pages.
    Outside {
        /// The pages.
        range: PfnRange,
    },
    /// A page is not offline, nor was to be.
    NotOffline {
        /// The first one.
        pfn: Pfn,
    },
    /// The list of the extent has no room for what stays offline on either side.
    NoRoom {
        /// The pages.
        range: PfnRange,
        /// The entries that it takes.
        needed: usize,
        /// The entries that are left.
        left: usize,
    },
    /// Others held the list; worth another attempt.
    Contended {
        /// The pages.
        range: PfnRange,
    },
}

impl fmt::Display for OnlineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside { range } => write!(f, "no extent has all of {range}"),
            Self::NotOffline { pfn } => write!(f, "page {pfn} is not offline"),
            Self::NoRoom { range, needed, left } => {
                write!(f, "around {range} {needed} entries stay of a list with room for {left}")
            }
            Self::Contended { range } => write!(f, "too much contention for {range}"),
        }
    }
}

impl core::error::Error for OnlineError {}

impl<O: PgmapOps> PgmapCore<O> {
    /// Gives pages back to the device while the rest of their extent stays; returns how far that
    /// has come.
    ///
    /// Free pages of `range` leave free space at once. Those in use go on as before, with all their
    /// counts, and leave when they would be free; none is handed out again in between. The state is
    /// [`Life::Drained`] as soon as no folio has any of the pages but for [`FolioKind::Offline`]
    /// and [`FolioKind::Poisoned`], and stays so until [`PgmapCore::online`] takes pages back,
    /// which may also be called while some are in use. A folio that was retired is in use: it is
    /// its owner who has to release it. The pages keep their numbers, and stay part of the extent.
    ///
    /// A second call changes nothing. Where a block would have to be fractured and the pool of
    /// tables is empty, the whole block leaves with its part. Takes an entry of the list of the
    /// extent for each power of two in the number of pages: one for a whole GiB. Mirrors
    /// `offline_pages` of Linux, which moves what is in use or fails.
    ///
    /// [`FolioKind::Offline`]: super::FolioKind::Offline
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
    /// let folio = pgmap.claim(Pfn::new(256), Order::ZERO)?.publish();
    /// let upper = PfnRange::new(Pfn::new(200), 824)?;
    /// assert_eq!(pgmap.offline(upper)?, Life::Dying);
    /// assert_eq!(pgmap.stats().free_pages, 200);
    /// drop(folio);
    /// assert_eq!(pgmap.offline_state(upper), Some(Life::Drained));
    /// assert_eq!(pgmap.stats().free_pages, 200);
    /// pgmap.online(upper)?;
    /// assert_eq!(pgmap.stats().free_pages, 1024);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Says what is in the way, and changes nothing.
    ///
    /// # Context
    ///
    /// Anywhere; takes the lock of the extent's list for a time that is bounded by the folios of
    /// `range`, and says [`OfflineError::Contended`] if somebody holds it, this CPU included. Runs
    /// no hook.
    pub fn offline(&self, range: PfnRange) -> Result<Life, OfflineError> {
        let outside = OfflineError::Outside { range };
        let extent = self.core().extent_with(range).ok_or(outside)?;
        let guard = extent.withheld.try_lock().ok_or(OfflineError::Contended { range })?;
        let needed = extent.online_runs(range).flat_map(chunks).count();
        let (_, left) = extent.room();
        if left < needed && !seeded!(OfflineUncounted) {
            return Err(OfflineError::NoRoom { range, needed, left });
        }
        extent.list(range, Entry::is_offline, Entry::offline);
        self.leave_free_space(extent, range, guard);
        Ok(extent.offline_life(range).unwrap_or(Life::Dying))
    }

    /// Takes pages that were recorded out of free space, as far as they are there; ends the writing
    /// of the list.
    pub(super) fn leave_free_space(
        &self,
        extent: &Extent,
        range: PfnRange,
        guard: MutexGuard<'_, ()>,
    ) {
        // ORDERING(poison): the pages are recorded before they are looked at.
        fence(Ordering::SeqCst);
        if !seeded!(OfflineFreeIgnored) {
            self.settle_withheld(extent, range);
        }
        drop(guard);
        // Some of the pages may be idle in a magazine.
        // ORDERING: Relaxed. A request to be obeyed some time.
        self.core().shortages.fetch_add(1, Ordering::Relaxed);
        self.after_release();
        self.say_offline(extent);
    }

    /// Takes pages back from the device: those that are offline are free from now on, those that
    /// were to be stay in use and will be.
    ///
    /// Mirrors `online_pages` of Linux, and the undoing of an isolation.
    ///
    /// # Errors
    ///
    /// Says what is in the way, and changes nothing.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::offline`].
    pub fn online(&self, range: PfnRange) -> Result<(), OnlineError> {
        let outside = OnlineError::Outside { range };
        let extent = self.core().extent_with(range).ok_or(outside)?;
        let guard = extent.withheld.try_lock().ok_or(OnlineError::Contended { range })?;
        if let Some(run) = extent.online_runs(range).next() {
            return Err(OnlineError::NotOffline { pfn: run.start() });
        }
        let needed = extent.entries().flat_map(|entry| around(entry, range)).count();
        let (_, left) = extent.room();
        if left < needed {
            return Err(OnlineError::NoRoom { range, needed, left });
        }
        // What stays is recorded before what goes is erased. Somebody who reads the list at this
        // moment may still miss it; what is freed so is found behind the fence.
        let met = extent.unlist(range, Entry::is_offline);
        // ORDERING(poison): the pages are off the list before their words are looked at.
        fence(Ordering::SeqCst);
        if !seeded!(OnlineForgets) {
            self.lift_offline(extent, range);
        }
        self.settle_withheld(extent, met);
        drop(guard);
        self.after_release();
        // Whoever waits for them to be offline waits in vain.
        self.say_offline(extent);
        Ok(())
    }

    /// Frees those pages of `range` that are parked as offline and are not to be any more.
    fn lift_offline(&self, extent: &Extent, range: PfnRange) {
        for found in extent.folios_in(range) {
            let tile = Tile { head: found.head, order: found.bits.order(), kind: Kind::Offline };
            let is_offline = found.bits.kind() == Kind::Offline;
            // Where somebody else retakes it, that is behind our fence, and the list is read anew.
            if let Some(pages) = tile.pages().filter(|_| is_offline && extent.retake(tile)) {
                self.distribute(extent, pages, After::Dirty);
            }
        }
    }

    /// Returns how far pages have come that are to be offline: [`Life::Live`] if one of them is
    /// not to be, [`Life::Dying`] while a folio has one, or while others change the list,
    /// [`Life::Drained`] once all have left; `None` if no single extent has them all.
    ///
    /// # Context
    ///
    /// Anywhere; takes the lock of the extent's list for a moment, if a page seems not to be.
    /// Walks the range.
    pub fn offline_state(&self, range: PfnRange) -> Option<Life> {
        Some(self.core().extent_with(range)?.offline_life(range).unwrap_or(Life::Dying))
    }

    /// Calls `each_fn` with every folio in use of which `range` has pages: what keeps them from
    /// being offline, in ascending order.
    ///
    /// Unlike [`PgmapCore::for_each_busy`] it also names folios that are retired. Does nothing if
    /// no single extent has the pages.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::for_each_busy`].
    pub fn for_each_busy_in(&self, range: PfnRange, mut each_fn: impl FnMut(StillBusy)) {
        let Some(extent) = self.core().extent_with(range) else { return };
        let mut rest = Some(range);
        // Ends: `rest` begins behind the folio that was found.
        while let Some(busy) = rest.and_then(|rest| extent.first_in_use(rest, Free::Passed)) {
            let next = match busy.folio {
                Some(folio) => folio.head.checked_add(folio.order.nr_pages()),
                None => busy.pfn.checked_add(1),
            };
            if busy.folio.is_some() {
                each_fn(busy);
            }
            rest = next.and_then(|next| PfnRange::between(next, range.last()));
        }
    }

    /// Waits until the pages that [`PgmapCore::offline`] was called with have left.
    ///
    /// # Errors
    ///
    /// Says that nobody gives them back, or that it was called off, or that there are no such
    /// pages.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::wait_drained`], for the counts of the pages.
    pub fn wait_offline(&self, range: PfnRange) -> Result<(), DrainError> {
        self.wait_range(range, None)
    }

    /// Waits until the pages that [`PgmapCore::offline`] was called with have left, but not beyond
    /// `deadline`, a time of [`Park::now`](crate::Park::now). Looks at least once.
    ///
    /// # Errors
    ///
    /// As for [`PgmapCore::wait_offline`]; at the deadline it names the first page that is in use,
    /// and [`for_each_busy_in`](PgmapCore::for_each_busy_in) names them all.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::wait_drained_until`].
    pub fn wait_offline_until(&self, range: PfnRange, deadline: u64) -> Result<(), DrainError> {
        self.wait_range(range, Some(deadline))
    }

    /// Returns a future that is ready when the pages that [`PgmapCore::offline`] was called with
    /// have left: [`PgmapCore::wait_offline`] for those who do not sleep.
    ///
    /// # Errors
    ///
    /// Says that there are no such pages.
    ///
    /// # Context
    ///
    /// As for [`PgmapCore::drained`].
    pub fn offline_drained(&self, range: PfnRange) -> Result<OfflineDrained<'_, O>, DrainError> {
        Ok(OfflineDrained { pgmap: self, range, key: self.offline_key(range)? })
    }

    fn offline_key(&self, range: PfnRange) -> Result<ParkKey, DrainError> {
        let extent = self.core().extent_with(range);
        Ok(extent.ok_or(DrainError::Outside { pfn: range.start() })?.offline_key())
    }

    fn wait_range(&self, range: PfnRange, deadline: Option<u64>) -> Result<(), DrainError> {
        let key = self.offline_key(range)?;
        // Ends: whoever holds the list does so for a bounded time, and says nothing to waiters.
        let over_fn = || loop {
            match self.offline_is_over(range) {
                Some(over) => return over,
                None => spin_loop(),
            }
        };
        if let Some(over) = self.wait_for(key, deadline, over_fn) {
            return over;
        }
        let extent = self.core().extent_with(range);
        let busy = extent.and_then(|it| it.first_in_use(range, Free::InUse));
        let busy = busy.unwrap_or(StillBusy { pfn: range.start(), folio: None });
        over_fn().unwrap_or(Err(DrainError::Busy(busy)))
    }

    /// Returns whether the pages have left, or are not to, if that can be said: others may hold the
    /// list, which is nothing to wait for.
    fn offline_is_over(&self, range: PfnRange) -> Option<Option<Result<(), DrainError>>> {
        let Some(extent) = self.core().extent_with(range) else {
            // The whole extent has left.
            return Some(Some(Ok(())));
        };
        Some(match extent.offline_life(range)? {
            Life::Drained => Some(Ok(())),
            Life::Live => Some(Err(DrainError::NotKilled)),
            Life::Dying => None,
        })
    }
}

/// Pages that go back to the device, as a future: [`PgmapCore::offline_drained`].
#[must_use = "futures do nothing unless they are polled"]
pub struct OfflineDrained<'a, O: PgmapOps> {
    pgmap: &'a PgmapCore<O>,
    range: PfnRange,
    key: ParkKey,
}

impl<O: PgmapOps> Future for OfflineDrained<'_, O> {
    type Output = Result<(), DrainError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut is_held = false;
        let polled = self.pgmap.poll_for(self.key, cx, || {
            let over = self.pgmap.offline_is_over(self.range);
            is_held = over.is_none();
            over.flatten()
        });
        if is_held {
            // Nobody says when the list is let go, and not everywhere may one spin for it.
            cx.waker().wake_by_ref();
        }
        polled
    }
}

impl<O: PgmapOps> fmt::Debug for OfflineDrained<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OfflineDrained({:?}, {:?})", self.range, self.pgmap.offline_state(self.range))
    }
}

impl Extent {
    /// Lists those pages of `range` that are in no such entry, in entries made by `entry_fn`; the
    /// caller holds the lock, and knows that there is room.
    pub(super) fn list(
        &self,
        range: PfnRange,
        is_fn: fn(&Entry) -> bool,
        entry_fn: fn(PfnRange) -> Entry,
    ) {
        // Ends: the run is in such entries in the next look.
        while let Some(run) = self.runs_without(range, is_fn).next() {
            if !chunks(run).all(|pages| self.record(entry_fn(pages))) {
                break;
            }
        }
    }

    /// Takes the pages of `range` out of such entries, of which what stays is recorded before what
    /// goes is erased; returns the range with all that these entries had beside it. The caller
    /// holds the lock.
    pub(super) fn unlist(&self, range: PfnRange, is_fn: fn(&Entry) -> bool) -> PfnRange {
        let mut met = range;
        // Ends: one entry fewer meets the range on every turn.
        while let Some(entry) = self.entries().find(|entry| is_fn(entry) && is_met(*entry, range)) {
            let first = met.start().min(entry.pages.start());
            met = PfnRange::between(first, met.last().max(entry.pages.last())).unwrap_or(met);
            around(entry, range).for_each(|entry| {
                self.record(entry);
            });
            self.erase(entry);
        }
        met
    }

    /// Yields the runs of `range` that are not to be offline.
    fn online_runs(&self, range: PfnRange) -> impl Iterator<Item = PfnRange> + '_ {
        self.runs_without(range, Entry::is_offline)
    }

    /// Yields the runs of `range` that are not in such entries.
    pub(super) fn runs_without(
        &self,
        range: PfnRange,
        is_fn: fn(&Entry) -> bool,
    ) -> impl Iterator<Item = PfnRange> + '_ {
        let mut rest = Some(range);
        core::iter::from_fn(move || {
            // Ends: `rest` shrinks on every turn, or a run is found.
            loop {
                let from = rest?;
                let Some(without) = self.first_run(from, is_fn) else { return rest.take() };
                let behind = without.last().checked_add(1);
                rest = behind.and_then(|pfn| PfnRange::between(pfn, range.last()));
                let before = without.start().checked_sub(1);
                let run = before.and_then(|last| PfnRange::between(from.start(), last));
                if run.is_some() {
                    return run;
                }
            }
        })
    }

    /// Returns how far pages have come that are to be offline; nothing at all if others hold the
    /// list, which is nothing to wait for.
    pub(super) fn offline_life(&self, range: PfnRange) -> Option<Life> {
        let is_online = || self.online_runs(range).next().is_some();
        let has_left = || self.first_in_use(range, Free::InUse).is_none();
        if !is_online() && !has_left() {
            return Some(Life::Dying);
        }
        // An entry may be being cut at this moment, of which a part seems to be gone; and pages
        // that were seen to have left may be taken back before the others leave.
        let _guard = if seeded!(FreeHasLeft) { None } else { Some(self.withheld.try_lock()?) };
        if is_online() {
            Some(Life::Live)
        } else if has_left() {
            // ORDERING(poison): Acquire; whoever finds nothing in use is behind all uses.
            fence(Ordering::Acquire);
            Some(Life::Drained)
        } else {
            Some(Life::Dying)
        }
    }

    /// Returns the first page of `range` that is not offline, nor in quarantine for being bad.
    fn first_in_use(&self, range: PfnRange, free: Free) -> Option<StillBusy> {
        let mut next = Some(range.start());
        // Ends: `next` grows on every turn, up to the end of the range.
        while let Some(pfn) = next.filter(|&pfn| pfn <= range.last()) {
            let chunk = self.index().chunk(pfn);
            let found = if chunk.is_free { None } else { self.find(pfn) };
            next = match found {
                Some(found) if is_withheld(found.bits.kind()) => {
                    found.head.checked_add(found.bits.order().nr_pages())
                }
                None if chunk.is_free && (free == Free::Passed || seeded!(FreeHasLeft)) => {
                    pfn.checked_add(chunk.nr_pages)
                }
                _ => {
                    let folio = found.map(|found| FolioInfo::new(found.head, found.bits));
                    return Some(StillBusy { pfn, folio });
                }
            };
        }
        None
    }
}

/// What free pages are to somebody who looks for those in use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Free {
    /// Nobody has them.
    Passed,
    /// They have not left.
    InUse,
}

impl Entry {
    const fn offline(pages: PfnRange) -> Self {
        Self { pages, kind: Kind::Offline, is_gone: false }
    }

    pub(super) fn is_offline(&self) -> bool {
        self.kind == Kind::Offline
    }
}

/// Returns whether an entry has pages of `range` that are to be offline.
fn is_met(entry: Entry, range: PfnRange) -> bool {
    entry.kind == Kind::Offline && entry.pages.overlaps(range)
}

/// Yields what stays of an entry when the pages of `range` are online.
pub(super) fn around(entry: Entry, range: PfnRange) -> impl Iterator<Item = Entry> {
    let is_cut = is_met(entry, range) && !seeded!(OnlineTakesAll);
    let rest = entry.pages.around(range).into_iter().flatten().filter(move |_| is_cut);
    rest.flat_map(chunks).map(move |pages| Entry { pages, ..entry })
}

/// Cuts a run into powers of two, the largest first: what an entry of the list can name.
pub(super) fn chunks(run: PfnRange) -> impl Iterator<Item = PfnRange> {
    let mut rest = Some(run);
    core::iter::from_fn(move || {
        let run = rest?;
        let nr_pages = 1_u64.checked_shl(run.nr_pages().checked_ilog2()?)?;
        let next = run.start().checked_add(nr_pages);
        rest = next.and_then(|next| PfnRange::between(next, run.last()));
        PfnRange::new(run.start(), nr_pages).ok()
    })
}
