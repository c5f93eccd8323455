//! Memory that the caller lent, with its lifetime erased.
#![expect(unsafe_code, reason = "the one place where the lifetime of lent memory is erased")]

use core::fmt;
use core::ptr::NonNull;

/// A shared borrow whose lifetime is vouched for by the type that contains it.
///
/// # Invariants
///
/// 1. The pointer came from a `&'m T`, and whoever contains this value carries `'m` invariantly,
///    so it cannot be used once `'m` is over.
pub(crate) struct Lent<T: ?Sized>(NonNull<T>);

impl<T: ?Sized> Lent<T> {
    /// Erases the lifetime of `lent`.
    ///
    /// # Safety
    ///
    /// The result, and every copy of it, is reachable only through a value whose type carries the
    /// lifetime of `lent` invariantly.
    pub(crate) const unsafe fn new(lent: &T) -> Self {
        // SAFETY: A reference is not null.
        Self(unsafe { NonNull::new_unchecked(core::ptr::from_ref(lent).cast_mut()) })
    }

    /// Returns the pointer that the borrow was.
    pub(crate) const fn into_ptr(self) -> NonNull<T> {
        self.0
    }

    /// Returns the borrow, for as long as the container is borrowed.
    #[inline]
    pub(crate) const fn get(&self) -> &T {
        // SAFETY: By invariant 1 the container, which `self` borrows from, is only alive while
        // the original borrow is; that borrow was shared, so no exclusive one can exist.
        unsafe { self.0.as_ref() }
    }
}

impl<T: ?Sized> fmt::Debug for Lent<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lent")
    }
}

// SAFETY: A `Lent<T>` is a `&T`, which is `Send` exactly if `T` is `Sync`.
unsafe impl<T: ?Sized + Sync> Send for Lent<T> {}
// SAFETY: A `Lent<T>` is a `&T`, which is `Sync` exactly if `T` is `Sync`.
unsafe impl<T: ?Sized + Sync> Sync for Lent<T> {}
