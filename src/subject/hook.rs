//! Hooks that do anything: bytes say what each call does, and a ledger what it has to meet.
//!
//! A hook may allocate, split, keep, retire, publish, lie about what the pages contain, let others
//! go inside itself or after itself, and panic. The ledger says of each folio how many references
//! there are; a hook is called once for each last put, with the order then in force, and those that
//! were handed over run where the one that handed them over was called, however many there are.

#![allow(
    clippy::arithmetic_side_effects,
    reason = "numbers below 2^14; an oracle that panics has found something"
)]

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::panic::AssertUnwindSafe;
use std::panic::{catch_unwind, resume_unwind};

use spin::{Mutex, MutexGuard};

use super::bytes::Bytes;
use super::raw;
use crate::folio::{Folio, RawFolio};
use crate::meta::{MetaLine, MetaSize, Tables};
use crate::pgmap::{
    Attach, ExtentAttrs, ExtentSlot, HookContext, HookCx, OnDrop, Pgmap, PgmapCore, PgmapOps,
    Policy, RawUnique, UniqueFolio,
};
use crate::units::{Order, Pfn, PfnRange};

/// No whole numbers of blocks; the large one is enough for the longest chain, and takes ten times
/// as long to be looked at, so that most bytes mean the other.
const NR_PAGES: u64 = 1_131;
const NR_PAGES_MAX: u64 = 10_300;
/// The large world is one of so many.
const WORLDS: u8 = 32;
const START: u64 = 0x1_0003;
const STEPS_MAX: usize = 64;
/// How deep hooks nest that let others go inside themselves.
const NESTED_MAX: u32 = 24;

/// A counted folio.
#[derive(Clone, Copy, Debug)]
struct Entry {
    order: Order,
    refs: u32,
    /// Handed over by a hook that was called so deep.
    later: Option<u32>,
}

/// Who has which pages; what is in nobody's hands is free.
#[derive(Debug, Default)]
struct Ledger {
    live: BTreeMap<u64, Entry>,
    /// Exclusive folios in their raw form.
    unique: Vec<(u64, Order)>,
    kept: Vec<(u64, Order)>,
    retired: Vec<(u64, Order)>,
    /// What the next calls of the hook do.
    script: VecDeque<u8>,
    /// Folios each of which hands over the next one.
    chain: Vec<u64>,
    /// Calls of the hook that have not returned.
    depth: u32,
    wrong: Option<String>,
}

impl Ledger {
    fn nr_pages(&self) -> u64 {
        let live = self.live.values().map(|entry| entry.order);
        let others = [&self.unique, &self.kept, &self.retired].into_iter().flatten();
        live.chain(others.map(|it| it.1)).map(Order::nr_pages).sum()
    }

    /// Returns how much there is to give back.
    fn nr_held(&self) -> u64 {
        self.nr_pages() + self.live.values().map(|entry| u64::from(entry.refs)).sum::<u64>()
    }

    /// Takes a reference of the folio `head` off; true if it was there.
    fn let_go(&mut self, head: u64, later: Option<u32>) -> bool {
        let Some(entry) = self.live.get_mut(&head).filter(|entry| entry.refs != 0) else {
            return false;
        };
        entry.refs -= 1;
        entry.later = later.filter(|_| entry.refs == 0);
        true
    }

    /// Notes a call of the hook; returns what it does.
    fn called(&mut self, head: u64, order: Order) -> u8 {
        self.depth += 1;
        let depth = self.depth;
        let entry = self.live.remove(&head);
        let is_due = entry.is_some_and(|it| it.refs == 0 && it.order == order);
        let is_flat = entry.is_none_or(|it| it.later.is_none_or(|later| later == depth));
        if !is_due || !is_flat {
            self.wrong = Some(format!("{head:#x}, {order}, depth {depth}: {entry:?}"));
        }
        self.script.pop_front().unwrap_or(0)
    }

    fn some_live(&self) -> Option<u64> {
        self.live.iter().find(|(_, entry)| entry.refs != 0).map(|(head, _)| *head)
    }
}

