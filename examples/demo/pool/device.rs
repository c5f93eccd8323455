//! What capacity means for a host: extents of its pgmap, with metadata from a common shelf.
//!
//! An extent comes as a whole and goes as a whole, or in parts: what is left of it is a piece, and
//! the last piece takes the extent along. Pages that went may come back to the same host while the
//! rest of their extent is still there; then they are online again.

use core::cell::RefCell;
use core::fmt;

use devfolio::{
    Attach, CapacityRecord, CapacityTarget, Detached, ExtentAttrs, FolioInfo, Life, MetaLine,
    OfflineError, Pfn, PfnRange, Pgmap, RemoveError, Tables,
};

use super::fabric::around;
use super::owner::Owner;

/// Fracture tables of an extent: only a bad page takes one, since machines get whole blocks.
pub(super) const TABLES: Tables = Tables::Budget(64);

/// Bad pages that an extent can remember, and runs of pages that it gave back.
pub(super) const BAD_MAX: u32 = 128;

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
    /// It has pages of an extent that is there, and others.
    Astride,
    /// The list of an extent is full.
    NoRoom,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSlot => "every extent slot is in use",
            Self::NoMemory => "there is no memory for metadata",
            Self::Busy => "it is in use",
            Self::Astride => "it lies in an extent by half",
            Self::NoRoom => "the list of its extent is full",
        })
    }
}

/// The device side of one host.
#[derive(Debug)]
pub(super) struct Device<'a, 'm> {
    pub(super) pgmap: &'a Pgmap<'m, Owner>,
    shelf: &'a RefCell<Shelf<'m>>,
    nr_slots: usize,
    /// The extents of the pgmap, or what is left of them; those that leave included.
    pub(super) extents: Vec<PfnRange>,
    /// Those that are gone and not yet drained.
    pub(super) leaving: Vec<PfnRange>,
    /// What the manager has to fetch.
    pub(super) returned: Vec<Returned>,
    /// What each surprise told, for the host to compare.
    pub(super) told: Vec<(PfnRange, Vec<FolioInfo>)>,
    /// What should never happen, and did.
    pub(super) findings: Vec<String>,
    /// The next part that is given back stays in use: the mistake that `--break part` makes.
    pub(super) is_grasping: bool,
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
            is_grasping: false,
        }
    }

    /// Returns the extent of the pgmap that has these pages.
    fn whole(&self, pages: PfnRange) -> Option<PfnRange> {
        let mut extents = self.pgmap.extents().map(|(extent, _)| extent);
        extents.find(|extent| extent.overlaps(pages))
    }

    fn is_whole(&self, pages: PfnRange) -> bool {
        self.whole(pages) == Some(pages)
    }

    /// Yields the pages that went while the rest of their extent stays.
    pub(super) fn given_back(&self) -> Vec<PfnRange> {
        let mut given = Vec::new();
        for (extent, _) in self.pgmap.extents() {
            let mut pieces: Vec<_> =
                self.extents.iter().filter(|piece| extent.overlaps(**piece)).collect();
            pieces.sort_unstable_by_key(|piece| piece.start());
            let mut next = Some(extent.start());
            for piece in pieces {
                let last = piece.start().checked_sub(1);
                given.extend(next.zip(last).and_then(|(next, last)| PfnRange::between(next, last)));
                next = piece.last().checked_add(1);
            }
            given.extend(next.and_then(|next| PfnRange::between(next, extent.last())));
        }
        given
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
        let is_drained = |pages: &PfnRange| self.state(*pages) == Some(Life::Drained);
        let (drained, leaving) = self.leaving.iter().copied().partition::<Vec<_>, _>(is_drained);
        self.leaving = leaving;
        for pages in drained {
            self.give_up(pages);
        }
    }

    /// Returns how far the end of an extent has come, or of a piece.
    fn state(&self, pages: PfnRange) -> Option<Life> {
        if self.is_whole(pages) {
            self.pgmap.extent_state(pages.start())
        } else {
            self.pgmap.offline_state(pages)
        }
    }

    fn give_up(&mut self, pages: PfnRange) {
        let bad: Vec<Pfn> = self.pgmap.poisoned().filter(|&pfn| pages.contains(pfn)).collect();
        if self.is_whole(pages) {
            let taken = self.take_off(pages);
            if taken.is_ok() {
                self.returned.push(Returned { pages, bad });
            }
            return self.expect("end", pages, taken);
        }
        for pfn in &bad {
            let cleared = self.pgmap.unpoison(*pfn);
            self.expect("forgetting bad pages", pages, cleared);
        }
        self.cut(pages);
        self.returned.push(Returned { pages, bad });
        if core::mem::take(&mut self.is_grasping) {
            let taken = self.pgmap.online(pages);
            return self.expect("keeping", pages, taken);
        }
        // The last piece takes the extent along.
        let whole = self.whole(pages);
        let is_over = |whole: &PfnRange| !self.extents.iter().any(|it| whole.overlaps(*it));
        if let Some(whole) = whole.filter(is_over) {
            let begun = self.pgmap.remove_extent(whole.start());
            self.expect("ending", whole, begun);
            let taken = self.take_off(whole);
            self.expect("end", whole, taken);
        }
    }

    /// Takes pages out of the piece that has them.
    fn cut(&mut self, pages: PfnRange) {
        let Some(at) = self.extents.iter().position(|it| it.contains_range(pages)) else { return };
        let piece = self.extents.swap_remove(at);
        self.extents.extend(around(piece, pages));
    }
}

