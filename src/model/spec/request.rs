//! Allocation: the subject chooses where, the specification knows whether.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::super::field::{AnyOrder, At, Content, Count, Direction, Node, Span};
use super::super::op::Op;
use super::super::outcome::{Block, FolioKind, Life, Outcome, Refusal};
use super::super::runs::{Run, align_down, align_up, nr_places, pfn};
use super::judge::{Answer, Seen, Step, refuse};
use super::scrub::VAIN_MAX;
use super::{Clean, Extent, Handle, Spec};
use crate::units::Order;

const ALL: Run = Run { start: 0, end: 1 << 64 };

/// Where a request may be satisfied, its orders checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filter {
    /// Every head, or the first page of a run, is a multiple of this.
    pub(super) step: u128,
    pub(super) within: Run,
    pub(super) direction: Direction,
    pub(super) only_clean: bool,
    pub(super) node: Node,
    /// For whom the pages are.
    pub(super) owner: Option<u64>,
    /// Whether so many folios were met in vain that only clean ones are taken.
    pub(super) is_spent: bool,
    /// Whether a piece that is met in vain undoes all the others.
    pub(super) is_run: bool,
}

impl Filter {
    pub(super) const ANYWHERE: Self = Self {
        step: 1,
        within: ALL,
        direction: Direction::Up,
        only_clean: false,
        node: Node::Any,
        owner: None,
        is_spent: false,
        is_run: false,
    };

    fn content(self, content: Content) -> Self {
        Self { only_clean: content == Content::OnlyClean, ..self }
    }

    fn node(self, node: Node) -> Self {
        Self { node, ..self }
    }

    /// The number that stands for whoever asks is one of the operation's own.
    fn owner(self, owner: u64) -> Self {
        Self { owner: Some(owner), ..self }
    }

    /// Returns the first place, in the preferred direction, for so many pages.
    pub(super) fn first_place(self, runs: &[Run], nr_pages: u128, step: u128) -> Option<u128> {
        let step = self.step.max(step);
        let mut fitting = runs.iter().filter(|run| nr_places(**run, nr_pages, step) > 0);
        match self.direction {
            Direction::Up => fitting.next().map(|run| align_up(run.start, step)),
            Direction::Down => fitting.next_back().map(|run| align_down(run.end - nr_pages, step)),
        }
    }
}

impl Spec {
    pub(super) fn step_alloc(&mut self, op: &Op, seen: &mut Seen<'_>) -> Step {
        match *op {
            // One more is met where the shortest way to a folio leads.
            Op::Alloc { order } => self.alloc((order, order), Filter::ANYWHERE, VAIN_MAX + 1, seen),
            Op::AllocWith { order, align, within, direction, content, down_to, node } => {
                let filter = self.filter(align, within, direction).owner(order.0.into());
                let filter = filter.content(content).node(node);
                self.alloc((order, down_to), filter, VAIN_MAX, seen)
            }
            Op::AllocSet { pages, prefer, least, within, direction, content, node, room } => {
                let filter = self.filter(AnyOrder(0), within, direction);
                let filter = filter.content(content).node(node).owner(pages.0);
                self.alloc_set(pages, prefer, least, filter, room, seen)
            }
            Op::AllocShared { pages, prefer, least, clones } => {
                let room = Count(u32::MAX);
                let filter = Filter::ANYWHERE.owner(pages.0);
                let set = self.alloc_set(pages, prefer, least, filter, room, seen)?;
                Ok(self.share(set, clones))
            }
            Op::AllocRun { pages, align, within, direction, room } => {
                let filter = self.filter(align, within, direction).owner(pages.0);
                self.alloc_run(pages, filter, room, seen)
            }
            Op::AllocBulk { order, number, align, within, direction, content, room } => {
                let filter = self.filter(align, within, direction).content(content);
                let filter = filter.owner(number.0.into());
                self.alloc_bulk(order, number, filter, room, seen)
            }
            _ => Err(format!("{op} is no allocation")),
        }
    }

