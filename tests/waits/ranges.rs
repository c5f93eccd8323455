//! Waiting for the counts of a range.

use std::sync::{Mutex, OnceLock};

use devfolio::{
    Attach, ExtentAttrs, FolioInfo, FolioKind, HookContext, HookCx, MetaSize, Order, PageInfo,
    Park, ParkKey, Pfn, PfnRange, PgmapCore, PgmapOps, PinKind, Policy, Sleep, Tables, UniqueFolio,
    WaitError,
};

use crate::clock::{Owner, Reference, folio, pin, world, world_of};
use crate::folios::assert_sleeps_without_its_lock;
use crate::world::{BLOCK, Static, bare, lines, range};

type WaitFn = fn(&PgmapCore<Owner>, PfnRange, u64) -> Result<(), WaitError>;

const IDLE: [WaitFn; 2] = [PgmapCore::wait_idle_in_until, |pgmap, range, deadline| {
    pgmap.wait_idle_in_with(range, Some(deadline), |sleep| sleep.sleep())
}];
const UNPINNED: [WaitFn; 2] = [PgmapCore::wait_unpinned_in_until, |pgmap, range, deadline| {
    pgmap.wait_unpinned_in_with(range, Some(deadline), |sleep| sleep.sleep())
}];

/// Three folios in a row, the last one in another block.
fn folios(world: crate::clock::World) -> [Reference; 3] {
    [folio(world, 0x1000, 3), folio(world, 0x1008, 0), folio(world, 0x1200, 9)]
}

#[test]
fn a_range_is_unpinned_with_the_last_pin_on_any_of_its_folios() {
    for wait_fn in UNPINNED {
        let world = world();
        let folios = folios(world);
        for (at, folio) in [5, 3, 8].into_iter().zip(&folios) {
            let pinned = pin(folio);
            world.ops().clock.at(at, move || drop(pinned));
        }
        // The first page of the wait is the last one of a folio, and the other way round.
        let part = PfnRange::between(Pfn::new(0x1007), Pfn::new(0x1200)).unwrap();
        assert_eq!(wait_fn(world, part, 100), Ok(()));
        assert_eq!(world.ops().clock.now(), 8);
        assert!(folios.iter().all(|folio| folio.info().pins == 0));
    }
}

#[test]
fn a_range_is_idle_without_references_and_pins_mappings_notwithstanding() {
    for wait_fn in IDLE {
        let world = world();
        let [first, second, third] = folios(world);
        let clock = &world.ops().clock;
        let (map, pinned) = (first.map(2).unwrap(), pin(&third));
        clock.at(2, move || drop(first));
        clock.at(4, move || drop(third));
        clock.at(6, move || drop(pinned));
        clock.at(9, move || drop(second));
        assert_eq!(wait_fn(world, range(0x1000, 1024), 100), Ok(()));
        assert_eq!(clock.now(), 9);
        let info = world.query(Pfn::new(0x1000));
        assert!(matches!(info, PageInfo::Folio(FolioInfo { refs: 0, mappings: 2, .. })));
        drop(map);
        // Neither pages in no extent nor free ones have counts.
        assert_eq!(wait_fn(world, range(0, 0x2_0000), 0), Ok(()));
    }
}

#[test]
fn what_lies_beside_a_range_is_not_waited_for() {
    let world = world();
    let _held = folios(world).map(|folio| (pin(&folio), folio));
    for wait_fn in IDLE.into_iter().chain(UNPINNED) {
        assert_eq!(wait_fn(world, range(0x1009, 0x1f7), 0), Ok(()));
        assert!(wait_fn(world, range(0x1009, 0x1f8), 0).is_err());
        assert!(wait_fn(world, range(0x1008, 1), 0).is_err());
    }
}

#[test]
fn a_deadline_names_the_first_folio_and_leaves_nothing() {
    for wait_fn in IDLE.into_iter().chain(UNPINNED) {
        let world = world();
        let folios = folios(world);
        let _pins = [pin(&folios[2]), pin(&folios[1])];
        let image = world.image();
        // Of those with pins, or of those behind the first.
        let (part, info) = (range(0x1008, 1016), folios[1].info());
        assert_eq!(wait_fn(world, part, 20), Err(WaitError::Deadline { info }));
        assert_eq!(world.ops().clock.now(), 20);
        assert!(world.image() == image, "something stays registered");
        assert_eq!(wait_fn(world, part, 0), Err(WaitError::Deadline { info }));
        assert!(world.image() == image, "a look registered");
    }
}

/// One walk from end to end finds nothing, and not one after the other whatever comes behind it.
#[test]
fn a_pin_that_comes_back_behind_the_look_is_waited_for() {
    let world = world();
    let [first, _second, third] = folios(world);
    let clock = &world.ops().clock;
    let (again, pinned) = (first.try_clone().unwrap(), pin(&third));
    clock.at(3, move || {
        let again = pin(&again);
        world.ops().clock.at(7, move || drop(again));
        drop(pinned);
    });
    world.wait_unpinned_in(range(0x1000, 1024));
    assert_eq!(clock.now(), 7);
}

