//! Claims: pages that the caller names, free ones and those of folios that are parked.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::super::field::{AnyOrder, At, Count, Span};
use super::super::op::Op;
use super::super::outcome::{Block, FolioKind, Life, Outcome, Refusal};
use super::super::runs::{Run, pfn};
use super::counts::counted;
use super::judge::{Answer, Seen, Step, done, refuse};
use super::request::{page, run};
use super::{Clean, Counts, Folio, Handle, Spec};
use crate::units::{Order, Pfn};

impl Spec {
    /// The folio of that order at that page, if all of it is free.
    pub(super) fn claim(&mut self, at: At, order: AnyOrder, seen: &mut Seen<'_>) -> Step {
        let mut faults = self.dying();
        let Some(order) = order.order() else {
            return refuse(Refusal::OrderTooLarge);
        };
        if self.policy.max_order < order {
            faults.push(Refusal::OrderTooLarge);
        }
        let size = u128::from(order.nr_pages());
        let run = Run::new(page(at), size);
        if run.start % size != 0 {
            faults.push(Refusal::Misaligned);
        } else if self.extent_of(run).is_none() {
            faults.push(Refusal::Outside);
        }
        if self.is_leaving(run.start) {
            faults.push(Refusal::Dying);
        }
        let chosen = seen.blocks();
        self.claim_pieces(faults, run, order, seen, |spec, head, order| {
            let own = spec.block(head.as_u64().into(), order);
            // One folio says whether it is clean.
            if own.clean { own } else { spec.seen_block(head, order, chosen) }
        })
    }

    /// A range as the largest folios that tile it, if all of it is free.
    pub(super) fn claim_range(&mut self, span: Span, room: Count, seen: &mut Seen<'_>) -> Step {
        let mut faults = self.dying();
        let Some(run) = run(span) else {
            return refuse(Refusal::NoRange);
        };
        let max = self.policy.max_order;
        if self.extent_of(run).is_none() {
            faults.push(Refusal::Outside);
            // Who counts the pieces first may say so; there may be more of them than we can list.
            faults.extend(seen.refusal().filter(|why| {
                matches!(*why, Refusal::TooManyPieces { needed } if u64::from(room.0) < needed)
            }));
            return Ok(Answer::Refused(faults));
        }
        let needed = run.tiles(max.as_u8()).count() as u64;
        if u64::from(room.0) < needed {
            faults.push(Refusal::TooManyPieces { needed });
        }
        if self.is_leaving(run.start) {
            faults.push(Refusal::Dying);
        }
        let chosen = seen.blocks();
        self.claim_pieces(faults, run, max, seen, |spec, head, order| {
            spec.seen_block(head, order, chosen)
        })
    }

    fn dying(&self) -> Vec<Refusal> {
        if self.life == Life::Live { Vec::new() } else { Vec::from([Refusal::Dying]) }
    }

    fn claim_pieces(
        &mut self,
        mut faults: Vec<Refusal>,
        run: Run,
        max: Order,
        seen: &mut Seen<'_>,
        block_fn: impl Fn(&Self, Pfn, Order) -> Block,
    ) -> Step {
        // A claim that is malformed says so, whatever is free.
        if faults.is_empty() {
            let pieces: Vec<(Pfn, Order)> = run.tiles(max.as_u8()).collect();
            let free = self.free_pieces(&pieces);
            if self.lacks_tables(&free) {
                faults.push(Refusal::NoTables);
            }
            if let Some(page) = self.first_busy(run) {
                faults.push(Refusal::Busy { pfn: pfn(page) });
            }
            if faults.is_empty() {
                for &piece in &pieces {
                    if let Some(why) = self.scrub_claimed(piece, seen)? {
                        return refuse(why);
                    }
                }
                let blocks: Vec<Block> =
                    pieces.iter().map(|&(head, order)| block_fn(self, head, order)).collect();
                return self.hand_out_blocks(&blocks, None, seen);
            }
        }
        Ok(Answer::Refused(faults))
    }

