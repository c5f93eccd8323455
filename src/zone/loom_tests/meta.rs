//! Lazy initialisation: what is found through an index or a bit was cleared before.

use super::super::index::Piece;
use super::*;
use crate::meta::{Block, Region};
use crate::sync::Ordering;
use crate::sync::models::{explore_up_to, race, race_of_three};

/// What lent memory may hold.
const DIRT: u64 = 0xdead_beef_dead_beef;

/// Edge `open-table`: weakening either half breaks it.
#[test]
fn lookup_races_with_assignment_of_a_table() {
    explore_up_to(3, || {
        let world = World::bare(0, 512, Tables::Dense, false);
        world.meta.clear_heads();
        world.meta.init_region(Region(0));
        // The only table, 64 lines of words and two of bits, is the last thing in memory.
        let line = &world.lines[world.lines.len() - 66 + 77 / 8];
        line.words()[77 % 8].store(DIRT, Ordering::Relaxed);
        let open_fn = |world: &World| {
            world.meta.assign_table(Block(0)).unwrap();
        };
        let lookup_fn = |world: &World| {
            let Some(table) = world.meta.table_of(Block(0)) else { return };
            assert_eq!(table.word(77).read().raw(), 0, "a word of the last life");
            assert_eq!(table.owner(), Some(Block(0)), "a table without its owner");
        };
        race(&world, open_fn, lookup_fn);
    });
}

/// Edge `init-region`: weakening either half breaks it.
#[test]
fn lookup_races_with_initialisation_of_a_region() {
    explore_up_to(3, || {
        let world = World::bare(0, 1024, Tables::Budget(0), false);
        world.meta.clear_heads();
        world.meta.slot_cell(Block(1)).store(DIRT, Ordering::Relaxed);
        world.meta.index_cell(Block(1)).0.store(DIRT, Ordering::Relaxed);
        let lookup_fn = |world: &World| {
            if world.meta.is_init(Region(0)) {
                assert_eq!(world.meta.slot(Block(1)).read().raw(), 0, "a word of the last life");
                assert!(world.meta.table_of(Block(1)).is_none(), "a table of the last life");
            }
        };
        race(&world, |world| world.meta.init_region(Region(0)), lookup_fn);
    });
}

/// The pool gives every table out once, and no more than there are.
#[test]
fn reservation_races_with_reservations() {
    explore_up_to(3, || {
        let world = World::bare(0, 1536, Tables::Budget(3), true);
        let reserve_fn = |nr| move |world: &World| world.meta.reserve_tables(nr).is_some();
        let (a, b, c) = race_of_three(&world, reserve_fn(2), reserve_fn(2), reserve_fn(1));
        let nr_taken = 2 * u32::from(a) + 2 * u32::from(b) + u32::from(c);
        assert_eq!(world.meta.tables_left(), 3 - nr_taken);
        assert!(a || b || c && world.meta.tables_left() == 2, "{a} {b} {c}");
    });
}

/// Edge `init-region`: a search that is led to a region by a hint, or by the place of a CPU, reads
/// no word of it that it does not know to be cleared.
#[test]
fn search_races_with_initialisation_of_a_region() {
    explore_up_to(2, || {
        let world = World::bare(0, 1024, Tables::Dense, false);
        world.meta.clear_heads();
        // Block 0 seems to have table 1, all of which seems to be free.
        world.meta.index_cell(Block(0)).0.store(2, Ordering::Relaxed);
        let line = &world.lines[world.lines.len() - 2];
        line.words()[0].store(u64::MAX, Ordering::Relaxed);
        let open_fn = |world: &World| {
            world.meta.init_region(Region(0));
            let table = world.meta.assign_table(Block(0)).unwrap();
            world.meta.current(0, 0).store(1, Ordering::Relaxed);
            world.index().open_block(Block(0), table, Piece { bit: 0, order: 0 }, false);
        };
        let (_, got) = race(&world, open_fn, |world| world.claim(0, 0));
        assert_ne!(got, Ok(0), "page 0 was handed out twice");
    });
}
