//! The search for a run of some order: address-ordered first fit, opened before whole.
//!
//! A run below order 9 is looked for in the block that the CPU used last, then in opened blocks,
//! then in whole blocks of opened regions, then in whole regions; from order 9 on one level less.
//! Fragmented memory is used up before whole memory is broken, from low addresses to high ones:
//! next-fit and LIFO orders lose every large run after a while, this one loses none.
//!
//! An answer of "nowhere" holds only if no mover was under way: see [`super::hints`].
#![expect(
    clippy::arithmetic_side_effects,
    reason = "bits are below 512, orders at most 18, heads inside the extent"
)]

use core::cell::Cell;

use super::ample::IS_MODEL;
use super::bits::{ORDER_WORD, between};
use super::index::{Contents, Index, Piece, Taken, is_clean_piece};
use super::line::{self, Claim, Wish};
use super::request::Content;
use super::want::Want;
use crate::meta::{
    BLOCK_PAGES, Block, MetaLine, PAGE_LEVELS, REGION_BLOCKS, Region, RegionLine, RootMap, Table,
    WORD_BITS,
};
use crate::sync::{Ordering, spin_loop};
use crate::units::{Order, Pfn};

mod tables;

/// How often a search is repeated because of movers before it answers "contended".
pub(super) const RETRIES: usize = if cfg!(all(test, loom)) { 2 } else { 64 };
/// Up to so many movers, reading their epoch costs less than searching twice.
const EPOCH_CHEAP: usize = 2;
/// How many lines a search looks at for its preferred content before it takes any.
const PREFER_LINES: u32 = 64;

/// A run that was found; it belongs to the caller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Grant {
    pub(crate) head: Pfn,
    pub(crate) is_clean: bool,
}

/// Why nothing was found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Miss {
    /// There is no such run.
    Exhausted,
    /// There is one, but in a block without a table, and the pool has none left.
    NoTables,
    /// There is one, but in a block without a table, and the caller asked not to take one.
    Fracture,
    /// Others kept moving free space about.
    Contended,
}

/// The content that a pass insists on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Only {
    Any,
    Clean,
    /// Clean as far as can be seen without taking it.
    LooksClean,
    Dirty,
}

impl Only {
    fn mask(self, clean: &MetaLine, index: usize) -> u64 {
        match self {
            Self::Any => u64::MAX,
            Self::Clean | Self::LooksClean => line::word(clean, index),
            Self::Dirty => !line::word(clean, index),
        }
    }
}

/// One pass over the index.
struct Pass<'s, 'a> {
    index: &'s Index<'a>,
    want: &'s Want,
    cpu: usize,
    only: Only,
    /// How many more lines this pass may look at.
    lines: Cell<u32>,
    /// Whether a table may be taken out of the pool.
    may_fracture: bool,
    /// Whether memory was passed over for want of a table.
    no_table: Cell<bool>,
    /// Whether something was given back that had become dirty between the look and the claim.
    is_late: Cell<bool>,
}

