//! Claims and frees against each other: nothing twice, nothing lost, everything merged.

use super::*;
use crate::meta::{Region, RootMap};
use crate::sync::models::{Bytes, explore_up_to, race};
use crate::sync::{AtomicU64, Ordering, fence};

/// One page is left, and one of two gets it.
#[test]
fn claim_of_the_last_page_races_with_claim() {
    explore_up_to(3, || {
        let world = World::new(0, 1, Tables::Dense);
        let (a, b) = race(&world, |world| world.claim(0, 0), |world| world.claim(0, 1));
        assert!(a.is_ok() != b.is_ok(), "{a:?} and {b:?}");
        world.free(0, 0);
        world.assert_at_rest();
    });
}

/// Two pages are left; each of two gets one of its own.
#[test]
fn claim_of_a_page_races_with_claim() {
    explore_up_to(3, || {
        let world = World::new(0, 2, Tables::Dense);
        let (a, b) = race(&world, |world| world.claim(0, 0), |world| world.claim(0, 1));
        let mut heads = [a.unwrap(), b.unwrap()];
        heads.sort_unstable();
        assert_eq!(heads, [0, 1]);
        heads.into_iter().for_each(|head| world.free(head, 0));
        world.assert_at_rest();
    });
}

/// Edge `free-look`: two halves of a block are freed at once, and one of the two merges them.
/// Weakening the fence behind the free bits breaks it.
#[test]
fn free_of_a_half_races_with_free_of_the_other() {
    explore_up_to(3, || {
        let world = World::new(0, 512, Tables::Dense);
        world.claim_at(0, 8).unwrap();
        world.claim_at(256, 8).unwrap();
        race(&world, |world| world.free(0, 8), |world| world.free(256, 8));
        assert_eq!(world.claim_at(0, 9), Ok(()), "two buddies were not merged");
        world.free(0, 9);
        world.assert_at_rest();
    });
}

/// Edge `free-look`: the same for a region.
#[test]
fn free_of_half_a_region_races_with_free_of_the_other() {
    explore_up_to(2, || {
        let world = World::new(0, 1 << 18, Tables::Budget(0));
        world.claim_at(0, 17).unwrap();
        world.claim_at(1 << 17, 17).unwrap();
        race(&world, |world| world.free(0, 17), |world| world.free(1 << 17, 17));
        assert_eq!(world.claim_at(0, 18), Ok(()), "two buddies were not merged");
        world.free(0, 18);
        world.assert_at_rest();
    });
}

