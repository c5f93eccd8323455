//! Dynamic capacity: what a device adds and takes back, in groups that come and go as a whole.

use core::fmt;

use super::record::CapacityRecord;
use crate::units::PfnRange;

/// What is done with capacity: an owner, seen from the books.
///
/// # Context
///
/// Whatever the caller of [`DynamicCapacity`] allows; no lock is held.
pub trait CapacityTarget {
    /// Why something is refused.
    type Error;

    /// Makes everything ready for an extent. Nothing of it is handed out before
    /// [`open`](Self::open).
    ///
    /// # Errors
    ///
    /// Says why the extent cannot be had; nothing has changed.
    fn add(&mut self, record: &CapacityRecord) -> Result<(), Self::Error>;

    /// Takes an [`add`](Self::add) back: another extent of its group was refused.
    fn undo_add(&mut self, record: &CapacityRecord);

    /// Lets the pages be handed out: the whole group is there.
    fn open(&mut self, record: &CapacityRecord);

    /// Sees to it that nothing of these pages is in use, and will be.
    ///
    /// # Errors
    ///
    /// Says what is in use; nothing has changed.
    fn begin_release(&mut self, pages: PfnRange) -> Result<(), Self::Error>;

    /// Takes a [`begin_release`](Self::begin_release) back: another extent of the group is in use.
    fn cancel_release(&mut self, pages: PfnRange);

    /// Gives the pages up.
    fn finish_release(&mut self, pages: PfnRange);

    /// The pages are gone already, whoever may be using them: a surprise, for which a pgmap has
    /// [`surprise_remove_extent`](crate::PgmapCore::surprise_remove_extent) and, for a part of an
    /// extent, [`surprise_offline`](crate::PgmapCore::surprise_offline).
    fn revoke(&mut self, pages: PfnRange);
}

/// A place for one extent in the books.
#[derive(Clone, Copy, Debug, Default)]
pub struct CapacitySlot(Option<Entry>);

impl CapacitySlot {
    /// An empty place.
    pub const EMPTY: Self = Self(None);
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    record: CapacityRecord,
    is_pending: bool,
}

/// The books of a device's dynamic capacity, over slots that the caller lends.
///
/// A device adds extents in chains: each record but the last says that more follow. A chain is one
/// group; it comes whole or not at all, under one tag, with the sequence numbers 0 to n-1, each
/// once. It goes whole, too, and not while anything of it is in use; extents without a tag go by
/// any range. What the device says is trusted in nothing: a record that breaks a rule gets a typed
/// error, and so does the rest of its chain.
///
/// Mirrors the dynamic capacity handling that is proposed for the CXL driver of Linux, and differs
/// on purpose: a chain has one tag, where there the extents of several tags may come in one; every
/// group is numbered by its device, where there only that of sharable extents is; a record that is
/// known already is an overlap in the middle of a chain; alignment is for the target to refuse.
/// Extents without a tag go in parts, and a forced release is served: that driver has neither.
///
/// Every call takes time in proportion to the slots; [`reread`](Self::reread) in proportion to
/// their square.
pub struct DynamicCapacity<'m> {
    within: PfnRange,
    slots: &'m mut [CapacitySlot],
    pending_max: usize,
    /// A record of this chain was refused, so the rest of it is.
    is_refusing: bool,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Added {
    /// It waits for the rest of its chain.
    Pending,
    /// It was the last one: so many records are in use now.
    Group(usize),
    /// It is in the books already.
    Known,
}

/// What became of a list.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Reread {
    /// Records that were in the books.
    pub nr_known: usize,
    /// Records that are new.
    pub nr_added: usize,
    /// Records that the device has no more; their pages were revoked.
    pub nr_gone: usize,
    /// Records of groups that the target refused.
    pub nr_refused: usize,
}

impl<'m> DynamicCapacity<'m> {
    /// How many records of a chain may wait for its last, unless
    /// [`pending_max`](Self::pending_max) says otherwise: as many as in Linux.
    pub const PENDING_MAX: usize = 100;

