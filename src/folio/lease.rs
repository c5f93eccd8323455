//! Leases: long-term pins whose holder gives them back when told to.
//!
//! A plain pin lasts as long as its holder likes, which a file system that truncates, or a device
//! that is reset, cannot live with. A lease is one pin and a callback. [`Leases::revoke`] closes a
//! range of pages to new leases and tells the holder of each old one, once; the range can be lent
//! again when the last of these has ended. Mirrors the revocation of a VFIO dma-buf, and what
//! `FOLL_LONGTERM` on FS-DAX would take (`F_LAYOUT` leases), which Linux refuses.
//!
//! The crate keeps no list: leases and revocations lie in slots that the embedder lends.
//!
//! # Synchronization
//!
//! | edge | release half | acquire half | what it carries |
//! |------|--------------|--------------|-----------------|
//! | `lease` | [`Leases::lease`] | [`Leases::revoke`] | a lease that comes at that moment is told, or refused |
//! | `visit` | [`Lease::end`] | whoever waits for it | all uses through the lease happen before the wait is over |

use core::fmt;

use super::counted::{FolioPin, PinError, PinKind};
use super::handle::{CountError, Folio};
use super::revoke::{Closed, RevokeSlot};
use crate::meta::Count;
use crate::pgmap::{FolioRef, LongtermPins, PgmapCore, PgmapOps};
use crate::sync::{Ordering, ParkKey, Visited, const_unless_loom, fence};
use crate::units::{Order, Pfn, PfnRange, cold};

/// The holder was told.
pub(super) const TOLD: u64 = Visited::<()>::flag(0);
/// The holder is being told at this moment.
pub(super) const TELLING: u64 = Visited::<()>::flag(1);
/// The lease begins to end: its holder is not told any more.
pub(super) const ENDING: u64 = Visited::<()>::flag(2);
/// The pin is gone.
pub(super) const DEAD: u64 = Visited::<()>::flag(3);
/// Somebody waits for the lease to be dead.
pub(super) const WAITED: u64 = Visited::<()>::flag(4);

/// The leases on the folios of one pgmap, as far as they lie in these slots.
///
/// A view, which is made wherever it is needed. Slots may serve several pgmaps; a pgmap whose
/// leases lie in several sets of slots has to be revoked in each of them. `R` is what a holder is
/// told by: a reference, something counted, or a small value that says which lease it is. It is
/// dropped by whoever is the last to look at the lease, and must not mind where.
///
/// ```
/// # use devfolio::*;
/// # struct Ops;
/// # impl PgmapOps for Ops { type Private = (); }
/// # let range = PfnRange::new(Pfn::new(0), 1024)?;
/// # let nr_lines = MetaSize::of(range, Tables::Dense).lines();
/// # let mut lines: Vec<_> = (0..nr_lines).map(|_| MetaLine::ZERO).collect();
/// # let extents = [const { ExtentSlot::new() }];
/// # let policy = Policy { longterm_pins: LongtermPins::Lease, ..Policy::generic() };
/// # let pgmap = Pgmap::new(Ops, policy, &extents);
/// # pgmap.add_extent(range, ExtentAttrs::NEW, Tables::Dense, &mut lines, Attach::Zeroed)?;
/// struct Importer;
/// impl Revoke for Importer {
///     fn revoked(&self, lease: LeaseInfo) {
///         println!("stop the DMA to {}", lease.head);
///     }
/// }
///
/// let slots = [const { LeaseSlot::new() }; 4];
/// let closed = [const { RevokeSlot::new() }];
/// let leases = Leases::new(&pgmap, &slots, &closed);
///
/// let folio = pgmap.alloc(Order::BLOCK)?.publish();
/// let lease = leases.lease(&folio, Importer)?;
/// let revocation = leases.revoke(folio.range())?; // calls `revoked`
/// assert_eq!(lease.state(), LeaseState::Revoked);
/// assert!(leases.lease(&folio, Importer).is_err(), "nothing new");
/// lease.end();
/// assert_eq!((lease.state(), folio.pincount()), (LeaseState::Dead, 0));
/// revocation.wait(); // nobody is left
/// drop(revocation);
/// assert!(leases.lease(&folio, Importer).is_ok(), "lent again");
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub struct Leases<'t, 'a, O: PgmapOps, R> {
    pub(super) pgmap: &'a PgmapCore<O>,
    pub(super) slots: &'t [LeaseSlot<R>],
    pub(super) closed: &'t [RevokeSlot],
}

