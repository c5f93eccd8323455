//! Pages that are withheld: bad ones, and those that are offline.
//!
//! An extent lists what it withholds in words of the memory that it was lent, in no order: a record
//! is one store, so that whoever frees pages reads the list without a lock, in whatever interrupt.
//! A sorted list would have to be moved under its readers; a lock could be held by the very code
//! that was interrupted. Only the calls that write the list exclude each other. An entry is a bad
//! page, or a run of 2^n pages that are offline, of any alignment.
//!
//! One word beside the list has a bit for each region, taken modulo 64. What is freed in an extent
//! that withholds nothing pays for one look at it before, and one behind, the fence that every free
//! has; what is freed in a region without such pages reads no list. Behind the fence, because a
//! page may be recorded at that very moment: who records looks at the page, who frees looks at the
//! list, and one of them finds it.
//!
//! What was withheld from free space has a word like a folio, of a kind of its own: a bad page one
//! of order 0, pages that are offline the tiling of what was met in one piece. Either takes the
//! fracture table of its block where it is smaller; where the pool has none left, the whole block
//! goes along.

use spin::Mutex;

use super::extent::Extent;
use super::ops::PgmapOps;
use super::owner::PgmapCore;
use crate::meta::word::Kind;
use crate::sync::{AtomicU64, Ordering, ParkKey, fence, spin_loop};
use crate::units::{Order, Pfn, PfnRange};
use crate::zone::{After, CheckError, Index, Miss};

/// How often something is tried that others are in the way of.
const RETRIES: usize = 64;

/// Where an entry says how many pages it has: log2 of them. Offsets are below 2^38.
const LEN_SHIFT: u32 = 48;
/// In an entry, that its pages are offline rather than bad, and that their device is gone.
const OFFLINE: u64 = 1 << 63;
const GONE: u64 = 1 << 62;

/// What an extent knows of the pages that it withholds, beside their list.
#[derive(Debug)]
pub(crate) struct Withheld {
    /// Held while the list is written.
    lock: Mutex<()>,
    /// A bit for each region with such a page, modulo 64.
    regions: AtomicU64,
    /// Whether a page could not be taken out of free space yet.
    pub(super) pending: AtomicU64,
}

impl Withheld {
    pub(super) fn new() -> Self {
        Self { lock: Mutex::new(()), regions: AtomicU64::new(0), pending: AtomicU64::new(0) }
    }

    /// Takes the lock, unless it is held for long: perhaps by whom this code interrupted.
    pub(super) fn try_lock(&self) -> Option<spin::MutexGuard<'_, ()>> {
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

/// An entry of the list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Entry {
    pub(super) pages: PfnRange,
    /// [`Kind::Poisoned`], or [`Kind::Offline`].
    pub(super) kind: Kind,
    /// Whether the device of pages that are offline is gone.
    pub(super) is_gone: bool,
}

/// Pages that are to be parked together, and why.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Tile {
    pub(super) head: Pfn,
    pub(super) order: Order,
    pub(super) kind: Kind,
}

/// What became of an attempt to take pages out of free space.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Isolation {
    Done(Tile),
    /// They are not all free.
    Busy,
    Contended,
}

/// Returns whether a folio of that kind stands for pages that are withheld.
pub(super) const fn is_withheld(kind: Kind) -> bool {
    matches!(kind, Kind::Poisoned | Kind::Offline)
}

const fn region_bit(pfn: Pfn) -> u64 {
    1 << ((pfn.as_u64() >> Order::REGION.as_u8()) & 63)
}

/// Returns the bits of all regions of `range`.
fn region_bits(range: PfnRange) -> u64 {
    let region = |pfn: Pfn| pfn.as_u64() >> Order::REGION.as_u8();
    let (first, last) = (region(range.start()), region(range.last()));
    if last.wrapping_sub(first) >= 63 {
        return u64::MAX;
    }
    (first..=last).fold(0, |bits, region| bits | 1 << (region & 63))
}

