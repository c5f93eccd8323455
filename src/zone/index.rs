//! The free-space index of one extent: what is free lives at exactly one level.
//!
//! A region that is whole and free is one bit of the root; opened, its free blocks are bits of its
//! line; an opened block's free pages are bits of the line of its fracture table. Every lower bit
//! of what is free as a whole, or handed out, is zero. Bits next to each other *are* merged, so
//! there are no lists, and what is handed out has no order here.
//!
//! Opening: take the bit above, store the bits below without one's own piece, raise the hints.
//! Merging: take all bits below, set the bit above, raise the hints. Both are movers.
#![expect(
    clippy::arithmetic_side_effects,
    reason = "bits are below 512, words below eight, orders at most 18"
)]

use core::cell::Cell;

use super::bits::{ORDER_WORD, between, ones};
use super::hints::owes_after_free;
use super::line::{self, Claim};
use crate::meta::{
    BLOCK_PAGES, Block, Geometry, Meta, MetaLine, PAGE_LEVELS, REGION_BLOCKS, Region, RegionLine,
    RootMap, Table, WORD_BITS, page_bit,
};
use crate::sync::{AtomicU64, Ordering, fence, fence_after_rmw};
use crate::units::{Order, Pfn};

/// The index of one extent, for the length of one call.
#[derive(Debug)]
pub(crate) struct Index<'a> {
    pub(super) meta: &'a Meta,
    /// How often this call moved free space.
    pub(super) moves: Cell<u32>,
}

/// A piece of a line: what is left out when a block or a region is opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) bit: usize,
    pub(super) order: u8,
}

impl Piece {
    /// Returns the bits of the piece in the word `index`.
    pub(super) const fn mask(self, index: usize) -> u64 {
        between(index, self.bit, self.bit + (1 << self.order) - 1)
    }
}

impl<'a> Index<'a> {
    #[inline]
    pub(crate) const fn new(meta: &'a Meta) -> Self {
        Self { meta, moves: Cell::new(0) }
    }

