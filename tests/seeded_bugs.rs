//! The oracle has teeth: every fault that can be seeded is found, from nothing and in time.
//!
//! Built under `cfg(seeded_bugs)` only; `.ci/seeded` runs it and shows the table.

#![cfg(seeded_bugs)]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    missing_docs,
    reason = "a test may panic"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Unstructured};
use devfolio::model::{Divergence, Geometry, History, Report};
use devfolio::{seeded, subject};

/// How long the oracle may take for one fault.
const LIMIT: Duration = Duration::from_secs(10);
/// From where the noise starts, one run each.
const SEEDS: [u64; 3] = [1, 2, 3];

/// Faults of the list that no history shows, since none sleeps, and what `.ci/seeded-concurrent`
/// calls them, where models of two threads find them.
const ABSENT: &[(&str, &str)] = &[
    ("wake before the verdict", "takes a waiter that sleeps: WakesBeforeVerdict"),
    ("waiter's re-check missing", "takes a waiter that sleeps: LostWakeUp, RangeLooksOnce"),
];

fn noise(seed: u64, nr_bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(step).take(nr_bytes).collect()
}

/// Gives a history extents of one page each that touch each other.
fn touch(history: &mut History) {
    let mut extents = Geometry::single(0x400, 1).extents;
    extents.extend(Geometry::single(0x401, 1).extents);
    history.geometry.extents = extents;
}

/// How a history is run: as in the tests, with a look after every step, or as a fuzzer does.
type Run = fn(&History) -> Result<Report, Divergence>;
const RUNS: [(&str, Run); 2] = [("every step", subject::run), ("few looks", subject::run_quickly)];

/// Runs one history of noise; true if the oracle objects.
fn objects(seed: u64, turn: u64, run: Run) -> bool {
    let bytes = noise(seed.wrapping_mul(1 << 40).wrapping_add(turn), 600);
    let mut noise = Unstructured::new(&bytes);
    let history = match turn % 3 {
        0 => History::arbitrary(&mut noise),
        1 => History::arbitrary_fracture(&mut noise),
        _ => History::arbitrary_extents(&mut noise),
    };
    let Ok(mut history) = history else { return false };
    if turn % 5 == 0 {
        touch(&mut history);
    }
    // An assertion of the crate that fails is an objection, too.
    !matches!(catch_unwind(AssertUnwindSafe(|| run(&history).is_ok())), Ok(true))
}

/// Runs one history of mappings; true if the flat model objects.
fn mapping_objects(seed: u64, turn: u64) -> bool {
    let bytes = noise(seed.wrapping_mul(1 << 40).wrapping_add(turn), 700);
    !matches!(catch_unwind(|| subject::run_mapping(&bytes).is_ok()), Ok(true))
}

/// Runs one history of dynamic capacity; true if its rules object.
fn rules_object(seed: u64, turn: u64) -> bool {
    let bytes = noise(seed.wrapping_mul(1 << 40).wrapping_add(turn), 700);
    !matches!(catch_unwind(|| subject::run_capacity(&bytes).is_ok()), Ok(true))
}

/// Runs one history of flipped bits; true if it panics.
fn flips_object(seed: u64, turn: u64) -> bool {
    let bytes = noise(seed.wrapping_mul(1 << 40).wrapping_add(turn), 500);
    !matches!(catch_unwind(|| subject::run_corrupt(&bytes).is_ok()), Ok(true))
}

/// Runs one history of any page numbers; true if an oracle objects.
fn pages_object(seed: u64, turn: u64) -> bool {
    let bytes = noise(seed.wrapping_mul(1 << 40).wrapping_add(turn), 500);
    !matches!(catch_unwind(|| subject::run_raw_pfn(&bytes).is_ok()), Ok(true))
}

/// Runs one history of hooks that do anything; true if their ledger objects.
fn ledger_objects(seed: u64, turn: u64) -> bool {
    let bytes = noise(seed.wrapping_mul(1 << 40).wrapping_add(turn), 300);
    !matches!(catch_unwind(|| subject::run_hook(&bytes).is_ok()), Ok(true))
}

