//! Bugs that Linux fixed in 2026 in its memory of devices, as they would look here.
//!
//! Each scenario says in its first sentence what Linux did, and then what this crate does instead.
//! Under `cfg(seeded_bugs)` the last test puts faults of that kind into the crate, and each
//! scenario has to fail; with `--cfg sched` a lookup and a split also meet at every access to an
//! atomic, one after the other and not by luck.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test may panic"
)]

use core::mem::ManuallyDrop;
use std::sync::{Mutex, OnceLock};

use devfolio::{
    AllocError, Attach, ClaimError, DrainError, ExtentAttrs, Folio, FolioInfo, FolioKind, GetError,
    HookContext, HookCx, Life, MetaSize, Order, PageInfo, Park, Pfn, PgmapOps, PinKind, Policy,
    Reaped, SplitReason, Tables, UniqueFolio,
};

#[path = "waits/clock.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod clock;
#[path = "errors/world.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod world;

use world::{BLOCK, Static, bare, lines, range};

type World = Static<Owner>;
type Reference = Folio<'static, Owner>;

/// Where the memory begins: two blocks.
const START: u64 = 0x1000;
const NR_PAGES: u64 = 2 * BLOCK;

/// An owner with a number beside each folio.
#[derive(Default)]
struct Owner {
    world: OnceLock<World>,
    /// The folio that the hook makes of the pages that it was given, and all metadata at its end.
    next: Mutex<Option<(Reference, Vec<u64>)>>,
    calls: Mutex<Vec<(Pfn, Order)>>,
}

impl PgmapOps for Owner {
    type Private = u64;

    /// Releases the pages; where the world is known, somebody else has them before it returns.
    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, _: &mut HookCx<'a, Self>) {
        let (head, order) = (folio.head(), folio.order());
        self.calls.lock().unwrap().push((head, order));
        folio.release();
        if let Some(world) = self.world.get() {
            let next = world.claim(head, order).unwrap().publish();
            *self.next.lock().unwrap() = Some((next, world.image()));
        }
    }
}

fn world_of(policy: Policy, tables: Tables) -> World {
    let pgmap: World = bare(Owner::default(), policy, 1);
    let range = range(START, NR_PAGES);
    let size = MetaSize::of(range, tables).poison(8);
    let private = Box::leak(Box::new_uninit_slice(size.private_slots()));
    let (lines, attach) = (lines(size.lines()), Attach::Zeroed);
    pgmap.add_extent_with_private(range, ExtentAttrs::NEW, tables, lines, attach, private).unwrap();
    pgmap
}

fn world() -> World {
    world_of(Policy::generic(), Tables::Dense)
}

fn pfn(page: u64) -> Pfn {
    Pfn::new(START + page)
}

fn order(order: u8) -> Order {
    Order::new(order).unwrap()
}

fn info(world: World, page: u64) -> FolioInfo {
    match world.query(pfn(page)) {
        PageInfo::Folio(info) => info,
        other => panic!("page {page} is {other:?}"),
    }
}

/// Linux left the flags, the head and the order of the folio that had been there in the pages of a
/// device folio that was born at another order. Here a folio that is born has what it is born with,
/// whatever was there before: its order, no counts, no flags, and data that begins anew.
#[test]
fn a_folio_born_at_another_order_has_nothing_of_the_one_before() {
    let world = world();
    // Each order is born on the pages of each other order, with and without a block in between.
    for before in [9, 4, 0, 8, 2] {
        for after in [0, 9, 3, 8] {
            let mut old = world.claim(pfn(0), order(before)).unwrap();
            *old.private_mut() = 7;
            let old = old.publish();
            let (pin, map) = (old.pin(PinKind::Short).unwrap(), old.map(2).unwrap());
            old.close();
            drop((old, map, pin));
            assert!((0..BLOCK).all(|page| world.query(pfn(page)) == PageInfo::Free));

            let new = world.claim(pfn(0), order(after)).unwrap();
            assert_eq!((new.order(), *new.private()), (order(after), 0));
            let new = new.publish();
            let nr_pages = 1 << after;
            for page in 0..nr_pages {
                let found = world.try_get(pfn(page)).unwrap();
                assert_eq!((found.head(), found.order()), (pfn(0), order(after)));
            }
            assert!((nr_pages..BLOCK).all(|page| world.query(pfn(page)) == PageInfo::Free));
            let info = info(world, 0);
            let counts = (info.refs, info.pins, info.mappings, info.is_closed);
            assert_eq!((info.kind, counts), (FolioKind::Live, (1, 0, 0, false)));
            drop(new);
        }
    }
    // Nor has one of the folio that was split, or of the halves that were merged.
    for large in [9, 1] {
        let split = || world.claim(pfn(0), order(large)).unwrap().split(order(large - 1)).unwrap();
        drop(split());
        assert!((0..BLOCK).all(|page| world.query(pfn(page)) == PageInfo::Free));
        let [low, high] = <[_; 2]>::try_from(split().collect::<Vec<_>>()).unwrap();
        drop(low.merge(high).unwrap());
        assert!((0..BLOCK).all(|page| world.query(pfn(page)) == PageInfo::Free));
        drop(world.claim(pfn(1 << (large - 1)), order(0)).unwrap().publish());
    }
    world.check().unwrap();
    assert_eq!(world.stats().free_by_order[10], 1);
}

