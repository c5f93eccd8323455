//! The host's MMU as a page table: leaves are `mmap` calls over a memfd.
//!
//! The entries are in a table of atomics, one for each page; what the kernel maps is the TLB of
//! it. So `clear` empties entries, and `flush` takes the translations away, as hardware would do.

use core::ffi::{c_int, c_long, c_uint, c_void};
use core::sync::atomic::{AtomicU64, Ordering};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};

use devfolio::{
    Entry, Leaf, LeafReader, LeafSet, NoTable, Order, PageTable, Pfn, Rights, Vpn, VpnRange,
};

pub(super) const PAGE: usize = 4096;

const PROT_NONE: c_int = 0;
const PROT_READ: c_int = 1;
const PROT_WRITE: c_int = 2;
const MAP_SHARED: c_int = 0x01;
const MAP_PRIVATE: c_int = 0x02;
const MAP_FIXED: c_int = 0x10;
const MAP_ANONYMOUS: c_int = 0x20;
const MAP_NORESERVE: c_int = 0x4000;

unsafe extern "C" {
    fn memfd_create(name: *const core::ffi::c_char, flags: c_uint) -> c_int;
    fn mmap(
        at: *mut c_void,
        len: usize,
        prot: c_int,
        flags: c_int,
        fd: c_int,
        offset: c_long,
    ) -> *mut c_void;
    fn munmap(at: *mut c_void, len: usize) -> c_int;
}

/// A range of addresses of this process.
#[derive(Debug)]
pub(super) struct Window {
    base: usize,
    len: usize,
}

impl Window {
    /// Maps a whole file, or reserves as many addresses.
    fn new(len: usize, file: Option<&File>) -> io::Result<Self> {
        let (prot, flags, fd) = match file {
            Some(file) => (PROT_READ | PROT_WRITE, MAP_SHARED, file.as_raw_fd()),
            None => (PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1),
        };
        // SAFETY: New addresses, which replace nothing.
        let base = unsafe { mmap(core::ptr::null_mut(), len, prot, flags, fd, 0) };
        if base.addr() == usize::MAX {
            Err(io::Error::last_os_error())
        } else {
            Ok(Self { base: base.addr(), len })
        }
    }

    pub(super) const fn address(&self, page: u64) -> usize {
        self.base + page as usize * PAGE
    }

    /// Reads the first word of a page that is mapped.
    fn word(&self, page: u64) -> u64 {
        let at = core::ptr::with_exposed_provenance::<AtomicU64>(self.address(page));
        // SAFETY: The page is mapped until its flush, and is read and written by atomics only.
        unsafe { &*at }.load(Ordering::Relaxed)
    }

    /// Maps pages of the file over pages of the window, or nothing.
    fn replace(&self, page: u64, nr_pages: u64, file: Option<(&File, u64)>) {
        let (prot, flags, fd, offset) = match file {
            Some((file, page)) => {
                (PROT_READ | PROT_WRITE, MAP_SHARED, file.as_raw_fd(), page as usize * PAGE)
            }
            None => (PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0),
        };
        let (at, len) = (self.address(page), nr_pages as usize * PAGE);
        assert!(at + len <= self.base + self.len, "beyond the window");
        // SAFETY: The window is this process's own, and nobody holds a Rust reference into it.
        let at = unsafe {
            mmap(
                core::ptr::with_exposed_provenance_mut(at),
                len,
                prot,
                flags | MAP_FIXED,
                fd,
                offset as c_long,
            )
        };
        assert!(at.addr() != usize::MAX, "mmap: {}", io::Error::last_os_error());
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: The window is this process's own, and nobody uses it any more.
        let _ = unsafe { munmap(core::ptr::with_exposed_provenance_mut(self.base), self.len) };
    }
}

/// The device: memory behind a file descriptor, with a view of all of it.
#[derive(Debug)]
pub(super) struct Device {
    file: File,
    all: Window,
    first: u64,
}

