//! What a program may come to: every operation is one step, and nothing is known of words or bits.
//!
//! The world is three blocks: two that a folio of order 10, or its two halves, may have, and one
//! more. A thread has what its operations gave it. Also part of the fuzz target `sched`.

use std::collections::{BTreeMap, BTreeSet};
use std::vec;
use std::vec::Vec;

/// The blocks of the world.
pub(super) const BLOCKS: u64 = 3;

/// One operation; it acts on what its thread got last.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Op {
    /// Finds the folio of the first block by one of its pages.
    GetLow,
    /// Finds the folio of the second block by one of its pages.
    GetHigh,
    /// Drops a reference.
    Put,
    /// Freezes the folio of two blocks, splits it, and publishes the halves.
    Split,
    /// Freezes both halves, merges them, and publishes the folio.
    Merge,
    Map,
    Unmap,
    Pin,
    Unpin,
    /// Takes a block, exclusively.
    Alloc,
    /// Releases a block that was never published.
    Free,
}

impl Op {
    /// Returns the same operation where low is high and high is low.
    pub(super) const fn mirrored(self) -> Self {
        match self {
            Self::GetLow => Self::GetHigh,
            Self::GetHigh => Self::GetLow,
            other => other,
        }
    }

    /// Returns whether it makes others miss a folio, if only for a moment.
    const fn stirs(self) -> bool {
        matches!(self, Self::Put | Self::Split | Self::Merge | Self::Unmap | Self::Unpin)
    }
}

/// The answer to an operation.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Said {
    /// Its thread had nothing that it could act on.
    Idle,
    Done,
    /// A reference to this folio.
    Got(Piece),
    /// This block.
    Block(u64),
    /// Nothing was changed.
    Refused,
    /// No block is free.
    Exhausted,
}

/// A folio's place: its first block, and how many they are.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Piece {
    pub(super) head: u64,
    pub(super) blocks: u64,
}

impl Piece {
    pub(super) const WHOLE: Self = Self { head: 0, blocks: 2 };
    pub(super) const LOW: Self = Self { head: 0, blocks: 1 };
    pub(super) const HIGH: Self = Self { head: 1, blocks: 1 };

    const fn has(self, block: u64) -> bool {
        self.head <= block && block - self.head < self.blocks
    }
}

/// References, pins and mappings.
pub(super) type Counts = [u32; 3];

const REFS: usize = 0;
const PINS: usize = 1;
const MAPS: usize = 2;

/// What a block is part of when everything is over.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Seen {
    Free,
    Held,
    Live(Piece, Counts),
}

/// What one run of a program came to.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Outcome {
    pub(super) said: Vec<Vec<Said>>,
    pub(super) blocks: [Seen; BLOCKS as usize],
    /// How often the owner's hook ran.
    pub(super) nr_hooks: u64,
}

/// What a thread has: folios it holds counts of, and blocks of its own.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
struct Hand {
    counts: [Vec<Piece>; 3],
    blocks: Vec<u64>,
}

/// Everything, between two operations.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct World {
    live: BTreeMap<Piece, Counts>,
    held: BTreeSet<u64>,
    nr_hooks: u64,
    hands: Vec<Hand>,
}

impl World {
    /// A world in which each thread begins with references to these folios.
    pub(super) fn new(hands: &[&[Piece]]) -> Self {
        let mut world = Self { hands: vec![Hand::default(); hands.len()], ..Self::default() };
        for (thread, pieces) in hands.iter().enumerate() {
            pieces.iter().for_each(|&piece| world.count(thread, REFS, piece));
        }
        world
    }

    fn count(&mut self, thread: usize, kind: usize, piece: Piece) {
        self.live.entry(piece).or_default()[kind] += 1;
        self.hands[thread].counts[kind].push(piece);
    }

    /// Drops a count; the last one of all ends the folio.
    fn uncount(&mut self, thread: usize, kind: usize) -> Option<()> {
        let piece = self.hands[thread].counts[kind].pop()?;
        let counts = self.live.get_mut(&piece)?;
        counts[kind] -= 1;
        if *counts == [0; 3] {
            self.live.remove(&piece);
            self.nr_hooks += 1;
        }
        Some(())
    }

    /// Takes a reference out of a thread's hand, if it is the only count of its folio.
    fn take_only(&mut self, thread: usize, piece: Piece) -> bool {
        if self.live.get(&piece) != Some(&[1, 0, 0]) {
            return false;
        }
        self.live.remove(&piece);
        self.hands[thread].counts[REFS].retain(|&other| other != piece);
        true
    }

    fn is_free(&self, block: u64) -> bool {
        !self.held.contains(&block) && self.live.keys().all(|piece| !piece.has(block))
    }

