//! Page tables of this machine, four levels of them, with leaves of 4 KiB, 2 MiB and 1 GiB.
//!
//! What an entry and an address look like comes from the crate `x86_64`. Entries are read and
//! written as atomics, since other CPUs, and lockless lookups, read them at the same time.

use core::fmt;
use core::mem::ManuallyDrop;
use core::sync::atomic::{AtomicU64, Ordering};

use devfolio::{Order, Pfn, PfnRange};
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::{PageTableFlags as Flags, PhysFrame};
use x86_64::{PhysAddr, VirtAddr, instructions::tlb};

use crate::machine::{boot, cpus, frames};

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const TABLE: Flags = Flags::PRESENT.union(Flags::WRITABLE).union(Flags::USER_ACCESSIBLE);

/// A leaf, as the tables have it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Leaf {
    /// Its first page.
    pub pfn: Pfn,
    /// Log2 of its pages.
    pub order: Order,
    /// Rights, and what the machine has noted.
    pub flags: Flags,
}

/// Why a leaf was not set; nothing changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SetError {
    /// The architecture has no leaf of this order, or the address is not aligned to it.
    Shape,
    /// Something is mapped there.
    Occupied,
    /// There is no frame for a table.
    NoTable,
}

impl fmt::Display for SetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shape => "there is no such leaf",
            Self::Occupied => "something is mapped there",
            Self::NoTable => "there is no frame for a table",
        })
    }
}

/// The tables of one address space.
#[derive(Debug)]
pub struct Tables {
    root: u64,
}

/// The level of the tables that hold leaves of that order: 1 for pages.
fn level_of(order: Order) -> Option<u32> {
    match order.as_u8() {
        0 => Some(1),
        9 => Some(2),
        18 => Some(3),
        _ => None,
    }
}

fn order_of(level: u32) -> Order {
    match level {
        1 => Order::ZERO,
        2 => Order::BLOCK,
        _ => Order::REGION,
    }
}

/// Returns the entry for an address in a table of that level.
fn entry(table: u64, level: u32, address: u64) -> &'static AtomicU64 {
    let address = VirtAddr::new_truncate(address);
    let index = match level {
        1 => address.p1_index(),
        2 => address.p2_index(),
        3 => address.p3_index(),
        _ => address.p4_index(),
    };
    let slot = table.wrapping_add(u64::from(index).wrapping_mul(8));
    // SAFETY: A table is a frame of the image's own that is used as nothing else, by atomics only,
    // and is never anything but a table or unused again.
    unsafe { AtomicU64::from_ptr(slot as *mut u64) }
}

fn is_leaf(bits: u64, level: u32) -> bool {
    level == 1 || bits & Flags::HUGE_PAGE.bits() != 0
}

impl Tables {
    /// Makes an address space in which only the kernel is.
    pub fn new() -> Option<Self> {
        let root = frames::take()?;
        // ORDERING: Relaxed. Nobody walks the new tables yet, and the first entry never changes.
        let kernel = entry(boot::root_address(), 4, 0).load(Ordering::Relaxed);
        entry(root, 4, 0).store(kernel, Ordering::Relaxed);
        Some(Self { root })
    }

    /// Returns the address of the top table.
    pub const fn root(&self) -> u64 {
        self.root
    }

    /// Returns the tables that this CPU uses; not to be destroyed by whoever asks.
    pub fn current() -> ManuallyDrop<Self> {
        ManuallyDrop::new(Self { root: Cr3::read().0.start_address().as_u64() })
    }

    /// Makes this CPU use the tables, or those that it booted with.
    pub fn activate(tables: Option<&Self>) {
        Self::activate_root(tables.map_or(boot::root_address(), |tables| tables.root));
    }

    /// Makes this CPU use the tables with that root, which another CPU may own.
    pub fn activate_root(root: u64) {
        let frame = PhysFrame::containing_address(PhysAddr::new_truncate(root));
        // SAFETY: All roots have the entry through which the kernel is mapped.
        unsafe { Cr3::write(frame, Cr3Flags::empty()) };
    }

    /// Walks down to the entry that decides about an address, and returns its level and bits too.
    fn walk(&self, address: u64) -> (&'static AtomicU64, u32, u64) {
        let mut table = self.root;
        let mut level = 4;
        // Ends: the level falls to one.
        loop {
            let slot = entry(table, level, address);
            let bits = slot.load(Ordering::Acquire);
            if bits == 0 || is_leaf(bits, level) {
                return (slot, level, bits);
            }
            table = bits & ADDRESS;
            level = level.wrapping_sub(1);
        }
    }

