//! The flags of a word: who is refused, and who has to be woken.
//!
//! They ride on the word that newcomers and decrements exchange, so nobody who goes by can miss
//! one.

use super::{Bits, CLOSED, WAITER, Word};
use crate::sync::Ordering;

impl Word<'_> {
    /// Refuses newcomers from now on, and returns whether they were refused before; the caller
    /// holds a count.
    pub(crate) fn close(self) -> bool {
        // ORDERING: Relaxed. The flag rides on the word that newcomers exchange.
        Bits(self.0.fetch_or(CLOSED, Ordering::Relaxed)).is_closed()
    }

    /// Admits newcomers again; the caller holds a count.
    pub(crate) fn reopen(self) {
        // ORDERING: Relaxed. The flag rides on the word that newcomers exchange.
        self.0.fetch_and(!CLOSED, Ordering::Relaxed);
    }

    /// Refuses newcomers from now on, by somebody without a count; false if nobody has one.
    pub(crate) fn close_held(self) -> bool {
        self.raise(CLOSED)
    }

    /// Registers a waiter; false if there is nothing to wait for.
    pub(crate) fn register_waiter(self) -> bool {
        self.raise(WAITER)
    }

    /// Raises a flag where there are counts; false where there are none.
    fn raise(self, flag: u64) -> bool {
        let mut bits = self.read();
        // Ends: a turn is repeated only when another transition succeeded, or by chance.
        while bits.is_held() {
            // ORDERING: Relaxed. Flag and counts share the word, so no decrement can miss it; a
            // waiter looks again at the word and sleeps by the embedder's token.
            match self.0.compare_exchange_weak(
                bits.0,
                bits.0 | flag,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => bits = Bits(now),
            }
        }
        false
    }
}
