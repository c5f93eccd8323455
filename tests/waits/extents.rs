//! Waiting for the end of a removal, of one extent of several.

use devfolio::{DrainError, Life, Park, ParkKey, Pfn};

use crate::clock::{World, busy, folio, world};

const FIRST: Pfn = Pfn::new(0x1000);

fn removed() -> World {
    let world = world();
    world.remove_extent(FIRST).unwrap();
    world
}

#[test]
fn a_leaked_handle_is_named_at_the_deadline_of_a_removal() {
    let world = world();
    let leaked = folio(world, 0x1408, 3);
    let info = leaked.info();
    core::mem::forget(leaked);
    assert_eq!(world.remove_extent(FIRST), Ok(Life::Dying));
    let image = world.image();
    let error = world.wait_extent_drained_until(Pfn::new(0x1007), 60);
    assert_eq!(error, Err(DrainError::Busy(busy(0x1408, info))));
    assert_eq!(world.ops().clock.now(), 60, "neither sooner nor later");
    assert!(world.image() == image, "a wait that gave up has left something");
    assert_eq!(world.ops().clock.woken(), []);
}

#[test]
fn the_last_folio_ends_the_wait_for_a_removal_at_once() {
    let world = world();
    let (first, last) = (folio(world, 0x1000, 9), folio(world, 0x1203, 0));
    world.remove_extent(FIRST).unwrap();
    world.ops().clock.at(3, move || drop(first));
    world.ops().clock.at(11, move || drop(last));
    assert_eq!(world.wait_extent_drained(Pfn::new(0x1203)), Ok(()));
    assert_eq!(world.ops().clock.woken(), [(11, ParkKey::ExtentRemoval(FIRST))], "said once");
    assert_eq!(world.wait_extent_drained_until(FIRST, 0), Ok(()), "and it stays so");
    assert_eq!(world.state(), Life::Live, "the pgmap goes on");
}

#[test]
fn whoever_waits_for_a_removal_is_told_that_there_is_none() {
    let world = removed();
    assert_eq!(world.ops().clock.woken(), [(0, ParkKey::ExtentRemoval(FIRST))]);
    let outside = DrainError::Outside { pfn: Pfn::new(1) };
    assert_eq!(world.wait_extent_drained(Pfn::new(1)), Err(outside));
    assert_eq!(world.extent_drained(Pfn::new(1)).unwrap_err(), outside);
    world.restore_extent(FIRST).unwrap();
    assert_eq!(world.wait_extent_drained(FIRST), Err(DrainError::NotKilled));

    let held = folio(world, 0x1000, 9);
    world.remove_extent(FIRST).unwrap();
    world.ops().clock.at(7, || world_restores(world));
    assert_eq!(world.wait_extent_drained(FIRST), Err(DrainError::NotKilled), "called off");
    drop(held);
}

fn world_restores(world: World) {
    world.restore_extent(FIRST).unwrap();
}
