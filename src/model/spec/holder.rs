//! The holder: what it makes of the policy of long-term pins, and what it is told.

use alloc::string::String;

use super::super::field::Tighten;
use super::super::outcome::{Failed, HookEvent, Life, Refusal};
use super::super::runs::{Run, pfn};
use super::Spec;
use super::judge::{Seen, Step, done, refuse};
use super::request::clamp;
use crate::units::PfnRange;

impl Spec {
    /// Attaches a holder; one that refuses pins does not come where there are any.
    pub(super) fn attach_holder(&mut self, tighten: Tighten) -> Step {
        if self.life != Life::Live {
            return refuse(Refusal::Dying);
        }
        if self.holder.is_some() {
            return refuse(Refusal::HasHolder);
        }
        let mut pinned = self.folios.iter().filter(|(_, folio)| folio.counts.pins > 0);
        if let (Tighten::Refuse, Some((&head, folio))) = (tighten, pinned.next()) {
            return refuse(Refusal::Pinned { pfn: pfn(head), pins: folio.counts.pins });
        }
        self.holder = Some(tighten);
        done()
    }

    pub(super) fn detach_holder(&mut self) -> Step {
        self.holder = None;
        done()
    }

    /// Notes what the holder is told, if there is one.
    pub(super) fn tell(&self, failed: Failed, seen: &mut Seen<'_>) -> Result<(), String> {
        if self.holder.is_none() {
            return Ok(());
        }
        seen.event(HookEvent::Told(failed))
    }

    /// Returns whether long-term pins are refused, by the policy or by the holder.
    pub(super) fn refuses_long(&self) -> bool {
        self.policy.refuse_long || self.holder == Some(Tighten::Refuse)
    }

    /// Returns whether long-term pins are leases, if there are any.
    pub(super) fn leases_long(&self) -> bool {
        self.policy.lease_long || self.holder == Some(Tighten::Leases)
    }
}

/// Returns an extent as others name it.
pub(super) fn named(run: Run) -> Option<PfnRange> {
    PfnRange::new(pfn(run.start), clamp(run.nr_pages())).ok()
}
