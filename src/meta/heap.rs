//! Metadata memory on the heap of a host.
#![expect(unsafe_code, reason = "the one way to zeroed memory that nobody touches")]

use core::alloc::Layout;
use core::fmt;
use core::ptr::NonNull;
use core::slice;
use std::alloc::{alloc_zeroed, dealloc};

use super::MetaLine;

/// Zeroed lines on the heap; large ones are committed by the host page by page, on first use.
///
/// ```
/// use devfolio::{HeapMeta, MetaSize, Pfn, PfnRange, Tables};
///
/// let extent = PfnRange::new(Pfn::new(0), 1 << 28)?; // 1 TiB
/// let mut meta = HeapMeta::zeroed(MetaSize::of(extent, Tables::Dense).lines()).unwrap();
/// assert_eq!(meta.lines_mut().len(), MetaSize::of(extent, Tables::Dense).lines());
/// # Ok::<(), devfolio::RangeError>(())
/// ```
///
/// # Invariants
///
/// 1. `base` was allocated with `layout`, zeroed, and nobody else owns it.
/// 2. From `base`, rounded up to a line, `nr_lines` lines lie inside the allocation.
pub struct HeapMeta {
    base: NonNull<u8>,
    layout: Layout,
    nr_lines: usize,
}

impl HeapMeta {
    /// Allocates `nr_lines` zeroed lines; `None` if there is not so much memory.
    #[must_use]
    pub fn zeroed(nr_lines: usize) -> Option<Self> {
        // The allocator of `std` clears memory by hand, and so touches all of it, if it is asked
        // for more than its natural alignment. One line more makes room for aligning it here.
        let len_bytes = nr_lines.checked_add(1)?.checked_mul(size_of::<MetaLine>())?;
        let layout = Layout::from_size_align(len_bytes, align_of::<u64>()).ok()?;
        // SAFETY: The size is not zero, by the line more.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        // INVARIANT: 1 by the call; 2 because rounding up takes less than the line more.
        Some(Self { base, layout, nr_lines })
    }

    /// Returns the lines, to be lent.
    ///
    /// They are zeroes the first time; who lends them again attaches with
    /// [`Attach::Clear`](crate::Attach::Clear).
    #[must_use]
    pub fn lines_mut(&mut self) -> &mut [MetaLine] {
        let start = self.base.as_ptr();
        let offset = start.addr().wrapping_neg() & (align_of::<MetaLine>().wrapping_sub(1));
        let start = start.wrapping_add(offset);
        // SAFETY: The pointer is aligned by the line above. By invariant 2 all lines lie in one
        // allocation, which by invariant 1 is ours and was zeroed; every bit pattern is a line.
        // The borrow of `self` keeps everybody else away.
        unsafe { slice::from_raw_parts_mut(start.cast::<MetaLine>(), self.nr_lines) }
    }
}

impl fmt::Debug for HeapMeta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeapMeta({} lines)", self.nr_lines)
    }
}

impl Drop for HeapMeta {
    fn drop(&mut self) {
        // SAFETY: By invariant 1 this is the allocation's own layout and its last use.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}

// SAFETY: The memory is owned, and reached through borrows of its owner alone; lines are `Send`.
unsafe impl Send for HeapMeta {}
// SAFETY: A shared borrow gives nothing away.
unsafe impl Sync for HeapMeta {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heap_lines_are_aligned_zero_and_complete() {
        for nr_lines in [0, 1, 7, 1_000] {
            let mut memory = HeapMeta::zeroed(nr_lines).unwrap();
            let lines = memory.lines_mut();
            assert_eq!(lines.len(), nr_lines);
            assert!(lines.as_ptr().is_aligned());
            let mut words = lines.iter().flat_map(MetaLine::words);
            assert!(words.all(|word| word.load(crate::sync::Ordering::Relaxed) == 0));
        }
    }

    #[test]
    fn more_lines_than_there_is_memory_are_refused() {
        assert!(HeapMeta::zeroed(usize::MAX / size_of::<MetaLine>()).is_none());
        assert!(HeapMeta::zeroed(usize::MAX).is_none());
    }

    #[test]
    #[cfg(all(target_os = "linux", not(miri)))]
    fn heap_lines_are_not_committed_before_they_are_used() {
        let resident_pages = || -> usize {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            statm.split(' ').nth(1).unwrap().parse().unwrap()
        };
        let before = resident_pages();
        // 1 GiB, of which a few other tests may use up some meanwhile.
        let memory = HeapMeta::zeroed((1 << 30) / size_of::<MetaLine>()).unwrap();
        let nr_pages = resident_pages().saturating_sub(before);
        assert!(nr_pages < 1 << 15, "{nr_pages} pages of {memory:?}");
    }
}
