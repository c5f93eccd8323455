//! Pages that are withheld: bad ones, and those that are offline.

use alloc::vec::Vec;

use super::apply::Try;
use super::refusal::Refuses;
use super::words::{pfn_of, range_of};
use super::{Data, PgmapSubject};
use crate::model::{At, Count, Outcome, Refusal, Span};
use crate::pgmap::{FolioKind, Life, PageInfo, Poisoned};
use crate::units::{Pfn, PfnRange};

impl<D: Data> PgmapSubject<'_, '_, D> {
    pub(super) fn unpoison(&self, at: At) -> Try {
        let mended = self.pgmap.unpoison(pfn_of(at)?);
        mended.map(|()| Outcome::Done).map_err(|it| it.refusal())
    }

    /// Says that a page is bad; what the crate answers has to be what it shows.
    pub(super) fn poison(&self, at: At) -> Try {
        let pfn = pfn_of(at)?;
        let is_bad = |pfn| self.pgmap.poisoned().any(|bad| bad == pfn);
        let was_bad = is_bad(pfn);
        let answer = self.pgmap.poison(pfn).map_err(|it| it.refusal())?;
        let page = self.pgmap.query(pfn);
        let is_quarantined = matches!(page, PageInfo::Folio(folio) if is_withheld(folio.kind));
        match answer {
            Poisoned::Known if was_bad => Err(Refusal::KnownBad),
            Poisoned::Quarantined if is_quarantined && is_bad(pfn) => Ok(Outcome::Done),
            Poisoned::InUse { folio: Some(folio) }
                if PageInfo::Folio(folio) == page && !is_quarantined && is_bad(pfn) =>
            {
                Ok(Outcome::Done)
            }
            _ => Err(Refusal::Other),
        }
    }

    /// Says that pages are bad; what the crate answers has to be what it shows.
    pub(super) fn poison_list(&self, at: At, step: Count, number: Count) -> Try {
        let first = pfn_of(at)?;
        let offset = |index: u32| u64::from(step.0).wrapping_mul(index.into());
        let page = |index| Pfn::new(first.as_u64().saturating_add(offset(index)));
        let pages: Vec<Pfn> = (0..=number.0).rev().map(page).chain([first]).collect();
        let nr_known = self.pgmap.poisoned().count();
        let nr_new = self.pgmap.poison_list(&pages).map_err(|it| it.refusal())?;
        let bad: Vec<Pfn> = self.pgmap.poisoned().collect();
        let is_shown = pages.iter().all(|pfn| bad.contains(pfn));
        if is_shown && bad.len().checked_sub(nr_known) == Some(nr_new) {
            Ok(Outcome::Done)
        } else {
            Err(Refusal::Other)
        }
    }

    /// Gives pages back; what it answers has to be what the pgmap shows.
    pub(super) fn offline(&self, span: Span) -> Try {
        let range = range_of(span)?;
        let life = self.pgmap.offline(range).map_err(|it| it.refusal())?;
        self.show_offline(range, life)
    }

    /// Says that the device of pages is gone, which their ends have to show.
    pub(super) fn lose_pages(&self, span: Span) -> Try {
        let range = range_of(span)?;
        let life = self.pgmap.surprise_offline(range).map_err(|it| it.refusal())?;
        if !self.pgmap.is_gone(range.start()) || !self.pgmap.is_gone(range.last()) {
            return Err(Refusal::Other);
        }
        self.show_offline(range, life)
    }

    fn show_offline(&self, range: PfnRange, life: Life) -> Try {
        let (mut busy, mut named) = (Vec::new(), Vec::new());
        self.pgmap.for_each_busy_in(range, |it| busy.extend(it.folio));
        self.pgmap.for_each_folio(|folio| {
            let pages = PfnRange::folio(folio.head, folio.order);
            let is_met = pages.is_some_and(|pages| pages.overlaps(range));
            if is_met && !is_withheld(folio.kind) {
                named.push(folio);
            }
        });
        let expected = if named.is_empty() { Life::Drained } else { Life::Dying };
        let is_shown = self.pgmap.offline_state(range) == Some(life);
        if busy == named && life == expected && is_shown {
            Ok(Outcome::Done)
        } else {
            Err(Refusal::Other)
        }
    }

    /// Takes pages back.
    pub(super) fn online(&self, span: Span) -> Try {
        let range = range_of(span)?;
        self.pgmap.online(range).map_err(|it| it.refusal())?;
        let is_shown = self.pgmap.offline_state(range) == Some(Life::Live);
        if is_shown { Ok(Outcome::Done) } else { Err(Refusal::Other) }
    }
}

/// Returns whether a folio of that kind stands for pages that are withheld.
pub(super) const fn is_withheld(kind: FolioKind) -> bool {
    matches!(kind, FolioKind::Poisoned | FolioKind::Offline)
}
