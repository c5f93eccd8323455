//! What all allocators of page frames can do, and the peers in this form.

use std::alloc::Layout;
use std::cell::Cell;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use bitmap_allocator::{BitAlloc, BitAlloc16M};
use frame_alloc::{
    CpuId, DepotAllocator, PageSize, PhysicalAllocator, Provenance, RegionInit,
    SummaryBuddyAllocator,
};
use spin::Mutex;

const PAGE: usize = 4096;

thread_local! {
    static CPU: Cell<usize> = const { Cell::new(0) };
}

/// The CPU that this thread says it runs on.
#[inline]
pub(crate) fn cpu() -> usize {
    CPU.get()
}

pub(crate) fn set_cpu(cpu: usize) {
    CPU.set(cpu);
}

/// An allocator of page frames. It lives as long as the program.
pub(crate) trait Frames: Sync + 'static {
    const NAME: &'static str;
    /// What is handed out; giving it to `free` gives it back.
    type Frame: Send;

    fn new(nr_pages: u64) -> &'static Self;
    fn alloc(&'static self, order: u8) -> Option<Self::Frame>;
    /// Gives back what was taken with this order.
    fn free(&'static self, frame: Self::Frame, order: u8);
    /// Returns the first page, for those who can claim.
    fn page(_frame: &Self::Frame) -> u64 {
        0
    }
    /// Takes the pages from `page` on; not everybody can.
    fn claim(&'static self, _page: u64, _order: u8) -> Option<Self::Frame> {
        None
    }
}

/// The number of a page.
pub(crate) type Plain = usize;

/// `frame-alloc` keeps its books inside the memory that it manages: here is some.
pub(crate) struct Mapped;

// SAFETY: The memory is one allocation whose provenance was exposed when it was made.
unsafe impl Provenance for Mapped {
    unsafe fn create(phys: usize) -> NonNull<u8> {
        let pointer = std::ptr::with_exposed_provenance_mut(phys);
        // SAFETY: The allocator passes addresses inside the memory, none of them null.
        unsafe { NonNull::new_unchecked(pointer) }
    }

    unsafe fn destroy<T>(pointer: NonNull<T>) -> usize {
        pointer.addr().get()
    }
}

/// Returns memory that the host commits when it is touched, aligned to 1 GiB.
fn memory(nr_pages: u64) -> *mut u8 {
    const ALIGN: usize = 1 << 30;
    let bytes = nr_pages as usize * PAGE + ALIGN;
    let (rights, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
    );
    // SAFETY: A new mapping at a place of the kernel's choice touches nobody's memory.
    let memory = unsafe { libc::mmap(std::ptr::null_mut(), bytes, rights, flags, -1, 0) };
    assert_ne!(memory, libc::MAP_FAILED);
    // SAFETY: The mapping is ours and that long. A refusal only makes timing worse.
    unsafe { libc::madvise(memory, bytes, libc::MADV_HUGEPAGE) };
    let memory = memory.cast::<u8>();
    memory.wrapping_add(memory.addr().next_multiple_of(ALIGN) - memory.addr())
}

pub(crate) type SummaryBuddy = SummaryBuddyAllocator<19, Mapped>;

const BASE: PageSize = PageSize::from_log2(12);

fn count(order: u8) -> NonZeroUsize {
    NonZeroUsize::new(1 << order).unwrap()
}

fn init(pool: &impl RegionInit, nr_pages: u64) {
    let base = memory(nr_pages).expose_provenance();
    // SAFETY: The memory belongs to nobody else, and nobody else knows the pool yet.
    unsafe { pool.init_region(base, nr_pages as usize * PAGE) };
}

impl Frames for SummaryBuddy {
    const NAME: &'static str = "frame-alloc SummaryBuddy";
    type Frame = Plain;

    fn new(nr_pages: u64) -> &'static Self {
        let pool = Box::leak(Box::new(SummaryBuddyAllocator::new(BASE)));
        init(pool, nr_pages);
        pool
    }

    #[inline]
    fn alloc(&'static self, order: u8) -> Option<Plain> {
        self.allocate_physical(BASE, count(order)).ok()
    }

    #[inline]
    fn free(&'static self, page: Plain, order: u8) {
        // SAFETY: It came from `alloc` with this order.
        unsafe { self.deallocate_physical(BASE, count(order), page) };
    }
}

pub(crate) struct ThreadCpu;

impl CpuId for ThreadCpu {
    #[inline]
    fn current_cpu() -> usize {
        cpu()
    }
}

pub(crate) type Depot = DepotAllocator<SummaryBuddy, ThreadCpu, 4>;

impl Frames for Depot {
    const NAME: &'static str = "frame-alloc Depot";
    type Frame = Plain;

