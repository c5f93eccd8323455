//! Live, dying, drained: how a pgmap ends, and how one of its extents does.

use super::extent::{Extent, Found};
use super::holder::Tighten;
use super::info::{FolioInfo, FolioKind};
use super::owner::Core;
use super::policy::LongtermPins;
use super::withheld::is_withheld;
use crate::meta::word::Kind;
use crate::sync::{AtomicU64, Ordering, ParkKey, const_unless_loom, fence};
use crate::units::Pfn;

/// Where the life of a pgmap, or of one of its extents, stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Life {
    /// Folios are handed out.
    Live,
    /// Nothing new; folios that exist are waited for.
    Dying,
    /// No folio is left but those in quarantine.
    Drained,
}

/// The end has begun.
const DYING: u64 = 1;
/// The end has come.
const DRAINED: u64 = 2;
/// What is ending is out of reach: it ends without notice.
const GONE: u64 = 4;
/// A holder has it that there are no long-term pins. This and the next flag are no part of an end:
/// they lie here because every pin reads this word anyway.
const REFUSED: u64 = 8;
/// A holder has it that long-term pins are leases.
const LEASED: u64 = 16;
/// What a holder has changed.
const HELD: u64 = REFUSED | LEASED;
/// In the word of an extent, one more beginning of an end; in that of a pgmap, one extent that is
/// on its way out.
const TURN: u64 = 32;

/// How far the end of a pgmap, or of one extent, has come.
#[derive(Debug)]
pub(crate) struct End(AtomicU64);

impl End {
    const_unless_loom! {
        pub(super) const fn new() -> Self {
            Self(AtomicU64::new(0))
        }
    }

    pub(super) fn life(&self) -> Life {
        // ORDERING(dying): Acquire; what was drained before is seen with it.
        match self.0.load(Ordering::Acquire) & (DYING | DRAINED) {
            0 => Life::Live,
            DYING => Life::Dying,
            _ => Life::Drained,
        }
    }

    /// Returns whether anything is ending: this, or, if it is a pgmap, one of its extents.
    #[inline]
    fn is_ending(&self) -> bool {
        // ORDERING(dying): Relaxed, behind the fence of who took or gave something. A refusal says
        // nothing but that the end has begun; `life` says more.
        self.0.load(Ordering::Relaxed) & !HELD != 0
    }

    /// Returns what a holder has made of the policy of long-term pins.
    #[inline]
    fn tightened(&self) -> Option<Tighten> {
        // ORDERING(hold): Relaxed, in front of the pin or behind its fence.
        let seen = self.0.load(Ordering::Relaxed);
        if seen & HELD == 0 {
            None
        } else if seen & REFUSED != 0 {
            Some(Tighten::Refuse)
        } else {
            Some(Tighten::Leases)
        }
    }

    /// Tightens the policy; the caller fences before it looks for pins.
    pub(super) fn tighten(&self, tighten: Tighten) {
        let flag = match tighten {
            Tighten::Refuse => REFUSED,
            Tighten::Leases => LEASED,
        };
        // ORDERING(hold): Relaxed, in front of the caller's fence.
        self.0.fetch_or(flag, Ordering::Relaxed);
    }

    /// Takes back what [`End::tighten`] did.
    pub(super) fn loosen(&self) {
        // ORDERING: Relaxed. Whoever sees the flag longer is refused longer.
        self.0.fetch_and(!HELD, Ordering::Relaxed);
    }

    /// Returns whether the end of this has begun.
    #[inline]
    pub(super) fn is_dying(&self) -> bool {
        // ORDERING(dying): Relaxed, as above.
        self.0.load(Ordering::Relaxed) & DYING != 0
    }

    pub(super) fn is_gone(&self) -> bool {
        // ORDERING: Relaxed. Who needs to know was told by other means, or is too early.
        self.0.load(Ordering::Relaxed) & GONE != 0
    }

    /// Says that what is ending is out of reach; true for whoever said so first.
    pub(super) fn lose(&self) -> bool {
        // ORDERING: Relaxed. Those who have to know are told.
        self.0.fetch_or(GONE, Ordering::Relaxed) & GONE == 0
    }

    /// Begins the end, which the caller looks at behind a fence; true for whoever did so first.
    fn begin(&self) -> bool {
        // ORDERING(dying): Release half: who completes the end is behind its beginning.
        self.0.fetch_or(DYING, Ordering::Release) & DYING == 0
    }