    /// Returns those pieces that are free; only they need tables of their own.
    fn free_pieces(&self, pieces: &[(Pfn, Order)]) -> Vec<(Pfn, Order)> {
        let free = |&(head, order): &(Pfn, Order)| self.is_free(Run::folio(head, order));
        pieces.iter().copied().filter(free).collect()
    }

    /// A parked folio, by its head.
    pub(super) fn bring_back(&mut self, op: &Op, at: At) -> Step {
        let from = match op {
            Op::ClaimRetired { .. } => FolioKind::Retired,
            _ => FolioKind::Kept,
        };
        // Claiming what is kept is how an owner empties a pgmap; all else would be new life.
        let mut faults = match op {
            Op::ClaimKept { .. } => Vec::new(),
            _ => self.dying(),
        };
        let head = page(at);
        if !matches!(op, Op::ClaimKept { .. }) && self.is_leaving(head) {
            faults.push(Refusal::Dying);
        }
        let found = self.folios.get(&head).filter(|folio| folio.kind == from).copied();
        let Some(folio) = found else {
            let outside = !self.extents.iter().any(|extent| extent.range.contains(head));
            faults.push(if outside { Refusal::Outside } else { Refusal::NotThere });
            return Ok(Answer::Refused(faults));
        };
        if !faults.is_empty() {
            return Ok(Answer::Refused(faults));
        }
        if let Op::Revive { .. } = op {
            self.set_kind(head, FolioKind::Live);
            self.folio(head).counts = Counts { refs: 1, ..Counts::default() };
            self.hand_out(Handle::Folio(head));
            return Ok(counted(head, folio));
        }
        self.set_kind(head, FolioKind::Unique);
        self.hand_out(Handle::Unique(head));
        let Folio { order, tag, .. } = folio;
        let block = Block { head: pfn(head), order, clean: false, tag };
        self.folio(head).clean = Clean::No;
        Ok(Answer::Is(Outcome::Blocks(Vec::from([block]))))
    }

    /// What an exclusive holder does with a folio as a whole.
    pub(super) fn step_unique(&mut self, op: &Op, seen: &mut Seen<'_>) -> Step {
        if let Op::UniqueFromRaw { token } = *op {
            let Some(Handle::RawUnique(head)) = self.handle(token) else {
                return Err(format!("{token:?} is not raw"));
            };
            self.take_back(token);
            self.folio(head).clean = Clean::No;
            self.hand_out(Handle::Unique(head));
            return done();
        }
        let (Op::Publish { token }
        | Op::Release { token }
        | Op::ReleaseClean { token }
        | Op::MarkClean { token }
        | Op::Keep { token }
        | Op::Retire { token }
        | Op::DropUnique { token }
        | Op::UniqueIntoRaw { token }) = *op
        else {
            return Err(format!("{op} is nothing that an exclusive holder does"));
        };
        let head = self.unique(token)?;
        if let Op::MarkClean { .. } = op {
            self.folio(head).clean = Clean::Yes;
            return done();
        }
        self.take_back(token);
        match op {
            Op::Publish { .. } => {
                self.set_kind(head, FolioKind::Live);
                self.folio(head).counts.refs = 1;
                self.hand_out(Handle::Folio(head));
            }
            Op::Release { .. } => self.free_dirty(head, seen)?,
            Op::ReleaseClean { .. } => self.free(head, Clean::Yes),
            Op::Keep { .. } => self.set_kind(head, FolioKind::Kept),
            Op::Retire { .. } => self.set_kind(head, FolioKind::Retired),
            Op::DropUnique { .. } => self.drop_unique(head, seen)?,
            _ => self.hand_out(Handle::RawUnique(head)),
        }
        done()
    }

    /// Drops an exclusive folio: the policy decides.
    pub(super) fn drop_unique(&mut self, head: u128, seen: &mut Seen<'_>) -> Result<(), String> {
        if self.policy.keep_on_drop {
            self.set_kind(head, FolioKind::Kept);
            return Ok(());
        }
        self.free_dirty(head, seen)
    }
}
