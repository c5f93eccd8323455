//! The crate against its specification: noise from fixed seeds, and all short histories.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "a test may panic"
)]

use core::iter::repeat_with;

use arbitrary::{Arbitrary, Unstructured};
use devfolio::model::{Geometry, History, Op, Report};
use devfolio::subject;

/// Bytes that look random and are the same everywhere.
fn noise(seed: u64, nr_bytes: usize) -> Vec<u8> {
    let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    repeat_with(step).take(nr_bytes).collect()
}

/// Adds up what happened, and shows the history that did not go well.
fn run_all(name: &str, histories: impl Iterator<Item = History>) -> Report {
    let (mut total, mut number) = (Report::default(), 0);
    // The interpreter is a thousand times slower.
    for history in histories.take(if cfg!(miri) { 3 } else { usize::MAX }) {
        number += 1;
        let report = subject::run(&history).unwrap_or_else(|divergence| panic!("{divergence}"));
        total.steps += report.steps;
        total.refused += report.refused;
        total.hooks += report.hooks;
    }
    println!("{name}: {number} histories, {total:?}");
    total
}

#[test]
fn noise_agrees_with_the_specification() {
    let total = run_all(
        "noise",
        (0..4000)
            .map(|seed| History::arbitrary(&mut Unstructured::new(&noise(seed, 600))).unwrap()),
    );
    // Noise that is mostly refused would find nothing.
    assert!(cfg!(miri) || total.refused * 3 < total.steps * 2, "{total:?}");
    assert!(cfg!(miri) || total.hooks * 40 > total.steps, "{total:?}");
}

#[test]
fn deep_shapes_agree_with_the_specification() {
    run_all(
        "shapes",
        (0..2000).map(|seed| {
            History::arbitrary_fracture(&mut Unstructured::new(&noise(seed, 400))).unwrap()
        }),
    );
}

/// All histories of that length over an alphabet.
fn all_of(world: &str, letters: &[&str], length: u32) -> impl Iterator<Item = History> {
    let geometry: Geometry = world.parse().unwrap();
    let letters: Vec<Op> = letters.iter().map(|letter| letter.parse().unwrap()).collect();
    (0..letters.len().pow(length)).map(move |mut number| {
        let ops = (0..length).map(|_| {
            let letter = letters[number % letters.len()].clone();
            number /= letters.len();
            letter
        });
        History { geometry: geometry.clone(), ops: ops.collect() }
    })
}

#[test]
fn all_short_histories_of_shapes() {
    let letters = [
        "alloc order=0",
        "alloc order=8",
        "alloc order=9",
        "alloc order=18",
        "claim at=0x3ff order=0",
        "claim at=0x400 order=10",
        "alloc-run pages=513 align=0 within=anywhere direction=down room=20",
        "release token=@0",
        "release token=@255",
        "split token=@0 order=8",
        "split-around token=@0 at=page:0:255 order=0",
        "trim token=@0 span=page:0:1+256",
        "merge token=@0 buddy=@255",
    ];
    // A whole block between two that the ends cut through.
    let world = "geometry max-order=18 slots=1 extent=0x3f8+1032:dense:clean";
    run_all("two whole blocks", all_of(world, &letters, 4));
    // A region and the beginning of the next, with a single table to fracture a block.
    let world = "geometry max-order=18 slots=1 extent=0x0+263168:1:clean";
    run_all("a region and two blocks", all_of(world, &letters, 3));
}

#[test]
fn all_short_histories_of_leases() {
    // Two folios side by side, of which one has a reference more.
    let begin = ["claim at=0x10 order=1", "publish token=@0", "clone token=@0"];
    let then = ["claim at=0x12 order=0", "publish token=@2"];
    let letters = [
        "lease token=@0",
        "lease token=@2",
        "end-lease token=@3",
        "end-lease token=@255",
        "revoke span=0x10+1",
        "revoke span=0x11+2",
        "end-revoke token=@3",
        "end-revoke token=@255",
        "drop-folio token=@0",
    ];
    let begin: Vec<Op> = begin.iter().chain(&then).map(|op| op.parse().unwrap()).collect();
    for policy in ["", "lease-long ", "refuse-long "] {
        let world = format!("geometry max-order=3 slots=1 {policy}extent=0x10+4:dense:dirty");
        let length = if policy.is_empty() { 3 } else { 4 };
        let histories = all_of(&world, &letters, length).map(|mut history| {
            history.ops.splice(0..0, begin.iter().cloned());
            history
        });
        run_all("leases", histories);
    }
}

