//! The key-value cache of a language model: blocks of 35 MiB that requests with a common start
//! share, and that stay cached until their place is needed.
//!
//! The constants describe the conversation trace of Mooncake (FAST '25, Apache-2.0): blocks per
//! request, how many of them are new, one block that every request uses, requests in flight.

use core::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::super::human::{Count, PAGE_BYTES};
use super::super::rng::Rng;
use super::super::workload::{Event, Op, Workload};
use super::quantiles::Quantiles;

const BLOCK_BYTES: u64 = 35 << 20;

/// New blocks of a request; 182,790 blocks for 12,031 requests.
const NEW_BLOCKS: Quantiles = Quantiles(&[(0.0, 1.0), (0.5, 8.0), (0.9, 40.0), (1.0, 120.0)]);

/// The share of requests that go on with an earlier conversation.
const FOLLOW_UPS: f64 = 0.15;

/// A conversation longer than that is started anew, and so many are remembered.
const CONVERSATION_MAX: usize = 250;
const CONVERSATIONS: usize = 1_000;

/// A pool that turns so many requests away is too small for the load.
const TURNED_AWAY_MAX: u64 = 100_000;

/// Milliseconds between two requests; 12,031 in an hour.
const PAUSES: Quantiles = Quantiles(&[(0.0, 10.0), (0.5, 200.0), (1.0, 1_200.0)]);

/// Milliseconds that a request holds its blocks.
const DURATIONS: Quantiles = Quantiles(&[(0.0, 1_000.0), (0.5, 5_000.0), (1.0, 40_000.0)]);

/// Draws a history of `nr_events` events for a pool of `pool_pages` pages.
pub(crate) fn generate(seed: u64, nr_events: u64, pool_pages: u64) -> Workload {
    let nr_blocks = pool_pages.saturating_mul(PAGE_BYTES) / BLOCK_BYTES;
    let mut cache = Cache::new(seed, nr_blocks as usize);
    let nr_events = nr_events as usize;
    let mut now_ms = 0;
    // Ends because a request adds events or is turned away, and both are bounded.
    while cache.events.len() < nr_events && cache.nr_turned_away < TURNED_AWAY_MAX {
        now_ms += PAUSES.draw(&mut cache.rng) as u64;
        cache.end_until(now_ms);
        cache.request(now_ms);
    }
    cache.events.truncate(nr_events);

    let source = format!(
        "generated key-value cache, seed {seed} ({} requests turned away)",
        Count(cache.nr_turned_away)
    );
    Workload { source, events: cache.events, nr_ids: cache.nr_ids, is_shared: true }
}

/// A block of tokens, whether or not it is in memory.
#[derive(Clone, Copy, Debug, Default)]
struct Block {
    /// The allocation that holds it now.
    id: Option<u32>,
    nr_holders: u32,
    /// Grows with each use; tells which entries of the queue are stale.
    stamp: u64,
}

struct Cache {
    rng: Rng,
    events: Vec<Event>,
    nr_ids: u32,
    nr_turned_away: u64,
    capacity: usize,
    nr_resident: usize,
    blocks: Vec<Block>,
    /// Blocks in the order in which their last holders went, with the stamp of that time.
    idle: VecDeque<(usize, u64)>,
    /// The blocks of each, the one that was used last at the end.
    conversations: Vec<Vec<usize>>,
    /// Requests in flight: when they end, and their blocks.
    ends: BinaryHeap<Reverse<(u64, Vec<usize>)>>,
}

impl Cache {
    fn new(seed: u64, capacity: usize) -> Self {
        Self {
            rng: Rng::new(seed, "key-value cache"),
            events: Vec::new(),
            nr_ids: 0,
            nr_turned_away: 0,
            capacity,
            nr_resident: 0,
            // The system prompt, which every request starts with.
            blocks: vec![Block::default()],
            idle: VecDeque::new(),
            conversations: Vec::new(),
            ends: BinaryHeap::new(),
        }
    }

