//! A page table in software: four levels of 512 entries over lent nodes.
//!
//! What tests, models and hosts without an MMU of their own use, and an example of how tables come
//! and go below lockless readers: a node that is freed serves other addresses later, but is never
//! anything but a node.
//!
//! # Synchronization
//!
//! | edge | release half | acquire half | what it carries |
//! |------|--------------|--------------|-----------------|
//! | `leaf` | every store of a leaf or of a link | every load of an entry | a table is filled before it is found; what a node served before is unlinked before its new leaves are found |

mod entry;
mod shape;

use core::fmt;

use entry::*;

use super::leaf::{Access, Entry, Leaf, Rights};
use super::leaves::LeafSet;
use super::table::{LeafReader, NoTable, PageTable};
use super::virt::{Vpn, VpnRange};
use crate::sync::{AtomicU64, Ordering};
use crate::units::{Order, Pfn, PfnRange};

/// One node of a [`SoftTable`]: 4 KiB.
pub struct SoftNode([AtomicU64; NR_ENTRIES]);

impl SoftNode {
    /// Creates an empty node.
    #[cfg(not(all(test, loom)))]
    #[must_use]
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; NR_ENTRIES])
    }

    /// Creates an empty node.
    #[cfg(all(test, loom))]
    #[must_use]
    pub fn new() -> Self {
        Self(core::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Default for SoftNode {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SoftNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SoftNode")
    }
}

/// How a leaf is replaced by others, or by a table.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Replace {
    /// In one store; no reader ever sees a hole.
    Atomic,
    /// Cleared, flushed, and set again, as AArch64 without `FEAT_BBM` demands.
    BreakBeforeMake,
}

/// The reading half of a [`SoftTable`]: a handle that may be copied to any thread.
#[derive(Clone, Copy)]
pub struct SoftReader<'t> {
    nodes: &'t [SoftNode],
    shape: Shape,
}

/// An entry that a walk has reached.
#[derive(Clone, Copy)]
struct At<'t> {
    entries: &'t [AtomicU64],
    index: usize,
    level: u8,
    bits: u64,
}

#[expect(clippy::arithmetic_side_effects, reason = "levels and indices of a few bits")]
impl<'t> SoftReader<'t> {
    fn entries(self, node: usize) -> Option<&'t [AtomicU64]> {
        self.nodes.get(node)?.0.get(..1 << self.shape.0)
    }

    fn load(entry: &AtomicU64) -> u64 {
        // ORDERING(leaf): Acquire half.
        entry.load(Ordering::Acquire)
    }

    /// Walks down to an entry that is no link, or to `level`.
    fn walk(self, vpn: Vpn, level: u8) -> Option<At<'t>> {
        if !self.shape.addresses().contains(vpn) {
            return None;
        }
        let mut entries = self.entries(0)?;
        let mut at_level = LEVELS - 1;
        // Ends: a level lower on every turn.
        loop {
            let index = self.shape.index_of(vpn, at_level);
            let bits = Self::load(entries.get(index)?);
            if bits & TABLE == 0 || at_level <= level {
                return Some(At { entries, index, level: at_level, bits });
            }
            entries = self.entries(node_of(bits))?;
            at_level -= 1;
        }
    }

    /// Returns the entries of the leaf of `order` one of which has been reached.
    fn group(self, at: At<'t>, order: Order) -> &'t [AtomicU64] {
        let nr_entries =
            1 << (order.as_u8() - self.shape.order_of(at.level).as_u8().min(order.as_u8()));
        let first = at.index & !(nr_entries - 1);
        at.entries.get(first..first + nr_entries).unwrap_or(&[])
    }

    /// Returns the whole leaf of which an entry has been reached.
    fn leaf_at(self, at: At<'t>) -> Option<Leaf> {
        let leaf = decode(at.bits)?;
        let used = self.group(at, leaf.order).iter().fold(at.bits, |used, entry| {
            // ORDERING: Relaxed. Only the bits that say whether the group was used.
            used | entry.load(Ordering::Relaxed)
        });
        let (accessed, dirty) = (used & ACCESSED != 0, used & DIRTY != 0);
        Some(Leaf { pfn: leaf.pfn.head(leaf.order), accessed, dirty, ..leaf })
    }

    /// Does what an MMU does with an address: translates it and sets accessed and dirty bits, or
    /// faults.
    ///
    /// # Errors
    ///
    /// Returns the entry that does not allow it.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock.
    pub fn touch(&self, vpn: Vpn, access: Access) -> Result<Pfn, Entry> {
        let used = if access == Access::Write { ACCESSED | DIRTY } else { ACCESSED };
        // Ends: a turn is repeated only when the table was changed meanwhile.
        loop {
            let Some(at) = self.walk(vpn, 0) else { return Err(Entry::Empty { log2_pages: 0 }) };
            let leaf = self.leaf_at(at).filter(|leaf| leaf.rights.contains(access.rights()));
            let (Some(leaf), Some(entry)) = (leaf, at.entries.get(at.index)) else {
                return Err(self.read(vpn));
            };
            let (old, new) = (at.bits, at.bits | used);
            // ORDERING: Relaxed. The entry that was acquired is what is exchanged.
            if entry.compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return Ok(leaf.page_at(vpn));
            }
        }
    }
}

