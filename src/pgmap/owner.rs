//! The core of a pgmap: its extents, its life, and what has to be told apart on a last put.

use core::fmt;
use core::marker::PhantomData;

use spin::Mutex;

use super::extent::{Extent, ExtentSlot, Found};
use super::folio_ref::{FolioRef, unlink};
use super::holder::HolderCell;
use super::info::{FolioInfo, PageInfo};
use super::life::End;
use super::ops::{HookCx, PgmapOps};
use super::policy::{HookContext, Policy};
use super::trie::Trie;
use super::unique::UniqueFolio;
use crate::meta::Lent;
use crate::meta::word::Kind;
use crate::sync::{AtomicU64, Link, Ordering, OwnLine, fence};
use crate::units::{Order, Pfn, PfnRange};
use crate::zone::{After, Index};

/// What is the same for owners of every type.
pub(crate) struct Core {
    pub(super) slots: Lent<[ExtentSlot]>,
    /// The first slot of this pgmap, plus one.
    pub(super) first: Link,
    pub(super) trie: Trie,
    pub(super) policy: Policy,
    pub(super) end: End,
    /// The condemned folios, linked through their own words.
    pub(super) condemned: OwnLine<AtomicU64>,
    /// The part of them that a reaper has taken over.
    pub(super) chain: Mutex<u64>,
    pub(super) kept_pages: OwnLine<AtomicU64>,
    pub(super) condemned_pages: OwnLine<AtomicU64>,
    /// How often an allocation failed for want of memory.
    pub(super) shortages: OwnLine<AtomicU64>,
    /// Held while an extent is added, or begins or ceases to leave; the slot of the lowest extent,
    /// plus one.
    pub(super) attach: Mutex<u64>,
}

impl Core {
    /// Yields the extents in the order in which they were added.
    pub(crate) fn extents(&self) -> Extents<'_> {
        let next = self.first.get();
        Extents { slots: self.slots.get(), next }
    }

    /// Yields the extents out of which something may be allocated.
    pub(crate) fn open_extents(&self) -> impl Iterator<Item = &Extent> {
        self.extents().filter(|extent| !self.is_closed(extent))
    }

    /// Returns the extent that was added first.
    #[inline]
    pub(super) fn first_extent(&self) -> Option<&Extent> {
        slot_named(self.slots.get(), self.first.get())?.extent()
    }

    /// Returns the extent that has all of `range`.
    pub(super) fn extent_with(&self, range: PfnRange) -> Option<&Extent> {
        self.extent_of(range.start()).filter(|extent| extent.range().contains_range(range))
    }

    /// Yields the extents with pages of `range`, each with these pages.
    pub(crate) fn parts(&self, range: PfnRange) -> impl Iterator<Item = (&Extent, PfnRange)> {
        self.extents().filter_map(move |it| Some((it, it.range().intersection(range)?)))
    }

    /// Returns the first extent that overlaps `range`.
    pub(crate) fn overlap(&self, range: PfnRange) -> Option<PfnRange> {
        self.extents().map(Extent::range).find(|extent| {
            if seeded!(OverlapEnds) {
                return extent.contains(range.start()) || extent.contains(range.last());
            }
            extent.overlaps(range)
        })
    }

    pub(crate) fn find(&self, pfn: Pfn) -> Option<(&Extent, Found<'_>)> {
        let extent = self.extent_of(pfn)?;
        Some((extent, extent.find(pfn)?))
    }

    /// Returns what is known of a page at this moment.
    pub(crate) fn query(&self, pfn: Pfn) -> PageInfo {
        match self.extent_of(pfn) {
            None => PageInfo::Outside,
            Some(extent) => match extent.find(pfn) {
                None => PageInfo::Free,
                Some(found) => PageInfo::Folio(FolioInfo::new(found.head, found.bits)),
            },
        }
    }
}

/// Returns the slot of that name, which is its place plus one; zero names none.
#[inline]
pub(super) fn slot_named(slots: &[ExtentSlot], name: u64) -> Option<&ExtentSlot> {
    slots.get(usize::try_from(name.checked_sub(1)?).ok()?)
}

/// The extents of one pgmap.
pub(crate) struct Extents<'a> {
    slots: &'a [ExtentSlot],
    next: u64,
}

impl<'a> Iterator for Extents<'a> {
    type Item = &'a Extent;

    fn next(&mut self) -> Option<&'a Extent> {
        let slot = slot_named(self.slots, self.next)?;
        self.next = slot.next.get();
        slot.extent()
    }
}

/// An owner's claim on its extents: everything but the lifetime of the memory that it was lent.
///
/// A [`Pgmap`](super::Pgmap) dereferences to it, and hooks are given it. Handles borrow it.
pub struct PgmapCore<O: PgmapOps> {
    pub(super) core: Core,
    pub(super) ops: O,
    pub(super) holder: HolderCell<O>,
    /// Owner data is written and read through this type, so it must not vary.
    pub(super) owner: PhantomData<fn(O) -> O>,
}