impl Index<'_> {
    /// Takes a run.
    ///
    /// # Errors
    ///
    /// [`Miss::Exhausted`] and [`Miss::NoTables`] are exact: no mover was under way. So is
    /// [`Miss::Fracture`], which is said instead of `NoTables` where `may_fracture` is false.
    pub(crate) fn claim(
        &self,
        want: &Want,
        content: Content,
        cpu: usize,
        may_fracture: bool,
    ) -> Result<Grant, Miss> {
        let (prefer, must) = match content {
            Content::Any => (None, Only::Any),
            Content::PreferClean => (Some(Only::LooksClean), Only::Any),
            Content::PreferDirty => (Some(Only::Dirty), Only::Any),
            Content::OnlyClean => (None, Only::Clean),
        };
        if let Some(only) = prefer {
            let pass = Pass::new(self, want, cpu, only, PREFER_LINES).fracturing(may_fracture);
            if let Some(grant) = pass.run() {
                return Ok(grant);
            }
        }
        if must == Only::Any && EPOCH_CHEAP < self.meta.nr_movers() {
            // Whoever finds something need not know who moves.
            let pass = Pass::new(self, want, cpu, must, u32::MAX).fracturing(may_fracture);
            if let Some(grant) = pass.run() {
                return Ok(grant);
            }
        }
        for _ in 0..RETRIES {
            let (before, moves) = (self.epoch(), self.moves.get());
            let pass = Pass::new(self, want, cpu, must, u32::MAX).fracturing(may_fracture);
            {
                // What turns out to be dirty is hidden until it is given back.
                let _mover = (must == Only::Clean).then(|| self.begin_move_anywhere());
                match pass.run() {
                    // The clean bits were read before the free ones were exchanged: the pages may
                    // have been somebody's in between.
                    Some(grant) if must == Only::Clean && !grant.is_clean => {
                        self.free(grant.head, want.order, Contents::AsWas);
                        pass.is_late.set(true);
                    }
                    Some(grant) => return Ok(grant),
                    None => {}
                }
            }
            let own = self.moves.get().wrapping_sub(moves);
            let is_quiet = before.is_quiet_until(self.epoch(), own);
            if !pass.is_late.get() && (is_quiet || seeded!(ExhaustedWhileMoving)) {
                return Err(match pass.no_table.get() {
                    false => Miss::Exhausted,
                    true if self.meta.tables_left() == 0 => Miss::NoTables,
                    true => Miss::Fracture,
                });
            }
            spin_loop();
        }
        Err(Miss::Contended)
    }

    /// Takes exactly the pages of `[head, head + 2^order)`.
    ///
    /// # Errors
    ///
    /// [`Miss::Exhausted`] if they are not all free, [`Miss::NoTables`] if their block would have
    /// to be fractured and cannot; exact, as for [`Index::claim`].
    pub(crate) fn claim_at(&self, head: Pfn, order: Order) -> Result<Grant, Miss> {
        let region = self.geometry().region_of(head);
        for _ in 0..RETRIES {
            let (before, moves) = (self.epoch_of_region(region), self.moves.get());
            let miss = match self.try_take(head, order) {
                Some(Taken::NoTable) => Miss::NoTables,
                Some(taken) => return Ok(Grant { head, is_clean: taken == Taken::Clean }),
                None => Miss::Exhausted,
            };
            let own = self.moves.get().wrapping_sub(moves);
            let is_quiet = before.is_quiet_until(self.epoch_of_region(region), own);
            if is_quiet || seeded!(NotFreeWhileOpened) {
                return Err(miss);
            }
            spin_loop();
        }
        Err(Miss::Contended)
    }
}

impl<'s, 'a> Pass<'s, 'a> {
    const fn new(index: &'s Index<'a>, want: &'s Want, cpu: usize, only: Only, lines: u32) -> Self {
        Self {
            index,
            want,
            cpu,
            only,
            lines: Cell::new(lines),
            may_fracture: false,
            no_table: Cell::new(false),
            is_late: Cell::new(false),
        }
    }

    const fn fracturing(self, may_fracture: bool) -> Self {
        Self { may_fracture, ..self }
    }

    fn run(&self) -> Option<Grant> {
        let order = self.want.order.as_u8();
        if order < PAGE_LEVELS {
            return self
                .in_current_block()
                .or_else(|| self.in_ample_blocks())
                .or_else(|| self.in_opened_blocks(true))
                .or_else(|| self.in_whole_blocks())
                .or_else(|| self.in_opened_blocks(false))
                .or_else(|| self.in_whole_regions());
        }
        if order < Order::REGION.as_u8() {
            return self
                .in_current_region()
                .or_else(|| self.in_opened_regions(true))
                .or_else(|| self.in_whole_regions())
                .or_else(|| self.in_opened_regions(false));
        }
        self.in_whole_regions()
    }

    /// Returns whether the pass may look at no more lines.
    fn is_spent(&self) -> bool {
        self.lines.get() == 0
    }

    /// Returns whether the pass may look at one more line.
    fn may_look(&self) -> bool {
        let left = self.lines.get();
        self.lines.set(left.saturating_sub(1));
        left != 0
    }

    /// Returns the first bits that are wished for among `units` of `2^unit` pages from `head` on.
    fn bits(&self, head: Pfn, unit: u8, units: usize) -> (usize, usize) {
        let lo = self.want.lo.as_u64().saturating_sub(head.as_u64()) >> unit;
        let hi = self.want.hi.as_u64().saturating_sub(head.as_u64()) >> unit;
        let clamp = |bit| usize::try_from(bit).map_or(units - 1, |bit: usize| bit.min(units - 1));
        (clamp(lo), clamp(hi))
    }

