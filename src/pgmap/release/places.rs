//! Places: where the folios of a plan go.
//!
//! The largest go first, and each takes any free run of its order. That is enough: a run of order
//! *o* takes one of order *o* out of the supply, and two of each order below for one of the order
//! above, wherever it lies; so no choice leaves less for those that follow. What is chosen is where
//! least is broken up: pages of blocks that are fractured, then blocks, then regions.

use super::heap;
use super::weigh::first_head;
use super::{Move, Window};
use crate::pgmap::extent::Extent;
use crate::pgmap::owner::Core;
use crate::units::{Order, Pfn, PfnRange};

/// A folio that found no place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct NoPlace {
    pub(super) planned: Move,
    /// Whether there is one, in a block that cannot be fractured.
    pub(super) is_tables: bool,
}

/// What is looked through: in which windows nothing goes, and what is taken.
#[derive(Debug)]
struct Places<'p> {
    /// By their place.
    windows: &'p [Window],
    moves: &'p mut [Move],
    /// So many moves have a place; they are sorted by it.
    nr_placed: usize,
    /// Whether a block was left out for want of a table.
    is_tables: bool,
}

impl Core {
    /// Finds a place for each move, outside all `windows`, which are sorted by their place.
    pub(super) fn find_places(
        &self,
        windows: &[Window],
        moves: &mut [Move],
    ) -> Result<(), NoPlace> {
        heap::sort(moves, |it| (core::cmp::Reverse(it.order), it.from));
        let mut places = Places { windows, moves, nr_placed: 0, is_tables: false };
        // Ends: all moves of one more order have a place on every turn.
        while let Some(&Move { order, .. }) = places.moves.get(places.nr_placed) {
            for level in [Order::ZERO, Order::BLOCK, Order::REGION] {
                if level == Order::REGION || order < next_level(level) {
                    self.open_extents().for_each(|extent| places.fill(extent, order, level));
                }
            }
            let rest = places.moves.get(places.nr_placed);
            if let Some(&planned) = rest.filter(|it| it.order == order) {
                return Err(NoPlace { planned, is_tables: places.is_tables });
            }
        }
        heap::sort(moves, |it| it.from);
        Ok(())
    }
}

/// Returns the order at which a level ends, and the next begins.
fn next_level(level: Order) -> Order {
    if level == Order::ZERO { Order::BLOCK } else { Order::REGION }
}

impl Places<'_> {
    /// Gives places in free runs of `level` to moves of `order`, which come next.
    fn fill(&mut self, extent: &Extent, order: Order, level: Order) {
        let mut places = Fresh::new(self, extent, order);
        let mut nr_placed = self.nr_placed;
        let mut next = Some(extent.range().start());
        // Ends: `next` grows on every turn, up to the end of the extent.
        while let Some(pfn) = next.filter(|&pfn| pfn <= extent.range().last()) {
            if self.moves.get(nr_placed).is_none_or(|it| it.order != order) {
                break;
            }
            let chunk = extent.index().chunk(pfn);
            next = pfn.checked_add(chunk.nr_pages);
            let run = PfnRange::new(pfn, chunk.nr_pages).ok();
            let run = run.and_then(|run| run.intersection(extent.range()));
            let Some(run) = run.filter(|_| chunk.is_free && chunk.level == level) else { continue };
            let mut head = first_head(run, order);
            // Ends: `head` grows on every turn, up to the end of the run.
            while let Some(place) = head.and_then(|head| PfnRange::folio(head, order)) {
                if !run.contains_range(place) {
                    break;
                }
                if let Some(behind) = self.behind_taken(place) {
                    head = behind
                        .and_then(|pfn| first_head(PfnRange::between(pfn, run.last())?, order));
                    continue;
                }
                if !places.may_take(self, extent, place) {
                    self.is_tables = true;
                    let block = PfnRange::block(place.start(), Order::BLOCK);
                    head = block.last().checked_add(1);
                    continue;
                }
                let Some(planned) = self.moves.get_mut(nr_placed) else { break };
                if planned.order != order {
                    break;
                }
                planned.to = place.start();
                nr_placed = nr_placed.saturating_add(1);
                head = place.last().checked_add(1);
            }
        }
        if nr_placed != self.nr_placed {
            self.nr_placed = nr_placed;
            let placed = self.moves.get_mut(..nr_placed).unwrap_or_default();
            heap::sort(placed, |it| it.to);
        }
    }

    /// Returns the page behind the window, or the place that is taken, in the way of `place`.
    #[expect(clippy::option_option, reason = "nothing may be behind what is in the way")]
    fn behind_taken(&self, place: PfnRange) -> Option<Option<Pfn>> {
        let from = self.windows.partition_point(|it| it.range.last() < place.start());
        let window = self.windows.get(from).map(|it| it.range);
        let window = window.filter(|it| it.overlaps(place) && !seeded!(PlanIntoWindow));
        let taken = window.or_else(|| self.first_taken(place))?;
        Some(taken.last().checked_add(1))
    }

    /// Returns the first place of a move that `range` has pages of.
    fn first_taken(&self, range: PfnRange) -> Option<PfnRange> {
        let placed = self.moves.get(..self.nr_placed)?;
        let from = placed.partition_point(|it| it.target().last() < range.start());
        let first = placed.get(from)?.target();
        (first.overlaps(range) && !seeded!(PlanPlaceTwice)).then_some(first)
    }
}

/// Which whole blocks may be fractured: as many as there are tables left.
#[derive(Debug)]
struct Fresh {
    /// More of them.
    left: u64,
    /// The last one.
    block: Option<Pfn>,
    is_small: bool,
}

impl Fresh {
    fn new(places: &Places<'_>, extent: &Extent, order: Order) -> Self {
        let is_small = order < Order::BLOCK;
        let mut left = u64::from(extent.meta.tables_left());
        let placed = places.moves.get(..places.nr_placed).filter(|_| is_small).unwrap_or_default();
        let mut block = None;
        for planned in placed.iter().filter(|it| it.order < Order::BLOCK) {
            let this = planned.to.head(Order::BLOCK);
            if extent.range().contains(planned.to) && block.replace(this) != Some(this) {
                left = left.saturating_sub(u64::from(!has_table(extent, planned.to)));
            }
        }
        Self { left, block: None, is_small }
    }

    /// Returns whether a place may be taken, as far as tables go.
    fn may_take(&mut self, places: &Places<'_>, extent: &Extent, place: PfnRange) -> bool {
        let block = PfnRange::block(place.start(), Order::BLOCK);
        let is_open = !self.is_small
            || self.block == Some(block.start())
            || has_table(extent, place.start())
            || places.first_taken(block).is_some();
        if !is_open {
            let Some(left) = self.left.checked_sub(1) else { return false };
            self.left = left;
        }
        self.block = Some(block.start());
        true
    }
}

fn has_table(extent: &Extent, pfn: Pfn) -> bool {
    let index = extent.index();
    index.has_table(index.geometry().block_of(pfn))
}
