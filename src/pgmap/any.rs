//! Counts on folios whose owner's type is not known: where they are, and how the last one goes.

use core::fmt;

use super::directory::{AnyOwner, Directory};
use super::owner::Core;
use super::policy::Policy;
use crate::meta::Count;
use crate::meta::word::{Bits, Dropped, Gate, Refused, Underflow, Word};
use crate::units::{Pfn, PfnRange};

/// A folio's place, whoever owns it, without any claim to it.
#[derive(Clone, Copy)]
pub(crate) struct AnyPlace<'d> {
    pub(super) owner: &'d (dyn AnyOwner + 'd),
    pub(super) word: Word<'d>,
    pub(super) head: Pfn,
}

impl<'d> AnyPlace<'d> {
    pub(crate) const fn head(&self) -> Pfn {
        self.head
    }

    pub(crate) fn core(&self) -> &'d Core {
        self.owner.core()
    }

    pub(crate) fn policy(&self) -> Policy {
        self.owner.core().policy
    }

    /// Returns what the word says at this moment; its order is stable while the caller holds a
    /// count.
    pub(crate) fn read(&self) -> Bits {
        self.word.read()
    }

    /// Returns the pages; stable while the caller holds a count.
    pub(crate) fn pages(&self) -> PfnRange {
        PfnRange::block(self.head, self.read().order())
    }

    /// Adds counts for a holder, who may also do so in a pgmap that is being removed.
    pub(crate) fn add_held(&self, count: Count, nr: u32, gate: Gate) -> Result<(), Refused> {
        self.word.add(count, nr, gate, |_| true).map(|_| ())
    }

    /// Drops counts, and does what the last one owes.
    ///
    /// Safe although nobody proves to own them: mappings and pins are disjoint from references, and
    /// what a handle of a reference shows is there as long as its reference is.
    pub(crate) fn sub(&self, count: Count, nr: u32) -> Result<(), Underflow> {
        self.after_drop(self.word.sub(count, nr)?);
        Ok(())
    }

    /// Does what a count that is gone owes.
    fn after_drop(&self, dropped: Dropped) {
        match dropped {
            Dropped::StillHeld { wake: false } => {}
            Dropped::StillHeld { wake: true } => self.owner.wake(self.head),
            Dropped::Last { order, wake } => self.owner.last_put(self.head, order, wake),
        }
    }

    /// Drops a reference that a handle owned.
    pub(super) fn put(&self) {
        self.after_drop(self.word.put());
    }
}

impl fmt::Debug for AnyPlace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.head, self.word)
    }
}

/// A page, as far as a directory knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Known<'d> {
    /// No owner has it.
    Foreign,
    /// An owner has it, but there is no folio.
    NoFolio,
    /// The folio that covers it, in whatever state.
    Folio(AnyPlace<'d>),
}

impl<'d> Directory<'d> {
    /// Returns the folio that covers `pfn` at this moment.
    pub(crate) fn place_of(&self, pfn: Pfn) -> Known<'d> {
        let mut owners = self.owners();
        let known = owners.find_map(|owner| Some((owner, owner.core().extent_of(pfn)?)));
        let Some((owner, extent)) = known else { return Known::Foreign };
        match extent.find(pfn) {
            Some(found) => Known::Folio(AnyPlace { owner, word: found.word, head: found.head }),
            None => Known::NoFolio,
        }
    }

    /// Returns the place of a folio of the owner `own`, if that owner is one of these.
    pub(crate) fn place_in<'p>(&self, own: &Core, word: Word<'p>, head: Pfn) -> Option<AnyPlace<'p>>
    where
        'd: 'p,
    {
        // Two cores never share an address, so the same address is the same owner.
        let owner = self.owners().find(|owner| core::ptr::eq(owner.core(), own))?;
        Some(AnyPlace { owner, word, head })
    }

    /// Returns the same place, if its owner is one of these.
    pub(crate) fn known<'p>(&self, place: AnyPlace<'p>) -> Option<AnyPlace<'p>>
    where
        'd: 'p,
    {
        self.place_in(place.core(), place.word, place.head)
    }

    /// Returns an extent of any owner that overlaps `pages`.
    pub(crate) fn overlap(&self, pages: PfnRange) -> Option<PfnRange> {
        self.owners().find_map(|owner| owner.core().overlap(pages))
    }
}