    /// Returns the run to take out of units of `2^unit` pages that are all free.
    fn piece(&self, head: Pfn, unit: u8, units: usize) -> Piece {
        let (lo, hi) = self.bits(head, unit, units);
        let align = self.want.align.as_u8().saturating_sub(unit).min(PAGE_LEVELS);
        let bit = if self.want.is_down { hi & !((1 << align) - 1) } else { lo };
        Piece { bit, order: self.want.order.as_u8().saturating_sub(unit) }
    }

    fn wish(&self, head: Pfn, unit: u8, units: usize) -> Wish {
        let (lo, hi) = self.bits(head, unit, units);
        let order = self.want.order.as_u8().saturating_sub(unit);
        let align = self.want.align.as_u8().saturating_sub(unit);
        Wish { order, align, lo, hi, is_down: self.want.is_down }
    }

    /// Returns the regions in which a run may start.
    fn regions(&self) -> (usize, usize) {
        let geometry = self.index.geometry();
        (geometry.region_of(self.want.lo).0, geometry.region_of(self.want.hi).0)
    }

    /// Returns the blocks of a region in which a run may start, as bits.
    fn blocks(&self, region: Region) -> (usize, usize) {
        self.bits(self.index.geometry().region_head(region), PAGE_LEVELS, REGION_BLOCKS)
    }

    /// Returns whether the alignment lets a run start in this block.
    fn suits_block(&self, block: Block) -> bool {
        let head = self.index.geometry().block_head(block);
        head.is_aligned_to(self.want.align) || self.want.align <= Order::BLOCK
    }

    /// Calls `f` with the regions in question whose bit is set.
    fn find_region<T>(&self, map: RootMap, mut f: impl FnMut(Region) -> Option<T>) -> Option<T> {
        let (lo, hi) = self.regions();
        let meta = self.index.meta;
        let words = lo / WORD_BITS..=hi / WORD_BITS;
        let nr_words = words.clone().count();
        for step in 0..nr_words {
            let step = if self.want.is_down { nr_words - 1 - step } else { step };
            let index = words.start() + step;
            // ORDERING: Relaxed. Hints are one-sided; an exhausted search asks the epoch.
            let word = meta.root(map, index).load(Ordering::Relaxed);
            if word == 0 {
                continue;
            }
            let mut bits = word & between(index, lo, hi);
            // Ends: a bit is taken away on every turn.
            while let Some(bit) = super::bits::pick(bits, self.want.is_down) {
                if self.is_spent() {
                    return None;
                }
                bits &= !(1 << bit);
                let region = Region(index * WORD_BITS + bit);
                // A hint says nothing about whether the region's words were cleared.
                let is_hint = matches!(map, RootMap::Hint(_) | RootMap::Ample);
                if is_hint && !meta.is_init(region) {
                    continue;
                }
                if let Some(answer) = f(region) {
                    return Some(answer);
                }
            }
        }
        None
    }

    // Below order 9.

    fn in_current_block(&self) -> Option<Grant> {
        let (block, table) = self.index.current_block(self.cpu)?;
        let geometry = self.index.geometry();
        let is_inside =
            geometry.block_of(self.want.lo) <= block && block <= geometry.block_of(self.want.hi);
        if !is_inside || !self.suits_block(block) {
            return None;
        }
        self.in_block(block, table)
    }

    /// Takes a page where there are several; see [`super::ample`].
    fn in_ample_blocks(&self) -> Option<Grant> {
        if self.want.order != Order::ZERO || self.only != Only::Any || IS_MODEL {
            return None;
        }
        let index = self.index;
        let grant = self.find_region(RootMap::Ample, |region| {
            let marks = index.meta.region(region, RegionLine::Ample);
            let grant = line::find_map(marks, self.blocks(region), self.want.is_down, |bit| {
                let block = index.geometry().block_at(region, bit);
                if !self.suits_block(block) || index.is_foreign_block(self.cpu, block) {
                    return None;
                }
                let table = index.meta.table_of(block)?;
                let grant = self.in_block(block, table);
                index.unmark_ample(block);
                if grant.is_some() {
                    index.note_ample(Some(table));
                }
                grant
            });
            if grant.is_none() {
                index.unmark_ample_region(region);
            }
            grant
        });
        if grant.is_none() {
            index.note_ample(None);
        }
        grant
    }

