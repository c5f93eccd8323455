//! Hints against what they point at.

use super::super::hints::Mask;
use super::super::index::Piece;
use super::super::line;
use super::*;
use crate::meta::{Block, Region, RegionLine, RootMap, Table};
use crate::sync::Ordering;
use crate::sync::models::{explore_up_to, race};

/// The only block, or the first one, of an extent that starts at page 0.
const BLOCK: Block = Block(0);

impl World {
    fn table(&self) -> Table<'_> {
        self.meta.table_of(BLOCK).unwrap()
    }

    fn lower(&self, order: u8) {
        self.index().lower_block(BLOCK, self.table(), order);
    }

    /// Frees the first page, takes it if it is still there, and frees it again.
    fn free_twice(&self) {
        self.free(0, 0);
        if line::take(self.table().free(), 0, 0) == line::Claim::Got(0) {
            self.free(0, 0);
        }
    }

    fn is_hinted_in_region(&self, order: u8) -> bool {
        let (region, bit) = self.meta.geometry().place(BLOCK);
        let hints = self.meta.region(region, RegionLine::Hint(order));
        line::word(hints, 0) >> bit & 1 == 1
    }

    fn is_hinted_in_root(&self, order: u8) -> bool {
        let (word, bit) = self.meta.root_bit(RootMap::Hint(order), Region(0));
        word.load(Ordering::Relaxed) & bit != 0
    }
}

/// Edge `free-look`: a free and a search that finds nothing and lowers the hints, of the block and
/// of the region. Weakening any of the four fences breaks it.
#[test]
fn free_races_with_a_failing_search() {
    explore_up_to(3, || {
        let world = World::new(0, 2, Tables::Dense);
        world.claim_at(0, 1).unwrap();
        let ((), found) = race(&world, |world| world.free(0, 0), |world| world.claim(0, 0));
        if found == Ok(0) {
            world.free(0, 0);
        }
        world.assert_at_rest();
    });
}

/// Edge `free-look`: the same for blocks, which are hinted at by the root alone.
#[test]
fn free_of_a_block_races_with_a_failing_search() {
    explore_up_to(3, || {
        let world = World::new(0, 1024, Tables::Budget(0));
        world.claim_at(0, 10).unwrap();
        let ((), found) = race(&world, |world| world.free(0, 9), |world| world.claim(9, 0));
        if found == Ok(0) {
            world.free(0, 9);
        }
        world.assert_at_rest();
    });
}

/// Edges `free-look` and `hint`: a free that finds its order in the mask relies on the bits above,
/// also if somebody lowered one of the two, and somebody raised it, at that moment.
///
/// Lowered in another sequence than they were raised in, mask and bitmap parted company for ever.
#[test]
fn two_frees_race_with_lowering() {
    explore_up_to(3, || {
        let world = World::new(0, 1, Tables::Dense);
        world.claim_at(0, 0).unwrap();
        race(&world, World::free_twice, |world| world.lower(0));
        world.assert_at_rest();
    });
}

/// Edges `free-look` and `hint`: the same with hints that were low to begin with.
///
/// Raised without a look at the count of lowerings, mask and bitmap parted company for ever.
#[test]
fn two_frees_race_with_lowering_again() {
    explore_up_to(4, || {
        let world = World::new(0, 1, Tables::Dense);
        world.claim_at(0, 0).unwrap();
        assert_eq!(world.claim(0, 0), Err(Miss::Exhausted));
        race(&world, World::free_twice, |world| world.lower(0));
        world.assert_at_rest();
    });
}