    /// Returns the leaf that maps an address.
    pub fn read(&self, address: u64) -> Option<Leaf> {
        let (_, level, bits) = self.walk(address);
        (bits != 0).then(|| leaf(bits, level))
    }

    /// Maps a leaf.
    ///
    /// # Errors
    ///
    /// Says why not; tables that were made on the way stay.
    pub fn set(&self, address: u64, leaf: Leaf) -> Result<(), SetError> {
        let to = level_of(leaf.order).ok_or(SetError::Shape)?;
        let is_aligned = Pfn::new(address >> 12).is_aligned_to(leaf.order);
        if !is_aligned || !leaf.pfn.is_aligned_to(leaf.order) {
            return Err(SetError::Shape);
        }
        let (mut slot, mut level, mut bits) = self.walk(address);
        // Ends: the level falls to that of the leaf.
        while to < level && bits == 0 {
            let table = frames::take().ok_or(SetError::NoTable)?;
            match slot.compare_exchange(
                0,
                table | TABLE.bits(),
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => {}
                Err(_) => frames::give_zeroed(table),
            }
            (slot, level, bits) = self.walk(address);
        }
        let huge = if to == 1 { Flags::empty() } else { Flags::HUGE_PAGE };
        let value = leaf.pfn.as_u64() << 12 | (leaf.flags | huge | Flags::PRESENT).bits();
        if level != to {
            return Err(SetError::Occupied);
        }
        let set = slot.compare_exchange(0, value, Ordering::AcqRel, Ordering::Acquire);
        set.map(|_| ()).map_err(|_| SetError::Occupied)
    }

    /// Takes the leaf at an address out; translations of it may go on until the flush.
    pub fn clear(&self, address: u64) -> Option<Leaf> {
        let (slot, level, bits) = self.walk(address);
        if bits == 0 {
            return None;
        }
        Some(leaf(slot.swap(0, Ordering::AcqRel), level))
    }

    /// Gives the tables back; no CPU may be using them.
    pub fn destroy(self) {
        // Everything but the first entry of the root, which is not its own.
        entry(self.root, 4, 0).store(0, Ordering::Relaxed);
        release(self.root, 4);
    }
}

/// Gives a table and those below it back, zeroed.
fn release(table: u64, level: u32) {
    for index in 0..512_u64 {
        let slot = entry(table, level, index << (3 + 9 * level));
        let bits = slot.swap(0, Ordering::Relaxed);
        if bits != 0 && !is_leaf(bits, level) {
            release(bits & ADDRESS, level.wrapping_sub(1));
        }
    }
    frames::give_zeroed(table);
}

fn leaf(bits: u64, level: u32) -> Leaf {
    let pfn = Pfn::new((bits & ADDRESS) >> 12).head(order_of(level));
    Leaf { pfn, order: order_of(level), flags: Flags::from_bits_truncate(bits & !ADDRESS) }
}

/// Flushes one address on this CPU, and everything on the other one.
pub fn flush(address: u64) {
    tlb::flush(VirtAddr::new_truncate(address));
    cpus::flush_others();
}

/// Flushes everything everywhere.
pub fn flush_all() {
    tlb::flush_all();
    cpus::flush_others();
}

/// Maps a run of pages by leaves of one order, and returns how many leaves that took.
///
/// # Errors
///
/// Says why not; what was mapped before stays.
pub fn map_run(
    tables: &Tables,
    address: u64,
    pages: PfnRange,
    order: Order,
    flags: Flags,
) -> Result<u32, SetError> {
    let mut nr_leaves = 0;
    for offset in (0..pages.nr_pages()).step_by(1 << order.as_u8()) {
        let pfn = Pfn::new(pages.start().as_u64() + offset);
        tables.set(address + (offset << 12), Leaf { pfn, order, flags })?;
        nr_leaves += 1;
    }
    Ok(nr_leaves)
}

/// Takes the leaves of a run out, without a flush, and returns how many there were.
pub fn clear_run(tables: &Tables, address: u64, nr_pages: u64) -> u32 {
    let mut nr_leaves = 0;
    let mut offset = 0;
    // Ends: the offset grows by a leaf, or by a page.
    while offset < nr_pages {
        let leaf = tables.clear(address + (offset << 12));
        nr_leaves += u32::from(leaf.is_some());
        offset += leaf.map_or(1, |leaf| leaf.order.nr_pages());
    }
    nr_leaves
}