    fn new(nr_pages: u64) -> &'static Self {
        let pool: &Self =
            Box::leak(Box::new(DepotAllocator::new(BASE, SummaryBuddyAllocator::new(BASE))));
        init(pool, nr_pages);
        pool
    }

    #[inline]
    fn alloc(&'static self, order: u8) -> Option<Plain> {
        self.allocate_physical(BASE, count(order)).ok()
    }

    #[inline]
    fn free(&'static self, page: Plain, order: u8) {
        // SAFETY: It came from `alloc` with this order.
        unsafe { self.deallocate_physical(BASE, count(order), page) };
    }
}

/// `buddy_system_allocator` behind a spin lock.
pub(crate) struct Bsa(Mutex<buddy_system_allocator::FrameAllocator<20>>);

impl Frames for Bsa {
    const NAME: &'static str = "buddy_system_allocator + lock";
    type Frame = Plain;

    fn new(nr_pages: u64) -> &'static Self {
        let mut pool = buddy_system_allocator::FrameAllocator::new();
        pool.add_frame(0, nr_pages as usize);
        Box::leak(Box::new(Self(Mutex::new(pool))))
    }

    #[inline]
    fn alloc(&'static self, order: u8) -> Option<Plain> {
        self.0.lock().alloc(1 << order)
    }

    #[inline]
    fn free(&'static self, page: Plain, order: u8) {
        self.0.lock().dealloc(page, 1 << order);
    }

    fn page(frame: &Plain) -> u64 {
        *frame as u64
    }

    #[inline]
    fn claim(&'static self, page: u64, order: u8) -> Option<Plain> {
        self.0.lock().alloc_at(page as usize, 1 << order)
    }
}

/// `buddy-slab-allocator` behind a spin lock.
pub(crate) struct BuddySlab(Mutex<buddy_slab_allocator::BuddyAllocator<PAGE>>);

// SAFETY: The allocator owns the memory that it points at; the lock makes it one thread's.
unsafe impl Sync for BuddySlab {}

impl Frames for BuddySlab {
    const NAME: &'static str = "buddy-slab-allocator + lock";
    type Frame = Plain;

    fn new(nr_pages: u64) -> &'static Self {
        let mut pool = buddy_slab_allocator::BuddyAllocator::new();
        let bytes = nr_pages as usize * PAGE;
        // SAFETY: The memory is that long, zeroed, and belongs to nobody else.
        let memory = unsafe { std::slice::from_raw_parts_mut(memory(nr_pages), bytes) };
        // SAFETY: The memory lives as long as the program.
        unsafe { pool.init(memory) }.unwrap();
        Box::leak(Box::new(Self(Mutex::new(pool))))
    }

    #[inline]
    fn alloc(&'static self, order: u8) -> Option<Plain> {
        self.0.lock().alloc_pages(1 << order, PAGE).ok()
    }

    #[inline]
    fn free(&'static self, page: Plain, order: u8) {
        self.0.lock().dealloc_pages(page, 1 << order);
    }
}

/// `offset-allocator` behind a spin lock; it does not align.
pub(crate) struct Offset(Mutex<offset_allocator::Allocator>);

impl Frames for Offset {
    const NAME: &'static str = "offset-allocator + lock";
    type Frame = offset_allocator::Allocation;

    fn new(nr_pages: u64) -> &'static Self {
        let nr_pages = u32::try_from(nr_pages).unwrap();
        let pool = offset_allocator::Allocator::with_max_allocs(nr_pages, nr_pages);
        Box::leak(Box::new(Self(Mutex::new(pool))))
    }

    #[inline]
    fn alloc(&'static self, order: u8) -> Option<Self::Frame> {
        self.0.lock().allocate(1 << order)
    }

    #[inline]
    fn free(&'static self, frame: Self::Frame, _order: u8) {
        self.0.lock().free(frame);
    }
}

/// `bitmap-allocator` behind a spin lock.
pub(crate) struct Bitmap(Mutex<Box<BitAlloc16M>>);

impl Frames for Bitmap {
    const NAME: &'static str = "bitmap-allocator + lock";
    type Frame = Plain;

    fn new(nr_pages: u64) -> &'static Self {
        // Too large for a stack, and all zero when it is empty.
        let layout = Layout::new::<BitAlloc16M>();
        // SAFETY: The layout is not empty.
        let memory = unsafe { std::alloc::alloc_zeroed(layout) }.cast::<BitAlloc16M>();
        // SAFETY: The memory came from this allocator with this layout; zeroes are an empty map.
        let mut pool = unsafe { Box::from_raw(memory) };
        pool.insert(0..nr_pages as usize);
        Box::leak(Box::new(Self(Mutex::new(pool))))
    }

    #[inline]
    fn alloc(&'static self, order: u8) -> Option<Plain> {
        let mut pool = self.0.lock();
        match order {
            0 => pool.alloc(),
            _ => pool.alloc_contiguous(None, 1 << order, order.into()),
        }
    }

    #[inline]
    fn free(&'static self, page: Plain, order: u8) {
        let mut pool = self.0.lock();
        match order {
            0 => pool.dealloc(page),
            _ => pool.dealloc_contiguous(page, 1 << order),
        };
    }
}
