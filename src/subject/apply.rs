//! Performing operations: one arm each, and the handles go back into the table.

use alloc::vec;
use alloc::vec::Vec;

use super::owner::{Owner, block, born};
use super::refusal::Refuses;
use super::table::Held;
use super::withheld::is_withheld;
use super::words::{content_of, order_of, pfn_of, range_of, request_of, set_request_of};
use super::{Data, PgmapSubject, raw};
use crate::folio::{Folio, FolioSet};
use crate::model::{
    AnyOrder, Block, Content, Count, ExtentPlan, Lent, Node, Op, Outcome, Refusal, Span,
    TableBudget, Token,
};
use crate::pgmap::{FolioDesc, FolioKind, Scrub, StillBusy, UniqueFolio, UniqueSet};
use crate::units::Order;

/// An operation that was refused, and why.
pub(super) type Try<T = Outcome> = Result<T, Refusal>;

/// A subject never gets a step with a token that fits no handle.
pub(super) const LOST: Refusal = Refusal::Other;

impl<'p, D: Data> PgmapSubject<'p, '_, D> {
    pub(super) fn perform(&mut self, op: &Op) -> Outcome {
        let outcome = match *op {
            Op::Alloc { .. }
            | Op::AllocWith { .. }
            | Op::AllocSet { .. }
            | Op::AllocShared { .. }
            | Op::AllocRun { .. }
            | Op::AllocBulk { .. }
            | Op::UseMagazine { .. }
            | Op::Claim { .. }
            | Op::ClaimRange { .. } => self.allocate(op),
            Op::Lease { .. }
            | Op::EndLease { .. }
            | Op::ConvertPin { .. }
            | Op::Revoke { .. }
            | Op::EndRevoke { .. } => self.lend(op),
            Op::Publish { token } => self.unique(token).map(|folio| {
                let raw = folio.publish().into_raw();
                self.done_with(Held::Folio(raw))
            }),
            Op::Release { token } => self.unique(token).map(|it| it.release()).map(done),
            Op::ReleaseClean { token } => self.unique(token).map(|it| it.release_clean()).map(done),
            Op::Keep { token } => self.unique(token).map(|it| it.keep()).map(done),
            Op::Retire { token } => self.unique(token).map(|it| it.retire()).map(done),
            Op::DropUnique { token } => self.unique(token).map(drop).map(done),
            Op::MarkClean { token } => self.unique(token).map(|mut folio| {
                folio.mark_clean();
                self.put_back(token, folio);
                Outcome::Done
            }),
            Op::UniqueIntoRaw { token } => {
                self.unique(token).map(|folio| self.done_with(Held::RawUnique(folio.into_raw())))
            }
            Op::UniqueFromRaw { token } => self.unique_from_raw(token),
            Op::Split { .. }
            | Op::SplitAround { .. }
            | Op::Trim { .. }
            | Op::ReleasePart { .. }
            | Op::Merge { .. } => self.reshape(op),
            Op::SetHook { ref script } => {
                self.pgmap.ops().state().script = script.iter().copied().collect();
                Ok(Outcome::Done)
            }
            Op::Reap { number } => {
                let reaped = self.pgmap.reap(usize::try_from(number.0).unwrap_or(usize::MAX));
                let nr_folios = u32::try_from(reaped.nr_folios).unwrap_or(u32::MAX);
                Ok(Outcome::Reaped { nr_folios, has_more: reaped.has_more })
            }
            Op::AddExtent { span, tables, content, lent } => {
                self.add_extent(span, tables, content, lent)
            }
            Op::Migrate { token, raw, at, stop } => self.migrate(token, raw, at, stop),
            Op::Poison { at } => self.poison(at),
            Op::PoisonList { at, step, number } => self.poison_list(at, step, number),
            Op::Unpoison { at } => self.unpoison(at),
            Op::Offline { span } => self.offline(span),
            Op::Online { span } => self.online(span),
            Op::LosePages { span } => self.lose_pages(span),
            Op::Kill {} => self.kill(),
            Op::Drain {} => self.drain(),
            Op::RemoveExtent { .. }
            | Op::LoseExtent { .. }
            | Op::RestoreExtent { .. }
            | Op::DetachExtent { .. } => self.leave(op),
            Op::AttachHolder { tighten } => self.attach_holder(tighten).map(done),
            Op::DetachHolder {} => self.detach_holder().map(done),
            _ => self.count(op),
        };
        outcome.unwrap_or_else(Outcome::Refused)
    }

    fn kill(&self) -> Try {
        self.pgmap.kill();
        Ok(Outcome::Done)
    }

    fn drain(&self) -> Try {
        let (mut busy, mut named) = (Vec::new(), Vec::new());
        self.pgmap.for_each_busy(|it| busy.push(it));
        self.pgmap.for_each_folio(|folio| {
            if folio.kind != FolioKind::Retired && !is_withheld(folio.kind) {
                named.push(StillBusy { pfn: folio.head, folio: Some(folio) });
            }
        });
        // Nobody else is there, so nothing changes between the looks.
        match (busy == named, self.pgmap.try_drain()) {
            (true, Ok(())) if busy.is_empty() => Ok(Outcome::Drained),
            (true, Err(first)) if busy.first() == Some(&first) => {
                let nr_folios = u32::try_from(busy.len()).unwrap_or(u32::MAX);
                Err(Refusal::StillBusy { pfn: first.pfn, nr_folios })
            }
            _ => Err(Refusal::Other),
        }
    }

    // The table.

    pub(super) fn take(&self, token: Token) -> Option<Held> {
        self.pgmap.ops().state().table.take(token)
    }

    pub(super) fn done_with(&self, held: Held) -> Outcome {
        self.pgmap.ops().state().table.insert(held);
        Outcome::Done
    }

    fn unique(&self, token: Token) -> Try<UniqueFolio<'p, Owner<D>>> {
        let Some(Held::Unique(raw, is_clean)) = self.take(token) else { return Err(LOST) };
        let mut folio = raw::unique(self.pgmap, raw).ok_or(LOST)?;
        if is_clean {
            folio.mark_clean();
        }
        Ok(folio)
    }

    fn put_back(&self, token: Token, folio: UniqueFolio<'p, Owner<D>>) {
        let is_clean = folio.is_clean();
        let held = Held::Unique(folio.into_raw(), is_clean);
        self.pgmap.ops().state().table.put_back(token, held);
    }

    /// Takes a reference out for an operation that leaves it where it is.
    pub(super) fn with_folio<T>(
        &self,
        token: Token,
        use_fn: impl FnOnce(&Folio<'p, Owner<D>>) -> T,
    ) -> Try<T> {
        let Some(Held::Folio(raw)) = self.take(token) else { return Err(LOST) };
        let folio = raw::folio(self.pgmap, raw).ok_or(LOST)?;
        let result = use_fn(&folio);
        self.pgmap.ops().state().table.put_back(token, Held::Folio(folio.into_raw()));
        Ok(result)
    }

    /// Puts exclusive folios into the table, ascending.
    pub(super) fn hand_out(&self, mut folios: Vec<UniqueFolio<'p, Owner<D>>>) -> Outcome {
        folios.sort_by_key(UniqueFolio::head);
        let blocks = folios.iter().map(block).collect();
        let mut state = self.pgmap.ops().state();
        for folio in folios {
            let is_clean = folio.is_clean();
            state.table.insert(Held::Unique(folio.into_raw(), is_clean));
        }
        Outcome::Blocks(blocks)
    }

    fn hand_out_set(&self, mut set: UniqueSet<'p, '_, Owner<D>>) -> Outcome {
        self.hand_out(core::iter::from_fn(|| set.pop()).map(born).collect())
    }

    pub(super) fn hand_out_folio(&self, folio: Folio<'p, Owner<D>>) -> Outcome {
        let (head, order, tag) = (folio.head(), folio.order(), folio.private().read());
        self.pgmap.ops().state().table.insert(Held::Folio(folio.into_raw()));
        Outcome::Counted { head, order, tag }
    }

    // Operations.

    fn allocate(&self, op: &Op) -> Try {
        match *op {
            Op::Alloc { order } => {
                let folio = self.pgmap.alloc(order_of(order)?);
                folio.map(|it| self.hand_out(vec![born(it)])).map_err(|it| it.refusal())
            }
            Op::AllocWith { order, align, within, direction, content, down_to, node } => {
                let request = request_of(order, align, within, direction)?
                    .content(content_of(content))
                    .down_to(order_of(down_to)?)
                    .for_owner(order.0.into());
                let request = match node {
                    Node::Any => request,
                    Node::At(place) => {
                        request.node(place.into()).tier(place.into()).tag([place; 16])
                    }
                };
                let folio = self.pgmap.alloc_with(request);
                folio.map(|it| self.hand_out(vec![born(it)])).map_err(|it| it.refusal())
            }
            Op::AllocSet { room, .. } => {
                let mut descs = storage(room);
                let set = self.pgmap.alloc_set(set_request_of(op)?, &mut descs);
                set.map(|it| self.hand_out_set(it)).map_err(|it| it.refusal())
            }
            Op::AllocShared { pages, clones, .. } => {
                let request = set_request_of(op)?;
                // More than any set in a history has.
                let mut descs = storage(Count(clamp(pages.0)));
                let set = self.pgmap.alloc_set(request, &mut descs);
                set.map(|it| self.share(it, clones)).map_err(|it| it.refusal())
            }
            Op::AllocRun { pages, align, within, direction, room } => {
                let request = request_of(AnyOrder(0), align, within, direction)?;
                let request = request.for_owner(pages.0);
                let mut descs = storage(room);
                let set = self.pgmap.alloc_run(pages.0, request, &mut descs);
                set.map(|it| self.hand_out_set(it)).map_err(|it| it.refusal())
            }
            Op::AllocBulk { order, number, align, within, direction, content, room } => {
                let mut descs = storage(room);
                let request = request_of(order, align, within, direction)?;
                let request = request.content(content_of(content)).for_owner(number.0.into());
                let number = usize::try_from(number.0).unwrap_or(usize::MAX);
                let set = self.pgmap.alloc_bulk(request, number, &mut descs);
                set.map(|it| self.hand_out_set(it)).map_err(|it| it.refusal())
            }
            Op::UseMagazine { order, number, back } => self.use_magazine(order, number, back),
            Op::Claim { at, order } => {
                let folio = self.pgmap.claim(pfn_of(at)?, order_of(order)?);
                folio.map(|it| self.hand_out(vec![born(it)])).map_err(|it| it.refusal())
            }
            Op::ClaimRange { span, room } => {
                let mut descs = storage(room);
                let set = self.pgmap.claim_range(range_of(span)?, &mut descs);
                set.map(|it| self.hand_out_set(it)).map_err(|it| it.refusal())
            }
            _ => Err(LOST),
        }
    }

    fn use_magazine(&self, order: AnyOrder, number: Count, back: Count) -> Try {
        let mut magazine = self.pgmap.magazine(order_of(order)?);
        let mut folios = Vec::new();
        for _ in 0..number.0 {
            match magazine.alloc() {
                Ok(folio) => folios.push(born(folio)),
                Err(error) if folios.is_empty() => return Err(error.refusal()),
                Err(_) => break,
            }
        }
        folios.sort_by_key(UniqueFolio::head);
        let blocks = folios.iter().map(block).collect();
        let kept = folios.split_off(folios.len().min(back.0 as usize));
        folios.into_iter().for_each(|folio| magazine.release(folio));
        // What was put back is taken out again, with data of its own; were it scrubbed for that,
        // there would be two allocations in one step.
        let may_scrub = self.pgmap.policy().scrub != Scrub::Never;
        let nr_again = if may_scrub { 0 } else { magazine.len().min(2) };
        let again: Vec<_> = (0..nr_again).map_while(|_| magazine.alloc().ok()).collect();
        for folio in again {
            if folio.private().read() != 0 {
                return Err(Refusal::Other);
            }
            let folio = born(folio);
            // Also pages that nobody had yet are taken, and nobody writes to them.
            if folio.is_clean() { magazine.release_clean(folio) } else { magazine.release(folio) }
        }
        self.hand_out(kept);
        Ok(Outcome::Blocks(blocks))
    }

    /// Publishes a set and clones it, each clone by way of its raw form and in two halves.
    fn share(&self, mut set: UniqueSet<'p, '_, Owner<D>>, clones: Count) -> Outcome {
        let mut blocks = Vec::new();
        let cleanness: Vec<_> = set.cleanness().collect();
        let mut cleanness = cleanness.into_iter();
        set.for_each_private(|head, order, data| {
            data.write(!head.as_u64());
            let clean = cleanness.next().unwrap_or(false);
            blocks.push(Block { head, order, clean, tag: data.read() });
        });
        blocks.sort_by_key(|block| block.head);
        let shared = set.publish();
        let mut copies: Vec<Vec<_>> = Vec::new();
        for _ in 0..clones.0 % 3 {
            let mut descs = vec![FolioDesc::EMPTY; shared.len()];
            let Ok(copy) = shared.try_clone_into(&mut descs) else { continue };
            let mut low = raw::set(self.pgmap, copy.into_raw());
            let mut high = low.split_off(low.len() / 2);
            copies.push(take_all(&mut low).chain(take_all(&mut high)).collect());
        }
        let mut shared = shared;
        copies.insert(0, take_all(&mut shared).collect());
        for mut folios in copies {
            folios.sort_by_key(Folio::head);
            for folio in folios {
                self.hand_out_folio(folio);
            }
        }
        Outcome::Shared(blocks)
    }

    fn unique_from_raw(&self, token: Token) -> Try {
        let Some(Held::RawUnique(raw)) = self.take(token) else { return Err(LOST) };
        let folio = raw::unique(self.pgmap, raw).ok_or(LOST)?;
        let is_clean = folio.is_clean();
        Ok(self.done_with(Held::Unique(folio.into_raw(), is_clean)))
    }

    fn reshape(&self, op: &Op) -> Try {
        let (Op::Split { token, .. }
        | Op::SplitAround { token, .. }
        | Op::Trim { token, .. }
        | Op::ReleasePart { token, .. }
        | Op::Merge { token, .. }) = *op
        else {
            return Err(LOST);
        };
        // What cannot be said in the types is refused before the folio is touched.
        let (order, range) = match *op {
            Op::Split { order, .. } | Op::SplitAround { order, .. } => (order_of(order)?, None),
            Op::Trim { span, .. } | Op::ReleasePart { span, .. } => {
                (Order::ZERO, Some(range_of(span)?))
            }
            _ => (Order::ZERO, None),
        };
        let folio = self.unique(token)?;
        let pieces = match (op, range) {
            (Op::Split { .. }, _) => folio.split(order).map(Iterator::collect),
            (&Op::SplitAround { at, .. }, _) => {
                let around = folio.split_around(pfn_of(at)?, order);
                around.map(|(target, rest)| rest.chain([target]).collect())
            }
            (Op::Trim { .. }, Some(range)) => folio.trim(range).map(Iterator::collect),
            (Op::ReleasePart { .. }, Some(range)) => {
                folio.release_part(range).map(Iterator::collect)
            }
            (&Op::Merge { buddy, .. }, _) => return self.merge(token, folio, buddy),
            _ => return Err(LOST),
        };
        match pieces {
            Ok(pieces) => Ok(self.hand_out(pieces)),
            Err(error) => {
                self.put_back(token, error.folio);
                Err(error.reason.refusal())
            }
        }
    }

    fn merge(&self, token: Token, folio: UniqueFolio<'p, Owner<D>>, buddy: Token) -> Try {
        match folio.merge(self.unique(buddy)?) {
            Ok(merged) => Ok(self.hand_out(vec![merged])),
            Err(error) => {
                self.put_back(token, error.folio);
                self.put_back(buddy, error.buddy);
                Err(error.reason.refusal())
            }
        }
    }

    fn add_extent(&mut self, span: Span, tables: TableBudget, content: Content, lent: Lent) -> Try {
        let range = range_of(span)?;
        let plan = ExtentPlan { range, tables, clean: content == Content::Clean };
        match self.attach(&plan, lent) {
            None => Ok(Outcome::Unsupported),
            Some(Ok(())) => Ok(Outcome::Done),
            Some(Err(error)) => Err(error.refusal()),
        }
    }
}

fn done(_: ()) -> Outcome {
    Outcome::Done
}

/// Takes the folios of a set out, one by one.
fn take_all<'s, 'p, D: Data>(
    set: &'s mut FolioSet<'p, '_, Owner<D>>,
) -> impl Iterator<Item = Folio<'p, Owner<D>>> + 's {
    core::iter::from_fn(|| set.pop())
}

fn clamp(pages: u64) -> u32 {
    u32::try_from(pages).unwrap_or(u32::MAX).min(1 << 10)
}

fn storage(room: Count) -> Vec<FolioDesc> {
    vec![FolioDesc::EMPTY; usize::try_from(room.0).unwrap_or(0)]
}
