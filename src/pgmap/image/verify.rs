//! Verifying an image: everything, before anything changes.
//!
//! An image comes from outside, so that nothing in it is relied on. What passes is a state that
//! [`PgmapCore::check`] accepts: folios that are aligned, inside, ascending and disjoint, with
//! counts that fit their states, and bad pages that are part of a folio or in quarantine.

use core::iter::Peekable;

use super::{FolioRecord, Image, ImportError, Part, memory_type_number};
use crate::meta::Block;
use crate::pgmap::extent::Extent;
use crate::pgmap::info::FolioKind;
use crate::pgmap::ops::PgmapOps;
use crate::pgmap::owner::PgmapCore;
use crate::pgmap::{ExtentAttrs, Policy};
use crate::units::{Order, Pfn, PfnRange};

impl<O: PgmapOps> PgmapCore<O> {
    /// Checks that an image can be imported, with places for so many folios to be adopted; returns
    /// how many it has.
    pub(super) fn verify(&self, image: &Image<'_>, nr_places: usize) -> Result<usize, ImportError> {
        if self.core.is_dying() {
            return Err(ImportError::Dying);
        }
        let (image_type, pgmap_type) =
            (image.header.memory_type, memory_type_number(self.core.policy.memory_type));
        if image_type != pgmap_type {
            return Err(ImportError::MemoryType { image: image_type, pgmap: pgmap_type });
        }
        let (mut last, mut found) = (None, 0_u64);
        for part in image.parts() {
            let part = part?;
            let range = part.range;
            if last.is_some_and(|last| range.start() <= last) {
                let (start, nr_pages) = (range.start(), range.nr_pages());
                return Err(ImportError::BadExtent { start, nr_pages });
            }
            last = Some(range.last());
            let extent = self.extent_of_part(&part);
            let extent = extent.ok_or(ImportError::Missing { extent: range })?;
            if self.core.is_closed(extent) {
                return Err(ImportError::Dying);
            }
            found = found.saturating_add(extent.verify(&part, &self.core.policy)?);
        }
        let is_known = |extent: &&Extent| {
            image.parts().any(|part| part.is_ok_and(|part| part.range == extent.range()))
        };
        if let Some(extent) = self.core.extents().find(|extent| !is_known(extent)) {
            return Err(ImportError::Unknown { extent: extent.range() });
        }
        let (said, given) = (image.header.nr_held, nr_places as u64);
        if said != found {
            return Err(ImportError::Held { said, found });
        }
        let short = ImportError::OrphansShort { needed: found, given };
        usize::try_from(found).ok().filter(|&found| found <= nr_places).ok_or(short)
    }

    /// Returns the extent with exactly the pages of a part of an image.
    pub(super) fn extent_of_part(&self, part: &Part<'_>) -> Option<&Extent> {
        self.core.extents().find(|extent| extent.range() == part.range)
    }
}

impl Extent {
    /// Checks what an image says of this extent; returns how many folios are to be adopted.
    fn verify(&self, part: &Part<'_>, policy: &Policy) -> Result<u64, ImportError> {
        let range = self.range();
        let (node, tier, tag) = (part.record.node, part.record.tier, part.record.tag);
        // What the free pages contain is for whoever lends the extent to know.
        let image = ExtentAttrs { node, tier, tag, contents: self.attrs.contents };
        if image != self.attrs {
            return Err(ImportError::Attrs { extent: range, image, pgmap: self.attrs });
        }
        let withheld = || self.entries().map(|entry| entry.pages.start()).min();
        let busy = self.index().first_busy(range).or_else(withheld);
        if let Some(pfn) = busy {
            return Err(ImportError::Busy { pfn });
        }
        let mut checker = Checker {
            extent: self,
            max_order: policy.max_order,
            end: None,
            last_kind: None,
            bad: part.bad().peekable(),
            last_bad: None,
            last_block: None,
            nr_tables: 0,
            nr_held: 0,
        };
        for record in part.folios() {
            let record = record.map_err(|head| ImportError::BadFolio { head })?;
            checker.check(&record)?;
        }
        if let Some(pfn) = checker.bad.next() {
            return Err(ImportError::BadPage { pfn });
        }
        let (needed, max) = (part.record.nr_bad, self.room().0 as u64);
        if max < needed {
            return Err(ImportError::NoRoom { extent: range, needed, max });
        }
        let (needed, left) = (checker.nr_tables, self.meta.tables_left());
        if u64::from(left) < needed {
            return Err(ImportError::NoTables { extent: range, needed, left });
        }
        Ok(checker.nr_held)
    }
}

