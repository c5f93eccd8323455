//! The specification: who owns each page, and which counts are outstanding.
//!
//! Free space is *derived*: a page is free if an extent has it and no folio does. Nothing here
//! splits or merges a free block, so no fault of an allocator's index can be copied by accident.
//! Placement is not specified: where a subject may choose, its choice is read back and only
//! checked to be legal.

mod claim;
mod counts;
mod extent;
mod holder;
mod hook;
mod judge;
mod lease;
mod leave;
mod migrate;
mod request;
mod resolve;
mod scrub;
mod sets;
mod shape;
mod space;
mod teardown;
mod view;
mod withheld;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::OnceCell;

pub use lease::{LEASES_MAX, REVOCATIONS_MAX};
pub use withheld::POISON_MAX;

use super::field::{HookStep, Tighten, Token};
use super::geometry::{Geometry, PolicyBits, ScrubAnswer};
use super::outcome::{FolioKind, Life};
use super::runs::{Run, RunSet, pfn};
use super::subject::Limits;
use crate::units::{Order, Pfn};

/// The executable specification of a pgmap.
///
/// # Invariants
///
/// 1. Every folio lies in one extent, is aligned to its order, and shares no page with another.
/// 2. The counts of a folio are those of its handles in the table and of its raw ledger; only a
///    live folio has any, and a live folio has at least one.
/// 3. No bad page is free, and none that is to be offline.
/// 4. `sure` lies in `clean`, and both lie in the free pages.
#[derive(Clone, Debug)]
pub struct Spec {
    pub(super) policy: PolicyBits,
    pub(super) limits: Limits,
    slots: usize,
    extents: Vec<Extent>,
    /// How many were ever attached.
    nr_attached: u8,
    /// By head.
    folios: BTreeMap<u128, Folio>,
    /// Free pages that are zero.
    clean: RunSet,
    /// Those of them that a subject has to know of: it may forget that a page of a block is zero
    /// when the block becomes whole and other pages of it are not.
    sure: RunSet,
    /// The pages that are known to be bad.
    bad: BTreeSet<u128>,
    /// The pages that are offline, or are to be.
    offline: RunSet,
    /// Those of them whose device is gone.
    gone: RunSet,
    /// What the lists of the extents say of them: runs of a power of two.
    entries: Vec<Run>,
    /// The outstanding handles; a token is an index.
    handles: Vec<Option<Handle>>,
    script: VecDeque<HookStep>,
    /// What the hook that scrubs answers next.
    answers: VecDeque<ScrubAnswer>,
    /// What was scrubbed in this step for an allocation, and what was left for its last user.
    scrubbed: Vec<Run>,
    same: Vec<Run>,
    life: Life,
    /// What the holder has made of the policy, if there is one.
    holder: Option<Tighten>,
    /// Ranges whose revocation has ended and that stay closed while a page of them is pinned.
    lingering: Vec<Run>,
    /// The free runs, if they were derived since the last change.
    derived: OnceCell<Vec<Run>>,
}

/// An extent that is attached.
#[derive(Clone, Debug)]
struct Extent {
    range: Run,
    /// How many were attached before.
    node: u8,
    life: Life,
    /// Whether the device is gone.
    is_gone: bool,
    /// How many blocks may be fractured beside those that lie here only in part; `None`: all.
    budget: Option<usize>,
    /// The whole blocks that ever were, if there is a budget.
    fractured: BTreeSet<u128>,
}

/// A folio; its head is its key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Folio {
    order: Order,
    kind: FolioKind,
    /// Whether an exclusive folio was clean when it was made.
    clean: Clean,
    /// All counts, and which of them are held raw.
    counts: Counts,
    raw: Counts,
    closed: bool,
    /// The owner data.
    tag: u64,
}

/// What is known of the content of an exclusive folio.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Clean {
    Yes,
    No,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Counts {
    refs: u32,
    pins: u32,
    maps: u32,
}

impl Counts {
    fn sum(self) -> u32 {
        self.refs + self.pins + self.maps
    }
}

/// What a slot of the table holds, and of which folio.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Handle {
    Unique(u128),
    RawUnique(u128),
    Folio(u128),
    Pin(u128),
    Map(u128, u32),
    /// A lease, and whether its holder was told.
    Lease(u128, bool),
    /// A range that is revoked.
    Revocation(Run),
}

impl Spec {
    /// Creates the specification of a fresh pgmap.
    #[must_use]
    pub fn new(geometry: &Geometry, limits: Limits) -> Self {
        let mut spec = Self {
            policy: geometry.policy,
            limits,
            slots: usize::from(geometry.slots),
            extents: Vec::new(),
            nr_attached: 0,
            folios: BTreeMap::new(),
            clean: RunSet::default(),
            sure: RunSet::default(),
            bad: BTreeSet::new(),
            offline: RunSet::default(),
            gone: RunSet::default(),
            entries: Vec::new(),
            handles: Vec::new(),
            script: VecDeque::new(),
            answers: geometry.answers.iter().copied().collect(),
            scrubbed: Vec::new(),
            same: Vec::new(),
            life: Life::Live,
            holder: None,
            lingering: Vec::new(),
            derived: OnceCell::new(),
        };
        for plan in &geometry.extents {
            spec.attach(plan.range.into(), plan.tables, plan.clean);
        }
        spec
    }