/// Linux looked a page up without a lock while its folio was being split, took a reference, and
/// returned the folio that had covered the page before. Here the count is taken by an exchange of
/// the very word that says what is covered: a lookup returns the folio that has the page, or none.
#[test]
fn a_lookup_that_meets_a_split_returns_the_folio_that_has_the_page_or_none() {
    const PAGE: u64 = 200;
    let is_right = |found: &Reference| found.range().contains(pfn(PAGE));
    let halted = midway::accesses_max();
    // The split happens before an access of the lookup, and then the other way around.
    for nth in 0..halted {
        let world = world();
        let folio = world.claim(pfn(0), order(8)).unwrap().publish();
        let mut found = None;
        let is_done = midway::run(
            nth,
            move || split_live(world, folio),
            || found = world.try_get(pfn(PAGE)).ok(),
        );
        assert!(found.iter().all(is_right), "{found:?} at access {nth}");
        drop(found);
        world.check().unwrap();
        if !is_done {
            break;
        }
    }
    for nth in 0..halted {
        let world = world();
        let folio = world.claim(pfn(0), order(8)).unwrap().publish();
        let is_done = midway::run(
            nth,
            move || {
                let found = world.try_get(pfn(PAGE)).ok();
                *world.ops().next.lock().unwrap() = found.map(|found| (found, Vec::new()));
            },
            || split_live(world, folio),
        );
        let found = world.ops().next.lock().unwrap().take().map(|(found, _)| found);
        assert!(found.iter().all(is_right), "{found:?} at access {nth}");
        drop(found);
        world.check().unwrap();
        if !is_done {
            break;
        }
    }
}

/// Splits a live folio into folios of order 4, unless somebody holds it; they stay live.
fn split_live(world: World, folio: Reference) {
    match folio.try_freeze() {
        Ok(unique) => {
            let seen = world.try_get(pfn(255)).map(core::mem::forget);
            // What is not frozen after all must not be dropped behind a failure.
            let unique = ManuallyDrop::new(unique);
            assert_eq!(seen, Err(GetError::NotLive { pfn: pfn(255) }), "it is being split");
            let unique = ManuallyDrop::into_inner(unique);
            for piece in unique.split(order(4)).unwrap() {
                core::mem::forget(piece.publish());
            }
            for page in 0..256 {
                let found = world.try_get(pfn(page)).unwrap();
                assert_eq!((found.head(), found.order()), (pfn(page & !15), order(4)));
            }
        }
        Err(busy) => core::mem::forget(busy.folio),
    }
}

/// Linux took a reference on each piece before it split, and kept one where the split then failed,
/// so that the folio was never freed. Here a split that is refused, for whichever reason and at
/// whichever step, gives back what it was given, and not a bit of the metadata has changed.
#[test]
fn a_split_that_fails_leaves_no_reference_behind() {
    let world = world_of(Policy::generic(), Tables::Budget(0));
    let folio = world.alloc(order(9)).unwrap().publish();
    let other = folio.try_clone().unwrap();
    let image = world.image();

    let busy = folio.try_freeze().unwrap_err();
    assert_eq!((busy.info.refs, busy.info.ref_count()), (2, 2));
    assert!(world.image() == image, "a freeze that was refused has left something");
    busy.folio.close();
    let closed = GetError::Closed { pfn: other.head() };
    assert_eq!(world.try_get(other.head()).map(drop), Err(closed), "nobody comes in meanwhile");
    busy.folio.reopen();
    assert!(world.image() == image, "a lookup that was refused has left something");
    drop(other);

    let unique = busy.folio.try_freeze().unwrap();
    let image = world.image();
    let refused = unique.split(order(0)).unwrap_err();
    assert_eq!(refused.reason, SplitReason::NoTables { needed: 1, left: 0 });
    let refused = refused.folio.trim(range(START + BLOCK - 1, 2)).unwrap_err();
    assert!(matches!(refused.reason, SplitReason::NotPart { .. }));
    assert!(world.image() == image, "a split that was refused has left something");

    let folio = refused.folio.publish();
    assert_eq!((folio.ref_count(), folio.order()), (1, order(9)));
    drop(folio);
    assert_eq!(world.ops().calls.lock().unwrap().len(), 1, "that was the last one");
    assert_eq!(world.stats().free_by_order[10], 1);
    world.check().unwrap();
}

