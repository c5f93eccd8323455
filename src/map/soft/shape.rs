//! How nodes come and go: reserved, trimmed, split off and joined.

use super::entry::*;
use super::{SoftReader, SoftTable};
use crate::map::leaf::Leaf;
use crate::map::table::{LeafReader, NoTable, PageTable};
use crate::map::virt::{Vpn, VpnRange};
use crate::sync::{AtomicU64, Ordering};
use crate::units::Order;

#[expect(clippy::arithmetic_side_effects, reason = "levels, and numbers of nodes and entries")]
impl SoftTable<'_> {
    /// Takes an empty node.
    pub(super) fn take(&mut self) -> Option<usize> {
        let node = Some(self.free).filter(|&node| node != 0)?;
        let first = self.reader.entries(node)?.first()?;
        // ORDERING: Relaxed. Only this handle writes; stale readers find no link and no leaf here.
        let next = first.load(Ordering::Relaxed);
        // ORDERING: Relaxed. As above; whoever links the node releases it.
        first.store(0, Ordering::Relaxed);
        self.free = node_of(next);
        self.nr_free -= 1;
        self.promised = self.promised.saturating_sub(1);
        Some(node)
    }

    /// Gives a node back, all of whose entries are empty.
    pub(super) fn give(&mut self, node: usize) {
        if let Some(first) = self.reader.entries(node).and_then(|entries| entries.first()) {
            // ORDERING: Relaxed. Neither a link nor a leaf, so stale readers take it for empty.
            first.store((self.free as u64) << NUMBER_SHIFT, Ordering::Relaxed);
            self.free = node;
            self.nr_free += 1;
        }
    }

    /// Stores an entry and returns the one before.
    pub(super) fn exchange(entry: &AtomicU64, bits: u64) -> u64 {
        // ORDERING(leaf): Release half.
        entry.swap(bits, Ordering::Release)
    }

    pub(super) fn link(&mut self, entry: &AtomicU64) -> Option<usize> {
        let node = self.take()?;
        Self::exchange(entry, link(node));
        Some(node)
    }

    /// Empties a node and those below it, gives them back, and returns the bits of all leaves.
    pub(super) fn harvest(&mut self, node: usize, level: u8) -> u64 {
        let mut used = 0;
        for entry in self.reader.entries(node).into_iter().flatten() {
            // ORDERING: Relaxed. Nobody finds the node any more; an exchange, for what an MMU may
            // still be writing.
            let bits = entry.swap(0, Ordering::Relaxed);
            used |= match bits & TABLE {
                0 => bits,
                _ if level == 0 => 0,
                _ => self.harvest(node_of(bits), level - 1),
            };
        }
        self.give(node);
        used & (ACCESSED | DIRTY)
    }

    /// Links nodes in `range` below empty entries down to `target`, and returns how many more it
    /// takes below leaves.
    pub(super) fn reserve_in(
        &mut self,
        node: usize,
        level: u8,
        range: VpnRange,
        target: u8,
    ) -> Result<usize, NoTable> {
        let mut needed = 0;
        for index in self.reader.shape.index_of(range.start(), level)
            ..=self.reader.shape.index_of(range.last(), level)
        {
            let Some(entry) = self.reader.entries(node).and_then(|all| all.get(index)) else {
                break;
            };
            let block = self.reader.shape.block_at(range, level, index);
            let Some(part) = block.intersection(range) else { break };
            let bits = SoftReader::load(entry);
            if bits & LEAF != 0 {
                let tables = |level| {
                    let shift = self.reader.shape.shift_of(level);
                    (part.last().as_u64() >> shift) - (part.start().as_u64() >> shift) + 1
                };
                let below: u64 = (target + 1..=level).map(tables).sum();
                needed += usize::try_from(below).unwrap_or(usize::MAX);
                continue;
            }
            let missing = NoTable { vpn: part.start() };
            let child = match bits & TABLE {
                // What is promised stays where it is.
                0 if self.nr_free <= self.promised => return Err(missing),
                0 => {
                    self.promised += 1;
                    self.link(entry).ok_or(missing)?
                }
                _ => node_of(bits),
            };
            if target + 1 < level {
                needed += self.reserve_in(child, level - 1, part, target)?;
            }
        }
        Ok(needed)
    }

    /// Gives back the nodes below `node` that are empty in `range`; true if `node` is empty, too.
    pub(super) fn trim_in(&mut self, node: usize, level: u8, range: VpnRange) -> bool {
        let Some(entries) = self.reader.entries(node) else { return false };
        for index in self.reader.shape.index_of(range.start(), level)
            ..=self.reader.shape.index_of(range.last(), level)
        {
            let Some(entry) = entries.get(index).filter(|_| level != 0) else { break };
            let bits = SoftReader::load(entry);
            let Some(part) = self.reader.shape.block_at(range, level, index).intersection(range)
            else {
                break;
            };
            if bits & TABLE != 0 && self.trim_in(node_of(bits), level - 1, part) {
                Self::exchange(entry, 0);
                self.give(node_of(bits));
            }
        }
        entries.iter().all(|entry| SoftReader::load(entry) == 0)
    }

    /// Replaces the leaf of `order` at `vpn` by leaves of `to`, a level at a time.
    pub(super) fn split_down(&mut self, vpn: Vpn, order: Order, to: Order) {
        let level = self.reader.shape.level_of(order);
        let (base, Some(at)) = (self.reader.shape.order_of(level), self.reader.walk(vpn, level))
        else {
            return;
        };
        let Some(leaf) = self.reader.leaf_at(at) else { return };
        let mid = if base < order {
            base.max(to)
        } else {
            self.reader.shape.order_of(level.saturating_sub(1)).max(to)
        };
        if base < order {
            for (vpn, entry) in (0u64..).zip(self.reader.group(at, order)) {
                let piece = encode(Leaf { order: mid, ..leaf }, leaf.pfn);
                let offset = vpn << self.reader.shape.shift_of(level) << NUMBER_SHIFT;
                let old = Self::exchange(entry, piece + offset);
                // What hardware set since the leaf was read.
                // ORDERING: Relaxed. Bits that carry nothing.
                entry.fetch_or(old & (ACCESSED | DIRTY), Ordering::Relaxed);
            }
        } else {
            let (Some(node), Some(entry)) = (self.take(), at.entries.get(at.index)) else {
                debug_assert!(false, "a split without a reserved table");
                return;
            };
            let entries = self.reader.entries(node);
            for (index, entry) in (0u64..).zip(entries.into_iter().flatten()) {
                let offset = index << self.reader.shape.shift_of(level - 1) << NUMBER_SHIFT;
                // ORDERING: Relaxed. The link below releases it.
                entry.store(
                    encode(Leaf { order: mid, ..leaf }, leaf.pfn) + offset,
                    Ordering::Relaxed,
                );
            }
            let late = Self::exchange(entry, link(node)) & (ACCESSED | DIRTY);
            for entry in entries.into_iter().flatten().filter(|_| late != 0) {
                // ORDERING: Relaxed. Bits that carry nothing.
                entry.fetch_or(late, Ordering::Relaxed);
            }
        }
        if to < mid {
            let nr_pieces = 1u64 << (order.as_u8() - mid.as_u8());
            for index in 0..nr_pieces {
                let piece = Vpn::new(vpn.as_u64() + (index << mid.as_u8()));
                self.split_down(piece, mid, to);
            }
        }
    }

    /// Replaces what is around `vpn` by one leaf, an entry at a time.
    pub(super) fn join_up(&mut self, vpn: Vpn, order: Order) {
        let (level, head) = (self.reader.shape.level_of(order), vpn.head(order));
        let first = self.reader.read(head).leaf();
        let (Some(first), Some(at)) = (first, self.reader.walk(head, level)) else { return };
        let whole = Leaf { order, pfn: first.pfn.head(order), ..first };
        let mut used = 0;
        for (index, entry) in (0u64..).zip(self.reader.group(at, order)) {
            let offset = index << self.reader.shape.shift_of(level);
            let old = Self::exchange(entry, encode(whole, whole.pfn) + (offset << NUMBER_SHIFT));
            if old & TABLE == 0 {
                used |= old & (ACCESSED | DIRTY);
                continue;
            }
            self.flush(VpnRange::block(
                Vpn::new(head.as_u64() + offset),
                self.reader.shape.order_of(level),
            ));
            used |= self.harvest(node_of(old), level.saturating_sub(1));
        }
        if let Some(entry) = at.entries.get(at.index).filter(|_| !seeded!(JoinLosesDirty)) {
            // ORDERING: Relaxed. Bits that carry nothing.
            entry.fetch_or(used, Ordering::Relaxed);
        }
    }
}