/// A place for a lease; the embedder lends as many as there may be leases at a time.
pub struct LeaseSlot<R>(pub(super) Visited<Grant<R>>);

/// What a slot holds.
pub(super) struct Grant<R> {
    /// The address of the pgmap.
    pgmap: usize,
    head: Pfn,
    order: Order,
    pub(super) holder: R,
}

/// How the holder of a lease is told to give it back.
///
/// # Context
///
/// Runs in the context of [`Leases::revoke`], with no lock of this crate held, and may call
/// anything in the crate; it may end the lease by [`Lease::end`], or drop it, but must not wait for
/// itself by [`Lease::end_sync`]. It may run before the call of [`Leases::lease`] that grants the
/// lease has returned on another CPU, and never begins once the lease began to end.
pub trait Revoke: Send + Sync {
    /// Is told that the lease is revoked: stop using the pages, and end the lease soon.
    fn revoked(&self, lease: LeaseInfo);
}

impl<T: Revoke + ?Sized> Revoke for &T {
    fn revoked(&self, lease: LeaseInfo) {
        (**self).revoked(lease);
    }
}

/// Where a lease stands.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum LeaseState {
    /// It serves.
    Ok,
    /// Its holder was told to give it back, or is being told.
    Revoked,
    /// It has ended: its pin is gone.
    Dead,
}

/// What is known of a lease at some moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LeaseInfo {
    /// The first page of its folio.
    pub head: Pfn,
    /// Log2 of the number of pages of its folio.
    pub order: Order,
    /// Where it stands.
    pub state: LeaseState,
}

impl LeaseInfo {
    /// Returns the pages of the folio.
    #[must_use]
    pub const fn range(&self) -> PfnRange {
        PfnRange::block(self.head, self.order)
    }
}

/// Why a lease was refused; nothing changed, and what its holder was to be told by is gone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum LeaseError {
    /// All slots hold leases.
    NoSlot {
        /// How many there are.
        nr_slots: usize,
    },
    /// The folio belongs to another pgmap.
    Elsewhere {
        /// The head of the folio.
        head: Pfn,
    },
    /// The policy grants no long-term pins, leased or not.
    LongtermRefused {
        /// The head of the folio.
        head: Pfn,
    },
    /// The pages are revoked, or an old lease that was told to end has not.
    Revoked {
        /// The first such page of the folio.
        pfn: Pfn,
    },
    /// The pin was not to be had.
    Count(CountError),
}

