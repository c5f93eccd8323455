//! Supply: whether there is enough, before anything is taken.
//!
//! A set or a bulk that fails gives back what it took, but a block that it fractured keeps its
//! table. So where tables could be used up for nothing, the free runs are counted first. The count
//! does not depend on which runs are taken: an aligned run of order *o* holds exactly two of order
//! *o* - 1, wherever it is. It would depend on which blocks are fractured, where the ends of a
//! range cut through whole ones: a table that goes there yields less, and so it is assumed to go
//! there.
#![expect(
    clippy::arithmetic_side_effects,
    reason = "counts of pages of one extent, positions inside it"
)]

use super::index::Index;
use super::request::Content;
use super::runs::Chunk;
use crate::meta::{BLOCK_PAGES, Block, PAGE_LEVELS};
use crate::units::{Order, Pfn, PfnRange};

/// What is missing of a supply.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Shortage {
    /// The pages that are missing.
    pub(crate) missing: u64,
    /// Whether they are there, in blocks that cannot be fractured.
    pub(crate) is_tables: bool,
}

impl<'a> Index<'a> {
    /// Asks whether the aligned free runs of `unit` in `range` add up to `nr_pages`.
    ///
    /// If `is_fractured`, whole blocks count only as far as there are tables to fracture them.
    pub(crate) fn has_units(
        &self,
        (range, content): (PfnRange, Content),
        (align, unit): (Order, Order),
        nr_pages: u64,
        is_fractured: bool,
    ) -> Result<(), Shortage> {
        let mut left = nr_pages;
        let mut ends = self.ends((range, content), align, unit);
        let mut next = Some(range.start());
        // Ends: `next` grows on every turn, up to the end of the range.
        while let Some(pfn) = next {
            let rest = PfnRange::between(pfn, range.last());
            let run = rest.and_then(|rest| self.free_run_up_to((rest, content), left.max(1)));
            let Some(run) = run else { break };
            let usable = if is_fractured {
                self.usable(run, align, unit, &mut ends)
            } else {
                units_in(run, align, unit)
            };
            left = left.saturating_sub(usable);
            if left == 0 {
                return Ok(());
            }
            next = run.last().checked_add(1).filter(|&pfn| pfn <= range.last());
        }
        Err(Shortage { missing: left, is_tables: ends.is_short })
    }

    /// Returns the stretch at `pfn` that is free and suits `content`, or is not.
    fn chunk_of(&self, pfn: Pfn, content: Content) -> Chunk {
        let chunk = self.chunk(pfn);
        if content != Content::OnlyClean || !chunk.is_free {
            return chunk;
        }
        let (is_clean, level) = self.is_clean_page(pfn);
        let to_end = level.nr_pages() - (pfn.as_u64() & (level.nr_pages() - 1));
        Chunk { is_free: is_clean, nr_pages: to_end.min(chunk.nr_pages), ..chunk }
    }

    /// Returns the first free run of `range` that suits, cut off at a region border once it is
    /// long enough.
    fn free_run_up_to(
        &self,
        (range, content): (PfnRange, Content),
        nr_pages: u64,
    ) -> Option<PfnRange> {
        let mut start = None;
        let mut pfn = range.start();
        // Ends: `pfn` grows on every turn, up to the end of the range.
        loop {
            let chunk = self.chunk_of(pfn, content);
            match (start, chunk.is_free) {
                (None, true) => start = Some(pfn),
                (Some(start), false) => {
                    return PfnRange::new(start, pfn.as_u64() - start.as_u64()).ok();
                }
                _ => {}
            }
            let next = pfn.checked_add(chunk.nr_pages).filter(|&next| next <= range.last());
            let Some(next) = next else { break };
            pfn = next;
            let is_enough = |start: Pfn| nr_pages <= pfn.as_u64() - start.as_u64();
            if start.is_some_and(is_enough) && pfn.is_aligned_to(Order::REGION) {
                return PfnRange::between(start?, pfn.checked_sub(1)?);
            }
        }
        PfnRange::between(start?, range.last())
    }

