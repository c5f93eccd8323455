//! For tests that corrupt metadata on purpose: its words as they lie in memory.

use alloc::vec::Vec;

use super::extent::Extent;
use super::ops::PgmapOps;
use super::owner::PgmapCore;
use crate::sync::{AtomicU64, Ordering};

/// For owners without data beside the folios: that data hangs on the words.
#[cfg(feature = "model")]
impl<O: PgmapOps<Private = ()>> PgmapCore<O> {
    /// Copies everything that the extents were lent, hints, movers and places of CPUs included, and
    /// behind it what this pgmap keeps outside.
    #[must_use]
    pub fn memory(&self) -> Vec<u64> {
        let mut memory = Vec::new();
        // ORDERING: Relaxed. Taken at rest.
        self.words().for_each(|word| memory.push(word.load(Ordering::Relaxed)));
        memory.push(*self.core.chain.lock());
        memory
    }

    /// Returns how many words the extents were lent: those that [`PgmapCore::flip`] reaches.
    #[must_use]
    pub fn nr_lent_words(&self) -> usize {
        self.core.extents().fold(0, |sum, extent| sum.saturating_add(extent.meta.nr_words()))
    }

    /// Writes everything back of which [`PgmapCore::memory`] made a copy.
    ///
    /// Tests do little else, so what is as it was is passed line by line.
    pub fn set_memory(&self, memory: &[u64]) {
        let mut rest = memory;
        for line in self.core.extents().flat_map(|extent| extent.meta.all_lines()) {
            let Some((values, others)) = rest.split_first_chunk() else { return };
            line.restore(values);
            rest = others;
        }
        let mut values = rest.iter();
        for (word, &value) in self.words_outside().zip(&mut values) {
            // ORDERING: Relaxed. Done at rest.
            word.store(value, Ordering::Relaxed);
        }
        *self.core.chain.lock() = values.next().copied().unwrap_or(0);
    }

    /// Flips bits of a word that the extents were lent, wherever it lies, modulo their number.
    pub fn flip(&self, word: usize, bits: u64) {
        let mut place = word.checked_rem(self.nr_lent_words()).unwrap_or(0);
        for extent in self.core.extents() {
            if let Some(word) = extent.meta.word_in_memory(place) {
                // ORDERING: Relaxed. Done at rest.
                word.fetch_xor(bits, Ordering::Relaxed);
                return;
            }
            place = place.saturating_sub(extent.meta.nr_words());
        }
    }

    /// Yields the words lent, and then those outside.
    fn words(&self) -> impl Iterator<Item = &AtomicU64> {
        let lent = self.core.extents().flat_map(|extent| extent.meta.words_in_memory());
        lent.chain(self.words_outside())
    }

    fn words_outside(&self) -> impl Iterator<Item = &AtomicU64> {
        let core = &self.core;
        let outside =
            [core.end.word(), &*core.condemned, &*core.kept_pages, &*core.condemned_pages];
        let withheld = core.extents().flat_map(Extent::withheld_state);
        let ends = core.extents().map(|extent| extent.end.word());
        outside.into_iter().chain([&*core.shortages]).chain(withheld).chain(ends)
    }
}