/// An owner whose hook does what the script says.
#[derive(Debug, Default)]
struct Scripted(Mutex<Ledger>);

impl Scripted {
    /// Locks the ledger; never across a call into the pgmap, whose hook locks it again.
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock()
    }
}

/// One call less when it goes, also by a panic.
struct Call<'a>(&'a Scripted);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.ledger().depth -= 1;
    }
}

impl PgmapOps for Scripted {
    type Private = ();

    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, cx: &mut HookCx<'a, Self>) {
        let step = self.ledger().called(folio.head().as_u64(), folio.order());
        let _call = Call(self);
        if self.ledger().wrong.is_some() {
            // Whatever it is, it is not to get deeper.
            return folio.release();
        }
        let next = self.ledger().chain.pop();
        match next {
            Some(next) => self.hand_over(next, folio, cx),
            None => self.obey(step % 16, folio, cx),
        }
    }
}

impl Scripted {
    /// Hands a reference to the context, to be dropped behind the hook.
    fn hand_over<'a>(
        &'a self,
        other: u64,
        folio: UniqueFolio<'a, Self>,
        cx: &mut HookCx<'a, Self>,
    ) {
        let is_held = {
            let mut ledger = self.ledger();
            let depth = ledger.depth;
            ledger.let_go(other, Some(depth))
        };
        if is_held {
            held(cx.pgmap(), other).into_iter().for_each(|other| cx.drop_later(other));
        }
        folio.release();
    }

    fn obey<'a>(&'a self, step: u8, folio: UniqueFolio<'a, Self>, cx: &mut HookCx<'a, Self>) {
        let (head, order) = (folio.head().as_u64(), folio.order());
        match step {
            1 => self.drop_unique(folio),
            2 => {
                self.ledger().kept.push((head, order));
                folio.keep();
            }
            3 => {
                self.ledger().retired.push((head, order));
                folio.retire();
            }
            4 | 5 => self.publish(folio),
            6 => {
                let _ = folio.into_raw();
                self.ledger().unique.push((head, order));
            }
            7 => {
                self.alloc(cx.pgmap(), order);
                folio.release();
            }
            8 => self.split(folio),
            9 | 10 => {
                let other = self.ledger().some_live();
                match other {
                    Some(other) => self.hand_over(other, folio, cx),
                    None => folio.release(),
                }
            }
            11 => {
                let other = self.take_nested();
                let other = other.and_then(|other| held(cx.pgmap(), other));
                let ended = catch_unwind(AssertUnwindSafe(|| drop(other)));
                folio.release();
                ended.unwrap_or_else(|what| resume_unwind(what));
            }
            // A lie: nobody wrote zeroes.
            12 => folio.release_clean(),
            13 => {
                // What is handed over first is not lost.
                let other = self.ledger().some_live();
                match other {
                    Some(other) => self.hand_over(other, folio, cx),
                    None => self.drop_unique(folio),
                }
                resume_unwind(Box::new("a hook that panics"));
            }
            _ => folio.release(),
        }
    }

    /// Drops an exclusive folio, of which the policy says what becomes.
    fn drop_unique(&self, folio: UniqueFolio<'_, Self>) {
        if folio.pgmap().policy().on_drop == OnDrop::Keep {
            self.ledger().kept.push((folio.head().as_u64(), folio.order()));
        }
        drop(folio);
    }

    fn publish(&self, folio: UniqueFolio<'_, Self>) {
        let entry = Entry { order: folio.order(), refs: 1, later: None };
        self.ledger().live.insert(folio.head().as_u64(), entry);
        let _ = folio.publish().into_raw();
    }

    fn alloc(&self, pgmap: &PgmapCore<Self>, order: Order) {
        if let Ok(folio) = pgmap.alloc(order) {
            self.ledger().unique.push((folio.head().as_u64(), folio.order()));
            let _ = folio.into_raw();
        }
    }

    /// Splits a folio into pages; each third of them is kept, or published.
    fn split(&self, folio: UniqueFolio<'_, Self>) {
        let Ok(pieces) = folio.split(Order::ZERO) else {
            self.ledger().wrong = Some("a split is refused".into());
            return;
        };
        for (index, piece) in pieces.enumerate() {
            match index % 3 {
                0 => piece.release(),
                1 => self.publish(piece),
                _ => {
                    self.ledger().kept.push((piece.head().as_u64(), piece.order()));
                    piece.keep();
                }
            }
        }
    }

    /// Takes a reference that is dropped inside a hook, unless they nest deep.
    fn take_nested(&self) -> Option<u64> {
        let mut ledger = self.ledger();
        let other = ledger.some_live().filter(|_| ledger.depth < NESTED_MAX)?;
        ledger.let_go(other, None).then_some(other)
    }
}