    /// Creates empty books; what the slots say is forgotten.
    #[must_use]
    pub fn new(within: PfnRange, slots: &'m mut [CapacitySlot]) -> Self {
        slots.fill(CapacitySlot::EMPTY);
        Self { within, slots, pending_max: Self::PENDING_MAX, is_refusing: false }
    }

    /// Returns the same books with another limit for chains.
    #[must_use]
    pub fn pending_max(self, pending_max: usize) -> Self {
        Self { pending_max, ..self }
    }

    /// Yields the records that are in use.
    pub fn records(&self) -> impl Iterator<Item = &CapacityRecord> + '_ {
        self.entries(false)
    }

    /// Yields the records that wait for the rest of their chain.
    pub fn pending(&self) -> impl Iterator<Item = &CapacityRecord> + '_ {
        self.entries(true)
    }

    fn entries(&self, is_pending: bool) -> impl Iterator<Item = &CapacityRecord> + '_ {
        let entries = self.slots.iter().filter_map(|slot| slot.0.as_ref());
        entries.filter(move |entry| entry.is_pending == is_pending).map(|entry| &entry.record)
    }

    /// Takes a record that the device adds; `more` says that others of its chain follow.
    ///
    /// # Errors
    ///
    /// Says which rule it breaks, or what the target says to it. The whole chain is refused then,
    /// what came of it and what is to come.
    ///
    /// # Context
    ///
    /// As for the target.
    pub fn add<T: CapacityTarget>(
        &mut self,
        record: CapacityRecord,
        more: bool,
        target: &mut T,
    ) -> Result<Added, CapacityError<T::Error>> {
        if self.is_refusing {
            self.is_refusing = more;
            return Err(CapacityError::ChainRefused);
        }
        if self.pending().next().is_none() && self.has(&record) {
            return Ok(Added::Known);
        }
        let result = self.stage(record).map_err(CapacityError::List);
        let result = match result {
            Ok(()) if more => return Ok(Added::Pending),
            Ok(()) => self.close(target),
            Err(error) => Err(error),
        };
        if result.is_err() {
            self.is_refusing = more && !seeded!(ChainGoesOn);
            self.drop_pending();
        }
        result.map(Added::Group)
    }

    /// Puts a record beside those that wait.
    fn stage(&mut self, record: CapacityRecord) -> Result<(), ListError> {
        self.check_alone(&record)?;
        if let Some(first) = self.pending().next() {
            if first.tag != record.tag {
                return Err(ListError::OtherTag { pages: record.pages });
            }
        }
        if record.is_tagged() {
            let is_same = |other: &&CapacityRecord| other.tag == record.tag;
            if let Some(other) = self.records().find(is_same).filter(|_| !seeded!(TagTwice)) {
                return Err(ListError::TagInUse { pages: record.pages, existing: other.pages });
            }
            if self.pending().any(|other| other.sequence == record.sequence) {
                return Err(ListError::Twice { sequence: record.sequence });
            }
        }
        let entries = self.slots.iter().filter_map(|slot| slot.0.as_ref());
        if let Some(other) = entries.map(|it| it.record.pages).find(|it| it.overlaps(record.pages))
        {
            return Err(ListError::Overlap { pages: record.pages, existing: other });
        }
        let nr_pending = self.pending().count();
        if self.pending_max <= nr_pending {
            return Err(ListError::TooMany { max: self.pending_max });
        }
        let nr_slots = self.slots.len();
        let slot = self.free_slot().ok_or(ListError::NoSlot { nr_slots })?;
        slot.0 = Some(Entry { record, is_pending: true });
        Ok(())
    }

    /// Checks what can be said of a record without others.
    fn check_alone(&self, record: &CapacityRecord) -> Result<(), ListError> {
        let CapacityRecord { pages, sequence, .. } = *record;
        if !self.within.contains_range(pages) {
            return Err(ListError::Outside { pages, within: self.within });
        }
        if !record.is_tagged() && sequence != 0 {
            return Err(ListError::Gap { sequence, nr_records: 1 });
        }
        Ok(())
    }

    fn has(&self, record: &CapacityRecord) -> bool {
        self.records().any(|known| known == record)
    }

    fn free_slot(&mut self) -> Option<&mut CapacitySlot> {
        self.slots.iter_mut().find(|slot| slot.0.is_none())
    }

    fn drop_pending(&mut self) {
        for slot in self.slots.iter_mut() {
            slot.0 = slot.0.filter(|entry| !entry.is_pending);
        }
    }

    /// Brings the chain that waits into use; returns how many records it has.
    fn close<T: CapacityTarget>(
        &mut self,
        target: &mut T,
    ) -> Result<usize, CapacityError<T::Error>> {
        let nr_records = self.pending().count();
        // All differ, so they are dense exactly if none is too high.
        let gap = |it: &&CapacityRecord| nr_records <= usize::from(it.sequence);
        if let Some(&CapacityRecord { sequence, .. }) =
            self.pending().find(gap).filter(|_| !seeded!(GapAccepted))
        {
            return Err(CapacityError::List(ListError::Gap { sequence, nr_records }));
        }
        for (nr_done, record) in self.pending().enumerate() {
            if let Err(error) = target.add(record) {
                // Ends: with those that were added.
                let nr_done = if seeded!(GroupInPart) { 0 } else { nr_done };
                self.pending().take(nr_done).for_each(|record| target.undo_add(record));
                return Err(CapacityError::Target { pages: record.pages, error });
            }
        }
        for entry in self.slots.iter_mut().filter_map(|slot| slot.0.as_mut()) {
            if entry.is_pending {
                target.open(&entry.record);
                entry.is_pending = false;
            }
        }
        Ok(nr_records)
    }

    /// Gives capacity back: the whole group if `tag` says so, or just `pages` of an extent without
    /// a tag.
    ///
    /// # Errors
    ///
    /// Refuses what is not in the books, and what is in use; nothing has changed then.
    ///
    /// # Context
    ///
    /// As for the target.
    pub fn release<T: CapacityTarget>(
        &mut self,
        pages: PfnRange,
        tag: [u8; 16],
        target: &mut T,
    ) -> Result<u64, CapacityError<T::Error>> {
        self.check_release(pages, tag).map_err(CapacityError::List)?;
        for (nr_done, (_, part)) in self.parts(pages, tag).enumerate() {
            if let Err(error) = target.begin_release(part) {
                // Ends: with those that were begun.
                let nr_done = if seeded!(ReleaseInPart) { 0 } else { nr_done };
                self.parts(pages, tag).take(nr_done).for_each(|it| target.cancel_release(it.1));
                return Err(CapacityError::Target { pages: part, error });
            }
        }
        Ok(self.remove(pages, tag, |part| target.finish_release(part)))
    }

    /// Takes note that capacity is gone, whoever uses it; what goes is as for
    /// [`release`](Self::release).
    ///
    /// # Errors
    ///
    /// Refuses what is not in the books; nothing has changed then.
    ///
    /// # Context
    ///
    /// As for the target.
    pub fn revoke<T: CapacityTarget>(
        &mut self,
        pages: PfnRange,
        tag: [u8; 16],
        target: &mut T,
    ) -> Result<u64, ListError> {
        self.check_release(pages, tag)?;
        Ok(self.remove(pages, tag, |part| target.revoke(part)))
    }

    /// Yields the records that a release is about, each with the part of it that goes.
    fn parts(
        &self,
        pages: PfnRange,
        tag: [u8; 16],
    ) -> impl Iterator<Item = (CapacityRecord, PfnRange)> + '_ {
        self.records().filter_map(move |record| Some((*record, part_of(record, pages, tag)?)))
    }

    fn check_release(&self, pages: PfnRange, tag: [u8; 16]) -> Result<(), ListError> {
        let is_meant =
            |record: &&CapacityRecord| record.tag == tag && record.pages.contains_range(pages);
        let record = self.records().find(is_meant).ok_or(ListError::Unknown { pages })?;
        let is_split = record.pages.start() < pages.start() && pages.last() < record.pages.last();
        let nr_slots = self.slots.len();
        if !record.is_tagged() && is_split && self.slots.iter().all(|slot| slot.0.is_some()) {
            return Err(ListError::NoSlot { nr_slots });
        }
        Ok(())
    }

    /// Takes what a release is about out of the books; returns the number of pages.
    fn remove(&mut self, pages: PfnRange, tag: [u8; 16], mut gone_fn: impl FnMut(PfnRange)) -> u64 {
        let (mut nr_pages, mut rest) = (0u64, None);
        for slot in self.slots.iter_mut() {
            let Some(Entry { record, is_pending: false }) = slot.0 else { continue };
            let Some(part) = part_of(&record, pages, tag) else { continue };
            gone_fn(part);
            nr_pages = nr_pages.saturating_add(part.nr_pages());
            let [low, high] = record
                .pages
                .around(part)
                .map(|piece| piece.map(|pages| CapacityRecord { pages, ..record }));
            slot.0 = low.or(high).map(|record| Entry { record, is_pending: false });
            rest = rest.or(low.and(high));
        }
        let rest = rest.filter(|_| !seeded!(UpperPartLost));
        if let (Some(record), Some(slot)) = (rest, self.free_slot()) {
            slot.0 = Some(Entry { record, is_pending: false });
        }
        nr_pages
    }

    /// Compares the books with the list of all that the device says is in use, and makes them the
    /// same: after a crash, or whenever there is doubt. Doing it twice changes nothing more.
    ///
    /// A chain that waits is forgotten.
    ///
    /// # Errors
    ///
    /// Says which rule the list breaks; nothing has changed then.
    ///
    /// # Context
    ///
    /// As for the target.
    pub fn reread<T: CapacityTarget>(
        &mut self,
        listed: &[CapacityRecord],
        target: &mut T,
    ) -> Result<Reread, ListError> {
        self.check_list(listed)?;
        self.drop_pending();
        self.is_refusing = false;
        let mut reread = Reread::default();
        for slot in self.slots.iter_mut() {
            let Some(Entry { record, .. }) = slot.0 else { continue };
            if listed.contains(&record) {
                reread.nr_known = reread.nr_known.wrapping_add(1);
            } else if !seeded!(GoneStays) {
                target.revoke(record.pages);
                slot.0 = None;
                reread.nr_gone = reread.nr_gone.wrapping_add(1);
            }
        }
        for (index, record) in listed.iter().enumerate() {
            let is_met = |other: &CapacityRecord| other.is_tagged() && other.tag == record.tag;
            let is_first = !listed.iter().take(index).any(is_met);
            if !is_first || self.has(record) && !seeded!(ListedTwice) {
                continue;
            }
            let group = || listed.iter().skip(index).filter(|it| *it == record || is_met(it));
            for record in group() {
                if let Some(slot) = self.free_slot() {
                    slot.0 = Some(Entry { record: *record, is_pending: true });
                }
            }
            let nr_records = group().count();
            let is_added = self.close(target).is_ok();
            let nr = if is_added { &mut reread.nr_added } else { &mut reread.nr_refused };
            *nr = nr.wrapping_add(nr_records);
            self.drop_pending();
        }
        Ok(reread)
    }

    /// Checks a list against the rules, and against the books.
    fn check_list(&self, listed: &[CapacityRecord]) -> Result<(), ListError> {
        if self.slots.len() < listed.len() {
            return Err(ListError::NoSlot { nr_slots: self.slots.len() });
        }
        for (index, record) in listed.iter().enumerate() {
            self.check_alone(record)?;
            let pages = record.pages;
            let before = || listed.iter().take(index);
            if let Some(other) = before().find(|other| other.pages.overlaps(pages)) {
                return Err(ListError::Overlap { pages, existing: other.pages });
            }
            if record.is_tagged() {
                let is_same = |other: &&CapacityRecord| other.tag == record.tag;
                if before().filter(is_same).any(|other| other.sequence == record.sequence) {
                    return Err(ListError::Twice { sequence: record.sequence });
                }
                let nr_records = listed.iter().filter(is_same).count();
                if nr_records <= usize::from(record.sequence) {
                    return Err(ListError::Gap { sequence: record.sequence, nr_records });
                }
                let stays = |known: &&CapacityRecord| is_same(known) && listed.contains(known);
                if let Some(known) = self.records().find(stays).filter(|_| !self.has(record)) {
                    return Err(ListError::TagInUse { pages, existing: known.pages });
                }
            }
            // What the books have is the same, or apart, or goes as a whole.
            let is_other = |known: &&CapacityRecord| *known != record;
            let in_books = self.records().filter(is_other).find(|it| it.pages.overlaps(pages));
            if let Some(known) = in_books {
                return Err(ListError::Overlap { pages, existing: known.pages });
            }
        }
        Ok(())
    }
}

