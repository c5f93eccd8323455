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
use crate::pgmap::loom_tests::{BLOCK, Owner, Shared, Unique, with_pgmap};
use crate::pgmap::{AllocError, FolioInfo, FolioKind, PageInfo, Policy};
use crate::sync::models::{executions_up_to, race};
use crate::units::{Order, Pfn};

mod reference;

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

/// A page of a block that is neither its first nor its last.
const INNER: u64 = 77;

/// What a thread has.
#[derive(Default)]
struct Hand {
    refs: Vec<Folio<'static, Owner>>,
    pins: Vec<FolioPin<'static, Owner>>,
    maps: Vec<FolioMap<'static, Owner>>,
    blocks: Vec<Unique>,
}

/// Writes to a folio that is its caller's alone.
fn write(folio: &Unique) {
    folio.pgmap().ops().write(folio.range());
}

impl Hand {
    fn act(&mut self, pgmap: &Shared, op: Op) -> Option<Said> {
        match op {
            Op::GetLow => return Some(self.get(pgmap, INNER)),
            Op::GetHigh => return Some(self.get(pgmap, BLOCK + INNER)),
            Op::Alloc => return Some(self.alloc(pgmap)),
            Op::Split => return self.split(),
            Op::Merge => return self.merge(),
            Op::Put => {
                let folio = self.refs.pop()?;
                pgmap.ops().read(folio.range());
                drop(folio);
            }
            Op::Map => self.maps.push(self.refs.last()?.map(1).unwrap()),
            Op::Pin => self.pins.push(self.refs.last()?.pin(PinKind::Short).unwrap()),
            Op::Unmap => {
                let map = self.maps.pop()?;
                pgmap.ops().read(map.range());
                drop(map);
            }
            Op::Unpin => {
                let pin = self.pins.pop()?;
                pgmap.ops().read(pin.range());
                drop(pin);
            }
            Op::Free => {
                let block = self.blocks.pop()?;
                write(&block);
                block.release();
            }
        }
        Some(Said::Done)
    }

    fn get(&mut self, pgmap: &Shared, pfn: u64) -> Said {
        let Ok(folio) = pgmap.try_get(Pfn::new(pfn)) else { return Said::Refused };
        pgmap.ops().read(folio.range());
        let piece = piece_of(folio.head(), folio.order());
        self.refs.push(folio);
        Said::Got(piece)
    }

    fn alloc(&mut self, pgmap: &Shared) -> Said {
        match pgmap.alloc(Order::BLOCK) {
            Ok(block) => {
                write(&block);
                let head = block.head().as_u64() / BLOCK;
                self.blocks.push(block);
                Said::Block(head)
            }
            Err(AllocError::Exhausted { .. }) => Said::Exhausted,
            Err(AllocError::Contended { .. }) => Said::Refused,
            Err(error) => panic!("{error}"),
        }
    }

    fn split(&mut self) -> Option<Said> {
        self.refs.last().filter(|folio| folio.order() != Order::BLOCK)?;
        let folio = self.refs.pop()?;
        match folio.try_freeze() {
            Ok(folio) => {
                write(&folio);
                let pieces = folio.split(Order::BLOCK).unwrap();
                self.refs.extend(pieces.map(Unique::publish));
                Some(Said::Done)
            }
            Err(busy) => {
                self.refs.push(busy.folio);
                Some(Said::Refused)
            }
        }
    }

    fn merge(&mut self) -> Option<Said> {
        let place = |head| {
            let is_half = |folio: &Folio<'_, _>| {
                folio.order() == Order::BLOCK && folio.head() == Pfn::new(head)
            };
            self.refs.iter().position(is_half)
        };
        let places = (place(0)?, place(BLOCK)?);
        let is_low_first = places.0 < places.1;
        let (first, second) = (places.0.min(places.1), places.0.max(places.1));
        let mut halves = (self.refs.remove(second), self.refs.remove(first));
        if is_low_first {
            halves = (halves.1, halves.0);
        }
        let (low, high) = match halves.0.try_freeze() {
            Ok(low) => match halves.1.try_freeze() {
                Ok(high) => {
                    write(&low);
                    write(&high);
                    self.refs.push(low.merge(high).unwrap().publish());
                    return Some(Said::Done);
                }
                Err(busy) => (low.publish(), busy.folio),
            },
            Err(busy) => (busy.folio, halves.1),
        };
        let (a, b) = if is_low_first { (low, high) } else { (high, low) };
        self.refs.insert(first, a);
        self.refs.insert(second, b);
        Some(Said::Refused)
    }
}

fn piece_of(head: Pfn, order: Order) -> Piece {
    Piece { head: head.as_u64() / BLOCK, blocks: order.nr_pages() / BLOCK }
}

/// Returns what a block is part of.
fn seen(pgmap: &Shared, block: u64) -> Seen {
    match pgmap.query(Pfn::new(block * BLOCK + INNER)) {
        PageInfo::Free => Seen::Free,
        PageInfo::Folio(FolioInfo { kind: FolioKind::Unique, .. }) => Seen::Held,
        PageInfo::Folio(info @ FolioInfo { kind: FolioKind::Live, .. }) => {
            Seen::Live(piece_of(info.head, info.order), [info.refs, info.pins, info.mappings])
        }
        info => panic!("{info:?}"),
    }
}

/// Gives both threads what they begin with.
fn hands(pgmap: &Shared, start: Start) -> [Hand; 2] {
    let folio = pgmap.alloc(Order::new(10).unwrap()).unwrap();
    let order = if start.concat().contains(&Piece::WHOLE) { folio.order() } else { Order::BLOCK };
    let folios: Vec<_> = folio.split(order).unwrap().map(Unique::publish).collect();
    start.map(|pieces| {
        let is_at = |folio: &&Folio<'_, _>, piece| piece_of(folio.head(), folio.order()) == piece;
        let find = |&piece: &Piece| folios.iter().find(|folio| is_at(folio, piece)).unwrap();
        let refs = pieces.iter().map(|piece| find(piece).try_clone().unwrap()).collect();
        Hand { refs, ..Hand::default() }
    })
}

/// Runs one execution of a program; returns what it came to.
fn run(pgmap: &Arc<Shared>, start: Start, program: [&[Op]; 2]) -> Outcome {
    let [mut a, mut b] = hands(pgmap, start);
    let [ops_a, ops_b] = program.map(<[Op]>::to_vec);
    let act = |hand: &mut Hand, pgmap: &Shared, ops: Vec<Op>| -> Vec<Said> {
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
    Outcome { said: [said_a, said_b], blocks, nr_hooks }
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
            let allowed = World::new(start).outcomes([a, b]);
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
