//! Moves: a folio that leaves one place and is at another, with all that it had.

use super::super::field::{AnyOrder, At, Count, Token};
use super::super::outcome::{FolioKind, Outcome, Refusal};
use super::super::runs::pfn;
use super::judge::{Answer, Seen, Step, refuse};
use super::request::page;
use super::{Clean, Counts, Folio, Handle, Spec};

impl Spec {
    /// Moves the folio of a reference, if that and so many raw ones are its only counts.
    pub(super) fn migrate(
        &mut self,
        token: Token,
        raw: Count,
        (at, stop): (At, Count),
        seen: &mut Seen<'_>,
    ) -> Step {
        let head = self.counted(token)?;
        let folio = *self.folio(head);
        if self.is_gone(self.run_of(head)) {
            return refuse(Refusal::Gone);
        }
        let (to, clean, sure) = (page(at), self.clean.clone(), self.sure.clone());
        let nr_answers = self.answers.len();
        match self.claim(at, AnyOrder(folio.order.as_u8()), seen)? {
            Answer::Is(_) => {}
            refused => return Ok(refused),
        }
        // The claim is no handle: it is part of the move.
        let target = Some(Handle::Unique(to));
        self.handles.iter_mut().filter(|it| **it == target).for_each(|it| *it = None);
        // Nor has anybody written its data.
        self.folio(to).tag = 0;
        // Pages that were scrubbed for the claim are clean from then on.
        let is_scrubbed = self.scrubs() || self.answers.len() != nr_answers;

        let Counts { refs, pins, maps } = folio.counts;
        let is_frozen = Some(refs) == raw.0.checked_add(1) && pins == 0 && maps == 0;
        if !is_frozen {
            if is_scrubbed {
                self.free(to, Clean::Yes);
            } else {
                self.free(to, Clean::No);
                (self.clean, self.sure) = (clean, sure);
            }
            return Ok(Answer::Is(Outcome::CalledOff));
        }
        self.folio(head).closed = false;
        if stop.0 % 4 != 0 {
            // At whatever stage: somebody may have written to the destination.
            self.free_dirty(to, seen)?;
            return Ok(Answer::Is(Outcome::CalledOff));
        }
        let moved = self.folio(to);
        (moved.kind, moved.counts, moved.raw) = (FolioKind::Live, folio.counts, folio.raw);
        (moved.clean, moved.tag) = (Clean::No, folio.tag);
        for slot in &mut self.handles {
            if *slot == Some(Handle::Folio(head)) {
                *slot = Some(Handle::Folio(to));
            }
        }
        let left = self.folio(head);
        (left.kind, left.counts, left.raw) =
            (FolioKind::Unique, Counts::default(), Counts::default());
        // The owner's hook exchanges the data.
        (left.closed, left.clean, left.tag) = (false, Clean::No, 0);
        self.free_dirty(head, seen)?;
        let Folio { order, tag, .. } = folio;
        Ok(Answer::Is(Outcome::Counted { head: pfn(to), order, tag }))
    }
}
