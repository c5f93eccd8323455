//! Hints: where a run of some order may be; and movers: when an answer of "nowhere" is worth
//! nothing.
//!
//! A hint is one-sided: wherever there is a free run of order *o*, at rest, the hints of all orders
//! up to *o* are raised on the way to it; a raised hint without a run only costs a look. The way:
//! a mask beside the table and a mask in the region's head (which serve to stop early), a bitmap
//! over the blocks of a region, a bitmap over all regions.
//!
//! Whoever frees sets the free bits, passes a fence and reads the mask; whoever finds nothing
//! lowers the bitmap and the mask, passes a fence and looks at the free bits again. So one of the
//! two sees the other. Who finds an order in the mask stops there, and relies on the bitmap: that
//! is why both are raised and lowered in the same sequence, the mask last, and why the mask counts
//! how often it was lowered. A raise that crossed a lowering sees the count change, and is done
//! again; without that, the two could leave the mask raised and the bitmap lowered for ever.
//!
//! A mover is the writer of a seqlock, and a search its reader.
//!
//! # Synchronization
//!
//! | edge | one half | other half | what it carries |
//! |------|--------------|--------------|-----------------|
//! | `free-look` | the fence of [`Index::settle_block`], [`Index::settle_region`] | the fence of [`Index::lower_block`], [`Index::lower_region`] | a free and a look at free bits do not miss each other |
//! | `hint` | [`Mask::raise`], [`Mask::lower`] | [`Mask::raise`] | who finds an order in the mask, or not, sees what was done above before it |
//! | `mover` | [`Mover::begin`], [`Mover::drop`] | [`Index::epoch`] | a search that saw no mover missed nothing that one had hidden |
#![expect(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "orders are below 18, bits below 512, words below eight"
)]

use super::ample::grows_ample;
use super::index::{Index, Piece};
use super::line;
use crate::meta::{Block, PAGE_LEVELS, Region, RegionLine, RootMap, Table, WORD_BITS};
use crate::sync::{AtomicU64, Ordering, fence, fence_after_rmw};
use crate::units::Order;

/// What a mover adds when it is done: one less in flight, one epoch more.
const MOVED: u64 = (1 << 32) - 1;
/// The movers in flight, below the epoch.
const IN_FLIGHT: u64 = MOVED;
/// Where the mask of a block counts lowerings: above its nine orders, below the table's owner.
const COUNT_BLOCK: u64 = (1 << 32) - (1 << PAGE_LEVELS);
/// Where the mask of a region counts lowerings: above its 18 orders.
const COUNT_REGION: u64 = !((1 << Order::REGION.as_u8()) - 1);
/// The orders that live in tables.
const ORDERS_PAGE: u64 = (1 << PAGE_LEVELS) - 1;
/// The orders that live in regions.
const ORDERS_BLOCK: u64 = ((1 << Order::REGION.as_u8()) - 1) & !ORDERS_PAGE;

/// Somebody who hides free space for a moment: a split, a merge, a claim of several words, the
/// lowering of a hint.
pub(super) struct Mover<'a>(&'a AtomicU64);

impl<'a> Mover<'a> {
    fn begin(word: &'a AtomicU64) -> Self {
        // ORDERING(mover): Relaxed, in front of the fence.
        word.fetch_add(1, Ordering::Relaxed);
        // ORDERING(mover): Release half; whoever sees something hidden can see the count.
        fence(Ordering::Release);
        Self(word)
    }
}

impl Drop for Mover<'_> {
    fn drop(&mut self) {
        // ORDERING(mover): Release half; whoever sees the new epoch sees what was hidden again.
        self.0.fetch_add(MOVED, Ordering::Release);
    }
}

/// A sum of mover words at one time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Epoch(u64);

impl Epoch {
    /// Returns whether nobody but the caller, with `own` moves, moved anything since.
    pub(super) const fn is_quiet_until(self, later: Self, own: u32) -> bool {
        self.0 & IN_FLIGHT == 0 && later.0 == self.0.wrapping_add((own as u64) << 32)
    }
}