impl LeafReader for SoftReader<'_> {
    fn read(&self, vpn: Vpn) -> Entry {
        let Some(at) = self.walk(vpn, 0) else { return Entry::Empty { log2_pages: 0 } };
        let log2_pages = at.level.saturating_mul(self.shape.0);
        self.leaf_at(at).map_or(Entry::Empty { log2_pages }, Entry::Leaf)
    }
}

impl fmt::Debug for SoftReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SoftReader({} nodes)", self.nodes.len())
    }
}

/// A page table in software, for 2^36 pages, with leaves of any set of orders.
///
/// A leaf that is larger than an entry of its level is a group of equal entries, as with the
/// contiguous hint of AArch64. Nothing caches it, so a flush only counts. An entry has room for the
/// lower twelve bits of [`Leaf::attrs`](super::Leaf::attrs).
pub struct SoftTable<'t> {
    reader: SoftReader<'t>,
    set: LeafSet,
    replace: Replace,
    /// The first free node; each names the next in its first entry. Zero, the root, ends the list.
    free: usize,
    nr_free: usize,
    /// How many of them have been promised to leaves that will be split.
    promised: usize,
    nr_flushes: u64,
}

impl<'t> SoftTable<'t> {
    /// Creates an empty table over lent nodes, the first of which is its root.
    ///
    /// Returns `None` without a node, and for more than fit into an entry.
    #[must_use]
    pub fn new(nodes: &'t mut [SoftNode], set: LeafSet, replace: Replace) -> Option<Self> {
        Self::with_level_bits(nodes, BITS_MAX, set, replace)
    }

    /// Creates an empty table with 2^`level_bits` entries on each level, for
    /// 2^(4 * `level_bits`) pages.
    ///
    /// Returns `None` as [`SoftTable::new`] does, and for no bits or more than 9.
    #[must_use]
    pub fn with_level_bits(
        nodes: &'t mut [SoftNode],
        level_bits: u8,
        set: LeafSet,
        replace: Replace,
    ) -> Option<Self> {
        if nodes.is_empty()
            || level_bits == 0
            || BITS_MAX < level_bits
            || NUMBER_MAX < nodes.len() as u64
        {
            return None;
        }
        let shape = Shape(level_bits);
        let set = set.up_to(shape.order_of(LEVELS.saturating_sub(1)));
        let reader = SoftReader { nodes, shape };
        let mut table =
            Self { reader, set, replace, free: 0, nr_free: 0, promised: 0, nr_flushes: 0 };
        for node in (0..reader.nodes.len()).rev() {
            for entry in reader.entries(node).into_iter().flatten() {
                // ORDERING: Relaxed. Nobody else has the table.
                entry.store(0, Ordering::Relaxed);
            }
            if node != 0 {
                table.give(node);
            }
        }
        Some(table)
    }

    /// Returns a handle that reads while this one writes.
    #[must_use]
    pub const fn reader(&self) -> SoftReader<'t> {
        self.reader
    }

    /// Returns how many nodes are free.
    #[must_use]
    pub const fn nr_free_nodes(&self) -> usize {
        self.nr_free
    }

    /// Returns how often a range was flushed.
    #[must_use]
    pub const fn nr_flushes(&self) -> u64 {
        self.nr_flushes
    }
}

impl LeafReader for SoftTable<'_> {
    fn read(&self, vpn: Vpn) -> Entry {
        self.reader.read(vpn)
    }
}