    /// Returns how many pages of a run can be had in runs of `unit`, block by block.
    fn usable(&self, run: PfnRange, align: Order, unit: Order, ends: &mut Ends) -> u64 {
        let mut usable = 0;
        let mut next = Some(run.start());
        // Ends: `next` grows by a block on every turn, up to the end of the run.
        while let Some(pfn) = next {
            let end = Pfn::new(pfn.as_u64() | (BLOCK_PAGES as u64 - 1)).min(run.last());
            next = end.checked_add(1).filter(|&pfn| pfn <= run.last());
            let Some(part) = PfnRange::between(pfn, end) else { continue };
            let pages = units_in(part, align, unit);
            if pages == 0 {
                continue;
            }
            if self.has_table(self.geometry().block_of(pfn)) || ends.owed.contains(&Some(part)) {
                usable += pages;
            } else if ends.fresh != 0 && part.nr_pages() == BLOCK_PAGES as u64 {
                ends.fresh -= 1;
                usable += pages;
            } else {
                ends.is_short = true;
            }
        }
        usable
    }

    /// Deals the tables that are left to the ends of `range`, then to whole blocks.
    ///
    /// An end needs one if its block is whole and free, but the range has only a part of it, in
    /// which there are runs of `unit`.
    fn ends(&self, (range, content): (PfnRange, Content), align: Order, unit: Order) -> Ends {
        let first = Pfn::new(range.start().as_u64() | (BLOCK_PAGES as u64 - 1)).min(range.last());
        let last = range.last().head(Order::BLOCK);
        let head = PfnRange::between(range.start(), first);
        let tail = if first < last { PfnRange::between(last, range.last()) } else { None };
        let [head, tail] = [head, tail].map(|end| {
            end.filter(|end| {
                end.nr_pages() < BLOCK_PAGES as u64
                    && units_in(*end, align, unit) != 0
                    && !self.has_table(self.geometry().block_of(end.start()))
                    && self.chunk_of(end.start(), content).is_free
            })
        });
        let mut cut = [None; 2];
        let mut fresh = u64::from(self.meta.tables_left());
        // The shorter one first, for it yields less.
        let nr_pages = |end: Option<PfnRange>| end.map_or(0, PfnRange::nr_pages);
        let is_ascending = nr_pages(head) <= nr_pages(tail);
        let mut owed = if is_ascending { [head, tail] } else { [tail, head] };
        for (end, cut) in owed.iter_mut().zip(&mut cut).filter(|(end, _)| end.is_some()) {
            if fresh == 0 {
                *cut = end.take();
            }
            fresh = fresh.saturating_sub(1);
        }
        Ends { owed, cut, fresh, is_short: false }
    }

    /// Returns the first page of `range`, all of it free, whose block would have to be fractured
    /// without a table being left for it.
    pub(crate) fn first_without_table(&self, range: PfnRange, max: Order) -> Option<Pfn> {
        let mut fresh = self.meta.tables_left();
        let mut last = None;
        for (head, order) in range.tiles_up_to(max) {
            let block = self.geometry().block_of(head);
            if Order::BLOCK <= order || last == Some(block) {
                continue;
            }
            last = Some(block);
            if self.has_table(block) {
                continue;
            }
            if fresh == 0 {
                return Some(head);
            }
            fresh -= 1;
        }
        None
    }