    fn in_opened_blocks(&self, is_polite: bool) -> Option<Grant> {
        let order = self.want.order.as_u8();
        let index = self.index;
        self.find_region(RootMap::Hint(order), |region| {
            let hints = index.meta.region(region, RegionLine::Hint(order));
            let grant = line::find_map(hints, self.blocks(region), self.want.is_down, |bit| {
                let block = index.geometry().block_at(region, bit);
                if self.is_spent() || !self.suits_block(block) {
                    return None;
                }
                if is_polite && index.is_foreign_block(self.cpu, block) {
                    return None;
                }
                let table = index.meta.table_of(block)?;
                let grant = self.in_block(block, table);
                if grant.is_none() {
                    index.lower_block(block, table, order);
                }
                grant
            });
            if grant.is_none() {
                index.lower_region(region, order);
            }
            grant
        })
    }

    /// Returns whether any run of the 512 units of `2^unit` pages from `head` on will do, the
    /// lowest one best, and lies within a word.
    fn is_plain(&self, head: Pfn, unit: u8) -> bool {
        let Want { order, align, lo, hi, is_down } = *self.want;
        let last = ((BLOCK_PAGES as u64) << unit) - order.nr_pages();
        self.only == Only::Any
            && !is_down
            && align == order
            && order.as_u8() <= unit + ORDER_WORD
            && lo <= head
            && head.checked_add(last).is_some_and(|last| last <= hi)
    }

    fn in_block(&self, block: Block, table: Table<'_>) -> Option<Grant> {
        if !self.may_look() {
            return None;
        }
        let index = self.index;
        let head = index.geometry().block_head(block);
        if self.is_plain(head, 0) {
            let order = self.want.order.as_u8();
            let bit = line::claim_lowest(table.free(), order)?;
            index.remember_block(self.cpu, block, table);
            let is_clean = is_clean_piece(table.clean(), Piece { bit, order });
            return Some(Grant { head: head.checked_add(bit as u64)?, is_clean });
        }
        let wish = self.wish(head, 0, BLOCK_PAGES);
        let (region, _) = index.geometry().place(block);
        let _mover = line::is_several_words(wish.order).then(|| index.begin_move(region));
        match line::claim(table.free(), &wish, |word| self.only.mask(table.clean(), word)) {
            Claim::Got(bit) => {
                index.remember_block(self.cpu, block, table);
                let is_clean = is_clean_piece(table.clean(), Piece { bit, order: wish.order });
                Some(Grant { head: head.checked_add(bit as u64)?, is_clean })
            }
            Claim::Undone => {
                index.settle_undone_block(block, table);
                None
            }
            Claim::Miss => None,
        }
    }

    /// Takes a whole block of an opened region, and opens it.
    fn in_whole_blocks(&self) -> Option<Grant> {
        if seeded!(SkipsOrder) && self.want.order.as_u8() == 4 {
            return None;
        }
        let index = self.index;
        self.find_region(RootMap::Hint(PAGE_LEVELS), |region| {
            if !self.may_look() {
                return None;
            }
            let (lo, hi) = self.blocks(region);
            let align = self.want.align.as_u8().saturating_sub(PAGE_LEVELS);
            let wish = Wish { order: 0, align, lo, hi, is_down: self.want.is_down };
            let free = index.meta.region(region, RegionLine::Free);
            let clean = index.meta.region(region, RegionLine::Clean);
            let owned = index.meta.region(region, RegionLine::Table);

            let _mover = index.begin_move(region);
            let mut claim = line::claim(free, &wish, |word| {
                line::word(owned, word) & self.only.mask(clean, word)
            });
            if claim == Claim::Miss && self.has_tables() {
                claim = line::claim(free, &wish, |word| self.only.mask(clean, word));
            }
            let Claim::Got(bit) = claim else {
                self.note_table_miss(region);
                index.lower_region(region, PAGE_LEVELS);
                return None;
            };
            let whole = Piece { bit, order: 0 };
            let is_clean = is_clean_piece(clean, whole);
            let block = index.geometry().block_at(region, bit);
            let grant = self.if_suitable(is_clean).and_then(|()| self.open(block, is_clean));
            if grant.is_none() {
                index.free_blocks(region, whole, Contents::AsWas);
            }
            grant
        })
    }

    /// Returns `None`, and takes note, if what this pass took is not what it insists on any more.
    fn if_suitable(&self, is_clean: bool) -> Option<()> {
        if is_clean || self.only != Only::Clean {
            return Some(());
        }
        self.is_late.set(true);
        None
    }