impl fmt::Display for LeaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSlot { nr_slots } => write!(f, "all {nr_slots} slots hold leases"),
            Self::Elsewhere { head } => write!(f, "folio {head} belongs to another pgmap"),
            Self::LongtermRefused { head } => {
                write!(f, "the policy of folio {head} refuses long-term pins")
            }
            Self::Revoked { pfn } => write!(f, "page {pfn} is being revoked"),
            Self::Count(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for LeaseError {}

impl From<PinError> for LeaseError {
    fn from(error: PinError) -> Self {
        match error {
            PinError::LongtermRefused { head } | PinError::LeaseNeeded { head } => {
                Self::LongtermRefused { head }
            }
            PinError::Count(error) => Self::Count(error),
        }
    }
}

impl<'t, 'a, O: PgmapOps, R: Revoke> Leases<'t, 'a, O, R> {
    /// Looks at slots as those of the leases and revocations of `pgmap`.
    #[must_use]
    pub const fn new(
        pgmap: &'a PgmapCore<O>,
        slots: &'t [LeaseSlot<R>],
        closed: &'t [RevokeSlot],
    ) -> Self {
        Self { pgmap, slots, closed }
    }

    /// Takes a lease on a folio: one long-term pin, which serves any run of its pages, and `holder`
    /// is told when it has to be given back.
    ///
    /// If a revocation comes at that moment, the lease is refused, or it is granted and its holder
    /// told, be it before this returns. Mirrors attaching to a VFIO dma-buf.
    ///
    /// # Errors
    ///
    /// Refused while the pgmap is dying, for want of a slot, by a policy without long-term pins, on
    /// pages that are revoked, to newcomers of a closed folio, and at the limit of pins.
    ///
    /// # Context
    ///
    /// Anywhere where `holder` may be dropped; takes no lock, runs no hook. Walks the slots,
    /// and the folios on pages of revocations that were dropped while there were pins on them.
    pub fn lease(
        &self,
        folio: &Folio<'a, O>,
        holder: R,
    ) -> Result<Lease<'t, 'a, O, R>, LeaseError> {
        let at = folio.at();
        self.sweep();
        at.check_pin(PinKind::Short)?;
        let slot = self.slots.iter().find(|slot| slot.0.claim());
        let slot = slot.ok_or(LeaseError::NoSlot { nr_slots: self.slots.len() })?;
        let pinned = self.check(at).and_then(|()| Ok(at.add_pins(1, PinKind::Short)?));
        // ORDERING(hold): behind the fence of `add_pins`, as there.
        let pinned = pinned.and_then(|()| {
            self.check_policy(at.head).inspect_err(|_| at.sub_owned(Count::Pins, 1))
        });
        if let Err(error) = pinned {
            if !seeded!(LeaseSlotLost) {
                slot.0.unclaim();
            }
            return Err(cold(error));
        }
        let lease = self.grant(slot, at, holder);
        match self.closed_page(lease.range()) {
            // Whoever was told has a lease, which is revoked; nobody else has one.
            Some(pfn) if !seeded!(LeaseSlipsPastRevoke) && lease.end_unless(TOLD | ENDING) => {
                Err(cold(LeaseError::Revoked { pfn }))
            }
            _ => Ok(lease),
        }
    }

    /// Makes a lease of a pin that the caller has; it owes a look at [`Leases::closed_page`].
    pub(super) fn grant(
        &self,
        slot: &'t LeaseSlot<R>,
        at: FolioRef<'a, O>,
        holder: R,
    ) -> Lease<'t, 'a, O, R> {
        let (head, order) = (at.head, at.order());
        slot.0.fill(Grant { pgmap: self.name(), head, order, holder });
        // ORDERING(lease): the one half: the lease can be found before revocations are looked for.
        fence(Ordering::SeqCst);
        Lease { at, order, slot }
    }

    /// Calls `each_fn` with every lease on pages of `range`, in the order of the slots.
    ///
    /// Those that have ended are left out, unless their slot is still in use: by a handle, or by
    /// whoever tells the holder.
    ///
    /// # Context
    ///
    /// Anywhere; takes no lock. Walks the slots. `each_fn` may call anything in the crate; what it
    /// is called with may be stale.
    pub fn for_each(&self, range: PfnRange, mut each_fn: impl FnMut(LeaseInfo)) {
        for slot in self.slots {
            let found = slot.0.visit().and_then(|visit| self.info(slot, visit.value(), range));
            if let Some(lease) = found {
                each_fn(lease);
            }
        }
    }

    /// Says what is in the way of a lease before there is one.
    pub(super) fn check(&self, at: FolioRef<'a, O>) -> Result<(), LeaseError> {
        let head = at.head;
        if !core::ptr::eq(at.pgmap, self.pgmap) {
            return Err(LeaseError::Elsewhere { head });
        }
        self.check_policy(head)?;
        match self.closed_page(at.range(at.order())) {
            Some(pfn) => Err(LeaseError::Revoked { pfn }),
            None => Ok(()),
        }
    }

    /// Refuses leases where no long-term pins are granted at this moment.
    fn check_policy(&self, head: Pfn) -> Result<(), LeaseError> {
        match self.pgmap.core().longterm_pins() {
            LongtermPins::Refuse => Err(LeaseError::LongtermRefused { head }),
            LongtermPins::Allow | LongtermPins::Lease => Ok(()),
        }
    }

    /// Returns the first of the pages that must not be lent.
    pub(super) fn closed_page(&self, pages: PfnRange) -> Option<Pfn> {
        let revoked = self.closed.iter().filter_map(|slot| {
            let visit = slot.0.visit()?;
            let Closed { pgmap, range } = *visit.value();
            let overlap = range.intersection(pages).filter(|_| pgmap == self.name())?;
            (!seeded!(RevokedRelent)).then_some(overlap.start())
        });
        let first = revoked.min();
        // Behind the revocations: where one has ended, those whom it told are seen.
        let old = self.slots.iter().filter_map(|slot| {
            // The flags first: most leases need no look.
            let is_told = slot.0.flags() & (TOLD | DEAD) == TOLD && !seeded!(LeaseRelent);
            let visit = slot.0.visit().filter(|_| is_told)?;
            let lease = self.info(slot, visit.value(), pages)?;
            let is_old = lease.state == LeaseState::Revoked;
            lease.range().intersection(pages).filter(|_| is_old).map(|pages| pages.start())
        });
        first.into_iter().chain(old).min()
    }

    /// Returns what a visitor sees of a lease, if it is one of this pgmap on pages of `range`.
    pub(super) fn info(
        &self,
        slot: &LeaseSlot<R>,
        grant: &Grant<R>,
        range: PfnRange,
    ) -> Option<LeaseInfo> {
        let (head, order) = (grant.head, grant.order);
        let lease = LeaseInfo { head, order, state: slot.state() };
        let overlaps = lease.range().overlaps(range) && grant.pgmap == self.name();
        overlaps.then_some(lease)
    }
}

impl<O: PgmapOps, R> Leases<'_, '_, O, R> {
    /// Returns the address of the pgmap.
    pub(super) fn name(&self) -> usize {
        core::ptr::from_ref(self.pgmap).addr()
    }
}

impl<O: PgmapOps, R> Clone for Leases<'_, '_, O, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<O: PgmapOps, R> Copy for Leases<'_, '_, O, R> {}

impl<O: PgmapOps, R> fmt::Debug for Leases<'_, '_, O, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Leases({} slots, {} for revocations)", self.slots.len(), self.closed.len())
    }
}