// The list: a word is zero, or one more than the offset of the first page in its extent, with the
// length and the kind above it.
impl Extent {
    /// Returns whether a page of the region of `pfn`, or of one that shares its bit, is withheld.
    pub(super) fn may_withhold(&self, pfn: Pfn) -> bool {
        // ORDERING: Relaxed. What was recorded before is known by whatever told the caller so;
        // what is recorded at this moment is found behind the fence of the free.
        self.withheld.regions.load(Ordering::Relaxed) & region_bit(pfn) != 0
    }

    /// Returns whether a page of a folio that was just taken is withheld.
    ///
    /// The caller has passed a fence since: a page that was found neither free nor parked when it
    /// was recorded is free only after it was, and so is whatever is taken then.
    #[inline]
    pub(super) fn withholds_of(&self, head: Pfn, order: Order) -> bool {
        self.withholds_any() && !seeded!(AllocMissesPoison) && self.withholds_in(head, order)
    }

    #[cold]
    #[inline(never)]
    fn withholds_in(&self, head: Pfn, order: Order) -> bool {
        // What a free hands back would be taken back for ever.
        if seeded!(PoisonFreed) {
            return false;
        }
        if seeded!(OfflineFreed) {
            return false;
        }
        let range = PfnRange::folio(head, order).filter(|_| self.may_withhold(head));
        range.is_some_and(|range| self.first_withheld(range).is_some())
    }

    /// Returns whether any page is withheld.
    #[inline]
    pub(super) fn withholds_any(&self) -> bool {
        // ORDERING: Relaxed. As above; magazines learn of later ones by the count of shortages.
        self.withheld.regions.load(Ordering::Relaxed) != 0
    }

    /// Empties the list of a new extent.
    pub(super) fn clear_withheld(&self, is_trusted: bool) {
        if !is_trusted {
            // ORDERING: Relaxed. The extent is published later, as a whole.
            self.meta.list_words().for_each(|word| word.store(0, Ordering::Relaxed));
        }
    }

    /// Returns what a word of the list names.
    fn named(&self, word: &AtomicU64) -> Option<Entry> {
        // ORDERING(poison): Acquire half: whoever finds an entry erased finds what was recorded in
        // its place. The fences of the edge are the callers'.
        let raw = word.load(Ordering::Acquire);
        let len = raw & !(OFFLINE | GONE);
        let offset = (raw & ((1 << LEN_SHIFT) - 1)).checked_sub(1)?;
        let (len, is_offline, is_gone) = (len >> LEN_SHIFT, raw & OFFLINE != 0, raw & GONE != 0);
        let nr_pages = 1_u64.checked_shl(u32::try_from(len).ok()?)?;
        let pages = PfnRange::new(self.range().start().checked_add(offset)?, nr_pages).ok()?;
        let kind = if is_offline { Kind::Offline } else { Kind::Poisoned };
        let is_right = self.range().contains_range(pages) && (is_offline || nr_pages == 1);
        (is_right && (is_offline || !is_gone)).then_some(Entry { pages, kind, is_gone })
    }

