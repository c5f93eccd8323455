//! The self-check: every word of the metadata against every other.

use super::extent::Extent;
use super::ops::PgmapOps;
use super::owner::PgmapCore;
use crate::meta::word::{Bits, Kind, Word};
use crate::sync::{AtomicU64, Ordering};
use crate::units::{Order, Pfn, PfnRange};
use crate::zone::CheckError;

/// What [`PgmapCore::check`] found in order.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CheckReport {
    /// Pages of all extents.
    pub nr_pages: u64,
    /// Pages that are free.
    pub free_pages: u64,
    /// Folios of any state.
    pub nr_folios: u64,
}

impl Extent {
    /// Checks that every page is exactly once free or in a folio.
    fn check(&self, report: &mut CheckReport) -> Result<(), CheckError> {
        self.index().check()?;
        let range = self.range();
        report.nr_pages = report.nr_pages.saturating_add(range.nr_pages());
        let mut next = Some(range.start());
        // Ends: `next` grows on every turn, up to the end of the extent.
        while let Some(pfn) = next {
            let chunk = self.index().chunk(pfn);
            let step = if chunk.is_free {
                let run = PfnRange::new(pfn, chunk.nr_pages).ok();
                if let Some(run) = run.and_then(|run| run.intersection(range)) {
                    self.check_no_heads(run)?;
                    report.free_pages = report.free_pages.saturating_add(run.nr_pages());
                }
                chunk.nr_pages
            } else {
                report.nr_folios = report.nr_folios.saturating_add(1);
                self.check_folio(pfn)?
            };
            next = pfn.checked_add(step).filter(|&pfn| pfn <= range.last());
        }
        Ok(())
    }

    /// Checks the folio that ought to start at `pfn`; returns its pages.
    fn check_folio(&self, pfn: Pfn) -> Result<u64, CheckError> {
        let block_word = pfn.is_aligned_to(Order::BLOCK).then(|| self.word(pfn, Order::BLOCK));
        let page_word = self.word(pfn, Order::ZERO);
        let words = [block_word.flatten(), page_word];
        let mut heads = words.into_iter().flatten().map(|word| word.read());
        let Some(bits) = heads.find(|bits| bits.raw() != 0) else {
            return Err(CheckError::Lost { pfn });
        };
        if heads.any(|bits| bits.raw() != 0) {
            return Err(CheckError::Claimed { pfn });
        }
        if !bits.is_canonical() {
            return Err(CheckError::BadWord { pfn, word: bits.raw() });
        }
        let order = bits.order();
        let is_in_table = block_word.flatten().is_none_or(|word| word.read().raw() == 0);
        let shape = PfnRange::folio(pfn, order).filter(|range| {
            is_in_table == (order < Order::BLOCK) && self.range().contains_range(*range)
        });
        let Some(range) = shape else {
            return Err(CheckError::BadShape { pfn, order });
        };
        if let Some(run) = self.index().free_run(range.start(), range.last()) {
            return Err(CheckError::Claimed { pfn: run.start() });
        }
        let rest = pfn.checked_add(1).and_then(|next| PfnRange::between(next, range.last()));
        if let Some(rest) = rest {
            self.check_no_heads(rest)?;
        }
        if block_word.flatten().is_some_and(|word| word.read().raw() != 0)
            && page_word.is_some_and(|word| word.read().raw() != 0)
        {
            return Err(CheckError::Claimed { pfn });
        }
        Ok(order.nr_pages())
    }

    /// Checks that no folio starts in `range`.
    fn check_no_heads(&self, range: PfnRange) -> Result<(), CheckError> {
        let empty = |pfn: Pfn, bits: Bits| match bits.kind() {
            _ if bits.raw() == 0 => Ok(()),
            Kind::None | Kind::Undefined => Err(CheckError::BadWord { pfn, word: bits.raw() }),
            _ => Err(CheckError::Claimed { pfn }),
        };
        let geometry = self.meta.geometry();
        let mut next = Some(range.start());
        // Ends: `next` grows on every turn, up to the end of the range.
        while let Some(pfn) = next {
            let is_init = self.meta.is_init(geometry.region_of(pfn));
            let unit = if is_init { Order::BLOCK } else { Order::REGION };
            let end = PfnRange::folio(pfn.head(unit), unit).map(PfnRange::last);
            next = end.and_then(|end| end.checked_add(1)).filter(|&pfn| pfn <= range.last());
            if !is_init {
                continue;
            }
            let block = geometry.block_of(pfn);
            if pfn.is_aligned_to(Order::BLOCK) {
                empty(pfn, self.meta.slot(block).read())?;
            }
            let Some(table) = self.meta.table_of(block) else { continue };
            let pages = end.and_then(|end| PfnRange::between(pfn, end.min(range.last())));
            let mut pfn = pfn.as_u64();
            for cells in pages.into_iter().flat_map(|pages| table.cells(pages)) {
                // ORDERING: Relaxed. Checked at rest.
                let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
                if cells.iter().fold(0, |all, cell| all | read(cell)) != 0 {
                    let mut words = cells.iter().map(Word::new).zip(0..);
                    words.try_for_each(|(word, offset)| {
                        empty(Pfn::new(pfn.wrapping_add(offset)), word.read())
                    })?;
                }
                pfn = pfn.wrapping_add(cells.len() as u64);
            }
        }
        Ok(())
    }
}