/// What was seen of an extent so far.
struct Checker<'a, B: Iterator<Item = Pfn>> {
    extent: &'a Extent,
    max_order: Order,
    /// The last page of the folio before, and its state.
    end: Option<Pfn>,
    last_kind: Option<FolioKind>,
    /// The bad pages that are still to come.
    bad: Peekable<B>,
    last_bad: Option<Pfn>,
    last_block: Option<Block>,
    /// The tables that have to come out of the pool.
    nr_tables: u64,
    nr_held: u64,
}

impl<B: Iterator<Item = Pfn>> Checker<'_, B> {
    fn check(&mut self, record: &FolioRecord) -> Result<(), ImportError> {
        let pages = self.check_place(record)?;
        Self::check_counts(record)?;
        let is_bad = self.check_bad(pages)?;
        if record.kind == FolioKind::Poisoned && !is_bad {
            return Err(ImportError::Healthy { head: record.head });
        }
        self.count_table(record);
        self.nr_held = self.nr_held.saturating_add(record.is_held().into());
        Ok(())
    }

    fn check_place(&mut self, record: &FolioRecord) -> Result<PfnRange, ImportError> {
        let FolioRecord { head, order, kind, .. } = *record;
        if kind == FolioKind::Poisoned {
            // Of these the policy knows nothing: a page, or a block for want of a table.
            if order != Order::ZERO && order != Order::BLOCK || record.data != 0 {
                return Err(ImportError::BadFolio { head });
            }
        } else if self.max_order < order {
            return Err(ImportError::OrderTooLarge { head, order, max: self.max_order });
        }
        let pages = PfnRange::folio(head, order);
        let pages = pages.filter(|&pages| self.extent.range().contains_range(pages));
        let pages = pages.ok_or(ImportError::Misplaced { head, order })?;
        let is_apart = seeded!(ImageOverlapMissed) && self.last_kind != Some(kind);
        if self.end.is_some_and(|end| head <= end) && !is_apart {
            return Err(ImportError::Overlap { head });
        }
        (self.end, self.last_kind) = (Some(pages.last()), Some(kind));
        Ok(pages)
    }

    fn check_counts(record: &FolioRecord) -> Result<(), ImportError> {
        let FolioRecord { head, kind, counts, .. } = *record;
        if seeded!(ImageCountMissed) {
            return Ok(());
        }
        if let Some((count, have)) = counts.above_limit() {
            return Err(ImportError::Limit { head, count, have, max: count.max() });
        }
        let is_live = kind == FolioKind::Live;
        if is_live == counts.is_idle() || !is_live && counts.is_closed {
            return Err(ImportError::Counts { head });
        }
        Ok(())
    }

    /// Checks the bad pages up to the end of a folio; returns whether it has any.
    fn check_bad(&mut self, folio: PfnRange) -> Result<bool, ImportError> {
        let mut is_bad = false;
        // Ends: a page is taken on every turn.
        while let Some(pfn) = self.bad.next_if(|&pfn| pfn <= folio.last()) {
            if pfn < folio.start() || self.last_bad.is_some_and(|last| pfn <= last) {
                return Err(ImportError::BadPage { pfn });
            }
            self.last_bad = Some(pfn);
            is_bad = true;
        }
        Ok(is_bad)
    }

    /// Counts the table that the folio needs, if its block has none.
    fn count_table(&mut self, record: &FolioRecord) {
        let block = self.extent.meta.geometry().block_of(record.head);
        if record.order < Order::BLOCK && self.last_block != Some(block) {
            self.last_block = Some(block);
            let is_there = self.extent.index().has_table(block);
            self.nr_tables = self.nr_tables.saturating_add(u64::from(!is_there));
        }
    }
}