/// Edge `hint`: who finds its order in the mask can rely on the bits above. Weakening the release
/// of the exchange that raised it, or the acquire of the look, breaks it.
#[test]
fn raise_races_with_raise() {
    explore_up_to(3, || {
        let world = World::new(0, 2, Tables::Dense);
        world.claim_at(0, 1).unwrap();
        assert_eq!(world.claim(0, 0), Err(Miss::Exhausted));
        assert!(!world.is_hinted_in_region(0) && !world.is_hinted_in_root(0));
        let raise_fn = |world: &World| {
            world.index().raise_block(BLOCK, world.table(), 1);
            assert!(world.is_hinted_in_region(0), "in the mask, but not above it");
            assert!(world.is_hinted_in_root(0), "in the mask, but not at the root");
        };
        race(&world, raise_fn, raise_fn);
    });
}

/// Edge `hint`: who misses its order in the mask sees the bit above lowered, and so raises it
/// after that. Weakening the release of the lowering breaks it, or the acquire of the look.
#[test]
fn raise_races_with_lowering() {
    explore_up_to(3, || {
        let world = World::new(0, 2, Tables::Dense);
        world.claim_at(0, 1).unwrap();
        assert!(world.is_hinted_in_region(0), "nobody has looked yet");
        let raise_fn = |world: &World| {
            Mask::of_block(world.table()).raise(1, |_| {
                assert!(!world.is_hinted_in_region(0), "raised before it is lowered");
            });
        };
        race(&world, raise_fn, |world| world.lower(0));
    });
}

/// Edge `free-look`: a block is opened that a search finds empty, with hints of an earlier life.
/// Weakening the fence behind the free bits of the opened block breaks it.
#[test]
#[ignore = "a minute or more: by .ci/loom --all"]
fn opening_races_with_a_failing_search() {
    explore_up_to(1, || {
        let world = World::new(0, 512, Tables::Dense);
        // Opened and merged: the hints of all orders stand.
        world.claim_at(0, 0).unwrap();
        world.free(0, 0);
        race(&world, |world| world.claim_at(0, 0).unwrap(), |world| world.lower(3));
        world.assert_at_rest();
    });
}

/// Edge `free-look`: the same for a region.
#[test]
fn opening_a_region_races_with_a_failing_search() {
    explore_up_to(2, || {
        let world = World::new(0, 1 << 18, Tables::Budget(0));
        world.claim_at(0, 9).unwrap();
        world.free(0, 9);
        let lower_fn = |world: &World| world.index().lower_region(Region(0), 12);
        race(&world, |world| world.claim_at(0, 9).unwrap(), lower_fn);
        world.assert_at_rest();
    });
}

/// A free whose first page is taken before it has looked around: what is left of it is hinted at.
///
/// The steps are fixed, since loom lets the look of the one hide the exchange of the other.
#[test]
fn part_of_a_free_is_taken_before_its_look() {
    // Its first page, and another one of that half.
    for taken in [0, 3] {
        explore_up_to(1, move || {
            let world = World::new(0, 8, Tables::Dense);
            world.claim_at(0, 3).unwrap();
            for order in 0..3 {
                assert_eq!(world.claim(order, 0), Err(Miss::Exhausted));
            }
            let freed = line::free(world.table().free(), 0, 3);
            world.claim_at(taken, 0).unwrap();
            let piece = Piece { bit: 0, order: 3 };
            world.index().settle_block(BLOCK, world.table(), piece, freed);
            world.assert_at_rest();
            assert_eq!(world.claim(2, 1), Ok(4), "half of it is free");
        });
    }
}

/// The same for blocks.
#[test]
fn part_of_a_free_of_blocks_is_taken_before_its_look() {
    explore_up_to(1, || {
        let world = World::new(0, 1024, Tables::Budget(0));
        world.claim_at(0, 10).unwrap();
        for order in [9, 10] {
            assert_eq!(world.claim(order, 0), Err(Miss::Exhausted));
        }
        let freed = line::free(world.meta.region(Region(0), RegionLine::Free), 0, 1);
        world.claim_at(0, 9).unwrap();
        world.index().settle_region(Region(0), Piece { bit: 0, order: 1 }, freed);
        world.assert_at_rest();
        assert_eq!(world.claim(9, 1), Ok(512));
    });
}
