//! Ample blocks: where a search for a single page looks first.
//!
//! In memory that is used at random, nearly every block has a free page or two. To take them one
//! at a time costs a search for each, a hint lowered and a hint raised. So a search for one page
//! prefers a block with a word of several free pages, and drains it; the others gather more in the
//! meantime. This is a preference and nothing else: a mark that is missing or stale costs a look,
//! so nothing here is ordered, and none of it is a move. An answer of "nowhere" rests on hints, and
//! what is found is claimed as everywhere. That is why models leave the marks out: they double the
//! interleavings and can change none of the outcomes.
#![expect(clippy::indexing_slicing, reason = "bits below 512")]

use super::index::Index;
use super::line;
use crate::meta::{Block, LINE_WORDS, Region, RegionLine, RootMap, Table, WORD_BITS};
use crate::sync::{AtomicU64, Ordering};

/// Returns whether several bits are set: three or more.
#[inline]
pub(super) const fn is_ample(word: u64) -> bool {
    let rest = word & word.wrapping_sub(1);
    rest & rest.wrapping_sub(1) != 0
}

impl Index<'_> {
    /// Marks a block in which there is an ample word, unless it is marked.
    pub(super) fn mark_ample(&self, block: Block) {
        if cfg!(all(test, loom)) {
            return;
        }
        let (region, bit) = self.geometry().place(block);
        let marks = self.meta.region(region, RegionLine::Ample);
        set(&marks.words()[bit / WORD_BITS], 1 << (bit % WORD_BITS));
        let (word, bit) = self.meta.root_bit(RootMap::Ample, region);
        set(word, bit);
    }

    /// Takes the mark off a block in which there is no ample word.
    pub(super) fn unmark_ample(&self, block: Block, table: Table<'_>) {
        let has_ample = || (0..LINE_WORDS).any(|index| is_ample(line::word(table.free(), index)));
        if has_ample() {
            return;
        }
        let (region, bit) = self.geometry().place(block);
        let marks = self.meta.region(region, RegionLine::Ample);
        // ORDERING: Relaxed. Only where to look first.
        marks.words()[bit / WORD_BITS].fetch_and(!(1 << (bit % WORD_BITS)), Ordering::Relaxed);
        if has_ample() {
            self.mark_ample(block);
        }
    }

    /// Takes the mark off a region in which there is no ample block.
    pub(super) fn unmark_ample_region(&self, region: Region) {
        let marks = self.meta.region(region, RegionLine::Ample);
        if !line::is_empty(marks) {
            return;
        }
        let (word, bit) = self.meta.root_bit(RootMap::Ample, region);
        // ORDERING: Relaxed. Only where to look first.
        word.fetch_and(!bit, Ordering::Relaxed);
        if !line::is_empty(marks) {
            set(word, bit);
        }
    }
}

/// Sets a bit unless it is set.
fn set(word: &AtomicU64, bit: u64) {
    // ORDERING: Relaxed. Only where to look first.
    if word.load(Ordering::Relaxed) & bit == 0 {
        // ORDERING: Relaxed. Only where to look first.
        word.fetch_or(bit, Ordering::Relaxed);
    }
}
