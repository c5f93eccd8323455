//! Waiting for pages that go back to the device, while the rest of their extent stays.

use devfolio::{DrainError, Life, Park, ParkKey, Pfn, PfnRange};

use crate::clock::{busy, folio, world};
use crate::world::range;

const KEY: ParkKey = ParkKey::Offline(Pfn::new(0x1000));

/// Some pages in the middle.
fn given() -> PfnRange {
    range(0x1400, 16)
}

#[test]
fn a_leaked_handle_is_named_at_the_deadline_of_pages_that_leave() {
    let world = world();
    let (elsewhere, leaked) = (folio(world, 0x1410, 0), folio(world, 0x1408, 3));
    let info = leaked.info();
    core::mem::forget(leaked);
    assert_eq!(world.offline(given()), Ok(Life::Dying));
    let (image, nr_woken) = (world.image(), world.ops().clock.woken().len());
    assert_eq!(
        world.wait_offline_until(given(), 60),
        Err(DrainError::Busy(busy(0x1408, info))),
        "its holder, and not that of the page behind"
    );
    assert_eq!(world.ops().clock.now(), 60, "neither sooner nor later");
    assert!(world.image() == image, "a wait that gave up has left something");
    assert_eq!(world.ops().clock.woken().len(), nr_woken);
    // Whoever asks once more has the same answer, at once.
    assert_eq!(world.wait_offline_until(given(), 7), Err(DrainError::Busy(busy(0x1408, info))));
    assert_eq!(world.ops().clock.now(), 60);
    drop(elsewhere);
}

#[test]
fn the_last_page_ends_the_wait_for_pages_that_leave_at_once() {
    let world = world();
    let (first, last) = (folio(world, 0x1400, 2), folio(world, 0x140f, 0));
    assert_eq!(world.offline(given()), Ok(Life::Dying));
    world.ops().clock.at(3, move || drop(first));
    world.ops().clock.at(11, move || drop(last));
    assert_eq!(world.wait_offline_until(given(), 60), Ok(()));
    assert_eq!(world.ops().clock.now(), 11);
    assert_eq!(world.ops().clock.woken().last(), Some(&(11, KEY)));
    assert_eq!(world.wait_offline(given()), Ok(()), "and it stays so");
    assert_eq!(world.extent_state(Pfn::new(0x1000)), Some(Life::Live), "the rest goes on");
}

#[test]
fn whoever_waits_for_pages_is_told_that_they_stay() {
    let world = world();
    let outside = DrainError::Outside { pfn: Pfn::new(0x17ff) };
    assert_eq!(world.wait_offline(range(0x17ff, 2)), Err(outside), "no extent has both");
    assert_eq!(world.offline_drained(range(0x17ff, 2)).unwrap_err(), outside);
    assert_eq!(world.wait_offline(given()), Err(DrainError::NotKilled));

    let held = folio(world, 0x1400, 4);
    assert_eq!(world.offline(given()), Ok(Life::Dying));
    world.ops().clock.at(7, move || world.online(range(0x1403, 1)).unwrap());
    assert_eq!(world.wait_offline(given()), Err(DrainError::NotKilled), "called off, in part");
    assert_eq!(world.ops().clock.now(), 7);
    drop(held);
}
