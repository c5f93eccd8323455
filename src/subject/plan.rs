//! Plans against an oracle that tries all choices of windows, and what comes of carrying them out.
//!
//! A world is a few pages with folios of every kind, bad pages and pages that are offline. What a
//! plan says is compared with the cheapest of all choices for which there is room, page by page;
//! then its moves are made over memory that is really there, some of them called off on the way.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "numbers below 2^14; an oracle that panics has found something"
)]

mod oracle;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use oracle::Picture;

use super::bytes::Bytes;
use super::{Owner, raw};
use crate::folio::{Folio, Migrate, PinKind, RawFolio, StepRefused};
use crate::meta::{MetaLine, MetaSize, Tables};
use crate::pgmap::{
    Attach, ExtentAttrs, ExtentSlot, FolioKind, Goal, Life, Migration, Move, PageInfo, Pgmap,
    PgmapCore, Policy, ReleasePlan, ReleasePlanError, UniqueFolio, Window,
};
use crate::units::{Order, Pfn, PfnRange};

/// How somebody holds a folio.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PlanState {
    /// With so many references, and in no other way.
    Live(u32),
    /// With a reference and a pin.
    Pinned,
    /// Parked with its owner.
    Kept,
    /// In quarantine.
    Retired,
}

/// A folio of a world.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PlanFolio {
    /// Its head.
    pub head: u64,
    /// Its order.
    pub order: u8,
    /// How it is held.
    pub state: PlanState,
}

/// A few pages, and who has them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PlanWorld {
    /// The first page.
    pub start: u64,
    /// The number of pages.
    pub nr_pages: u64,
    /// The folios, ascending.
    pub folios: Vec<PlanFolio>,
    /// The pages that are bad.
    pub bad: Vec<u64>,
    /// The pages that are offline, or on their way: the first, and how many.
    pub offline: Option<(u64, u64)>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct PlanAsk {
    /// What a plan is to reach.
    pub goal: Goal,
    /// How many windows there is room for beyond those that are asked for.
    pub nr_spare: usize,
    /// The budget.
    pub max_pages: u64,
}

/// What a plan came to, beside being right.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PlanVerdict {
    /// It is one of the cheapest.
    Cheapest,
    /// There are cheaper ones, which it says; by so many pages.
    Dearer(u64),
    /// There is none.
    None,
    /// There is one that was not found, because other windows would have to be taken.
    Missed,
}

/// A plan that was made.
type Planned = (Vec<Window>, Vec<Move>);

/// Makes a plan for a world, compares it with the oracle, and carries it out; the hooks fail at
/// those moves for which `fails` says so, by their number.
///
/// # Errors
///
/// Says what is wrong.
pub fn check_plan(
    world: &PlanWorld,
    asks: &[PlanAsk],
    fails: &[Option<u8>],
) -> Result<Vec<PlanVerdict>, String> {
    with_world(world, |pgmap| {
        let picture = Picture::new(world);
        let mut verdicts = Vec::new();
        let mut last = None;
        for ask in asks {
            let before = pgmap.image();
            let (verdict, planned) =
                plan(pgmap, &picture, ask).map_err(|why| format!("{why}; {ask:?} in {world:?}"))?;
            if pgmap.image() != before {
                return Err(format!("a plan changed something: {ask:?} in {world:?}"));
            }
            verdicts.push(verdict);
            last = planned.map(|planned| (ask, planned)).or(last);
        }
        if let Some((ask, (windows, moves))) = last {
            carry_out(pgmap, world, &windows, &moves, fails)
                .map_err(|why| format!("{why}; {moves:?} for {ask:?} in {world:?}"))?;
        }
        Ok(verdicts)
    })
}

/// Draws a world from bytes and checks plans for it.
///
/// # Errors
///
/// As for [`check_plan`].
pub fn run_plan(bytes: &[u8]) -> Result<(), String> {
    let mut bytes = Bytes::new(bytes);
    let world = draw_world(&mut bytes);
    let mut asks = Vec::new();
    for _ in 0..4 {
        let order = Order::new(bytes.below(5)).unwrap_or(Order::ZERO);
        let count = usize::from(bytes.below(4));
        let at = u64::from(bytes.below(64)).min(world.nr_pages - 1);
        let len = (1 + u64::from(bytes.below(24))).min(world.nr_pages - at);
        let range = PfnRange::new(Pfn::new(world.start + at), len);
        let range = range.map_err(|error| error.to_string())?;
        let goal = match bytes.below(4) {
            0 => Goal::Empty(range),
            1 => Goal::Runs { order, count, within: Some(range) },
            _ => Goal::Runs { order, count, within: None },
        };
        let max_pages = bytes.one_of([u64::MAX, u64::MAX, u64::MAX, 6]);
        asks.push(PlanAsk { goal, nr_spare: usize::from(bytes.below(3)), max_pages });
    }
    let fails: Vec<_> =
        (0..8).map(|_| bytes.one_of([None, None, Some(0), Some(1), Some(2)])).collect();
    check_plan(&world, &asks, &fails).map(drop)
}