impl<'a> Index<'a> {
    /// Announces a move in `region`.
    pub(super) fn begin_move(&self, region: Region) -> Mover<'a> {
        self.moves.set(self.moves.get().wrapping_add(1));
        Mover::begin(self.meta.mover(region.0))
    }

    /// Announces a move that may hide pages of any region.
    pub(super) fn begin_move_anywhere(&self) -> Mover<'a> {
        self.moves.set(self.moves.get().wrapping_add(1));
        Mover::begin(self.meta.mover_of_all())
    }

    /// Returns the sum of the mover words.
    pub(super) fn epoch(&self) -> Epoch {
        self.epoch_of(0..self.meta.nr_movers())
    }

    /// Returns the sum of the mover words that concern `region`.
    pub(super) fn epoch_of_region(&self, region: Region) -> Epoch {
        self.epoch_of(region.0..region.0 + 1)
    }

    fn epoch_of(&self, shards: core::ops::Range<usize>) -> Epoch {
        // ORDERING(mover): Acquire half, behind a search; if it saw something hidden, the count is
        // seen, too.
        fence(Ordering::Acquire);
        // ORDERING(mover): Acquire half, in front of a search.
        let anywhere = self.meta.mover_of_all().load(Ordering::Acquire);
        Epoch(shards.fold(anywhere, |sum, shard| {
            // ORDERING(mover): Acquire half, in front of a search.
            sum.wrapping_add(self.meta.mover(shard).load(Ordering::Acquire))
        }))
    }

    /// Does what a free of some pages owes: merges a full block, or raises hints.
    #[inline]
    pub(super) fn settle_block(
        &self,
        block: Block,
        table: Table<'_>,
        piece: Piece,
        freed: line::Freed,
    ) {
        if owes_after_free(table, freed) {
            self.settle_owed(block, table, piece, freed);
        }
    }

    /// Does what a free owes, if it [owes](owes_after_free) something.
    #[cold]
    pub(super) fn settle_owed(
        &self,
        block: Block,
        table: Table<'_>,
        piece: Piece,
        freed: line::Freed,
    ) {
        if grows_ample(table, freed) {
            self.mark_ample(block);
        }
        if freed.now != u64::MAX && Mask::of_block(table).has(ORDERS_PAGE) {
            return;
        }
        match line::run_order(table.free(), piece.bit) {
            Some(PAGE_LEVELS) => self.merge_block(block, table),
            found => self.raise_block(block, table, orders_around(piece, found)),
        }
    }

    /// Does what a free of some blocks owes: merges a full region, or raises hints.
    #[inline]
    pub(super) fn settle_region(&self, region: Region, piece: Piece, freed: line::Freed) {
        if !seeded!(NeitherCoalesces) {
            // ORDERING(free-look): the free bits are set before the neighbours and the hints are
            // read.
            fence_after_rmw(Ordering::SeqCst);
        }
        if freed.now == u64::MAX || !self.region_mask(region).has(ORDERS_BLOCK) {
            self.settle_region_slowly(region, piece);
        }
    }

    #[cold]
    fn settle_region_slowly(&self, region: Region, piece: Piece) {
        match line::run_order(self.meta.region(region, RegionLine::Free), piece.bit) {
            Some(PAGE_LEVELS) => self.merge_region(region),
            found => self.raise_region(region, orders_around(piece, found) << PAGE_LEVELS),
        }
    }

    /// Raises the hints of `orders` on the way to a block, where they are not yet.
    ///
    /// The free bits are set, and behind a fence.
    pub(super) fn raise_block(&self, block: Block, table: Table<'_>, orders: u64) {
        let (region, bit) = self.meta.geometry().place(block);
        Mask::of_block(table).raise(orders, |missing| {
            for order in set_bits(missing) {
                let hints = self.meta.region(region, RegionLine::Hint(order));
                // ORDERING: Relaxed. The free bits are behind a fence, the mask is behind this.
                hints.words()[bit / WORD_BITS].fetch_or(1 << (bit % WORD_BITS), Ordering::Relaxed);
            }
            // ORDERING(free-look): the bitmap is set before the region's mask is read.
            fence(Ordering::SeqCst);
            self.raise_region(region, missing);
        });
    }

    /// Raises the hints of `orders` on the way to a region, where they are not yet.
    ///
    /// What they point at is set, and behind a fence.
    pub(super) fn raise_region(&self, region: Region, orders: u64) {
        self.region_mask(region).raise(orders, |missing| {
            for order in set_bits(missing) {
                let (word, bit) = self.meta.root_bit(RootMap::Hint(order), region);
                // ORDERING: Relaxed. The free bits are behind a fence, the mask is behind this.
                word.fetch_or(bit, Ordering::Relaxed);
            }
        });
    }

    /// Lowers the hint of `order` to a block in which there is no such run.
    pub(super) fn lower_block(&self, block: Block, table: Table<'_>, order: u8) {
        if line::has_run(table.free(), order) {
            return;
        }
        let (region, bit) = self.meta.geometry().place(block);
        let _mover = self.begin_move(region);
        let hints = self.meta.region(region, RegionLine::Hint(order));
        // ORDERING: Relaxed. The mask comes behind it.
        hints.words()[bit / WORD_BITS].fetch_and(!(1 << (bit % WORD_BITS)), Ordering::Relaxed);
        Mask::of_block(table).lower(order);
        // ORDERING(free-look): the hints are lowered before the free bits are read again.
        fence(Ordering::SeqCst);
        let orders = line::orders(table.free());
        if orders >> order & 1 == 1 && !seeded!(HintClearedAfterRefill) {
            self.raise_block(block, table, orders);
        }
    }

    /// Lowers the hint of `order` to a region in which there is no such run.
    pub(super) fn lower_region(&self, region: Region, order: u8) {
        if self.may_have_run(region, order) {
            return;
        }
        let _mover = self.begin_move(region);
        let (word, bit) = self.meta.root_bit(RootMap::Hint(order), region);
        // ORDERING: Relaxed. The mask comes behind it.
        word.fetch_and(!bit, Ordering::Relaxed);
        self.region_mask(region).lower(order);
        // ORDERING(free-look): the hints are lowered before the free bits are read again.
        fence(Ordering::SeqCst);
        if self.may_have_run(region, order) && !seeded!(HintClearedAfterRefill) {
            self.raise_region(region, 1 << order);
        }
    }

    #[inline]
    fn region_mask(&self, region: Region) -> Mask<'a> {
        Mask { word: self.meta.region_hints(region), count: COUNT_REGION }
    }

    /// Returns whether a search for `order` has to look into `region`.
    fn may_have_run(&self, region: Region, order: u8) -> bool {
        if order < PAGE_LEVELS {
            return !line::is_empty(self.meta.region(region, RegionLine::Hint(order)));
        }
        line::has_run(self.meta.region(region, RegionLine::Free), order - PAGE_LEVELS)
    }

    /// Raises what a block has to offer that was just opened for a piece of at most half of it.
    pub(super) fn announce_opened_block(&self, block: Block, table: Table<'_>) {
        // ORDERING(free-look): the free bits are set before the hints are read.
        fence(Ordering::SeqCst);
        self.raise_block(block, table, ORDERS_PAGE);
        self.mark_ample(block);
    }

    /// Raises what a region has to offer that was just opened for a piece of at most half of it.
    pub(super) fn announce_opened_region(&self, region: Region) {
        // ORDERING(free-look): the free bits are set before the hints are read.
        fence(Ordering::SeqCst);
        self.raise_region(region, ORDERS_BLOCK);
    }

    /// Raises what a block has to offer.
    pub(super) fn announce_block(&self, block: Block, table: Table<'_>) {
        // ORDERING(free-look): the free bits are set before the hints are read.
        fence(Ordering::SeqCst);
        self.raise_block(block, table, line::orders(table.free()) & ORDERS_PAGE);
    }

    /// Raises what a region has to offer.
    pub(super) fn announce_region(&self, region: Region) {
        // ORDERING(free-look): the free bits are set before the hints are read.
        fence(Ordering::SeqCst);
        let orders = line::orders(self.meta.region(region, RegionLine::Free));
        self.raise_region(region, orders << PAGE_LEVELS);
    }
}

