//! Changes of shape: split, trim, partial release, merge.

use alloc::format;
use alloc::vec::Vec;

use super::super::field::{AnyOrder, At, Span, Token};
use super::super::geometry::ScrubPolicy;
use super::super::op::Op;
use super::super::outcome::{Block, Outcome, Refusal};
use super::super::runs::{Run, pfn};
use super::judge::{Answer, Seen, Step, refuse};
use super::request::{page, run};
use super::{Clean, Folio, Handle, Spec};
use crate::units::{Order, Pfn};

impl Spec {
    pub(super) fn step_shape(&mut self, op: &Op, seen: &mut Seen<'_>) -> Step {
        match *op {
            Op::Split { token, order } => self.split(token, order, seen),
            Op::SplitAround { token, at, order } => self.split_around(token, at, order, seen),
            Op::Trim { token, span } => self.trim(token, span, seen),
            Op::ReleasePart { token, span } => self.release_part(token, span, seen),
            Op::Merge { token, buddy } => self.merge(token, buddy),
            _ => Err(format!("{op} changes no shape")),
        }
    }

    fn split(&mut self, token: Token, order: AnyOrder, seen: &mut Seen<'_>) -> Step {
        let head = self.unique(token)?;
        let whole = self.run_of(head);
        let Some(order) = self.part_order(head, order) else {
            return refuse(Refusal::OrderTooLarge);
        };
        let size = u128::from(order.nr_pages());
        let pieces = (0..whole.nr_pages() / size)
            .map(|index| (pfn(whole.start + index * size), order))
            .collect();
        self.replace(token, head, pieces, &[], seen)
    }

    /// Into one folio of `order` around the page, and the largest ones on both sides of it.
    fn split_around(&mut self, token: Token, at: At, order: AnyOrder, seen: &mut Seen<'_>) -> Step {
        let head = self.unique(token)?;
        let (whole, page) = (self.run_of(head), page(at));
        let Some(order) = self.part_order(head, order) else {
            let mut faults = Vec::from([Refusal::OrderTooLarge]);
            faults.extend((!whole.contains(page)).then_some(Refusal::NotInside));
            return Ok(Answer::Refused(faults));
        };
        if !whole.contains(page) {
            return refuse(Refusal::NotInside);
        }
        let size = u128::from(order.nr_pages());
        let middle = Run::new(page / size * size, size);
        let pieces = around(whole, middle)
            .into_iter()
            .flat_map(|side| side.tiles(Order::MAX.as_u8()))
            .chain([(pfn(middle.start), order)])
            .collect();
        self.replace(token, head, pieces, &[], seen)
    }

    /// Returns the order if it is not above that of the folio.
    fn part_order(&mut self, head: u128, order: AnyOrder) -> Option<Order> {
        let whole = self.folio(head).order;
        order.order().filter(|&order| order <= whole)
    }

    fn trim(&mut self, token: Token, span: Span, seen: &mut Seen<'_>) -> Step {
        let head = self.unique(token)?;
        let whole = self.run_of(head);
        match run(span) {
            None => refuse(Refusal::NoRange),
            Some(kept) if !whole.covers(kept) => refuse(Refusal::NotInside),
            Some(kept) => {
                let pieces = kept.tiles(Order::MAX.as_u8()).collect();
                self.replace(token, head, pieces, &around(whole, kept), seen)
            }
        }
    }

    fn release_part(&mut self, token: Token, span: Span, seen: &mut Seen<'_>) -> Step {
        let head = self.unique(token)?;
        let whole = self.run_of(head);
        match run(span) {
            None => refuse(Refusal::NoRange),
            Some(part) if !whole.covers(part) => refuse(Refusal::NotInside),
            Some(part) => {
                let sides = around(whole, part).into_iter();
                let pieces = sides.flat_map(|side| side.tiles(Order::MAX.as_u8())).collect();
                self.replace(token, head, pieces, &[part], seen)
            }
        }
    }

    /// Replaces a folio by others that cover the same pages, but for the runs given back.
    ///
    /// The pieces are as clean as the folio was, and inherit its data; what is given back may have
    /// been written to.
    fn replace(
        &mut self,
        token: Token,
        head: u128,
        mut pieces: Vec<(Pfn, Order)>,
        given_back: &[Run],
        seen: &mut Seen<'_>,
    ) -> Step {
        if self.lacks_tables(&pieces) {
            return refuse(Refusal::NoTables);
        }
        pieces.sort_by_key(|&(head, _)| head);
        let Folio { clean, tag, .. } = *self.folio(head);
        self.take_back(token);
        self.unmake(head);
        let mut blocks = Vec::with_capacity(pieces.len());
        for (head, order) in pieces {
            self.make(head, order, clean, tag);
            self.hand_out(Handle::Unique(head.as_u64().into()));
            blocks.push(Block { head, order, clean: clean == Clean::Yes, tag });
        }
        for &run in given_back {
            if self.policy.scrub != ScrubPolicy::OnFree {
                self.give_back(run, Clean::No);
                continue;
            }
            for (head, order) in run.tiles(Order::MAX.as_u8()) {
                self.make(head, order, clean, tag);
                self.free_dirty(head.as_u64().into(), seen)?;
            }
        }
        Ok(Answer::Is(Outcome::Blocks(blocks)))
    }

    fn merge(&mut self, token: Token, buddy: Token) -> Step {
        let (one, other) = (self.unique(token)?, self.unique(buddy)?);
        let (low, high) = (one.min(other), one.max(other));
        let (first, second) = (*self.folio(low), *self.folio(high));
        let pages = u128::from(first.order.nr_pages());
        let merged = Run::new(low, 2 * pages);

        let mut faults = Vec::new();
        let buddies = first.order == second.order
            && low % (2 * pages) == 0
            && high == low + pages
            && self.extent_of(merged).is_some();
        faults.extend((!buddies).then_some(Refusal::NotBuddies));
        let order = first.order.grow().filter(|&order| order <= self.policy.max_order);
        faults.extend(order.is_none().then_some(Refusal::OrderTooLarge));
        let (Some(order), true) = (order, faults.is_empty()) else {
            return Ok(Answer::Refused(faults));
        };

        let clean = if second.clean == Clean::Yes { first.clean } else { Clean::No };
        self.take_back(token);
        self.take_back(buddy);
        self.unmake(low);
        self.unmake(high);
        // The data of the lower half stays.
        let tag = first.tag;
        self.make(pfn(low), order, clean, tag);
        self.hand_out(Handle::Unique(low));
        let block = Block { head: pfn(low), order, clean: clean == Clean::Yes, tag };
        Ok(Answer::Is(Outcome::Blocks(Vec::from([block]))))
    }
}

/// Returns what lies in `whole` before and behind `part`.
fn around(whole: Run, part: Run) -> Vec<Run> {
    let below = Run { start: whole.start, end: part.start };
    let above = Run { start: part.end, end: whole.end };
    [below, above].into_iter().filter(|side| side.start < side.end).collect()
}
