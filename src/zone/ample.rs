//! Ample blocks: where a search for a single page looks first.
//!
//! In memory that is used at random, nearly every block has a free page or two. To take them one
//! at a time costs a search for each, a hint lowered and a hint raised. So a search for one page
//! prefers a block with a word of several free pages, and drains it; the others gather more in the
//! meantime. How many are several depends on how many there are: where none are found the limit
//! falls, and where many are it rises. This is a preference and nothing else: a mark that is
//! missing or stale costs a look, so nothing here is ordered, and none of it is a move. An answer
//! of "nowhere" rests on hints, and what is found is claimed as everywhere. That is why models
//! leave the marks out: they double the interleavings and can change none of the outcomes.
#![expect(clippy::indexing_slicing, reason = "bits below 512")]

use super::index::Index;
use super::line;
use crate::meta::{Block, LINE_WORDS, Meta, Region, RegionLine, RootMap, Table, WORD_BITS};
use crate::sync::{AtomicU64, Ordering};

/// Whether a model runs.
pub(super) const IS_MODEL: bool = cfg!(all(test, loom));
/// So many free pages in a word say that they are not scarce.
const NR_PLENTY: u32 = 10;

/// Returns whether a word has several free pages: seven or more, or three where they are scarce.
#[inline]
const fn is_ample(word: u64, is_scarce: bool) -> bool {
    let rest = without_two(word);
    (if is_scarce { rest } else { without_two(without_two(rest)) }) != 0
}

/// Returns a word without its two lowest bits.
#[inline]
const fn without_two(word: u64) -> u64 {
    let rest = word & word.wrapping_sub(1);
    rest & rest.wrapping_sub(1)
}

/// Returns whether a free made a word ample.
#[inline]
pub(super) fn grows_ample(table: Table<'_>, freed: line::Freed) -> bool {
    if IS_MODEL {
        return false;
    }
    let is_scarce = is_scarce(table.meta());
    is_ample(freed.now, is_scarce) && !is_ample(freed.old, is_scarce)
}

#[inline]
fn is_scarce(meta: &Meta) -> bool {
    // ORDERING: Relaxed. Only where to look first.
    meta.scarcity().load(Ordering::Relaxed) != 0
}

impl Index<'_> {
    /// Takes note of an ample block that was found, or that there is none.
    pub(super) fn note_ample(&self, found: Option<Table<'_>>) {
        let nr_free = |table: Table<'_>, index| line::word(table.free(), index).count_ones();
        let has_plenty = |table| (0..LINE_WORDS).any(|index| NR_PLENTY <= nr_free(table, index));
        let was_scarce = is_scarce(self.meta);
        let is_scarce = found.is_none_or(|table| was_scarce && !has_plenty(table));
        if was_scarce != is_scarce {
            // ORDERING: Relaxed. Only where to look first.
            self.meta.scarcity().store(is_scarce.into(), Ordering::Relaxed);
        }
    }

    /// Marks a block in which there is an ample word, unless it is marked.
    pub(super) fn mark_ample(&self, block: Block) {
        if IS_MODEL {
            return;
        }
        let (region, bit) = self.geometry().place(block);
        let marks = self.meta.region(region, RegionLine::Ample);
        set(&marks.words()[bit / WORD_BITS], 1 << (bit % WORD_BITS));
        let (word, bit) = self.meta.root_bit(RootMap::Ample, region);
        set(word, bit);
    }

    /// Takes the mark off a block: whoever was led there drains it.
    pub(super) fn unmark_ample(&self, block: Block) {
        let (region, bit) = self.geometry().place(block);
        let marks = self.meta.region(region, RegionLine::Ample);
        // ORDERING: Relaxed. Only where to look first.
        marks.words()[bit / WORD_BITS].fetch_and(!(1 << (bit % WORD_BITS)), Ordering::Relaxed);
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