    pub(crate) const fn geometry(&self) -> &'a Geometry {
        self.meta.geometry()
    }

    /// Makes all pages of a fresh extent free; the caller is alone.
    ///
    /// Returns false if the tables do not even suffice for the blocks that its ends cut through.
    pub(crate) fn attach(&self, is_clean: bool) -> bool {
        let geometry = self.geometry();
        if self.meta.nr_tables() < geometry.nr_cut_blocks() {
            return false;
        }
        self.meta.clear_heads();
        let last = geometry.nr_regions() - 1;
        for index in 0..self.meta.root_words() {
            let mut whole = between(index, 0, last);
            for cut in [Region(0), Region(last)] {
                if !geometry.is_whole_region(cut) && cut.0 / WORD_BITS == index {
                    whole &= !(1 << (cut.0 % WORD_BITS));
                }
            }
            // ORDERING: Relaxed. The extent is published later, as a whole.
            self.meta.root(RootMap::Free, index).store(whole, Ordering::Relaxed);
            let clean = if is_clean { whole } else { 0 };
            // ORDERING: Relaxed, as above.
            self.meta.root(RootMap::Clean, index).store(clean, Ordering::Relaxed);
        }
        self.attach_cut(Region(0), is_clean);
        if last != 0 {
            self.attach_cut(Region(last), is_clean);
        }
        true
    }

    /// Opens a region that an end of the extent cuts through.
    fn attach_cut(&self, region: Region, is_clean: bool) {
        let geometry = self.geometry();
        if geometry.is_whole_region(region) {
            return;
        }
        self.meta.init_region(region);
        let (first, last) = geometry.region_bits(region);
        let is_cut = |bit: usize| !geometry.is_whole_block(geometry.block_at(region, bit));
        let (lo, hi) = (first + usize::from(is_cut(first)), last + 1 - usize::from(is_cut(last)));
        let whole = |index| if lo < hi { between(index, lo, hi - 1) } else { 0 };
        line::store(self.meta.region(region, RegionLine::Clean), |index| {
            if is_clean { whole(index) } else { 0 }
        });
        line::store(self.meta.region(region, RegionLine::Free), whole);
        self.announce_region(region);

        for bit in [first, last] {
            let block = geometry.block_at(region, bit);
            if is_cut(bit) && self.meta.table_of(block).is_none() {
                self.attach_cut_block(block, is_clean);
            }
        }
    }

    fn attach_cut_block(&self, block: Block, is_clean: bool) {
        let geometry = self.geometry();
        let Some(table) = self.meta.assign_table(block) else {
            debug_assert!(false, "the tables were counted before");
            return;
        };
        let head = geometry.block_head(block);
        let range = geometry.range();
        let lo = range.start().offset_from(head).map_or(0, |_| page_bit(range.start()));
        let is_last = geometry.block_of(range.last()) == block;
        let hi = if is_last { page_bit(range.last()) } else { BLOCK_PAGES - 1 };
        line::store(table.clean(), |index| if is_clean { between(index, lo, hi) } else { 0 });
        line::store(table.free(), |index| between(index, lo, hi));
        self.announce_block(block, table);
    }

    /// Returns whether a block owns a table, also if the words of its region were never cleared.
    pub(crate) fn has_table(&self, block: Block) -> bool {
        let (region, _) = self.geometry().place(block);
        self.meta.is_init(region) && self.meta.table_of(block).is_some()
    }

    /// Gives the pages of a folio back; the caller holds them alone.
    ///
    /// On return, a `SeqCst` fence lies behind the free bits.
    #[inline]
    pub(crate) fn free(&self, head: Pfn, order: Order, after: Contents) {
        let geometry = self.geometry();
        let order = order.as_u8();
        if order == Order::REGION.as_u8() {
            self.free_region(geometry.region_of(head), after);
            return;
        }
        let block = geometry.block_of(head);
        if PAGE_LEVELS <= order {
            let (region, bit) = geometry.place(block);
            let piece = Piece { bit, order: order - PAGE_LEVELS };
            self.free_blocks(region, piece, after);
            return;
        }
        let Some(table) = self.meta.table_of(block) else {
            debug_intact!(false, "a folio below order 9 in a block without a table");
            return;
        };
        let piece = Piece { bit: page_bit(head), order };
        self.free_pages(block, table, piece, after);
    }

    /// Does as [`Index::free`] for somebody who searches nothing.
    ///
    /// What is rare is out of line, with arguments in registers: the locked instruction of a free
    /// waits for whatever was stored in front of it.
    #[inline]
    pub(crate) fn free_in(meta: &'a Meta, head: Pfn, order: Order, after: Contents) {
        let table = match meta.table_of(meta.geometry().block_of(head)) {
            Some(table) if order.as_u8() <= ORDER_WORD => table,
            _ => return Self::free_large(meta, head, order, after),
        };
        let (bit, run) = (page_bit(head), ones(page_bit(head), order.as_u8()));
        set_clean_bits(line::word_of(table.clean(), bit), run, after);
        let freed = line::free_in_word(line::word_of(table.free(), bit), run);
        if owes_after_free(table, freed) {
            Self::settle_in(meta, head, order, freed.old);
        }
    }

    #[inline(never)]
    fn free_large(meta: &'a Meta, head: Pfn, order: Order, after: Contents) {
        Self::new(meta).free(head, order, after);
    }

    /// Does what a free owes that left a word of free bits other than `old`.
    #[cold]
    #[inline(never)]
    fn settle_in(meta: &'a Meta, head: Pfn, order: Order, old: u64) {
        let block = meta.geometry().block_of(head);
        let Some(table) = meta.table_of(block) else { return };
        let piece = Piece { bit: page_bit(head), order: order.as_u8() };
        let freed = line::Freed { old, now: old | ones(piece.bit, piece.order) };
        Self::new(meta).settle_owed(block, table, piece, freed);
    }

    /// Forgets what the pages of a folio were like when they were taken: it has just grown to
    /// `order`, and the level below a whole block or region is all zero.
    pub(crate) fn forget_clean(&self, head: Pfn, order: Order) {
        let geometry = self.geometry();
        if order == Order::BLOCK {
            if let Some(table) = self.meta.table_of(geometry.block_of(head)) {
                line::store(table.clean(), |_| 0);
            }
        } else if order == Order::REGION {
            line::store(self.meta.region(geometry.region_of(head), RegionLine::Clean), |_| 0);
        }
    }

    #[inline]
    fn free_pages(&self, block: Block, table: Table<'_>, piece: Piece, after: Contents) {
        set_clean(table.clean(), piece, after);
        let freed = line::free(table.free(), piece.bit, piece.order);
        self.settle_block(block, table, piece, freed);
    }

    #[inline]
    pub(super) fn free_blocks(&self, region: Region, piece: Piece, after: Contents) {
        set_clean(self.meta.region(region, RegionLine::Clean), piece, after);
        let free = self.meta.region(region, RegionLine::Free);
        let freed = line::free(free, piece.bit, piece.order);
        self.settle_region(region, piece, freed);
    }

    #[inline]
    pub(super) fn free_region(&self, region: Region, after: Contents) {
        let (word, bit) = self.meta.root_bit(RootMap::Clean, region);
        set_clean_bits(word, bit, after);
        let (word, bit) = self.meta.root_bit(RootMap::Free, region);
        // ORDERING(free-before-claim): Release half.
        let old = word.fetch_or(bit, Ordering::Release);
        debug_intact!(old & bit == 0, "a free region is freed again");
        // ORDERING(dying): the other half, also of a merge; what is smaller than a region passes
        // the fence of `free-look`.
        fence_after_rmw(Ordering::SeqCst);
    }

    /// Does what an undone claim owes: hints of all orders, since others may have looked at any of
    /// the words that were taken, and a merge if the block is full.
    pub(super) fn settle_undone_block(&self, block: Block, table: Table<'_>) {
        if seeded!(UndoneUnhinted) {
            return;
        }
        // ORDERING(free-look): the free bits are set before the neighbours and the hints are read.
        fence(Ordering::SeqCst);
        self.merge_block(block, table);
    }

    /// Does what an undone claim of blocks owes.
    pub(super) fn settle_undone_region(&self, region: Region) {
        if seeded!(UndoneUnhinted) {
            return;
        }
        // ORDERING(free-look): the free bits are set before the neighbours and the hints are read.
        fence(Ordering::SeqCst);
        self.merge_region(region);
    }

    /// Makes a block whole again, if all its pages are still free; raises its hints if not.
    pub(super) fn merge_block(&self, block: Block, table: Table<'_>) {
        let (region, bit) = self.geometry().place(block);
        // Ends: a turn is repeated only when another CPU took a page of the full block and gave
        // it back before this one had undone its own part.
        while line::is_full(table.free()) {
            let mover = self.begin_move(region);
            match line::take_all(table.free()) {
                Ok(()) => {
                    let is_clean = line::is_full(table.clean())
                        || seeded!(CleanByOr) && !line::is_empty(table.clean());
                    line::store(table.clean(), |_| 0);
                    let whole = Piece { bit, order: 0 };
                    self.free_blocks(region, whole, Contents::clean_if(is_clean));
                    return;
                }
                Err(line::Busy::Undone) => self.announce_block(block, table),
                Err(line::Busy::Untouched) => {}
            }
            drop(mover);
        }
        // What was undone may have been seen as missing by whoever freed its neighbours.
        self.announce_block(block, table);
    }

    /// Makes a region whole again, if all its blocks are still free.
    pub(super) fn merge_region(&self, region: Region) {
        let free = self.meta.region(region, RegionLine::Free);
        // Ends: as in `merge_block`.
        while line::is_full(free) {
            let mover = self.begin_move(region);
            match line::take_all(free) {
                Ok(()) => {
                    let clean = self.meta.region(region, RegionLine::Clean);
                    let is_clean = line::is_full(clean);
                    line::store(clean, |_| 0);
                    self.free_region(region, Contents::clean_if(is_clean));
                    return;
                }
                Err(line::Busy::Undone) => self.announce_region(region),
                Err(line::Busy::Untouched) => {}
            }
            drop(mover);
        }
        self.announce_region(region);
    }

    /// Opens a block that the caller took as a whole, and keeps `piece` of it.
    ///
    /// The clean bits of the piece are stored too: they tell an undo what was there.
    pub(super) fn open_block(&self, block: Block, table: Table<'_>, piece: Piece, is_clean: bool) {
        let is_wrong = seeded!(RemainderTooLarge) && piece.order == 2;
        let piece = if is_wrong { Piece { order: 1, ..piece } } else { piece };
        line::store(table.clean(), |_| if is_clean { u64::MAX } else { 0 });
        line::store(table.free(), |index| !piece.mask(index));
        self.announce_opened_block(block, table);
    }

    /// Opens a region that the caller took as a whole, and keeps `piece` of it.
    pub(super) fn open_region(&self, region: Region, piece: Piece, is_clean: bool) {
        self.meta.init_region(region);
        line::store(self.meta.region(region, RegionLine::Clean), |_| {
            if is_clean { u64::MAX } else { 0 }
        });
        line::store(self.meta.region(region, RegionLine::Free), |index| !piece.mask(index));
        self.announce_opened_region(region);
    }

    /// Takes a region that is whole and free.
    ///
    /// The caller has announced a move if it is going to open it.
    #[inline]
    pub(super) fn take_region(&self, region: Region) -> bool {
        // Where corrupt metadata says that a region is free of which the extent has a part only,
        // or nothing, all of it would be handed out.
        let is_whole =
            region.0 < self.geometry().nr_regions() && self.geometry().is_whole_region(region);
        if !is_whole && !seeded!(CorruptRegion) {
            return false;
        }
        let (word, bit) = self.meta.root_bit(RootMap::Free, region);
        // ORDERING(free-before-claim): Acquire half.
        word.fetch_and(!bit, Ordering::Acquire) & bit != 0
    }

    /// Returns whether a region that the caller just took is clean.
    pub(super) fn is_clean_region(&self, region: Region) -> bool {
        let (word, bit) = self.meta.root_bit(RootMap::Clean, region);
        // ORDERING: Relaxed. The claim of the free bit acquired it.
        word.load(Ordering::Relaxed) & bit != 0
    }

    /// Takes exactly the pages of `[head, head + 2^order)`, if they are free at this moment.
    ///
    /// `None` may also be the fault of a mover; who has to know asks the epoch.
    pub(super) fn try_take(&self, head: Pfn, order: Order) -> Option<Taken> {
        let geometry = self.geometry();
        let region = geometry.region_of(head);
        if order == Order::REGION {
            return self.take_region(region).then(|| {
                self.meta.init_region(region);
                Taken::clean_if(self.is_clean_region(region))
            });
        }
        if !self.meta.is_init(region) {
            return self.take_by_opening_region(region, head, order);
        }
        let block = geometry.block_of(head);
        if PAGE_LEVELS <= order.as_u8() {
            let (_, bit) = geometry.place(block);
            let piece = Piece { bit, order: order.as_u8() - PAGE_LEVELS };
            return self
                .take_blocks(region, piece)
                .or_else(|| self.take_by_opening_region(region, head, order));
        }
        let piece = Piece { bit: page_bit(head), order: order.as_u8() };
        if let Some(table) = self.meta.table_of(block) {
            if let Some(taken) = self.take_pages(block, table, piece) {
                return Some(taken);
            }
        }
        self.take_by_opening_block(block, piece)
            .or_else(|| self.take_by_opening_region(region, head, order))
    }

    fn take_pages(&self, block: Block, table: Table<'_>, piece: Piece) -> Option<Taken> {
        let (region, _) = self.geometry().place(block);
        let _mover = (line::is_several_words(piece.order)).then(|| self.begin_move(region));
        match line::take(table.free(), piece.bit, piece.order) {
            Claim::Got(_) => Some(Taken::clean_if(is_clean_piece(table.clean(), piece))),
            Claim::Miss => None,
            Claim::Undone => {
                self.settle_undone_block(block, table);
                None
            }
        }
    }

    fn take_blocks(&self, region: Region, piece: Piece) -> Option<Taken> {
        let _mover = (line::is_several_words(piece.order)).then(|| self.begin_move(region));
        match line::take(self.meta.region(region, RegionLine::Free), piece.bit, piece.order) {
            Claim::Got(_) => {
                let clean = self.meta.region(region, RegionLine::Clean);
                Some(Taken::clean_if(is_clean_piece(clean, piece)))
            }
            Claim::Miss => None,
            Claim::Undone => {
                self.settle_undone_region(region);
                None
            }
        }
    }

    /// Takes a piece of a block that is whole and free, and opens it.
    fn take_by_opening_block(&self, block: Block, piece: Piece) -> Option<Taken> {
        let (region, bit) = self.geometry().place(block);
        if !line::is_set(self.meta.region(region, RegionLine::Free), bit) {
            return None;
        }
        if self.meta.table_of(block).is_none() && self.meta.tables_left() == 0 {
            return Some(Taken::NoTable);
        }
        let _mover = self.begin_move(region);
        let whole = Piece { bit, order: 0 };
        match line::take(self.meta.region(region, RegionLine::Free), bit, 0) {
            Claim::Got(_) => {}
            Claim::Miss | Claim::Undone => return None,
        }
        let is_clean = is_clean_piece(self.meta.region(region, RegionLine::Clean), whole);
        let Some(table) = self.meta.assign_table(block) else {
            self.free_blocks(region, whole, Contents::AsWas);
            return Some(Taken::NoTable);
        };
        self.open_block(block, table, piece, is_clean);
        Some(Taken::clean_if(is_clean))
    }

    /// Takes a piece of a region that is whole and free, and opens it.
    fn take_by_opening_region(&self, region: Region, head: Pfn, order: Order) -> Option<Taken> {
        let (word, bit) = self.meta.root_bit(RootMap::Free, region);
        // ORDERING: Relaxed. A look before the announcement; `take_region` decides.
        if word.load(Ordering::Relaxed) & bit == 0 {
            return None;
        }
        let block = self.geometry().block_of(head);
        let is_page = order.as_u8() < PAGE_LEVELS;
        if is_page && self.meta.tables_left() == 0 && !self.has_table(block) {
            return Some(Taken::NoTable);
        }
        let _mover = self.begin_move(region);
        if !self.take_region(region) {
            return None;
        }
        let is_clean = self.is_clean_region(region);
        let (_, bit) = self.geometry().place(block);
        if !is_page {
            let piece = Piece { bit, order: order.as_u8() - PAGE_LEVELS };
            self.open_region(region, piece, is_clean);
            return Some(Taken::clean_if(is_clean));
        }
        self.meta.init_region(region);
        let Some(table) = self.meta.assign_table(block) else {
            self.free_region(region, Contents::AsWas);
            return Some(Taken::NoTable);
        };
        self.open_region(region, Piece { bit, order: 0 }, is_clean);
        let piece = Piece { bit: page_bit(head), order: order.as_u8() };
        self.open_block(block, table, piece, is_clean);
        Some(Taken::clean_if(is_clean))
    }
}

