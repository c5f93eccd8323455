//! Scrubbing: for which pages the hook is called, and what becomes of them by its answers.
//!
//! The answers are part of the world. A subject chooses which free pages it has scrubbed, as it
//! chooses where to allocate; which pages *have* to be is determined: those that are not clean.

use alloc::format;
use alloc::string::String;
use core::ops::RangeInclusive;

use super::super::geometry::{ScrubAnswer, ScrubPolicy};
use super::super::outcome::{Block, FolioKind, HookEvent, Refusal};
use super::super::runs::{Run, pfn};
use super::judge::{Answer, Seen, Step};
use super::request::Filter;
use super::{Clean, Spec};
use crate::units::{Order, Pfn};

/// So many folios are met in vain by one allocation; from then on it takes what is clean.
const TRIES: usize = 8;

impl Spec {
    /// Returns whether what leaves free space has to be clean.
    pub(super) fn scrubs(&self) -> bool {
        self.policy.scrub != ScrubPolicy::Never
    }

    /// Ends a step, or an attempt that is undone: what was scrubbed and is free all the same may
    /// be forgotten to be clean.
    pub(super) fn end_scrubs(&mut self) {
        self.same.clear();
        for run in core::mem::take(&mut self.scrubbed) {
            if self.is_free(run) {
                self.forget_mixed(run);
            }
        }
    }

    /// Calls the hook, and returns what it answers.
    fn ask(&mut self, call: HookEvent, seen: &mut Seen<'_>) -> Result<ScrubAnswer, String> {
        seen.event(call)?;
        Ok(self.answers.pop_front().unwrap_or(ScrubAnswer::Done))
    }

    /// Has free pages scrubbed that are to be allocated; returns where they go instead, if they
    /// cannot be.
    fn scrub_free_pages(
        &mut self,
        (head, order): (Pfn, Order),
        owner: Option<u64>,
        seen: &mut Seen<'_>,
    ) -> Result<Option<FolioKind>, String> {
        let run = Run::folio(head, order);
        // Whoever has pages scrubbed has them in its hands.
        self.fracture(head, order);
        let call = HookEvent::Scrub { head, order, owner, is_free: false };
        let may_know = self.policy.scrub == ScrubPolicy::OnOwnerChange && owner.is_some();
        let kind = match self.ask(call, seen)? {
            ScrubAnswer::Done => {
                self.clean.insert(run);
                self.sure.insert(run);
                self.scrubbed.push(run);
                return Ok(None);
            }
            ScrubAnswer::Same if may_know => {
                self.same.push(run);
                return Ok(None);
            }
            ScrubAnswer::Later => FolioKind::Kept,
            ScrubAnswer::Failed | ScrubAnswer::Same => FolioKind::Retired,
        };
        self.make(head, order, Clean::No, 0);
        self.set_kind(run.start, kind);
        Ok(Some(kind))
    }

    /// Returns whether the run was left as it is for whoever asks now.
    pub(super) fn is_left(&self, run: Run) -> bool {
        self.same.iter().any(|same| same.covers(run))
    }

    /// Follows the calls of the hook for an allocation of these orders; returns how many were in
    /// vain, of which there may be so many.
    pub(super) fn follow_scrubs(
        &mut self,
        orders: &RangeInclusive<u8>,
        filter: Filter,
        vain_max: usize,
        seen: &mut Seen<'_>,
    ) -> Result<usize, String> {
        let mut in_vain = 0;
        while let Some(HookEvent::Scrub { head, order, is_free: false, .. }) = seen.peek() {
            let block = Block { clean: false, ..self.block(head.as_u64().into(), order) };
            self.check_place(block, filter)?;
            if !orders.contains(&order.as_u8()) || !self.scrubs() {
                return Err(format!("{block:?} is scrubbed, which nobody asked for"));
            }
            let kind = self.scrub_free_pages((head, order), filter.owner, seen)?;
            in_vain += usize::from(kind.is_some());
            if kind.is_some() && filter.is_run {
                self.end_scrubs();
            }
            if vain_max < in_vain {
                return Err(format!("{in_vain} folios in vain"));
            }
        }
        Ok(in_vain)
    }

    /// Takes an allocation through the calls of the hook that it takes.
    pub(super) fn scrubbing(
        &mut self,
        orders: RangeInclusive<u8>,
        filter: Filter,
        vain_max: usize,
        seen: &mut Seen<'_>,
        mut step_fn: impl FnMut(&mut Self, Filter, &mut Seen<'_>) -> Step,
    ) -> Step {
        let mut in_vain = self.follow_scrubs(&orders, filter, vain_max, seen)?;
        loop {
            let filter = Filter { is_spent: TRIES <= in_vain, ..filter };
            match step_fn(self, filter, seen)? {
                Answer::Again => in_vain += 1,
                answer => return Ok(answer),
            }
        }
    }

    /// Sees to it that a block may be handed out; false if it has gone elsewhere.
    pub(super) fn fit(
        &mut self,
        block: &mut Block,
        owner: Option<u64>,
        seen: &mut Seen<'_>,
    ) -> Result<bool, String> {
        let run = Run::folio(block.head, block.order);
        if !self.scrubs() || block.clean || self.is_left(run) {
            return Ok(true);
        }
        if seen.is_judged() {
            return Err(format!("{block:?} is neither clean nor scrubbed"));
        }
        let kind = self.scrub_free_pages((block.head, block.order), owner, seen)?;
        block.clean = self.sure.covers(run);
        Ok(kind.is_none())
    }

    /// Has a piece of a claim scrubbed if need be; returns why it is refused, if it is.
    pub(super) fn scrub_claimed(
        &mut self,
        (head, order): (Pfn, Order),
        seen: &mut Seen<'_>,
    ) -> Result<Option<Refusal>, String> {
        let is_sure = self.sure.covers(Run::folio(head, order));
        let is_due = match seen.peek() {
            Some(HookEvent::Scrub { head: at, is_free: false, .. }) => at == head,
            _ => !seen.is_judged() && !is_sure && self.scrubs(),
        };
        if !is_due {
            return Ok(None);
        }
        if is_sure || !self.scrubs() {
            return Err(format!("{head:?} is scrubbed, which nobody asked for"));
        }
        let kind = self.scrub_free_pages((head, order), None, seen)?;
        Ok(kind.map(|kind| match kind {
            FolioKind::Kept => Refusal::ScrubPending { pfn: head },
            _ => Refusal::ScrubFailed { pfn: head },
        }))
    }

    /// Gives the pages of an exclusive folio back, of which nobody says that they are zero.
    pub(super) fn free_dirty(&mut self, head: u128, seen: &mut Seen<'_>) -> Result<(), String> {
        let run = self.run_of(head);
        // Nobody writes to a folio with a bad page, or with one whose device is gone.
        let is_out_of_reach = self.bad_in(run).is_some() || self.is_gone(run);
        if self.policy.scrub != ScrubPolicy::OnFree || is_out_of_reach {
            self.free(head, Clean::No);
            return Ok(());
        }
        let order = self.folio(head).order;
        let call = HookEvent::Scrub { head: pfn(head), order, owner: None, is_free: true };
        match self.ask(call, seen)? {
            ScrubAnswer::Done => self.free(head, Clean::Yes),
            ScrubAnswer::Later => self.set_kind(head, FolioKind::Kept),
            ScrubAnswer::Failed | ScrubAnswer::Same => self.set_kind(head, FolioKind::Retired),
        }
        Ok(())
    }
}

/// The folios that [`Spec::scrubbing`] lets an allocation meet in vain.
pub(super) const VAIN_MAX: usize = TRIES;