#[test]
fn all_short_histories_of_holders() {
    // Two extents, of which the one with the higher pages was added first.
    let begin = ["claim at=0x10 order=1", "publish token=@0", "claim at=0x4 order=0"];
    let then = ["publish token=@1"];
    let letters = [
        "attach-holder tighten=refuse",
        "attach-holder tighten=leases",
        "detach-holder",
        "pin token=@0 term=long",
        "pin token=@1 term=short",
        "pin-raw at=0x11 number=1 term=long",
        "unpin token=@255",
        "lease token=@1",
        "poison at=0x11",
        "remove-extent at=0x4",
        "lose-extent at=0x11",
        "kill",
    ];
    let begin: Vec<Op> = begin.iter().chain(&then).map(|op| op.parse().unwrap()).collect();
    for policy in ["", "lease-long ", "refuse-long "] {
        let extents = "extent=0x10+4:dense:dirty extent=0x4+2:dense:clean";
        let world = format!("geometry max-order=3 slots=2 {policy}{extents}");
        let length = if policy.is_empty() { 4 } else { 3 };
        let histories = all_of(&world, &letters, length).map(|mut history| {
            history.ops.splice(0..0, begin.iter().cloned());
            history
        });
        run_all("holders", histories);
    }
}

#[test]
fn all_short_histories_of_old_pins() {
    // Two folios side by side; one has a long-term pin that is older than the holder, and a lease.
    let begin = ["claim at=0x10 order=1", "publish token=@0", "pin token=@0 term=long"];
    let then = ["claim at=0x12 order=0", "publish token=@2", "attach-holder tighten=leases"];
    let letters = [
        "lease token=@0",
        "lease token=@2",
        "convert-pin token=@1",
        "unpin token=@1",
        "end-lease token=@255",
        "pin token=@2 term=short",
        "revoke span=0x11+2",
        "end-revoke token=@255",
        "detach-holder",
        "attach-holder tighten=leases",
    ];
    let begin: Vec<Op> = begin.iter().chain(&then).map(|op| op.parse().unwrap()).collect();
    let world = "geometry max-order=3 slots=1 extent=0x10+4:dense:dirty";
    let histories = all_of(world, &letters, 4).map(|mut history| {
        history.ops.splice(0..0, begin.iter().cloned());
        history
    });
    run_all("old pins", histories);
}

#[test]
fn all_short_histories_of_lives() {
    let letters = [
        "alloc order=3",
        "alloc order=0",
        "publish token=@0",
        "drop-folio token=@255",
        "try-get at=page:0:255",
        "clone token=@0",
        "pin token=@0 term=short",
        "unpin token=@255",
        "map token=@0 number=3",
        "unmap-raw at=page:0:1 number=3",
        "folio-into-raw token=@255",
        "put-raw at=page:0:1 number=1",
        "freeze token=@0 raw=1",
        "close token=@0",
        "keep token=@0",
        "revive at=head:0",
        "set-hook script=keep,publish,alloc:3",
    ];
    let world = "geometry max-order=3 slots=1 extent=0x10+24:dense:dirty";
    run_all("lives", all_of(world, &letters, 4));
    let world = "geometry max-order=3 slots=1 deferred keep-on-drop extent=0x10+8:dense:clean";
    let last = ["reap number=1", "claim-kept at=head:0", "kill", "drain"];
    let letters: Vec<&str> =
        letters.into_iter().skip(2).chain(last).chain(["claim at=0x10 order=3"]).collect();
    run_all("deferred lives", all_of(world, &letters, 3));
}
