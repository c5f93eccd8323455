//! What a plan ought to be: all choices of windows, and whether all folios fit, one by one.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::{PlanAsk, PlanFolio, PlanState, PlanVerdict, PlanWorld};
use crate::pgmap::{Goal, Obstacle, ReleasePlan, ReleasePlanError};
use crate::units::{Order, PfnRange};

/// Up to so many pages, every way to place folios is tried; above, the largest go first.
const PAGES_MAX: u64 = 8;

/// A world, page by page.
pub(super) struct Picture<'w> {
    world: &'w PlanWorld,
    /// The number of the folio that has each page.
    owners: Vec<Option<usize>>,
    /// Whether a page is bad or offline.
    withheld: Vec<bool>,
}

/// Pages from one up to, and without, another; counted from the start of the world.
type Span = (usize, usize);

impl<'w> Picture<'w> {
    pub(super) fn new(world: &'w PlanWorld) -> Self {
        let len = world.nr_pages as usize;
        let (mut owners, mut withheld) = (vec![None; len], vec![false; len]);
        for (number, folio) in world.folios.iter().enumerate() {
            let (from, to) = span_of(world, folio);
            owners[from..to].fill(Some(number));
        }
        for &bad in &world.bad {
            withheld[(bad - world.start) as usize] = true;
        }
        if let Some((first, len)) = world.offline {
            let from = (first - world.start) as usize;
            withheld[from..from + len as usize].fill(true);
        }
        Self { world, owners, withheld }
    }

    /// Compares what was planned with what can be.
    pub(super) fn judge(
        &self,
        ask: &PlanAsk,
        made: &Result<ReleasePlan<'_>, ReleasePlanError>,
    ) -> Result<PlanVerdict, String> {
        let (candidates, count) = match ask.goal {
            Goal::Empty(range) => return self.judge_empty(ask, range, made),
            Goal::Runs { order, count, within } => (self.candidates(order, within), count),
        };
        let Some(cheapest) = candidates.get(..count) else {
            let found = candidates.len();
            return match made {
                Err(ReleasePlanError::NotEnough { wanted, found: said, .. })
                    if (*wanted, *said) == (count, found) =>
                {
                    Ok(PlanVerdict::None)
                }
                _ => Err(format!("{made:?} where there are {found} windows")),
            };
        };
        let least: u64 = cheapest.iter().map(|&(cost, _)| cost).sum();
        let spans: Vec<Span> = cheapest.iter().map(|&(_, span)| span).collect();
        let best = self.best(&candidates, count);
        match made {
            Ok(plan) => {
                self.check_plan(plan, &candidates, count)?;
                let best = best.ok_or_else(|| format!("{plan:?} where nothing fits"))?;
                let is_sane = plan.least_pages == least && least <= best && best <= plan.nr_pages;
                // Without a spare window it is the cheapest or none.
                let is_bound = 0 < ask.nr_spare && !self.fits(&spans) || plan.nr_pages == least;
                if !is_sane || !is_bound || ask.max_pages < plan.nr_pages {
                    return Err(format!("{plan:?} where {best} is the best, {least} the least"));
                }
                Ok(match plan.nr_pages - best {
                    0 => PlanVerdict::Cheapest,
                    more => PlanVerdict::Dearer(more),
                })
            }
            Err(ReleasePlanError::OverBudget { needed, max }) => {
                let is_right = *max == ask.max_pages && max < needed && least <= *needed;
                // Spare windows are tried as long as they are within the budget.
                let is_least = *needed == least || 0 < ask.nr_spare && !self.fits(&spans);
                if is_right && is_least { Ok(PlanVerdict::None) } else { Err(format!("{made:?}")) }
            }
            Err(ReleasePlanError::NoRoom { from, order }) => {
                let at = |it: &&PlanFolio| it.head == from.as_u64() && it.order == order.as_u8();
                if self.fits(&spans) || self.world.folios.iter().find(at).is_none() {
                    return Err(format!("{made:?} where there is room in {spans:?}"));
                }
                Ok(best.map_or(PlanVerdict::None, |_| PlanVerdict::Missed))
            }
            _ => Err(format!("{made:?} where {least} is the least")),
        }
    }