impl<R> LeaseSlot<R> {
    const_unless_loom! {
        /// Creates an empty slot.
        #[must_use]
        pub const fn new() -> Self {
            Self(Visited::new())
        }
    }

    fn state(&self) -> LeaseState {
        let flags = self.0.flags();
        if flags & DEAD != 0 {
            LeaseState::Dead
        } else if flags & TOLD != 0 {
            LeaseState::Revoked
        } else {
            LeaseState::Ok
        }
    }
}

impl<R> Default for LeaseSlot<R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R> fmt::Debug for LeaseSlot<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.visit() {
            Some(visit) => write!(f, "LeaseSlot({}, {:?})", visit.value().head, self.state()),
            None => f.write_str("LeaseSlot"),
        }
    }
}

/// A revocable long-term pin on a folio; dropping it ends it.
///
/// # Context
///
/// As for [`FolioPin`]: its end may be that of the last count, which runs the
/// owner's hook. Dropping it does not wait: on another CPU the holder may just be told; what it is
/// told by stays until that is over, and the slot with it. [`Lease::end_sync`] waits.
#[must_use = "dropping it ends the lease"]
pub struct Lease<'t, 'a, O: PgmapOps, R> {
    at: FolioRef<'a, O>,
    order: Order,
    slot: &'t LeaseSlot<R>,
}

