//! The last put and what follows from it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::super::field::{AnyOrder, Count, HookStep};
use super::super::outcome::{Block, FolioKind, HookEvent, Outcome, Refusal};
use super::super::runs::pfn;
use super::judge::{Answer, Seen, Step, refuse};
use super::request::Filter;
use super::scrub::VAIN_MAX;
use super::{Clean, Counts, Folio, Handle, Spec};

impl Spec {
    /// Notes that counts of a live folio are gone; if they were the last ones, so is its life.
    ///
    /// Returns whether they were.
    pub(super) fn settle(&mut self, head: u128, seen: &mut Seen<'_>) -> Result<bool, String> {
        if self.folio(head).counts.sum() > 0 {
            return Ok(false);
        }
        self.folio(head).closed = false;
        if self.policy.deferred {
            self.set_kind(head, FolioKind::Condemned);
        } else {
            self.call_hook(head, seen)?;
        }
        Ok(true)
    }

    /// Calls the hook, once, with the folio as it is now; then drops what it put off.
    fn call_hook(&mut self, head: u128, seen: &mut Seen<'_>) -> Result<(), String> {
        self.set_kind(head, FolioKind::Unique);
        let Folio { order, tag, .. } = *self.folio(head);
        seen.event(HookEvent::Called { head: pfn(head), order, tag })?;
        let later = self.obey(head, seen)?;
        seen.event(HookEvent::Returned)?;
        match later {
            Some(other) => self.call_hook(other, seen),
            None => Ok(()),
        }
    }

    /// Does what the script says; returns a folio whose own hook is to be called afterwards.
    fn obey(&mut self, head: u128, seen: &mut Seen<'_>) -> Result<Option<u128>, String> {
        // A folio that was published has been written to.
        self.folio(head).clean = Clean::No;
        let mut later = None;
        match self.script.pop_front().unwrap_or(HookStep::Drop) {
            HookStep::Drop => self.drop_unique(head, seen)?,
            HookStep::Release => self.free_dirty(head, seen)?,
            HookStep::ReleaseClean => self.free(head, Clean::Yes),
            HookStep::Keep => self.set_kind(head, FolioKind::Kept),
            HookStep::Retire => self.set_kind(head, FolioKind::Retired),
            HookStep::Raw => self.hand_out(Handle::RawUnique(head)),
            HookStep::Publish => {
                let one = Counts { refs: 1, ..Counts::default() };
                self.set_kind(head, FolioKind::Live);
                let folio = self.folio(head);
                (folio.counts, folio.raw) = (one, one);
            }
            HookStep::Alloc(order) => {
                self.alloc_in_hook(order, seen)?;
                self.drop_unique(head, seen)?;
            }
            HookStep::DropOther => {
                if let Some(other) = self.take_first_counted() {
                    self.drop_counted(other, seen)?;
                }
                self.drop_unique(head, seen)?;
            }
            HookStep::DropLater => {
                // The count goes at once; only the hook waits, and that even where all others are
                // put off for longer.
                if let Some(other) = self.take_first_counted() {
                    self.folio(other).counts.refs -= 1;
                    if self.folio(other).counts.sum() == 0 {
                        self.folio(other).closed = false;
                        later = Some(other);
                    }
                }
                self.drop_unique(head, seen)?;
            }
        }
        Ok(later)
    }

    /// Takes the reference out of the lowest slot that holds one; returns its folio.
    fn take_first_counted(&mut self) -> Option<u128> {
        self.handles.iter_mut().find_map(|slot| match *slot {
            Some(Handle::Folio(head)) => {
                *slot = None;
                Some(head)
            }
            _ => None,
        })
    }

    /// Drops a reference that has left the table.
    pub(super) fn drop_counted(&mut self, head: u128, seen: &mut Seen<'_>) -> Result<(), String> {
        self.folio(head).counts.refs -= 1;
        self.settle(head, seen).map(|_| ())
    }

    fn alloc_in_hook(&mut self, order: AnyOrder, seen: &mut Seen<'_>) -> Result<(), String> {
        let orders = order.0..=order.0;
        let answer = if self.may_alloc_in_hook(order) {
            // One more is met where the shortest way to a folio leads.
            self.scrubbing(orders, Filter::ANYWHERE, VAIN_MAX + 1, seen, |spec, filter, seen| {
                spec.alloc_one_in_hook(order, filter, seen)
            })?
        } else {
            refuse(Refusal::Other)?
        };
        match answer {
            Answer::Refused(_) => seen.event(HookEvent::Allocated(None)),
            _ => Ok(()),
        }
    }

    fn alloc_one_in_hook(&mut self, order: AnyOrder, filter: Filter, seen: &mut Seen<'_>) -> Step {
        let order = match self.best_order(order.0, order.0, filter) {
            Ok(order) => order,
            Err(why) => return refuse(why),
        };
        let chosen = match seen.peek() {
            Some(HookEvent::Allocated(Some(block))) => Some(Vec::from([block])),
            Some(other) => return Err(format!("the hook met {other:?} instead of a folio")),
            None => None,
        };
        let mut block: Block = self.place(order, filter, chosen.as_deref())?;
        if !self.fit(&mut block, None, seen)? {
            return Ok(Answer::Again);
        }
        seen.event(HookEvent::Allocated(Some(block)))?;
        let clean = if block.clean { Clean::Yes } else { Clean::No };
        self.make(block.head, block.order, clean, block.tag);
        self.hand_out(Handle::RawUnique(block.head.as_u64().into()));
        Ok(Answer::Is(Outcome::Done))
    }

    /// Runs hooks that were put off, at most so many; the subject chooses which.
    pub(super) fn reap(&mut self, budget: Count, seen: &mut Seen<'_>) -> Step {
        let mut nr_folios = 0;
        while nr_folios < budget.0 {
            let next = match seen.peek() {
                Some(HookEvent::Called { head, .. }) => Some(u128::from(head.as_u64())),
                _ => self.first_condemned(),
            };
            let Some(head) = next else { break };
            let condemned = self.folios.get(&head).map(|folio| folio.kind);
            if condemned != Some(FolioKind::Condemned) {
                return Err(format!("the hook was called for {head:#x}, which is {condemned:?}"));
            }
            self.call_hook(head, seen)?;
            nr_folios += 1;
        }
        let has_more = self.first_condemned().is_some();
        Ok(Answer::Is(Outcome::Reaped { nr_folios, has_more }))
    }

    fn first_condemned(&self) -> Option<u128> {
        let mut condemned =
            self.folios.iter().filter(|(_, folio)| folio.kind == FolioKind::Condemned);
        condemned.next().map(|(&head, _)| head)
    }
}
