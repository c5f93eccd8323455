//! Waiting for the end of a pgmap.

use devfolio::{DrainError, FolioKind, Life, Park, Pfn, StillBusy};

use crate::clock::{World, busy, folio, pin, world};

/// A wait that gives up; nothing may have changed by it.
fn refused(world: World, deadline: u64) -> DrainError {
    let image = world.image();
    let error = world.wait_drained_until(deadline).unwrap_err();
    assert!(world.image() == image, "a wait that gave up has left something");
    error
}

#[test]
fn a_leaked_handle_is_named_at_the_deadline_and_not_before() {
    let world = world();
    let leaked = folio(world, 0x1408, 3);
    let info = leaked.info();
    assert_eq!((info.order.as_u8(), info.refs, info.pins, info.mappings), (3, 1, 0, 0));
    core::mem::forget(leaked);
    assert_eq!(world.kill(), Life::Dying);
    assert_eq!(refused(world, 60), DrainError::Busy(busy(0x1408, info)));
    assert_eq!(world.ops().clock.now(), 60, "neither sooner nor later");
    assert_eq!(world.ops().clock.ends(), []);
    assert_eq!(world.state(), Life::Dying);

    // What comes back in time changes neither the page nor the deadline.
    let world = crate::clock::world();
    let (other, leaked) = (folio(world, 0x1000, 9), folio(world, 0x1408, 3));
    core::mem::forget(leaked);
    world.kill();
    world.ops().clock.at(7, move || drop(other));
    assert_eq!(world.wait_drained_until(60), Err(DrainError::Busy(busy(0x1408, info))));
    assert_eq!(world.ops().clock.now(), 60);
}

#[test]
fn every_count_of_the_folio_in_the_way_is_named() {
    let world = world();
    let folio = folio(world, 0x1000, 9);
    let (_pin, _map) = (pin(&folio), folio.map(512).unwrap());
    let (_clone, _second) = (folio.try_clone().unwrap(), pin(&folio));
    world.kill();
    let DrainError::Busy(StillBusy { pfn, folio: Some(info) }) = refused(world, 1) else {
        panic!("a folio is in the way")
    };
    assert_eq!((pfn, info.refs, info.pins, info.mappings), (Pfn::new(0x1000), 2, 2, 512));
}

#[test]
fn a_kept_folio_is_in_the_way_and_one_in_quarantine_is_not() {
    let world = world();
    folio(world, 0x1000, 0).try_freeze().unwrap().retire();
    folio(world, 0x1004, 2).try_freeze().unwrap().keep();
    world.kill();
    let DrainError::Busy(StillBusy { pfn, folio: Some(info) }) = refused(world, 1) else {
        panic!("a folio is in the way")
    };
    assert_eq!((pfn, info.kind), (Pfn::new(0x1004), FolioKind::Kept));
    world.ops().clock.at(5, move || world.claim_kept(Pfn::new(0x1004)).unwrap().release());
    assert_eq!(world.wait_drained_until(100), Ok(()));
    assert_eq!(world.ops().clock.ends(), [(5, Life::Drained)]);
}

#[test]
fn the_last_folio_ends_the_wait_at_once() {
    let world = world();
    let clock = &world.ops().clock;
    let (first, last) = (folio(world, 0x1000, 9), folio(world, 0x1203, 0));
    let pinned = pin(&last);
    drop(last);
    world.kill();
    clock.at(3, move || drop(first));
    clock.at(11, move || drop(pinned));
    assert_eq!(world.wait_drained_until(100), Ok(()));
    assert_eq!(clock.ends(), [(11, Life::Drained)], "said once, and once it is so");
    assert_eq!(clock.now(), 11);
    // It stays so.
    world.wait_drained();
    assert_eq!(world.wait_drained_until(0), Ok(()));
    assert_eq!((world.kill(), clock.ends().len()), (Life::Drained, 1));
}

#[test]
fn a_wait_without_a_deadline_ends_with_the_last_folio() {
    let world = world();
    let last = folio(world, 0x1600, 9);
    let unique = world.claim(Pfn::new(0x1000), last.order()).unwrap();
    world.ops().clock.at(2, move || assert_eq!(world.kill(), Life::Dying));
    world.ops().clock.at(9, move || drop(last));
    world.ops().clock.at(10, move || unique.retire());
    world.wait_drained();
    assert_eq!(world.ops().clock.ends(), [(10, Life::Drained)]);
}

#[test]
fn a_pgmap_that_nobody_kills_says_so() {
    let world = world();
    assert_eq!(refused(world, 30), DrainError::NotKilled);
    assert_eq!(world.ops().clock.now(), 30, "somebody may kill it meanwhile");
    world.ops().clock.at(31, move || assert_eq!(world.kill(), Life::Drained));
    assert_eq!(world.wait_drained_until(60), Ok(()));
    assert_eq!(world.ops().clock.ends(), [(31, Life::Drained)]);
    let live = crate::clock::world();
    let _folio = folio(live, 0x1000, 0);
    assert_eq!(refused(live, 1), DrainError::NotKilled);
}

#[test]
fn an_idle_pgmap_is_drained_by_its_kill() {
    let world = world();
    assert_eq!(world.kill(), Life::Drained);
    world.wait_drained();
    assert_eq!(world.ops().clock.nr_sleeps(), 0);
    assert_eq!(world.ops().clock.ends(), [(0, Life::Drained)]);
}