    /// Returns the pages of the extent asked for, or all.
    fn home(&self, filter: Filter) -> Run {
        match filter.node {
            Node::Any => ALL,
            // Nothing comes from an extent that is not there.
            Node::At(place) => self.range_of_extent(place).unwrap_or(Run::new(0, 0)),
        }
    }

    fn filter(&self, align: AnyOrder, within: Option<Span>, direction: Direction) -> Filter {
        // What cannot be said was refused before.
        let step = 1 << align.0.min(Order::MAX.as_u8());
        let within = within.and_then(run).unwrap_or(ALL);
        Filter { step, within, direction, ..Filter::ANYWHERE }
    }

    /// Returns what of the runs lies within the filter.
    pub(super) fn clip(&self, filter: Filter, runs: &[Run]) -> Vec<Run> {
        let home = self.home(filter);
        let is_open = |run: &Run| home.covers(*run) && !self.is_leaving(run.start);
        let runs = runs.iter().filter(|run| is_open(run));
        let within = runs.filter_map(|run| run.meet(filter.within));
        if !filter.only_clean && !filter.is_spent {
            return within.collect();
        }
        let is_left = |run: &Run| self.same.iter().filter_map(|same| same.meet(*run)).collect();
        let clean = within.flat_map(|run| {
            let left: Vec<Run> = is_left(&run);
            self.sure.parts_of(run).chain(left)
        });
        clean.collect()
    }

    /// Returns why there is nothing: all that would do leaves, or there is no room.
    pub(super) fn exhausted(&self, filter: Filter) -> Refusal {
        let home = self.home(filter);
        let would_do =
            |extent: &Extent| home.covers(extent.range) && extent.range.overlaps(filter.within);
        let mut lives = self.extents.iter().filter(|it| would_do(it)).map(|it| it.life).peekable();
        if lives.peek().is_some() && lives.all(|life| life != Life::Live) {
            return Refusal::Dying;
        }
        Refusal::Exhausted {
            kept_pages: self.tally(FolioKind::Kept).pages,
            condemned_pages: self.tally(FolioKind::Condemned).pages,
        }
    }

    /// Returns why nothing at all is allocated at present, if that is so.
    pub(super) fn closed_for_allocation(&self) -> Option<Refusal> {
        if self.life != Life::Live {
            return Some(Refusal::Dying);
        }
        self.policy.claim_only.then_some(Refusal::ClaimOnly)
    }

    /// Returns the order of a folio that the policy allows.
    pub(super) fn allowed(&self, order: AnyOrder) -> Result<Order, Refusal> {
        order.order().filter(|&order| order <= self.policy.max_order).ok_or(Refusal::OrderTooLarge)
    }

    /// A folio of the highest order, down to the least, for which there is a place.
    pub(super) fn alloc(
        &mut self,
        (order, down_to): (AnyOrder, AnyOrder),
        filter: Filter,
        vain_max: usize,
        seen: &mut Seen<'_>,
    ) -> Step {
        let mut faults = Vec::new();
        faults.extend(self.closed_for_allocation());
        faults.extend(self.allowed(order).err());
        if down_to.0 > order.0 {
            faults.push(Refusal::Orders);
        }
        if !faults.is_empty() {
            return Ok(Answer::Refused(faults));
        }
        self.scrubbing(down_to.0..=order.0, filter, vain_max, seen, |spec, filter, seen| match spec
            .best_order(order.0, down_to.0, filter)
        {
            Ok(order) => {
                let place = spec.place(order, filter, seen.blocks())?;
                spec.hand_out_blocks(&[place], filter.owner, seen)
            }
            Err(why) => refuse(why),
        })
    }

    /// Returns the highest order for which there is a place now.
    pub(super) fn best_order(
        &self,
        order: u8,
        down_to: u8,
        filter: Filter,
    ) -> Result<Order, Refusal> {
        let free = self.clip(filter, self.free_runs());
        let open = self.clip(filter, &self.open_runs());
        let fits =
            |runs: &[Run], order: &u8| filter.first_place(runs, 1 << order, 1 << order).is_some();
        let runs_for = |order: u8| if order < Order::BLOCK.as_u8() { &open } else { &free };
        let mut ladder = (down_to..=order).rev();
        match ladder.find(|order| fits(runs_for(*order), order)).and_then(Order::new) {
            Some(order) => Ok(order),
            None if fits(&free, &down_to) => Err(Refusal::NoTables),
            None => Err(self.exhausted(filter)),
        }
    }

