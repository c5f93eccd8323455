//! How a state word prints.

use core::fmt;

use super::{Bits, Kind};
use crate::meta::Count;

impl fmt::Debug for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{}", self.kind(), self.raw_order())?;
        if matches!(self.kind(), Kind::Condemned) {
            return write!(f, " link {:#x}", self.link());
        }
        let (refs, pins) = (self.count(Count::Refs), self.count(Count::Pins));
        write!(f, " refs {refs} pins {pins} maps {}", self.count(Count::Mappings))?;
        f.write_str(if self.is_closed() { " closed" } else { "" })?;
        f.write_str(if self.has_waiter() { " waiter" } else { "" })
    }
}
