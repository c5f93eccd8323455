//! Waiting for the counts of a folio.

use std::sync::Mutex;

use devfolio::{Order, Park, ParkKey, Pfn, Policy, Sleep, Tables, WaitError};

use crate::clock::{Reference, World, folio, pin, world};
use crate::world::{Plain, attach, bare, range};

type WaitFn = fn(&Reference, u64) -> Result<(), WaitError>;

/// All waits that have a deadline.
const WAITS: [WaitFn; 4] = [
    Reference::wait_idle_until,
    Reference::wait_unpinned_until,
    |folio, deadline| folio.wait_idle_with(Some(deadline), |sleep| sleep.sleep()),
    |folio, deadline| folio.wait_unpinned_with(Some(deadline), |sleep| sleep.sleep()),
];

fn assert_unchanged(world: World, image: &[u64]) {
    assert!(world.image() == image, "a wait that gave up has left something");
}

#[test]
fn a_wait_names_the_counts_at_its_deadline_and_changes_nothing() {
    for wait_fn in WAITS {
        let world = world();
        let waiter = folio(world, 0x1208, 3);
        let (_pin, _map) = (pin(&waiter), waiter.map(2).unwrap());
        let (image, info) = (world.image(), waiter.info());
        assert_eq!(wait_fn(&waiter, 40), Err(WaitError::Deadline { info }));
        assert_eq!((info.head, info.refs, info.pins, info.mappings), (waiter.head(), 1, 1, 2));
        assert_eq!(info.order, waiter.order());
        assert_eq!(world.ops().clock.now(), 40, "neither sooner nor later");
        assert_unchanged(world, &image);
        world.check().unwrap();
    }
}

#[test]
fn a_deadline_that_has_passed_is_one_look() {
    for wait_fn in WAITS {
        let world = world();
        let waiter = folio(world, 0x1000, 0);
        assert_eq!(wait_fn(&waiter, 0), Ok(()));
        let _pin = pin(&waiter);
        let image = world.image();
        assert_eq!(wait_fn(&waiter, 0), Err(WaitError::Deadline { info: waiter.info() }));
        assert_unchanged(world, &image);
        assert_eq!(world.ops().clock.nr_sleeps(), 0);
        assert_eq!(world.ops().clock.woken(), [], "nobody was registered");
    }
}

#[test]
fn an_owner_without_a_clock_has_no_time_to_wait() {
    let world = bare(Plain, Policy::generic(), 1);
    attach(world, range(0x1000, 8), Tables::Dense);
    let folio = world.alloc(Order::ZERO).unwrap().publish();
    let _map = folio.map(1).unwrap();
    for deadline in [0, 1, u64::MAX] {
        let info = folio.info();
        assert_eq!(folio.wait_idle_until(deadline), Err(WaitError::Deadline { info }));
        assert_eq!(folio.wait_unpinned_until(deadline), Ok(()));
    }
}

#[test]
fn every_wait_ends_with_what_it_waited_for() {
    for (index, wait_fn) in (0..).zip(WAITS) {
        let world = world();
        let waiter = folio(world, 0x1000, 9);
        let clock = &world.ops().clock;
        let other = waiter.try_clone().unwrap();
        let (pinned, map) = (pin(&waiter), waiter.map(7).unwrap());
        clock.at(3, move || drop(other));
        clock.at(5, move || drop(pinned));
        clock.at(8, move || drop(map));
        assert_eq!(wait_fn(&waiter, 100), Ok(()));
        // Unpinned is unpinned, whatever maps it.
        let end = if index % 2 == 0 { 8 } else { 5 };
        assert_eq!(clock.now(), end);
        drop(waiter);
    }
}

/// Linux wakes at zero alone: a waiter behind a mapping of somebody else sleeps on.
#[test]
fn whoever_waits_is_woken_when_references_and_pins_are_gone_mappings_notwithstanding() {
    let world = world();
    let waiter = folio(world, 0x1000, 9);
    let clock = &world.ops().clock;
    let (other, pinned) = (waiter.try_clone().unwrap(), pin(&waiter));
    let map = waiter.map(512).unwrap();
    let key = ParkKey::Folio(Pfn::new(0x1000));
    clock.at(2, move || drop(pinned));
    clock.at(4, move || drop(other));
    let mut sleeps = Vec::new();
    let waited = waiter.wait_idle_with(Some(10), |sleep| {
        let start = clock.now();
        sleep.sleep();
        sleeps.push((start, clock.now()));
    });
    assert_eq!(waited, Err(WaitError::Deadline { info: waiter.info() }));
    assert_eq!(sleeps, [(0, 2), (2, 4), (4, 10)], "looks again at each count that goes");
    // The last one is the waiter's own, as it gave up.
    assert_eq!(clock.woken(), [(2, key), (4, key), (10, key)]);
    assert_eq!(waiter.wait_unpinned_until(0), Ok(()));
    drop(map);
    waiter.wait_idle();
}

/// Waits for a folio with a pin, or for its range, and sleeps by what it is given.
type WaitWithFn = fn(&Reference, &mut dyn FnMut(Sleep<'_>)) -> Result<(), WaitError>;

pub fn assert_sleeps_without_its_lock(wait_fn: WaitWithFn) {
    let lock: &'static Mutex<u32> = Box::leak(Box::default());
    let world = world();
    let waiter = folio(world, 0x1000, 0);
    let pinned = pin(&waiter);
    // Whoever has the pin needs the lock to let it go.
    world.ops().clock.at(6, move || {
        *lock.try_lock().expect("the waiter holds its lock") += 1;
        drop(pinned);
    });
    let mut guard = Some(lock.lock().unwrap());
    let waited = wait_fn(&waiter, &mut |sleep| {
        guard = None;
        sleep.sleep();
        guard = Some(lock.lock().unwrap());
    });
    assert_eq!(waited, Ok(()));
    assert_eq!(guard.map(|nr| *nr), Some(1), "it comes back with the lock");
    assert_eq!(wait_fn(&waiter, &mut |_| panic!("there is nothing to wait for")), Ok(()));
}

#[test]
fn a_waiter_sleeps_without_the_lock_of_its_own() {
    assert_sleeps_without_its_lock(|folio, sleep_fn| folio.wait_idle_with(None, sleep_fn));
}

#[test]
fn a_registration_ends_with_its_folio() {
    let world = world();
    let waiter = folio(world, 0x1000, 0);
    let (pinned, key) = (pin(&waiter), ParkKey::Folio(Pfn::new(0x1000)));
    // It wakes by itself, and leaves its registration.
    world.ops().clock.at(1, move || drop(pinned));
    waiter.wait_unpinned();
    let other = waiter.try_clone().unwrap();
    let mut nr_sleeps = 0;
    // A sleep that is none: the closure may come back at once.
    let waited = waiter.wait_idle_with(Some(1), |_| nr_sleeps += 1);
    assert!(waited.is_err() && nr_sleeps == 0, "the deadline has passed");
    let mut other = Some(other);
    assert_eq!(waiter.wait_idle_with(None, |_| other = None), Ok(()));
    assert_eq!(world.ops().clock.woken(), [(1, key), (1, key)]);
    // The next folio there has a word of its own.
    drop(waiter);
    let next = folio(world, 0x1000, 0);
    drop(next.try_clone().unwrap());
    drop(next);
    assert_eq!(world.ops().clock.woken().len(), 2, "woken for the folio before");
}
