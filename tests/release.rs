//! Plans of what to move, in every state of a few pages, and in worlds that noise draws.
//!
//! The oracle is in `src/subject/plan`: it tries all choices of windows, and all ways to place
//! their folios. What is planned is carried out, with hooks that fail on the way.

#![cfg(not(miri))]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "a test may panic"
)]

use core::panic::AssertUnwindSafe;
use std::collections::BTreeMap;
use std::panic::catch_unwind;

use devfolio::subject::{
    PlanAsk, PlanFolio, PlanState, PlanVerdict, PlanWorld, check_plan, run_plan,
};
use devfolio::{
    Attach, ClaimError, ExtentAttrs, ExtentSlot, Folio, FolioKind, Goal, MetaLine, MetaSize,
    Migrate, Migration, Move, MovingReason, Obstacle, Order, PageInfo, Pfn, PfnRange, Pgmap,
    PgmapCore, PgmapOps, PinKind, Policy, Progress, ReleasePlanError, StepRefused, Tables,
    UniqueFolio, Window,
};

#[path = "noise/mod.rs"]
mod noise;

use noise::Noise;

fn order(log2_pages: u8) -> Order {
    Order::new(log2_pages).unwrap()
}

/// All ways to fill 2^`log2` pages from `start` on, with folios in any of some states.
fn fillings(start: u64, log2: u8, states: &[PlanState]) -> Vec<Vec<PlanFolio>> {
    let whole = states.iter().map(|&state| vec![PlanFolio { head: start, order: log2, state }]);
    let mut all: Vec<_> = whole.collect();
    if log2 == 0 {
        all.push(Vec::new());
        return all;
    }
    let half = 1 << (log2 - 1);
    let upper = fillings(start + half, log2 - 1, states);
    for lower in fillings(start, log2 - 1, states) {
        all.extend(upper.iter().map(|upper| [&lower[..], &upper[..]].concat()));
    }
    all
}

/// Returns all goals of runs in a world of 2^`log2` pages.
fn all_runs(log2: u8) -> Vec<PlanAsk> {
    let mut asks = Vec::new();
    for order in 0..log2 {
        for count in 0..=(1_usize << (log2 - order)).min(4) {
            for nr_spare in [0, 2] {
                let goal = Goal::Runs { order: crate::order(order), count, within: None };
                asks.push(PlanAsk { goal, nr_spare, max_pages: u64::MAX });
            }
        }
    }
    asks
}

/// Checks all fillings of a world, and counts what came of the plans.
fn check_all(
    start: u64,
    log2: u8,
    states: &[PlanState],
    asks: &[PlanAsk],
) -> (usize, BTreeMap<&'static str, usize>) {
    let worlds = fillings(start, log2, states);
    let fails = [Some(2), None, Some(1), Some(0)];
    let mut counts = BTreeMap::new();
    for (number, folios) in worlds.iter().enumerate() {
        let world = PlanWorld {
            start,
            nr_pages: 1 << log2,
            folios: folios.clone(),
            ..PlanWorld::default()
        };
        // What is carried out is the plan of another goal, and calls off other moves, each time.
        let (before, behind) = asks.split_at(number % asks.len());
        let fails = &fails[number % 4..];
        for verdict in check_plan(&world, &[behind, before].concat(), fails).unwrap() {
            let name = match verdict {
                PlanVerdict::Cheapest => "cheapest",
                PlanVerdict::Dearer(_) => "dearer",
                PlanVerdict::None => "none",
                PlanVerdict::Missed => "missed",
            };
            *counts.entry(name).or_insert(0) += 1;
        }
    }
    (worlds.len(), counts)
}

#[test]
fn plans_for_eight_pages_are_the_cheapest_in_all_15131_states() {
    let states = [PlanState::Live(2), PlanState::Pinned];
    let (nr_worlds, counts) = check_all(0x1f8, 3, &states, &all_runs(3));
    println!("{counts:?}");
    assert_eq!(nr_worlds, 15_131);
    // Of eight pages, a cheaper choice than the one that is found never has room.
    assert_eq!(counts.get("dearer"), None);
}