    fn judge_empty(
        &self,
        ask: &PlanAsk,
        range: PfnRange,
        made: &Result<ReleasePlan<'_>, ReleasePlanError>,
    ) -> Result<PlanVerdict, String> {
        let from = (range.start().as_u64() - self.world.start) as usize;
        let span = (from, from + range.nr_pages() as usize);
        let met = self.folios_of(span);
        if let Some(stays) = met.iter().find(|it| !self.is_movable(it)) {
            let head = match made {
                Err(ReleasePlanError::InTheWay(
                    Obstacle::Pinned { folio } | Obstacle::NotLive { folio },
                )) => folio.head.as_u64(),
                Err(ReleasePlanError::InTheWay(Obstacle::Bad { pfn })) => pfn.as_u64(),
                _ => return Err(format!("{made:?} where {stays:?} stays")),
            };
            let is_named = stays.head <= head && head < stays.head + (1 << stays.order);
            return if is_named { Ok(PlanVerdict::None) } else { Err(format!("{made:?}")) };
        }
        let cost: u64 = met.iter().map(|it| 1 << it.order).sum();
        let is_right = match made {
            Ok(plan) => {
                self.check_moves(plan, &[span], &met)?;
                let is_cost = (plan.nr_pages, plan.least_pages) == (cost, cost);
                is_cost && cost <= ask.max_pages && plan.windows.len() == 1
            }
            Err(ReleasePlanError::OverBudget { needed, .. }) => {
                *needed == cost && ask.max_pages < cost
            }
            Err(ReleasePlanError::NoRoom { .. }) => !self.fits(&[span]),
            _ => false,
        };
        match (is_right, made) {
            (false, _) => Err(format!("{made:?} where {met:?} cost {cost}")),
            (true, Ok(_)) => Ok(PlanVerdict::Cheapest),
            (true, Err(_)) => Ok(PlanVerdict::None),
        }
    }

    /// Returns all windows that can be emptied, the cheapest first.
    fn candidates(&self, order: Order, within: Option<PfnRange>) -> Vec<(u64, Span)> {
        let (start, size) = (self.world.start, order.nr_pages());
        let (mut first, mut end) = (start, start + self.world.nr_pages);
        if let Some(within) = within {
            first = first.max(within.start().as_u64());
            end = end.min(within.last().as_u64() + 1);
        }
        let mut windows = Vec::new();
        let mut head = first.next_multiple_of(size);
        while head + size <= end {
            let from = (head - start) as usize;
            let span = (from, from + size as usize);
            let folios = self.folios_of(span);
            let is_inside = |it: &PlanFolio| {
                let (from, to) = span_of(self.world, it);
                span.0 <= from && to <= span.1 && self.is_movable(it)
            };
            if folios.iter().all(is_inside) && !self.withheld[span.0..span.1].contains(&true) {
                let used = self.owners[span.0..span.1].iter().flatten().count();
                windows.push((used as u64, span));
            }
            head += size;
        }
        windows.sort();
        windows
    }

    /// Returns what the cheapest choice costs for which there is room.
    fn best(&self, candidates: &[(u64, Span)], count: usize) -> Option<u64> {
        let mut best = None;
        for choice in 0_u32..1 << candidates.len().min(12) {
            if choice.count_ones() as usize != count {
                continue;
            }
            let chosen = candidates.iter().take(12).enumerate();
            let chosen: Vec<_> =
                chosen.filter(|(at, _)| choice >> at & 1 == 1).map(|(_, it)| *it).collect();
            let cost = chosen.iter().map(|&(cost, _)| cost).sum();
            let spans: Vec<Span> = chosen.iter().map(|&(_, span)| span).collect();
            if best.is_none_or(|best| cost < best) && self.fits(&spans) {
                best = Some(cost);
            }
        }
        best
    }

