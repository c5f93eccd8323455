//! Flipped bits, exhaustively: every bit of every word of metadata, in every state of small worlds,
//! and then every operation. Whatever comes of it is no panic, and it ends.
//!
//! Of one page, every operation meets every bit of every word, in every state, by `.ci/exhaustive`.
//! Here, and of larger worlds, one in so many pairs of a bit and an operation is tried, other ones
//! in each state, and fewer of words whose pages are not there; with `CORRUPT_ALL=1` all of them
//! (`.ci/corrupt`). Built with `--cfg sched`, each operation may access atomics a limited number of
//! times; a hang is a panic then.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::undocumented_unsafe_blocks,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test may panic; raw forms stand for themselves, as owner data is empty"
)]

#[path = "corrupt/operations.rs"]
mod operations;
#[path = "corrupt/whole.rs"]
mod whole;
#[path = "corrupt/world.rs"]
mod world;

#[cfg(not(miri))]
mod noise;

use devfolio::{Attach, Scrub};
use world::{Fate, World};

/// A world from page 0 on, where all that an order in a word can say is aligned.
const fn world(nr_pages: u64, fates: &'static [Fate]) -> World {
    let (attach, scrub) = (Attach::Zeroed, Scrub::Never);
    let (start, unit, tables, is_leaving, stride, whole) = (0, 0, 1, false, 1, 1);
    World { start, nr_pages, unit, tables, fates, attach, scrub, is_leaving, stride, whole }
}

/// One in so many pairs; all of them in a long run.
fn one_in(stride: u64) -> u64 {
    if std::env::var_os("CORRUPT_ALL").is_some() { 1 } else { stride }
}

#[test]
fn no_bit_of_one_page_of_any_kind_leads_to_a_panic() {
    let stride = if cfg!(miri) { 20_011 } else { one_in(7) };
    World { stride, whole: one_in(7), ..world(1, Fate::ALL) }.try_all(9);
}

#[cfg(not(miri))]
#[test]
#[ignore = "long: by .ci/exhaustive"]
fn no_bit_of_one_page_and_no_operation_is_left_out() {
    world(1, Fate::ALL).try_all(9);
}

#[test]
fn no_bit_of_the_last_page_of_space_leads_to_a_panic() {
    let stride = if cfg!(miri) { 20_011 } else { one_in(211) };
    World { start: u64::MAX, stride, ..world(1, Fate::ALL) }.try_all(9);
}

#[cfg(not(miri))]
#[test]
fn no_bit_of_a_page_whose_words_were_cleared_leads_to_a_panic() {
    World { attach: Attach::Clear, stride: one_in(101), ..world(1, Fate::ALL) }.try_all(9);
}

#[cfg(not(miri))]
#[test]
fn no_bit_of_condemned_pages_leads_to_a_panic() {
    World { stride: one_in(101), ..world(2, Fate::DEFERRED) }.try_all(11);
}

#[cfg(not(miri))]
#[test]
fn no_bit_of_two_pages_of_every_kind_leads_to_a_panic() {
    World { stride: one_in(499), ..world(2, Fate::ALL) }.try_all(88);
}

#[cfg(not(miri))]
#[test]
fn no_bit_of_four_pages_leads_to_a_panic() {
    World { start: 4, stride: one_in(3001), ..world(4, &[Fate::Unique, Fate::Live]) }.try_all(123);
}

#[cfg(not(miri))]
#[test]
fn no_bit_of_blocks_with_one_table_for_all_leads_to_a_panic() {
    let fates = &[Fate::Unique, Fate::Closed, Fate::Offline];
    World { unit: 9, stride: one_in(499), ..world(1024, fates) }.try_all(19);
}

#[cfg(not(miri))]
#[test]
fn no_bit_of_a_whole_region_leads_to_a_panic() {
    let fates = &[Fate::Unique, Fate::Kept, Fate::Live, Fate::Going];
    World { unit: 18, stride: one_in(4999), ..world(1 << 18, fates) }.try_all(5);
}

#[cfg(not(miri))]
#[test]
fn no_bit_of_an_extent_that_leaves_leads_to_a_panic() {
    let fates = &[Fate::Live, Fate::Poisoned, Fate::Going];
    World { is_leaving: true, stride: one_in(211), ..world(2, fates) }.try_all(18);
}

#[cfg(not(miri))]
#[test]
fn no_bit_of_pages_that_are_scrubbed_leads_to_a_panic() {
    let fates = &[Fate::Unique, Fate::Kept, Fate::Live];
    for scrub in [Scrub::OnFree, Scrub::OnAlloc, Scrub::OnOwnerChange] {
        World { scrub, stride: one_in(499), ..world(2, fates) }.try_all(19);
    }
}

/// Replays one history that the fuzz target `corrupt` could draw.
#[cfg(not(miri))]
fn replay(name: &str, bytes: &[u8]) {
    if let Err(what) = devfolio::subject::run_corrupt(bytes) {
        panic!("{name}: {what}");
    }
}

#[cfg(not(miri))]
#[test]
fn histories_with_flipped_bits_end_without_a_panic() {
    for seed in 0..10_000 {
        let mut noise = noise::Noise(seed);
        let nr_bytes = noise.below(400);
        let bytes: Vec<u8> = (0..nr_bytes).map(|_| noise.below(256) as u8).collect();
        replay(&format!("seed {seed}"), &bytes);
    }
}

#[cfg(not(miri))]
#[test]
fn corpus_of_corrupt_is_replayed() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/corrupt");
    let mut nr_inputs = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        replay(&path.display().to_string(), &std::fs::read(&path).unwrap());
        nr_inputs += 1;
    }
    assert_ne!(nr_inputs, 0, "nothing in {folder}");
}
