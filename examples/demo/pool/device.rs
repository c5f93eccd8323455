//! What capacity means for a host: extents of its pgmap, with metadata from a common shelf.
//!
//! Extents come and go as a whole here. The books could take any part of an extent without a tag
//! back, but the crate removes extents and no parts of them, so that a part is refused.

use core::cell::RefCell;
use core::fmt;

use devfolio::{
    Attach, CapacityRecord, CapacityTarget, Detached, ExtentAttrs, FolioInfo, Life, MetaLine, Pfn,
    PfnRange, Pgmap, RemoveError, Tables,
};

use super::owner::Owner;

/// Fracture tables of an extent: only a bad page takes one, since machines get whole blocks.
pub(super) const TABLES: Tables = Tables::Budget(64);

/// Bad pages that an extent can remember.
pub(super) const BAD_MAX: u32 = 64;

/// Metadata memory that no extent uses, in pieces that suffice for the largest.
#[derive(Debug)]
pub(super) struct Shelf<'m> {
    pieces: Vec<&'m mut [MetaLine]>,
    /// How often a piece was lent.
    pub(super) nr_lent: u64,
    /// A piece that comes back is dropped: the mistake that `--break meta` makes.
    pub(super) is_dropping: bool,
}

impl<'m> Shelf<'m> {
    pub(super) fn new(lines: &'m mut [MetaLine], nr_lines: usize) -> Self {
        let pieces = lines.chunks_exact_mut(nr_lines).collect();
        Self { pieces, nr_lent: 0, is_dropping: false }
    }

    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }

    fn put(&mut self, piece: &'m mut [MetaLine]) {
        if !core::mem::take(&mut self.is_dropping) {
            self.pieces.push(piece);
        }
    }
}

/// Capacity that a host has given up.
#[derive(Clone, Debug)]
pub(super) struct Returned {
    pub(super) pages: PfnRange,
    /// The pages that the host knows to be bad.
    pub(super) bad: Vec<Pfn>,
}

/// Why capacity is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Refusal {
    /// Every extent slot is in use.
    NoSlot,
    /// The shelf is empty.
    NoMemory,
    /// Something of it is in use.
    Busy,
    /// It is a part of an extent.
    Part,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSlot => "every extent slot is in use",
            Self::NoMemory => "there is no memory for metadata",
            Self::Busy => "it is in use",
            Self::Part => "it is a part of an extent",
        })
    }
}

/// The device side of one host.
#[derive(Debug)]
pub(super) struct Device<'a, 'm> {
    pub(super) pgmap: &'a Pgmap<'m, Owner>,
    shelf: &'a RefCell<Shelf<'m>>,
    nr_slots: usize,
    /// The extents of the pgmap, those that leave included.
    pub(super) extents: Vec<PfnRange>,
    /// The extents that are gone and not yet drained.
    pub(super) leaving: Vec<PfnRange>,
    /// What the manager has to fetch.
    pub(super) returned: Vec<Returned>,
    /// What each surprise told, for the host to compare.
    pub(super) told: Vec<(PfnRange, Vec<FolioInfo>)>,
    /// What should never happen, and did.
    pub(super) findings: Vec<String>,
}

impl<'a, 'm> Device<'a, 'm> {
    pub(super) fn new(
        pgmap: &'a Pgmap<'m, Owner>,
        shelf: &'a RefCell<Shelf<'m>>,
        nr_slots: usize,
    ) -> Self {
        Self {
            pgmap,
            shelf,
            nr_slots,
            extents: Vec::new(),
            leaving: Vec::new(),
            returned: Vec::new(),
            told: Vec::new(),
            findings: Vec::new(),
        }
    }

    fn expect<T>(&mut self, what: &str, pages: PfnRange, result: Result<T, impl fmt::Display>) {
        if let Err(error) = result {
            self.findings.push(format!("{what} of {pages}: {error}"));
        }
    }

    /// Takes a drained extent off the pgmap, and puts its memory back on the shelf.
    fn take_off(&mut self, pages: PfnRange) -> Result<(), RemoveError> {
        let detached = self.pgmap.detach_extent(pages.start())?;
        if let Some(lines) = reclaim(detached) {
            self.shelf.borrow_mut().put(lines);
        }
        self.extents.retain(|extent| *extent != pages);
        Ok(())
    }

