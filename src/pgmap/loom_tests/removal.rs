//! Removal: nothing that is in use when a pgmap is said to be drained, and nothing left undrained.

use super::*;
use crate::sync::models::{explore, explore_up_to, race, race_of_three};

/// The device takes its memory back if nobody uses it any more.
fn kill(pgmap: &Shared) -> Life {
    let life = pgmap.kill();
    if life == Life::Drained {
        pgmap.ops().write(pages(0, 2 * BLOCK));
    }
    life
}

/// Checks that a pgmap is dying while `held` is held, and drained afterwards.
fn assert_drained_without(pgmap: &Shared, held: Option<Unique>) {
    if let Some(folio) = held {
        assert_eq!(pgmap.state(), Life::Dying, "drained under somebody's feet");
        assert!(pgmap.try_drain().is_err());
        drop(folio);
    }
    assert_eq!(pgmap.state(), Life::Drained, "nobody noticed the end");
    assert_eq!(pgmap.try_drain(), Ok(()));
}

/// Edge `dying`: an allocation sees the flag, or the scan sees its folio. Weakening the fence of
/// either breaks it.
#[test]
fn alloc_races_with_kill() {
    explore_up_to(4, || {
        with_pgmap(BLOCK, Policy::generic(), |pgmap| {
            let (folio, _) = race(pgmap, alloc, kill);
            assert!(matches!(folio, Ok(_) | Err(AllocError::Dying)), "{folio:?}");
            assert_drained_without(pgmap, folio.ok());
        });
    });
}

/// Edge `dying`: the same where the pages are at hand, and nothing is searched.
#[test]
fn alloc_at_hand_races_with_kill() {
    explore(|| {
        with_pgmap(2 * BLOCK, Policy::generic(), |pgmap| {
            // The region is remembered.
            let held = alloc(pgmap).unwrap();
            let (folio, _) = race(pgmap, alloc, kill);
            assert!(matches!(folio, Ok(_) | Err(AllocError::Dying)), "{folio:?}");
            release(held);
            assert_drained_without(pgmap, folio.ok());
        });
    });
}

/// Edge `dying`: somebody else's release completes the end, and sees what an allocation took that
/// did not see the flag. Weakening the release of the flag, its acquire, or the fence behind that
/// breaks it.
#[test]
fn alloc_races_with_release_and_kill() {
    explore_up_to(2, || {
        with_pgmap(2 * BLOCK, Policy::generic(), |pgmap| {
            let held = alloc(pgmap).unwrap();
            let (folio, (), _) =
                race_of_three(pgmap, alloc, |_| release(held), |pgmap| pgmap.kill());
            assert!(matches!(folio, Ok(_) | Err(AllocError::Dying)), "{folio:?}");
            assert_drained_without(pgmap, folio.ok());
        });
    });
}

/// Edge `dying`: a release sees the flag, or the scan sees its pages; and whoever is told the end
/// is behind all uses. Weakening the acquire of a look at the flag, or the fence behind the scan,
/// breaks it.
#[test]
fn release_races_with_kill() {
    explore(|| {
        with_pgmap(BLOCK, Policy::generic(), |pgmap| {
            let folio = alloc(pgmap).unwrap();
            race(pgmap, |_| release(folio), kill);
            assert_drained_without(pgmap, None);
        });
    });
}

/// Edge `dying`: a third one who sees the end is behind all uses, too. Weakening the release of the
/// last step breaks it, or the acquire of a look at the flag.
#[test]
fn release_races_with_kill_and_a_look() {
    explore_up_to(2, || {
        with_pgmap(BLOCK, Policy::generic(), |pgmap| {
            let folio = alloc(pgmap).unwrap();
            let look = |pgmap: &Shared| {
                if pgmap.state() == Life::Drained {
                    pgmap.ops().write(pages(0, BLOCK));
                }
            };
            race_of_three(pgmap, |_| release(folio), look, |pgmap| pgmap.kill());
            assert_drained_without(pgmap, None);
        });
    });
}

/// Edge `dying`: whoever finds nothing in use is behind all uses, with or without a kill.
#[test]
fn release_races_with_try_drain() {
    explore(|| {
        with_pgmap(BLOCK, Policy::generic(), |pgmap| {
            let folio = alloc(pgmap).unwrap();
            let drain = |pgmap: &Shared| {
                if pgmap.try_drain().is_ok() {
                    pgmap.ops().write(pages(0, BLOCK));
                }
            };
            race(pgmap, |_| release(folio), drain);
        });
    });
}

/// Edge `dying`: a region has no hints, and so no fence but this edge's.
#[test]
fn release_of_a_region_races_with_kill() {
    explore(|| {
        with_pgmap(1 << 18, Policy::generic(), |pgmap| {
            let folio = pgmap.alloc(Order::REGION).unwrap();
            race(pgmap, |_| release(folio), kill);
            assert_drained_without(pgmap, None);
        });
    });
}

/// Two last folios come back at once: one of the two notices the end.
#[test]
fn release_races_with_release_and_kill() {
    explore_up_to(2, || {
        with_pgmap(2 * BLOCK, Policy::generic(), |pgmap| {
            let (a, b) = (alloc(pgmap).unwrap(), alloc(pgmap).unwrap());
            race_of_three(pgmap, |_| release(a), |_| release(b), kill);
            assert_drained_without(pgmap, None);
        });
    });
}

/// Edge `dying`: quarantine counts as gone. Weakening the fence of `park` breaks it.
#[test]
fn retire_races_with_kill() {
    explore(|| {
        with_pgmap(BLOCK, Policy::generic(), |pgmap| {
            let folio = alloc(pgmap).unwrap();
            race(pgmap, |_| folio.retire(), kill);
            assert_drained_without(pgmap, None);
        });
    });
}

/// Edge `dying`: nothing leaves quarantine any more. Weakening the fence of the claim breaks it.
#[test]
fn claim_retired_races_with_kill() {
    explore(|| {
        with_pgmap(BLOCK, Policy::generic(), |pgmap| {
            alloc(pgmap).unwrap().retire();
            let claim = |pgmap: &Shared| {
                let folio = pgmap.claim_retired(Pfn::new(0))?;
                pgmap.ops().write(folio.range());
                Ok(folio)
            };
            let (folio, _) = race(pgmap, claim, kill);
            assert!(matches!(folio, Ok(_) | Err(ReviveError::Dying)), "{folio:?}");
            assert_drained_without(pgmap, folio.ok());
        });
    });
}

/// Both are told the end.
#[test]
fn kill_races_with_kill() {
    explore(|| {
        with_pgmap(BLOCK, Policy::generic(), |pgmap| {
            let both = race(pgmap, |pgmap| pgmap.kill(), |pgmap| pgmap.kill());
            assert_eq!(both, (Life::Drained, Life::Drained));
        });
    });
}

/// Edge `dying`: at its deadline a wait says that the pgmap is drained only where that is so.
#[test]
fn deadline_of_the_end_races_with_alloc_and_kill() {
    explore_up_to(2, || {
        with_pgmap(BLOCK, Policy::generic(), |pgmap| {
            let wait_fn = |pgmap: &Shared| pgmap.wait_drained_until(0);
            let (folio, _, end) =
                race_of_three(pgmap, alloc, |pgmap: &Shared| pgmap.kill(), wait_fn);
            assert!(folio.is_err() || end.is_err(), "drained, and a folio is in use");
        });
    });
}
