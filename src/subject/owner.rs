//! The owner under test: its free hook follows a script and writes down what it met.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;

use spin::Mutex;

use super::raw;
use super::table::{Held, Table};
use crate::folio::{LeaseInfo, Revoke};
use crate::model::{Block, HookEvent, HookStep, ScrubAnswer};
use crate::pgmap::{FolioInfo, HookCx, PgmapOps, ScrubJob, ScrubWhen, Scrubbed, UniqueFolio};
use crate::units::{Order, Pfn};

/// Owner data beside a folio, as far as the specification knows it.
pub trait Data: Default + Send + Sync {
    /// Writes a number, if there is a place for one.
    fn write(&mut self, tag: u64);

    /// Returns the number, or zero if there is no place for one.
    fn read(&self) -> u64;
}

/// No data.
impl Data for () {
    fn write(&mut self, _: u64) {}

    fn read(&self) -> u64 {
        0
    }
}

/// Data on the heap, so that losing it, using it early and dropping it twice can be noticed.
impl Data for Box<u64> {
    fn write(&mut self, tag: u64) {
        **self = tag;
    }

    fn read(&self) -> u64 {
        **self
    }
}

/// An owner whose free hook does as it is told, and drops the folio when it was told nothing.
pub struct Owner<D> {
    state: Mutex<State>,
    data: PhantomData<fn() -> D>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) script: VecDeque<HookStep>,
    /// What the next calls of the hook that scrubs answer; then, that they did.
    pub(super) answers: VecDeque<ScrubAnswer>,
    pub(super) log: Vec<HookEvent>,
    pub(super) table: Table,
    /// The heads of the leases that were revoked since somebody looked.
    pub(super) told: Vec<Pfn>,
}

impl<D: Data> Owner<D> {
    pub(super) const fn new() -> Self {
        let state = State {
            script: VecDeque::new(),
            answers: VecDeque::new(),
            log: Vec::new(),
            table: Table::new(),
            told: Vec::new(),
        };
        Self { state: Mutex::new(state), data: PhantomData }
    }

    /// Locks the state; never across a call into the pgmap, whose hook locks it again.
    pub(super) fn state(&self) -> impl core::ops::DerefMut<Target = State> + '_ {
        self.state.lock()
    }

    pub(super) fn drain_log(&self, log: &mut Vec<HookEvent>) {
        log.append(&mut self.state().log);
    }

    pub(super) fn note(&self, event: HookEvent) {
        self.state().log.push(event);
    }
}

impl<D> fmt::Debug for Owner<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Owner").field(&self.state).finish()
    }
}

impl<D: Data> PgmapOps for Owner<D> {
    type Private = D;

    fn folio_split(&self, from: &D, piece: &mut D, _: Pfn, _: Order) {
        piece.write(from.read());
    }

    fn page_poisoned(&self, pfn: Pfn, folio: Option<FolioInfo>) {
        self.note(HookEvent::Poisoned { pfn, head: folio.map(|folio| folio.head) });
    }

    fn scrub(&self, job: ScrubJob) -> Scrubbed {
        let order = Order::floor_log2(job.range.nr_pages()).unwrap_or(Order::ZERO);
        let (head, owner, is_free) = (job.range.start(), job.owner, job.when == ScrubWhen::Free);
        self.note(HookEvent::Scrub { head, order, owner, is_free });
        match self.state().answers.pop_front() {
            None | Some(ScrubAnswer::Done) => Scrubbed::Done,
            Some(ScrubAnswer::Failed) => Scrubbed::Failed,
            Some(ScrubAnswer::Later) => Scrubbed::Later,
            Some(ScrubAnswer::Same) => Scrubbed::SameOwner,
        }
    }

    fn folio_gone(&self, folio: FolioInfo) {
        self.note(HookEvent::Gone { head: folio.head });
    }

    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, cx: &mut HookCx<'a, Self>) {
        self.note(called(&folio));
        let step = self.state().script.pop_front().unwrap_or(HookStep::Drop);
        self.obey(step, folio, cx);
        self.note(HookEvent::Returned);
    }
}

impl<D: Data> Revoke for Owner<D> {
    fn revoked(&self, lease: LeaseInfo) {
        self.state().told.push(lease.head);
    }
}

impl<D: Data> Owner<D> {
    fn obey<'a>(&'a self, step: HookStep, folio: UniqueFolio<'a, Self>, cx: &mut HookCx<'a, Self>) {
        match step {
            HookStep::Drop => drop(folio),
            HookStep::Release => folio.release(),
            HookStep::ReleaseClean => folio.release_clean(),
            HookStep::Keep => folio.keep(),
            HookStep::Retire => folio.retire(),
            // The reference is found again by its page.
            HookStep::Publish => {
                let _ = folio.publish().into_raw();
            }
            HookStep::Raw => {
                let raw = folio.into_raw();
                self.state().table.insert(Held::RawUnique(raw));
            }
            HookStep::Alloc(order) => {
                let allocated = order.order().and_then(|order| cx.pgmap().alloc(order).ok());
                let allocated = allocated.map(born);
                self.note(HookEvent::Allocated(allocated.as_ref().map(block)));
                if let Some(other) = allocated {
                    let raw = other.into_raw();
                    self.state().table.insert(Held::RawUnique(raw));
                }
                drop(folio);
            }
            HookStep::DropOther => {
                let other = self.state().table.take_first_folio();
                drop(other.and_then(|raw| raw::folio(cx.pgmap(), raw)));
                drop(folio);
            }
            HookStep::DropLater => {
                let other = self.state().table.take_first_folio();
                if let Some(other) = other.and_then(|raw| raw::folio(cx.pgmap(), raw)) {
                    cx.drop_later(other);
                }
                drop(folio);
            }
        }
    }
}

/// Writes the data of a folio that was just handed out for the first time.
pub(super) fn born<D: Data>(mut folio: UniqueFolio<'_, Owner<D>>) -> UniqueFolio<'_, Owner<D>> {
    let tag = !folio.head().as_u64();
    folio.private_mut().write(tag);
    folio
}

pub(super) fn block<D: Data>(folio: &UniqueFolio<'_, Owner<D>>) -> Block {
    Block {
        head: folio.head(),
        order: folio.order(),
        clean: folio.is_clean(),
        tag: folio.private().read(),
    }
}

fn called<D: Data>(folio: &UniqueFolio<'_, Owner<D>>) -> HookEvent {
    HookEvent::Called { head: folio.head(), order: folio.order(), tag: folio.private().read() }
}