impl<O: PgmapOps> PgmapCore<O> {
    /// Returns the owner.
    #[must_use]
    pub const fn ops(&self) -> &O {
        &self.ops
    }

    /// Returns the policy.
    #[must_use]
    pub const fn policy(&self) -> Policy {
        self.core.policy
    }

    pub(crate) const fn core(&self) -> &Core {
        &self.core
    }

    /// Yields the ranges and attributes of the extents, in the order in which they were added.
    pub fn extents(&self) -> impl Iterator<Item = (PfnRange, super::ExtentAttrs)> + '_ {
        self.core.extents().map(|extent| (extent.range(), extent.attrs))
    }

    /// Returns what is known of a page at this moment: a statistic, stale at once.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock.
    pub fn query(&self, pfn: Pfn) -> PageInfo {
        self.core.query(pfn)
    }

    /// Returns the place of the folio that covers `pfn` at this moment.
    pub(crate) fn find(&self, pfn: Pfn) -> Option<(FolioRef<'_, O>, Found<'_>)> {
        let (extent, found) = self.core.find(pfn)?;
        Some((FolioRef { pgmap: self, extent, word: found.word, head: found.head }, found))
    }

    /// Returns the place of the folio of `order` at `head`.
    pub(crate) fn place(&self, head: Pfn, order: Order) -> Option<FolioRef<'_, O>> {
        let extent = self.core.extent_of(head)?;
        let word = extent.word(head, order)?;
        Some(FolioRef { pgmap: self, extent, word, head })
    }

    /// Returns the place that a list named, if a folio starts there.
    pub(crate) fn place_of_link(&self, link: u64) -> Option<FolioRef<'_, O>> {
        let (slot, offset) = unlink(link)?;
        let slot = self.core.slots.get().get(usize::try_from(slot).ok()?)?;
        let extent = slot.extent()?;
        let head = extent.range().start().checked_add(offset)?;
        let (place, found) = self.find(head)?;
        (found.head == head && core::ptr::eq(place.extent, extent)).then_some(place)
    }

    /// Returns the condemned folio that a list named.
    fn condemned(&self, link: u64) -> Option<FolioRef<'_, O>> {
        // The kind is looked at although nothing else is ever linked: a corrupt link must not turn
        // somebody's folio into an exclusive one.
        self.place_of_link(link).filter(|at| at.word.read().kind() == Kind::Condemned)
    }

    /// Does what the last count of a folio owes; its word is unique already.
    #[inline]
    pub(crate) fn last_put<'a>(&'a self, at: FolioRef<'a, O>, order: Order, wake: bool) {
        match self.core.policy.hook_context {
            HookContext::Inline => self.run_hook(at, order, wake),
            HookContext::Deferred => self.condemn(at, order, wake),
        }
    }

    /// Runs the free hook, and then, one by one, those of the folios that it handed over.
    #[inline]
    pub(super) fn run_hook<'a>(&'a self, at: FolioRef<'a, O>, order: Order, wake: bool) {
        let mut later = Later { cx: HookCx { pgmap: self, later: 0 } };
        self.run_hook_once(at, order, wake, &mut later);
        if later.cx.later != 0 && !seeded!(LaterUncalled) {
            self.run_hooks(&mut later);
        }
    }

    #[cold]
    #[inline(never)]
    fn run_hooks<'a>(&'a self, later: &mut Later<'a, O>) {
        // Ends: every turn is one last put, and each was caused by a hook that the owner wrote.
        while let Some((at, order, wake)) = later.next() {
            self.run_hook_once(at, order, wake, later);
        }
    }

    #[inline(always)]
    fn run_hook_once<'a>(
        &'a self,
        at: FolioRef<'a, O>,
        order: Order,
        wake: bool,
        later: &mut Later<'a, O>,
    ) {
        if seeded!(WakesBeforeVerdict) {
            at.wake(wake);
        }
        let _waker = Waker { at, wake };
        let order = if seeded!(HookWrongOrder) { order.grow().unwrap_or(order) } else { order };
        if seeded!(HookTwice) {
            self.ops.folio_free(UniqueFolio::new(at, order, false), &mut later.cx);
        }
        self.ops.folio_free(UniqueFolio::new(at, order, false), &mut later.cx);
        if seeded!(TouchedAfterHook) {
            at.word.close();
        }
    }

    #[cold]
    #[inline(never)]
    fn condemn<'a>(&'a self, at: FolioRef<'a, O>, order: Order, wake: bool) {
        let link = at.link();
        // ORDERING: Relaxed. A statistic.
        self.core.condemned_pages.fetch_add(order.nr_pages(), Ordering::Relaxed);
        // ORDERING: Relaxed. The exchange below compares it again.
        let mut first = self.core.condemned.load(Ordering::Relaxed);
        // Ends: a turn is repeated only when another folio was condemned or the list taken.
        loop {
            at.word.condemn(first, wake);
            // ORDERING(condemn): Release half.
            match self.core.condemned.compare_exchange_weak(
                first,
                link,
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                // Those who wait for counts look again now, and behind the verdict.
                Ok(_) => return at.wake(wake),
                // The folio is still out of everybody's reach.
                Err(now) => {
                    at.word.absolve();
                    first = now;
                }
            }
        }
    }

    /// Runs the hooks of up to `budget` condemned folios.
    ///
    /// # Context
    ///
    /// Where the owner's hook may run. Only one reaper is at work at a time; a second one returns
    /// at once.
    pub fn reap(&self, budget: usize) -> Reaped {
        let mut nr_folios = 0;
        while nr_folios < budget {
            let Some(mut chain) = self.core.chain.try_lock() else {
                return Reaped { nr_folios, has_more: true };
            };
            if *chain == 0 {
                // ORDERING(condemn): Acquire half.
                *chain = self.core.condemned.swap(0, Ordering::Acquire);
            }
            let Some(at) = self.condemned(*chain) else {
                *chain = 0;
                return Reaped { nr_folios, has_more: false };
            };
            let bits = at.word.absolve();
            *chain = bits.link();
            // The hook runs without the lock.
            let _held = if seeded!(HookUnderLock) {
                Some(chain)
            } else {
                drop(chain);
                None
            };
            // ORDERING: Relaxed. A statistic.
            self.core.condemned_pages.fetch_sub(bits.order().nr_pages(), Ordering::Relaxed);
            self.run_hook(at, bits.order(), bits.has_waiter());
            nr_folios = nr_folios.saturating_add(1);
        }
        let is_empty = self.core.chain.try_lock().is_some_and(|chain| *chain == 0);
        // ORDERING: Relaxed. A hint whether to come again.
        let has_more = !is_empty || self.core.condemned.load(Ordering::Relaxed) != 0;
        Reaped { nr_folios, has_more }
    }

    /// Gives the pages of a folio back to free space, and its owner data up.
    #[inline(always)]
    pub(super) fn dissolve(&self, at: FolioRef<'_, O>, order: Order, after: After) {
        let looked_first = seeded!(ReleaseLooksFirst) && !self.core.is_ending();
        // Where there is a word there is data: should its `Drop` panic, the pages are lost.
        at.word.end();
        self.drop_private(at.extent, at.head, order);
        if at.extent.withholds_any() {
            return self.dissolve_around(at.extent, at.head, order, after);
        }
        // A free ends behind a fence, which is also the other half of the edge `dying`.
        Index::free_in(&at.extent.meta, at.head, order, after);
        // ORDERING(poison): Relaxed, behind the fence of the free.
        if at.extent.withholds_any() && !seeded!(FreeMissesPoison) {
            self.settle_freed(at.extent, at.head, order);
        }
        if looked_first {
            return;
        }
        self.after_release();
    }

    /// Parks a unique folio.
    pub(super) fn park(&self, at: FolioRef<'_, O>, order: Order, kind: Kind) {
        if kind == Kind::Kept {
            // ORDERING: Relaxed. A statistic.
            self.core.kept_pages.fetch_add(order.nr_pages(), Ordering::Relaxed);
        }
        at.word.park(kind);
        // ORDERING(dying): the other half; the folio is parked before the flag is read.
        fence(Ordering::SeqCst);
        self.after_release();
    }
}