#[test]
fn ranges_of_four_pages_are_emptied_in_all_states() {
    let states = [PlanState::Live(1), PlanState::Pinned, PlanState::Kept, PlanState::Retired];
    let mut asks = Vec::new();
    for first in 0..4 {
        for last in first..4 {
            let range = PfnRange::between(Pfn::new(8 + first), Pfn::new(8 + last)).unwrap();
            let goal = Goal::Empty(range);
            asks.push(PlanAsk { goal, nr_spare: 0, max_pages: u64::MAX });
        }
    }
    let (nr_worlds, counts) = check_all(8, 2, &states, &asks);
    assert_eq!(nr_worlds, 845);
    assert!(counts["none"] > 1000 && counts["cheapest"] > 1000, "{counts:?}");
}

#[test]
fn plans_of_noise_agree_with_the_oracle() {
    for seed in 0..3_000 {
        let mut noise = Noise(seed);
        let bytes: Vec<_> = (0..300).map(|_| noise.below(256) as u8).collect();
        run_plan(&bytes).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
}

struct Plain;

impl PgmapOps for Plain {
    type Private = ();
}

const MOVABLE: Policy = Policy { migration: Migration::Allow, ..Policy::generic() };

fn range(start: u64, nr_pages: u64) -> PfnRange {
    PfnRange::new(Pfn::new(start), nr_pages).unwrap()
}

/// Makes a world of such extents, which lasts.
fn world(policy: Policy, extents: &[(u64, u64, Tables)]) -> &'static Pgmap<'static, Plain> {
    let slots = [const { ExtentSlot::new() }; 2];
    let pgmap = Pgmap::new(Plain, policy, Box::leak(Box::new(slots)));
    for &(start, nr_pages, tables) in extents {
        let range = range(start, nr_pages);
        let nr_lines = MetaSize::of(range, tables).poison(4).lines();
        let lines: Vec<_> = (0..nr_lines).map(|_| MetaLine::ZERO).collect();
        let (attrs, attach) = (ExtentAttrs::NEW, Attach::Zeroed);
        pgmap.add_extent(range, attrs, tables, lines.leak(), attach).unwrap();
    }
    Box::leak(Box::new(pgmap))
}

/// Makes a live folio that nobody drops.
fn live(pgmap: &PgmapCore<Plain>, head: u64, log2_pages: u8) {
    let folio = pgmap.claim(Pfn::new(head), order(log2_pages)).unwrap().publish();
    let _ = folio.into_raw();
}

fn runs(log2_pages: u8, count: usize) -> Goal {
    Goal::Runs { order: order(log2_pages), count, within: None }
}

/// Plans with room for so many windows; returns what it costs, and what it costs at least.
fn plan(
    pgmap: &PgmapCore<Plain>,
    goal: Goal,
    nr_windows: usize,
) -> Result<(u64, u64, Vec<Move>), ReleasePlanError> {
    let (mut windows, mut moves) = (vec![Window::EMPTY; nr_windows], vec![Move::EMPTY; 32]);
    let plan = pgmap.plan_release(goal, u64::MAX, &mut windows, &mut moves)?;
    Ok((plan.nr_pages, plan.least_pages, plan.moves.to_vec()))
}

fn obstacle(error: Result<(u64, u64, Vec<Move>), ReleasePlanError>) -> Obstacle {
    match error {
        Err(ReleasePlanError::NotEnough { wanted: 1, found: 0, obstacle }) => obstacle.unwrap(),
        Err(ReleasePlanError::InTheWay(obstacle)) => obstacle,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_has_to_stay_is_named() {
    let pgmap = world(MOVABLE, &[(0, 8, Tables::Dense)]);
    let (whole, goal) = (Goal::Empty(range(0, 8)), runs(3, 1));
    let folio = pgmap.claim(Pfn::new(4), order(1)).unwrap().publish();
    let pin = folio.pin(PinKind::Short).unwrap();
    for goal in [whole, goal] {
        let Obstacle::Pinned { folio } = obstacle(plan(pgmap, goal, 1)) else { panic!() };
        assert_eq!((folio.head, folio.pins), (Pfn::new(4), 1));
    }
    drop((folio, pin));
    let head = Pfn::new(2);
    pgmap.claim(head, order(1)).unwrap().keep();
    for goal in [whole, goal] {
        let Obstacle::NotLive { folio } = obstacle(plan(pgmap, goal, 1)) else { panic!() };
        assert_eq!((folio.head, folio.kind), (head, FolioKind::Kept));
    }
    pgmap.claim_kept(head).unwrap().release();

    live(pgmap, 0, 3);
    let larger = obstacle(plan(pgmap, runs(2, 1), 1));
    assert!(matches!(larger, Obstacle::Larger { folio } if folio.order == order(3)));
    pgmap.poison(Pfn::new(5)).unwrap();
    assert_eq!(obstacle(plan(pgmap, whole, 1)), Obstacle::Bad { pfn: Pfn::new(5) });
    pgmap.unpoison(Pfn::new(5)).unwrap();
    pgmap.offline(range(6, 1)).unwrap();
    assert_eq!(obstacle(plan(pgmap, goal, 1)), Obstacle::Offline { pfn: Pfn::new(6) });
}

#[test]
fn what_cannot_be_asked_for_is_refused_by_name() {
    let pgmap = world(Policy::generic(), &[(0, 8, Tables::Dense)]);
    assert_eq!(plan(pgmap, runs(0, 1), 1), Err(ReleasePlanError::Refused));
    let pgmap = world(MOVABLE, &[(0, 8, Tables::Dense), (8, 8, Tables::Dense)]);
    let across = range(4, 8);
    assert_eq!(
        plan(pgmap, Goal::Empty(across), 1),
        Err(ReleasePlanError::Outside { range: across })
    );
    let error = ReleasePlanError::TooManyWindows { needed: 3, len: 2 };
    assert_eq!(plan(pgmap, runs(0, 3), 2), Err(error));
    let error = ReleasePlanError::NotEnough { wanted: 3, found: 2, obstacle: None };
    assert_eq!(plan(pgmap, runs(3, 3), 3), Err(error));
    assert_eq!(plan(pgmap, runs(18, 0), 0), Ok((0, 0, Vec::new())));

    live(pgmap, 0, 2);
    let _ = pgmap.surprise_remove_extent(Pfn::new(0)).unwrap();
    let gone = range(0, 4);
    assert_eq!(plan(pgmap, Goal::Empty(gone), 1), Err(ReleasePlanError::Gone { range: gone }));
    pgmap.kill();
    assert_eq!(plan(pgmap, runs(0, 1), 1), Err(ReleasePlanError::Dying));
}

#[test]
fn an_extent_that_leaves_is_emptied_into_others_and_never_filled() {
    let pgmap = world(MOVABLE, &[(0, 8, Tables::Dense), (64, 8, Tables::Dense)]);
    live(pgmap, 1, 0);
    live(pgmap, 4, 2);
    pgmap.remove_extent(Pfn::new(0)).unwrap();
    let (nr_pages, _, moves) = plan(pgmap, Goal::Empty(range(0, 8)), 1).unwrap();
    assert_eq!(nr_pages, 5);
    assert!(moves.iter().all(|it| 64 <= it.to.as_u64()), "{moves:?}");
    pgmap.restore_extent(Pfn::new(0)).unwrap();
    live(pgmap, 64, 2);
    pgmap.remove_extent(Pfn::new(64)).unwrap();
    live(pgmap, 2, 0);
    pgmap.remove_extent(Pfn::new(0)).unwrap();
    let error = ReleasePlanError::NoRoom { from: Pfn::new(4), order: order(2) };
    assert_eq!(plan(pgmap, Goal::Empty(range(0, 8)), 1), Err(error));
}

#[test]
fn a_window_without_room_is_left_for_the_next() {
    let pgmap = world(MOVABLE, &[(0, 16, Tables::Dense)]);
    live(pgmap, 0, 1);
    [4, 5, 6, 8, 9, 10, 13, 14, 15].iter().for_each(|&head| live(pgmap, head, 0));
    let error = ReleasePlanError::NoRoom { from: Pfn::new(0), order: order(1) };
    assert_eq!(plan(pgmap, runs(2, 1), 1), Err(error));
    let (nr_pages, least_pages, moves) = plan(pgmap, runs(2, 1), 2).unwrap();
    assert_eq!((nr_pages, least_pages, moves.len()), (3, 2, 3));
}

#[test]
fn blocks_are_fractured_last_and_only_if_there_are_tables() {
    for (budget, expected) in [(1, None), (2, Some(512)), (3, Some(512))] {
        let pgmap = world(MOVABLE, &[(0, 2048, Tables::Budget(budget))]);
        live(pgmap, 3, 0);
        let made = plan(pgmap, Goal::Empty(range(0, 512)), 1);
        match expected {
            None => {
                let error = ReleasePlanError::NoTables { from: Pfn::new(3), order: order(0) };
                assert_eq!(made, Err(error));
            }
            Some(to) => assert_eq!(made.unwrap().2[0].to, Pfn::new(to)),
        }
    }
    // One table for what is small, wherever there are whole blocks in front of it.
    let pgmap = world(MOVABLE, &[(0, 4096, Tables::Budget(2))]);
    live(pgmap, 0, 8);
    live(pgmap, 256, 0);
    live(pgmap, 512, 9);
    live(pgmap, 3000, 1);
    let (_, _, moves) = plan(pgmap, Goal::Empty(range(0, 1024)), 1).unwrap();
    assert!(moves.iter().filter(|it| it.order < Order::BLOCK).all(|it| it.to.as_u64() >> 9 == 5));
}

#[test]
fn folios_go_where_least_is_broken_up() {
    let region = Order::REGION.nr_pages();
    // Whole regions are in front of the one that is opened, and whole blocks of the fractured one.
    let pgmap = world(MOVABLE, &[(0, 3 * region, Tables::Budget(4))]);
    let opened = 2 * region;
    live(pgmap, opened + 1536 + 7, 0);
    live(pgmap, opened + 2048 + 3, 0);
    live(pgmap, opened + 2560, 9);
    let to = |start| {
        let goal = Goal::Empty(range(start, 512));
        plan(pgmap, goal, 1).unwrap().2[0].to.as_u64()
    };
    assert_eq!(to(opened + 2048), opened + 1536);
    assert_eq!(to(opened + 2560), opened);
}

#[test]
fn a_move_that_makes_no_sense_gives_both_folios_back() {
    let pgmap = world(MOVABLE, &[(0, 16, Tables::Dense)]);
    let claim = |head, log2_pages| pgmap.claim(Pfn::new(head), order(log2_pages)).unwrap();
    let max = devfolio::Count::Refs.max();
    for (to, refs, reason) in [
        (claim(8, 1), 1, MovingReason::Orders { from: order(0), to: order(1) }),
        (claim(10, 0), 0, MovingReason::Refs { refs: 0, max }),
        (claim(11, 0), max + 1, MovingReason::Refs { refs: max + 1, max }),
    ] {
        let error = claim(0, 0).move_to(to, refs).unwrap_err();
        assert_eq!((error.reason, error.source.head()), (reason, Pfn::new(0)));
    }
    assert_eq!(pgmap.stats().free_pages, 16);
    let fixed = world(Policy::generic(), &[(0, 2, Tables::Dense)]);
    let (from, to) = (fixed.alloc(order(0)).unwrap(), fixed.alloc(order(0)).unwrap());
    assert_eq!(from.move_to(to, 1).unwrap_err().reason, MovingReason::Refused);
}

/// An owner who freezes the folio that it was given last, whatever was planned.
struct Owner<'a> {
    folios: Vec<Folio<'a, Plain>>,
    /// How many references it says that it had.
    refs: u32,
    refused: Vec<StepRefused<()>>,
}

impl<'a> Migrate<'a, Plain> for Owner<'a> {
    type Error = ();

    fn freeze(&mut self, _: Move) -> Option<(UniqueFolio<'a, Plain>, u32)> {
        match self.folios.pop()?.try_freeze() {
            Ok(frozen) => Some((frozen, self.refs)),
            Err(busy) => {
                self.folios.push(busy.folio);
                None
            }
        }
    }

    fn copy(&mut self, _: PfnRange, _: PfnRange) -> Result<(), ()> {
        Ok(())
    }

    fn rehome(&mut self, _: Move, (): &mut (), (): &mut ()) -> Result<(), ()> {
        Ok(())
    }

    fn moved(&mut self, _: Move, folio: Folio<'a, Plain>) {
        self.folios.push(folio);
    }

    fn stayed(&mut self, _: Move, why: StepRefused<()>, folio: Option<Folio<'a, Plain>>) {
        self.refused.push(why);
        self.folios.extend(folio);
    }
}

#[test]
fn a_stale_step_is_refused_and_changes_nothing() {
    let pgmap = world(MOVABLE, &[(0, 16, Tables::Dense)]);
    let folio = pgmap.claim(Pfn::new(0), order(1)).unwrap().publish();
    let taken = pgmap.claim(Pfn::new(5), order(0)).unwrap();
    let other = folio.try_clone().unwrap();
    let mut owner = Owner { folios: vec![folio], refs: 1, refused: Vec::new() };
    let mut step = |from, to, log2_pages, refs| {
        owner.refs = refs;
        let order = order(log2_pages);
        let planned = Move { from: Pfn::new(from), to: Pfn::new(to), order };
        let progress = pgmap.run_moves(&[planned], 64, &mut owner);
        assert_eq!((progress.tried, progress.done), (1, 0));
        assert_eq!(pgmap.stats().free_pages, 13);
        owner.refused.pop().unwrap()
    };
    // The destination is taken; somebody else holds the folio; it is not the one that was planned,
    // or has another order; its owner says that there was no reference.
    let busy = ClaimError::Busy { pfn: Pfn::new(5) };
    assert_eq!(step(0, 4, 1, 1), StepRefused::Claim(busy));
    assert_eq!(step(0, 8, 1, 1), StepRefused::NotFrozen);
    drop(other);
    assert_eq!(step(2, 8, 1, 1), StepRefused::Other);
    let orders = MovingReason::Orders { from: order(1), to: order(2) };
    assert_eq!(step(0, 8, 2, 1), StepRefused::Moving(orders));
    let refs = MovingReason::Refs { refs: 0, max: devfolio::Count::Refs.max() };
    assert_eq!(step(0, 8, 1, 0), StepRefused::Moving(refs));

    let planned = Move { from: Pfn::new(0), to: Pfn::new(8), order: order(1) };
    owner.refs = 1;
    assert_eq!(pgmap.run_moves(&[planned], 64, &mut owner).done, 1);
    assert_eq!(owner.folios[0].head(), Pfn::new(8));
    drop((owner, taken));
    assert_eq!(pgmap.stats().free_pages, 16);
}

#[test]
fn a_folio_of_another_order_is_live_again_with_all_its_references() {
    let pgmap = world(MOVABLE, &[(0, 16, Tables::Dense)]);
    let folio = pgmap.claim(Pfn::new(0), order(1)).unwrap().publish();
    let mut owner = Owner { folios: vec![folio], refs: 3, refused: Vec::new() };
    let planned = Move { from: Pfn::new(0), to: Pfn::new(8), order: order(2) };
    assert_eq!(pgmap.run_moves(&[planned], 64, &mut owner).done, 0);
    let PageInfo::Folio(info) = pgmap.query(Pfn::new(0)) else { panic!() };
    assert_eq!((info.kind, info.refs), (FolioKind::Live, 3));
    assert_eq!(pgmap.query(Pfn::new(8)), PageInfo::Free);
}

#[test]
fn where_contents_stay_nobody_is_asked_to_freeze() {
    let pgmap = world(Policy::generic(), &[(0, 16, Tables::Dense)]);
    let folio = pgmap.claim(Pfn::new(0), order(1)).unwrap().publish();
    let mut owner = Owner { folios: vec![folio], refs: 1, refused: Vec::new() };
    let planned = Move { from: Pfn::new(0), to: Pfn::new(8), order: order(1) };
    assert_eq!(pgmap.run_moves(&[planned], 64, &mut owner).done, 0);
    assert_eq!(owner.refused, [StepRefused::Moving(MovingReason::Refused)]);
    let PageInfo::Folio(info) = pgmap.query(Pfn::new(0)) else { panic!() };
    assert_eq!((info.kind, info.refs), (FolioKind::Live, 1));
}

/// An owner whose hooks do something else in between.
struct Meddler<'a, F: FnMut()> {
    folio: Option<Folio<'a, Plain>>,
    freeze_fn: F,
    copy_fn: F,
    refused: Option<StepRefused<()>>,
}

