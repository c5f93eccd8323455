//! Moves: through all steps, or called off at one of them.

use super::apply::{LOST, Try};
use super::refusal::Refuses;
use super::table::Held;
use super::words::pfn_of;
use super::{Data, Owner, PgmapSubject, raw};
use crate::folio::{Folio, Migrate, MovingReason, RawFolio, StepRefused};
use crate::model::{At, Count, Outcome, Refusal, Token};
use crate::pgmap::{Move, UniqueFolio};
use crate::units::{Order, PfnRange};

/// The owner of one reference and some raw ones, through whose hooks one step goes.
struct Holder<'p, D: Data> {
    folio: Option<Folio<'p, Owner<D>>>,
    raw_refs: u32,
    stop: u32,
    /// What came of it.
    outcome: Option<Try>,
    /// Whether the hooks were called with what was planned, in their order.
    calls: [Option<Move>; 2],
}

impl<'p, D: Data> Migrate<'p, Owner<D>> for Holder<'p, D> {
    type Error = u32;

    fn freeze(&mut self, _: Move) -> Option<(UniqueFolio<'p, Owner<D>>, u32)> {
        match raw::freeze(self.folio.take()?, self.raw_refs) {
            Ok(folio) => Some((folio, self.raw_refs.saturating_add(1))),
            Err(busy) => {
                // The table gets it back.
                let _ = busy.folio.into_raw();
                None
            }
        }
    }

    fn copy(&mut self, from: PfnRange, to: PfnRange) -> Result<(), u32> {
        let order = Order::floor_log2(from.nr_pages()).unwrap_or(Order::MAX);
        self.calls[0] = Some(Move { from: from.start(), to: to.start(), order });
        if from.nr_pages() != to.nr_pages() || self.stop == 2 { Err(2) } else { Ok(()) }
    }

    fn rehome(&mut self, planned: Move, from: &mut D, to: &mut D) -> Result<(), u32> {
        self.calls[1] = Some(planned);
        if self.stop == 3 {
            return Err(3);
        }
        core::mem::swap(from, to);
        Ok(())
    }

    fn moved(&mut self, planned: Move, folio: Folio<'p, Owner<D>>) {
        let (head, order, tag) = (folio.head(), folio.order(), folio.private().read());
        let is_told = self.calls == [Some(planned); 2] && planned.to == head;
        let _ = folio.into_raw();
        let moved = Outcome::Counted { head, order, tag };
        self.outcome = Some(if is_told { Ok(moved) } else { Err(LOST) });
    }

    fn stayed(&mut self, planned: Move, why: StepRefused<u32>, folio: Option<Folio<'p, Owner<D>>>) {
        let has_folio = folio.is_some();
        let is_there = folio.is_none_or(|folio| {
            let is_there = folio.head() == planned.from;
            let _ = folio.into_raw();
            is_there
        });
        self.outcome = Some(match (why, has_folio) {
            (StepRefused::Claim(error), false) => Err(error.refusal()),
            (StepRefused::NotFrozen, false) => Ok(Outcome::CalledOff),
            (StepRefused::Moving(MovingReason::Gone { .. }), false) => Err(Refusal::Gone),
            (StepRefused::Copy(2) | StepRefused::Rehome(3), true) if is_there => {
                Ok(Outcome::CalledOff)
            }
            _ => Err(Refusal::Other),
        });
    }
}

impl<D: Data> PgmapSubject<'_, '_, D> {
    /// Moves a folio; the reference stays in its slot, wherever the folio is then.
    pub(super) fn migrate(&self, token: Token, raw: Count, at: At, stop: Count) -> Try {
        let to = pfn_of(at)?;
        let (head, order) = self.with_folio(token, |folio| (folio.head(), folio.order()))?;
        let Some(Held::Folio(held)) = self.take(token) else { return Err(LOST) };
        let planned = Move { from: head, to, order };
        let stop = stop.0 % 4;
        let outcome = if stop == 1 {
            self.call_off(planned, raw.0)
        } else {
            let folio = raw::folio(self.pgmap, held);
            let (raw_refs, outcome, calls) = (raw.0, None, [None; 2]);
            let mut holder = Holder { folio, raw_refs, stop, outcome, calls };
            let progress = self.pgmap.run_moves(&[planned], order.nr_pages(), &mut holder);
            let _ = holder.folio.take().map(Folio::into_raw);
            let is_moved = matches!(holder.outcome, Some(Ok(Outcome::Counted { .. })));
            let expected = (1, usize::from(is_moved), if is_moved { order.nr_pages() } else { 0 });
            if (progress.tried, progress.done, progress.nr_pages) != expected {
                return Err(LOST);
            }
            holder.outcome.unwrap_or(Err(LOST))
        };
        let head = match &outcome {
            Ok(Outcome::Counted { head, .. }) => *head,
            _ => head,
        };
        let held = Held::Folio(RawFolio::from_u64(head.as_u64()));
        self.pgmap.ops().state().table.put_back(token, held);
        outcome
    }

    /// Begins a move and calls it off before anybody has written to the destination.
    fn call_off(&self, planned: Move, raw_refs: u32) -> Try {
        if self.pgmap.is_gone_in(planned.source()) {
            // The first step would say so, too late for who has raw references.
            return Err(Refusal::Gone);
        }
        let target = self.pgmap.claim(planned.to, planned.order).map_err(|it| it.refusal())?;
        let held = RawFolio::from_u64(planned.from.as_u64());
        let folio = raw::folio(self.pgmap, held).ok_or(LOST)?;
        let frozen = match raw::freeze(folio, raw_refs) {
            Ok(frozen) => frozen,
            Err(busy) => {
                let _ = busy.folio.into_raw();
                target.give_up();
                return Ok(Outcome::CalledOff);
            }
        };
        let Some(refs) = raw_refs.checked_add(1) else { return Err(LOST) };
        let moving = frozen.move_to(target, refs).map_err(|_| LOST)?;
        if moving.planned() != planned || moving.refs() != refs {
            return Err(LOST);
        }
        // Every other time by dropping it: the reference is as good as raw then.
        if planned.to.as_u64() & planned.order.nr_pages() == 0 {
            drop(moving);
        } else {
            let _ = moving.abort().into_raw();
        }
        Ok(Outcome::CalledOff)
    }
}