    /// Returns the word itself.
    #[cfg(feature = "model")]
    pub(super) const fn word(&self) -> &AtomicU64 {
        &self.0
    }

    /// Returns how far the end has come, and what a holder has changed, as one number.
    #[cfg(any(test, feature = "model"))]
    pub(super) fn state(&self) -> u64 {
        // ORDERING: Relaxed. Taken at rest.
        self.0.load(Ordering::Relaxed) & (DYING | DRAINED | GONE | HELD)
    }

    /// Puts back what [`End::state`] returned, with so many turns or extents that are leaving.
    #[cfg(any(test, feature = "model"))]
    pub(super) fn restore(&self, state: u64, nr_turns: u64) -> bool {
        // ORDERING: Relaxed. Done at rest.
        self.0.store(state | nr_turns.wrapping_mul(TURN), Ordering::Relaxed);
        state < TURN
    }

    /// Completes the end if it has begun and `is_idle_fn` finds nothing left; true for whoever did.
    fn settle(&self, is_idle_fn: impl Fn() -> bool) -> bool {
        // ORDERING(dying): Acquire half of the beginning.
        let mut seen = self.0.load(Ordering::Acquire);
        // Ends: a turn is repeated only when an extent began or ceased to leave, a holder came or
        // went, or this end was called off and began anew.
        while seen & (DYING | DRAINED) == DYING {
            // ORDERING(dying): between the flag and the scan: whoever took something and did not
            // see the flag did so before this fence, and the scan sees what was taken.
            if !seeded!(EndUnfenced) {
                fence(Ordering::SeqCst);
            }
            if !is_idle_fn() {
                return false;
            }
            let next = seen | DRAINED;
            // ORDERING(dying): Release, so that who sees the end sees all that led to it; Acquire
            // half of another beginning.
            match self.0.compare_exchange(seen, next, Ordering::Release, Ordering::Acquire) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }
}

/// A folio that keeps what is dying, a pgmap or an extent, from being drained.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StillBusy {
    /// The first page that is neither free nor in quarantine.
    pub pfn: Pfn,
    /// Its folio; `None` while its pages are on their way between a folio and free space.
    pub folio: Option<FolioInfo>,
}

impl core::fmt::Display for StillBusy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "page {} is still in use", self.pfn)
    }
}

impl core::error::Error for StillBusy {}

impl Core {
    pub(super) fn life(&self) -> Life {
        self.end.life()
    }

    /// Returns whether new folios and counts are refused, wherever they are.
    #[inline]
    pub(crate) fn is_dying(&self) -> bool {
        self.end.is_dying()
    }

    /// Returns whether this pgmap or one of its extents is ending: one look, after which what comes
    /// from an extent has to be looked at more closely.
    #[inline]
    pub(crate) fn is_ending(&self) -> bool {
        self.end.is_ending()
    }

    /// Returns whether nothing new may come from `extent`.
    #[inline]
    pub(crate) fn is_closed(&self, extent: &Extent) -> bool {
        self.is_ending() && self.is_leaving(extent)
    }

    #[cold]
    #[inline(never)]
    fn is_leaving(&self, extent: &Extent) -> bool {
        self.is_dying() || extent.end.is_dying() && !seeded!(LeavingServes)
    }

    /// Does as [`Core::is_closed`], for the extent that has `pfn`.
    #[inline]
    pub(crate) fn is_closed_at(&self, pfn: Pfn) -> bool {
        self.is_ending() && self.is_leaving_at(pfn)
    }

    #[cold]
    #[inline(never)]
    fn is_leaving_at(&self, pfn: Pfn) -> bool {
        self.is_dying() || self.extent_of(pfn).is_none_or(|extent| extent.end.is_dying())
    }

    /// Sets the flag that refuses whatever is new; the caller owes a look whether that was the end.
    /// True for whoever did so first.
    pub(super) fn begin_end(&self) -> bool {
        // ORDERING(dying): the flag is set before the scan looks; a second kill changes nothing.
        let is_first = self.end.begin();
        // ORDERING(dying): the one half; and one of `hold`, before a holder is looked for.
        fence(Ordering::SeqCst);
        is_first
    }

    /// Returns whether a holder has it that long-term pins are leases.
    pub(crate) fn is_leased_by_holder(&self) -> bool {
        self.end.tightened() == Some(Tighten::Leases)
    }