/// Runs one history of marks in memory; true if somebody objects to what it finds.
fn marks_object(seed: u64, turn: u64) -> bool {
    let bytes = noise(seed.wrapping_mul(1 << 40).wrapping_add(turn), 500);
    !matches!(catch_unwind(|| subject::run_scrub(&bytes).is_ok()), Ok(true))
}

/// Makes plans for one world; true if the oracle of plans objects.
fn plans_object(seed: u64, turn: u64) -> bool {
    let bytes = noise(seed.wrapping_mul(1 << 40).wrapping_add(turn), 300);
    !matches!(catch_unwind(|| subject::run_plan(&bytes).is_ok()), Ok(true))
}

/// Runs one history of images; true if something is wrong.
fn images_object(seed: u64, turn: u64) -> bool {
    let bytes = noise(seed.wrapping_mul(1 << 40).wrapping_add(turn), 500);
    !matches!(catch_unwind(|| subject::run_image(&bytes).is_ok()), Ok(true))
}

/// Returns after how many histories, and when, an oracle objects.
fn hunt(objects_fn: impl Fn(u64) -> bool) -> Option<(u64, Duration)> {
    let start = Instant::now();
    let mut turn = 0;
    while start.elapsed() < LIMIT {
        if objects_fn(turn) {
            return Some((turn + 1, start.elapsed()));
        }
        turn += 1;
    }
    None
}

fn show(hunts: [Option<(u64, Duration)>; 3]) -> String {
    let shown = hunts.map(|hunt| match hunt {
        Some((turns, time)) => format!("{turns:>6} histories {:>7.3} s", time.as_secs_f64()),
        None => "missed".into(),
    });
    shown.join(" | ")
}

/// Demands that an oracle objects to each bug of a list, and never without one.
fn find_all(oracle: &str, bugs: &[(seeded::Bug, &str)], objects_fn: impl Fn(u64, u64) -> bool) {
    std::panic::set_hook(Box::new(|_| {}));
    seeded::activate(0);
    for turn in 0..300 {
        assert!(!objects_fn(1, turn), "the {oracle} objects to the crate as it is");
    }
    let mut missed = Vec::new();
    for (bug, text) in bugs {
        seeded::activate_bug(*bug);
        let hunts = SEEDS.map(|seed| hunt(|turn| objects_fn(seed, turn)));
        println!("{bug:?}: {text}\n    {oracle:<10} {}", show(hunts));
        if hunts.iter().any(Option::is_none) {
            missed.push(bug);
        }
    }
    seeded::activate(0);
    assert!(missed.is_empty(), "missed: {missed:?}");
}

#[test]
fn every_seeded_bug_of_mappings_is_found_in_time() {
    find_all("flat model", seeded::Bug::MAPPING, mapping_objects);
}

#[test]
fn every_seeded_bug_of_capacity_is_found_in_time() {
    find_all("rules", seeded::Bug::CAPACITY, rules_object);
}

#[test]
fn every_seeded_bug_of_corrupt_metadata_is_found_in_time() {
    find_all("flips", seeded::Bug::CORRUPT, flips_object);
}

#[test]
fn every_seeded_bug_of_images_is_found_in_time() {
    find_all("images", seeded::Bug::IMAGE, images_object);
}

#[test]
fn every_seeded_bug_of_plans_is_found_in_time() {
    find_all("plans", seeded::Bug::PLAN, plans_object);
}

#[test]
fn every_seeded_bug_of_any_page_number_is_found_in_time() {
    find_all("pages", seeded::Bug::RAW_PFN, pages_object);
}

#[test]
fn every_seeded_bug_of_hooks_is_found_in_time() {
    find_all("ledger", seeded::Bug::HOOK, ledger_objects);
}

#[test]
fn every_seeded_bug_of_scrub_policies_is_found_in_time() {
    find_all("marks", seeded::Bug::SCRUB, marks_object);
}

#[test]
fn every_seeded_bug_is_found_in_time() {
    for (name, run) in RUNS {
        find_all(name, seeded::Bug::ALL, |seed, turn| objects(seed, turn, run));
    }
    for (text, why) in ABSENT {
        println!("absent: {text}: {why}");
    }
}
