//! At hand: the shortest way to a run, where this CPU took the last one.
//!
//! Most allocations end here, on the line of free bits and the line of the state word. What is
//! remembered of a CPU is a matter of speed and politeness alone: it may be stale, or another's.
#![expect(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "bits are below 512, orders below 18, heads inside the extent"
)]

use super::bits::{ORDER_WORD, between};
use super::index::Index;
use super::line;
use super::search::Grant;
use crate::meta::word::Word;
use crate::meta::{Block, CPUS, Meta, PAGE_LEVELS, Region, RegionLine, RootMap, Table, WORD_BITS};
use crate::sync::Ordering;
use crate::units::{Order, Pfn};

/// The table of the block in question is above its number.
const TABLE_SHIFT: u32 = 32;
const PLACE: u64 = (1 << TABLE_SHIFT) - 1;

impl<'a> Index<'a> {
    /// Takes a run that is at hand, and returns the state word of its head, too.
    ///
    /// `None` says nothing about free space.
    #[inline(always)]
    pub(crate) fn claim_at_hand(&self, order: Order, cpu: usize) -> Option<(Grant, Word<'a>)> {
        if order.as_u8() <= ORDER_WORD {
            self.pages_at_hand(order.as_u8(), cpu)
        } else {
            self.blocks_at_hand(order, cpu)
        }
    }

    #[inline(always)]
    fn pages_at_hand(&self, order: u8, cpu: usize) -> Option<(Grant, Word<'a>)> {
        let (block, table) = self.current_block(cpu)?;
        let clean = table.clean();
        let bit = line::claim_lowest(table.free(), order)?;
        let is_clean = line::is_set_in_word(clean, bit, order);
        let head = self.geometry().block_head(block).checked_add(bit as u64)?;
        Some((Grant { head, is_clean }, table.word(bit)))
    }

    #[inline(always)]
    fn blocks_at_hand(&self, order: Order, cpu: usize) -> Option<(Grant, Word<'a>)> {
        if order == Order::REGION {
            return self.region_at_hand();
        }
        // Runs of several words are looked for by a mover.
        let order = order.as_u8().checked_sub(PAGE_LEVELS).filter(|&it| it <= ORDER_WORD)?;
        let region = self.current_region(cpu)?;
        let clean = self.meta.region(region, RegionLine::Clean);
        let bit = line::claim_lowest(self.meta.region(region, RegionLine::Free), order)?;
        let is_clean = line::is_set_in_word(clean, bit, order);
        // Only corrupt metadata leads to a block that the extent does not have; then it leaks.
        let (first, last) = self.geometry().region_bits(region);
        if bit < first || last < bit {
            return None;
        }
        let block = self.geometry().block_at(region, bit);
        let head = self.geometry().block_head(block);
        Some((Grant { head, is_clean }, self.meta.slot(block)))
    }

    /// Whole regions are always at hand.
    fn region_at_hand(&self) -> Option<(Grant, Word<'a>)> {
        for index in 0..self.meta.root_words() {
            // ORDERING: Relaxed. `take_region` decides.
            let free = self.meta.root(RootMap::Free, index).load(Ordering::Relaxed);
            if free == 0 {
                continue;
            }
            let region = Region(index * WORD_BITS + free.trailing_zeros() as usize);
            if self.take_region(region) {
                self.meta.init_region(region);
                let is_clean = self.is_clean_region(region);
                let head = self.geometry().region_head(region);
                let word = self.meta.slot(self.geometry().block_of(head));
                return Some((Grant { head, is_clean }, word));
            }
        }
        None
    }

    /// Returns the block in which a CPU took the last pages, and its table.
    #[inline(always)]
    pub(super) fn current_block(&self, cpu: usize) -> Option<(Block, Table<'a>)> {
        let current = self.current(cpu, 0);
        let block = (current & PLACE).checked_sub(1)?;
        // Corrupt metadata must not lead out of the extent.
        let block = Block(block as usize);
        if self.geometry().nr_blocks() <= block.0 && !seeded!(CorruptPlace) {
            return None;
        }
        Some((block, self.meta.table_known(block, (current >> TABLE_SHIFT) as u32)?))
    }

    /// Returns the region in which a CPU took the last blocks.
    #[inline]
    pub(super) fn current_region(&self, cpu: usize) -> Option<Region> {
        let region = Region(self.current(cpu, 1).checked_sub(1)? as usize);
        // As for a block.
        let is_inside = region.0 < self.geometry().nr_regions();
        (is_inside && self.meta.is_init(region)).then_some(region)
    }

    pub(super) fn remember_block(&self, cpu: usize, block: Block, table: Table<'_>) {
        let table = u64::from(table.index()) << TABLE_SHIFT;
        self.remember(cpu, 0, table | (block.0 as u64 + 1));
    }