    /// Yields the entries of the list, in no order.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        self.meta.list_words().filter_map(|word| self.named(word))
    }

    /// Returns the first page of `range` in an entry of `kind`.
    pub(super) fn first_of(&self, kind: Kind, range: PfnRange) -> Option<Pfn> {
        let entries = self.entries().filter(|entry| entry.kind == kind);
        entries.filter_map(|entry| Some(entry.pages.intersection(range)?.start())).min()
    }

    /// Returns the first run of pages of `range` that are offline, bad ones among them included.
    pub(super) fn first_offline(&self, range: PfnRange) -> Option<PfnRange> {
        self.first_run(range, Entry::is_offline)
    }

    /// Returns the first run of pages of `range` that are in such entries.
    pub(super) fn first_run(&self, range: PfnRange, is_fn: fn(&Entry) -> bool) -> Option<PfnRange> {
        let entries = self.entries().filter(is_fn);
        let start = entries.filter_map(|it| Some(it.pages.intersection(range)?.start())).min()?;
        let mut last = start;
        let mut next = Some(start);
        // Ends: `next` grows on every turn, up to the end of the range.
        while let Some(pfn) = next {
            let mut entries = self.entries().filter(is_fn);
            let Some(entry) = entries.find(|entry| entry.pages.contains(pfn)) else { break };
            last = entry.pages.last().min(range.last());
            next = last.checked_add(1).filter(|&next| next <= range.last());
        }
        PfnRange::between(start, last)
    }

    /// Returns the first pages of `range` that are withheld, as far as they can be parked together.
    fn first_withheld(&self, range: PfnRange) -> Option<Tile> {
        let bad = self.first_of(Kind::Poisoned, range);
        let bad = bad.map(|head| Tile { head, order: Order::ZERO, kind: Kind::Poisoned });
        let Some(offline) = self.first_offline(range) else { return bad };
        let Some(bad) = bad else { return Tile::first_of(offline) };
        if bad.head <= offline.start() {
            return Some(bad);
        }
        let last = bad.head.checked_sub(1)?.min(offline.last());
        Tile::first_of(PfnRange::between(offline.start(), last)?)
    }

    /// Returns what is kept beside the list.
    #[cfg(feature = "model")]
    pub(super) const fn withheld_state(&self) -> [&AtomicU64; 2] {
        [&self.withheld.regions, &self.withheld.pending]
    }

    /// Returns how many entries the list has room for, and how many more it could have.
    pub(super) fn room(&self) -> (usize, usize) {
        // ORDERING: Relaxed. The list is written by the holder of the lock alone.
        let is_empty = |word: &&AtomicU64| word.load(Ordering::Relaxed) == 0;
        (self.meta.list_words().count(), self.meta.list_words().filter(is_empty).count())
    }

    /// Records pages; the caller holds the lock. False if there is no room.
    pub(super) fn record(&self, entry: Entry) -> bool {
        // ORDERING: Relaxed. The list is written by the holder of the lock alone.
        let is_empty = |word: &&AtomicU64| word.load(Ordering::Relaxed) == 0;
        let Some(word) = self.meta.list_words().find(is_empty) else { return false };
        let offset = entry.pages.start().offset_from(self.range().start()).unwrap_or(0);
        let len = u64::from(entry.pages.nr_pages().trailing_zeros()) << LEN_SHIFT;
        let offline = if entry.is_offline() { OFFLINE } else { 0 };
        let gone = if entry.is_gone { GONE } else { 0 };
        // ORDERING(poison): Relaxed, in front of the caller's fence.
        word.store(offset.wrapping_add(1) | len | offline | gone, Ordering::Relaxed);
        // ORDERING(poison): Relaxed, as above.
        self.withheld.regions.fetch_or(region_bits(entry.pages), Ordering::Relaxed);
        true
    }

    /// Takes an entry off the list; the caller holds the lock.
    pub(super) fn erase(&self, entry: Entry) {
        let words = self.meta.list_words().filter(|word| self.named(word) == Some(entry));
        // ORDERING(poison): Release half, behind what was recorded in its place.
        words.for_each(|word| word.store(0, Ordering::Release));
        self.refresh_withheld();
    }

    /// Says which regions have such pages; the caller is the only one who writes the list.
    pub(super) fn refresh_withheld(&self) {
        let regions = self.entries().fold(0, |bits, entry| bits | region_bits(entry.pages));
        // ORDERING: Relaxed. A bit goes when the last page of its regions is off the list, and who
        // sees it longer reads the list in vain.
        self.withheld.regions.store(regions, Ordering::Relaxed);
    }

    /// Returns what is parked for a tile; the caller holds its block alone, or a table is there.
    fn with_table(&self, tile: Tile) -> Tile {
        let block = self.meta.geometry().block_of(tile.head);
        if Order::BLOCK <= tile.order
            || self.meta.table_of(block).is_some()
            || self.meta.assign_table(block).is_some()
        {
            tile
        } else {
            tile.of_block()
        }
    }

    /// Parks pages that the caller holds alone.
    fn withhold(&self, tile: Tile) {
        if let Some(word) = self.word(tile.head, tile.order) {
            word.begin(tile.order);
            word.park(tile.kind);
        }
        // ORDERING(poison, dying): the pages are parked before the list and the flag are read.
        fence(Ordering::SeqCst);
    }

    /// Takes a tile back that was just parked, if it would not be any more; true if that is done.
    fn retake_stale(&self, tile: Tile) -> bool {
        if seeded!(QuarantineLooksOnce) {
            return false;
        }
        let now = tile.pages().and_then(|pages| self.first_withheld(pages));
        // A block that went along stays as long as anything of it is withheld.
        let block = self.meta.geometry().block_of(tile.head);
        let is_block = tile.order == Order::BLOCK && self.meta.table_of(block).is_none();
        let is_right = |now: Tile| now == tile || is_block && now.kind == tile.kind;
        !now.is_some_and(is_right) && self.retake(tile)
    }

    /// Takes a parked tile back; its pages belong to the caller then, and no others: somebody else
    /// may have retaken it in the meantime, and have parked less or more at the same head.
    pub(super) fn retake(&self, tile: Tile) -> bool {
        let Some(word) = self.word(tile.head, tile.order) else { return false };
        let is_taken = if seeded!(RetakenInexactly) {
            word.claim(tile.kind).is_ok()
        } else {
            word.claim_exactly(tile.kind, tile.order)
        };
        if is_taken {
            word.end();
        }
        is_taken
    }
}

