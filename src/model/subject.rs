//! What an implementation has to offer to be compared with the specification.

use alloc::string::String;
use alloc::vec::Vec;

use super::op::Op;
use super::outcome::{ExtentView, FolioView, HookEvent, Kind, Outcome, PageView, Totals};
use crate::units::{Pfn, PfnRange};

/// The largest values of the three counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// References.
    pub refs: u32,
    /// Pins.
    pub pins: u32,
    /// Mappings.
    pub maps: u32,
}

impl Limits {
    /// Returns the limit of a kind of counts.
    #[must_use]
    pub fn of(self, kind: Kind) -> u32 {
        match kind {
            Kind::Refs => self.refs,
            Kind::Pins => self.pins,
            Kind::Maps => self.maps,
        }
    }
}

/// What a subject can do; a port may begin with little.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Caps {
    ops: u128,
    /// The limits of the counts.
    pub limits: Limits,
}

impl Caps {
    /// Everything.
    #[must_use]
    pub const fn all(limits: Limits) -> Self {
        Self { ops: u128::MAX, limits }
    }

    /// Returns these capabilities without the operation of that word.
    #[must_use]
    pub fn without(self, word: &str) -> Self {
        let index = Op::WORDS.iter().position(|&known| known == word);
        let bit = index.map_or(0, |index| 1 << index);
        Self { ops: self.ops & !bit, ..self }
    }

    /// Returns whether the operation is among them.
    #[must_use]
    pub fn allow(self, op: &Op) -> bool {
        self.ops >> op.index() & 1 == 1
    }
}

/// An implementation under test.
///
/// It keeps a table of the handles that it has handed out. A new one takes the lowest free slot;
/// the handles that an operation consumes leave their slots before the operation begins, and go
/// back there if it is refused. Operations come with all selectors resolved.
pub trait Subject {
    /// Returns what this subject can do.
    fn caps(&self) -> Caps;

    /// Performs an operation.
    fn apply(&mut self, op: &Op) -> Outcome;

    /// Moves what the free hook met since the last call to the end of `log`.
    fn hook_log(&mut self, log: &mut Vec<HookEvent>);

    /// Returns what it says about a page.
    fn page(&self, pfn: Pfn) -> PageView;

    /// Appends all folios, ascending; returns whether it can list them.
    fn folios(&self, list: &mut Vec<FolioView>) -> bool;

    /// Appends the longest runs of free pages, ascending; returns whether it can list them.
    fn free_runs(&self, list: &mut Vec<PfnRange>) -> bool;

    /// Appends all extents, in the order of their coming; returns whether it can list them.
    fn extents(&self, list: &mut Vec<ExtentView>) -> bool;

    /// Returns its statistics, if it has any.
    fn totals(&self) -> Option<Totals>;

    /// Appends all that a refused operation must not change: every word but mere caches.
    fn image(&self, words: &mut Vec<u64>);

    /// Checks its own invariants.
    ///
    /// # Errors
    ///
    /// Says which one is broken.
    fn check(&self) -> Result<(), String>;
}