/// Returns the handle of a reference.
fn held(pgmap: &PgmapCore<Scripted>, head: u64) -> Option<Folio<'_, Scripted>> {
    raw::folio(pgmap, RawFolio::from_u64(head))
}

/// Runs what bytes say, with a hook that does what they say.
///
/// # Errors
///
/// Returns the first call of the hook that ought not to be, or what is lost.
pub fn run_hook(bytes: &[u8]) -> Result<(), String> {
    let mut bytes = Bytes::new(bytes);
    let nr_pages = if bytes.below(WORLDS) == WORLDS - 1 { NR_PAGES_MAX } else { NR_PAGES };
    let range = PfnRange::new(Pfn::new(START), nr_pages).map_err(|error| error.to_string())?;
    let nr_lines = MetaSize::of(range, Tables::Dense).lines();
    let mut lines: Vec<_> = (0..nr_lines).map(|_| MetaLine::default()).collect();
    let slots = [ExtentSlot::new()];
    let policy = Policy {
        on_drop: bytes.one_of([OnDrop::Release, OnDrop::Release, OnDrop::Keep]),
        hook_context: bytes.one_of([
            HookContext::Inline,
            HookContext::Inline,
            HookContext::Deferred,
        ]),
        ..Policy::generic()
    };
    let pgmap = Pgmap::new(Scripted::default(), policy, &slots);
    let (attrs, attach) = (ExtentAttrs::NEW, Attach::Zeroed);
    let added = pgmap.add_extent(range, attrs, Tables::Dense, &mut lines, attach);
    added.map_err(|error| error.to_string())?;
    for number in 0..STEPS_MAX {
        if bytes.is_empty() {
            break;
        }
        let step = bytes.below(16);
        for _ in 0..bytes.below(8) {
            let verdict = bytes.below(16);
            pgmap.ops().ledger().script.push_back(verdict);
        }
        settle(&pgmap, || do_step(&pgmap, step, &mut bytes));
        look(&pgmap).map_err(|why| format!("step {number}, {step}: {why}"))?;
        if number % 8 == 0 {
            look_closely(&pgmap, nr_pages).map_err(|why| format!("step {number}: {why}"))?;
        }
    }
    give_everything_back(&pgmap)?;
    look_closely(&pgmap, nr_pages).map_err(|why| format!("all is given back: {why}"))
}

/// Does something, and runs what hooks are left over by it.
fn settle(pgmap: &Pgmap<'_, Scripted>, step_fn: impl FnOnce()) {
    let mut is_done = catch_unwind(AssertUnwindSafe(step_fn)).is_ok();
    // Ends: each turn runs a hook, and takes a byte off the script unless it frees its folio.
    loop {
        if !is_done {
            // What was handed over in vain is called by the reaper.
            pgmap.ops().ledger().live.values_mut().for_each(|entry| entry.later = None);
        }
        match catch_unwind(AssertUnwindSafe(|| pgmap.reap(usize::MAX))) {
            Ok(reaped) if !reaped.has_more => return,
            result => is_done = result.is_ok(),
        }
    }
}

