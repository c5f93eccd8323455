//! The unit of metadata memory: one cache line of words.

use core::fmt;

use static_assertions::assert_impl_all;

use super::layout::LINE_WORDS;
use crate::sync::{AtomicU64, Ordering};

/// 64 bytes of metadata memory, to be lent to an extent.
///
/// How many lines an extent needs is answered by [`MetaSize::of`](super::MetaSize::of). They come
/// from a [`StaticMeta`], from `HeapMeta` (feature `std`), or from a `Vec`;
/// `vec![MetaLine::ZERO; n]` does not compile, since a line is not `Clone`:
///
/// ```
/// use devfolio::MetaLine;
///
/// let mut lines: Vec<_> = (0..512).map(|_| MetaLine::ZERO).collect();
/// # let _ = &mut lines[..];
/// ```
///
/// # Layout
///
/// `repr(C)`, 64 bytes, aligned to 64 bytes. Any initialised bytes are lines, good for
/// [`Attach::Clear`](crate::Attach::Clear); zeroes are good for
/// [`Attach::Zeroed`](crate::Attach::Zeroed). So a kernel makes them out of physical memory, which
/// takes `unsafe`:
///
/// ```
/// use devfolio::MetaLine;
///
/// /// # Safety
/// ///
/// /// `base` is mapped, aligned to 64 bytes and followed by `nr_lines * 64` initialised bytes, and
/// /// for all time nobody else reads or writes them.
/// unsafe fn carve(base: *mut u8, nr_lines: usize) -> &'static mut [MetaLine] {
///     // SAFETY: By the contract of this function; all bytes are lines.
///     unsafe { core::slice::from_raw_parts_mut(base.cast(), nr_lines) }
/// }
/// ```
#[derive(Default)]
#[repr(C, align(64))]
pub struct MetaLine {
    words: [AtomicU64; LINE_WORDS],
}

#[cfg(not(all(test, loom)))]
impl MetaLine {
    /// A line of zeroes.
    #[expect(clippy::declare_interior_mutable_const, reason = "meant to be repeated in an array")]
    pub const ZERO: Self = Self { words: [const { AtomicU64::new(0) }; LINE_WORDS] };
}

impl MetaLine {
    /// Returns the words of this line.
    #[inline]
    pub(crate) const fn words(&self) -> &[AtomicU64; LINE_WORDS] {
        &self.words
    }
}

impl fmt::Debug for MetaLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MetaLine")
    }
}

/// What a word of the state is.
#[cfg(any(test, feature = "model"))]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum WordKind {
    /// A state word.
    State,
    /// Free bits, table indices, the pool.
    Structure,
    /// Clean bits.
    Clean,
}

/// Metadata memory in a `static`, handed out once.
///
/// ```
/// use devfolio::StaticMeta;
///
/// static META: StaticMeta<8> = StaticMeta::new();
/// assert_eq!(META.take().map(|lines| lines.len()), Some(8));
/// assert!(META.take().is_none());
/// ```
pub struct StaticMeta<const LINES: usize> {
    taken: AtomicU64,
    lines: core::cell::UnsafeCell<[MetaLine; LINES]>,
}

#[cfg(not(all(test, loom)))]
impl<const LINES: usize> Default for StaticMeta<LINES> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(not(all(test, loom)))]
impl<const LINES: usize> StaticMeta<LINES> {
    /// Creates `LINES` zeroed lines.
    #[must_use]
    pub const fn new() -> Self {
        let lines = core::cell::UnsafeCell::new([MetaLine::ZERO; LINES]);
        Self { taken: AtomicU64::new(0), lines }
    }
}

impl<const LINES: usize> StaticMeta<LINES> {
    /// Hands the lines out; `None` from the second call on.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock.
    #[expect(unsafe_code, reason = "an exclusive borrow out of a static, once")]
    #[expect(clippy::mut_from_ref, reason = "the flag makes it exclusive")]
    pub fn take(&'static self) -> Option<&'static mut [MetaLine]> {
        // ORDERING: Relaxed. The flag only makes its first caller the only one; the lines are as
        // the compiler made them.
        if self.taken.swap(1, Ordering::Relaxed) != 0 {
            return None;
        }
        // SAFETY: The flag was zero and is never set back, so this is the only borrow that the
        // cell ever hands out; `self` is static, so the lines never move or die.
        let lines = unsafe { &mut *self.lines.get() };
        Some(lines)
    }
}

impl<const LINES: usize> fmt::Debug for StaticMeta<LINES> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StaticMeta({LINES} lines)")
    }
}

#[expect(unsafe_code, reason = "the cell is reached through `take` alone")]
// SAFETY: The cell is only reached through `take`, which hands it out once; lines are `Send`.
unsafe impl<const LINES: usize> Sync for StaticMeta<LINES> {}

#[cfg(not(all(test, loom)))]
mod layout_asserts {
    use static_assertions::{assert_eq_align, assert_eq_size};

    use super::*;

    assert_eq_size!(MetaLine, [u64; LINE_WORDS]);
    assert_eq_align!(MetaLine, Aligned);
}
assert_impl_all!(MetaLine: Send, Sync);

#[repr(align(64))]
#[cfg(not(all(test, loom)))]
struct Aligned;
