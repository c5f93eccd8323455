//! How a waiter sleeps: the embedder's business, behind one small trait.

use crate::units::Pfn;

/// Sleeping and waking, keyed by the head of a folio of one pgmap.
///
/// A waiter reads the token, registers itself in the folio's word, looks again, and parks until
/// the token is no longer the one that it read. A waker clears the registration and then calls
/// [`Park::unpark_all`]; it knows no condition, so every waiter looks again for itself.
///
/// # Context
///
/// `unpark_all` is called by whoever drops a count, possibly from an interrupt, with no lock of
/// this crate held. It must not sleep.
pub trait Park: Sync {
    /// Returns the token that changes with every [`Park::unpark_all`] of `head`.
    ///
    /// If `park` always returns soon, nothing has to change.
    fn token(&self, head: Pfn) -> u64;

    /// Sleeps until the token of `head` differs from `token`; may return early.
    fn park(&self, head: Pfn, token: u64);

    /// Changes the token of `head` and wakes everybody who parked on it.
    fn unpark_all(&self, head: Pfn);
}

/// The [`Park`] of an embedder without a scheduler: waiters spin.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpinPark;

impl Park for SpinPark {
    fn token(&self, _head: Pfn) -> u64 {
        0
    }

    fn park(&self, _head: Pfn, _token: u64) {
        super::spin_loop();
    }

    fn unpark_all(&self, _head: Pfn) {}
}
