//! For tests that corrupt metadata on purpose: every word of it, and the switch that says so.
//!
//! What no transition writes is a bug as long as nobody flips bits, and `debug_intact!` says so at
//! once. Where bits are flipped, the same code has to go on, and end in an error or a leak, as it
//! does in release. The switch is of the whole process: such tests have one to themselves.

use ::core::sync::atomic::AtomicUsize;

use super::{LINE_WORDS, Meta, MetaLine};
use crate::sync::{AtomicU64, Ordering};

/// How many tests expect corrupt metadata; no atomic of the facade, of whose schedules it is no
/// part.
static NR_EXPECTING: AtomicUsize = AtomicUsize::new(0);

/// While it lives, corrupt metadata is not taken for a bug of the crate, in the whole process.
#[derive(Debug)]
#[must_use = "assertions speak again when it goes"]
pub struct ExpectCorrupt(());

#[cfg(feature = "model")]
impl ExpectCorrupt {
    /// Silences the assertions that corrupt metadata breaks.
    pub fn new() -> Self {
        // ORDERING: Relaxed. It is for the caller, and for threads that it starts.
        NR_EXPECTING.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Default for ExpectCorrupt {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for ExpectCorrupt {
    fn drop(&mut self) {
        // ORDERING: Relaxed. As above.
        NR_EXPECTING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns whether corrupt metadata is to be expected.
pub(crate) fn is_expected() -> bool {
    // ORDERING: Relaxed. As above.
    NR_EXPECTING.load(Ordering::Relaxed) != 0
}

impl Meta {
    /// Returns every line in use, and those of the list of poisoned pages.
    pub(crate) fn all_lines(&self) -> &[MetaLine] {
        let nr_list = self.list_words().count().div_euclid(LINE_WORDS) as u64;
        self.lines(0, self.layout().nr_lines.saturating_add(nr_list))
    }

    /// Returns how many words there are, hints and places included.
    pub(crate) fn nr_words(&self) -> usize {
        self.all_lines().len().saturating_mul(LINE_WORDS)
    }

    /// Yields every word as it lies in memory.
    pub(crate) fn words_in_memory(&self) -> impl Iterator<Item = &AtomicU64> {
        self.all_lines().iter().flat_map(MetaLine::words)
    }

    /// Returns one of them.
    pub(crate) fn word_in_memory(&self, place: usize) -> Option<&AtomicU64> {
        let line = self.all_lines().get(place.div_euclid(LINE_WORDS))?;
        line.words().get(place.rem_euclid(LINE_WORDS))
    }
}

impl MetaLine {
    /// Writes the words back that have changed, if any has.
    #[inline]
    pub(crate) fn restore(&self, values: &[u64; LINE_WORDS]) {
        let mut changed = 0;
        for (word, &value) in self.words().iter().zip(values) {
            // ORDERING: Relaxed. Done at rest.
            changed |= word.load(Ordering::Relaxed) ^ value;
        }
        if changed != 0 {
            for (word, &value) in self.words().iter().zip(values) {
                // ORDERING: Relaxed. Done at rest.
                word.store(value, Ordering::Relaxed);
            }
        }
    }
}