impl<'a, F: FnMut()> Migrate<'a, Plain> for Meddler<'a, F> {
    type Error = ();

    fn freeze(&mut self, _: Move) -> Option<(UniqueFolio<'a, Plain>, u32)> {
        (self.freeze_fn)();
        Some((self.folio.take()?.try_freeze().ok()?, 1))
    }

    fn copy(&mut self, _: PfnRange, _: PfnRange) -> Result<(), ()> {
        (self.copy_fn)();
        Ok(())
    }

    fn rehome(&mut self, _: Move, (): &mut (), (): &mut ()) -> Result<(), ()> {
        Ok(())
    }

    fn moved(&mut self, _: Move, folio: Folio<'a, Plain>) {
        self.folio = Some(folio);
    }

    fn stayed(&mut self, _: Move, why: StepRefused<()>, folio: Option<Folio<'a, Plain>>) {
        self.refused = Some(why);
        self.folio = folio;
    }
}

#[test]
fn nothing_moves_to_an_extent_that_begins_to_leave_meanwhile() {
    let pgmap = world(MOVABLE, &[(0, 16, Tables::Dense), (32, 16, Tables::Dense)]);
    let folio = Some(pgmap.claim(Pfn::new(0), order(1)).unwrap().publish());
    let lose_fn: &dyn Fn() = &|| {
        pgmap.surprise_remove_extent(Pfn::new(32)).unwrap();
    };
    let (freeze_fn, copy_fn): (&dyn Fn(), _) = (&|| (), lose_fn);
    let mut owner = Meddler { folio, freeze_fn, copy_fn, refused: None };
    let planned = Move { from: Pfn::new(0), to: Pfn::new(32), order: order(1) };
    assert_eq!(pgmap.run_moves(&[planned], 64, &mut owner).done, 0);
    assert_eq!(owner.refused, Some(StepRefused::Claim(ClaimError::Dying)));
    assert_eq!(owner.folio.map(|folio| folio.head()), Some(Pfn::new(0)));
}