    pub(super) fn remember_region(&self, cpu: usize, region: Region) {
        self.remember(cpu, 1, region.0 as u64 + 1);
    }

    /// Forgets where CPUs took their last runs: a table may be another block's after a restore.
    #[cfg(any(test, feature = "model"))]
    pub(super) fn forget_places(&self) {
        for cpu in 0..CPUS {
            self.remember(cpu, 0, 0);
            self.remember(cpu, 1, 0);
        }
    }

    /// Returns whether another CPU takes pages in this block.
    pub(super) fn is_foreign_block(&self, cpu: usize, block: Block) -> bool {
        self.is_foreign(cpu, 0, block.0 as u64 + 1)
    }

    /// Returns whether another CPU takes blocks in this region.
    pub(super) fn is_foreign_region(&self, cpu: usize, region: Region) -> bool {
        self.is_foreign(cpu, 1, region.0 as u64 + 1)
    }

    #[inline]
    fn current(&self, cpu: usize, level: usize) -> u64 {
        // ORDERING: Relaxed. Only where to look first.
        self.meta.current(cpu, level).load(Ordering::Relaxed)
    }

    fn remember(&self, cpu: usize, level: usize, value: u64) {
        let current = self.meta.current(cpu, level);
        // ORDERING: Relaxed. Only where to look first.
        let old = current.load(Ordering::Relaxed);
        if old != value {
            // ORDERING: Relaxed. Only where to look first.
            current.store(value, Ordering::Relaxed);
        }
        if old == 0 {
            // ORDERING: Relaxed. Only a matter of politeness.
            self.meta.cpus_seen().fetch_or(1 << (cpu % CPUS), Ordering::Relaxed);
        }
    }

    fn is_foreign(&self, cpu: usize, level: usize, place: u64) -> bool {
        // ORDERING: Relaxed. Only a matter of politeness.
        let mut others = self.meta.cpus_seen().load(Ordering::Relaxed) & !(1 << (cpu % CPUS));
        // Ends: a bit is taken away on every turn.
        while others != 0 {
            let other = others.trailing_zeros() as usize;
            others &= others - 1;
            if self.current(other, level) & PLACE == place {
                return true;
            }
        }
        false
    }
}

/// The units that one word of free bits is about, from the lowest free one on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handful<'a> {
    /// The head of the first.
    pub(crate) head: Pfn,
    /// How many there are, at most 64; the next ones may be in another table.
    pub(crate) nr: u32,
    units: Units<'a>,
}

/// Where the state words of a handful are.
#[derive(Clone, Copy, Debug)]
enum Units<'a> {
    /// Pages of a block, from this one on.
    Pages(Table<'a>, usize),
    /// Blocks, from this one on.
    Blocks(&'a Meta, Block),
}

impl<'a> Handful<'a> {
    /// Returns the state word and the head of the unit `index`, which has the order that the
    /// handful was claimed with.
    #[inline]
    pub(crate) fn unit(&self, index: u32, order: Order) -> Option<(Word<'a>, Pfn)> {
        let word = match self.units {
            Units::Pages(table, first) => table.word(first + index as usize),
            Units::Blocks(meta, first) => meta.slot(Block(first.0 + index as usize)),
        };
        Some((word, self.head.checked_add(u64::from(index) << order.as_u8())?))
    }
}

impl<'a> Index<'a> {
    /// Takes all that is free of a word at hand, of pages or of blocks: the units, those that are
    /// taken, and those of them that are clean.
    pub(crate) fn claim_handful(
        &self,
        order: Order,
        cpu: usize,
    ) -> Option<(Handful<'a>, u64, u64)> {
        let (head, units, taken, clean) = if order == Order::ZERO {
            let (block, table) = self.current_block(cpu)?;
            let (index, taken) = line::claim_word(table.free())?;
            let first = index * WORD_BITS + taken.trailing_zeros() as usize;
            let head = self.geometry().block_head(block).checked_add(first as u64)?;
            (head, Units::Pages(table, first), taken, line::word(table.clean(), index))
        } else if order == Order::BLOCK {
            let region = self.current_region(cpu)?;
            let (index, taken) = line::claim_word(self.meta.region(region, RegionLine::Free))?;
            // What the extent does not have leaks.
            let (first, last) = self.geometry().region_bits(region);
            let taken = taken & between(index, first, last);
            if taken == 0 {
                return None;
            }
            let bit = index * WORD_BITS + taken.trailing_zeros() as usize;
            let first = self.geometry().block_at(region, bit);
            let clean = line::word(self.meta.region(region, RegionLine::Clean), index);
            (self.geometry().block_head(first), Units::Blocks(self.meta, first), taken, clean)
        } else {
            return None;
        };
        let lowest = taken.trailing_zeros();
        let handful = Handful { head, nr: u64::BITS - lowest, units };
        Some((handful, taken >> lowest, (clean & taken) >> lowest))
    }
}