impl<'a, O: PgmapOps, R> Lease<'_, 'a, O, R> {
    /// Returns the first page of the folio.
    #[must_use]
    pub const fn head(&self) -> Pfn {
        self.at.head
    }

    /// Returns log2 of the number of pages of the folio.
    #[must_use]
    pub const fn order(&self) -> Order {
        self.order
    }

    /// Returns the pages of the folio. Once the lease has ended they may be anybody's.
    #[must_use]
    pub const fn range(&self) -> PfnRange {
        PfnRange::block(self.at.head, self.order)
    }

    /// Returns where the lease stands: a statistic, but that what is dead stays dead, and what is
    /// revoked does not serve again.
    #[must_use]
    pub fn state(&self) -> LeaseState {
        self.slot.state()
    }

    /// Ends the lease: the pin goes back, and from then on its holder is not told any more.
    ///
    /// Whoever waits for it is woken. The slot stays taken until the handle is dropped. A second
    /// call changes nothing.
    ///
    /// # Context
    ///
    /// As for dropping it.
    pub fn end(&self) {
        let _ = self.end_unless(ENDING);
    }

    /// Ends the lease, and waits until its holder is not being told any more: what it is told by
    /// may go away then, as far as this lease is concerned.
    ///
    /// Mirrors `timer_delete_sync` and its like, as [`Lease::end`] does `timer_delete`.
    ///
    /// # Context
    ///
    /// Where the owner's [`Park`](crate::Park) may sleep, and not in [`Revoke::revoked`] of this
    /// lease, which would wait for itself.
    pub fn end_sync(&self) {
        self.end();
        let key = ParkKey::Lease(self.at.head);
        let is_over = || (self.slot.0.flags() & TELLING == 0).then_some(());
        self.at.pgmap.wait_for(key, None, is_over);
    }

    /// Ends the lease unless one of these flags is up; true if it did.
    fn end_unless(&self, flags: u64) -> bool {
        if self.slot.0.raise(ENDING, flags).is_err() {
            return false;
        }
        // The pin goes first, so that who finds the lease dead finds the folio without it; should
        // the hook of a last put panic, the lease is dead all the same.
        let _dead = Dying(self);
        if !seeded!(LeaseKeepsPin) {
            self.at.sub_owned(Count::Pins, 1);
        }
        true
    }

    /// Ends the lease but for its pin, unless one of these flags is up.
    pub(super) fn into_pin(self, flags: u64) -> Result<FolioPin<'a, O>, Self> {
        if self.slot.0.raise(ENDING, flags).is_err() {
            return Err(self);
        }
        self.say_dead();
        // Dropping it ends it no second time.
        Ok(FolioPin::new(self.at))
    }

    fn say_dead(&self) {
        let before = self.slot.0.raise(DEAD, 0);
        if before.is_ok_and(|before| before & WAITED != 0) && !seeded!(DeadUnsaid) {
            self.at.pgmap.ops().park().unpark_all(ParkKey::Lease(self.at.head));
        }
    }
}

/// A lease that ends: dead once this is dropped.
struct Dying<'l, 'a, 's, O: PgmapOps, R>(&'l Lease<'a, 's, O, R>);

impl<O: PgmapOps, R> Drop for Dying<'_, '_, '_, O, R> {
    fn drop(&mut self) {
        self.0.say_dead();
    }
}

/// Retires the slot of a lease when it is dropped.
struct Retiring<'l, 'a, 's, O: PgmapOps, R>(&'l Lease<'a, 's, O, R>);

impl<O: PgmapOps, R> Drop for Retiring<'_, '_, '_, O, R> {
    fn drop(&mut self) {
        self.0.slot.0.retire();
    }
}

impl<O: PgmapOps, R> Drop for Lease<'_, '_, O, R> {
    fn drop(&mut self) {
        let slot = Retiring(self);
        slot.0.end();
    }
}

impl<O: PgmapOps, R> fmt::Debug for Lease<'_, '_, O, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({}, order {}, {:?})", self.at.head, self.order, self.state())
    }
}
