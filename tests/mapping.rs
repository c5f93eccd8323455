//! Address spaces against the flat ones of the specification, over noise from fixed seeds.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "a test may panic"
)]

#[path = "noise/mod.rs"]
mod noise;

use devfolio::subject::run_mapping;
use noise::Noise;

/// Steps over a table of two entries a level and two spaces, with a folio of four pages: all that
/// can be done with it, the ends of ranges and the refusals included.
#[test]
fn short_histories_agree_with_the_flat_model() {
    // Two spaces of orders 0, 1, 2 and of 0, 2; one replaces atomically.
    const WORLD: [u8; 7] = [0, 1, 1, 0, 0b110, 1, 0b100];
    const STEPS: &[&[u8]] = &[
        &[0, 0, 1, 2],                   // allocate
        &[0, 2, 1, 0],                   // drop the handle
        &[0, 3, 0, 0, 0, 2, 0],          // map all of it
        &[1, 3, 0, 3, 1, 1, 0, 1, 0, 0], // map a part elsewhere, by base pages
        &[0, 7, 1, 0, 2, 0, 0],          // unmap the front of a leaf
        &[0, 9, 0, 0, 3],                // write-protect everything
        &[0, 10, 0, 0, 0],               // demote to base pages
        &[0, 11, 0, 0],                  // promote
        &[0, 12, 1, 0, 0, 0, 8, 0],      // move a leaf, which overlaps or not
        &[0, 13, 0, 0, 0],               // fork
        &[0, 14, 1, 0, 0, 0, 1],         // store
        &[0, 15, 1, 0, 0, 0, 1, 1],      // pin
        &[0, 16, 1, 0, 0],               // unmap everywhere
        &[0, 17, 0, 0, 0, 0],            // fracture
    ];
    let depth = if cfg!(miri) { 1 } else { 4 };
    let step = |index: usize| {
        let mut step = STEPS[index].to_vec();
        step.resize(12, 0);
        step
    };
    let nr_histories = STEPS.len().pow(depth);
    for number in 0..nr_histories {
        let mut bytes = WORLD.to_vec();
        // Something to work with first.
        bytes.extend(step(0));
        bytes.extend(step(2));
        for place in 0..depth {
            bytes.extend(step(number / STEPS.len().pow(place) % STEPS.len()));
        }
        if let Err(what) = run_mapping(&bytes) {
            panic!("{bytes:?}: {what}");
        }
    }
}

#[test]
fn histories_of_mappings_agree_with_the_flat_model() {
    replay_noise(1..=if cfg!(miri) { 2 } else { 1_000 });
}

#[cfg(not(miri))]
#[test]
#[ignore = "long: by .ci/exhaustive"]
fn more_histories_of_mappings_agree_with_the_flat_model() {
    replay_noise(1_001..=2_500);
}

fn replay_noise(seeds: core::ops::RangeInclusive<u64>) {
    for seed in seeds {
        let mut noise = Noise(seed);
        let bytes: Vec<u8> = (0..900).map(|_| u8::try_from(noise.below(256)).unwrap()).collect();
        if let Err(what) = run_mapping(&bytes) {
            panic!("seed {seed}: {what}");
        }
    }
}
