//! "Exhausted" is not said while free space is in somebody's hands.
//!
//! In each model something that is asked for is free all the time, though not always in sight.

use super::*;
use crate::sync::models::{explore_up_to, race, race_of_three};

/// Edge `mover`: a block is opened by a claim of the one half while somebody searches for the
/// other. Weakening the release fence at the beginning of a move, or the acquire fence behind a
/// search, breaks it.
#[test]
fn search_races_with_opening() {
    explore_up_to(1, || {
        let world = World::new(0, 512, Tables::Dense);
        let (a, b) = race(&world, |world| world.claim(8, 0), |world| world.claim(8, 1));
        for claim in [a, b] {
            match claim {
                Ok(head) => world.free(head, 8),
                Err(miss) => assert_eq!(miss, Miss::Contended, "a half was free all the time"),
            }
        }
        world.assert_at_rest();
    });
}

/// Edge `mover`: a block is merged while somebody searches for a part of it. Weakening the release
/// at the end of a move, or the acquire in front of a search, breaks it.
#[test]
#[ignore = "a minute or more: by .ci/loom --all"]
fn search_races_with_merge() {
    explore_up_to(1, || {
        let world = World::new(0, 512, Tables::Dense);
        world.claim_at(0, 0).unwrap();
        let ((), found) = race(&world, |world| world.free(0, 0), |world| world.claim(8, 1));
        match found {
            Ok(head) => world.free(head, 8),
            Err(miss) => assert_eq!(miss, Miss::Contended, "a half was free all the time"),
        }
        world.assert_at_rest();
    });
}

/// Edge `mover`: a claim by page while its block is opened by somebody else.
#[test]
fn claim_by_page_races_with_opening() {
    explore_up_to(1, || {
        let world = World::new(0, 512, Tables::Dense);
        let (other, claim) =
            race(&world, |world| world.claim(0, 1), |world| world.claim_at(300, 0));
        assert!(matches!(claim, Ok(()) | Err(Miss::Contended)), "{claim:?} of a free page");
        if let Ok(head) = other {
            world.free(head, 0);
        }
        if claim.is_ok() {
            world.free(300, 0);
        }
        world.assert_at_rest();
    });
}

/// Edge `mover`: a claim by page while its block is merged by somebody else.
#[test]
fn claim_by_page_races_with_merge() {
    explore_up_to(2, || {
        let world = World::new(0, 512, Tables::Dense);
        world.claim_at(0, 0).unwrap();
        let ((), claim) = race(&world, |world| world.free(0, 0), |world| world.claim_at(300, 0));
        assert!(matches!(claim, Ok(()) | Err(Miss::Contended)), "{claim:?} of a free page");
        if claim.is_ok() {
            world.free(300, 0);
        }
        world.assert_at_rest();
    });
}

/// Edge `mover`: a free relies on a hint that is being lowered; whoever freed finds its page.
#[test]
fn search_for_what_was_freed_races_with_lowering() {
    explore_up_to(3, || {
        let world = World::new(0, 2, Tables::Dense);
        world.claim_at(0, 1).unwrap();
        let free_and_claim = |world: &World| {
            world.free(0, 0);
            world.claim(0, 0)
        };
        // Takes nothing: it wants two pages, of which one is never free.
        let (claim, found) = race(&world, free_and_claim, |world| world.claim(1, 1));
        assert!(matches!(claim, Ok(0) | Err(Miss::Contended)), "{claim:?} of a free page");
        assert!(found.is_err());
    });
}

/// Edge `mover`: a claim of two words that is undone hides a word for a moment.
#[test]
#[ignore = "a minute or more: by .ci/loom --all"]
fn search_races_with_an_undone_claim() {
    explore_up_to(1, || {
        let world = World::new(0, 128, Tables::Dense);
        let (single, page, wide) = race_of_three(
            &world,
            |world| world.claim_at(64, 0),
            // A page of the first word is free, unless the wide claim gets all of them.
            |world| world.claim(0, 0),
            |world| world.claim(7, 1),
        );
        if wide.is_err() {
            assert!(!matches!(page, Err(Miss::Exhausted)), "63 pages were free all the time");
        } else {
            world.free(0, 7);
        }
        if single.is_ok() {
            world.free(64, 0);
        }
        if let Ok(head) = page {
            world.free(head, 0);
        }
        world.assert_at_rest();
    });
}
