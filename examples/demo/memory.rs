//! Memory for metadata that costs nothing until it is used.

use core::alloc::Layout;
use core::ptr::{self, NonNull};
use core::slice;
use std::alloc::{alloc_zeroed, dealloc};

use devfolio::MetaLine;

/// Zeroed lines of metadata, committed by the operating system page by page on first use.
///
/// # Invariants
///
/// 1. `base` was allocated with `layout`, nobody else owns it, and it starts zeroed.
/// 2. From `base`, rounded up to a line, `nr_lines` lines lie inside the allocation.
#[derive(Debug)]
pub(crate) struct LazyLines {
    base: NonNull<u8>,
    layout: Layout,
    nr_lines: usize,
}

const LINE_BYTES: usize = size_of::<MetaLine>();

impl LazyLines {
    /// Allocates `nr_lines` zeroed lines, or returns `None` if that is too much.
    pub(crate) fn zeroed(nr_lines: usize) -> Option<Self> {
        // The allocator clears memory by hand, and so touches all of it, if it is asked for more
        // than its natural alignment. One line more makes room for aligning it here.
        let len_bytes = nr_lines.checked_add(1)?.checked_mul(LINE_BYTES)?;
        let layout = Layout::from_size_align(len_bytes, align_of::<u64>()).ok()?;
        // SAFETY: The size is not zero, by the line more.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        // INVARIANT: 1 by the call; 2 because rounding up takes less than the line more.
        Some(Self { base, layout, nr_lines })
    }

    /// Lends the lines.
    pub(crate) fn lines_mut(&mut self) -> &mut [MetaLine] {
        let start = self.base.as_ptr();
        let start = start.wrapping_add(start.align_offset(align_of::<MetaLine>()));
        // SAFETY: The pointer is aligned by the line above. By invariant 2 all lines lie in one
        // allocation, which by invariant 1 is ours and initialised; a line is plain memory, and
        // whatever was written to it before came from the crate through such a slice. The borrow
        // of `self` keeps everybody else away.
        unsafe { slice::from_raw_parts_mut(start.cast::<MetaLine>(), self.nr_lines) }
    }

    /// Clears all lines, which commits all of their memory.
    pub(crate) fn rewrite_zeroes(&mut self) {
        for line in self.lines_mut() {
            // Volatile, because a clever compiler knows that the memory was zero before.
            // SAFETY: The pointer comes from an exclusive reference.
            unsafe { ptr::write_volatile(line, MetaLine::ZERO) };
        }
    }
}

impl Drop for LazyLines {
    fn drop(&mut self) {
        // SAFETY: By invariant 1 this is the allocation's own layout and its last use.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_aligned_and_complete() {
        for nr_lines in [0, 1, 7, 100_000] {
            let mut memory = LazyLines::zeroed(nr_lines).unwrap();
            memory.rewrite_zeroes();
            let lines = memory.lines_mut();
            assert_eq!(lines.len(), nr_lines);
            assert!(lines.as_ptr().is_aligned());
        }
    }

    #[test]
    fn too_much_is_refused() {
        assert!(LazyLines::zeroed(usize::MAX / LINE_BYTES).is_none());
        assert!(LazyLines::zeroed(usize::MAX).is_none());
    }
}