    // The table of handles.

    fn hand_out(&mut self, handle: Handle) {
        match self.handles.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) => *slot = Some(handle),
            None => self.handles.push(Some(handle)),
        }
    }

    fn handle(&self, token: Token) -> Option<Handle> {
        *self.handles.get(usize::from(token.0))?
    }

    fn take_back(&mut self, token: Token) {
        if let Some(slot) = self.handles.get_mut(usize::from(token.0)) {
            *slot = None;
        }
    }

    fn unique(&self, token: Token) -> Result<u128, String> {
        match self.handle(token) {
            Some(Handle::Unique(head)) => Ok(head),
            other => Err(format!("{token:?} is no exclusive folio but {other:?}")),
        }
    }

    fn counted(&self, token: Token) -> Result<u128, String> {
        match self.handle(token) {
            Some(Handle::Folio(head)) => Ok(head),
            other => Err(format!("{token:?} is no reference but {other:?}")),
        }
    }

    // Folios.

    /// Returns the folio with that head; whoever asks holds a handle to it.
    fn folio(&mut self, head: u128) -> &mut Folio {
        self.folios.get_mut(&head).expect("a handle names a folio")
    }

    fn owner(&self, page: u128) -> Option<(u128, Folio)> {
        let (&head, &folio) = self.folios.range(..=page).next_back()?;
        Run::folio(pfn(head), folio.order).contains(page).then_some((head, folio))
    }

    /// Returns the live folio that covers the page.
    fn live(&self, page: u128) -> Option<(u128, Folio)> {
        self.owner(page).filter(|(_, folio)| folio.kind == FolioKind::Live)
    }

    fn run_of(&self, head: u128) -> Run {
        let order = self.folios.get(&head).map_or(Order::ZERO, |folio| folio.order);
        Run::folio(pfn(head), order)
    }

    /// Makes an exclusive folio out of free pages, or out of those of a folio that is gone.
    fn make(&mut self, head: Pfn, order: Order, clean: Clean, tag: u64) {
        let run = Run::folio(head, order);
        self.clean.remove(run);
        self.sure.remove(run);
        self.fracture(head, order);
        let counts = Counts::default();
        let kind = FolioKind::Unique;
        let folio = Folio { order, kind, clean, counts, raw: counts, closed: false, tag };
        self.folios.insert(run.start, folio);
        self.derived.take();
    }

    /// Notes that a folio is gone; what becomes of its pages is for the caller to say.
    fn unmake(&mut self, head: u128) {
        self.folios.remove(&head);
        self.derived.take();
    }

    /// Gives the pages of an exclusive folio back.
    fn free(&mut self, head: u128, clean: Clean) {
        let run = self.run_of(head);
        self.unmake(head);
        self.give_back(run, clean);
    }

    /// Notes that the pages of `run` belong to nobody any more.
    fn give_back(&mut self, run: Run, clean: Clean) {
        if clean == Clean::Yes {
            self.clean.insert(run);
            self.sure.insert(run);
        }
        self.withhold(run);
        self.forget_mixed(run);
    }

    fn set_kind(&mut self, head: u128, kind: FolioKind) {
        self.folio(head).kind = kind;
    }

    /// Compares the counts with the handles that are outstanding, and all folios with each other.
    ///
    /// # Errors
    ///
    /// Says what is wrong; that is a fault of the model, or of a port that broke its invariants.
    pub fn audit(&self) -> Result<(), String> {
        let mut end = 0;
        for (&head, folio) in &self.folios {
            let run = self.run_of(head);
            if run.start < end || run.start % run.nr_pages() != 0 {
                return Err(format!("the folio at {head:#x} overlaps or is not aligned"));
            }
            if !self.extents.iter().any(|extent| extent.range.covers(run)) {
                return Err(format!("the folio at {head:#x} lies in no extent"));
            }
            end = run.end;

            let mut ledger = folio.raw;
            for handle in self.handles.iter().flatten() {
                match *handle {
                    Handle::Folio(at) if at == head => ledger.refs += 1,
                    Handle::Pin(at) | Handle::Lease(at, _) if at == head => ledger.pins += 1,
                    Handle::Map(at, leaves) if at == head => ledger.maps += leaves,
                    _ => {}
                }
            }
            let is_bad = self.bad.range(run.start..run.end).next().is_some();
            if folio.kind == FolioKind::Poisoned && !is_bad {
                return Err(format!("nothing is bad at {head:#x}"));
            }
            if folio.kind == FolioKind::Offline && self.offline.parts_of(run).next().is_none() {
                return Err(format!("nothing is offline at {head:#x}"));
            }
            if ledger != folio.counts || (folio.kind == FolioKind::Live) != (ledger.sum() > 0) {
                return Err(format!("the folio at {head:#x} is {folio:?}, handles say {ledger:?}"));
            }
        }
        Ok(())
    }
}