    /// Returns how long-term pins are granted at this moment: as the policy says, or tighter.
    #[inline]
    pub(crate) fn longterm_pins(&self) -> LongtermPins {
        let policy = self.policy.longterm_pins;
        match (policy, self.end.tightened()) {
            (LongtermPins::Allow | LongtermPins::Lease, Some(Tighten::Refuse)) => {
                LongtermPins::Refuse
            }
            (LongtermPins::Allow, Some(Tighten::Leases)) => LongtermPins::Lease,
            _ => policy,
        }
    }

    /// Completes each removal of which nothing is left, of extents and of the pgmap, and calls
    /// `ended_fn` with the key of each that this call completed.
    pub(super) fn settle(&self, ended_fn: impl Fn(ParkKey)) {
        for extent in self.extents() {
            if extent.settle() {
                ended_fn(extent.removal_key());
            }
        }
        if self.end.settle(|| self.first_busy().is_none()) {
            ended_fn(ParkKey::Removal);
        }
    }

    /// Returns the first page that is neither free nor in quarantine.
    pub(super) fn first_busy(&self) -> Option<StillBusy> {
        self.extents().find_map(Extent::first_busy)
    }

    /// Counts an extent that begins to leave; the caller sets its flag next.
    fn begin_leaving(&self) {
        // ORDERING(dying): Relaxed, in front of the release of the flag: who sees that, and fences
        // before it looks what is left, is behind this, too.
        self.end.0.fetch_add(TURN, Ordering::Relaxed);
    }

    /// Counts an extent that has left, or that stays after all.
    pub(super) fn end_leaving(&self) {
        // ORDERING: Relaxed. Whoever sees the count longer looks more closely, in vain.
        self.end.0.fetch_sub(TURN, Ordering::Relaxed);
    }
}

/// Returns whether a folio of that kind keeps its pgmap from being drained.
const fn is_in_the_way(kind: Kind) -> bool {
    !matches!(kind, Kind::Retired) && !is_withheld(kind)
}

impl Extent {
    /// Returns the first page that is neither free nor in quarantine.
    pub(super) fn first_busy(&self) -> Option<StillBusy> {
        let busy = self.busy_from(self.range().start());
        if busy.is_none() {
            // ORDERING(dying): Acquire; whoever finds nothing in use is behind all uses.
            fence(Ordering::Acquire);
        }
        busy
    }

    /// Completes the removal if nothing is left; true for whoever did.
    fn settle(&self) -> bool {
        self.end.settle(|| self.first_busy().is_none())
    }

    /// Returns what those wait on who wait for the end of the removal.
    pub(super) const fn removal_key(&self) -> ParkKey {
        ParkKey::ExtentRemoval(self.range().start())
    }

    /// Begins the removal, unless it has begun; the caller holds the lock of the list of extents,
    /// and looks what is left behind a fence. True if it did.
    pub(super) fn begin_end(&self, core: &Core) -> bool {
        let is_first = !self.end.is_dying();
        if is_first {
            // Counted before the flag is set: whoever sees the flag, such as a scan that began for
            // another reason, may complete the end at once, and by then all have to look.
            if !seeded!(LeavingCountedLate) {
                core.begin_leaving();
            }
            // A new turn, so that no scan of an end that was called off completes this one.
            // ORDERING(dying): Relaxed, in front of the caller's fence.
            self.end.0.fetch_add(TURN, Ordering::Relaxed);
            self.end.begin();
            if seeded!(LeavingCountedLate) {
                core.begin_leaving();
            }
        }
        is_first
    }

    /// Calls the removal off; the caller holds the lock of the list of extents.
    pub(super) fn call_off(&self, core: &Core) {
        let bits = if seeded!(RestoredHalf) { DYING } else { DYING | DRAINED };
        // ORDERING: Relaxed. Whoever sees the end longer is refused longer.
        self.end.0.fetch_and(!bits, Ordering::Relaxed);
        core.end_leaving();
    }

    /// Returns the first page from `from` on that is neither free nor in quarantine.
    fn busy_from(&self, from: Pfn) -> Option<StillBusy> {
        let range = self.range();
        let mut from = Some(from);
        // Ends: `from` grows on every turn, up to the end of the extent.
        while let Some(pfn) = from {
            let rest = crate::units::PfnRange::between(pfn, range.last())?;
            let pfn = self.index().first_busy(rest)?;
            let found = self.find(pfn);
            match found {
                Some(found) if !is_in_the_way(found.bits.kind()) => from = self.behind(&found),
                _ => {
                    let folio = found.map(|found| FolioInfo::new(found.head, found.bits));
                    return Some(StillBusy { pfn, folio });
                }
            }
        }
        None
    }