    /// Checks that windows are those of the oracle.
    fn check_plan(
        &self,
        plan: &ReleasePlan<'_>,
        candidates: &[(u64, Span)],
        count: usize,
    ) -> Result<(), String> {
        let mut spans: Vec<Span> = Vec::new();
        for window in plan.windows {
            let from = (window.range.start().as_u64() - self.world.start) as usize;
            let span = (from, from + window.range.nr_pages() as usize);
            if !candidates.contains(&(window.nr_pages, span)) || spans.contains(&span) {
                return Err(format!("{window:?} is none"));
            }
            spans.push(span);
        }
        let folios: Vec<_> = spans.iter().flat_map(|&span| self.folios_of(span)).collect();
        let cost: u64 = folios.iter().map(|it| 1 << it.order).sum();
        if spans.len() != count || plan.nr_pages != cost {
            return Err(format!("{plan:?} costs {cost}"));
        }
        self.check_moves(plan, &spans, &folios)
    }

    /// Checks that each folio is moved once, to pages that are free and nobody else's.
    fn check_moves(
        &self,
        plan: &ReleasePlan<'_>,
        spans: &[Span],
        folios: &[PlanFolio],
    ) -> Result<(), String> {
        let mut free = self.free_outside(spans);
        let mut left = folios.to_vec();
        for planned in plan.moves {
            let (from, order) = (planned.from.as_u64(), planned.order.as_u8());
            let at = left.iter().position(|it| (it.head, it.order) == (from, order));
            let at = at.ok_or_else(|| format!("{planned:?} moves nothing"))?;
            left.remove(at);
            let to = planned.to.as_u64().checked_sub(self.world.start);
            let to = to.ok_or_else(|| format!("{planned:?} goes outside"))? as usize;
            let pages = free.get_mut(to..to + (1 << order));
            let pages = pages.ok_or_else(|| format!("{planned:?} goes outside"))?;
            if !planned.to.is_aligned_to(planned.order) || pages.contains(&false) {
                return Err(format!("{planned:?} goes where it cannot"));
            }
            pages.fill(false);
        }
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?} are not moved")) }
    }

    /// Returns whether there is room for all folios of some windows.
    fn fits(&self, spans: &[Span]) -> bool {
        let folios = spans.iter().flat_map(|&span| self.folios_of(span));
        let mut orders: Vec<u8> = folios.map(|folio| folio.order).collect();
        orders.sort_by_key(|&order| core::cmp::Reverse(order));
        let mut free = self.free_outside(spans);
        let is_exact = self.world.nr_pages <= PAGES_MAX;
        place_all(self.world.start, &mut free, &orders, is_exact)
    }

    fn free_outside(&self, spans: &[Span]) -> Vec<bool> {
        let is_free = |at: usize| {
            let is_in = spans.iter().any(|&(from, to)| from <= at && at < to);
            self.owners[at].is_none() && !self.withheld[at] && !is_in
        };
        (0..self.owners.len()).map(is_free).collect()
    }

    /// Returns the folios that have pages of a window.
    fn folios_of(&self, (first, end): Span) -> Vec<PlanFolio> {
        let is_met = |folio: &&PlanFolio| {
            let (from, to) = span_of(self.world, folio);
            from < end && first < to
        };
        self.world.folios.iter().filter(is_met).copied().collect()
    }

    fn is_movable(&self, folio: &PlanFolio) -> bool {
        let pages = folio.head..folio.head + (1 << folio.order);
        let is_bad = self.world.bad.iter().any(|bad| pages.contains(bad));
        matches!(folio.state, PlanState::Live(_)) && !is_bad
    }
}

fn span_of(world: &PlanWorld, folio: &PlanFolio) -> Span {
    let from = (folio.head - world.start) as usize;
    (from, from + (1 << folio.order))
}

/// Tries all places for each folio, or the first one only.
fn place_all(start: u64, free: &mut [bool], orders: &[u8], is_exact: bool) -> bool {
    let Some((&order, rest)) = orders.split_first() else { return true };
    let size = 1 << order;
    let mut at = (start.next_multiple_of(size as u64) - start) as usize;
    while at + size <= free.len() {
        if !free[at..at + size].contains(&false) {
            free[at..at + size].fill(false);
            let is_placed = place_all(start, free, rest, is_exact);
            free[at..at + size].fill(true);
            if is_placed || !is_exact {
                return is_placed;
            }
        }
        at += size;
    }
    false
}
