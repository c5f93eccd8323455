//! Address spaces against the flat ones of the specification, over noise from fixed seeds.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "a test may panic"
)]

#[path = "noise/mod.rs"]
mod noise;

use devfolio::subject::run_mapping;
use noise::Noise;

#[test]
fn histories_of_mappings_agree_with_the_flat_model() {
    let nr = if cfg!(miri) { 2 } else { 4_000 };
    for seed in 1..=nr {
        let mut noise = Noise(seed);
        let bytes: Vec<u8> = (0..700).map(|_| u8::try_from(noise.below(256)).unwrap()).collect();
        if let Err(what) = run_mapping(&bytes) {
            panic!("seed {seed}: {what}");
        }
    }
}
