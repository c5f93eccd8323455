//! A folio goes live with all the counts that it had in another life.

use super::{Bits, CLOSED, Kind, MAPS_SHIFT, PINS_SHIFT, REFS_SHIFT, Word};
use crate::meta::Count;

/// The counts of a live folio, and whether it refuses newcomers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Counts {
    pub(crate) refs: u32,
    pub(crate) pins: u32,
    pub(crate) mappings: u32,
    pub(crate) is_closed: bool,
}

impl Counts {
    /// Returns the first count that is above its limit, with its value.
    pub(crate) fn above_limit(self) -> Option<(Count, u32)> {
        let all =
            [(Count::Refs, self.refs), (Count::Pins, self.pins), (Count::Mappings, self.mappings)];
        all.into_iter().find(|&(count, have)| count.max() < have)
    }

    /// Returns whether nobody holds anything.
    pub(crate) const fn is_idle(self) -> bool {
        self.refs == 0 && self.pins == 0 && self.mappings == 0
    }
}

impl Word<'_> {
    /// The unique folio becomes live with `counts`, which are within their limits and not idle.
    pub(crate) fn restore(self, counts: Counts) {
        let bits = self.read();
        debug_intact!(bits.kind() == Kind::Unique, "only a unique folio is restored");
        debug_assert!(!counts.is_idle() && counts.above_limit().is_none());
        let held = u64::from(counts.refs) << REFS_SHIFT
            | u64::from(counts.pins) << PINS_SHIFT
            | u64::from(counts.mappings) << MAPS_SHIFT;
        let closed = if counts.is_closed { CLOSED } else { 0 };
        self.go_live(Bits(Bits::new(Kind::Live, bits.order()).0 | held | closed));
    }
}