/// Linux marked the head of a large folio when one of its pages went bad, and handed the bad page
/// out again once the folio was freed. Here a bad page leaves free space by itself, be it recorded
/// before its folio is freed or after, and all others are handed out as ever.
#[test]
fn a_bad_page_of_a_large_folio_is_never_handed_out_again() {
    let world = world();
    let (in_use, in_free) = (pfn(77), pfn(BLOCK + 300));
    let folios = [0, BLOCK].map(|page| world.claim(pfn(page), order(9)).unwrap().publish());
    world.poison(in_use).unwrap();
    drop(folios);
    world.poison(in_free).unwrap();

    for bad in [in_use, in_free] {
        assert_eq!(world.claim(bad, order(0)).map(drop), Err(ClaimError::Busy { pfn: bad }));
    }
    assert!(matches!(world.alloc(order(9)), Err(AllocError::Exhausted { .. })));
    let mut handed_out = vec![false; usize::try_from(NR_PAGES).unwrap()];
    while let Ok(folio) = world.alloc(order(0)) {
        let page = usize::try_from(folio.head().as_u64() - START).unwrap();
        assert!(!core::mem::replace(&mut handed_out[page], true), "page {page} has two owners");
        core::mem::forget(folio);
    }
    let missing = (0..NR_PAGES).zip(handed_out).filter(|(_, is_out)| !is_out);
    assert!(missing.map(|(page, _)| pfn(page)).eq([in_use, in_free]), "all but the bad ones");
    world.check().unwrap();
}

/// Linux read and wrote a device folio behind its free hook, when its driver could have given it to
/// somebody else. Here the hook is the last to see the folio: somebody else has the pages before it
/// returns, and from then on not a bit of the metadata changes.
#[test]
fn nothing_touches_a_folio_once_its_hook_has_it() {
    for hook_context in [HookContext::Inline, HookContext::Deferred] {
        let world = world_of(Policy { hook_context, ..Policy::generic() }, Tables::Dense);
        assert!(world.ops().world.set(world).is_ok());
        for (page, large) in [(0, 9), (64, 6), (511, 0)] {
            // The last count is of each kind once.
            for last in ["reference", "pin", "mapping"] {
                let folio = world.claim(pfn(page), order(large)).unwrap().publish();
                let (pin, map) = (folio.pin(PinKind::Short).unwrap(), folio.map(1).unwrap());
                match last {
                    "reference" => drop((pin, map, folio)),
                    "pin" => drop((map, folio, pin)),
                    _ => drop((folio, pin, map)),
                }
                let nr_folios = usize::from(hook_context == HookContext::Deferred);
                assert_eq!(world.reap(9), Reaped { nr_folios, has_more: false });
                let (next, image) = world.ops().next.lock().unwrap().take().unwrap();
                assert!(world.image() == image, "touched after the {last}, order {large}");
                let counts = (next.ref_count(), next.info().refs, next.info().is_closed);
                assert_eq!(counts, (1, 1, false));
                let calls = core::mem::take(&mut *world.ops().calls.lock().unwrap());
                assert_eq!(calls, [(pfn(page), order(large))], "once, as it was");
                next.try_freeze().unwrap().release();
            }
        }
        world.check().unwrap();
        assert_eq!(world.stats().free_by_order[10], 1);
    }
}

/// Linux never dropped the reference of a peer-to-peer mapping, and the removal of its device
/// waited for ever. Here a removal that has a deadline ends there and names the page with its
/// counts; and if the peer lets go after all, one that has none ends at once.
#[test]
fn a_leaked_count_of_a_peer_is_named_at_the_deadline_of_the_removal() {
    let world = clock::world_of(Policy::pci_p2pdma());
    let clock = &world.ops().clock;
    let folio = clock::folio(world, 0x1408, 3);
    let peer = clock::pin(&folio);
    drop((clock::folio(world, 0x1000, 9), folio));
    let PageInfo::Folio(info) = world.query(Pfn::new(0x140b)) else { panic!("it is pinned") };
    assert_eq!((info.refs, info.pins, info.mappings), (0, 1, 0));
    assert_eq!(world.kill(), Life::Dying);
    clock.at(75, move || drop(peer));

    let image = world.image();
    let busy = DrainError::Busy(clock::busy(0x1408, info));
    assert_eq!(world.wait_drained_until(60), Err(busy));
    assert_eq!(
        busy.to_string(),
        "page 0x1408 is still in use: folio 0x1408 of order 3 has 0 references, 1 pins and 0 \
         mappings"
    );
    assert_eq!((clock.now(), world.state()), (60, Life::Dying), "at the deadline, and not before");
    assert!(world.image() == image, "a wait that gave up has left something");

    world.wait_drained();
    assert_eq!((clock.now(), clock.ends()), (75, vec![(75, Life::Drained)]));
}

