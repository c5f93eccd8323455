//! Walks over the leaves of a range, and the counts that they stand for.

use super::leaf::Leaf;
use super::table::{LeafReader, PageTable};
use super::virt::{Vpn, VpnRange};
use crate::folio::CountError;
use crate::meta::Count;
use crate::meta::word::Gate;
use crate::pgmap::{AnyPlace, Directory, Known};
use crate::units::{Pfn, PfnRange};

/// The leaves that map part of a range, ascending, each with the addresses that lie in the range.
#[derive(Debug)]
pub(super) struct Leaves<'t, R> {
    reader: &'t R,
    rest: Option<VpnRange>,
}

impl<R> Clone for Leaves<'_, R> {
    fn clone(&self) -> Self {
        Self { reader: self.reader, rest: self.rest }
    }
}

impl<'t, R: PageTable> Leaves<'t, R> {
    /// Walks what the table translates of a range.
    pub(super) fn new(reader: &'t R, range: VpnRange) -> Self {
        Self { reader, rest: reader.addresses().intersection(range) }
    }
}

impl<R: LeafReader> Iterator for Leaves<'_, R> {
    type Item = (VpnRange, Leaf);

    fn next(&mut self) -> Option<(VpnRange, Leaf)> {
        // Ends: every turn goes on behind the entry that was read.
        loop {
            let rest = self.rest?;
            let vpn = rest.start();
            let entry = self.reader.read(vpn);
            self.rest = rest.behind(entry.last(vpn));
            if let Some(leaf) = entry.leaf() {
                return Some((leaf.addresses(vpn).intersection(rest)?, leaf));
            }
        }
    }
}

/// Counts of one folio, gathered so that they are one operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run<'d> {
    pub(super) place: AnyPlace<'d>,
    pages: PfnRange,
    pub(super) nr_leaves: u32,
}

impl<'d> Run<'d> {
    /// Returns the run that a page starts; `None` if it is not counted.
    pub(super) fn of(directory: &Directory<'d>, pfn: Pfn) -> Option<Self> {
        match directory.place_of(pfn) {
            Known::Folio(place) => Some(Self { place, pages: place.pages(), nr_leaves: 0 }),
            Known::Foreign | Known::NoFolio => None,
        }
    }

    pub(super) const fn contains(&self, pfn: Pfn) -> bool {
        self.pages.contains(pfn)
    }

    pub(super) const fn pages(&self) -> PfnRange {
        self.pages
    }

    fn add(&self, gate: Gate) -> Result<(), CountError> {
        let head = self.place.head();
        let added = self.place.add_held(Count::Mappings, self.nr_leaves, gate);
        added.map_err(|refused| CountError::refused(refused, Count::Mappings, head, head))
    }

    pub(super) fn sub(&self) {
        if self.nr_leaves != 0 {
            // The leaves were counted as they were set. Where a table has lied the count may be
            // gone, and then there is nothing to drop.
            let _ = self.place.sub(Count::Mappings, self.nr_leaves);
        }
    }
}

/// Groups pages, each with a number of leaves, into runs of one folio.
struct Runs<'a, 'd, I> {
    directory: &'a Directory<'d>,
    items: I,
    open: Option<Run<'d>>,
}

impl<'d, I: Iterator<Item = (Pfn, u32)>> Iterator for Runs<'_, 'd, I> {
    type Item = Run<'d>;

    fn next(&mut self) -> Option<Run<'d>> {
        // Ends: the items do.
        for (pfn, nr_leaves) in self.items.by_ref() {
            if let Some(run) = self.open.as_mut().filter(|run| run.contains(pfn)) {
                run.nr_leaves = run.nr_leaves.saturating_add(nr_leaves);
                continue;
            }
            let next = Run::of(self.directory, pfn).map(|run| Run { nr_leaves, ..run });
            if let Some(done) = core::mem::replace(&mut self.open, next) {
                return Some(done);
            }
        }
        self.open.take()
    }
}

/// Counts further leaves of folios that are mapped already, run by run; all of them or none.
pub(super) fn add_counts(
    directory: &Directory<'_>,
    items: impl Iterator<Item = (Pfn, u32)> + Clone,
    gate: Gate,
) -> Result<(), CountError> {
    let runs = |items| Runs { directory, items, open: None };
    for (nr_done, run) in runs(items.clone()).enumerate() {
        if let Err(error) = run.add(gate) {
            // Ends: with the runs that were counted. They are the same: each has a count.
            runs(items).take(nr_done).for_each(|run| run.sub());
            return Err(error);
        }
    }
    Ok(())
}

/// Uncounts leaves of folios that stay mapped by others, run by run.
pub(super) fn sub_counts(directory: &Directory<'_>, items: impl Iterator<Item = (Pfn, u32)>) {
    Runs { directory, items, open: None }.for_each(|run| run.sub());
}

/// Returns the first leaf that maps part of a range, and the first address of it there.
pub(super) fn first_leaf(reader: &impl PageTable, range: VpnRange) -> Option<(Vpn, Leaf)> {
    Leaves::new(reader, range).next().map(|(part, leaf)| (part.start(), leaf))
}