/// Edge `dying`: a free that merges a region, and a look that misses the region while it is taken,
/// as the scan of a removal does. Weakening the fence behind the bit of the region breaks it.
#[test]
fn free_of_half_a_region_races_with_a_look() {
    explore_up_to(2, || {
        let world = World::new(0, 1 << 18, Tables::Budget(0));
        world.claim_at(0, 17).unwrap();
        let world = Arc::new((world, AtomicU64::new(0)));
        let free_fn = |(world, flag): &(Arc<World>, AtomicU64)| {
            world.free(0, 17);
            flag.load(Ordering::Relaxed) != 0
        };
        let look_fn = |(world, flag): &(Arc<World>, AtomicU64)| {
            flag.store(1, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            let (word, bit) = world.meta.root_bit(RootMap::Free, Region(0));
            word.load(Ordering::Relaxed) & bit != 0
        };
        let (is_flagged, is_free) = race(&world, free_fn, look_fn);
        assert!(is_flagged || is_free, "neither saw the other");
        world.0.assert_at_rest();
    });
}

/// The last page of a block comes back while another one is taken.
#[test]
fn claim_races_with_free_of_the_last_page() {
    explore_up_to(2, || {
        let world = World::new(0, 512, Tables::Dense);
        world.claim_at(0, 0).unwrap();
        let ((), claim) = race(&world, |world| world.free(0, 0), |world| world.claim(0, 1));
        if let Ok(head) = claim {
            world.free(head, 0);
        }
        assert_eq!(world.claim_at(0, 9), Ok(()), "a whole block was not merged");
        world.free(0, 9);
        world.assert_at_rest();
    });
}

/// Edge `free-before-claim`: what was done in a region happens before it is claimed again.
#[test]
fn claim_of_a_region_races_with_free() {
    explore_up_to(2, || {
        let world = Arc::new((World::new(0, 1 << 18, Tables::Budget(0)), Bytes::new()));
        world.0.claim_at(0, 18).unwrap();
        let free_fn = |(world, bytes): &(Arc<World>, Bytes)| {
            bytes.write();
            world.free(0, 18);
        };
        let claim_fn = |(world, bytes): &(Arc<World>, Bytes)| {
            let is_mine = world.claim_at(0, 18).is_ok();
            if is_mine {
                bytes.write();
            }
            is_mine
        };
        let ((), is_mine) = race(&world, free_fn, claim_fn);
        if is_mine {
            world.0.free(0, 18);
        }
        world.0.assert_at_rest();
    });
}

/// Order 8 against two pages in its second word: at most one of the claims that overlap succeeds,
/// and whatever was undone is merged and hinted at in the end.
#[test]
fn claim_of_order_8_races_with_claim_and_free_of_a_page() {
    explore_up_to(2, || {
        let world = World::new(0, 512, Tables::Dense);
        world.claim_at(511, 0).unwrap();
        let claim_and_free = |world: &World| {
            if world.claim_at(64, 0).is_ok() {
                world.free(64, 0);
            }
            // The block may be full from now on, but for what the wide claim has or hides.
            world.free(511, 0);
        };
        let ((), wide) = race(&world, claim_and_free, |world| world.claim_at(0, 8));
        if wide.is_ok() {
            world.free(0, 8);
        }
        assert_eq!(world.claim_at(0, 9), Ok(()), "a whole block was not merged");
        world.free(0, 9);
        world.assert_at_rest();
    });
}

/// Two claims of several words that overlap only in part.
#[test]
fn claim_of_order_7_races_with_claim_of_order_8() {
    explore_up_to(2, || {
        let world = World::new(0, 256, Tables::Dense);
        match race(&world, |world| world.claim(7, 0), |world| world.claim(8, 1)) {
            (Ok(head), Err(_)) => world.free(head, 7),
            (Err(_), Ok(head)) => world.free(head, 8),
            (Err(Miss::Contended), Err(Miss::Contended)) => {}
            both => panic!("{both:?}"),
        }
        world.assert_at_rest();
    });
}

/// Orders 16 and 17, the same one level higher.
#[test]
fn claim_of_order_16_races_with_claim_of_order_17() {
    explore_up_to(2, || {
        let world = World::new(0, 1 << 17, Tables::Budget(0));
        match race(&world, |world| world.claim(16, 0), |world| world.claim(17, 1)) {
            (Ok(head), Err(_)) => world.free(head, 16),
            (Err(_), Ok(head)) => world.free(head, 17),
            (Err(Miss::Contended), Err(Miss::Contended)) => {}
            both => panic!("{both:?}"),
        }
        world.assert_at_rest();
    });
}

/// Order 16 is undone because of a block in its second word; everything merges to a region again.
#[test]
fn claim_of_order_16_races_with_claim_and_free_of_a_block() {
    explore_up_to(2, || {
        let world = World::new(0, 1 << 18, Tables::Budget(0));
        world.claim_at((1 << 18) - 512, 9).unwrap();
        let claim_and_free = |world: &World| {
            if world.claim_at(64 << 9, 9).is_ok() {
                world.free(64 << 9, 9);
            }
            world.free((1 << 18) - 512, 9);
        };
        let ((), wide) = race(&world, claim_and_free, |world| world.claim_at(0, 16));
        if wide.is_ok() {
            world.free(0, 16);
        }
        assert_eq!(world.claim_at(0, 18), Ok(()), "a whole region was not merged");
        world.free(0, 18);
        world.assert_at_rest();
    });
}

/// Two blocks are opened at once: each keeps its own table, and both merge again.
#[test]
fn opening_races_with_opening_of_another_block() {
    explore_up_to(2, || {
        let world = World::new(0, 1024, Tables::Dense);
        let (a, b) = race(&world, |world| world.claim_at(3, 0), |world| world.claim_at(700, 0));
        assert_eq!((a, b), (Ok(()), Ok(())));
        let tables = [0, 1].map(|block| world.meta.table_of(crate::meta::Block(block)).unwrap());
        assert!(tables[0].index() != tables[1].index(), "a table went to two blocks");
        world.free(3, 0);
        world.free(700, 0);
        world.assert_at_rest();
    });
}

/// The last table goes to one of two blocks; the other opening fails and leaves its block whole.
#[test]
fn opening_races_with_opening_for_the_last_table() {
    explore_up_to(2, || {
        let world = World::new(0, 1024, Tables::Budget(1));
        let (a, b) = race(&world, |world| world.claim_at(3, 0), |world| world.claim_at(700, 0));
        let claims = [(3, a), (700, b)];
        assert!(claims.iter().filter(|(_, claim)| claim.is_ok()).count() < 2, "{claims:?}");
        for (head, claim) in claims {
            match claim {
                Ok(()) => world.free(head, 0),
                Err(miss) => assert!(matches!(miss, Miss::NoTables | Miss::Contended)),
            }
        }
        world.assert_at_rest();
    });
}

/// Two pages of one whole block are claimed at once: one of the two opens it for both.
#[test]
fn opening_races_with_opening_of_the_same_block() {
    explore_up_to(2, || {
        let world = World::new(0, 512, Tables::Dense);
        let (a, b) = race(&world, |world| world.claim_at(0, 0), |world| world.claim_at(511, 0));
        for (head, claim) in [(0, a), (511, b)] {
            match claim {
                Ok(()) => world.free(head, 0),
                Err(miss) => assert_eq!(miss, Miss::Contended, "page {head} was free"),
            }
        }
        world.assert_at_rest();
    });
}

/// A search for clean pages that finds a dirty one hides it from nobody.
#[test]
fn search_for_clean_pages_races_with_free_and_claim() {
    explore_up_to(2, || {
        let world = World::bare(0, 1, Tables::Dense, true);
        assert!(world.index().attach(true));
        world.claim_at(0, 0).unwrap();
        let clean_fn = |world: &World| {
            let want = Want::inside(world.range(), Order::ZERO, Order::ZERO, false).unwrap();
            world.index().claim(&want, Content::OnlyClean, 0, true)
        };
        let other_fn = |world: &World| {
            world.free(0, 0);
            world.claim(0, 1)
        };
        let (clean, other) = race(&world, clean_fn, other_fn);
        assert!(clean.is_err(), "the page is dirty");
        assert_ne!(other, Err(Miss::Exhausted), "the page is there: {clean:?}");
    });
}