    /// Opens a block that this pass took, and keeps a run of it; `None` if there is no table.
    fn open(&self, block: Block, is_clean: bool) -> Option<Grant> {
        let index = self.index;
        let Some(table) = index.meta.assign_table(block) else {
            self.no_table.set(true);
            return None;
        };
        let head = index.geometry().block_head(block);
        let piece = self.piece(head, 0, BLOCK_PAGES);
        index.open_block(block, table, piece, is_clean);
        index.remember_block(self.cpu, block, table);
        Some(Grant { head: head.checked_add(piece.bit as u64)?, is_clean })
    }

    // From order 9 on.

    fn in_current_region(&self) -> Option<Grant> {
        let region = self.index.current_region(self.cpu)?;
        let (lo, hi) = self.regions();
        let is_inside = lo <= region.0 && region.0 <= hi;
        if is_inside { self.in_region(region) } else { None }
    }

    fn in_opened_regions(&self, is_polite: bool) -> Option<Grant> {
        let order = self.want.order.as_u8();
        self.find_region(RootMap::Hint(order), |region| {
            if is_polite && self.index.is_foreign_region(self.cpu, region) {
                return None;
            }
            let grant = self.in_region(region);
            if grant.is_none() {
                self.index.lower_region(region, order);
            }
            grant
        })
    }

    fn in_region(&self, region: Region) -> Option<Grant> {
        let index = self.index;
        if !self.may_look() || !index.meta.is_init(region) {
            return None;
        }
        let head = index.geometry().region_head(region);
        let wish = self.wish(head, PAGE_LEVELS, REGION_BLOCKS);
        let free = index.meta.region(region, RegionLine::Free);
        let clean = index.meta.region(region, RegionLine::Clean);
        let _mover = line::is_several_words(wish.order).then(|| index.begin_move(region));
        match line::claim(free, &wish, |word| self.only.mask(clean, word)) {
            Claim::Got(bit) => {
                index.remember_region(self.cpu, region);
                let is_clean = is_clean_piece(clean, Piece { bit, order: wish.order });
                Some(Grant { head: head.checked_add((bit as u64) << PAGE_LEVELS)?, is_clean })
            }
            Claim::Undone => {
                index.settle_undone_region(region);
                None
            }
            Claim::Miss => None,
        }
    }

    /// Takes a whole region, and opens it unless all of it is wanted.
    fn in_whole_regions(&self) -> Option<Grant> {
        let index = self.index;
        self.find_region(RootMap::Free, |region| {
            let is_page = self.want.order < Order::BLOCK;
            if !self.suits_content(region) || is_page && !self.suits_tables(region) {
                return None;
            }
            let _mover = (self.want.order < Order::REGION).then(|| index.begin_move(region));
            if !index.take_region(region) {
                return None;
            }
            index.meta.init_region(region);
            let is_clean = index.is_clean_region(region);
            let head = index.geometry().region_head(region);
            if self.if_suitable(is_clean).is_none() {
                index.free_region(region, Contents::AsWas);
                return None;
            }
            if self.want.order == Order::REGION {
                return Some(Grant { head, is_clean });
            }
            if !is_page {
                let piece = self.piece(head, PAGE_LEVELS, REGION_BLOCKS);
                index.open_region(region, piece, is_clean);
                index.remember_region(self.cpu, region);
                let offset = (piece.bit as u64) << PAGE_LEVELS;
                return Some(Grant { head: head.checked_add(offset)?, is_clean });
            }
            let grant = self.block_to_open(region).map(|bit| {
                index.open_region(region, Piece { bit, order: 0 }, is_clean);
                let block = index.geometry().block_at(region, bit);
                let grant = self.open(block, is_clean);
                if grant.is_none() {
                    index.free_blocks(region, Piece { bit, order: 0 }, Contents::AsWas);
                }
                grant
            });
            grant.unwrap_or_else(|| {
                // Its last table was taken meanwhile.
                self.no_table.set(true);
                index.free_region(region, Contents::AsWas);
                None
            })
        })
    }

    fn suits_content(&self, region: Region) -> bool {
        let (word, bit) = self.index.meta.root_bit(RootMap::Clean, region);
        // ORDERING: Relaxed. What the region is like is known for sure once it is taken; the
        // search for clean memory only has to find what was clean all the time.
        let is_clean = word.load(Ordering::Relaxed) & bit != 0;
        match self.only {
            Only::Any => true,
            Only::Clean | Only::LooksClean => is_clean,
            Only::Dirty => !is_clean,
        }
    }
}
