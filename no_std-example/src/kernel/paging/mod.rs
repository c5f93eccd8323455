//! Page tables of this machine, four levels of them, with leaves of 4 KiB, 2 MiB and 1 GiB.
//!
//! What an entry and an address look like comes from the crate `x86_64`. Entries are read and
//! written as atomics, since other CPUs, and lockless lookups, read them at the same time.

mod entry;
mod tables;
mod traits;

pub use tables::Tables;
pub use traits::Reader;

use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::PhysFrame;
use x86_64::{PhysAddr, VirtAddr, instructions::tlb};

use crate::machine::{boot, cpus};

/// How many pages are flushed one by one.
const FLUSH_MAX: u64 = 32;

/// Makes this CPU use the tables, or those that it booted with.
pub fn activate(tables: Option<&Tables>) {
    activate_root(tables.map_or(boot::root_address(), Tables::root));
}

/// Makes this CPU use the tables with that root, which another CPU may own.
pub fn activate_root(root: u64) {
    let frame = PhysFrame::containing_address(PhysAddr::new_truncate(root));
    // SAFETY: All roots have the entry through which the kernel is mapped.
    unsafe { Cr3::write(frame, Cr3Flags::empty()) };
}

/// Returns the root of the tables that this CPU uses.
pub fn active_root() -> u64 {
    Cr3::read().0.start_address().as_u64()
}

/// Flushes so many pages on all CPUs.
#[inline]
pub fn flush(address: u64, nr_pages: u64) {
    if nr_pages <= FLUSH_MAX {
        for page in 0..nr_pages {
            tlb::flush(VirtAddr::new_truncate(address + (page << 12)));
        }
    } else {
        tlb::flush_all();
    }
    cpus::flush_others();
}

/// Flushes the translation that a leaf has, whatever its order, on all CPUs.
#[inline]
pub fn flush_leaf(address: u64) {
    flush(address, 1);
}