impl Tile {
    fn first_of(run: PfnRange) -> Option<Self> {
        let (head, order) = run.tiles().next()?;
        Some(Self { head, order, kind: Kind::Offline })
    }

    pub(super) fn pages(self) -> Option<PfnRange> {
        PfnRange::folio(self.head, self.order)
    }

    /// Returns the block, parked for what this tile is.
    fn of_block(self) -> Self {
        Self { head: self.head.head(Order::BLOCK), order: Order::BLOCK, kind: self.kind }
    }

    /// Returns the page behind it.
    pub(super) fn end(self) -> Option<Pfn> {
        self.head.checked_add(self.order.nr_pages())
    }
}

impl<O: PgmapOps> PgmapCore<O> {
    /// Takes a tile out of free space, if it is there.
    ///
    /// What is parked is behind a fence; but as for a search that fails, there may have been a
    /// release that saw the pages in our hands, so the caller owes [`PgmapCore::after_release`].
    pub(super) fn isolate(&self, extent: &Extent, tile: Tile) -> Isolation {
        let mut isolation = Isolation::Contended;
        // Ends: after so many attempts.
        for _ in 0..RETRIES {
            let block = tile.of_block();
            match extent.index().claim_at(tile.head, tile.order) {
                Ok(_) => isolation = Isolation::Done(tile),
                Err(Miss::Exhausted) => isolation = Isolation::Busy,
                Err(Miss::NoTables) if extent.index().claim_at(block.head, block.order).is_ok() => {
                    isolation = Isolation::Done(block);
                }
                Err(Miss::NoTables | Miss::Contended | Miss::Fracture) => {
                    spin_loop();
                    continue;
                }
            }
            break;
        }
        if let Isolation::Done(tile) = isolation {
            self.park_tile(extent, tile);
        }
        isolation
    }

    /// Parks pages that the caller holds alone, as a tile unless the list says otherwise by then.
    pub(super) fn park_tile(&self, extent: &Extent, tile: Tile) {
        extent.withhold(tile);
        if let Some(pages) = tile.pages().filter(|_| extent.retake_stale(tile)) {
            self.distribute(extent, pages, After::Dirty);
        }
    }

    /// Wakes those who wait for pages to be offline; the caller holds no lock.
    pub(super) fn say_offline(&self, extent: &Extent) {
        if !seeded!(OfflineUnsaid) {
            self.ops.park().unpark_all(extent.offline_key());
        }
    }

    /// Takes the withheld pages of a folio out of free space: the caller freed it just now.
    #[cold]
    #[inline(never)]
    pub(super) fn settle_freed(&self, extent: &Extent, head: Pfn, order: Order) {
        let suspect = PfnRange::folio(head, order).filter(|_| extent.may_withhold(head));
        if let Some(range) = suspect {
            self.settle_withheld(extent, range);
            // Of what had been left to do elsewhere, too.
            self.say_if_offline(extent);
        }
    }

