//! Extents that come, and the end of the pgmap.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::super::field::{AnyOrder, Content, Lent, Span, TableBudget};
use super::super::outcome::{Failed, FolioKind, Life, Outcome, Refusal};
use super::super::runs::{Run, pfn};
use super::judge::{Answer, Seen, Step, done, refuse};
use super::request::run;
use super::withheld::is_withheld;
use super::{Extent, Folio, Spec};

/// The most pages that an extent of the crate can have.
const PAGES_MAX: u64 = 1 << 38;

impl Spec {
    /// Notes that an extent is there.
    pub(super) fn attach(&mut self, range: Run, tables: TableBudget, clean: bool) {
        let budget = match tables {
            TableBudget::Dense => None,
            TableBudget::Budget(tables) => Some(usize::from(tables)),
        };
        let (node, life) = (self.nr_attached, Life::Live);
        let fractured = BTreeSet::new();
        self.extents.push(Extent { range, node, life, is_gone: false, budget, fractured });
        self.nr_attached = self.nr_attached.saturating_add(1);
        self.derived.take();
        if clean {
            self.clean.insert(range);
            self.sure.insert(range);
        }
    }

    pub(super) fn add_extent(
        &mut self,
        span: Span,
        tables: TableBudget,
        content: Content,
        lent: Lent,
    ) -> Step {
        let Some(range) = run(span) else {
            return refuse(Refusal::NoRange);
        };
        let mut faults = Vec::new();
        if self.life != Life::Live {
            faults.push(Refusal::Dying);
        }
        if lent == Lent::Short {
            faults.push(Refusal::ShortMeta);
        }
        if self.extents.len() == self.slots {
            faults.push(Refusal::NoSlot);
        }
        if span.pages.0 > PAGES_MAX {
            faults.push(Refusal::TooLarge);
        }
        let overlapped = self.extents.iter().filter(|extent| extent.range.overlaps(range));
        faults.extend(overlapped.map(|it| Refusal::Overlap { start: pfn(it.range.start) }));
        if !faults.is_empty() {
            return Ok(Answer::Refused(faults));
        }
        self.attach(range, tables, content == Content::Clean);
        done()
    }

    /// Returns whether the hook may allocate a folio of that order at all.
    pub(super) fn may_alloc_in_hook(&self, order: AnyOrder) -> bool {
        let allowed = order.order().is_some_and(|order| order <= self.policy.max_order);
        self.life == Life::Live && !self.policy.claim_only && allowed
    }

    pub(super) fn is_live(&self) -> bool {
        self.life == Life::Live
    }

    pub(super) fn kill(&mut self, seen: &mut Seen<'_>) -> Step {
        if self.life == Life::Live {
            self.life = Life::Dying;
            self.tell(Failed::Killed, seen)?;
        }
        done()
    }

    pub(super) fn drain(&mut self) -> Step {
        match self.first_busy_folio() {
            Some(head) => {
                let nr_folios = u32::try_from(self.busy_folios().count()).unwrap_or(u32::MAX);
                refuse(Refusal::StillBusy { pfn: pfn(head), nr_folios })
            }
            None => Ok(Answer::Is(Outcome::Drained)),
        }
    }

    /// Comes to the end if it is time.
    pub(super) fn settle_life(&mut self) {
        self.settle_extents();
        if self.life == Life::Dying && self.first_busy_folio().is_none() {
            self.life = Life::Drained;
        }
    }

    /// Returns the first folio, by order of extents, that is in the way of the end.
    fn first_busy_folio(&self) -> Option<u128> {
        self.busy_folios().next()
    }

    fn busy_folios(&self) -> impl Iterator<Item = u128> + '_ {
        self.extents.iter().flat_map(|Extent { range, .. }| {
            let folios = self.folios.range(range.start..range.end);
            folios.filter(move |(_, folio)| is_busy(folio)).map(|(&head, _)| head)
        })
    }
}

/// Returns whether a folio is in the way of the end.
pub(super) fn is_busy(folio: &Folio) -> bool {
    folio.kind != FolioKind::Retired && !is_withheld(folio.kind)
}