/// Returns whether somebody who freed pages of a block has more to do; passes the fence that every
/// free ends with.
#[inline]
pub(super) fn owes_after_free(table: Table<'_>, freed: line::Freed) -> bool {
    if !seeded!(NeitherCoalesces) {
        // ORDERING(free-look): the free bits are set before the neighbours and the hints are read.
        fence_after_rmw(Ordering::SeqCst);
    }
    freed.now == u64::MAX || grows_ample(table, freed) || !Mask::of_block(table).has(ORDERS_PAGE)
}

/// The orders that a node may have runs of, and how often one of them was lowered.
///
/// # Invariants
///
/// 1. While an order is in the mask, its bit in the bitmap above is raised, or a mover lowered it
///    and is about to take the order out of the mask.
#[derive(Clone, Copy)]
pub(super) struct Mask<'a> {
    word: &'a AtomicU64,
    /// The bits that count the lowerings; the orders are below them.
    count: u64,
}

impl<'a> Mask<'a> {
    #[inline]
    pub(super) fn of_block(table: Table<'a>) -> Self {
        Self { word: table.hints(), count: COUNT_BLOCK }
    }

    /// Returns whether all of these orders are in the mask.
    #[inline]
    fn has(self, orders: u64) -> bool {
        // ORDERING(hint): Acquire half, as in `raise`.
        orders & !self.word.load(Ordering::Acquire) == 0
    }

