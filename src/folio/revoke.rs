//! Taking leases back: a range is closed, holders are told, and somebody waits for the last one.

use core::fmt;

use super::lease::{DEAD, ENDING, Grant, LeaseInfo, LeaseSlot, LeaseState, Leases, Revoke};
use super::lease::{TELLING, TOLD, WAITED};
use super::untold::Untold;
use super::wait::Until;
use crate::pgmap::{FolioInfo, PgmapOps};
use crate::sync::{Ordering, Park, ParkKey, Visit, Visited, const_unless_loom, fence, has_passed};
use crate::units::{Pfn, PfnRange};

/// The guard is gone, and the pages stay closed while pins are left that are no leases.
pub(super) const LINGERS: u64 = Visited::<()>::flag(0);
/// Somebody opens the pages after all.
pub(super) const SWEPT: u64 = Visited::<()>::flag(1);

/// A place for a revocation; the embedder lends as many as there may be at a time.
///
/// One that was dropped while there were pins without a lease keeps its place until they are
/// gone, so slots are not lent to another pgmap before that.
pub struct RevokeSlot(pub(super) Visited<Closed>);

/// A range that is closed to new leases.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closed {
    /// The address of the pgmap.
    pub(super) pgmap: usize,
    pub(super) range: PfnRange,
}

impl RevokeSlot {
    const_unless_loom! {
        /// Creates an empty slot.
        #[must_use]
        pub const fn new() -> Self {
            Self(Visited::new())
        }
    }
}

impl Default for RevokeSlot {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for RevokeSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.visit() {
            Some(visit) => write!(f, "RevokeSlot({})", visit.value().range),
            None => f.write_str("RevokeSlot"),
        }
    }
}

/// Why a range was not revoked; nothing changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RevokeError {
    /// All slots hold revocations.
    NoSlot {
        /// How many there are.
        nr_slots: usize,
    },
}

impl fmt::Display for RevokeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::NoSlot { nr_slots } = self;
        write!(f, "all {nr_slots} slots hold revocations")
    }
}

impl core::error::Error for RevokeError {}

/// Why a wait for leases ended without their end; nothing changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RevokeWaitError {
    /// The deadline has passed.
    Deadline {
        /// The first lease that was left.
        lease: LeaseInfo,
    },
    /// The deadline has passed, and all leases have ended, but not the pins that are older than a
    /// [`Holder`](crate::Holder).
    Pinned {
        /// The first folio that was pinned.
        untold: Untold,
    },
}

impl fmt::Display for RevokeWaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deadline { lease: LeaseInfo { head, order, .. } } => {
                write!(f, "folio {head} of order {order} is still leased")
            }
            Self::Pinned { untold: Untold { head, order, pins } } => {
                write!(f, "folio {head} of order {order} still has {pins} pins")
            }
        }
    }
}

impl core::error::Error for RevokeWaitError {}

impl<'t, 'a, O: PgmapOps, R: Revoke> Leases<'t, 'a, O, R> {
    /// Closes the pages of `range` to new leases, and tells the holder of each lease on one of them
    /// to give it back.
    ///
    /// Each holder is told once in the life of its lease, whoever revokes; one that has begun to
    /// end it is not told at all. The pages need not belong to an extent. Leases of an extent whose
    /// device is gone are revoked like others: the owner calls this in [`PgmapOps::folio_gone`],
    /// and their end is as legal as that of any count. Mirrors `vfio_pci_dma_buf_move`, and the
    /// breaking of an `F_LAYOUT` lease.
    ///
    /// # Errors
    ///
    /// Says that there is no slot for it.
    ///
    /// # Context
    ///
    /// Where the holders may be told, each in turn: [`Revoke::revoked`] says what that is. Takes no
    /// lock, runs no hook but what they cause. Walks the slots.
    pub fn revoke(&self, range: PfnRange) -> Result<Revocation<'t, 'a, O, R>, RevokeError> {
        self.sweep();
        let slot = self.closed.iter().find(|slot| slot.0.claim());
        let slot = slot.ok_or(RevokeError::NoSlot { nr_slots: self.closed.len() })?;
        slot.0.fill(Closed { pgmap: self.name(), range });
        // From here on: a holder that panics opens the range again.
        let mut revocation = Revocation { leases: *self, slot, range, nr_told: 0 };
        // ORDERING(lease): the other half: the range is closed before leases are looked for.
        fence(Ordering::SeqCst);
        for slot in self.slots {
            let is_told = self.tell(slot, range);
            revocation.nr_told = revocation.nr_told.saturating_add(u64::from(is_told));
        }
        Ok(revocation)
    }