impl Device {
    /// Creates `nr_pages` of memory, whose first page frame number is `first`.
    pub(super) fn new(first: u64, nr_pages: u64) -> io::Result<Self> {
        // SAFETY: The name ends with a zero.
        let fd = unsafe { memfd_create(c"devfolio".as_ptr(), 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: The descriptor was just opened and has no other owner.
        let file = unsafe { File::from_raw_fd(fd) };
        let len = nr_pages as usize * PAGE;
        file.set_len(len as u64)?;
        let all = Window::new(len, Some(&file))?;
        Ok(Self { file, all, first })
    }

    /// Returns the words of a page, as a device that is given its number would reach them.
    pub(super) fn words(&self, pfn: u64) -> &[AtomicU64] {
        let at = self.all.address(pfn - self.first);
        assert!(at + PAGE <= self.all.base + self.all.len, "beyond the device");
        // SAFETY: The view is mapped as long as `self` lives, and is read and written by atomics
        // only.
        unsafe { core::slice::from_raw_parts(core::ptr::with_exposed_provenance(at), PAGE / 8) }
    }
}

/// The entries of an address space, one for each page; what lockless readers share.
pub(super) struct Entries(Box<[AtomicU64]>);

impl Entries {
    pub(super) fn new(nr_pages: u64) -> Self {
        Self((0..nr_pages).map(|_| AtomicU64::new(0)).collect())
    }
}

impl LeafReader for &Entries {
    fn read(&self, vpn: Vpn) -> Entry {
        let entry = usize::try_from(vpn.as_u64()).ok().and_then(|index| self.0.get(index));
        let bits = entry.map_or(0, |entry| entry.load(Ordering::Acquire));
        if bits == 0 {
            return Entry::Empty { log2_pages: 0 };
        }
        let order = if bits & 2 == 0 { Order::ZERO } else { Order::BLOCK };
        let rights = Rights::from_bits((bits >> 2) as u8);
        Entry::Leaf(Leaf::new(Pfn::new(bits >> 8).head(order), order, rights))
    }
}

/// An address space of this process.
pub(super) struct HostTable<'h> {
    device: &'h Device,
    entries: &'h Entries,
    window: &'h Window,
    /// What was cleared and not flushed.
    stale: Vec<u64>,
    /// Told of each stale page what is read there for the last time.
    last_look: &'h (dyn Fn(u64, u64) + Sync),
}

impl<'h> HostTable<'h> {
    pub(super) const fn new(
        device: &'h Device,
        entries: &'h Entries,
        window: &'h Window,
        last_look: &'h (dyn Fn(u64, u64) + Sync),
    ) -> Self {
        Self { device, entries, window, stale: Vec::new(), last_look }
    }
}

/// Reserves addresses for as many pages as there are entries.
pub(super) fn reserve(entries: &Entries) -> io::Result<Window> {
    Window::new(entries.0.len() * PAGE, None)
}

impl HostTable<'_> {
    fn group(&self, vpn: Vpn, order: Order) -> &[AtomicU64] {
        let first = vpn.head(order).as_u64() as usize;
        self.entries.0.get(first..first + order.nr_pages() as usize).unwrap_or(&[])
    }
}

impl LeafReader for HostTable<'_> {
    fn read(&self, vpn: Vpn) -> Entry {
        self.entries.read(vpn)
    }
}

impl PageTable for HostTable<'_> {
    fn leaf_set(&self) -> LeafSet {
        LeafSet::PAGES.with(Order::BLOCK)
    }

    fn addresses(&self) -> VpnRange {
        let last = Vpn::new(self.entries.0.len() as u64 - 1);
        VpnRange::between(Vpn::new(0), last).unwrap_or(VpnRange::page(last))
    }

    /// The kernel finds its own table pages.
    fn reserve(&mut self, _: VpnRange, _: Order) -> Result<(), NoTable> {
        Ok(())
    }

    fn set(&mut self, vpn: Vpn, leaf: Leaf) {
        let (first, nr_pages) = (leaf.pfn.as_u64(), leaf.order.nr_pages());
        let file = Some((&self.device.file, first - self.device.first));
        self.window.replace(vpn.as_u64(), nr_pages, file);
        let flags = u64::from(leaf.rights.bits()) << 2 | u64::from(leaf.order == Order::BLOCK) << 1;
        for (pfn, entry) in (first..).zip(self.group(vpn, leaf.order)) {
            entry.store(pfn << 8 | flags | 1, Ordering::Release);
        }
    }

    fn clear(&mut self, vpn: Vpn) -> Option<Leaf> {
        let leaf = self.read(vpn).leaf()?;
        for entry in self.group(vpn, leaf.order) {
            entry.store(0, Ordering::Release);
        }
        self.stale.push(vpn.head(leaf.order).as_u64());
        // What was written through the mapping is not known, so all of it is dirty.
        Some(Leaf { accessed: true, dirty: true, ..leaf })
    }

    /// Not needed here: files are mapped for everything.
    fn protect(&mut self, _: Vpn, _: Rights) {}

    fn flush(&mut self, range: VpnRange) {
        for vpn in core::mem::take(&mut self.stale) {
            (self.last_look)(vpn, self.window.word(vpn));
        }
        let is_empty = |vpn: &u64| self.read(Vpn::new(*vpn)).leaf().is_none();
        let mut first = range.start().as_u64();
        let end = range.last().as_u64() + 1;
        // Ends: `first` rises by a run of entries on each turn.
        while first < end {
            let nr_pages = (first..end).take_while(is_empty).count() as u64;
            if nr_pages != 0 {
                self.window.replace(first, nr_pages, None);
            }
            first += nr_pages.max(1);
        }
    }
}