    /// Yields, for each free run of `range` that is long enough, the first or last aligned stretch
    /// of `nr_pages` in it.
    pub(crate) fn fits(
        &self,
        range: PfnRange,
        nr_pages: u64,
        align: Order,
        is_down: bool,
    ) -> impl Iterator<Item = PfnRange> + use<'a> {
        let (meta, mut bounds) = (self.meta, Some(range));
        core::iter::from_fn(move || {
            // Ends: the bounds shrink on every turn.
            loop {
                let range = bounds?;
                let runs = Index::new(meta);
                let run = if is_down {
                    runs.last_run(range)
                } else {
                    runs.free_run(range.start(), range.last())
                };
                let run = run?;
                bounds = if is_down {
                    run.start()
                        .checked_sub(1)
                        .and_then(|last| PfnRange::between(range.start(), last))
                } else {
                    run.last().checked_add(1).and_then(|next| PfnRange::between(next, range.last()))
                };
                let fit = fit(run, nr_pages, align, is_down);
                if fit.is_some() {
                    return fit;
                }
            }
        })
    }

    /// Returns the last maximal free run of `range`.
    fn last_run(&self, range: PfnRange) -> Option<PfnRange> {
        self.free_runs(range).last()
    }
}

/// What becomes of the tables that are left.
struct Ends {
    /// The ends of the range that get one.
    owed: [Option<PfnRange>; 2],
    /// The ends of the range for which there is none.
    cut: [Option<PfnRange>; 2],
    /// How many whole blocks may get one.
    fresh: u64,
    /// Whether there was a part for which there was none.
    is_short: bool,
}

/// Returns how many pages of `run` lie in runs of `unit`, aligned to `align`.
const fn units_in(run: PfnRange, align: Order, unit: Order) -> u64 {
    let step = if align.as_u8() < unit.as_u8() { unit } else { align };
    let (start, last) = (run.start().as_u64(), run.last().as_u64());
    let misfit = start & (step.nr_pages() - 1);
    let lead = if misfit == 0 { 0 } else { step.nr_pages() - misfit };
    let nr_pages = last - start + 1;
    if nr_pages < lead + unit.nr_pages() {
        return 0;
    }
    if step.as_u8() == unit.as_u8() {
        return (nr_pages - lead) & !(unit.nr_pages() - 1);
    }
    ((nr_pages - lead - unit.nr_pages()) / step.nr_pages() + 1) * unit.nr_pages()
}

/// Returns the first or last stretch of `nr_pages` in `run` that starts aligned.
fn fit(run: PfnRange, nr_pages: u64, align: Order, is_down: bool) -> Option<PfnRange> {
    let spare = run.nr_pages().checked_sub(nr_pages)?;
    let lowest = run.start();
    let highest = lowest.checked_add(spare)?;
    let start = if is_down {
        highest.head(align)
    } else {
        let head = lowest.head(align);
        if head == lowest { head } else { head.checked_add(align.nr_pages())? }
    };
    let is_inside = lowest <= start && start <= highest;
    is_inside.then(|| PfnRange::new(start, nr_pages).ok()).flatten()
}

/// Aligned free runs of every order, of all extents in question.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Units {
    /// By order; below 9, those outside whole blocks.
    by_order: [u64; Order::MAX.as_u8() as usize + 1],
    /// Blocks that are whole and free.
    whole: u64,
    /// Those of them that may be fractured.
    openable: u64,
    /// Whether pages were left out for want of a table.
    is_cut: bool,
}

/// What it takes to build a set out of [`Units`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Plan {
    /// So many folios.
    Pieces(u64),
    /// The free runs do not add up; if `is_tables`, they would if more blocks could be fractured.
    Short { is_tables: bool },
}

impl Units {
    /// Returns whether a set can be built without a look at the rest of the free runs.
    fn is_plenty(&self, nr_pages: u64, order: Order) -> bool {
        if order < Order::BLOCK {
            return nr_pages <= self.openable * BLOCK_PAGES as u64;
        }
        let has = self.by_order.get(usize::from(order.as_u8())).copied().unwrap_or(0);
        self.openable != 0 && nr_pages >> order.as_u8() < has
    }

