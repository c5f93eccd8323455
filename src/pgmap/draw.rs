//! A picture of a pgmap for any console.

use core::fmt;

use super::ops::PgmapOps;
use super::owner::PgmapCore;
use super::withheld::is_withheld;
use crate::units::{Order, Pfn, PfnRange};

/// A map of the extents, a character for an equal share of the pages.
///
/// `.` is all free; otherwise the smallest folio in the share decides: `#` 1 GiB, `=` 2 MiB and
/// more, `-` less than 2 MiB. `x` has no folio in use, and pages that are bad or offline.
pub struct Map<'a, O: PgmapOps> {
    pgmap: &'a PgmapCore<O>,
    columns: u32,
    rows: u32,
}

impl<O: PgmapOps> PgmapCore<O> {
    /// Returns a map of the extents, each in at most `rows` lines of `columns` characters.
    ///
    /// # Context
    ///
    /// Anywhere; nothing is walked before the map is displayed, which takes no lock.
    pub const fn draw(&self, columns: u32, rows: u32) -> Map<'_, O> {
        Map { pgmap: self, columns, rows }
    }
}

impl<O: PgmapOps> fmt::Debug for Map<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Map({} columns, {} rows)", self.columns, self.rows)
    }
}

impl<O: PgmapOps> fmt::Display for Map<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for extent in self.pgmap.core().extents() {
            let range = extent.range();
            let cells = u64::from(self.columns.max(1)).saturating_mul(u64::from(self.rows.max(1)));
            let share = range.nr_pages().div_ceil(cells).max(1);
            writeln!(f, "{range}: {share} pages a character")?;
            let mut column = 0;
            let mut next = Some(range.start());
            // Ends: `next` grows by a share on every turn, up to the end of the extent.
            while let Some(pfn) = next {
                let end = pfn.checked_add(share).and_then(|end| end.checked_sub(1));
                let last = end.map_or(range.last(), |end| end.min(range.last()));
                if let Some(part) = PfnRange::between(pfn, last) {
                    fmt::Write::write_char(f, self.character(part))?;
                }
                column = if column < self.columns.max(1).saturating_sub(1) {
                    column.saturating_add(1)
                } else {
                    writeln!(f)?;
                    0
                };
                next = last.checked_add(1).filter(|&pfn| pfn <= range.last());
            }
            if column != 0 {
                writeln!(f)?;
            }
        }
        Ok(())
    }
}

impl<O: PgmapOps> Map<'_, O> {
    /// Returns the character of a part of an extent.
    fn character(&self, part: PfnRange) -> char {
        let Some(extent) = self.pgmap.core().extent_of(part.start()) else { return '?' };
        let mut smallest: Option<Order> = None;
        let mut has_withheld = false;
        let mut next = Some(part.start());
        // Ends: `next` grows on every turn, up to the end of the part.
        while let Some(pfn) = next {
            let free = extent.index().free_run_at(pfn, part.last());
            let end: Option<Pfn> = match (free, extent.find(pfn)) {
                (Some(run), _) => Some(run.last()),
                (None, Some(found)) => {
                    let order = found.bits.order();
                    if is_withheld(found.bits.kind()) {
                        has_withheld = true;
                    } else {
                        smallest = Some(smallest.map_or(order, |smallest| smallest.min(order)));
                    }
                    found.head.checked_add(order.nr_pages().wrapping_sub(1))
                }
                (None, None) => Some(pfn),
            };
            next = end.and_then(|end| end.checked_add(1)).filter(|&pfn| pfn <= part.last());
        }
        match smallest {
            None if has_withheld => 'x',
            None => '.',
            Some(Order::REGION) => '#',
            Some(order) if Order::BLOCK <= order => '=',
            Some(_) => '-',
        }
    }
}