impl<O: PgmapOps> fmt::Debug for PgmapCore<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pgmap({:?}, {:?}", self.core.policy.memory_type, self.state())?;
        for extent in self.core.extents() {
            write!(f, ", {}", extent.range())?;
        }
        f.write_str(")")
    }
}

/// The folios that a hook handed over; what is left of them when it panics is condemned, so that
/// [`PgmapCore::reap`] finds it.
struct Later<'a, O: PgmapOps> {
    cx: HookCx<'a, O>,
}

impl<'a, O: PgmapOps> Iterator for Later<'a, O> {
    /// A folio, its order, and whether somebody waits for it.
    type Item = (FolioRef<'a, O>, Order, bool);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.cx.later == 0 {
            return None;
        }
        let at = self.cx.pgmap.condemned(self.cx.later)?;
        let bits = at.word.absolve();
        self.cx.later = bits.link();
        Some((at, bits.order(), bits.has_waiter()))
    }
}

impl<O: PgmapOps> Drop for Later<'_, O> {
    #[inline]
    fn drop(&mut self) {
        // Ends: the list gets shorter on every turn; without a panic it is empty.
        while let Some((at, order, wake)) = self.next().filter(|_| !seeded!(PanicLosesLater)) {
            self.cx.pgmap.condemn(at, order, wake);
        }
    }
}

/// A wake-up that follows the verdict of a hook, even that of one that panics.
struct Waker<'a, O: PgmapOps> {
    at: FolioRef<'a, O>,
    wake: bool,
}

impl<O: PgmapOps> Drop for Waker<'_, O> {
    #[inline]
    fn drop(&mut self) {
        self.at.wake(self.wake);
    }
}

/// What [`PgmapCore::reap`] did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reaped {
    /// How many hooks it ran, those of folios handed over to a hook's context not counted.
    pub nr_folios: usize,
    /// Whether there is more to do, or another reaper doing it.
    pub has_more: bool,
}
