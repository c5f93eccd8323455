//! Whether the operations of several threads could have happened one after the other.

use std::collections::BTreeSet;

use super::reference::{BLOCKS, Op, Said, Seen, World, is_stirred};

/// An operation and its answer.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    pub op: Op,
    pub said: Said,
    /// When it began and ended, by a clock that all threads share.
    pub begin: u64,
    pub end: u64,
}

/// What the threads did, and what that came to.
#[derive(Debug)]
pub struct History {
    pub done: Vec<Vec<Done>>,
    pub blocks: [Seen; BLOCKS as usize],
    pub nr_hooks: u64,
}

/// How far each thread is, in a world.
type Place = (Vec<usize>, World);

impl History {
    /// Returns whether some sequence of the operations leads from `world` to the same answers and
    /// the same end. What had ended before another operation began is in front of it.
    pub fn is_explained(&self, world: &World) -> bool {
        let ops: Vec<Vec<Op>> =
            self.done.iter().map(|all| all.iter().map(|done| done.op).collect()).collect();
        let ops: Vec<&[Op]> = ops.iter().map(Vec::as_slice).collect();
        let mut todo = vec![(vec![0; self.done.len()], world.clone())];
        let mut met = BTreeSet::from_iter(todo.clone());
        // Ends: a place is visited once, and there are as many as there are histories.
        while let Some(place) = todo.pop() {
            if self.is_end(&place) {
                return true;
            }
            for next in self.steps(&place, &ops) {
                if met.insert(next.clone()) {
                    todo.push(next);
                }
            }
        }
        false
    }

    fn is_end(&self, (at, world): &Place) -> bool {
        let is_over = at.iter().zip(&self.done).all(|(&at, done)| at == done.len());
        is_over && world.end() == (self.blocks, self.nr_hooks)
    }

    fn steps(&self, (at, world): &Place, ops: &[&[Op]]) -> Vec<Place> {
        let open = || at.iter().zip(&self.done).map(|(&at, done)| done.get(at));
        let first_end = open().flatten().map(|done| done.end).min();
        let mut all = Vec::new();
        for (thread, done) in open().enumerate() {
            let Some(done) = done.filter(|done| Some(done.begin) < first_end) else { continue };
            for (said, next) in world.step(thread, done.op, is_stirred(ops, thread)) {
                if said == done.said {
                    let mut at = at.clone();
                    at[thread] += 1;
                    all.push((at, next));
                }
            }
        }
        all
    }
}