    /// Fetches what is drained of that which is gone.
    pub(super) fn finish_surprises(&mut self) {
        let is_drained =
            |pages: &PfnRange| self.pgmap.extent_state(pages.start()) == Some(Life::Drained);
        let (drained, leaving) = self.leaving.iter().copied().partition::<Vec<_>, _>(is_drained);
        self.leaving = leaving;
        for pages in drained {
            self.give_up(pages);
        }
    }

    fn give_up(&mut self, pages: PfnRange) {
        let bad = self.pgmap.poisoned().filter(|&pfn| pages.contains(pfn)).collect();
        let taken = self.take_off(pages);
        if taken.is_ok() {
            self.returned.push(Returned { pages, bad });
        }
        self.expect("end", pages, taken);
    }
}

impl CapacityTarget for Device<'_, '_> {
    type Error = Refusal;

    fn add(&mut self, record: &CapacityRecord) -> Result<(), Refusal> {
        // Asked before anything is lent: `add_extent` does not give back what it refuses.
        if self.nr_slots <= self.extents.len() {
            return Err(Refusal::NoSlot);
        }
        let mut shelf = self.shelf.borrow_mut();
        let lines = shelf.pieces.pop().ok_or(Refusal::NoMemory)?;
        shelf.nr_lent += 1;
        drop(shelf);
        let attrs = ExtentAttrs { tag: record.tag, ..ExtentAttrs::NEW };
        // What an extent before left in there means nothing.
        let pages = record.pages;
        let added = self.pgmap.add_extent(pages, attrs, TABLES, lines, Attach::Clear);
        self.extents.push(pages);
        self.expect("start", pages, added);
        // Closed until the group is there. Nobody allocates meanwhile: hosts have one thread.
        let closed = self.pgmap.remove_extent(pages.start());
        self.expect("closing", pages, closed);
        Ok(())
    }

    fn undo_add(&mut self, record: &CapacityRecord) {
        let taken = self.take_off(record.pages);
        self.expect("undoing", record.pages, taken);
    }

    fn open(&mut self, record: &CapacityRecord) {
        let opened = self.pgmap.restore_extent(record.pages.start());
        self.expect("opening", record.pages, opened);
    }

    fn begin_release(&mut self, pages: PfnRange) -> Result<(), Refusal> {
        if !self.extents.contains(&pages) {
            return Err(Refusal::Part);
        }
        match self.pgmap.remove_extent(pages.start()) {
            Ok(Life::Drained) => Ok(()),
            Ok(_) => {
                self.cancel_release(pages);
                Err(Refusal::Busy)
            }
            Err(error) => {
                self.expect::<()>("release", pages, Err(error));
                Err(Refusal::Busy)
            }
        }
    }

    fn cancel_release(&mut self, pages: PfnRange) {
        let restored = self.pgmap.restore_extent(pages.start());
        self.expect("restoring", pages, restored);
    }

    fn finish_release(&mut self, pages: PfnRange) {
        self.give_up(pages);
    }

    fn revoke(&mut self, pages: PfnRange) {
        let begun = self.pgmap.surprise_remove_extent(pages.start());
        self.told.push((pages, self.pgmap.ops().take_gone()));
        self.leaving.push(pages);
        self.expect("surprise", pages, begun);
    }
}

/// Returns the memory of an extent that was detached.
///
/// The only promise of this demo: all calls on a pgmap, and all handles on its folios, are made by
/// one thread. The extent is drained, so that no counted handle on it is left, no iterator is kept
/// from one call to the next, and mappings are not made at all.
#[expect(unsafe_code, reason = "folios of other extents borrow the pgmap, so `take_extent` cannot")]
fn reclaim<'m>(detached: Detached<'_, 'm, Owner>) -> Option<&'m mut [MetaLine]> {
    // SAFETY: No call that found the extent is under way, and no handle on it exists, as above.
    Some(unsafe { detached.reclaim() }?.meta)
}
