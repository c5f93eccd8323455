//! What a transition of the state word came to, and what its caller owes.

use crate::units::Order;

/// Why [`Word::add`](super::Word::add) refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub(crate) enum Refused {
    /// No live folio with a count starts here.
    NotLive,
    /// The folio takes no new counts of this kind.
    Closed,
    /// The count would pass its limit.
    Limit { have: u32 },
}

/// Who may add to a closed folio.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Gate {
    /// A holder that duplicates its own count.
    Holder,
    /// Everybody else: speculative gets, pins and mappings.
    Newcomer,
}

/// What the caller of [`Word::sub`](super::Word::sub) and [`Word::put`](super::Word::put) has to
/// do next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use = "whoever drops the last count has to run the free hook"]
pub(crate) enum Dropped {
    /// Others still hold counts; if `wake`, waiters have to be woken.
    StillHeld { wake: bool },
    /// That was the last count: the word is `Unique` and the caller owns the folio. If `wake`,
    /// waiters have to be woken once the verdict took effect.
    Last { order: Order, wake: bool },
}

/// Why [`Word::sub`](super::Word::sub) refused; nothing changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub(crate) enum Underflow {
    /// No live folio with a count starts here.
    NotLive,
    /// Fewer counts of this kind than were to be dropped.
    TooFew { have: u32 },
}

/// The outcome of a successful [`Word::try_freeze`](super::Word::try_freeze).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use = "waiters have to be woken"]
pub(crate) struct Frozen {
    pub(crate) order: Order,
    pub(crate) wake: bool,
}