fn draw_world(bytes: &mut Bytes<'_>) -> PlanWorld {
    let start = bytes.one_of([0, 3, 0x1f8, 0x1f0, 0x3_fff0]);
    let nr_pages = bytes.one_of([16, 24, 32, 48]);
    let mut world = PlanWorld { start, nr_pages, ..PlanWorld::default() };
    let mut next = start;
    while next < start + nr_pages {
        let order = bytes.one_of([0, 0, 1, 1, 2, 3]).min(next.trailing_zeros() as u8);
        let end = next + (1 << order);
        let state = match bytes.below(16) {
            0..=6 => None,
            7 => Some(PlanState::Pinned),
            8 => Some(PlanState::Kept),
            9 => Some(PlanState::Retired),
            number => Some(PlanState::Live(u32::from(number % 3) + 1)),
        };
        if let Some(state) = state.filter(|_| end <= start + nr_pages) {
            world.folios.push(PlanFolio { head: next, order, state });
        }
        next = end;
    }
    let page = |bytes: &mut Bytes<'_>| start + u64::from(bytes.below(48)) % nr_pages;
    for _ in 0..bytes.one_of([0, 0, 1, 2]) {
        let bad = page(bytes);
        if !world.bad.contains(&bad) {
            world.bad.push(bad);
        }
    }
    if bytes.below(3) == 0 {
        let first = page(bytes);
        let len = (1 + u64::from(bytes.below(8))).min(start + nr_pages - first);
        world.offline = Some((first, len));
    }
    world
}