    /// A request comes and takes all its blocks, or is turned away.
    fn request(&mut self, now_ms: u64) {
        let mut blocks = self.conversation();
        let nr_new = NEW_BLOCKS.draw(&mut self.rng) as usize;
        let nr_held: usize = self.ends.iter().map(|Reverse((_, blocks))| blocks.len()).sum();
        // Held blocks cannot be evicted; with this much room the request always gets its own.
        if self.capacity < nr_held + blocks.len() + nr_new {
            self.nr_turned_away += 1;
            if blocks.len() != 1 {
                self.conversations.push(blocks);
            }
            return;
        }
        for _ in 0..nr_new {
            blocks.push(self.blocks.len());
            self.blocks.push(Block::default());
        }
        for &block in &blocks {
            self.hold(now_ms, block);
        }
        let end_ms = now_ms + DURATIONS.draw(&mut self.rng) as u64;
        if CONVERSATIONS <= self.conversations.len() {
            self.conversations.remove(0);
        }
        self.conversations.push(blocks.clone());
        self.ends.push(Reverse((end_ms, blocks)));
    }

    /// Takes a conversation to go on with, more likely a recent one, or starts one.
    fn conversation(&mut self) -> Vec<usize> {
        let nr_before = self.conversations.len();
        let age = self.rng.unit().powi(3) * nr_before as f64;
        let place = nr_before.checked_sub(1 + age as usize);
        if let Some(place) = place.filter(|_| self.rng.chance(FOLLOW_UPS)) {
            let blocks = self.conversations.remove(place);
            if blocks.len() < CONVERSATION_MAX {
                return blocks;
            }
        }
        vec![0]
    }

    fn hold(&mut self, time_ms: u64, index: usize) {
        let Some(block) = self.blocks.get_mut(index) else { return };
        block.nr_holders += 1;
        block.stamp += 1;
        if let Some(id) = block.id {
            self.events.push(Event { time_ms, id, op: Op::Get });
            return;
        }
        let id = self.nr_ids;
        self.nr_ids += 1;
        block.id = Some(id);
        self.nr_resident += 1;
        self.evict(time_ms);
        self.events.push(Event { time_ms, id, op: Op::Alloc { len_bytes: BLOCK_BYTES } });
    }

    /// Frees what was idle longest while more blocks are resident than fit.
    fn evict(&mut self, time_ms: u64) {
        while self.capacity < self.nr_resident {
            let Some((index, stamp)) = self.idle.pop_front() else { return };
            let Some(block) = self.blocks.get_mut(index) else { return };
            if block.stamp != stamp || block.nr_holders != 0 {
                continue;
            }
            if let Some(id) = block.id.take() {
                self.nr_resident -= 1;
                self.events.push(Event { time_ms, id, op: Op::Free });
            }
        }
    }

    fn end_until(&mut self, now_ms: u64) {
        while self.ends.peek().is_some_and(|Reverse((end_ms, _))| *end_ms <= now_ms) {
            let Some(Reverse((time_ms, blocks))) = self.ends.pop() else { return };
            for index in blocks {
                let Some(block) = self.blocks.get_mut(index) else { continue };
                block.nr_holders -= 1;
                if block.nr_holders == 0 {
                    self.idle.push_back((index, block.stamp));
                }
                if let Some(id) = block.id {
                    self.events.push(Event { time_ms, id, op: Op::Put });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::workload::{Fate, Holders};
    use super::*;

    #[test]
    fn every_step_is_valid_and_the_pool_suffices() {
        let pool_bytes = 512 << 30;
        let workload = generate(1, 200_000, pool_bytes / PAGE_BYTES);
        assert_eq!(workload.events.len(), 200_000);
        let mut holders = vec![Holders::default(); workload.nr_ids as usize];
        let (mut nr_blocks, mut peak_holders) = (0_u64, 0);
        for event in &workload.events {
            let holders = &mut holders[event.id as usize];
            let fate = holders.step(event.op).unwrap();
            nr_blocks += u64::from(matches!(event.op, Op::Alloc { .. }));
            nr_blocks -= u64::from(fate == Fate::Gone);
            assert!(nr_blocks * BLOCK_BYTES <= pool_bytes);
            peak_holders = peak_holders.max(holders.nr());
        }
        // The trace has 56 holders at once, and finds a quarter of what it uses in the cache.
        assert!((40..70).contains(&peak_holders), "{peak_holders}");
        let nr_gets = workload.events.iter().filter(|event| event.op == Op::Get).count();
        let share = 100 * nr_gets / (nr_gets + workload.nr_ids as usize);
        assert!((15..45).contains(&share), "{share} %");
    }

    #[test]
    fn a_pool_too_small_for_any_request_ends_too() {
        assert!(generate(1, 10, 1).events.is_empty());
    }
}
