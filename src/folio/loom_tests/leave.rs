//! Extents that leave: a pin and a last put that meet the removal.

use super::*;
use crate::folio::CountError;

const FIRST: Pfn = Pfn::new(0);

/// The device takes the extent back if nobody uses it any more.
fn take_back_if_drained(pgmap: &Shared, life: Life) {
    if life == Life::Drained {
        pgmap.ops().write(PfnRange::new(FIRST, 2 * BLOCK).unwrap());
    }
}

/// Checks that the extent has ended, that this was told once, and that its pgmap goes on.
fn assert_ended_once(pgmap: &Shared) {
    assert_freed(pgmap);
    assert_eq!(pgmap.extent_state(FIRST), Some(Life::Drained), "nobody noticed the end");
    assert_eq!(pgmap.ops().nr_extents_ended(), 1, "the end was told");
    assert_eq!(pgmap.state(), Life::Live);
}

/// Edge `dying`: the removal of an extent sees a pin and waits for it, or the pin is refused; once
/// the removal has begun, no pin comes that it could not see.
#[test]
fn pin_races_with_remove_extent() {
    explore_up_to(3, || {
        with_folio(|pgmap, folio| {
            pgmap.ops().share_list();
            let twin = folio.try_clone().unwrap();
            let pin_fn = move |pgmap: &Shared| {
                let pin = folio.pin(PinKind::Short);
                pgmap.ops().read(folio.range());
                drop(folio);
                pin
            };
            let remove_fn = move |pgmap: &Shared| {
                assert_eq!(pgmap.remove_extent(FIRST), Ok(Life::Dying), "under two holders");
                let nr_pins = twin.pincount();
                use_and_drop(twin);
                let life = pgmap.extent_state(FIRST).unwrap();
                take_back_if_drained(pgmap, life);
                (nr_pins, life)
            };
            let (pin, (nr_pins, life)) = race(pgmap, pin_fn, remove_fn);
            match pin {
                Ok(pin) => {
                    assert_eq!(nr_pins, 1, "a pin behind the removal");
                    assert_eq!(life, Life::Dying, "drained under a pin");
                    assert_eq!(pgmap.extent_state(FIRST), Some(Life::Dying));
                    assert_eq!(pgmap.ops().nr_extents_ended(), 0, "told under a pin");
                    pgmap.ops().read(pin.range());
                }
                Err(error) => assert_eq!(error, PinError::Count(CountError::Dying)),
            }
            assert_ended_once(pgmap);
        });
    });
}

/// Edge `dying`: a last put, behind its hook, sees that the extent is leaving, or the scan sees its
/// pages; one of the two says the end, and is behind all uses.
#[test]
fn last_put_races_with_remove_extent() {
    explore_up_to(3, || {
        with_folio(|pgmap, folio| {
            pgmap.ops().share_list();
            let remove_fn = |pgmap: &Shared| {
                take_back_if_drained(pgmap, pgmap.remove_extent(FIRST).unwrap());
            };
            race(pgmap, |_| use_and_drop(folio), remove_fn);
            assert_ended_once(pgmap);
        });
    });
}

/// Two last counts of two kinds: whichever of them is the last one, the removal ends once.
#[test]
fn put_and_unpin_race_with_remove_extent() {
    explore_up_to(2, || {
        with_folio(|pgmap, folio| {
            pgmap.ops().share_list();
            let pin = folio.pin(PinKind::Short).unwrap();
            let unpin_fn = move |pgmap: &Shared| {
                pgmap.ops().read(pin.range());
                drop(pin);
            };
            let remove_fn = |pgmap: &Shared| {
                take_back_if_drained(pgmap, pgmap.remove_extent(FIRST).unwrap());
            };
            race_of_three(pgmap, |_| use_and_drop(folio), unpin_fn, remove_fn);
            assert_ended_once(pgmap);
        });
    });
}