    /// Tells the holder of a lease that it is revoked, unless it was told or the lease is ending.
    fn tell(&self, slot: &'t LeaseSlot<R>, range: PfnRange) -> bool {
        let Some(visit) = slot.0.visit() else { return false };
        let Some(lease) = self.info(slot, visit.value(), range) else { return false };
        if seeded!(LeaseUntold) && !range.contains(lease.head) {
            return false;
        }
        let unless = match () {
            () if seeded!(ToldTwice) => ENDING,
            () if seeded!(ToldBehindEnd) => TOLD,
            () => TOLD | ENDING,
        };
        if slot.0.raise(TOLD | TELLING, unless).is_err() {
            return false;
        }
        let key = ParkKey::Lease(lease.head);
        let telling = Telling { visit, slot, park: self.pgmap.ops().park(), key };
        let lease = LeaseInfo { state: LeaseState::Revoked, ..lease };
        telling.visit.value().holder.revoked(lease);
        true
    }

    /// Returns the lease on the lowest page of `range` that is not dead, with its slot.
    fn first_left(&self, range: PfnRange) -> Option<(LeaseInfo, &'t LeaseSlot<R>)> {
        let left = self.slots.iter().filter_map(|slot| {
            let lease = self.info(slot, slot.0.visit()?.value(), range)?;
            (lease.state != LeaseState::Dead).then_some((lease, slot))
        });
        left.min_by_key(|(lease, _)| lease.head)
    }
}

/// A call of a holder, which may panic.
struct Telling<'t, R> {
    visit: Visit<'t, Grant<R>>,
    slot: &'t LeaseSlot<R>,
    park: &'t dyn Park,
    key: ParkKey,
}

impl<R> Drop for Telling<'_, R> {
    fn drop(&mut self) {
        self.slot.0.lower(TELLING);
        // For whoever waits in `Lease::end_sync`.
        self.park.unpark_all(self.key);
    }
}

/// A range of pages that is closed to new leases, as long as this lives.
///
/// When it is dropped, the range can be lent again, but for pages of leases that were told to end
/// and have not: those stay closed until they do, so nothing is lent twice by forgetting to wait.
/// Under a [`Holder`](crate::Holder) who has it that long-term pins are leases there may be older
/// ones that nobody can be told of: then all of the range stays closed, and the slot taken, until
/// no page of it is pinned. Leaking it keeps the range closed.
///
/// # Context
///
/// Dropped anywhere; takes no lock. Under such a holder it walks the folios of the range.
#[must_use = "dropping it opens the range again"]
pub struct Revocation<'t, 'a, O: PgmapOps, R> {
    leases: Leases<'t, 'a, O, R>,
    slot: &'t RevokeSlot,
    range: PfnRange,
    nr_told: u64,
}

impl<O: PgmapOps, R: Revoke> Revocation<'_, '_, O, R> {
    /// Returns the pages.
    #[must_use]
    pub const fn range(&self) -> PfnRange {
        self.range
    }

    /// Returns how many holders were told by this revocation.
    #[must_use]
    pub const fn nr_told(&self) -> u64 {
        self.nr_told
    }

    /// Returns the first lease, by page, that has not ended; `None` if all have.
    ///
    /// [`Leases::for_each`] names them all.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock. Walks the slots.
    #[must_use]
    pub fn first_left(&self) -> Option<LeaseInfo> {
        Some(self.leases.first_left(self.range)?.0)
    }

    /// Returns the first folio, by page, whose pins are waited for without being leases; `None` if
    /// all are gone, or if there is no holder who has it that long-term pins are leases.
    ///
    /// Those of leases are counted as well, as long as they have not ended.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock. Walks the folios of the range.
    #[must_use]
    pub fn first_pinned(&self) -> Option<Untold> {
        let FolioInfo { head, order, pins, .. } = self.leases.first_old_pin(self.range)?;
        Some(Untold { head, order, pins })
    }