    /// Does an operation on behalf of a thread; returns all that may become of it.
    ///
    /// `is_stirred` says whether another thread ever reshapes a folio, or lets go of one.
    pub(super) fn step(&self, thread: usize, op: Op, is_stirred: bool) -> Vec<(Said, Self)> {
        let mut next = self.clone();
        let last = self.hands[thread].counts[REFS].last().copied();
        let said = match op {
            Op::GetLow => return self.get(thread, 0, is_stirred),
            Op::GetHigh => return self.get(thread, 1, is_stirred),
            Op::Alloc => return self.alloc(thread),
            Op::Put => next.uncount(thread, REFS).map(|()| Said::Done),
            Op::Unpin => next.uncount(thread, PINS).map(|()| Said::Done),
            Op::Unmap => next.uncount(thread, MAPS).map(|()| Said::Done),
            Op::Pin | Op::Map => last.map(|piece| {
                next.count(thread, if op == Op::Pin { PINS } else { MAPS }, piece);
                Said::Done
            }),
            Op::Split => last.filter(|&piece| piece == Piece::WHOLE).map(|whole| {
                if !next.take_only(thread, whole) {
                    return Said::Refused;
                }
                next.count(thread, REFS, Piece::LOW);
                next.count(thread, REFS, Piece::HIGH);
                Said::Done
            }),
            Op::Merge => self.has_halves(thread).then(|| {
                let is_alone = [Piece::LOW, Piece::HIGH]
                    .iter()
                    .all(|half| self.live.get(half) == Some(&[1, 0, 0]));
                if !is_alone {
                    return Said::Refused;
                }
                next.take_only(thread, Piece::LOW);
                next.take_only(thread, Piece::HIGH);
                next.count(thread, REFS, Piece::WHOLE);
                Said::Done
            }),
            Op::Free => next.hands[thread].blocks.pop().map(|block| {
                next.held.remove(&block);
                Said::Done
            }),
        };
        vec![(said.unwrap_or(Said::Idle), next)]
    }

    fn has_halves(&self, thread: usize) -> bool {
        let refs = &self.hands[thread].counts[REFS];
        refs.contains(&Piece::LOW) && refs.contains(&Piece::HIGH)
    }

    /// A get may miss what another thread reshapes or lets go of, but not what its own holds.
    fn get(&self, thread: usize, block: u64, is_stirred: bool) -> Vec<(Said, Self)> {
        let Some(&piece) = self.live.keys().find(|piece| piece.has(block)) else {
            return vec![(Said::Refused, self.clone())];
        };
        let mut next = self.clone();
        next.count(thread, REFS, piece);
        let mut all = vec![(Said::Got(piece), next)];
        let is_own = self.hands[thread].counts.iter().flatten().any(|&own| own == piece);
        if is_stirred && !is_own {
            all.push((Said::Refused, self.clone()));
        }
        all
    }

    /// Any free block will do; contention is no answer to rely on, exhaustion is.
    fn alloc(&self, thread: usize) -> Vec<(Said, Self)> {
        let mut all = vec![(Said::Refused, self.clone())];
        for block in (0..BLOCKS).filter(|&block| self.is_free(block)) {
            let mut next = self.clone();
            next.held.insert(block);
            next.hands[thread].blocks.push(block);
            all.push((Said::Block(block), next));
        }
        if all.len() == 1 {
            all.push((Said::Exhausted, self.clone()));
        }
        all
    }

    fn seen(&self, block: u64) -> Seen {
        if self.held.contains(&block) {
            return Seen::Held;
        }
        let found = self.live.iter().find(|(piece, _)| piece.has(block));
        found.map_or(Seen::Free, |(&piece, &counts)| Seen::Live(piece, counts))
    }

    /// Returns what the blocks are part of, and how often the hook ran.
    pub(super) fn end(&self) -> ([Seen; BLOCKS as usize], u64) {
        (core::array::from_fn(|block| self.seen(block as u64)), self.nr_hooks)
    }

    /// Returns all that the threads may come to, whoever does the next operation.
    pub(super) fn outcomes(&self, program: &[&[Op]]) -> BTreeSet<Outcome> {
        let mut all = BTreeSet::new();
        self.run(program, vec![Vec::new(); program.len()], &mut all);
        all
    }

    /// Bounded by the length of the program.
    fn run(&self, program: &[&[Op]], said: Vec<Vec<Said>>, all: &mut BTreeSet<Outcome>) {
        let mut is_over = true;
        for (thread, ops) in program.iter().enumerate() {
            let Some(&op) = ops.get(said[thread].len()) else { continue };
            is_over = false;
            for (answer, next) in self.step(thread, op, is_stirred(program, thread)) {
                let mut said = said.clone();
                said[thread].push(answer);
                next.run(program, said, all);
            }
        }
        if is_over {
            let (blocks, nr_hooks) = self.end();
            all.insert(Outcome { said, blocks, nr_hooks });
        }
    }
}

/// Returns whether any thread but this one reshapes a folio, or lets go of one.
pub(super) fn is_stirred(program: &[&[Op]], thread: usize) -> bool {
    let others = program.iter().enumerate().filter(|&(other, _)| other != thread);
    others.flat_map(|(_, ops)| ops.iter()).any(|op| op.stirs())
}