    /// Wakes those who wait for pages to be offline, if any are to be; the caller holds no lock.
    pub(super) fn say_if_offline(&self, extent: &Extent) {
        if extent.first_of(Kind::Offline, extent.range()).is_some() {
            self.say_offline(extent);
        }
    }

    /// Takes the withheld pages of `range` out of free space.
    pub(super) fn settle_withheld(&self, extent: &Extent, range: PfnRange) {
        // ORDERING: Relaxed. A request to be obeyed some time.
        let is_pending = extent.withheld.pending.load(Ordering::Relaxed) != 0;
        if is_pending {
            // ORDERING: Relaxed. As above; it is made again where it cannot be obeyed.
            extent.withheld.pending.store(0, Ordering::Relaxed);
        }
        let range = if is_pending { extent.range() } else { range };
        for pfn in extent.poisoned(range) {
            self.isolate_bad(extent, pfn);
        }
        let mut rest = Some(range);
        // Ends: `rest` begins behind the run that was looked at.
        while let Some(run) = rest.and_then(|rest| extent.first_offline(rest)) {
            self.isolate_run(extent, run);
            let next = run.last().checked_add(1);
            rest = next.and_then(|next| PfnRange::between(next, range.last()));
        }
    }

    /// Takes a page that is recorded to be bad out of free space, or leaves that to whoever settles
    /// next.
    pub(super) fn isolate_bad(&self, extent: &Extent, pfn: Pfn) -> Isolation {
        let tile = Tile { head: pfn, order: Order::ZERO, kind: Kind::Poisoned };
        let isolation = self.isolate(extent, tile);
        if isolation == Isolation::Contended {
            // ORDERING: Relaxed. A request to be obeyed some time.
            extent.withheld.pending.store(1, Ordering::Relaxed);
        }
        isolation
    }

    /// Takes those pages of `run`, which is offline, out of free space that are there.
    fn isolate_run(&self, extent: &Extent, run: PfnRange) {
        let mut next = Some(run.start());
        let mut max = Order::MAX;
        // Ends: `next` grows or `max` falls on every turn, the latter to 0.
        while let Some(pfn) = next.filter(|&pfn| pfn <= run.last()) {
            if let Some(found) = extent.find(pfn) {
                (next, max) = (found.head.checked_add(found.bits.order().nr_pages()), Order::MAX);
                continue;
            }
            let free = extent.index().free_run_at(pfn, run.last());
            let tile = free.and_then(|free| free.tiles_up_to(max).next());
            let (head, order) = tile.unwrap_or((pfn, Order::ZERO));
            let tile = Tile { head, order, kind: Kind::Offline };
            match (self.isolate(extent, tile), order.shrink()) {
                (Isolation::Done(taken), _) => (next, max) = (taken.end(), Order::MAX),
                (Isolation::Busy, Some(half)) => max = half,
                (Isolation::Busy, None) => (next, max) = (pfn.checked_add(1), Order::MAX),
                (Isolation::Contended, _) => {
                    // ORDERING: Relaxed. A request to be obeyed some time.
                    extent.withheld.pending.store(1, Ordering::Relaxed);
                    (next, max) = (tile.end(), Order::MAX);
                }
            }
        }
    }

    /// Gives the pages of a folio, whose word is ended, back but for those that are withheld.
    #[cold]
    #[inline(never)]
    pub(super) fn dissolve_around(&self, extent: &Extent, head: Pfn, order: Order, after: After) {
        let range = PfnRange::folio(head, order).and_then(|it| it.intersection(extent.range()));
        let Some(range) = range else {
            debug_intact!(false, "a folio out of its extent at {head}");
            return;
        };
        if order == Order::REGION {
            // All of it is held alone.
            extent.meta.init_region(extent.meta.geometry().region_of(head));
        }
        self.distribute(extent, range, after);
        if !seeded!(PoisonFreed) {
            self.settle_freed(extent, head, order);
        }
        self.after_release();
    }