    /// Takes `nr_pages` pages on paper, the way a set is filled: `order` first, then lower ones.
    pub(crate) fn plan(&self, nr_pages: u64, order: Order, least: Order) -> Plan {
        let (mut left, mut taken, mut taken_small) = (nr_pages, 0, 0);
        let mut nr_folios = 0;
        let orders = Order::all().rev();
        for this in orders.filter(|&this| least <= this && this <= order) {
            let own = self.by_order.get(usize::from(this.as_u8())).copied().unwrap_or(0);
            let has = if this < Order::BLOCK {
                let whole = self.whole.saturating_sub(taken >> PAGE_LEVELS).min(self.openable);
                let inside = whole * (BLOCK_PAGES as u64 >> this.as_u8());
                (own + inside).saturating_sub(taken_small >> this.as_u8())
            } else {
                own.saturating_sub(taken >> this.as_u8())
            };
            let nr = has.min(left >> this.as_u8());
            let pages = nr << this.as_u8();
            left -= pages;
            nr_folios += nr;
            *(if this < Order::BLOCK { &mut taken_small } else { &mut taken }) += pages;
        }
        if left == 0 {
            Plan::Pieces(nr_folios)
        } else {
            // From order 9 on nothing is fractured, so more tables would not help.
            let is_tables = least < Order::BLOCK && (self.is_cut || self.openable < self.whole);
            Plan::Short { is_tables }
        }
    }
}

impl Index<'_> {
    /// Adds the free runs of `range` up; stops early, and returns true, where there is plenty.
    pub(crate) fn add_units(
        &self,
        (range, content): (PfnRange, Content),
        nr_pages: u64,
        (order, least): (Order, Order),
        units: &mut Units,
    ) -> bool {
        let before = *units;
        let ends = self.ends((range, content), least, least);
        let mut next = Some(range.start());
        // Ends: `next` grows on every turn, up to the end of the range.
        while let Some(pfn) = next {
            let rest = PfnRange::between(pfn, range.last());
            let run = rest.and_then(|rest| self.free_run_up_to((rest, content), nr_pages));
            let Some(run) = run else { break };
            let whole = units_in(run, Order::BLOCK, Order::BLOCK) >> PAGE_LEVELS;
            let cut = ends.cut.map(|end| end.filter(|&end| run.contains_range(end)));
            units.is_cut |= cut.iter().any(Option::is_some);
            for order in Order::all() {
                let mut nr = units_in(run, order, order) >> order.as_u8();
                if order < Order::BLOCK {
                    nr -= whole * (BLOCK_PAGES as u64 >> order.as_u8());
                    for end in cut.iter().flatten() {
                        nr -= units_in(*end, order, order) >> order.as_u8();
                    }
                }
                if let Some(sum) = units.by_order.get_mut(usize::from(order.as_u8())) {
                    *sum += nr;
                }
            }
            units.whole += whole;
            units.openable = before.openable + (units.whole - before.whole).min(ends.fresh);
            if units.is_plenty(nr_pages, order) {
                return true;
            }
            next = run.last().checked_add(1).filter(|&pfn| pfn <= range.last());
        }
        let whole = units.whole - before.whole;
        if ends.fresh < whole {
            units.openable =
                before.openable + (ends.fresh + self.whole_with_table((range, content))).min(whole);
        }
        false
    }

    /// Returns how many blocks inside `range` are whole, free, suit, and own a table.
    fn whole_with_table(&self, (range, content): (PfnRange, Content)) -> u64 {
        let geometry = self.geometry();
        let (first, last) = (geometry.block_of(range.start()), geometry.block_of(range.last()));
        let owners = (first.0..=last.0).map(Block).filter(|&block| {
            let head = geometry.block_head(block);
            let whole = PfnRange::folio(head, Order::BLOCK).filter(|&it| range.contains_range(it));
            self.has_table(block)
                && whole.is_some_and(|whole| self.first_busy(whole).is_none())
                && self.chunk_of(head, content).is_free
        });
        owners.count() as u64
    }
}
