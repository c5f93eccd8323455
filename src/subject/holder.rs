//! The holder, which writes down what it is told beside what the owner's hooks meet.

use super::apply::{LOST, Try};
use super::owner::Owner;
use super::refusal::Refuses;
use super::{Data, PgmapSubject};
use crate::model::{Failed, HookEvent, Refusal, Tighten};
use crate::pgmap::{self, Failure, Holder, PgmapCore};

/// A holder that does nothing but listen.
struct Listener;

impl<D: Data> Holder<Owner<D>> for Listener {
    fn notify_failure(&self, pgmap: &PgmapCore<Owner<D>>, failure: Failure) {
        let failed = match failure {
            Failure::Poisoned { pfn, folio } => {
                Failed::Poisoned { pfn, head: folio.map(|folio| folio.head) }
            }
            Failure::Leaving { extent } => Failed::Leaving(extent),
            Failure::Gone { extent } => Failed::Gone(extent),
            Failure::PagesGone { range } => Failed::PagesGone(range),
            Failure::Killed => Failed::Killed,
        };
        pgmap.ops().note(HookEvent::Told(failed));
    }
}

impl<D: Data> PgmapSubject<'_, '_, D> {
    pub(super) fn attach_holder(&mut self, tighten: Tighten) -> Try<()> {
        let tighten = match tighten {
            Tighten::Refuse => pgmap::Tighten::Refuse,
            Tighten::Leases => pgmap::Tighten::Leases,
        };
        let before = self.pgmap.longterm_pins();
        let attached = self.pgmap.attach_holder(&Listener, tighten);
        let after = self.pgmap.longterm_pins();
        match attached {
            Ok(holding) => {
                self.holding = Some(holding);
                Ok(())
            }
            Err(error) if before == after => Err(error.refusal()),
            Err(_) => Err(Refusal::Other),
        }
    }

    pub(super) fn detach_holder(&mut self) -> Try<()> {
        drop(self.holding.take().ok_or(LOST)?);
        let is_restored = self.pgmap.longterm_pins() == self.pgmap.policy().longterm_pins;
        if is_restored { Ok(()) } else { Err(Refusal::Other) }
    }
}
