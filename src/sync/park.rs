//! How a waiter sleeps: the embedder's business, behind one small trait.

use core::fmt;
use core::task::Waker;

use crate::units::Pfn;

/// What somebody waits for, within one pgmap.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ParkKey {
    /// The counts of the folio whose first page this is.
    Folio(Pfn),
    /// The end of the whole pgmap.
    Removal,
    /// The end of the extent whose first page this is.
    ExtentRemoval(Pfn),
    /// Pages of the extent whose first page this is, which are to be offline.
    Offline(Pfn),
    /// The end of a lease on the folio whose first page this is, or of what its holder is told.
    Lease(Pfn),
    /// The end of what a holder that was detached is still being told.
    Holder,
}

/// Sleeping and waking, keyed by what is waited for; and the clock of deadlines.
///
/// A waiter reads the token, registers itself where the waker looks, looks again at what it waits
/// for, and parks until the token is no longer the one that it read. A waker makes what is waited
/// for true, takes the registration away and then calls [`Park::unpark_all`]; it knows no
/// condition, so every waiter looks again for itself. The queue of sleepers and of [`Waker`]s
/// is the embedder's, who may use one token for several keys: that only wakes more often.
///
/// What is done before a call of `unpark_all` has to happen before what follows a [`Park::token`]
/// that it changed, which a lock around the token gives.
///
/// The methods with a default serve deadlines and futures. Whoever replaces one of `now` and
/// `park_until` replaces the other one, too.
///
/// # Context
///
/// `unpark_all` is called by whoever drops a count, possibly the last one of a pgmap that is being
/// removed, and possibly from an interrupt, with no lock of this crate held. It must not sleep.
/// The others are called by whoever waits; `register_waker` where a future is polled.
pub trait Park: Sync {
    /// Returns the token that changes with every [`Park::unpark_all`] of `key`.
    ///
    /// If `park` always returns soon, nothing has to change.
    fn token(&self, key: ParkKey) -> u64;

    /// Sleeps until the token of `key` differs from `token`; may return early.
    fn park(&self, key: ParkKey, token: u64);

    /// Changes the token of `key` and wakes everybody who parked on it, wakers included.
    fn unpark_all(&self, key: ParkKey);

    /// Returns the time: a number that never decreases, in the unit in which the embedder's users
    /// give deadlines. Nanoseconds since boot will do.
    ///
    /// Without a clock every deadline has passed, so that no wait with one lasts for ever: it looks
    /// once.
    fn now(&self) -> u64 {
        u64::MAX
    }

    /// Sleeps until the token of `key` differs from `token`, or until [`Park::now`] has reached
    /// `deadline`; may return early. The waiter looks at the clock itself.
    ///
    /// By default it returns at once, so that the waiter spins.
    fn park_until(&self, key: ParkKey, token: u64, deadline: u64) {
        let _ = (key, token, deadline);
        super::spin_loop();
    }

    /// Has `waker` woken once as soon as the token of `key` differs from `token`; at once, if it
    /// does already. It may be woken early.
    ///
    /// Called at every poll of a future, mostly with the same waker as before
    /// ([`Waker::will_wake`]). A waker whose future is gone is woken in vain; nothing takes it
    /// back.
    ///
    /// By default it is woken at once, so that the executor polls again and again.
    fn register_waker(&self, key: ParkKey, token: u64, waker: &Waker) {
        let _ = (key, token);
        waker.wake_by_ref();
    }
}

/// The [`Park`] of an embedder without a scheduler: waiters spin, and deadlines have passed.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpinPark;

impl Park for SpinPark {
    fn token(&self, _key: ParkKey) -> u64 {
        0
    }

    fn park(&self, _key: ParkKey, _token: u64) {
        super::spin_loop();
    }

    fn unpark_all(&self, _key: ParkKey) {}
}

/// One sleep of a waiter who has a lock of its own to give up first.
///
/// Given to the closure of a wait such as [`Folio::wait_idle_with`](crate::Folio::wait_idle_with),
/// which unlocks, calls [`Sleep::sleep`] and locks again. The waiter is registered already, so a
/// wake-up between the unlocking and the sleep is not lost.
#[must_use = "a waiter that does not sleep spins"]
pub struct Sleep<'s> {
    park: &'s dyn Park,
    key: ParkKey,
    token: u64,
    deadline: Option<u64>,
}

impl<'s> Sleep<'s> {
    pub(crate) const fn new(
        park: &'s dyn Park,
        key: ParkKey,
        token: u64,
        deadline: Option<u64>,
    ) -> Self {
        Self { park, key, token, deadline }
    }

    /// Sleeps until there may be something new, or the deadline of the wait is there.
    ///
    /// # Context
    ///
    /// Where the owner's [`Park`] may sleep.
    pub fn sleep(self) {
        match self.deadline {
            None => self.park.park(self.key, self.token),
            Some(deadline) => self.park.park_until(self.key, self.token, deadline),
        }
    }
}

impl fmt::Debug for Sleep<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sleep({:?})", self.key)
    }
}

/// Returns whether a deadline is there.
pub(crate) fn has_passed(park: &dyn Park, deadline: Option<u64>) -> bool {
    deadline.is_some_and(|deadline| deadline <= park.now())
}