/// Makes a world, and lends it.
fn with_world<R>(
    world: &PlanWorld,
    use_fn: impl FnOnce(&Pgmap<'_, Owner<()>>) -> Result<R, String>,
) -> Result<R, String> {
    let range = PfnRange::new(Pfn::new(world.start), world.nr_pages);
    let range = range.map_err(|error| error.to_string())?;
    let size = MetaSize::of(range, Tables::Dense).poison(32);
    let mut lines: Vec<_> = (0..size.lines()).map(|_| MetaLine::default()).collect();
    let slots = [ExtentSlot::new()];
    let policy = Policy { migration: Migration::Allow, ..Policy::generic() };
    let pgmap = Pgmap::new(Owner::new(), policy, &slots);
    let (tables, attach) = (Tables::Dense, Attach::Zeroed);
    let added = pgmap.add_extent(range, ExtentAttrs::NEW, tables, &mut lines, attach);
    added.map_err(|error| error.to_string())?;
    for folio in &world.folios {
        let order = Order::new(folio.order).ok_or("no such order")?;
        let claimed = pgmap.claim(Pfn::new(folio.head), order);
        let claimed = claimed.map_err(|error| error.to_string())?;
        match folio.state {
            PlanState::Kept => claimed.keep(),
            PlanState::Retired => claimed.retire(),
            PlanState::Live(refs) => {
                let live = claimed.publish();
                live.get_many(refs.saturating_sub(1)).map_err(|error| error.to_string())?;
                let _ = live.into_raw();
            }
            PlanState::Pinned => {
                let live = claimed.publish();
                let pin = live.pin(PinKind::Short).map_err(|error| error.to_string())?;
                let _ = (pin.into_raw(), live.into_raw());
            }
        }
    }
    for &bad in &world.bad {
        pgmap.poison(Pfn::new(bad)).map_err(|error| error.to_string())?;
    }
    if let Some((first, len)) = world.offline {
        let pages = PfnRange::new(Pfn::new(first), len).map_err(|error| error.to_string())?;
        pgmap.offline(pages).map_err(|error| error.to_string())?;
    }
    use_fn(&pgmap)
}

/// Makes one plan and compares it with the oracle.
fn plan(
    pgmap: &PgmapCore<Owner<()>>,
    picture: &Picture<'_>,
    ask: &PlanAsk,
) -> Result<(PlanVerdict, Option<Planned>), String> {
    let count = match ask.goal {
        Goal::Empty(_) => 1,
        Goal::Runs { count, .. } => count,
    };
    let mut windows = vec![Window::EMPTY; count + ask.nr_spare];
    let mut moves = vec![Move::EMPTY; 64];
    let made = pgmap.plan_release(ask.goal, ask.max_pages, &mut windows, &mut moves);
    let verdict = picture.judge(ask, &made)?;
    let Ok(ReleasePlan { windows, moves, nr_pages, .. }) = made else {
        return Ok((verdict, None));
    };
    let planned = (windows.to_vec(), moves.to_vec());
    // Storage for one move fewer, and one page less, are refused with the number that is missing.
    let needed = moves.len();
    let mut windows = vec![Window::EMPTY; count];
    if let (Some(short), PlanVerdict::Cheapest) = (needed.checked_sub(1), verdict) {
        let mut few = vec![Move::EMPTY; short];
        let made = pgmap.plan_release(ask.goal, u64::MAX, &mut windows, &mut few);
        if ask.nr_spare == 0 && made != Err(ReleasePlanError::TooManyMoves { needed, len: short }) {
            return Err(format!("{made:?} with room for {short} moves"));
        }
    }
    if let Some(max) = nr_pages.checked_sub(1).filter(|_| ask.nr_spare == 0) {
        let mut moves = vec![Move::EMPTY; 64];
        let made = pgmap.plan_release(ask.goal, max, &mut windows, &mut moves);
        if made != Err(ReleasePlanError::OverBudget { needed: nr_pages, max }) {
            return Err(format!("{made:?} with a budget of {max}"));
        }
    }
    Ok((verdict, Some(planned)))
}

/// The owner of all folios, and the memory: a number for each page.
struct Keeper<'p, 'w> {
    pgmap: &'p PgmapCore<Owner<()>>,
    start: u64,
    memory: Vec<u64>,
    refs: Vec<(u64, u32)>,
    /// Which hook fails at the next moves: the freeze, the copy, or the owner.
    fails: core::slice::Iter<'w, Option<u8>>,
    fail: Option<u8>,
    wrong: Option<String>,
}

impl Keeper<'_, '_> {
    fn refs_of(&mut self, head: Pfn) -> Option<&mut (u64, u32)> {
        self.refs.iter_mut().find(|(at, _)| *at == head.as_u64())
    }
}

impl<'p> Migrate<'p, Owner<()>> for Keeper<'p, '_> {
    type Error = ();

    fn freeze(&mut self, planned: Move) -> Option<(UniqueFolio<'p, Owner<()>>, u32)> {
        self.fail = self.fails.next().copied().flatten();
        let refs = self.refs_of(planned.from)?.1;
        if self.fail == Some(0) {
            return None;
        }
        let folio = raw::folio(self.pgmap, RawFolio::from_u64(planned.from.as_u64()))?;
        raw::freeze(folio, refs.saturating_sub(1)).ok().map(|folio| (folio, refs))
    }

    fn copy(&mut self, from: PfnRange, to: PfnRange) -> Result<(), ()> {
        for page in 0..from.nr_pages() {
            let (from, to) = (from.start().as_u64() + page, to.start().as_u64() + page);
            let value = self.memory[(from - self.start) as usize];
            self.memory[(to - self.start) as usize] = value;
        }
        if self.fail == Some(1) { Err(()) } else { Ok(()) }
    }

    fn rehome(&mut self, planned: Move, (): &mut (), (): &mut ()) -> Result<(), ()> {
        if self.fail == Some(2) {
            return Err(());
        }
        let to = planned.to.as_u64();
        self.refs_of(planned.from).ok_or(())?.0 = to;
        Ok(())
    }

    fn moved(&mut self, planned: Move, folio: Folio<'p, Owner<()>>) {
        let refs = self.refs_of(planned.to).map(|it| it.1);
        if self.fail.is_some() || folio.head() != planned.to || Some(folio.info().refs) != refs {
            self.wrong = Some(format!("{planned:?} came to {:?}", folio.info()));
        }
        let _ = folio.into_raw();
    }

    fn stayed(&mut self, planned: Move, why: StepRefused<()>, folio: Option<Folio<'p, Owner<()>>>) {
        let expected = match self.fail {
            Some(0) => StepRefused::NotFrozen,
            Some(1) => StepRefused::Copy(()),
            _ => StepRefused::Rehome(()),
        };
        let refs = self.refs_of(planned.from).map(|it| it.1);
        let is_there = folio.as_ref().is_none_or(|it| Some(it.info().refs) == refs);
        if self.fail.is_none() || why != expected || !is_there {
            self.wrong = Some(format!("{planned:?} stayed for {why:?} with {folio:?}"));
        }
        let _ = folio.map(Folio::into_raw);
    }
}

/// Takes the windows offline, makes the moves, some of which fail, then the others, and looks what
/// has become of everything.
fn carry_out(
    pgmap: &PgmapCore<Owner<()>>,
    world: &PlanWorld,
    windows: &[Window],
    moves: &[Move],
    fails: &[Option<u8>],
) -> Result<(), String> {
    for window in windows {
        pgmap.offline(window.range).map_err(|error| error.to_string())?;
    }
    let live = world.folios.iter().filter_map(|folio| match folio.state {
        PlanState::Live(refs) => Some((folio.head, refs)),
        _ => None,
    });
    let mut keeper = Keeper {
        pgmap,
        start: world.start,
        memory: (0..world.nr_pages).collect(),
        refs: live.collect(),
        fails: fails.iter(),
        fail: None,
        wrong: None,
    };
    let mut left = Vec::new();
    for &planned in moves {
        let progress = pgmap.run_moves(&[planned], planned.order.nr_pages(), &mut keeper);
        let is_done = keeper.fail.is_none();
        if (progress.tried, progress.done) != (1, usize::from(is_done)) {
            return Err(format!("{progress:?} at {planned:?} when {:?} fails", keeper.fail));
        }
        if !is_done {
            left.push(planned);
        }
        look(pgmap, world, &keeper)?;
    }
    // A budget that ends in the middle, and one for the rest.
    keeper.fails = [].iter();
    let budget = left.first().map_or(0, |it| it.order.nr_pages());
    let first = pgmap.run_moves(&left, budget, &mut keeper);
    let rest = left.get(first.tried..).unwrap_or_default();
    let second = pgmap.run_moves(rest, u64::MAX, &mut keeper);
    if first.nr_pages > budget || first.done + second.done != left.len() {
        return Err(format!("{first:?} and {second:?} of {left:?}"));
    }
    look(pgmap, world, &keeper)?;
    for window in windows {
        if pgmap.offline_state(window.range) != Some(Life::Drained) {
            return Err(format!("{window:?} is not empty"));
        }
    }
    pgmap.check().map(drop).map_err(|error| error.to_string())
}

/// Looks whether every folio is where it was, or where it was moved to, with its counts and bytes.
fn look(
    pgmap: &PgmapCore<Owner<()>>,
    world: &PlanWorld,
    keeper: &Keeper<'_, '_>,
) -> Result<(), String> {
    if let Some(wrong) = &keeper.wrong {
        return Err(wrong.clone());
    }
    let mut live = keeper.refs.iter();
    for folio in &world.folios {
        let (head, refs) = match folio.state {
            PlanState::Live(_) => *live.next().ok_or("a folio is lost")?,
            PlanState::Pinned => (folio.head, 1),
            PlanState::Kept | PlanState::Retired => (folio.head, 0),
        };
        let kind = match folio.state {
            PlanState::Live(_) | PlanState::Pinned => FolioKind::Live,
            PlanState::Kept => FolioKind::Kept,
            PlanState::Retired => FolioKind::Retired,
        };
        let PageInfo::Folio(info) = pgmap.query(Pfn::new(head)) else {
            return Err(format!("{folio:?} is not at {head:#x}"));
        };
        let pins = u32::from(folio.state == PlanState::Pinned);
        let is_same = (info.head.as_u64(), info.order.as_u8(), info.kind, info.refs, info.pins)
            == (head, folio.order, kind, refs, pins);
        if !is_same {
            return Err(format!("{folio:?} is {info:?}"));
        }
        for page in 0..1 << folio.order {
            let (was, is) = (folio.head + page - world.start, head + page - world.start);
            if keeper.memory[is as usize] != was && kind == FolioKind::Live {
                return Err(format!("{folio:?} at {head:#x} has other contents"));
            }
        }
    }
    let mut nr_folios = 0;
    pgmap.for_each_folio(|info| {
        nr_folios += usize::from(!super::withheld::is_withheld(info.kind));
    });
    if nr_folios != world.folios.len() {
        return Err(format!("{nr_folios} folios instead of {}", world.folios.len()));
    }
    Ok(())
}
