//! The tables of one address space: a tree of frames, walked and changed by atomics.

use core::sync::atomic::{AtomicU64, Ordering};

use devfolio::{Entry, Leaf, Order, Vpn};
use x86_64::structures::paging::PageTableIndex;

use super::entry::{NOTED, decode, encode, level_of, order_of, table_entry, table_of};
use crate::machine::{boot, frames};

const TOP: u32 = 4;

/// The tables of one address space.
///
/// Tables that become empty stay until a larger leaf takes their place, or until the end.
#[derive(Debug)]
pub struct Tables {
    root: u64,
    /// Frames that are set aside for splits: linked by their first words, which are zero otherwise.
    pub(super) reserved: u64,
    last: Last,
}

/// The table in which the last leaf was set, or is about to be: the next one is often in it, too.
#[derive(Clone, Copy, Debug)]
struct Last {
    table: u64,
    level: u32,
    /// The address without what is an index into that table, or lower.
    prefix: u64,
}

impl Last {
    const NONE: Self = Self { table: 0, level: 0, prefix: 0 };

    #[inline(always)]
    fn of(slot: Slot, vpn: Vpn) -> Self {
        let table = slot.word.as_ptr() as u64 & !0xfff;
        Self { table, level: slot.level, prefix: vpn.as_u64() >> (9 * slot.level) }
    }

    #[inline(always)]
    const fn is_at(self, vpn: Vpn, level: u32) -> bool {
        self.level == level && self.prefix == vpn.as_u64() >> (9 * level)
    }
}

/// What a walk ended at.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    word: &'static AtomicU64,
    pub(super) level: u32,
    bits: u64,
}

/// Returns the entry for an address in a table of that level.
#[inline(always)]
fn word(table: u64, level: u32, vpn: u64) -> &'static AtomicU64 {
    let index = PageTableIndex::new_truncate((vpn >> (9 * (level - 1)) & 511) as u16);
    let slot = table + u64::from(index) * 8;
    // SAFETY: A table is a frame of the image's own that is used as nothing else, by atomics only,
    // and what comes after it is a table again, or a frame that nobody walks.
    unsafe { AtomicU64::from_ptr(slot as *mut u64) }
}

/// Walks down to the entry that decides about an address, or to that of a level.
#[inline(always)]
fn walk(root: u64, vpn: Vpn, to: u32) -> Slot {
    let mut table = root;
    // Written out, so that each level is a constant; the last turn is that of level 1.
    for level in [4, 3, 2] {
        let slot = look(table, level, vpn);
        match table_of(slot.bits, level) {
            Some(below) if to < level => table = below,
            _ => return slot,
        }
    }
    look(table, 1, vpn)
}

#[inline(always)]
fn look(table: u64, level: u32, vpn: Vpn) -> Slot {
    let word = word(table, level, vpn.as_u64());
    // Acquire: what a table holds was written before it was linked.
    Slot { word, level, bits: word.load(Ordering::Acquire) }
}

/// Returns what the tables with that root have for an address.
#[inline]
pub fn read(root: u64, vpn: Vpn) -> Entry {
    let slot = walk(root, vpn, 1);
    match decode(slot.bits, slot.level) {
        Some(leaf) => Entry::Leaf(leaf),
        None => Entry::Empty { log2_pages: 9 * (slot.level as u8 - 1) },
    }
}

impl Tables {
    /// Makes an address space in which only the kernel is.
    pub fn new() -> Option<Self> {
        let root = frames::take()?;
        for vpn in direct() {
            // Nobody walks the new tables yet, and these entries never change.
            let kernel = word(boot::root_address(), TOP, vpn).load(Ordering::Relaxed);
            word(root, TOP, vpn).store(kernel, Ordering::Relaxed);
        }
        Some(Self { root, reserved: 0, last: Last::NONE })
    }

    /// Returns the address of the top table.
    pub const fn root(&self) -> u64 {
        self.root
    }

    /// Returns the leaf that maps an address.
    pub fn leaf(&self, vpn: Vpn) -> Option<Leaf> {
        read(self.root, vpn).leaf()
    }