    /// Adds the `orders` that are missing, after `above_fn` raised their bits above.
    pub(super) fn raise(self, orders: u64, above_fn: impl Fn(u64)) {
        // Ends: a turn is repeated only when another CPU raised or lowered an order.
        loop {
            // ORDERING(hint): Acquire half; an order that is there has its bits above, and what
            // was lowered above an order that is not there was lowered before this raises it.
            let seen = self.word.load(Ordering::Acquire);
            let missing = orders & !seen;
            if missing == 0 {
                return;
            }
            above_fn(missing);
            // ORDERING(hint): Release half; the bits above come first.
            // INVARIANT: 1. Nobody took an order out since the look, by the count, so whoever
            // lowered the bits above after they were raised has yet to take the order out.
            let next = seen | missing;
            let raised =
                self.word.compare_exchange(seen, next, Ordering::Release, Ordering::Relaxed);
            if raised.is_ok() {
                return;
            }
        }
    }

    /// Takes an order out whose bit above was just lowered.
    fn lower(self, order: u8) {
        let one = self.count & self.count.wrapping_neg();
        // ORDERING: Relaxed for the look; only a successful exchange counts.
        // ORDERING(hint): Release half; who misses the order sees its bit above lowered.
        let _ = self.word.fetch_update(Ordering::Release, Ordering::Relaxed, |seen| {
            let count = seen.wrapping_add(one) & self.count;
            Some(seen & !self.count & !(1 << order) | count)
        });
    }
}

/// Returns the orders that a piece that was just freed may offer, where a look at its first bit
/// found a free run of the order `found` around it.
///
/// Part of the piece may be gone by the time of the look, its first bit perhaps; then what is left
/// of it are runs of lower orders than its own.
fn orders_around(piece: Piece, found: Option<u8>) -> u64 {
    match found {
        Some(order) if piece.order <= order => (2 << order) - 1,
        _ => (1 << piece.order) - 1,
    }
}

/// Yields the orders whose bits are set.
fn set_bits(mut orders: u64) -> impl Iterator<Item = u8> {
    core::iter::from_fn(move || {
        let order = orders.trailing_zeros() as u8;
        orders &= orders.checked_sub(1)?;
        Some(order)
    })
}