impl<O: PgmapOps> PgmapCore<O> {
    /// Checks every word of the metadata: the invariants of `src/README.md`, which [`CheckError`]
    /// names.
    ///
    /// Meaningful at rest only: while others work, what is on its way between two states looks
    /// broken.
    ///
    /// # Errors
    ///
    /// Returns the first thing that is broken.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock. Walks everything.
    pub fn check(&self) -> Result<CheckReport, CheckError> {
        let mut report = CheckReport::default();
        for extent in self.core.extents() {
            extent.check(&mut report)?;
        }
        self.check_condemned()?;
        self.check_withheld()?;
        Ok(report)
    }

    fn check_condemned(&self) -> Result<(), CheckError> {
        let mut error = Ok(());
        self.core.for_each_folio(|folio| {
            if folio.kind != super::FolioKind::Condemned || error.is_err() {
                return;
            }
            let link = self.find(folio.head).map_or(0, |(_, found)| found.bits.link());
            let next = self.place_of_link(link).map(|at| at.word.read().kind());
            if link != 0 && next != Some(Kind::Condemned) {
                error = Err(CheckError::BadList { pfn: folio.head });
            }
        });
        error
    }

    /// Copies the state of all extents: every word but hints, movers and the CPUs' places.
    ///
    /// Two states are the same exactly if their images are. For tests of "nothing changed".
    #[cfg(any(test, feature = "model"))]
    #[must_use]
    pub fn image(&self) -> alloc::vec::Vec<u64> {
        // A small world, of which tests take images without end, does not grow out of it.
        let mut image = alloc::vec::Vec::with_capacity(1024);
        self.append_image(&mut image);
        image
    }

    /// Does as [`PgmapCore::image`] in memory that is there already.
    #[cfg(any(test, feature = "model"))]
    pub(crate) fn append_image(&self, image: &mut alloc::vec::Vec<u64>) {
        for extent in self.core.extents() {
            extent.meta.for_each_part(|words, _| {
                // ORDERING: Relaxed. Taken at rest.
                image.extend(words.iter().map(|word| word.load(Ordering::Relaxed)));
            });
        }
        for extent in self.core.extents() {
            // ORDERING: Relaxed. Taken at rest.
            image.extend(extent.meta.list_words().map(|word| word.load(Ordering::Relaxed)));
        }
        image.extend(self.core.extents().map(|extent| extent.end.state()));
        image.push(self.core.end.state());
        // ORDERING: Relaxed. Taken at rest.
        image.push(self.core.condemned.load(Ordering::Relaxed));
    }
}

/// For owners without data beside the folios: that data hangs on the words, which these rewrite.
#[cfg(any(test, feature = "model"))]
impl<O: PgmapOps<Private = ()>> PgmapCore<O> {
    /// Puts a state back of which [`PgmapCore::image`] made a copy.
    ///
    /// For exhaustive exploration: both states have the same extents and tables, and nobody else
    /// uses the pgmap meanwhile. Hints are raised where the state needs them. Returns false, and
    /// the state is a mixture, if the image does not fit.
    #[must_use]
    pub fn restore(&self, image: &[u64]) -> bool {
        let mut words = image.iter();
        let mut is_fit = true;
        for extent in self.core.extents() {
            extent.meta.for_each_part(|part, _| {
                for word in part {
                    match words.next() {
                        // ORDERING: Relaxed. Done at rest.
                        Some(&value) => word.store(value, Ordering::Relaxed),
                        None => is_fit = false,
                    }
                }
            });
            extent.index().announce_all();
        }
        let lists = self.core.extents().flat_map(|extent| extent.meta.list_words());
        for cell in lists {
            match words.next() {
                // ORDERING: Relaxed. Done at rest.
                Some(&value) => cell.store(value, Ordering::Relaxed),
                None => is_fit = false,
            }
        }
        let mut nr_leaving = 0;
        for extent in self.core.extents() {
            is_fit &= words.next().is_some_and(|&state| extent.end.restore(state, 0));
            nr_leaving = u64::wrapping_add(nr_leaving, extent.end.is_dying().into());
        }
        is_fit &= words.next().is_some_and(|&state| self.core.end.restore(state, nr_leaving));
        match words.next() {
            // ORDERING: Relaxed. Done at rest.
            Some(&link) => self.core.condemned.store(link, Ordering::Relaxed),
            None => is_fit = false,
        }
        self.core.extents().for_each(Extent::refresh_withheld);
        is_fit && words.next().is_none()
    }

    /// Flips one bit of the state, chosen by `seed`; clean bits are left alone.
    ///
    /// For tests that show that a broken invariant is noticed.
    pub fn flip_bit(&self, seed: u64) {
        use crate::meta::WordKind;
        let mut nr_words = 0_u64;
        for extent in self.core.extents() {
            extent.meta.for_each_part(|words, kind| {
                let nr = if kind == WordKind::Clean { 0 } else { words.len() };
                nr_words = nr_words.saturating_add(nr as u64);
            });
        }
        let hash = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (bit, mut left) = (hash >> 58, (hash >> 8).checked_rem(nr_words).unwrap_or(0));
        let mut is_done = false;
        for extent in self.core.extents() {
            extent.meta.for_each_part(|words, kind| {
                for word in words {
                    if kind == WordKind::Clean || is_done {
                        return;
                    }
                    if left == 0 {
                        // ORDERING: Relaxed. Done at rest.
                        word.fetch_xor(1 << bit, Ordering::Relaxed);
                        is_done = true;
                    }
                    left = left.wrapping_sub(1);
                }
            });
        }
    }
}
