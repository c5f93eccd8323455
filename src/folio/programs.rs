//! All programs: two threads, every sequence of operations on one folio, every interleaving.
//!
//! What a model's author does not think of is in here. Each program is run by the crate itself,
//! and what it comes to (the answer to each operation, what the blocks are part of at the end,
//! their counts, the hooks) must be among what the reference says about the same operations one
//! after the other, in any order that keeps each thread's own. An operation may fail without
//! effect, where its documentation says so; it never succeeds where the reference could not.
//!
//! The poison of single pages is not built yet, and so not among the operations.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::sync::Mutex;

use super::*;
use crate::pgmap::loom_tests::{BLOCK, Owner, Shared, with_pgmap};
use crate::pgmap::{AllocError, FolioInfo, FolioKind, PageInfo, PgmapCore, PgmapOps};
use crate::pgmap::{Policy, UniqueFolio};
use crate::sync::models::{executions_up_to, race};
use crate::units::{Order, Pfn, PfnRange};

mod hand;
mod reference;

use hand::{Hand, Touch, hands, seen};
use reference::{BLOCKS, Op, Outcome, Piece, Said, Seen, World};

/// What a thread is given: references to these folios.
type Start = [&'static [Piece]; 2];

/// The folio is held by one of the two.
const ALONE: Start = [&[Piece::WHOLE], &[]];
/// The folio is held by both.
const SHARED: Start = [&[Piece::WHOLE], &[Piece::WHOLE]];
/// The folio has been split, and the halves are held by one of the two.
const HALVES: Start = [&[Piece::LOW, Piece::HIGH], &[]];
/// The folio has been split, and each of the two holds a half.
const PARTED: Start = [&[Piece::LOW], &[Piece::HIGH]];

/// Those that change shapes come first, since they are what most goes wrong with.
const ALL: &[Op] = &[
    Op::Split,
    Op::Merge,
    Op::Put,
    Op::GetHigh,
    Op::GetLow,
    Op::Map,
    Op::Unmap,
    Op::Pin,
    Op::Unpin,
    Op::Alloc,
    Op::Free,
];

/// The operations that meet in one word.
const SHAPES: &[Op] = &[Op::GetHigh, Op::Put, Op::Split, Op::Merge];

impl Touch for Owner {
    fn read(&self, pages: PfnRange) {
        Self::read(self, pages);
    }

    fn write(&self, pages: PfnRange) {
        Self::write(self, pages);
    }
}

/// Runs one execution of a program; returns what it came to.
fn run(pgmap: &Arc<Shared>, start: Start, program: [&[Op]; 2]) -> Outcome {
    let both = hands(**pgmap, &start);
    let Ok([mut a, mut b]) = <[Hand<'_, Owner>; 2]>::try_from(both) else { panic!("not two") };
    let [ops_a, ops_b] = program.map(<[Op]>::to_vec);
    let act = |hand: &mut Hand<'static, Owner>, pgmap: &Shared, ops: Vec<Op>| -> Vec<Said> {
        ops.into_iter().map(|op| hand.act(pgmap, op).unwrap_or(Said::Idle)).collect()
    };
    let a_fn = move |pgmap: &Shared| (act(&mut a, pgmap, ops_a), a);
    let b_fn = move |pgmap: &Shared| (act(&mut b, pgmap, ops_b), b);
    let ((said_a, a), (said_b, b)) = race(pgmap, a_fn, b_fn);

    loom::stop_exploring();
    pgmap.check().unwrap();
    let blocks = core::array::from_fn(|block| seen(pgmap, block as u64));
    let nr_free = blocks.iter().filter(|&&block| block == Seen::Free).count() as u64;
    assert_eq!(pgmap.stats().free_pages, nr_free * BLOCK);
    let nr_hooks = pgmap.ops().nr_freed();
    drop((a, b));
    assert_eq!(pgmap.stats().free_pages, BLOCKS * BLOCK, "not all of it came back");
    assert!(pgmap.alloc(Order::new(10).unwrap()).is_ok(), "two buddies were not merged");
    loom::explore();
    Outcome { said: Vec::from([said_a, said_b]), blocks, nr_hooks }
}

/// Returns all sequences of so many operations.
fn sequences(alphabet: &[Op], nr_ops: usize) -> Vec<Vec<Op>> {
    let mut all = Vec::from([Vec::new()]);
    for _ in 0..nr_ops {
        let longer = |ops: &Vec<Op>| {
            let ops = ops.clone();
            alphabet.iter().map(move |&op| [ops.as_slice(), &[op]].concat())
        };
        all = all.iter().flat_map(longer).collect();
    }
    all
}

/// Says which program it was that failed.
struct Running<'a>([&'a [Op]; 2]);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::println!("the program was {:?}", self.0);
        }
    }
}

