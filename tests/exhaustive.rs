//! Small worlds, explored in full: every state, and in every state every operation.
//!
//! A state is what the crate's own words say: an explorer builds each of them by claims, and reads
//! it back. The number of states has a closed form (`devfolio::model::expected_states`) and is
//! asserted as an exact number, so a state that cannot be reached is noticed, and so is one that
//! ought not to exist. What succeeds must lead to the state expected, and is undone by further
//! operations; what fails must leave the metadata as it was, to the bit.

#![cfg(not(miri))]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::undocumented_unsafe_blocks,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test may panic; raw forms are taken from the stack of the explorer, each once"
)]

#[path = "exhaustive/counts.rs"]
mod counts;
#[path = "exhaustive/explorer.rs"]
mod explorer;
#[path = "exhaustive/places.rs"]
mod places;
#[path = "exhaustive/shapes.rs"]
mod shapes;

use devfolio::model::{FolioStates, expected_states_of};
use devfolio::{Order, Pfn, PfnRange};
use explorer::{State, World, explore};

const LIVE: State = State::Live { refs: 1, pins: 0, maps: 0 };

fn order(log2_pages: u8) -> Order {
    Order::new(log2_pages).unwrap()
}

/// All live states with up to `most` counts; pins only if there are `kinds` of three.
fn live_states(most: u32, kinds: u32) -> Vec<State> {
    let mut states = Vec::new();
    for refs in 0..=most {
        for maps in 0..=most - refs {
            for pins in 0..=if kinds == 3 { most - refs - maps } else { 0 } {
                if refs + maps + pins > 0 {
                    states.push(State::Live { refs, pins, maps });
                }
            }
        }
    }
    states
}

/// Explores a world and compares the number of its states with the closed form, and with `exact`.
fn assert_explored(world: World, exact: u64) {
    let parked = world.states.iter().filter(|state| !matches!(state, State::Live { .. })).count();
    let folio = FolioStates { parked: parked as u64, live: (world.states.len() - parked) as u64 };
    // In a world whose smallest folio has order u, 2^u pages play the part of one.
    let unit = u32::from(world.unit);
    let range = PfnRange::new(Pfn::new(world.start >> unit), u64::from(world.nr_units)).unwrap();
    assert_eq!(expected_states_of(range, order(18 - world.unit), folio), Some(exact));

    let name = world.name;
    // The first half of the pages decides who explores the rest.
    let explored = std::thread::scope(|scope| {
        let parts = [0, 1].map(|part| {
            let world = world.clone();
            scope.spawn(move || explore(world, part, 2))
        });
        parts.map(|part| part.join().unwrap())
    });
    let explored = explored[0] + explored[1];
    println!(
        "{name}: {} states, {} operations, {} of them refused",
        explored.states, explored.operations, explored.refusals
    );
    assert_eq!(explored.states, exact, "{name}");
}

#[test]
fn sixteen_pages_have_458330_states() {
    let states = vec![LIVE];
    let name = "16 pages, live";
    assert_explored(World { name, start: 0, unit: 0, nr_units: 16, states }, 458_330);
}

#[test]
#[ignore = "long: by .ci/exhaustive"]
fn eight_pages_of_three_kinds_have_132499_states() {
    let states = vec![State::Unique, State::Kept, LIVE];
    let name = "8 pages; unique, kept, live";
    assert_explored(World { name, start: 0x1f8, unit: 0, nr_units: 8, states }, 132_499);
}

#[test]
#[ignore = "long: by .ci/exhaustive"]
fn four_pages_with_up_to_three_counts_have_175580_states() {
    let states = live_states(3, 3);
    let name = "4 pages; up to 3 references, pins, mappings";
    assert_explored(World { name, start: 4, unit: 0, nr_units: 4, states }, 175_580);
}

#[test]
fn four_pages_with_up_to_two_counts() {
    let states = live_states(2, 3);
    let name = "4 pages; up to 2 references, pins, mappings";
    assert_explored(World { name, start: 4, unit: 0, nr_units: 4, states }, 11_890);
}

#[test]
fn eight_pages_of_two_kinds() {
    let states = vec![State::Kept, LIVE];
    let name = "8 pages; kept, live";
    assert_explored(World { name, start: 0x1f8, unit: 0, nr_units: 8, states }, 15_131);
}

#[test]
fn four_pages_of_every_kind() {
    let states = vec![State::Unique, State::Kept, State::Retired, LIVE];
    let name = "4 pages; every kind";
    assert_explored(World { name, start: 8, unit: 0, nr_units: 4, states }, 845);
}

#[test]
fn pages_on_both_sides_of_a_block_border() {
    let states = vec![LIVE, State::Unique];
    let name = "3 + 5 pages around a block border";
    assert_explored(World { name, start: 0x1fd, unit: 0, nr_units: 8, states }, 3 * 11 * 123 * 3);
}

#[test]
fn multi_word_claims_within_a_block() {
    let states = vec![State::Unique, LIVE];
    let name = "a block in folios of order 7 and up";
    assert_explored(World { name, start: 0x400, unit: 7, nr_units: 4, states }, 123);
}

#[test]
fn blocks_of_a_region() {
    let states = vec![State::Unique, LIVE];
    let name = "8 blocks";
    assert_explored(World { name, start: 0x2000, unit: 9, nr_units: 8, states }, 15_131);
}

#[test]
fn blocks_on_both_sides_of_a_region_border() {
    let states = vec![State::Kept, LIVE];
    let name = "2 + 3 blocks around a region border";
    assert_explored(World { name, start: 0x3_fc00, unit: 9, nr_units: 5, states }, 11 * 11 * 3);
}

#[test]
fn whole_regions_in_the_extreme_orders() {
    let states = vec![State::Unique, LIVE];
    let name = "2 regions in folios of order 17 and 18";
    assert_explored(World { name, start: 0x8_0000, unit: 17, nr_units: 4, states }, 121);
}

#[test]
fn the_last_pages_of_space() {
    let states = vec![State::Unique, LIVE];
    let name = "the last 7 pages of space";
    let start = u64::MAX - 6;
    assert_explored(World { name, start, unit: 0, nr_units: 7, states }, 123 * 11 * 3);
}
