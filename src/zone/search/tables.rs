//! Searching with few fracture tables: which blocks can be opened, and what to say if none can.

use super::super::line;
use super::Pass;
use crate::meta::{Region, RegionLine, WORD_BITS};

impl Pass<'_, '_> {
    /// Returns whether a block without a table may be opened.
    pub(super) fn has_tables(&self) -> bool {
        self.may_fracture && self.index.meta.tables_left() != 0
    }

    /// Notes that whole blocks were passed over because the pool of tables is empty.
    pub(super) fn note_table_miss(&self, region: Region) {
        let index = self.index;
        if self.has_tables() {
            return;
        }
        let free = index.meta.region(region, RegionLine::Free);
        let clean = index.meta.region(region, RegionLine::Clean);
        let suits = |bit: usize| {
            let mask = self.only.mask(clean, bit / WORD_BITS);
            let block = index.geometry().block_at(region, bit);
            let is_suitable = mask >> (bit % WORD_BITS) & 1 == 1 && self.suits_block(block);
            (is_suitable && index.meta.table_of(block).is_none()).then_some(())
        };
        if line::find_map(free, self.blocks(region), false, suits).is_some() {
            self.no_table.set(true);
        }
    }

    /// Returns whether a block of a whole region could be opened.
    pub(super) fn suits_tables(&self, region: Region) -> bool {
        let suits = self.has_tables()
            || self.index.meta.is_init(region) && self.block_to_open(region).is_some();
        if !suits {
            self.no_table.set(true);
        }
        suits
    }

    /// Returns which block of a whole region to open: one with a table, if there is one.
    pub(super) fn block_to_open(&self, region: Region) -> Option<usize> {
        let index = self.index;
        let owned = index.meta.region(region, RegionLine::Table);
        let suits = |bit| {
            let is_suitable = self.suits_block(index.geometry().block_at(region, bit));
            is_suitable.then_some(bit)
        };
        let blocks = self.blocks(region);
        line::find_map(owned, blocks, self.want.is_down, suits).or_else(|| {
            let (lo, hi) = blocks;
            let mut bits = lo..=hi;
            let bit =
                if self.want.is_down { bits.rev().find_map(suits) } else { bits.find_map(suits) };
            bit.filter(|_| self.has_tables())
        })
    }
}
