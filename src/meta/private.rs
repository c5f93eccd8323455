//! Owner data beside the state words: one place for each word, in memory that the caller lends.
#![expect(unsafe_code, reason = "values are born and dropped by what the state words say")]

use core::fmt;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

/// The lent places of the owner data of one extent, with type and lifetime erased.
///
/// # Invariants
///
/// 1. Unless the type is empty, `base` points to `len` places of the type that the store was made
///    for, and nobody else reaches them while whoever contains this value lives.
pub(crate) struct PrivateMem {
    base: NonNull<()>,
    len: usize,
}

impl PrivateMem {
    /// Erases type and lifetime of `places`.
    ///
    /// # Safety
    ///
    /// The result is reachable only through a value whose type carries the lifetime of `places`
    /// invariantly, and it is only ever used with the type `P`, which is `Send` and `Sync`.
    pub(crate) unsafe fn new<P>(places: &mut [MaybeUninit<P>]) -> Self {
        Self { base: NonNull::from(&mut *places).cast(), len: places.len() }
    }

    /// Returns the place at `index`; `None` if there is none.
    pub(crate) fn place<P>(&self, index: usize) -> Option<NonNull<P>> {
        if size_of::<P>() == 0 {
            return Some(NonNull::dangling());
        }
        if self.len <= index {
            return None;
        }
        // SAFETY: By invariant 1 there are `len` places, and `index` is below that.
        Some(unsafe { self.base.cast::<P>().add(index) })
    }
}

impl PrivateMem {
    /// Returns the places to whoever lent them.
    ///
    /// # Safety
    ///
    /// They were lent exclusively for `'m` as places of the type `P`, and nobody else reaches them
    /// any more.
    pub(crate) unsafe fn into_places<'m, P>(self) -> &'m mut [MaybeUninit<P>] {
        // SAFETY: By invariant 1 there are `len` places, which nobody else reaches by the contract.
        unsafe {
            core::slice::from_raw_parts_mut(self.base.cast::<MaybeUninit<P>>().as_ptr(), self.len)
        }
    }
}

impl fmt::Debug for PrivateMem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateMem({} places)", self.len)
    }
}

// SAFETY: It is only used with a type that is `Send` and `Sync`, by the contract of `new`.
unsafe impl Send for PrivateMem {}
// SAFETY: As above; a shared reference leads to values only through handles, which are proofs of
// shared or exclusive access.
unsafe impl Sync for PrivateMem {}