/// Returns whether a program stands for itself and for the one in which the two have changed
/// places.
fn is_first_of_twins(start: Start, [a, b]: [&Vec<Op>; 2]) -> bool {
    let mirrored = |ops: &[Op]| ops.iter().map(|op| op.mirrored()).collect::<Vec<_>>();
    if start == PARTED {
        (a, b) <= (&mirrored(b), &mirrored(a))
    } else {
        start[0] != start[1] || a <= b
    }
}

/// Runs all programs that begin so; returns how many they are.
///
/// Where some operation never has anything to act upon, what is left is a shorter program.
fn run_all(start: Start, alphabet: &[Op], nr_ops: usize, preemptions: usize) -> usize {
    let sequences = sequences(alphabet, nr_ops);
    let (mut nr_programs, mut nr_outcomes, mut nr_executions) = (0, 0, 0);
    for a in &sequences {
        for b in sequences.iter().filter(|b| is_first_of_twins(start, [a, b])) {
            let allowed = World::new(&start).outcomes(&[a, b]);
            let is_idle = |outcome: &Outcome| outcome.said.concat().contains(&Said::Idle);
            if allowed.iter().all(is_idle) {
                continue;
            }
            nr_programs += 1;
            let _running = Running([a, b]);
            let (ops, met) = ([a.clone(), b.clone()], Arc::new(Mutex::new(BTreeSet::new())));
            let seen = Arc::clone(&met);
            nr_executions += executions_up_to(preemptions, move || {
                with_pgmap(BLOCKS * BLOCK, Policy::generic(), |pgmap| {
                    let outcome = run(pgmap, start, [&ops[0], &ops[1]]);
                    assert!(allowed.contains(&outcome), "{ops:?} came to {outcome:?}");
                    seen.lock().unwrap().insert(outcome);
                });
            });
            nr_outcomes += met.lock().unwrap().len();
        }
    }
    std::println!(
        "{nr_programs} programs of 2 by {nr_ops} operations, {nr_outcomes} outcomes, \
        {nr_executions} executions"
    );
    nr_programs
}

#[test]
fn two_by_two_where_one_holds_the_folio() {
    assert_eq!(run_all(ALONE, ALL, 2, 2), 880);
}

#[test]
fn two_by_two_where_both_hold_the_folio() {
    assert_eq!(run_all(SHARED, ALL, 2, 2), 1181);
}

#[test]
fn two_by_two_where_one_holds_the_halves() {
    assert_eq!(run_all(HALVES, ALL, 2, 2), 846);
}

#[test]
fn two_by_two_where_each_holds_a_half() {
    assert_eq!(run_all(PARTED, ALL, 2, 2), 703);
}

#[test]
fn two_by_three_where_one_holds_the_folio() {
    assert_eq!(run_all(ALONE, SHAPES, 3, 1), 175);
}

#[test]
fn two_by_three_where_both_hold_the_folio() {
    assert_eq!(run_all(SHARED, SHAPES, 3, 2), 227);
}
