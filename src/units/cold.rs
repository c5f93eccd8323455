//! Errors out of the way of what succeeds.

/// Returns `error`, made out of line.
///
/// A function that is expanded where it is called keeps what it returns in registers only if its
/// errors are not put together, field by field, in the place where the success would be.
#[cold]
#[inline(never)]
pub(crate) fn cold<E>(error: E) -> E {
    error
}
