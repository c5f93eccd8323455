//! Several folios at once: sets, runs and bulk. All or nothing.
//!
//! What is surely clean has to be said to be.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use super::super::field::{AnyOrder, Count, Pages};
use super::super::outcome::{Block, FolioKind, Outcome, Refusal};
use super::super::runs::{Run, align_down, nr_places};
use super::judge::{Answer, Seen, Step, refuse};
use super::request::Filter;
use super::scrub::VAIN_MAX;
use super::{Clean, Handle, Spec};
use crate::units::{Order, Pfn};

impl Spec {
    /// So many pages as folios of orders from `least` to `prefer`.
    pub(super) fn alloc_set(
        &mut self,
        pages: Pages,
        prefer: AnyOrder,
        least: AnyOrder,
        filter: Filter,
        room: Count,
        seen: &mut Seen<'_>,
    ) -> Step {
        let mut faults = Vec::new();
        faults.extend(self.closed_for_allocation());
        let has_orders = prefer.order().is_some() && least.order().is_some();
        faults.extend((!has_orders).then_some(Refusal::OrderTooLarge));
        // Whoever asks for pages does not insist on an order.
        let prefer = AnyOrder(prefer.0.min(self.policy.max_order.as_u8()));
        faults.extend((prefer.0 < least.0).then_some(Refusal::Orders));
        if pages.0 == 0 || least.order().is_some_and(|least| pages.0 % least.nr_pages() != 0) {
            faults.push(Refusal::NotMultiple);
        }
        if !faults.is_empty() {
            return Ok(Answer::Refused(faults));
        }
        let orders = least.0..=prefer.0;
        self.scrubbing(orders.clone(), filter, VAIN_MAX, seen, |spec, filter, seen| {
            spec.alloc_fit_set(pages, orders.clone(), filter, room, seen)
        })
    }

    /// A set out of what is free now.
    fn alloc_fit_set(
        &mut self,
        pages: Pages,
        orders: RangeInclusive<u8>,
        filter: Filter,
        room: Count,
        seen: &mut Seen<'_>,
    ) -> Step {
        let least = AnyOrder(*orders.start());
        let (wanted, unit) = (u128::from(pages.0), 1 << least.0);
        // Only what is smaller than a block takes a table.
        let small = if least.0 < Order::BLOCK.as_u8() { wanted / unit } else { 0 };
        let free = self.clip(filter, self.free_runs());
        let there: u128 = free.iter().map(|run| nr_places(*run, unit, unit) * unit).sum();
        if there < wanted {
            let mut faults = self.too_little(small, filter);
            // How many clean folios there are may only be known once there is no room for more.
            let pieces = seen.refusal().filter(|why| {
                matches!(*why, Refusal::TooManyPieces { needed } if u64::from(room.0) < needed)
            });
            let is_unsure =
                (filter.only_clean || filter.is_spent) && !faults.contains(&Refusal::Dying);
            faults.extend(pieces.filter(|_| is_unsure));
            return Ok(Answer::Refused(faults));
        }
        match seen.refusal() {
            Some(Refusal::NoTables) if self.may_lack_tables(small) => {
                return refuse(Refusal::NoTables);
            }
            Some(why @ Refusal::TooManyPieces { needed })
                if u64::from(room.0) < needed && u128::from(needed) <= wanted / unit =>
            {
                return refuse(why);
            }
            _ => {}
        }
        let blocks = match seen.blocks() {
            Some(blocks) => blocks.to_vec(),
            None => self.choose_set(wanted, orders.clone(), filter, free),
        };
        if usize::try_from(room.0).is_ok_and(|room| room < blocks.len()) {
            return refuse(Refusal::TooManyPieces { needed: blocks.len() as u64 });
        }
        if let Some(block) = blocks.iter().find(|block| !orders.contains(&block.order.as_u8())) {
            return Err(format!("{block:?} has an order that was not asked for"));
        }
        if self.chose_without_tables(&blocks, seen) {
            return refuse(Refusal::NoTables);
        }
        self.check_blocks(&blocks, wanted, filter)?;
        self.hand_out_blocks(&blocks, filter.owner, seen)
    }