    /// Returns the place that the subject chose, checked, or one of our own.
    pub(super) fn place(
        &self,
        order: Order,
        filter: Filter,
        chosen: Option<&[Block]>,
    ) -> Result<Block, String> {
        match chosen {
            Some(&[block]) if block.order == order => {
                self.check_place(block, filter)?;
                Ok(block)
            }
            Some(other) => Err(format!("{other:?} instead of one folio of order {order}")),
            None => {
                let is_small = order < Order::BLOCK;
                let runs = if is_small { self.open_runs() } else { self.free_runs().to_vec() };
                let runs = self.clip(filter, &runs);
                let size = order.nr_pages().into();
                let head = filter.first_place(&runs, size, size);
                head.map(|head| self.block(head, order)).ok_or_else(|| "no place left".into())
            }
        }
    }

    /// Returns the block at that place with what is known of its content.
    pub(super) fn block(&self, head: u128, order: Order) -> Block {
        let head = pfn(head);
        // The holder writes the data of a folio that is born.
        let tag = if self.policy.owner_data { !head.as_u64() } else { 0 };
        Block { head, order, clean: self.sure.covers(Run::folio(head, order)), tag }
    }

    /// Checks that a block may be handed out.
    pub(super) fn check_place(&self, block: Block, filter: Filter) -> Result<(), String> {
        let run = Run::folio(block.head, block.order);
        let what = if align_down(run.start, run.nr_pages()) != run.start {
            "not aligned"
        } else if align_down(run.start, filter.step) != run.start {
            "not aligned as asked"
        } else if !filter.within.covers(run) {
            "not in the range asked for"
        } else if !self.home(filter).covers(run) {
            "not in the extent asked for"
        } else if self.is_leaving(run.start) {
            "in an extent that is leaving"
        } else if !self.is_free(run) {
            "not free"
        } else if (block.clean || filter.only_clean) && !self.clean.covers(run) {
            "not clean"
        } else if !block.clean && (filter.only_clean || self.sure.covers(run)) {
            "not said to be clean"
        } else if block.tag != self.block(run.start, block.order).tag {
            "not with its own data"
        } else if self.lacks_tables(&[(block.head, block.order)]) {
            "fractured although no table is left"
        } else {
            return Ok(());
        };
        Err(format!("{block:?} is {what}"))
    }

    /// Turns blocks that were found legal into exclusive folios.
    pub(super) fn hand_out_blocks(
        &mut self,
        blocks: &[Block],
        owner: Option<u64>,
        seen: &mut Seen<'_>,
    ) -> Step {
        let mut blocks = blocks.to_vec();
        for block in &mut blocks {
            if !self.fit(block, owner, seen)? {
                return Ok(Answer::Again);
            }
        }
        for block in &blocks {
            let clean = if block.clean { Clean::Yes } else { Clean::No };
            self.make(block.head, block.order, clean, block.tag);
            self.hand_out(Handle::Unique(block.head.as_u64().into()));
        }
        Ok(Answer::Is(Outcome::Blocks(blocks)))
    }
}

/// Returns the pages of a resolved span, if there is such a range.
pub(super) fn run(span: Span) -> Option<Run> {
    let run = Run::new(page(span.start), span.pages.0.into());
    (span.pages.0 > 0 && ALL.covers(run)).then_some(run)
}

/// Returns the page of a selector that is resolved.
pub(super) fn page(at: At) -> u128 {
    match at {
        At::Pfn(pfn) => pfn.as_u64().into(),
        _ => u128::MAX,
    }
}

pub(super) fn clamp(pages: u128) -> u64 {
    u64::try_from(pages).unwrap_or(u64::MAX)
}