    /// Links tables on the way to the entry of that level, or stops at a leaf.
    #[inline(always)]
    pub(super) fn reach(&mut self, vpn: Vpn, to: u32) -> Option<Slot> {
        let mut slot = walk(self.root, vpn, to);
        // Ends: each turn links a table, or finds one that somebody else has linked.
        while to < slot.level && slot.bits == 0 {
            let table = frames::take()?;
            let link = slot.word.compare_exchange(
                0,
                table_entry(table),
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            if link.is_err() {
                frames::give_zeroed(table);
            }
            slot = walk(self.root, vpn, to);
        }
        if slot.level == to {
            self.last = Last::of(slot, vpn);
        }
        Some(slot)
    }

    /// Maps a leaf by hand, if nothing is mapped there; whoever does so has counted it.
    #[inline(always)]
    pub fn put(&mut self, vpn: Vpn, leaf: &Leaf) -> bool {
        let Some(to) = level_of(leaf.order) else { return false };
        let Some(slot) = self.reach(vpn, to) else { return false };
        let is_empty = slot.level == to && slot.bits == 0;
        if is_empty {
            slot.word.store(encode(leaf, to), Ordering::Release);
        }
        is_empty
    }

    /// Takes the leaf that covers an address out; translations of it go on until the flush.
    #[inline]
    pub fn take(&self, vpn: Vpn) -> Option<Leaf> {
        let slot = walk(self.root, vpn, 1);
        decode(slot.bits, slot.level)?;
        decode(slot.word.swap(0, Ordering::AcqRel), slot.level)
    }

    /// Writes a leaf in place of nothing, or of tables that hold nothing, which go back.
    #[inline(always)]
    pub(super) fn replace_empty(&mut self, vpn: Vpn, leaf: &Leaf) {
        let Some(to) = level_of(leaf.order) else { return };
        if !self.last.is_at(vpn, to) {
            let slot = walk(self.root, vpn, to);
            if slot.level != to {
                return;
            }
            self.last = Last::of(slot, vpn);
        }
        let word = word(self.last.table, to, vpn.as_u64());
        let bits = word.load(Ordering::Relaxed);
        word.store(encode(leaf, to), Ordering::Release);
        if let Some(table) = table_of(bits, to) {
            // The CPU may have kept in mind that there is a table.
            super::flush_leaf(vpn.as_u64() << 12);
            release(table, to - 1);
            self.last = Last::NONE;
        }
    }

    /// Changes the bits of the leaf that covers an address, whatever the machine notes meanwhile.
    pub(super) fn update(&self, vpn: Vpn, change_fn: impl Fn(Leaf) -> Leaf) {
        let slot = walk(self.root, vpn, 1);
        let update = |bits| Some(encode(&change_fn(decode(bits, slot.level)?), slot.level));
        let _ = slot.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, update);
    }

    /// Replaces a leaf by a table of smaller ones, in one store, out of reserved frames.
    ///
    /// True if there is a leaf above that order, and it has been replaced.
    pub(super) fn split_once(&mut self, vpn: Vpn, order: Order) -> bool {
        let slot = walk(self.root, vpn, 1);
        let Some(old) = decode(slot.bits, slot.level) else { return false };
        if old.order <= order {
            return false;
        }
        let Some(table) = self.pop_reserved() else { return false };
        let below = slot.level - 1;
        let mut bits = slot.bits;
        // Ends: only the machine changes the entry meanwhile, and only two bits of it.
        loop {
            let Some(old) = decode(bits, slot.level) else { return false };
            for index in 0..512_u64 {
                let vpn = Vpn::new(vpn.head(old.order).as_u64() + (index << (9 * (below - 1))));
                let piece = old.piece(vpn, order_of(below));
                word(table, below, vpn.as_u64()).store(encode(&piece, below), Ordering::Relaxed);
            }
            let link = table_entry(table);
            match slot.word.compare_exchange(bits, link, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(now) => bits = now,
            }
        }
    }

    /// Replaces the tables under an entry by one leaf, in one store; returns what they were.
    pub(super) fn exchange(&self, vpn: Vpn, leaf: &Leaf) -> Option<(u64, u32)> {
        let to = level_of(leaf.order)?;
        let slot = walk(self.root, vpn, to);
        let table = table_of(slot.bits, slot.level).filter(|_| slot.level == to)?;
        slot.word.store(encode(leaf, to), Ordering::Release);
        Some((table, to - 1))
    }

    /// Sets the bits that the machine had noted in a table that is no longer used, and gives it
    /// back.
    pub(super) fn collect(&mut self, vpn: Vpn, table: u64, level: u32) {
        self.last = Last::NONE;
        let noted = release(table, level);
        walk(self.root, vpn, 1).word.fetch_or(noted, Ordering::AcqRel);
    }

    /// Sets a frame aside.
    pub(super) fn push_reserved(&mut self) -> Option<()> {
        let frame = frames::take()?;
        word(frame, 1, 0).store(self.reserved, Ordering::Relaxed);
        self.reserved = frame;
        Some(())
    }

    /// Takes a frame that was set aside; what it holds is zero.
    pub(super) fn pop_reserved(&mut self) -> Option<u64> {
        let frame = self.reserved;
        if frame == 0 {
            return None;
        }
        self.reserved = word(frame, 1, 0).swap(0, Ordering::Relaxed);
        Some(frame)
    }

    /// Gives the tables back; no CPU may be using them.
    pub fn destroy(mut self) {
        // Ends: the list becomes shorter.
        while let Some(frame) = self.pop_reserved() {
            frames::give_zeroed(frame);
        }
        // Everything but the direct map, which is not its own.
        direct().for_each(|vpn| word(self.root, TOP, vpn).store(0, Ordering::Relaxed));
        release(self.root, TOP);
    }
}

/// An address in each entry of a top table that belongs to the kernel.
fn direct() -> impl Iterator<Item = u64> {
    (0..boot::NR_DIRECT as u64).map(|index| index << 27)
}

/// Gives a table and those below it back, zeroed; returns what the machine had noted in leaves.
fn release(table: u64, level: u32) -> u64 {
    let mut noted = 0;
    for index in 0..512_u64 {
        let bits = word(table, level, index << (9 * (level - 1))).swap(0, Ordering::Relaxed);
        noted |= match table_of(bits, level) {
            Some(below) => release(below, level - 1),
            None => bits & NOTED,
        };
    }
    frames::give_zeroed(table);
    noted
}