    /// There is not enough free space; and of what there is, tables may make still less.
    fn too_little(&self, nr_blocks: u128, filter: Filter) -> Vec<Refusal> {
        let mut faults = Vec::from([self.exhausted(filter)]);
        let is_dying = faults.contains(&Refusal::Dying);
        let lacks_tables = !is_dying && self.may_lack_tables(nr_blocks);
        faults.extend(lacks_tables.then_some(Refusal::NoTables));
        faults
    }

    /// Carves the largest blocks first out of the lowest free pages.
    fn choose_set(
        &self,
        wanted: u128,
        orders: RangeInclusive<u8>,
        filter: Filter,
        mut free: Vec<Run>,
    ) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut left = wanted;
        for order in orders.rev() {
            let size = 1 << order;
            while size <= left {
                let Some(head) = filter.first_place(&free, size, size) else { break };
                let taken = Run::new(head, size);
                free = free
                    .into_iter()
                    .flat_map(|run| {
                        let below = Run { start: run.start, end: run.end.min(taken.start) };
                        let above = Run { start: run.start.max(taken.end), end: run.end };
                        [below, above]
                    })
                    .filter(|run| run.start < run.end)
                    .collect();
                blocks.extend(Order::new(order).map(|order| self.block(head, order)));
                left -= size;
            }
        }
        blocks.sort_by_key(|block| block.head);
        blocks
    }

    /// Checks that the blocks ascend, that their pages sum up, and that each may be handed out.
    fn check_blocks(&self, blocks: &[Block], pages: u128, filter: Filter) -> Result<(), String> {
        let sum: u128 = blocks.iter().map(|block| u128::from(block.order.nr_pages())).sum();
        if sum != pages {
            return Err(format!("{blocks:?} have {sum} pages instead of {pages}"));
        }
        let mut end = 0;
        for block in blocks {
            self.check_place(*block, filter)?;
            let run = Run::folio(block.head, block.order);
            if run.start < end {
                return Err(format!("{block:?} overlaps the one before, or does not ascend"));
            }
            end = run.end;
        }
        let pieces: Vec<_> = blocks.iter().map(|block| (block.head, block.order)).collect();
        if self.lacks_tables(&pieces) {
            return Err(format!("{blocks:?} fracture more blocks than there are tables"));
        }
        Ok(())
    }

    /// Returns whether our own choice of blocks needs more tables than are left.
    ///
    /// We do not search for another choice, and so do not blame a subject that found none.
    fn chose_without_tables(&self, blocks: &[Block], seen: &Seen<'_>) -> bool {
        let pieces: Vec<_> = blocks.iter().map(|block| (block.head, block.order)).collect();
        seen.blocks().is_none() && self.lacks_tables(&pieces)
    }

    /// Contiguous pages, as the largest folios that tile them.
    pub(super) fn alloc_run(
        &mut self,
        pages: Pages,
        filter: Filter,
        room: Count,
        seen: &mut Seen<'_>,
    ) -> Step {
        let mut faults = Vec::new();
        faults.extend(self.closed_for_allocation());
        faults.extend((pages.0 == 0).then_some(Refusal::NotMultiple));
        if !faults.is_empty() {
            return Ok(Answer::Refused(faults));
        }
        let orders = 0..=self.policy.max_order.as_u8();
        // It is the first page of all that is aligned.
        let step = filter.step;
        let pieces = Filter { step: 1, is_run: true, ..filter };
        self.scrubbing(orders, pieces, VAIN_MAX, seen, |spec, filter, seen| {
            let filter = Filter { step, ..filter };
            spec.alloc_fit_run(pages, filter, room, seen)
        })
    }

    /// A run out of what is free now.
    fn alloc_fit_run(
        &mut self,
        pages: Pages,
        filter: Filter,
        room: Count,
        seen: &mut Seen<'_>,
    ) -> Step {
        let nr_pages = u128::from(pages.0);
        // Of clean pages, not all runs are looked at.
        let exhausted = self.exhausted(filter);
        let gives_up = seen.refusal().is_none_or(|why| why == exhausted);
        if filter.is_spent && gives_up && seen.blocks().is_none_or(<[Block]>::is_empty) {
            return refuse(exhausted);
        }
        let filter = Filter { is_spent: false, ..filter };
        let free = self.clip(filter, self.free_runs());
        let Some(own) = filter.first_place(&free, nr_pages, 1) else {
            return Ok(Answer::Refused(self.too_little(nr_pages / 512 + 2, filter)));
        };
        match seen.refusal() {
            Some(Refusal::NoTables) if self.may_lack_tables(nr_pages / 512 + 2) => {
                return refuse(Refusal::NoTables);
            }
            Some(why @ Refusal::TooManyPieces { needed })
                if u64::from(room.0) < needed && needed <= pages.0 =>
            {
                return refuse(why);
            }
            _ => {}
        }
        let start = match seen.blocks() {
            Some(blocks) => blocks.first().map_or(own, |block| block.head.as_u64().into()),
            None => own,
        };
        let tiles = Run::new(start, nr_pages).tiles(self.policy.max_order.as_u8());
        let blocks: Vec<Block> =
            tiles.map(|(head, order)| self.seen_block(head, order, seen.blocks())).collect();
        if usize::try_from(room.0).is_ok_and(|room| room < blocks.len()) {
            return refuse(Refusal::TooManyPieces { needed: blocks.len() as u64 });
        }
        if align_down(start, filter.step) != start {
            return Err(format!("the run at {start:#x} is not aligned as asked"));
        }
        if self.chose_without_tables(&blocks, seen) {
            return refuse(Refusal::NoTables);
        }
        self.check_blocks(&blocks, nr_pages, Filter { step: 1, ..filter })?;
        self.hand_out_blocks(&blocks, filter.owner, seen)
    }

    /// Returns the block at that place with what the subject says of its content, where there is
    /// a choice.
    pub(super) fn seen_block(&self, head: Pfn, order: Order, seen: Option<&[Block]>) -> Block {
        let own = self.block(head.as_u64().into(), order);
        let may_be_clean = !own.clean && self.clean.covers(Run::folio(head, order));
        match seen.into_iter().flatten().find(|block| block.head == head) {
            Some(said) => Block { clean: own.clean || said.clean && may_be_clean, ..own },
            None => own,
        }
    }

    /// Several folios of one order, or none.
    pub(super) fn alloc_bulk(
        &mut self,
        order: AnyOrder,
        number: Count,
        filter: Filter,
        room: Count,
        seen: &mut Seen<'_>,
    ) -> Step {
        let mut faults = Vec::new();
        faults.extend(self.closed_for_allocation());
        faults.extend(self.allowed(order).err());
        if room.0 < number.0 {
            faults.push(Refusal::TooManyPieces { needed: number.0.into() });
        }
        let (Some(order), true) = (order.order(), faults.is_empty()) else {
            return Ok(Answer::Refused(faults));
        };
        let orders = order.as_u8()..=order.as_u8();
        self.scrubbing(orders, filter, VAIN_MAX, seen, |spec, filter, seen| {
            spec.alloc_fit_bulk(order, number, filter, seen)
        })
    }

    /// Several folios of one order out of what is free now.
    fn alloc_fit_bulk(
        &mut self,
        order: Order,
        number: Count,
        filter: Filter,
        seen: &mut Seen<'_>,
    ) -> Step {
        let size: u128 = order.nr_pages().into();
        let step = size.max(filter.step);
        let free = self.clip(filter, self.free_runs());
        let there: u128 = free.iter().map(|run| nr_places(*run, size, step)).sum();
        // Only what is smaller than a block takes a table.
        let small = if size < Order::BLOCK.nr_pages().into() { number.0.into() } else { 0 };
        if there < number.0.into() {
            return Ok(Answer::Refused(self.too_little(small, filter)));
        }
        if seen.refusal() == Some(Refusal::NoTables) && self.may_lack_tables(small) {
            return refuse(Refusal::NoTables);
        }
        let wanted = size * u128::from(number.0);
        let blocks = match seen.blocks() {
            Some(blocks) => blocks.to_vec(),
            None => self.choose_set(wanted, order.as_u8()..=order.as_u8(), filter, free),
        };
        if let Some(block) = blocks.iter().find(|block| block.order != order) {
            return Err(format!("{block:?} has an order that was not asked for"));
        }
        if self.chose_without_tables(&blocks, seen) {
            return refuse(Refusal::NoTables);
        }
        self.check_blocks(&blocks, wanted, filter)?;
        self.hand_out_blocks(&blocks, filter.owner, seen)
    }

    /// So many folios, one at a time, or all that there are; then some of them go back.
    pub(super) fn use_magazine(
        &mut self,
        order: AnyOrder,
        number: Count,
        back: Count,
        seen: &mut Seen<'_>,
    ) -> Step {
        let mut faults = Vec::new();
        faults.extend(self.closed_for_allocation());
        faults.extend(self.allowed(order).err());
        let (Some(order), true, true) = (order.order(), faults.is_empty(), number.0 != 0) else {
            let is_void = number.0 == 0;
            let nothing = Ok(Answer::Is(Outcome::Blocks(Vec::new())));
            return if is_void { nothing } else { Ok(Answer::Refused(faults)) };
        };
        let chosen = seen.blocks().map(<[Block]>::to_vec);
        let orders = order.as_u8()..=order.as_u8();
        // Each of the folios may take some in vain, and so may the word that it is at hand in.
        let mut in_vain = self.follow_scrubs(&orders, Filter::ANYWHERE, usize::MAX, seen)?;
        let mut taken: Vec<Block> = Vec::new();
        while taken.len() < number.0 as usize {
            let next = chosen.as_ref().and_then(|blocks| blocks.get(taken.len()));
            if next.is_none() {
                let filter = Filter { is_spent: VAIN_MAX <= in_vain, ..Filter::ANYWHERE };
                match self.best_order(order.as_u8(), order.as_u8(), filter) {
                    Err(why) if taken.is_empty() => return refuse(why),
                    Err(_) => break,
                    Ok(_) if chosen.is_some() => {
                        return Err(format!("{} folios, although there are more", taken.len()));
                    }
                    Ok(_) => {}
                }
            }
            let place = next.map(core::slice::from_ref);
            let mut block = self.place(order, Filter::ANYWHERE, place)?;
            if !self.fit(&mut block, None, seen)? {
                in_vain += 1;
                continue;
            }
            let clean = if block.clean { Clean::Yes } else { Clean::No };
            self.make(block.head, block.order, clean, block.tag);
            taken.push(block);
        }
        taken.sort_by_key(|block| block.head);
        let kept = taken.iter().skip(back.0 as usize);
        for block in kept {
            self.hand_out(Handle::Unique(block.head.as_u64().into()));
        }
        for block in taken.iter().take(back.0 as usize) {
            self.free_dirty(block.head.as_u64().into(), seen)?;
        }
        Ok(Answer::Is(Outcome::Blocks(taken)))
    }

    /// Publishes a set that was just handed out, and adds a reference for each clone.
    pub(super) fn share(&mut self, set: Answer, clones: Count) -> Answer {
        let Answer::Is(Outcome::Blocks(blocks)) = set else { return set };
        let heads: Vec<u128> = blocks.iter().map(|block| block.head.as_u64().into()).collect();
        for slot in &mut self.handles {
            if matches!(*slot, Some(Handle::Unique(head)) if heads.contains(&head)) {
                *slot = None;
            }
        }
        let references = clones.0 % 3 + 1;
        for &head in &heads {
            self.set_kind(head, FolioKind::Live);
            self.folio(head).counts.refs = references;
        }
        for _ in 0..references {
            for &head in &heads {
                self.hand_out(Handle::Folio(head));
            }
        }
        Answer::Is(Outcome::Shared(blocks))
    }
}
