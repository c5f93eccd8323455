//! What the fuzz targets `raw_pfn`, `hook`, `scrub` and `image` run, over noise from fixed seeds.
//!
//! That of `corrupt` is in `tests/corrupt.rs`, since its switch is of the whole process.

#![cfg(not(miri))]
#![allow(clippy::arithmetic_side_effects, clippy::panic, missing_docs, reason = "a test may panic")]

mod noise;

use devfolio::subject;
use noise::Noise;

/// Runs histories of up to `len` bytes of noise.
fn run_all(number: u64, len: usize, run_fn: fn(&[u8]) -> Result<(), String>) {
    for seed in 0..number {
        let mut noise = Noise(seed);
        let nr_bytes = noise.below(len as u64);
        let bytes: Vec<u8> = (0..nr_bytes).map(|_| noise.below(256).to_le_bytes()[0]).collect();
        if let Err(what) = run_fn(&bytes) {
            panic!("seed {seed}: {what}");
        }
    }
}

#[test]
fn any_page_number_has_the_answer_that_the_specification_gives() {
    run_all(10_000, 400, subject::run_raw_pfn);
}

#[test]
fn hooks_that_do_anything_are_called_once_for_each_last_put() {
    run_all(4_000, 300, subject::run_hook);
}

#[test]
fn under_a_scrub_policy_nobody_reads_what_another_one_wrote() {
    run_all(4_000, 500, subject::run_scrub);
}

#[test]
fn an_image_is_read_as_it_was_written_and_a_changed_one_is_sound_or_refused() {
    run_all(1_500, 500, subject::run_image);
}