/// Where atomics can be watched, something that happens in the middle of something else.
#[cfg(sched)]
mod midway {
    use std::cell::RefCell;

    /// How many accesses are left until something happens, and what.
    type Event = (u64, Box<dyn FnOnce()>);

    std::thread_local! {
        static EVENT: RefCell<Option<Event>> = const { RefCell::new(None) };
    }

    /// More than a lookup or a split of a block takes.
    pub fn accesses_max() -> u64 {
        100_000
    }

    fn point() {
        let due = EVENT.with_borrow_mut(|event| match event {
            Some((0, _)) => event.take(),
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        });
        if let Some((_, event_fn)) = due {
            event_fn();
        }
    }

    /// Runs `run_fn`, and `event_fn` before its access number `nth`; false if it has fewer, and
    /// nothing happened.
    pub fn run(nth: u64, event_fn: impl FnOnce() + 'static, run_fn: impl FnOnce()) -> bool {
        devfolio::on_access(point);
        EVENT.set(Some((nth, Box::new(event_fn))));
        run_fn();
        EVENT.take().is_none()
    }
}

/// Where they cannot, it happens before.
#[cfg(not(sched))]
mod midway {
    pub fn accesses_max() -> u64 {
        1
    }

    pub fn run(_: u64, event_fn: impl FnOnce() + 'static, run_fn: impl FnOnce()) -> bool {
        event_fn();
        run_fn();
        true
    }
}

/// Faults that stand for a bug of Linux, each with the scenario that has to fail.
#[cfg(seeded_bugs)]
#[test]
fn each_scenario_fails_where_its_bug_is_seeded() {
    use std::panic::{catch_unwind, set_hook};

    use devfolio::seeded::{Bug, activate, activate_bug};

    type Scenario = (&'static str, fn(), &'static [Bug]);
    let scenarios: &[Scenario] = &[
        (
            "born at another order",
            a_folio_born_at_another_order_has_nothing_of_the_one_before,
            &[Bug::RebirthKeepsWord, Bug::MergeKeepsWord],
        ),
        (
            "lookup meets split",
            a_lookup_that_meets_a_split_returns_the_folio_that_has_the_page_or_none,
            &[
                Bug::SplitChecksThenWrites,
                Bug::SplitOldOrder,
                #[cfg(sched)]
                Bug::GetWithoutCover,
                #[cfg(sched)]
                Bug::FreezeByStore,
            ],
        ),
        (
            "split that fails",
            a_split_that_fails_leaves_no_reference_behind,
            &[Bug::RefusedFreezeLeaks, Bug::RefusedGetLeaks, Bug::RefusedSplitSplits],
        ),
        (
            "bad page handed out",
            a_bad_page_of_a_large_folio_is_never_handed_out_again,
            &[Bug::PoisonFreed, Bug::PoisonFreeIgnored, Bug::PoisonMarksHead, Bug::PoisonRestLost],
        ),
        (
            "touched after its hook",
            nothing_touches_a_folio_once_its_hook_has_it,
            &[Bug::TouchedAfterHook],
        ),
        (
            "removal for ever",
            a_leaked_count_of_a_peer_is_named_at_the_deadline_of_the_removal,
            &[Bug::DeadlineForgotten, Bug::EndUnsaid, Bug::DrainedWakesFirst],
        ),
    ];
    set_hook(Box::new(|_| {}));
    activate(0);
    let mut wrong = Vec::new();
    for &(name, scenario_fn, bugs) in scenarios {
        assert!(catch_unwind(scenario_fn).is_ok(), "{name} fails as the crate is");
        for &bug in bugs {
            activate_bug(bug);
            let failure = catch_unwind(scenario_fn).err();
            activate(0);
            let text = failure.as_ref().map(|why| {
                let text = why.downcast_ref::<String>().map(String::as_str);
                text.or_else(|| why.downcast_ref::<&str>().copied()).unwrap_or("a panic")
            });
            println!("{bug:?} in {name}: {}", text.unwrap_or("missed"));
            if text.is_none() {
                wrong.push((name, bug));
            }
        }
    }
    assert!(wrong.is_empty(), "missed: {wrong:?}");
    for (bug, _) in Bug::END {
        let is_met = scenarios.iter().any(|(_, _, bugs)| bugs.contains(bug));
        assert!(is_met, "no scenario for {bug:?}");
    }
}
