//! The words that are the state, for whoever copies, compares or spoils them.

use super::super::line::WordKind;
use super::super::{MetaLine, RegionLine};
use super::{Meta, RootMap};
use crate::meta::layout::Region;
use crate::sync::AtomicU64;

#[expect(clippy::arithmetic_side_effects, reason = "positions inside the layout")]
impl Meta {
    /// Calls `visit_fn` with every word that is neither a hint nor a mover nor a CPU's place, line
    /// by line, and with what the words are.
    ///
    /// Those words are the state: two images are equal exactly if they are.
    pub(crate) fn for_each_part(&self, mut visit_fn: impl FnMut(&[AtomicU64], WordKind)) {
        let one = core::slice::from_ref;
        visit_fn(one(self.pool()), WordKind::Structure);
        for index in 0..self.root_words() {
            visit_fn(one(self.root(RootMap::Free, index)), WordKind::Structure);
            visit_fn(one(self.root(RootMap::Clean, index)), WordKind::Clean);
        }
        for region in (0..self.geometry().nr_regions()).map(Region) {
            let (first, last) = self.geometry().region_bits(region);
            if !self.is_init(region) {
                // Lazy initialisation does not show: the region reads as it will be then.
                let zero = MetaLine::default();
                visit_fn(zero.words(), WordKind::Structure);
                visit_fn(zero.words(), WordKind::Clean);
                (first..=last).for_each(|_| visit_fn(&zero.words()[..1], WordKind::State));
                continue;
            }
            visit_fn(self.region(region, RegionLine::Free).words(), WordKind::Structure);
            visit_fn(self.region(region, RegionLine::Clean).words(), WordKind::Clean);
            let [first, last] = [first, last].map(|bit| self.geometry().block_at(region, bit));
            let nr_blocks = (last.0 - first.0 + 1) as u64;
            self.parts(self.layout().slots, first.0 as u64, nr_blocks)
                .for_each(|slots| visit_fn(slots, WordKind::State));
            for (block, table) in self.tables_of(first, last) {
                visit_fn(one(self.index_cell(block).0), WordKind::Structure);
                let cells = table.lines();
                cells.iter().for_each(|line| visit_fn(line.words(), WordKind::State));
                visit_fn(table.free().words(), WordKind::Structure);
                visit_fn(table.clean().words(), WordKind::Clean);
            }
        }
    }
}