/// What a claim by page found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Taken {
    /// The pages belong to the caller, and every byte of them is zero.
    Clean,
    /// The pages belong to the caller.
    Dirty,
    /// They are free, but their block has no table, and the pool none left.
    NoTable,
}

impl Taken {
    pub(super) const fn clean_if(is_clean: bool) -> Self {
        if is_clean { Self::Clean } else { Self::Dirty }
    }
}

/// What pages contain when they become free.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Contents {
    /// Anything.
    Dirty,
    /// Zeroes.
    Clean,
    /// What they contained when they were taken: nobody got to write to them.
    AsWas,
}

impl Contents {
    pub(super) const fn clean_if(is_clean: bool) -> Self {
        if is_clean { Self::Clean } else { Self::Dirty }
    }
}

/// Sets the clean bits of pages that the caller is about to free.
///
/// The bits of pages that are not free say what they were like when they were taken.
#[inline]
fn set_clean(line: &MetaLine, piece: Piece, after: Contents) {
    if piece.order <= ORDER_WORD {
        set_clean_bits(line::word_of(line, piece.bit), ones(piece.bit, piece.order), after);
    } else {
        set_clean_words(line, piece, after);
    }
}

#[cold]
fn set_clean_words(line: &MetaLine, piece: Piece, after: Contents) {
    let words = line::words_of(line, piece.bit, piece.order);
    words.for_each(|word| set_clean_bits(word, u64::MAX, after));
}

#[inline]
fn set_clean_bits(word: &AtomicU64, mask: u64, after: Contents) {
    // ORDERING: Relaxed. The bits belong to whoever holds the pages; the free bit publishes them.
    let clean = word.load(Ordering::Relaxed) & mask;
    match after {
        Contents::Dirty if clean != 0 => {
            // ORDERING: Relaxed, as above.
            word.fetch_and(!mask, Ordering::Relaxed);
        }
        Contents::Clean if clean != mask => {
            // ORDERING: Relaxed, as above.
            word.fetch_or(mask, Ordering::Relaxed);
        }
        _ => {}
    }
}

/// Returns whether all pages that the caller just took are clean.
#[inline]
pub(super) fn is_clean_piece(line: &MetaLine, piece: Piece) -> bool {
    // The claim of the free bits acquired the clean ones.
    line::has(line, piece.bit, piece.order)
}

const _: () = assert!(ones(0, 6) == u64::MAX && REGION_BLOCKS == BLOCK_PAGES);
