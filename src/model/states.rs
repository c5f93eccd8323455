//! How many states there are: the closed form that exhaustive exploration is measured by.
//!
//! A naturally aligned block of order *k* is either one folio, in one of *c* states, or it is not,
//! and then its two halves are independent of each other:
//!
//! ```text
//! a(0) = 1 + c                the page is free, or a folio
//! a(k) = a(k-1)^2 + c
//! ```
//!
//! Here *c* adds up what one folio can be, whatever its order: one state each for unique, kept,
//! retired and condemned, as far as a world lets them occur, and *s* for live, one for each legal
//! combination of counts (twice that if a live folio may be closed). With up to *r* counts in all
//! of *n* kinds, there are *x* + *n* - 1 over *n* - 1 ways to have *x* of them, so *s* is the sum
//! of that over *x* = 1..*r*: 1 for *r* = 1 with references only, and 2 + 3 = 5 for *r* = 2 with
//! references and mappings.
//!
//! An extent is the product of its maximal aligned blocks. Free space adds nothing: which pages
//! are free follows from the folios, and how they were freed leaves no trace. Nor do clean bits
//! add anything as long as nothing is ever clean.

use crate::units::{Order, PfnRange};

/// What one folio can be in a world that is explored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FolioStates {
    /// The number of states beside live: unique, kept, retired, condemned.
    pub parked: u64,
    /// The number of legal combinations of counts, and of flags, of a live folio.
    pub live: u64,
}

impl FolioStates {
    /// Returns the number of ways to hold from 1 to `most` counts of `kinds` kinds.
    ///
    /// ```
    /// use devfolio::model::FolioStates;
    ///
    /// assert_eq!(FolioStates::combinations(1, 1), 1);
    /// assert_eq!(FolioStates::combinations(2, 2), 5);
    /// assert_eq!(FolioStates::combinations(2, 3), 9);
    /// ```
    #[must_use]
    pub fn combinations(most: u64, kinds: u64) -> u64 {
        (1..=most).map(|counts| choose(counts + kinds - 1, kinds - 1)).sum()
    }

    const fn sum(self) -> u64 {
        self.parked + self.live
    }
}

/// Returns the number of states of a block of that order, or `None` if it is beyond `u64`.
///
/// ```
/// use devfolio::Order;
/// use devfolio::model::{FolioStates, expected_states};
///
/// let live_only = FolioStates { parked: 0, live: 1 };
/// assert_eq!(expected_states(Order::new(4).unwrap(), live_only), Some(458_330));
/// let counted = FolioStates { parked: 0, live: 5 };
/// assert_eq!(expected_states(Order::new(3).unwrap(), counted), Some(2_842_601));
/// let lives = FolioStates { parked: 2, live: 1 };
/// assert_eq!(expected_states(Order::new(3).unwrap(), lives), Some(132_499));
/// ```
#[must_use]
pub fn expected_states(order: Order, folio: FolioStates) -> Option<u64> {
    (0..order.as_u8())
        .try_fold(1 + folio.sum(), |half: u64, _| half.checked_mul(half)?.checked_add(folio.sum()))
}

/// Returns the number of states of an extent whose folios have at most the order `max`.
#[must_use]
pub fn expected_states_of(range: PfnRange, max: Order, folio: FolioStates) -> Option<u64> {
    range
        .tiles_up_to(max)
        .try_fold(1u64, |product, (_, order)| product.checked_mul(expected_states(order, folio)?))
}

fn choose(n: u64, k: u64) -> u64 {
    (0..k).fold(1, |product, index| product * (n - index) / (index + 1))
}