fn do_step(pgmap: &Pgmap<'_, Scripted>, step: u8, bytes: &mut Bytes<'_>) {
    let owner = pgmap.ops();
    match step {
        0..5 => {
            let order = Order::new(bytes.one_of([0, 0, 1, 2, 3, 9])).unwrap_or(Order::ZERO);
            if let Ok(folio) = pgmap.alloc(order) {
                owner.publish(folio);
            }
        }
        5 => {
            let entry = owner.ledger().some_live();
            if let Some(head) = entry.filter(|head| pgmap.get_raw(Pfn::new(*head), 1).is_ok()) {
                owner.ledger().live.entry(head).and_modify(|entry| entry.refs += 1);
            }
        }
        6 => chain(pgmap, bytes.one_of([3, 60, 200, 10_000])),
        7 => take_back(pgmap),
        _ => let_go(pgmap),
    }
}

/// Drops a reference.
fn let_go(pgmap: &Pgmap<'_, Scripted>) {
    let head = {
        let mut ledger = pgmap.ops().ledger();
        ledger.some_live().filter(|head| ledger.let_go(*head, None))
    };
    drop(head.and_then(|head| held(pgmap, head)));
}

/// Makes so many folios, each of which hands over the next one, and drops the first.
fn chain(pgmap: &Pgmap<'_, Scripted>, nr_folios: usize) {
    let owner = pgmap.ops();
    for _ in 0..nr_folios {
        let Ok(folio) = pgmap.alloc(Order::ZERO) else { break };
        let head = folio.head().as_u64();
        owner.publish(folio);
        owner.ledger().chain.push(head);
    }
    let first = {
        let mut ledger = owner.ledger();
        ledger.chain.pop().filter(|head| ledger.let_go(*head, None))
    };
    drop(first.and_then(|first| held(pgmap, first)));
}

/// Gives what is held alone or parked back.
fn take_back(pgmap: &Pgmap<'_, Scripted>) {
    let (unique, kept, retired) = {
        let mut ledger = pgmap.ops().ledger();
        (ledger.unique.pop(), ledger.kept.pop(), ledger.retired.pop())
    };
    let unique = unique.and_then(|it| raw::unique(pgmap, RawUnique::from_u64(it.0)));
    let kept = kept.and_then(|it| pgmap.claim_kept(Pfn::new(it.0)).ok());
    let retired = retired.and_then(|it| pgmap.claim_retired(Pfn::new(it.0)).ok());
    [unique, kept, retired].into_iter().flatten().for_each(UniqueFolio::release);
}

/// Asks the ledger whether each call of the hook was due, and none is owed.
fn look(pgmap: &Pgmap<'_, Scripted>) -> Result<(), String> {
    let ledger = pgmap.ops().ledger();
    if let Some(wrong) = &ledger.wrong {
        return Err(format!("the hook is called for {wrong}"));
    }
    if let Some((head, entry)) = ledger.live.iter().find(|(_, entry)| entry.refs == 0) {
        return Err(format!("the hook is not called for {head:#x}: {entry:?}"));
    }
    match ledger.depth {
        0 => Ok(()),
        depth => Err(format!("{depth} calls have not returned")),
    }
}

/// Compares the ledger with all that can be seen.
fn look_closely(pgmap: &Pgmap<'_, Scripted>, nr_pages: u64) -> Result<(), String> {
    let in_use = pgmap.ops().ledger().nr_pages();
    let report = pgmap.check().map_err(|error| error.to_string())?;
    if report.free_pages + in_use == nr_pages {
        Ok(())
    } else {
        Err(format!("{report:?}, and {in_use} pages in use"))
    }
}

fn give_everything_back(pgmap: &Pgmap<'_, Scripted>) -> Result<(), String> {
    pgmap.ops().ledger().script.clear();
    // Ends: each turn gives something back, and without a script the hook does, too.
    loop {
        let before = pgmap.ops().ledger().nr_held();
        if before == 0 {
            return Ok(());
        }
        settle(pgmap, || let_go(pgmap));
        settle(pgmap, || take_back(pgmap));
        look(pgmap)?;
        if before <= pgmap.ops().ledger().nr_held() {
            return Err(format!("{before} pages and references are not given back"));
        }
    }
}