    /// Calls `each_fn` with every busy folio, and with the first page of each run that is on its
    /// way.
    pub(super) fn for_each_busy(&self, mut each_fn: impl FnMut(StillBusy)) {
        let mut from = Some(self.range().start());
        // The page behind one that was on its way.
        let mut on_its_way = None;
        // Ends: `from` grows on every turn, up to the end of the extent.
        while let Some(busy) = from.and_then(|from| self.busy_from(from)) {
            let nr_pages = match busy.folio {
                // What is left of it, if it was made while its pages were passed.
                Some(folio) => {
                    let before = busy.pfn.offset_from(folio.head).unwrap_or(0);
                    folio.order.nr_pages().saturating_sub(before).max(1)
                }
                None => 1,
            };
            let is_kept = busy.folio.is_some_and(|folio| folio.kind == FolioKind::Kept);
            if seeded!(BusyOmitsKept) && is_kept {
                // The fault: nobody is told.
            } else if busy.folio.is_some() || on_its_way != Some(busy.pfn) {
                each_fn(busy);
            }
            let next = busy.pfn.checked_add(nr_pages);
            on_its_way = if busy.folio.is_none() { next } else { None };
            from = next.filter(|&next| next <= self.range().last());
        }
    }

    /// Returns the page behind a folio, if the extent has it.
    fn behind(&self, found: &Found<'_>) -> Option<Pfn> {
        let next = found.head.checked_add(found.bits.order().nr_pages());
        next.filter(|&next| next <= self.range().last())
    }
}

impl<O: super::PgmapOps> super::PgmapCore<O> {
    /// Says what keeps this pgmap from being drained; `Ok` if nothing does.
    ///
    /// # Errors
    ///
    /// Returns [`StillBusy`] with the first page that is in use.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock. Walks the extents up to that page.
    pub fn try_drain(&self) -> Result<(), StillBusy> {
        self.core.first_busy().map_or(Ok(()), Err)
    }

    /// Calls `each_fn` with every folio that keeps this pgmap from being drained, and its counts:
    /// all but those in quarantine, in ascending order within each extent.
    ///
    /// Of pages that are on their way between a folio and free space it is called with the first
    /// of each run, without a folio; at rest there are none. Linux names nobody: `memunmap_pages`
    /// waits for the last count for as long as it takes.
    ///
    /// ```
    /// # use devfolio::*;
    /// # fn end<O: PgmapOps>(pgmap: &PgmapCore<O>) -> Result<(), Box<dyn std::error::Error>> {
    /// let folio = pgmap.alloc(Order::BLOCK)?.publish();
    /// let _pin = folio.pin(PinKind::Short)?;
    /// pgmap.kill();
    /// pgmap.for_each_busy(|busy| {
    ///     let folio = busy.folio.expect("nobody else is there");
    ///     assert_eq!((folio.order, folio.refs, folio.pins), (Order::BLOCK, 1, 1));
    /// });
    /// # Ok(())
    /// # }
    /// # struct Ops;
    /// # impl PgmapOps for Ops { type Private = (); }
    /// # let range = PfnRange::new(Pfn::new(0), 1024)?;
    /// # let nr_lines = MetaSize::of(range, Tables::Dense).lines();
    /// # let mut lines: Vec<_> = (0..nr_lines).map(|_| MetaLine::ZERO).collect();
    /// # let slots = [const { ExtentSlot::new() }];
    /// # let pgmap = Pgmap::new(Ops, Policy::generic(), &slots);
    /// # pgmap.add_extent(range, ExtentAttrs::NEW, Tables::Dense, &mut lines, Attach::Zeroed)?;
    /// # end(&pgmap)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock. Walks the extents; what is free is passed in large steps. `each_fn`
    /// may call anything in the crate. While others are at work, what it is called with is a
    /// snapshot of different moments.
    pub fn for_each_busy(&self, mut each_fn: impl FnMut(StillBusy)) {
        for extent in self.core.extents() {
            extent.for_each_busy(&mut each_fn);
        }
    }
}
