//! Pages that are withheld: bad ones, those that are offline, and that none of them is free.

use alloc::vec::Vec;

use super::super::field::{At, Count, Span};
use super::super::outcome::{Failed, FolioKind, HookEvent, Refusal};
use super::super::runs::{Run, pfn};
use super::extent::is_busy;
use super::holder::named;
use super::judge::{Seen, Step, done, refuse};
use super::request::{page, run};
use super::space::BLOCK;
use super::{Clean, Counts, Folio, Spec};
use crate::units::Order;

/// How many bad pages and runs that are offline a subject remembers of each extent.
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
        if self.room_in(self.extents[extent].range) == 0 {
            return refuse(Refusal::NoRoom);
        }
        let owner = self.owner(page).filter(|(_, folio)| !is_withheld(folio.kind));
        self.bad.insert(page);
        self.withhold(Run::new(page, 1));
        let (pfn, head) = (pfn(page), owner.map(|(head, _)| pfn(head)));
        self.tell(Failed::Poisoned { pfn, head }, seen)?;
        seen.event(HookEvent::Poisoned { pfn, head })?;
        done()
    }

    /// Says that pages are bad, all of them or none; nobody is told.
    pub(super) fn poison_list(&mut self, at: At, step: Count, number: Count) -> Step {
        let at_most = |page: u128| page.min(u64::MAX.into());
        let page = |index: u32| at_most(page(at) + u128::from(step.0) * u128::from(index));
        let mut new: Vec<u128> = Vec::new();
        for page in (0..=number.0).rev().map(page) {
            if self.extent_of(Run::new(page, 1)).is_none() {
                return refuse(Refusal::Outside);
            }
            if !self.bad.contains(&page) && !new.contains(&page) {
                new.push(page);
            }
        }
        let is_full = |extent: Run| {
            let nr_new = new.iter().filter(|&&page| Run::new(page, 1).overlaps(extent)).count();
            self.room_in(extent) < nr_new
        };
        if self.extents.iter().any(|extent| is_full(extent.range)) {
            return refuse(Refusal::NoRoom);
        }
        for page in new {
            self.bad.insert(page);
            self.withhold(Run::new(page, 1));
        }
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

    /// Gives pages back to the device, those that are free at once.
    pub(super) fn offline(&mut self, span: Span) -> Step {
        let Some((range, extent)) = self.run_inside(span) else {
            return refuse(Refusal::Outside);
        };
        let online = self.offline.missing_of(range);
        let entries: Vec<Run> = online.parts_of(range).flat_map(powers).collect();
        if self.room_in(extent) < entries.len() {
            return refuse(Refusal::NoRoom);
        }
        self.entries.extend(entries);
        self.offline.insert(range);
        self.withhold(range);
        done()
    }

    /// Returns the whole run of pages that are offline, of which this folio has some.
    pub(super) fn offline_run_at(&self, folio: Run) -> Option<Run> {
        let extent = self.extents.get(self.extent_of(folio)?)?;
        self.offline.parts_of(extent.range).find(|run| run.overlaps(folio))
    }

    /// Takes pages back from the device.
    pub(super) fn online(&mut self, span: Span) -> Step {
        let Some((range, extent)) = self.run_inside(span) else {
            return refuse(Refusal::Outside);
        };
        if !self.offline.covers(range) {
            let covered = self.offline.parts_of(range).find(|part| part.start == range.start);
            let first = covered.map_or(range.start, |part| part.end);
            return refuse(Refusal::NotOffline { pfn: pfn(first) });
        }
        let (met, others): (Vec<Run>, Vec<Run>) =
            self.entries.iter().partition(|entry| entry.overlaps(range));
        let rest: Vec<Run> = met.into_iter().flat_map(|it| around(it, range)).collect();
        if self.room_in(extent) < rest.len() {
            return refuse(Refusal::NoRoom);
        }
        self.entries = others;
        self.entries.extend(rest);
        self.offline.remove(range);
        self.gone.remove(range);
        let parked: Vec<u128> = self
            .folios
            .iter()
            .filter(|(_, folio)| folio.kind == FolioKind::Offline)
            .map(|(&head, _)| head)
            .filter(|&head| self.run_of(head).overlaps(range))
            .collect();
        for head in parked {
            self.free(head, Clean::No);
        }
        done()
    }

    /// Says that the device of pages is gone: they are offline, and whoever holds them is told.
    pub(super) fn lose_pages(&mut self, span: Span, seen: &mut Seen<'_>) -> Step {
        let Some((range, extent)) = self.run_inside(span) else {
            return refuse(Refusal::Outside);
        };
        // An entry whose pages are gone stays as it is; others are cut where they meet the range.
        let is_cut = |entry: &Run| entry.overlaps(range) && !self.is_lost(*entry);
        let (met, others): (Vec<Run>, Vec<Run>) = self.entries.iter().partition(|it| is_cut(it));
        let mut rest: Vec<Run> = met.into_iter().flat_map(|it| around(it, range)).collect();
        let lost = self.gone.missing_of(range);
        rest.extend(lost.parts_of(range).flat_map(powers));
        if self.room_in(extent) < rest.len() {
            return refuse(Refusal::NoRoom);
        }
        self.entries = others;
        self.entries.extend(rest);
        self.offline.insert(range);
        self.gone.insert(range);
        self.withhold(range);
        if lost.nr_pages() == 0 {
            return done();
        }
        let mut met: Vec<u128> = self.folios.keys().copied().collect();
        met.retain(|&head| self.run_of(head).overlaps(range) && is_busy(&self.folios[&head]));
        for &head in &met {
            let folio = self.folio(head);
            folio.closed |= folio.kind == FolioKind::Live;
        }
        self.tell(Failed::PagesGone(named(range).ok_or("no pages")?), seen)?;
        for head in met {
            seen.event(HookEvent::Gone { head: pfn(head) })?;
        }
        done()
    }

    /// Returns whether the device of any of the pages is gone.
    pub(in super::super) fn is_gone(&self, run: Run) -> bool {
        let is_whole = |it: &super::Extent| it.is_gone && it.range.overlaps(run);
        self.extents.iter().any(is_whole) || self.is_lost(run)
    }

    /// Returns whether any of the pages were lost as a part of their extent.
    fn is_lost(&self, run: Run) -> bool {
        self.gone.parts_of(run).next().is_some()
    }

    /// Returns the pages, and the extent that has them all.
    fn run_inside(&self, span: Span) -> Option<(Run, Run)> {
        let range = run(span)?;
        let extent = self.extent_of(range)?;
        Some((range, self.extents[extent].range))
    }

    /// Returns how many more entries the list of an extent has room for.
    fn room_in(&self, extent: Run) -> usize {
        let nr_bad = self.bad.range(extent.start..extent.end).count();
        let nr_offline = self.entries.iter().filter(|entry| entry.overlaps(extent)).count();
        POISON_MAX as usize - nr_bad - nr_offline
    }

    /// Takes the bad pages of a run out of free space, and those that are offline; where there is
    /// no table for the block of one, the block goes along.
    pub(super) fn withhold(&mut self, run: Run) {
        let mut from = run.start;
        while let Some((head, order, kind)) = self.next_withheld(between(from, run.end)) {
            let (head, order) = if self.lacks_tables(&[(head, order)]) {
                (pfn(u128::from(head.as_u64()) / BLOCK * BLOCK), Order::BLOCK)
            } else {
                (head, order)
            };
            self.fracture(head, order);
            let taken = Run::folio(head, order);
            self.clean.remove(taken);
            self.sure.remove(taken);
            let counts = Counts::default();
            let clean = Clean::No;
            let folio = Folio { order, kind, clean, counts, raw: counts, closed: false, tag: 0 };
            self.folios.insert(taken.start, folio);
            self.derived.take();
            from = taken.end;
            if from >= run.end {
                break;
            }
        }
    }

    /// Returns the first withheld pages of a run that nobody owns, as far as they go together.
    fn next_withheld(&self, run: Run) -> Option<(crate::units::Pfn, Order, FolioKind)> {
        let is_unowned = |page: &u128| self.owner(*page).is_none();
        let bad = self.bad.range(run.start..run.end).copied().find(is_unowned);
        let offline = self.offline.parts_of(run).find_map(|part| self.first_unowned(part));
        match (bad, offline) {
            (Some(bad), offline) if offline.is_none_or(|part| bad <= part.start) => {
                Some((pfn(bad), Order::ZERO, FolioKind::Poisoned))
            }
            (bad, Some(part)) => {
                let end = bad.map_or(part.end, |bad| bad.min(part.end));
                let (head, order) = between(part.start, end).tiles(Order::MAX.as_u8()).next()?;
                Some((head, order, FolioKind::Offline))
            }
            _ => None,
        }
    }

    /// Returns the first pages of a run that nobody owns.
    fn first_unowned(&self, run: Run) -> Option<Run> {
        let mut start = run.start;
        while start < run.end {
            let Some((head, _)) = self.owner(start) else { break };
            start = self.run_of(head).end;
        }
        if start >= run.end {
            return None;
        }
        let next = self.folios.range(start..run.end).next().map(|(&head, _)| head);
        Some(between(start, next.unwrap_or(run.end)))
    }
}

/// Returns whether a folio of that kind stands for pages that are withheld.
pub(super) fn is_withheld(kind: FolioKind) -> bool {
    matches!(kind, FolioKind::Poisoned | FolioKind::Offline)
}

fn between(start: u128, end: u128) -> Run {
    Run::new(start, end - start)
}

/// Yields what is left of an entry without the pages of `range`.
fn around(entry: Run, range: Run) -> impl Iterator<Item = Run> {
    let before = (entry.start < range.start).then(|| between(entry.start, range.start));
    let behind = (range.end < entry.end).then(|| between(range.end, entry.end));
    before.into_iter().chain(behind).flat_map(powers)
}

/// Cuts a run into powers of two, the largest first.
fn powers(run: Run) -> impl Iterator<Item = Run> {
    let mut start = run.start;
    core::iter::from_fn(move || {
        let left = run.end - start;
        let nr_pages = 1 << left.checked_ilog2()?;
        start += nr_pages;
        Some(Run::new(start - nr_pages, nr_pages))
    })
}