#[test]
fn a_folio_that_ends_wakes_whoever_waits_for_its_range() {
    let world = world();
    let last = folio(world, 0x1000, 9);
    world.ops().clock.at(4, move || drop(last));
    world.wait_idle_in(range(0x1003, 1));
    assert_eq!(world.ops().clock.now(), 4);
    assert_eq!(world.ops().clock.woken(), [(4, ParkKey::Folio(Pfn::new(0x1000)))]);
    world.check().unwrap();
}

/// Where hooks run later, the counts are gone at once.
#[test]
fn a_folio_that_waits_for_its_hook_is_not_waited_for() {
    let world = world_of(Policy { hook_context: HookContext::Deferred, ..Policy::generic() });
    let last = folio(world, 0x1000, 9);
    world.ops().clock.at(4, move || drop(last));
    world.wait_idle_in(range(0x1003, 1));
    assert_eq!(world.ops().clock.now(), 4);
    assert_eq!(world.reap(8).nr_folios, 1);
}

#[test]
fn a_waiter_for_a_range_sleeps_without_the_lock_of_its_own() {
    assert_sleeps_without_its_lock(|folio, sleep_fn| {
        folio.pgmap().wait_unpinned_in_with(folio.range(), None, sleep_fn)
    });
}

type Verdict = fn(UniqueFolio<'_, Judge>);

/// What a hook can make of a folio, and what is there then; `None` is free.
const VERDICTS: [(Verdict, Option<FolioKind>); 4] = [
    (|folio| folio.release(), None),
    (|folio| folio.keep(), Some(FolioKind::Kept)),
    (|folio| folio.retire(), Some(FolioKind::Retired)),
    (|folio| core::mem::forget(folio.publish()), Some(FolioKind::Live)),
];

/// An owner that looks at the folio at the moment of each wake-up.
struct Judge {
    verdict: Verdict,
    world: OnceLock<Static<Self>>,
    seen: Mutex<Vec<Option<FolioKind>>>,
}

impl PgmapOps for Judge {
    type Private = ();

    fn folio_free<'a>(&'a self, folio: UniqueFolio<'a, Self>, _: &mut HookCx<'a, Self>) {
        (self.verdict)(folio);
    }

    fn park(&self) -> &dyn Park {
        self
    }
}

impl Park for Judge {
    fn token(&self, _key: ParkKey) -> u64 {
        0
    }

    fn park(&self, _key: ParkKey, _token: u64) {}

    fn unpark_all(&self, key: ParkKey) {
        let ParkKey::Folio(head) = key else { panic!("{key:?}") };
        let seen = match self.world.get().unwrap().query(head) {
            PageInfo::Folio(folio) => Some(folio.kind),
            PageInfo::Free => None,
            other => panic!("{other:?}"),
        };
        self.seen.lock().unwrap().push(seen);
    }
}

/// Has somebody wait without a count while the last one goes; returns what each wake-up found.
fn seen_by_those_woken(verdict: Verdict, hook_context: HookContext) -> Vec<Option<FolioKind>> {
    let judge = Judge { verdict, world: OnceLock::new(), seen: Mutex::default() };
    let policy = Policy { hook_context, ..Policy::generic() };
    let world: Static<Judge> = bare(judge, policy, 1);
    world.ops().world.get_or_init(|| world);
    let range = range(0x1000, BLOCK);
    let lines = lines(MetaSize::of(range, Tables::Dense).lines());
    world.add_extent(range, ExtentAttrs::NEW, Tables::Dense, lines, Attach::Zeroed).unwrap();
    // The last count is a pin, since one verdict is a new reference.
    let folio = world.alloc(Order::ZERO).unwrap().publish();
    let mut last = Some(folio.pin(PinKind::Short).unwrap());
    drop(folio);
    let sleep_fn = |_: Sleep<'_>| drop(last.take().unwrap());
    assert_eq!(world.wait_unpinned_in_with(range, None, sleep_fn), Ok(()));
    world.reap(8);
    world.check().unwrap();
    world.ops().seen.lock().unwrap().clone()
}

#[test]
fn whoever_waits_without_a_count_is_woken_behind_the_verdict_of_the_hook() {
    for (verdict, kind) in VERDICTS {
        assert_eq!(seen_by_those_woken(verdict, HookContext::Inline), [kind]);
    }
}

/// The counts are gone when the folio is condemned; whoever looks at more is woken once more.
#[test]
fn whoever_waits_is_woken_when_the_folio_is_condemned_and_behind_the_verdict() {
    for (verdict, kind) in VERDICTS {
        let seen = seen_by_those_woken(verdict, HookContext::Deferred);
        assert_eq!(seen, [Some(FolioKind::Condemned), kind]);
    }
}