    /// Parks those pages of `range` that are withheld, and frees the others; the caller holds all
    /// of them alone, and they have no word.
    pub(super) fn distribute(&self, extent: &Extent, range: PfnRange, after: After) {
        let mut next = Some(range.start());
        // Ends: `next` grows on every turn, up to the end of the range, but where somebody changed
        // the list since the last look.
        while let Some(from) = next {
            let rest = PfnRange::between(from, range.last());
            let suspect = rest.filter(|_| extent.may_withhold(from));
            let tile = suspect.and_then(|rest| extent.first_withheld(rest));
            let tile = tile.filter(|tile| match tile.kind {
                Kind::Poisoned => !seeded!(PoisonFreed),
                _ => !seeded!(OfflineFreed),
            });
            let tile = tile.map(|tile| extent.with_table(tile));
            let healthy = match tile {
                None => rest,
                Some(Tile { head, .. }) if head <= from => None,
                Some(Tile { head, .. }) => {
                    head.checked_sub(1).and_then(|last| PfnRange::between(from, last))
                }
            };
            for (head, order) in healthy.into_iter().flat_map(PfnRange::tiles) {
                Index::free_in(&extent.meta, head, order, after);
            }
            next = None;
            if let Some(tile) = tile {
                extent.withhold(tile);
                next = if extent.retake_stale(tile) { Some(tile.head) } else { tile.end() };
                next = next.filter(|&end| end <= range.last() && !seeded!(PoisonRestLost));
            }
        }
    }

    /// Checks that what is listed is not free, and that what is parked for it is listed.
    pub(super) fn check_withheld(&self) -> Result<(), CheckError> {
        for extent in self.core.extents() {
            for word in extent.meta.list_words() {
                // ORDERING: Relaxed. Checked at rest.
                let raw = word.load(Ordering::Relaxed);
                if raw != 0 {
                    let entry = extent.named(word);
                    let entry = entry.ok_or(CheckError::BadPoison { pfn: Pfn::new(raw) })?;
                    extent.check_entry(entry)?;
                }
            }
        }
        let mut stray = None;
        self.core.for_each_folio(|folio| {
            let kind = match folio.kind {
                super::FolioKind::Poisoned => Kind::Poisoned,
                super::FolioKind::Offline => Kind::Offline,
                _ => return,
            };
            let pages = PfnRange::folio(folio.head, folio.order);
            let extent = self.core.extent_of(folio.head);
            let first = extent.zip(pages).and_then(|(it, pages)| it.first_of(kind, pages));
            if first.is_none() {
                stray = stray.or(Some(folio.head));
            }
        });
        stray.map_or(Ok(()), |pfn| Err(CheckError::BadPoison { pfn }))
    }
}

impl Extent {
    /// Returns what those wait on who wait for pages to be offline.
    pub(super) const fn offline_key(&self) -> ParkKey {
        ParkKey::Offline(self.range().start())
    }

    fn check_entry(&self, entry: Entry) -> Result<(), CheckError> {
        let Entry { pages, kind, .. } = entry;
        let same_kind = self.entries().filter(|other| other.kind == kind);
        let is_alone = same_kind.filter(|other| other.pages.overlaps(pages)).count() == 1;
        let is_marked = region_bits(pages) & !region_bits_of(self) == 0;
        if !is_alone || !is_marked {
            return Err(CheckError::BadPoison { pfn: pages.start() });
        }
        match self.index().free_run(pages.start(), pages.last()) {
            Some(run) => Err(CheckError::BadPoison { pfn: run.start() }),
            None => Ok(()),
        }
    }

    /// Yields the pages of `range` that are known to be bad, ascending.
    pub(super) fn poisoned(&self, range: PfnRange) -> impl Iterator<Item = Pfn> + '_ {
        let mut next = Some(range.start());
        core::iter::from_fn(move || {
            let rest = PfnRange::between(next?, range.last())?;
            let pfn = self.first_of(Kind::Poisoned, rest)?;
            next = pfn.checked_add(1);
            Some(pfn)
        })
    }
}

/// Returns the regions that an extent says to have withheld pages.
fn region_bits_of(extent: &Extent) -> u64 {
    // ORDERING: Relaxed. Checked at rest.
    extent.withheld.regions.load(Ordering::Relaxed)
}
