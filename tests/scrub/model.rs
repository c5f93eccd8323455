//! Against the specification.

use arbitrary::{Arbitrary, Unstructured};
use devfolio::model::{Geometry, History, Op, ScrubAnswer, ScrubPolicy};
use devfolio::subject;

const POLICIES: [ScrubPolicy; 3] =
    [ScrubPolicy::OnFree, ScrubPolicy::OnAlloc, ScrubPolicy::OnOwnerChange];
const ANSWERS: [ScrubAnswer; 4] =
    [ScrubAnswer::Done, ScrubAnswer::Failed, ScrubAnswer::Later, ScrubAnswer::Same];
/// Extents as (start, pages).
const EXTENTS: [&[(u64, u64)]; 6] =
    [&[(0, 16)], &[(0x1f8, 16)], &[(5, 55), (0x40, 8)], &[(0x200, 1024)], &[(7, 1500)], &[(1, 1)]];

fn noise(seed: u64, nr_bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[4]
    };
    core::iter::repeat_with(step).take(nr_bytes).collect()
}

/// Returns a history of noise in a world that scrubs.
fn history(seed: u64) -> History {
    let bytes = noise(seed, 500);
    let mut history = History::arbitrary(&mut Unstructured::new(&bytes)).unwrap();
    let (which, geometry) = (usize::from(bytes[0]), &mut history.geometry);
    geometry.policy.scrub = POLICIES[which % 3];
    geometry.policy.claim_only &= bytes[1] & 1 == 0;
    // Mostly good ones; the worst owner gives none.
    let nr_answers = usize::from(bytes[2] % 40);
    let any = bytes[3..3 + nr_answers].iter().map(|byte| usize::from(*byte));
    let is_bad = bytes[4] % 8 == 0;
    geometry.answers =
        any.map(|byte| ANSWERS[if is_bad { 1 + byte % 2 } else { byte % 4 }]).collect();
    let mut extents = Vec::new();
    for &(start, nr_pages) in EXTENTS[which / 3 % EXTENTS.len()] {
        let mut single = Geometry::single(start, nr_pages).extents;
        single[0].clean = bytes[5] % 4 == 0;
        extents.append(&mut single);
    }
    geometry.extents = extents;
    history
}

#[test]
fn histories_of_noise_follow_the_specification() {
    replay_noise(0..8_000);
}

#[test]
#[ignore = "long: by .ci/exhaustive"]
fn more_histories_of_noise_follow_the_specification() {
    replay_noise(8_000..12_000);
}

fn replay_noise(seeds: core::ops::Range<u64>) {
    let (mut steps, mut refused) = (0, 0);
    for seed in seeds {
        let history = history(seed);
        match subject::run(&history) {
            Ok(report) => {
                steps += report.steps;
                refused += report.refused;
            }
            Err(divergence) => panic!("seed {seed}: {divergence}"),
        }
    }
    assert!(refused * 3 < steps * 2, "{refused} of {steps} steps are refused");
}

/// What may happen in the small world, one line each.
const STEPS: [&str; 13] = [
    "alloc order=0",
    "alloc order=1",
    "alloc-with order=1 align=0 within=anywhere direction=down content=any down_to=0 node=any",
    "alloc-set pages=3 prefer=1 least=0 within=anywhere direction=up content=any node=any room=4",
    "alloc-run pages=3 align=0 within=anywhere direction=up room=4",
    "claim at=0x0 order=1",
    "claim-range span=0x1+3 room=4",
    "use-magazine order=0 number=2 back=1",
    "release token=@0",
    "drop-unique token=@1",
    "trim token=@0 span=0x1+1",
    "publish token=@0",
    "drop-folio token=@0",
];

/// Runs all sequences of so many steps in a world of four pages, with all sequences of so many
/// answers.
fn explore(policy: ScrubPolicy, nr_steps: u32, nr_answers: u32) {
    let steps: Vec<Op> = STEPS.iter().map(|step| step.parse().unwrap()).collect();
    let mut geometry = Geometry::single(0, 4);
    geometry.policy.scrub = policy;
    let (mut nr_runs, mut hooks) = (0, 0);
    for plan in 0..ANSWERS.len().pow(nr_answers) {
        let digit = |index: u32| plan / ANSWERS.len().pow(index) % ANSWERS.len();
        geometry.answers = (0..nr_answers).map(|index| ANSWERS[digit(index)]).collect();
        for sequence in 0..steps.len().pow(nr_steps) {
            let digit = |index: u32| sequence / steps.len().pow(index) % steps.len();
            let ops = (0..nr_steps).map(|index| steps[digit(index)].clone()).collect();
            let history = History { geometry: geometry.clone(), ops };
            match subject::run_quickly(&history) {
                Ok(report) => hooks += report.hooks,
                Err(divergence) => panic!("{divergence}"),
            }
            nr_runs += 1;
        }
    }
    println!("{policy:?}: {nr_runs} runs, {hooks} calls of the free hook");
}

#[test]
fn all_that_four_pages_can_meet_when_they_are_scrubbed_on_free() {
    explore(ScrubPolicy::OnFree, 3, 2);
}

#[test]
fn all_that_four_pages_can_meet_when_they_are_scrubbed_on_allocation() {
    explore(ScrubPolicy::OnAlloc, 3, 2);
}

#[test]
fn all_that_four_pages_can_meet_when_they_are_scrubbed_on_a_change_of_owner() {
    explore(ScrubPolicy::OnOwnerChange, 3, 2);
}

#[test]
#[ignore = "long: by .ci/exhaustive"]
fn all_that_four_pages_can_meet_with_one_answer_more() {
    POLICIES.into_iter().for_each(|policy| explore(policy, 3, 3));
}
