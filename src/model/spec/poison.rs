//! Bad pages: which they are, and that none of them is free.

use alloc::vec::Vec;

use super::super::field::At;
use super::super::outcome::{FolioKind, HookEvent, Refusal};
use super::super::runs::{Run, pfn};
use super::judge::{Seen, Step, done, refuse};
use super::request::page;
use super::space::BLOCK;
use super::{Clean, Counts, Folio, Spec};
use crate::units::Order;

/// How many bad pages a subject remembers of each extent.
pub const POISON_MAX: u32 = 8;

impl Spec {
    /// Says that a page is bad.
    pub(super) fn poison(&mut self, at: At, seen: &mut Seen<'_>) -> Step {
        let page = page(at);
        let Some(extent) = self.extent_of(Run::new(page, 1)) else {
            return refuse(Refusal::Outside);
        };
        if self.bad.contains(&page) {
            return refuse(Refusal::KnownBad);
        }
        let range = self.extents[extent].range;
        if self.bad.range(range.start..range.end).count() == POISON_MAX as usize {
            return refuse(Refusal::NoRoom);
        }
        let owner = self.owner(page).filter(|(_, folio)| folio.kind != FolioKind::Poisoned);
        self.bad.insert(page);
        self.quarantine(Run::new(page, 1));
        seen.event(HookEvent::Poisoned { pfn: pfn(page), head: owner.map(|(head, _)| pfn(head)) })?;
        done()
    }

    /// Says that a bad page was repaired.
    pub(super) fn unpoison(&mut self, at: At) -> Step {
        let page = page(at);
        if self.extent_of(Run::new(page, 1)).is_none() {
            return refuse(Refusal::Outside);
        }
        if !self.bad.remove(&page) {
            return refuse(Refusal::NotBad);
        }
        let quarantine = self.owner(page).filter(|(_, folio)| folio.kind == FolioKind::Poisoned);
        if let Some((head, _)) = quarantine {
            if self.bad_in(self.run_of(head)).is_none() {
                self.free(head, Clean::No);
            }
        }
        done()
    }

    /// Returns the first bad page of the run.
    pub(super) fn bad_in(&self, run: Run) -> Option<u128> {
        self.bad.range(run.start..run.end).next().copied()
    }

    /// Takes the bad pages of a run out of free space; those for whose block there is no table take
    /// the block along.
    pub(super) fn quarantine(&mut self, run: Run) {
        let bad: Vec<u128> = self.bad.range(run.start..run.end).copied().collect();
        for page in bad {
            if self.owner(page).is_some() {
                continue;
            }
            let lone = (pfn(page), Order::ZERO);
            let (head, order) = if self.lacks_tables(&[lone]) {
                (pfn(page / BLOCK * BLOCK), Order::BLOCK)
            } else {
                lone
            };
            self.fracture(head, order);
            let taken = Run::folio(head, order);
            self.clean.remove(taken);
            self.sure.remove(taken);
            let (kind, counts) = (FolioKind::Poisoned, Counts::default());
            let clean = Clean::No;
            let folio = Folio { order, kind, clean, counts, raw: counts, closed: false, tag: 0 };
            self.folios.insert(taken.start, folio);
            self.derived.take();
        }
    }
}