/// Returns what goes of a record when `pages` of `tag` go.
fn part_of(record: &CapacityRecord, pages: PfnRange, tag: [u8; 16]) -> Option<PfnRange> {
    if record.tag != tag {
        return None;
    }
    if record.is_tagged() { Some(record.pages) } else { record.pages.intersection(pages) }
}

impl fmt::Debug for DynamicCapacity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.records()).finish()
    }
}

/// Which rule a record or a list breaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ListError {
    /// The pages are not all where the device may have any.
    Outside {
        /// The pages.
        pages: PfnRange,
        /// Where there may be some.
        within: PfnRange,
    },
    /// The pages overlap others.
    Overlap {
        /// The pages.
        pages: PfnRange,
        /// The others.
        existing: PfnRange,
    },
    /// A chain goes on under another tag.
    OtherTag {
        /// The pages of the record.
        pages: PfnRange,
    },
    /// The tag names a group that is in use.
    TagInUse {
        /// The pages of the record.
        pages: PfnRange,
        /// Some pages of the group.
        existing: PfnRange,
    },
    /// A sequence number comes twice.
    Twice {
        /// The number.
        sequence: u16,
    },
    /// A sequence number is too high for a group of so many.
    Gap {
        /// The number.
        sequence: u16,
        /// The records of the group.
        nr_records: usize,
    },
    /// A chain is too long.
    TooMany {
        /// The limit.
        max: usize,
    },
    /// The books are full.
    NoSlot {
        /// How many slots there are.
        nr_slots: usize,
    },
    /// What is to be given back is not in the books as one extent of that tag.
    Unknown {
        /// The pages.
        pages: PfnRange,
    },
}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside { pages, within } => write!(f, "pages {pages} are not in {within}"),
            Self::Overlap { pages, existing } => write!(f, "pages {pages} overlap {existing}"),
            Self::OtherTag { pages } => {
                write!(f, "pages {pages} have another tag than their chain")
            }
            Self::TagInUse { pages, existing } => {
                write!(f, "the tag of pages {pages} is that of {existing}, which are in use")
            }
            Self::Twice { sequence } => write!(f, "sequence number {sequence} comes twice"),
            Self::Gap { sequence, nr_records } => {
                write!(f, "sequence number {sequence} in a group of {nr_records}")
            }
            Self::TooMany { max } => write!(f, "a chain of more than {max} records"),
            Self::NoSlot { nr_slots } => write!(f, "all {nr_slots} capacity slots are in use"),
            Self::Unknown { pages } => write!(f, "pages {pages} are no extent of that tag"),
        }
    }
}

impl core::error::Error for ListError {}

/// Why capacity was neither added nor released.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum CapacityError<E> {
    /// The device breaks a rule.
    List(ListError),
    /// An earlier record of the same chain was refused.
    ChainRefused,
    /// The target refuses an extent.
    Target {
        /// The pages.
        pages: PfnRange,
        /// What it says.
        error: E,
    },
}

impl<E: fmt::Display> fmt::Display for CapacityError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(error) => error.fmt(f),
            Self::ChainRefused => f.write_str("an earlier record of the chain was refused"),
            Self::Target { pages, error } => write!(f, "pages {pages}: {error}"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for CapacityError<E> {}