impl CapacityTarget for Device<'_, '_> {
    type Error = Refusal;

    fn add(&mut self, record: &CapacityRecord) -> Result<(), Refusal> {
        if let Some(whole) = self.whole(record.pages) {
            // They went before, and stay offline until the group is there.
            if self.pgmap.offline_state(record.pages) != Some(Life::Drained) {
                return Err(Refusal::Astride);
            }
            debug_assert!(whole.contains_range(record.pages));
            self.extents.push(record.pages);
            return Ok(());
        }
        // Asked before anything is lent: `add_extent` does not give back what it refuses.
        if self.nr_slots <= self.pgmap.extents().count() {
            return Err(Refusal::NoSlot);
        }
        let mut shelf = self.shelf.borrow_mut();
        let lines = shelf.pieces.pop().ok_or(Refusal::NoMemory)?;
        shelf.nr_lent += 1;
        drop(shelf);
        let attrs = ExtentAttrs { tag: record.tag, ..ExtentAttrs::NEW };
        // What an extent before left in there means nothing.
        let pages = record.pages;
        // Closed until the group is there.
        let added =
            self.pgmap.add_closed_extent(pages, attrs, TABLES, lines, Attach::Clear, &mut []);
        self.extents.push(pages);
        self.expect("start", pages, added);
        Ok(())
    }

    fn undo_add(&mut self, record: &CapacityRecord) {
        if !self.is_whole(record.pages) {
            return self.cut(record.pages);
        }
        let taken = self.take_off(record.pages);
        self.expect("undoing", record.pages, taken);
    }

    fn open(&mut self, record: &CapacityRecord) {
        if !self.is_whole(record.pages) {
            let opened = self.pgmap.online(record.pages);
            return self.expect("opening a part", record.pages, opened);
        }
        let opened = self.pgmap.restore_extent(record.pages.start());
        self.expect("opening", record.pages, opened);
    }

    fn begin_release(&mut self, pages: PfnRange) -> Result<(), Refusal> {
        if !self.is_whole(pages) {
            return match self.pgmap.offline(pages) {
                Ok(Life::Drained) => Ok(()),
                Ok(_) => {
                    self.cancel_release(pages);
                    Err(Refusal::Busy)
                }
                Err(OfflineError::NoRoom { .. }) => Err(Refusal::NoRoom),
                Err(error) => {
                    self.expect::<()>("release of a part", pages, Err(error));
                    Err(Refusal::Busy)
                }
            };
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
        if !self.is_whole(pages) {
            let restored = self.pgmap.online(pages);
            return self.expect("keeping a part", pages, restored);
        }
        let restored = self.pgmap.restore_extent(pages.start());
        self.expect("restoring", pages, restored);
    }

    fn finish_release(&mut self, pages: PfnRange) {
        self.give_up(pages);
    }

    fn revoke(&mut self, pages: PfnRange) {
        if !self.is_whole(pages) {
            let begun = self.pgmap.surprise_offline(pages);
            self.told.push((pages, self.pgmap.ops().take_gone()));
            self.leaving.push(pages);
            return self.expect("surprise of a part", pages, begun);
        }
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