    /// Waits until every lease on the pages has ended.
    ///
    /// What was done through the leases is behind it. Pins that are no leases are not waited for:
    /// [`Folio::wait_unpinned`](crate::Folio::wait_unpinned) does that. But as long as a
    /// [`Holder`](crate::Holder) has it that long-term pins are leases, all pins are waited for,
    /// since any may be a long-term one that is older; revoke in all sets of slots first, and
    /// close the folios if short pins could go on for ever. A holder that goes wakes nobody.
    ///
    /// # Context
    ///
    /// Where the owner's [`Park`] may sleep, and where no holder waits for the caller. The end of a
    /// lease wakes.
    pub fn wait(&self) {
        // Without a deadline there is no error.
        let _ = self.wait_to(None);
    }

    /// Waits until every lease on the pages has ended, but not beyond `deadline`, a time of
    /// [`Park::now`]. Looks at least once.
    ///
    /// # Errors
    ///
    /// Returns [`RevokeWaitError::Deadline`] with the first lease that is left; if none is,
    /// [`RevokeWaitError::Pinned`] with the first folio that is waited for.
    ///
    /// # Context
    ///
    /// As for [`Revocation::wait`]; with a deadline that has passed, anywhere.
    pub fn wait_until(&self, deadline: u64) -> Result<(), RevokeWaitError> {
        self.wait_to(Some(deadline))
    }

    fn wait_to(&self, deadline: Option<u64>) -> Result<(), RevokeWaitError> {
        let park = self.leases.pgmap.ops().park();
        // Ends: when the last of the leases has ended, and of the pins that are waited for, each of
        // which ends a sleep; or at the deadline.
        loop {
            let left = self.leases.first_left(self.range);
            let pinned = if left.is_none() { self.first_pinned() } else { None };
            let (key, error) = match (&left, pinned) {
                (&Some((lease, _)), _) => {
                    (ParkKey::Lease(lease.head), RevokeWaitError::Deadline { lease })
                }
                (None, Some(untold)) => {
                    (ParkKey::Folio(untold.head), RevokeWaitError::Pinned { untold })
                }
                (None, None) => return Ok(()),
            };
            if has_passed(park, deadline) {
                return Err(error);
            }
            let token = park.token(key);
            let is_registered = match left {
                Some((lease, slot)) => self.register(slot, &lease),
                None => pinned.is_some_and(|untold| self.register_pin(untold.head)),
            };
            match deadline {
                _ if !is_registered => {}
                Some(deadline) => park.park_until(key, token, deadline),
                None => park.park(key, token),
            }
        }
    }

    /// Has the end of a pin of the folio wake; false if it is not the first one any more.
    fn register_pin(&self, head: Pfn) -> bool {
        // What is there by now is looked at, not what was.
        let found = self.leases.pgmap.find(head).filter(|(at, _)| at.head == head);
        found.is_some_and(|(at, _)| at.register_for(Until::Unpinned, self.range))
    }

    /// Has the end of a lease wake; false if it has ended, and another one may have its slot.
    /// Whoever gives up need not take it back: somebody is woken in vain then.
    fn register(&self, slot: &LeaseSlot<R>, lease: &LeaseInfo) -> bool {
        let Some(visit) = slot.0.visit() else { return false };
        let found = self.leases.info(slot, visit.value(), self.range);
        found.is_some_and(|it| it.head == lease.head) && slot.0.raise(WAITED, DEAD).is_ok()
    }
}

impl<O: PgmapOps, R> Drop for Revocation<'_, '_, O, R> {
    fn drop(&mut self) {
        if self.leases.first_old_pin(self.range).is_some() {
            // Whoever asks for a lease, or revokes, opens it once they are gone.
            let _ = self.slot.0.raise(LINGERS, 0);
            return;
        }
        self.slot.0.retire();
    }
}

impl<O: PgmapOps, R> fmt::Debug for Revocation<'_, '_, O, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Revocation({}, {} told)", self.range, self.nr_told)
    }
}