#[test]
fn a_freeze_that_panics_leaves_the_destination_free() {
    let policy = Policy { on_drop: devfolio::OnDrop::Keep, ..MOVABLE };
    let pgmap = world(policy, &[(0, 16, Tables::Dense)]);
    let folio = Some(pgmap.claim(Pfn::new(0), order(1)).unwrap().publish());
    let freeze_fn: &dyn Fn() = &|| panic!("as the test says");
    let (copy_fn, refused): (&dyn Fn(), _) = (&|| (), None);
    let mut owner = Meddler { folio, freeze_fn, copy_fn, refused };
    let planned = Move { from: Pfn::new(0), to: Pfn::new(8), order: order(1) };
    let run_fn = || pgmap.run_moves(&[planned], 64, &mut owner);
    assert!(catch_unwind(AssertUnwindSafe(run_fn)).is_err());
    assert_eq!(pgmap.query(Pfn::new(8)), PageInfo::Free, "nobody knows of it");
}

/// Whoever had the destination may have written to it before.
#[test]
fn a_destination_goes_back_dirty_although_nothing_was_copied() {
    let pgmap = world(MOVABLE, &[(0, 16, Tables::Dense)]);
    let clean = |pfn| {
        let mut folio = pgmap.claim(Pfn::new(pfn), order(1)).unwrap();
        folio.mark_clean();
        folio
    };
    clean(8).release_clean();
    let used = clean(8).publish();
    let target = used.try_freeze().unwrap();
    let source = pgmap.claim(Pfn::new(0), order(1)).unwrap();
    drop(source.move_to(target, 1).unwrap());
    assert!(!pgmap.claim(Pfn::new(8), order(1)).unwrap().is_clean());
}

#[test]
fn the_budget_of_a_call_is_kept() {
    let pgmap = world(MOVABLE, &[(0, 16, Tables::Dense)]);
    let mut owner = Owner { folios: Vec::new(), refs: 1, refused: Vec::new() };
    let no_moves = pgmap.run_moves(&[Move { order: order(2), ..Move::EMPTY }], 3, &mut owner);
    assert_eq!(no_moves, Progress::default());
    assert!(owner.refused.is_empty());
}

#[test]
fn a_copy_that_panics_leaves_the_folio_where_it_was() {
    let pgmap = world(MOVABLE, &[(0, 16, Tables::Dense)]);
    let source = pgmap.claim(Pfn::new(2), order(1)).unwrap();
    let target = pgmap.claim(Pfn::new(8), order(1)).unwrap();
    let moving = source.move_to(target, 3).unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        moving.copy(|_, _| -> Result<(), ()> { panic!("as the test says") }).is_ok()
    }));
    assert!(panicked.is_err());
    let PageInfo::Folio(info) = pgmap.query(Pfn::new(2)) else { panic!() };
    assert_eq!((info.kind, info.refs), (FolioKind::Live, 3));
    assert_eq!(pgmap.query(Pfn::new(8)), PageInfo::Free);
}
