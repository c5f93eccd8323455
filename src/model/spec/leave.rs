//! Extents that leave: nothing new comes out of them, and without a folio they can be taken away.

use super::super::field::At;
use super::super::outcome::{ExtentView, Failed, HookEvent, Life, Refusal};
use super::super::runs::{Run, pfn};
use super::extent::is_busy;
use super::holder::named;
use super::judge::{Seen, Step, done, refuse};
use super::request::page;
use super::{Extent, Spec};

impl Spec {
    fn extent_at(&self, at: At) -> Result<usize, Refusal> {
        let found = self.extents.iter().position(|extent| extent.range.contains(page(at)));
        found.ok_or(Refusal::Outside)
    }

    /// Begins the removal of an extent; if its device is gone, the owner is told of each folio.
    pub(super) fn remove_extent(&mut self, at: At, is_gone: bool, seen: &mut Seen<'_>) -> Step {
        let index = match self.extent_at(at) {
            Ok(index) => index,
            Err(why) => return refuse(why),
        };
        let extent = &mut self.extents[index];
        let range = extent.range;
        let is_first = extent.life == Life::Live;
        if is_first {
            extent.life = Life::Dying;
        }
        let name = named(range).ok_or("an extent without pages")?;
        if is_first && !is_gone {
            self.tell(Failed::Leaving(name), seen)?;
        }
        if is_gone && !core::mem::replace(&mut self.extents[index].is_gone, true) {
            self.tell(Failed::Gone(name), seen)?;
            for head in self.busy_in(range) {
                seen.event(HookEvent::Gone { head: pfn(head) })?;
            }
        }
        done()
    }

    /// Calls the removal of an extent off.
    pub(super) fn restore_extent(&mut self, at: At) -> Step {
        if !self.is_live() {
            return refuse(Refusal::Dying);
        }
        let index = match self.extent_at(at) {
            Ok(index) => index,
            Err(why) => return refuse(why),
        };
        let extent = &mut self.extents[index];
        if extent.is_gone {
            return refuse(Refusal::Gone);
        }
        if extent.life == Life::Live {
            return refuse(Refusal::NotDying);
        }
        extent.life = Life::Live;
        done()
    }

    /// Takes an extent away of which nothing is in use.
    pub(super) fn detach_extent(&mut self, at: At) -> Step {
        let index = match self.extent_at(at) {
            Ok(index) => index,
            Err(why) => return refuse(why),
        };
        let Extent { range, life, .. } = self.extents[index];
        if life == Life::Live {
            return refuse(Refusal::NotDying);
        }
        let busy = self.busy_in(range);
        if let Some(&first) = busy.first() {
            let nr_folios = u32::try_from(busy.len()).unwrap_or(u32::MAX);
            return refuse(Refusal::StillBusy { pfn: pfn(first), nr_folios });
        }
        self.extents.remove(index);
        self.folios.retain(|&head, _| !range.contains(head));
        self.bad.retain(|&page| !range.contains(page));
        self.offline.remove(range);
        self.gone.remove(range);
        self.entries.retain(|entry| !range.covers(*entry));
        self.clean.remove(range);
        self.sure.remove(range);
        self.derived.take();
        done()
    }

    fn busy_in(&self, range: Run) -> alloc::vec::Vec<u128> {
        let folios = self.folios.range(range.start..range.end);
        folios.filter(|(_, folio)| is_busy(folio)).map(|(&head, _)| head).collect()
    }

    /// Comes to the end of each removal of which it is time.
    pub(super) fn settle_extents(&mut self) {
        for index in 0..self.extents.len() {
            let Extent { range, life, .. } = self.extents[index];
            if life == Life::Dying && self.busy_in(range).is_empty() {
                self.extents[index].life = Life::Drained;
            }
        }
    }

    /// Returns whether nothing new may come from the extent that has the page.
    pub(super) fn is_leaving(&self, page: u128) -> bool {
        let mut leaving = self.extents.iter().filter(|extent| extent.life != Life::Live);
        leaving.any(|extent| extent.range.contains(page))
    }

    /// Returns whether a retired folio could be brought back.
    pub(super) fn may_unretire(&self, head: u128) -> bool {
        self.is_live() && !self.is_leaving(head)
    }

    /// Returns all extents, in the order in which they were added.
    pub(in super::super) fn extent_views(&self) -> alloc::vec::Vec<ExtentView> {
        let view = |&Extent { range, life, .. }: &Extent| {
            // A subject is asked for the first page.
            let is_gone = self.is_gone(Run::new(range.start, 1));
            Some(ExtentView { range: named(range)?, life, is_gone })
        };
        self.extents.iter().filter_map(view).collect()
    }
}