impl PageTable for SoftTable<'_> {
    fn leaf_set(&self) -> LeafSet {
        self.set
    }

    fn addresses(&self) -> VpnRange {
        self.reader.shape.addresses()
    }

    fn can_hold(&self, pages: PfnRange) -> bool {
        pages.last().as_u64() <= NUMBER_MAX
    }

    fn reserve(&mut self, range: VpnRange, order: Order) -> Result<(), NoTable> {
        let target = self.reader.shape.level_of(order);
        let top = LEVELS.saturating_sub(1);
        let range = range.intersection(self.addresses()).filter(|_| target < top);
        let Some(range) = range else { return Ok(()) };
        let needed = self.reserve_in(0, top, range, target)?;
        let promised = self.promised.saturating_add(needed);
        if self.nr_free < promised {
            return Err(NoTable { vpn: range.start() });
        }
        self.promised = promised;
        Ok(())
    }

    fn trim(&mut self, range: VpnRange) {
        self.promised = 0;
        if let Some(range) = range.intersection(self.addresses()) {
            self.trim_in(0, LEVELS.saturating_sub(1), range);
        }
    }

    fn set(&mut self, vpn: Vpn, leaf: Leaf) {
        let level = self.reader.shape.level_of(leaf.order);
        let at = loop {
            // Ends: every turn links a node on a lower level.
            let Some(at) = self.reader.walk(vpn, level) else { return };
            let Some(entry) = at.entries.get(at.index) else { return };
            if at.level == level {
                break at;
            }
            if at.bits != 0 || self.link(entry).is_none() {
                debug_assert!(false, "a leaf at {vpn} over another, or without a reserved table");
                return;
            }
        };
        for (index, entry) in (0u64..).zip(self.reader.group(at, leaf.order)) {
            let pfn = leaf.pfn.as_u64().wrapping_add(index << self.reader.shape.shift_of(level));
            let old = SoftTable::exchange(entry, encode(leaf, Pfn::new(pfn)));
            debug_assert_eq!(old & LEAF, 0, "a leaf at {vpn} over another");
            if old & TABLE != 0 {
                self.harvest(node_of(old), level.saturating_sub(1));
            }
        }
    }

    fn clear(&mut self, vpn: Vpn) -> Option<Leaf> {
        let at = self.reader.walk(vpn, 0)?;
        let leaf = self.reader.leaf_at(at)?;
        let used = self.reader.group(at, leaf.order).iter().fold(0, |used, entry| {
            // ORDERING: Relaxed. That the leaf is gone is told by whoever drops its count.
            used | entry.swap(0, Ordering::Relaxed)
        });
        Some(Leaf { accessed: used & ACCESSED != 0, dirty: used & DIRTY != 0, ..leaf })
    }

    fn protect(&mut self, vpn: Vpn, rights: Rights) {
        let Some(at) = self.reader.walk(vpn, 0) else { return };
        let Some(leaf) = decode(at.bits) else { return };
        let mask = u64::from(Rights::ALL.bits()) << RIGHTS_SHIFT;
        let bits_fn = |bits: u64| Some(bits & !mask | u64::from(rights.bits()) << RIGHTS_SHIFT);
        for entry in self.reader.group(at, leaf.order) {
            // ORDERING: Relaxed. The page stays the same.
            let _ = entry.fetch_update(Ordering::Relaxed, Ordering::Relaxed, bits_fn);
        }
    }

    fn flush(&mut self, _: VpnRange) {
        self.nr_flushes = self.nr_flushes.wrapping_add(1);
    }

    fn split(&mut self, vpn: Vpn, order: Order) {
        let Some(leaf) = self.read(vpn).leaf().filter(|leaf| order < leaf.order) else { return };
        let addresses = leaf.addresses(vpn);
        match self.replace {
            Replace::Atomic => {
                self.split_down(addresses.start(), leaf.order, order);
                self.flush(addresses);
            }
            Replace::BreakBeforeMake => super::table::split_by_break(self, vpn, order),
        }
    }

    fn join(&mut self, vpn: Vpn, order: Order) {
        match self.replace {
            Replace::Atomic => {
                self.join_up(vpn, order);
                self.flush(VpnRange::block(vpn, order));
            }
            Replace::BreakBeforeMake => super::table::join_by_break(self, vpn, order),
        }
    }
}

impl fmt::Debug for SoftTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { set, replace, nr_free, .. } = self;
        write!(f, "SoftTable({set:?}, {replace:?}, {nr_free} nodes free)")
    }
}
